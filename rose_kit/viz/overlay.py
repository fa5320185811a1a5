"""A segmentation drawn over its image: colours, contours, and class names where the classes are."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, maximum_position
from skimage.color import deltaE_cie76, deltaE_ciede2000, rgb2gray, rgb2lab

from rose_kit.data import eight_bits
from rose_kit.pooling import resize_nearest

SIDE = 384  # px, the longer side of an image with names on it
NO_CLASS = 240  # grey of pixels without a class, where there is no image beneath
DIFFERENT, APART, FAR_APART = 8, 25, 45  # distances, see `difference`: not the same, told apart, preferred
ALPHA = 0.7  # share of a class's colour in a pixel, as against the photograph, of which a pale grey is left
GREY = 80  # what black becomes in it: on black, orange would look like olive
OKABE_ITO = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
VIEWS = np.array([  # linear RGB as people see it: with full colour vision, with protanopia, with deuteranopia
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
])  # fmt: skip


@cache
def palette(n: int) -> NDArray[np.uint8]:
    """n different colours for n classes; the first ones stay the same whatever n is.

    The seven of Okabe and Ito (2008) come first. Each further one is the colour of a grid whose nearest
    neighbour among those before it is furthest away (after Glasbey et al. 2007), by `difference`.

    Args:
        n: how many; the grid has enough for 256.

    Returns:
        (n, 3) uint8, read-only.

    >>> palette(2).tolist()
    [[230, 159, 0], [86, 180, 233]]
    """
    first = np.array([ImageColor.getrgb(f"#{c}") for c in OKABE_ITO], np.uint8)  # (7, 3)
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    grid = grid[np.abs(rgb2lab(grid)[:, 0] - 57) < 31]  # neither black nor white, as contours and text are
    candidates = np.concatenate([first, grid])  # (G, 3)
    lab = as_seen(candidates)  # (3, G, 3)
    order, nearest = np.arange(n), np.full(len(candidates), np.inf)  # distance to the nearest one in `order`
    for i in range(n):
        if i >= len(first):
            order[i] = nearest.argmax()
        nearest = np.minimum(nearest, difference(lab, lab[:, order[i], None]))
    colours = candidates[order]
    colours.flags.writeable = False  # the next caller gets the same array
    return colours


def as_seen(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(G, 3) RGB -> (3, G, 3) CIE Lab, in each of the `VIEWS`."""
    linear = (colours / 255) ** 2.2
    return rgb2lab((linear @ VIEWS.transpose(0, 2, 1)).clip(0, 1) ** (1 / 2.2))


