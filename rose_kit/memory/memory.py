"""SupportMemory: what the kit knows, one row per class and annotated picture."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rose_kit.memory.cache import search_key
from rose_kit.memory.checks import check_count, check_queries, name_list
from rose_kit.memory.files import writing
from rose_kit.memory.filters import Filter, Where
from rose_kit.memory.indexes import Index, make_index
from rose_kit.memory.pictures import unpack_thumbnail
from rose_kit.memory.rows import Hits, Rows, positions_of
from rose_kit.memory.state import State
from rose_kit.memory.store import Stored, load_state, save_state
from rose_kit.memory.writer import Writer
from rose_kit.types import unit


class SupportMemory(Writer):
    """Class prototypes of annotated pictures, keyed by class name and image id.

    Each row is the mean feature of one class in one picture (RNS, equation 2). Rows come and go without
    training; a row's id is never given to another.

    Threads may search while one writes: each call reads one state, `snapshot()` holds on to one for
    several calls. Processes share a memory through its folder.

    Args:
        dim: D, the width of the features.
        fingerprint: the encoder's own: features of different encoders never meet; None accepts any.
        encoder: what `load_encoder` makes it by, kept so that others know which to load.
        index: how rows are searched: "flat" (exact), "hnsw", "ivfpq", "auto" (by the number of rows),
            "milvus", or an `Index` made beforehand; if that keeps rows of its own, they are the memory's.

    Raises:
        ValueError: `dim` is not a positive whole number, or the index is unknown.

    >>> memory = SupportMemory.from_prototypes(np.eye(3), ["sky", "bus", "bus"], ["a", "a", "b"])
    >>> memory.search(np.eye(3)[[1]], k=2, classes=["bus"]).rows.tolist()
    [[1, 2]]
    >>> memory.remove(class_name="bus"), memory.classes
    (2, ('sky',))
    """

    def __init__(
        self,
        dim: int,
        *,
        fingerprint: str | None = None,
        encoder: str | None = None,
        index: str | Index = "flat",
    ) -> None:
        if not isinstance(fingerprint, str | None):
            raise ValueError(f"fingerprint must be text or None, got {fingerprint!r}")
        self.dim = check_count("dim", dim)
        self.fingerprint, self.encoder = fingerprint, encoder
        self._index = make_index(index, self.dim)
        self._lock, self._frozen, self._held = threading.RLock(), False, None
        self._stored: Stored | None = None
        self._state = State.empty(self.dim)
        if (rows := self._index.rows()) is not None:
            self._state = State((rows,), self._state.gone, (), int(rows.ids[-1]) + 1)

    @classmethod
    def from_prototypes(
        cls,
        vectors: ArrayLike,
        class_names: Sequence[str],
        image_ids: Sequence[str],
        index: str | Index = "flat",
        fingerprint: str | None = None,
    ) -> SupportMemory:
        """A memory of ready-made prototypes, with ids 0 to P-1.

        Args:
            vectors: (P, D), unit norm.
            class_names: (P,).
            image_ids: (P,); no image has two rows of one class.
            index, fingerprint: as for the constructor.

        Raises:
            ValueError: the shapes do not fit, a vector is not of unit norm, or a key repeats.
        """
        vectors = np.array(vectors, dtype=np.float32)  # a copy: the memory owns its rows
        if vectors.ndim != 2:
            raise ValueError(f"vectors must be (P, D), got shape {vectors.shape}")
        memory = cls(vectors.shape[1], fingerprint=fingerprint, index=index)
        memory.extend(Rows.make(np.arange(len(vectors)), vectors, class_names, image_ids))
        return memory

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        classes: Iterable[str] | None = None,
        exclude_images: Iterable[str] = (),
        where: Where | None = None,
    ) -> Hits:
        """The k rows with the largest inner product with each query.

        Args:
            queries: (N, D).
            k: rows per query.
            classes: search among these class names only; a name without rows adds nothing.
            exclude_images: image ids to pass over, such as the query's own.
            where: metadata that a row must have (a value, or a list of which one must be met), or a
                predicate on its metadata.

        Returns:
            scores (N, k) float32 and prototype ids (N, k) int64; -inf and -1 where rows run out.

        Raises:
            ValueError: the memory is empty, the queries have the wrong shape or are not finite, or k < 1.
        """
        queries = check_queries(queries, self.dim)
        k = check_count("k", k)
        rows, cache = self._state.rows, self._state.cache
        if not len(rows):
            raise ValueError("the memory is empty: add pictures before searching it")
        chosen = Filter.of(classes, exclude_images, where)
        key = None if self._index.shared else search_key(queries, k, chosen, self._index.version)
        scores, positions = cache.get(key, lambda: self._index.search(rows, queries, k, chosen))
        return Hits(scores, np.append(rows.ids, -1)[positions])

    def lookup(self, ids: ArrayLike) -> Rows:
        """Rows by prototype id, in the order asked.

        Args:
            ids: (R,) int64; another shape is read row by row.

        Raises:
            ValueError: there is no such id (removed, or never given).
        """
        rows, ids = self.rows, np.asarray(ids, dtype=np.int64).reshape(-1)
        positions = positions_of(rows, ids)
        unknown = ids[positions < 0]
        if len(unknown):
            held = f"{len(rows)} ids from {rows.ids[0]} to {rows.ids[-1]}" if len(rows) else "none"
            raise ValueError(f"there is no prototype with id {unknown[0]}; the memory holds {held}")
        found = rows.take(positions)
        return replace(found, vectors=np.asarray(found.vectors))  # read, where they are on disk

    def thumbnail(self, prototype_id: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """The picture behind a prototype, and where in it the prototype was pooled.

        Returns:
            (h, w, 3) uint8 and (h, w) bool, at most 96 px, or None where no picture was given.
        """
        return unpack_thumbnail(self.lookup(prototype_id).thumbnails[0])

    def class_prototypes(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) one prototype per class: the sum of its rows, at unit norm (RNS, equation 5).

        NaN where a class has no row.
        """
        return unit(self.class_sums(names))

    def class_sums(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) the sum of each class's rows; NaN where a class has no row."""
        sums = self._state.class_sums
        found = [sums.get(name, np.full(self.dim, np.nan)) for name in name_list("names", names)]
        return np.array(found, dtype=np.float32).reshape(-1, self.dim)

    @property
    def rows(self) -> Rows:
        """Everything, in the order of adding. The arrays are the memory's own: copy before writing."""
        return self._state.rows

    ids = property(lambda self: self.rows.ids, doc="(P,) int64 prototype ids, increasing.")
    vectors = property(lambda self: self.rows.vectors, doc="(P, D) float32 prototypes, unit norm.")
    class_names = property(lambda self: self.rows.class_names, doc="(P,) str, the class of each row.")
    image_ids = property(lambda self: self.rows.image_ids, doc="(P,) str, the image of each row.")

    @property
    def classes(self) -> tuple[str, ...]:
        """The different class names, first seen first."""
        return self._state.classes

    @property
    def images(self) -> tuple[str, ...]:
        """The different image ids, first seen first."""
        return tuple(dict.fromkeys(self.image_ids.tolist()))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        size = f"{len(self)} prototypes of {len(self.classes)} classes in {len(self.images)} images"
        return f"SupportMemory({size}, dim={self.dim}, fingerprint={self.fingerprint!r})"

    def summary(self) -> dict[str, int]:
        """Rows per class, most first."""
        return dict(Counter(self.class_names.tolist()).most_common())

    def check_encoder(self, encoder: Any) -> None:
        """Refuse an encoder other than the one this memory was made with, by its `fingerprint` and `dim`.

        Raises:
            ValueError: one of them differs.
        """
        self._check_fingerprint(encoder.fingerprint)
        if getattr(encoder, "dim", self.dim) != self.dim:
            raise ValueError(f"the memory has {self.dim} dimensions, the encoder {encoder.dim}")

    def _check_fingerprint(self, given: str | None) -> None:
        if None not in (self.fingerprint, given) and self.fingerprint != given:
            raise ValueError(f"the memory was made with {self.fingerprint!r}; you gave {given!r}")

    def snapshot(self) -> SupportMemory:
        """The memory as it is now, whatever is written to it later; cannot be changed itself."""
        return self._twin(_frozen=True)

    def copy(self) -> SupportMemory:
        """A memory of its own with the same rows, ids and history; also what `copy.deepcopy` makes.

        Rows are shared, as they never change. The copy of a memory on Milvus is in this process, and flat.
        """
        index = make_index("flat", self.dim) if self._index.shared else copy.copy(self._index)
        return self._twin(_frozen=False, _held=None, _lock=threading.RLock(), _index=index)

    def _twin(self, **different: Any) -> SupportMemory:
        twin = object.__new__(type(self))
        twin.__dict__ = self.__dict__ | different
        return twin

    __copy__, __deepcopy__ = copy, lambda self, memo: self.copy()

    def describe_index(self) -> str:
        """One line on how the memory is searched; an index is made when it is first needed."""
        return self._index.describe()

    def save(self, path: str | Path) -> None:
        """Write the memory to a folder, replacing in one step the memory that was there.

        A crash at any moment leaves either the old memory or the new one, whole. To the folder that it
        was loaded from or saved to last, only what is new is written. Other writers wait meanwhile.

        Raises:
            ValueError: the path is a file.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"cannot save a memory at {str(folder)!r}: it is a file, not a folder")
        folder.mkdir(parents=True, exist_ok=True)
        header = {name: getattr(self, name) for name in ("fingerprint", "encoder", "dim")}
        header["index"] = self._index.name
        with self._lock, writing(folder):
            learned = self._index.dump(), self._index.version
            self._stored = save_state(folder, self._state, header, self._stored, *learned)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        fingerprint: str | None = None,
        index: str | Index | None = None,
        mapped: bool | None = None,
    ) -> SupportMemory:
        """Read a memory, verifying every file.

        Args:
            path: the folder.
            fingerprint: of the encoder that it will be used with; None: do not check.
            index: as for the constructor, in place of the one the memory was saved with.
            mapped: leave the vectors on disk and read what a search needs; None: if they take more than
                256 MiB.

        Raises:
            MemoryFormatError: a file is missing or damaged (a ValueError).
            ValueError: the memory was made with another encoder, or the index has rows of its own.
        """
        state, manifest, stored, learned = load_state(Path(path), mapped)
        memory = cls(
            manifest["dim"],
            fingerprint=manifest["fingerprint"],
            encoder=manifest["encoder"],
            index=index or manifest.get("index", "flat"),
        )
        memory._check_fingerprint(fingerprint)
        if len(memory):
            raise ValueError(f"the index has {len(memory)} rows of its own; {str(path)!r} needs an empty one")
        memory._state, memory._stored = state, stored
        if learned is not None and memory._index.name == manifest["index"]:
            memory._index.restore(learned)
        if len(state.rows):
            memory._index.added(state.rows)
        return memory
