"""Late fusion: a visual and a textual score per class, mixed with one fixed weight. kNN-CLIP and FREEDA."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.evidence import KEEP, LeaveOneOut, PredictWithout, top_evidence
from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Support
from rose_kit.fusion.retrieval import restrict, retrieve, supported_classes
from rose_kit.fusion.zero_shot import LOGIT_SCALE, class_cosines, softmax, zero_shot
from rose_kit.memory.index import Where
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.registry import register_method
from rose_kit.types import IGNORE, Evidence, Prediction, Query, Vocabulary, check_positive, check_share

WEIGHTS = np.linspace(0, 1, 11).round(1)  # tried when a support set is given
# Winning classes (N,) -> ids (N, P) of the prototypes that add to the scores of these classes, -1 where there
# is none, and what each adds (N, P).
Sources = Callable[[NDArray], tuple[NDArray, NDArray]]


@dataclass
class LateFusion:
    """Base of kNN-CLIP and FREEDA, which differ in three steps:

    - `visual(features, memory, vocabulary)`: (N, C) scores, -inf where a class has none, and the `Sources`
      of their evidence; the memory holds at least one of the classes;
    - `textual(features, vocabulary)`: (N, C) scores;
    - `probabilities(scores)`: (N, C), of mixed, visual or textual scores.

    Args:
        weight: share of the visual score, in [0, 1]. `fit` with a support set tunes it into
            `fitted_weight`, which is what `predict` uses.
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.
    """

    weight: float = 0.5
    where: Where | None = field(default=None, kw_only=True)
    fitted_weight: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_share(weight=self.weight)
        self.fitted_weight = self.weight

    def fit(self, memory: Memory, vocabulary: Vocabulary, support: Support = None) -> Self:
        """Choose the weight with the best mIoU over the support images, each left out in turn.

        See `Method.fit`. Without support images, or without text, the given weight stays.
        """
        self.fitted_weight = self.weight
        if memory is None or support is None or not vocabulary.has_text.any():
            return self
        memory = restrict(memory, self.where)
        counts = np.zeros((len(WEIGHTS), len(vocabulary), len(vocabulary)), dtype=np.int64)
        for query, target, image_id in support:
            features = Query.of(query).features
            others = memory.subset(memory.ids[memory.image_ids != str(image_id)])
            if not supported_classes(others, vocabulary).any():
                continue
            visual, _ = self.visual(features, others, vocabulary)
            textual = self.textual(features, vocabulary)
            target = np.where(np.asarray(target) == IGNORE, -1, target)
            for w, weight in enumerate(WEIGHTS):
                answer = fuse(visual, textual, weight).argmax(1)
                counts[w] += confusion_matrix(answer, target, len(vocabulary), ignore_index=-1)
        if counts.any():
            self.fitted_weight = float(WEIGHTS[np.argmax([mean_iou(count) for count in counts])])
        return self

    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """See `Method.predict`: text alone if the memory holds none of the classes, and vice versa."""
        query, memory = Query.of(query), restrict(memory, self.where)
        features = query.features
        supported, has_text = supported_classes(memory, vocabulary).any(), vocabulary.has_text.any()
        if not supported:
            return self.prediction(self.textual(features, vocabulary))
        scores, sources = self.visual(features, memory, vocabulary)  # (N, C)
        share = self.fitted_weight if has_text else 1.0
        if has_text:
            scores = fuse(scores, self.textual(features, vocabulary), share)
        winner = scores.argmax(1)  # (N,)
        ids, gains = sources(winner)  # (N, P) each
        names = np.array(vocabulary.names)[winner]
        leave_out = LeaveOneOut(PredictWithout(copy.copy(self), query, memory, vocabulary), winner)
        options = {"keep": ids.shape[1], "leave_out": leave_out}
        evidence = top_evidence(share * gains, ids, names[:, None], scores.max(1), names, **options)
        return self.prediction(scores, evidence)

    def prediction(self, scores: NDArray, evidence: Evidence | None = None) -> Prediction:
        """(N, C) scores -> the prediction that holds them."""
        return Prediction(self.probabilities(scores).astype(np.float32), evidence, scores.astype(np.float32))


def fuse(visual: NDArray, textual: NDArray, weight: float) -> NDArray:
    """(N, C) weight * visual + (1 - weight) * textual; text alone for a class without visual support."""
    known = np.isfinite(visual)
    return np.where(known, weight * np.where(known, visual, 0) + (1 - weight) * textual, textual)


@register_method("knn-clip")
@dataclass
class KnnClip(LateFusion):
    """Probability = weight * vote + (1 - weight) * zero-shot (kNN-CLIP, TMLR 2024).

    Each of the k nearest prototypes votes for its class with softmax(cosine / temperature) over the
    k. A class without visual support gets no votes. The paper's temperature is not public; the default is
    CLIP's, and `fit` tunes the weight. Its threshold, above which zero-shot answers alone, is left out.

    Args:
        weight: share of the vote, in [0, 1].
        k: neighbours per query.
        temperature: of the vote.
        where: metadata that a voter must have, as for `SupportMemory.search`; None: all may vote.
    """

    k: int = 16
    temperature: float = 0.01
    textual = staticmethod(zero_shot)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(k=self.k, temperature=self.temperature)

    def visual(self, features: NDArray, memory: Memory, vocabulary: Vocabulary) -> tuple[NDArray, Sources]:
        """(N, C) shares of the vote; a neighbour adds its own if it voted for the class."""
        retrieved = retrieve(features, memory, vocabulary, self.k)
        votes = softmax(retrieved.scores / self.temperature)  # (N, k), 0 where there is no neighbour
        classes = retrieved.classes[retrieved.positions]  # (N, k)
        shares = np.zeros((len(features), len(vocabulary)), dtype=np.float32)
        np.add.at(shares, (np.arange(len(features))[:, None], classes), votes)
        ids = np.append(retrieved.ids, -1)[retrieved.positions]  # (N, k)
        return shares, lambda winner: (ids, votes * (classes == winner[:, None]))

    def probabilities(self, scores: NDArray) -> NDArray:
        """The scores are probabilities already."""
        return scores


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
    textual = staticmethod(class_cosines)

    def visual(self, features: NDArray, memory: Memory, vocabulary: Vocabulary) -> tuple[NDArray, Sources]:
        """(N, C) cosines. As v_c = sum_i v_ic / |sum_i v_ic|, prototype i adds cos(x, v_ic) / |sum|."""
        sums = memory.class_sums(vocabulary.names)  # (C, D), NaN without a prototype
        norms = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)  # (C,)

        def sources(winner: NDArray) -> tuple[NDArray, NDArray]:
            ids, gains = np.full((len(winner), KEEP), -1), np.zeros((len(winner), KEEP))
            for c in np.unique(winner):
                won = winner == c
                hits = memory.search(features[won], KEEP, classes=[vocabulary.names[c]])
                ids[won], gains[won] = hits.ids, np.where(hits.ids < 0, 0, hits.scores / norms[c])
            return ids, gains

        return np.nan_to_num(features @ sums.T / norms, nan=-np.inf), sources

    def probabilities(self, scores: NDArray) -> NDArray:
        """Softmax at CLIP's scale."""
        return softmax(self.scale * scores)
