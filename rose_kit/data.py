"""Pixel-annotated images: one sample, the folder format, the draw of a support set, and safe writing.

The folder format: `images/*` and `masks/*`, files of the same names but for the suffix; `classes.txt` (CSV,
`id,name` per line; ids may have gaps); and optional `splits/<name>.txt` (an image id per line). An image is
what a viewer shows (`read_image`). A mask has one channel of class ids, 255 = ignore, in any format without
loss, such as a grey PNG, or one with a palette whose indices are the ids. Subfolders are not read.
"""

import os
import re
import secrets
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors import SafetensorError

from rose_kit.registry import call_with, datasets, errors_as
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
MAX_POOL = 5000  # images that a support draw looks at, as in the RNS release
IGNORED = re.compile("ignored?|void|none|unlabel+ed|unknown|border|boundary|edge|don't care", re.IGNORECASE)
# Pillow knows the first of these by name only; for the others it runs Ghostscript or needs Windows.
UNREADABLE = ("BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF")


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

    @property
    def class_names(self) -> Sequence[str]: ...  # every class the masks may hold

    @property
    def ids(self) -> Sequence[str]: ...  # (len,) image ids, all different

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample: ...

    def classes_of(self, i: int) -> frozenset[str]: ...  # names present in mask i, without the image


