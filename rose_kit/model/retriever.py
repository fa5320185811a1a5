"""Retrieval inside the model: memory rows for every patch of a batch, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rose_kit.memory import SupportMemory
from rose_kit.types import unit


@dataclass(frozen=True)
class Retrieved:
    """What the memory gave each of B x N queries, best first.

    Args:
        values: (B, N, K, D) float32 retrieved rows, zero where not `valid`.
        class_names: (B, N, K) str, "" where not `valid`.
        scores: (B, N, K) float32 cosines with the query, zero where not `valid`.
        valid: (B, N, K) bool, False where rows ran out.
        class_values: (B, N, K, D) float32 prototype of each row's class, made without the excluded
            image; zero where not `valid`.
        ids: (B, N, K) int64 prototype ids, -1 where not `valid`.
    """

    values: Tensor
    class_names: NDArray[np.str_]
    scores: Tensor
    valid: Tensor
    class_values: Tensor
    ids: NDArray[np.int64]


class MemoryRetriever:
    """The K nearest rows of a `SupportMemory`, which may change between calls.

    Args:
        memory: where to look; None or an empty one finds nothing.
        k: rows per query.
        classes: look among these class names only; None: all.

    Raises:
        ValueError: `k` is not positive.
    """

    def __init__(
        self, memory: SupportMemory | None, k: int = 8, classes: Sequence[str] | None = None
    ) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.memory, self.k, self.classes = memory, k, classes

    def __call__(self, z: Tensor, exclude_images: Sequence[str | None] | None = None) -> Retrieved:
        """Search for every query.

        Args:
            z: (B, N, D) queries, unit norm.
            exclude_images: (B,) the image of the memory that each picture must not see, such as itself;
                None, or a None among them, excludes nothing.

        Raises:
            ValueError: as many pictures must be named as there are; or the widths differ.
        """
        excluded = [None] * len(z) if exclude_images is None else list(exclude_images)
        if len(excluded) != len(z):
            raise ValueError(f"exclude_images names {len(excluded)} images for a batch of {len(z)}")
        found = [self._one(queries, image) for queries, image in zip(z, excluded, strict=True)]
        values, names, scores, valid, class_values, ids = zip(*found, strict=True)
        scores, valid = torch.from_numpy(np.stack(scores)), torch.from_numpy(np.stack(valid))
        return Retrieved(
            torch.from_numpy(np.stack(values)).to(z.device), np.stack(names), scores.to(z.device),
            valid.to(z.device), torch.from_numpy(np.stack(class_values)).to(z.device), np.stack(ids),
        )  # fmt: skip

    def _one(self, queries: Tensor, image: str | None) -> tuple[NDArray, ...]:
        """The parts of `Retrieved` for one picture, without the batch axis."""
        shape, dim = (len(queries), self.k), queries.shape[1]
        if self.memory is None or not len(self.memory):
            ids, scores = np.full(shape, -1), np.zeros(shape, np.float32)
        else:
            excluded = () if image is None else (image,)
            hits = self.memory.search(
                queries.detach().cpu().numpy(), self.k, classes=self.classes, exclude_images=excluded
            )
            ids, scores = hits.rows, np.where(hits.rows < 0, 0, hits.scores).astype(np.float32)
        # Each row is looked up once; the last row of the tables is what -1 points at.
        unique = np.unique(ids[ids >= 0])
        vectors, classes = np.zeros((1, dim), np.float32), np.array([""])
        of_class = vectors
        if len(unique):
            rows = self.memory.lookup(unique)
            names, owner = np.unique(rows.class_names, return_inverse=True)
            vectors = np.concatenate([np.asarray(rows.vectors, np.float32), vectors])  # (R + 1, D)
            classes = np.append(rows.class_names, "")
            prototypes = class_prototypes(self.memory, names.tolist(), image)
            of_class = np.concatenate([prototypes[owner], of_class])  # (R + 1, D)
        at = np.where(ids < 0, len(unique), np.searchsorted(unique, ids))  # (N, K) rows of the tables
        return vectors[at], classes[at], scores, ids >= 0, of_class[at], ids


def class_prototypes(
    memory: SupportMemory | None, names: Sequence[str], exclude_image: str | None = None, dim: int = 0
) -> NDArray[np.float32]:
    """(C, D) one prototype per class as if an image were not in the memory; NaN where a class has none.

    Args:
        memory: None or an empty one has no prototypes.
        names: the classes.
        exclude_image: its rows are taken out of the sums.
        dim: D where there is no memory to tell it.
    """
    if memory is None or not len(memory):
        return np.full((len(names), memory.dim if memory is not None else dim), np.nan, np.float32)
    if exclude_image is None:
        return memory.class_prototypes(names)
    own = np.flatnonzero(memory.image_ids == exclude_image)
    held, own_names = memory.class_names, memory.class_names[own]
    sums = memory.class_sums(names).copy()
    for row, name in zip(own, own_names, strict=True):
        if name in names:
            c = list(names).index(name)
            alone = np.count_nonzero(held == name) == np.count_nonzero(own_names == name)
            sums[c] = np.nan if alone else sums[c] - memory.vectors[row]
    return unit(sums)
