"""The training set of RNS: made anew for each image, from what was retrieved and what the text says.

Three kinds of sample (section numbers of Retrieve and Segment are in each function):
A, retrieved prototypes; B, class prototypes fused with text; D, pseudo-labelled features of classes
that have text but no visual support.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.retrieval import Retrieved
from rose_kit.fusion.text import LOGIT_SCALE, class_cosines, complete_text, softmax
from rose_kit.types import Vocabulary, unit

LAMBDAS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
SPREADS = 4  # temperature of the relevance, in standard deviations of the cosines: flat, as published


@dataclass(frozen=True)
class Samples:
    """S training samples of one image.

    Args:
        features: (S, D) float32 unit norm.
        target: (S, C) float32 class distribution; one-hot where the label is hard.
        strength: (S,) float32 beta of the sample's kind.
        visual_share: (S,) how much of the feature is the class prototype v_c: feature =
            visual_share * v_c + something else. 0 for samples that contain no class prototype.
    """

    features: NDArray[np.float32]
    target: NDArray[np.float32]
    strength: NDArray[np.float32]
    visual_share: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def label(self) -> NDArray[np.int64]:
        """(S,) the class a sample stands for."""
        return self.target.argmax(1)

    def weight(self, relevance: NDArray) -> NDArray[np.float32]:
        """(S,) a_s * beta_s: relevance of the sample's class, adding up to 1, times its strength."""
        a = relevance[self.label]
        return (a / a.sum() * self.strength).astype(np.float32)

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """One after the other."""
        columns = zip(*([getattr(part, f.name) for f in fields(cls)] for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))


def class_relevance(image_feature: NDArray, vocabulary: Vocabulary, tau: float | None) -> NDArray[np.float32]:
    """w = softmax_c(cos(image, t_c) / tau): which classes this image is likely to hold.

    Uniform as soon as any class lacks text, since a mean text would make it too relevant.

    Args:
        image_feature: (D,) mean of the image's patches, of any norm.
        vocabulary: several texts of a class reduce by their maximum.
        tau: temperature; None takes `SPREADS` times the cosines' own standard deviation. The published
            0.1 is flat for CLIP, whose cosines to all names differ by hundredths; for an encoder whose
            cosines differ by tenths it would leave most classes without a say.

    Returns:
        (C,) adding up to 1.
    """
    if not vocabulary.has_text.all():
        return np.full(len(vocabulary), 1 / len(vocabulary), dtype=np.float32)
    cosines = class_cosines(unit(image_feature)[None], vocabulary)[0]  # (C,)
    return softmax(cosines / (tau or max(SPREADS * float(cosines.std()), 1e-6)))


def retrieved_samples(retrieved: Retrieved, size: int) -> Samples:
    """A: each retrieved prototype once, labelled with its class among `size` classes."""
    target = _one_hot(retrieved.classes, size)
    return _samples(retrieved.vectors, target, 1, np.zeros(len(retrieved), np.float32))


def fused_samples(
    prototypes: NDArray, classes: NDArray, vocabulary: Vocabulary, lambdas: Sequence[float], beta: float
) -> Samples:
    """B: f_cl = unit(l * v_c + (1 - l) * t_c) for each retrieved class, each of its texts, each l.

    The weight of l is that of the authors' code (l on vision, which includes pure text and never
    pure vision), not of the paper's equation. A class without text uses the mean of the other texts.

    Args:
        prototypes: (C, D) class prototypes v_c; read for `classes` only.
        classes: class indices that were retrieved.
        vocabulary: with text.
        lambdas: the L mixing weights.
        beta: strength of these samples.
    """
    features, label, share = _mix(prototypes, classes, vocabulary, lambdas)
    return _samples(features, _one_hot(label, len(vocabulary)), beta, share)


def pseudo_samples(
    features: NDArray, supported: NDArray, vocabulary: Vocabulary, lambdas: Sequence[float], beta: float
) -> Samples:
    """D: for classes that zero-shot sees in this image and the memory does not know.

    u_c = unit(mean of the patches that zero-shot calls c) takes the place of v_c; the target is soft:
    the zero-shot distribution of the fused feature.

    Args:
        features: (N, D) patches of the image.
        supported: (C,) whether the memory holds a prototype of the class.
        vocabulary: with text.
        lambdas: the L mixing weights.
        beta: strength of these samples.
    """
    guess = class_cosines(features, vocabulary).argmax(1)  # (N,)
    mean = np.zeros((len(vocabulary), features.shape[1]), dtype=np.float32)
    unseen = np.setdiff1d(guess, np.flatnonzero(supported))
    for c in unseen:
        mean[c] = unit(features[guess == c].mean(0))
    mixed, _, _ = _mix(mean, unseen, vocabulary, lambdas)
    target = softmax(LOGIT_SCALE * class_cosines(mixed, vocabulary))  # (S, C)
    return _samples(mixed, target, beta, np.zeros(len(mixed), np.float32))


def _samples(features: NDArray, target: NDArray, beta: float, visual_share: NDArray) -> Samples:
    return Samples(features, target, np.full(len(features), beta, np.float32), visual_share)


def _mix(
    visual: NDArray, classes: NDArray, vocabulary: Vocabulary, lambdas: Sequence[float]
) -> tuple[NDArray, NDArray, NDArray]:
    """unit(l * v_c + (1 - l) * t_c) for each text of the classes (R in all) and each l.

    Returns:
        (R * L, D) mixtures of (C, D) `visual` and text; (R * L,) their classes, and the factor of v_c.
    """
    complete = complete_text(vocabulary)
    rows = np.flatnonzero(np.isin(complete.owner, classes))  # (R,)
    text, owner = complete.text[rows], complete.owner[rows]
    lam = np.asarray(lambdas, dtype=np.float32)[None, :, None]  # (1, L, 1)
    mixed = lam * visual[owner][:, None] + (1 - lam) * text[:, None]  # (R, L, D)
    norm = np.linalg.norm(mixed, axis=2, keepdims=True)
    norm[norm == 0] = 1
    share = np.broadcast_to(lam, norm.shape) / norm
    return (mixed / norm).reshape(-1, text.shape[1]), np.repeat(owner, len(lambdas)), share.ravel()


def _one_hot(labels: NDArray, size: int) -> NDArray[np.float32]:
    return (labels[:, None] == np.arange(size)).astype(np.float32)
