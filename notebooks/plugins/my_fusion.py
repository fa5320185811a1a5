"""Bring your own fusion: copy this file, give it a name, change `visual` or `predict`.

    cp notebooks/plugins/my_fusion.py mine.py
    rose-kit check mine.py
    rose-kit sweep notebooks/experiments/fusions.yaml --plugin mine.py

The last command ends with a leaderboard on which your method stands beside the others.
"""

from dataclasses import dataclass

import numpy as np

from rose_kit import Prediction, Query, register_method
from rose_kit.fusion import Method, retrieve
from rose_kit.fusion.method import no_support_error
from rose_kit.fusion.zero_shot import softmax, zero_shot


@register_method("my-fusion")
@dataclass
class MyFusion(Method):
    """Vote of the k nearest prototypes, weighed patch by patch by who is surer: vote or names."""

    k: int = 16  # fields are options: {my-fusion: {k: 8}} in a grid
    temperature: float = 0.01  # of the vote
    scale: float = 100.0  # of the names

    def visual(self, x, memory, vocabulary):
        """(N, D) features -> (N, C) shares of the vote; None where the memory has none of the classes."""
        found = retrieve(x, memory, vocabulary, self.k)  # searches the vocabulary's classes only
        if not len(found):
            return None
        votes = softmax(np.where(found.positions < 0, -np.inf, found.scores / self.temperature))  # (N, k)
        shares = np.zeros((len(x), len(vocabulary)), np.float32)
        np.add.at(shares, (np.arange(len(x))[:, None], found.classes[found.positions]), votes)
        return shares

    def predict(self, query, memory, vocabulary, *, initial_weight=None):
        x = Query.of(query).features
        seen = self.visual(x, memory, vocabulary)  # (N, C)
        read = zero_shot(x, vocabulary, self.scale) if vocabulary.has_text.any() else None  # (N, C)
        if seen is None and read is None:
            raise no_support_error(vocabulary)
        if seen is None or read is None:
            return Prediction(read if seen is None else seen)
        sure = seen.max(1, keepdims=True), read.max(1, keepdims=True)  # (N, 1) each
        share = sure[0] / (sure[0] + sure[1])
        return Prediction(share * seen + (1 - share) * read)
