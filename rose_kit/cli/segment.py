"""`rose-kit segment IMAGES --memory DIR`: labels, an overlay to look at, and what the answer rests on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm.auto import tqdm

from rose_kit.cli.inputs import (
    PluginOption,
    PresetOption,
    RegionsOption,
    preset_of,
    regions_of,
    split_list,
    windows_of,
    writable_folder,
)
from rose_kit.cli.memory import load_memory
from rose_kit.registry import load_plugin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rose_kit.memory import SupportMemory
    from rose_kit.types import Segmentation

EXAMPLE = "Example: rose-kit segment street.jpg --memory memory --out segmented --classes road,bus,sky"


def segment(
    images: Annotated[list[Path], typer.Argument(help="Pictures to segment: jpg or png.")],
    memory: Annotated[Path, typer.Option(help="Folder of a memory, as `rose-kit memory build` makes it.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names separated by commas; 'road|street' has two texts [default: the memory's]."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="zero-shot, knn-clip, freeda, rns, or a plugin's.")] = "rns",
    encoder: Annotated[
        str | None, typer.Option(help="Must be the one the memory was made with [default: as it records].")
    ] = None,
    preset: PresetOption = None,
    regions: RegionsOption = None,
    coco: Annotated[
        bool, typer.Option("--coco", help="Also write all masks as COCO JSON: OUT/coco.json.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option(help="Also draw the classes, with their names, over the picture.")
    ] = True,
    plugin: PluginOption = None,
) -> None:
    """Segment pictures with what a memory knows.

    For each picture: NAME.png holds class ids (an indexed PNG; classes.txt says which id is which),
    NAME.overlay.png shows them over the picture, and NAME.evidence.json lists for each class the
    support images and prototypes that the answer rests on, by weight. With --coco, coco.json holds the
    masks of all of them for annotation tools, as run lengths; its category ids are the class ids + 1.
    """
    from rose_kit.adapter import methods as registered
    from rose_kit.data import read_image
    from rose_kit.segmenter import Segmenter, name_vocabulary

    if plugin is not None:
        load_plugin(plugin)
    chosen = registered.make(method)
    settings = preset_of(preset)
    region_maker = regions_of(regions, settings)
    known, made_with = load_memory(memory, encoder)
    if not len(known):
        raise ValueError(f"memory {str(memory)!r} is empty: `rose-kit memory add` fills it")
    asked = known.classes if classes is None else split_list(classes, "classes")
    vocabulary = name_vocabulary(asked, made_with)
    if vocabulary.text is None:
        check_without_text(vocabulary.names, known, method, made_with.name)
    for path in images:
        read_image(path)  # so that a broken one is told before anything is written
    check_outputs(images, writable_folder(out), ["coco.json"] if coco else [])
    write_classes(out / "classes.txt", vocabulary.names)
    windows = windows_of(settings, "query", made_with)
    segmenter = Segmenter(made_with, known, chosen, region_maker, windows)
    for path in tqdm(images, "segmenting", disable=None):  # None: shown on terminals only
        photo = read_image(path)
        write_answer(out / path.stem, path, photo, segmenter.segment(photo, vocabulary), known, overlay)
    if coco:
        write_masks(out, images, vocabulary.names)
    typer.echo(f"{len(images)} picture(s) segmented into {len(vocabulary)} classes, in {out}")


def check_without_text(names: Sequence[str], memory: SupportMemory, method: str, encoder: str) -> None:
    """Refuse what an encoder without text cannot do.

    Raises:
        ValueError: the memory lacks a class, or the method needs text; lists what there is.
    """
    from rose_kit.adapter import methods as registered

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


def check_outputs(images: Sequence[Path], out: Path, more: Sequence[str] = ()) -> None:
    """Refuse to overwrite what `segment` did not write: a PNG per picture, and `more` files.

    Raises:
        ValueError: two pictures have one name, or a file that would be written is there already in a
            folder without the `classes.txt` of an earlier run.
    """
    stem, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} pictures are called {stem!r}; their results would overwrite each other")
    for target in [*(out / f"{path.stem}.png" for path in images), *(out / name for name in more)]:
        if target.exists() and (any(map(target.samefile, images)) or not (out / "classes.txt").exists()):
            raise ValueError(f"{str(target)!r} would be overwritten; choose another folder than {str(out)!r}")


def write_classes(path: Path, names: Sequence[str]) -> None:
    """Write `id,name` lines, as in the folder format.

    Raises:
        ValueError: there are more classes than a PNG with 255 = ignore can number, or the file lists
            others: label ids written earlier would change their meaning.
    """
    if len(names) > 255:
        raise ValueError(f"{len(names)} classes do not fit a PNG of ids; name at most 255 with --classes")
    text = "".join(f"{c},{name}\n" for c, name in enumerate(names))
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{str(path)!r} lists other classes than {', '.join(names)}; choose another --out")
    path.write_text(text, encoding="utf-8")


def write_answer(
    stem: Path,
    source: Path,
    photo: NDArray[np.uint8],
    answer: Segmentation,
    memory: SupportMemory,
    with_overlay: bool,
) -> None:
    """Write labels, overlay and evidence of one picture.

    Args:
        stem: path of the files, to be followed by their endings.
        source: the picture's own path, for the record.
        photo: (H, W, 3) uint8.
        answer: the segmentation, with evidence from `memory`.
        memory: see `answer`.
        with_overlay: whether to draw the overlay.
    """
    from PIL import Image

    from rose_kit.viz.evidence import evidence_by_class
    from rose_kit.viz.export import save_labels
    from rose_kit.viz.overlay import overlay

    save_labels(f"{stem}.png", answer.labels, len(answer.names))
    if with_overlay:
        Image.fromarray(overlay(photo, answer.labels, answer.names)).save(f"{stem}.overlay.png")
    record = {"image": str(source), "classes": evidence_by_class(answer, memory)}
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    Path(f"{stem}.evidence.json").write_text(text + "\n", encoding="utf-8")


def write_masks(out: Path, images: Sequence[Path], names: Sequence[str]) -> None:
    """Write `coco.json` from the PNGs of class ids that lie in a folder.

    Args:
        out: the folder; holds a PNG for each picture.
        images: the pictures, by whose file names COCO knows them.
        names: (C,) classes, by id.
    """
    import numpy as np
    from PIL import Image

    from rose_kit.viz.coco import write_coco

    masks = ((path.name, np.asarray(Image.open(out / f"{path.stem}.png"))) for path in images)
    write_coco(out / "coco.json", masks, dict(enumerate(names)))
