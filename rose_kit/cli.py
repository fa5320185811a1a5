"""The command line, `rose-kit COMMAND`; every error becomes an exit status here.

A command raises ValueError or OSError for a user's mistake, and `typer.Exit(1)` for work that failed. What it
needs beyond typer it imports when it runs, so that `rose-kit --help` stays quick.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rose_kit as kit

if TYPE_CHECKING:
    import numpy as np
    from nbformat import NotebookNode
    from numpy.typing import NDArray

    from rose_kit.data import Dataset
    from rose_kit.encoder import Encoder
    from rose_kit.fusion import Method
    from rose_kit.regions import Regions
    from rose_kit.web.framework import FrameworkResult
    from rose_kit.web.types import Provider

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"  # of a clone
PLAIN = {"rich_markup_mode": None}  # "[default: ...]" is no markup, and paragraphs are paragraphs
app = typer.Typer(
    help="Segmentation that looks things up before it decides.", pretty_exceptions_enable=False, **PLAIN
)
memory_app = typer.Typer(help="Build, change and look at a memory of annotated images.", **PLAIN)
app.add_typer(memory_app, name="memory")

# --- arguments and options that several commands share ----------------------------------------------------


def option(help: str, *names: str, **more: Any) -> Any:
    """An option with its help first."""
    return typer.Option(*names, help=help, **more)


def argument(help: str, **more: Any) -> Any:
    """A positional argument with its help first."""
    return typer.Argument(help=help, **more)


Data = Annotated[
    str, argument("Folder (images/, masks/, classes.txt), or name of a dataset, such as scenes.")
]
Folder = Annotated[Path, argument("Folder of a memory.", metavar="DIR")]
EncoderName = Annotated[
    str | None, option("bundled (default), handcrafted, ARCHITECTURE/TAG of open_clip, or a folder.")
]
Classes = Annotated[str | None, option("Names between commas; 'road|street' has two texts [default: all].")]
RegionOptions = Annotated[
    str | None,
    option("Answer regions, not patches: slic, sam, ...; with options: slic:segments=200,...", "--regions"),
]
Plugin = Annotated[Path | None, option("Python file that registers further methods or encoders.")]
Shots = Annotated[int | None, option("Draw this many images per class [default: every image].")]
Seed = Annotated[int, option("Of the draw.", min=0)]
Split = Annotated[str | None, option("Split of the folder [default: support, train or every image].")]


# --- evaluate ---------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: rose-kit evaluate photos --methods zero-shot,rns --shots 1,5 --json out.json",
    short_help="Methods side by side on the same images.",
)
def evaluate(
    data: Data,
    methods: Annotated[str | None, option("Names between commas [default: all but upper bounds].")] = None,
    preset: Annotated[str | None, option("rns, rns-openclip, rns-dinov3txt, or a YAML file.")] = None,
    encoder: EncoderName = None,
    shots: Annotated[str, option("Support images per class, one or several numbers.")] = "5",
    seeds: Annotated[str | None, option("One draw of support images each [default: 1,2,3].")] = None,
    options: Annotated[list[str] | None, option("METHOD.OPTION=VALUE; may be repeated.", "--set")] = None,
    support_split: Annotated[str | None, option("[default: support, train, or half the images]")] = None,
    query_split: Annotated[str | None, option("[default: query, val, test, or the other half]")] = None,
    limit: Annotated[int | None, option("Answer only this many images, evenly spread.")] = None,
    classes: Classes = None,
    without_visual: Annotated[float, option("Share of the classes without visual support, 0 to 1.")] = 0.0,
    without_text: Annotated[float, option("Share of the classes without text, 0 to 1.")] = 0.0,
    regions: RegionOptions = None,
    domain: Annotated[str | None, option("Domain of a dataset that has several.")] = None,
    size: Annotated[int | None, option("Side in pixels of images that a dataset draws.")] = None,
    plugin: Plugin = None,
    output: Annotated[Path | None, option("File for the rows, with IoU per class and ids.", "--json")] = None,
) -> None:
    """Compare methods by their mIoU: percent, mean and 95 % interval over seeds.

    Every method sees the same support images and answers the same images at their own size; support
    and query never share one. Methods that need text are left out, with a warning, where the encoder
    has none. A preset sets what is not given here.
    """
    protocol: dict[str, Any] = {"shots": whole_numbers(shots, "shots"), "limit": limit}
    if seeds is not None:
        protocol["seeds"] = whole_numbers(seeds, "seeds")
    from rose_kit import evaluation  # here, since it imports torch: a wrong number is refused at once
    from rose_kit.data import open_dataset

    load_plugin(plugin)
    settings = read_preset(preset)
    chosen = make_methods(methods, options or (), settings)
    protocol |= {
        "missing": evaluation.MissingSupport(without_visual, without_text),
        "regions": make_regions(regions, settings["regions"]),
        "classes": None if classes is None else name_list(classes, "classes"),
    }
    check_file(output, "--json")
    drawn = dataset_options(data, domain, size or settings["size"])
    support, query = open_dataset(data, drawn, support=support_split, query=query_split)
    made = kit.load_encoder(encoder or settings["encoder"])
    rows = evaluation.evaluate(
        support,
        query,
        made,
        chosen,
        support_windows=make_windows(settings["support_windows"], made),
        query_windows=make_windows(settings["query_windows"], made),
        progress=sys.stderr.isatty(),
        **{"seeds": settings["seeds"]} | protocol,
    )
    typer.echo(evaluation.table(rows))
    if output is not None:
        evaluation.write_json(output, rows, rose_kit=kit.__version__, encoder=made.fingerprint)
        typer.echo(f"written to {output}")


# --- memory -----------------------------------------------------------------------------------------------


@memory_app.command(
    epilog="Example: rose-kit memory build photos --encoder handcrafted --shots 5 --out memory"
)
def build(
    data: Data,
    out: Annotated[Path, option("Folder for the memory; must not hold one yet.")],
    encoder: EncoderName = None,
    shots: Shots = None,
    seed: Seed = 0,
    split: Split = None,
    plugin: Plugin = None,
) -> None:
    """Make a memory: one prototype per image and class."""
    from rose_kit.memory.storage import FILE

    load_plugin(plugin)
    if (out / FILE).exists():
        raise ValueError(
            f"there is a memory at {str(out)!r} already: `rose-kit memory add`, or another --out"
        )
    name = encoder or "bundled"
    made = kit.load_encoder(name)
    memory = kit.SupportMemory(made.dim, fingerprint=made.fingerprint, encoder=name, index="auto")
    dataset, positions = support_images(data, split, shots, seed)
    writable_folder(out)
    fill(memory, dataset, positions, made)
    memory.save(out)
    typer.echo(f"{out}: {describe(memory)}")


@memory_app.command(epilog="Example: rose-kit memory add memory more_photos")
def add(
    folder: Folder,
    data: Data,
    shots: Shots = None,
    seed: Seed = 0,
    split: Split = None,
    plugin: Plugin = None,
) -> None:
    """Add annotated images; on an error, none."""
    from rose_kit.memory.storage import writing

    load_plugin(plugin)
    memory, encoder = load_memory(folder)
    fresh = kit.SupportMemory(memory.dim)  # encoding takes long: others may write to the folder meanwhile
    fill(fresh, *support_images(data, split, shots, seed), encoder)
    with writing(folder):
        memory = kit.SupportMemory.load(folder)
        memory.extend(fresh.rows)
        memory.save(folder)
    typer.echo(f"{folder}: {describe(memory)}")


@memory_app.command(epilog="Example: rose-kit memory remove memory --class bus")
def remove(
    folder: Folder,
    image: Annotated[str | None, option("Remove this image id.")] = None,
    class_name: Annotated[str | None, option("Remove this class; with --image, there.", "--class")] = None,
) -> None:
    """Remove an image, a class, or a class in an image."""
    from rose_kit.memory.storage import writing

    if image is None and class_name is None:
        raise ValueError("nothing to remove: give --image ID, --class NAME or both")
    with writing(folder) if folder.is_dir() else nullcontext():
        memory = kit.SupportMemory.load(folder)
        typer.echo(f"removed {memory.remove(image, class_name)} prototype(s)")
        memory.save(folder)
    typer.echo(f"{folder}: {describe(memory)}")


@memory_app.command(epilog="Example: rose-kit memory info memory")
def info(folder: Folder) -> None:
    """Show what a memory holds: its encoder, and prototypes per class."""

    memory = kit.SupportMemory.load(folder)
    typer.echo(f"{folder}: {describe(memory)}")
    typer.echo(f"encoder: {memory.encoder or 'not recorded'} ({memory.fingerprint}), {memory.dim} dimensions")
    typer.echo(f"index: {memory.describe_index()}")
    width = max(map(len, memory.classes), default=0)
    for name, count in memory.summary().items():
        typer.echo(f"  {name:<{width}}  {count:>5}")


def support_images(
    data: str, split: str | None, shots: int | None, seed: int
) -> tuple[Dataset, list[int] | None]:
    """Annotated images, and the positions of a draw of `shots` per class; None: all of them."""
    from rose_kit.data import open_support, sample_support

    dataset = open_support(data, split=split)
    return dataset, None if shots is None else sample_support(dataset, shots, seed)


def fill(
    memory: kit.SupportMemory, dataset: Dataset, positions: Sequence[int] | None, encoder: Encoder
) -> None:
    """Add images of a dataset to a memory."""
    from rose_kit.evaluation import add_dataset

    add_dataset(memory, dataset, encoder, make_windows({}, encoder), positions=positions, progress=None)


def load_memory(folder: Path) -> tuple[kit.SupportMemory, Encoder]:
    """A memory and the encoder it was made with.

    Raises:
        ValueError: there is no whole memory, no encoder is recorded, or it is another one by now.
    """

    memory = kit.SupportMemory.load(folder)
    if memory.encoder is None:
        raise ValueError(f"memory {str(folder)!r} does not record its encoder: SupportMemory(encoder=NAME)")
    encoder = kit.load_encoder(memory.encoder)
    memory.check_encoder(encoder)
    return memory, encoder


def describe(memory: kit.SupportMemory) -> str:
    """The size of a memory in words."""
    return f"{len(memory)} prototypes of {len(memory.classes)} classes in {len(memory.images)} images"


# --- segment ----------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: rose-kit segment street.jpg --memory memory --out segmented --classes road,bus,sky",
    short_help="Photographs, with a memory: masks, overlays, evidence.",
)
def segment(
    images: Annotated[list[Path], argument("Images to segment: jpg or png.")],
    memory: Annotated[Path, option("Folder of a memory, as `rose-kit memory build` makes it.")],
    out: Annotated[Path, option("Folder for the results.")],
    classes: Classes = None,
    method: Annotated[str, option("zero-shot, knn-clip, freeda, rns, rose, or a plugin's.")] = "rns",
    regions: RegionOptions = None,
    coco: Annotated[Path | None, option("Also write all masks as COCO JSON to this file.")] = None,
    plugin: Plugin = None,
) -> None:
    """Segment images with what a memory knows.

    For each image: NAME.png holds class ids (an indexed PNG; classes.txt says which id is which),
    NAME.overlay.png shows them over the image, and NAME.evidence.json lists for each class the
    support images and prototypes that speak for it, by weight. The category ids of COCO are the
    class ids + 1.
    """
    from tqdm.auto import tqdm

    from rose_kit.data import read_image
    from rose_kit.model import methods as registered
    from rose_kit.segmenter import name_vocabulary
    from rose_kit.viz.coco import write_coco

    load_plugin(plugin)
    answerer, region_maker = registered.make(method), make_regions(regions)
    support, encoder = load_memory(memory)
    names = support.classes if classes is None else name_list(classes, "classes")
    if not len(support):
        raise ValueError(f"memory {str(memory)!r} is empty: `rose-kit memory add` fills it")
    vocabulary = name_vocabulary(names, encoder)
    if vocabulary.text is None:
        check_without_text(vocabulary.names, support, method, answerer)
    for path in images:
        read_image(path)  # so that a broken one is reported before anything is written
    check_file(coco, "--coco")
    check_outputs(images, writable_folder(out), coco)
    write_classes(out / "classes.txt", vocabulary.names)
    segmenter = kit.Segmenter(encoder, support, answerer, region_maker, make_windows({}, encoder))
    labels = {}
    for path in tqdm(images, "segmenting", disable=None):  # None: shown on terminals only
        image = read_image(path)
        answer = segmenter.segment(image, vocabulary)
        write_answer(out / path.stem, path, image, answer, support)
        labels[path.name] = answer.labels
    if coco is not None:
        write_coco(coco, labels.items(), dict(enumerate(vocabulary.names)))
    typer.echo(f"{len(images)} image(s) segmented into {len(vocabulary)} classes, in {out}")


def check_without_text(
    names: Sequence[str], memory: kit.SupportMemory, method: str, answerer: Method
) -> None:
    """Refuse what cannot be answered without text: classes that the memory lacks, methods that need text."""
    for name in names:
        if name not in memory.classes:
            held = ", ".join(memory.classes)
            raise ValueError(f"class {name!r} has neither text nor a prototype; the memory holds: {held}")
    if getattr(answerer, "needs_text", False):
        raise ValueError(f"method {method!r} needs text, which encoder {memory.encoder!r} does not have")


def check_outputs(images: Sequence[Path], out: Path, coco: Path | None) -> None:
    """Refuse two images of one name, and to overwrite what `segment` did not write."""
    stem, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} images are called {stem!r}; their results would overwrite each other")
    for target in (out / f"{path.stem}.png" for path in images):
        if target.exists() and (any(map(target.samefile, images)) or not (out / "classes.txt").exists()):
            raise ValueError(f"{str(target)!r} would be overwritten; choose another folder than {str(out)!r}")
    if coco is not None and coco.exists() and any(map(coco.samefile, images)):
        raise ValueError(f"--coco {str(coco)!r} would overwrite an image; name another file")


def write_classes(path: Path, names: Sequence[str]) -> None:
    """Write `id,name` lines; refuse a file that lists others, whose ids would change their meaning."""
    if len(names) > 255:
        raise ValueError(f"{len(names)} classes do not fit a PNG of ids; name at most 255 with --classes")
    text = "".join(f"{c},{name}\n" for c, name in enumerate(names))
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{str(path)!r} lists other classes than {', '.join(names)}; choose another --out")
    path.write_text(text, encoding="utf-8")


def write_answer(
    stem: Path, source: Path, image: NDArray[np.uint8], answer: kit.Segmentation, memory: kit.SupportMemory
) -> None:
    """Write labels, overlay and evidence of one image to files that begin with `stem`."""
    from PIL import Image

    from rose_kit.viz.evidence import evidence_by_class
    from rose_kit.viz.export import save_labels
    from rose_kit.viz.overlay import overlay

    save_labels(f"{stem}.png", answer.labels, len(answer.names))
    Image.fromarray(overlay(image, answer.labels, answer.names)).save(f"{stem}.overlay.png")
    record = {"image": str(source), "classes": evidence_by_class(answer, memory)}
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    Path(f"{stem}.evidence.json").write_text(text + "\n", encoding="utf-8")


# --- ask --------------------------------------------------------------------------------------------------


@app.command(
    epilog='Example: rose-kit ask example "Segment the current regatta champion." --date 2026-03-01',
    short_help="Segment what a question means on a day.",
)
def ask(
    image: Annotated[str, argument("An image, or 'example': one that the provider draws of what you ask.")],
    question: Annotated[str, argument('As you would say it: "Segment the reigning champion."')],
    day: Annotated[
        datetime | None, option("When it is asked [default: today].", "--date", formats=["%Y-%m-%d"])
    ] = None,
    provider: Annotated[
        str, option("mini, wikimedia, duckduckgo, or a folder of pages and images.")
    ] = "mini",
    out: Annotated[Path, option("PNG for the mask; an overlay is written beside it.")] = Path("mask.png"),
    model: Annotated[
        str | None, option("Language model at OPENAI_BASE_URL [default: rules].", "--llm")
    ] = None,
) -> None:
    """Segment what a question means on a day, looking it up if need be.

    Prints how it came about: why it was looked up or not, where with date and licence, the answer, what the
    segmenter was asked, and whether the mask looks like images of the answer. The provider "mini" is a
    miniature web of the first half of 2026. Without the network it, folders, and questions that need no
    look-up still work.
    """
    check_answer_file(out, image)
    from rose_kit.data import read_image
    from rose_kit.web.framework import RoseFramework
    from rose_kit.web.llm import NO_MODEL, LanguageModel
    from rose_kit.web.promptable import SegmenterAsPromptable

    llm = LanguageModel(model) if model else None
    where = make_provider(provider, image)
    first, last = getattr(where, "days", (date.min, date.max))
    when = day.date() if day else min(last, date.today())
    if not first <= when <= last:
        raise ValueError(f"--date {when} is outside of {provider!r}, which covers {first} to {last}")
    pixels = where.example(question, when) if image == "example" else read_image(Path(image))
    encoder = kit.load_encoder("bundled")
    framework = RoseFramework.of(SegmenterAsPromptable(encoder), where, encoder, llm)
    result = framework.ask(pixels, question, when)
    for line in (f"question  {question!r}, asked on {when}", *result.lines()):
        typer.echo(printable(line))
    typer.echo(f"model     {model or NO_MODEL}")
    for path in write_mask(out, pixels, result, drawn=image == "example"):
        typer.echo(f"written   {path}")
    if result.failure:
        raise typer.Exit(1)


def make_provider(name: str, image: str) -> Provider:
    """The place to search: a registered one by its name, or a folder; for an example, one that has some."""
    from rose_kit.registry import providers
    from rose_kit.web.providers import Folder

    if name in providers.names():
        factory = providers.find(name)
        where = factory(image=image) if "image" in inspect.signature(factory).parameters else factory()
    elif Path(name).is_dir():
        where = Folder(name)
    else:
        raise ValueError(f"provider {name!r} is no folder, nor one of {', '.join(providers.names())}")
    if image == "example" and not hasattr(where, "example"):
        raise ValueError(f"provider {name!r} has no example; name an image")
    return where


def check_answer_file(out: Path, image: str) -> None:
    """Refuse to write over the image that is asked about, or into nowhere."""
    check_file(out, "--out")
    for path in (out, _beside(out, "overlay")):
        if path.exists() and Path(image).exists() and path.samefile(image):
            raise ValueError(f"--out {str(out)!r} would overwrite the image {image!r}; name another file")


def write_mask(out: Path, image: NDArray[np.uint8], result: FrameworkResult, drawn: bool) -> list[Path]:
    """The mask (0 and 255), an overlay to look at, and the image if it was drawn; their paths."""
    from PIL import Image

    from rose_kit.types import IGNORE
    from rose_kit.viz.overlay import overlay

    mask = result.mask.mask
    name = result.answer.text if result.answer else "mask"
    arrays = {
        out: (255 * mask).astype("uint8"),
        _beside(out, "overlay"): overlay(image, (~mask * IGNORE).astype(int), [name]),
    }
    if drawn:
        arrays[_beside(out, "image")] = image
    for path, array in arrays.items():
        Image.fromarray(array).save(path, "PNG")
    return list(arrays)


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}.{what}.png")


# --- notebooks --------------------------------------------------------------------------------------------


@app.command(short_help="Execute a notebook with other parameters.")
def run(
    notebook: Annotated[str, argument("Its number (00), its name (experiments/nest) or its path.")],
    parameter: Annotated[
        list[str] | None, option("May be repeated.", "--parameter", "-p", metavar="NAME=VALUE")
    ] = None,
    out: Annotated[Path | None, option("Folder for what it writes [default: runs/NAME].")] = None,
) -> None:
    """Execute a notebook with other parameters; the executed copy and its files go to runs/NAME."""
    import os

    path = find_notebook(notebook)
    defaults = notebook_parameters(path)
    parameters = parse_options(parameter or (), defaults, "parameter")
    folder = out or Path("runs") / path.stem
    if (folder / path.name).exists() and path.samefile(folder / path.name):
        raise ValueError(f"--out {str(folder)!r} would overwrite {str(path)!r}; choose another folder")
    if "out" in defaults:  # kernels start in the notebook's own folder, as in JupyterLab
        parameters.setdefault("out", Path(os.path.relpath(folder, path.parent)).as_posix())
    folder.mkdir(parents=True, exist_ok=True)
    executed = execute(path, folder / path.name, parameters)
    for text in results(executed):
        typer.echo(text)
    typer.echo(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir() if p.is_file()))}")


def find_notebook(name: str) -> Path:
    """A notebook by its number ("00"), its name ("00_quickstart", "experiments/nest") or its path.

    Raises:
        ValueError: there is no such notebook; lists those there are.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    folder = Path("notebooks") if Path("notebooks").is_dir() else NOTEBOOKS
    lessons, experiments = sorted(folder.glob("[0-9]*.ipynb")), sorted(folder.glob("experiments/*.ipynb"))
    known = {path.stem: path for path in lessons} | {f"experiments/{p.stem}": p for p in experiments}
    for key, path in known.items():
        if name.removesuffix(".ipynb") in (key, key.split("_")[0]):
            return path
    raise ValueError(f"no notebook {name!r}; there are: {', '.join(known) or 'none: run it in a clone'}")


