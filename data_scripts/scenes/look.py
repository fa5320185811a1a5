"""The look of one individual: its colours and variant, and the table of who draws what."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_scripts.scenes.pen import Colour, Pen, hsv

# Palettes: (hue range, saturation range, value range), one of which is drawn for an individual.
Band = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
_PALETTES: dict[str, tuple[Band, ...]] = {
    "paint": (((0.0, 1.0), (0.6, 0.95), (0.55, 0.95)), ((0.0, 1.0), (0.0, 0.08), (0.3, 0.95))),
    "coat": (((0.06, 0.1), (0.45, 0.75), (0.35, 0.75)),),
    "fur": (((0.06, 0.1), (0.6, 0.85), (0.8, 0.98)), ((0.6, 0.7), (0.0, 0.1), (0.35, 0.6))),
    "wool": (((0.1, 0.14), (0.02, 0.12), (0.86, 0.98)),),
    "bird": (((0.55, 0.62), (0.02, 0.15), (0.75, 0.98)), ((0.6, 0.75), (0.1, 0.3), (0.15, 0.3))),
    "fish": (((0.03, 0.08), (0.85, 1.0), (0.9, 1.0)),),
    "leaf": (((0.24, 0.38), (0.5, 0.8), (0.4, 0.7)), ((0.06, 0.12), (0.7, 0.9), (0.6, 0.85))),
    "petal": (((0.8, 1.05), (0.55, 0.9), (0.85, 1.0)), ((0.7, 0.8), (0.4, 0.7), (0.7, 0.95))),
    "cactus": (((0.33, 0.43), (0.45, 0.7), (0.4, 0.65)),),
    "cap": (((-0.02, 0.03), (0.8, 0.95), (0.7, 0.95)),),
    "wood": (((0.06, 0.1), (0.5, 0.75), (0.4, 0.75)),),
    "bright": (((0.0, 1.0), (0.75, 1.0), (0.8, 1.0)),),
    "glass": (((0.25, 0.4), (0.5, 0.8), (0.35, 0.65)), ((0.05, 0.09), (0.7, 0.9), (0.35, 0.55))),
    "metal": (((0.5, 0.65), (0.03, 0.2), (0.6, 0.85)),),
    "white": (((0.5, 0.65), (0.0, 0.06), (0.88, 0.98)),),
}


@dataclass(frozen=True)
class Look:
    """What tells one individual from another of its class.

    Args:
        main: its main colour.
        second: its second colour.
        variant: 0 to 3, small differences of pattern and shape.
    """

    main: Colour
    second: Colour
    variant: int

    @classmethod
    def of(cls, name: str, individual: int) -> Look:
        """The look of an individual: the same number always looks the same."""
        return cls.draw(name, np.random.default_rng([zlib.crc32(name.encode()), individual]))

    @classmethod
    def draw(cls, name: str, rng: np.random.Generator) -> Look:
        """A random look for a class."""
        bands = _PALETTES[DRAWINGS[name].palette]
        (h, s, v) = bands[rng.integers(len(bands))]
        main = hsv(rng.uniform(*h), rng.uniform(*s), rng.uniform(*v))
        second = hsv(rng.uniform(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9))
        return cls(main, second, int(rng.integers(4)))


@dataclass(frozen=True)
class Drawing:
    """How a class is drawn: the function, width / height, and the palette of its main colour."""

    draw: Callable[[Pen, Look], None]
    aspect: float
    palette: str


DRAWINGS: dict[str, Drawing] = {}


def draws(name: str, aspect: float, palette: str = "paint") -> Callable:
    """Decorator: this function draws the class `name` in a unit square."""

    def keep(function: Callable[[Pen, Look], None]) -> Callable[[Pen, Look], None]:
        DRAWINGS[name] = Drawing(function, aspect, palette)
        return function

    return keep
