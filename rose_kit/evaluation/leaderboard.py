"""Methods side by side: dataset mIoU over seeds, and differences paired image by image.

A difference between two methods is measured on the same images with the same support, and its interval
comes from drawing the images again with replacement (Efron 1979): one draw serves both methods and all
seeds, so what makes an image hard for everybody cancels. Seeds are strata: every draw holds all of them.
With few images such an interval is too narrow, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rose_kit.evaluation.records import dataset_iou
from rose_kit.metrics import mean_interval

GROUP = ["dataset", "encoder", "shots"]  # what is compared lies within one of these
FEW = 30  # images, below which intervals are called too narrow
COUNTS = ("target", "predicted", "intersection")
NEEDED = {*GROUP, *COUNTS, "method", "seed", "image_id", "support", "classes", "finished"}


@dataclass
class Board:
    """The leaderboard.

    Args:
        table: a row per group and method, best first: dataset, encoder, shots, method, seeds, images, miou
            (percent, mean over seeds), half_width (of its Student t interval over seeds), giou (percent);
            difference to the baseline in points of mIoU, its interval low to high, verdict.
        notes: what was left out of a comparison, and why.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def read_runs(*folders: str | Path) -> pd.DataFrame:
    """The rows of every finished run in or below the folders.

    Raises:
        ValueError: there are none, or a file is not what a run leaves.
    """
    files = sorted(path for folder in folders for path in Path(folder).rglob("rows.parquet"))
    tables = []
    for path in files:
        try:
            rows = pd.read_parquet(path)
        except Exception as error:  # of pyarrow, whatever a damaged file trips over
            why = " ".join(str(error).split())
            raise ValueError(f"{str(path)!r} cannot be read: {why}") from None
        if set(rows.columns) >= NEEDED:  # else the run was cut short before it was named
            tables.append(rows)
    if not tables:
        where = ", ".join(map(str, folders[:3]))
        raise ValueError(f"no finished run below {where!r}; rose-kit sweep GRID.yaml makes them")
    return pd.concat(tables, ignore_index=True)


def usual_baseline(methods: Iterable[str]) -> str:
    """What others are compared with where nothing is said: kNN-CLIP, else the first by name.

    >>> usual_baseline(["rns", "knn-clip"]), usual_baseline(["zero-shot", "rns"])
    ('knn-clip', 'rns')
    """
    return "knn-clip" if "knn-clip" in (known := sorted(methods)) else known[0]


