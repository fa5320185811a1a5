"""A folder on disk that holds one saved memory: a safetensors file, a table and a manifest.

`prototypes-*.safetensors` holds ids, vectors and the images of thumbnails; `prototypes-*.parquet` has a line
for each row, with its texts and the bits of its thumbnail's mask; `manifest.json` names the two, with their
checksums. A save writes new files and then replaces the manifest in one step, so that a reader sees the old
memory or the new one, whole.
"""

import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import BaseFileLock, FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rose_kit.data import atomic_write
from rose_kit.memory.prototypes import Prototypes

FORMAT = 4
MANIFEST = "manifest.json"
TOKEN = "[0-9a-f]" * 8  # a pattern: the mark of one save
STEMS = (f"prototypes-{TOKEN}", f".prototypes-{TOKEN}.{TOKEN}")
# Of saves that did not end, and of memories that were replaced.
LEFTOVERS = [f"{stem}.{suffix}" for stem in STEMS for suffix in ("safetensors", "parquet")]
LEFTOVERS += [f".manifest.{TOKEN}.json", ".tmp??????"]
MAPPED_FROM = 2**28  # bytes; vectors that take as many or more are left on disk
DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError, pa.ArrowException)


class MemoryFormatError(ValueError):
    """A memory folder is missing, damaged, or of a format this kit does not read."""


def writing(folder: Path) -> BaseFileLock:
    """A context in which this process is the only one that writes to a folder; readers need not wait.

    To load, change and save a memory as one step, do all three inside. A process must not enter twice. The
    system releases the lock when a process dies.
    """
    return FileLock(Path(folder) / ".lock")


def write_folder(folder: Path, table: Prototypes, header: Mapping[str, Any]) -> None:
    """Replace the memory in a folder in one step.

    Args:
        folder: where; it is made if there is none.
        table: the rows.
        header: what else the manifest records, as JSON can represent it.

    Raises:
        OSError: the disk refuses; what was saved before is still whole.
        MemoryFormatError: the folder has a `manifest.json` that is no memory's.
    """
    manifest_path = folder / MANIFEST
    if manifest_path.is_file() and b"prototypes-" not in manifest_path.read_bytes():
        raise MemoryFormatError(f"{str(manifest_path)!r} is there and is no memory's; name another folder")
    stem = f"prototypes-{secrets.token_hex(4)}"
    tensor_path, table_path = folder / f"{stem}.safetensors", folder / f"{stem}.parquet"
    pairs = [(None, None) if pair is None else pair for pair in table.thumbnails]  # of an image and a mask
    images = {id(image): image for image, _ in pairs if image is not None}  # rows of one image share it
    numbers = {key: n for n, key in enumerate(images)}
    columns = {
        "class_name": table.class_names.tolist(),
        "image_id": table.image_ids.tolist(),
        "source": table.sources.tolist(),
        "metadata": list(map(json.dumps, table.metadata)),
        "image": [numbers.get(id(image)) for image, _ in pairs],
        "mask": [mask for _, mask in pairs],
    }
    tensors = {"ids": table.ids, "vectors": table.vectors}
    tensors |= {f"image/{numbers[key]}": image for key, image in images.items()}
    try:
        with atomic_write(table_path) as beside:
            pq.write_table(pa.table(columns), beside)
        with atomic_write(tensor_path) as beside:
            save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, beside)
        files = {path.name: _checksum(path) for path in (tensor_path, table_path)}
        manifest = {"format": FORMAT, **header, "files": files}
        manifest["sha256"] = _seal(manifest)
        with atomic_write(manifest_path) as beside:
            beside.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            for path in (tensor_path, table_path, beside, folder):  # before the manifest names them
                _flush(path)
    except BaseException:
        _sweep(folder, [f"{stem}.*"])
        raise
    _sweep(folder, LEFTOVERS)


def _sweep(folder: Path, patterns: Sequence[str]) -> None:
    """Remove those files that the manifest does not name."""
    _flush(folder)
    manifest = folder / MANIFEST
    named = manifest.read_text(encoding="utf-8", errors="replace") if manifest.is_file() else ""
    for path in itertools.chain.from_iterable(map(folder.glob, patterns)):
        if path.name not in named:
            path.unlink(missing_ok=True)


def read_folder(folder: Path) -> tuple[Prototypes, dict[str, Any]]:
    """The rows and the manifest that `write_folder` wrote, after a check of the files' checksums.

    Vectors that take 256 MiB or more are left on disk, as a memory map.

    Raises:
        MemoryFormatError: a file is missing or damaged, or the memory is of another format.
    """
    path = folder / MANIFEST
    while True:
        if not path.is_file():
            raise MemoryFormatError(f"there is no memory in {str(folder)!r}: it has no {MANIFEST}")
        content = path.read_bytes()
        try:
            manifest = json.loads(content)
            if manifest["format"] != FORMAT:
                raise ValueError(f"it is of format {manifest['format']!r}; this kit reads format {FORMAT}")
            if manifest.pop("sha256", None) != _seal(manifest):
                raise ValueError("its checksum differs")
            return _read(folder, manifest["files"]), manifest
        except DAMAGE as error:
            if not path.is_file() or path.read_bytes() == content:  # else another process has just saved
                raise MemoryFormatError(f"the memory {str(path)!r} cannot be read: {error}") from error


def _read(folder: Path, files: Mapping[str, str]) -> Prototypes:
    paths = {Path(name).suffix: folder / name for name in files}
    for path in paths.values():
        if _checksum(path) != files[path.name]:
            raise ValueError(f"the checksum of {path.name} differs")
    tensor_path = paths[".safetensors"]
    with safe_open(tensor_path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "vectors"}  # noqa: SIM118
        rows, dim = file.get_slice("vectors").get_shape()
        vectors = file.get_tensor("vectors") if 4 * rows * dim < MAPPED_FROM else _map(tensor_path, "vectors")
    table = pq.read_table(paths[".parquet"]).to_pydict()
    pairs = zip(table["image"], table["mask"], strict=True)
    thumbnails = [None if n is None else (tensors[f"image/{n}"], mask) for n, mask in pairs]
    names = (table[name] for name in ("class_name", "image_id", "source"))
    metadata = list(map(json.loads, table["metadata"]))
    return Prototypes.make(tensors["ids"], vectors, *names, metadata, thumbnails)


def _map(path: Path, name: str) -> NDArray[np.float32]:
    """A float32 tensor of a safetensors file, left on disk: it begins with the length of a JSON header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(length))[name]
    return np.memmap(path, np.float32, "r", 8 + length + about["data_offsets"][0], tuple(about["shape"]))


def _seal(manifest: Mapping[str, Any]) -> str:
    """The manifest's own checksum."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; Windows cannot do so for a folder."""
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
