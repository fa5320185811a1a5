"""Anchors: what a vocabulary's classes look like as vectors, from text and memory, at test time."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rose_kit.fusion.method import nothing_to_go_on
from rose_kit.memory import SupportMemory
from rose_kit.model.retriever import class_prototypes
from rose_kit.types import Vocabulary


class Anchors(nn.Module):
    """Mixes a class's text with its prototype by one learned share, the same for all classes.

    A class with only one of the two is that one; a class with neither has no anchor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(-1.5))  # of the text, before the sigmoid: rows say more

    def forward(self, text: Tensor, prototypes: Tensor) -> Tensor:
        """Mix.

        Args:
            text, prototypes: (..., D) unit norm; NaN rows are missing.

        Returns:
            (..., D) unit norm; NaN where both are missing.
        """
        no_text, no_prototype = text.isnan().any(-1, True), prototypes.isnan().any(-1, True)
        share = torch.where(no_prototype, 1.0, torch.where(no_text, 0.0, self.share.sigmoid()))
        mixed = share * text.nan_to_num() + (1 - share) * prototypes.nan_to_num()  # (..., D)
        return F.normalize(mixed, dim=-1).masked_fill(no_text & no_prototype, torch.nan)

    def of(self, vocabulary: Vocabulary, memory: SupportMemory | None) -> tuple[Tensor, np.ndarray]:
        """The anchors of a vocabulary: one per text, or one for a class without text.

        Returns:
            (T, D) unit norm, NaN rows where a text is missing and its class has another anchor or none;
            (T,) the class of each.

        Raises:
            ValueError: no class has an anchor; or the vocabulary's text is not as wide as the memory.
        """
        dim = memory.dim if vocabulary.text is None and memory is not None else _width(vocabulary)
        prototypes = class_prototypes(memory, vocabulary.names, dim=dim)  # (C, D)
        if prototypes.shape[1] != dim:
            raise ValueError(f"the text is {dim} wide, the memory {prototypes.shape[1]}")
        silent = np.flatnonzero(~vocabulary.has_text)
        text = np.zeros((0, dim), np.float32) if vocabulary.text is None else vocabulary.text
        owner = np.concatenate([vocabulary.owner, silent])  # (T,)
        text = np.concatenate([text, np.full((len(silent), dim), np.nan, np.float32)])
        lost = np.isnan(text).any(1) & (np.arange(len(text)) < len(vocabulary.owner))
        of_text = np.where(lost[:, None], np.float32(np.nan), prototypes[owner])
        mixed = self(torch.from_numpy(text), torch.from_numpy(of_text))
        if bool(mixed.isnan().any(1).all()):
            raise nothing_to_go_on(vocabulary)
        return mixed, owner


def _width(vocabulary: Vocabulary) -> int:
    if vocabulary.text is None:
        raise nothing_to_go_on(vocabulary)
    return vocabulary.text.shape[1]
