"""How stuff is painted: ten textures, and the layouts that stack them into a background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from data_scripts.scenes.pen import hsv

_TILE = 512
Texture = NDArray[np.float32]  # (h, w), about zero mean and unit variance


@cache
def _tile(kind: str) -> Texture:
    """A seamless noise tile, made once from a fixed seed."""
    rng = np.random.default_rng(7)
    if kind == "crowns":
        return _crowns(rng)
    sigma = {"fine": 0.6, "soft": 2.5, "cloud": (9, 20), "blades": (2.2, 0.5), "grain": (0.5, 7)}[kind]
    noise = gaussian_filter(rng.standard_normal((_TILE, _TILE)).astype(np.float32), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def _crowns(rng: np.random.Generator) -> Texture:
    """Overlapping discs lit from the top left: a forest from afar."""
    tile = np.full((_TILE, _TILE), -1.5, dtype=np.float32)
    ys, xs = np.mgrid[-7:8, -7:8]
    for _ in range(5200):
        radius = rng.uniform(3.5, 7)
        inside = ys**2 + xs**2 < radius**2
        light = (1.4 - ((ys + 2) ** 2 + (xs + 2) ** 2) ** 0.5 / radius * 1.9) + rng.normal(0, 0.25)
        cy, cx = rng.integers(_TILE, size=2)
        at = np.ix_((ys[:, 0] + cy) % _TILE, (xs[0] + cx) % _TILE)
        tile[at] = np.where(inside, light, tile[at])
    return tile


def _noise(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Texture:
    """A random window of a tile."""
    y, x = rng.integers(_TILE, size=2)
    rows, cols = (y + np.arange(shape[0])) % _TILE, (x + np.arange(shape[1])) % _TILE
    return _tile(kind)[rows[:, None], cols]


def _tint(colour: tuple[int, int, int], light: NDArray) -> NDArray:
    """(h, w) brightness times a colour -> (h, w, 3)."""
    return light[..., None] * np.array(colour, dtype=np.float32)


def _sky(shape, rng, ridge):
    top = hsv(rng.uniform(0.55, 0.62), rng.uniform(0.35, 0.75), rng.uniform(0.75, 0.95))
    low = hsv(rng.choice([0.57, 0.08]), rng.uniform(0.05, 0.3), rng.uniform(0.9, 1.0))
    t = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None]
    sky = (1 - t) * np.array(top, np.float32) + t * np.array(low, np.float32)
    cloud = np.clip(_noise("cloud", shape, rng) - rng.uniform(0.2, 1.6), 0, 1)[..., None]
    return sky + cloud * (250 - sky)


def _grass(shape, rng, ridge):
    base = hsv(rng.uniform(0.22, 0.36), rng.uniform(0.55, 0.8), rng.uniform(0.45, 0.65))
    return _tint(base, 1 + 0.2 * _noise("blades", shape, rng) + 0.08 * _noise("soft", shape, rng))


def _road(shape, rng, ridge):
    base = hsv(0.6, rng.uniform(0, 0.08), rng.uniform(0.28, 0.45))
    road = _tint(base, 1 + 0.1 * _noise("fine", shape, rng))
    middle = int(shape[0] * rng.uniform(0.45, 0.6))
    dashes = (np.arange(shape[1]) + rng.integers(32)) % 32 < 18
    road[middle : middle + max(2, shape[0] // 18), dashes] = (225, 220, 190)
    return road


def _water(shape, rng, ridge):
    base = hsv(rng.uniform(0.5, 0.6), rng.uniform(0.55, 0.8), rng.uniform(0.5, 0.75))
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    wave = np.sin(2 * np.pi * (y / rng.uniform(5, 8)) + 2.2 * _noise("cloud", shape, rng))
    return _tint(base, 1 + 0.17 * wave + 0.25 * np.clip(_noise("grain", shape, rng) - 1.2, 0, 1.5))


def _sand(shape, rng, ridge):
    base = hsv(rng.uniform(0.09, 0.13), rng.uniform(0.28, 0.5), rng.uniform(0.78, 0.93))
    return _tint(base, 1 + 0.06 * _noise("fine", shape, rng) + 0.05 * _noise("soft", shape, rng))


def _mountain(shape, rng, ridge):
    base = hsv(rng.uniform(0.58, 0.75), rng.uniform(0.08, 0.25), rng.uniform(0.4, 0.6))
    rock = _tint(base, 1 + 0.12 * _noise("soft", shape, rng) + 0.14 * np.sign(np.gradient(ridge))[None])
    depth = np.arange(shape[0])[:, None] - ridge[None] + 3 * _noise("soft", shape, rng)
    snow = (depth < rng.uniform(4, 10)) & (ridge < np.median(ridge))[None]
    rock[snow] = (238, 240, 246)
    return rock


def _forest(shape, rng, ridge):
    base = hsv(rng.uniform(0.3, 0.42), rng.uniform(0.45, 0.7), rng.uniform(0.28, 0.42))
    return _tint(base, 1 + 0.32 * _noise("crowns", shape, rng))


def _building(shape, rng, ridge):
    base = np.array(hsv(rng.choice([0.02, 0.06, 0.1, 0.6]), rng.uniform(0.1, 0.5), rng.uniform(0.5, 0.8)))
    wall = (
        np.broadcast_to(base.astype(np.float32), (*shape, 3))
        * (1 + 0.03 * _noise("fine", shape, rng))[..., None]
    )
    dy, dx = rng.integers(10, 14), rng.integers(8, 12)
    ys, xs = np.arange(shape[0]) + rng.integers(dy), np.arange(shape[1]) + rng.integers(dx)
    window = ((ys % dy) < dy * 0.6)[:, None] & ((xs % dx) < dx * 0.55)[None]
    lit = (ys // dy * 31 + 7)[:, None] * (xs // dx * 17 + 3)[None] % 5 == 0
    wall[window] = (62, 78, 98)
    wall[window & lit] = (250, 220, 130)
    return wall


def _wall(shape, rng, ridge):
    base = hsv(rng.uniform(), rng.uniform(0.08, 0.3), rng.uniform(0.78, 0.95))
    x, y = np.arange(shape[1])[None], np.arange(shape[0])[:, None]
    pitch = rng.integers(9, 15)
    stripes = (x % pitch < pitch // 2) + 0 * y
    dots = ((x % pitch - pitch / 2) ** 2 + (y % pitch - pitch / 2) ** 2) < 6
    pattern = (stripes, dots, 0 * stripes)[rng.integers(3)]
    return _tint(base, (1 - 0.12 * pattern + 0.012 * _noise("fine", shape, rng)).astype(np.float32))


def _floor(shape, rng, ridge):
    base = hsv(rng.uniform(0.05, 0.09), rng.uniform(0.45, 0.7), rng.uniform(0.5, 0.72))
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    board = y // 9
    seam = (y % 9 == 0) | ((x + board * 37) % 48 == 0)
    tone = 0.1 * np.sin(board * 12.9 + (x + board * 37) // 48 * 4.1)
    light = 1 + tone + 0.07 * _noise("grain", shape, rng) - 0.4 * seam
    return _tint(base, light.astype(np.float32))


_PAINT: dict[str, Callable] = {
    "sky": _sky, "grass": _grass, "road": _road, "water": _water, "sand": _sand,
    "mountain": _mountain, "forest": _forest, "building": _building, "wall": _wall, "floor": _floor,
}  # fmt: skip

# How the upper edge of each stuff runs: (height of bumps as a share of the image, bumps across).
_EDGE = {
    "mountain": (0.16, 3),
    "forest": (0.05, 8),
    "building": (0.12, 4),
    "grass": (0.03, 2),
    "sand": (0.02, 2),
}

# Layouts: the bands from top to bottom, each with the range of its upper edge as a share of the height.
LAYOUTS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "street": (("sky", 0, 0), ("building|building|forest", 0.12, 0.3), ("road", 0.55, 0.68)),
    "meadow": (("sky", 0, 0), ("forest|mountain|building", 0.25, 0.4), ("grass", 0.45, 0.58)),
    "beach": (("sky", 0, 0), ("water", 0.3, 0.42), ("sand", 0.6, 0.74)),
    "desert": (("sky", 0, 0), ("mountain", 0.28, 0.42), ("sand", 0.48, 0.6)),
    "lake": (("sky", 0, 0), ("forest|mountain", 0.18, 0.3), ("water", 0.4, 0.5), ("grass|sand", 0.72, 0.84)),
    "room": (("wall", 0, 0), ("floor", 0.56, 0.7)),
}


@dataclass(frozen=True)
class Background:
    """A painted background: image (H, W, 3) uint8, bands (H, W) uint8, stuff name of each band,
    and the row where each band begins (its mean upper edge)."""

    image: NDArray[np.uint8]
    bands: NDArray[np.uint8]
    names: tuple[str, ...]
    tops: tuple[float, ...]


def _upper_edge(name: str, level: float, size: tuple[int, int], rng: np.random.Generator) -> NDArray:
    """(W,) the row at which a band begins in each column."""
    bump, count = _EDGE.get(name, (0.0, 1))
    knots = rng.uniform(-1, 1, 2 * count + 1) * bump
    if name == "mountain":
        knots = np.where(np.arange(2 * count + 1) % 2, -abs(knots) - 0.3 * bump, abs(knots))
    x = np.linspace(0, 2 * count, size[1])
    wiggle = (
        knots[np.minimum(x.astype(int), 2 * count)]
        if name == "building"
        else np.interp(x, range(2 * count + 1), knots)
    )
    return (level + wiggle) * size[0]


def paint_background(
    layout: str, size: tuple[int, int], rng: np.random.Generator, pan: float = 0.0
) -> Background:
    """Stack the bands of a layout.

    Args:
        layout: a key of `LAYOUTS`.
        size: (H, W) in pixels.
        rng: draws edges and colours.
        pan: how far the view is raised, as a share of the height: all edges move down by it.
    """
    names = [str(rng.choice(options.split("|"))) for options, _, _ in LAYOUTS[layout]]
    rows = np.arange(size[0])[:, None]
    image = np.empty((*size, 3), dtype=np.float32)
    bands = np.zeros(size, dtype=np.uint8)
    tops = []
    for i, (name, (_, low, high)) in enumerate(zip(names, LAYOUTS[layout], strict=True)):
        edge = _upper_edge(name, rng.uniform(low, high) + pan, size, rng) if i else np.zeros(size[1])
        first = max(0, min(int(edge.min()), size[0] - 1))
        below = (rows >= edge[None])[first:]
        painted = _PAINT[name]((size[0] - first, size[1]), rng, edge - first)
        np.copyto(image[first:], painted, where=below[..., None])
        bands[first:][below] = i
        tops.append(float(edge.mean()))
    return Background(image.clip(0, 255).astype(np.uint8), bands, tuple(names), tuple(tops))
