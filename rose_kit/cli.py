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
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rose_kit import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rose_kit.encoder import Encoder, Windows
    from rose_kit.evaluation import Leaderboard
    from rose_kit.memory import SupportMemory
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

DATA = (
    "A folder (images/, masks/, classes.txt), or the name of a dataset: an unknown one lists those there are."
)
ENCODERS = "bundled, handcrafted (no text), ARCHITECTURE/TAG of open_clip, or a folder."
CLASSES = "Class names separated by commas; 'road|street' has two texts"
EncoderOption = Annotated[str | None, typer.Option(help=f"{ENCODERS} [default: bundled, or the preset's]")]
PluginOption = Annotated[
    Path | None, typer.Option(help="Python file that registers further methods or encoders.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        help="Settings in one: rns, rns-openclip, rns-dinov3txt, or a YAML file; what is given wins."
    ),
]
DomainOption = Annotated[str | None, typer.Option(help="Domain of a dataset that has several.")]
SizeOption = Annotated[int | None, typer.Option(help="Side in pixels of images that a dataset draws.")]
RegionsOption = Annotated[
    str | None,
    typer.Option(
        help="Answer regions instead of patches: slic, sam (weights are fetched once), a plugin's; with "
        "options as in slic:segments=200 or sam:checkpoint=vit_h,points_per_side=16."
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a memory.")]
Shots = Annotated[int | None, typer.Option(help="Draw this many images per class [default: every image].")]
Split = Annotated[
    str | None, typer.Option(help="Split of the folder [default: support, else train, else every image].")
]


# --- evaluate ---------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: rose-kit evaluate photos --methods zero-shot,rns --shots 1,5 --json out.json",
    short_help="Methods side by side on the same images.",
)
def evaluate(
    data: Annotated[str, typer.Argument(help=DATA)],
    methods: Annotated[
        str | None,
        typer.Option(help="Names separated by commas [default: all that see no more than their support]."),
    ] = None,
    preset: PresetOption = None,
    encoder: EncoderOption = None,
    shots: Annotated[str, typer.Option(help="Support images per class, one or several numbers.")] = "5",
    seeds: Annotated[
        str | None, typer.Option(help="One draw of support images each [default: 1,2,3, or the preset's].")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="METHOD.OPTION=VALUE, such as rns.solver=adamw; may be repeated."),
    ] = None,
    support_split: Annotated[
        str | None,
        typer.Option(help="Split of the folder [default: support or train, else half the images]."),
    ] = None,
    query_split: Annotated[
        str | None,
        typer.Option(help="Split of the folder [default: query, val or test, else the other half]."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Answer only this many images, evenly spread [default: all].")
    ] = None,
    classes: Annotated[str | None, typer.Option(help=f"{CLASSES} [default: the data's].")] = None,
    without_visual: Annotated[
        float, typer.Option(help="Share of the classes, drawn per seed, left without visual support: 0 to 1.")
    ] = 0.0,
    without_text: Annotated[float, typer.Option(help="Share of the classes left without text.")] = 0.0,
    regions: RegionsOption = None,
    domain: DomainOption = None,
    size: SizeOption = None,
    plugin: PluginOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--json", help="File for one row per method, shots and seed: mIoU, per-class IoU, ids."),
    ] = None,
) -> None:
    """Compare methods by their mIoU: percent, mean and 95 % interval over seeds.

    Every method sees the same support images and answers the same images at their own size; support
    and query never share one. Methods that need text are left out, with a warning, where the encoder
    has none.
    """
    drawn_seeds = None if seeds is None else whole_numbers(seeds, "seeds")  # first: heavy imports come later
    counts = whole_numbers(shots, "shots")
    from rose_kit import evaluation
    from rose_kit.data import open_dataset
    from rose_kit.encoder import load_encoder
    from rose_kit.model import methods as registered

    settings = read_preset(preset)
    if plugin is not None:
        load_plugin(plugin)
    names = settings["methods"] or sorted(
        n for n in registered if not getattr(registered[n], "upper_bound", 0)
    )
    names = name_list(methods, "methods") if methods is not None else names
    given = method_options(options or (), names, settings["options"])
    chosen = {name: registered.make(name, **given[name]) for name in names}
    region_maker = make_regions(regions, settings)
    missing = evaluation.MissingSupport(without_visual, without_text)
    check_file(output, "--json")
    drawn = dataset_options(data, domain, size or settings["size"])
    support, query = open_dataset(data, drawn, support=support_split, query=query_split)
    made = load_encoder(encoder or settings["encoder"])
    rows = evaluation.evaluate(
        support, query, made, chosen, shots=counts, seeds=drawn_seeds or settings["seeds"],
        classes=None if classes is None else name_list(classes, "classes"), missing=missing, limit=limit,
        regions=region_maker, progress=sys.stderr.isatty(),
        support_windows=windows_of(settings, "support", made),
        query_windows=windows_of(settings, "query", made),
    )  # fmt: skip
    typer.echo(evaluation.table(rows))
    if output is not None:
        evaluation.write_json(output, rows)
        typer.echo(f"written to {output}")


