"""A segmentation drawn over its image: colours, contours, and class names where the classes are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, label
from skimage.color import rgb2lab
from skimage.segmentation import mark_boundaries

from rose_kit.pooling import resize_nearest

SIDE = 384  # px, the longer side of an image with names on it
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


def fit(pixels: ArrayLike, side: int = SIDE) -> NDArray:
    """Scale an image or a map so that names drawn on it are legible.

    Args:
        pixels: (H, W, 3) uint8, or (H, W) labels, which are never mixed.
        side: px, the longer side of the result.

    Returns:
        A copy, which may be drawn on.

    >>> fit(np.array([[1, 2]]), side=4).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    pixels = np.asarray(pixels)
    size = tuple(max(1, round(n * side / max(pixels.shape[:2]))) for n in pixels.shape[:2])
    if pixels.ndim == 2 or size[0] >= pixels.shape[0]:
        return resize_nearest(pixels, size)
    return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BOX))


def label_map(labels: ArrayLike, names: Sequence[str], side: int = SIDE) -> NDArray[np.uint8]:
    """Labels as flat colours with class names on them: an overlay without the image beneath.

    A tenth of an overlay's size in a notebook, since the grain of the image is not in it.

    Args:
        labels: (H, W) integers into `names`; what points nowhere is left light.
        names: (C,) class names.
        side: px, the longer side of the result.

    Returns:
        (H', W', 3) uint8.
    """
    labels = fit(labels, side)
    return overlay(np.full((*labels.shape, 3), 240, dtype=np.uint8), labels, names)


def spotlight(image: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An image that is pale outside a region, as `SupportMemory.thumbnail` gives the two.

    Args:
        image: (H, W, 3).
        region: (H, W).

    >>> spotlight(np.full((1, 2, 3), 200, np.uint8), np.array([[True, False]]))[0, :, 0].tolist()
    [200, 235]
    """
    return np.where(region[..., None], image, image // 4 + 185)


def outline(image: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the border of a region: white within black, so that it is seen on any ground.

    Args:
        image: (H, W, 3).
        region: (h, w), of any size; closed where the image ends.

    Returns:
        (H, W, 3), a copy.
    """
    inside = np.pad(resize_nearest(region, image.shape[:2]), 1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    marked = mark_boundaries(padded, inside, color=(1, 1, 1), outline_color=(0, 0, 0), mode="inner")
    return (255 * marked[1:-1, 1:-1]).round().astype(np.uint8)


def deepest_pixel(region: NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel of a region that is furthest from its border.

    >>> deepest_pixel(np.pad(np.ones((3, 3), bool), 2))
    (3, 3)
    """
    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row), int(column)


def _write_names(canvas: NDArray[np.uint8], labels: NDArray, names: Sequence[str]) -> NDArray[np.uint8]:
    """White letters with a dark rim, largest class first; one without room for its name stays unnamed."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(9, round(min(labels.shape) / 22)))
    step = max(1, min(labels.shape) // 128)  # depths take the longest of all, and need no single pixels
    labels = labels[::step, ::step]
    free = np.ones(labels.shape, dtype=bool)  # where no name stands yet
    values, counts = np.unique(labels, return_counts=True)
    for c in values[np.argsort(-counts, kind="stable")]:
        if not 0 <= c < len(names) or not names[c]:
            continue
        parts, _ = label(labels == c)
        part = parts == np.bincount(parts[labels == c]).argmax()
        if not (part & free).any():
            continue
        row, column = deepest_pixel(part & free)
        box = np.array(draw.textbbox((0, 0), names[c], font=font, stroke_width=1))  # left, top, right, bottom
        centre = np.array([column, row]) * step - (box[2:] + box[:2]) / 2
        corner = np.clip(centre, -box[:2], np.maximum(-box[:2], image.size - box[2:]))  # within the image
        left, top, right, bottom = (np.tile(corner, 2) + box).astype(int) // step
        taken = slice(top, bottom + 1), slice(left, right + 1)
        if free[taken].all():
            draw.text(tuple(corner), names[c], fill="white", font=font, stroke_width=1, stroke_fill=(20,) * 3)
            free[taken] = False
    return np.asarray(image).copy()
