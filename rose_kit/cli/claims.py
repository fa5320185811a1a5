"""`rose-kit bench claims`: every claim of the RNS paper as an experiment on scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rose_kit.cli.inputs import parse_seeds, split_list, writable_folder

EXAMPLE = "Example: rose-kit bench claims --seeds 1,2,3,4,5 --out rose_kit/bench/results"


def claims(
    seeds: Annotated[
        str, typer.Option(help="One draw of support images and query scenes each; at least 2 for a verdict.")
    ] = "1,2,3,4,5",
    out: Annotated[Path, typer.Option(help="Folder for claims.csv and claims.md.")] = Path("runs/claims"),
    only: Annotated[
        str | None, typer.Option(help="Names of claims separated by commas [default: all there are].")
    ] = None,
    queries: Annotated[int, typer.Option(help="Query scenes per seed.")] = 24,
    pool: Annotated[int, typer.Option(help="Scenes that support images are drawn from.")] = 400,
    size: Annotated[int, typer.Option(help="Side of the scenes in pixels.")] = 128,
    encoder: Annotated[
        str, typer.Option(help="One that reads text: bundled, or as for evaluate.")
    ] = "bundled",
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on from an interrupted run.")] = False,
) -> None:
    """Test the claims of the Retrieve and Segment paper on drawn scenes.

    Each row of the table is a statement, the effect it predicts, the effect measured (mean over seeds,
    95 % interval), and whether the statement holds, does not hold, or is unclear. An interrupted run
    goes on where it stopped when called again with the same settings and folder.
    """
    chosen = parse_seeds(seeds)  # first: heavy imports come later
    names = None if only is None else split_list(only, "claims")
    from rose_kit.bench import claims as bench

    rows = bench.choose(bench.ROWS, names)
    lab = bench.Lab(encoder, size=size, pool=pool, queries=queries)
    store = writable_folder(out) / "claims.partial.csv"
    if fresh:
        store.unlink(missing_ok=True)
    elif store.exists():
        typer.echo(f"going on from {store}")
    table = bench.measure(rows, chosen, lab, store, progress=True)
    typer.echo(f"{'measured':>16}  {'expected':>8}  {'verdict':<13}  claim: statement")
    for line in table.itertuples():
        measured = f"{line.effect:+.2f} ± {line.half_width:.2f}"
        typer.echo(f"{measured:>16}  {line.expected:>8}  {line.verdict:<13}  {line.claim}: {line.statement}")
    for path in bench.write(table, out):
        typer.echo(f"written to {path}")
