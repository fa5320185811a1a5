"""One tuning budget for every method: the same number of trials, on the same development scenes.

A trial is one setting of a method, at every number of shots, on every development seed. The first trial of a
method are its defaults, the others are drawn at random from its space. What is chosen is then measured
on other seeds, beside the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import ParameterSampler

from experiments.claims import SceneBenchmark, measure
from experiments.claims.benchmark import Setting
from experiments.claims.claim import Claim
from experiments.claims.tuned import NO_TEXT, PUBLISHED, Options, make_method
from experiments.claims.verdict import MORE
from rose_kit.adapter import RNS
from rose_kit.data import atomic_write
from rose_kit.evaluation import MissingSupport
from rose_kit.metrics import mean_interval
from rose_kit.model import methods

WEIGHTS = np.linspace(0.1, 0.9, 9).round(1).tolist()
SPACES: dict[str, dict[str, Sequence]] = {  # method -> option -> the values it is drawn from
    "zero-shot": {"scale": np.geomspace(1, 200, 40).round(1).tolist()},
    "knn-clip": {
        "weight": WEIGHTS,
        "k": [4, 8, 16, 32, 64, 128],
        "temperature": [0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
        "scale": [5.0, 10.0, 20.0, 50.0, 100.0],
        "threshold": [0.7, 0.9, 1.0],
    },
    "freeda": {"weight": WEIGHTS, "global_share": [0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]},
    "fssdino": {"clusters": list(range(1, 41))},
    "rns": {
        "k": [1, 2, 4, 8, 16],
        "spreads": [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0],
        "mu": [float(f"{RNS().mu * times:.2g}") for times in (0.1, 0.3, 1, 3, 10, 30)],
        "beta_fused": [0.5, 1.0, 1.5, 2.5, 4.0, 6.0],
        "beta_pseudo": [0.2, 0.5, 1.0, 2.0],
    },
}


def draw_trials(names: Sequence[str], trials: int, seed: int = 0) -> dict[str, list[Options]]:
    """The settings to try: for every method of `SPACES` as many, all different, its defaults first.

    Args:
        names: of methods, "NAME without text" too; those of `PUBLISHED` have one trial.
        trials: for each of the others.
        seed: of the draw.

    Raises:
        ValueError: an unknown method, or a space that holds fewer settings.
    """
    drawn: dict[str, list[Options]] = {}
    for name in names:
        if name in PUBLISHED:
            drawn[name] = [{}]
            continue
        method = name.removesuffix(NO_TEXT)
        if method not in SPACES:
            raise ValueError(f"no space to tune {name!r}; known: {', '.join([*SPACES, *PUBLISHED])}")
        space = SPACES[method]
        default = {option: getattr(methods.make(method), option) for option in space}
        if trials > np.prod([len(values) for values in space.values()]):
            raise ValueError(f"the space of {name!r} holds fewer than {trials} settings")
        sampled = ParameterSampler(space, trials, random_state=seed)  # without repeating one
        others = [options for options in sampled if options != default]
        drawn[name] = [default, *others[: trials - 1]]
    return drawn


def tune(
    bench: SceneBenchmark,
    names: Sequence[str],
    trials: int,
    shots: Sequence[int],
    seeds: Sequence[int],
    fresh: Sequence[int] = (),
    *,
    regions: str | None = None,
    store: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Try every method equally often, choose its best setting, and measure that where nothing was chosen.

    Args:
        bench: encodes each scene once for all trials.
        names, trials: as for `draw_trials`.
        shots: support images per class; a setting is chosen by the mean over all of them.
        seeds: development seeds, one draw of support and query scenes each.
        fresh: other seeds, for the defaults and what is chosen alone.
        regions: what all methods answer: a name for `make_regions`; None: patches.
        store: file that keeps what was measured if the run is interrupted.
        progress: show a progress bar.

    Returns:
        A row per method and trial: method, trial, settings, miou_B in percent for each B of `shots`, miou
        (their mean), chosen, best_at (the numbers of shots at which no trial is better); with `fresh`, of
        the defaults and the chosen: fresh (mean mIoU), gain over the defaults and half_width of its 95 %
        interval over the fresh seeds.

    Raises:
        ValueError: a seed is both a development seed and a fresh one, or as for `draw_trials`.
    """
    if shared := set(seeds) & set(fresh):
        raise ValueError(f"seeds {sorted(shared)} are for development and fresh at once")
    drawn = [(name, options) for name, own in draw_trials(names, trials).items() for options in own]
    scores = _scores(bench, drawn, shots, seeds, regions, store, progress)  # (T, B, S)
    table = pd.DataFrame([(name, _text(options)) for name, options in drawn], columns=["method", "settings"])
    table.insert(1, "trial", table.groupby("method").cumcount())
    at_shots = pd.DataFrame(scores.mean(2), columns=[f"miou_{b}" for b in shots])
    table = pd.concat([table, at_shots], axis=1).assign(miou=at_shots.mean(axis=1))
    groups = table.groupby("method")
    table["chosen"] = table.index.isin(groups["miou"].idxmax())
    best = {b: table.index.isin(groups[f"miou_{b}"].idxmax()) for b in shots}
    table["best_at"] = [" ".join(str(b) for b in shots if best[b][row]) for row in table.index]
    if len(fresh):
        rows = table.index[table.chosen | (table.trial == 0)]
        again = _scores(bench, [drawn[row] for row in rows], shots, fresh, regions, store, progress)
        by_seed = dict(zip(rows, again.mean(1), strict=True))  # row -> (F,)
        default = groups.trial.idxmin()  # method -> row
        gains = {row: mean_interval(by_seed[row] - by_seed[default[table.method[row]]]) for row in rows}
        table["fresh"] = pd.Series({row: values.mean() for row, values in by_seed.items()})
        table[["gain", "half_width"]] = pd.DataFrame.from_dict(gains, orient="index")
    if store:
        store.unlink(missing_ok=True)
    return table


def add_to_table(path: Path, rows: pd.DataFrame) -> None:
    """Write rows of `tune` to a CSV file; of what it holds, rows of the same encoder and regions go.

    Args:
        path: of the file, made if it is not there.
        rows: with columns encoder and answered, one value each.
    """
    if path.exists():
        before = pd.read_csv(path, dtype={"settings": str, "best_at": str}, keep_default_na=False)
        same = (before.encoder == rows.encoder.iloc[0]) & (before.answered == rows.answered.iloc[0])
        rows = pd.concat([before[~same], rows])
    with atomic_write(path) as beside:
        rows.to_csv(beside, index=False, float_format="%.3f")


def _scores(bench, drawn, shots, seeds, regions, store, progress) -> NDArray[np.float64]:
    """(T, B, S) mIoU in percent of T settings at B numbers of shots on S seeds."""
    claims = []
    for name, options in drawn:
        missing = MissingSupport(text=float(name.endswith(NO_TEXT)))
        for b in shots:
            setting = Setting(make_method(name, options), b, missing=missing, regions=regions, tuned=True)
            statement = f"{regions or 'patches'}, {name} {_text(options)}, shots {b}"
            claims.append(Claim(name, statement, MORE, lambda bench, seed, s=setting: bench.miou(s, seed)))
    table = measure(claims, seeds, bench, store, progress, keep=True)
    effects = [list(map(float, line.split())) for line in table.effects]
    return np.array(effects).reshape(len(drawn), len(shots), len(seeds))


def _text(options: Options) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items())