def notebook_parameters(path: Path) -> dict[str, Any]:
    """Name -> default of what the cell tagged "parameters" declares.

    Raises:
        ValueError: the file is no notebook, or a default is no literal.
    """
    import papermill

    try:
        declared = papermill.inspect_notebook(str(path))
        return {name: ast.literal_eval(about["default"]) for name, about in declared.items()}
    except Exception as error:  # of nbformat, whatever a malformed file trips over
        raise ValueError(f"{path} is not a notebook with literal parameters: {_one_line(error)}") from None


def execute(path: Path, output: Path, parameters: Mapping[str, Any]) -> NotebookNode:
    """Execute a notebook in its own folder and save the executed copy; `typer.Exit(1)` if a cell fails."""
    import logging

    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # parameters are checked; the rest is chatter
    quiet = {"extra_arguments": ["--log-level=ERROR"]}  # the kernel's start-up notes are for servers
    try:
        return papermill.execute_notebook(
            path, output, dict(parameters), kernel_name="python3", cwd=path.parent, **quiet
        )
    except PapermillExecutionError as error:
        why = f"{error.ename}: {_one_line(error.evalue)}"
        typer.echo(f"error: cell [{error.exec_count}] of {path.name} failed: {why} (see {output})", err=True)
        raise typer.Exit(1) from None


