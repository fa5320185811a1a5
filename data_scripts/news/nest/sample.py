"""A NEST sample: an image, a dated question, the answer in words and as a mask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

KINDS = ("novel", "emerging", "static")


@dataclass(frozen=True)
class NestSample:
    """One question about one image.

    Args:
        id: unique in its benchmark.
        image: (H, W, 3) uint8.
        question: as a user would write it.
        day: when it is asked.
        answer: the name of what it asks for on that day.
        mask: (H, W) bool, where that is.
        kind: "novel" (a product of a class that no caption ever named), "emerging" (who holds a role), or
            "static" (no look-up needed).
        hint: whether the question holds a word of time or news; in a static one such a word misleads.
        thing: class of what is asked for.
        seed: of the world it was drawn from.

    Raises:
        ValueError: shapes or types that do not fit, an empty mask, question or answer, an unknown kind.
    """

    id: str
    image: NDArray[np.uint8]
    question: str
    day: date
    answer: str
    mask: NDArray[np.bool_]
    kind: str
    hint: bool = False
    thing: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"{self.id}: image is {self.image.dtype} {self.image.shape}, not uint8 (H, W, 3)"
            )
        if self.mask.shape != self.image.shape[:2] or self.mask.dtype != bool:
            got, size = f"{self.mask.dtype} {self.mask.shape}", self.image.shape[:2]
            raise ValueError(f"{self.id}: mask is {got}, not bool {size}")
        if not (self.mask.any() and self.question.strip() and self.answer.strip()):
            raise ValueError(f"{self.id}: question, answer and mask must not be empty")
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: unknown kind {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def needs_web(self) -> bool:
        """Whether the question cannot be answered without looking something up."""
        return self.kind != "static"

    @property
    def known_by_name(self) -> bool:
        """Whether the answer to a question that needs a look-up is what a class is called."""
        return self.needs_web and self.answer == self.thing


def same_answer(said: str, truth: str) -> bool:
    """Whether an answer names what it should: as a whole, whatever the case, articles and punctuation.

    >>> same_answer("The Marigold.", "Marigold"), same_answer("Marigold Lane", "Marigold")
    (True, False)
    """
    return _plain(said) == _plain(truth)


def _plain(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.casefold())
    return " ".join(words[1:] if words[:1] in (["the"], ["a"], ["an"]) else words)
