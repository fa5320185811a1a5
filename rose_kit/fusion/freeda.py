"""FREEDA as RNS adapts it: cosine with the class prototype, mixed with cosine with the text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.evidence import KEEP, top_evidence
from rose_kit.fusion.late import LateFusion
from rose_kit.fusion.retrieval import class_positions, supported_classes
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
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.
    """

    scale: float = LOGIT_SCALE

    def visual(self, features, memory, vocabulary):
        """(N, C) cosines, -inf where a class has no prototype; the norm (C,) of each class's sum."""
        known = supported_classes(memory, vocabulary)
        if not known.any():
            return None, None
        sums = memory.class_sums(vocabulary.names)  # (C, D)
        norms = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)  # (C,)
        return np.where(known, features @ sums.T / norms, -np.inf), norms

    def textual(self, features, vocabulary) -> NDArray:
        """(N, C) cosines."""
        return class_cosines(features, vocabulary)

    def fuse(self, visual, textual, weight: float) -> NDArray:
        """(N, C) mixed cosines; text alone for a class without visual support."""
        known = np.isfinite(visual)
        return np.where(known, weight * np.where(known, visual, 0) + (1 - weight) * textual, textual)

    def probabilities(self, fused: NDArray) -> NDArray:
        """Softmax at CLIP's scale."""
        return softmax(self.scale * fused)

    def explain(self, features, fused, textual, sources, memory, vocabulary) -> Evidence:
        """v_c = sum_i v_ic / |sum_i v_ic|, so prototype i gives weight * cos(x, v_ic) / |sum|."""
        positions = class_positions(memory, vocabulary.names)
        share = 1.0 if textual is None else self.fitted_weight
        winner = fused.argmax(1)  # (N,)
        contributions = np.zeros((len(features), KEEP))
        ids = np.full((len(features), KEEP), -1)
        for c in np.unique(winner):  # class by class: a table of all rows would not fit where there are many
            won = np.flatnonzero(winner == c)
            gains = share * features[won] @ memory.vectors[positions[c]].T / sources[c]  # (n, rows of c)
            top = np.argsort(-np.abs(gains), axis=1)[:, :KEEP]
            contributions[won, : top.shape[1]] = np.take_along_axis(gains, top, 1)
            ids[won, : top.shape[1]] = memory.ids[positions[c]][top]
        names = np.array(vocabulary.names)[winner]
        return top_evidence(contributions, ids, names[:, None], fused.max(1), names)
