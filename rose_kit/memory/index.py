"""How the nearest prototypes are searched for: exactly, or approximately by a trained faiss index.

`exact_search` compares every row that a filter allows. `FaissIndex` asks a trained index for candidates and
scores these by the full rows of the memory. Rows that are newer than the trained index are compared one by
one, until they are a tenth of all rows: then another index is trained. Where an approximate answer may be
wrong, every row is compared: if a filter leaves out a tenth of the rows or more, and for each query that has
too few hits, or hits that are less similar than those of the index's tuning.
"""

import math
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rose_kit.memory.prototypes import Prototypes, Scalar
from rose_kit.types import check_share, composed, to_array, to_tensor, unknown_name

CHUNK = 4_096  # queries and rows compared at a time; their scores take 64 MiB
RECALL_AT = 4  # neighbours that a query asks for in RNS
TUNING_QUERIES = 256  # rows that serve as queries while the effort is tuned; the index is trained on others
SHARE_NEW = 0.1  # share of the rows that may be newer than the trained index
SHARE_LEFT = 0.9  # share of the rows that a filter must leave for the trained index to be asked
Ranking = tuple[NDArray[np.float32], NDArray[np.int64]]  # scores and positions, (N, k) each, best first
Where = Mapping[str, Scalar | Collection[Scalar]] | Callable[[Mapping[str, Scalar]], bool]


@dataclass
class Filter:
    """Which rows a search may return.

    Args:
        classes: class names; None: any.
        exclude_images: ids of images whose rows are left out.
        where: metadata that a row must have (for each key a value, or a list, tuple or set of allowed
            values), or a function of a row's metadata that says whether the row is allowed.

    Raises:
        ValueError: a text instead of a list of names, or `where` is neither a mapping nor a function.
    """

    classes: Iterable[str] | None = None
    exclude_images: Iterable[str] = ()
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            self.classes = list(map(composed, name_list("classes", self.classes)))
        self.exclude_images = name_list("exclude_images", self.exclude_images)
        if not (self.where is None or callable(self.where) or isinstance(self.where, Mapping)):
            raise ValueError(f"where must be a mapping or a function, got {self.where!r}")

    def mask(self, table: Prototypes) -> NDArray[np.bool_]:
        """(P,) whether each row may be returned."""
        allowed = np.ones(len(table), dtype=bool)
        if self.exclude_images:
            allowed &= ~table.of_images(self.exclude_images)
        if self.classes is not None:
            allowed &= table.of_classes(self.classes)
        if self.where is not None:
            allowed &= np.fromiter(map(self._is_allowed, table.metadata), bool, len(table))
        return allowed

    def _is_allowed(self, metadata: Mapping[str, Scalar]) -> bool:
        if callable(self.where):
            return bool(self.where(metadata))
        several = list | tuple | set | frozenset
        options = {key: v if isinstance(v, several) else (v,) for key, v in self.where.items()}
        return all(key in metadata and metadata[key] in options[key] for key in options)


def name_list(what: str, names: Iterable[str]) -> list[str]:
    """Refuse one text where several names are meant; it would be read letter by letter."""
    if isinstance(names, str):
        raise ValueError(f"{what} must be a list of names, got the text {names!r}")
    return list(names)


class Index:
    """Exact search, and what every index has in common.

    An index is given the memory's table of rows with every search, and brings itself up to date with it then.

    Args:
        dim: D.
    """

    name = "flat"  # saved with a memory

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, row_filter: Filter) -> Ranking:
        """The k best rows of each query, best first.

        Args:
            table: P rows.
            queries: (N, D).
            k: rows per query.
            row_filter: which rows may be returned.

        Returns:
            scores (N, k), -inf where there is no further row; positions (N, k) in `table`, there -1.
        """
        return exact_search(table.vectors, queries, k, row_filter.mask(table))

    def compares_all(self, table: Prototypes, k: int, row_filter: Filter) -> bool:
        """Whether every allowed row is compared with the queries; the arguments are those of `search`."""
        return True

    def describe(self) -> str:
        """One line on what it is."""
        return f"{self.name}, exact"


