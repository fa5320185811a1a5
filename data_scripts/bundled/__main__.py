"""`python -m data_scripts.bundled`: make the bundled CLIP or its vague text tower again, or your own."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rose_kit import cli
from rose_kit.cli import writable_folder

EXAMPLE = (
    "Example: python -m data_scripts.bundled {} --out my_encoder && "
    "rose-kit evaluate scenes --encoder my_encoder"
)
Work = Annotated[Path, typer.Option(help="Folder for images, features and checkpoints.")]


def train_encoder(
    out: Annotated[Path, typer.Option(help="Folder for the encoder; its path is then its name.")] = Path(
        "runs/encoder"
    ),
    work: Work = Path("runs/encoder-work"),
    steps: Annotated[int | None, typer.Option(help="Updates [default: as for the bundled weights].")] = None,
    pictures: Annotated[
        int | None,
        typer.Option(help="Scenes to draw, a multiple of 500 [default: as for the bundled weights]."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    every: Annotated[
        int, typer.Option(help="Steps between checkpoints, each with its zero-shot mIoU.")
    ] = 500,
) -> None:
    """Train the small CLIP on drawn scenes and captions.

    It takes hours on two cores, and no mask is ever seen. Stopped or killed, it goes on from its last
    checkpoint when run again with the same options. The recipe with its seed, the loss curve and
    each class's zero-shot IoU are written beside the weights.
    """
    from data_scripts.bundled import training
    from data_scripts.bundled.zero_shot import report, report_card

    recipe = training.Recipe(**chosen_settings(steps, pictures, seed, every))
    for folder in (out, work):
        writable_folder(folder).mkdir(parents=True, exist_ok=True)
    claim(work, asdict(recipe))
    encoder = training.train_encoder(out, work, recipe, report, every)
    (out / "metrics.json").write_text(json.dumps(report_card(encoder), indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{out}: trained for {recipe.steps} steps; use it as --encoder {out}")


def train_vague(
    out: Annotated[Path, typer.Option(help="Folder for the text tower; its path is then its name.")] = Path(
        "runs/vague"
    ),
    work: Work = Path("runs/encoder-work"),
    dial: Annotated[float, typer.Option(help="How vague: 0 is clear, 1 as bundled, and on to noise.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of second meanings, captions, weights and batches.")] = 0,
    images: Annotated[
        int | None, typer.Option(help="Scenes to draw [default: as for the bundled weights].")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates [default: as for the bundled weights].")] = None,
) -> None:
    """Train a text tower on vague captions, over the vision tower of the bundled CLIP, which is locked.

    It takes minutes on one core; the features of the images are computed once, and a run that was killed
    goes on with them. The recipe with its seed, the loss curve and each class's zero-shot IoU are written
    beside the weights.
    """
    from data_scripts.bundled.language import Language
    from data_scripts.bundled.text_tower import TextRecipe, train_text_tower
    from data_scripts.bundled.zero_shot import report_card

    check_from(images=(images, 1), steps=(steps, 1), seed=(seed, 0))
    named = {name: value for name, value in (("images", images), ("steps", steps)) if value is not None}
    recipe = TextRecipe(seed=seed, language=Language(dial=dial), **named)
    for folder in (out, work):
        writable_folder(folder).mkdir(parents=True, exist_ok=True)
    encoder = train_text_tower(out, work, recipe)
    hashes = {"vision": encoder.fingerprint, "text": encoder.text_fingerprint}
    (out / "metrics.json").write_text(json.dumps(report_card(encoder) | hashes, indent=1) + "\n")
    typer.echo(f"{out}: trained for {recipe.steps} steps; use it as --encoder {out}")


def chosen_settings(steps: int | None, pictures: int | None, seed: int, every: int) -> dict[str, int]:
    """The fields of `Recipe` that were named.

    Raises:
        ValueError: a number is out of range.
    """
    check_from(steps=(steps, 1), every=(every, 1), seed=(seed, 0))
    if pictures is not None and (pictures < 500 or pictures % 500):
        raise ValueError(f"pictures must be a multiple of 500, got {pictures}")
    named = {"steps": steps, "pictures": pictures, "seed": seed}
    return {name: value for name, value in named.items() if value is not None}


def check_from(**numbers: tuple[int | None, int]) -> None:
    """Raise ValueError for a number that is below its least value; None passes."""
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be a whole number from {least}, got {value}")


def claim(work: Path, recipe: dict) -> None:
    """Write the recipe into the work folder, or check that the run there has the same one.

    Raises:
        ValueError: the folder holds a run with other settings; says which.
    """
    path = work / "recipe.json"
    mine = json.loads(json.dumps(recipe))
    if not path.exists():
        path.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = [f"{name} {theirs.get(name)!r}, not {value!r}" for name, value in mine.items()
                     if theirs.get(name) != value]  # fmt: skip
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is not the recipe of a run: {error}") from None
    if differing:
        raise ValueError(f"{str(work)!r} holds a run with {'; '.join(differing)}: choose another --work")


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("clear", epilog=EXAMPLE.format("clear"))(train_encoder)
app.command("vague", epilog=EXAMPLE.format("vague"))(train_vague)

if __name__ == "__main__":
    sys.exit(cli.status(sys.argv[1:], app, "python -m data_scripts.bundled"))
