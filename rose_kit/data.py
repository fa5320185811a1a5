"""Pixel-annotated images: one sample, the folder format, and the draw of a support set.

The folder format: `images/*`, `masks/*.png` (one channel of class ids, 255 = ignore), `classes.txt`
(`id,name` per line; ids may have gaps), and optional `splits/<name>.txt` (an image id per line).
"""

from __future__ import annotations

import inspect
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from rose_kit.registry import datasets
from rose_kit.types import IGNORE

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_PAIRS = (("support", "query"), ("train", "val"), ("train", "test"))


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
    """

    image_id: str
    image: NDArray[np.uint8]
    mask: NDArray[np.integer]
    classes: Mapping[int, str]
    source: str | None = None


class Dataset(Protocol):
    """Anything that gives samples by position: folders on disk, drawn images."""

    class_names: Sequence[str]  # every class the masks may hold
    ids: Sequence[str]  # (len,) image ids, all different

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample: ...

    def classes_of(self, i: int) -> frozenset[str]: ...  # names present in mask i, without the image


class FolderDataset:
    """A folder of images and masks, read when asked for.

    Args:
        path: the folder.
        split: a name under `splits/`; None takes every image.

    Attributes:
        classes: id -> name, as in `classes.txt`; `class_names` are its values.
        ids: file stems of the images, sorted or in the order of the split.

    Raises:
        DataError: no such folder, no images, an image without a mask, a malformed `classes.txt`,
            an unknown split or one that names a missing image. Reading a sample raises it for
            a broken file, a mask of another size, or a mask value that `classes.txt` lacks.
    """

    def __init__(self, path: str | Path, split: str | None = None) -> None:
        self.path, self.split = Path(path), split
        if not self.path.is_dir():
            raise DataError(f"data folder {str(self.path)!r} does not exist or is no folder")
        self.classes = read_classes(self.path / "classes.txt")
        self.class_names = tuple(self.classes.values())
        self._images = _by_stem(self.path / "images", IMAGE_SUFFIXES)
        self._masks = _by_stem(self.path / "masks", (".png",))
        self.ids = sorted(self._images) if split is None else self._read_split(split)
        bare = [i for i in self.ids if i not in self._masks]
        if bare:
            raise DataError(f"image without a mask: {self._images[bare[0]]} ({len(bare)} in all)")
        self._present: dict[str, frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Sample:
        image_id = self.ids[i]
        image, mask = read_image(self._images[image_id]), self._mask(image_id)
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"mask {self._masks[image_id]} is {mask.shape} (rows, columns), "
                f"but its image {self._images[image_id].name} is {image.shape[:2]}"
            )
        return Sample(image_id, image, mask, self.classes, str(self._images[image_id]))

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in mask `i`; the mask is read once and the answer kept."""
        image_id = self.ids[i]
        if image_id not in self._present:
            self._mask(image_id)
        return self._present[image_id]

    def subset(self, ids: Sequence[str]) -> FolderDataset:
        """The same folder with only the images `ids`, in that order.

        Raises:
            DataError: an id is not among this dataset's.
        """
        missing = sorted(set(ids) - set(self.ids))
        if missing:
            raise DataError(f"no image {missing[0]!r} among the {len(self)} of {self.path}")
        part = FolderDataset.__new__(FolderDataset)
        part.__dict__.update(self.__dict__, ids=list(ids))
        return part

    def validate(self) -> None:
        """Read every sample once, with a progress bar.

        Raises:
            DataError: at the first sample that cannot be used.
        """
        for i in tqdm(range(len(self)), desc=f"checking {self.path.name}"):
            self[i]

    def _mask(self, image_id: str) -> NDArray[np.integer]:
        path = self._masks[image_id]
        mask = _read(path, np.asarray)
        if mask.ndim != 2:
            raise DataError(f"mask {path} has {mask.shape[2]} channels; it needs one, of class ids")
        values = np.unique(mask)
        unknown = [v for v in values.tolist() if v not in self.classes and v != IGNORE]
        if unknown:
            known = ", ".join(map(str, self.classes))
            raise DataError(f"mask {path} holds {unknown[0]}, which classes.txt lacks; it has {known}")
        self._present[image_id] = frozenset(self.classes[v] for v in values.tolist() if v != IGNORE)
        return mask.astype(np.uint8) if mask.dtype == bool else mask

    def _read_split(self, split: str) -> list[str]:
        known = {p.stem: p for p in sorted((self.path / "splits").glob("*.txt"))}
        if split not in known:
            raise DataError(f"unknown split {split!r} of {self.path}; it has: {', '.join(known) or 'none'}")
        ids = [line.strip() for line in _lines(known[split]) if line.strip()]
        missing = [i for i in ids if i not in self._images]
        if missing:
            raise DataError(f"{known[split]} names {missing[0]!r}, which is not in {self.path / 'images'}")
        if not ids or len(set(ids)) < len(ids):
            raise DataError(f"{known[split]} is empty or names an image twice")
        return ids


