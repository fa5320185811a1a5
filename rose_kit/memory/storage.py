"""A folder on disk that holds one saved memory: the file `memory.safetensors`.

Its tensors are the ids, the vectors, the images of thumbnails, and `rows`: the bytes of a Parquet table that
has a line for each row, with its texts and the bits of its thumbnail's mask. Its metadata are the format,
what else a memory consists of as JSON, and a checksum of all that. A save replaces the file in one step, so
that a reader sees the old memory or the new one, whole.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import BaseFileLock, FileLock
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rose_kit.data import atomic_write
from rose_kit.memory.prototypes import Prototypes

FILE = "memory.safetensors"
LEFTOVERS = f".memory.{'[0-9a-f]' * 8}.safetensors"  # of saves that were killed
FORMAT = "rose_kit memory 5"
MAPPED_FROM = 2**28  # bytes; vectors that take as many or more are left on disk
DTYPES = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}  # by the names of safetensors
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException)


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
        header: what else is recorded, as JSON can represent it.

    Raises:
        OSError: the disk refuses; what was saved before is still whole.
        MemoryFormatError: the folder has a `memory.safetensors` that is no memory.
    """
    path = folder / FILE
    if path.is_file():
        with path.open("rb") as file:
            if b"rose_kit memory" not in file.read(2**16):  # the metadata come first
                raise MemoryFormatError(f"{str(path)!r} is there and is no memory; name another folder")
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
    pq.write_table(pa.table(columns), rows := pa.BufferOutputStream())
    tensors = {"ids": table.ids, "vectors": table.vectors, "rows": np.frombuffer(rows.getvalue(), np.uint8)}
    tensors |= {f"image/{numbers[key]}": image for key, image in images.items()}
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    about = {"format": FORMAT, "header": json.dumps(header)}
    with atomic_write(path) as beside:
        save_file(tensors, beside, about | {"sha256": _checksum(about, tensors)})
        _flush(beside)
    _flush(folder)
    for leftover in folder.glob(LEFTOVERS):
        leftover.unlink(missing_ok=True)


def read_folder(folder: Path) -> tuple[Prototypes, dict[str, Any]]:
    """The rows and the header that `write_folder` wrote, after a check of the checksum.

    Vectors that take 256 MiB or more are left on disk, as a memory map.

    Raises:
        MemoryFormatError: the file is missing or damaged, or the memory is of another format.
    """
    path = folder / FILE
    if not path.is_file():
        raise MemoryFormatError(f"there is no memory in {str(folder)!r}: it has no {FILE}")
    try:
        tensors, about = _map_file(path)
        if about["format"] != FORMAT:
            raise ValueError(f"it is of the format {about['format']!r}; this kit reads {FORMAT!r}")
        if about.pop("sha256") != _checksum(about, tensors):
            raise ValueError("its checksum differs")
        mapped = "vectors" if tensors["vectors"].nbytes >= MAPPED_FROM else None
        tensors = {name: array if name == mapped else np.array(array) for name, array in tensors.items()}
        table = pq.read_table(pa.py_buffer(tensors["rows"])).to_pydict()
        pairs = zip(table["image"], table["mask"], strict=True)
        thumbnails = [None if n is None else (tensors[f"image/{n}"], mask) for n, mask in pairs]
        names = (table[name] for name in ("class_name", "image_id", "source"))
        metadata = list(map(json.loads, table["metadata"]))
        rows = Prototypes.make(tensors["ids"], tensors["vectors"], *names, metadata, thumbnails)
        return rows, json.loads(about["header"])
    except DAMAGE as error:
        raise MemoryFormatError(f"the memory {str(path)!r} cannot be read: {error}") from error


def _map_file(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    """The tensors of a safetensors file, left on disk, and its metadata; the file is opened once.

    It begins with the length of a JSON header, which says where each tensor lies after it.
    """
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    described, tensors = json.loads(content[8:start].tobytes()), {}
    metadata = described.pop("__metadata__")
    for name, one in described.items():
        first, end = one["data_offsets"]
        own = content[start + first : start + end].view(DTYPES[one["dtype"]])
        tensors[name] = own.reshape(one["shape"])
    return tensors, metadata


def _checksum(about: Mapping[str, str], tensors: Mapping[str, NDArray]) -> str:
    """SHA-256 of the metadata, and of the names, types, shapes and bytes of the tensors."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; Windows cannot do so for a folder."""
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
