"""The command line, `rose-kit COMMAND`; every error becomes an exit status here.

A command raises ValueError or OSError for a user's mistake, and `typer.Exit(1)` for work that failed. What
brings in torch is imported when a command runs, so that `rose-kit --help` stays quick.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

import rose_kit as kit
from rose_kit.data import (
    Dataset,
    FolderDataset,
    atomic_write,
    classes_text,
    default_encoder,
    naming,
    open_dataset,
    open_support,
    read_image,
    sample_support,
    warn_absent,
)
from rose_kit.registry import (
    Registry,
    call_with,
    errors_as,
    language_models,
    load_plugin,
    methods,
    providers,
    region_makers,
    segmenters,
    versions,
)
from rose_kit.types import IGNORE, class_name, composed, join_names, split_names, unknown_name
from rose_kit.web.types import Provider

if TYPE_CHECKING:
    from rose_kit.segmenter import EncodedImage
    from rose_kit.web.framework import FrameworkResult
    from rose_kit.web.vpe import Thresholds

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"  # of a clone
RECORD = ".rose_kit"  # beside results: what was written
PLAIN = {"rich_markup_mode": None, "pretty_exceptions_enable": False}  # "[default: ...]" is no markup
app = typer.Typer(help="Segmentation that looks things up before it decides.", **PLAIN)
memory_app = typer.Typer(help="Build, change and look at a memory of annotated images.", **PLAIN)
app.add_typer(memory_app, name="memory")

# --- what users write -------------------------------------------------------------------------------------


def name_list(text: str) -> list[str]:
    """Names between commas; one that has a comma stands in quotes.

    >>> name_list('rns, "red, dark"')
    ['rns', 'red, dark']
    """
    with errors_as(typer.BadParameter, "expected names between commas"):
        names = split_names(text)
    if not all(names) or len(set(names)) < len(names):
        raise typer.BadParameter(f"expected different names between commas, got {text!r}")
    return names


def whole_numbers(text: str) -> list[int]:
    """Whole numbers between commas."""
    numbers = [part.strip() for part in text.split(",")]
    if wrong := [number for number in numbers if not (number.isascii() and number.isdigit())]:
        raise typer.BadParameter(f"{wrong[0]!r} is not a whole number from 0")
    return list(map(int, numbers))


def parse_options(texts: Iterable[str], defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """`name=value` texts -> values of the types of their defaults.

    Args:
        texts: what the user wrote; `1,2,3` is a list where the default is one.
        defaults: name -> default; None takes any literal.
        what: the options belong to, in messages.

    Raises:
        ValueError: a name is unknown (lists the known ones), or a value has another type than its default.

    >>> parse_options(["k=8", "seeds=1,2", "methods=rns"], {"k": 4, "seeds": [7], "methods": ["x"]}, "lesson")
    {'k': 8, 'seeds': [1, 2], 'methods': ['rns']}
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not NAME=VALUE; {what} has: {', '.join(defaults)}")
        if name not in defaults:
            raise unknown_name(f"option of {what}:", name, defaults)
        options[name] = parse_value(name, value, defaults[name])
    return options


def parse_value(name: str, text: str, default: Any) -> Any:
    """The text of an option -> a value of the type of its default; None takes any literal.

    Raises:
        ValueError: the text is of another type.
    """
    if isinstance(default, str):
        return text
    if isinstance(default, list | tuple):
        inner = re.fullmatch(r"\s*(?:\[(.*)\]|\((.*)\))\s*", text)
        parts = filter(None, split_names((inner[1] or inner[2] or "") if inner else text))
        return type(default)(parse_value(name, part, default[0] if default else None) for part in parts)
    try:
        value = ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"{name}: {text!r} is not of type {type(default).__name__}, like {default!r}")
    return value


def configured(factory: Callable, texts: Iterable[str], what: str) -> Any:
    """What a class or function makes of `name=value` texts; errors as of `parse_options`."""
    parameters = inspect.signature(factory).parameters.items()
    defaults = {name: None if p.default is p.empty else p.default for name, p in parameters}
    return call_with(factory, parse_options(texts, defaults, what), what)


def make_methods(names: Names, texts: Sequence[str], preset: Sequence[str]) -> dict[str, kit.Method]:
    """The methods to compare, by their names.

    Args:
        names: of the methods; None: all but upper bounds.
        texts: METHOD.OPTION=VALUE, as `--set` takes them.
        preset: the same from presets; those of methods that are not compared are passed over.

    Raises:
        ValueError: a method or an option is unknown, or a value has the wrong type.
    """
    import rose_kit.model  # noqa: F401 (it registers every method)

    names = names or sorted(n for n in methods if not getattr(methods[n], "upper_bound", False))
    options: dict[str, list[str]] = {name: [] for name in names}
    for text in [*preset, *texts]:
        name, _, assignment = text.partition(".")
        if name in options:
            options[name].append(assignment)
        elif text in texts or name not in methods:
            raise unknown_name("method in --set METHOD.OPTION=VALUE:", name, names)
    return {name: configured(methods[name], given, name) for name, given in options.items()}


def make_named(registry: Registry, text: str, **given: Any) -> Any:
    """What NAME:OPTION=VALUE,... asks a registry for; it also gets those of `given` that it takes."""
    name, _, options = text.partition(":")
    taken = inspect.signature(factory := registry[name]).parameters
    factory = partial(factory, **{key: value for key, value in given.items() if key in taken})
    return configured(factory, options.split(",") if options else (), name)


