"""What every method and every encoder must do: the contract that makes them interchangeable.

Each check is one function that raises `Failed`, whose message says what was seen and what is expected.
Methods are tried on a toy problem of clustered patches, encoders on a small image. The tests run the contract
over everything that is registered, `rose-kit check FILE` over a plugin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rose_kit.encoder import NoTextTower
from rose_kit.fusion import Method
from rose_kit.fusion.evidence import winning_change
from rose_kit.memory import SupportMemory
from rose_kit.registry import describe_error, encoders, load_plugin, methods
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary, unit

NAMES = ("sky", "bus", "cat", "tree")
PER_CLASS = 3  # patches of the image, and prototypes of the memory
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
TOLERANCE = 0.5  # of the changes that effects predict, all together; a wrong sign makes 2, a factor of two 1
Make = Callable[[], Any]  # makes a method or an encoder; a class with defaults will do


class Failed(AssertionError):
    """A check did not pass; the message says what was seen and what is expected."""


def require(holds: bool | np.bool_, otherwise: str) -> None:
    """Raise `Failed` with the message `otherwise` unless a condition holds."""
    if not holds:
        raise Failed(otherwise)


def require_equal(values: ArrayLike, expected: ArrayLike, tolerance: float, otherwise: str) -> None:
    """Raise `Failed` if arrays differ by more than the tolerance anywhere, or hold NaN."""
    gap = np.abs(np.asarray(values) - expected).max()
    require(gap <= tolerance, f"{otherwise}, by up to {gap:.2g}")


def require_right(p: NDArray, labels: NDArray, where: str) -> None:
    """Raise `Failed` unless most of the (N, C) probabilities are highest for their (N,) label."""
    right = int((p.argmax(1) == labels).sum())
    require(right > len(p) / 2, f"{right} of {len(p)} patches right {where}; expected most")


# --- methods ------------------------------------------------------------------------------------------------


class ToyProblem:
    """Patches of four classes, with a memory and texts that agree where the class is clear.

    Two of the three patches of a class are clear; the third lies between two classes, so that chance shows.

    Args:
        make: the problem has the width D that its method needs.
        **changes: another memory or vocabulary.

    Attributes:
        image: the N patches, a class to a row.
        labels: (N,) class of each patch.
        support: the labelled image as `fit` takes it, once for each image of the memory.
        memory: a prototype per class and image.
        vocabulary: the C classes, with text.
    """

    def __init__(self, make: Make, **changes: Any) -> None:
        rng, dim, grid = np.random.default_rng(0), getattr(make(), "dim", 32), (len(NAMES), PER_CLASS)
        centres = unit(rng.normal(size=(len(NAMES), dim)))  # (C, D)
        clusters = np.stack([centres, centres, centres + np.roll(centres, 1, axis=0)], axis=1)  # (C, 3, D)
        patches, vectors = unit(clusters + rng.normal(0, 0.04, (2, *clusters.shape)))
        self.image = FeatureMap(patches, 1, grid, grid)
        self.labels = np.arange(len(NAMES)).repeat(PER_CLASS)
        names, image_ids = [NAMES[c] for c in self.labels], ["image 0", "image 1", "image 2"]
        self.memory = SupportMemory.from_prototypes(vectors.reshape(-1, dim), names, image_ids * len(NAMES))
        self.support = [(self.image, self.labels, image_id) for image_id in image_ids]
        self.vocabulary = Vocabulary(NAMES, centres)
        vars(self).update(changes)

    def fit(self, make: Make) -> Method:
        """A copy of a method, fitted as an evaluation fits it."""
        method = copy.deepcopy(make())
        return method.fit(self.memory, self.vocabulary, self.support) if hasattr(method, "fit") else method

    def predict(self, method: Method, query: Any) -> NDArray:
        """(N, C) what a fitted method answers; checked to be probabilities, with evidence that exists."""
        prediction = method.predict(query, self.memory, self.vocabulary, initial_weight=None)
        what = type(prediction).__name__
        require(isinstance(prediction, Prediction), f"predict returned {what}, not a Prediction")
        p, size = np.asarray(prediction), (len(self.labels), len(self.vocabulary))
        require(p.shape == size, f"probabilities have the shape {p.shape}, not (patches, classes) = {size}")
        require_equal(p.sum(1), 1, 1e-3, "rows do not add up to 1")
        require(p.min() >= -1e-6, f"the smallest probability is {p.min():.3g}")
        if (evidence := prediction.evidence) is not None:  # what it claims: see the check `evidence`
            unknown = np.setdiff1d(evidence.prototype_id, [-1, *self.memory.ids])  # -1: text and the rest
            require(not len(unknown), f"evidence names prototypes {unknown} that do not exist")
            unknown = np.setdiff1d(evidence.query, range(len(p)))
            require(not len(unknown), f"evidence names patches {unknown} that do not exist")
            require(np.isfinite(evidence.weight).all(), "evidence has weights that are not finite")
        return p


def predictions(make: Make) -> None:
    """Right where it is easy, the same from any copy and after any other image; and nothing is changed."""
    problem, untouched = ToyProblem(make), ToyProblem(make)
    image = problem.image
    turned = FeatureMap(np.roll(image.values, 1, axis=0), image.patch_size, image.grid, image.grid)
    first, second = (problem.predict(problem.fit(make), query) for query in (image, turned))
    require_right(first, problem.labels, "where names and memory agree")
    require_right(second, np.roll(problem.labels, PER_CLASS), "in a second image; keep no global state")
    queries = [(turned, second), (image, first), (Query.of(image), first), (image.flat(), first)]
    if getattr(make(), "needs_grid", False):
        queries.pop()
    method = problem.fit(make)
    for query, expected in queries:
        what = f"another copy of the method answers a {type(query).__name__} differently after another query"
        require_equal(problem.predict(method, query), expected, 1e-4, what)
    require(np.array_equal(image.values, untouched.image.values), "the features were changed")
    require(np.array_equal(problem.memory.vectors, untouched.memory.vectors), "the memory was changed")


def missing_support(make: Make) -> None:
    """A class without a prototype, a memory of one row or none, classes without text, and neither."""
    problem, no_text = ToyProblem(make), Vocabulary(NAMES)
    memory = problem.memory
    without_last = memory.ids[memory.class_names != NAMES[-1]]
    partial = [ToyProblem(make, memory=memory.subset(ids)) for ids in (without_last, memory.ids[:1], [])]
    partial.append(ToyProblem(make, vocabulary=problem.vocabulary.without_text(NAMES[:1])))
    if not getattr(make(), "needs_text", False):
        partial.append(ToyProblem(make, vocabulary=no_text))
    for one in partial:
        one.predict(one.fit(make), one.image)
    nothing = ToyProblem(make, memory=memory.subset([]), vocabulary=no_text)
    with suppress(ValueError):
        p = nothing.predict(nothing.fit(make), nothing.image)
        # A method may have learned the classes from the labelled images of `fit`; else it guesses.
        require_right(p, problem.labels, "with neither text nor a prototype, where ValueError is due")


def open_vocabulary(make: Make) -> None:
    """Classes in another order, or fewer of them, asked of the method as it is fitted."""
    problem, answers = ToyProblem(make), []
    method, shown = problem.fit(make), problem.labels % 2 == 1  # patches of classes 1 and 3
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [3, 1]):
        vocabulary = Vocabulary([NAMES[c] for c in order], problem.vocabulary.text[order])
        answers.append(ToyProblem(make, vocabulary=vocabulary).predict(method, problem.image))
    whole, turned, two = answers
    require_right(two[shown], problem.labels[shown] == 1, "among two of its classes")
    require_equal(turned, whole[:, [2, 0, 3, 1]], 1e-3, "columns do not follow the order of the vocabulary")


def evidence(make: Make) -> None:
    """Weights add up to the winning score; without a prototype, the score changes as its effect says."""
    problem = ToyProblem(make)
    method, memory, vocabulary = problem.fit(make), problem.memory, problem.vocabulary
    answer = method.predict(problem.image, memory, vocabulary)
    if answer.evidence is None:
        return
    claimed = answer.evidence.with_effects()
    known = np.flatnonzero(~np.isnan(claimed.effect))
    if answer.scores is None:
        require(not len(known), "evidence has effects, but the prediction has no scores to compare them with")
        return
    totals = np.bincount(claimed.query, claimed.weight, len(problem.labels))
    listed, what = np.unique(claimed.query), "the weights of a patch do not add up to its winning score"
    require_equal(totals[listed], answer.scores.max(1)[listed], 0.01, what)
    true = np.zeros(len(known), np.float32)
    for i in np.unique(claimed.prototype_id[known]):
        again = method.predict(problem.image, memory.subset(memory.ids[memory.ids != i]), vocabulary)
        change = winning_change(answer.scores, again.scores, answer.scores.argmax(1))  # (N,)
        own = claimed.prototype_id[known] == i
        true[own] = change[claimed.query[known][own]]
    gap, size = (float(np.linalg.norm(x)) for x in (claimed.effect[known] - true, true))
    said = f"effects differ by {gap:.2g} in all from the changes without each prototype, which are {size:.2g}"
    require(gap <= TOLERANCE * size + 1e-3, said)


# --- encoders -----------------------------------------------------------------------------------------------


def images(make: Make) -> None:
    """An image gives features as the encoder says, the same alone or beside another, and is not changed."""
    encoder, image = make(), IMAGE.copy()
    feature_map = encoder.encode_image(image)
    require(np.array_equal(image, IMAGE), "encode_image changed the image it was given")
    seen = feature_map.image_size, feature_map.patch_size, feature_map.dim
    expected = IMAGE.shape[:2], encoder.patch_size, encoder.dim
    require(seen == expected, f"image size, patch size and width of the features are {seen}, not {expected}")
    first = feature_map.values
    require_equal(np.linalg.norm(first, axis=-1), 1, 1e-3, "features are not of length 1")
    again = [encoder.encode_image(IMAGE.copy())]
    if hasattr(encoder, "encode_images"):
        again += encoder.encode_images([IMAGE[::-1].copy(), IMAGE.copy()])[1:]
    values = [other.values for other in again]
    require_equal(values, first, 1e-4, "an image is encoded differently again or beside another")
    fingerprints = {encoder.fingerprint, make().fingerprint}
    require(len(fingerprints) == 1, f"the fingerprint is another one each time: {sorted(fingerprints)}")


def text(make: Make) -> None:
    """Class names give rows of length 1, each the same whatever is beside it; or `NoTextTower`."""
    encoder = make()
    with suppress(NoTextTower):
        both, alone = (np.asarray(encoder.encode_text(names)) for names in (["sky", "bus"], ["bus"]))
        size = (2, encoder.dim)
        require(both.shape == size, f"encode_text of 2 names has the shape {both.shape}, not {size}")
        require_equal(np.linalg.norm(both, axis=1), 1, 1e-3, "text features are not of length 1")
        require_equal(alone[0], both[1], 1e-5, "a name is encoded differently beside another name")


# --- reports ------------------------------------------------------------------------------------------------

CHECKS = {"method": (predictions, missing_support, open_vocabulary, evidence), "encoder": (images, text)}


def run_checks(kind: str, make: Make, file: Path | None = None) -> dict[str, str]:
    """Try a method or an encoder on everything an evaluation may ask of it.

    Args:
        kind: "method" or "encoder".
        make: called without arguments, gives the method or the encoder.
        file: absolute path of its code, so that an error names the line.

    Returns:
        name of the check -> what is wrong; "" where nothing is.
    """
    failures = {}
    for check in CHECKS[kind]:
        name = check.__name__.replace("_", " ")
        failures[name] = ""
        try:
            check(make)
        except Exception as error:  # of a check, or whatever the user's own code raises
            failures[name] = str(error) if isinstance(error, Failed) else describe_error(error, file)
    return failures


def check_plugin(path: str | Path) -> dict[str, dict[str, str]]:
    """Load a plugin file and check each of its methods and encoders.

    Args:
        path: of the file.

    Returns:
        name of the method or encoder -> its checks, as from `run_checks`.

    Raises:
        ValueError: the file cannot be loaded, or registers neither.
    """
    names, file = load_plugin(path), Path(path).resolve()
    checked = {name: run_checks("method", methods[name], file) for name in names["method"]}
    checked |= {name: run_checks("encoder", encoders[name], file) for name in names["encoder"]}
    if not checked:
        raise ValueError(f"plugin {str(path)!r} has no @register_method('a-name') nor @register_encoder")
    return checked
