"""`rose-kit memory build|add|remove|info`: what is known, kept in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm.auto import tqdm

from rose_kit.cli.inputs import (
    DomainOption,
    PluginOption,
    PresetOption,
    SizeOption,
    make_encoder,
    support_data,
    windows_of,
    writable_folder,
)
from rose_kit.registry import load_plugin

if TYPE_CHECKING:
    from rose_kit.data import Dataset
    from rose_kit.encoder import Encoder, Windows
    from rose_kit.memory import SupportMemory

app = typer.Typer(help="Build, change and look at a memory of annotated images.", rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a memory.")]
Data = Annotated[
    str,
    typer.Argument(help="A folder (images/, masks/, classes.txt), or 'scenes': 400 drawn scenes."),
]
Shots = Annotated[int | None, typer.Option(help="Draw this many images per class [default: every image].")]
Seed = Annotated[int, typer.Option(help="Of the draw.")]
Split = Annotated[
    str | None, typer.Option(help="Split of the folder [default: support, else train, else every image].")
]


@app.command(epilog="Example: rose-kit memory build photos --encoder handcrafted --shots 5 --out memory")
def build(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the memory; must not hold one yet.")],
    encoder: Annotated[
        str, typer.Option(help="bundled, handcrafted (no text), ARCHITECTURE/TAG of open_clip, or a folder.")
    ] = "bundled",
    shots: Shots = None,
    seed: Seed = 0,
    split: Split = None,
    preset: PresetOption = None,
    domain: DomainOption = "day",
    size: SizeOption = 160,
    plugin: PluginOption = None,
) -> None:
    """Make a memory: one prototype per image and class."""
    from rose_kit.memory import SupportMemory
    from rose_kit.memory.store import MANIFEST

    if plugin is not None:
        load_plugin(plugin)
    windows = windows_of(preset, "support")
    if (out / MANIFEST).exists():
        raise ValueError(
            f"there is a memory at {str(out)!r} already: `rose-kit memory add`, or another --out"
        )
    dataset = support_data(data, split, domain, size)
    made_with = make_encoder(encoder)
    memory = SupportMemory(made_with.dim, fingerprint=made_with.fingerprint, encoder=encoder)
    writable_folder(out)
    remember(memory, dataset, made_with, windows, shots, seed)
    memory.save(out)
    typer.echo(f"{out}: {describe(memory)}")


@app.command(epilog="Example: rose-kit memory add memory more_photos")
def add(
    folder: Folder,
    data: Data,
    shots: Shots = None,
    seed: Seed = 0,
    split: Split = None,
    preset: PresetOption = None,
    domain: DomainOption = "day",
    size: SizeOption = 160,
    plugin: PluginOption = None,
) -> None:
    """Add annotated images; on an error, none."""
    if plugin is not None:
        load_plugin(plugin)
    windows = windows_of(preset, "support")
    memory, encoder = load_memory(folder)
    remember(memory, support_data(data, split, domain, size), encoder, windows, shots, seed)
    memory.save(folder)
    typer.echo(f"{folder}: {describe(memory)}")


@app.command(epilog="Example: rose-kit memory remove memory --class bus")
def remove(
    folder: Folder,
    image: Annotated[str | None, typer.Option(help="Forget this image id.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Forget this class; with --image, only there.")
    ] = None,
) -> None:
    """Forget an image, a class, or a class in an image."""
    from rose_kit.memory import SupportMemory

    if image is None and class_name is None:
        raise ValueError("nothing to remove: give --image ID, --class NAME or both")
    memory = SupportMemory.load(folder)
    count = memory.remove(image, class_name)
    memory.save(folder)
    typer.echo(f"removed {count} prototype(s); {folder}: {describe(memory)}")


@app.command(epilog="Example: rose-kit memory info memory")
def info(folder: Folder) -> None:
    """Show what a memory holds: its encoder, and prototypes per class."""
    from rose_kit.memory import SupportMemory

    memory = SupportMemory.load(folder)
    typer.echo(f"{folder}: {describe(memory)}")
    typer.echo(f"encoder: {memory.encoder or 'not recorded'} ({memory.fingerprint}), {memory.dim} dimensions")
    width = max(map(len, memory.classes), default=0)
    for name, count in memory.summary().items():
        typer.echo(f"  {name:<{width}}  {count:>5}")


def load_memory(folder: Path, encoder: str | None = None) -> tuple[SupportMemory, Encoder]:
    """A memory and the encoder it was made with.

    Args:
        folder: where it is.
        encoder: a name that wins over the one the memory records.

    Raises:
        ValueError: there is no whole memory, no encoder is recorded or named, or it is another one.
    """
    from rose_kit.memory import SupportMemory

    memory = SupportMemory.load(folder)
    name = encoder or memory.encoder
    if name is None:
        raise ValueError(f"memory {str(folder)!r} does not record its encoder; name it with --encoder")
    made_with = make_encoder(name)
    memory.check_encoder(made_with)
    return memory, made_with


def remember(
    memory: SupportMemory,
    dataset: Dataset,
    encoder: Encoder,
    windows: Windows | None,
    shots: int | None,
    seed: int,
) -> None:
    """Add the images of a dataset, or a draw of `shots` per class, to a memory.

    Raises:
        ValueError: a broken file, or an image whose classes the memory has already.
    """
    from rose_kit.data import sample_support

    if seed < 0:
        raise ValueError(f"seed must be a whole number from 0, got {seed}")
    chosen = range(len(dataset)) if shots is None else sample_support(dataset, shots, seed)
    for i in tqdm(chosen, "encoding", disable=None):  # None: shown on terminals only
        sample = dataset[i]
        feature_map = encoder.encode_image(sample.image, windows)
        source = {"source": sample.source, "thumbnail": sample.image}
        memory.add(sample.image_id, feature_map, sample.mask, sample.classes, **source)


def describe(memory: SupportMemory) -> str:
    """The size of a memory in words."""
    return f"{len(memory)} prototypes of {len(memory.classes)} classes in {len(memory.images)} images"
