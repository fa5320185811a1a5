"""Figures that the notebooks share: rows of images, bars of scores, and the evidence of an answer.

`image_row` and `evidence_figure` draw into a figure that they are given, so that figures compose.
`show` puts a figure into a notebook, `save` writes it to a file.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image as Inline
from IPython.display import display
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch
from numpy.typing import ArrayLike
from PIL import Image

from rose_kit.data import atomic_write
from rose_kit.memory import SupportMemory
from rose_kit.types import Evidence
from rose_kit.viz.export import strongest_prototypes
from rose_kit.viz.overlay import LabelMap, figure_colours, fit, outline, small_png, spotlight

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # apart for colour-blind eyes (Okabe and Ito 2008)
INCH = 2.1  # width of an image in a row
BARE: dict[str, Any] = {"frame_on": False, "xticks": (), "yticks": ()}  # axes that only hold an image


def image_row(
    images: Sequence[ArrayLike | LabelMap],
    titles: Sequence[str] = (),
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    fig: FigureBase | None = None,
) -> FigureBase:
    """Images and maps side by side, each under its title, and the colours of classes below.

    Args:
        images: (H, W, 3) uint8 each, or (h, w) numbers, all on one scale from dark blue to yellow, or labels
            as `LabelMap`s, all of the same names; their colours are chosen for this figure.
        titles: one per image, or none at all.
        columns: images to a row; by default all of them.
        limits: the numbers that are darkest and brightest; by default the least and the greatest of all.
        fig: draw into this figure.

    Raises:
        ValueError: no images, or as many titles as do not fit them.
    """
    if not len(images) or (titles and len(titles) != len(images)):
        raise ValueError(f"{len(images)} images do not go with {len(titles)} titles")
    classes = [image for image in images if isinstance(image, LabelMap)]
    if classes:
        names = max((own.names for own in classes), key=len)
        colours = figure_colours([own.labels for own in classes], len(names))
        images = [own.draw(colours) if isinstance(own, LabelMap) else own for own in images]
        there = np.unique(np.concatenate([np.ravel(own.labels) for own in classes]))
        shown = [Patch(color=colours[c] / 255, label=names[c]) for c in there if 0 <= c < len(names)]
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    height = INCH * np.shape(images[0])[0] / np.shape(images[0])[1]
    legend = 0.22 * -(-len(shown) // (2 * columns)) if classes else 0  # or the images would shrink for it
    size = INCH * columns, (height + 0.25) * rows + legend
    fig = fig or plt.figure(figsize=size, layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, subplot_kw=BARE).ravel()
    maps = [image for image in images if np.ndim(image) == 2]
    low, high = limits or ((min(map(np.min, maps)), max(map(np.max, maps))) if maps else (None, None))
    for ax, image, title in zip(axes, images, titles or [""] * len(images), strict=False):
        ax.imshow(image, cmap="cividis", vmin=low, vmax=high)
        ax.set_title(title, fontsize=10)
    if classes:
        options = {"loc": "outside lower center", "ncols": 2 * columns, "fontsize": 8, "frameon": False}
        fig.legend(handles=shown, handlelength=1, columnspacing=1, **options)
    return fig


def score_bars(summaries: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean IoU of each method as a bar, with its interval over seeds as a whisker.

    Args:
        summaries: from `rose_kit.evaluation.summarise`, one bar each; several shots become several bars.
    """
    fig, ax = plt.subplots(figsize=(6, 0.5 + 0.4 * len(summaries)), layout="constrained")
    several = len({s["shots"] for s in summaries}) > 1
    names = [f"{s['method']}, {s['shots']} shots" if several else s["method"] for s in summaries]
    means, half = ([s[key] for s in summaries] for key in ("miou", "half_width"))
    bars = ax.barh(names, means, xerr=half, color=BLUE, ecolor="black", capsize=4, height=0.65)
    labels = [f" {m:.1f}" if np.isnan(h) else f" {m:.1f} ± {h:.1f}" for m, h in zip(means, half, strict=True)]
    ax.bar_label(bars, labels, fontsize=10)
    ax.margins(x=0.18)
    ax.invert_yaxis()  # the first row on top
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("mIoU (%)")
    return fig


