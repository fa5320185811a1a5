"""Figures of growing memories: what is left of each lesson, and signs of good and bad rows."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import FigureBase
from numpy.typing import NDArray

from rose_kit.viz.plots import BLUE, ORANGE


def lesson_maps(found: pd.DataFrame, fig: FigureBase | None = None) -> FigureBase:
    """mIoU of each group of classes after each lesson: a map per label, all on one scale.

    Args:
        found: columns label, step, group and miou (percent), averaged over whatever else there is, as
            `course.growth.continual` makes them.
        fig: draw into this figure.

    Raises:
        ValueError: there is nothing to draw.
    """
    if found.empty:
        raise ValueError("there are no lessons to draw")
    tables = {
        label: one.groupby(["step", "group"]).miou.mean().unstack("group")
        for label, one in found.groupby("label", sort=False)
    }
    fig = fig or plt.figure(figsize=(3.2 * len(tables), 2.9), layout="constrained")
    top = np.nanmax([np.nanmax(table) for table in tables.values()])
    for ax, (label, table) in zip(
        fig.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True
    ):
        ax.imshow(table, cmap="cividis", vmin=0, vmax=top)
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            colour = "black" if value > top / 2 else "white"
            text = "" if np.isnan(value) else f"{value:.0f}"
            ax.text(column, row, text, ha="center", va="center", color=colour)
        ax.set_xticks(range(table.shape[1]), table.columns)
        ax.set_yticks(range(table.shape[0]), table.index)
        ax.set(title=label, xlabel="classes of lesson", ylabel="after lesson")
    return fig


def sign_histograms(
    signs: Mapping[str, tuple[NDArray, NDArray[np.bool_]]], fig: FigureBase | None = None
) -> FigureBase:
    """How a sign is spread over good rows and over bad ones, a panel per sign.

    Args:
        signs: title -> (P,) values, NaN where there is none; (P,) which rows are bad.
        fig: draw into this figure.

    Raises:
        ValueError: there are no signs.
    """
    if not signs:
        raise ValueError("there are no signs to draw")
    fig = fig or plt.figure(figsize=(2.7 * len(signs), 2.3), layout="constrained")
    axes = fig.subplots(1, len(signs), squeeze=False)[0]
    for ax, (title, (values, bad)) in zip(axes, signs.items(), strict=True):
        bins = np.linspace(np.nanmin(values), np.nanmax(values) + 1e-9, 16)
        for chosen, colour, hatch, name in ((~bad, BLUE, "", "good rows"), (bad, ORANGE, "///", "bad rows")):
            style = {"color": colour, "hatch": hatch, "alpha": 0.65, "edgecolor": "white"}
            ax.hist(values[chosen], bins, density=True, label=name, **style)
        ax.set(title=title, yticks=[])
        ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return fig
