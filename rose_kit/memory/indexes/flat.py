"""Flat: every row is compared. Exact, nothing to train, nothing kept beside the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.filters import Filter
from rose_kit.memory.indexes.base import Found, Index, exact_search
from rose_kit.memory.rows import Rows


class FlatIndex(Index):
    """Exact search."""

    def search(self, rows: Rows, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
        """See `Index.search`."""
        mask = chosen.mask(rows)
        return exact_search(rows.vectors, queries, k, None if mask is None else np.flatnonzero(mask))
