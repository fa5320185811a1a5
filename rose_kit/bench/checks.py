"""The checks that every method must pass, and the small world they are made in.

Each check is one function that raises `Failed` with what is wrong; `MENDS` says what usually mends it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory import SupportMemory
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
    queries = (world.grid(), Query.of(world.grid()), world.features)
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
    world = World(noise=0.4)  # where names and memory disagree, so that chance shows
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
    clear = World()  # what is kept outside the method fools the fresh copies too
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


CHECKS: dict[str, Callable[[Make, World], None]] = {
    "shapes and probabilities": shapes,
    "an easy picture": easy,
    "determinism": determinism,
    "a class without support": class_without_support,
    "a class without text": class_without_text,
    "an empty memory": empty_memory,
    "open vocabulary": open_vocabulary,
    "evidence": evidence,
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
    "nothing_to_go_on(vocabulary)",
    "open vocabulary": "look classes up by name at every predict; keep no index from fit",
    "evidence": "rows are (query, id from memory.ids or -1, class name, weight), as strongest() makes them",
}
