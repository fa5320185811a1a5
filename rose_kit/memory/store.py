"""A folder on disk that holds one saved memory, never half an old one and half a new one.

The rows lie in segments, two files each, that are never changed: their names carry a part of their
SHA-256, and `manifest.json` lists them. A save writes what is new as a further segment and then swaps
the manifest in one rename: until that moment the old memory is whole, after it the new one is. Files
that no manifest lists any more go last. Each segment is larger than all later ones together, so that
there are few of them and a row is written again only a few times in its life.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rose_kit.memory.files import file_digest, json_digest, stored_name, sync, write_stored
from rose_kit.memory.rows import Rows
from rose_kit.memory.state import State, Step, from_ranges, to_ranges
from rose_kit.memory.tables import WRITERS, read_rows

FORMAT = 2
MANIFEST = "manifest.json"
LEARNED = "index.safetensors"
Files = dict[str, str]  # name -> SHA-256


class MemoryFormatError(ValueError):
    """A memory folder is missing, damaged, or of a format this kit does not read."""


@dataclass(frozen=True)
class Stored:
    """What a folder holds of a memory, so that the next save there writes only what is new."""

    folder: Path
    segments: tuple[dict[str, Any], ...] = ()  # ids as ranges, files
    learned: Files | None = None
    version: int = -1  # of the index that `learned` was dumped from


def save_state(
    folder: Path,
    state: State,
    header: Mapping[str, Any],
    known: Stored | None = None,
    learned: Mapping[str, NDArray] | None = None,
    version: int = 0,
) -> Stored:
    """Replace the memory in `folder` in one step. The caller holds `files.writing(folder)`.

    Args:
        folder: where; it exists.
        state: the rows and their history.
        header: what else the manifest records.
        known: what an earlier save or load found there.
        learned: arrays of the index.
        version: of the index.

    Raises:
        OSError: the disk refuses; what was saved before is still whole.
    """
    known = known if known and known.folder == folder.resolve() else Stored(folder.resolve())
    segments = _still_good(folder, known.segments, state.kept)
    last = segments[-1]["ids"][-1][1] if segments else -1
    fresh = state.kept.take(state.kept.ids > last) if segments else state.kept
    if len(fresh) or not segments:
        files = {n: write_stored(folder, n, lambda path, w=w: w(fresh, path)) for n, w in WRITERS.items()}
        segments.append({"ids": to_ranges(fresh.ids), "files": files})
    stored = Stored(
        folder.resolve(), tuple(segments), _save_learned(folder, known, learned, version), version
    )
    there = np.concatenate([from_ranges(segment["ids"]) for segment in segments])
    manifest = {
        "format": FORMAT,
        **header,
        "next_id": state.next_id,
        "count": len(state.kept) - len(state.gone),
        "segments": segments,
        "dropped": to_ranges(np.setdiff1d(there, state.kept.ids)),
        "gone": to_ranges(state.gone),
        "steps": [[step.what, to_ranges(step.added), to_ranges(step.removed)] for step in state.steps],
        "learned": stored.learned,
    }
    _swap(folder, manifest)
    _sweep(folder, manifest)
    return stored


def load_state(folder: Path, mapped: bool | None = None) -> tuple[State, dict, Stored, dict | None]:
    """The state, the manifest, what is stored, and the arrays of the index; every checksum verified.

    A save in another process may sweep files away while they are read; then the new memory is read.

    Args:
        folder: where.
        mapped: leave the vectors on disk; None: if they take more than 256 MiB.

    Raises:
        MemoryFormatError: names the file that is missing or damaged.
    """
    while True:
        manifest = _read_manifest(folder)
        try:
            return _load(folder, manifest, mapped)
        except (MemoryFormatError, OSError) as error:
            if _read_manifest(folder) == manifest:
                if isinstance(error, MemoryFormatError):
                    raise
                raise MemoryFormatError(f"cannot read the memory at {str(folder)!r}: {error}") from None


def _still_good(folder: Path, segments: tuple[dict, ...], kept: Rows) -> list[dict]:
    """The segments that need not be written again."""
    good = list(segments)
    files = (stored_name(n, digest) for segment in good for n, digest in segment["files"].items())
    if not all((folder / name).is_file() for name in files):
        return []
    sizes = [len(from_ranges(segment["ids"])) for segment in good]
    while good:
        last = good[-1]["ids"][-1][1] if good[-1]["ids"] else -1
        alive = int((kept.ids <= last).sum())
        if sizes[-1] > len(kept) - alive and alive > sum(sizes) // 2:
            break
        good.pop()
        sizes.pop()
    return good


def _save_learned(folder: Path, known: Stored, learned: Mapping | None, version: int) -> Files | None:
    if learned is None:
        return None
    same = known.learned and known.version == version
    if same and (folder / stored_name(LEARNED, known.learned[LEARNED])).is_file():
        return known.learned
    return {LEARNED: write_stored(folder, LEARNED, lambda path: save_file(dict(learned), path))}


def _swap(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["sha256"] = json_digest(manifest)
    beside = folder / f"{MANIFEST}.tmp"
    beside.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(beside)
    sync(folder)  # the data files' names reach the disk before the manifest that lists them
    os.replace(beside, folder / MANIFEST)
    sync(folder)


def _sweep(folder: Path, manifest: Mapping[str, Any]) -> None:
    listed = {stored_name(n, d) for files in _file_sets(manifest) for n, d in files.items()}
    stems = "|".join(re.escape(name).replace(r"\.", "-[0-9a-f]{16}[.]") for name in (*WRITERS, LEARNED))
    for path in folder.iterdir():
        if re.fullmatch(stems, path.name) and path.name not in listed:
            with contextlib.suppress(OSError):  # in use elsewhere: the next save sweeps it
                path.unlink()


def _file_sets(manifest: Mapping[str, Any]) -> list[Files]:
    return [*(segment["files"] for segment in manifest["segments"]), manifest["learned"] or {}]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise MemoryFormatError(f"no memory at {str(folder)!r}: there is no {MANIFEST} in it")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, expected = manifest["format"], manifest.pop("sha256")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MemoryFormatError(f"{str(path)!r} is not the manifest of a memory: {error!r}") from None
    if version not in (1, FORMAT):
        raise MemoryFormatError(
            f"{str(path)!r} has format {version!r}; this kit reads formats 1 and {FORMAT}"
        )
    if json_digest(manifest) != expected:
        raise MemoryFormatError(f"{str(path)!r} is damaged: its checksum differs")
    if version == 1:  # one segment, no history
        segments = [{"ids": None, "files": manifest["files"]}]
        manifest |= {"segments": segments, "learned": None, "dropped": [], "gone": [], "steps": []}
    return manifest


def _check(folder: Path, files: Files) -> list[Path]:
    """The paths of files, after their checksums."""
    paths = []
    for name, digest in files.items():
        path = folder / stored_name(name, digest)
        if not path.is_file():
            raise MemoryFormatError(f"{str(path)!r} is missing, but {MANIFEST} lists it")
        if file_digest(path) != digest:
            raise MemoryFormatError(f"{str(path)!r} is damaged: its checksum differs")
        paths.append(path)
    return paths


def _load(
    folder: Path, manifest: dict[str, Any], mapped: bool | None
) -> tuple[State, dict, Stored, dict | None]:
    paths = [_check(folder, segment["files"]) for segment in manifest["segments"]]
    learned = load_file(_check(folder, manifest["learned"])[0]) if manifest["learned"] else None
    if mapped is None:
        mapped = 4 * manifest["count"] * manifest["dim"] > 256 << 20
    kept = Rows.concatenate([read_rows(*pair, mapped) for pair in paths])
    dropped, gone = from_ranges(manifest["dropped"]), from_ranges(manifest["gone"])
    if len(dropped):
        kept = kept.take(~np.isin(kept.ids, dropped))
    found = (len(kept) - len(gone), kept.vectors.shape[1])
    if found != (manifest["count"], manifest["dim"]):
        raise MemoryFormatError(f"{str(folder / MANIFEST)!r} does not fit vectors of shape {found}")
    steps = (Step(what, from_ranges(a), from_ranges(r)) for what, a, r in manifest["steps"])
    known = tuple(segment for segment in manifest["segments"] if segment["ids"] is not None)
    stored = Stored(folder.resolve(), known, manifest["learned"], 0)
    return State((kept,), gone, tuple(steps), manifest["next_id"]), manifest, stored, learned
