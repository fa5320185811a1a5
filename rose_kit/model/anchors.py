"""Anchors: what a vocabulary's classes look like as vectors, from text and memory, at test time."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rose_kit.fusion.method import no_support_error
from rose_kit.memory import SupportMemory
from rose_kit.model.retriever import class_prototypes
from rose_kit.types import Vocabulary

MOST = 32  # rows of a class that become anchors; of more, as many are taken at even distances


class Anchors(nn.Module):
    """Mixes text, prototype and single row of a class by three learned shares, the same for all classes.

    A class has an anchor for each of its rows: what looks like nothing known, or like several things, is
    badly told by one mean. What a class lacks does not count; with nothing at all it has no anchor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor([-1.0, 0.0, 0.0]))  # before the softmax: names say less

    def forward(self, parts: Tensor) -> Tensor:
        """(..., 3, D) text, prototype, row, NaN where missing -> (..., D) unit norm, NaN without any."""
        missing = parts.isnan().any(-1)  # (..., 3)
        share = self.share.expand_as(missing).masked_fill(missing, -1e4).softmax(-1)
        mixed = (share[..., None] * parts.nan_to_num()).sum(-2)  # (..., D)
        return F.normalize(mixed, dim=-1).masked_fill(missing.all(-1, keepdim=True), torch.nan)

    def of(
        self, vocabulary: Vocabulary, memory: SupportMemory | None, exclude_image: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The anchors of a vocabulary: one for each text and row of a class.

        Args:
            vocabulary: C classes.
            memory: None or an empty one leaves the texts.
            exclude_image: in training, the image whose rows must leave no trace.

        Returns:
            (A, D) unit norm; (A,) the class of each.

        Raises:
            ValueError: no class has an anchor; or the vocabulary's text is not as wide as the memory.
        """
        parts, owner = ingredients(vocabulary, memory, exclude_image)
        return self(torch.from_numpy(parts)), torch.from_numpy(owner)


def ingredients(
    vocabulary: Vocabulary, memory: SupportMemory | None, exclude_image: str | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the anchors are mixed from: (A, 3, D) text, prototype, row, NaN where missing; (A,) classes.

    Arguments and errors as for `Anchors.of`.
    """
    text, dim = vocabulary.text, memory.dim if memory is not None else 0
    if text is not None and memory is not None and text.shape[1] != dim:
        raise ValueError(f"the text is {text.shape[1]} wide, the memory {dim}")
    dim = dim if text is None else text.shape[1]
    spoken = np.zeros(0, bool) if text is None else ~np.isnan(text).any(1)
    prototypes = class_prototypes(memory, vocabulary.names, exclude_image, dim)  # (C, D)
    nothing, parts, owner = np.full((1, dim), np.nan, np.float32), [], []
    for c, name in enumerate(vocabulary.names):
        texts = text[spoken & (vocabulary.owner == c)] if spoken.any() else nothing[:0]
        rows = _rows(memory, name, exclude_image)
        if not len(texts) and not len(rows):
            continue
        texts, rows = (x if len(x) else nothing for x in (texts, rows))
        pairs = np.repeat(texts, len(rows), 0), np.tile(rows, (len(texts), 1))  # every text with every row
        parts.append(np.stack([pairs[0], np.broadcast_to(prototypes[c], pairs[0].shape), pairs[1]], 1))
        owner += [c] * len(parts[-1])
    if not owner:
        raise no_support_error(vocabulary)
    return np.concatenate(parts), np.array(owner)


def _rows(memory: SupportMemory | None, name: str, exclude_image: str | None) -> NDArray[np.float32]:
    """(R, D) rows of a class, at most `MOST`, none of an image."""
    if memory is None or not len(memory):
        return np.zeros((0, 0), np.float32)
    own = memory.class_names == name
    if exclude_image is not None:
        own &= memory.image_ids != exclude_image
    at = np.flatnonzero(own)
    return memory.vectors[at[np.linspace(0, len(at) - 1, min(len(at), MOST)).astype(int)]]


def best_of(cosines: Tensor, owner: Tensor, classes: int) -> Tensor:
    """(..., A) cosines to anchors, (A,) their classes -> (..., C) best of each class, -inf without any."""
    none = cosines.new_full((*cosines.shape[:-1], classes), -torch.inf)
    return none.scatter_reduce(-1, owner.expand_as(cosines), cosines, "amax")
