"""IVF-PQ: rows in lists by the nearest of many centres, each kept as a few codes (Jégou et al., 2011).

512 dimensions take 32 bytes, two codes to a byte, so that lookups stay in registers (André et al., 2015).
"""

from __future__ import annotations

import math

import faiss
import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.indexes.approximate import ApproximateIndex


class IVFPQIndex(ApproximateIndex):
    """FAISS `IndexIVFPQFastScan`, 2 sqrt(P) lists, a 4-bit code per 8 dimensions; `nprobe` is tuned."""

    name = "ivfpq"
    efforts = (
        *((1, 64), (2, 64), (4, 64), (4, 128), (8, 128), (16, 128), (16, 256), (32, 256)),
        *((64, 256), (64, 512), (128, 512), (256, 1024), (512, 2048)),
    )

    def _trained(self, sample: NDArray[np.float32], count: int) -> faiss.Index:
        lists = max(4, round(2 * math.sqrt(count)))
        codes = max(m for m in range(1, self.dim + 1) if self.dim % m == 0 and m <= max(self.dim // 8, 16))
        index = faiss.index_factory(self.dim, f"IVF{lists},PQ{codes}x4fs", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = 8, 48, 0
        index.train(sample)
        return index

    def _parameters(self, visit: int, chosen: faiss.IDSelector | None) -> faiss.SearchParameters:
        return faiss.SearchParametersIVF(sel=chosen, nprobe=visit)

    def _widest(self, index: faiss.Index) -> int:
        return index.nlist
