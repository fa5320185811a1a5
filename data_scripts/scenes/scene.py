"""Drawing a whole scene: background, things in depth order, weather; and a dataset of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from data_scripts.scenes import living, objects, vehicles  # noqa: F401  (they fill DRAWINGS)
from data_scripts.scenes.classes import BY_NAME, CLASS_ID, CLASSES, NOVEL, SEEN_THINGS, frequency
from data_scripts.scenes.domains import DOMAINS, apply_domain
from data_scripts.scenes.look import DRAWINGS, Look
from data_scripts.scenes.pen import SUPERSAMPLE, Canvas, Pen
from data_scripts.scenes.stuff import LAYOUTS, Background, paint_background
from rose_kit.data import Sample

_GROUND = ("grass", "road", "sand", "floor")
_INDIVIDUALS = 1_000_000  # how many individuals of a class there are in the world
_LEAST_VISIBLE = 0.35  # share of a thing that others must leave in view


@dataclass(frozen=True)
class Placed:
    """One thing in a scene.

    Args:
        name: its class.
        individual: its number; `Look.of(name, individual)` is what it looks like.
        box: (x, y, width, height) in pixels; may reach over the image's edge.
        flip: whether it faces left.
        tilt: rotation in radians.
        visible: pixels left in view.
    """

    name: str
    individual: int
    box: tuple[float, float, float, float]
    flip: bool = False
    tilt: float = 0.0
    visible: int = 0


@dataclass(frozen=True)
class Scene:
    """A drawn scene with its annotation.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8, positions in `CLASSES`; named individuals follow from `len(CLASSES)`.
        instances: (H, W) uint8, 0 for stuff, i + 1 for `things[i]`.
        things: what was placed, far to near.
        stuff: names of the stuff that is in view, from top to bottom.
        layout: key of `LAYOUTS`.
        domain: one of `DOMAINS`.
        names: what each id of `mask` means.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    things: tuple[Placed, ...]
    stuff: tuple[str, ...]
    layout: str
    domain: str
    names: tuple[str, ...] = CLASSES


def _choose(
    layout: str, count: int, classes: Sequence[str], rng: np.random.Generator, stray: float
) -> list[str]:
    """Things for a layout: typical ones mostly, anything that fits its zones with probability `stray`."""
    zones = {"ground"} | ({"wall"} if layout == "room" else {"air"})
    zones |= {"water"} if layout in ("beach", "lake") else set()
    fitting = [n for n in classes if BY_NAME[n].zone in zones]
    if not fitting:
        return []
    weight = np.array([frequency(n) for n in fitting])
    typical = weight * [layout in BY_NAME[n].places for n in fitting]
    if not typical.any():
        typical = weight
    tables = [weight / weight.sum(), typical / typical.sum()]
    return [str(rng.choice(fitting, p=tables[rng.random() > stray])) for _ in range(count)]


def _place(name: str, individual: int, ground: Background, scale: float, rng: np.random.Generator) -> Placed:
    """Find a spot in the zone where a thing lives; nearer things are larger."""
    height, width = ground.bands.shape
    thing, drawing = BY_NAME[name], DRAWINGS[name]
    top = ground.tops[-1] if ground.names[-1] in _GROUND else 0.5 * height
    near = rng.uniform(0.2, 1.0)
    tall = scale * min(height, width) * thing.height**0.5 * (0.75 + 0.4 * near)
    wide = tall * drawing.aspect
    if wide > 0.75 * width:
        tall, wide = tall * 0.75 * width / wide, 0.75 * width
    if thing.zone == "air":
        base = rng.uniform(0.02, 0.3) * height + tall
    elif thing.zone == "wall":
        base = rng.uniform(0.04, 0.16) * height + tall
    elif thing.zone == "water" and "water" in ground.names:
        i = ground.names.index("water")
        end = ground.tops[i + 1] if i + 1 < len(ground.tops) else height
        base = ground.tops[i] + (end - ground.tops[i]) * rng.uniform(0.35, 1.0)
    else:
        base = top + max(height - top, 0.25 * height) * (0.12 + 0.86 * near)
    x = rng.uniform(-0.08 * wide, width - 0.92 * wide)
    tilt = float(rng.normal(0, 0.06))
    return Placed(name, individual, (x, base - tall, wide, tall), bool(rng.random() < 0.5), tilt)


def _overlap(a: Placed, b: Placed) -> float:
    """Share of the smaller box that the other covers."""
    wide = min(a.box[0] + a.box[2], b.box[0] + b.box[2]) - max(a.box[0], b.box[0])
    tall = min(a.box[1] + a.box[3], b.box[1] + b.box[3]) - max(a.box[1], b.box[1])
    least = min(a.box[2] * a.box[3], b.box[2] * b.box[3])
    return max(wide, 0) * max(tall, 0) / least


def _arrange(
    cast: Sequence[tuple[str, int]], ground: Background, scale: tuple[float, float], rng
) -> list[Placed]:
    """Place the cast one by one, trying again where things would hide each other; far to near."""
    placed: list[Placed] = []
    for name, individual in cast:
        for _ in range(12):
            spot = _place(name, individual, ground, rng.uniform(*scale), rng)
            if all(_overlap(spot, other) < 1 - _LEAST_VISIBLE for other in placed):
                placed.append(spot)
                break
    return sorted(placed, key=lambda p: p.box[1] + p.box[3])


