"""Figures of fusion and of the adapter: curves, opinions about one patch, mixtures of image and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from numpy.typing import ArrayLike, NDArray

from course.curve_figures import COLOURS, MARKERS
from rose_kit.types import unit
from rose_kit.viz.plots import BLUE, GREY, ORANGE


def line_plot(
    x: ArrayLike | Mapping[str, ArrayLike],
    values: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    scale: tuple[str, str] = ("linear", "linear"),
    fig: FigureBase | None = None,
) -> FigureBase:
    """Several lines over one axis, each with a colour and a marker of its own.

    Args:
        x: (P,) where the points stand, or name -> (P,) where the lines have points of their own.
        values: name -> (P,) numbers; at most six lines.
        xlabel, ylabel: what the axes mean, with units.
        levels: name -> a value that does not depend on x, dashed.
        scale: of the x axis and the y axis, "linear" or "log".
        fig: draw into this figure.

    Raises:
        ValueError: there are no lines, or more than can be told apart.
    """
    if not 0 < len(values) <= len(COLOURS):
        raise ValueError(
            f"1 to {len(COLOURS)} lines can be told apart, got {len(values)}: {', '.join(values)}"
        )
    fig = fig or plt.figure(figsize=(5, 2.8), layout="constrained")
    ax = fig.subplots()
    for (name, y), colour, marker in zip(values.items(), COLOURS, MARKERS, strict=False):
        at = np.asarray(x[name] if isinstance(x, Mapping) else x)
        dots = marker if len(at) <= 20 else ""  # many points make a line by themselves
        ax.plot(at, y, color=colour, marker=dots, markersize=5, label=name)
    for (name, level), style in zip((levels or {}).items(), ("--", ":", "-."), strict=False):
        ax.axhline(level, color="black", linestyle=style, linewidth=1, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale=scale[0], yscale=scale[1])
    ax.legend(frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    return fig


def class_probability_bars(
    opinions: Mapping[str, ArrayLike],
    names: Sequence[str],
    truth: int,
    top: int = 5,
    fig: FigureBase | None = None,
) -> FigureBase:
    """What several say about one patch: side by side, the classes that any of them holds likely.

    Args:
        opinions: who -> (C,) probabilities.
        names: (C,) class names.
        truth: index of the right class, which is drawn dark.
        top: classes to show, at least the truth and the favourite of each.
        fig: draw into this figure.
    """
    table = np.stack([np.asarray(p) for p in opinions.values()])  # (opinions, C)
    must = list(dict.fromkeys([truth, *table.argmax(1).tolist()]))
    rest = [c for c in np.argsort(-table.max(0), kind="stable") if c not in must]
    shown = [*must, *rest[: max(0, top - len(must))]]
    fig = fig or plt.figure(
        figsize=(1.1 + 1.7 * len(opinions), 0.6 + 0.28 * len(shown)), layout="constrained"
    )
    axes = fig.subplots(1, len(opinions), sharey=True, squeeze=False)[0]
    for ax, (who, p) in zip(axes, opinions.items(), strict=True):
        values = np.asarray(p)[shown]
        colours = [BLUE if c == truth else ORANGE if c == np.argmax(p) else "#CCCCCC" for c in shown]
        bars = ax.barh([names[c] for c in shown], values, color=colours, height=0.7)
        ax.bar_label(bars, [f" {v:.2f}" for v in values], fontsize=8)
        ax.set(title=who, xlim=(0, 1.3), xticks=[0, 1])
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    return fig


def plane(first: ArrayLike, second: ArrayLike) -> NDArray[np.float32]:
    """An orthonormal basis of the plane that two vectors span.

    Args:
        first: (D,), along which the first axis lies.
        second: (D,), on the upper side of it.

    Returns:
        (2, D). `points @ plane(v, t).T` are the points as seen in that plane.

    >>> plane([2.0, 0, 0], [1, 3, 0]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    along = unit(first)
    return np.stack([along, unit(np.asarray(second) - (along @ second) * along)])


def mixing_planes(
    cases: Mapping[str, tuple[NDArray, NDArray, NDArray, NDArray]],
    lambdas: Sequence[float],
    fig: FigureBase | None = None,
) -> FigureBase:
    """For some classes, the arc from the class's name to its prototype, and where real patches lie.

    All is seen in the plane through name and prototype, in which the unit sphere is the circle drawn.

    Args:
        cases: class name -> its prototype (D,), its text (D,), patches of it (N, D), and patches of
            other classes (M, D); all of unit norm.
        lambdas: the share of the prototype in each mixture that is marked.
        fig: draw into this figure.
    """
    fig = fig or plt.figure(figsize=(2.7 * len(cases), 2.9), layout="constrained")
    axes = fig.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for ax, (name, case) in zip(axes, cases.items(), strict=True):
        _mixing_plane(ax, *case, lambdas)
        ax.set_title(name, fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(
        handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9, markerscale=1.4
    )
    return fig


def _mixing_plane(ax: Axes, v: NDArray, t: NDArray, own: NDArray, others: NDArray, lambdas) -> None:
    basis = plane(v, t)  # (2, D)
    angle = np.linspace(-0.6, np.pi * 0.75, 100)
    ax.plot(np.cos(angle), np.sin(angle), color=GREY, linewidth=0.8)
    share = np.asarray(lambdas)[:, None]
    mixed = unit(share * v + (1 - share) * t)  # (L, D)
    parts = {
        "other patches": (others, "#CCCCCC", "o", 5),
        "its patches": (own, "#009E73", "o", 9),
        "mixtures": (mixed, "black", "o", 14),
        "prototype": (v[None], BLUE, "s", 45),
        "name": (t[None], ORANGE, "D", 45),
    }
    for what, (points, colour, marker, size) in parts.items():
        at = points @ basis.T  # (n, D) @ (D, 2)
        ax.scatter(*at.T, c=colour, marker=marker, s=size, label=what, linewidths=0)
    ax.set(aspect="equal", xlim=(-0.5, 1.15), ylim=(-0.55, 1.15), xticks=[0, 1], yticks=[0, 1])
    ax.spines[["top", "right"]].set_visible(False)


def sample_map(
    patches: NDArray,
    kinds: Mapping[str, tuple[NDArray, NDArray]],
    names: Sequence[str],
    first: Sequence[int] = (),
    fig: FigureBase | None = None,
) -> FigureBase:
    """The training samples of one image and its patches, along the two directions in which they differ most.

    Args:
        patches: (N, D) of the image, small and grey.
        kinds: kind of sample -> its features (S, D) and its classes (S,), a marker for each kind. The
            six classes with most samples have a colour.
        names: (C,) class names.
        first: classes that have a colour in any case.
        fig: draw into this figure.
    """
    everything = np.concatenate([patches, *(features for features, _ in kinds.values())])
    centre = everything.mean(0)
    axes = np.linalg.svd(everything - centre, full_matrices=False)[2][:2]  # (2, D)
    labels = np.concatenate([classes for _, classes in kinds.values()])
    order = np.argsort(-np.bincount(labels, minlength=len(names)), kind="stable").tolist()
    coloured = np.array([*first, *(c for c in order if c not in first)][: len(COLOURS)])
    fig = fig or plt.figure(figsize=(7, 3.6), layout="constrained")
    ax = fig.subplots()
    ax.scatter(*((patches - centre) @ axes.T).T, c="#CCCCCC", s=8, linewidths=0, label="patches")
    for (kind, (features, classes)), marker in zip(kinds.items(), MARKERS, strict=False):
        at = (features - centre) @ axes.T  # (S, D) @ (D, 2) -> (S, 2)
        ax.scatter([], [], c="none", edgecolors="black", marker=marker, s=28, label=kind)
        for c in np.unique(classes):
            place = np.flatnonzero(coloured == c)
            edge = COLOURS[place[0]] if len(place) else GREY
            ax.scatter(*at[classes == c].T, c="none", edgecolors=edge, marker=marker, s=28, linewidths=1)
    for c, colour in zip(coloured, COLOURS, strict=True):
        ax.plot([], [], color=colour, linewidth=4, label=names[c])
    ax.plot([], [], color=GREY, linewidth=4, label="other classes")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    fig.legend(loc="outside right upper", frameon=False, fontsize=9)
    return fig
