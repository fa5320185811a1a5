"""`rose-kit leaderboard RUNS`: methods side by side, and their differences paired image by image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rose_kit.cli.inputs import writable_folder

if TYPE_CHECKING:
    from rose_kit.evaluation.leaderboard import Board

EXAMPLE = "Example: rose-kit leaderboard runs/fusions --baseline zero-shot --out runs/fusions"
BaselineOption = Annotated[
    str | None,
    typer.Option(
        help="The method that others are compared with [default: knn-clip, else the first by name]."
    ),
]


def leaderboard(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Folders with runs of `rose-kit sweep`, also below."),
    ],
    baseline: BaselineOption = None,
    draws: Annotated[int, typer.Option(help="Bootstrap draws of the images.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of these draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for leaderboard.md, .csv and .png [default: none].")
    ] = None,
) -> None:
    """Compare the methods of a sweep.

    mIoU is that of the whole set, the mean over seeds with its 95 % interval. Differences to the baseline
    are in points of mIoU, on images that both answered with the same support; their intervals come from
    drawing images again with replacement. What cannot be paired is left out, and said so.
    """
    missing = [str(folder) for folder in runs if not folder.is_dir()]
    if missing:
        raise ValueError(f"{missing[0]!r} is no folder; rose-kit sweep GRID.yaml makes one")
    if draws < 100 or seed < 0:
        raise ValueError(f"--draws must be at least 100 and --seed at least 0, got {draws} and {seed}")
    if out is not None:
        writable_folder(out)
    from rose_kit.evaluation.leaderboard import leaderboard as compare
    from rose_kit.evaluation.leaderboard import read_runs

    show(compare(read_runs(*runs), baseline, draws=draws, seed=seed), out)


def show(board: Board, out: Path | None) -> None:
    """Print a board, and write it as Markdown, CSV and figure."""
    from rose_kit.evaluation.leaderboard import markdown

    text = markdown(board)
    typer.echo(text)
    if out is not None:
        import matplotlib

        matplotlib.use("agg", force=False)
        from rose_kit.viz.leaderboard import leaderboard_figure
        from rose_kit.viz.plots import save

        with _beside(out / "leaderboard.md") as path:
            path.write_text(text + "\n", encoding="utf-8")
        with _beside(out / "leaderboard.csv") as path:
            board.table.to_csv(path, index=False, float_format="%.4f")
        with _beside(out / "leaderboard.png") as path:
            save(leaderboard_figure(board), path)
        typer.echo(f"\nwritten to {out}: leaderboard.md, leaderboard.csv, leaderboard.png")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` in one step, or not at all."""
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