class FolderDataset:
    """A folder of images and masks, which are read when they are asked for.

    An image whose file has the name of a mask's, in any form of Unicode, belongs to it.

    Args:
        path: the folder.
        split: a name under `splits/`, or image ids; None takes every image.

    Attributes:
        classes: id -> name, as in `classes.txt`; `class_names` are its values.
        ids: file stems of the images, in Unicode's composed form; sorted or in the order of the split.

    Warns:
        UserWarning: names what is left out: hidden files, subfolders, files that are no images, masks without
            an image and images without a mask.

    Raises:
        ValueError: an unknown split; lists those there are.
        DataError: no such folder, no images, an id of the split without an image or a mask, a malformed
            `classes.txt` (a class of id 255 is one) or split. Reading a sample raises it for a broken file, a
            mask of another size or of several channels, or a mask value that `classes.txt` lacks.
    """

    def __init__(self, path: str | Path, split: str | Sequence[str] | None = None) -> None:
        self.path, self.split = Path(path), split
        if not (self.path / "classes.txt").is_file():
            raise DataError(f"{str(self.path)!r} is no folder with images/, masks/ and classes.txt")
        self.classes = read_classes(self.path / "classes.txt")
        self.class_names = tuple(self.classes.values())
        left_out: dict[str, list[str]] = {}
        self._images = _by_id(self.path / "images", left_out)
        self._masks = _by_id(self.path / "masks", left_out)
        images, masks = self._images.keys(), self._masks.keys()
        left_out |= {"masks without an image": sorted(masks - images)}
        left_out |= {"images without a mask": sorted(images - masks)}
        warn_left_out(self.path, left_out)
        split = sorted(images & masks) if split is None else split
        self.ids = _read_split(self.path, split) if isinstance(split, str) else list(map(composed, split))
        if len(set(self.ids)) < len(self.ids):
            raise DataError(
                f"{self.path}: the ids name an image twice: {Counter(self.ids).most_common(1)[0][0]!r}"
            )
        for kind, files in (("image", self._images), ("mask", self._masks)):
            if missing := [i for i in self.ids if i not in files]:
                hint = "; an id is a file's name without folder and suffix" if "." in missing[0] else ""
                raise DataError(f"{self.path} has no {kind} for {missing[0]!r} ({len(missing)} in all){hint}")
        if not self.ids:
            fault = f"no mask has an image's name: {min(images)!r}, {min(masks)!r}"
            raise DataError(f"{self.path}: {fault if not images & masks else 'the split names no image'}")
        self._values: dict[str, frozenset[int]] = {}  # image id -> the values of its mask

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Sample:
        path, mask_path = self._images[self.ids[i]], self._masks[self.ids[i]]
        image, mask = read_image(path), self._read_mask(self.ids[i])
        if image.shape[:2] != mask.shape:
            turned = image.shape[1::-1] == mask.shape
            hint = "; it lies on its side: turn it as the image's EXIF orientation says" if turned else ""
            raise DataError(
                f"mask {mask_path} is {mask.shape} (rows, columns), its image {image.shape[:2]}{hint}"
            )
        return Sample(self.ids[i], image, mask, self.classes, str(path))

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in mask `i`; the mask is read for this only once."""
        if self.ids[i] not in self._values:
            self._read_mask(self.ids[i])
        return frozenset(self.classes[value] for value in self._values[self.ids[i]] - {IGNORE})

    def _read_mask(self, image_id: str) -> NDArray[np.integer]:
        path = self._masks[image_id]
        with _open_image(path) as file:
            mask = np.asarray(ImageOps.exif_transpose(file))
        if file.format in ("JPEG", "MPO", "JPEG2000") or file.info.get("compression") == "jpeg":
            raise DataError(f"mask {path} is a JPEG, which changes values; save it as PNG from its source")
        if mask.dtype.kind == "f":
            raise DataError(f"mask {path} holds floats; save its class ids as whole numbers, in a PNG")
        if mask.ndim != 2:
            hint = "save the id of the class for each colour, without transparency, as a grey or palette PNG"
            raise DataError(f"mask {path} has {mask.shape[2]} channels ({file.mode}); it needs one: {hint}")
        values = frozenset(np.unique(mask).tolist())
        if unknown := sorted(values - {IGNORE, *self.classes}):
            between = min(values) < unknown[0] < max(values - {IGNORE})
            hint = "antialiased or rescaled? Save it without smoothing" if between else "name it as well"
            raise DataError(f"mask {path} holds {unknown[0]}, but classes.txt only {[*self.classes]}; {hint}")
        self._values[image_id] = values
        return mask.astype(np.uint8 if mask.dtype == bool else mask.dtype.newbyteorder("="))

    def _check_values(self) -> str:
        """What is odd about the masks that have been read; refuses what is wrong.

        Masks of 0 and 255 are odd unless others hold 255 beside a class, as around the things of VOC.
        """
        values = frozenset().union(*self._values.values())
        if values == {0, IGNORE}:  # the masks of other splits may say more
            for image_id in self._masks.keys() - self._values.keys():
                with suppress(DataError):
                    self._read_mask(image_id)
            values = frozenset().union(*self._values.values())
        if values <= {IGNORE}:
            raise DataError(f"{self.path}: every pixel of {len(self._values)} mask(s) is 255: ignore")
        binary = [value for value in self._values.values() if value == {0, IGNORE}]
        if not binary or any(IGNORE in value and value - {0, IGNORE} for value in self._values.values()):
            return ""
        odd = f"{len(binary)} mask(s) hold 0 and 255 only, and 255 means ignore"
        if len(self.classes) == 2 and values == {0, IGNORE}:
            other = max(self.classes)
            way_out = f"if {self.classes[other]!r} is meant, rewrite the masks with {other} for 255"
            raise DataError(f"{self.path}: {odd}; {way_out}")
        return odd


def class_ids(name: str, mask: NDArray, classes: Mapping[int, str]) -> list[int]:
    """The class ids that a mask holds, ascending, without 255.

    Args:
        name: of the image, for the message.
        mask: (H, W) integers.
        classes: id -> name.

    Raises:
        DataError: the mask holds an id that `classes` lacks.

    >>> class_ids("a", np.array([[3, 255]]), {3: "cat"})
    [3]
    """
    present = [c for c in np.unique(mask).tolist() if c != IGNORE]
    unknown = [c for c in present if c not in classes]
    if unknown:
        raise DataError(f"the mask of {name!r} holds {unknown[0]}; its classes are {dict(classes)}")
    return present


class TorchDataset:
    """Pairs of an image and its mask, as the datasets of torchvision give them, as a `Dataset` of the kit.

    Args:
        pairs: has a length, and gives by position an image, as `Segmenter` takes it, and its mask: (H, W)
            class ids, 255 = ignore, in an array, a tensor or a PIL image.
        classes: id -> class name.
        name: the images' ids are this, a hyphen and their position.

    Raises:
        ValueError: as `class_names`. Reading a sample raises DataError for a mask of another size, or a value
            that `classes` lacks.
    """

    def __init__(self, pairs: Any, classes: Mapping[int, str], name: str = "image") -> None:
        self.pairs, self.classes, self.class_names = pairs, classes, class_names(classes.values())
        self.ids = [f"{name}-{i}" for i in range(len(pairs))]
        self._present: dict[int, frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> Sample:
        image, mask = self.pairs[i]
        image, mask = eight_bits(image), np.asarray(mask)
        if mask.shape != image.shape[:2] or mask.dtype.kind not in "iub":
            expected = f"whole numbers, {image.shape[:2]} as its image"
            raise DataError(f"the mask of {self.ids[i]} is {mask.dtype} {mask.shape}; expected {expected}")
        present = class_ids(self.ids[i], mask, self.classes)
        self._present[i] = frozenset(self.classes[c] for c in present)
        return Sample(self.ids[i], image, mask, self.classes)

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in mask `i`; it is read for this only once."""
        if i not in self._present:
            self[i]
        return self._present[i]


