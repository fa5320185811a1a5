"""Which prototypes are retrieved: the nearest, or one of the choices they are compared with.

Each choice names prototypes for an image as a whole; a query's neighbours are then its k nearest among
them. Asked for the nearest, that is what `retrieve` gives (RNS, figure 5, compares these choices).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rose_kit.fusion.retrieval import Retrieved, class_rows, retrieve, supported_classes
from rose_kit.types import Vocabulary

if TYPE_CHECKING:
    from rose_kit.memory import SupportMemory

# (what nearest retrieval found, (P,) ids that may be chosen, (P,) their classes, (P, N) cosines on
# demand, k, generator) -> ids chosen
Choice = Callable[[Retrieved, NDArray, NDArray, Callable[[], NDArray], int, Generator], NDArray]


def nearest(found, ids, classes, cosines, k, rng) -> NDArray[np.int64]:
    """The union of the k nearest of every query: what RNS does."""
    return found.ids


def whole_classes(found, ids, classes, cosines, k, rng) -> NDArray[np.int64]:
    """Every prototype of the classes that nearest retrieval found."""
    return ids[np.isin(classes, found.classes)]


def random_in_classes(found, ids, classes, cosines, k, rng) -> NDArray[np.int64]:
    """As many prototypes as nearest retrieval found, at random from the classes it found."""
    return rng.choice(whole_classes(found, ids, classes, cosines, k, rng), len(found), replace=False)


def random(found, ids, classes, cosines, k, rng) -> NDArray[np.int64]:
    """As many prototypes as nearest retrieval found, at random from all of them."""
    return rng.choice(ids, len(found), replace=False)


def furthest(found, ids, classes, cosines, k, rng) -> NDArray[np.int64]:
    """The union of the k furthest of every query."""
    order = np.argpartition(cosines(), min(k, len(ids)) - 1, axis=0)  # (P, N)
    return ids[np.unique(order[:k])]


RETRIEVALS: dict[str, Choice] = {
    "nearest": nearest,
    "classes": whole_classes,
    "random-in-classes": random_in_classes,
    "random": random,
    "furthest": furthest,
}


def check_retrieval(how: str) -> None:
    """Refuse an unknown choice.

    Raises:
        ValueError: there is none of that name; lists those there are.
    """
    if how not in RETRIEVALS:
        raise ValueError(f"unknown retrieval {how!r}. Known: {', '.join(RETRIEVALS)}")


def select(
    how: str,
    features: NDArray,
    memory: SupportMemory | None,
    vocabulary: Vocabulary,
    k: int,
    exclude_images: Collection[Hashable] = (),
    seed: int = 0,
) -> Retrieved:
    """Retrieve by one of `RETRIEVALS`.

    Args:
        how: its key.
        features, memory, vocabulary, k, exclude_images: as for `retrieve`.
        seed: of the random choices; each image has a draw of its own, always the same.

    Raises:
        ValueError: an unknown choice.
    """
    check_retrieval(how)
    found = retrieve(features, memory, vocabulary, k, exclude_images)
    if how == "nearest" or not len(found):
        return found
    known = np.flatnonzero(supported_classes(memory, vocabulary))
    rows = class_rows(memory, [vocabulary.names[c] for c in known], exclude_images)
    at, classes = np.concatenate(rows), np.repeat(known, list(map(len, rows)))  # (P,), (P,)
    rng = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(features).tobytes())])
    chosen = RETRIEVALS[how](found, memory.ids[at], classes, lambda: memory.vectors[at] @ features.T, k, rng)
    return _among(np.sort(chosen), memory, vocabulary, features, k)


def _among(
    ids: NDArray, memory: SupportMemory, vocabulary: Vocabulary, features: NDArray, k: int
) -> Retrieved:
    """Each query's k nearest among the prototypes `ids` (ascending)."""
    rows = memory.lookup(ids)
    vectors = np.asarray(rows.vectors, np.float32)
    index = {name: c for c, name in enumerate(vocabulary.names)}
    classes = np.array([index[str(name)] for name in rows.class_names], dtype=np.int64)
    cosines = features @ vectors.T  # (N, D) @ (D, R) -> (N, R)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]  # (N, min(k, R))
    scores = np.take_along_axis(cosines, order, 1)
    missing = ((0, 0), (0, k - order.shape[1]))
    scores = np.pad(scores, missing, constant_values=-np.inf).astype(np.float32)
    return Retrieved(ids, vectors, classes, np.pad(order, missing, constant_values=-1), scores)
