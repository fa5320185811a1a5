"""The exercises of 06_regions."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from course import checks, close, exercise, expect, shaped
from rose_kit import FeatureMap, Query, pool_masks, unit
from rose_kit.pooling import patch_counts


@exercise(
    level=2,
    minutes=15,
    hints=(
        "find the region that owns each patch, then average the patches of each region",
        "`patch_counts(features, regions, ids).argmax(1)` gives the owner of each patch; "
        "start with an array full of NaN, and fill row r with `unit` of the mean of "
        "`features.flat()[owner == r]`",
    ),
    right="Which regions of the scene get no patch at all?",
)
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


@checks(hard_pooling)
def _(answer):
    rng = np.random.default_rng(0)
    features = FeatureMap(unit(rng.normal(size=(4, 4, 8))), 8, (32, 32), (32, 32))
    regions = np.zeros((32, 32), np.int64)
    regions[:, 20:] = 1  # half of the third patch of each row, and a little more
    regions[:, 19] = 1
    regions[8:11, 8:11] = 2  # less than half of any patch
    regions[24:27, :8], regions[27, :4], regions[30:, :8] = 1, 1, 2  # a patch of which none has half
    found = answer(features, regions)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(np.shape(found) == (3, 8), f"returns shape {np.shape(found)} where (R, D) = (3, 8) is asked for")
    soft = pool_masks(features, regions, [0, 1, 2])[0]
    expect(not close(found, soft), "is soft pooling: here a patch goes whole to one region")
    expect(np.isnan(found[2]).all(), "gives a vector to a region that holds most of no patch: make it NaN")
    lengths = np.linalg.norm(np.asarray(found)[:2], axis=1)
    expect(np.allclose(lengths, 1, atol=1e-3), "returns vectors whose length is not 1")
    corner = np.zeros((32, 32), np.int64)
    corner[2:7, 2:7] = 1  # the middle of a patch, but less than half of it
    corner[16:, 16:] = 2
    middle = answer(features, corner)
    expect(
        close(middle, hard_pooling(features, corner)),
        "looks at one pixel of a patch: it belongs to the region that holds most of its pixels",
    )
    counts = patch_counts(features, regions, [0, 1, 2])  # (N, R)
    more = [unit(features.flat()[n > counts.sum(1) / 2].mean(0)) for n in counts.T[:2]]
    expect(
        not close(np.asarray(found)[:2], more),
        "gives patches in which no region has half to nobody: the region with the most takes them",
    )
    expect(
        close(found, hard_pooling(features, regions)), "gives some patch to another region than most of it"
    )


@exercise(
    level=3,
    minutes=30,
    hints=(
        "make a graph whose nodes are regions and whose edges join similar neighbours, then "
        "find its components",
        "the pairs of neighbours are `regions[:, :-1]` with `regions[:, 1:]`, and "
        "`regions[:-1]` with `regions[1:]`; put those above the threshold into a `coo_array`; "
        "`connected_components(links, directed=False)[1][regions]` is the answer",
    ),
    right="Do fewer, larger regions answer better?",
)
def merged(regions, query, threshold):
    """(H, W) ids from 0 on: neighbouring regions whose features have a cosine above a threshold are one.

    Region r has the feature query.features[r]; neighbours share a side of a pixel.
    """
    sides = (regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:])
    a, b = (np.concatenate([side[i].ravel() for side in sides]) for i in (0, 1))
    alike = (query.features[a] * query.features[b]).sum(1) > threshold  # (sides,)
    links = coo_array((np.ones(alike.sum()), (a[alike], b[alike])), shape=(len(query.features),) * 2)
    return connected_components(links, directed=False)[1][regions]


@checks(merged)
def _(answer):
    regions = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 4], [2, 2, 3, 4]])
    angles = np.radians([0, 20, 40, 90, 0])  # 1 is like 0 and 0 is like 4, which lies beside 1 and 3
    query = Query(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), regions)
    found = shaped(answer(regions, query, 0.9), (4, 4), "(H, W)")
    groups = len(np.unique(found))
    expect(groups < 5, "merges nothing: neighbours 0 and 1 have a cosine of 0.94, above the threshold of 0.9")
    apart = {tuple(np.unique(found[regions == r])) for r in range(5)}
    expect(all(len(one) == 1 for one in apart), "gives one region several ids")
    expect(
        found[2, 2] != found[0, 0], "merges regions that are not alike (or takes the threshold the wrong way)"
    )
    far = np.array([[0, 1, 2]])
    row = Query(np.array([[1, 0], [0, 1], [1, 0]], np.float32), far)
    kept = np.asarray(answer(far, row, 0.9))
    expect(kept[0, 0] != kept[0, 2], "merges regions that are alike but do not touch")
    corner = Query(np.array([[1, 0], [0, 1], [-1, 0], [1, 0]], np.float32), np.array([[0, 1], [2, 3]]))
    kept = np.asarray(answer(corner.layout, corner, 0.9))
    expect(kept[0, 0] != kept[1, 1], "joins regions that touch at a corner alone: neighbours share a side")
    # 0-1-4 are a chain: 0 is like 1 (20 degrees), 1 like 4 (20), and 0 touches 2, which is 40 away.
    expect(found[0, 0] == found[0, 2], "keeps 0 and 1 apart, which are neighbours and alike")
    expect(found[2, 3] == found[0, 2], "keeps 1 and 4 apart: they share a side, and so are joined with 0")
    expect(found[2, 0] != found[0, 0], "merges 0 and 2, whose cosine is 0.77, below the threshold of 0.9")
    chain = Query(unit(np.array([[1, 0], [1, 0.4], [1, 1.2]], np.float32)), far)  # 0.93, and 0.86
    joined = np.asarray(answer(far, chain, 0.85))
    says = "compares with the mean of what is joined already: the rule is about the regions' own features"
    expect(joined[0, 0] == joined[0, 1] == joined[0, 2], says)
    rng = np.random.default_rng(0)
    for _ in range(5):  # maps of many regions, whose numbers follow no order
        map_of = rng.permutation(60)[rng.integers(0, 60, (12, 12))]
        own = Query(unit(rng.normal(size=(60, 3))).astype(np.float32), map_of)
        pairs = np.stack([np.asarray(answer(map_of, own, 0.5)), merged(map_of, own, 0.5)], -1).reshape(-1, 2)
        groups_of = [len(np.unique(pairs[:, i])) for i in (0, 1)]
        says = "forgets who was joined before: if a joins b and b joins c, all three are one"
        expect(groups_of == [len(np.unique(pairs, axis=0))] * 2, says)
    expect(set(np.unique(found)) == set(range(groups)), "returns ids with gaps: number them from 0 on")
