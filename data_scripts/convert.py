"""Archives -> the kit's folder format, straight from the archive, file by file.

Work goes to a folder beside the final one, which is renamed when everything is in place; an
interrupted conversion continues there. A file in place is a whole file.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from tqdm.auto import tqdm

from data_scripts.archives import members
from data_scripts.benchmark import Benchmark, labels, prompts
from data_scripts.table import find
from rose_kit.data import DataError, FolderDataset, atomic_write, classes_text
from rose_kit.types import IGNORE


def convert(
    name: str, archives: Path, out: Path, *, password: str | None = None, progress: bool = True
) -> Path:
    """Convert a dataset, or finish an interrupted conversion; a finished one is left as it is.

    Args:
        name: a key of `BENCHMARKS`.
        archives: the folder that holds the dataset's archives.
        out: the result is `out/name`: images/, masks/, splits/, classes.txt, and prompts.txt with all
            texts of all classes in one line.
        password: of an encrypted zip.
        progress: show a progress bar.

    Raises:
        DataError: an archive is missing, broken or hostile, lacks files that the splits name, or a
            mask holds a value that the dataset does not have.
    """
    benchmark = find(name)
    target, partial = out / name, out / f".{name}.partial"
    if target.is_dir():
        return target
    paths = _present(benchmark, archives)
    contents = _survey(benchmark, paths, password, progress)
    wanted = _wanted(benchmark, contents)
    for folder in ("images", "masks", "splits"):
        (partial / folder).mkdir(parents=True, exist_ok=True)
    _copy(benchmark, paths, password, partial, wanted, progress)
    unfit = _of_other_size(partial, wanted.values(), progress)
    if unfit:
        warnings.warn(
            f"{len(unfit)} images of {benchmark.title} are left out, as their masks have another size: "
            f"{', '.join(sorted(unfit)[:5])}",
            stacklevel=2,
        )
    splits = {split: [i for i in ids if i not in unfit] for split, ids in contents.splits.items()}
    _write_lists(benchmark, splits, partial)
    for split in splits:
        FolderDataset(partial, split)  # raises unless every image has its mask
    os.replace(partial, target)
    return target


@dataclass
class _Contents:
    """What the archives hold: paths by image id, and image ids by split."""

    images: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)


def _present(benchmark: Benchmark, archives: Path) -> list[Path]:
    paths = [archives / archive.file for archive in benchmark.archives]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{benchmark.title} needs {', '.join(missing)} in {archives}: download it first")
    return paths


def _survey(benchmark: Benchmark, paths: Iterable[Path], password: str | None, progress: bool) -> _Contents:
    contents, lists = _Contents(), {}
    for path in tqdm(paths, desc="contents", unit="archive", disable=not progress):
        for name, read in members(path, password):
            for pattern, found in ((benchmark.image, contents.images), (benchmark.mask, contents.masks)):
                if match := _match(pattern, name):
                    found["_".join(match.groups())] = name
            for key, wanted in benchmark.lists.items():
                if f"/{name}".endswith(f"/{wanted}"):
                    lists[key] = read().decode("utf-8", "replace").splitlines()
    absent = sorted(set(benchmark.lists) - set(lists))
    if absent:
        raise DataError(f"the archives of {benchmark.title} lack {benchmark.lists[absent[0]]}")
    contents.splits = _splits(benchmark, contents.masks, lists)
    return contents


def _match(pattern: str, name: str) -> re.Match | None:
    return re.search(rf"(?:^|/){pattern}$", name)  # whatever folder the archive itself was packed in


def _splits(
    benchmark: Benchmark, masks: Mapping[str, str], lists: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    if "flags" in lists:
        return _flagged(benchmark, lists["names"], lists["flags"])
    named = {split: [line.split()[0] for line in lines if line.strip()] for split, lines in lists.items()}
    placed = {
        split: sorted(i for i, name in masks.items() if re.search(pattern, f"/{name}"))
        for split, pattern in benchmark.folders.items()
    }
    return named | placed


def _flagged(benchmark: Benchmark, names: list[str], flags: list[str]) -> dict[str, list[str]]:
    """CUB: "number path" in one file, "number is-it-train" in the other."""
    try:
        stems = {number: Path(path).stem for number, path in map(str.split, names)}
        train = [(stems[number], bool(int(flag))) for number, flag in map(str.split, flags)]
    except (ValueError, KeyError) as error:
        files = " and ".join(benchmark.lists.values())
        raise DataError(f"{files} of {benchmark.title} do not fit each other: {error}") from error
    return {
        split: [i for i, is_train in train if is_train == wanted]
        for split, wanted in (("train", True), ("test", False))
    }


def _wanted(benchmark: Benchmark, contents: _Contents) -> dict[str, str]:
    """Paths within the archives -> where they go, for the images that some split names."""
    targets: dict[str, str] = {}
    for split, ids in contents.splits.items():
        if not ids:
            raise DataError(f"the archives of {benchmark.title} hold no image of split {split!r}")
        for kind, found in (("image", contents.images), ("mask", contents.masks)):
            bare = [i for i in ids if i not in found]
            if bare:
                raise DataError(
                    f"{benchmark.title}, split {split!r}: no {kind} for {bare[0]!r} ({len(bare)} in all)"
                )
        for i in ids:
            targets[contents.images[i]] = f"images/{i}{Path(contents.images[i]).suffix}"
            targets[contents.masks[i]] = f"masks/{i}.png"
    return targets


def _copy(
    benchmark: Benchmark,
    paths: Iterable[Path],
    password: str | None,
    partial: Path,
    wanted: Mapping[str, str],
    progress: bool,
) -> None:
    table = lookup(benchmark)
    with tqdm(total=len(wanted), desc=benchmark.title, unit="file", disable=not progress) as bar:
        for path in paths:
            for name, read in members(path, password):
                if name not in wanted:
                    continue
                target = partial / wanted[name]
                if not target.exists():
                    mask = target.parent.name == "masks"
                    write(target, encode_mask(benchmark, name, read(), table) if mask else read())
                bar.update()


def lookup(benchmark: Benchmark) -> NDArray[np.int64]:
    """(65536,) int64: value in the source's masks -> class id, 255 = ignore, -1 = no such value."""
    table = np.full(2**16, -1 if benchmark.rest is None else benchmark.rest)
    table[IGNORE] = IGNORE
    for label in labels(benchmark):
        table[list(label.values)] = label.id
    return table