def make_regions(text: str | None) -> kit.Regions | None:
    """What `--regions` asks for; None if not given."""
    import rose_kit.regions  # noqa: F401 (it registers every kind)

    return None if text is None else make_named(region_makers, text)


def make_windows(texts: Sequence[str] | None, encoder: kit.Encoder) -> kit.Windows:
    """How images are scaled and cut: as a preset says, else as the encoder prefers, else by default."""
    from rose_kit.encoder import preferred_windows

    if texts:
        return configured(kit.Windows, texts, "windows")
    return preferred_windows(encoder) or kit.Windows()


def read_preset(ctx: typer.Context, names: Sequence[str] | None) -> list[str]:
    """Make what presets say the defaults of a command: the callback of its option `--preset`.

    A preset is a YAML file whose keys are options of the command; a list is what stands between commas on
    the command line, or what is repeated there.

    Args:
        ctx: of the command, which gets other defaults.
        names: of the presets beside the experiments, or paths of YAML files; of two, the later one wins.

    Returns:
        The texts of `set`, to which the command line adds its own.

    Raises:
        ValueError: there is no such preset, or it names an option that the command lacks.
    """
    folder, defaults = NOTEBOOKS / "experiments" / "presets", {}
    options = {p.opts[0].removeprefix("--"): p for p in ctx.command.params if p.opts[0].startswith("--")}
    for name in names or ():
        path = Path(name) if Path(name).suffix == ".yaml" else folder / f"{name}.yaml"
        if not path.is_file():
            raise unknown_name("preset", name, sorted(p.stem for p in folder.glob("*.yaml")))
        content = read_yaml(path)
        if not isinstance(content, Mapping):
            raise ValueError(f"preset {str(path)!r} must have keys such as methods, got {content!r}")
        for key, value in content.items():
            if key not in options:
                raise unknown_name(f"option in {path}:", key, options)
            texts = [str(part) for part in (value if isinstance(value, list) else [value])]
            line = join_names(texts) if isinstance(value, list) else texts[0]
            defaults[options[key].name] = texts if options[key].multiple else line
    settings = defaults.pop("options", [])
    ctx.default_map = defaults
    return settings


