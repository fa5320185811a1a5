"""Auto: the index that fits the number of rows.

Up to 20,000 rows flat: a picture's patches are answered exactly in a fraction of a second, and building an
index would pay only after some dozen pictures. Beyond that IVF-PQ, which was found to be quicker to ask and
to build and smaller than HNSW at 10,000 rows and at each size up to 100,000; HNSW found a little more of the
truth there, and can be asked for by name. `notebooks/experiments/retrieval.ipynb` measures them.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.filters import Filter
from rose_kit.memory.indexes.base import Found, Index
from rose_kit.memory.indexes.flat import FlatIndex
from rose_kit.memory.indexes.ivfpq import IVFPQIndex
from rose_kit.memory.rows import Rows


class AutoIndex(Index):
    """Flat or IVF-PQ by the number of rows; the other is let go."""

    name = "auto"
    rule: tuple[tuple[float, type[Index]], ...] = (
        (20_000, FlatIndex),
        (float("inf"), IVFPQIndex),
    )  # up to so many rows -> this

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._chosen: Index = FlatIndex(dim)

    def __copy__(self) -> AutoIndex:
        twin = type(self)(self.dim)
        twin._chosen, twin.version = copy.copy(self._chosen), self.version
        return twin

    def choose(self, count: int) -> Index:
        """The index for so many rows."""
        kind = next(kind for most, kind in self.rule if count <= most)
        if type(self._chosen) is not kind:
            self._chosen = kind(self.dim)
            self.version += 1000  # more than the one let go ever had
        return self._chosen

    def search(self, rows: Rows, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
        """See `Index.search`."""
        return self.choose(len(rows)).search(rows, queries, k, chosen)

    def removed(self, ids: NDArray[np.int64]) -> None:
        """See `Index.removed`."""
        self._chosen.removed(ids)

    def dump(self) -> dict[str, NDArray] | None:
        """See `Index.dump`."""
        return self._chosen.dump()

    def restore(self, arrays: dict[str, NDArray]) -> None:
        """See `Index.restore`."""
        self.choose(len(arrays.get("ids", ()))).restore(arrays)

    def describe(self) -> str:
        """See `Index.describe`."""
        return f"auto: {self._chosen.describe()}"
