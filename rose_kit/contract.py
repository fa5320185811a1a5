"""What every method and every encoder must do: the contract that makes them interchangeable.

Each check is one function that raises `Failed` with what is wrong; `MENDS` says what usually mends it.
Methods are tried on a small world of clustered patches, encoders on a small image. The tests run the contract
over everything that is registered, `rose-kit check FILE` over a plugin.
"""

from __future__ import annotations

import copy
import inspect
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.encoder import NoTextTower
from rose_kit.fusion import KnnClip
from rose_kit.memory import SupportMemory
from rose_kit.registry import encoders, load_plugin, methods
from rose_kit.types import Evidence, FeatureMap, Prediction, Query, Vocabulary, unit

NAMES = ("sky", "bus", "cat", "tree")
Make = Callable[[], Any]


class Failed(Exception):
    """A check did not pass; the message says what was seen."""


@dataclass
class World:
    """Patches in clusters around their classes, with a memory and texts that agree where they are clear.

    Args:
        classes, patches, rows: C; patches per class; prototypes per class.
        dim: D.
        noise: spread of the clusters; 0.04 is clear.
    """

    classes: tuple[str, ...] = NAMES
    patches: int = 3
    rows: int = 3
    dim: int = 32
    noise: float = 0.04
    labels: NDArray[np.int64] = field(init=False)  # (N,) class of each patch

    def __post_init__(self) -> None:
        rng, size = np.random.default_rng(0), len(self.classes)
        self.centres = unit(rng.normal(size=(size, self.dim)))  # (C, D)

        def around(each: int) -> NDArray:
            return unit(self.centres.repeat(each, 0) + rng.normal(0, self.noise, (size * each, self.dim)))

        self.labels = np.arange(size).repeat(self.patches)
        self.features, self.vectors = around(self.patches), around(self.rows)
        owners = [name for name in self.classes for _ in range(self.rows)]
        self.images = [f"image {i % self.rows}" for i in range(len(owners))]
        self.memory = SupportMemory.from_prototypes(self.vectors, owners, self.images)
        self.vocabulary = Vocabulary(self.classes, self.centres)

    def grid(self, turn: int = 0) -> FeatureMap:
        """The patches as an image has them, a class to a row; another image by turning the rows."""
        size = (len(self.classes), self.patches)
        return FeatureMap(np.roll(self.features.reshape(*size, -1), turn, axis=0), 1, size, size)

    def support(self) -> list[tuple]:
        """Labelled images as `fit` takes them."""
        return [(self.grid(), self.labels, image) for image in dict.fromkeys(self.images)]


def fitted(make: Make, world: World, memory: SupportMemory, vocabulary: Vocabulary) -> Any:
    """A copy of the method, fitted as an evaluation fits it."""
    method = copy.deepcopy(make())
    return method.fit(memory, vocabulary, world.support()) if hasattr(method, "fit") else method


def _answer(make: Make, world: World, memory=None, vocabulary=None, query=None) -> NDArray:
    """(N, C) what a freshly fitted method says, checked to be probabilities."""
    memory = world.memory if memory is None else memory
    vocabulary = vocabulary or world.vocabulary
    method = fitted(make, world, memory, vocabulary)
    return _probabilities(method.predict(world.grid() if query is None else query, memory, vocabulary), world,
                          vocabulary)  # fmt: skip


def _probabilities(prediction: Any, world: World, vocabulary: Vocabulary) -> NDArray:
    if not isinstance(prediction, Prediction):
        raise Failed(f"predict returned {type(prediction).__name__}, not a Prediction")
    p, size = np.asarray(prediction), (len(world.features), len(vocabulary))
    if p.shape != size:
        raise Failed(f"probabilities have the shape {p.shape}, not (patches, classes) = {size}")
    if not np.isfinite(p).all():
        raise Failed(f"{int((~np.isfinite(p)).any(1).sum())} of {len(p)} rows hold NaN or infinite values")
    if p.min() < -1e-6 or np.abs(p.sum(1) - 1).max() > 1e-3:
        raise Failed(f"rows add up to {p.sum(1).min():.3g} to {p.sum(1).max():.3g}, smallest {p.min():.3g}")
    return p


def shapes(make: Make, world: World) -> None:
    """A feature map, a query and a bare array are all answered, and alike."""
    if "initial_weight" not in inspect.signature(make().predict).parameters:
        raise Failed("predict has no keyword initial_weight")
    queries = [world.grid(), Query.of(world.grid())]
    if not getattr(make(), "needs_grid", False):
        queries.append(world.features)
    answers = [_answer(make, world, query=query) for query in queries]
    if any(np.abs(p - answers[0]).max() > 1e-4 for p in answers):
        raise Failed(
            "a feature map, a Query and an (N, D) array of the same patches are answered differently"
        )


