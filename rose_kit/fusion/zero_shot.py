"""Zero-shot: what the text says alone. Cosines per class, their softmax, missing texts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method
from rose_kit.registry import register_method
from rose_kit.types import Prediction, Query, Vocabulary, unit

LOGIT_SCALE = 100.0  # CLIP's own temperature, 1 / 0.01


def softmax(scores: NDArray) -> NDArray:
    """Softmax over the last axis; -inf scores get no mass.

    >>> softmax(np.array([0.0, 0.0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    """
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def complete_text(vocabulary: Vocabulary) -> Vocabulary:
    """Give every class a text: where all of a class's texts are missing, the mean of the others.

    The convention of RNS for missing text. A class that keeps at least one of its texts just
    loses the missing ones.

    Args:
        vocabulary: with at least one text that is not missing.

    Returns:
        A vocabulary without NaN rows in which every class owns at least one row.

    Raises:
        ValueError: no class has text.

    >>> v = complete_text(Vocabulary(names=["a", "b"], text=[[0, 1], [np.nan, np.nan]]))
    >>> v.text.tolist(), v.owner.tolist()
    ([[0.0, 1.0], [0.0, 1.0]], [0, 1])
    """
    has_text = vocabulary.has_text
    if not has_text.any():
        raise ValueError(f"no class of the vocabulary has text: {', '.join(vocabulary.names)}")
    keep = ~np.isnan(vocabulary.text).any(1)
    present = vocabulary.text[keep]
    missing = np.flatnonzero(~has_text)
    text = np.concatenate([present, np.tile(unit(present.mean(0)), (len(missing), 1))])
    return Vocabulary(vocabulary.names, text, np.concatenate([vocabulary.owner[keep], missing]))


def class_cosines(features: NDArray, vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Cosine of each feature with each class: the maximum over the class's texts.

    Classes without text share the completed text's cosine to the last bit, so that ties between
    them go to the lowest class on every machine.

    Args:
        features: (N, D) unit norm.
        vocabulary: with at least one text.

    Returns:
        (N, C) float32.
    """
    complete = complete_text(vocabulary)
    if features.shape[1] != complete.text.shape[1]:
        raise ValueError(f"features are {features.shape[1]} wide, but the text is {complete.text.shape[1]}")
    cosines = complete.reduce(features @ complete.text.T)  # (N, D) @ (D, T) -> (N, T) -> (N, C)
    missing = np.flatnonzero(~vocabulary.has_text)
    cosines[:, missing[1:]] = cosines[:, missing[:1]]
    return cosines


def zero_shot(features: NDArray, vocabulary: Vocabulary, scale: float = LOGIT_SCALE) -> NDArray[np.float32]:
    """(N, D) features -> (N, C) probabilities: softmax(scale * cosine) over the classes."""
    return softmax(scale * class_cosines(features, vocabulary))


@register_method("zero-shot")
@dataclass
class ZeroShot(Method):
    """softmax(scale * cosine) of each patch with each class's text; retrieves nothing.

    Several texts of a class reduce by their maximum. A class without text is given the unit-norm
    mean of the other texts, as in RNS; such classes tie, and the lowest of them wins.

    Args:
        scale: the logit scale, 1 / temperature.
    """

    scale: float = LOGIT_SCALE
    needs_text: ClassVar[bool] = True  # an evaluation without text leaves the method out

    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """See `Method.predict`; the memory is not used.

        Raises:
            ValueError: the vocabulary has no text at all.
        """
        cosines = class_cosines(Query.of(query).features, vocabulary)
        return Prediction(softmax(self.scale * cosines), scores=cosines)
