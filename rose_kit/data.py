"""Pixel-annotated images: one sample, the folder format, the draw of a support set, and safe writing.

The folder format: `images/*`, `masks/*.png` (one channel of class ids, 255 = ignore), `classes.txt`
(CSV, `id,name` per line; ids may have gaps), and optional `splits/<name>.txt` (an image id per line).
"""

import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rose_kit.registry import datasets, errors_as
from rose_kit.types import (
    IGNORE,
    check_positive,
    class_name,
    class_names,
    composed,
    join_names,
    split_names,
    unknown_name,
)

SPLIT_PAIRS = (("support", "query"), ("train", "val"), ("train", "test"))
# A name with commas and without quotes: `red, dark`. In a table, no blank follows a comma, or a number does.
PROSE = re.compile(r'[^\s,"][^,"]*(, [^\W\d_][^,"]*)+')
QUOTED = re.compile(r"(['\"`]).*\1")
MAX_POOL = 5000  # images that a support draw looks at, as in the RNS release


class DataError(ValueError):
    """A user's files are not what they should be; the message names the file and the value."""


@dataclass(frozen=True)
class Sample:
    """One annotated image.

    Args:
        image_id: unique within its dataset.
        image: (H, W, 3) uint8.
        mask: (H, W) integers: keys of `classes`, or 255 = ignore.
        classes: id -> class name.
        source: the image's file, if it has one.

    Raises:
        ValueError: a name cannot name a class (`rose_kit.types.class_name`).
    """

    image_id: str
    image: NDArray[np.uint8]
    mask: NDArray[np.integer]
    classes: Mapping[int, str]
    source: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", {c: class_name(name) for c, name in self.classes.items()})


class Dataset(Protocol):
    """Anything that gives samples by position: folders on disk, drawn images."""

    class_names: Sequence[str]  # every class the masks may hold
    ids: Sequence[str]  # (len,) image ids, all different

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample: ...

    def classes_of(self, i: int) -> frozenset[str]: ...  # names present in mask i, without the image