def easy(make: Make, world: World) -> None:
    """Where every sign points the same way, most patches get their class."""
    right = int((_answer(make, world).argmax(1) == world.labels).sum())
    if right <= len(world.labels) / 2:
        raise Failed(f"{right} of {len(world.labels)} patches right where names and memory agree")


def determinism(make: Make, world: World) -> None:
    """Made and fitted twice, it answers the same, whatever it was asked before; and it changes nothing."""
    world = _world(make, noise=0.4)  # where names and memory disagree, so that chance shows
    before = world.features.copy(), world.vectors.copy(), len(world.memory)
    first, second = _answer(make, world), _answer(make, world)
    if np.abs(first - second).max() > 1e-6:
        raise Failed(f"two runs differ by up to {np.abs(first - second).max():.2g}")
    _another_picture(make, world, first)
    after = world.features, world.memory.vectors, len(world.memory)
    if not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
        raise Failed("the features or the memory are other than before")


def _another_picture(make: Make, world: World, first: NDArray) -> None:
    """Asked about another picture and then the first again, it answers as fresh copies do."""
    method = fitted(make, world, world.memory, world.vocabulary)
    for turn, fresh in ((0, first), (1, _answer(make, world, query=world.grid(1))), (0, first)):
        told = method.predict(world.grid(turn), world.memory, world.vocabulary)
        gap = np.abs(_probabilities(told, world, world.vocabulary) - fresh).max()
        if gap > 1e-4:
            raise Failed(f"asked about a second picture, a fresh copy differs from it by up to {gap:.2g}")
    clear = _world(make)  # what is kept outside the method fools the fresh copies too
    answer, truth = _answer(make, clear, query=clear.grid(1)), np.roll(clear.labels, clear.patches)
    right = int((answer.argmax(1) == truth).sum())
    if right <= len(clear.labels) / 2:
        raise Failed(f"{right} of {len(clear.labels)} patches right in a second picture")


def class_without_support(make: Make, world: World) -> None:
    """A class of which the memory holds nothing, and a memory of a single row."""
    lacking = SupportMemory.from_prototypes(world.vectors, [*world.memory.class_names], world.images)
    lacking.remove(class_name=NAMES[-1])
    _answer(make, world, lacking)
    single = SupportMemory.from_prototypes(world.vectors[:1], NAMES[:1], ["image 0"])
    _answer(make, world, single)


def class_without_text(make: Make, world: World) -> None:
    """A class whose text is missing; then no text at all, unless the method says `needs_text`."""
    _answer(make, world, vocabulary=world.vocabulary.without_text(NAMES[:1]))
    if not getattr(make(), "needs_text", False):
        _answer(make, world, vocabulary=Vocabulary(NAMES))


def empty_memory(make: Make, world: World) -> None:
    """Text alone answers; with neither text nor memory, a ValueError says so."""
    empty = SupportMemory(world.dim)
    _answer(make, world, empty)
    try:
        learned = _answer(make, world, empty, Vocabulary(NAMES)).argmax(1) == world.labels
    except ValueError:
        return
    if learned.mean() <= 0.5:  # else it knows the classes from the labelled images of `fit`
        raise Failed("it guesses with neither text nor a prototype, instead of raising ValueError")


def open_vocabulary(make: Make, world: World) -> None:
    """Classes in another order or fewer of them, asked of the method as it is fitted."""
    method = fitted(make, world, world.memory, world.vocabulary)

    def ask(order: list[int]) -> NDArray:
        vocabulary = Vocabulary([NAMES[c] for c in order], world.centres[order])
        return _probabilities(method.predict(world.grid(), world.memory, vocabulary), world, vocabulary)

    whole, turned = ask([0, 1, 2, 3]), ask([2, 0, 3, 1])
    if np.abs(turned - whole[:, [2, 0, 3, 1]]).max() > 1e-3:
        raise Failed("with the classes in another order, the columns do not follow the vocabulary")
    some = ask([3, 1])
    if (some.argmax(1) == (world.labels == 1))[np.isin(world.labels, (1, 3))].mean() <= 0.5:
        raise Failed("asked for two of its classes only, it takes one for the other")


