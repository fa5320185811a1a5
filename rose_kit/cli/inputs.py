"""What several commands read: data, lists, encoders, plugins; an error says what would have been right."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rose_kit.encoder import Encoder, Windows
    from rose_kit.evaluation import Preset
    from rose_kit.regions import Regions

PluginOption = Annotated[
    Path | None, typer.Option(help="Python file that registers further methods or encoders.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(help="Windows of a preset, such as rns-openclip [default: the encoder's own, or whole]."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        help="Spread the images over Dask: local, local:N (N processes), or a scheduler's address, such as "
        "tcp://host:8786 [default: this process]; needs the extra 'dask'."
    ),
]
DomainOption = Annotated[
    str | None, typer.Option(help="Domain of a dataset that has several [default: its own].")
]
RegionsOption = Annotated[
    str | None,
    typer.Option(
        help="Answer regions instead of patches: slic, sam (weights are fetched once), a plugin's; with "
        "options as in slic:segments=200 or sam:checkpoint=vit_h,points_per_side=16."
    ),
]
SizeOption = Annotated[int | None, typer.Option(help="Side in pixels of images that a dataset draws.")]


def split_list(text: str, what: str) -> list[str]:
    """Names between commas.

    Raises:
        ValueError: one is empty, or occurs twice.

    >>> split_list("rns, knn-clip", "methods")
    ['rns', 'knn-clip']
    """
    names = [part.strip() for part in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{what} must be different names separated by commas, got {text!r}")
    return names


def parse_seeds(text: str) -> list[int]:
    """Seeds between commas.

    Raises:
        ValueError: one is no whole number from 0 to 2**63 - 1, or occurs twice.

    >>> parse_seeds("1,2,3")
    [1, 2, 3]
    """
    for seed in split_list(text, "seeds"):
        if not (seed.isascii() and seed.isdigit() and int(seed) < 2**63):
            raise ValueError(f"seed {seed!r} is not a whole number from 0; seeds read like 1,2,3")
    return [int(seed) for seed in split_list(text, "seeds")]


def parse_day(text: str, option: str) -> date:
    """A day such as 2026-03-01, given for `option`.

    Raises:
        ValueError: it is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a day such as 2026-03-01, got {text!r}") from None


def make_encoder(name: str) -> Encoder:
    """`load_encoder`, imported late.

    Raises:
        ValueError: there is no such encoder; lists those there are.
    """
    from rose_kit.encoder import load_encoder

    return load_encoder(name)


def windows_of(settings: Preset, role: str, encoder: Encoder) -> Windows:
    """How images are scaled and cut: as a preset says, else as the encoder prefers, else whole.

    Args:
        settings: from `preset_of`.
        role: "support" or "query".
        encoder: what encodes them.
    """
    from rose_kit.encoder import Windows

    return getattr(settings, f"{role}_windows") or getattr(encoder, "preferred_windows", None) or Windows()


def preset_of(name: str | None) -> Preset:
    """Settings by name; None gives those without a preset.

    Raises:
        ValueError: there is no such preset; lists those there are.
    """
    from rose_kit.evaluation import Preset, read_preset

    return Preset() if name is None else read_preset(name)


def method_options(
    texts: Sequence[str], names: Sequence[str], preset: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Options of methods: those of a preset, overridden by what the user set.

    Args:
        texts: METHOD.OPTION=VALUE each.
        names: of the methods that will run.
        preset: method -> options.

    Raises:
        ValueError: the method is not among `names`, has no such option, or the value is of another
            type; lists the valid ones.
    """
    from rose_kit.adapter import methods
    from rose_kit.cli.run import parse_parameters

    options = {name: dict(preset.get(name, {})) for name in names}
    for text in texts:
        method, dot, assignment = text.partition(".")
        if not dot or method not in options or method not in methods.names():
            raise ValueError(f"--set {text!r} is not METHOD.OPTION=VALUE; methods: {', '.join(options)}")
        declared = inspect.signature(methods.find(method)).parameters.items()
        options[method] |= parse_parameters([assignment], {name: p.default for name, p in declared})
    return options


def regions_of(text: str | None, settings: Preset) -> Regions | None:
    """What `--regions` asks for; None where it is not given.

    Args:
        text: NAME or NAME:OPTION=VALUE,OPTION=VALUE.
        settings: of a preset, whose options for that name hold unless given.

    Raises:
        ValueError: there are no such regions or options, or a value is of another type.
    """
    from rose_kit.cli.run import parse_parameters
    from rose_kit.regions import make_regions
    from rose_kit.registry import region_makers

    if text is None:
        return None
    name, _, rest = text.partition(":")
    options = dict(settings.regions.get(name, {}))
    if rest and name in region_makers.names():
        declared = inspect.signature(region_makers.find(name)).parameters.items()
        options |= parse_parameters(rest.split(","), {key: p.default for key, p in declared})
    return make_regions(name, **options)


def dataset_options(data: str, domain: str | None, size: int | None, preset_size: int | None = None) -> dict:
    """Options of a dataset by name; a preset's size is for those only that have a size.

    Args:
        data: the name of a registered dataset, or a folder.
        domain, size: as given; None: not given.
        preset_size: that of a preset.
    """
    from rose_kit.registry import datasets

    if data in datasets.names() and size is None:
        size = preset_size
    return {key: value for key, value in (("domain", domain), ("size", size)) if value is not None}


def writable_folder(path: Path) -> Path:
    """Make a folder and try to write in it, before hours of work depend on it.

    Raises:
        ValueError: it is a file, or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise ValueError(f"cannot write to folder {str(path)!r}: {error.strerror or error}") from error