class FolderDataset:
    """A folder of images and masks, which are read when they are asked for.

    Args:
        path: the folder.
        split: a name under `splits/`, or image ids; None takes every image.

    Attributes:
        classes: id -> name, as in `classes.txt`; `class_names` are its values.
        ids: file stems of the images, sorted or in the order of the split.

    Raises:
        ValueError: an unknown split; lists those there are.
        DataError: no such folder, no images, an id without an image or a mask, a malformed `classes.txt` or
            split. Reading a sample raises it for a broken file, a mask of another size, or a mask value that
            `classes.txt` lacks.
    """

    def __init__(self, path: str | Path, split: str | Sequence[str] | None = None) -> None:
        self.path, self.split = Path(path), split
        if not (self.path / "classes.txt").is_file():
            raise DataError(f"{str(self.path)!r} is no folder with images/, masks/ and classes.txt")
        self.classes = read_classes(self.path / "classes.txt")
        self.class_names = tuple(self.classes.values())
        self._images = _by_stem(self.path / "images", (".jpg", ".jpeg", ".png"))
        self._masks = _by_stem(self.path / "masks", (".png",))
        split = sorted(self._images) if split is None else split
        self.ids = _read_split(self.path, split) if isinstance(split, str) else list(split)
        for kind, files in (("image", self._images), ("mask", self._masks)):
            if missing := [i for i in self.ids if i not in files]:
                raise DataError(f"{self.path} has no {kind} for {missing[0]!r} ({len(missing)} in all)")
        self._present: dict[str, frozenset[str]] = {}  # image id -> classes in its mask

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Sample:
        path, mask_path = self._images[self.ids[i]], self._masks[self.ids[i]]
        image, mask = read_image(path), self._read_mask(self.ids[i])
        if image.shape[:2] != mask.shape:
            raise DataError(f"mask {mask_path} is {mask.shape} (rows, columns), its image {image.shape[:2]}")
        return Sample(self.ids[i], image, mask, self.classes, str(path))

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in mask `i`; the mask is read for this only once."""
        if self.ids[i] not in self._present:
            self._read_mask(self.ids[i])
        return self._present[self.ids[i]]

    def _read_mask(self, image_id: str) -> NDArray[np.integer]:
        path = self._masks[image_id]
        with errors_as(DataError, f"cannot read {path}"), Image.open(path) as file:
            mask = np.asarray(file)
        if mask.ndim != 2:
            raise DataError(f"mask {path} has {mask.shape[2]} channels; it needs one, of class ids")
        values = set(np.unique(mask).tolist()) - {IGNORE}
        if unknown := sorted(values - set(self.classes)):
            raise DataError(f"mask {path} holds {unknown[0]}, but classes.txt only {list(self.classes)}")
        self._present[image_id] = frozenset(self.classes[value] for value in values)
        return mask.astype(np.uint8) if mask.dtype == bool else mask


def open_dataset(
    data: str, options: Mapping[str, Any] = {}, *, support: str | None = None, query: str | None = None
) -> tuple[Dataset, Dataset]:
    """Where support images are drawn from, and the images to answer.

    Args:
        data: a registered dataset by its name, or a folder in the folder format.
        options: of a registered dataset; a folder has none.
        support, query: splits of a folder, both or neither. By default support and query, else train and
            val, else train and test; a folder without such a pair is halved at random, always alike.

    Raises:
        ValueError: no such folder, split or option, an option of the wrong type, only one split, or a folder
            of one image, which cannot be halved.
    """
    if data in datasets.names():
        if support or query:
            raise ValueError(f"{data} has no split {support or query!r}: it draws support and query apart")
        return datasets.make(data, **options)
    if options:
        raise ValueError(f"folder {data!r} takes no options, got {dict(options)}; see {datasets.names()}")
    if (support is None) != (query is None):
        raise ValueError(f"name both splits or neither: got support {support!r} and query {query!r}")
    splits = support, query
    if support is None:
        complete = [pair for pair in SPLIT_PAIRS if set(pair) <= set(_split_files(data))]
        splits = complete[0] if complete else _halves(FolderDataset(data))
    return FolderDataset(data, splits[0]), FolderDataset(data, splits[1])


def _halves(dataset: FolderDataset) -> tuple[list[str], list[str]]:
    """The image ids of a random half of a folder, the same at each call, and those of the other half."""
    order = [dataset.ids[i] for i in np.random.default_rng(0).permutation(len(dataset))]
    if len(order) < 2:
        raise DataError(f"{dataset.path} holds {len(order)} image; support and query need one each")
    return sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])


def open_support(data: str | Path, split: str | None = None) -> Dataset:
    """The annotated images that a memory is made of.

    Args:
        data: as for `open_dataset`.
        split: of a folder; by default support, else train, else every image.

    Raises:
        ValueError: as `open_dataset`.
    """
    if data in datasets.names():
        return open_dataset(data, support=split)[0]
    defaults = [name for name in ("support", "train") if name in _split_files(data)]
    return FolderDataset(data, split or next(iter(defaults), None))


def sample_support(
    dataset: Dataset, shots: int, seed: int, *, classes: Sequence[str] | None = None
) -> list[int]:
    """Draw support images so that every class occurs in at least `shots` of them (RNS, "B images per class").

    Classes are visited in random order; for each, random images that hold it are added until its
    count reaches `shots`. An image is drawn once and raises the count of every class it holds, so
    frequent classes end above `shots`: the long tail is kept.

    Args:
        dataset: where to draw from; of more than `MAX_POOL` images so many take part, chosen at random.
        shots: B, images per class; a class with fewer gives all it has.
        seed: of the draw; the same seed gives the same images.
        classes: the classes to serve; default all of the dataset.

    Returns:
        Positions in `dataset`, ascending, all different.

    Warns:
        UserWarning: names the classes that none of these images holds.

    Raises:
        ValueError: `shots` is below 1, or a class is not the dataset's.
    """
    check_positive(shots=shots)
    names = list(dataset.class_names if classes is None else map(composed, classes))
    if unknown := sorted(set(names) - set(dataset.class_names)):
        raise unknown_name("class", unknown[0], dataset.class_names)
    rng = np.random.default_rng(seed)
    present = {i: dataset.classes_of(i) for i in rng.permutation(len(dataset))[:MAX_POOL].tolist()}
    drawn: set[int] = set()
    for c in rng.permutation(len(names)):
        holders = [i for i in present if names[c] in present[i]]
        lacking = max(shots - len(drawn.intersection(holders)), 0)
        drawn.update(rng.permutation([i for i in holders if i not in drawn])[:lacking].tolist())
    if absent := [name for name in names if name not in set().union(*present.values())]:
        warnings.warn(f"no image to draw holds: {', '.join(absent)}", stacklevel=2)
    return sorted(drawn)


def read_classes(path: str | Path) -> dict[int, str]:
    """Read `classes.txt`: CSV with `id,name` per line, as `classes_text` writes it.

    Ids may have gaps. A first line that begins with "id", blank lines, id 255 and empty further columns are
    skipped. A name with commas belongs in quotes: `0,"red, dark"`.

    Raises:
        DataError: the file is missing or empty, a line is malformed or has further columns, a name cannot
            name a class, an id or a name occurs twice.

    Warns:
        UserWarning: `0,red, dark` is read as one name; there are quotes around a name; or as `class_names`.
    """
    classes: dict[int, str] = {}
    for number, line in enumerate(_read_lines(Path(path)), start=1):
        with errors_as(DataError, f"{path}, line {number}"):
            key, name, *more = [*split_names(line), "", ""]
            if not line.strip() or key == str(IGNORE) or (number == 1 and key.lower() == "id"):
                continue
            rest = line.partition(",")[2].rstrip()
            if prose := PROSE.fullmatch(rest):
                name, more = rest, []
            if not re.fullmatch("[0-9]{1,5}", key) or int(key) >= 2**16 or not name or any(more):
                allowed = "an id up to 65535, quotes around a name that has a comma, no further columns"
                raise ValueError(f"expected 'id,name': {allowed}; got {line[:80]!r}")
            if int(key) in classes or class_name(name) in classes.values():
                raise ValueError(f"id {key} or name {name!r} occurs twice")
        if prose or QUOTED.fullmatch(name):
            hint = "a name with a comma belongs in double quotes, others in none"
            warnings.warn(f"{path}, line {number}: all of {name!r} is read as one name; {hint}", stacklevel=2)
        classes[int(key)] = class_name(name)
    if not classes:
        raise DataError(f"{path} names no class")
    class_names(classes.values())
    return classes


def classes_text(classes: Mapping[int, str]) -> str:
    """The lines of a `classes.txt`, which `read_classes` reads back.

    >>> print(classes_text({0: "sky", 7: "red, dark"}), end="")
    0,sky
    7,"red, dark"
    """
    return "".join(f"{join_names([str(c), name])}\n" for c, name in classes.items())


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Image id -> its file in a folder."""
    paths = [p for p in sorted(folder.glob("[!.]*")) if p.suffix.lower() in suffixes and p.is_file()]
    files = {path.stem: path for path in paths}
    for path in paths:
        if files[path.stem] != path:
            raise DataError(f"{path} and {files[path.stem].name} are two files of one image id")
    if not files:
        raise DataError(f"{folder} holds no {' or '.join(suffixes)} files")
    return files


def _split_files(folder: str | Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(Path(folder, "splits").glob("*.txt"))}


def _read_split(folder: Path, split: str) -> list[str]:
    """The image ids of a split, in its order."""
    files = _split_files(folder)
    if split not in files:
        raise unknown_name("split", split, files)
    ids = [line.strip() for line in _read_lines(files[split]) if line.strip()]
    if not ids or len(set(ids)) < len(ids):
        raise DataError(f"{files[split]} is empty or names an image twice")
    return ids


def _read_lines(path: Path) -> list[str]:
    with errors_as(DataError, f"cannot read {path}"):
        return path.read_text(encoding="utf-8-sig").splitlines()


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8, turned as its EXIF tag says; raises DataError if it is broken."""
    with errors_as(DataError, f"cannot read {path}"), Image.open(path) as file:
        return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Where to write the file or folder that becomes `path` in one step, when the block ends.

    A reader sees the old one or the new one, whole. If the block raises, `path` stays as it was and what
    was written is removed; a process that is killed leaves it under a hidden name beside `path`.

    Args:
        path: a file, replaced if it is there, or a folder, which must not hold anything yet.

    Yields:
        A path in the same folder, with the suffix of `path`, where nothing is yet.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        beside.unlink(missing_ok=True)