def leaderboard(
    rows: pd.DataFrame,
    baseline: str | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Board:
    """Compare every method with the baseline, on what both answered with the same support.

    Args:
        rows: from `read_runs`.
        baseline: what `method` calls it; None: the `usual_baseline`.
        level: coverage of both intervals.
        draws: bootstrap draws of the images.
        seed: of the draws; the same rows and seed, the same board.

    Raises:
        ValueError: no group has the baseline; lists the methods there are.
    """
    known = sorted(set(rows["method"]))
    baseline = usual_baseline(known) if baseline is None else baseline
    if baseline not in known:
        raise ValueError(f"baseline {baseline!r} is not among the runs: {', '.join(known)}")
    notes: list[str] = []
    lines: list[dict[str, Any]] = []
    for group, members in rows.groupby(GROUP, sort=False):
        runs = _runs(members, _where(group), notes)
        base = runs.get(baseline)
        if base is None:
            notes.append(f"{_where(group)}: no run of {baseline}, so no differences")
        found = []
        for method, own in runs.items():
            line = dict(zip(GROUP, group, strict=True)) | {"method": method} | _score(own, level)
            pairs = _Pairs.of(own, base, f"{_where(group)}: {method}", notes) if base else None
            found.append(line | _difference(pairs, method == baseline, level, draws, seed))
        few = min(line["images"] for line in found)
        if base and len(found) > 1 and few < FEW:
            notes.append(f"{_where(group)}: {few} images are few, and the intervals somewhat too narrow")
        lines += sorted(found, key=lambda line: -line["miou"])
    return Board(pd.DataFrame(lines), notes)


@dataclass(frozen=True)
class _Run:
    """One method, one seed: its images, and (I, 3, C) counts of target, answer and both."""

    support: str
    classes: tuple[str, ...]
    images: list[str]
    counts: NDArray[np.int64]


def _where(group: tuple) -> str:
    return f"{group[0]}, {group[1]}, shots {group[2]}"


def _runs(rows: pd.DataFrame, where: str, notes: list[str]) -> dict[str, dict[int, _Run]]:
    """method -> seed -> run; of several runs of one kind that with most images, of equals the newest."""
    runs: dict[str, dict[int, _Run]] = {}
    for (method, seed), run in rows.groupby(["method", "seed"], sort=True):
        *less, best = sorted((part for _, part in run.groupby("finished", sort=True)), key=len)  # stable
        if less:
            what = "older or smaller run" + "s"[: len(less) > 1]
            notes.append(f"{where}: {method}, seed {seed}: {len(less)} {what} left out")
        counts = np.stack([np.stack(best[name].to_list()) for name in COUNTS], 1)  # (I, 3, C)
        first = best.iloc[0]
        one = _Run(first["support"], tuple(first["classes"]), best["image_id"].to_list(), counts)
        runs.setdefault(method, {})[int(seed)] = one
    return runs


def _score(runs: Mapping[int, _Run], level: float) -> dict[str, Any]:
    scores = [100 * float(dataset_iou(*run.counts.sum(0))) for run in runs.values()]
    mean, half_width = mean_interval(scores, level)
    return {
        "seeds": len(runs),
        "images": len(set().union(*(run.images for run in runs.values()))),
        "miou": mean,
        "half_width": half_width,
        "giou": 100 * float(np.mean([_giou(run.counts) for run in runs.values()])),
    }


def _giou(counts: NDArray) -> float:
    """Mean over all masks of the truth, one per class and image (LISA's gIoU)."""
    target, predicted, both = np.moveaxis(counts, 1, 0)  # (I, C) each
    asked = target > 0
    return float((both[asked] / (target + predicted - both)[asked]).mean())


@dataclass(frozen=True)
class _Pairs:
    """What two methods both answered: (S, I, 3, C) counts each, zero where a seed lacks an image."""

    own: NDArray[np.int64]
    base: NDArray[np.int64]

    @classmethod
    def of(
        cls, own: Mapping[int, _Run], base: Mapping[int, _Run], name: str, notes: list[str]
    ) -> _Pairs | None:
        """Pair the runs; what does not pair is left out, and a note says so."""
        lone = sorted(set(own) ^ set(base))
        if lone:
            notes.append(f"{name} and the baseline do not share seeds {lone}: left out of the difference")
        pairs = [
            (own[seed], base[seed], kept)
            for seed in sorted(set(own) & set(base))
            if (kept := _common(own[seed], base[seed], f"{name}, seed {seed}", notes))
        ]
        if not pairs:
            notes.append(f"{name} shares nothing with the baseline: no difference")
            return None
        images = {image: i for i, image in enumerate(dict.fromkeys(i for *_, kept in pairs for i in kept))}
        size = (len(pairs), len(images), 3, len(pairs[0][0].classes))
        both = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for s, (*two, kept) in enumerate(pairs):
            for out, run in zip(both, two, strict=True):
                at = {image: i for i, image in enumerate(run.images)}
                out[s, [images[i] for i in kept]] = run.counts[[at[i] for i in kept]]
        return cls(*both)


def _common(own: _Run, base: _Run, name: str, notes: list[str]) -> list[str]:
    """The images that both answered, with the same truth, classes and support."""
    if own.support != base.support or own.classes != base.classes:
        what = "classes" if own.classes != base.classes else "support images"
        notes.append(f"{name} had other {what} than the baseline: left out of the difference")
        return []
    truth = dict(zip(base.images, base.counts[:, 0], strict=True))
    mine = zip(own.images, own.counts[:, 0], strict=True)
    kept = [image for image, target in mine if image in truth and np.array_equal(target, truth[image])]
    left = len(set(own.images) | set(base.images)) - len(kept)
    if left:
        notes.append(f"{name} and the baseline share {len(kept)} images; {left} are left out")
    return kept


def _difference(
    pairs: _Pairs | None, same: bool, level: float, draws: int, seed: int
) -> dict[str, float | str]:
    if same or pairs is None:
        nothing = dict.fromkeys(("difference", "low", "high"), float("nan"))
        return {**nothing, "verdict": "baseline" if same else "not comparable"}
    own, base = pairs.own.sum(1), pairs.base.sum(1)  # (S, 3, C)
    gain = float(np.mean(_miou(own) - _miou(base)))
    gains = np.concatenate(list(_resampled(pairs, draws, seed)))
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    verdict = "better" if low > 0 else "worse" if high < 0 else "not settled"
    return {"difference": gain, "low": float(low), "high": float(high), "verdict": verdict}


def _resampled(pairs: _Pairs, draws: int, seed: int, batch: int = 250) -> Iterator[NDArray[np.float64]]:
    """Differences on images drawn with replacement, averaged over seeds; in batches, to spare memory."""
    _, images = pairs.own.shape[:2]
    rng = np.random.default_rng(seed)
    for start in range(0, draws, batch):
        times = rng.multinomial(images, np.full(images, 1 / images), min(batch, draws - start))  # (R, I)
        own, base = (np.einsum("ri,sikc->rskc", times, x, optimize=True) for x in (pairs.own, pairs.base))
        yield (_miou(own) - _miou(base)).mean(1)


def _miou(counts: NDArray) -> NDArray[np.float64]:
    """(..., 3, C) counts -> (...) percent."""
    return 100 * dataset_iou(*np.moveaxis(counts, -2, 0))


def markdown(board: Board) -> str:
    """The board as Markdown, aligned so that it reads well in a terminal too."""
    parts = []
    for group, lines in board.table.groupby(GROUP, sort=False):
        head = ["method", "seeds", "images", "mIoU", "difference", "95 % interval", "verdict"]
        body = [[str(cell) for cell in _cells(line)] for line in lines.itertuples()]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        drawn = [head, ["-" * width for width in widths], *body]
        text = ["| " + " | ".join(map(str.ljust, cells, widths)) + " |" for cells in drawn]
        parts.append(f"{_where(group)}\n\n" + "\n".join(text))
    if board.notes:
        parts.append("\n".join(f"- {note}" for note in board.notes))
    return "\n\n".join(parts)


def _cells(line: Any) -> list[Any]:
    spread = "" if np.isnan(line.half_width) else f" ± {line.half_width:.1f}"
    if np.isnan(line.difference):
        gain = interval = ""
    else:
        gain, interval = f"{line.difference:+.1f}", f"{line.low:+.1f} to {line.high:+.1f}"
    return [line.method, line.seeds, line.images, f"{line.miou:.1f}{spread}", gain, interval, line.verdict]
