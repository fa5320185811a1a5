"""Every claim in every seed, with progress; what was measured before an interruption is not lost."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from experiments.claims.lab import MOST, Lab
from experiments.claims.row import Row
from experiments.claims.verdict import paired

Effects = dict[tuple[str, int], float]  # (what a row says, seed) -> effect


def choose(rows: Sequence[Row], claims: Iterable[str] | None) -> list[Row]:
    """The rows of some claims, or all.

    Raises:
        ValueError: there is no such claim; lists those there are.
    """
    known = list(dict.fromkeys(row.claim for row in rows))
    for name in claims or ():
        if name not in known:
            raise ValueError(f"unknown claim {name!r}; known: {', '.join(known)}")
    return [row for row in rows if claims is None or row.claim in claims]


def measure(
    rows: Sequence[Row],
    seeds: Sequence[int],
    lab: Lab | None = None,
    store: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of claims: mean effect over seeds, its 95 % interval, and what follows from it.

    Args:
        rows: what to measure.
        seeds: one draw of support images and query scenes each.
        lab: where; by default the scenes and the bundled encoder.
        store: file that keeps each effect as soon as it is known. A run that finds one made under the
            same settings goes on from there; it is removed once the table is whole.
        progress: show a progress bar.

    Returns:
        One line per row: claim, statement, expected, effect, half_width, unit, verdict, paper, source,
        seeds and effects (both separated by blanks).

    Raises:
        ValueError: there are no rows, or seeds are missing, repeat, or lie outside 0 to 999.
    """
    if not rows or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"claims need rows, and seeds that are all different; got {list(seeds)}")
    if not 0 <= min(seeds) <= max(seeds) < MOST:
        raise ValueError(f"seeds of claims lie between 0 and {MOST - 1}, got {list(seeds)}")
    lab = lab or Lab()
    effects = _read(store, lab.settings()) if store else {}
    todo = [(row, seed) for seed in seeds for row in rows if (row.says, seed) not in effects]
    bar = tqdm(todo, disable=not progress, mininterval=1)
    for row, seed in bar:
        bar.set_description(f"{row.claim}, seed {seed}")
        effects[row.says, seed] = row.measure(lab, seed)
        if store:
            _append(store, lab.settings(), row.says, seed, effects[row.says, seed])
    table = pd.DataFrame([_line(row, seeds, effects) for row in rows])
    table.attrs["settings"] = lab.settings()
    if store:
        store.unlink(missing_ok=True)
    return table


def _line(row: Row, seeds: Sequence[int], effects: Effects) -> dict[str, object]:
    values = [effects[row.says, seed] for seed in seeds]
    mean, half_width, outcome = paired(values, row.expected)
    return {
        "claim": row.claim,
        "statement": row.says,
        "expected": str(row.expected),
        "effect": round(mean, 3),
        "half_width": round(half_width, 3),
        "unit": row.unit,
        "verdict": outcome,
        "paper": row.paper,
        "source": row.source,
        "seeds": " ".join(map(str, seeds)),
        "effects": " ".join(f"{value:.3f}" for value in values),
    }


def _append(store: Path, *values: object) -> None:
    with store.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(values)
        file.flush()
        os.fsync(file.fileno())


def _read(store: Path, settings: str) -> Effects:
    """What an earlier run measured under the same settings; a line that was cut short is passed over."""
    effects: Effects = {}
    if store.exists():
        with store.open(newline="", encoding="utf-8", errors="replace") as file:
            for line in csv.reader(line.replace("\0", "") for line in file):
                if len(line) == 4 and line[0] == settings:
                    effects[line[1], int(line[2])] = float(line[3])
    return effects
