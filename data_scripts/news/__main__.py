"""`python -m data_scripts.news`: build a benchmark of questions whose answers no encoder was trained on."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rose_kit import cli
from rose_kit.cli import writable_folder

EXAMPLE = (
    "Example: python -m data_scripts.news --out nest --seed 1 --start 2026-01-01 --end 2026-06-30 --plus"
)

DAY, FIRST, LAST = ["%Y-%m-%d"], datetime(2026, 1, 1), datetime(2026, 6, 30)


def build(
    out: Annotated[Path, typer.Option(help="A new folder, or an empty one.")],
    seed: Annotated[int, typer.Option(help="Of the news; another seed gives a fresh benchmark.", min=0)] = 1,
    start: Annotated[datetime, typer.Option(formats=DAY, help="First day of the news window.")] = FIRST,
    end: Annotated[datetime, typer.Option(formats=DAY, help="Last day of the news window.")] = LAST,
    count: Annotated[int, typer.Option(help="Samples in all.")] = 100,
    plus: Annotated[bool, typer.Option("--plus", help="NEST+: mix in questions that need no web.")] = False,
    nest_share: Annotated[float, typer.Option(help="With --plus: share of those that need it.")] = 0.7,
    split: Annotated[str, typer.Option(help="Phrases: dev (rules were written on them) or eval.")] = "eval",
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 144,
) -> None:
    """Turn a window of news into images, dated questions, answers and masks.

    What is drawn is checked: the target is visible, the answer the only one and beyond dispute on that day,
    a look-up is needed or is not. What was discarded, and why, is told and kept in the folder's README.
    """
    window = start.date(), end.date()
    from data_scripts.news import NewsWorld
    from data_scripts.news.nest import build_nest, save_nest

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


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EXAMPLE)(build)

if __name__ == "__main__":
    sys.exit(cli.status(sys.argv[1:], app, "python -m data_scripts.news"))
