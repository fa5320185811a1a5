"""How the nearest prototypes are found: exactly, or by a trained faiss index whose effort is tuned.

An approximate index gives candidates, and their exact scores come from the memory's own rows. Rows that
came after it was trained are compared one by one until they are worth a new one. Where a filter
takes many rows away, or a query finds nothing as near as queries do, the rest is compared one by one too.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rose_kit.memory.prototypes import Prototypes, Scalar
from rose_kit.registry import Registry

CHUNK = 65_536  # rows compared at a time: 128 MiB at 512 dimensions
RECALL_AT = 4  # neighbours that a query asks for in RNS
HELD_OUT = 256  # rows that are not trained on, and that ask for their neighbours but not for themselves
LEAST = 2_000  # rows; fewer are always compared one by one
FEW_GONE = 0.9  # share of the rows that a filter leaves: from here on, a trained index may answer
AUTO = 20_000  # rows; from here on "auto" trains an index
Found = tuple[NDArray[np.float32], NDArray[np.int64]]
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
            allowed &= ~table.image_texts.among(table.image_codes, self.exclude_images)
        if self.classes is not None:
            allowed &= table.class_texts.among(table.class_codes, self.classes)
        if self.where is not None:
            fits = self.where if callable(self.where) else self._meets
            seen = {id(facts): facts for facts in table.metadata}  # rows of one image share their facts
            answers = {key: bool(fits(facts)) for key, facts in seen.items()}
            allowed &= np.fromiter((answers[id(facts)] for facts in table.metadata), bool, len(table))
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
    shared = False  # whether the rows live elsewhere, where others may change them

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
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

    ids: NDArray[np.int64]  # (S,) increasing
    faiss: faiss.Index
    visit: int  # lists or nodes that a query looks into
    depth: int  # candidates that are compared exactly
    recall: float  # at `RECALL_AT`, on the held-out rows
    usual: float  # the least score of a 4th neighbour among them


class FaissIndex(Index):
    """Approximate search by a faiss factory index, tuned until held-out rows are answered well enough.

    Args:
        dim: D.
        recall_target: share of the true 4 nearest rows that a search must find. Half of what it leaves to
            1 is kept as a margin, as queries differ from the rows that the effort is tuned on.
    """

    parameter: str  # what faiss calls the lists or nodes to visit
    efforts: tuple[tuple[int, int], ...]  # (visit, depth), least first

    def __init__(self, dim: int, recall_target: float = 0.95) -> None:
        super().__init__(dim)
        if not 0 < recall_target < 1:
            raise ValueError(f"recall_target must be between 0 and 1, got {recall_target}")
        self.recall_target = recall_target
        self._trained: Trained | None = None
        self._placed: tuple = (None, None, None, None)  # table ids, trained, positions, later rows
        self._lock = threading.RLock()

    def __copy__(self) -> FaissIndex:
        twin = type(self)(self.dim, self.recall_target)
        twin._trained = self._trained  # it is never changed
        return twin

    def __getstate__(self) -> dict:
        return {"dim": self.dim, "recall_target": self.recall_target, "arrays": self.dump()}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["dim"], state["recall_target"])
        self.restore(state["arrays"])

    def factory(self, count: int) -> str:
        """What `faiss.index_factory` makes for so many rows."""
        raise NotImplementedError

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
        """See `Index.search`. A filter that takes many rows away is answered exactly."""
        mask = chosen.mask(table)
        few = len(table) if mask is None else int(mask.sum())
        trained = self._cover(table) if few > max(LEAST, FEW_GONE * len(table)) else None
        if trained is None:
            return exact_search(table.vectors, queries, k, None if mask is None else np.flatnonzero(mask))
        at, later = self._place(table, trained)  # (S,) positions of the trained rows, -1: gone
        allowed = at >= 0 if mask is None else (at >= 0) & mask[at]
        selector = None
        if not allowed.all():
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        wider = 4 if allowed.mean() < 0.95 else 1  # queries among rows that are gone must look further
        depth = min(max(wider * trained.depth, 4 * k), len(at))
        near = self._candidates(trained.faiss, queries, wider * trained.visit, depth, selector)
        found = rerank(table.vectors, queries, np.append(at, -1)[near], k)
        far = found[0][:, min(k, RECALL_AT) - 1] < trained.usual  # nothing as near as queries find
        short = np.flatnonzero(far | ((found[1] if selector is None else near) < 0).any(1))
        if len(short):  # what was visited holds few rows that are allowed: nearer ones may lie elsewhere
            found[0][short], found[1][short] = exact_search(table.vectors, queries[short], k, at[allowed])
        later = later if mask is None else later[mask[later]]
        return best(found, exact_search(table.vectors, queries, k, later), k) if len(later) else found

    def dump(self) -> dict[str, NDArray]:
        """See `Index.dump`."""
        if (trained := self._trained) is None:
            return {}
        facts = np.array([trained.visit, trained.depth, trained.recall, trained.usual])
        return {"ids": trained.ids, "faiss": faiss.serialize_index(trained.faiss), "facts": facts}

    def restore(self, arrays: Mapping[str, NDArray]) -> None:
        """See `Index.restore`; what another version saved is left, and trained anew when asked."""
        try:
            visit, depth, recall, usual = arrays["facts"].tolist()
            index = faiss.deserialize_index(arrays["faiss"])
            if (index.d, index.ntotal) == (self.dim, len(arrays["ids"])):
                self._trained = Trained(arrays["ids"], index, int(visit), int(depth), recall, usual)
        except (KeyError, RuntimeError, TypeError, ValueError):
            return

    def describe(self) -> str:
        """See `Index.describe`."""
        if (trained := self._trained) is None:
            return f"{self.name}, exact up to {LEAST} rows"
        return (
            f"{self.name} of {len(trained.ids)} rows, visits {trained.visit}, re-ranks {trained.depth}, "
            f"recall@{RECALL_AT} {trained.recall:.3f} on held-out rows"
        )

    def _cover(self, table: Prototypes) -> Trained | None:
        """A trained index that lacks few of the table's rows; None where the table is small."""
        with self._lock:
            trained = self._trained
            if (
                trained is None
                or len(self._place(table, trained)[1]) > max(LEAST, len(trained.ids) // 4)
                or (self._place(table, trained)[0] < 0).sum() > len(trained.ids) // 2
            ):
                self._trained = self._train(table)
            return self._trained

    def _place(self, table: Prototypes, trained: Trained) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(S,) where the trained rows are in a table, -1 for those that are gone; the rows it lacks."""
        ids, of, at, later = self._placed
        if ids is not table.ids or of is not trained:
            at = table.positions(trained.ids)
            unseen = np.ones(len(table), dtype=bool)
            unseen[at[at >= 0]] = False
            later = np.flatnonzero(unseen)
            self._placed = (table.ids, trained, at, later)
        return at, later

    def _train(self, table: Prototypes) -> Trained:
        order = np.random.default_rng(0).permutation(len(table))
        asking, learned_from = np.sort(order[:HELD_OUT]), np.sort(order[HELD_OUT : HELD_OUT + 128 * 1024])
        index = faiss.index_factory(self.dim, self.factory(len(table)), faiss.METRIC_INNER_PRODUCT)
        self._prepare(index)
        index.train(np.ascontiguousarray(table.vectors[learned_from]))
        quiet = None if len(table) > CHUNK else True  # None: shown on terminals only
        with tqdm(total=len(table), desc=f"{self.name}: adding", unit="row", disable=quiet) as bar:
            for start in range(0, len(table), CHUNK // 4):
                piece = np.ascontiguousarray(table.vectors[start : start + CHUNK // 4])
                index.add(piece)
                bar.update(len(piece))
        return Trained(table.ids, index, *self._tuned(index, table, asking))

    def _tuned(self, index: faiss.Index, table: Prototypes, asking: NDArray) -> tuple[int, int, float, float]:
        """The least effort that answers the held-out rows well enough, its recall, and the least score."""
        queries, goal = np.ascontiguousarray(table.vectors[asking]), (1 + self.recall_target) / 2
        scores, truth = exact_search(table.vectors, queries, RECALL_AT + 1)
        truth = _without_self(truth, asking)
        for visit, depth in self.efforts:
            near = self._candidates(index, queries, visit, min(depth, len(table)), None)
            found = _without_self(rerank(table.vectors, queries, near, RECALL_AT + 1)[1], asking)
            hits = [len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]
            if (recall := float(np.mean(hits)) / RECALL_AT) >= goal:
                break
        else:
            warnings.warn(
                f"the {self.name} index reaches recall@{RECALL_AT} {recall:.3f}, not {goal:.3f}", stacklevel=2
            )
        return visit, depth, recall, float(scores[:, -1].min())

    def _prepare(self, index: faiss.Index) -> None:
        """Set what the factory's text cannot say, before training."""

    def _candidates(
        self,
        index: faiss.Index,
        queries: NDArray[np.float32],
        visit: int,
        depth: int,
        selector: faiss.IDSelector | None,
    ) -> NDArray[np.int64]:
        """(N, depth) places in the index that look nearest, -1 where there are no more."""
        return index.search(queries, depth, params=self._parameters(visit, depth, selector))[1]

    def _parameters(self, visit: int, depth: int, selector: faiss.IDSelector | None):
        raise NotImplementedError


@indexes.register("ivfpq")
class IVFPQIndex(FaissIndex):
    """Rows in lists by the nearest of 2 sqrt(P) centres, each kept as a 4-bit code per 8 dimensions.

    Product quantisation is by Jégou et al. (2011), the look-up in registers by André et al. (2015).
    """

    name = "ivfpq"
    efforts = (
        *((1, 64), (2, 64), (4, 64), (4, 128), (8, 128), (16, 128), (16, 256), (32, 256)),
        *((64, 256), (64, 512), (128, 512), (256, 1024), (512, 2048)),
    )

    def factory(self, count: int) -> str:
        """See `FaissIndex.factory`."""
        most = max(self.dim // 8, 16)
        codes = max(m for m in range(1, self.dim + 1) if self.dim % m == 0 and m <= most)
        return f"IVF{max(4, round(2 * math.sqrt(count)))},PQ{codes}x4fs"

    def _prepare(self, index: faiss.Index) -> None:
        index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = 8, 48, 0

    def _parameters(self, visit: int, depth: int, selector: faiss.IDSelector | None):
        return faiss.SearchParametersIVF(sel=selector, nprobe=visit)


@indexes.register("hnsw")
class HNSWIndex(FaissIndex):
    """A graph in which each row knows 32 near ones, walked from far to near (Malkov & Yashunin, 2016).

    One byte per dimension and some 270 bytes of links a row; quick to search, slow to build.
    """

    name = "hnsw"
    efforts = ((16, 16), (32, 16), (64, 32), (128, 32), (256, 64), (512, 64), (1024, 64))

    def factory(self, count: int) -> str:
        """See `FaissIndex.factory`."""
        return "HNSW32_SQ8"

    def _prepare(self, index: faiss.Index) -> None:
        index.hnsw.efConstruction = 40

    def _parameters(self, visit: int, depth: int, selector: faiss.IDSelector | None):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(visit, depth))


@indexes.register("auto")
class AutoIndex(IVFPQIndex):
    """Exact up to 20,000 rows, where training would pay only after dozens of images; then IVF-PQ.

    HNSW was slower to ask and to build, and larger, at every size from 10,000 to 100,000 rows;
    `notebooks/experiments/retrieval.ipynb` measures them.
    """

    name = "auto"

    def _cover(self, table: Prototypes) -> Trained | None:
        return super()._cover(table) if len(table) > AUTO else None

    def describe(self) -> str:
        """See `Index.describe`."""
        return super().describe() if self._trained else f"auto, exact up to {AUTO} rows"


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
) -> Found:
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
    found = (np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1))
    for start in range(0, count, step):
        at = slice(start, start + step) if among is None else among[start : start + step]
        piece = np.ascontiguousarray(vectors[at])  # (n, D)
        scores, near = faiss.knn(queries, piece, k, metric=faiss.METRIC_INNER_PRODUCT)  # (N, k)
        scores[near < 0] = -np.inf
        near = np.where(near < 0, -1, near + start) if among is None else np.append(at, -1)[near]
        found = (scores, near) if count <= step else best(found, (scores, near), k)
    return found


def rerank(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], near: NDArray[np.int64], k: int
) -> Found:
    """The k best of each query's own candidates, by the full rows.

    Args:
        vectors: (P, D), perhaps on disk.
        queries: (N, D).
        near: (N, R) positions, -1 for none.
        k: at most R are found; the rest is -1.
    """
    scores, near = np.empty(near.shape, np.float32), np.ascontiguousarray(near)
    given = map(faiss.swig_ptr, (scores, np.ascontiguousarray(queries), np.asarray(vectors), near))
    faiss.fvec_inner_products_by_idx(*given, vectors.shape[1], *near.shape)
    scores[near < 0] = -np.inf
    empty = (np.full((len(near), k), -np.inf, np.float32), np.full((len(near), k), -1))
    return best((scores, near), empty, k)


def best(one: Found, other: Found, k: int) -> Found:
    """The k best of two findings for the same queries, ties in the order given."""
    scores, near = (np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(near, order, 1)


def _without_self(near: NDArray[np.int64], asking: NDArray[np.int64]) -> list[list[int]]:
    return [[p for p in row if p != own][:RECALL_AT] for row, own in zip(near.tolist(), asking, strict=True)]
