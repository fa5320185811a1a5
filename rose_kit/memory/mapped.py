"""Vectors that stay on disk: read row by row, as an array would be, by the pages that are touched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Mapped:
    """Rows chosen from several memory-mapped (n, D) arrays laid end to end; behaves as their (P, D) copy.

    Args:
        parts: the arrays.
        where: (P,) rows of the parts laid end to end; None: all.
    """

    def __init__(self, parts: Sequence[NDArray[np.float32]], where: NDArray[np.int64] | None = None) -> None:
        self._parts, self._where = list(parts), where
        self._ends = np.cumsum([len(part) for part in parts])  # (parts,)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._where is None else len(self._where)

    @property
    def shape(self) -> tuple[int, int]:
        """(P, D)."""
        return len(self), self._parts[0].shape[1]

    dtype, ndim = np.dtype(np.float32), 2

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Read rows into memory: by number, slice, mask or array of any shape."""
        rows, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if self._where is None and isinstance(rows, slice) and len(self._parts) == 1:
            return np.array(self._parts[0][rows])[(slice(None), *rest)]
        at = np.arange(len(self))[rows]
        out = np.empty((*at.shape, self.shape[1]), dtype=np.float32)
        for part, own in self.located(at):
            out[own >= 0] = part[own[own >= 0]]
        return out[(..., *rest)] if rest else out

    def located(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Each part, and where in it some rows are: -1 for those in another, or that were -1 before."""
        at = rows if self._where is None else np.where(rows < 0, -1, self._where[rows])
        for end, part in zip(self._ends, self._parts, strict=True):
            own = at - (end - len(part))
            yield part, np.where((at >= 0) & (own >= 0) & (own < len(part)), own, -1)

    def pick(self, key: Any) -> Mapped:
        """Rows as `[...]` gives them, but left on disk."""
        where = np.arange(len(self)) if self._where is None else self._where
        return Mapped(self._parts, np.atleast_1d(where[key]))

    def __array__(self, dtype=None, copy=None) -> NDArray:
        return self[:].astype(dtype or np.float32, copy=False)


def join(vectors: Sequence[ArrayLike | Mapped]) -> NDArray[np.float32] | Mapped:
    """(n, D) blocks as one; where one of them is on disk, none is copied."""
    if len(vectors) == 1:
        return vectors[0] if isinstance(vectors[0], Mapped) else np.ascontiguousarray(vectors[0], np.float32)
    if not any(isinstance(v, Mapped) for v in vectors):
        return np.concatenate(vectors)
    parts, where, start = [], [], 0
    for block in vectors:
        own = block._parts if isinstance(block, Mapped) else [block]
        where.append(
            start + (block.pick(slice(None))._where if isinstance(block, Mapped) else np.arange(len(block)))
        )
        parts += own
        start += sum(map(len, own))
    return Mapped(parts, np.concatenate(where))


def map_tensor(path: Path, name: str) -> Mapped:
    """One float32 (n, D) tensor of a safetensors file, left on disk."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        facts = json.loads(file.read(header))[name]
    start, shape = 8 + header + facts["data_offsets"][0], tuple(facts["shape"])
    if not shape[0]:  # an empty file region cannot be mapped
        return Mapped([np.zeros(shape, dtype=np.float32)])
    return Mapped([np.memmap(path, np.float32, "r", start, shape)])
