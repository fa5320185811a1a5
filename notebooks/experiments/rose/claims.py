"""What the article says of fusion: more than the same memory gives a head that looks nothing up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.claims.claim import Claim, Measure
from experiments.claims.verdict import MORE
from experiments.rose.benchmark import ARTICLE, RoseBenchmark
from experiments.rose.confusable import pairwise_accuracy


def _over_none(score: Callable[[RoseBenchmark, int, str], float]) -> Measure:
    """The mean of the fusions less "none", in one seed."""

    def effect(bench: RoseBenchmark, seed: int) -> float:
        fusions = [name for name in bench.models if name != "none"]
        return float(np.mean([score(bench, seed, name) for name in fusions]) - score(bench, seed, "none"))

    return effect


def _confusable(bench: RoseBenchmark, seed: int, fusion: str) -> float:
    key = ("confusable", fusion, seed)
    method, memory = bench.rose(fusion), bench.trained_memory(seed)
    return bench.cached(key, lambda: pairwise_accuracy(bench, seed, method, memory))


def claims_of(bench: RoseBenchmark) -> list[Claim]:
    """Statements about the mean of the fusions of a benchmark over "none", with the same rows in memory.

    Raises:
        ValueError: "none" is not among its models, or is alone.
    """
    if "none" not in bench.models or len(bench.models) < 2:
        raise ValueError(f"fusions are compared with 'none'; got {', '.join(bench.models)}")
    few, many = bench.shots
    groups = {
        "common and held-out classes": (("common", "held-out"), False),
        f"rare classes, {few} rows added": (("rare",), False),
        f"novel classes, {few} rows added": (("novel",), False),
        f"novel classes, {many} rows added": (("novel",), True),
    }

    def score(groups: tuple[str, ...], rows: bool) -> Callable[[RoseBenchmark, int, str], float]:
        return lambda b, seed, name: float(np.mean([b.score(seed, name, g, many=rows) for g in groups]))

    rows = [(text, "IoU", score(*of)) for text, of in groups.items()]
    rows.append(("things that text confuses, told apart", "% of pixels", _confusable))
    return [
        Claim(
            "fusion",
            f"fusions over none, same memory: {text}",
            MORE,
            _over_none(s),
            source=ARTICLE,
            unit=unit,
            language=bench.language,
        )
        for text, unit, s in rows
    ]