def results(executed: NotebookNode) -> Iterator[str]:
    """The text that cells tagged "result" put out."""
    for cell in executed.cells:
        if "result" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                text = output.get("text") if output.get("name") == "stdout" else None
                if text := (text or output.get("data", {}).get("text/plain", "")).rstrip():
                    yield text


# --- sweep and check --------------------------------------------------------------------------------------

GRID = """\b
A grid, whose lists are crossed; a list of such grids is run one after the other:
  methods: [zero-shot, knn-clip, {rns: {k: [4, 8]}}, {rose: {fusion: similarity}}]
  dataset: [photos, more_photos]   # names or folders; {NAME: {OPTION: VALUE}} sets options
  encoder: bundled
  shots: [1, 5]
  seeds: [1, 2, 3]
Further keys: limit (images to answer).
"""


@app.command(epilog=GRID, short_help="Run every combination of a grid, and compare.")
def sweep(
    grid: Annotated[Path, argument("YAML file; see below.")],
    out: Annotated[Path | None, option("Folder of the results [default: runs/ and the grid's name].")] = None,
    jobs: Annotated[int, option("Evaluations at a time on this machine.", min=1)] = 1,
    plugin: Plugin = None,
) -> None:
    """Evaluate every combination of a grid, and print the methods side by side.

    Each dataset, encoder and number of shots leaves a table with a row per image. One that is there is
    not made again while its settings, the plugin and the kit's version are the same: after a change of
    data or code, name another folder. The methods of a plugin are checked (`rose-kit check`), then join
    those of the grid.
    """
    from rose_kit.data import atomic_write
    from rose_kit.evaluation import expand_grid, leaderboard, run_grid

    own = checked_methods(plugin) if plugin is not None else []
    folder = writable_folder(out or Path("runs") / grid.stem)
    content = read_yaml(grid, "grid")
    try:
        specs = expand_grid(content, own)
    except ValueError as error:
        raise ValueError(f"grid {str(grid)!r}: {error}") from None
    rows, skipped = run_grid(specs, folder, jobs=jobs, plugin=plugin)
    board = leaderboard(rows)
    typer.echo(f"{skipped} of {len(specs)} tables were there already\n\n{board}")
    with atomic_write(folder / "leaderboard.md") as path:
        path.write_text(f"{board}\n", encoding="utf-8")
    with atomic_write(folder / "leaderboard.csv") as path:
        board.table.to_csv(path, index=False, float_format="%.4f")
    typer.echo(f"\nwritten to {folder}: leaderboard.md, leaderboard.csv")


