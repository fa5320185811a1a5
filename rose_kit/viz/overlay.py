"""A segmentation drawn over its image: colours, contours, and class names where the classes are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, label
from skimage.color import rgb2lab

ALPHA = 0.55  # how much of a class's colour covers the photograph
OKABE_ITO = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
# Full red-green blindness, protan and deutan, on linear RGB (Machado, Oliveira and Fernandes 2009).
BLINDNESS = (
    ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
)


def palette(n: int) -> NDArray[np.uint8]:
    """n different colours for n classes; the first ones stay the same whatever n is.

    The seven of Okabe and Ito (2008) first. Then, one by one, the colour of a grid that is furthest
    from all before it for its nearest neighbour, as the worst of normal and red-green-blind sight sees
    it (after Glasbey et al. 2007).

    Args:
        n: how many, 0 to 256.

    Returns:
        (n, 3) uint8.

    Raises:
        ValueError: n is outside that range.

    >>> palette(2).tolist()
    [[230, 159, 0], [86, 180, 233]]
    """
    if not 0 <= n <= 256:
        raise ValueError(f"a palette holds 0 to 256 colours, got {n}")
    return _colours()[:n].copy()


@cache
def _colours() -> NDArray[np.uint8]:
    start = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in OKABE_ITO], np.uint8)
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    grid = grid[np.abs(rgb2lab(grid)[:, 0] - 60) < 35]  # neither black nor white: contours and text are
    colours = np.concatenate([start, grid])  # (G, 3)
    seen = _as_seen(colours)  # (3, G, 3)
    chosen = list(range(len(start)))
    nearest = np.min([_distance(seen, i) for i in chosen], axis=0)  # (G,)
    while len(chosen) < 256:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distance(seen, chosen[-1]))
    return colours[chosen]


def _as_seen(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(G, 3) uint8 -> (3, G, 3) CIE Lab, as normal, protan and deutan sight has it."""
    linear = (colours / 255) ** 2.2
    views = [linear, *((linear @ np.array(m).T).clip(0, 1) for m in BLINDNESS)]
    return rgb2lab(np.stack(views) ** (1 / 2.2))


def _distance(seen: NDArray[np.float64], i: int) -> NDArray[np.float64]:
    """(G,) distance to colour i in the sight that tells the two apart worst."""
    return np.linalg.norm(seen - seen[:, i : i + 1], axis=-1).min(0)


def overlay(image: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> NDArray[np.uint8]:
    """Blend the colours of the classes over an image, with thin contours and class names.

    Class c has colour `palette(len(names))[c]`; each name stands well inside its class's largest region.

    Args:
        image: (H, W, 3) uint8, or a PIL image.
        labels: (H, W) integers into `names`; what points nowhere, such as 255, is left as it is.
        names: (C,) class names, at most 256.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the image is not RGB uint8, or the labels have another size.
    """
    image, labels = _pixels(image), np.asarray(labels)
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels are {labels.shape} (rows, columns), but the image is {image.shape[:2]}")
    named = (labels >= 0) & (labels < len(names))  # (H, W)
    colours = palette(len(names))[np.where(named, labels, 0)] if len(names) else image  # (H, W, 3)
    alpha = np.where(named, ALPHA, 0)[..., None]
    out = (image * (1 - alpha) + colours * alpha).round().astype(np.uint8)
    out[contours(labels)] = 20
    return _write_names(out, labels, names)


def _pixels(image: ArrayLike) -> NDArray[np.uint8]:
    image = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image to draw on is uint8 (H, W, 3), got {image.dtype} {image.shape}")
    return image


def contours(labels: NDArray) -> NDArray[np.bool_]:
    """(H, W) the pixels whose right or lower neighbour has another label.

    >>> contours(np.array([[1, 1, 2]])).tolist()
    [[False, True, False]]
    """
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def _write_names(canvas: NDArray[np.uint8], labels: NDArray, names: Sequence[str]) -> NDArray[np.uint8]:
    """White letters with a dark rim, largest class first; one whose every place is taken stays unnamed."""
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(9, round(min(labels.shape) / 22)))
    values, counts = np.unique(labels, return_counts=True)
    taken: list[tuple[float, ...]] = []
    for c in values[np.argsort(-counts, kind="stable")]:
        if not 0 <= c < len(names):
            continue
        size = draw.textbbox((0, 0), names[c], font=font, stroke_width=1)
        for y, x in _places(labels == c):
            box = _fit(x, y, size[2] - size[0], size[3] - size[1], picture.size)
            if all(_apart(box, other) for other in taken):
                at = (box[0] - size[0], box[1] - size[1])
                draw.text(at, names[c], fill="white", font=font, stroke_width=1, stroke_fill=(20, 20, 20))
                taken.append(box)
                break
    return np.asarray(picture).copy()


def _places(region: NDArray[np.bool_], most: int = 12) -> NDArray[np.int64]:
    """(P, 2) rows and columns to centre a name on: deep inside the largest connected part, deepest first."""
    step = max(1, min(region.shape) // 128)  # depths take the longest of all, and need no single pixels
    coarse, step = (region[::step, ::step], step) if region[::step, ::step].any() else (region, 1)
    parts, _ = label(coarse)
    depth = distance_transform_edt(np.pad(parts == np.bincount(parts[coarse]).argmax(), 1))[1:-1, 1:-1]
    inside = np.argwhere(depth >= 0.3 * depth.max())
    inside = inside[np.argsort(-depth[tuple(inside.T)], kind="stable")]
    return step * inside[:: -(-len(inside) // most)]


def _fit(x: float, y: float, wide: float, tall: float, size: tuple[int, int]) -> tuple[float, ...]:
    """The box (left, top, right, bottom) around a point, moved to lie within the picture."""
    left = max(0, min(x - wide / 2, size[0] - wide))
    top = max(0, min(y - tall / 2, size[1] - tall))
    return left, top, left + wide, top + tall


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
