"""What every index has in common, and the exact search that all others are measured by."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.filters import Filter
from rose_kit.memory.mapped import Mapped
from rose_kit.memory.rows import Rows, positions_of

__all__ = ["Found", "Index", "best", "exact_search", "positions_of"]

CHUNK = 65_536  # rows compared at a time when they come from disk: 128 MiB at 512 dimensions
Found = tuple[NDArray[np.float32], NDArray[np.int64]]


class Index:
    """Finds the rows of a snapshot that are nearest to queries.

    An id always means the same vector, so one index serves every snapshot of a memory: rows that it has
    not seen are compared one by one, and rows that are gone are passed over.

    Args:
        dim: D.
    """

    name = "flat"  # what a saved memory records
    shared = False  # whether others may change what it finds; such searches are not cached
    version = 0  # grows when the same search may find other rows

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def search(self, rows: Rows, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
        """The k best rows of each query, best first.

        Args:
            rows: P rows, the snapshot that is searched.
            queries: (N, D).
            k: how many.
            chosen: which rows may be returned.

        Returns:
            scores (N, k), -inf where there is no further row; positions (N, k) in `rows`, there -1.
        """
        raise NotImplementedError

    def added(self, rows: Rows) -> None:
        """Called by the writer when rows join the memory, for the first time or again."""

    def removed(self, ids: NDArray[np.int64]) -> None:
        """Called by the writer when rows leave the memory."""

    def rows(self) -> Rows | None:
        """The rows that the index itself keeps, ids increasing; None: it keeps none."""
        return None

    def dump(self) -> dict[str, NDArray] | None:
        """What it has learned, as arrays to be saved; None: nothing."""
        return None

    def restore(self, arrays: dict[str, NDArray]) -> None:
        """Take back what `dump` gave."""

    def describe(self) -> str:
        """One line on what it is."""
        return f"{self.name}, exact"


def exact_search(
    vectors: NDArray[np.float32] | Mapped,
    queries: NDArray[np.float32],
    k: int,
    among: NDArray[np.int64] | None = None,
) -> Found:
    """Compare every row; what is on disk is read a piece at a time.

    Copying the allowed rows out and comparing them as one matrix product is, for the patches of an
    image, some ten times faster than a selector that FAISS asks row by row.

    Args:
        vectors: (P, D).
        queries: (N, D).
        k: how many.
        among: positions to compare; None: all.

    Returns:
        scores (N, k), positions (N, k), as `Index.search`.
    """
    count = len(vectors) if among is None else len(among)
    step = CHUNK if isinstance(vectors, Mapped) or among is not None else max(count, 1)
    found = (np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1))
    for start in range(0, count, step):
        at = slice(start, start + step) if among is None else among[start : start + step]
        piece = np.ascontiguousarray(vectors[at])  # (n, D)
        scores, near = faiss.knn(queries, piece, k, metric=faiss.METRIC_INNER_PRODUCT)  # (N, k)
        scores[near < 0] = -np.inf
        near = np.where(near < 0, -1, near + start) if among is None else np.append(at, -1)[near]
        found = (scores, near) if count <= step else best(found, (scores, near), k)
    return found


def best(one: Found, other: Found, k: int) -> Found:
    """The k best of two findings for the same queries, ties in the order given."""
    scores, near = (np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(near, order, 1)
