"""A folder on disk that holds one saved memory, never half an old one and half a new one.

Data files carry a part of their SHA-256 in their names; `manifest.json` lists them. A save writes new
data files beside the old ones and then swaps the manifest in one rename: until that moment the old
memory is whole, after it the new one is. Files that no manifest lists any more go last. One writer at
a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rose_kit.memory.rows import Rows

FORMAT = 1
MANIFEST = "manifest.json"


class MemoryFormatError(ValueError):
    """A memory folder is missing, damaged, or of a format this kit does not read."""


def save_rows(folder: Path, rows: Rows, header: Mapping[str, Any]) -> None:
    """Replace the memory in `folder` (made if absent) in one step.

    Raises:
        ValueError: the path is a file.
        OSError: the disk refuses; what was saved before is still whole.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot save a memory at {str(folder)!r}: it is a file, not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: _write(folder, name, writer, rows) for name, writer in WRITERS.items()}
    manifest = {"format": FORMAT, **header, "count": len(rows), "files": files}
    manifest["sha256"] = _json_digest(manifest)
    beside = folder / f"{MANIFEST}.tmp"
    beside.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _sync(beside)
    _sync(folder)  # the data files' names reach the disk before the manifest that lists them
    os.replace(beside, folder / MANIFEST)
    _sync(folder)
    for name, digest in files.items():
        for path in folder.glob(name.replace(".", "-" + "[0-9a-f]" * 16 + ".")):
            if path.name != _stored(name, digest):
                with contextlib.suppress(OSError):  # in use elsewhere: the next save sweeps it
                    path.unlink()


def load_rows(folder: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows and the manifest, every checksum verified.

    Raises:
        MemoryFormatError: names the file that is missing or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MemoryFormatError(f"no memory at {str(folder)!r}: there is no {MANIFEST} in it")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, expected = manifest["format"], manifest.pop("sha256")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MemoryFormatError(f"{str(path)!r} is not the manifest of a memory: {error!r}") from None
    if version != FORMAT:
        raise MemoryFormatError(f"{str(path)!r} has format {version!r}; this kit reads format {FORMAT}")
    if _json_digest(manifest) != expected:
        raise MemoryFormatError(f"{str(path)!r} is damaged: its checksum differs")
    paths = {name: folder / _stored(name, digest) for name, digest in manifest["files"].items()}
    for name, data in paths.items():
        if not data.is_file():
            raise MemoryFormatError(f"{str(data)!r} is missing, but {MANIFEST} lists it")
        if _file_digest(data) != manifest["files"][name]:
            raise MemoryFormatError(f"{str(data)!r} is damaged: its checksum differs")
    rows = _read(*(paths[name] for name in WRITERS))
    if rows.vectors.shape != (manifest["count"], manifest["dim"]):
        raise MemoryFormatError(f"{str(path)!r} does not fit vectors of shape {rows.vectors.shape}")
    return rows, manifest


def _pictures(rows: Rows) -> dict[int, NDArray[np.uint8]]:
    """The different thumbnails, keyed by `id()`: rows of one picture share one array."""
    return {id(pair[0]): pair[0] for pair in rows.thumbnails if pair is not None}


def _write_arrays(rows: Rows, path: Path) -> None:
    pictures = {f"picture/{n}": picture for n, picture in enumerate(_pictures(rows).values())}
    save_file({"ids": rows.ids, "vectors": rows.vectors, **pictures}, path)


def _write_columns(rows: Rows, path: Path) -> None:
    number = {key: n for n, key in enumerate(_pictures(rows))}
    columns = {
        "class_name": pa.array(rows.class_names.tolist(), pa.string()),
        "image_id": pa.array(rows.image_ids.tolist(), pa.string()),
        "source": pa.array(rows.sources.tolist(), pa.string()),
        "metadata": pa.array([json.dumps(facts) for facts in rows.metadata], pa.string()),
        "picture": pa.array([pair and number[id(pair[0])] for pair in rows.thumbnails], pa.int64()),
        "mask": pa.array([pair and pair[1] for pair in rows.thumbnails], pa.binary()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


WRITERS = {"arrays.safetensors": _write_arrays, "columns.parquet": _write_columns}


def _read(arrays: Path, columns: Path) -> Rows:
    numbers, table = load_file(arrays), pq.read_table(columns).to_pydict()
    shown = zip(table["picture"], table["mask"], strict=True)
    return Rows.make(
        numbers["ids"],
        numbers["vectors"],
        table["class_name"],
        table["image_id"],
        table["source"],
        [json.loads(facts) for facts in table["metadata"]],
        [None if mask is None else (numbers[f"picture/{n}"], mask) for n, mask in shown],
    )


def _write(folder: Path, name: str, writer: Callable[[Rows, Path], None], rows: Rows) -> str:
    beside = folder / _stored(name, "0" * 16)  # looks like a stale file, so the next save sweeps it
    writer(rows, beside)
    _sync(beside)
    digest = _file_digest(beside)
    os.replace(beside, folder / _stored(name, digest))
    return digest


def _stored(name: str, digest: str) -> str:
    """rows.parquet -> rows-<digest>.parquet"""
    stem, suffix = name.split(".")
    return f"{stem}-{digest[:16]}.{suffix}"


def _sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
