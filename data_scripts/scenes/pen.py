"""A pen that draws flat shapes into an image and, at the same time, into its annotation."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
SUPERSAMPLE = 2  # the image is drawn twice as large, then shrunk, so that edges are smooth
_ANGLES = np.linspace(0, 2 * math.pi, 22, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)  # (22, 2)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (< 1) or lighten (> 1) a colour."""
    return tuple(int(min(255, max(0, channel * factor))) for channel in colour)


def hsv(h: float, s: float, v: float) -> Colour:
    """A colour from hue, saturation and value, each in [0, 1]."""
    return tuple(int(255 * channel) for channel in colorsys.hsv_to_rgb(h % 1.0, s, v))


class Canvas:
    """An image in the making, and the map of which region each pixel belongs to.

    Args:
        image: (H * 2, W * 2, 3) uint8 background, drawn at twice the size.
        regions: (H, W) uint8 region ids.
    """

    def __init__(self, image: np.ndarray, regions: np.ndarray) -> None:
        self.image = Image.fromarray(image)
        self.regions = Image.fromarray(regions)
        self._ink = ImageDraw.Draw(self.image)
        self._map = ImageDraw.Draw(self.regions)

    def polygon(self, points: np.ndarray, colour: Colour, region: int) -> None:
        """Fill a polygon given as (n, 2) pixel coordinates (x, y) of the final image."""
        self._ink.polygon((points * SUPERSAMPLE).ravel().tolist(), fill=colour)
        self._map.polygon((points - 0.5).ravel().tolist(), fill=region)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """The (H, W, 3) uint8 image and the (H, W) uint8 region map."""
        return np.asarray(self.image.reduce(SUPERSAMPLE)), np.asarray(self.regions)


class Pen:
    """Draws in a unit square (x right, y down, the ground at y = 1) placed on a canvas.

    Args:
        canvas: where to draw.
        region: id written into the annotation.
        box: (x, y, width, height) of the unit square, in pixels.
        tilt: rotation about the middle of the ground line, in radians.
        flip: mirror left and right.
    """

    def __init__(
        self, canvas: Canvas, region: int, box: Sequence[float], tilt: float = 0.0, flip: bool = False
    ) -> None:
        x, y, width, height = box
        c, s = math.cos(tilt), math.sin(tilt)
        side = -1.0 if flip else 1.0
        self._matrix = np.array([[c * side * width, s * side * width], [-s * height, c * height]])
        self._shift = np.array([x + width / 2, y + height])
        self.canvas, self.region = canvas, region

    def poly(self, points: Sequence[Sequence[float]], colour: Colour) -> None:
        """Fill a polygon."""
        centred = np.asarray(points, dtype=float) - (0.5, 1.0)
        self.canvas.polygon(centred @ self._matrix + self._shift, colour, self.region)

    def oval(self, cx: float, cy: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse."""
        self.poly(_CIRCLE * (rx, ry) + (cx, cy), colour)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> None:
        """Draw a straight stroke."""
        dx, dy = x1 - x0, y1 - y0
        norm = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / norm * width / 2, dx / norm * width / 2
        self.poly([(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)], colour)

    def ring(self, cx: float, cy: float, rx: float, ry: float, width: float, colour: Colour) -> None:
        """Draw a hollow ellipse; what lies inside stays as it was, in image and annotation."""
        outer = _CIRCLE * (rx, ry) + (cx, cy)
        inner = _CIRCLE * (rx - width, ry - width) + (cx, cy)
        for i in range(len(_CIRCLE)):
            j = (i + 1) % len(_CIRCLE)
            self.poly([outer[i], outer[j], inner[j], inner[i]], colour)
