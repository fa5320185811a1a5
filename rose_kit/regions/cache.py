"""Regions on disk: found again by what is in the image and how it was cut, never by a running number."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from numpy.typing import NDArray

from rose_kit.data import atomic_write
from rose_kit.encoder.base import image_tensor
from rose_kit.regions.base import Regions

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def cache_folder(part: str) -> Path:
    """Where downloads and costly results stay: under `ROSE_KIT_CACHE`, or the system's cache folder.

    Args:
        part: name of the subfolder, such as "regions" or "sam".
    """
    return Path(os.environ.get("ROSE_KIT_CACHE") or pooch.os_cache("rose_kit")) / part


class CachedRegions:
    """Cuts each image once; the same pixels under the same settings are read from disk after that.

    An entry that cannot be read, or does not fit its image, is made again. Entries hold arrays only, no
    pickle, and appear whole or not at all, so several processes may share a folder.

    Args:
        regions: what cuts; its `fingerprint` names settings and weights.
        folder: where entries go; made when the first is written.

    Raises:
        ValueError: `regions` has no fingerprint, so that stale entries could not be told from fresh ones.
    """

    def __init__(self, regions: Regions, folder: str | Path) -> None:
        if not hasattr(regions, "fingerprint"):
            raise ValueError(f"{regions!r} has no fingerprint, so its regions cannot be cached")
        self.regions, self.folder, self.fingerprint = regions, Path(folder), regions.fingerprint

    def path(self, image: Any) -> Path:
        """The file an image's regions are kept in.

        Args:
            image: (H, W, 3) uint8, float in [0, 1], or a PIL image; equal pixels, equal path.
        """
        pixels = image_tensor(image)
        digest = hashlib.sha256(f"{self.fingerprint} {tuple(pixels.shape)}".encode())
        digest.update(pixels.numpy().data)
        return self.folder / f"{digest.hexdigest()}.npz"

    def __call__(self, image: Any) -> NDArray[np.int64]:
        """(H, W) ids of one image, from disk if they are there."""
        path = self.path(image)
        size = tuple(image_tensor(image).shape[1:])
        found = _read(path, size)
        if found is None:
            found = self.regions(image)
            _write(path, found)
        return found


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.int64] | None:
    try:
        with np.load(path, allow_pickle=False) as entry:
            ids = entry["ids"]  # its checksum is verified as it is read
    except UNREADABLE:  # not there, cut short, damaged
        return None
    return ids.astype(np.int64) if ids.shape == size and ids.dtype.kind in "iu" else None


def _write(path: Path, ids: NDArray[np.int64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as beside:
        np.savez_compressed(beside, ids=ids.astype(np.int32))
