"""Figures of memories at size: what an index finds, how fast, and in how many bytes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator, NullFormatter

from course.curve_figures import COLOURS, MARKERS

PANELS = {
    "query_ms": "ms per query",
    "bytes_per_row": "bytes in memory per row",
    "build_s": "seconds to build",
    "recall_at_4": "recall@4",
}


def index_costs(found: pd.DataFrame, fig: FigureBase | None = None) -> FigureBase:
    """What each index costs and finds against the number of rows, a panel per measure.

    Args:
        found: columns rows, index and those of `PANELS`, as `experiments.retrieval` measures them.
        fig: draw into this figure.

    Raises:
        ValueError: there is nothing to draw.
    """
    if found.empty:
        raise ValueError("there are no indexes to draw")
    fig = fig or plt.figure(figsize=(2.6 * len(PANELS), 2.8), layout="constrained")
    for ax, (column, title) in zip(fig.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for n, (name, line) in enumerate(found.groupby("index", sort=False)):
            line = line[line[column] > 0].sort_values("rows")  # flat takes no time to build
            ax.plot(line["rows"], line[column], color=COLOURS[n], marker=MARKERS[n], label=name)
        ax.set(xscale="log", xlabel="rows", title=title)
        if column != "recall_at_4":
            ax.set_yscale("log")
        ax.spines[["top", "right"]].set_visible(False)
    fig.axes[0].legend(frameon=False)
    return fig


def recall_against_cost(found: pd.DataFrame, goal: float, fig: FigureBase | None = None) -> FigureBase:
    """How much of the truth each effort finds, against its cost: a line per index.

    Args:
        found: columns index, effort, cost (rows compared per query, or time) and recall in [0, 1].
        goal: the recall that is wanted, a dotted line.
        fig: draw into this figure.

    Raises:
        ValueError: there is nothing to draw.
    """
    if found.empty:
        raise ValueError("there are no efforts to draw")
    fig = fig or plt.figure(figsize=(6, 3.2), layout="constrained")
    ax = fig.subplots()
    for n, (name, line) in enumerate(found.groupby("index", sort=False)):
        ax.plot(line["cost"], line["recall"], color=COLOURS[n], marker=MARKERS[n], label=name)
    ax.axhline(goal, color="black", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlabel="time of exact search = 1", ylabel="recall@4")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return fig
