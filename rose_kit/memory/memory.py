"""SupportMemory: what the kit knows, one row per class and annotated picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rose_kit.memory.checks import Scalar, check_count, check_keys, check_queries, check_unit, name_list
from rose_kit.memory.indexes import INDEXES
from rose_kit.memory.pictures import picture_rows, unpack_thumbnail
from rose_kit.memory.rows import Hits, Rows, Where, belonging, matching
from rose_kit.memory.store import load_rows, save_rows
from rose_kit.types import FeatureMap, unit


class SupportMemory:
    """Class prototypes of annotated pictures, keyed by class name and image id.

    Each row is the mean feature of one class in one picture (RNS, equation 2). Rows come and go without
    training; a row's id is never given to another.

    Args:
        dim: D, the width of the features.
        fingerprint: the encoder's own: features of different encoders never meet; None accepts any.
        encoder: what `load_encoder` makes it by, kept so that others know which to load.
        index: how rows are searched; "flat" is exact.

    Raises:
        ValueError: `dim` is not a positive whole number, or the index is unknown.

    >>> memory = SupportMemory.from_prototypes(np.eye(3), ["sky", "bus", "bus"], ["a", "a", "b"])
    >>> memory.search(np.eye(3)[[1]], k=2, classes=["bus"]).rows.tolist()
    [[1, 2]]
    >>> memory.remove(class_name="bus"), memory.classes
    (2, ('sky',))
    """

    def __init__(
        self, dim: int, *, fingerprint: str | None = None, encoder: str | None = None, index: str = "flat"
    ) -> None:
        if index not in INDEXES:
            raise ValueError(f"unknown index {index!r}. Known: {', '.join(INDEXES)}")
        if not isinstance(fingerprint, str | None):
            raise ValueError(f"fingerprint must be text or None, got {fingerprint!r}")
        self.dim = check_count("dim", dim)
        self.fingerprint, self.encoder = fingerprint, encoder
        self._index = INDEXES[index](self.dim)
        self._blocks = [Rows.make([], np.zeros((0, self.dim)), [], [])]  # appended to, joined when read
        self._keys: set[tuple[str, str]] = set()  # (image id, class name) of every row
        self._next_id = 0
        self._class_sums: dict[str, NDArray[np.float32]] = {}  # filled on demand, emptied by changes

    @classmethod
    def from_prototypes(
        cls,
        vectors: ArrayLike,
        class_names: Sequence[str],
        image_ids: Sequence[str],
        index: str = "flat",
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
        memory._append(Rows.make(np.arange(len(vectors)), vectors, class_names, image_ids))
        return memory

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
        """Add one prototype per class that an annotated picture shows.

        Args:
            image_id: the picture's name in this memory.
            feature_map: its (h, w, D) features.
            mask: (H, W) integers at the picture's own size.
            classes: value of `mask` -> class name; values not listed are ignored.
            source: where the picture can be found.
            thumbnail: the (H, W, 3) uint8 picture itself; a copy of at most 96 px is kept.
            metadata: flat mapping of text, numbers, truth values; `search` can filter by it.

        Returns:
            (R,) int64 ids of the new rows, in the order of `classes`; absent classes make no row.

        Raises:
            ValueError: something has the wrong shape or type, features are not of unit norm, or the
                memory already has one of these classes for this image. Nothing is added then.
        """
        if feature_map.dim != self.dim:
            raise ValueError(f"features have {feature_map.dim} dimensions; this memory has {self.dim}")
        rows = picture_rows(self._next_id, image_id, feature_map, mask, classes, source, thumbnail, metadata)
        self._append(rows)
        return rows.ids.copy()

    def _append(self, rows: Rows) -> None:
        check_unit(rows.vectors, "vector")
        check_keys(rows.keys(), self._keys)
        self._index.add(rows.vectors)
        self._blocks.append(rows)
        self._keys.update(rows.keys())
        self._next_id += len(rows)
        self._class_sums.clear()

    def remove(self, image_id: str | None = None, class_name: str | None = None) -> int:
        """Remove the rows of an image, of a class, or of a class in an image.

        Returns:
            how many rows were removed.

        Raises:
            ValueError: neither is given, or no row matches (lists near names).
        """
        rows = self.rows
        gone = belonging(rows, image_id, class_name)
        self._index.remove(gone)
        self._blocks = [rows.take(~gone)]
        self._keys.difference_update(rows.take(gone).keys())
        self._class_sums.clear()
        return int(gone.sum())

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
            where: metadata that a row must equal, or a predicate on its metadata.

        Returns:
            scores (N, k) float32 and prototype ids (N, k) int64; -inf and -1 where rows run out.

        Raises:
            ValueError: the memory is empty, the queries have the wrong shape or are not finite, or k < 1.
        """
        queries = check_queries(queries, self.dim)
        k = check_count("k", k)
        if not len(self):
            raise ValueError("the memory is empty: add pictures before searching it")
        allowed = matching(self.rows, classes, exclude_images, where)
        scores, positions = self._index.search(queries, k, allowed)
        return Hits(scores, np.append(self.ids, -1)[positions])

    def lookup(self, ids: ArrayLike) -> Rows:
        """Rows by prototype id, in the order asked.

        Args:
            ids: (R,) int64; another shape is read row by row.

        Raises:
            ValueError: there is no such id (removed, or never given).
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        positions = np.searchsorted(self.ids, ids)  # ids only ever grow, so they are sorted
        unknown = ids[~np.isin(ids, self.ids)]
        if len(unknown):
            held = f"{len(self)} ids from {self.ids[0]} to {self.ids[-1]}" if len(self) else "none"
            raise ValueError(f"there is no prototype with id {unknown[0]}; the memory holds {held}")
        return self.rows.take(positions)

    def thumbnail(self, prototype_id: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """The picture behind a prototype, and where in it the prototype was pooled.

        Returns:
            (h, w, 3) uint8 and (h, w) bool, at most 96 px, or None where no picture was given.

        Raises:
            ValueError: there is no such id.
        """
        return unpack_thumbnail(self.lookup(prototype_id).thumbnails[0])

    def class_prototypes(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) one prototype per class: the sum of its rows, at unit norm (RNS, equation 5).

        NaN where a class has no row.
        """
        return unit(self.class_sums(names))

    def class_sums(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) the sum of each class's rows; NaN where a class has no row."""
        if not self._class_sums:
            held, owner = np.unique(self.class_names, return_inverse=True)
            sums = (self.vectors[owner == c].sum(0) for c in range(len(held)))
            self._class_sums = dict(zip(held.tolist(), sums, strict=True))
        found = [self._class_sums.get(name, np.full(self.dim, np.nan)) for name in name_list("names", names)]
        return np.array(found, dtype=np.float32).reshape(-1, self.dim)

    @property
    def rows(self) -> Rows:
        """Everything, in the order of adding. The arrays are the memory's own: copy before writing."""
        if len(self._blocks) > 1:
            self._blocks = [Rows.concatenate(self._blocks)]
        return self._blocks[0]

    ids = property(lambda self: self.rows.ids, doc="(P,) int64 prototype ids, increasing.")
    vectors = property(lambda self: self.rows.vectors, doc="(P, D) float32 prototypes, unit norm.")
    class_names = property(lambda self: self.rows.class_names, doc="(P,) str, the class of each row.")
    image_ids = property(lambda self: self.rows.image_ids, doc="(P,) str, the image of each row.")

    @property
    def classes(self) -> tuple[str, ...]:
        """The different class names, first seen first."""
        return tuple(dict.fromkeys(self.class_names.tolist()))

    @property
    def images(self) -> tuple[str, ...]:
        """The different image ids, first seen first."""
        return tuple(dict.fromkeys(self.image_ids.tolist()))

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        size = f"{len(self)} prototypes of {len(self.classes)} classes in {len(self.images)} images"
        return f"SupportMemory({size}, dim={self.dim}, fingerprint={self.fingerprint!r})"

    def summary(self) -> dict[str, int]:
        """Rows per class, most first."""
        return dict(Counter(self.class_names.tolist()).most_common())

    def check_encoder(self, encoder: Any) -> None:
        """Refuse an encoder other than the one this memory was made with.

        Args:
            encoder: anything with a `fingerprint` and, if it has one, a `dim`.

        Raises:
            ValueError: the fingerprint or the width differs.
        """
        self._check_fingerprint(encoder.fingerprint)
        if getattr(encoder, "dim", self.dim) != self.dim:
            raise ValueError(f"the memory has {self.dim} dimensions, the encoder {encoder.dim}")

    def _check_fingerprint(self, given: str | None) -> None:
        if None not in (self.fingerprint, given) and self.fingerprint != given:
            raise ValueError(f"the memory was made with {self.fingerprint!r}; you gave {given!r}")

    def save(self, path: str | Path) -> None:
        """Write the memory to a folder, replacing in one step the memory that was there.

        A crash at any moment leaves either the old memory or the new one, whole.

        Raises:
            ValueError: the path is a file.
        """
        header = {"fingerprint": self.fingerprint, "encoder": self.encoder, "dim": self.dim}
        save_rows(Path(path), self.rows, {**header, "next_id": self._next_id})

    @classmethod
    def load(cls, path: str | Path, *, fingerprint: str | None = None) -> SupportMemory:
        """Read a memory, verifying every file.

        Args:
            path: the folder.
            fingerprint: of the encoder that it will be used with; None: do not check.

        Raises:
            MemoryFormatError: a file is missing or damaged (a ValueError).
            ValueError: the memory was made with another encoder.
        """
        rows, manifest = load_rows(Path(path))
        memory = cls(manifest["dim"], fingerprint=manifest["fingerprint"], encoder=manifest["encoder"])
        memory._append(rows)
        memory._next_id = manifest["next_id"]
        memory._check_fingerprint(fingerprint)
        return memory
