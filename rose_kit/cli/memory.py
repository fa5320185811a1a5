"""`rose-kit memory build|add|remove|info|merge|undo`: what is known, kept in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rose_kit.cli.inputs import (
    DomainOption,
    PluginOption,
    PresetOption,
    SchedulerOption,
    SizeOption,
    dataset_options,
    make_encoder,
    preset_of,
    windows_of,
    writable_folder,
)
from rose_kit.registry import load_plugin

if TYPE_CHECKING:
    from rose_kit.data import Dataset
    from rose_kit.encoder import Encoder, Windows
    from rose_kit.memory import SupportMemory
    from rose_kit.memory.indexes import Index

app = typer.Typer(help="Build, change and look at a memory of annotated images.", rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a memory.")]
Data = Annotated[
    str,
    typer.Argument(help="A folder (images/, masks/, classes.txt), or the name of a dataset."),
]
Shots = Annotated[int | None, typer.Option(help="Draw this many images per class [default: every image].")]
Seed = Annotated[int, typer.Option(help="Of the draw.")]
Uri = Annotated[
    str | None,
    typer.Option(
        help="Also keep the rows in Milvus: a path that ends in .db, or a server's address, such as "
        "http://host:19530; needs the extra 'milvus'."
    ),
]
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
    domain: DomainOption = None,
    size: SizeOption = None,
    plugin: PluginOption = None,
    scheduler: SchedulerOption = None,
    uri: Uri = None,
    collection: Annotated[str, typer.Option(help="Of Milvus; must hold no rows yet.")] = "rose_kit",
    index: Annotated[
        str, typer.Option(help="How it is searched: auto (by the number of rows), flat (exact), hnsw, ivfpq.")
    ] = "auto",
) -> None:
    """Make a memory: one prototype per image and class."""
    from rose_kit.data import open_support
    from rose_kit.memory import SupportMemory
    from rose_kit.memory.store import MANIFEST

    if plugin is not None:
        load_plugin(plugin)
    settings = preset_of(preset)
    if (out / MANIFEST).exists():
        raise ValueError(
            f"there is a memory at {str(out)!r} already: `rose-kit memory add`, or another --out"
        )
    dataset = open_support(data, dataset_options(data, domain, size), split)
    made_with = make_encoder(encoder)
    milvus = None if uri is None else empty_collection(made_with, uri, collection)
    memory = SupportMemory(made_with.dim, fingerprint=made_with.fingerprint, encoder=encoder, index=index)
    writable_folder(out)
    remember(memory, dataset, made_with, windows_of(settings, "support", made_with), shots, seed, scheduler)
    memory.forget()  # a new memory has nothing to undo
    memory.save(out)
    if milvus is not None:
        milvus.added(memory.rows)
        milvus.close()
    typer.echo(f"{out}: {describe(memory)}")


@app.command(epilog="Example: rose-kit memory add memory more_photos")
def add(
    folder: Folder,
    data: Data,
    shots: Shots = None,
    seed: Seed = 0,
    split: Split = None,
    preset: PresetOption = None,
    domain: DomainOption = None,
    size: SizeOption = None,
    plugin: PluginOption = None,
    scheduler: SchedulerOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Images that are there already: forget what was known of them.")
    ] = False,
) -> None:
    """Add annotated images; on an error, none."""
    from rose_kit.data import open_support
    from rose_kit.memory import SupportMemory

    if plugin is not None:
        load_plugin(plugin)
    settings = preset_of(preset)
    memory, encoder = load_memory(folder)
    windows = windows_of(settings, "support", encoder)
    fresh = SupportMemory(memory.dim)  # encoding takes long: others may write to the folder meanwhile
    dataset = open_support(data, dataset_options(data, domain, size), split)
    remember(fresh, dataset, encoder, windows, shots, seed, scheduler)
    with changing(folder) as memory:
        memory.extend(fresh.rows, replace=replace)


@app.command(epilog="Example: rose-kit memory remove memory --class bus")
def remove(
    folder: Folder,
    image: Annotated[str | None, typer.Option(help="Forget this image id.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Forget this class; with --image, only there.")
    ] = None,
    for_good: Annotated[
        bool, typer.Option("--for-good", help="Keep nothing that `undo` could bring back, of this or before.")
    ] = False,
) -> None:
    """Forget an image, a class, or a class in an image."""
    if image is None and class_name is None:
        raise ValueError("nothing to remove: give --image ID, --class NAME or both")
    with changing(folder) as memory:
        typer.echo(f"removed {memory.remove(image, class_name)} prototype(s)")
        if for_good:
            memory.forget()


@app.command(epilog="Example: rose-kit memory info memory")
def info(folder: Folder) -> None:
    """Show what a memory holds: its encoder, and prototypes per class."""
    from rose_kit.memory import SupportMemory

    memory = SupportMemory.load(folder)
    typer.echo(f"{folder}: {describe(memory)}")
    typer.echo(f"encoder: {memory.encoder or 'not recorded'} ({memory.fingerprint}), {memory.dim} dimensions")
    typer.echo(f"index: {memory.describe_index()}")
    width = max(map(len, memory.classes), default=0)
    for name, count in memory.summary().items():
        typer.echo(f"  {name:<{width}}  {count:>5}")
    for n, what in enumerate(reversed(memory.history), 1):
        typer.echo(f"undo {n}: {what}")


@app.command(epilog="Example: rose-kit memory merge memory --threshold 0.98")
def merge(
    folder: Folder,
    threshold: Annotated[float, typer.Option(help="Cosine from which two are near-duplicates.")] = 0.98,
    class_name: Annotated[str | None, typer.Option("--class", help="Of this class only.")] = None,
) -> None:
    """Make one prototype of near-duplicates of a class; where each came from is kept."""
    with changing(folder) as memory:
        typer.echo(f"{memory.merge(threshold, class_name)} prototype(s) fewer")


@app.command(epilog="Example: rose-kit memory undo memory --steps 2")
def undo(
    folder: Folder,
    steps: Annotated[int, typer.Option(help="How many changes; `info` lists them.")] = 1,
) -> None:
    """Take back the latest changes."""
    with changing(folder) as memory:
        for what in memory.undo(steps):
            typer.echo(f"undone: {what}")


@contextmanager
def changing(folder: Path) -> Iterator[SupportMemory]:
    """Load a memory, let it be changed, save it: one step, other writers wait; on an error, nothing."""
    from rose_kit.memory import SupportMemory
    from rose_kit.memory.files import writing

    with writing(folder) if folder.is_dir() else nullcontext():
        memory = SupportMemory.load(folder)
        yield memory
        memory.save(folder)
    typer.echo(f"{folder}: {describe(memory)}")


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
    scheduler: str | None = None,
) -> None:
    """Add the images of a dataset, or a draw of `shots` per class, to a memory.

    Raises:
        ValueError: a broken file, or an image whose classes the memory has already.
    """
    from rose_kit import evaluation
    from rose_kit.data import sample_support

    if seed < 0:
        raise ValueError(f"seed must be a whole number from 0, got {seed}")
    chosen = None if shots is None else sample_support(dataset, shots, seed)
    spread = {"scheduler": scheduler, "progress": None}  # None: a bar on terminals only
    evaluation.remember(memory, dataset, encoder, windows, positions=chosen, **spread)


def empty_collection(encoder: Encoder, uri: str, collection: str) -> Index:
    """A collection of Milvus for the features of an encoder.

    Raises:
        ValueError: it cannot be opened, or holds rows already.
    """
    from rose_kit.memory.indexes.milvus import MilvusIndex

    index = MilvusIndex(encoder.dim, uri, collection, fingerprint=encoder.fingerprint)
    if index.rows() is not None:
        raise ValueError(
            f"collection {collection!r} at {uri!r} holds rows already; name another --collection"
        )
    return index


def describe(memory: SupportMemory) -> str:
    """The size of a memory in words."""
    return f"{len(memory)} prototypes of {len(memory.classes)} classes in {len(memory.images)} images"
