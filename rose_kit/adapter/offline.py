"""Baselines without retrieval: one linear classifier for all images, trained before any is seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.method import SupportExample, no_support_error
from rose_kit.fusion.retrieval import class_positions
from rose_kit.fusion.text import zero_shot
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.registry import register_method
from rose_kit.types import IGNORE, Prediction, Query, Vocabulary

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # tried when none is given
STEPS = 200  # of L-BFGS, at most


class Labelled(NamedTuple):
    """S labelled features: (S, D) float32, (S,) class indices, (S,) ids of the images they come from."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: NDArray

    def take(self, rows: NDArray) -> Labelled:
        """Some of them, by position or mask."""
        return Labelled(*(column[rows] for column in self))


@register_method("offline-linear")
@dataclass
class OfflineLinear:
    """A logistic regression on the memory's prototypes (RNS, figure 6).

    It is fitted once and never looks at the image in question, nor at text: a class without visual
    support is never answered. Only where no class has any does the text answer, as in zero-shot.
    `predict` fits it on first use; it does not notice when the memory changes later.

    Args:
        strength: weight of the samples against the regulariser (scikit-learn's C); None takes the one
            of `STRENGTHS` that segments left-out support images best.
        per_image, at_most: patches taken of each support image and in all, at random.
        seed: of what is random.

    Raises:
        ValueError: a number that must be positive and is not.
    """

    strength: float | None = None
    per_image: int = 200
    at_most: int = 10_000
    seed: int = 0
    names: tuple[str, ...] | None = field(default=None, init=False, repr=False)  # of the fitted classes
    fitted_strength: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("strength", "per_image", "at_most"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")

    def fit(self, memory, vocabulary, support=None) -> OfflineLinear:
        """See `Method.fit`; `support` helps to tune `strength`."""
        samples = prototypes(memory, vocabulary)
        return self.fit_on(samples, samples if support is None else self.patches(support), vocabulary)

    def fit_on(self, samples: Labelled, tests: Labelled, vocabulary: Vocabulary) -> OfflineLinear:
        """Train on `samples`, with the strength that segments `tests` best."""
        self.fitted_strength = self.strength or self.tune(samples, tests, len(vocabulary))
        self._model = self.train(samples, self.fitted_strength)
        self.names = tuple(vocabulary.names[c] for c in np.unique(samples.labels))
        return self

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `Method.predict`. Without evidence: the classifier does not keep what it was made of.

        Raises:
            ValueError: none of the vocabulary's classes has visual support, nor any of them text.
        """
        if self.names is None:
            self.fit(memory, vocabulary)
        features = Query.of(query).features
        known = [c for c, name in enumerate(vocabulary.names) if name in self.names]
        if not known and not vocabulary.has_text.any():
            raise no_support_error(vocabulary)
        if not known:
            return Prediction(zero_shot(features, vocabulary))
        scores = self._model(features)[:, [self.names.index(vocabulary.names[c]) for c in known]]
        out = np.zeros((len(features), len(vocabulary)), dtype=np.float32)
        out[:, known] = scores / np.maximum(scores.sum(1, keepdims=True), 1e-12)
        return Prediction(out)

    def train(self, samples: Labelled, strength: float) -> Callable[[NDArray], NDArray]:
        """Logistic regression -> a function (N, D) -> (N, K) probabilities of the K classes it saw."""
        from sklearn.linear_model import LogisticRegression  # here, since it is slow to import

        classes = len(np.unique(samples.labels))
        if classes < 2:  # scikit-learn has nothing to separate
            return lambda features: np.ones((len(features), classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it stopped early; that a class has one sample
            model = LogisticRegression(C=strength, max_iter=STEPS)
            return model.fit(samples.features, samples.labels).predict_proba

    def tune(self, samples: Labelled, tests: Labelled, size: int) -> float:
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

    def patches(self, support: Iterable[SupportExample]) -> Labelled:
        """Labelled patches of support images, `per_image` of each and `at_most` in all."""
        rng, parts = np.random.default_rng(self.seed), []
        for query, labels, image_id in support:
            features, labels = Query.of(query).features, np.asarray(labels)
            rows = rng.permutation(np.flatnonzero(~np.isin(labels, (-1, IGNORE))))[: self.per_image]
            parts.append(Labelled(features[rows], labels[rows], np.full(len(rows), image_id)))
        if not parts:
            return no_samples()
        patches = Labelled(*map(np.concatenate, zip(*parts, strict=True)))
        return patches.take(rng.permutation(len(patches.labels))[: self.at_most])


def no_samples() -> Labelled:
    """What there is to learn from where nothing is given."""
    return Labelled(np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, str))


def prototypes(memory, vocabulary: Vocabulary) -> Labelled:
    """The prototypes of a memory, if there is one, as samples, as far as their class is in the vocabulary."""
    if memory is None:
        return no_samples()
    positions = class_positions(memory, vocabulary.names)
    labels = np.repeat(np.arange(len(positions)), list(map(len, positions)))
    positions = np.concatenate(positions)
    return Labelled(memory.vectors[positions], labels, memory.image_ids[positions])


@register_method("offline-pixels")
@dataclass
class OfflinePixels(OfflineLinear):
    """The same classifier on every labelled patch of the support images, not on their prototypes.

    A patch has the class that most of its pixels have.
    """

    needs_support: ClassVar[bool] = True  # a memory alone does not hold the patches it is fitted on

    def fit(self, memory, vocabulary, support=None) -> OfflinePixels:
        """See `Method.fit`.

        Raises:
            ValueError: there are no support images.
        """
        if support is None:
            raise ValueError("a classifier on pixels is trained on support images: fit(..., support=...)")
        patches = self.patches(support)
        return self.fit_on(patches, patches, vocabulary)


@register_method("supervised")
@dataclass
class Supervised(OfflinePixels):
    """Full supervision for frozen features: trained on every annotated image there is, not on a draw.

    The ceiling that the gap to zero-shot is measured against. `rose_kit.evaluation.evaluate` fits it once,
    on the whole support set with every label; its later fits, to single draws, change nothing.
    """

    upper_bound: ClassVar[bool] = True
    at_most: int = 40_000

    def fit(self, memory, vocabulary, support=None) -> Supervised:
        """See `OfflinePixels.fit`; only the first one counts."""
        return super().fit(memory, vocabulary, support) if self.names is None else self
