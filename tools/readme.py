"""Write the tables of README.md anew from rose_kit/bench/results: `python tools/readme.py [--check]`.

Each table stands between two comments, `<!-- NAME: ... -->` and `<!-- end -->`, and is replaced.
`--check` writes nothing and fails where the README says something else than the results do.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "rose_kit" / "bench" / "results"
BLOCK = re.compile(r"(<!-- (\w+): [^>]*-->\n).*?(<!-- end -->)", re.S)
CLAIMS = {  # what the README calls it -> how the statement in claims.csv begins
    "RNS over zero-shot, 1 shot": "RNS, shots 1, over zero-shot",
    "RNS over kNN-CLIP, 1 shot": "RNS over kNN-CLIP, shots 1,",
    "RNS over kNN-CLIP, 20 shots": "RNS over kNN-CLIP, shots 20,",
    "RNS over FREEDA, 20 shots": "RNS over FREEDA, shots 20,",
    "RNS with text over without, 20 shots": "RNS with text over without, shots 20",
    "RNS on SLIC regions over patches, 20 shots": "RNS on regions over patches, shots 20",
    "RNS over zero-shot, any share of classes not in the memory": "RNS, the worst of 25 to 100 % of classes "
    "without visual support",
    "classes weighted by relevance, 1 shot": "classes weighted by relevance over all alike, shots 1",
    "kNN-CLIP with text over without, 20 shots": "kNN-CLIP, shots 20: half text, half vote",
    "gain of RNS over an untrained encoder's": "gain of RNS over zero-shot, shots 5: bundled encoder "
    "over an untrained one",
}


def markdown(rows: list[list[str]], head: list[str]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def claims() -> str:
    """A few of the claims, and how many there are of each verdict."""
    table = pd.read_csv(RESULTS / "claims.csv")
    chosen = [(n, table[table["statement"].str.startswith(says)].iloc[0]) for n, says in CLAIMS.items()]
    rows = [[n, r.expected, f"{r.effect:+.1f} ± {r.half_width:.1f}", r.verdict] for n, r in chosen]
    count = table["verdict"].value_counts()
    words = {"holds": "hold", "does not hold": "do not", "unclear": "are unclear"}
    verdicts = ", ".join(f"{count.get(verdict, 0)} {word}" for verdict, word in words.items())
    head = ["effect", "expected", "measured, 95 % interval", "verdict"]
    some = f"{len(rows)} of them, in mIoU points:"
    return f"Of {len(table)} statements {verdicts}. {some}\n\n{markdown(rows, head)}"


def solvers() -> str:
    """The default solver beside AdamW, at the two sizes and on images."""
    table = pd.read_csv(RESULTS / "solvers.csv")
    table = table[table["solver"] == "lbfgs"]
    rows = [
        [r.data, f"{1e3 * r.solve_s:.1f} ms", f"{r.solve_speedup:.0f} x", f"{r.predict_speedup:.0f} x",
         "" if pd.isna(r.miou_gain) else f"{r.miou_gain:+.1f}"]
        for r in table.itertuples()
    ]  # fmt: skip
    return markdown(rows, ["samples like", "a head in", "over AdamW", "whole prediction", "mIoU gained"])


def pipeline() -> str:
    """What everything after the encoder costs, beside the encoder."""
    table = pd.read_csv(RESULTS / "pipeline.csv")
    costs = zip(table["classes"], table["level"], table["all but the encoder"], strict=True)
    rows = [[f"{classes} classes, {level}", f"{cost:.1f} %"] for classes, level, cost in costs]
    return markdown(rows, ["after the encoder", "of its time"])


def retrieval() -> str:
    """Indexes at the sizes that were measured."""
    table = pd.read_csv(RESULTS / "retrieval.csv")
    rows = [
        [f"{r.rows:,}", r.index_name, f"{r.recall_at_4:.3f}", f"{r.speedup:.1f} x", f"{r.memory_share:.2f}"]
        for r in table.rename(columns={"index": "index_name"}).itertuples()
    ]
    return markdown(rows, ["rows", "index", "recall@4", "speed over exact", "share of its memory"])


def rose() -> str:
    """The trainable pipeline's fusions, and what they are compared with: mean over classes and seeds."""
    table = pd.read_csv(RESULTS / "rose.csv")
    table = table[~table["method"].str.contains("without")]
    rows = []
    for method, own in table.groupby("method", sort=False):
        held = own[own["group"] == "held-out"]
        novel = own[own["group"] == "novel"].groupby("shots")["after"].mean()
        values = [
            own[own["group"] == "common"]["after"].mean(),
            held["before"].mean(),
            held["after"].mean(),
            *novel,
        ]
        rows.append([method, *(f"{value:.1f}" for value in values)])
    shots = [f"novel, {n} rows" for n in novel.index]
    return markdown(rows, ["method", "common classes", "held out, before", "held out, 5 rows", *shots])


def nest() -> str:
    """The modules of the web framework on NEST in miniature: gIoU by kind of question."""
    table = pd.read_csv(RESULTS / "nest.csv")
    giou = table.pivot(index="system", columns="part", values="giou").loc[table["system"].unique()]
    width = table.pivot(index="system", columns="part", values="giou_pm")
    parts = ["novel", "emerging", "static", "overall"]
    rows = [[s, *(f"{giou.loc[s, p]:.1f} ± {width.loc[s, p]:.1f}" for p in parts)] for s in giou.index]
    return markdown(rows, ["system", *parts])


TABLES: dict[str, Callable[[], str]] = {
    f.__name__: f for f in (claims, solvers, pipeline, retrieval, rose, nest)
}


def renewed(text: str) -> str:
    """The README with every table written anew.

    Raises:
        ValueError: it names a table that is not known, or lacks one.
    """
    named = [name for _, name, _ in BLOCK.findall(text)]
    if sorted(named) != sorted(TABLES):
        raise ValueError(f"README.md has the tables {sorted(named)}; expected {sorted(TABLES)}")
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


def main(arguments: list[str]) -> int:
    text = README.read_text(encoding="utf-8")
    new = renewed(text)
    if arguments == ["--check"]:
        if new != text:
            print(
                "README.md differs from rose_kit/bench/results: run `python tools/readme.py`", file=sys.stderr
            )
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
