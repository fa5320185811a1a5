"""Figures of experiments: scores along an axis with their intervals, and the table of claims at a glance."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import FigureBase

from rose_kit.viz.overlay import OKABE_ITO
from rose_kit.viz.plots import BLUE, GREY, ORANGE

MARKERS = "osD^vP*X"
COLOURS = [f"#{OKABE_ITO[i]}" for i in (4, 5, 2, 0, 6, 1)]  # blue, orange-red, green, ...
VERDICTS = {"holds": BLUE, "does not hold": ORANGE, "unclear": GREY}


def curves(
    points: pd.DataFrame,
    xlabel: str,
    ylabel: str = "mIoU (%)",
    value: str = "miou",
    fig: FigureBase | None = None,
) -> FigureBase:
    """One line per label, with 95 % intervals; labels differ by colour and by marker.

    Args:
        points: columns label, x, `value`, half_width, as `over_seeds` of `experiments.claims.frames`
            returns them. Places on the x axis are evenly spaced, and named by `x`.
        xlabel, ylabel: what the axes show.
        value: the column to draw.
        fig: draw into this figure.

    Raises:
        ValueError: there are no points.
    """
    if points.empty:
        raise ValueError("there are no points to draw a curve through")
    fig = fig or plt.figure(figsize=(6, 3.6), layout="constrained")
    ax = fig.subplots()
    ticks = list(dict.fromkeys(points["x"]))
    for i, (label, line) in enumerate(points.groupby("label", sort=False)):
        at = [ticks.index(x) for x in line["x"]]
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 5}
        ax.errorbar(at, line[value], line["half_width"], label=label, capsize=3, elinewidth=0.8, **style)
    ax.set_xticks(range(len(ticks)), [f"{x:g}" if isinstance(x, float) else str(x) for x in ticks])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    if points["label"].nunique() > 1:
        ax.legend(frameon=False, fontsize=9)
    return fig


def claims_figure(table: pd.DataFrame, fig: FigureBase | None = None) -> FigureBase:
    """The effect of each claim with its interval; the colour is the verdict.

    Args:
        table: from `experiments.claims.measure`, or its claims.csv.
        fig: draw into this figure.
    """
    fig = fig or plt.figure(figsize=(9, 0.6 + 0.24 * len(table)), layout="constrained")
    ax = fig.subplots()
    for i, line in enumerate(table.to_dict("records")):
        colour = VERDICTS[line["verdict"]]
        ax.errorbar(
            line["effect"], i, xerr=line["half_width"], fmt="o", color=colour, capsize=3, markersize=4
        )
    for verdict, colour in VERDICTS.items():
        ax.plot([], [], "o", color=colour, label=verdict)
    ax.axvline(0, color="black", linewidth=0.8)
    named = [f"{line.language}, {line.statement} (expected {line.expected})" for line in table.itertuples()]
    ax.set_yticks(range(len(table)), named, fontsize=7)
    ax.invert_yaxis()  # the first claim on top
    ax.set_xlabel("effect, in points, with its 95 % interval over seeds")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    return fig