def evidence(make: Make, world: World) -> None:
    """Evidence is None, or names patches that were asked and rows that the memory holds."""
    method = fitted(make, world, world.memory, world.vocabulary)
    found = method.predict(world.grid(), world.memory, world.vocabulary).evidence
    if found is None:
        return
    if not isinstance(found, Evidence):
        raise Failed(f"evidence is {type(found).__name__}, neither None nor Evidence")
    if not np.isin(found.query, np.arange(len(world.features))).all():
        raise Failed(
            f"evidence about queries {found.query.min()} to {found.query.max()} of {len(world.features)}"
        )
    strange = sorted(set(found.prototype_id.tolist()) - {-1, *world.memory.ids.tolist()})
    if strange or not np.isfinite(found.weight).all():
        raise Failed(f"evidence names prototypes {strange[:3]} that the memory does not hold" if strange
                     else "evidence has weights that are not finite")  # fmt: skip


METHOD_CHECKS: dict[str, Callable[[Make, World], None]] = {
    "shapes and probabilities": shapes,
    "an easy picture": easy,
    "determinism": determinism,
    "a class without support": class_without_support,
    "a class without text": class_without_text,
    "an empty memory": empty_memory,
    "open vocabulary": open_vocabulary,
    "evidence": evidence,
}


# --- encoders -----------------------------------------------------------------------------------------------

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def _feature_map(encoder: Any) -> FeatureMap:
    """What an encoder makes of the image, checked to be a feature map of its own width and patches."""
    found = encoder.encode_image(IMAGE.copy())
    if not isinstance(found, FeatureMap):
        raise Failed(f"encode_image returned {type(found).__name__}, not a FeatureMap")
    return found


def grid(make: Make) -> None:
    """The grid covers the image, and patches are as large as the encoder says."""
    encoder = make()
    found = _feature_map(encoder)
    if found.image_size != IMAGE.shape[:2]:
        raise Failed(f"image_size is {found.image_size} for an image of {IMAGE.shape[:2]}")
    if found.patch_size != encoder.patch_size:
        raise Failed(f"patches of {found.patch_size} px, but the encoder says {encoder.patch_size}")


def width(make: Make) -> None:
    """Features are as wide as the encoder says, finite, and of length 1."""
    encoder = make()
    found = _feature_map(encoder)
    _unit_rows(found.flat(), encoder.dim, "features")


def repeatable(make: Make) -> None:
    """The same image gives the same features, alone or beside another, and is not changed."""
    encoder, image = make(), IMAGE.copy()
    first = encoder.encode_image(image).values
    if not np.array_equal(image, IMAGE):
        raise Failed("encode_image changed the image it was given")
    if np.abs(encoder.encode_image(IMAGE.copy()).values - first).max() > 1e-5:
        raise Failed("the same image is encoded differently the second time")
    if hasattr(encoder, "encode_images"):
        beside = encoder.encode_images([IMAGE[::-1].copy(), IMAGE.copy()])[1].values
        if np.abs(beside - first).max() > 1e-4:
            raise Failed("an image is encoded differently beside another image")
    if not isinstance(encoder.fingerprint, str) or make().fingerprint != encoder.fingerprint:
        raise Failed("fingerprint is not one text for all copies of the encoder")


def text(make: Make) -> None:
    """Class names give rows of the same width, each the same whatever is beside it; or `NoTextTower`."""
    encoder = make()
    try:
        both = np.asarray(encoder.encode_text(["sky", "bus"]))
    except NoTextTower:
        return
    if both.shape != (2, encoder.dim):
        raise Failed(f"encode_text of 2 names has the shape {both.shape}, not (2, {encoder.dim})")
    _unit_rows(both, encoder.dim, "text features")
    if np.abs(np.asarray(encoder.encode_text(["bus"]))[0] - both[1]).max() > 1e-5:
        raise Failed("a name is encoded differently beside another name")


def _unit_rows(rows: NDArray, dim: int, what: str) -> None:
    if rows.shape[1] != dim:
        raise Failed(f"{what} are {rows.shape[1]} wide, but the encoder says dim = {dim}")
    if not np.isfinite(rows).all():
        raise Failed(f"{what} hold NaN or infinite values")
    lengths = np.linalg.norm(rows, axis=1)
    if np.abs(lengths - 1).max() > 1e-3:
        raise Failed(f"{what} have lengths from {lengths.min():.3g} to {lengths.max():.3g}, not 1")


