"""The table of claims on disk: CSV for machines, Markdown for people."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.claims.verdict import FAILS, HOLDS, MARGIN, UNCLEAR
from rose_kit.data import atomic_write
from rose_kit.metrics import mean_interval

RULE = (
    "Each effect is a difference within one seed: same support images, same query scenes. The table gives "
    "its mean over seeds and the 95 % Student t interval; seeds share no image, neither support nor query, "
    "so that the interval covers both. One rule for all rows: a claim **holds** if the whole interval lies "
    "inside the expected range, **does not hold** if all of it lies outside, and is **unclear** otherwise. "
    f"What should cost nothing or make no difference may be off by {MARGIN:g} point. At 95 %, about one "
    "interval in twenty misses the truth."
)
SCENES = (
    "Our numbers are from drawn scenes and a small encoder; the paper's are averages over six photographic "
    "benchmarks with large encoders, read from the tables named, or known to us in words only where the "
    "column says so. Signs can be compared, sizes cannot. Statements without a source are our own. `-`: not "
    "measured with this language."
)
LANGUAGES = ("vague", "clear")


def markdown(table: pd.DataFrame) -> str:
    """The table as Markdown: settings, rule, summary, one line per statement with a cell per language."""
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
        f"{table.statement.nunique()} statements.",
        *(f"With {lang} names: {_summary(table[table.language == lang])}." for lang in LANGUAGES),
        "",
        "| claim | statement | expected | vague names | clear names | in the paper | source |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = table.groupby(["claim", "statement"], sort=False)
    return "\n".join([*head, *(_line(own) for _, own in groups)]) + "\n"


def _summary(table: pd.DataFrame) -> str:
    counts = table["verdict"].value_counts()
    return ", ".join(f"{counts.get(name, 0)} {name}" for name in (HOLDS, FAILS, UNCLEAR))


def _line(own: pd.DataFrame) -> str:
    first, measured = own.iloc[0], own.set_index("language").to_dict("index")
    cells = [first.claim, first.statement, first.expected]
    for language in LANGUAGES:
        line = measured.get(language)
        unit = "" if first.unit == "mIoU" else f" {first.unit}"
        text = line and f"{line['effect']:+.2f} ± {line['half_width']:.2f}{unit}, **{line['verdict']}**"
        cells.append(text or "-")
    return f"| {' | '.join([*cells, first.paper, first.source])} |"


def methods_table(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of all methods side by side.

    Args:
        scores: rows of `measure` for `statements.scores`.

    Returns:
        A row per language and method: mean mIoU in percent and 95 % interval for each number of shots, ""
        where there is none; a method without shots stands under "any".
    """
    cells, parts = {}, scores.statement.str.rsplit(", shots ", n=1)
    for line, (name, shots) in zip(scores.itertuples(), parts, strict=True):
        shots = "any" if shots == "0" else shots
        cells.setdefault((line.language, name), {})[shots] = f"{line.effect:.1f} ± {line.half_width:.1f}"
    return pd.DataFrame.from_dict(cells, orient="index").fillna("").rename_axis(["language", "method"])


def gains_table(scores: pd.DataFrame, method: str = "rns") -> pd.DataFrame:
    """What one method has over each other one, paired by seed, laid out as `methods_table`; NaN as "".

    The published settings are compared on the scenes that both answered.
    """
    by_seed, cells = {}, {}
    for line in scores.itertuples():
        name, shots = line.statement.rsplit(", shots ", 1)
        values = pd.Series(line.effects.split(), line.seeds.split()).astype(float)
        by_seed[line.language, name, int(shots)] = values
    counts = sorted({b for _, name, b in by_seed if name == method})
    for language, name, b in by_seed:
        if name.split(",")[0] == method:
            continue
        own = (
            f"{method}, scenes of {name}"
            if (language, f"{method}, scenes of {name}", b) in by_seed
            else method
        )
        for shots in [b] if b else counts:
            mean, half = mean_interval(by_seed[language, own, shots] - by_seed[language, name, b])
            cells.setdefault((language, name), {})[str(shots)] = f"{mean:+.1f} ± {half:.1f}"
    return pd.DataFrame.from_dict(cells, orient="index").fillna("").rename_axis(["language", "over"])


def methods_markdown(scores: pd.DataFrame) -> str:
    """`methods_table` and `gains_table` as Markdown, a table for each language."""
    parts = []
    for title, table in (
        ("Every method as tuned, mIoU in percent", methods_table(scores)),
        ("RNS over each of them, paired by seed", gains_table(scores)),
    ):
        for language, own in table.groupby(level=0, sort=False):
            rows = [[name, *cells] for (_, name), cells in zip(own.index, own.to_numpy(), strict=True)]
            lines = [["method", *own.columns], ["---"] * (1 + len(own.columns)), *rows]
            parts.append(f"\n{title}, {language} names, by shots:\n")
            parts += [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join(parts) + "\n"


def write(table: pd.DataFrame, folder: Path) -> tuple[Path, ...]:
    """Write each in one step: rns_claims.csv, rns_methods.csv if there are scores, and both in rns_claims.md.

    Args:
        table: of `measure`; rows of `statements.scores` and `further_scores` go to rns_methods.csv.
        folder: made if it is not there.

    Returns:
        Their paths.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scored = table.claim.isin(["scores", "further"])
    claims, texts = table[~scored], {}
    if len(claims):
        texts |= {"rns_claims.csv": claims.to_csv(index=False), "rns_claims.md": markdown(claims)}
    if (table.claim == "scores").any():
        texts["rns_claims.md"] = texts.get("rns_claims.md", "") + methods_markdown(
            table[table.claim == "scores"]
        )
    if scored.any():
        columns = ["language", "statement", "effect", "half_width", "unit", "seeds", "effects"]
        texts["rns_methods.csv"] = table[scored][columns].to_csv(index=False)
    for name, text in texts.items():
        with atomic_write(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return tuple(folder / name for name in texts)
