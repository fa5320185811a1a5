"""Late fusion: a visual and a textual score per class, mixed with one fixed weight."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.evidence import LeaveOneOut, top_evidence
from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method
from rose_kit.fusion.retrieval import restrict, supported_classes
from rose_kit.memory import SupportMemory
from rose_kit.memory.index import Where
from rose_kit.types import Evidence, Prediction, Query, Vocabulary, check_share

# Winning classes (N,) -> ids (N, P) of the prototypes that add to the scores of these classes, -1 where there
# is none, and what each adds (N, P).
Sources = Callable[[NDArray], tuple[NDArray, NDArray]]


@dataclass
class LateFusion(Method):
    """Base of kNN-CLIP and FREEDA, which differ in these steps:

    - `visual(features, memory, vocabulary)`: (N, C) scores, -inf where a class has none, and the `Sources`
      of their evidence; the memory holds at least one of the classes;
    - `textual(query, vocabulary)`: (N, C) scores;
    - `probabilities(scores)`: (N, C), of mixed, visual or textual scores.

    Args:
        weight: share of the visual score, in [0, 1].
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.
    """

    weight: float = 0.5
    where: Where | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_share(weight=self.weight)

    def share(self, textual: NDArray) -> NDArray:
        """(N, 1) share of the visual score in each row of the (N, C) textual scores."""
        return np.full((len(textual), 1), self.weight, textual.dtype)

    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """See `Method.predict`: text alone if the memory holds none of the classes, and vice versa."""
        query, memory = Query.of(query), restrict(memory, self.where)
        if not supported_classes(memory, vocabulary).any():
            return self.prediction(self.textual(query, vocabulary))
        scores, _ = self.visual(query.features, memory, vocabulary)  # (N, C)
        share = np.ones((len(scores), 1))
        if vocabulary.has_text.any():
            textual = self.textual(query, vocabulary)
            share = self.share(textual)  # (N, 1)
            scores = fuse(scores, textual, share)
        fixed = replace(self, where=None)  # nobody changes it, and the memory is the part that is allowed
        evidence = partial(fixed.evidence, query, memory, vocabulary, scores, share)
        return self.prediction(scores, evidence)

    def evidence(
        self, query: Query, memory: SupportMemory, vocabulary: Vocabulary, scores: NDArray, share: NDArray
    ) -> Evidence:
        """What each prototype adds to the winning scores.

        Args:
            query, memory, vocabulary: what was predicted with; the memory is a snapshot.
            scores: (N, C) that came out.
            share: (N, 1) of the visual score in them.
        """
        winner = scores.argmax(1)  # (N,)
        ids, gains = self.visual(query.features, memory, vocabulary)[1](winner)  # (N, P) each
        names = np.array(vocabulary.names)[winner]
        leave_out = LeaveOneOut(self, query, memory, vocabulary, winner)
        options = {"keep": ids.shape[1], "leave_out": leave_out}
        return top_evidence(share * gains, ids, names[:, None], scores.max(1), names, **options)

    def prediction(self, scores: NDArray, evidence: Callable[[], Evidence] | None = None) -> Prediction:
        """(N, C) scores -> the prediction that holds them, and makes the evidence when it is read."""
        return Prediction(self.probabilities(scores).astype(np.float32), evidence, scores.astype(np.float32))


def fuse(visual: NDArray, textual: NDArray, share: NDArray | float) -> NDArray:
    """(N, C) share * visual + (1 - share) * textual; text alone for a class without visual support."""
    known = np.isfinite(visual)
    return np.where(known, share * np.where(known, visual, 0) + (1 - share) * textual, textual)
