"""The curves behind the claims, as data frames: what the notebooks draw is measured by the same code."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import pandas as pd
from tqdm.auto import tqdm

from experiments.claims.benchmark import SceneBenchmark, Setting
from rose_kit.metrics import mean_interval


def frame(
    bench: SceneBenchmark,
    settings: Mapping[str, Mapping[Hashable, Setting]],
    seeds: Sequence[int],
    progress: bool = True,
) -> pd.DataFrame:
    """Measure curves: label -> place on the x axis -> setting.

    Returns:
        One line per label, x and seed: columns label, x, seed, miou (percent).
    """
    points = [(label, x, seed) for label, curve in settings.items() for x in curve for seed in seeds]
    bar = tqdm(points, desc="curves", disable=not progress)
    lines = [(label, x, seed, bench.miou(settings[label][x], seed)) for label, x, seed in bar]
    return pd.DataFrame(lines, columns=["label", "x", "seed", "miou"])


def over_seeds(curves: pd.DataFrame, value: str = "miou") -> pd.DataFrame:
    """Mean over seeds and half-width of its 95 % Student t interval, in the order of first appearance.

    Args:
        curves: columns label, x, seed and `value`.
        value: the column to average.

    Returns:
        Columns label, x, `value` and half_width.

    >>> lines = [("rns", 1, 1, 50.0), ("rns", 1, 2, 52.0)]
    >>> over_seeds(pd.DataFrame(lines, columns=["label", "x", "seed", "miou"])).round(1).values.tolist()
    [['rns', 1, 51.0, 12.7]]
    """
    groups = curves.groupby(["label", "x"], sort=False)[value]
    lines = [(*key, *mean_interval(values)) for key, values in groups]
    return pd.DataFrame(lines, columns=["label", "x", value, "half_width"])
