"""Rows of results: averaged over seeds, printed, written."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rose_kit.metrics import mean_interval

Row = dict[str, Any]


def summarise(rows: Sequence[Mapping[str, Any]], level: float = 0.95) -> list[Row]:
    """Average over seeds: one row per method and number of shots, in the order they first appear.

    Args:
        rows: from `evaluate`, perhaps of several calls.
        level: coverage of the Student t interval over seeds.

    Returns:
        rows {"method", "shots", "seeds", "miou", "half_width"}: the mean in percent, plus or minus
        the half-width (NaN for a single seed); "seeds" lists them.

    >>> rows = [{"method": "rns", "shots": 1, "seed": s, "miou": m} for s, m in ((1, 50.0), (2, 52.0))]
    >>> [summary] = summarise(rows)
    >>> summary["miou"], round(summary["half_width"], 1), summary["seeds"]
    (51.0, 12.7, [1, 2])
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["method"], row["shots"]].append(row)
    summaries = []
    for (method, shots), members in groups.items():
        mean, half_width = mean_interval([row["miou"] for row in members], level)
        seeds = [row["seed"] for row in members]
        summaries.append(
            {"method": method, "shots": shots, "seeds": seeds, "miou": mean, "half_width": half_width}
        )
    return summaries


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary of `rows` as text, for a terminal or a notebook.

    >>> print(table([{"method": "rns", "shots": 5, "seed": s, "miou": 50.0 + s} for s in (1, 2, 3)]))
    method  shots  seeds         mIoU
    rns         5      3  52.0 ± 2.5
    """
    summaries = summarise(rows)
    width = max([6, *(len(s["method"]) for s in summaries)])
    lines = [f"{'method':<{width}}  shots  seeds         mIoU"]
    for s in summaries:
        interval = "" if len(s["seeds"]) == 1 else f" ± {s['half_width']:.1f}"
        score = f"{s['miou']:.1f}{interval}"
        lines.append(f"{s['method']:<{width}}  {s['shots']:>5}  {len(s['seeds']):>5}  {score}")
    return "\n".join(lines)


def write_json(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `{"rows": [...]}` in one step: a reader sees the old file or the new one, never a part.

    Raises:
        ValueError: the rows hold something JSON has no word for, such as NaN.
        OSError: the place cannot be written to.
    """
    path = Path(path)
    text = json.dumps({"rows": list(rows)}, indent=1, allow_nan=False, ensure_ascii=False)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
