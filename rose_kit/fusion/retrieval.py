"""What the memory says: the prototypes nearest to each query, and the part of a memory to search."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rose_kit.fusion.method import Memory, SupportExample
from rose_kit.memory.index import Filter, Where
from rose_kit.types import Columns, Query, Vocabulary, numpy_door, to_array, to_tensor


@dataclass(frozen=True)
class Retrieved(Columns):
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


# (N, D) features, memory, vocabulary, k -> the prototypes that an adapter is trained on
Retrieval = Callable[[NDArray, Memory, Vocabulary, int], Retrieved]


@numpy_door
def retrieve(features: Tensor, memory: Memory, vocabulary: Vocabulary, k: int) -> Retrieved:
    """The k nearest prototypes of each query among the vocabulary's classes (RNS, section 3).

    Args:
        features: (N, D) unit-norm queries.
        memory: None or an empty memory gives an empty answer.
        vocabulary: prototypes of other classes are not considered.
        k: neighbours per query.
    """
    return retrieve_batch([features], memory, vocabulary, k)[0]


def retrieve_batch(
    features: Sequence[Tensor], memory: Memory, vocabulary: Vocabulary, k: int
) -> list[Retrieved]:
    """What is retrieved for each of several images, by one search; see `retrieve`.

    Args:
        features: (N, D) of each image, all on one device.
        memory, vocabulary, k: as for `retrieve`.
    """
    size, first = [len(own) for own in features], features[0]
    if memory is None or not len(memory):
        scores, ids = first.new_full((sum(size), k), -torch.inf), first.new_full((sum(size), k), -1).long()
    else:
        hits = memory.search(torch.cat(features), k, classes=vocabulary.names)
        scores, ids = hits.scores, hits.ids
    index = {name: c for c, name in enumerate(vocabulary.names)}
    retrieved = []
    for own_ids, own_scores in zip(ids.split(size), scores.split(size), strict=True):
        own, positions = _unique(own_ids)
        vectors, classes = first[:0], own
        if len(own):
            rows = memory.rows.of_ids(to_array(own))
            vectors = memory.rows.tensor(first.device)[to_tensor(rows, first.device)]
            classes = [index[name] for name in memory.class_names[rows].tolist()]
            classes = torch.tensor(classes, device=first.device)
        retrieved.append(Retrieved(own, vectors, classes, positions, own_scores))
    return retrieved


def _unique(values: Tensor) -> tuple[Tensor, Tensor]:
    """The different values from 0, ascending, and the position of each value among them; -1 stays -1."""
    different, positions = torch.unique(values, return_inverse=True)
    below = int((different < 0).sum())
    return different[below:], positions - below if below else positions


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


def support_patches(
    support: Iterable[SupportExample], memory: Memory, where: Where | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], Hashable]]:
    """Features (N, D), labels (N,) and id of the support images that a method may learn from.

    Args:
        support: as for `Method.fit`.
        memory: holds the metadata of the images.
        where: metadata that one of an image's prototypes must have; None: all images are used.

    Raises:
        ValueError: there is a `where`, but no memory.
    """
    if where is not None and memory is None:
        raise ValueError(f"where={where!r} needs a memory, which holds the metadata of the images")
    images = None if where is None else restrict(memory, where).images
    for query, labels, image_id in support:
        if images is None or str(image_id) in images:
            yield Query.of(query).features, np.asarray(labels), image_id


def supported_classes(memory: Memory, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """(C,) whether the memory holds a prototype of each class."""
    return np.isin(vocabulary.names, () if memory is None else memory.classes)
