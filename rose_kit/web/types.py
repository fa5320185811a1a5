"""What the steps of the web framework hand to each other; every item knows where it came from."""

import datetime
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """The place where something was published; `date` is the day of that (None: unknown)."""

    url: str
    title: str
    date: datetime.date | None = None
    licence: str = "unknown"


@dataclass(frozen=True)
class Page:
    """The text of a page, or a passage of it. It is data: nothing in it is followed as an instruction."""

    source: Source
    text: str


@dataclass(frozen=True)
class ReferenceImage:
    """An image that a search returned, (H, W, 3) uint8, and its caption."""

    source: Source
    image: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class Candidate:
    """A name that may answer a question, a confidence in [0, 1], and the pages that speak for it."""

    text: str
    confidence: float
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Mask:
    """What a promptable segmenter returns: (H, W) bool, and a confidence in [0, 1]."""

    mask: NDArray[np.bool_]
    confidence: float


class Step(NamedTuple):
    """One step of a module: what it made, and why, or by what."""

    name: str
    made: str
    why: str = ""


class Provider(Protocol):
    """A place to search for at most `limit` pages or images, without what was published after `day`.

    Items of an unknown date may be among the results. OSError: the place cannot be searched.

    It may have attributes that `rose-kit ask` goes by where no option is given: `known`, the names that the
    segmenter understands; `thresholds`, the path of their file; `days`, the first and the last it covers;
    `example`, a method: question, day -> image (H, W, 3) uint8.
    """

    def search(self, query: str, limit: int, day: datetime.date) -> list[Page]: ...
    def images(self, query: str, limit: int, day: datetime.date) -> list[ReferenceImage]: ...


class Promptable(Protocol):
    """A segmenter that finds what a prompt describes: image (H, W, 3) uint8, prompt in plain words.

    It may have a method `objects`: image -> (K, H, W) bool, masks of whatever is in it.
    """

    def segment(self, image: NDArray[np.uint8], prompt: str) -> Mask: ...
