"""`rose-kit train-rose`: every fusion of the trainable ROSE, trained, compared, and the article's claims."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rose_kit.cli.inputs import make_encoder, parse_seeds, split_list, writable_folder

EXAMPLE = "Example: rose-kit train-rose --out runs/rose --fusions none,similarity --seeds 6,7,8"


def train_rose(
    out: Annotated[Path, typer.Option(help="Folder for the models and the tables.")] = Path("runs/rose"),
    fusions: Annotated[
        str | None, typer.Option(help="Fusions separated by commas [default: all there are].")
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help="Compare models that are trained already: their folder, or 'bundled'; trains none."
        ),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(help="Draws of memories and query scenes, each from 2 on; two or more for an interval."),
    ] = "6,7,8,9,10",
    claims: Annotated[
        bool, typer.Option(help="Test the article's claims as well; without, the comparison alone.")
    ] = True,
    pictures: Annotated[int, typer.Option(help="Training scenes.")] = 200,
    steps: Annotated[int, typer.Option(help="Updates of 4 scenes each, for every fusion.")] = 300,
    queries: Annotated[int, typer.Option(help="Query scenes a seed.")] = 16,
    per_class: Annotated[int, typer.Option(help="Query scenes of each rare or new class, a seed.")] = 5,
    shots: Annotated[int, typer.Option(help="Pictures by which a class is added to memory.")] = 5,
    many: Annotated[int, typer.Option(help="Pictures by which a novel class is added once more.")] = 20,
    pool: Annotated[int, typer.Option(help="Scenes from which memories are drawn for the claims.")] = 120,
    seed: Annotated[int, typer.Option(help="Of initialisation, order and episodes in training.")] = 0,
) -> None:
    """Train the fusions of ROSE on drawn scenes with the bundled encoder frozen, and compare them.

    The first table tells the mIoU of the common classes trained on, and the IoU of rare, held-out and
    novel classes before and after a few pictures of them are added to memory, no weight being changed.
    "others, worst" is the largest loss of mIoU that adding a class causes the others. Then every claim
    of the article with its effect (mean over seeds, 95 % interval) and whether it holds, and what to
    store. Of an interrupted run, only the claims go on where they stopped: call it again with --heads OUT,
    so that the models stay as they are, and all else the same.
    """
    names = None if fusions is None else split_list(fusions, "fusions")
    drawn = parse_seeds(seeds)
    sizes = {"queries": queries, "per_class": per_class, "shots": shots, "many": many}
    for option, value in {**sizes, "pictures": pictures, "pool": pool}.items():
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    if seed < 0 or many <= shots:
        raise ValueError(f"seed must be 0 or more and many exceed shots, got seed {seed}, {shots}, {many}")
    from rose_kit.model import FUSIONS
    from rose_kit.model.training import Training

    names = list(FUSIONS) if names is None else names
    unknown = [name for name in names if name not in FUSIONS]
    if unknown:
        raise ValueError(f"unknown fusion {unknown[0]!r}. Known: {', '.join(FUSIONS)}")
    settings, encoder = Training(seed=seed, steps=steps), make_encoder("bundled")
    from rose_kit.bench import rose as bench

    bench.check_seeds(drawn)
    writable_folder(out)
    shown = sys.stderr.isatty()
    models = None if heads is None else bench.trained(encoder, names, heads)  # refused before any work
    lessons = bench.training_scenes(encoder, pictures, shown)
    if models is None:
        models = bench.teach(lessons, encoder, names, settings, out, shown)
    lab = bench.RoseLab(models, lessons, sizes, queries=queries, pool=pool)
    for name, digest in lab.hashes.items():
        typer.echo(f"weights of {name}: {digest}")
    bench.report(lab, drawn, out, claims, shown, typer.echo)
