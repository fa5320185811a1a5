"""What the memory says: the prototypes nearest to each query, and the part of a memory to search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.method import Memory
from rose_kit.memory.index import Filter, Where
from rose_kit.types import Vocabulary


@dataclass(frozen=True)
class Retrieved:
    """The prototypes hit by at least one query, each once, and which query hit which.

    Args:
        ids: (R,) stable prototype ids, ascending.
        vectors: (R, D) unit norm.
        classes: (R,) class index in the vocabulary.
        positions: (N, k) position of each neighbour among the R prototypes; -1 where fewer than k exist.
        scores: (N, k) inner products, best first.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    classes: NDArray[np.int64]
    positions: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def nearest(self, k: int, without: int | None = None) -> Retrieved:
        """The k nearest neighbours of each query only, one prototype left out.

        Args:
            k: fewer than were retrieved for each query, if one is left out.
            without: id of that prototype; the next neighbour takes its place.
        """
        left_out = np.append(self.ids, -1)[self.positions] == (-2 if without is None else without)  # (N, k')
        order = np.argsort(left_out, axis=1, kind="stable")[:, :k]  # (N, k), the one that is left out last
        positions = np.take_along_axis(self.positions, order, 1)
        rows = np.unique(positions[positions >= 0])
        positions = np.where(positions < 0, -1, np.searchsorted(rows, positions))
        scores = np.take_along_axis(self.scores, order, 1)
        return Retrieved(self.ids[rows], self.vectors[rows], self.classes[rows], positions, scores)


# (N, D) features, memory, vocabulary, k -> the prototypes that an adapter is trained on
Retrieval = Callable[[NDArray, Memory, Vocabulary, int], Retrieved]


def retrieve(features: NDArray, memory: Memory, vocabulary: Vocabulary, k: int) -> Retrieved:
    """The k nearest prototypes of each query among the vocabulary's classes (RNS, section 3).

    Args:
        features: (N, D) unit-norm queries.
        memory: None or an empty memory gives an empty answer.
        vocabulary: prototypes of other classes are not considered.
        k: neighbours per query.
    """
    if memory is None or not len(memory):
        none, nowhere = np.empty(0, np.int64), np.full((len(features), k), -1)
        scores = np.full(nowhere.shape, -np.inf, np.float32)
        return Retrieved(none, np.empty((0, features.shape[1]), np.float32), none, nowhere, scores)
    hits = memory.search(features, k, classes=vocabulary.names)
    ids = np.unique(hits.ids[hits.ids >= 0])
    positions = np.where(hits.ids < 0, -1, np.searchsorted(ids, hits.ids))
    rows = memory.lookup(ids)
    index = {name: c for c, name in enumerate(vocabulary.names)}
    classes = np.array([index[name] for name in rows.class_names.tolist()], dtype=np.int64)
    return Retrieved(ids, np.asarray(rows.vectors, np.float32), classes, positions, hits.scores)


_latest: tuple = (None, None, None)  # the rows, the condition and the part of the latest `restrict`


def restrict(memory: Memory, where: Where | None) -> Memory:
    """The memory as it is now, whatever is written to it meanwhile, or the part that a method may use.

    With `where` the part is a copy of the rows, searched exactly; the latest part is kept for the next image.

    Args:
        memory: None stays None.
        where: metadata that a row must have, as for `SupportMemory.search`; None: all rows.

    Raises:
        ValueError: `where` is neither a mapping nor a function.
    """
    if memory is None:
        return None
    global _latest
    memory = memory.copy()
    if where is None:
        return memory
    condition = where if callable(where) else repr(where)  # a mapping may be changed later
    if _latest[0] is not memory.rows or _latest[1] != condition:  # a change gives a memory another table
        part = memory.subset(memory.ids[Filter(where=where).mask(memory.rows)])
        _latest = memory.rows, condition, part
    return _latest[2]


def supported_classes(memory: Memory, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """(C,) whether the memory holds a prototype of each class."""
    return np.isin(vocabulary.names, () if memory is None else memory.classes)
