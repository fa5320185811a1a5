"""The leaderboard as a figure: each method's mIoU, and what it gains over the baseline."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rose_kit.evaluation import GROUP, Leaderboard, leaderboard
from rose_kit.viz.plots import BLUE, GREY, ORANGE

# Told apart by marker as well as by colour.
VERDICTS = {
    "better": (BLUE, "o"),
    "worse": (ORANGE, "v"),
    "not settled": (GREY, "s"),
    "baseline": ("black", "D"),
    "not comparable": (GREY, "x"),
}


def leaderboard_figure(board: Leaderboard, rows: pd.DataFrame) -> Figure:
    """Left mIoU, right the paired difference, both with the leaderboard's intervals over images and seeds.

    Args:
        board: from `rose_kit.evaluation.leaderboard`; one pair of panels per group.
        rows: what it was made of. A method's mIoU is its difference to a method that gets no pixel right.

    Raises:
        ValueError: the board is empty.
    """
    if board.table.empty:
        raise ValueError("there are no methods on the board")
    nothing = rows.assign(method="nothing", intersection=[0 * own for own in rows["intersection"]])
    levels = leaderboard(pd.concat([rows, nothing], ignore_index=True), "nothing").table.set_index(
        [*GROUP, "method"]
    )
    groups = list(board.table.groupby(GROUP, sort=False))
    heights = [1.1 + 0.32 * len(lines) for _, lines in groups]
    longest = max(map(len, board.table["method"]))
    options = {"figsize": (8 + 0.08 * longest, sum(heights)), "layout": "constrained"}  # names take room
    fig, axes = plt.subplots(len(groups), 2, squeeze=False, height_ratios=heights, **options)
    for (left, right), (group, lines) in zip(axes, groups, strict=True):
        level = levels.loc[[(*group, name) for name in lines["method"]]].reset_index()
        _panel(left, lines, level["miou"], [level["miou"] - level["low"], level["high"] - level["miou"]])
        left.set_yticks(range(len(lines)), lines["method"])
        left.set_xlabel("mIoU (%)", fontsize=9)
        left.set_title(f"{group[0]}, {group[1]}, shots {group[2]}", loc="left", fontsize=10)
        gain = lines["difference"].mask(lines["verdict"] == "baseline", 0)
        around = np.nan_to_num([gain - lines["low"], lines["high"] - gain], posinf=0)  # of one image
        _panel(right, lines, gain, around)
        right.axvline(0, color="black", linewidth=0.8)
        right.set_yticks(range(len(lines)), lines["verdict"])
        right.yaxis.tick_right()
        right.set_xlabel("points over the baseline, paired by image", fontsize=9)
    return fig


def _panel(ax, lines, at, around) -> None:
    """A marker and a whisker per method, the best on top."""
    for i, verdict in enumerate(lines["verdict"]):
        colour, marker = VERDICTS[verdict]
        whisker = np.asarray(around)[..., [i]]
        ax.errorbar(at.iloc[i], i, xerr=whisker, color=colour, marker=marker, capsize=3, markersize=6)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
