"""Baselines without retrieval: one linear classifier for all images, trained before any is seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method, Support
from rose_kit.fusion.retrieval import restrict, support_patches
from rose_kit.fusion.zero_shot import zero_shot
from rose_kit.memory.index import Where
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.registry import register_method
from rose_kit.types import IGNORE, Prediction, Query, Vocabulary, check_positive

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # tried when none is given
STEPS = 200  # of scikit-learn's L-BFGS, at most


class LabelledFeatures(NamedTuple):
    """S labelled features: (S, D) float32, (S,) class indices, (S,) ids of the images they come from."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: NDArray[np.str_]

    def take(self, rows: NDArray) -> LabelledFeatures:
        """Some of them, by position or mask."""
        return LabelledFeatures(*(column[rows] for column in self))


NO_SAMPLES = LabelledFeatures(np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, str))


@register_method("offline-linear")
@dataclass
class OfflineLinear(Method):
    """A logistic regression on the memory's prototypes (RNS, figure 6).

    It is fitted once, and uses no text: a class without visual support is never answered. Where no class has
    any, it answers as zero-shot does. `predict` fits it on first use; it does not notice when the memory
    changes later.

    Args:
        strength: weight of the samples against the regulariser (scikit-learn's C); None takes the one
            of `STRENGTHS` that segments left-out support images best.
        per_image, at_most: patches taken of each support image and in all, at random.
        seed: of the random draws.
        where: metadata that a prototype must have, as for `SupportMemory.search`, and a support image one
            prototype with it; None: all are used.

    Raises:
        ValueError: a number that must be positive and is not.
    """

    strength: float | None = None
    per_image: int = 200
    at_most: int = 10_000
    seed: int = 0
    where: Where | None = field(default=None, kw_only=True)
    uses_text: ClassVar[bool] = False
    needs_support: ClassVar[bool] = False  # whether it is trained on patches, which no memory holds
    names: tuple[str, ...] | None = field(default=None, init=False, repr=False)  # of the fitted classes
    fitted_strength: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive(strength=self.strength, per_image=self.per_image, at_most=self.at_most)

    def fit(self, memory: Memory, vocabulary: Vocabulary, support: Support = None) -> Self:
        """See `Method.fit`; the patches of `support` tune `strength`.

        Raises:
            ValueError: a classifier on patches gets no support images.
        """
        if support is None and self.needs_support:
            raise ValueError("a classifier on patches needs support images: fit(..., support=...)")
        prototypes = labelled_prototypes(restrict(memory, self.where), vocabulary)
        patches = prototypes if support is None else self._patches(memory, support)
        samples = patches if self.needs_support else prototypes
        self.fitted_strength = self.strength or self._tune(samples, patches, len(vocabulary))
        self._classify = self.train(samples, self.fitted_strength)
        self.names = tuple(vocabulary.names[c] for c in np.unique(samples.labels))
        return self

    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """See `Method.predict`. Without evidence: a prototype's part in the classifier is not known.

        Raises:
            ValueError: none of the vocabulary's classes has visual support, nor any of them text.
        """
        if self.names is None:
            self.fit(memory, vocabulary)
        features = Query.of(query).features
        known = [name for name in vocabulary.names if name in self.names]
        if not known:
            return Prediction(zero_shot(features, vocabulary))
        scores = self._classify(features)[:, [self.names.index(name) for name in known]]
        out = np.zeros((len(features), len(vocabulary)), dtype=np.float32)
        out[:, np.isin(vocabulary.names, known)] = scores / np.maximum(scores.sum(1, keepdims=True), 1e-12)
        return Prediction(out)

    def train(self, samples: LabelledFeatures, strength: float) -> Callable[[NDArray], NDArray]:
        """Logistic regression -> a function (N, D) -> (N, K) probabilities of the K classes it saw."""
        from sklearn.linear_model import LogisticRegression  # here, since it is slow to import

        classes = len(np.unique(samples.labels))
        if classes < 2:  # scikit-learn has nothing to separate
            return lambda features: np.ones((len(features), classes))
        # The warnings are that it stopped early, and that a class has one sample.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            model = LogisticRegression(C=strength, max_iter=STEPS)
            return model.fit(samples.features, samples.labels).predict_proba

    def _tune(self, samples: LabelledFeatures, tests: LabelledFeatures, size: int) -> float:
        """The strength with the best mIoU on half of the images, when trained on the other half."""
        images = np.random.default_rng(self.seed).permutation(np.unique(samples.images))
        train = samples.take(np.isin(samples.images, images[::2]))
        test = tests.take(np.isin(tests.images, images[1::2]))
        classes, scores = np.unique(train.labels), []
        if not len(test.labels) or len(classes) < 2:
            return STRENGTHS[len(STRENGTHS) // 2]
        for strength in STRENGTHS:
            answer = classes[self.train(train, strength)(test.features).argmax(1)]
            scores.append(mean_iou(confusion_matrix(answer, test.labels, size, ignore_index=-1)))
        return STRENGTHS[int(np.argmax(scores))]

    def _patches(self, memory: Memory, support: Support) -> LabelledFeatures:
        """Labelled patches of support images, `per_image` of each and `at_most` in all."""
        rng, parts = np.random.default_rng(self.seed), []
        for features, labels, image_id in support_patches(support, memory, self.where):
            rows = rng.permutation(np.flatnonzero(~np.isin(labels, (-1, IGNORE))))[: self.per_image]
            parts.append(LabelledFeatures(features[rows], labels[rows], np.full(len(rows), image_id)))
        patches = LabelledFeatures(*map(np.concatenate, zip(*parts or [NO_SAMPLES], strict=True)))
        return patches.take(rng.permutation(len(patches.labels))[: self.at_most])


def labelled_prototypes(memory: Memory, vocabulary: Vocabulary) -> LabelledFeatures:
    """The prototypes of the vocabulary's classes in a memory, class after class; none without a memory."""
    if memory is None:
        return NO_SAMPLES
    rows = [np.flatnonzero(memory.rows.of_classes([name])) for name in vocabulary.names]
    labels, rows = np.repeat(np.arange(len(rows)), [len(own) for own in rows]), np.concatenate(rows)
    return LabelledFeatures(memory.vectors[rows], labels, memory.image_ids[rows])


@register_method("offline-pixels")
@dataclass
class OfflinePixels(OfflineLinear):
    """The same classifier on every labelled patch of the support images, not on their prototypes.

    A patch has the class that most of its pixels have.
    """

    needs_support: ClassVar[bool] = True


@register_method("supervised")
@dataclass
class Supervised(OfflinePixels):
    """Full supervision for frozen features: trained on every annotated image there is, not on a draw.

    The ceiling that the gap to zero-shot is measured against. `rose_kit.evaluation.evaluate` fits it once,
    on the whole support set with every label; its later fits, to single draws, change nothing.
    """

    upper_bound: ClassVar[bool] = True
    at_most: int = 40_000

    def fit(self, memory: Memory, vocabulary: Vocabulary, support: Support = None) -> Self:
        """See `OfflineLinear.fit`; only the first one counts."""
        return super().fit(memory, vocabulary, support) if self.names is None else self
