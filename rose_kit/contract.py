"""What every method and every encoder must do: the contract that makes them interchangeable.

Each check is one function that raises `Failed`, whose message says what was seen and what is expected.
Methods are tried on a toy problem of clustered patches, encoders on a small image. The tests run the contract
over everything that is registered, `rose-kit check FILE` over a plugin.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rose_kit.encoder import NoTextTower
from rose_kit.fusion import Method, SupportExample
from rose_kit.memory import SupportMemory
from rose_kit.registry import encoders, load_plugin, methods
from rose_kit.types import Evidence, FeatureMap, Prediction, Query, Vocabulary, unit

NAMES = ("sky", "bus", "cat", "tree")
PER_CLASS = 3  # patches of the image, and prototypes of the memory
Make = Callable[[], Any]


class Failed(Exception):
    """A check did not pass; the message says what was seen and what is expected."""


def require(holds: bool | np.bool_, otherwise: str) -> None:
    """Raise `Failed` with the message `otherwise` unless a condition holds."""
    if not holds:
        raise Failed(otherwise)


# --- methods ------------------------------------------------------------------------------------------------


@dataclass
class ToyProblem:
    """Patches in clusters around their classes, with a memory and texts that agree where they are clear.

    Args:
        dim: D.
        noise: spread of the clusters; 0.04 is clear.
    """

    dim: int = 32
    noise: float = 0.04

    def __post_init__(self) -> None:
        rng, size = np.random.default_rng(0), len(NAMES)
        self.labels = np.arange(size).repeat(PER_CLASS)  # (N,) class of each patch
        centres = unit(rng.normal(size=(size, self.dim)))  # (C, D)
        scatter = rng.normal(0, self.noise, (2, size * PER_CLASS, self.dim))
        self.features, vectors = (unit(centres[self.labels] + shift) for shift in scatter)  # (N, D) each
        images = [f"image {i % PER_CLASS}" for i in range(len(vectors))]
        owners = [NAMES[c] for c in self.labels]
        self.memory = SupportMemory.from_prototypes(vectors, owners, images)
        self.vocabulary = Vocabulary(NAMES, centres)

    def grid(self, turn: int = 0) -> FeatureMap:
        """The patches as an image has them, a class to a row; another image by turning the rows."""
        size = (len(NAMES), PER_CLASS)
        return FeatureMap(np.roll(self.features.reshape(*size, -1), turn, axis=0), 1, size, size)

    def support(self) -> list[SupportExample]:
        """Labelled images as `fit` takes them."""
        return [(self.grid(), self.labels, image) for image in self.memory.images]

    def fitted(self, make: Make, memory: SupportMemory, vocabulary: Vocabulary) -> Method:
        """A copy of the method, fitted as an evaluation fits it."""
        method = copy.deepcopy(make())
        return method.fit(memory, vocabulary, self.support()) if hasattr(method, "fit") else method

    def ask(
        self,
        method: Method,
        memory: SupportMemory | None = None,
        vocabulary: Vocabulary | None = None,
        query: Any = None,
    ) -> NDArray:
        """(N, C) what a method says of the image, or of another query; checked to be probabilities."""
        memory, vocabulary = self.memory if memory is None else memory, vocabulary or self.vocabulary
        prediction = method.predict(self.grid() if query is None else query, memory, vocabulary)
        kind = type(prediction).__name__
        require(isinstance(prediction, Prediction), f"predict returned {kind}, not a Prediction")
        p, size = np.asarray(prediction), (len(self.features), len(vocabulary))
        require(p.shape == size, f"probabilities have the shape {p.shape}, not (patches, classes) = {size}")
        require(np.isfinite(p).all(), f"{(~np.isfinite(p)).any(1).sum()} of {len(p)} rows are not finite")
        low, high = p.sum(1).min(), p.sum(1).max()
        require(max(1 - low, high - 1) <= 1e-3, f"rows add up to {low:.3g} to {high:.3g}, not to 1")
        require(p.min() >= -1e-6, f"the smallest probability is {p.min():.3g}")
        return p

    def answer(
        self,
        make: Make,
        memory: SupportMemory | None = None,
        vocabulary: Vocabulary | None = None,
        query: Any = None,
    ) -> NDArray:
        """As `ask`, of a method that is made and fitted for this."""
        memory, vocabulary = self.memory if memory is None else memory, vocabulary or self.vocabulary
        return self.ask(self.fitted(make, memory, vocabulary), memory, vocabulary, query)

    def require_right(self, p: NDArray, truth: NDArray, where: str) -> None:
        """Most patches must get their class."""
        right = int((p.argmax(1) == truth).sum())
        require(right > len(truth) / 2, f"{right} of {len(truth)} patches right {where}; expected most")


def probabilities(make: Make, problem: ToyProblem) -> None:
    """A feature map, a query and a bare array are answered alike, and rightly where it is easy."""
    require(
        "initial_weight" in inspect.signature(make().predict).parameters, "predict lacks initial_weight=None"
    )
    queries = [problem.grid(), Query.of(problem.grid())]
    if not getattr(make(), "needs_grid", False):
        queries.append(problem.features)
    answers = [problem.answer(make, query=query) for query in queries]
    gap = max(np.abs(p - answers[0]).max() for p in answers)
    require(gap <= 1e-4, f"a feature map, a Query and an array of the same patches differ by up to {gap:.2g}")
    problem.require_right(answers[0], problem.labels, "where names and memory agree")


def determinism(make: Make, problem: ToyProblem) -> None:
    """It answers alike whenever it is made, and whatever was asked before; and it changes nothing."""
    clear, problem = problem, ToyProblem(problem.dim, noise=0.4)  # unclear, so that chance shows
    before = problem.features.copy(), problem.memory.vectors.copy()
    first, second = problem.answer(make), problem.answer(make)
    gap = np.abs(first - second).max()
    require(gap <= 1e-6, f"two runs differ by up to {gap:.2g}; draw with a seed of the method's own")
    method = problem.fitted(make, problem.memory, problem.vocabulary)
    other = problem.answer(make, query=problem.grid(1))
    for turn, fresh in ((0, first), (1, other), (0, first)):
        gap = np.abs(problem.ask(method, query=problem.grid(turn)) - fresh).max()
        require(gap <= 1e-4, f"after another image, a fresh copy answers otherwise by up to {gap:.2g}")
    truth = np.roll(clear.labels, PER_CLASS)  # what is kept outside the method fools the fresh copies too
    clear.require_right(clear.answer(make, query=clear.grid(1)), truth, "in a second image")
    after = problem.features, problem.memory.vectors
    require(all(map(np.array_equal, before, after)), "the features or the memory were changed")


def missing_support(make: Make, problem: ToyProblem) -> None:
    """A class without a prototype, a memory of one row, classes without text, and an empty memory."""
    memory, vocabulary, no_text = problem.memory, problem.vocabulary, Vocabulary(NAMES)
    for ids in (memory.ids[memory.class_names != NAMES[-1]], memory.ids[:1]):
        problem.answer(make, memory.subset(ids))
    problem.answer(make, vocabulary=vocabulary.without_text(NAMES[:1]))
    if not getattr(make(), "needs_text", False):
        problem.answer(make, vocabulary=no_text)
    empty = SupportMemory(problem.dim)
    problem.answer(make, empty)
    try:
        p = problem.answer(make, empty, no_text)
    except ValueError:
        return
    # A method may have learned the classes from the labelled images of `fit`; else it guesses.
    problem.require_right(p, problem.labels, "with neither text nor a prototype, where ValueError is due")


def open_vocabulary(make: Make, problem: ToyProblem) -> None:
    """Classes in another order or fewer of them, asked of the method as it is fitted."""
    method = problem.fitted(make, problem.memory, problem.vocabulary)

    def ask(order: list[int]) -> NDArray:
        names = [NAMES[c] for c in order]
        return problem.ask(method, vocabulary=Vocabulary(names, problem.vocabulary.text[order]))

    turned = [2, 0, 3, 1]
    gap = np.abs(ask(turned) - ask([0, 1, 2, 3])[:, turned]).max()
    require(gap <= 1e-3, f"columns do not follow the order of the vocabulary: off by up to {gap:.2g}")
    known = np.isin(problem.labels, (1, 3))
    problem.require_right(ask([3, 1])[known], problem.labels[known] == 1, "among two of its classes")


def evidence(make: Make, problem: ToyProblem) -> None:
    """Evidence is None, or names patches that were asked and prototypes that the memory holds."""
    method = problem.fitted(make, problem.memory, problem.vocabulary)
    given = method.predict(problem.grid(), problem.memory, problem.vocabulary).evidence
    if given is None:
        return
    require(isinstance(given, Evidence), f"evidence is {type(given).__name__}, neither None nor Evidence")
    for what, ids, known in (
        ("patches", given.query, range(len(problem.features))),
        ("prototypes", given.prototype_id, [-1, *problem.memory.ids]),
    ):
        unknown = sorted(set(ids.tolist()) - set(known))
        require(not unknown, f"evidence names {what} {unknown[:3]} that do not exist")
    require(np.isfinite(given.weight).all(), "evidence has weights that are not finite")


# --- encoders -----------------------------------------------------------------------------------------------

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def features(make: Make) -> None:
    """A feature map that covers the image, of the size of patches and the width that the encoder says."""
    encoder = make()
    made = encoder.encode_image(IMAGE.copy())
    require(isinstance(made, FeatureMap), f"encode_image returned {type(made).__name__}, not a FeatureMap")
    size, patch = IMAGE.shape[:2], encoder.patch_size
    require(made.image_size == size, f"image_size is {made.image_size} for an image of {size}")
    require(made.patch_size == patch, f"patches of {made.patch_size} px, but the encoder says {patch}")
    _require_unit_rows(made.flat(), encoder.dim, "features")


def repeatable(make: Make) -> None:
    """The same image gives the same features, alone or beside another, and is not changed."""
    encoder, image = make(), IMAGE.copy()
    first = encoder.encode_image(image).values
    require(np.array_equal(image, IMAGE), "encode_image changed the image it was given")
    gap = np.abs(encoder.encode_image(IMAGE.copy()).values - first).max()
    require(gap <= 1e-5, f"the same image is encoded differently the second time, by up to {gap:.2g}")
    if hasattr(encoder, "encode_images"):
        beside = encoder.encode_images([IMAGE[::-1].copy(), IMAGE.copy()])[1].values
        gap = np.abs(beside - first).max()
        require(gap <= 1e-4, f"an image is encoded differently beside another image, by up to {gap:.2g}")
    prints = encoder.fingerprint, make().fingerprint
    require(isinstance(prints[0], str) and len({*prints}) == 1, f"fingerprint is not one text: {prints}")


def text(make: Make) -> None:
    """Class names give rows of the same width, each the same whatever is beside it; or `NoTextTower`."""
    encoder = make()
    try:
        both, alone = (np.asarray(encoder.encode_text(names)) for names in (["sky", "bus"], ["bus"]))
    except NoTextTower:
        return
    require(len(both) == 2, f"encode_text of 2 names has the shape {both.shape}")
    _require_unit_rows(both, encoder.dim, "text features")
    gap = np.abs(alone[0] - both[1]).max()
    require(gap <= 1e-5, f"a name is encoded differently beside another name, by up to {gap:.2g}")


def _require_unit_rows(rows: ArrayLike, dim: int, what: str) -> None:
    lengths = np.linalg.norm(rows, axis=1)
    require(rows.shape[1] == dim, f"{what} are {rows.shape[1]} wide, but the encoder says dim = {dim}")
    require(
        np.abs(lengths - 1).max() <= 1e-3,
        f"{what} have lengths from {lengths.min():.3g} to {lengths.max():.3g}, not 1",
    )


# --- reports ------------------------------------------------------------------------------------------------

METHOD_CHECKS: dict[str, Callable[[Make, ToyProblem], None]] = {
    "probabilities": probabilities,
    "determinism": determinism,
    "missing support": missing_support,
    "open vocabulary": open_vocabulary,
    "evidence": evidence,
}
ENCODER_CHECKS: dict[str, Callable[[Make], None]] = {
    "features": features,
    "repeatable": repeatable,
    "text": text,
}


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Args:
        name: what was checked.
        passed: whether it held.
        detail: what was seen, and what is expected.
    """

    name: str
    passed: bool
    detail: str = ""


