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
    from rose_kit.bench import Preset
    from rose_kit.data import Dataset
    from rose_kit.encoder import Encoder, Windows
    from rose_kit.regions import Regions

# Drawn scenes: support and query seeds lie apart, and apart from all that any training has seen.
SUPPORT_SCENES = {"count": 400, "first": 1_000_000}
QUERY_SCENES = {"count": 60, "first": 2_000_000}

PluginOption = Annotated[
    Path | None, typer.Option(help="Python file that registers further methods or encoders.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(help="Windows of rns-openclip or rns-dinov3txt [default: the encoder's own, or whole]."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        help="Spread the images over Dask: local, local:N (N processes), or a scheduler's address, such as "
        "tcp://host:8786 [default: this process]; needs the extra 'dask'."
    ),
]
DomainOption = Annotated[str, typer.Option(help="Weather of the scenes: day, night, fog or snow.")]
RegionsOption = Annotated[
    str | None,
    typer.Option(
        help="Answer regions instead of patches: slic, sam (weights are fetched once), a plugin's; with "
        "options as in slic:segments=200 or sam:checkpoint=vit_h,points_per_side=16."
    ),
]
SizeOption = Annotated[int, typer.Option(help="Side of the scenes in pixels.")]


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
    from rose_kit.bench import PRESETS, Preset

    if name is None:
        return Preset()
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}. Known: {', '.join(PRESETS)}")
    return PRESETS[name]


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
        if not dot or method not in options or method not in methods:
            raise ValueError(f"--set {text!r} is not METHOD.OPTION=VALUE; methods: {', '.join(options)}")
        declared = inspect.signature(methods[method]).parameters.items()
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
    if rest and name in region_makers:
        declared = inspect.signature(region_makers[name]).parameters.items()
        options |= parse_parameters(rest.split(","), {key: p.default for key, p in declared})
    return make_regions(name, **options)


def scenes(numbers: dict[str, int], domain: str, size: int) -> Dataset:
    """Drawn scenes as a dataset.

    Raises:
        ValueError: an unknown domain, or a size below 32.
    """
    from rose_kit.scenes import THINGS, SceneDataset, draw_scene

    draw_scene(0, 32, domain=domain)  # refuses an unknown domain, before any work is done
    if not 32 <= size <= 2048:
        raise ValueError(f"size must lie between 32 and 2048 pixels, got {size}")
    things = [thing.name for thing in THINGS]  # those too that the bundled encoder has never seen
    return SceneDataset(**numbers, size=size, domain=domain, classes=things)


def support_data(data: str, split: str | None, domain: str, size: int) -> Dataset:
    """The annotated images a memory is made of: the support scenes, or a folder.

    Args:
        data: "scenes" or a folder in the folder format.
        split: of the folder; by default support, else train, else every image.
        domain, size: of the scenes.

    Raises:
        ValueError: no such folder or split, or files that are not what they should be.
    """
    from rose_kit.data import SPLIT_PAIRS, FolderDataset

    if data == "scenes":
        _refuse_split(split)
        return scenes(SUPPORT_SCENES, domain, size)
    for name, _ in SPLIT_PAIRS:
        if split is None and (Path(data) / "splits" / f"{name}.txt").is_file():
            split = name
    return FolderDataset(data, split)


def support_and_query(
    data: str, support: str | None, query: str | None, domain: str, size: int
) -> tuple[Dataset, Dataset]:
    """Where support images are drawn from, and the images to answer.

    Args:
        data: "scenes" or a folder in the folder format.
        support, query: splits of the folder, both or neither; see `rose_kit.data.default_splits`.
        domain, size: of the scenes.

    Raises:
        ValueError: only one split is named, or as for `support_data`.
    """
    from rose_kit.data import FolderDataset, default_splits

    if data == "scenes":
        _refuse_split(support or query)
        return scenes(SUPPORT_SCENES, domain, size), scenes(QUERY_SCENES, domain, size)
    if (support is None) != (query is None):
        raise ValueError(f"name both splits or neither: got support {support!r} and query {query!r}")
    if support is None:
        return default_splits(data)
    return FolderDataset(data, support), FolderDataset(data, query)


def _refuse_split(split: str | None) -> None:
    if split is not None:
        raise ValueError(f"scenes have no split {split!r}: support and query scenes are drawn apart")


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