def draw_scene(
    seed: int,
    size: int | tuple[int, int] = 128,
    *,
    domain: str = "day",
    things: tuple[int, int] = (3, 6),
    scale: tuple[float, float] = (0.32, 0.55),
    classes: Sequence[str] = SEEN_THINGS,
    layout: str | None = None,
    stray: float = 0.25,
    pan: float = 0.0,
    cast: Sequence[tuple[str, int]] = (),
    named: Mapping[str, tuple[str, int]] | None = None,
) -> Scene:
    """Draw one scene; the same arguments give the same bytes.

    Args:
        seed: any non-negative integer.
        size: (H, W) in pixels, or one number for a square; at least 32.
        domain: `day`, `night`, `fog` or `snow`.
        things: least and most things to place.
        scale: range of a person-sized thing's height, as a share of the shorter side.
        classes: things that may appear (`SEEN_THINGS` by default; add from `NOVEL` at will).
        layout: key of `LAYOUTS`; by default drawn.
        stray: how often a thing is taken from all that fit rather than from the typical ones.
        pan: how far the view is raised (> 0: more of what is above, the ground may leave the image) or
            lowered, as a share of the height.
        cast: (class, individual) pairs that must be tried first.
        named: name -> (class, individual): individuals that are classes of their own in `mask`.

    Raises:
        ValueError: an unknown domain, layout or class, or a size below 32.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check(height, width, domain, layout, [*classes, *(n for n, _ in cast)])
    rng = np.random.default_rng(seed)
    layout = layout or str(rng.choice(list(LAYOUTS)))
    ground = paint_background(layout, (height, width), rng, pan)
    count = int(rng.integers(things[0], things[1] + 1)) - len(cast)
    chosen = [
        (n, int(rng.integers(_INDIVIDUALS))) for n in _choose(layout, max(count, 0), classes, rng, stray)
    ]
    placed = _arrange([*cast, *chosen], ground, scale, rng)
    image, regions = _draw(ground, placed)
    instances = np.where(regions >= len(ground.names), regions - len(ground.names) + 1, 0).astype(np.uint8)
    counts = np.bincount(instances.ravel(), minlength=len(placed) + 1)
    placed = tuple(replace(p, visible=int(n)) for p, n in zip(placed, counts[1:], strict=True))
    in_view = np.bincount(regions.ravel(), minlength=len(ground.names)) >= 0.01 * regions.size
    stuff = tuple(n for n, seen in zip(ground.names, in_view, strict=False) if seen)
    names = CLASSES + tuple(named or ())
    identity = {who: len(CLASSES) + i for i, who in enumerate((named or {}).values())}
    ids = [CLASS_ID[n] for n in ground.names]
    ids += [identity.get((p.name, p.individual), CLASS_ID[p.name]) for p in placed]
    image = apply_domain(
        image, np.array([n in _GROUND for n in ground.names] + [False] * len(placed))[regions], domain, rng
    )
    return Scene(image, np.array(ids, np.uint8)[regions], instances, placed, stuff, layout, domain, names)


def _check(height: int, width: int, domain: str, layout: str | None, classes: Sequence[str]) -> None:
    """Refuse what cannot be drawn, naming it."""
    if min(height, width) < 32:
        raise ValueError(f"a scene is at least 32 pixels a side, got {(height, width)}")
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    for name in classes:
        if name not in BY_NAME:
            raise ValueError(f"unknown thing {name!r}; known: {', '.join(BY_NAME)}")


def _draw(ground: Background, placed: Sequence[Placed]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the things over the background -> image (H, W, 3) and region ids (H, W)."""
    big = ground.image.repeat(SUPERSAMPLE, 0).repeat(SUPERSAMPLE, 1)  # (2H, 2W, 3)
    canvas = Canvas(big, ground.bands)
    for i, p in enumerate(placed):
        pen = Pen(canvas, len(ground.names) + i, p.box, p.tilt, p.flip)
        DRAWINGS[p.name].draw(pen, Look.of(p.name, p.individual))
    return canvas.finish()


class SceneDataset:
    """Scenes `first` to `first + count - 1` as a dataset of samples.

    Args:
        count: how many.
        first: seed of the first; datasets whose seed ranges do not meet share no scene.
        **options: passed to `draw_scene`.

    >>> scenes = SceneDataset(3, first=10, size=64)
    >>> len(scenes), scenes.ids[0], scenes[0].image.shape
    (3, 'scene-10-day', (64, 64, 3))
    """

    def __init__(self, count: int, first: int = 0, **options) -> None:
        self.count, self.first, self.options = count, first, options
        self._present: dict[int, frozenset[str]] = {}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Stuff, the things that may appear, and the named individuals."""
        things = set(self.options.get("classes", SEEN_THINGS)) | {n for n, _ in self.options.get("cast", ())}
        kept = [n for n in CLASSES if n not in BY_NAME or n in things]
        return (*kept, *(self.options.get("named") or ()))

    @cached_property
    def ids(self) -> list[str]:
        """One name per scene, unique across seeds and domains."""
        domain = self.options.get("domain", "day")
        return [f"scene-{self.first + i}-{domain}" for i in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def scene(self, i: int) -> Scene:
        """The i-th scene itself, with its instances and things."""
        if not 0 <= i < self.count:
            raise IndexError(f"scene {i} of {self.count}")
        return draw_scene(self.first + i, **self.options)

    @lru_cache(maxsize=512)  # noqa: B019 (drawing takes longer than encoding)
    def __getitem__(self, i: int) -> Sample:
        scene = self.scene(i)
        return Sample(self.ids[i], scene.image, scene.mask, dict(enumerate(scene.names)))

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes with a pixel in the i-th scene; drawn once, then remembered."""
        if i not in self._present:
            sample = self[i]
            self._present[i] = frozenset(sample.classes[c] for c in np.unique(sample.mask))
        return self._present[i]


__all__ = ["NOVEL", "Placed", "Scene", "SceneDataset", "draw_scene"]