@app.command(short_help="Try a plugin on all that may be asked of it.")
def check(
    plugin: Annotated[Path, argument("Python file with methods or encoders.", metavar="FILE")],
) -> None:
    """Try the methods and encoders of a plugin on all that an evaluation may ask of them.

    Methods: shapes and probabilities, determinism from image to image, classes without support or text,
    an empty memory, other vocabularies, evidence. Encoders: grid, width, unit length, text. Each failure
    says what was wrong, and the exit status is then 1.
    """
    from rose_kit.contract import check_plugin

    checked = check_plugin(plugin)
    for name, outcomes in checked.items():
        typer.echo(name)
        for o in outcomes:
            typer.echo(f"  {'ok' if o.passed else 'FAIL':<4}  {o.name:<26} {o.detail}".rstrip())
    if not all(o.passed for outcomes in checked.values() for o in outcomes):
        raise typer.Exit(1)


def checked_methods(plugin: Path) -> list[str]:
    """The names of a plugin's methods; refuses a plugin that fails a check."""
    from rose_kit.contract import check_plugin
    from rose_kit.registry import methods

    checked = check_plugin(plugin)
    for name, outcomes in checked.items():
        for o in outcomes:
            if not o.passed:
                raise ValueError(f"{name!r} of {plugin}: {o.name}: {o.detail} (rose-kit check {plugin})")
    return [name for name in checked if name in methods]