def open_dataset(data: str, **options: Any) -> tuple[Dataset, Dataset]:
    """Where support images are drawn from, and the images to answer.

    Args:
        data: a registered dataset by its name, or a folder in the folder format.
        **options: of the registered dataset. Those of a folder are its splits `support` and `query`, both or
            neither (by default support and query, else train and val, else train and test; a folder without
            such a pair is halved at random, always alike); and `support_from`, another dataset, whose support
            images are drawn (its split `support`, or as `open_support`) for the folder's split `query`, by
            default query, val, test or every image.

    Raises:
        ValueError: no such folder, split or option, an option of the wrong type, only one split, or a folder
            of one image, which cannot be halved.
    """
    if data in datasets.names():
        return datasets.make(data, **options)
    return call_with(partial(_open_folder, data), options, f"folder {data!r}")


def _open_folder(
    data: str, support: str | None = None, query: str | None = None, support_from: str | None = None
) -> tuple[Dataset, Dataset]:
    """See `open_dataset`."""
    if support_from is not None:
        defaults = [name for _, name in SPLIT_PAIRS if name in _split_files(data)]
        return open_support(support_from, support), FolderDataset(data, query or next(iter(defaults), None))
    if (support is None) != (query is None):
        raise ValueError(f"name both splits or neither: got support {support!r} and query {query!r}")
    splits = support, query
    if support is None:
        complete = [pair for pair in SPLIT_PAIRS if set(pair) <= set(_split_files(data))]
        splits = complete[0] if complete else _halves(FolderDataset(data))
        if not complete:
            _warn_unused(data, "halves are drawn at random")
    return FolderDataset(data, splits[0]), FolderDataset(data, splits[1])


def _halves(dataset: FolderDataset) -> tuple[list[str], list[str]]:
    """The image ids of a random half of a folder, the same at each call, and those of the other half."""
    order = [dataset.ids[i] for i in np.random.default_rng(0).permutation(len(dataset))]
    if len(order) < 2:
        raise DataError(f"{dataset.path} holds {len(order)} image; support and query need one each")
    return sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])


def default_encoder(data: str) -> str:
    """Name of the encoder for a dataset where none is named: folders hold photographs."""
    return "bundled" if data in datasets.names() else "photos"


def open_support(data: str | Path, split: str | None = None) -> Dataset:
    """The annotated images that a memory is made of.

    Args:
        data: as for `open_dataset`.
        split: of a folder; by default support, else train, else every image.

    Raises:
        ValueError: as `open_dataset`.
    """
    if data in datasets.names():
        return open_dataset(data, **({"support": split} if split else {}))[0]
    defaults = [name for name in ("support", "train") if name in _split_files(data)]
    if not (split or defaults):
        _warn_unused(data, "every image is taken")
    return FolderDataset(data, split or next(iter(defaults), None))


