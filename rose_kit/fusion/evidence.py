"""From a table of contributions to the evidence that is shown, and what would change without a prototype."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from rose_kit.types import Evidence, LeaveOut, Query, Vocabulary

if TYPE_CHECKING:
    from rose_kit.fusion.method import Method
    from rose_kit.memory import SupportMemory

KEEP = 8  # prototypes listed per query; what the others give is in the remainder row


def top_evidence(
    contributions: NDArray,
    ids: NDArray,
    owners: NDArray,
    totals: NDArray,
    winners: NDArray,
    keep: int = KEEP,
    leave_out: LeaveOut | None = None,
) -> Evidence:
    """List the strongest prototypes of each query and put the rest into one row, so sums are exact.

    Args:
        contributions: (N, P), P > 0: what each prototype adds to the query's winning score.
        ids: (P,) or (N, P) prototype ids; -1 where there is none.
        owners: (P,) or (N, P) class name of each prototype.
        totals: (N,) winning scores.
        winners: (N,) names of the winning classes.
        keep: prototypes to list per query, by absolute contribution; zeros are left out.
        leave_out: as for `Evidence`.

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
    return Evidence(np.nonzero(listed)[0], ids[listed], owners[listed], weight[listed], leave_out=leave_out)


@dataclass
class LeaveOneOut:
    """The effects of single prototypes on all patches or regions of an image, kept once they are computed.

    The method answers the image again without each of them, so they are exact.

    Args:
        method: gives `Prediction.scores`; nobody changes it later.
        query, memory, vocabulary: what was predicted with; the memory is a snapshot.
        winner: (N,) the class that won.
        initial_weight: (C, D) where a trained head starts; None: where it always does.
    """

    method: Method
    query: Query
    memory: SupportMemory
    vocabulary: Vocabulary
    winner: NDArray
    initial_weight: NDArray | None = None
    effects: dict[int, NDArray] = field(default_factory=dict, init=False)

    @cached_property
    def scores(self) -> NDArray:
        """(N, C) with all prototypes."""
        return self.scores_without(None)

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(R,) prototype ids -> (R, N); NaN where nothing could be answered without one."""
        for i in set(ids.tolist()) - set(self.effects):
            self.effects[i] = winning_change(self.scores, self.scores_without(i), self.winner)
        return np.stack([self.effects[i] for i in ids.tolist()])

    def scores_without(self, prototype_id: int | None) -> NDArray[np.float32] | None:
        """(N, C) scores, -inf where a class has none; None where neither text nor a prototype is left."""
        rest = self.memory.subset(self.memory.ids[self.memory.ids != prototype_id])
        if self.vocabulary.has_text.any() or np.isin(self.vocabulary.names, rest.classes).any():
            start = {"initial_weight": self.initial_weight}
            return self.method.predict(self.query, rest, self.vocabulary, **start).scores
        return None


def winning_change(before: NDArray, after: NDArray | None, winner: NDArray) -> NDArray[np.float32]:
    """The change of the winning score, less the mean change over the classes that have a score both times.

    Args:
        before, after: (N, C) scores, -inf where a class has none; `after` None: there are none at all.
        winner: (N,) class whose score is followed.

    Returns:
        (N,) float32; -inf where the class has no score any more, NaN without scores.

    >>> winning_change(np.array([[3.0, 1.0, 0.0]]), np.array([[1.0, 1.0, -np.inf]]), np.array([0])).tolist()
    [-1.0]
    """
    if after is None:
        return np.full(len(before), np.nan, np.float32)
    both = np.isfinite(before) & np.isfinite(after)  # (N, C)
    change = np.subtract(after, before, where=both, out=np.zeros(both.shape))
    rows = np.arange(len(before))
    own = np.where(both[rows, winner], change[rows, winner], -np.inf)
    return (own - change.sum(1) / np.maximum(both.sum(1), 1)).astype(np.float32)


def pooled_evidence(evidence: Evidence, patches: Iterable[int]) -> Evidence:
    """The evidence of several patches together, such as those of one object: the mean over them.

    Args:
        evidence: of one image.
        patches: which of its queries.

    Returns:
        One row per prototype, all as query 0, largest absolute weight first. The weights add up to the
        mean winning score of the patches; an effect is the mean over all of them, NaN until it is asked for
        (or was, where each patch lists the prototype).

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
    groups = table.groupby(["prototype_id", "class_name"], sort=False)
    weight, effect = groups["weight"].sum(), groups["effect"].sum(min_count=len(patches))
    ids, names = (weight.index.get_level_values(level).to_numpy() for level in (0, 1))
    weight, effect = (sums.to_numpy(np.float32) / len(patches) for sums in (weight, effect))
    whole = evidence.leave_out
    leave_out = whole and partial(_mean_effects, whole, patches)
    pooled = Evidence(np.zeros(len(ids), np.int64), ids, names.astype(str), weight, effect, leave_out)
    return pooled.top(0, len(pooled))


def _mean_effects(leave_out: LeaveOut, patches: NDArray, ids: NDArray) -> NDArray:
    """(R,) prototype ids -> (R, 1) their effect on the mean over some patches."""
    return leave_out(ids)[:, patches].mean(1, keepdims=True)
