"""Every claim in every seed, with progress; what was measured before an interruption is not lost."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from data_scripts.scenes.splits import MAX_SEEDS
from experiments.claims.benchmark import SceneBenchmark
from experiments.claims.claim import Claim
from experiments.claims.verdict import paired

Effects = dict[tuple[str, int], float]  # (key of a claim, seed) -> effect


def choose(claims: Sequence[Claim], names: Iterable[str] | None) -> list[Claim]:
    """The claims of some names, or all.

    Raises:
        ValueError: there is no such claim; lists those there are.
    """
    known = list(dict.fromkeys(claim.name for claim in claims))
    for name in names or ():
        if name not in known:
            raise ValueError(f"unknown claim {name!r}; known: {', '.join(known)}")
    return [claim for claim in claims if names is None or claim.name in names]


def measure(
    claims: Sequence[Claim],
    seeds: Sequence[int],
    bench: SceneBenchmark | None = None,
    store: Path | None = None,
    progress: bool = True,
    keep: bool = False,
) -> pd.DataFrame:
    """The table of claims: mean effect over seeds, its 95 % interval, and what follows from it.

    Args:
        claims: what to measure.
        seeds: one draw of support images and query scenes each.
        bench: where; by default the scenes and the bundled encoder.
        store: file that keeps each effect as soon as it is known. A run that finds one made under the
            same settings goes on from there; it is removed once the table is whole.
        progress: show a progress bar.
        keep: leave the store where it is, for more claims.

    Returns:
        One line per row: claim, language, statement, expected, effect, half_width, unit, verdict, paper,
        source, seeds and effects (both separated by blanks).

    Raises:
        ValueError: there are no claims, or seeds are missing, repeat, or lie outside 0 to 999.
    """
    if not claims or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"there must be claims, and seeds that are all different; got {list(seeds)}")
    if not 0 <= min(seeds) <= max(seeds) < MAX_SEEDS:
        raise ValueError(f"seeds of claims lie between 0 and {MAX_SEEDS - 1}, got {list(seeds)}")
    bench = bench or SceneBenchmark()
    effects = _read(store, bench.settings()) if store else {}
    todo = [(claim, seed) for seed in seeds for claim in claims if (claim.key, seed) not in effects]
    bar, last = tqdm(todo, disable=not progress, mininterval=1), None
    for claim, seed in bar:
        if bench.apart and seed != last:
            bench.forget()  # of the seed before, with which this one shares no scene
        last = seed
        bar.set_description(f"{claim.name}, seed {seed}")
        effects[claim.key, seed] = claim.measure(bench, seed)
        if store:
            _append(store, bench.settings(), claim.key, seed, effects[claim.key, seed])
    table = pd.DataFrame([_line(claim, seeds, effects) for claim in claims])
    table.attrs["settings"] = bench.settings()
    if store and not keep:
        store.unlink(missing_ok=True)
    return table


def _line(claim: Claim, seeds: Sequence[int], effects: Effects) -> dict[str, object]:
    values = [effects[claim.key, seed] for seed in seeds]
    mean, half_width, outcome = paired(values, claim.expected)
    return {
        "claim": claim.name,
        "language": claim.language,
        "statement": claim.statement,
        "expected": str(claim.expected),
        "effect": round(mean, 3),
        "half_width": round(half_width, 3),
        "unit": claim.unit,
        "verdict": outcome,
        "paper": claim.paper,
        "source": claim.source,
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