def _warn_unused(folder: str | Path, instead: str) -> None:
    """Say which splits a folder has that nothing asks for."""
    if names := ", ".join(_split_files(folder)):
        warnings.warn(f"{folder}: {instead}; its splits are not used unless named: {names}", stacklevel=3)


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
        UserWarning: as `warn_absent`.

    Raises:
        ValueError: `shots` is below 1, or a class is not the dataset's; or as `warn_absent`.
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
    warn_absent(dataset, names, present, "to draw")
    return sorted(drawn)


def warn_absent(dataset: Dataset, names: Sequence[str], positions: Iterable[int], purpose: str) -> list[str]:
    """Say which classes have no pixel, before any number depends on it.

    Args:
        dataset: the annotated images.
        names: classes to look for.
        positions: of the images to look in.
        purpose: what the images are for, such as "to draw".

    Returns:
        The classes that none of these images holds.

    Warns:
        UserWarning: names them, and images without a pixel of any class, and counts the masks of a folder
            that hold 0 and 255 only, where 255 may stand for a class.

    Raises:
        DataError: every pixel of a folder's masks is 255, or the masks hold 0 and 255 only although
            `classes.txt` names another class: then 255 stands for that class, but means ignore.
    """
    held = {i: dataset.classes_of(i) for i in positions}
    present = frozenset().union(*held.values())
    absent = [name for name in names if name not in present]
    odd = dataset._check_values() if isinstance(dataset, FolderDataset) else ""
    if absent:
        warnings.warn(f"no image {purpose} holds: {', '.join(absent)}{odd and f' ({odd})'}", stacklevel=3)
    elif odd:
        warnings.warn(f"{dataset.path}: {odd}", stacklevel=3)
    if blank := [dataset.ids[i] for i in held if not held[i]]:
        ids = ", ".join(blank[:3]) + ", ..." * (len(blank) > 3)
        warnings.warn(f"{len(blank)} of {len(held)} images {purpose} have no class: {ids}", stacklevel=3)
    return absent


def read_classes(path: str | Path) -> dict[int, str]:
    """Read `classes.txt`: CSV with `id,name` per line, as `classes_text` writes it.

    Ids may have gaps. A first line that begins with "id", blank lines, empty further columns, and 255 under a
    name such as "ignore" are skipped. A name with commas belongs in quotes: `0,"red, dark"`.

    Raises:
        DataError: the file is missing or empty, a line is malformed or has further columns, a name cannot
            name a class, an id or a name occurs twice, or a class has the id 255.

    Warns:
        UserWarning: as `class_names`.
    """
    classes: dict[int, str] = {}
    for number, line in enumerate(_read_lines(Path(path)), start=1):
        with errors_as(DataError, f"{path}, line {number}"):
            key, name, *more = [*split_names(line), "", ""]
            if key == str(IGNORE) and name and not IGNORED.search(name):
                way_out = "name it 'ignore', or give the class another id, there and in the masks"
                raise ValueError(f"{IGNORE} is {name!r}, but {IGNORE} means ignore: {way_out}")
            if not line.strip() or key == str(IGNORE) or (number == 1 and key.lower() == "id"):
                continue
            if not re.fullmatch("[0-9]{1,5}", key) or int(key) >= 2**16 or not name or any(more):
                allowed = "an id up to 65535, quotes around a name that has a comma, no further columns"
                raise ValueError(f"expected 'id,name': {allowed}; got {line[:80]!r}")
            if int(key) in classes or class_name(name) in classes.values():
                raise ValueError(f"id {key} or name {name!r} occurs twice")
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


