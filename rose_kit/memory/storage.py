"""A folder on disk that holds one saved memory, never half an old one and half a new one.

`prototypes-X.safetensors` holds ids, vectors, thumbnails and what the index has learned,
`prototypes-X.parquet` names, sources and metadata, `manifest.json` the rest and the checksums of both. The
X is new with each save, and the manifest is swapped in one rename: until that moment the old memory is
whole, after it the new one is. Files that the manifest does not name go last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from rose_kit.data import atomic_write
from rose_kit.memory.prototypes import Prototypes

try:
    import fcntl
except ImportError:  # Windows: one process at a time is left to the user
    fcntl = None

FORMAT = 4
MANIFEST = "manifest.json"
MAPPED_FROM = 2**28  # bytes of vectors from which they are left on disk
INDEX = "index/"  # what the tensors of the index begin with
# Of an earlier save, or of one that was killed: safetensors writes to .tmpXXXXXX first.
STALE = r"prototypes-\w+\.(safetensors|parquet)|\.manifest\.\w+\.json|\.tmp\w{6}"


class MemoryFormatError(ValueError):
    """A memory folder is missing, damaged, or of a format this kit does not read."""


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only process that writes to a folder; others wait, readers do not.

    The system lets go of the lock when a process dies. To read, change and write as one step, hold it
    around all three; it is not to be taken twice.
    """
    handle = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if fcntl:
            os.close(handle)


def write_folder(
    folder: Path, table: Prototypes, header: Mapping[str, Any], learned: Mapping[str, NDArray]
) -> None:
    """Replace the memory in a folder in one step.

    Args:
        folder: where; it exists.
        table: the rows.
        header: what the manifest records beside the checksums.
        learned: arrays of the index.

    Raises:
        OSError: the disk refuses; what was saved before is still whole.
    """
    mark = secrets.token_hex(4)
    arrays, columns = folder / f"prototypes-{mark}.safetensors", folder / f"prototypes-{mark}.parquet"
    images = {id(pair[0]): pair[0] for pair in table.thumbnails if pair is not None}
    numbers = {key: n for n, key in enumerate(images)}
    tensors = {"ids": table.ids, "vectors": np.asarray(table.vectors, dtype=np.float32)}
    tensors |= {f"image/{numbers[key]}": image for key, image in images.items()}
    tensors |= {INDEX + name: array for name, array in learned.items()}
    shown = [(None, None) if pair is None else (numbers[id(pair[0])], pair[1]) for pair in table.thumbnails]
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, arrays)
        rows = {
            "class_name": pa.array(table.class_texts.tolist(), pa.string()),
            "image_id": pa.array(table.image_texts.tolist(), pa.string()),
            "source": pa.array(list(table.sources), pa.string()),
            "metadata": pa.array(list(map(json.dumps, table.metadata)), pa.string()),
            "image": pa.array([n for n, _ in shown], pa.int64()),
            "mask": pa.array([mask for _, mask in shown], pa.binary()),
        }
        pq.write_table(pa.table(rows), columns)
        shutil.copymode(columns, arrays)  # as readable as the user's other files, which safetensors' are not
        files = {path.name: _digest(path, sync=True) for path in (arrays, columns)}
        manifest = {"format": FORMAT, **header, "rows": len(table), "files": files}
        manifest["sha256"] = _seal(manifest)
        with atomic_write(folder / MANIFEST) as beside:
            beside.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            _digest(beside, sync=True)
            _sync_folder(folder)  # the data files' names reach the disk before the manifest that lists them
    except BaseException:
        manifest = folder / MANIFEST  # what interrupted may have come after the rename
        if not (manifest.is_file() and mark in manifest.read_text(encoding="utf-8", errors="replace")):
            for path in folder.glob(f"*{mark}*"):
                path.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    for path in folder.iterdir():  # what an earlier save, or one that was killed, has left
        stale = re.fullmatch(STALE, path.name)
        if stale and path.name not in files:
            path.unlink(missing_ok=True)


def read_folder(
    folder: Path, mapped: bool | None = None
) -> tuple[Prototypes, dict[str, Any], dict[str, NDArray]]:
    """What `write_folder` wrote: rows, header and arrays of the index; every file is verified.

    A save in another process may take files away while they are read; then the new memory is read.

    Args:
        folder: where.
        mapped: leave the vectors on disk; None: if they take more than 256 MiB.

    Raises:
        MemoryFormatError: a file is missing or damaged, or of another format.
    """
    while True:
        manifest = _manifest(folder)
        try:
            return _read(folder, manifest, mapped)
        except (KeyError, OSError, ValueError, pa.ArrowException) as error:
            if _manifest(folder) == manifest:
                raise MemoryFormatError(f"the memory in {str(folder)!r} cannot be read: {error}") from error


def _read(
    folder: Path, manifest: dict[str, Any], mapped: bool | None
) -> tuple[Prototypes, dict[str, Any], dict[str, NDArray]]:
    paths = {Path(name).suffix: folder / name for name in manifest["files"]}
    for path in paths.values():
        if _digest(path) != manifest["files"][path.name]:
            raise MemoryFormatError(f"{path} is damaged: its checksum differs")
    with safe_open(paths[".safetensors"], "np") as file:
        shape = file.get_slice("vectors").get_shape()
        big = 4 * shape[0] * shape[1] > MAPPED_FROM if mapped is None else mapped and shape[0]
        vectors = _map(paths[".safetensors"], "vectors") if big else file.get_tensor("vectors")
        rest = {name: file.get_tensor(name) for name in file.keys() if name != "vectors"}  # noqa: SIM118
    table = pq.read_table(paths[".parquet"]).to_pydict()
    texts = {text: json.loads(text) for text in set(table["metadata"])}
    shown = zip(table["image"], table["mask"], strict=True)
    rows = Prototypes.make(
        rest["ids"], vectors, table["class_name"], table["image_id"], table["source"],
        [texts[text] for text in table["metadata"]],
        [None if n is None else (rest[f"image/{n}"], mask) for n, mask in shown],
    )  # fmt: skip
    learned = {name.removeprefix(INDEX): rest[name] for name in rest if name.startswith(INDEX)}
    return rows, manifest, learned


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        what = "holds no memory" if folder.is_dir() else "is not a folder"
        raise MemoryFormatError(f"{str(folder)!r} {what}: there is no {MANIFEST}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MemoryFormatError(f"{path} is damaged: {error!r}") from None
    if version != FORMAT:
        raise MemoryFormatError(f"{str(folder)!r} is of format {version!r}; this kit reads format {FORMAT}")
    if manifest.pop("sha256", None) != _seal(manifest):
        raise MemoryFormatError(f"{path} is damaged: its checksum differs")
    return manifest


def _seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of what a manifest says, however it is laid out."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk; Windows cannot open one."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(path: Path, sync: bool = False) -> str:
    """SHA-256 of a file, which is forced to the disk first if asked."""
    with path.open("r+b" if sync else "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map(path: Path, name: str) -> NDArray[np.float32]:
    """One float32 (P, D) tensor of a safetensors file, left on disk."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        facts = json.loads(file.read(header))[name]
    return np.memmap(path, np.float32, "r", 8 + header + facts["data_offsets"][0], tuple(facts["shape"]))
