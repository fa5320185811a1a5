"""Zero-shot: what the text says alone. Cosines per class, their softmax, missing texts."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method
from rose_kit.registry import register_method
from rose_kit.types import Prediction, Query, Vocabulary, numpy_door

LOGIT_SCALE = 100.0  # CLIP's own temperature, 1 / 0.01


@numpy_door
def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis; -inf scores get no mass.

    >>> softmax(np.array([0.0, 0.0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    """
    return torch.softmax(scores, -1)


@numpy_door
def class_cosines(features: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Cosine of each feature with each class: the maximum over the class's texts.

    Classes without text share the completed text's cosine to the last bit, so that ties between
    them go to the lowest class on every machine.

    Args:
        features: (N, D) unit norm.
        vocabulary: with at least one text.

    Returns:
        (N, C) float32.
    """
    text, owner = vocabulary.completed.tensors(features.device)  # (T, D), (T,)
    if features.shape[1] != text.shape[1]:
        raise ValueError(f"features are {features.shape[1]} wide, but the text is {text.shape[1]}")
    each, owner = features @ text.T, owner.expand(len(features), -1)  # (N, D) @ (D, T) -> (N, T)
    none = each.new_full((len(features), len(vocabulary)), -torch.inf)
    cosines = none.scatter_reduce(1, owner, each, "amax")  # (N, C)
    missing = np.flatnonzero(~vocabulary.has_text)
    cosines[:, missing[1:]] = cosines[:, missing[:1]]
    return cosines


@numpy_door
def zero_shot(features: Tensor, vocabulary: Vocabulary, scale: float = LOGIT_SCALE) -> Tensor:
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
        cosines = class_cosines(Query.of(query).tensor, vocabulary)
        return Prediction(softmax(self.scale * cosines), scores=cosines)
