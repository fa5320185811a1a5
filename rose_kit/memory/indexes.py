"""Indexes: the nearest rows by inner product.

An index knows positions 0..P-1 only, in the order of adding; what a row means is the memory's
business. Removing a row moves the later ones up, as in an array.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

GATHER_FROM = 8  # queries; from here on a filtered search is quicker on a copy of the allowed rows
Found = tuple[NDArray[np.float32], NDArray[np.int64]]


class FlatIndex:
    """Exact search: every row is compared (FAISS `IndexFlatIP`)."""

    def __init__(self, dim: int) -> None:
        self._faiss = faiss.IndexFlatIP(dim)

    def __len__(self) -> int:
        return self._faiss.ntotal

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append (n, D) rows."""
        self._faiss.add(np.ascontiguousarray(vectors))

    def remove(self, gone: NDArray[np.bool_]) -> None:
        """Drop the rows where the (P,) mask is true; the others close up in order."""
        self._faiss.remove_ids(_selector(gone))

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> Found:
        """The k best rows of each query, best first.

        A FAISS selector compares row by row, which for the patches of an image is some ten times slower
        than copying the allowed rows out and comparing those as one matrix product.

        Args:
            queries: (N, D).
            k: how many.
            allowed: (P,) mask of the rows to compare; None: all.

        Returns:
            scores (N, k), -inf where there is no further row; positions (N, k), there -1.
        """
        if allowed is None or allowed.all():
            scores, positions = self._faiss.search(queries, k)
        elif len(queries) < GATHER_FROM:
            scores, positions = self._faiss.search(
                queries, k, params=faiss.SearchParameters(sel=_selector(allowed))
            )
        else:
            kept = np.flatnonzero(allowed)  # (A,)
            rows = self._faiss.reconstruct_batch(kept)  # (A, D)
            scores, positions = faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
            positions = np.append(kept, -1)[positions]  # position among the kept -> among all; -1 stays
        return np.where(positions < 0, np.float32(-np.inf), scores), positions


def _selector(mask: NDArray[np.bool_]) -> faiss.IDSelectorBitmap:
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


INDEXES = {"flat": FlatIndex}
