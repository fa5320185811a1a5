"""Anchors: the vectors that stand for the classes of a vocabulary, made of text and memory at test time."""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rose_kit.fusion.method import no_support_error
from rose_kit.memory import SupportMemory
from rose_kit.types import Vocabulary

MAX_ROWS = 32  # rows of a class that become anchors; of more, as many are taken at even distances


class Anchors(nn.Module):
    """Mixes text, prototype and row of a class by three learned shares, the same for all classes.

    A class has an anchor for each pair of its texts and rows: a class of several looks is badly described
    by one mean. What a class lacks is a vector of zeros; anchors have unit norm, so the others count alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor([-1.0, 0.0, 0.0]))  # before the softmax: text says less

    def forward(self, vocabulary: Vocabulary, memory: SupportMemory) -> tuple[Tensor, Tensor]:
        """The anchors of a vocabulary.

        Args:
            vocabulary: C classes.
            memory: it may be empty.

        Returns:
            (A, D) float32 anchors of unit norm; (A,) int64 the class index of each. A class with neither
            text nor row has none.

        Raises:
            ValueError: no class has an anchor, or the text is not as wide as the memory.
        """
        text = np.empty((0, memory.dim), np.float32) if vocabulary.text is None else vocabulary.text  # (T, D)
        if text.shape[1] != memory.dim:
            raise ValueError(f"the text is {text.shape[1]} wide, the memory {memory.dim}")
        prototypes = np.nan_to_num(memory.class_prototypes(vocabulary.names))  # (C, D)
        nothing = np.zeros((1, memory.dim), np.float32)
        parts, owner = [], []
        for c, name in enumerate(vocabulary.names):
            positions = np.flatnonzero(memory.rows.of_classes([name]))
            even = np.linspace(0, len(positions) - 1, min(len(positions), MAX_ROWS)).astype(int)
            rows = memory.vectors[positions[even]]
            texts = text[(vocabulary.owner == c) & ~np.isnan(text).any(1)]
            if len(texts) or len(rows):
                pairs = list(product(texts if len(texts) else nothing, rows if len(rows) else nothing))
                parts += [(text_vector, prototypes[c], row) for text_vector, row in pairs]
                owner += [c] * len(pairs)
        if not owner:
            raise no_support_error(vocabulary)
        stacked = torch.as_tensor(np.array(parts), device=self.share.device)  # (A, 3, D)
        mixed = (self.share.softmax(0)[:, None] * stacked).sum(1)  # (A, D)
        return F.normalize(mixed, dim=-1), torch.as_tensor(owner, device=mixed.device)