def _by_id(folder: Path, left_out: dict[str, list[str]]) -> dict[str, Path]:
    """Image id -> its file in a folder; what else is there is added to `left_out`."""
    files: dict[str, Path] = {}
    for path in list_files(folder, image_suffixes(), left_out):
        other = files.setdefault(composed(path.stem), path)
        if other != path:
            raise DataError(f"{path} and {other.name} are two files of one image id; remove or rename one")
    if not files:
        rest = f"; left out: {_describe(left_out)}" if left_out else ""
        raise DataError(f"{folder} holds no image file (.png, .jpg, .tif, ...){rest}")
    return files


def list_files(folder: Path, suffixes: tuple[str, ...], left_out: dict[str, list[str]]) -> list[Path]:
    """The files of a folder whose names, in lower case, end in one of some suffixes; sorted.

    Args:
        folder: to look in, not in its subfolders.
        suffixes: such as ".png".
        left_out: gains the names of the rest, by what they are: hidden files, subfolders, others.
    """
    files = []
    for path in sorted(folder.glob("*")):
        if path.name.startswith("."):
            kind = "hidden files"
        elif path.is_dir():
            kind = "subfolders"
        elif not path.name.lower().endswith(suffixes) or not path.is_file():
            kind = "files of other kinds"
        else:
            files.append(path)
            continue
        left_out.setdefault(kind, []).append(f"{folder.name}/{path.name}")
    return files


def warn_left_out(folder: Path, left_out: Mapping[str, Sequence[str]]) -> None:
    """Name what is not read in a folder: how many there are of each kind, and the first three."""
    if any(left_out.values()):
        warnings.warn(f"{folder}: left out: {_describe(left_out)}", stacklevel=2)


def _describe(left_out: Mapping[str, Sequence[str]]) -> str:
    firsts = {kind: ", ".join([*names[:3], *["..."] * (len(names) > 3)]) for kind, names in left_out.items()}
    return "; ".join(f"{kind}: {len(left_out[kind])} ({first})" for kind, first in firsts.items() if first)


def _split_files(folder: str | Path) -> dict[str, Path]:
    return {path.stem: path for path in list_files(Path(folder, "splits"), (".txt",), {})}


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
    with errors_as(DataError, f"cannot read {path} as UTF-8"):
        return composed(path.read_text(encoding="utf-8-sig")).splitlines()


def read_image(source: str | Path | Image.Image) -> NDArray[np.uint8]:
    """An image as a viewer shows it: upright by its EXIF tag, over white where it is transparent.

    Of 16 bits, the upper 8 are taken. Whole numbers of more bits, and floats, are levels up to 255 if none is
    larger, else up to 65535; floats in [0, 1] are shares of white. Of several frames, the first is read.

    Args:
        source: a file of any format that Pillow decodes by itself, or a PIL image, in any mode.

    Returns:
        (H, W, 3) uint8.

    Warns:
        UserWarning: a file holds more than one frame.

    Raises:
        DataError: it is broken or no image, or holds NaN, infinite, negative or larger values than these.
    """
    if isinstance(source, Image.Image):
        with errors_as(DataError, f"cannot read the {source.format or source.mode} image"):
            return _rgb(source)
    with _open_image(source) as file:
        return _rgb(file)


def image_array(image: Any) -> Any:
    """An image as users hold it -> array: a file or PIL image by `read_image`; a tensor, whose channels may
    be first, as (3, H, W), with its channels last; anything else as it is.
    """
    if isinstance(image, str | Path | Image.Image):
        return read_image(image)
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
        return image.transpose(1, 2, 0) if image.ndim == 3 and image.shape[0] == 3 else image
    return image


def eight_bits(image: Any) -> NDArray[np.uint8]:
    """An image as `image_array` takes it -> (H, W, 3) uint8; floats are shares of white."""
    pixels = np.asarray(image_array(image))
    return np.rint(255 * pixels).astype(np.uint8) if pixels.dtype.kind == "f" else pixels


def image_suffixes() -> tuple[str, ...]:
    """The suffixes of the files that `read_image` reads, in lower case, such as ".png"."""
    formats = _formats()
    return tuple(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in UNREADABLE]


