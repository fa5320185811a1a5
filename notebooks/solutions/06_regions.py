"""Solutions of 06_regions, written by course/build.py from course/n06.py."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rose_kit import unit
from rose_kit.pooling import patch_counts


def hard_pooling(features, regions):
    """(R, D) unit vectors: each patch goes whole to the region that holds more of it than any other.

    A region that gets no patch is a row of NaN.
    """
    ids = np.arange(regions.max() + 1)
    owner = patch_counts(features, regions, ids).argmax(1)  # (N, R) -> (N,)
    pooled = np.full((len(ids), features.dim), np.nan, np.float32)
    for r in np.unique(owner):
        pooled[r] = unit(features.flat()[owner == r].mean(0))
    return pooled


def merged(regions, query, threshold):
    """(H, W) ids from 0 on: neighbouring regions whose features have a cosine above a threshold are one.

    Region r has the feature query.features[r]; neighbours share a side of a pixel.
    """
    sides = (regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:])
    a, b = (np.concatenate([side[i].ravel() for side in sides]) for i in (0, 1))
    alike = (query.features[a] * query.features[b]).sum(1) > threshold  # (sides,)
    links = coo_array((np.ones(alike.sum()), (a[alike], b[alike])), shape=(len(query.features),) * 2)
    return connected_components(links, directed=False)[1][regions]
