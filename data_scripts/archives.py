"""Reading zip and tar archives member by member: nothing is extracted, so no name can lead astray."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath

from rose_kit.data import DataError

MAX_MEMBER = 2**28  # bytes; no image or mask comes near it, a decompression bomb does


def members(path: Path, password: str | None = None) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The files of an archive in its own order, as (path within, function that reads it).

    One pass from front to back, so a compressed tar is read once. Links and devices are skipped: they
    are neither followed nor written.

    Args:
        path: a .zip, .tar, .tar.gz or .tgz file.
        password: of an encrypted zip.

    Raises:
        DataError: the archive is broken, encrypted with another password, holds a path that leads
            out of it, or a file of more than `MAX_MEMBER` bytes is read.
    """
    walk = _zip(path, password) if zipfile.is_zipfile(path) else _tar(path)
    while True:
        try:
            name, size, read = next(walk)
        except StopIteration:
            return
        except (*_BROKEN, RuntimeError) as error:
            raise DataError(f"cannot read archive {path}: {error}") from error
        inside = PureWindowsPath(name)  # knows both kinds of separators, and drives
        if inside.anchor or ".." in inside.parts:
            raise DataError(f"archive {path} is refused: its member {name!r} leads out of it")
        yield inside.as_posix(), _guarded(path, name, size, read)


_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError)


def _guarded(path: Path, name: str, size: int, read: Callable[[], bytes]) -> Callable[[], bytes]:
    def call() -> bytes:
        if size > MAX_MEMBER:
            raise DataError(f"archive {path} is refused: its member {name!r} has {size:,} bytes")
        try:
            return read()
        except Exception as error:  # zlib.error and lzma.LZMAError share no ancestor with the others
            raise DataError(f"cannot read {name!r} in archive {path}: {error}") from error

    return call


def _zip(path: Path, password: str | None) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    key = None if password is None else password.encode()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, info.file_size, lambda info=info: archive.read(info, key)


def _tar(path: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isreg():
                yield member.name, member.size, lambda member=member: archive.extractfile(member).read()
