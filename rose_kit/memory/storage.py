"""A folder on disk that holds one saved memory, as one file.

`memory.npz` is read by `numpy.load`: ids, vectors, thumbnails and, as JSON in one array, everything that is
text. A save writes a new file beside the old one and renames it, so that a reader sees the old memory or the
new one, whole. Each array has a checksum (CRC-32, as in every zip archive).
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import BaseFileLock, FileLock
from numpy.lib import format as npy

from rose_kit.data import atomic_write
from rose_kit.memory.prototypes import Prototypes

FORMAT = 5
FILE = "memory.npz"
TEXTS = ("class_names", "image_ids", "sources", "metadata")
MAPPED_FROM = 2**28  # bytes; vectors that take as many or more are left on disk
DAMAGE = (EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


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
        header: what else to record, as JSON can represent it.

    Raises:
        OSError: the disk refuses; what was saved before is still whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"header": {"format": FORMAT, **header}}
    texts |= {name: getattr(table, name).tolist() for name in TEXTS}
    thumbnails = {row: pair for row, pair in enumerate(table.thumbnails) if pair is not None}
    images = {id(image): image for image, _ in thumbnails.values()}  # rows of one image share it
    numbers = {key: n for n, key in enumerate(images)}
    texts["thumbnails"] = [(row, numbers[id(image)]) for row, (image, _) in thumbnails.items()]
    arrays = {f"image {numbers[key]}": image for key, image in images.items()}
    arrays |= {f"mask {row}": np.frombuffer(mask, np.uint8) for row, (_, mask) in thumbnails.items()}
    arrays |= {"ids": table.ids, "vectors": table.vectors}
    arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    with atomic_write(folder / FILE) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    if os.name != "nt":  # Windows cannot open a folder
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)  # the new name reaches the disk, too
        os.close(handle)
    for unfinished in folder.glob(f".{Path(FILE).stem}.*.npz"):  # of a save that was killed
        unfinished.unlink(missing_ok=True)


def read_folder(folder: Path) -> tuple[Prototypes, dict[str, Any]]:
    """The rows and the header that `write_folder` wrote, after a check of all checksums.

    Vectors that take 256 MiB or more are left on disk, as a memory map.

    Raises:
        MemoryFormatError: the file is missing or damaged, or of another format.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file, np.load(file) as archive:
            if damaged := archive.zip.testzip():
                raise ValueError(f"the checksum of {damaged} differs")
            stored = archive.zip.getinfo("vectors.npy")
            vectors = archive["vectors"] if stored.file_size < MAPPED_FROM else _map(file, stored)
            arrays = {name: archive[name] for name in archive if name != "vectors"}
        texts = json.loads(arrays["texts"].tobytes())
        if texts["header"]["format"] != FORMAT:
            raise ValueError(f"its format is {texts['header']['format']!r}, this kit reads format {FORMAT}")
    except DAMAGE as error:
        raise MemoryFormatError(f"{path} cannot be read: {error}") from error
    thumbnails = [None] * len(vectors)
    for row, number in texts["thumbnails"]:
        thumbnails[row] = arrays[f"image {number}"], arrays[f"mask {row}"].tobytes()
    columns = [texts[name] for name in TEXTS]
    return Prototypes.make(arrays["ids"], vectors, *columns, thumbnails), texts["header"]


def _map(file: BinaryIO, stored: zipfile.ZipInfo) -> np.memmap:
    """An array of an .npz file, left on disk; it begins behind the headers of the zip and .npy formats."""
    file.seek(stored.header_offset + 26)
    file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)  # the lengths of the name and of an extra
    npy.read_magic(file)
    shape, _, dtype = npy.read_array_header_1_0(file)
    return np.memmap(file, dtype, "r", file.tell(), shape)