def encode_mask(benchmark: Benchmark, name: str, data: bytes, table: NDArray[np.int64]) -> bytes:
    """One mask file of the source as a PNG of class ids.

    Args:
        benchmark: says how it is read.
        name: its path within the archive, for messages and for CUB's species.
        data: its bytes.
        table: from `lookup`.

    Raises:
        DataError: it cannot be read, or holds a value that is no class.
    """
    try:
        values = READERS[benchmark.read](data, name)  # (H, W)
    except Exception as error:  # a broken file raises OSError, SyntaxError, KeyError, zlib.error, ...
        raise DataError(f"cannot read mask {name}: {error}") from error
    if values.ndim != 2:
        raise DataError(f"mask {name} has shape {values.shape}; it needs one channel of class values")
    ids = table[values]
    if ids.min(initial=0) < 0:
        raise DataError(f"mask {name} holds {values[ids < 0][0]}, which is no class of {benchmark.title}")
    stream = io.BytesIO()
    Image.fromarray(ids.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _read_values(data: bytes, name: str) -> NDArray[np.integer]:
    """Grey levels or palette indices, as they stand."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _read_matlab(data: bytes, name: str) -> NDArray[np.integer]:
    """PASCAL Context's matrix `LabelMap`; MATLAB's format holds arrays, never code."""
    from scipy.io import loadmat

    return loadmat(io.BytesIO(data))["LabelMap"]


def _read_birds(data: bytes, name: str) -> NDArray[np.integer]:
    """CUB: grey levels are how many of five annotators say bird (51 each); the folder names the species."""
    species = int(Path(name).parent.name.split(".")[0])
    with Image.open(io.BytesIO(data)) as image:
        return np.where(np.asarray(image.convert("L")) > 127, species, 0)


READERS: dict[str, Callable[[bytes, str], NDArray[np.integer]]] = {
    "values": _read_values,
    "matlab": _read_matlab,
    "birds": _read_birds,
}


def _of_other_size(folder: Path, files: Iterable[str], progress: bool) -> set[str]:
    """Ids of images that, turned as their EXIF tag says, have another size than their mask."""
    sizes: dict[str, set[tuple[int, int]]] = {}
    for file in tqdm(list(files), desc="sizes", unit="file", disable=not progress):
        path = folder / file
        try:
            with Image.open(path) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # by a quarter
                sizes.setdefault(path.stem, set()).add(image.size[::-1] if turned else image.size)
        except Exception as error:  # as for masks
            raise DataError(f"cannot read image {file}: {error}") from error
    return {i for i, found in sizes.items() if len(found) > 1}


def _write_lists(benchmark: Benchmark, splits: Mapping[str, list[str]], folder: Path) -> None:
    for split, ids in splits.items():
        write(folder / "splits" / f"{split}.txt", "".join(f"{i}\n" for i in ids).encode())
    classes = classes_text({label.id: label.name for label in labels(benchmark)})
    write(folder / "classes.txt", classes.encode())
    write(folder / "prompts.txt", f"{prompts(benchmark)}\n".encode())


def write(path: Path, data: bytes) -> None:
    """Write a file in one step: it is there whole, or not at all."""
    with atomic_write(path) as beside:
        beside.write_bytes(data)
