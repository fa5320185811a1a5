"""kNN-CLIP as RNS adapts it: a vote of the nearest prototypes, mixed with zero-shot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.evidence import top_evidence
from rose_kit.fusion.late import LateFusion
from rose_kit.fusion.retrieval import retrieve
from rose_kit.fusion.text import softmax, zero_shot
from rose_kit.registry import register_method
from rose_kit.types import Evidence


@register_method("knn-clip")
@dataclass
class KnnClip(LateFusion):
    """Probability = weight * vote + (1 - weight) * zero-shot (kNN-CLIP, TMLR 2024).

    Each of the k nearest prototypes votes for its class with softmax(cosine / temperature) over the
    k. Where zero-shot is surer than `threshold`, it answers alone. A class without visual support
    gets no votes. The paper's temperature and threshold are not public; the defaults are CLIP's
    temperature and a threshold that is never passed, and `fit` tunes the weight.

    Args:
        weight: share of the vote, in [0, 1].
        k: neighbours per query.
        temperature: of the vote.
        threshold: zero-shot probability above which the vote is not asked.
        where: metadata that a voter must have, as for `SupportMemory.search`; None: all may vote.
    """

    k: int = 16
    temperature: float = 0.01
    threshold: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or not self.temperature > 0:
            raise ValueError(f"k and temperature must be positive, got {self.k} and {self.temperature}")

    def visual(self, features, memory, vocabulary):
        """(N, C) shares of the vote; who voted, with what share."""
        retrieved = retrieve(features, memory, vocabulary, self.k)
        if not len(retrieved):
            return None, None
        votes = softmax(retrieved.scores / self.temperature)  # (N, k), 0 where there is no neighbour
        shares = np.zeros((len(features), len(vocabulary)), dtype=np.float32)
        np.add.at(shares, (np.arange(len(features))[:, None], retrieved.classes[retrieved.positions]), votes)
        return shares, (retrieved, votes)

    def textual(self, features, vocabulary) -> NDArray:
        """(N, C) zero-shot probabilities."""
        return zero_shot(features, vocabulary)

    def fuse(self, visual, textual, weight: float) -> NDArray:
        """(N, C) mixed probabilities."""
        share = self.visual_share(textual, weight)
        return share * visual + (1 - share) * textual

    def visual_share(self, textual, weight: float) -> NDArray:
        """(N, 1) weight of the vote: none where zero-shot is sure, all where there is no text."""
        if textual is None:
            return np.ones((1, 1))
        return np.where(textual.max(1, keepdims=True) > self.threshold, 0, weight)

    def probabilities(self, fused: NDArray) -> NDArray:
        """They are probabilities already."""
        return fused

    def explain(self, features, fused, textual, sources, memory, vocabulary) -> Evidence:
        """A neighbour contributes its share of the vote, if it voted for the winner."""
        retrieved, votes = sources
        winner = fused.argmax(1)  # (N,)
        classes = retrieved.classes[retrieved.positions]  # (N, k)
        contributions = (classes == winner[:, None]) * votes * self.visual_share(textual, self.fitted_weight)
        names = np.array(vocabulary.names)
        ids = np.where(retrieved.positions < 0, -1, retrieved.ids[retrieved.positions])
        return top_evidence(contributions, ids, names[classes], fused.max(1), names[winner], keep=self.k)
