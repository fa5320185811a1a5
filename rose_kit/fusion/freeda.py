"""FREEDA as RNS adapts it: cosine with the class prototype, mixed with cosine with the text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.evidence import KEEP, strongest
from rose_kit.fusion.late import LateFusion
from rose_kit.fusion.retrieval import class_rows
from rose_kit.fusion.text import LOGIT_SCALE, class_cosines, softmax
from rose_kit.registry import register_method
from rose_kit.types import Evidence


@register_method("freeda")
@dataclass
class Freeda(LateFusion):
    """Score = weight * cos(x, v_c) + (1 - weight) * cos(x, t_c) (FREEDA, CVPR 2024).

    v_c is the unit-norm sum of the class's prototypes in the memory. A class without visual support
    has cos(x, t_c) as its score; without any text the score is cos(x, v_c).

    Args:
        weight: share of the visual cosine, in [0, 1].
        scale: probabilities are softmax(scale * score).
    """

    scale: float = LOGIT_SCALE

    def visual(self, features, memory, vocabulary, exclude_images=()):
        """(N, C) cosines, -inf where a class has no prototype; the rows and norm of each class sum."""
        rows = class_rows(memory, vocabulary.names, exclude_images)
        if not any(map(len, rows)):
            return None, None
        sums = np.stack([memory.vectors[r].sum(0) for r in rows])  # (C, D)
        norms = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)  # (C,)
        cosines = features @ sums.T / norms  # (N, C)
        cosines[:, [not len(r) for r in rows]] = -np.inf
        return cosines, (rows, norms)

    def textual(self, features, vocabulary) -> NDArray:
        """(N, C) cosines."""
        return class_cosines(features, vocabulary)

    def fuse(self, visual, textual, weight: float) -> NDArray:
        """(N, C) mixed cosines; text alone for a class without visual support."""
        if visual is None or textual is None:
            return textual if visual is None else visual
        known = np.isfinite(visual)
        return np.where(known, weight * np.where(known, visual, 0) + (1 - weight) * textual, textual)

    def probabilities(self, fused: NDArray) -> NDArray:
        """Softmax at CLIP's scale."""
        return softmax(self.scale * fused)

    def explain(self, features, fused, textual, sources, memory, vocabulary) -> Evidence | None:
        """v_c = sum_i v_ic / |sum_i v_ic|, so prototype i gives weight * cos(x, v_ic) / |sum|."""
        if sources is None:
            return None
        rows, norms = sources
        share = 1.0 if textual is None else self.fitted_weight
        winner = fused.argmax(1)
        contributions = np.zeros((len(features), KEEP))
        ids = np.full((len(features), KEEP), -1)
        for c in np.unique(winner):
            won = np.flatnonzero(winner == c)
            gains = share * features[won] @ memory.vectors[rows[c]].T / norms[c]  # (n, rows of c)
            top = np.argsort(-np.abs(gains), axis=1)[:, :KEEP]
            contributions[won, : top.shape[1]] = np.take_along_axis(gains, top, 1)
            ids[won, : top.shape[1]] = memory.ids[rows[c]][top]
        names = np.array(vocabulary.names)[winner]
        return strongest(contributions, ids, names[:, None], fused.max(1), names)