# --- memory -----------------------------------------------------------------------------------------------


@memory_app.command(
    epilog="Example: rose-kit memory build photos --encoder handcrafted --shots 5 --out memory"
)
def build(
    data: Annotated[str, typer.Argument(help=DATA)],
    out: Annotated[Path, typer.Option(help="Folder for the memory; must not hold one yet.")],
    encoder: EncoderOption = None,
    shots: Shots = None,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    split: Split = None,
    preset: PresetOption = None,
    domain: DomainOption = None,
    size: SizeOption = None,
    plugin: PluginOption = None,
    index: Annotated[
        str, typer.Option(help="How it is searched: auto (by the number of rows), flat (exact), hnsw, ivfpq.")
    ] = "auto",
) -> None:
    """Make a memory: one prototype per image and class."""
    from rose_kit.data import open_support
    from rose_kit.encoder import load_encoder
    from rose_kit.memory import SupportMemory
    from rose_kit.memory.storage import MANIFEST

    if plugin is not None:
        load_plugin(plugin)
    settings = read_preset(preset)
    if (out / MANIFEST).exists():
        raise ValueError(
            f"there is a memory at {str(out)!r} already: `rose-kit memory add`, or another --out"
        )
    dataset = open_support(data, dataset_options(data, domain, size), split)
    name = encoder or settings["encoder"]
    made = load_encoder(name)
    memory = SupportMemory(made.dim, fingerprint=made.fingerprint, encoder=name, index=index)
    writable_folder(out)
    fill(memory, dataset, made, windows_of(settings, "support", made), shots, seed)
    memory.save(out)
    typer.echo(f"{out}: {describe(memory)}")


@memory_app.command(epilog="Example: rose-kit memory add memory more_photos")
def add(
    folder: Folder,
    data: Annotated[str, typer.Argument(help=DATA)],
    shots: Shots = None,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    split: Split = None,
    preset: PresetOption = None,
    domain: DomainOption = None,
    size: SizeOption = None,
    plugin: PluginOption = None,
) -> None:
    """Add annotated images; on an error, none."""
    from rose_kit.data import open_support
    from rose_kit.memory import SupportMemory
    from rose_kit.memory.storage import writing

    if plugin is not None:
        load_plugin(plugin)
    memory, encoder = load_memory(folder)
    windows = windows_of(read_preset(preset), "support", encoder)
    fresh = SupportMemory(memory.dim)  # encoding takes long: others may write to the folder meanwhile
    dataset = open_support(data, dataset_options(data, domain, size), split)
    fill(fresh, dataset, encoder, windows, shots, seed)
    with writing(folder):
        memory = SupportMemory.load(folder)
        memory.extend(fresh.rows)
        memory.save(folder)
    typer.echo(f"{folder}: {describe(memory)}")


@memory_app.command(epilog="Example: rose-kit memory remove memory --class bus")
def remove(
    folder: Folder,
    image: Annotated[str | None, typer.Option(help="Forget this image id.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Forget this class; with --image, only there.")
    ] = None,
) -> None:
    """Forget an image, a class, or a class in an image."""
    from rose_kit.memory import SupportMemory
    from rose_kit.memory.storage import writing

    if image is None and class_name is None:
        raise ValueError("nothing to remove: give --image ID, --class NAME or both")
    with writing(folder) if folder.is_dir() else nullcontext():
        memory = SupportMemory.load(folder)
        typer.echo(f"removed {memory.remove(image, class_name)} prototype(s)")
        memory.save(folder)
    typer.echo(f"{folder}: {describe(memory)}")


@memory_app.command(epilog="Example: rose-kit memory info memory")
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