@contextmanager
def _open_image(path: str | Path) -> Iterator[Image.Image]:
    with errors_as(DataError, f"cannot read {path}"), Image.open(path, formats=_formats()) as file:
        warn_frames(file, path)
        yield file


def warn_frames(file: Image.Image, name: object) -> None:
    """Warn, once for a folder, that only the first of several frames is read.

    In MPO and PSD the first is the whole image.
    """
    count, folder = getattr(file, "n_frames", 1), Path(str(name)).parent
    if count > 1 and file.format not in ("MPO", "PSD") and folder not in _warned_frames:
        _warned_frames.add(folder)
        once = "only the first is read, here and in files beside it"
        warnings.warn(f"{name} holds {count} frames; {once}", stacklevel=2)


_warned_frames: set[Path] = set()


def _rgb(file: Image.Image) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):
        values, key = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray(_eight_bits(values, file))
        if key is not None:
            image.putalpha(Image.fromarray(values != key))
    if image.mode == "La":  # Pillow converts it to this one only
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _eight_bits(values: NDArray, file: Image.Image) -> NDArray[np.uint8]:
    """(H, W) values of more than 8 bits -> (H, W) uint8, by the rule of `read_image`."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(255 * values).astype(np.uint8)
    if not (low >= 0 and high <= 65535) or (values % 1).any():  # also refuses NaN
        allowed = "levels up to 255 or 65535, or floats in [0, 1]"
        raise ValueError(f"it holds values from {low:g} to {high:g}; expected {allowed}")
    wide = file.mode.startswith("I;16") or (file.mode, file.format) == ("I", "PPM") or high > 255
    if not wide:
        return values.astype(np.uint8)
    tags = getattr(file, "tag_v2", {})  # of TIFF: 258 is the number of bits; 262 is 0 where 0 is white
    bits = tags.get(258, (16,))[0] if file.mode.startswith("I;16") else 16
    levels = values.astype(np.int64) >> bits - 8
    return (255 - levels if tags.get(262) == 0 else levels).astype(np.uint8)


def cache_folder() -> Path:
    """Where weights and text features are kept: `ROSE_KIT_CACHE`, or the system's folder for caches."""
    import pooch  # only where it is needed: it takes a while to import

    return Path(os.environ.get("ROSE_KIT_CACHE") or pooch.os_cache("rose_kit"))


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Where to write the file or folder that becomes `path` in one step, when the block ends.

    A reader sees the old one or the new one, whole. If the block raises, `path` stays as it was and what
    was written is removed; a process that is killed leaves it under a hidden name beside `path`. A file has
    the mode of the one it replaces, or of any new file of the user's; a link stays a link to it. Devices and
    pipes, such as /dev/stdout, are written to as they are.

    Args:
        path: a file, replaced if it is there, or a folder, which must not hold anything yet. The folders
            around it are made as needed.

    Yields:
        A path in the same folder, with the suffix of `path`, where nothing is yet.

    Raises:
        OSError: the disk refuses; it names `path`.
    """
    if (path := Path(path)).exists() and not (path.is_file() or path.is_dir()):
        with naming(path):
            yield path
        return
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()  # with the mode that the system gives
        mode = (path if path.exists() else beside).stat().st_mode
        beside.unlink()
        try:
            yield beside
            if beside.is_file():
                beside.chmod(mode)
            os.replace(beside, path)
        finally:
            if beside.is_dir():
                shutil.rmtree(beside, ignore_errors=True)
            beside.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the disk say what it is, and which path could not be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        found = re.search(r"os error (\d+)", str(error))  # as safetensors words it
        number = int(found[1]) if found else getattr(error, "errno", None)
        name = getattr(error, "filename", None)
        if number is None or (name is not None and f".{path.stem}." not in str(name)):
            raise  # it says nothing of the disk, or is of another file
        raise OSError(number, os.strerror(number), str(path)) from error
