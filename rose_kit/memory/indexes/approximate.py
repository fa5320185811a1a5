"""What HNSW and IVF-PQ share: seal, tune, search with compressed rows, re-rank with the full ones.

The compressed rows give candidates; their exact scores come from the memory's own rows, which may stay on
disk. Rows added since the index was sealed are compared one by one until they are worth a new one.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rose_kit.memory.filters import Filter
from rose_kit.memory.indexes.base import CHUNK, Found, Index, best, exact_search
from rose_kit.memory.mapped import Mapped
from rose_kit.memory.rows import Rows, positions_of

RECALL_AT = 4  # neighbours a query asks for in RNS
HELD_OUT = 256  # rows that are not trained on, and that ask for their neighbours but not for themselves
DEEPER = 8  # times as many lists or nodes, and half so many times the candidates, to look again
FILTERED = 10  # times `least` rows that a filter may leave: these are compared one by one
FEW_GONE = 0.9  # share of the rows that a filter leaves: from here on, the effort does

Effort = tuple[int, int]  # lists or nodes to visit, candidates to re-rank


@dataclass(frozen=True)
class Sealed:
    """A trained index of S rows that is never changed again."""

    ids: NDArray[np.int64]  # (S,) increasing
    faiss: faiss.Index
    effort: Effort
    recall: float  # reached on the held-out rows
    usual: float  # the least score of the 4th neighbour among them


class ApproximateIndex(Index):
    """Approximate search whose effort is tuned until held-out rows are answered well enough.

    The effort does for queries like the rows, and for the 4 nearest of all of them. Where a filter has
    taken many rows away or more neighbours are wanted, answers are looked for with ever more effort until
    they no longer improve; so are those further than any held-out row's. Where both is so, the query's own
    neighbours are gone and all rows lie equally far: it is compared with each that is allowed.

    Args:
        dim: D.
        recall_target: share of the true 4 nearest rows that a search must find. Half of what it leaves to
            1 is kept as a margin, as queries differ from the rows that the effort is tuned on.
    """

    efforts: tuple[Effort, ...]  # least first
    least = 2_000  # rows; fewer are compared one by one

    def __init__(self, dim: int, recall_target: float = 0.95) -> None:
        super().__init__(dim)
        if not 0 < recall_target < 1:
            raise ValueError(f"recall_target must lie between 0 and 1, got {recall_target!r}")
        self.recall_target = recall_target
        self._sealed: Sealed | None = None
        self._removed = 0  # rows of the sealed index that have left the memory
        self._lock = threading.Lock()
        self._view: tuple = (None, None, None, None)  # of the snapshot that was searched last

    # what a variant adds

    def _trained(self, sample: NDArray[np.float32], count: int) -> faiss.Index:
        """An empty index for `count` rows, trained on some of them."""
        raise NotImplementedError

    def _parameters(self, visit: int, chosen: faiss.IDSelector | None) -> faiss.SearchParameters:
        raise NotImplementedError

    def _widest(self, index: faiss.Index) -> int:
        """The most lists or nodes that a search visits."""
        raise NotImplementedError

    # the interface

    def search(self, rows: Rows, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
        """See `Index.search`. What is found has its exact score; -1 only where rows run out."""
        sealed = self._cover(rows)
        mask = chosen.mask(rows)
        if sealed is None or (mask is not None and mask.sum() <= FILTERED * self.least):
            return exact_search(rows.vectors, queries, k, None if mask is None else np.flatnonzero(mask))
        at, later = self._place(rows, sealed)
        allowed = None if at is None else at >= 0  # (S,)
        if mask is not None:
            allowed = mask.copy() if at is None else allowed & mask[at]
            later = later[mask[later]]
        found = self._look(rows, sealed, at, queries, k, allowed)
        return best(found, exact_search(rows.vectors, queries, k, later), k) if len(later) else found

    def removed(self, ids: NDArray[np.int64]) -> None:
        """See `Index.removed`; an index that is half empty is made anew."""
        self._removed += len(ids)
        if self._sealed is not None and self._removed > len(self._sealed.ids) // 2:
            self._sealed = None

    def dump(self) -> dict[str, NDArray] | None:
        """See `Index.dump`."""
        sealed = self._sealed
        if sealed is None:
            return None
        facts = np.array([*sealed.effort, sealed.recall, sealed.usual])
        return {"ids": sealed.ids, "faiss": faiss.serialize_index(sealed.faiss), "facts": facts}

    def restore(self, arrays: dict[str, NDArray]) -> None:
        """See `Index.restore`; what another version saved otherwise is left, and made anew when asked."""
        try:
            visit, candidates, recall, usual = arrays["facts"].tolist()
            index = faiss.deserialize_index(arrays["faiss"])
            fits = (index.d, index.ntotal) == (self.dim, len(arrays["ids"]))
        except (KeyError, RuntimeError, TypeError, ValueError):
            return
        if not fits:
            return
        self._sealed = Sealed(arrays["ids"], index, (int(visit), int(candidates)), recall, usual)

    def describe(self) -> str:
        """See `Index.describe`."""
        if (sealed := self._sealed) is None:
            return f"{self.name}, exact up to {self.least} rows"
        visit, candidates = sealed.effort
        return (
            f"{self.name} of {len(sealed.ids)} rows, visits {visit}, re-ranks {candidates}, "
            f"recall@{RECALL_AT} {sealed.recall:.3f} on held-out rows"
        )

    # sealing

    def _cover(self, rows: Rows) -> Sealed | None:
        if len(rows) <= self.least:
            return None
        with self._lock:
            sealed = self._sealed
            if sealed is not None:
                unseen = (
                    len(rows) - np.isin(rows.ids, sealed.ids, assume_unique=True).sum()
                    if (self._view[0] is not rows.ids)
                    else len(self._view[3])
                )
            if sealed is None or unseen > max(self.least, len(sealed.ids) // 4):
                self._sealed, self._removed = self._seal(rows), 0
                self.version += 1
            return self._sealed

    def _seal(self, rows: Rows) -> Sealed:
        rng = np.random.default_rng(0)
        order = rng.permutation(len(rows))
        asking, learned_from = order[:HELD_OUT], np.sort(order[HELD_OUT : HELD_OUT + 128 * 1024])
        index = self._trained(rows.vectors[learned_from], len(rows))
        quiet = None if len(rows) > CHUNK else True  # None: shown on terminals only
        with tqdm(total=len(rows), desc=f"{self.name}: adding", unit="row", disable=quiet) as bar:
            for start in range(0, len(rows), CHUNK // 4):
                piece = np.ascontiguousarray(rows.vectors[start : start + CHUNK // 4])
                index.add(piece)
                bar.update(len(piece))
        return self._tuned(Sealed(rows.ids, index, self.efforts[0], 0.0, 0.0), rows, np.sort(asking))

    def _tuned(self, sealed: Sealed, rows: Rows, asking: NDArray[np.int64]) -> Sealed:
        """The least effort that answers the held-out rows well enough."""
        queries, k = np.ascontiguousarray(rows.vectors[asking]), RECALL_AT
        scores, truth = exact_search(rows.vectors, queries, k + 1)
        usual, truth = float(scores[:, -1].min()), _without_self(truth, asking)
        goal = (1 + self.recall_target) / 2
        for effort in self.efforts:
            found = self._ask(rows, sealed, None, queries, k + 1, None, effort)[1]
            recall = np.mean(
                [len(set(a) & set(b)) / k for a, b in zip(_without_self(found, asking), truth, strict=True)]
            )
            if recall >= goal:
                break
        else:
            warnings.warn(
                f"the {self.name} index reaches recall@{k} {recall:.3f}, less than {goal:.3f}", stacklevel=2
            )
        return Sealed(sealed.ids, sealed.faiss, effort, float(recall), usual)

    # searching

    def _place(self, rows: Rows, sealed: Sealed) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Where the sealed rows are in a snapshot (None: as they were), and its rows that are not sealed."""
        ids, of, at, later = self._view
        if ids is not rows.ids or of is not sealed:
            at = positions_of(rows, sealed.ids)  # (S,)
            seen = np.zeros(len(rows), dtype=bool)
            seen[at[at >= 0]] = True
            later = np.flatnonzero(~seen)
            if len(at) == len(rows) and not len(later):
                at = None
            self._view = (rows.ids, sealed, at, later)
        return at, later

    def _look(
        self,
        rows: Rows,
        sealed: Sealed,
        at: NDArray[np.int64] | None,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
    ) -> Found:
        """The k best of the sealed rows that are allowed."""
        (visit, depth), whole = sealed.effort, len(sealed.ids)
        count, selector = whole if allowed is None else int(allowed.sum()), None
        if count < whole:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            visit = visit * whole // max(count, 1)
        found = self._ask(rows, sealed, at, queries, k, selector, (visit, depth))
        odd = found[0][:, min(k, RECALL_AT) - 1] < sealed.usual
        alike = k <= RECALL_AT and count >= FEW_GONE * whole  # to what the effort was tuned for
        left = np.flatnonzero(odd if alike else ~odd)
        while len(left) and visit < self._widest(sealed.faiss):
            visit, depth = DEEPER * visit, DEEPER // 2 * depth
            again = self._ask(rows, sealed, at, queries[left], k, selector, (visit, depth))
            better = (again[0] > found[0][left] + 1e-6).any(1)
            found[0][left], found[1][left] = again
            left = left[better]
        odd[left] = True
        odd = (odd & (not alike)) | ((found[1] < 0).sum(1) > max(k - count, 0))
        if odd.any():
            among = None if allowed is None else np.flatnonzero(allowed) if at is None else at[allowed]
            found[0][odd], found[1][odd] = exact_search(rows.vectors, queries[odd], k, among)
        return found

    def _ask(
        self,
        rows: Rows,
        sealed: Sealed,
        at: NDArray[np.int64] | None,
        queries: NDArray[np.float32],
        k: int,
        selector: faiss.IDSelector | None,
        effort: Effort,
    ) -> Found:
        """Candidates from the sealed index, re-ranked by their exact scores."""
        depth = min(max(effort[1], 4 * k), len(sealed.ids))
        _, near = sealed.faiss.search(
            queries, depth, params=self._parameters(effort[0], selector)
        )  # (N, depth)
        if at is not None:
            near = np.append(at, -1)[near]  # place in the index -> place in the snapshot
        return rerank(rows, queries, near, k)


def rerank(rows: Rows, queries: NDArray[np.float32], near: NDArray[np.int64], k: int) -> Found:
    """The k best of each query's own candidates, by the full rows, which are read where they lie.

    Args:
        queries: (N, D).
        near: (N, R) positions, -1 for none.
        k: at most R are kept; the rest is -1.
    """
    scores = np.full(near.shape, -np.inf, np.float32)
    vectors = rows.vectors
    for part, own in vectors.located(near) if isinstance(vectors, Mapped) else [(vectors, near)]:
        found, own = np.empty_like(scores), np.ascontiguousarray(own)
        given = map(faiss.swig_ptr, (found, queries, part, own))
        faiss.fvec_inner_products_by_idx(*given, part.shape[1], *near.shape)  # -inf where it is -1
        np.maximum(scores, found, out=scores)
    empty = (np.full((len(near), k), -np.inf, np.float32), np.full((len(near), k), -1))
    return best((scores, near), empty, k)


def _without_self(near: NDArray[np.int64], asking: NDArray[np.int64]) -> list[list[int]]:
    return [[p for p in row if p != own][:RECALL_AT] for row, own in zip(near.tolist(), asking, strict=True)]
