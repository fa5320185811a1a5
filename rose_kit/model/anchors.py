"""Anchors: what a vocabulary's classes look like as vectors, from text and memory, at test time."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rose_kit.fusion.method import no_support_error
from rose_kit.memory import SupportMemory
from rose_kit.types import Vocabulary

MAX_ROWS = 32  # of a class that become anchors; of more, as many are taken at even distances


class Anchors(nn.Module):
    """Mixes text, prototype and single row of a class by three learned shares, the same for all classes.

    A class has an anchor for each of its rows: a class of several looks is badly described by one mean.
    What a class lacks does not count; with nothing at all it has no anchor.
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


def anchor_inputs(
    vocabulary: Vocabulary, memory: SupportMemory | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the anchors of a vocabulary are mixed from: one anchor for each text and row of a class.

    Args:
        vocabulary: C classes.
        memory: None or an empty one leaves the texts.

    Returns:
        (A, 3, D) text, prototype, row, NaN where missing; (A,) the class of each anchor.

    Raises:
        ValueError: no class has an anchor; or the vocabulary's text is not as wide as the memory.
    """
    text = vocabulary.text
    if text is None:
        text = np.zeros((0, 1 if memory is None else memory.dim), np.float32)
    dim = text.shape[1]
    memory = SupportMemory(dim) if memory is None else memory
    if memory.dim != dim:
        raise ValueError(f"the text is {dim} wide, the memory {memory.dim}")
    prototypes = memory.class_prototypes(vocabulary.names)  # (C, D)
    parts, owner = [], []
    for c, name in enumerate(vocabulary.names):
        texts = list(text[(vocabulary.owner == c) & ~np.isnan(text).any(1)])
        rows = list(_rows(memory, name))
        if texts or rows:
            nothing = [np.full(dim, np.nan, np.float32)]
            pairs = product(texts or nothing, rows or nothing)  # every text with every row
            parts += [(text_vector, prototypes[c], row) for text_vector, row in pairs]
            owner += [c] * (len(parts) - len(owner))
    if not owner:
        raise no_support_error(vocabulary)
    return np.array(parts, np.float32), np.array(owner)


def _rows(memory: SupportMemory, name: str) -> NDArray[np.float32]:
    """(R, D) rows of a class, at most `MAX_ROWS`."""
    at = np.flatnonzero(memory.class_names == name)
    return memory.vectors[at[np.linspace(0, len(at) - 1, min(len(at), MAX_ROWS)).astype(int)]]
