"""Late fusion: a visual and a textual score per class, mixed with one fixed weight."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rose_kit.fusion.method import no_support_error
from rose_kit.fusion.retrieval import restrict
from rose_kit.memory.index import Where
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.types import IGNORE, Prediction, Query

WEIGHTS = np.linspace(0, 1, 11).round(1)  # tried when a support set is given


@dataclass
class LateFusion:
    """Base of kNN-CLIP and FREEDA, which differ in four steps:

    - `visual(features, memory, vocabulary) -> (N, C)` scores, or None if the memory has none of the
      classes; and what `explain` needs to name its sources;
    - `textual(features, vocabulary) -> (N, C)` scores;
    - `fuse(visual, textual, weight) -> (N, C)`, where there are both, and `probabilities`;
    - `explain(features, fused, textual, sources, memory, vocabulary) -> Evidence`.

    Args:
        weight: share of the visual score, in [0, 1]. `fit` with a support set tunes it into
            `fitted_weight`, which is what `predict` uses.
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.
    """

    weight: float = 0.5
    where: Where | None = field(default=None, kw_only=True)
    fitted_weight: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must be in [0, 1], got {self.weight}")
        self.fitted_weight = self.weight

    def fit(self, memory, vocabulary, support=None):
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
            visual, _ = self.visual(features, others, vocabulary)
            if visual is None:
                continue
            textual = self.textual(features, vocabulary)
            target = np.where(np.asarray(target) == IGNORE, -1, target)
            for w, weight in enumerate(WEIGHTS):
                answer = self.fuse(visual, textual, weight).argmax(1)
                counts[w] += confusion_matrix(answer, target, len(vocabulary), ignore_index=-1)
        if counts.any():
            self.fitted_weight = float(WEIGHTS[np.argmax([mean_iou(count) for count in counts])])
        return self

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `Method.predict`: text alone where nothing is retrieved, and the other way round."""
        features, memory = Query.of(query).features, restrict(memory, self.where)
        visual, sources = self.visual(features, memory, vocabulary)
        textual = self.textual(features, vocabulary) if vocabulary.has_text.any() else None
        if visual is None:
            if textual is None:
                raise no_support_error(vocabulary)
            return Prediction(self.probabilities(textual).astype(np.float32))
        fused = visual if textual is None else self.fuse(visual, textual, self.fitted_weight)  # (N, C)
        evidence = self.explain(features, fused, textual, sources, memory, vocabulary)
        return Prediction(self.probabilities(fused).astype(np.float32), evidence)
