"""The table of claims on disk: CSV for machines, Markdown for people."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.claims.verdict import FAILS, HOLDS, MARGIN, UNCLEAR
from rose_kit.data import atomic_write

RULE = (
    "Each effect is a difference within one seed: same support images, same query scenes. The table gives "
    "its mean over seeds and the 95 % Student t interval. One rule for all rows: a claim **holds** if the "
    "whole interval lies inside the expected range, **does not hold** if all of it lies outside, and is "
    f"**unclear** otherwise. What should cost nothing or make no difference may be off by {MARGIN:g} point. "
    "At 95 %, about one interval in twenty misses the truth."
)
SCENES = (
    "Our numbers are from drawn scenes and a small encoder; the paper's are averages over six photographic "
    "benchmarks with large encoders, read from the tables named, or known to us in words only where the "
    "column says so. Signs can be compared, sizes cannot. Statements without a source are our own."
)


def markdown(table: pd.DataFrame) -> str:
    """The table as Markdown: settings, rule, summary, one line per statement."""
    counts = table["verdict"].value_counts()
    summary = ", ".join(f"{counts.get(name, 0)} {name}" for name in (HOLDS, FAILS, UNCLEAR))
    head = [
        "# Claims of the paper, tested on scenes",
        "",
        "Written by `notebooks/experiments/rns_claims.ipynb`; do not edit.",
        "",
        f"Settings: {table.attrs.get('settings', 'unknown')}; seeds {table['seeds'].iloc[0]}.",
        "",
        RULE,
        "",
        SCENES,
        "",
        f"**{len(table)} statements: {summary}.**",
        "",
        "| claim | statement | expected | measured | verdict | in the paper | source |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(_cells(line) for line in table.to_dict("records"))]) + "\n"


def _cells(line: dict) -> str:
    unit = "" if line["unit"] == "mIoU" else f" {line['unit']}"
    measured = f"{line['effect']:+.2f} ± {line['half_width']:.2f}{unit}"
    cells = [line["claim"], line["statement"], line["expected"], measured]
    cells += [f"**{line['verdict']}**", line["paper"], line["source"]]
    return f"| {' | '.join(cells)} |"


def write(table: pd.DataFrame, folder: Path) -> tuple[Path, Path]:
    """Write rns_claims.csv and rns_claims.md, each in one step.

    Returns:
        Their paths.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"rns_claims.csv": table.to_csv(index=False), "rns_claims.md": markdown(table)}
    for name, text in texts.items():
        with atomic_write(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return folder / "rns_claims.csv", folder / "rns_claims.md"
