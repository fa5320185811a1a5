"""HNSW: a graph in which each row knows some near ones, walked from far to near (Malkov & Yashunin, 2016).

One byte per dimension and some 270 bytes of links a row; quick to search, slow to build.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.indexes.approximate import ApproximateIndex

MOST = 4096  # nodes to visit


class HNSWIndex(ApproximateIndex):
    """FAISS `IndexHNSWSQ`, 32 links, 8 bits a dimension, re-ranked; `efSearch` is tuned."""

    name = "hnsw"
    efforts = ((16, 16), (32, 16), (64, 32), (128, 32), (256, 64), (512, 64), (1024, 64))

    def _trained(self, sample: NDArray[np.float32], count: int) -> faiss.Index:
        kind = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(self.dim, kind, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 40
        index.train(sample)
        return index

    def _parameters(self, visit: int, chosen: faiss.IDSelector | None) -> faiss.SearchParameters:
        return faiss.SearchParametersHNSW(sel=chosen, efSearch=min(visit, MOST))

    def _widest(self, index: faiss.Index) -> int:
        return MOST