@dataclass(frozen=True)
class TrainedIndex:
    """A faiss index of S rows. It is never changed, so threads may search it while another one is made.

    Args:
        ids: (S,) prototype ids, in the order of the faiss index.
        faiss: the index itself.
        effort: how many lists or graph nodes a query visits.
        recall: share of the true 4 nearest rows that the tuning queries were answered with.
        min_score: the lowest score of a true 4th neighbour among the tuning queries.
    """

    ids: NDArray[np.int64]
    faiss: faiss.Index
    effort: int
    recall: float
    min_score: float


class FaissIndex(Index):
    """Approximate search by a faiss factory index, whose effort is raised until its recall is high enough.

    Args:
        dim: D.
        recall_target: share of the true 4 nearest rows that a search must find. The tuning aims half-way
            between it and 1, as queries differ from the stored rows that the effort is tuned on.

    Raises:
        ValueError: `recall_target` is not in [0, 1].
    """

    exact_up_to = 2_000  # rows; so few are compared one by one, and no index is trained
    efforts: ClassVar[dict[int, int]]  # lists or graph nodes to visit, lowest first -> candidates, at least
    parameters: Callable[..., faiss.SearchParameters]  # takes the effort, under `effort_name`
    effort_name: str

    def __init__(self, dim: int, recall_target: float = 0.95) -> None:
        super().__init__(dim)
        check_share(recall_target=recall_target)
        self.recall_target = recall_target
        self._trained: TrainedIndex | None = None
        self._lock = threading.Lock()  # held by the one thread that brings the index up to date

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, row_filter: Filter) -> Ranking:
        """See `Index.search`; the module's docstring says when the answer is exact."""
        allowed = row_filter.mask(table)
        if self.compares_all(table, k, row_filter):
            return exact_search(table.vectors, queries, k, allowed)
        trained, missing = self._up_to_date(table)
        places = self._candidates(trained.faiss, queries, trained.effort, k)  # (N, R), -1: none
        candidates = table.positions(np.where(places < 0, -1, trained.ids[places]))
        candidates[~allowed[candidates]] = -1
        newer = exact_search(table.vectors, queries, k, allowed & missing)
        scores, positions = best([rerank(table.vectors, queries, candidates, k), newer], k)
        dissimilar = scores[:, min(k, RECALL_AT) - 1] < trained.min_score
        doubtful = np.flatnonzero(dissimilar | (positions < 0).any(1))
        if len(doubtful):
            exact = exact_search(table.vectors, queries[doubtful], k, allowed)
            scores[doubtful], positions[doubtful] = exact
        return scores, positions

    def compares_all(self, table: Prototypes, k: int, row_filter: Filter) -> bool:
        """See `Index.compares_all`."""
        return row_filter.mask(table).sum() <= max(self.exact_up_to, SHARE_LEFT * len(table), k)

    def __reduce__(self) -> tuple:
        """A copy is not trained: its memory may give ids to other rows than the memory that it is of."""
        return type(self), (self.dim, self.recall_target)

    def describe(self) -> str:
        """See `Index.describe`."""
        if (trained := self._trained) is None:
            return f"{self.name}, exact up to {self.exact_up_to} rows"
        recall = f"recall@{RECALL_AT} {trained.recall:.3f} on stored rows"
        return f"{self.name} of {len(trained.ids)} rows, visits {trained.effort}, {recall}"

    def _up_to_date(self, table: Prototypes) -> tuple[TrainedIndex, NDArray[np.bool_]]:
        """A trained index that holds nearly all rows of a table, and (P,) whether it lacks each row.

        It is trained when there is none, when more than a tenth of the rows are newer, or when most of its
        rows have been removed. So adding n rows one by one trains on O(n) rows in all.
        """
        with self._lock:
            known = () if self._trained is None else self._trained.ids
            if np.array_equal(table.ids[: len(known)], known):  # rows have only been added
                missing = np.arange(len(table)) >= len(known)
            else:
                missing = np.isin(table.ids, known, invert=True)
            if missing.sum() > SHARE_NEW * len(table) or len(known) > 2 * (~missing).sum():
                self._trained, missing = self._train(table), np.zeros_like(missing)
            return self._trained, missing

    def _train(self, table: Prototypes) -> TrainedIndex:
        """Train an index on up to 2**17 rows, add all rows, and find the lowest effort that is enough."""
        order = np.random.default_rng(0).permutation(len(table))
        examples = np.sort(order[TUNING_QUERIES : TUNING_QUERIES + 2**17])
        queries = np.ascontiguousarray(table.vectors[np.sort(order[:TUNING_QUERIES])])
        index = self._empty(len(table))
        index.train(np.ascontiguousarray(table.vectors[examples]))
        index.add(np.ascontiguousarray(table.vectors))
        # Each query finds itself and 4 more.
        scores, truth = exact_search(table.vectors, queries, RECALL_AT + 1, np.ones(len(table), bool))
        goal = (1 + self.recall_target) / 2
        for effort in self.efforts:
            candidates = self._candidates(index, queries, effort, RECALL_AT + 1)
            answers = rerank(table.vectors, queries, candidates, RECALL_AT + 1)[1]
            shared = (answers[:, :, None] == truth[:, None]).sum((1, 2)) - 1  # (N,)
            recall = float(shared.mean()) / RECALL_AT
            if recall >= goal:
                break
        else:
            warnings.warn(
                f"the {self.name} index reaches recall@{RECALL_AT} {recall:.3f}, not {goal:.3f}", stacklevel=2
            )
        return TrainedIndex(table.ids, index, effort, recall, float(scores[:, -1].min()))

    def _candidates(self, index: faiss.Index, queries: NDArray, effort: int, k: int) -> NDArray[np.int64]:
        """(N, R) places in a faiss index of what looks nearest, R >= k; -1 where there are no more."""
        depth = min(max(self.efforts[effort], 4 * k), index.ntotal)
        return index.search(queries, depth, params=self.parameters(**{self.effort_name: effort}))[1]

    def _empty(self, count: int) -> faiss.Index:
        """An untrained index for so many rows."""
        raise NotImplementedError


