"""Maps beside pictures: flat colours with class names, several maps on one scale, a part in the light."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import FigureBase
from numpy.typing import ArrayLike, NDArray

from rose_kit.viz.overlay import overlay
from rose_kit.viz.plots import enlarge

SIDE = 1.7  # inches of a picture in a row


def label_map(labels: ArrayLike, names: Sequence[str], side: int = 384) -> NDArray[np.uint8]:
    """Labels as flat colours with class names on them: an overlay without the picture beneath.

    A tenth of an overlay's size in a notebook, since the grain of the picture is not in it.

    Args:
        labels: (H, W) integers into `names`; what points nowhere is left light.
        names: (C,) class names.
        side: the shorter side becomes at least this many pixels.

    Returns:
        (H', W', 3) uint8.
    """
    labels = enlarge(labels, side)
    return overlay(np.full((*labels.shape, 3), 240, dtype=np.uint8), labels, names)


def spotlight(picture: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A picture that is pale outside a region, as `SupportMemory.thumbnail` gives the two.

    Args:
        picture: (H, W, 3).
        region: (H, W).

    >>> spotlight(np.full((1, 2, 3), 200, np.uint8), np.array([[True, False]]))[0, :, 0].tolist()
    [200, 235]
    """
    return np.where(region[..., None], picture, picture // 4 + 185)


def heat_row(
    picture: ArrayLike,
    maps: Sequence[ArrayLike],
    titles: Sequence[str],
    limits: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, float]] = (),
) -> FigureBase:
    """A picture, then maps of it, all on one scale from dark blue to yellow.

    Args:
        picture: (H, W, 3) uint8.
        maps: (h, w) numbers each, of any size.
        titles: one for the picture and one for each map.
        limits: what is darkest and what is brightest; by default the least and the most of all maps.
        marks: (row, column) points of the picture, numbered from 1.

    Raises:
        ValueError: there are no maps, or as many titles as do not fit.
    """
    if not len(maps) or len(titles) != len(maps) + 1:
        raise ValueError(f"a picture and {len(maps)} maps do not go with {len(titles)} titles")
    low, high = limits or (min(map(np.min, maps)), max(map(np.max, maps)))
    height = SIDE * np.shape(picture)[0] / np.shape(picture)[1]
    fig = plt.figure(figsize=(SIDE * len(titles), height + 0.3), layout="constrained")
    axes = fig.subplots(1, len(titles))
    axes[0].imshow(picture)
    for number, (row, column) in enumerate(marks, start=1):
        axes[0].text(column, row, number, color="white", ha="center", va="center", fontsize=9,
                     bbox={"boxstyle": "circle", "facecolor": "black", "edgecolor": "white"})  # fmt: skip
    for ax, values in zip(axes[1:], maps, strict=True):
        ax.imshow(values, cmap="cividis", vmin=low, vmax=high)
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    return fig