# --- doctor -----------------------------------------------------------------------------------------------


@app.command(short_help="Check the installation, part by part.")
def doctor() -> None:
    """Check the installation: interpreter, packages, bundled weights, kernel; and how to fix them."""
    typer.echo(f"ok    {'python':<16} {sys.version.split()[0]} at {sys.executable}")
    failed = False
    for name, (look, fix) in PARTS.items():
        try:
            typer.echo(f"ok    {name:<16} {look()}")
        except Exception as error:  # whatever goes wrong is reported, and the next part is looked at
            failed = True
            typer.echo(f"FAIL  {name:<16} {_one_line(error)}\n      to fix it: {fix}")
    if failed:
        raise typer.Exit(1)
    typer.echo("all parts are ok")


def _check_packages() -> str:
    import subprocess

    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout)
    return f"rose_kit {kit.__version__} and all that it requires"


def _check_weights() -> str:
    import numpy as np

    grid = kit.load_encoder("bundled").encode_image(np.zeros((64, 64, 3), np.uint8)).grid
    return f"encode a 64 px image to {grid[0]} x {grid[1]} patches"


def _check_kernel() -> str:
    import os

    from jupyter_client.manager import KernelManager

    interpreter = KernelManager(kernel_name="python3").format_kernel_cmd()[0]
    # Links are compared unresolved: a virtual environment's python links to the system's.
    if os.path.abspath(interpreter) != os.path.abspath(sys.executable):
        raise RuntimeError(f"python3 starts {interpreter}, not {sys.executable}")
    return "python3 starts this interpreter"