def default_splits(path: str | Path, seed: int = 0) -> tuple[FolderDataset, FolderDataset]:
    """The support and query sets of a folder.

    The splits support and query, else train and val, else train and test; failing those, a seeded
    half of the images each.

    Raises:
        DataError: as `FolderDataset`; or a single image, which cannot be split.
    """
    for support, query in SPLIT_PAIRS:
        if all((Path(path) / "splits" / f"{name}.txt").is_file() for name in (support, query)):
            return FolderDataset(path, support), FolderDataset(path, query)
    whole = FolderDataset(path)
    if len(whole) < 2:
        raise DataError(f"{path} holds {len(whole)} image; support and query need one each")
    order = [whole.ids[i] for i in np.random.default_rng(seed).permutation(len(whole))]
    half = len(whole) // 2
    return whole.subset(sorted(order[:half])), whole.subset(sorted(order[half:]))


def open_dataset(
    data: str,
    options: Mapping[str, Any] | None = None,
    *,
    support: str | None = None,
    query: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Where support images are drawn from, and the images to answer.

    Args:
        data: a registered dataset by its name, or a folder in the folder format.
        options: of a registered dataset; a folder has none.
        support, query: splits of a folder, both or neither; see `default_splits`.

    Raises:
        ValueError: no such folder, split or option, an option of the wrong type, or only one split.
    """
    if data in datasets.names():
        if support or query:
            raise ValueError(f"{data} has no split {support or query!r}: it draws support and query apart")
        _check_options(data, options or {})
        return datasets.make(data, **(options or {}))
    if options:
        raise ValueError(
            f"folder {data!r} has no option {next(iter(options))!r}; datasets that have some: "
            f"{', '.join(datasets.names()) or 'none'}"
        )
    if (support is None) != (query is None):
        raise ValueError(f"name both splits or neither: got support {support!r} and query {query!r}")
    if support is None:
        return default_splits(data)
    return FolderDataset(data, support), FolderDataset(data, query)


def open_support(data: str, options: Mapping[str, Any] | None = None, split: str | None = None) -> Dataset:
    """The annotated images a memory is made of.

    Args:
        data, options: as for `open_dataset`.
        split: of a folder; by default support, else train, else every image.

    Raises:
        ValueError: as `open_dataset`.
    """
    if data in datasets.names() or options:
        return open_dataset(data, options, support=split)[0]
    for name, _ in SPLIT_PAIRS:
        if split is None and (Path(data) / "splits" / f"{name}.txt").is_file():
            split = name
    return FolderDataset(data, split)


def _check_options(data: str, options: Mapping[str, Any]) -> None:
    known = {name: p.default for name, p in inspect.signature(datasets.find(data)).parameters.items()}
    has = ", ".join(f"{key}={default!r}" for key, default in known.items()) or "none"
    for key, value in options.items():
        if key not in known:
            raise ValueError(f"dataset {data!r} has no option {key!r}; options: {has}")
        if type(value) is not type(known[key]):
            what = "a whole number" if type(known[key]) is int else "a name"
            raise ValueError(f"dataset {data!r}: {key} must be {what}, got {value!r}; options: {has}")


def sample_support(
    dataset: Dataset,
    shots: int,
    seed: int,
    *,
    classes: Sequence[str] | None = None,
    pool: Sequence[int] | None = None,
    max_pool: int = 5000,
) -> list[int]:
    """Draw support images so that every class occurs in at least `shots` of them (RNS, "B images per class").

    Classes are visited in random order; for each, random images that hold it are added until its
    count reaches `shots`. An image is drawn once and raises the count of every class it holds, so
    frequent classes end above `shots`: the long tail is kept.

    Args:
        dataset: where to draw from.
        shots: B, images per class; a class with fewer gives all it has.
        seed: of the draw; the same seed gives the same images.
        classes: the classes to serve; default all of the dataset.
        pool: positions to draw from; default all.
        max_pool: at most this many of them take part, chosen at random.

    Returns:
        Positions in `dataset`, ascending, all different.

    Warns:
        UserWarning: names the classes that no image of the pool holds.

    Raises:
        ValueError: `shots` is below 1, a class is not the dataset's, a position is outside it.
    """
    if shots < 1:
        raise ValueError(f"shots must be at least 1, got {shots}")
    names = list(dataset.class_names if classes is None else classes)
    unknown = sorted(set(names) - set(dataset.class_names))
    if unknown:
        raise ValueError(f"class {unknown[0]!r} is not in the data: {', '.join(dataset.class_names)}")
    outside = sorted(set(pool or ()) - set(range(len(dataset))))
    if outside:
        raise ValueError(f"pool holds {outside[0]}, but positions run from 0 to {len(dataset) - 1}")
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(sorted(set(range(len(dataset)) if pool is None else pool)))[:max_pool]
    present = {i: dataset.classes_of(i) for i in drawn.tolist()}
    chosen: set[int] = set()
    for c in rng.permutation(len(names)):
        holders = [i for i in present if names[c] in present[i]]
        held = len(chosen.intersection(holders))
        fresh = rng.permutation([i for i in holders if i not in chosen])
        chosen.update(fresh[: max(shots - held, 0)].tolist())
    _warn_of_absent(names, present.values())
    return sorted(chosen)


def read_classes(path: str | Path) -> dict[int, str]:
    """Read `classes.txt`: `id,name` per line, ids with or without gaps; blank lines and id 255 are skipped.

    Raises:
        DataError: the file is missing or empty, a line is malformed, an id or a name occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path.parent} has no {path.name}; a data folder holds images/, masks/, classes.txt")
    classes: dict[int, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        key, _, name = (part.strip() for part in line.partition(","))
        if not line.strip() or key == str(IGNORE):
            continue
        if not (key.isascii() and key.isdigit() and len(key) <= 5 and name):  # a PNG has 16 bits at most
            raise DataError(f"{path}, line {number}: expected 'id,name', got {line[:80]!r}")
        if "|" in name:  # would read as several texts of one class (Vocabulary.encode)
            raise DataError(f"{path}, line {number}: a class name cannot hold '|', got {name!r}")
        if int(key) in classes or name in classes.values():
            raise DataError(f"{path}, line {number}: id {key} or name {name!r} occurs twice")
        classes[int(key)] = name
    if not classes:
        raise DataError(f"{path} names no class")
    return classes


def _warn_of_absent(names: Sequence[str], present: Collection[frozenset[str]]) -> None:
    absent = [name for name in names if not any(name in held for held in present)]
    if absent:
        warnings.warn(f"no image to draw holds: {', '.join(absent)}", stacklevel=3)


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(f"{path} and {found[path.stem].name} are two files of one image id")
            found[path.stem] = path
    if not found:
        raise DataError(f"{folder} holds no {' or '.join(suffixes)} files")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as text: {error}") from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8, turned as its EXIF tag says; raises DataError if it is broken."""
    return _read(path, lambda image: np.asarray(ImageOps.exif_transpose(image).convert("RGB")))


def _read(path: Path, decode: Callable[[Image.Image], NDArray]) -> NDArray:
    try:
        with Image.open(path) as image:
            return decode(image)
    except Exception as error:  # a broken file raises OSError, SyntaxError, struct.error, zlib.error, ...
        raise DataError(f"cannot read image {path}: {error}") from error


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
