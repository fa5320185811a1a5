"""`python -m data_scripts COMMAND`: list, download, verify, convert."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from data_scripts import convert as conversion
from data_scripts import fetch
from data_scripts.benchmark import Archive, Benchmark, labels, prompts
from data_scripts.table import BENCHMARKS, find
from rose_kit import cli

app = typer.Typer(
    help="Standard benchmarks in the kit's folder format: download DATASET, then convert DATASET, then "
    "rose-kit evaluate data/DATASET --preset rns-openclip.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Names = Annotated[list[str], typer.Argument(help="Names of datasets, as `list` shows them, or 'all'.")]
Archives = Annotated[Path, typer.Option(help="Folder of the archives, as they were fetched.")]
DEFAULT_ARCHIVES = Path("data/archives")


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="One dataset, with its classes and archives.")] = None,
) -> None:
    """What there is: every dataset in a line, or all about one."""
    if name is not None:
        return _describe(find(name))
    for key, benchmark in BENCHMARKS.items():
        by_hand = any(archive.url is None for archive in benchmark.archives)
        typer.echo(
            f"{key:<13} {len(labels(benchmark)):>3} classes  {benchmark.title}"
            f"{' (archives after registration)' if by_hand else ''}"
        )


def _describe(benchmark: Benchmark) -> None:
    typer.echo(f"{benchmark.title}\n{benchmark.note}\nsplits: {', '.join(benchmark.splits)}")
    for a in benchmark.archives:
        checksum = f"md5 {a.md5}" if a.md5 else "no known checksum: SHA-256 recorded on first download"
        where = a.url or f"after registration from {a.page}"
        typer.echo(f"archive: {a.file}{f', {a.size}' if a.size else ''}, {checksum}\n  {where}")
    names = ",".join(label.name for label in labels(benchmark))
    typer.echo(f"classes ({len(labels(benchmark))}): {names}")
    if prompts(benchmark) != names:
        typer.echo(f"with all texts: {prompts(benchmark)}")


@app.command()
def download(names: Names, archives: Archives = DEFAULT_ARCHIVES) -> None:
    """Fetch and check archives; what is there already is only checked, what broke off is resumed."""
    _each(names, lambda archive: fetch.fetch(archive, archives))


@app.command()
def verify(names: Names, archives: Archives = DEFAULT_ARCHIVES) -> None:
    """Compare archives with the published checksums, or with those of their first download."""
    _each(names, lambda archive: fetch.verify(archive, archives))


def _each(names: list[str], act: Callable[[Archive], str]) -> None:
    """Do it for every archive, whatever becomes of the others; then tell of those that failed."""
    wanted = dict.fromkeys(archive for name in _chosen(names) for archive in find(name).archives)
    failures = []
    for archive in wanted:
        try:
            typer.echo(act(archive))
        except ValueError as error:
            failures.append(str(error))
    if failures:
        raise ValueError("; ".join(failures))


@app.command()
def convert(
    names: Names,
    archives: Archives = DEFAULT_ARCHIVES,
    out: Annotated[Path, typer.Option(help="The results are folders in this one.")] = Path("data"),
    password: Annotated[str | None, typer.Option(help="Of an encrypted zip (FoodSeg103).")] = None,
) -> None:
    """Convert to the folder format; an interrupted conversion is continued, a finished one left alone."""
    for name in _chosen(names):
        folder = conversion.convert(name, archives, out, password=password)
        typer.echo(f"{folder}: try rose-kit evaluate {folder} --preset rns-openclip")


def _chosen(names: list[str]) -> list[str]:
    chosen = list(BENCHMARKS) if names == ["all"] else names
    for name in chosen:
        find(name)
    return chosen


def status(args: list[str]) -> int:
    """Run one command line: 0, or 2 with one line on standard error that says what was wrong."""
    return cli.status(args, app, "python -m data_scripts")


if __name__ == "__main__":
    sys.exit(status(sys.argv[1:]))