def fill(
    memory: SupportMemory, dataset, encoder: Encoder, windows: Windows | None, shots: int | None, seed: int
):
    """Add the images of a dataset, or a draw of `shots` per class, to a memory."""
    from rose_kit.data import sample_support
    from rose_kit.evaluation import add_dataset

    positions = None if shots is None else sample_support(dataset, shots, seed)
    add_dataset(memory, dataset, encoder, windows, positions=positions, progress=None)


def load_memory(folder: Path, encoder: str | None = None) -> tuple[SupportMemory, Encoder]:
    """A memory and the encoder it was made with, or the one named, if that is the same.

    Raises:
        ValueError: there is no whole memory, no encoder is recorded or named, or it is another one.
    """
    from rose_kit.encoder import load_encoder
    from rose_kit.memory import SupportMemory

    memory = SupportMemory.load(folder)
    if (name := encoder or memory.encoder) is None:
        raise ValueError(f"memory {str(folder)!r} does not record its encoder; name it with --encoder")
    made = load_encoder(name)
    memory.check_encoder(made)
    return memory, made


def describe(memory: SupportMemory) -> str:
    """The size of a memory in words."""
    return f"{len(memory)} prototypes of {len(memory.classes)} classes in {len(memory.images)} images"


# --- segment ----------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: rose-kit segment street.jpg --memory memory --out segmented --classes road,bus,sky",
    short_help="Photographs, with a memory: masks, overlays, evidence.",
)
def segment(
    images: Annotated[list[Path], typer.Argument(help="Images to segment: jpg or png.")],
    memory: Annotated[Path, typer.Option(help="Folder of a memory, as `rose-kit memory build` makes it.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    classes: Annotated[str | None, typer.Option(help=f"{CLASSES} [default: the memory's].")] = None,
    method: Annotated[
        str, typer.Option(help="zero-shot, knn-clip, freeda, rns, rose, or a plugin's.")
    ] = "rns",
    encoder: Annotated[
        str | None, typer.Option(help="Must be the one the memory was made with [default: as it records].")
    ] = None,
    preset: PresetOption = None,
    regions: RegionsOption = None,
    coco: Annotated[Path | None, typer.Option(help="Also write all masks as COCO JSON to this file.")] = None,
    plugin: PluginOption = None,
) -> None:
    """Segment images with what a memory knows.

    For each image: NAME.png holds class ids (an indexed PNG; classes.txt says which id is which),
    NAME.overlay.png shows them over the image, and NAME.evidence.json lists for each class the
    support images and prototypes that the answer rests on, by weight. The category ids of COCO are the
    class ids + 1.
    """
    from tqdm.auto import tqdm

    from rose_kit.data import read_image
    from rose_kit.model import methods as registered
    from rose_kit.segmenter import Segmenter, name_vocabulary
    from rose_kit.viz.coco import write_coco

    if plugin is not None:
        load_plugin(plugin)
    settings, chosen = read_preset(preset), registered.make(method)
    region_maker = make_regions(regions, settings)
    known, made = load_memory(memory, encoder)
    if not len(known):
        raise ValueError(f"memory {str(memory)!r} is empty: `rose-kit memory add` fills it")
    vocabulary = name_vocabulary(known.classes if classes is None else name_list(classes, "classes"), made)
    if vocabulary.text is None:
        check_without_text(vocabulary.names, known, method, made.name)
    for path in images:
        read_image(path)  # so that a broken one is told before anything is written
    check_file(coco, "--coco")
    check_outputs(images, writable_folder(out), coco)
    write_classes(out / "classes.txt", vocabulary.names)
    segmenter = Segmenter(made, known, chosen, region_maker, windows_of(settings, "query", made))
    masks = {}
    for path in tqdm(images, "segmenting", disable=None):  # None: shown on terminals only
        photo = read_image(path)
        answer = segmenter.segment(photo, vocabulary)
        write_answer(out / path.stem, path, photo, answer, known)
        masks[path.name] = answer.labels
    if coco is not None:
        write_coco(coco, masks.items(), dict(enumerate(vocabulary.names)))
    typer.echo(f"{len(images)} image(s) segmented into {len(vocabulary)} classes, in {out}")


def check_without_text(names: Sequence[str], memory: SupportMemory, method: str, encoder: str) -> None:
    """Refuse what an encoder without text cannot do: unknown classes, methods that need text."""
    from rose_kit.model import methods as registered

    unknown = [name for name in names if name not in memory.classes]
    if unknown:
        raise ValueError(
            f"class {unknown[0]!r} is not in the memory, and encoder {encoder!r} has no text to know it "
            f"by; the memory holds: {', '.join(memory.classes)}"
        )
    needs = ("needs_text", "needs_support")
    able = sorted(n for n in registered if not any(getattr(registered[n], need, False) for need in needs))
    if method not in able:
        raise ValueError(
            f"method {method!r} needs text, which encoder {encoder!r} has not; without: {', '.join(able)}"
        )


def check_outputs(images: Sequence[Path], out: Path, coco: Path | None = None) -> None:
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


def write_answer(stem: Path, source: Path, photo: NDArray[np.uint8], answer, memory: SupportMemory) -> None:
    """Write labels, overlay and evidence of one image to files that begin with `stem`."""
    from PIL import Image

    from rose_kit.viz.evidence import evidence_by_class
    from rose_kit.viz.export import save_labels
    from rose_kit.viz.overlay import overlay

    save_labels(f"{stem}.png", answer.labels, len(answer.names))
    Image.fromarray(overlay(photo, answer.labels, answer.names)).save(f"{stem}.overlay.png")
    record = {"image": str(source), "classes": evidence_by_class(answer, memory)}
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    Path(f"{stem}.evidence.json").write_text(text + "\n", encoding="utf-8")


# --- ask --------------------------------------------------------------------------------------------------


@app.command(
    epilog='Example: rose-kit ask example "Segment the current regatta champion." --date 2026-03-01',
    short_help="Segment what a question means on a day.",
)
def ask(
    image: Annotated[
        str,
        typer.Argument(help="An image, or 'example': where the provider can draw one of what you ask for."),
    ],
    question: Annotated[str, typer.Argument(help='As you would say it: "Segment the reigning champion."')],
    day: Annotated[
        str | None,
        typer.Option("--date", help="When it is asked [default: today, or the last day that is covered]."),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(help="Where to look: mini, wikimedia, duckduckgo, or a folder of pages and images."),
    ] = "mini",
    out: Annotated[
        Path, typer.Option(help="PNG for the mask; NAME.overlay.png is written beside it.")
    ] = Path("mask.png"),
    model: Annotated[
        str | None,
        typer.Option(
            "--llm", help="Language model at OPENAI_BASE_URL (key: OPENAI_API_KEY) [default: rules]."
        ),
    ] = None,
) -> None:
    """Segment what a question means on a day, looking it up if need be.

    Prints how it came about: why it was looked up or not, where with date and licence, the answer, what the
    segmenter was asked, and whether the mask looks like images of the answer. The provider "mini" is a
    miniature web of the first half of 2026. Without the
    network it, folders, and questions that need no look-up still work.
    """
    asked = parse_day(day, "--date") if day else None
    check_answer_file(out, image)
    from rose_kit.data import read_image
    from rose_kit.web.llm import NO_MODEL, LanguageModel

    llm = LanguageModel(model) if model else None
    where = make_provider(provider, image)
    first, last = getattr(where, "days", (date.min, date.max))
    if asked and not first <= asked <= last:
        raise ValueError(f"--date {asked} is outside of {provider!r}, which covers {first} to {last}")
    when = asked or min(last, date.today())
    picture = where.example(question, when) if image == "example" else read_image(Path(image))
    from rose_kit.encoder import load_encoder
    from rose_kit.web.framework import RoseFramework
    from rose_kit.web.promptable import SegmenterAsPromptable

    encoder = load_encoder("bundled")
    framework = RoseFramework.of(SegmenterAsPromptable(encoder), where, encoder, llm)
    result = framework.ask(picture, question, when)
    typer.echo("\n".join(map(printable, story(result, question, when))))
    typer.echo(f"model     {model or NO_MODEL}")
    for path in write_mask(out, picture, result, drawn=image == "example"):
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


def story(result: FrameworkResult, question: str, day: date) -> Iterator[str]:
    """A result as lines of text."""
    yield f"question  {question!r}, asked on {day}"
    gate = result.decision
    yield f"gate      {'look up' if gate.retrieve else 'no look-up'} (by {gate.by}): {gate.reason}"
    if found := result.retrieval:
        yield f"searched  {found.query!r}: {len(found.passages)} passages"
        for one in found.candidates[:4]:
            alike = f", in the image {found.visible[one.text]:.2f}" if one.text in found.visible else ""
            yield f"candidate {one.text}: confidence {one.confidence:.2f}{alike}"
        how = "text and image agree" if found.agreed else "the image shows nothing like it; the text alone"
        yield f"answer    {found.answer.text} ({how})" if found.answer else "answer    none found"
    for source in result.sources[:12]:
        yield f"source    {source.date or 'no date'}, {source.licence}: {source.title} <{source.url}>"
    yield f"prompt    {result.prompt!r}"
    if check := result.verification:
        images = f"{len(check.used)} images used, {len(check.rejected)} rejected"
        yield f"verified  {check.action}: {check.reason}; {images}"
    share = result.mask.mask.mean()
    yield f"mask      {share:.1%} of the image, confidence {result.mask.confidence:.2f}"


def printable(line: str) -> str:
    """A line without what could steer a terminal: text of the web is shown, never obeyed."""
    return "".join(c if c.isprintable() else " " for c in line)


def check_answer_file(out: Path, image: str) -> None:
    """Refuse to write over the image that is asked about, or into nowhere."""
    check_file(out, "--out")
    for path in (out, _beside(out, "overlay")):
        if path.exists() and Path(image).exists() and path.samefile(image):
            raise ValueError(f"--out {str(out)!r} would overwrite the picture {image!r}; name another file")


def write_mask(
    out: Path, picture: NDArray[np.uint8], result: FrameworkResult, drawn: bool = False
) -> list[Path]:
    """The mask (0 and 255), an overlay to look at, and the image if it was drawn; their paths."""
    from PIL import Image

    from rose_kit.viz.overlay import overlay

    name = result.answer.text if result.answer else "mask"
    labels = result.mask.mask.astype(int)
    Image.fromarray((255 * labels).astype("uint8")).save(out, "PNG")
    Image.fromarray(overlay(picture, labels - 1 + 256 * (labels == 0), [name])).save(
        _beside(out, "overlay"), "PNG"
    )
    if not drawn:
        return [out, _beside(out, "overlay")]
    Image.fromarray(picture).save(_beside(out, "image"), "PNG")
    return [out, _beside(out, "overlay"), _beside(out, "image")]


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}.{what}.png")


# --- notebooks --------------------------------------------------------------------------------------------


@app.command(short_help="Execute a notebook with other parameters.")
def run(
    notebook: Annotated[
        str, typer.Argument(help="Its number (00), its name (experiments/nest) or its path.")
    ],
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for what it writes [default: runs/NAME].")] = None,
    show: Annotated[bool, typer.Option("--list", help="List its parameters and do nothing.")] = False,
) -> None:
    """Execute a notebook with other parameters; the executed copy and its files go to runs/NAME."""
    import os

    import papermill

    path = find_notebook(notebook)
    try:
        declared = papermill.inspect_notebook(str(path))
        defaults = {name: ast.literal_eval(about["default"]) for name, about in declared.items()}
    except Exception as error:  # of nbformat, whatever a malformed file trips over
        raise ValueError(f"{path} is not a notebook with literal parameters: {_one_line(error)}") from None
    if show:
        for name, about in declared.items():
            typer.echo(f"{name}={defaults[name]!r} ({about['inferred_type_name']}: {about['help']})")
        return
    parameters = parse_options(parameter or (), defaults, "parameter")
    folder = out or Path("runs") / path.stem
    if (folder / path.name).exists() and path.samefile(folder / path.name):
        raise ValueError(f"--out {str(folder)!r} would overwrite {str(path)!r}; choose another folder")
    if "out" in declared:  # kernels start in the notebook's own folder, as in JupyterLab
        parameters.setdefault("out", Path(os.path.relpath(folder, path.parent)).as_posix())
    folder.mkdir(parents=True, exist_ok=True)
    executed = execute(path, folder / path.name, parameters)
    for cell in executed.cells:
        if "result" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                text = output.get("text") if output.get("name") == "stdout" else None
                if text := (text or output.get("data", {}).get("text/plain", "")).rstrip():
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


def execute(path: Path, output: Path, parameters: Mapping[str, Any]):
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


# --- sweep ------------------------------------------------------------------------------------------------

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
    grid: Annotated[Path, typer.Argument(help="YAML file; see below.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results [default: runs/ and the grid's name].")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Evaluations at a time on this machine.", min=1)] = 1,
    plugin: PluginOption = None,
    baseline: Annotated[
        str | None, typer.Option(help="The method that others are compared with [default: knn-clip].")
    ] = None,
) -> None:
    """Evaluate every combination of a grid, and print the methods side by side.

    Each dataset, encoder and number of shots leaves a table with a row per image. One that is there is
    not made again while its settings, the plugin and the kit's version are the same. The methods of a
    plugin are checked (`rose-kit check`), then join those of the grid.
    """
    from papermill.iorw import read_yaml_file

    from rose_kit.data import atomic_write
    from rose_kit.evaluation import expand_grid, leaderboard, run_grid

    own = check_plugin_methods(plugin) if plugin is not None else []
    folder = writable_folder(out or Path("runs") / grid.stem)
    if not grid.is_file():
        raise ValueError(f"grid {str(grid)!r} is not a YAML file; see rose-kit sweep --help for one")
    try:
        settings = expand_grid(read_yaml_file(str(grid)), own)
    except Exception as error:  # of YAML, or of what it says
        raise ValueError(f"grid {str(grid)!r}: {_one_line(error)}") from None
    rows, kept = run_grid(settings, folder, jobs=jobs, plugin=plugin)
    board: Leaderboard = leaderboard(rows, baseline)
    typer.echo(
        f"{kept} of {rows.groupby(['dataset', 'encoder', 'shots']).ngroups} tables were there already\n"
    )
    typer.echo(str(board))
    import matplotlib

    matplotlib.use("agg", force=False)
    from rose_kit.viz.leaderboard import leaderboard_figure
    from rose_kit.viz.plots import save

    with atomic_write(folder / "leaderboard.md") as path:
        path.write_text(f"{board}\n", encoding="utf-8")
    with atomic_write(folder / "leaderboard.csv") as path:
        board.table.to_csv(path, index=False, float_format="%.4f")
    with atomic_write(folder / "leaderboard.png") as path:
        save(leaderboard_figure(board), path)
    typer.echo(f"\nwritten to {folder}: leaderboard.md, leaderboard.csv, leaderboard.png")


def check_plugin_methods(plugin: Path) -> list[str]:
    """Load a plugin and check what it brings; returns the names of its methods."""
    from rose_kit.contract import check_plugin
    from rose_kit.registry import methods

    for name, outcomes in (checked := check_plugin(plugin)).items():
        wrong = [o for o in outcomes if not o.passed]
        if wrong:
            more = f" ({len(wrong)} checks failed: rose-kit check {plugin})" if wrong[1:] else ""
            raise ValueError(f"{name!r} of {plugin}: {wrong[0].name}: {wrong[0].detail}{more}")
    return [name for name in checked if name in methods]


@app.command(short_help="Try a plugin on all that may be asked of it.")
def check(
    plugin: Annotated[Path, typer.Argument(metavar="FILE", help="Python file with methods or encoders.")],
) -> None:
    """Try the methods and encoders of a plugin on all that an evaluation may ask of them.

    Methods: shapes, probabilities, determinism from image to image, classes without support or text, an
    empty memory, other vocabularies, evidence; their speed is reported. Encoders: grid, width, unit
    length, text. What fails is told with how to mend it, and the exit status is 1.
    """
    from rose_kit.contract import check_plugin

    checked = check_plugin(plugin)
    for name, outcomes in checked.items():
        typer.echo(name)
        for o in outcomes:
            typer.echo(f"  {'ok' if o.passed else 'FAIL':<4}  {o.name:<26} {o.detail}".rstrip())
    if not checked:
        raise ValueError(
            f"plugin {str(plugin)!r} registers no method and no encoder; write @register_method('a-name')"
        )
    if not all(o.passed for outcomes in checked.values() for o in outcomes):
        raise typer.Exit(1)


# --- doctor -----------------------------------------------------------------------------------------------


@app.command(short_help="Check the installation, part by part.")
def doctor() -> None:
    """Check the installation: interpreter, packages, bundled weights, kernel; and how to mend them."""
    import importlib.metadata
    import os
    import subprocess

    def kernel() -> str:
        from jupyter_client.manager import KernelManager

        interpreter = KernelManager(kernel_name="python3").format_kernel_cmd()[0]
        # Links are compared unresolved: a virtual environment's python links to the system's.
        if os.path.abspath(interpreter) != os.path.abspath(sys.executable):
            raise RuntimeError(f"python3 starts {interpreter}, not {sys.executable}")
        return "python3 starts this interpreter"

    def weights() -> str:
        import numpy as np

        from rose_kit.encoder import load_encoder

        grid = load_encoder("bundled").encode_image(np.zeros((64, 64, 3), np.uint8)).grid
        return f"encode a 64 px image to {grid[0]} x {grid[1]} patches"

    def packages() -> str:
        done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(_one_line(done.stdout))
        return f"rose_kit {importlib.metadata.version('rose_kit')} and all that it requires"

    parts = {
        "packages": (
            packages,
            "run `make` again, or: python -m pip install --require-hashes -r requirements.lock",
        ),
        "bundled weights": (weights, "git checkout -- rose_kit/encoder/weights"),
        "jupyter kernel": (kernel, "start Jupyter from this environment, with JUPYTER_PREFER_ENV_PATH=1"),
    }
    typer.echo(f"ok    {'python':<16} {sys.version.split()[0]} at {sys.executable}")
    failed = 0
    for name, (look, mend) in parts.items():
        try:
            typer.echo(f"ok    {name:<16} {look()}")
        except Exception as error:  # a doctor reports whatever goes wrong, and looks at the next part
            failed += 1
            typer.echo(
                f"FAIL  {name:<16} {type(error).__name__}: {_one_line(error)}\n      to mend it: {mend}"
            )
    typer.echo(f"{failed} part(s) failed" if failed else "all parts are ok")
    if failed:
        raise typer.Exit(1)


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


def parse_day(text: str, option: str) -> date:
    """A day such as 2026-03-01, given for `option`."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a day such as 2026-03-01, got {text!r}") from None


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
    valid = ", ".join(f"{name}={default!r}" for name, default in defaults.items()) or "none"
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1) if equals else []
            hint = f", did you mean {near[0]!r}?" if near else ";"
            wrong = f"unknown {what} {name!r}{hint}" if equals else f"{text!r} is not name=value;"
            raise ValueError(f"{wrong} {what}s and their defaults: {valid}")
        try:
            parsed[name] = _value(value, defaults[name])
        except ValueError as error:
            raise ValueError(f"{what} {name}: {error}; {what}s and their defaults: {valid}") from None
    return parsed


def _value(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    if isinstance(default, list | tuple):
        parts = [part.strip() for part in text.strip("[]() ").split(",") if part.strip()]
        return type(default)(_value(part, default[0] if len(default) else None) for part in parts)
    try:
        value = ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"{text!r} is not of type {type(default).__name__}")
    return value


def method_options(
    texts: Sequence[str], names: Sequence[str], preset: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Options of methods, METHOD.OPTION=VALUE each: those of a preset, overridden by what the user set."""
    from rose_kit.model import methods

    options = {name: known_options(name, methods.find(name), preset.get(name)) for name in names}
    for text in texts:
        method, dot, assignment = text.partition(".")
        if not dot or method not in options or method not in methods.names():
            raise ValueError(f"--set {text!r} is not METHOD.OPTION=VALUE; methods: {', '.join(options)}")
        options[method] |= parse_options([assignment], _defaults(methods.find(method)), "option")
    return options


def known_options(name: str, factory: Any, told: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that a preset tells for what `factory` makes; refuses those that it has not."""
    defaults = _defaults(factory)
    if wrong := sorted(set(told or {}) - set(defaults)):
        has = ", ".join(f"{option}={default!r}" for option, default in defaults.items()) or "none"
        raise ValueError(f"{name} has no option {wrong[0]!r}, which the preset tells; options: {has}")
    return dict(told or {})


def _defaults(factory: Any) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters.items()
    return {name: None if p.default is p.empty else p.default for name, p in parameters}


def make_regions(text: str | None, settings: Mapping[str, Any]) -> Regions | None:
    """What `--regions NAME:OPTION=VALUE,...` asks for, with a preset's options; None if not given."""
    from rose_kit.regions import make_regions as make
    from rose_kit.registry import region_makers

    if text is None:
        return None
    name, _, rest = text.partition(":")
    maker = region_makers.find(name)
    options = known_options(name, maker, settings["regions"].get(name))
    if rest:
        options |= parse_options(rest.split(","), _defaults(maker), "option")
    return make(name, **options)


def dataset_options(data: str, domain: str | None, size: int | None) -> dict[str, Any]:
    """Options of a dataset by name; a folder has none, so a preset's size does not reach it."""
    from rose_kit.registry import datasets

    given = {key: value for key, value in (("domain", domain), ("size", size)) if value is not None}
    return given if data in datasets.names() or domain else {}


PRESET: dict[str, Any] = {  # what an evaluation does where nobody says otherwise
    "methods": None, "options": {}, "support_windows": None, "query_windows": None, "seeds": (1, 2, 3),
    "encoder": "bundled", "size": None, "regions": {},
}  # fmt: skip
KINDS = {
    "methods": list, "options": dict, "support_windows": dict, "query_windows": dict, "seeds": list,
    "encoder": str, "size": int, "regions": dict,
}  # fmt: skip


def read_preset(name: str | None) -> dict[str, Any]:
    """Settings by the name of a preset, or from a YAML file with keys of `PRESET`; None: the defaults.

    Raises:
        ValueError: there is no such preset, or the file is not one; lists what there is.
    """
    if name is None:
        return PRESET
    from papermill.iorw import read_yaml_file

    folder = NOTEBOOKS / "experiments" / "presets"
    path = Path(name) if Path(name).suffix == ".yaml" else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise ValueError(
            f"unknown preset {name!r}. Known: {known or 'none outside of a clone'}, or a .yaml file"
        )
    try:
        told = dict(read_yaml_file(str(path)))
    except Exception as error:
        raise ValueError(f"preset {str(path)!r} is not YAML with keys: {_one_line(error)}") from None
    if unknown := sorted(set(told) - set(PRESET)):
        raise ValueError(f"preset {str(path)!r}: unknown key {unknown[0]!r}; keys: {', '.join(PRESET)}")
    for key, value in told.items():
        if type(value) is not KINDS[key]:
            raise ValueError(f"preset {str(path)!r}: {key} must be a {KINDS[key].__name__}, got {value!r}")
    return PRESET | told


def windows_of(settings: Mapping[str, Any], role: str, encoder: Encoder) -> Windows:
    """How images are scaled and cut: as a preset says, else as the encoder prefers, else whole."""
    from rose_kit.encoder import Windows

    if told := known_options(f"{role}_windows", Windows, settings[f"{role}_windows"]):
        return Windows(**{k: tuple(v) if isinstance(v, list) else v for k, v in told.items()})
    return getattr(encoder, "preferred_windows", None) or Windows()


def load_plugin(path: Path) -> None:
    """See `rose_kit.registry.load_plugin`."""
    from rose_kit import registry

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
        0 for success, 1 for work that failed, 2 for a user's mistake (which is told in one line on
        standard error), 130 for an interrupt from the keyboard.
    """
    cli = typer.main.get_command(app)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            return cli.main(args=list(args) or ["--help"], prog_name=name, standalone_mode=False) or 0
        except typer.TyperException as error:  # the command line itself: unknown option, missing argument
            message = f"{error.format_message()} {_given(error, args)}{_valid(error, cli, args)}"
        except (ValueError, OSError, ImportError) as error:
            message = str(error)
    typer.echo(f"error: {_one_line(message)}", err=True)
    return 2


def _one_line(text: object) -> str:
    return " ".join(printable(str(text)).split())


def _warn(message: Warning | str, category: type[Warning], *_) -> None:
    """Tell our own warnings in one line; those of libraries are for programmers."""
    if category is UserWarning:
        typer.echo(f"warning: {_one_line(message)}", err=True)


def _given(error: typer.TyperException, args: Sequence[str]) -> str:
    """The value that an option refused, which messages about numbers leave out."""
    options = getattr(getattr(error, "param", None), "opts", ())
    values = [value for option, value in pairwise(args) if option in options]
    return f"(got {values[-1]!r}). " if values else ""


def _valid(error: typer.TyperException, cli, args: Sequence[str]) -> str:
    """What could have been written where the command line went wrong."""
    command = cli
    for word in args:  # an error that comes before a command's own context names none
        command = (getattr(command, "commands", None) or {}).get(word, command)
    if getattr(error, "ctx", None):
        command = error.ctx.command
    names = getattr(command, "commands", None)
    if names:
        return f"Commands: {', '.join(names)}; each has --help."
    options = (name for p in command.params for name in p.opts if name.startswith("--"))
    return f"Options: {', '.join(options)}; see --help."


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and do nothing else.")] = False,
) -> None:
    if version:
        typer.echo(f"rose_kit {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `rose-kit` console script, and of `python -m rose_kit`."""
    sys.exit(status(sys.argv[1:]))
