"""Can a pseudo-label be trusted? What RNS believes about classes without visual support, and signs of it.

Where the memory lacks a class, RNS learns it from the patches that zero-shot gives to it in the very
image it answers (section 3, pseudo-labels). Zero-shot's errors are thereby copied into the head. The
scores below tell the pseudo-labels that are likely to be such errors from those that are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.method import AnyQuery, Method
from rose_kit.fusion.retrieval import supported_classes
from rose_kit.fusion.zero_shot import class_cosines, zero_shot
from rose_kit.types import Query, Vocabulary, unit

if TYPE_CHECKING:
    from rose_kit.memory import SupportMemory


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labelled classes of one image.

    Args:
        guess: (N,) the class that zero-shot gives to each patch.
        classes: (U,) the classes among them without visual support, ascending.
        scores: name -> (U,) signs of reliability, each larger where more reliable.
    """

    guess: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]

    def patches(self, c: int) -> NDArray[np.bool_]:
        """(N,) the patches that teach class `c`."""
        return self.guess == c

    def right(self, counts: NDArray) -> NDArray[np.bool_]:
        """(N, C) pixels of each class in each patch -> (U,) whether half of a class's are its own."""
        pixels = np.array([counts[self.patches(c)].sum(0) for c in self.classes]).reshape(-1, counts.shape[1])
        own = pixels[np.arange(len(self.classes)), self.classes]  # (U,)
        return own >= pixels.sum(1) / 2


def pseudo_labels(
    query: AnyQuery, memory: SupportMemory | None, vocabulary: Vocabulary, method: Method | None = None
) -> PseudoLabels:
    """Find the pseudo-labels of one image and say how far each can be trusted.

    With p the zero-shot probabilities of the patches that zero-shot gives to a class, the scores are
    means over these patches of: "confidence" max p; "margin" the largest p less the second; "entropy"
    sum p log p; "size" the share of the image they cover; "unknown" by how much the class's text fits
    their mean feature better than the best known prototype does; "agreement" (given a method) the share
    of them that the method, having seen the whole image, still answers with this class.

    Args:
        query: the image's patches or regions.
        memory: whose classes need no pseudo-label; None knows no class.
        vocabulary: with text.
        method: usually an `RNS`; it is asked once.

    Raises:
        ValueError: no class of the vocabulary has text.
    """
    query = Query.of(query)
    features, cosines = query.features, class_cosines(query.features, vocabulary)
    guess = cosines.argmax(1)  # (N,)
    supported = supported_classes(memory, vocabulary)
    classes = np.setdiff1d(guess, np.flatnonzero(supported))
    per_patch = _signs(zero_shot(features, vocabulary))
    if method is not None:
        answer = np.asarray(method.predict(query, memory, vocabulary)).argmax(1)
        per_patch["agreement"] = answer == guess
    scores = {name: _means(value, guess, classes) for name, value in per_patch.items()}
    scores["size"] = _means(np.ones(len(guess)), guess, classes, total=len(guess))
    centres = unit(np.array([features[guess == c].mean(0) for c in classes]).reshape(-1, features.shape[1]))
    scores["unknown"] = _unknown(centres, classes, memory, vocabulary, supported)
    return PseudoLabels(guess, classes, scores)


def _signs(p: NDArray) -> dict[str, NDArray]:
    """(N, C) probabilities -> (N,) each, larger where zero-shot is surer."""
    best = np.sort(p, axis=1)[:, ::-1]  # (N, C) largest first
    second = best[:, 1] if p.shape[1] > 1 else 0
    entropy = (p * np.log(np.maximum(p, 1e-12))).sum(1)
    return {"confidence": best[:, 0], "margin": best[:, 0] - second, "entropy": entropy}


def _means(
    values: NDArray, guess: NDArray, classes: NDArray, total: int | None = None
) -> NDArray[np.float32]:
    """(U,) mean over the patches of each class, or their sum divided by `total`."""
    members = [values[guess == c] for c in classes]
    return np.array([m.sum() / (total or len(m)) for m in members], dtype=np.float32)


def _unknown(centres, classes, memory, vocabulary: Vocabulary, supported: NDArray) -> NDArray[np.float32]:
    """(U,) cosine to the own text less the cosine to the nearest prototype of the known classes."""
    own = class_cosines(centres, vocabulary)[np.arange(len(classes)), classes]
    if not supported.any() or not len(classes):
        return own
    names = [vocabulary.names[c] for c in np.flatnonzero(supported)]
    return own - memory.search(centres, 1, classes=names).scores[:, 0]
