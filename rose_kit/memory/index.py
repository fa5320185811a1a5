"""How the nearest prototypes are found: exactly, or by a trained faiss index whose effort is tuned.

An approximate index gives candidates, and their exact scores come from the memory's own rows. Rows that
came after it was trained are compared one by one until there are enough to be added to it. Where a filter
takes many rows away, and for a query that finds too few rows or none as near as usual, every row is compared.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import faiss
import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.prototypes import Prototypes, Scalar
from rose_kit.registry import Registry

CHUNK = 65_536  # rows compared at a time: 128 MiB at 512 dimensions
RECALL_AT = 4  # neighbours that a query asks for in RNS
HELD_OUT = 256  # rows that are not trained on, and that ask for their neighbours but not for themselves
AT_ONCE = 2_000  # rows that came after the training; fewer are compared one by one, more are added
FEW_GONE = 0.9  # share of the rows that a filter leaves: from here on, a trained index may answer
AUTO = 20_000  # rows; from here on "auto" trains an index
NONE = np.zeros(0, np.int64)
_training = threading.Lock()  # one thread makes an index, others wait for it
Ranking = tuple[NDArray[np.float32], NDArray[np.int64]]  # scores and positions, (N, k) each, best first
Where = Mapping[str, Scalar | Collection[Scalar]] | Callable[[Mapping[str, Scalar]], bool]
indexes = Registry("index")


@dataclass(frozen=True)
class Filter:
    """Which rows a search may return.

    Args:
        classes: class names; None: any.
        exclude_images: image ids to pass over.
        where: metadata that a row must have (a value, or a list, tuple or set of which one must be met),
            or a predicate on its metadata.

    Raises:
        ValueError: a text where a list is meant, or `where` is neither a mapping nor a function.
    """

    classes: tuple[str, ...] | None = None
    exclude_images: tuple[str, ...] = ()
    where: Where | None = None

    @classmethod
    def of(cls, classes: Iterable[str] | None, exclude_images: Iterable[str], where: Where | None) -> Filter:
        """Check the arguments of `SupportMemory.search`."""
        if not (where is None or callable(where) or isinstance(where, Mapping)):
            raise ValueError(f"where must be a mapping or a function, got {where!r}")
        names = None if classes is None else tuple(name_list("classes", classes))
        return cls(names, tuple(name_list("exclude_images", exclude_images)), where)

    def mask(self, table: Prototypes) -> NDArray[np.bool_] | None:
        """(P,) the rows that may be returned; None: all."""
        allowed = np.ones(len(table), dtype=bool)
        if self.exclude_images:
            allowed &= ~table.of_images(self.exclude_images)
        if self.classes is not None:
            allowed &= table.of_classes(self.classes)
        if self.where is not None:
            fits = self.where if callable(self.where) else self._meets
            allowed &= np.fromiter((bool(fits(facts)) for facts in table.metadata), bool, len(table))
        return None if allowed.all() else allowed

    def _meets(self, facts: Mapping[str, Scalar]) -> bool:
        for key, want in self.where.items():
            options = want if isinstance(want, list | tuple | set | frozenset) else (want,)
            if key not in facts or facts[key] not in options:
                return False
        return True


def name_list(what: str, names: Iterable[str]) -> list[str]:
    """Refuse one text where several names are meant; it would be read letter by letter."""
    if isinstance(names, str):
        raise ValueError(f"{what} must be a list of names, got the text {names!r}")
    return list(names)


@indexes.register("flat")
class Index:
    """Exact search, and what every index has in common.

    Args:
        dim: D.
    """

    name = "flat"  # what a saved memory records

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, chosen: Filter) -> Ranking:
        """The k best rows of each query, best first.

        Args:
            table: P rows.
            queries: (N, D).
            k: how many.
            chosen: which rows may be returned.

        Returns:
            scores (N, k), -inf where there is no further row; positions (N, k) in `table`, there -1.
        """
        mask = chosen.mask(table)
        return exact_search(table.vectors, queries, k, None if mask is None else np.flatnonzero(mask))

    def added(self, table: Prototypes) -> None:
        """Called by the writer when rows join the memory."""

    def removed(self, ids: NDArray[np.int64]) -> None:
        """Called by the writer when rows leave the memory."""

    def stored(self) -> Prototypes | None:
        """The rows that the index itself keeps, ids increasing; None: it keeps none."""
        return None

    def dump(self) -> dict[str, NDArray]:
        """What it has learned, as arrays to be saved."""
        return {}

    def restore(self, arrays: Mapping[str, NDArray]) -> None:
        """Take back what `dump` gave."""

    def describe(self) -> str:
        """One line on what it is."""
        return f"{self.name}, exact"


@dataclass(frozen=True)
class Trained:
    """A trained faiss index of S rows that is never changed again."""

    ids: NDArray[np.int64]  # (S,) prototype ids, in the order of the faiss index
    faiss: faiss.Index
    learned: int  # rows there were when it was trained and tuned; those that came later were only added
    visit: int  # lists or nodes that a query looks into
    recall: float  # at `RECALL_AT`, on the held-out rows
    min_heldout_score: float  # the least score of a 4th neighbour among them

    def later(self, table: Prototypes) -> NDArray[np.int64]:
        """The positions in a table of the rows that the faiss index lacks."""
        count = len(self.ids)
        if np.array_equal(table.ids[:count], self.ids):  # the usual case: rows have only been added
            return np.arange(count, len(table))
        return np.flatnonzero(~np.isin(table.ids, self.ids))


class FaissIndex(Index):
    """Approximate search by a faiss factory index, tuned until held-out rows are answered well enough.

    Args:
        dim: D.
        recall_target: share of the true 4 nearest rows that a search must find. Half of what it leaves to
            1 is kept as a margin, as queries differ from the rows that the effort is tuned on.
    """

    least = 2_000  # rows; fewer are always compared one by one
    visits: tuple[int, ...]  # how many lists or nodes to look into, least first

    def __init__(self, dim: int, recall_target: float = 0.95) -> None:
        super().__init__(dim)
        if not 0 < recall_target < 1:
            raise ValueError(f"recall_target must be between 0 and 1, got {recall_target}")
        self.recall_target = recall_target
        self._trained: Trained | None = None

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, chosen: Filter) -> Ranking:
        """See `Index.search`. A filter that takes many rows away is answered exactly."""
        mask = chosen.mask(table)
        allowed = None if mask is None else np.flatnonzero(mask)
        count = len(table) if allowed is None else len(allowed)
        if count <= max(self.least, FEW_GONE * len(table)):
            return exact_search(table.vectors, queries, k, allowed)
        trained, later = self._ensure_trained(table)
        near = self._candidates(trained.faiss, queries, trained.visit, k)  # (N, depth), -1: none
        near = table.positions(np.append(trained.ids, -1)[near])
        if mask is not None:
            near[~mask[near]] = -1
            later = later[mask[later]]
        ranking = rerank(table.vectors, queries, near, k)
        if len(later):
            ranking = best(ranking, exact_search(table.vectors, queries, k, later), k)
        far = ranking[0][:, min(k, RECALL_AT) - 1] < trained.min_heldout_score
        doubtful = np.flatnonzero(far | (ranking[1] < 0).any(1))  # nearer rows may lie elsewhere
        if len(doubtful):
            ranking[0][doubtful], ranking[1][doubtful] = exact_search(
                table.vectors, queries[doubtful], k, allowed
            )
        return ranking

    def dump(self) -> dict[str, NDArray]:
        """See `Index.dump`."""
        if (trained := self._trained) is None:
            return {}
        facts = np.array([trained.learned, trained.visit, trained.recall, trained.min_heldout_score])
        return {"ids": trained.ids, "faiss": faiss.serialize_index(trained.faiss), "facts": facts}

    def restore(self, arrays: Mapping[str, NDArray]) -> None:
        """See `Index.restore`; what another version saved is left, and trained anew when it is needed."""
        try:
            learned, visit, *scores = arrays["facts"].tolist()
            index = faiss.deserialize_index(arrays["faiss"])
            if (index.d, index.ntotal) == (self.dim, len(arrays["ids"])):
                self._trained = Trained(arrays["ids"], index, int(learned), int(visit), *scores)
        except (KeyError, RuntimeError, TypeError, ValueError):
            return

    def describe(self) -> str:
        """See `Index.describe`."""
        if (trained := self._trained) is None:
            return f"{self.name}, exact up to {self.least} rows"
        return (
            f"{self.name} of {len(trained.ids)} rows, visits {trained.visit}, "
            f"recall@{RECALL_AT} {trained.recall:.3f} on held-out rows"
        )

    def _ensure_trained(self, table: Prototypes) -> tuple[Trained, NDArray[np.int64]]:
        """A trained index that lacks few of the table's rows, and the positions of those.

        It is trained anew where the rows have grown by half or most of them are gone, so that n rows one
        by one cost O(n) in all; until then, rows are added to a copy, which other threads do not search.
        """
        trained, later, outgrown = self._state(table)
        if not outgrown and len(later) <= AT_ONCE:
            return trained, later
        with _training:
            trained, later, outgrown = self._state(table)  # another thread may just have made it
            if outgrown:
                trained, later = self._train(table), NONE
            elif len(later) > AT_ONCE:
                index = faiss.clone_index(trained.faiss)
                index.add(np.ascontiguousarray(table.vectors[later]))
                ids = np.append(trained.ids, table.ids[later])
                trained, later = replace(trained, ids=ids, faiss=index), NONE
            self._trained = trained
        return trained, later

    def _state(self, table: Prototypes) -> tuple[Trained | None, NDArray[np.int64], bool]:
        """The trained index, the positions of the rows that it lacks, and whether to train it anew."""
        if (trained := self._trained) is None:
            return None, NONE, True
        later = trained.later(table)
        remaining = len(table) - len(later)
        return trained, later, len(table) > 1.5 * trained.learned or 2 * remaining < len(trained.ids)

    def _train(self, table: Prototypes) -> Trained:
        order = np.random.default_rng(0).permutation(len(table))
        held_out, learned_from = np.sort(order[:HELD_OUT]), np.sort(order[HELD_OUT : HELD_OUT + 2**17])
        index = self._empty(len(table))
        index.train(np.ascontiguousarray(table.vectors[learned_from]))
        index.add(np.ascontiguousarray(table.vectors))
        queries, goal = np.ascontiguousarray(table.vectors[held_out]), (1 + self.recall_target) / 2
        # Each query finds itself and 4 more.
        scores, truth = exact_search(table.vectors, queries, RECALL_AT + 1)
        for visit in self.visits:
            near = self._candidates(index, queries, visit, RECALL_AT + 1)
            answers = rerank(table.vectors, queries, near, RECALL_AT + 1)[1]
            shared = [len({*a} & {*b}) - 1 for a, b in zip(answers.tolist(), truth.tolist(), strict=True)]
            if (recall := float(np.mean(shared)) / RECALL_AT) >= goal:
                break
        else:
            warnings.warn(
                f"the {self.name} index reaches recall@{RECALL_AT} {recall:.3f}, not {goal:.3f}", stacklevel=2
            )
        return Trained(table.ids, index, len(table), visit, recall, float(scores[:, -1].min()))

    def _candidates(self, index: faiss.Index, queries: NDArray, visit: int, k: int) -> NDArray[np.int64]:
        """(N, depth) places in the index that look nearest, -1 where there are no more."""
        depth, parameters = self._effort(visit, k)
        return index.search(queries, min(depth, index.ntotal), params=parameters)[1]

    def _empty(self, count: int) -> faiss.Index:
        """An untrained index for so many rows."""
        raise NotImplementedError

    def _effort(self, visit: int, k: int) -> tuple[int, faiss.SearchParameters]:
        """How many candidates to ask for, 4k or more, and the parameters of the search."""
        raise NotImplementedError


@indexes.register("ivfpq")
class IVFPQIndex(FaissIndex):
    """Rows in lists by the nearest of 2 sqrt(P) centres, each kept as a 4-bit code per 8 dimensions.

    Product quantisation is by Jégou et al. (2011), the look-up in registers by André et al. (2015).
    """

    name = "ivfpq"
    visits = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

    def _empty(self, count: int) -> faiss.Index:
        most = max(self.dim // 8, 16)
        codes = max(m for m in range(1, self.dim + 1) if self.dim % m == 0 and m <= most)
        lists = max(4, round(2 * math.sqrt(count)))
        index = faiss.index_factory(self.dim, f"IVF{lists},PQ{codes}x4fs", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = 8, 48, 0
        return index

    def _effort(self, visit: int, k: int) -> tuple[int, faiss.SearchParameters]:
        return max(64, 4 * visit, 4 * k), faiss.SearchParametersIVF(nprobe=visit)


@indexes.register("hnsw")
class HNSWIndex(FaissIndex):
    """A graph in which each row knows 32 near ones, walked from far to near (Malkov & Yashunin, 2016).

    One byte per dimension and some 270 bytes of links a row; quick to search, slow to build.
    """

    name = "hnsw"
    visits = (32, 64, 128, 256, 512, 1024)

    def _empty(self, count: int) -> faiss.Index:
        return faiss.index_factory(self.dim, "HNSW32_SQ8", faiss.METRIC_INNER_PRODUCT)

    def _effort(self, visit: int, k: int) -> tuple[int, faiss.SearchParameters]:
        depth = max(32, visit // 4, 4 * k)
        return depth, faiss.SearchParametersHNSW(efSearch=max(visit, depth))


@indexes.register("auto")
class AutoIndex(IVFPQIndex):
    """Exact up to 20,000 rows, where training would pay only after dozens of images; then IVF-PQ.

    HNSW was slower to ask and to build, and larger, at every size from 10,000 to 100,000 rows;
    `notebooks/experiments/retrieval.ipynb` measures them.
    """

    name, least = "auto", AUTO


@indexes.register("milvus")
def _milvus(dim: int) -> Index:
    from rose_kit.memory.milvus import MilvusIndex  # brings its library along when it is asked for

    return MilvusIndex(dim)


def make_index(index: str | Index, dim: int) -> Index:
    """An index by name, or one made beforehand.

    Raises:
        ValueError: the name is unknown, or the index is for vectors of another width.
    """
    made = index if isinstance(index, Index) else indexes.make(index, dim=dim)
    if made.dim != dim:
        raise ValueError(f"the index is for {made.dim} dimensions, the memory has {dim}")
    return made


def exact_search(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
) -> Ranking:
    """Compare every row.

    Copying the allowed rows out and comparing them as one matrix product is, for the patches of an
    image, some ten times faster than a selector that faiss asks row by row.

    Args:
        vectors: (P, D), perhaps on disk.
        queries: (N, D).
        k: how many.
        among: positions to compare; None: all.

    Returns:
        scores (N, k), positions (N, k), as `Index.search`.
    """
    count = len(vectors) if among is None else len(among)
    step = CHUNK if isinstance(vectors, np.memmap) or among is not None else max(count, 1)
    ranking = (np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1))
    for start in range(0, count, step):
        at = slice(start, start + step) if among is None else among[start : start + step]
        piece = np.ascontiguousarray(vectors[at])  # (n, D)
        scores, near = faiss.knn(queries, piece, k, metric=faiss.METRIC_INNER_PRODUCT)  # (N, k)
        scores[near < 0] = -np.inf
        near = np.where(near < 0, -1, near + start) if among is None else np.append(at, -1)[near]
        ranking = (scores, near) if count <= step else best(ranking, (scores, near), k)
    return ranking


def rerank(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], near: NDArray[np.int64], k: int
) -> Ranking:
    """The k best of each query's own candidates, by the full rows.

    Args:
        vectors: (P, D), perhaps on disk.
        queries: (N, D).
        near: (N, R) positions, -1 for none.
        k: how many; where a query has fewer candidates, the rest is -1.
    """
    scores, near = np.empty(near.shape, np.float32), np.ascontiguousarray(near)
    given = map(faiss.swig_ptr, (scores, np.ascontiguousarray(queries), np.asarray(vectors), near))
    faiss.fvec_inner_products_by_idx(*given, vectors.shape[1], *near.shape)
    scores[near < 0] = -np.inf
    empty = (np.full((len(near), k), -np.inf, np.float32), np.full((len(near), k), -1))
    return best((scores, near), empty, k)


def best(one: Ranking, other: Ranking, k: int) -> Ranking:
    """The k best of two rankings for the same queries, ties in the order given."""
    scores, near = (np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(near, order, 1)
