"""The curves behind the claims, as data frames: what the notebooks draw is measured by the same code."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import pandas as pd
from tqdm.auto import tqdm

from experiments.claims.few_shots import SHOTS
from experiments.claims.lab import Case, Lab
from experiments.claims.lookup import RETRIEVALS, retrieving
from experiments.claims.missing import SHARES, without
from rose_kit.adapter import RNS
from rose_kit.fusion import Freeda, KnnClip, Method, ZeroShot
from rose_kit.metrics import mean_interval

METHODS: dict[str, Method] = {
    "zero-shot": ZeroShot(),
    "kNN-CLIP": KnnClip(),
    "FREEDA": Freeda(),
    "RNS": RNS(),
}


def frame(
    lab: Lab, cases: Mapping[str, Mapping[Hashable, Case]], seeds: Sequence[int], progress: bool = True
) -> pd.DataFrame:
    """Measure curves: label -> place on the x axis -> case.

    Returns:
        One line per label, x and seed: columns label, x, seed, miou (percent).
    """
    points = [(label, x, seed) for label, curve in cases.items() for x in curve for seed in seeds]
    bar = tqdm(points, desc="curves", disable=not progress)
    lines = [(label, x, seed, lab.miou(cases[label][x], seed)) for label, x, seed in bar]
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


def shots_frame(
    lab: Lab,
    seeds: Sequence[int],
    shots: Sequence[int] = SHOTS,
    methods: Mapping[str, Method] = METHODS,
    progress: bool = True,
) -> pd.DataFrame:
    """mIoU by support images per class."""
    cases = {name: {b: Case(method, b) for b in shots} for name, method in methods.items()}
    return frame(lab, cases, seeds, progress)


def missing_frame(
    lab: Lab,
    what: str,
    seeds: Sequence[int],
    shares: Sequence[float] = SHARES,
    methods: Mapping[str, Method] = METHODS,
    progress: bool = True,
) -> pd.DataFrame:
    """mIoU by the share of classes without `what`: "visual", "text" or "both".

    Zero-shot is drawn with all its texts, as the floor, and so is a method that cannot do without any.
    """
    cases = {
        name: {
            share: Case(method) if isinstance(method, ZeroShot) else without(what, share, method)
            for share in shares
        }
        for name, method in methods.items()
    }
    return frame(lab, cases, seeds, progress)


def retrieval_frame(lab: Lab, seeds: Sequence[int], progress: bool = True) -> pd.DataFrame:
    """mIoU of RNS by the prototypes that it is trained on."""
    return frame(lab, {"RNS": {how: retrieving(how) for how in RETRIEVALS}}, seeds, progress)
