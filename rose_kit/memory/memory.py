"""SupportMemory: what the kit knows, one row per class and annotated image."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rose_kit.memory.index import Filter, Index, Where, make_index, name_list
from rose_kit.memory.prototypes import (
    Hits,
    Prototypes,
    Scalar,
    check_unit,
    near_names,
    pool_prototypes,
    unpack_thumbnail,
)
from rose_kit.memory.storage import read_folder, write_folder
from rose_kit.types import FeatureMap, unit


class SupportMemory:
    """Class prototypes of annotated images, keyed by class name and image id.

    Each row is the mean feature of one class in one image (RNS, equation 2). Rows come and go without
    training, each change whole or not at all; a row's id is never given to another.

    Threads may search while one writes: each call reads one table of rows, `snapshot()` holds on to one
    for several calls. Processes share a memory through its folder.

    Args:
        dim: D, the width of the features.
        fingerprint: the encoder's own: features of different encoders never meet; None accepts any.
        encoder: what `load_encoder` makes it by, kept so that others know which to load.
        index: how rows are searched: "flat" (exact), "hnsw", "ivfpq", "auto" (by the number of rows),
            "milvus", or an `Index` made beforehand; if that keeps rows of its own, they are the memory's.

    Raises:
        ValueError: `dim` is not a positive whole number, or the index is unknown.

    >>> memory = SupportMemory.from_prototypes(np.eye(3), ["sky", "bus", "bus"], ["a", "a", "b"])
    >>> memory.search(np.eye(3)[[1]], k=2, classes=["bus"]).ids.tolist()
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
        self.dim = _count("dim", dim)
        self.fingerprint, self.encoder = fingerprint, encoder
        self._index = make_index(index, self.dim)
        self._lock, self._frozen, self._keys = threading.RLock(), False, None
        stored = self._index.stored()
        self._rows = Prototypes.make([], np.zeros((0, self.dim)), [], []) if stored is None else stored
        self._next_id = int(self._rows.ids[-1]) + 1 if len(self._rows) else 0

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
        memory.extend(Prototypes.make(np.arange(len(vectors)), vectors, class_names, image_ids))
        return memory

    # --- changing -------------------------------------------------------------------------------------------

    def add(
        self,
        image_id: str,
        feature_map: FeatureMap,
        mask: NDArray,
        classes: Mapping[int, str],
        *,
        source: str | Path | None = None,
        thumbnail: NDArray[np.uint8] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
    ) -> NDArray[np.int64]:
        """Add one prototype per class that an annotated image shows.

        Args:
            image_id: the image's name in this memory.
            feature_map: its (h, w, D) features.
            mask: (H, W) integers at the image's own size.
            classes: value of `mask` -> class name; values not listed are ignored.
            source: where the image can be found.
            thumbnail: the (H, W, 3) uint8 image itself; a copy of at most 96 px is kept.
            metadata: flat mapping of text, numbers, truth values; `search` can filter by it.

        Returns:
            (R,) int64 ids of the new rows, in the order of `classes`; absent classes make no row.

        Raises:
            ValueError: something has the wrong shape or type, features are not of unit norm, or the
                memory already has one of these classes for this image. Nothing is added then.
        """
        return self.extend(pool_prototypes(image_id, feature_map, mask, classes, source, thumbnail, metadata))

    def extend(self, rows: Prototypes) -> NDArray[np.int64]:
        """Add ready-made rows, in one step; their ids are given anew.

        Args:
            rows: from another memory, or of `Prototypes.make`.

        Returns:
            (R,) int64 ids of the new rows.

        Raises:
            ValueError: a vector is not of unit norm or of another width, or an image has one of the
                classes already.
        """
        if rows.vectors.shape[1] != self.dim:
            raise ValueError(f"features have {rows.vectors.shape[1]} dimensions; this memory has {self.dim}")
        check_unit(rows.vectors, "vector")
        if not len(rows):
            return np.zeros(0, np.int64)
        with self._lock:
            self._check_writable()
            keys = rows.keys()
            self._check_keys(keys)
            rows = replace(rows, ids=self._next_id + np.arange(len(rows)))
            extended = self._rows.extended(rows)
            self._index.added(rows)
            self._next_id += len(rows)  # first: whoever copies meanwhile must not give these ids again
            self._rows = extended
            self._keys.update(keys)
        return rows.ids.copy()

    def remove(self, image_id: str | None = None, class_name: str | None = None, ids: ArrayLike = ()) -> int:
        """Remove the rows of an image, of a class, of a class in an image, or by prototype id.

        Returns:
            how many rows were removed.

        Raises:
            ValueError: nothing is given, ids beside a name, or no row matches (lists near names).
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        if len(ids) and (image_id, class_name) != (None, None):
            raise ValueError(f"ids stand alone, without the name {image_id or class_name!r}")
        with self._lock:
            self._check_writable()
            rows = self._rows
            if len(ids):
                chosen = np.zeros(len(rows), dtype=bool)
                chosen[_positions(rows, ids)] = True
            else:
                chosen = _rows_matching(rows, image_id, class_name)
            self._index.removed(rows.ids[chosen])
            self._rows, self._keys = rows.take(~chosen), None
        return int(chosen.sum())

    def subset(self, ids: ArrayLike) -> SupportMemory:
        """A memory of its own with some of the rows, which keep their ids.

        Args:
            ids: (R,) prototype ids, in any order.

        Raises:
            ValueError: there is no such id.
        """
        rows = self._rows
        chosen = np.unique(_positions(rows, ids))
        return self._shallow_copy(rows.take(chosen), make_index("flat", self.dim))

    # --- asking ---------------------------------------------------------------------------------------------

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
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries must be (N, {self.dim}), got shape {queries.shape}")
        bad = np.flatnonzero(~np.isfinite(queries).all(1))
        if len(bad):
            raise ValueError(f"query {bad[0]} is not finite ({len(bad)} of {len(queries)} are not)")
        rows = self._rows
        if not len(rows):
            raise ValueError("the memory is empty: add images before searching it")
        chosen = Filter.of(classes, exclude_images, where)
        scores, positions = self._index.search(rows, queries, _count("k", k), chosen)
        return Hits(scores, np.append(rows.ids, -1)[positions])

    def lookup(self, ids: ArrayLike) -> Prototypes:
        """Rows by prototype id, in the order asked.

        Args:
            ids: (R,) int64; another shape is read row by row.

        Raises:
            ValueError: there is no such id (removed, or never given).
        """
        rows = self._rows
        return rows.take(_positions(rows, ids))

    def thumbnail(self, prototype_id: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """The image behind a prototype, and where in it the prototype was pooled.

        Returns:
            (h, w, 3) uint8 and (h, w) bool, at most 96 px, or None where no image was given.
        """
        return unpack_thumbnail(self.lookup(prototype_id).thumbnails[0])

    def class_prototypes(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) one prototype per class: the sum of its rows, at unit norm (RNS, equation 5).

        NaN where a class has no row.
        """
        return unit(self.class_sums(names))

    def class_sums(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) the sum of each class's rows; NaN where a class has no row."""
        sums = self._rows.class_sums
        chosen = [sums.get(name, np.full(self.dim, np.nan)) for name in name_list("names", names)]
        return np.array(chosen, dtype=np.float32).reshape(-1, self.dim)

    @property
    def rows(self) -> Prototypes:
        """Everything, in the order of adding. The arrays are the memory's own: copy before writing."""
        return self._rows

    ids = property(lambda self: self._rows.ids, doc="(P,) int64 prototype ids, increasing.")
    vectors = property(lambda self: self._rows.vectors, doc="(P, D) float32 prototypes, unit norm.")
    class_names = property(lambda self: self._rows.class_names, doc="(P,) str, the class of each row.")
    image_ids = property(lambda self: self._rows.image_ids, doc="(P,) str, the image of each row.")
    classes = property(lambda self: self._rows.classes, doc="The different class names, first seen first.")

    images = property(lambda self: self._rows.images, doc="The different image ids, first seen first.")

    def summary(self) -> dict[str, int]:
        """Rows per class, most first."""
        return dict(Counter(self.class_names.tolist()).most_common())

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        size = f"{len(self)} prototypes of {len(self.classes)} classes in {len(self.images)} images"
        return f"SupportMemory({size}, dim={self.dim}, fingerprint={self.fingerprint!r})"

    def describe_index(self) -> str:
        """One line on how the memory is searched; an index is trained when it is first needed."""
        return self._index.describe()

    # --- copies, folders ------------------------------------------------------------------------------------

    def snapshot(self) -> SupportMemory:
        """The memory as it is now, whatever is written to it later; cannot be changed itself."""
        twin = self._shallow_copy(self._rows, self._index)
        twin._frozen = True
        return twin

    def copy(self) -> SupportMemory:
        """A memory of its own with the same rows and ids; also what `copy.deepcopy` makes.

        Rows are shared, as they never change: a copy before a change is how the change is taken back. The
        copy of a memory on Milvus is in this process, and flat.
        """
        return self._shallow_copy(self._rows, copy.copy(self._index))

    __copy__, __deepcopy__ = copy, lambda self, memo: self.copy()

    def _shallow_copy(self, rows: Prototypes, index: Index) -> SupportMemory:
        twin = object.__new__(type(self))
        own = {"_rows": rows, "_index": index, "_lock": threading.RLock(), "_keys": None, "_frozen": False}
        twin.__dict__ = self.__dict__ | own
        return twin

    def __getstate__(self) -> dict[str, Any]:
        twin = self.copy()  # what travels to another process has an index that can
        return {name: value for name, value in vars(twin).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {"_lock": threading.RLock()}

    def save(self, path: str | Path) -> None:
        """Write the memory to a folder, replacing in one step the memory that was there.

        A crash at any moment leaves either the old memory or the new one, whole.

        Raises:
            ValueError: the path is a file.
            OSError: the disk refuses.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"cannot save a memory at {str(folder)!r}: it is a file, not a folder")
        folder.mkdir(parents=True, exist_ok=True)
        held = self.snapshot()  # another thread may write meanwhile
        header = {name: getattr(held, name) for name in ("fingerprint", "encoder", "dim")}
        header |= {"index": held._index.name, "next_id": held._next_id}
        write_folder(folder, held._rows, header, held._index.dump())

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
        rows, manifest, learned = read_folder(Path(path), mapped)
        memory = cls(
            manifest["dim"],
            fingerprint=manifest["fingerprint"],
            encoder=manifest["encoder"],
            index=index or manifest["index"],
        )
        memory._check_fingerprint(fingerprint)
        if len(memory):
            raise ValueError(f"the index has {len(memory)} rows of its own; {str(path)!r} needs an empty one")
        if memory._index.name == manifest["index"]:
            memory._index.restore(learned)
        if len(rows):
            memory._index.added(rows)
        memory._rows, memory._next_id = rows, manifest["next_id"]
        return memory

    # --- refusing -------------------------------------------------------------------------------------------

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

    def _check_writable(self) -> None:
        if self._frozen:
            raise ValueError("this is a snapshot, which cannot be changed; change the memory it is of")

    def _check_keys(self, keys: Sequence[tuple[str, str]]) -> None:
        """Refuse an (image id, class name) that is there already, or twice in one go."""
        if self._keys is None:
            self._keys = set(self._rows.keys())
        again = self._keys.intersection(keys) or {key for key, n in Counter(keys).items() if n > 1}
        if again:
            image_id, name = min(again)
            raise ValueError(
                f"there is already a prototype of class {name!r} for image {image_id!r}; to replace it, "
                f"first remove(image_id={image_id!r}, class_name={name!r})"
            )


def _positions(rows: Prototypes, ids: ArrayLike) -> NDArray[np.int64]:
    """(R,) where rows are, by prototype id; raises ValueError if there is no such id."""
    ids = np.asarray(ids, dtype=np.int64).reshape(-1)
    positions = rows.positions(ids)
    unknown = ids[positions < 0]
    if len(unknown):
        held = f"{len(rows)} ids from {rows.ids[0]} to {rows.ids[-1]}" if len(rows) else "none"
        raise ValueError(f"there is no prototype with id {unknown[0]}; the memory holds {held}")
    return positions


def _rows_matching(rows: Prototypes, image_id: str | None, class_name: str | None) -> NDArray[np.bool_]:
    """(P,) the rows of an image, of a class, or of both; raises ValueError if there are none."""
    if image_id is None and class_name is None:
        raise ValueError("which rows? Give image_id, class_name or both, or ids")
    matching = np.ones(len(rows), dtype=bool)
    for what, name, column in (("image", image_id, rows.image_ids), ("class", class_name, rows.class_names)):
        if name is None:
            continue
        match = matching & (column == name)
        if not match.any():
            inside = f" in image {image_id!r}" if what == "class" and image_id is not None else ""
            known = list(dict.fromkeys(column[matching].tolist()))
            raise ValueError(f"there is no {what} {name!r}{inside}; {near_names(str(name), known)}")
        matching = match
    return matching


def _count(what: str, value: Any) -> int:
    """Refuse all but whole numbers from 1 up."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{what} must be a positive whole number, got {value!r}")
    return int(value)