def read_yaml(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        DataError: (a ValueError) it is not YAML, or gives a key twice.
    """
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    class Loader(NoDatesSafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value]
            if repeated := {str(key) for key in keys if keys.count(key) > 1}:
                raise ValueError(f"{', '.join(sorted(repeated))} given more than once")
            return super().construct_mapping(node, deep)

    with errors_as(kit.DataError, f"{str(path)!r} is not YAML that can be used"):
        return yaml.load(path.read_bytes(), Loader)


# --- where results go -------------------------------------------------------------------------------------


def writable_folder(path: Path) -> Path:
    """Try to write in a folder, or where it will be made, before hours of work depend on it."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"room?")
    except OSError as error:  # which names the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from None
    return path


def check_outputs(paths: Iterable[Path | None], inputs: Iterable[Path] = ()) -> None:
    """Refuse what cannot be written, and what must not be, before the work is done.

    Args:
        paths: files that a command will write; None: an option that was not given.
        inputs: files that no output may replace, whoever wrote them.

    Raises:
        ValueError: a path is a folder or in one that cannot be written to, an input, another one of the
            paths, or a file that is there and not as a command wrote it (see `record`).
    """
    taken = {path.resolve() for path in inputs}
    for path in filter(None, paths):
        if path.is_dir():
            raise ValueError(f"{str(path)!r} is a folder; name a file")
        if path.resolve() in taken or (path.is_file() and not is_recorded(path)):
            raise ValueError(f"{str(path)!r} is there already and would be overwritten; choose another place")
        taken.add(path.resolve())
        if path.is_file() or not path.exists():  # no device, such as /dev/stdout
            writable_folder(path.parent)


@contextmanager
def new_result(path: str | Path) -> Iterator[Path]:
    """Where to write a result that is recorded, and then becomes `path` in one step."""
    with atomic_write(path) as beside:
        yield beside
        record(beside, Path(path))


def record(path: Path, place: Path | None = None) -> None:
    """Note the checksum of a result in the file .rose_kit beside it, or beside the place that it will have.

    While it stays as it is, a command may write it anew; a file that a user wrote or changed is the user's.
    """
    place = place or path
    notes = place.parent / RECORD
    if path.is_file() and not is_recorded(path, place):
        with naming(notes), notes.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(_checksum(path, place))


def is_recorded(path: Path, place: Path | None = None) -> bool:
    """Whether a file is there, and is as a command wrote it; arguments as for `record`."""
    notes = (place or path).parent / RECORD
    there = path.is_file() and notes.is_file()
    return there and _checksum(path, place or path) in notes.read_text("utf-8", "surrogateescape")


def _checksum(path: Path, place: Path) -> str:
    """A line as the program sha256sum prints it."""
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {place.name}\n"


# --- arguments and options that several commands share ----------------------------------------------------


def option(help: str, *names: str, **more: Any) -> Any:
    """An option with its help first."""
    return typer.Option(*names, help=help, **more)


def argument(help: str, **more: Any) -> Any:
    """A positional argument with its help first."""
    return typer.Argument(help=help, **more)


NAMES = {"parser": name_list, "metavar": "A,B,..."}
NUMBERS = {"parser": whole_numbers, "metavar": "N,N,..."}
FILE = {"exists": True, "dir_okay": False, "metavar": "FILE"}
FOLDER = {"exists": True, "file_okay": False, "metavar": "DIR"}
PLUGIN = {"parser": load_plugin, "metavar": "FILE"}  # loaded before the command runs
PRESET = {"callback": read_preset, "is_eager": True} | NAMES
Data = Annotated[str, argument("Folder (images/, masks/, classes.txt), or dataset by name, such as scenes.")]
Folder = Annotated[Path, argument("Folder of a memory.", **FOLDER)]
EncoderName = Annotated[
    str | None,
    option(
        "[default: photos; for scenes bundled (/clear, /vague)], handcrafted, ARCHITECTURE/TAG, a folder."
    ),
]
Names = Sequence[str] | None
Classes = Annotated[
    Names, option("[default: all]; 'road|street' has two texts, '\"red, dark\"' a comma.", **NAMES)
]
RegionOptions = Annotated[str | None, option("Regions, not patches: slic, sam2, slic:segments=200,...")]
Device = Annotated[str, option("auto (a GPU, where there is one), cpu, cuda, cuda:1, mps.")]
Plugin = Annotated[Mapping | None, option("Python file with methods or encoders.", **PLUGIN)]
Shots = Annotated[int | None, option("Draw so many images per class [default: every image].")]
Seed = Annotated[int, option("Of the draw.", min=0)]
Split = Annotated[str | None, option("Split of the folder [default: support, train or every image].")]
WindowOptions = Annotated[list[str] | None, option("NAME=VALUE of Windows, such as short_side=448.")]


# --- evaluate ---------------------------------------------------------------------------------------------


@app.command()
def evaluate(
    ctx: typer.Context,
    data: Data,
    methods: Annotated[Names, option("Names of methods [default: all but upper bounds].", **NAMES)] = None,
    preset: Annotated[Names, option("rns, rns-openclip, ..., or YAML files.", **PRESET)] = None,
    encoder: EncoderName = None,
    dense: Annotated[str | None, option("Dense variant: maskclip, plain, sclip, clearclip, naclip.")] = None,
    shots: Annotated[Sequence[int], option("Support images per class.", **NUMBERS)] = "5",
    seeds: Annotated[Sequence[int], option("One draw of support images each.", **NUMBERS)] = "1,2,3",
    options: Annotated[list[str] | None, option("METHOD.OPTION=VALUE; may be repeated.", "--set")] = None,
    support: Annotated[str | None, option("Draw support images from this dataset.", metavar="DIR")] = None,
    support_split: Annotated[str | None, option("[default: support, train, or half the images]")] = None,
    query_split: Annotated[str | None, option("[default: query, val, test, or the other half]")] = None,
    limit: Annotated[int | None, option("Answer only so many images, evenly spread.")] = None,
    classes: Classes = None,
    without_visual: Annotated[float, option("Share of the classes without visual support, 0 to 1.")] = 0.0,
    without_text: Annotated[float, option("Share of the classes without text, 0 to 1.")] = 0.0,
    regions: RegionOptions = None,
    domain: Annotated[str | None, option("Domain of a dataset that has several.")] = None,
    size: Annotated[int | None, option("Side in pixels of images that a dataset draws.")] = None,
    query_seed: Annotated[int | None, option("Other query images, of a dataset that draws them.")] = None,
    support_windows: WindowOptions = None,
    query_windows: WindowOptions = None,
    device: Device = "auto",
    plugin: Plugin = None,
    output: Annotated[Path | None, option("File for the rows, and what they depend on.", "--json")] = None,
) -> None:
    """Compare methods by their mIoU on the same images.

    Prints the mean in percent and its 95 % interval over seeds. Every method sees the same support
    images and answers the same query images at their own size; the two never share an image. Methods
    that need text are left out, with a warning, where the encoder has none, as photos, the default for
    folders. With --support, classes of the two datasets match by name. A preset gives other defaults
    to these options; --set adds to what it sets. Beside NAME.json, the rows are in NAME.csv, too.

    Example: rose-kit evaluate photos --methods zero-shot,rns --shots 1,5 --json out.json
    """
    import pandas as pd

    from rose_kit import evaluation

    chosen, region_maker = make_methods(methods, options or (), preset or ()), make_regions(regions)
    table = output.with_suffix(".csv") if output is not None and output.suffix == ".json" else None
    check_outputs([output, table])
    asked = {"domain": domain, "size": size, "query_seed": query_seed, "support_from": support}
    asked |= {"support": support_split, "query": query_split}
    pair = open_dataset(data, **{name: value for name, value in asked.items() if value is not None})
    variant = {} if dense is None else {"dense": dense}
    loaded = kit.load_encoder(choose_encoder(encoder, data), device, **variant)
    protocol = {"shots": shots, "seeds": seeds, "limit": limit, "classes": classes, "regions": region_maker}
    protocol["missing"] = evaluation.MissingSupport(without_visual, without_text)
    protocol["support_windows"] = make_windows(support_windows, loaded)
    protocol["query_windows"] = make_windows(query_windows, loaded)
    rows = evaluation.evaluate(*pair, loaded, chosen, **protocol, progress=sys.stderr.isatty())
    typer.echo(evaluation.table(rows))
    if len(seeds) < evaluation.FEW_SEEDS:
        warnings.warn(f"{len(seeds)} seed(s) are few: an interval over them says little", stacklevel=2)
    best = pd.DataFrame([row["per_class_iou"] for row in rows]).astype(float).max()
    if lost := ", ".join(best.index[best < 1]):
        warnings.warn(f"classes that no method knows, with an IoU below 1 %: {lost}", stacklevel=2)
    if output is not None:
        text = getattr(loaded, "text_fingerprint", None)  # two text towers may share a vision tower
        about = {"rose_kit": kit.__version__, "encoder": loaded.fingerprint, "text": text}
        about["versions"] = versions()
        about["options"] = {name: str(v) if isinstance(v, Path) else v for name, v in ctx.params.items()}
        names = ("support", "query")  # of drawn scenes, an id holds the seed
        about |= {name: [one.ids[0], one.ids[-1], len(one)] for name, one in zip(names, pair, strict=True)}
        with new_result(output) as beside:
            evaluation.write_json(beside, rows, **about)
        if table is not None:
            with new_result(table) as beside:
                evaluation.flat_table(rows).to_csv(beside, index=False)
        typer.echo(f"written to {output}")


def choose_encoder(name: str | None, data: str) -> str:
    """The encoder that the user names, else the dataset's; says so where that knows no class names."""
    if name is None and (name := default_encoder(data)) == "photos":
        other = "ARCHITECTURE/TAG of open_clip knows them"
        warnings.warn(f"no --encoder: 'photos' sees images and knows no class names ({other})", stacklevel=2)
    return name


# --- memory -----------------------------------------------------------------------------------------------


@memory_app.command()
def build(
    data: Data,
    out: Annotated[Path, option("New or empty folder for the memory.", metavar="DIR")],
    encoder: EncoderName = None,
    shots: Shots = None,
    seed: Seed = 0,
    split: Split = None,
    device: Device = "auto",
    plugin: Plugin = None,
) -> None:
    """Make a memory: one prototype per image and class. By default its encoder has no text.

    Example: rose-kit memory build photos --shots 5 --out memory
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{str(out)!r} is not empty; name a new folder, or use `rose-kit memory add`")
    images, encoder = open_support(data, split=split), choose_encoder(encoder, data)
    loaded = kit.load_encoder(encoder, device)
    writable_folder(out)
    memory = kit.SupportMemory(loaded.dim, fingerprint=loaded.fingerprint, encoder=encoder, index="auto")
    fill(memory, loaded, images, shots, seed)
    memory.save(out)
    typer.echo(f"{out}: {memory!r}")


@memory_app.command()
def add(
    folder: Folder,
    data: Data,
    shots: Shots = None,
    seed: Seed = 0,
    split: Split = None,
    device: Device = "auto",
    plugin: Plugin = None,
) -> None:
    """Add annotated images; on an error, none. Others who write to the folder wait meanwhile.

    Example: rose-kit memory add memory more_photos
    """
    from rose_kit.memory.storage import writing

    with writing(folder):
        memory, encoder = load_memory(folder, device)
        fill(memory, encoder, open_support(data, split=split), shots, seed)
        memory.save(folder)
    typer.echo(f"{folder}: {memory!r}")


@memory_app.command()
def remove(
    folder: Folder,
    image: Annotated[str | None, option("Remove this image id.", parser=composed, metavar="ID")] = None,
    class_name: Annotated[str | None, option("Remove this class; with --image, there.", "--class")] = None,
) -> None:
    """Remove an image, a class, or a class in an image.

    Example: rose-kit memory remove memory --class bus
    """
    from rose_kit.memory.storage import writing

    with writing(folder):
        memory = kit.SupportMemory.load(folder)
        removed = memory.remove(image, class_name)
        memory.save(folder)
    typer.echo(f"removed {removed} prototype(s)\n{folder}: {memory!r}")


@memory_app.command()
def info(folder: Folder) -> None:
    """Show what a memory holds: its encoder, and prototypes per class."""
    memory = kit.SupportMemory.load(folder)
    typer.echo(f"{folder}: {memory!r}")
    typer.echo(f"encoder: {memory.encoder or 'not recorded'}\nindex: {memory.describe_index()}")
    width = max(map(len, memory.classes), default=0)
    for name, count in memory.summary().items():
        typer.echo(f"  {name:<{width}}  {count:>6}")


def fill(
    memory: kit.SupportMemory, encoder: kit.Encoder, images: Dataset, shots: int | None, seed: int
) -> None:
    """Add annotated images to a memory: a draw of `shots` per class; None: all."""
    from rose_kit.evaluation import add_dataset

    drawn = range(len(images)) if shots is None else sample_support(images, shots, seed)
    if shots is None and isinstance(images, FolderDataset):
        warn_absent(images, images.class_names, drawn, "to add")
    add_dataset(memory, images, encoder, make_windows((), encoder), positions=drawn, progress=None)


def load_memory(folder: Path, device: str) -> tuple[kit.SupportMemory, kit.Encoder]:
    """A memory and the encoder of the name it records, whose fingerprint may have changed since.

    Raises:
        ValueError: there is no whole memory, or it records no encoder.
    """
    memory = kit.SupportMemory.load(folder)
    if memory.encoder is None:
        raise ValueError(f"memory {str(folder)!r} does not record its encoder: SupportMemory(encoder=NAME)")
    return memory, kit.load_encoder(memory.encoder, device)


# --- segment ----------------------------------------------------------------------------------------------

RESULTS = (".png", ".overlay.png", ".evidence.json")  # of an image


@app.command()
def segment(
    images: Annotated[list[Path], argument("Images to segment, of any format that Pillow reads.", **FILE)],
    memory: Annotated[Path, option("Folder made by `rose-kit memory build`.", **FOLDER)],
    out: Annotated[Path, option("Folder for the results.", metavar="DIR")],
    classes: Classes = None,
    method: Annotated[str, option("zero-shot, knn-clip, freeda, rns, rose, or a plugin's.")] = "rns",
    regions: RegionOptions = None,
    coco: Annotated[Path | None, option("Also write all masks as COCO JSON to this file.")] = None,
    instances: Annotated[bool, option("In COCO, one for each connected part.", "--instances")] = False,
    effects: Annotated[bool, option("Also compute what would change without each prototype.")] = False,
    device: Device = "auto",
    plugin: Plugin = None,
) -> None:
    """Segment images with what a memory knows.

    For each image: NAME.png holds class ids (an indexed PNG; classes.txt says which id is which),
    NAME.overlay.png shows them over the image, and NAME.evidence.json lists for each class the
    support images and prototypes that speak for it, by weight, with --effects also how the score
    would change without each. The category ids of COCO are the class ids + 1; its scores are mean
    probabilities. A file that is there already is written anew only if it still is what this command
    wrote.

    Example: rose-kit segment street.jpg --memory memory --out segmented --classes road,bus,sky
    """
    from rose_kit.segmenter import pixel_probability

    [answerer], region_maker = make_methods([method], (), ()).values(), make_regions(regions)
    if getattr(answerer, "needs_support", False):
        raise ValueError(f"method {method!r} is trained on annotated images, which a memory does not hold")
    if instances and coco is None:
        raise ValueError("--instances says how to write COCO: give --coco FILE as well")
    support, encoder = load_memory(memory, device)
    if not len(support):
        raise ValueError(f"memory {str(memory)!r} is empty: `rose-kit memory add` fills it")
    vocabulary = choose_vocabulary(classes, support, encoder)
    for path in images:
        read_image(path)  # so that a broken one is reported before anything is written
    listing = class_list(out, vocabulary.names)
    results = [out / f"{path.stem}{kind}" for path in images for kind in RESULTS]
    if len(set(results)) < len(results):
        raise ValueError(f"two of the images have the same name: {', '.join(map(str, images))}")
    check_outputs([*results, coco], [*images, out / "classes.txt"])
    segmenter = kit.Segmenter(encoder, support, answerer, region_maker, make_windows((), encoder))
    answers = segment_images(images, segmenter, vocabulary, out, listing, effects)
    if coco is None:
        list(answers)
    else:
        masks = ((name, own.labels, pixel_probability(own, encoded)) for name, own, encoded in answers)
        with new_result(coco) as beside:
            kit.write_coco(beside, masks, dict(enumerate(vocabulary.names)), components=instances)
    typer.echo(f"{len(images)} image(s) segmented into {len(vocabulary)} classes, in {out}")


def choose_vocabulary(classes: Names, memory: kit.SupportMemory, encoder: kit.Encoder) -> kit.Vocabulary:
    """The classes that the user names, else those of a memory; warns of those that it does not hold.

    Raises:
        ValueError: the memory does not hold a class, and the encoder cannot read its name.
    """
    from rose_kit.segmenter import name_vocabulary

    vocabulary = name_vocabulary(classes or list(map(class_name, memory.classes)), encoder)
    unknown = [name for name in vocabulary.names if name not in memory.classes]
    if unknown and vocabulary.text is None:
        raise unknown_name("class (the encoder has no text)", unknown[0], memory.classes)
    if unknown:
        alone = f"the memory does not hold, so their names alone speak for: {', '.join(unknown)}"
        warnings.warn(alone, stacklevel=2)
    return vocabulary


def segment_images(
    images: Iterable[Path],
    segmenter: kit.Segmenter,
    vocabulary: kit.Vocabulary,
    out: Path,
    listing: str,
    effects: bool,
) -> Iterator[tuple[str, kit.Segmentation, EncodedImage]]:
    """Segment image after image, and write the results; yields each file name, answer and encoded image."""
    from tqdm.auto import tqdm

    for path in tqdm(images, "segmenting", disable=None):  # None: shown on terminals only
        encoded = segmenter.encode(path)
        answer = segmenter.segment(encoded, vocabulary)
        write_answer(out / path.stem, path, answer, segmenter.memory, effects)
        with atomic_write(out / "classes.txt") as beside:  # a method that refuses writes nothing
            beside.write_text(listing, encoding="utf-8")
        yield path.name, answer, encoded


def class_list(out: Path, names: Sequence[str]) -> str:
    """The lines `id,name` of classes.txt.

    Raises:
        ValueError: there are more than 255 classes, or the folder has others: ids would change their meaning.
    """
    if len(names) > 255:
        raise ValueError(f"{len(names)} classes do not fit a PNG of ids; name at most 255 with --classes")
    path, text = out / "classes.txt", classes_text(dict(enumerate(names)))
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        raise ValueError(f"{str(path)!r} lists other classes than {', '.join(names)}; choose another --out")
    return text


def write_answer(
    stem: Path, source: Path, answer: kit.Segmentation, memory: kit.SupportMemory, effects: bool
) -> None:
    """Write labels, overlay and evidence of one image to files that begin with `stem`."""
    from rose_kit.viz.export import evidence_by_class

    content = {"image": str(source), "classes": evidence_by_class(answer, memory, effects=effects)}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with new_result(f"{stem}.png") as beside:
        answer.save(beside)
    with new_result(f"{stem}.overlay.png") as beside:
        Image.fromarray(answer.overlay()).save(beside)
    with new_result(f"{stem}.evidence.json") as beside:
        beside.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


# --- ask --------------------------------------------------------------------------------------------------


@app.command()
def ask(
    image: Annotated[str, argument("An image, or 'example': one that the provider draws of what you ask.")],
    question: Annotated[str, argument('As you would say it: "Segment the reigning champion."')],
    day: Annotated[datetime | None, option("[default: today]", "--date", formats=["%Y-%m-%d"])] = None,
    provider: Annotated[str, option("mini, wikimedia, duckduckgo, or a folder of pages, images.")] = "mini",
    out: Annotated[Path, option("PNG for the mask; an overlay is written beside it.")] = Path("mask.png"),
    encoder: Annotated[str, option("Compares images; a name as for evaluate.")] = "bundled/clear",
    segmenter: Annotated[str, option("zero-shot, or a plugin's NAME:OPTION=VALUE,...")] = "zero-shot",
    known: Annotated[
        Names, option("What the segmenter understands [default: the provider's].", **NAMES)
    ] = None,
    thresholds: Annotated[
        Path | None, option("JSON file for this encoder [default: the provider's].")
    ] = None,
    calibrate: Annotated[
        str | None, option("Annotated images (as evaluate's DATA) to make them from.")
    ] = None,
    llm: Annotated[str | None, option("A plugin's, or a model at OPENAI_BASE_URL [default: rules].")] = None,
    plugin: Annotated[Mapping | None, option("Python file with any of these.", **PLUGIN)] = None,
    device: Device = "auto",
) -> None:
    """Segment what a question means on a day.

    Prints how the answer came about, step by step: whether it was looked up and why, the answer, what the
    segmenter was asked, whether the mask looks like images of the answer, and the sources with date and
    licence. The provider "mini" is a miniature web of the first half of 2026. It, folders, and questions that
    need no look-up work without the network. It brings known names, and thresholds for the bundled encoders.
    Another provider needs --known, and an encoder a minute of calibration on any annotated images, once:
    --calibrate photos --thresholds FILE writes the file, and --thresholds FILE reads it.

    Example: rose-kit ask me.jpg "Segment the winner." --provider wikimedia --known dog,cat --calibrate photos
    """
    import rose_kit.web.promptable  # noqa: F401 (it registers our own segmenter)
    from rose_kit.web.framework import RoseFramework
    from rose_kit.web.llm import language_model

    beside = {kind: out.with_name(f"{out.stem}.{kind}.png") for kind in ("overlay", "image")}
    check_outputs([out, *beside.values(), thresholds if calibrate else None], [Path(image)])
    own = language_models[llm] if llm in language_models.names() else partial(language_model, llm)
    model = own() if llm else None
    web = make_provider(provider, image)
    first, last = getattr(web, "days", (date.min, date.max))
    when = day.date() if day else min(last, date.today())
    if not first <= when <= last:
        raise ValueError(f"--date {when} is outside of {provider!r}, which covers {first} to {last}")
    pixels = web.example(question, when) if image == "example" else read_image(Path(image))
    compares = kit.load_encoder(encoder, device)
    known = known or getattr(web, "known", ())
    if not (thresholds or calibrate):
        thresholds = getattr(web, "thresholds", None)
    limits = read_thresholds(compares, thresholds, calibrate)
    asks = make_named(segmenters, segmenter, encoder=compares, known=known)
    framework = RoseFramework(asks, web, compares, known=known, thresholds=limits, llm=model)
    result = framework.ask(pixels, question, when)
    asked = f"question   {question!r}, asked on {when}"
    for line in (asked, *result.lines(), f"model      {llm or 'none, rules'}"):
        typer.echo(printable(line))
    write_mask(out, result, pixels, beside["overlay"], beside["image"] if image == "example" else None)
    if result.failure:
        raise typer.Exit(1)


def write_mask(out: Path, result: FrameworkResult, pixels: NDArray, shown: Path, image: Path | None) -> None:
    """Write the mask of an answer, the mask shown over the image, and the image if it has a path."""
    from rose_kit.viz.overlay import overlay

    mask, name = result.mask.mask, result.answer.text if result.answer else "mask"
    written = {out: (255 * mask).astype(np.uint8), shown: overlay(pixels, np.where(mask, 0, IGNORE), [name])}
    for path, array in (written | ({image: pixels} if image else {})).items():
        with new_result(path) as place:
            Image.fromarray(array).save(place, "PNG")
        typer.echo(f"written    {path}")


def make_provider(name: str, image: str) -> Provider:
    """The place to search: a registered one by its name, or a folder; for an example, one that has some."""
    from rose_kit.web.providers import Folder

    is_folder = name not in providers.names() and Path(name).is_dir()
    provider = Folder(name) if is_folder else make_named(providers, name, image=image)
    if image == "example" and not hasattr(provider, "example"):
        raise ValueError(f"provider {name!r} has no example; name an image")
    return provider


def read_thresholds(encoder: kit.Encoder, path: Path | None, data: str | None) -> Thresholds | None:
    """Thresholds from a file, or made of annotated images and written to it; None: there are none."""
    from rose_kit.web.calibration import calibrate
    from rose_kit.web.vpe import Thresholds

    if data is None:
        return Thresholds.load(path) if path else None
    limits = calibrate(encoder, open_support(data))
    if path:
        with new_result(path) as place:
            limits.save(place)
    return limits


# --- notebooks --------------------------------------------------------------------------------------------


@app.command()
def run(
    notebook: Annotated[str, argument("Its number (00), its name (experiments/nest) or its path.")],
    parameters: Annotated[list[str] | None, option("May be repeated.", "-p", metavar="NAME=VALUE")] = None,
    out: Annotated[Path | None, option("Folder for what it writes [default: runs/NAME].")] = None,
) -> None:
    """Execute a notebook with other parameters.

    The executed copy and the files it writes go to one folder, and its results are printed.

    Example: rose-kit run 00_quickstart -p seeds=4,5,6 --out runs/other_seeds
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    path = find_notebook(notebook)
    folder = out or Path("runs") / path.stem
    defaults = notebook_parameters(path)
    values = parse_options(parameters or (), defaults, path.name)
    check_outputs([folder / path.name], [path])
    # What else the notebook writes is not known before.
    if out and out.is_dir() and any(out.iterdir()) and not is_recorded(folder / path.name):
        raise ValueError(f"{str(out)!r} is not empty, and not of an earlier run; name a new folder")
    if "out" in defaults:  # kernels start in the notebook's own folder, as in JupyterLab
        values.setdefault("out", Path(os.path.relpath(folder, path.parent)).as_posix())
    options = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"], "cwd": path.parent}
    options["progress_bar"] = sys.stderr.isatty()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with naming(folder / path.name):
            executed = papermill.execute_notebook(path, folder / path.name, values, **options)
    except PapermillExecutionError as error:
        if error.ename in ("ValueError", "DataError"):  # a parameter that the notebook cannot take
            raise ValueError(f"{path.name}: {error.evalue} (see {folder / path.name})") from None
        line = re.findall(r"^-+> *\d+ (.*)", re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)), re.M)
        reason = error.evalue or "".join(line[-1:])  # an assert without a message is quoted
        why = f"{error.ename}: {_one_line(reason)} (see {folder / path.name})"
        typer.echo(f"error: cell [{error.exec_count}] of {path.name} failed: {why}", err=True)
        raise typer.Exit(1) from None
    finally:
        record(folder / path.name)
    for cell in executed.cells:
        for output in cell.outputs if "result" in cell.metadata.get("tags", []) else ():
            text = output.get("text") if output.get("name") == "stdout" else None
            typer.echo((text or output.get("data", {}).get("text/plain", "")).rstrip())
    files = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != RECORD)
    typer.echo(f"written to {folder}: {', '.join(files)}")


