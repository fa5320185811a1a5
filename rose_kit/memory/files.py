"""Files that are there whole or not at all, and folders that one process writes at a time."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: one process at a time is left to the user
    fcntl = None


def write_stored(folder: Path, name: str, writer: Callable[[Path], None]) -> str:
    """Write a file whose name carries its checksum; returns the SHA-256."""
    beside = folder / stored_name(name, "0" * 16)  # looks like a stale file, so the next save sweeps it
    writer(beside)
    sync(beside)
    digest = file_digest(beside)
    os.replace(beside, folder / stored_name(name, digest))
    return digest


def stored_name(name: str, digest: str) -> str:
    """rows.parquet -> rows-<digest>.parquet"""
    stem, suffix = name.split(".")
    return f"{stem}-{digest[:16]}.{suffix}"


def sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a mapping, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class _Lock:
    def __init__(self) -> None:
        self.threads, self.depth, self.handle = threading.RLock(), 0, -1


_locks: dict[Path, _Lock] = defaultdict(_Lock)


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Be the only one who writes to a folder: other threads and processes wait. Readers do not.

    The system lets go of the lock when a process dies. To read, change and write as one step, hold it
    around all three.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    lock = _locks[Path(folder).resolve()]
    with lock.threads:
        if not lock.depth and fcntl:
            lock.handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock.handle, fcntl.LOCK_EX)
        lock.depth += 1
        try:
            yield
        finally:
            lock.depth -= 1
            if not lock.depth and fcntl:
                os.close(lock.handle)
