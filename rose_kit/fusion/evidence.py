"""From a table of contributions to the evidence that is shown."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from rose_kit.types import Evidence

KEEP = 8  # prototypes listed per query; what the others give is in the remainder row


def top_evidence(
    contributions: NDArray, ids: NDArray, owners: NDArray, totals: NDArray, winners: NDArray, keep: int = KEEP
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
    # NumPy's argpartition takes several times as long on rows of this kind.
    top = torch.from_numpy(np.abs(contributions)).topk(min(keep, width), dim=1).indices.numpy()  # (N, keep)
    ids, owners, weight = (
        np.take_along_axis(np.broadcast_to(column, (n, width)), top, 1)
        for column in (ids, owners, contributions)
    )
    weight = np.where(ids >= 0, weight, 0)
    remainder = totals - weight.sum(1)
    weight = np.c_[weight, remainder].astype(np.float32)  # (N, keep + 1)
    ids, owners = np.c_[ids, np.full(n, -1)], np.c_[owners, winners]
    listed = weight != 0
    listed[:, -1] = True
    return Evidence(np.nonzero(listed)[0], ids[listed], owners[listed], weight[listed])


def pooled_evidence(evidence: Evidence, patches: Iterable[int]) -> Evidence:
    """The evidence of several patches together, such as those of one object: the mean over them.

    Args:
        evidence: of one image.
        patches: which of its queries.

    Returns:
        One row per prototype, all as query 0, largest absolute weight first. The weights add up to the
        mean winning score of the patches.

    Raises:
        ValueError: the evidence has no row of these patches.

    >>> e = Evidence(np.array([0, 1, 1]), np.array([7, 7, 8]), np.array(["bus"] * 3), np.array([1.0, 2, 6]))
    >>> pooled_evidence(e, [0, 1]).prototype_id.tolist()
    [8, 7]
    """
    patches = np.unique(list(patches))
    table = pd.DataFrame(evidence.columns())
    table = table[table["query"].isin(patches)]
    if table.empty:
        raise ValueError(f"there is no evidence about patches {patches.tolist()}")
    # By name too: the remainder rows, with the id -1, have the name of each winning class.
    sums = table.groupby(["prototype_id", "class_name"], sort=False, as_index=False)["weight"].sum()
    weight = (sums["weight"] / len(patches)).to_numpy(np.float32)
    names = sums["class_name"].to_numpy(str)
    pooled = Evidence(np.zeros(len(sums), np.int64), sums["prototype_id"].to_numpy(), names, weight)
    return pooled.top(0, len(pooled))
