"""Masks for other tools: the folder format, with PNGs in colour. COCO JSON: `rose_kit.viz.coco`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from rose_kit.data import DataError, Sample, atomic_write, read_classes
from rose_kit.types import IGNORE
from rose_kit.viz.overlay import palette


def save_labels(path: str | Path, labels: ArrayLike, classes: int = 0) -> None:
    """Write class ids as a PNG that shows them in the colours of `overlay`; 255 is black.

    Args:
        path: of the PNG.
        labels: (H, W) integers, 0 to 65535; an id above 255 makes it a grey PNG of 16 bits.
        classes: how many there are where ids count them, as in an answer; 0: ids have gaps, at 255 too.

    Raises:
        ValueError: there are more than 255 classes, so that one of them would be read as ignore.
    """
    if classes > IGNORE:
        raise ValueError(
            f"{classes} classes do not fit a PNG in which {IGNORE} is ignore; name {IGNORE} at most"
        )
    labels = np.asarray(labels)
    wide = labels.size and labels.max() > IGNORE
    image = Image.fromarray(labels.astype(np.uint16 if wide else np.uint8))
    if not wide:
        image.putpalette([*palette(IGNORE).ravel().tolist(), 0, 0, 0])
    image.save(path, format="png")


def write_folder(path: str | Path, samples: Iterable[Sample]) -> Path:
    """Write samples in the folder format; `FolderDataset(path)` reads them back.

    An image that has a `source` is copied as it is, the others become PNGs. All is written beside, then
    renamed: a folder is there whole or not at all.

    Args:
        path: of the folder, which must not exist yet.
        samples: at least one; ids of one name throughout.

    Raises:
        DataError: the folder exists, there are no samples, two share an id or disagree about a class,
            a name that `classes.txt` cannot hold, or a mask with an id that its classes lack.
    """
    path, classes, count = Path(path), {}, 0
    if path.exists():
        raise DataError(f"{str(path)!r} is there already; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as beside:
        for name in ("images", "masks"):
            (beside / name).mkdir(parents=True)
        for sample in samples:
            _write_sample(beside, sample, classes)
            count += 1
        if not count:
            raise DataError(f"no samples to write to {str(path)!r}")
        lines = "".join(f"{c},{name}\n" for c, name in sorted(classes.items()))
        (beside / "classes.txt").write_text(lines, encoding="utf-8")
        if read_classes(beside / "classes.txt") != classes:
            raise DataError(f"ids and names that classes.txt cannot hold (255 is ignore): {classes}")
    return path


def _write_sample(folder: Path, sample: Sample, classes: dict[int, str]) -> None:
    """Write one image and its mask; `classes` gains the sample's."""
    ids_of(sample.image_id, sample.mask, sample.classes)
    for c, name in sample.classes.items():
        if classes.setdefault(int(c), name) != name:
            raise DataError(f"class {c} is {classes[int(c)]!r}, but {name!r} in {sample.image_id!r}")
    mask = folder / "masks" / f"{sample.image_id}.png"
    if mask.exists() or mask.parent != folder / "masks" or mask.stem != sample.image_id:
        raise DataError(f"image id {sample.image_id!r} occurs twice, or is no file name")
    save_labels(mask, sample.mask)
    if sample.source:
        shutil.copyfile(sample.source, folder / "images" / f"{sample.image_id}{Path(sample.source).suffix}")
    else:
        Image.fromarray(sample.image).save(folder / "images" / f"{sample.image_id}.png")


def ids_of(name: str, mask: NDArray, classes: Mapping[int, str]) -> list[int]:
    """The class ids that a mask holds, without 255.

    Args:
        name: of its image, for the message.
        mask: (H, W) integers.
        classes: id -> name.

    Raises:
        DataError: an id has no name.

    >>> ids_of("a", np.array([[3, 255]]), {3: "cat"})
    [3]
    """
    present = [c for c in np.unique(mask).tolist() if c != IGNORE]
    unknown = [c for c in present if c not in classes]
    if unknown:
        raise DataError(f"the mask of {name!r} holds {unknown[0]}; its classes are {dict(classes)}")
    return present