def evidence_figure(
    image: ArrayLike,
    region: ArrayLike,
    evidence: Evidence,
    memory: SupportMemory,
    name: str,
    count: int = 5,
    fig: FigureBase | None = None,
) -> FigureBase:
    """A query, and beside it the evidence for its answer: support images, strongest first, and the remainder.

    Each support image is grey outside its prototype's region, under the class that it was stored for. A
    bar is its contribution to the winning score: blue for the answer, orange against it. All bars add up
    to the score. Where effects were asked for, a second row of bars has them, in the same colours: without
    a prototype that helps the answer, the score falls.

    Args:
        image: (H, W, 3) uint8, the query.
        region: (H, W) bool, what the evidence is about; outlined in the query.
        evidence: of one query; `pooled_evidence` makes one of many.
        memory: whose prototypes the evidence names; images show if they were stored as thumbnails.
        name: the class that was answered.
        count: support images to show.
        fig: draw into this figure.
    """
    parts = strongest_prototypes(evidence, memory, count)
    fig = fig or plt.figure(figsize=(INCH * 1.5 + count + 1, INCH * 1.3), layout="constrained")
    bars = ["weight", "effect"] if any(p["effect"] is not None for p in parts["prototypes"]) else ["weight"]
    rows = [["query", *range(count + 1)], *(["query", *[name] * (count + 1)] for name in bars)]
    ratios = {"width_ratios": [2.2] + [1] * (count + 1), "height_ratios": [2.2] + [1] * len(bars)}
    axes = fig.subplot_mosaic(rows, **ratios, subplot_kw=BARE)
    axes["query"].imshow(outline(fit(image, 240), np.asarray(region)))
    axes["query"].set_title(f"answer: {name}", fontsize=10, parse_math=False)
    for i, prototype in enumerate(parts["prototypes"]):
        axes[i].set_title(prototype["class"], fontsize=10, parse_math=False)
        stored = memory.thumbnail(prototype["prototype_id"])
        if stored is not None:
            axes[i].imshow(spotlight(*stored))
    axes[count].text(0.5, 0.5, "text and\nthe rest", ha="center", va="center", fontsize=10)
    for name in bars:
        values = [prototype[name] for prototype in parts["prototypes"]]
        places, values = [*range(len(values)), count], [*values, parts["rest"] if name == "weight" else None]
        known = {at: value for at, value in zip(places, values, strict=True) if value is not None}
        colours = [BLUE if (value > 0) == (name == "weight") else ORANGE for value in known.values()]
        drawn = axes[name].bar(known.keys(), known.values(), color=colours, width=0.5)
        axes[name].bar_label(drawn, fmt="%+.2g", padding=3, fontsize=9)
        axes[name].axhline(0, color=GREY, linewidth=0.8)
        axes[name].set(xlim=(-0.5, count + 0.5), ymargin=0.4)
    if len(bars) > 1:
        for name in bars:
            axes[name].set_ylabel(name, fontsize=9)
    return fig


def show(fig: Figure, caption: str) -> None:
    """Put a figure into the notebook, small enough to commit, and print its caption.

    JupyterLab would break a long line anywhere, inside a number as well.
    """
    display(Inline(_png(fig)))
    print(textwrap.fill(caption, 88, break_on_hyphens=False))


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as a PNG; folders are made as needed.

    Returns:
        The path.
    """
    with atomic_write(path) as beside:
        beside.write_bytes(_png(fig))
    return Path(path)


def _png(fig: Figure) -> bytes:
    """See `small_png`; the figure is closed."""
    full = io.BytesIO()
    fig.savefig(full, dpi=100, facecolor="white", bbox_inches="tight", pad_inches=0.05)
    plt.close(fig)
    return small_png(np.asarray(Image.open(full).convert("RGB")))
