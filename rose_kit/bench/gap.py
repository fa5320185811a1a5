"""How much of the way from zero-shot to full supervision a method goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rose_kit.metrics import mean_interval


def gap_closed(
    rows: Sequence[Mapping[str, Any]],
    floor: str = "zero-shot",
    ceiling: str = "supervised",
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """100 * (method - floor) / (ceiling - floor) in mIoU, computed per seed and averaged.

    Args:
        rows: from `evaluate`, all of one number of shots, perhaps of several calls with the same seeds.
        floor, ceiling: methods among the rows that make 0 and 100 percent.
        level: coverage of the interval over seeds.

    Returns:
        method -> (mean, half-width) in percent, of all other methods. Negative: worse than the floor.

    Raises:
        ValueError: floor or ceiling is missing for a seed, or the ceiling is not above the floor.

    >>> scores = {"zero-shot": 40, "rns": 45, "supervised": 60}
    >>> rows = [{"method": m, "seed": s, "miou": v} for m, v in scores.items() for s in (1, 2)]
    >>> gap_closed(rows)
    {'rns': (25.0, 0.0)}
    """
    score = {(row["method"], row["seed"]): row["miou"] for row in rows}
    names = list(dict.fromkeys(row["method"] for row in rows))
    for end in (floor, ceiling):
        missing = sorted({seed for _, seed in score if (end, seed) not in score})
        if missing:
            raise ValueError(f"no row of {end!r} with seed {missing[0]}; there are: {', '.join(names)}")
    shares: dict[str, list[float]] = {name: [] for name in names if name not in (floor, ceiling)}
    for (name, seed), value in score.items():
        low, high = score[floor, seed], score[ceiling, seed]
        if high <= low:
            raise ValueError(f"{ceiling!r} ({high:.1f}) is not above {floor!r} ({low:.1f}) with seed {seed}")
        if name in shares:
            shares[name].append(100 * (value - low) / (high - low))
    return {name: mean_interval(values, level) for name, values in shares.items()}
