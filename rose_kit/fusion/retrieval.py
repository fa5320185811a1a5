"""What the memory says: the nearest prototypes of each query, and the sum of each class's prototypes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rose_kit.types import Vocabulary

if TYPE_CHECKING:
    from rose_kit.memory import SupportMemory


@dataclass(frozen=True)
class Retrieved:
    """The prototypes hit by at least one query, each once, and who hit them.

    Args:
        ids: (R,) stable prototype ids, ascending.
        vectors: (R, D) unit norm.
        classes: (R,) class index in the vocabulary.
        rows: (N, k) position in the R prototypes of each neighbour; -1 where fewer than k exist.
        scores: (N, k) inner products, best first.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    classes: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def retrieve(
    features: NDArray,
    memory: SupportMemory | None,
    vocabulary: Vocabulary,
    k: int,
    exclude_images: Collection[Hashable] = (),
) -> Retrieved:
    """The k nearest prototypes of each query among the vocabulary's classes (RNS, section 3).

    Args:
        features: (N, D) unit-norm queries.
        memory: None or an empty memory gives an empty answer.
        vocabulary: prototypes of other classes are not considered.
        k: neighbours per query.
        exclude_images: support images to leave out.
    """
    n, dim = features.shape
    known = supported_classes(memory, vocabulary)
    if not known.any():
        none = np.empty(0, dtype=np.int64)
        hits = np.full((n, 0), -1)
        return Retrieved(none, np.empty((0, dim), np.float32), none, hits, hits.astype(np.float32))
    names = [vocabulary.names[c] for c in np.flatnonzero(known)]
    hits = memory.search(features, k, classes=names, exclude_images=exclude_images)
    ids, rows = np.unique(hits.rows, return_inverse=True)
    rows = rows.reshape(hits.rows.shape)
    if len(ids) and ids[0] == -1:
        ids, rows = ids[1:], rows - 1
    found = memory.lookup(ids)
    index = {name: c for c, name in enumerate(vocabulary.names)}
    classes = np.array([index[str(name)] for name in found.class_names], dtype=np.int64)
    return Retrieved(ids, np.asarray(found.vectors, np.float32), classes, rows, hits.scores)


def supported_classes(memory: SupportMemory | None, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """(C,) whether the memory holds a prototype of each class."""
    if memory is None or not len(memory):
        return np.zeros(len(vocabulary), dtype=bool)
    return ~np.isnan(memory.class_prototypes(vocabulary.names)).any(1)


def class_rows(
    memory: SupportMemory | None, names: Sequence[str], exclude_images: Collection[Hashable] = ()
) -> list[NDArray[np.int64]]:
    """Positions in the memory's arrays of each class's prototypes, without those of some images."""
    if memory is None or not len(memory):
        return [np.empty(0, dtype=np.int64)] * len(names)
    keep = ~np.isin(memory.image_ids, list(exclude_images)) if exclude_images else True
    return [np.flatnonzero((memory.class_names == name) & keep) for name in names]
