"""Zero-shot: the text alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rose_kit.fusion.method import StatelessMethod
from rose_kit.fusion.text import LOGIT_SCALE, zero_shot
from rose_kit.registry import register_method
from rose_kit.types import Prediction, Query


@register_method("zero-shot")
@dataclass
class ZeroShot(StatelessMethod):
    """softmax(scale * cosine) of each patch with each class's text; retrieves nothing.

    Several texts of a class reduce by their maximum; a class without text is given the unit-norm
    mean of the other texts, as in RNS, so such classes tie and the lowest wins.

    Args:
        scale: the logit scale, 1 / temperature.
    """

    scale: float = LOGIT_SCALE
    needs_text: ClassVar[bool] = True  # an evaluation without text leaves the method out

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `Method.predict`; the memory may be None.

        Raises:
            ValueError: the vocabulary has no text at all.
        """
        return Prediction(zero_shot(Query.of(query).features, vocabulary, self.scale))