ENCODER_CHECKS: dict[str, Callable[[Make], None]] = {
    "grid of patches": grid,
    "width and length": width,
    "repeatable": repeatable,
    "text": text,
}
MENDS = {
    "shapes and probabilities": "take the patches from Query.of(query).features, and return Prediction(p) "
    "with p (N, C), each row a softmax",
    "an easy picture": "column c belongs to vocabulary.names[c], not to the memory's c-th class",
    "determinism": "draw from np.random.default_rng(self.seed) in fit or predict; copy before changing; "
    "keep nothing of a picture for the next",
    "a class without support": "retrieve() leaves such classes out and marks missing rows -1; "
    "class_prototypes() gives NaN for them",
    "a class without text": "use rose_kit.fusion.text.zero_shot where vocabulary.has_text.any(), and the "
    "memory alone elsewhere; write needs_text = True in the class if there is no way without",
    "an empty memory": "answer from text when retrieve() finds nothing; without text raise "
    "no_support_error(vocabulary)",
    "open vocabulary": "look classes up by name at every predict; keep no index from fit",
    "grid of patches": "derive from WindowedEncoder and write `dense` alone; it pads and counts",
    "width and length": "set dim to the width of a feature, and divide each by its length (rose_kit.unit)",
    "repeatable": "put the model in evaluation mode; hash the weights, not the object, into fingerprint",
    "text": "return (C, D) unit-norm rows in the space of the patches, or raise NoTextTower",
    "evidence": "rows are (query, id from memory.ids or -1, class name, weight), as top_evidence() makes",
}


# --- reports ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Args:
        name: what was checked.
        passed: whether it held.
        detail: what was seen, and how to mend what the check itself found; for speed, the measurement.
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
        One outcome per check, and the speed relative to kNN-CLIP, which is only reported.
    """
    outcomes = _outcomes(METHOD_CHECKS, file, lambda check: check(make, _world(make)))
    if all(outcome.passed for outcome in outcomes):
        outcomes.append(Check("speed", True, _speed(make)))
    return outcomes


def check_encoder(make: Make, file: str | Path | None = None) -> list[Check]:
    """Try an encoder on a small image and two class names; `make` and `file` as for `check_method`."""
    return _outcomes(ENCODER_CHECKS, file, lambda check: check(make))


def check_plugin(path: str | Path) -> dict[str, list[Check]]:
    """Load a plugin file and check each of its methods and encoders.

    Args:
        path: of the file.

    Returns:
        name of the method or encoder -> its outcomes; empty where the file registers neither.

    Raises:
        ValueError: the file cannot be loaded.
    """
    names = load_plugin(path)
    return {
        **{name: check_method(methods[name], path) for name in names["method"]},
        **{name: check_encoder(encoders[name], path) for name in names["encoder"]},
    }


def _outcomes(
    checks: Mapping[str, Callable], file: str | Path | None, call: Callable[[Callable], None]
) -> list[Check]:
    """Every check called, each with its outcome."""
    return [_outcome(name, lambda check=check: call(check), file) for name, check in checks.items()]


def _outcome(name: str, call: Callable[[], None], file: str | Path | None) -> Check:
    try:
        call()
    except Failed as error:
        return Check(name, False, f"{error}. To mend it: {MENDS[name]}.")
    except Exception as error:  # whatever the user's own code raises
        at = [f"line {f.lineno}, {f.name}" for f in traceback.extract_tb(error.__traceback__)
              if file is not None and Path(f.filename).resolve() == Path(file).resolve()]  # fmt: skip
        where = f" ({at[-1]})" if at else ""
        return Check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}{where}")
    return Check(name, True)


def _world(make: Make, **options: Any) -> World:
    """A world as wide as a method was trained for; 32 numbers for all others."""
    return World(dim=getattr(make(), "dim", World.dim), **options)


def _speed(make: Make) -> str:
    """Median of five predictions of 800 patches, 20 classes and 200 prototypes, next to kNN-CLIP's."""
    world = World(tuple(f"class {i}" for i in range(20)), patches=40, rows=10, dim=128)
    seconds = []
    for maker in (make, KnnClip):
        method, times = fitted(maker, world, world.memory, world.vocabulary), []
        for query in [world.grid(turn) for turn in range(5)]:
            began = time.perf_counter()
            method.predict(query, world.memory, world.vocabulary)
            times.append(time.perf_counter() - began)
        seconds.append(float(np.median(times)))
    ratio = seconds[0] / seconds[1]
    return f"{1000 * seconds[0]:.1f} ms for {len(world.features)} patches, {ratio:.1f} times kNN-CLIP's"
