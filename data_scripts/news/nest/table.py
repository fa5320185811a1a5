"""The rows of a run as a table: per system and kind, the mean over seeds with a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from data_scripts.news.nest.run import Row
from rose_kit.data import atomic_write
from rose_kit.metrics import mean_interval

# Each part of the table, and which rows are of it.
PARTS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "novel": lambda rows: rows["kind"] == "novel",
    "emerging": lambda rows: rows["kind"] == "emerging",
    "emerging: class": lambda rows: (rows["kind"] == "emerging") & rows["known_by_name"],
    "emerging: individual": lambda rows: (rows["kind"] == "emerging") & ~rows["known_by_name"],
    "static": lambda rows: rows["kind"] == "static",
    "nest": lambda rows: rows["kind"] != "static",
    "overall": lambda rows: rows["kind"] != "",
}
FLAGS = ["needs_web", "known_by_name", "searched"]  # columns of truth values

# What is measured, in percent, on the rows of one system, part and seed; NaN where it does not apply.
MEASURES: dict[str, Callable[[pd.DataFrame], float]] = {
    "giou": lambda rows: rows["iou"].mean(),
    "ciou": lambda rows: rows["intersection"].sum() / rows["union"].sum(),
    "accuracy": lambda rows: rows.loc[rows["needs_web"], "correct"].astype(float).mean(),
    "gate_accuracy": lambda rows: (rows["searched"] == rows["needs_web"]).mean(),
    "false_skips": lambda rows: (~rows.loc[rows["needs_web"], "searched"]).mean(),
    "skipped_of_needless": lambda rows: (~rows.loc[~rows["needs_web"], "searched"]).mean(),
    "calls_saved": lambda rows: (~rows["searched"]).mean(),
}


def summarise_nest(rows: Sequence[Row]) -> pd.DataFrame:
    """Per system and part: gIoU, cIoU, accuracy of the answer, and what the gate did.

    Each is computed for every seed, then averaged over seeds. gate_accuracy: searched where needed and only
    there; false_skips: needed look-ups that were skipped; skipped_of_needless: needless ones that were, which
    is the share of unnecessary calls avoided; calls_saved: skipped ones of all.

    Args:
        rows: from `run_nest`.

    Returns:
        Columns system, part, seeds, samples (per seed, on average), and for every measure its mean in percent
        and `_pm`, the half-width of the interval (NaN for a single seed). Parts that have no sample are left
        out, as is every one that has the rows of an earlier one.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("no rows to summarise")
    frame, lines = pd.DataFrame(rows), []
    frame[FLAGS] = frame[FLAGS].astype(bool)
    for system in frame["system"].unique():
        for part, is_in_part in _parts(frame).items():
            chosen = frame[(frame["system"] == system) & is_in_part]
            by_seed = [group for _, group in chosen.groupby("seed")]
            line = {
                "system": system,
                "part": part,
                "seeds": len(by_seed),
                "samples": len(chosen) / len(by_seed),
            }
            for name, measure in MEASURES.items():
                line[name], line[f"{name}_pm"] = mean_interval([100 * measure(group) for group in by_seed])
            lines.append(line)
    return pd.DataFrame(lines)


def markdown(summary: pd.DataFrame) -> str:
    """The summary as the paper lays it out: a line per system, gIoU of each part, cIoU, and the gate.

    Accuracy, cIoU and what the gate did are those of the whole.

    Args:
        summary: from `summarise_nest`.
    """
    parts = list(summary["part"].unique())
    columns = [("accuracy", "overall"), *(("giou", part) for part in parts), ("ciou", "overall")]
    columns += [("false_skips", "overall"), ("calls_saved", "overall")]
    titles = [m.replace("giou", p).replace("ciou", f"{p} cIoU").replace("_", " ") for m, p in columns]
    lines = [f"| system | {' | '.join(titles)} |", "|---" * (len(columns) + 1) + "|"]
    for system in summary["system"].unique():
        own = summary[summary["system"] == system].set_index("part")
        cells = (_cell(own.loc[part, name], own.loc[part, f"{name}_pm"]) for name, part in columns)
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_tables(rows: Sequence[Row], folder: str | Path) -> pd.DataFrame:
    """Write nest_samples.csv (the rows), nest.csv (the summary) and nest.md, each in one step.

    Returns:
        The summary.

    Raises:
        ValueError: no rows.
        OSError: the folder cannot be written to.
    """
    folder, summary = Path(folder), summarise_nest(rows)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"nest_samples.csv": pd.DataFrame(rows).to_csv(index=False)}
    texts |= {"nest.csv": summary.to_csv(index=False), "nest.md": markdown(summary)}
    for name, text in texts.items():
        with atomic_write(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return summary


def _cell(mean: float, half_width: float) -> str:
    interval = "" if math.isnan(half_width) else f" ± {half_width:.1f}"
    return "" if math.isnan(mean) else f"{mean:.1f}{interval}"


def _parts(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Part -> which rows are of it, without parts that are empty or equal to an earlier one."""
    parts: dict[str, pd.Series] = {}
    for name, is_in_part in PARTS.items():
        if (rows := is_in_part(frame)).any() and not any(rows.equals(earlier) for earlier in parts.values()):
            parts[name] = rows
    return parts
