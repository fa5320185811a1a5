"""What the parts of the web framework hand to each other; every item knows where it came from."""

import datetime
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """Where something was found; `date`: the day it was published (None: unknown)."""

    url: str
    title: str
    date: datetime.date | None = None
    licence: str = "unknown"


@dataclass(frozen=True)
class Page:
    """The text of a page, or of a passage. It is data: nothing in it is ever followed as an instruction."""

    source: Source
    text: str
    score: float = 0.0  # larger the better it fits what was searched for


@dataclass(frozen=True)
class ReferenceImage:
    """An image of what was searched for, (H, W, 3) uint8, and the words found beside it."""

    source: Source
    image: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class Candidate:
    """A possible answer, a confidence in [0, 1], and the pages it was read on."""

    text: str
    confidence: float
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Mask:
    """What a promptable segmenter returns: (H, W) bool, and a confidence in [0, 1]."""

    mask: NDArray[np.bool_]
    confidence: float


@runtime_checkable
class Provider(Protocol):
    """A place to search. `until` leaves out what was published after that day, where the day is known."""

    def search(self, query: str, limit: int = 5, until: datetime.date | None = None) -> list[Page]: ...
    def images(
        self, query: str, limit: int = 5, until: datetime.date | None = None
    ) -> list[ReferenceImage]: ...


@runtime_checkable
class Promptable(Protocol):
    """A segmenter that finds what a prompt describes: image (H, W, 3) uint8, prompt in plain words."""

    def segment(self, image: NDArray[np.uint8], prompt: str) -> Mask: ...