class IVFPQIndex(FaissIndex):
    """Rows in lists by the nearest of 2 sqrt(P) centres, each stored as a 4-bit code per 8 dimensions.

    Product quantisation is by Jégou et al. (2011), the look-up in registers by André et al. (2015).
    """

    name = "ivfpq"
    efforts: ClassVar = {1: 64, 2: 64, 4: 64, 8: 64, 16: 64, 32: 128, 64: 256, 128: 512, 256: 1024, 512: 2048}
    parameters, effort_name = faiss.SearchParametersIVF, "nprobe"

    def _empty(self, count: int) -> faiss.Index:
        most = max(self.dim // 8, 16)
        codes = max(m for m in range(1, self.dim + 1) if self.dim % m == 0 and m <= most)
        lists = max(4, round(2 * math.sqrt(count)))
        index = faiss.index_factory(self.dim, f"IVF{lists},PQ{codes}x4fs", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = 8, 48, 0
        return index


class HNSWIndex(FaissIndex):
    """A graph in which each row is linked to 32 similar ones (Malkov & Yashunin, 2016).

    One byte per dimension and some 270 bytes of links a row; quick to search, slow to build.
    """

    name = "hnsw"
    efforts: ClassVar = {32: 32, 64: 32, 128: 32, 256: 64, 512: 128, 1024: 256}
    parameters, effort_name = faiss.SearchParametersHNSW, "efSearch"

    def _empty(self, count: int) -> faiss.Index:
        return faiss.index_factory(self.dim, "HNSW32_SQ8", faiss.METRIC_INNER_PRODUCT)


class AutoIndex(IVFPQIndex):
    """Exact up to 20,000 rows, where training would pay only after dozens of images; then IVF-PQ.

    HNSW was slower to search and to build, and larger, at every size from 10,000 to 100,000 rows;
    `notebooks/experiments/retrieval.ipynb` measures them.
    """

    name, exact_up_to = "auto", 20_000


INDEXES = {index.name: index for index in (Index, IVFPQIndex, HNSWIndex, AutoIndex)}


def make_index(index: str | Index, dim: int) -> Index:
    """An index by name, or one made beforehand.

    Raises:
        ValueError: the name is unknown, or the index is for vectors of another width.
    """
    if not isinstance(index, Index):
        if index not in INDEXES:
            raise unknown_name("index", index, INDEXES)
        index = INDEXES[index](dim)
    if index.dim != dim:
        raise ValueError(f"the index is for {index.dim} dimensions, the memory has {dim}")
    return index


def exact_search(
    vectors: NDArray[np.float32] | Tensor,
    queries: NDArray[np.float32] | Tensor,
    k: int,
    allowed: NDArray[np.bool_],
) -> Ranking | tuple[Tensor, Tensor]:
    """Compare every allowed row, by torch.

    On a CPU it is several times as fast as faiss for a few hundred queries, and up to 1.4 times as slow for
    many; and its threads are those of the other steps, while those of faiss and torch wait for each other.

    Args:
        vectors: (P, D), P >= 1, an array, perhaps on disk, or a tensor on the device of the queries.
        queries: (N, D).
        k: rows per query.
        allowed: (P,) which rows to compare.

    Returns:
        scores (N, k), positions (N, k), as `Index.search`; tensors, if the queries are one.
    """
    if not isinstance(queries, Tensor):
        return to_array(exact_search(vectors, to_tensor(queries), k, allowed))
    if len(queries) > CHUNK:  # the scores of all of them may not fit into memory
        parts = [exact_search(vectors, part, k, allowed) for part in queries.split(CHUNK)]
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
    rankings = []
    for start in range(0, len(vectors), CHUNK):
        places = np.flatnonzero(allowed[start : start + CHUNK])
        part = vectors[start : start + CHUNK]
        rows = to_tensor(part if len(places) == len(part) else part[places], queries.device)  # (n, D)
        top = (queries @ rows.T).topk(min(k, len(rows)))  # (N, D) @ (D, n) -> (N, at most k)
        rankings.append((top.values, to_tensor(start + places, queries.device)[top.indices]))
    scores, positions = (torch.cat(parts, 1) for parts in zip(*rankings, strict=True))
    missing = max(k - scores.shape[1], 0)
    scores, order = F.pad(scores, (0, missing), value=-torch.inf).topk(k)
    return scores, F.pad(positions, (0, missing), value=-1).gather(1, order)


def rerank(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], candidates: NDArray[np.int64], k: int
) -> Ranking:
    """The k best of each query's own candidates, by the full rows.

    Args:
        vectors: (P, D), perhaps on disk.
        queries: (N, D).
        candidates: (N, R) positions, R >= k, -1 for none.
        k: rows per query.
    """
    candidates = np.ascontiguousarray(candidates)
    scores = np.empty(candidates.shape, np.float32)
    arrays = (scores, np.ascontiguousarray(queries), np.asarray(vectors), candidates)
    pointers = [faiss.swig_ptr(array) for array in arrays]
    faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], *candidates.shape)
    return best([(scores, candidates)], k)


def best(rankings: Sequence[Ranking], k: int) -> Ranking:
    """The k best of several rankings for the same queries, ties in the order given."""
    scores, positions = (np.concatenate(parts, axis=1) for parts in zip(*rankings, strict=True))
    scores[positions < 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
