"""Retrieval inside the model: memory rows for every patch of a batch, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rose_kit.memory import SupportMemory


@dataclass(frozen=True)
class RetrievedBatch:
    """What the memory gave each of B x N queries, best first.

    Args:
        values: (B, N, K, D) float32 retrieved rows, zero where not `valid`.
        scores: (B, N, K) float32 cosines with the query, zero where not `valid`.
        valid: (B, N, K) bool, False where rows ran out.
        class_values: (B, N, K, D) float32 prototype of each row's class, made without the excluded
            image; zero where not `valid`.
        ids: (B, N, K) int64 prototype ids, -1 where not `valid`.
    """

    values: Tensor
    scores: Tensor
    valid: Tensor
    class_values: Tensor
    ids: NDArray[np.int64]


class MemoryRetriever:
    """The K nearest rows of a `SupportMemory`, which may change between calls.

    Args:
        memory: where to look; None or an empty one yields nothing.
        k: rows per query.

    Raises:
        ValueError: `k` is not positive.
    """

    def __init__(self, memory: SupportMemory | None, k: int = 8) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.memory, self.k = memory, k

    def __call__(
        self,
        z: Tensor,
        exclude_images: Sequence[str | None] | None = None,
        classes: Sequence[str] | None = None,
    ) -> RetrievedBatch:
        """Search for every query.

        Args:
            z: (B, N, D) queries, unit norm.
            exclude_images: (B,) the image of the memory that each image must not see, such as itself;
                None, or a None among them, excludes nothing.
            classes: look among these class names only; None: all.

        Raises:
            ValueError: as many images must be named as there are; or the widths differ.
        """
        excluded = [None] * len(z) if exclude_images is None else list(exclude_images)
        if len(excluded) != len(z):
            raise ValueError(f"exclude_images names {len(excluded)} images for a batch of {len(z)}")
        shape = (*z.shape[:2], self.k)  # (B, N, K)
        ids, scores = np.full(shape, -1), np.zeros(shape, np.float32)
        values, prototypes = np.zeros((2, *shape, z.shape[2]), np.float32)
        for b, (queries, image) in enumerate(zip(z.detach().cpu().numpy(), excluded, strict=True)):
            memory = without_image(self.memory, image)
            if memory is None or not len(memory):
                continue
            hits = memory.search(queries, self.k, classes=classes)
            ids[b], valid = hits.ids, hits.ids >= 0  # (N, K)
            scores[b] = np.where(valid, hits.scores, 0)
            unique, at = np.unique(hits.ids[valid], return_inverse=True)  # each row is looked up once
            rows = memory.lookup(unique)
            values[b][valid] = rows.vectors[at]
            prototypes[b][valid] = memory.class_prototypes(rows.class_names)[at]
        tensors = (torch.from_numpy(array).to(z.device) for array in (values, scores, ids >= 0, prototypes))
        return RetrievedBatch(*tensors, ids)


def without_image(memory: SupportMemory | None, image_id: str | None) -> SupportMemory | None:
    """The memory without the rows of an image: what the image itself may see of it in training.

    Args:
        memory: None stays None.
        image_id: None leaves the memory as it is.
    """
    if memory is None or image_id is None:
        return memory
    return memory.subset(memory.ids[memory.image_ids != image_id])
