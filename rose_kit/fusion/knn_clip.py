"""kNN-CLIP: the k nearest prototypes vote, and zero-shot answers where it is sure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.late import LateFusion, Sources
from rose_kit.fusion.method import Memory
from rose_kit.fusion.retrieval import retrieve
from rose_kit.fusion.zero_shot import softmax, zero_shot
from rose_kit.registry import register_method
from rose_kit.types import Query, Vocabulary, check_positive, check_share


@register_method("knn-clip")
@dataclass
class KnnClip(LateFusion):
    """Probability = weight * vote + (1 - weight) * zero-shot, or zero-shot alone where it is sure.

    kNN-CLIP (TMLR 2024): the nearest entries of a database give one distribution over the classes, the base
    model another; a confidence threshold and a weight fuse them. The database is the memory, and the base
    model zero-shot, as RNS compares with it. There is no public code. What we could read of the paper
    names the parts but neither the formula of the vote nor the values of its settings, so these are ours:
    each of the k nearest prototypes votes for its class with softmax(cosine / temperature) over the k. A
    class without visual support gets no votes. The defaults are the best of 40 settings on drawn scenes
    (`notebooks/experiments/tuning`), whose cosines differ by tenths; CLIP's differ by hundredths and want
    smaller temperatures, as the preset `rns-openclip` has them.

    Args:
        weight: share of the vote, in [0, 1].
        k: neighbours per query.
        temperature: of the vote.
        scale: the logit scale of zero-shot.
        threshold: zero-shot answers alone where its highest probability is above this; 1: nowhere.
        where: metadata that a voter must have, as for `SupportMemory.search`; None: all may vote.
    """

    weight: float = 0.8
    k: int = 64
    temperature: float = 0.1
    scale: float = 5.0
    threshold: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(k=self.k, temperature=self.temperature, scale=self.scale)
        check_share(threshold=self.threshold)

    def visual(self, features: NDArray, memory: Memory, vocabulary: Vocabulary) -> tuple[NDArray, Sources]:
        """(N, C) shares of the vote; a neighbour adds its own if it voted for the class."""
        retrieved = retrieve(features, memory, vocabulary, self.k)
        votes = softmax(retrieved.scores / self.temperature)  # (N, k), 0 where there is no neighbour
        classes = retrieved.classes[retrieved.positions]  # (N, k)
        shares = np.zeros((len(features), len(vocabulary)), dtype=np.float32)
        np.add.at(shares, (np.arange(len(features))[:, None], classes), votes)
        ids = np.append(retrieved.ids, -1)[retrieved.positions]  # (N, k)
        return shares, lambda winner: (ids, votes * (classes == winner[:, None]))

    def textual(self, query: Query, vocabulary: Vocabulary) -> NDArray:
        """(N, C) probabilities of zero-shot."""
        return zero_shot(query.features, vocabulary, self.scale)

    def share(self, textual: NDArray) -> NDArray:
        """(N, 1) the weight; 0 where zero-shot is sure."""
        return np.where(textual.max(1, keepdims=True) > self.threshold, 0, super().share(textual))

    def probabilities(self, scores: NDArray) -> NDArray:
        """The scores are probabilities already."""
        return scores