def difference(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """(3, ..., 3) and the same, of `as_seen` -> (...) how far two colours differ to the eye that tells least.

    It is the CIE Lab distance, or twice CIEDE2000 where that is less: among blues the first one finds far
    more than people see. Red-green-blind colour vision is simulated (Machado, Oliveira and Fernandes 2009).
    """
    return np.minimum(deltaE_cie76(a, b), 2 * deltaE_ciede2000(a, b)).min(0)


@cache
def differences(n: int) -> NDArray[np.float64]:
    """(n, n) the `difference` of any two colours of `palette(n)`."""
    seen = as_seen(palette(n))  # (3, n, 3)
    return difference(seen[:, :, None], seen[:, None])


def figure_colours(maps: Sequence[ArrayLike], count: int) -> NDArray[np.uint8]:
    """Colours for classes in maps that are shown together, so that those that are there are told apart.

    A class has its colour of `palette` if that is `FAR_APART` from those of the classes before it. Otherwise
    it has the first colour that is, or the furthest. Where even that is less than `APART`, as with more than
    about ten classes, it is the one furthest from all among those that are `APART` from the classes it
    touches, and `DIFFERENT` from all if there is one.

    Args:
        maps: of labels, of any sizes.
        count: C, of the classes; other labels are left out.

    Returns:
        (C, 3) uint8.
    """
    colours, choice = palette(count).copy(), palette(256)
    distances = differences(len(choice))  # (256, 256)
    shown, touching = np.zeros(count, bool), np.zeros((count, count), bool)
    for labels in map(np.asarray, maps):
        shown[labels[(labels >= 0) & (labels < count)]] = True
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            inside = (np.minimum(a, b) >= 0) & (np.maximum(a, b) < count)
            touching[a[inside], b[inside]] = touching[b[inside], a[inside]] = True
    taken: dict[int, int] = {}  # class -> its place in `choice`
    for c in np.flatnonzero(shown).tolist():
        others = list(taken.values())
        nearest = distances[:, others].min(1, initial=np.inf)  # (256,)
        if nearest.max() >= APART:
            best = np.flatnonzero(nearest >= min(nearest.max(), FAR_APART))
            taken[c] = c if c in best else int(best[0])
        else:
            near = [taken[other] for other in taken if touching[c, other]]
            fits = distances[:, near].min(1, initial=APART) * (nearest >= DIFFERENT)  # (256,), at most APART
            taken[c] = int(np.lexsort((nearest, fits))[-1])
        colours[c] = choice[taken[c]]
    return colours


def overlay(
    image: ArrayLike, labels: ArrayLike, names: Sequence[str], colours: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Blend the colours of the classes over an image, with thin contours and class names.

    Beneath a class the image is a pale grey, so that a colour looks the same on dark and on light. The name
    of a class stands where the class is widest.

    Args:
        image: (H, W, 3), or whatever else `Segmenter` takes.
        labels: (H, W) integers into `names`; pixels with other values, such as 255, are left as they are.
        names: (C,) class names, at most 256; an empty one is not written.
        colours: (C, 3) uint8, one of each class; None: `palette(len(names))`, the same in every image.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the image is not RGB uint8, or the labels have another size.
    """
    image, labels = eight_bits(image), np.asarray(labels)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image to draw on is uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels are {labels.shape} (rows, columns), but the image is {image.shape[:2]}")
    colours = palette(len(names)) if colours is None else colours
    named = (labels >= 0) & (labels < len(names))  # (H, W)
    out = image.copy()
    grey = GREY + rgb2gray(image[named])[:, None] * (255 - GREY)  # (P, 1)
    out[named] = (grey * (1 - ALPHA) + colours[labels[named]] * ALPHA).round()
    return _annotate(out, labels, names)


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


@dataclass(frozen=True)
class LabelMap:
    """Labels to show as colours with class names on them: `image_row` draws it, as does `np.asarray`.

    Args:
        labels: (H, W) integers into `names`; what points nowhere is left as it is, or light grey.
        names: (C,) class names.
        image: (H, W, 3) uint8 beneath; None: colours alone, which takes a tenth of the size in a notebook.
    """

    labels: NDArray[np.int64]
    names: Sequence[str]
    image: NDArray[np.uint8] | None = None

    def draw(self, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(C, 3) uint8 colours -> (H', W', 3) uint8; the longer side has at least `SIDE` pixels."""
        labels = fit(self.labels)
        if self.image is not None:
            return overlay(fit(self.image), labels, self.names, colours)
        named = (labels >= 0) & (labels < len(self.names))
        flat = np.where(named[..., None], colours[np.where(named, labels, 0)], NO_CLASS).astype(np.uint8)
        return _annotate(flat, labels, self.names)

    def __array__(self, dtype=None, copy=None) -> NDArray[np.uint8]:
        return self.draw(figure_colours([self.labels], len(self.names))).astype(dtype or np.uint8)


def small_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) -> a PNG of at most 256 colours, a third of the size of a full one."""
    file = io.BytesIO()
    # The colours are settled once fewer than a thousand pixels still change theirs.
    few = Image.fromarray(pixels).quantize(256, kmeans=1000, dither=Image.Dither.NONE)
    few.save(file, format="png", optimize=True)
    return file.getvalue()


def spotlight(image: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An image that is a dull grey outside a region, so that both white and black things stand out within.

    `SupportMemory.thumbnail` gives the two.

    Args:
        image: (H, W, 3).
        region: (H, W).

    >>> spotlight(np.full((1, 2, 3), 200, np.uint8), np.array([[True, False]]))[0, :, 0].tolist()
    [200, 146]
    """
    return np.where(region[..., None], image, image // 4 + 96)


def outline(image: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the border of a region: white within black, so that it is seen on any ground.

    Args:
        image: (H, W, 3).
        region: (h, w), of any size; closed where the image ends.

    Returns:
        (H, W, 3), a copy.
    """
    inside, image = resize_nearest(region, image.shape[:2]), image.copy()
    image[binary_dilation(inside) & ~inside] = 0
    image[inside & ~binary_erosion(inside)] = 255
    return image


def deepest_pixel(region: NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel of a region that is furthest from its border.

    >>> deepest_pixel(np.pad(np.ones((3, 3), bool), 2))
    (3, 3)
    """
    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, column = maximum_position(depth)
    return int(row), int(column)


def _annotate(canvas: NDArray[np.uint8], labels: NDArray, names: Sequence[str]) -> NDArray[np.uint8]:
    """Contours, and white letters with a dark rim, the largest class first; none covers another's name.

    A class of less than a quarter of its name's area has none: it would seem to name what is around it.
    """
    canvas[contours(labels)] = 20
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    style = {"font": ImageFont.load_default(max(9, round(min(labels.shape) / 22))), "stroke_width": 1}
    step = max(1, min(labels.shape) // 128)  # depths take most of the time, and need no single pixels
    labels = labels[::step, ::step]
    free = np.ones(labels.shape, dtype=bool)  # where no name stands yet
    values, counts = np.unique(labels, return_counts=True)
    for i in np.argsort(-counts, kind="stable"):
        c = values[i]
        room = (labels == c) & free
        if not (0 <= c < len(names) and names[c] and room.any()):
            continue
        box = np.reshape(draw.textbbox((0, 0), names[c], anchor="mm", **style), (2, 2))  # around (0, 0)
        if counts[i] * step**2 < np.prod(box[1] - box[0]) / 4:
            continue
        row, column = deepest_pixel(room)
        place = np.minimum((column * step, row * step), image.size - box[1])
        place = np.maximum(place, -box[0])  # (x, y) of the middle of the name, which is inside the image
        (left, top), (right, bottom) = (box + place).astype(int) // step
        covered = slice(top, bottom + 1), slice(left, right + 1)
        if free[covered].all():
            draw.text(tuple(place), names[c], anchor="mm", fill="white", stroke_fill=(20,) * 3, **style)
            free[covered] = False
    return np.asarray(image).copy()
