"""`rose-kit train-rose`: every fusion of the trainable ROSE, trained and compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rose_kit.cli.inputs import make_encoder, split_list, writable_folder

EXAMPLE = "Example: rose-kit train-rose --out runs/rose --fusions none,similarity"


def train_rose(
    out: Annotated[Path, typer.Option(help="Folder for the models and rose.csv.")] = Path("runs/rose"),
    fusions: Annotated[
        str | None, typer.Option(help="Fusions separated by commas [default: all there are].")
    ] = None,
    pictures: Annotated[int, typer.Option(help="Training scenes.")] = 200,
    steps: Annotated[int, typer.Option(help="Updates of 4 scenes each, for every fusion.")] = 300,
    queries: Annotated[int, typer.Option(help="Query scenes of trained classes.")] = 24,
    per_class: Annotated[int, typer.Option(help="Query scenes of each rare or new class.")] = 6,
    shots: Annotated[int, typer.Option(help="Pictures by which a class is added to memory.")] = 5,
    seed: Annotated[int, typer.Option(help="Of initialisation, order and episodes.")] = 0,
) -> None:
    """Train the fusions of ROSE on drawn scenes with the bundled encoder frozen, and compare them.

    The table tells the mIoU of the classes trained on, and the IoU of rare, held-out and novel classes
    before and after a few pictures of them are added to memory, no weight being changed. "others, worst"
    is the largest loss of mIoU that adding a class causes the others.
    """
    names = None if fusions is None else split_list(fusions, "fusions")
    for option, value in (
        ("pictures", pictures),
        ("queries", queries),
        ("per_class", per_class),
        ("shots", shots),
    ):
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    if seed < 0:
        raise ValueError(f"seed must be a whole number from 0, got {seed}")
    writable_folder(out)
    import pandas as pd

    from rose_kit.bench.rose import Trial, compare, summary
    from rose_kit.model import FUSIONS
    from rose_kit.model.training import Training

    names = list(FUSIONS) if names is None else names
    unknown = [name for name in names if name not in FUSIONS]
    if unknown:
        raise ValueError(f"unknown fusion {unknown[0]!r}. Known: {', '.join(FUSIONS)}")
    settings, encoder = Training(seed=seed, steps=steps), make_encoder("bundled")
    shown = sys.stderr.isatty()
    trial = Trial(encoder, queries, per_class, shots)
    rows = compare(encoder, names, settings, pictures, out, trial, shown)
    typer.echo(pd.DataFrame(summary(rows)).to_string(index=False, float_format=lambda x: f"{x:.1f}"))
    pd.DataFrame(rows).to_csv(out / "rose.csv", index=False, float_format="%.3f")
    typer.echo(f"written to {out / 'rose.csv'}")
