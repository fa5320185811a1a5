"""Baselines without retrieval: one linear classifier for all images, trained before any is seen."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.method import nothing_to_go_on
from rose_kit.fusion.retrieval import class_rows
from rose_kit.fusion.text import zero_shot
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.registry import register_method
from rose_kit.types import Prediction, Query, Vocabulary

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # tried when none is given
# (S, D) features, (S,) class indices, (S,) image each sample comes from
Labelled = tuple[NDArray[np.float32], NDArray[np.int64], NDArray]


@register_method("offline-linear")
@dataclass
class OfflineLinear:
    """A logistic regression on the memory's prototypes, or on all labelled patches (RNS, figure 6).

    It is fitted once and never looks at the image in question, nor at text: a class without visual
    support is never answered. Only where no class has any does the text answer, as in zero-shot.
    On prototypes, `predict` fits it on first use; it does not notice when the memory changes later.

    Args:
        on: "prototypes" or "pixels" (patches, labelled with the class most of their pixels have).
        strength: weight of the samples against the regulariser (scikit-learn's C); None takes the one
            of `STRENGTHS` that segments left-out support images best.
        balanced: weigh classes equally, however many samples they have.
        steps: at most so many iterations of L-BFGS.
        per_image, at_most: patches taken of each image and in all, at random.
        seed: of what is random.

    Raises:
        ValueError: an unknown `on`, or a number that must be positive and is not.
    """

    on: str = "prototypes"
    strength: float | None = None
    balanced: bool = False
    steps: int = 200
    per_image: int = 200
    at_most: int = 10_000
    seed: int = 0
    names: tuple[str, ...] | None = field(default=None, init=False, repr=False)  # of the fitted classes
    fitted_strength: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.on not in ("prototypes", "pixels"):
            raise ValueError(f"on must be 'prototypes' or 'pixels', got {self.on!r}")
        for name in ("strength", "steps", "per_image", "at_most"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")

    def fit(self, memory, vocabulary, support=None) -> OfflineLinear:
        """See `Method.fit`. On pixels it needs `support`; on prototypes that helps to tune `strength`.

        Raises:
            ValueError: on pixels, without support images.
        """
        if self.on == "pixels":
            if support is None:
                raise ValueError("a classifier on pixels is trained on support images: fit(..., support=...)")
            samples = tests = self.patches(support)
        else:
            samples = prototypes(memory, vocabulary)
            tests = samples if support is None else self.patches(support)
        self.fitted_strength = self.strength or self.tune(samples, tests, len(vocabulary))
        self._model = self.train(samples, self.fitted_strength)
        self.names = tuple(vocabulary.names[c] for c in np.unique(samples[1]))
        return self

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `Method.predict`. Without evidence: the classifier has forgotten what it was made of.

        Raises:
            ValueError: none of the vocabulary's classes has visual support, nor any of them text.
        """
        if self.names is None:
            self.fit(memory, vocabulary)
        features = Query.of(query).features
        known = [c for c, name in enumerate(vocabulary.names) if name in self.names]
        if not known and not vocabulary.has_text.any():
            raise nothing_to_go_on(vocabulary)
        if not known:
            return Prediction(zero_shot(features, vocabulary))
        scores = self._model(features)[:, [self.names.index(vocabulary.names[c]) for c in known]]
        out = np.zeros((len(features), len(vocabulary)), dtype=np.float32)
        out[:, known] = scores / np.maximum(scores.sum(1, keepdims=True), 1e-12)
        return Prediction(out)

    def train(self, samples: Labelled, strength: float):
        """Logistic regression -> a function (N, D) -> (N, K) probabilities of the K classes it saw."""
        from sklearn.exceptions import ConvergenceWarning  # here, since it is slow to import
        from sklearn.linear_model import LogisticRegression

        x, y, _ = samples
        if len(np.unique(y)) < 2:  # scikit-learn has nothing to separate
            return lambda features: np.ones((len(features), len(np.unique(y))))
        model = LogisticRegression(
            C=strength, max_iter=self.steps, class_weight="balanced" if self.balanced else None
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is a setting here
            warnings.simplefilter("ignore", UserWarning)  # that one sample of a class is few
            return model.fit(x, y).predict_proba

    def tune(self, samples: Labelled, tests: Labelled, size: int) -> float:
        """The strength with the best mIoU on half of the images, when trained on the other half."""
        images = np.random.default_rng(self.seed).permutation(np.unique(samples[2]))
        train, test = (
            tuple(column[np.isin(part[2], half)] for column in part)
            for part, half in ((samples, images[::2]), (tests, images[1::2]))
        )
        if not len(test[1]) or len(np.unique(train[1])) < 2:
            return STRENGTHS[len(STRENGTHS) // 2]
        classes, scores = np.unique(train[1]), []
        for strength in STRENGTHS:
            answer = classes[self.train(train, strength)(test[0]).argmax(1)]
            scores.append(mean_iou(confusion_matrix(answer, test[1], size, ignore_index=-1)))
        return STRENGTHS[int(np.argmax(scores))]

    def patches(self, support: Iterable) -> Labelled:
        """Labelled patches of support images, `per_image` of each and `at_most` in all."""
        rng, parts = np.random.default_rng(self.seed), []
        for query, labels, image_id in support:
            features, labels = Query.of(query).features, np.asarray(labels)
            rows = rng.permutation(np.flatnonzero(~np.isin(labels, (-1, 255))))[: self.per_image]
            parts.append((features[rows], labels[rows], np.full(len(rows), image_id)))
        if not parts:
            return np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, str)
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        kept = rng.permutation(len(columns[0]))[: self.at_most]
        return tuple(column[kept] for column in columns)


def prototypes(memory, vocabulary: Vocabulary) -> Labelled:
    """The prototypes of a memory as samples, as far as their class is in the vocabulary."""
    rows = class_rows(memory, vocabulary.names)
    at, labels = np.concatenate(rows), np.repeat(np.arange(len(rows)), list(map(len, rows)))
    if not len(at):
        return np.empty((0, 0), np.float32), labels, np.empty(0, str)
    return memory.vectors[at], labels, memory.image_ids[at]


@register_method("offline-pixels")
@dataclass
class OfflinePixels(OfflineLinear):
    """`OfflineLinear(on="pixels")`: the same images, every labelled patch of them."""

    needs_support: ClassVar[bool] = True  # a memory alone does not hold the patches it is fitted on
    on: str = "pixels"


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
        """See `OfflineLinear.fit`; only the first one counts."""
        return super().fit(memory, vocabulary, support) if self.names is None else self
