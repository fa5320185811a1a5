"""`rose-kit bench`: where the time goes, and whether what saves it costs accuracy."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rose_kit.cli import claims
from rose_kit.cli.inputs import make_encoder, parse_seeds, split_list, support_and_query, writable_folder

app = typer.Typer(
    help="Measure the kit itself: solvers, the pipeline, the paper's claims.", rich_markup_mode=None
)
app.command(epilog=claims.EXAMPLE)(claims.claims)

OutOption = Annotated[Path | None, typer.Option(help="CSV file for the rows.")]


@app.command(epilog="Example: OMP_NUM_THREADS=1 rose-kit bench solvers --data ../camvid --out solvers.csv")
def solvers(
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder to compare mIoU on as well, by the handcrafted encoder; may be repeated."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Draws of support images on scenes; folders: the first two.")
    ] = "1,2,3",
    limit: Annotated[int, typer.Option(help="Images to answer, of scenes and of each folder.")] = 20,
    only: Annotated[str | None, typer.Option(help="Solvers separated by commas [default: all].")] = None,
    speed: Annotated[bool, typer.Option(help="Time the solvers at both sizes of the design.")] = True,
    scenes: Annotated[bool, typer.Option(help="Compare mIoU on scenes at one and five shots.")] = True,
    out: OutOption = None,
) -> None:
    """Compare ways to train the head of RNS with its 700 steps of AdamW.

    Speed is that of one image with drawn, clustered prototypes through the real making of samples: 21
    classes and about 300 samples, 150 classes and about 3,000, both 512 wide. Times are seconds of the
    processor on one thread; run with OMP_NUM_THREADS=1. mIoU is of the same images and support for all.
    """
    drawn, names = parse_seeds(seeds), None if only is None else split_list(only, "only")
    check_out(out)
    folders = {path.name: support_and_query(str(path), None, None, "day", 128) for path in data or ()}
    from rose_kit.bench.solvers import contenders, data_rows, speed_rows

    contenders(names)  # refuses unknown names before any work
    progress = sys.stderr.isatty()
    rows = speed_rows(names, progress=progress) if speed else []
    if scenes:
        pair, encoder = support_and_query("scenes", None, None, "day", 128), make_encoder("bundled")
        for shots in (1, 5):
            rows += data_rows(f"scenes, {shots} shots", *pair, encoder, shots, drawn, limit, names, progress)
    for name, pair in folders.items():
        encoder = make_encoder("handcrafted")
        rows += data_rows(f"{name}, 5 shots", *pair, encoder, 5, drawn[:2], limit, names, progress)
    show(rows, out)


@app.command(epilog="Example: OMP_NUM_THREADS=1 rose-kit bench pipeline --out pipeline.csv")
def pipeline(
    repeats: Annotated[int, typer.Option(help="Runs of each stage; the quickest counts.")] = 5,
    out: OutOption = None,
) -> None:
    """Compare each stage after the encoder with the encoder's own time.

    ViT-B/16 with random weights on a 448 px picture, then RNS with 21 and 150 classes, per patch and per
    SLIC region. Stages are in percent of the encoder. Times are seconds of the processor on one thread;
    run with OMP_NUM_THREADS=1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    check_out(out)
    from rose_kit.bench.pipeline import pipeline_rows

    show(pipeline_rows(repeats, sys.stderr.isatty()), out)


@app.command(epilog="Example: rose-kit bench retrieval --rows 10000,100000 --out retrieval.csv")
def retrieval(
    rows: Annotated[str, typer.Option(help="Sizes separated by commas.")] = "10000,100000,1000000",
    indexes: Annotated[str, typer.Option(help="Indexes to measure beside flat.")] = "hnsw,ivfpq",
    out: OutOption = None,
) -> None:
    """Compare indexes on clustered rows of 512 dimensions: time to build and to ask, recall@4, bytes per row.

    Times are seconds of the processor on one thread. HNSW is left out beyond 200,000 rows, where
    building it takes long. A million rows need 5 GB of memory and of disk, and some five minutes.
    """
    sizes = [int(n) if n.isascii() and n.isdigit() else 0 for n in split_list(rows, "rows")]
    if min(sizes) < 1000:
        raise ValueError(f"--rows {rows!r}: expected whole numbers from 1000, separated by commas")
    names = split_list(indexes, "indexes")
    check_out(out)
    from rose_kit.bench.retrieval import retrieval_rows

    show(retrieval_rows(sizes, names), out)


@app.command(epilog="Example: OMP_NUM_THREADS=1 rose-kit bench verification --out verification.csv")
def verification(
    encoder: Annotated[str, typer.Option(help="Encoder to calibrate.")] = "bundled",
    seeds: Annotated[str, typer.Option(help="Draws of scenes and references to report on.")] = "1,2,3",
    count: Annotated[
        int, typer.Option(help="Episodes of novel and of seen classes, per seed, at most 100.")
    ] = 24,
    out: OutOption = None,
) -> None:
    """Calibrate the visual prompt enhancer on seen classes, and report on others.

    Episodes are drawn scenes with 3 to 5 reference pictures, one of them wrong; takes minutes.
    """
    drawn = parse_seeds(seeds)
    check_out(out)
    from rose_kit.bench.verification import MOST, verification_rows

    if not 1 <= count <= MOST:
        raise ValueError(f"count must be from 1 to {MOST}, got {count}")
    show(verification_rows(make_encoder(encoder), drawn, count, sys.stderr.isatty()), out)


def show(rows: Sequence[Mapping[str, Any]], out: Path | None) -> None:
    """Print rows as a table, and write them as CSV; what a row does not have stays blank."""
    import pandas as pd

    table = pd.DataFrame(rows)
    typer.echo(table.to_string(index=False, na_rep="", float_format=lambda x: f"{x:.4g}"))
    if out is not None:
        table.to_csv(out, index=False, float_format="%.5g")
        typer.echo(f"written to {out}")


def check_out(out: Path | None) -> None:
    """Refuse a file that cannot be written, before the work is done.

    Raises:
        ValueError: it is a folder, or lies in one that cannot be written to.
    """
    if out is not None:
        if out.is_dir():
            raise ValueError(f"--out {str(out)!r} is a folder; name a file")
        writable_folder(out.parent)
