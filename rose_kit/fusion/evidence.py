"""From a table of contributions to the evidence that is shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from rose_kit.types import Evidence

KEEP = 8  # prototypes listed per query; what the others give is in the remainder row


def top_evidence(
    contributions: NDArray,
    ids: NDArray,
    owners: NDArray,
    totals: NDArray,
    winners: NDArray,
    keep: int = KEEP,
) -> Evidence:
    """List the strongest prototypes of each query and put the rest into one row, so sums are exact.

    Args:
        contributions: (N, P), P > 0: what each prototype adds to the query's winning score.
        ids: (P,) or (N, P) prototype ids; -1 where there is none.
        owners: (P,) or (N, P) class name of each prototype.
        totals: (N,) winning scores.
        winners: (N,) names of the winning classes.
        keep: prototypes to list per query, by absolute contribution; zeros are left out.

    Returns:
        Evidence whose weights add up to `totals` within each query. The row with prototype_id -1
        holds everything that is not listed: text, bias, weaker prototypes.
    """
    n, width = contributions.shape
    ids, owners = (np.broadcast_to(column, (n, width)) for column in (ids, owners))
    # NumPy's argpartition takes several times as long on rows of this kind.
    top = torch.from_numpy(np.abs(contributions)).topk(min(keep, width), dim=1).indices.numpy()  # (N, keep)
    chosen, names = np.take_along_axis(ids, top, 1), np.take_along_axis(owners, top, 1)
    weight = np.where(chosen >= 0, np.take_along_axis(contributions, top, 1), 0)
    rest = totals - weight.sum(1)
    weight = np.concatenate([weight, rest[:, None]], 1).astype(np.float32)  # (N, keep + 1)
    chosen = np.concatenate([chosen, np.full((n, 1), -1)], 1)
    names = np.concatenate([names, winners[:, None]], 1)
    listed = weight != 0
    listed[:, -1] = True
    query = np.broadcast_to(np.arange(n)[:, None], listed.shape)
    return Evidence(query[listed], chosen[listed], names[listed], weight[listed])


def pooled_evidence(evidence: Evidence, patches: Iterable[int]) -> Evidence:
    """What several patches rest on together, such as those of one object: the mean over them.

    Args:
        evidence: of one image.
        patches: which of its queries.

    Returns:
        One row per prototype, all as query 0, largest absolute weight first. The weights add up to the
        mean winning score of the patches.

    Raises:
        ValueError: the evidence says nothing about these patches.

    >>> e = Evidence(np.array([0, 1, 1]), np.array([7, 7, 8]), np.array(["bus"] * 3), np.array([1.0, 2, 6]))
    >>> pooled_evidence(e, [0, 1]).prototype_id.tolist()
    [8, 7]
    """
    patches = np.unique(list(patches))
    rows = np.flatnonzero(np.isin(evidence.query, patches))
    if not len(rows):
        raise ValueError(f"there is no evidence about patches {patches.tolist()}")
    sums: dict[tuple[int, str], float] = defaultdict(float)  # keyed by name too: rows of -1 have several
    for row in rows:
        sums[int(evidence.prototype_id[row]), str(evidence.class_name[row])] += float(evidence.weight[row])
    ids, names = zip(*sums, strict=True)
    weight = np.array(list(sums.values()), np.float32) / len(patches)
    pooled = Evidence(np.zeros(len(ids), np.int64), np.array(ids), np.array(names), weight)
    return pooled.top(0, len(pooled))