def find_notebook(name: str) -> Path:
    """A notebook by its number ("00"), its name ("00_quickstart", "experiments/nest") or its path.

    Raises:
        ValueError: there is no such notebook; lists those there are.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    folder = Path("notebooks") if Path("notebooks").is_dir() else NOTEBOOKS
    paths = [*sorted(folder.glob("[0-9]*.ipynb")), *sorted(folder.glob("experiments/*.ipynb"))]
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    for key, path in known.items():
        if name.removesuffix(".ipynb") in (key, key.split("_")[0]):
            return path
    if not known:
        there = "they come with a clone of the project, so run this command in its folder"
        raise ValueError(f"no notebook is in {str(Path.cwd())!r} or with this installation: {there}")
    raise unknown_name("notebook", name, known)


def notebook_parameters(path: Path) -> dict[str, Any]:
    """Name -> default of what the cell tagged "parameters" declares.

    Raises:
        DataError: (a ValueError) the file is no notebook, or a default is no literal.
    """
    import papermill

    with errors_as(kit.DataError, f"{path} is not a notebook with literal parameters"):
        declared = papermill.inspect_notebook(str(path))
        return {name: ast.literal_eval(about["default"]) for name, about in declared.items()}


# --- sweep and check --------------------------------------------------------------------------------------


@app.command()
def sweep(
    grid: Annotated[Path, argument("YAML file, as above.", **FILE)],
    out: Annotated[Path | None, option("Folder of the results [default: runs/ and the grid's name].")] = None,
    jobs: Annotated[int, option("Evaluations at a time on this machine.")] = 1,
    device: Device = "auto",
    plugin: Annotated[Path | None, option("Python file whose methods join the grid.", **FILE)] = None,
) -> None:
    """Evaluate every combination of a grid, and compare.

    Each dataset, encoder and number of shots leaves a table with a row per image. A table that exists is
    not made again while its settings, the plugin and the kit's version are the same: after a change of
    data or code, name another folder. A plugin is checked first, as by `rose-kit check`.

    \b
    A grid is a YAML file whose lists are crossed; a list of grids is run one after the other:
      methods: [zero-shot, knn-clip, {rns: {k: [4, 8]}}, {rose: {fusion: similarity}}]
      dataset: [photos, more_photos]   # names or folders; {NAME: {OPTION: VALUE}} sets options
      encoder: handcrafted   # by default photos for a folder, bundled for scenes
      shots: [1, 5]
      seeds: [1, 2, 3]
    Further keys: limit (images to answer). A folder has the options support and query (its splits), and
    support_from (another dataset); scenes have size, domain and query_seed (other scenes to answer).
    """
    from rose_kit.evaluation import expand_grid, leaderboard, run_grid

    if plugin is not None:
        check(plugin)
    own = methods.of_file(plugin.resolve()) if plugin is not None else ()
    specs = expand_grid(read_yaml(grid), own)
    folder = writable_folder(out or Path("runs") / grid.stem)
    check_outputs([folder / "leaderboard.csv"])
    rows, skipped = run_grid(specs, folder, jobs=jobs, plugin=plugin, device=device)
    board = leaderboard(rows)
    typer.echo(f"{skipped} of {len(specs)} tables were there already\n\n{board}")
    with new_result(folder / "leaderboard.csv") as path:
        board.table.to_csv(path, index=False, float_format="%.4f")
    typer.echo(f"\nwritten to {folder / 'leaderboard.csv'}")
    if rows.attrs["failed"]:
        raise typer.Exit(1)


@app.command()
def check(plugin: Annotated[Path, argument("Python file with methods or encoders.", **FILE)]) -> None:
    """Test the methods and encoders of a plugin.

    Methods are tried on everything an evaluation may ask of them: probabilities and evidence, the same
    answer whatever was asked before, classes without support or text, an empty memory, other vocabularies.
    Encoders: size, width and unit length of features, images and names one by one and together. Each
    failure says what was wrong, and the exit status is then 1.
    """
    from rose_kit.contract import check_plugin

    checked = check_plugin(plugin)
    for name, failures in checked.items():
        typer.echo(name)
        for part, failure in failures.items():
            typer.echo(f"  {'FAIL' if failure else 'ok':<4}  {part:<16}  {failure}".rstrip())
    if any(any(failures.values()) for failures in checked.values()):
        raise typer.Exit(1)


# --- doctor -----------------------------------------------------------------------------------------------


@app.command()
def doctor() -> None:
    """Check the interpreter, the bundled encoder with the packages it needs, and the Jupyter kernel.

    At the first fault it stops, and says what is wrong.
    """
    from jupyter_client.manager import KernelManager

    from rose_kit.encoder import find_device

    typer.echo(f"ok  python {sys.version.split()[0]} at {sys.executable}")
    grid = kit.load_encoder("bundled").encode_image(np.zeros((64, 64, 3), np.uint8)).grid
    patches = f"{grid[0]} x {grid[1]} patches on the device {find_device()}"
    typer.echo(f"ok  the bundled encoder turns an image of 64 px into {patches}")
    interpreter = KernelManager(kernel_name="python3").format_kernel_cmd()[0]
    # Links are compared unresolved: a virtual environment's python links to the system's.
    if os.path.abspath(interpreter) != os.path.abspath(sys.executable):
        how = "start Jupyter from this environment, with JUPYTER_PREFER_ENV_PATH=1"
        raise ValueError(f"the kernel python3 starts {interpreter}, not {sys.executable}: {how}")
    typer.echo("ok  the Jupyter kernel python3 starts this interpreter")


# --- errors -----------------------------------------------------------------------------------------------


def status(args: Sequence[str], app: typer.Typer = app, name: str = "rose-kit") -> int:
    """Run one command line and return its exit status.

    Args:
        args: what follows `name`; nothing means `--help`.
        app: the commands there are.
        name: what they are called by.

    Returns:
        0 for success, 1 for work that failed, 2 for a user's mistake (reported in one line on
        standard error), 130 for an interrupt from the keyboard.
    """
    cli = typer.main.get_command(app)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            return cli.main(args=list(args) or ["--help"], prog_name=name, standalone_mode=False) or 0
        except typer.TyperException as error:  # the command line itself: unknown option, missing argument
            message = f"{error.format_message().replace('Value error, ', '')} (see {name} --help)"
        except (ValueError, OSError, ImportError) as error:
            where = getattr(error, "filename", None)
            message = str(error) if where is None else f"cannot read or write {where}: {error.strerror}"
    typer.echo(f"error: {_one_line(message)}", err=True)
    return 2


def _warn(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """Show our own warnings in one line; those of libraries are for programmers."""
    if category is UserWarning:
        typer.echo(f"warning: {_one_line(message)}", err=True)


def _one_line(text: object) -> str:
    return " ".join(printable(str(text)).split())


def printable(line: str) -> str:
    """A line without what could steer a terminal: text of the web is shown, never obeyed."""
    return "".join(c if c.isprintable() else " " for c in line)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, option("Show the version.", "--version")] = False) -> None:
    if version:
        typer.echo(f"rose_kit {kit.__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `rose-kit` console script, and of `python -m rose_kit`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what is half written goes
    sys.exit(status(sys.argv[1:]))
