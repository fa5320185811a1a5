"""FREEDA: each region's cosine to the class prototypes, and what the text says of it and of the image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.evidence import KEEP
from rose_kit.fusion.late import LateFusion, Sources
from rose_kit.fusion.method import Memory
from rose_kit.fusion.zero_shot import LOGIT_SCALE, class_cosines, softmax
from rose_kit.registry import register_method
from rose_kit.types import Query, Vocabulary, check_positive, check_share, unit


@register_method("freeda")
@dataclass
class Freeda(LateFusion):
    """Score = weight * cos(x, v_c) + (1 - weight) * ((1 - g) * cos(x, t_c) + g * cos(image, t_c)).

    x is a patch or a superpixel, v_c the unit-norm sum of the class's prototypes in the memory, t_c its text,
    g `global_share`. A class without visual support has its text's part alone as its score, which by default
    is mostly that of the whole image, the same for all x. Without any text the score is cos(x, v_c).

    FREEDA (CVPR 2024) has generated prototypes, superpixels (`regions="felzenszwalb"` of a `Segmenter` or
    of `evaluate`, where all methods answer the same ones), the text of the whole image alone (g = 1) and
    the sigmoid. Its weights, 0.8 for the sigmoid of the visual cosine and 0.2 for the text, are weight = 0.5
    here, as 4 * sigmoid(s) - 2 takes the place of s. The image's feature is that of the query, the mean of x,
    where FREEDA takes CLIP's. With g = 0, without the sigmoid, it is FREEDA as RNS compares with it. The
    defaults are the best of 40 settings on drawn scenes (`notebooks/experiments/tuning`).

    Args:
        weight: share of the visual cosine, in [0, 1].
        scale: probabilities are softmax(scale * score).
        global_share: g, in [0, 1].
        sigmoid: whether 4 * sigmoid(s) - 2 takes the place of the visual cosine s.
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.
    """

    scale: float = LOGIT_SCALE
    global_share: float = 0.75
    sigmoid: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(scale=self.scale)
        check_share(global_share=self.global_share)

    def visual(self, features: NDArray, memory: Memory, vocabulary: Vocabulary) -> tuple[NDArray, Sources]:
        """(N, C) cosines. As v_c = sum_i v_ic / |sum_i v_ic|, prototype i adds cos(x, v_ic) / |sum|."""
        sums = memory.class_sums(vocabulary.names)  # (C, D), NaN without a prototype
        norms = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)  # (C,)
        cosines = features @ sums.T / norms  # (N, D) @ (D, C) -> (N, C)
        scores = 2 * np.tanh(cosines / 2) if self.sigmoid else cosines  # 4 * sigmoid(s) - 2 = 2 * tanh(s / 2)

        def sources(winner: NDArray) -> tuple[NDArray, NDArray]:
            ids, gains = np.full((len(winner), KEEP), -1), np.zeros((len(winner), KEEP))
            for c in np.unique(winner):
                won = winner == c
                hits = memory.search(features[won], KEEP, classes=[vocabulary.names[c]])
                shrunk = scores[won, c] / np.where(cosines[won, c] == 0, 1, cosines[won, c])  # by the sigmoid
                gain = hits.scores / norms[c] * shrunk[:, None]
                ids[won], gains[won] = hits.ids, np.where(hits.ids < 0, 0, gain)
            return ids, gains

        return np.nan_to_num(scores, nan=-np.inf), sources

    def textual(self, query: Query, vocabulary: Vocabulary) -> NDArray:
        """(N, C) cosines of each patch or superpixel with the texts, and of the image with them."""
        local = class_cosines(query.features, vocabulary)  # (N, C)
        if not self.global_share:
            return local
        image = class_cosines(unit(query.image_feature)[None], vocabulary)  # (1, C)
        return (1 - self.global_share) * local + self.global_share * image

    def probabilities(self, scores: NDArray) -> NDArray:
        """Softmax, by default at CLIP's scale."""
        return softmax(self.scale * scores)
