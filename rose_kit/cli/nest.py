"""`rose-kit nest`: build a benchmark of questions whose answers no encoder was trained on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rose_kit.cli.inputs import parse_day, parse_seeds

app = typer.Typer(help="NEST in miniature: questions that need the web, with answers and masks.")
EXAMPLE = "Example: rose-kit nest build --out nest --seed 1 --start 2026-01-01 --end 2026-06-30 --plus"


@app.command(epilog=EXAMPLE)
def build(
    out: Annotated[Path, typer.Option(help="A new folder, or an empty one.")],
    seed: Annotated[int, typer.Option(help="Of the news; another seed gives a fresh benchmark.", min=0)] = 1,
    start: Annotated[str, typer.Option(help="First day of the news window.")] = "2026-01-01",
    end: Annotated[str, typer.Option(help="Last day of the news window.")] = "2026-06-30",
    count: Annotated[int, typer.Option(help="Samples in all.")] = 100,
    plus: Annotated[bool, typer.Option("--plus", help="NEST+: mix in questions that need no web.")] = False,
    nest_share: Annotated[float, typer.Option(help="With --plus: share of those that need it.")] = 0.7,
    split: Annotated[str, typer.Option(help="Phrases: dev (rules were written on them) or eval.")] = "eval",
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 144,
) -> None:
    """Turn a window of news into pictures, dated questions, answers and masks.

    What is drawn is checked: the target is visible, the answer the only one and beyond dispute on that day,
    a look-up is needed or is not. What was discarded, and why, is told and kept in the folder's README.
    """
    window = parse_day(start, "--start"), parse_day(end, "--end")
    from rose_kit.bench.nest import build_nest, save_nest
    from rose_kit.cli.inputs import writable_folder
    from rose_kit.scenes.news import NewsWorld

    if out.exists() and (not out.is_dir() or any(out.iterdir())):  # before the work, not after it
        raise ValueError(f"{str(out)!r} holds something already; name a new or an empty folder")
    writable_folder(out)
    nest = build_nest(
        NewsWorld(seed, *window, split), count, nest_share=nest_share if plus else 1.0, size=size
    )
    for kind, found in nest.discards.items():
        listed = ", ".join(f"{name} {n}" for name, n in found.items()) or "none"
        typer.echo(f"{kind:<9} {sum(s.kind == kind for s in nest):>4} samples, discarded: {listed}")
    typer.echo(f"written to {save_nest(nest, out)}")


@app.command(epilog="Example: rose-kit nest run --seeds 1,2,3 --out rose_kit/bench/results")
def run(
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("runs/nest"),
    seeds: Annotated[str, typer.Option(help="One news world each; at least 2 for intervals.")] = "1,2,3",
    count: Annotated[int, typer.Option(help="Samples a seed; seven in ten need a look-up.")] = 60,
    gate_count: Annotated[int, typer.Option(help="Questions a seed for the gate alone.")] = 300,
    start: Annotated[str, typer.Option(help="First day of the news windows.")] = "2026-01-01",
    end: Annotated[str, typer.Option(help="Last day of the news windows.")] = "2026-06-30",
    split: Annotated[str, typer.Option(help="Phrases: dev (rules were written on them) or eval.")] = "eval",
) -> None:
    """Measure which module of the ROSE framework carries what: the paper's ablation on NEST+.

    Every system is asked the same questions, with each seed's miniature web served on this machine. Writes
    nest.csv and nest.md (gIoU, cIoU, accuracy of answers, the gate), nest_samples.csv (every answer),
    nest_gate.csv (the gate alone on more questions) and nest_goals.csv (goals set beforehand).
    """
    chosen, window = parse_seeds(seeds), (parse_day(start, "--start"), parse_day(end, "--end"))
    if min(count, gate_count) < 10:
        raise ValueError(
            f"counts must be at least 10, so that every kind occurs; got {min(count, gate_count)}"
        )
    from rose_kit.bench.nest.ablation import ablate
    from rose_kit.bench.nest.table import markdown
    from rose_kit.cli.inputs import writable_folder
    from rose_kit.scenes.news import NewsWorld

    worlds = [NewsWorld(seed, *window, split) for seed in chosen]
    summary, reached = ablate(worlds, writable_folder(out), count, gate_count, sys.stderr.isatty())
    typer.echo(markdown(summary))
    for goal in reached.itertuples():
        width = f"± {goal.half_width:.1f}" if goal.half_width >= 0 else "on one seed"
        reached_or_not = "met" if goal.met else "MISSED"
        typer.echo(f"{reached_or_not:<7} {goal.goal}: {goal.effect:.1f} {width} (wanted {goal.wanted})")
    typer.echo(f"written to {out}")
