"""From a table of contributions to the evidence that is shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rose_kit.types import Evidence

KEEP = 8  # prototypes listed per query; what the others give is in the remainder row


def strongest(
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
    top = np.argpartition(-np.abs(contributions), min(keep, width) - 1, axis=1)[:, :keep]  # (N, keep)
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
