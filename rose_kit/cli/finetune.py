"""`rose-kit finetune-encoder`: the bundled CLIP, fine-tuned with the masks of scenes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rose_kit.cli.inputs import writable_folder

EXAMPLE = (
    "Example: rose-kit finetune-encoder --out runs/tuned && rose-kit evaluate scenes --encoder runs/tuned"
)


def finetune_encoder(
    out: Annotated[Path, typer.Option(help="New folder for the encoder; its path is then its name.")],
    base: Annotated[
        Path | None, typer.Option(help="Folder of the encoder to start from [default: the bundled one].")
    ] = None,
    steps: Annotated[int, typer.Option(help="Updates of 8 scenes each.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the order of the scenes.")] = 0,
) -> None:
    """Fine-tune the vision tower of a small CLIP on 400 scenes with masks.

    It takes a few minutes on one core. The text tower stays as it is. What comes out says how far dense
    supervision goes: alone (zero-shot), and with RNS on top.
    """
    from rose_kit.bench.finetune import WEIGHTS, FineTuning, finetune

    if seed < 0:
        raise ValueError(f"seed must be a whole number from 0, got {seed}")
    writable_folder(out.parent)
    settings = FineTuning(steps=steps, seed=seed)
    finetune(out, WEIGHTS if base is None else base, settings=settings, progress=sys.stderr.isatty())
    typer.echo(f"{out}: fine-tuned for {steps} steps; use it as --encoder {out}")
