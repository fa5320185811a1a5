"""`python -m data_scripts.news`: build a benchmark of questions whose answers no encoder was trained on."""

from __future__ import annotations

import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from rose_kit import cli
from rose_kit.cli import writable_folder

EXAMPLE = (
    "Example: python -m data_scripts.news --out nest --seed 1 --start 2026-01-01 --end 2026-06-30 --plus"
)

DAY, FIRST, LAST = ["%Y-%m-%d"], date(2026, 1, 1), date(2026, 6, 30)


def build(
    out: Annotated[Path, typer.Option(help="A new folder, or an empty one.")],
    seed: Annotated[int, typer.Option(help="Of the news; another seed gives a fresh benchmark.", min=0)] = 1,
    start: Annotated[
        datetime | None, typer.Option(formats=DAY, help=f"First day of the news window.  [default: {FIRST}]")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option(formats=DAY, help=f"Last day of the news window.  [default: {LAST}]")
    ] = None,
    count: Annotated[int, typer.Option(help="Samples in all.")] = 100,
    plus: Annotated[bool, typer.Option("--plus", help="NEST+: mix in questions that need no web.")] = False,
    nest_share: Annotated[float, typer.Option(help="With --plus: share of those that need it.")] = 0.7,
    split: Annotated[
        str, typer.Option(help="Phrases: dev (rules were written on them), eval or test.")
    ] = "test",
    size: Annotated[int, typer.Option(help="Side of drawn images in pixels, 64 to 1024.")] = 144,
    articles: Annotated[
        Path | None, typer.Option(help="Folder of real articles, see data_scripts/news/articles.py.")
    ] = None,
    llm: Annotated[
        str | None, typer.Option(help="Model that reads the articles, at OPENAI_BASE_URL; else rules.")
    ] = None,
) -> None:
    """Turn a window of news into images, dated questions, answers and masks.

    What is drawn is checked: the target is visible, the answer the only one and beyond dispute on that day,
    a look-up is needed or is not. What was discarded, and why, is told and kept in the folder's README.
    """
    from data_scripts.news import ArticleWorld, NewsWorld
    from data_scripts.news.nest import (
        build_from_articles,
        build_nest,
        roles_by_model,
        roles_by_rules,
        save_nest,
    )
    from rose_kit.web.llm import language_model

    if articles and (start or end):
        raise ValueError("articles have their own days: leave out --start and --end")
    if llm and not articles:
        raise ValueError(f"--llm {llm!r} reads articles: name their folder with --articles")

    if out.exists() and (not out.is_dir() or any(out.iterdir())):  # before the work, not after it
        raise ValueError(f"{str(out)!r} holds something already; name a new or an empty folder")
    writable_folder(out)
    share = nest_share if plus else 1.0
    if articles:
        reader = roles_by_model(language_model(llm)) if llm else roles_by_rules
        world = ArticleWorld(articles, seed, split)
        nest = build_from_articles(world, count, nest_share=share, read_roles=reader)
    else:
        window = start.date() if start else FIRST, end.date() if end else LAST
        nest = build_nest(NewsWorld(seed, *window, split), count, nest_share=share, size=size)
    for kind, found in nest.discards.items():
        listed = ", ".join(f"{name} {n}" for name, n in found.items()) or "none"
        typer.echo(f"{kind:<9} {sum(s.kind == kind for s in nest):>4} samples, discarded: {listed}")
    typer.echo(f"written to {save_nest(nest, out)}")


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EXAMPLE)(build)

if __name__ == "__main__":
    sys.exit(cli.status(sys.argv[1:], app, "python -m data_scripts.news"))