PARTS = {
    "packages": (_check_packages, "run `make` again, or: pip install -r requirements.lock"),
    "bundled weights": (_check_weights, "git checkout -- rose_kit/encoder/weights"),
    "jupyter kernel": (_check_kernel, "start Jupyter from this environment: JUPYTER_PREFER_ENV_PATH=1"),
}


# --- what users write -------------------------------------------------------------------------------------


def name_list(text: str, what: str) -> list[str]:
    """Names between commas, none empty and none twice.

    >>> name_list("rns, knn-clip", "methods")
    ['rns', 'knn-clip']
    """
    names = [part.strip() for part in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{what} must be different names separated by commas, got {text!r}")
    return names


def whole_numbers(text: str, what: str) -> list[int]:
    """Whole numbers from 0 to 2**63 - 1 between commas, none twice.

    >>> whole_numbers("1,2,3", "seeds")
    [1, 2, 3]
    """
    for number in name_list(text, what):
        if not (number.isascii() and number.isdigit() and int(number) < 2**63):
            raise ValueError(f"{what}: {number!r} is not a whole number from 0; they read like 1,2,3")
    return [int(number) for number in name_list(text, what)]


def parse_options(texts: Sequence[str], defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """`name=value` texts -> values of the types of their defaults.

    Args:
        texts: what the user wrote; `1,2,3` is a list where the default is one.
        defaults: name -> default; None takes any literal.
        what: they are called in messages.

    Raises:
        ValueError: a name is unknown or a value has the wrong type; lists the valid ones.

    >>> parse_options(["k=8", "seeds=1,2", "methods=rns"], {"k": 4, "seeds": [7], "methods": ["x"]}, "option")
    {'k': 8, 'seeds': [1, 2], 'methods': ['rns']}
    """
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not name=value; {what}s: {_listed(defaults)}")
        check_names([name], defaults, what)
        try:
            parsed[name] = parse_value(value, defaults[name])
        except ValueError as error:
            raise ValueError(f"{what} {name}: {error}; {what}s: {_listed(defaults)}") from None
    return parsed


def parse_value(text: str, default: Any) -> Any:
    """Text -> a value of the type of `default`; None takes any literal.

    Raises:
        ValueError: the text is of another type.
    """
    if isinstance(default, str):
        return text
    if isinstance(default, list | tuple):
        parts = [part.strip() for part in text.strip("[]() ").split(",") if part.strip()]
        return type(default)(parse_value(part, default[0] if len(default) else None) for part in parts)
    try:
        value = ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"{text!r} is not of type {type(default).__name__}")
    return value


def check_names(names: Sequence[str], defaults: Mapping[str, Any], what: str) -> None:
    """Refuse names that `defaults` lacks; lists those there are."""
    for name in names:
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ";"
            raise ValueError(f"unknown {what} {name!r}{hint} {what}s: {_listed(defaults)}")


def _listed(defaults: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={default!r}" for name, default in defaults.items()) or "none"


def _defaults(factory: Any) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters.items()
    return {name: None if p.default is p.empty else p.default for name, p in parameters}


def make_methods(names: str | None, texts: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Method]:
    """The methods to compare, with options of the preset overridden by those of `--set`."""
    from rose_kit.model import methods

    if names is not None:
        chosen = name_list(names, "methods")
    else:
        complete = sorted(n for n in methods if not getattr(methods[n], "upper_bound", False))
        chosen = settings["methods"] or complete
    options = {name: dict(settings["options"].get(name, {})) for name in chosen}
    defaults = {name: _defaults(methods.find(name)) for name in chosen}
    for name, given in options.items():
        check_names(list(given), defaults[name], f"{name} option")
    for text in texts:
        name, dot, assignment = text.partition(".")
        if not dot or name not in options:
            raise ValueError(f"--set {text!r} is not METHOD.OPTION=VALUE; methods: {', '.join(options)}")
        options[name] |= parse_options([assignment], defaults[name], f"{name} option")
    return {name: methods.make(name, **given) for name, given in options.items()}


def make_regions(text: str | None, presets: Mapping[str, Mapping[str, Any]] = {}) -> Regions | None:
    """What `--regions NAME:OPTION=VALUE,...` asks for, with a preset's options; None if not given."""
    from rose_kit import regions
    from rose_kit.registry import region_makers

    if text is None:
        return None
    name, _, assignments = text.partition(":")
    defaults, options = _defaults(region_makers.find(name)), dict(presets.get(name, {}))
    check_names(list(options), defaults, f"{name} option")
    options |= parse_options(assignments.split(",") if assignments else (), defaults, f"{name} option")
    return regions.make_regions(name, **options)


def make_windows(options: Mapping[str, Any], encoder: Encoder) -> kit.Windows:
    """How images are scaled and cut: as a preset says, else as the encoder prefers, else whole."""

    if options:
        check_names(list(options), _defaults(kit.Windows), "window option")
        return kit.Windows(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    return getattr(encoder, "preferred_windows", None) or kit.Windows()


def dataset_options(data: str, domain: str | None, size: int | None) -> dict[str, Any]:
    """Options of a dataset by name; a folder has none, so a preset's size does not reach it."""
    from rose_kit.registry import datasets

    given = {key: value for key, value in (("domain", domain), ("size", size)) if value is not None}
    return given if data in datasets.names() or domain else {}


PRESET: dict[str, Any] = {  # what an evaluation does where nobody says otherwise
    "methods": [],
    "options": {},
    "support_windows": {},
    "query_windows": {},
    "seeds": [1, 2, 3],
    "encoder": "bundled",
    "size": None,
    "regions": {},
}


def read_preset(name: str | None) -> dict[str, Any]:
    """Settings by the name of a preset, or from a YAML file with keys of `PRESET`; None: the defaults.

    Raises:
        ValueError: there is no such preset, or the file is not one; lists what there is.
    """
    if name is None:
        return PRESET
    folder = NOTEBOOKS / "experiments" / "presets"
    path = Path(name) if Path(name).suffix == ".yaml" else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ValueError(f"unknown preset {name!r}. Known: {known or 'none'}, or a .yaml file")
    settings = read_yaml(path, "preset")
    if not isinstance(settings, dict):
        raise ValueError(f"preset {str(path)!r} must have keys, got {settings!r}")
    check_names(list(settings), PRESET, f"{path.name} key")
    for key, value in settings.items():
        if PRESET[key] is not None and type(value) is not type(PRESET[key]):
            raise ValueError(f"preset {str(path)!r}: {key} must be like {PRESET[key]!r}, got {value!r}")
    for method in settings.get("methods", []):
        if not isinstance(method, str):
            raise ValueError(f"preset {str(path)!r}: a method is a name, not {method!r}; see options")
    return PRESET | settings


def read_yaml(path: Path, what: str) -> Any:
    """What a YAML file says; refuses one that is not there, or not YAML."""
    from papermill.iorw import read_yaml_file

    if not path.is_file():
        raise ValueError(f"{what} {str(path)!r} is not a YAML file")
    try:
        return read_yaml_file(str(path))
    except Exception as error:  # of YAML
        raise ValueError(f"{what} {str(path)!r} is not YAML: {_one_line(error)}") from None


def load_plugin(path: Path | None) -> None:
    """See `rose_kit.registry.load_plugin`."""
    from rose_kit import registry

    if path is not None:
        registry.load_plugin(path)


def writable_folder(path: Path) -> Path:
    """Make a folder and try to write in it, before hours of work depend on it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise ValueError(f"cannot write to folder {str(path)!r}: {error.strerror or error}") from error


def check_file(path: Path | None, option: str) -> None:
    """Refuse a file that cannot be written, before the work is done."""
    if path is not None:
        if path.is_dir():
            raise ValueError(f"{option} {str(path)!r} is a folder; name a file")
        writable_folder(path.parent)


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
            message = f"{error.format_message()} {_refused_value(error, args)}See {name} --help."
        except (ValueError, OSError, ImportError) as error:
            message = str(error)
    typer.echo(f"error: {_one_line(message)}", err=True)
    return 2


def _refused_value(error: typer.TyperException, args: Sequence[str]) -> str:
    """The value that an option refused, which messages about numbers leave out."""
    options = getattr(getattr(error, "param", None), "opts", ())
    values = [value for option, value in pairwise(args) if option in options]
    return f"(got {values[-1]!r}) " if values else ""


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
def _version(
    version: Annotated[bool, option("Show the version and do nothing else.", "--version")] = False,
) -> None:
    if version:
        typer.echo(f"rose_kit {kit.__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `rose-kit` console script, and of `python -m rose_kit`."""
    sys.exit(status(sys.argv[1:]))