def check_method(make: Make, file: str | Path | None = None) -> list[Check]:
    """Try a method on everything an evaluation may ask of it.

    Args:
        make: called without arguments, gives the method; a class with defaults will do.
        file: where its code is, so that an error names the line.

    Returns:
        One outcome per check.
    """
    return _outcomes(METHOD_CHECKS, file, lambda: (make, ToyProblem(getattr(make(), "dim", ToyProblem.dim))))


def check_encoder(make: Make, file: str | Path | None = None) -> list[Check]:
    """Try an encoder on a small image and two class names; `make` and `file` as for `check_method`."""
    return _outcomes(ENCODER_CHECKS, file, lambda: (make,))


def check_plugin(path: str | Path) -> dict[str, list[Check]]:
    """Load a plugin file and check each of its methods and encoders.

    Args:
        path: of the file.

    Returns:
        name of the method or encoder -> its outcomes.

    Raises:
        ValueError: the file cannot be loaded, or registers neither.
    """
    names = load_plugin(path)
    if not names["method"] and not names["encoder"]:
        raise ValueError(f"plugin {str(path)!r} has no @register_method('a-name') nor @register_encoder")
    checked = {name: check_method(methods[name], path) for name in names["method"]}
    return checked | {name: check_encoder(encoders[name], path) for name in names["encoder"]}


def _outcomes(
    checks: Mapping[str, Callable], file: str | Path | None, arguments: Callable[[], tuple]
) -> list[Check]:
    outcomes = []
    for name, check in checks.items():
        try:
            check(*arguments())
        except Failed as error:
            outcomes.append(Check(name, False, str(error)))
        except Exception as error:  # whatever the user's own code raises
            outcomes.append(Check(name, False, _in_one_line(error, file)))
        else:
            outcomes.append(Check(name, True))
    return outcomes


def _in_one_line(error: Exception, file: str | Path | None) -> str:
    """An error's type and message, and the line of the user's file that it comes from."""
    own = [f"line {f.lineno}, {f.name}" for f in traceback.extract_tb(error.__traceback__)
           if file is not None and Path(f.filename).resolve() == Path(file).resolve()]  # fmt: skip
    where = f" ({own[-1]})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
