"""The table of prototypes, what a search of it returns, and how an annotated image becomes rows of it."""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from rose_kit.pooling import pool_masks
from rose_kit.types import IGNORE, FeatureMap

THUMBNAIL_SIDE = 96  # pixels, the longer side at most
Scalar = str | int | float | bool | None
changes = threading.RLock()  # held by the one thread of this process that is adding or removing rows


@dataclass(frozen=True)
class Hits:
    """The nearest prototypes of each query, best first.

    Args:
        scores: (N, k) float32 inner products, -inf where there are fewer than k.
        ids: (N, k) int64 prototype ids, -1 where there are fewer than k.
    """

    scores: NDArray[np.float32]
    ids: NDArray[np.int64]

    rows = property(lambda self: self.ids, doc="(N, k) int64: another name for `ids`.")


class Names:
    """Different texts, each with a code: its place in the order in which they came.

    Names are added and never taken away, so that all tables that come from one another share them.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._codes: dict[str, int] = {}

    def encode(self, names: Iterable[str]) -> NDArray[np.int64]:
        """(P,) the code of each name; new names get new codes."""
        names = list(names)
        new = [name for name in dict.fromkeys(names) if name not in self._codes]
        self._codes |= zip(new, itertools.count(len(self._names)))
        self._names += new
        return np.array([self._codes[name] for name in names], dtype=np.int64)

    def decode(self, codes: NDArray[np.int64]) -> list[str]:
        """P names by (P,) codes."""
        return [self._names[code] for code in codes.tolist()]

    def contain(self, codes: NDArray[np.int64], wanted: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether the name of each code is wanted; wanted names may be unknown."""
        wanted = [self._codes[name] for name in wanted if name in self._codes]
        is_wanted = np.zeros(len(self._names), dtype=bool)
        is_wanted[wanted] = True
        return is_wanted[codes]


@dataclass(frozen=True)
class Prototypes:
    """Prototypes, column by column. A row never changes, so tables may share memory.

    Args:
        ids: (P,) int64, increasing in a memory.
        vectors: (P, D) float32, unit norm; a memory map where they stay on disk.
        class_codes, image_codes: (P,) int64, the class and the image of each row, as codes of `names`.
        sources: (P,) object, where the image can be found, or None.
        metadata: (P,) object, one flat mapping each.
        thumbnails: (P,) object, None or a pair: the (h, w, 3) uint8 image, shared by the rows of one call
            of `add`; the (h, w) mask of the row's region as bits, eight to a byte.
        names: the class names and the image ids.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    class_codes: NDArray[np.int64]
    image_codes: NDArray[np.int64]
    sources: NDArray[np.object_]
    metadata: NDArray[np.object_]
    thumbnails: NDArray[np.object_]
    names: Names = field(compare=False, repr=False)
    _buffer: _Buffer | None = field(default=None, compare=False, repr=False)

    @classmethod
    def make(
        cls,
        ids: ArrayLike,
        vectors: ArrayLike,
        class_names: Iterable[str],
        image_ids: Iterable[str],
        sources: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Scalar]] | None = None,
        thumbnails: Sequence[tuple | None] | None = None,
    ) -> Prototypes:
        """A table from P ids, (P, D) vectors and sequences of length P; the last three may be left out.

        Raises:
            ValueError: columns differ in length, or a name is not text that can be saved.
        """
        ids, vectors = np.asarray(ids, dtype=np.int64), np.asanyarray(vectors, dtype=np.float32)
        class_names, image_ids, empty = list(class_names), list(image_ids), [None] * len(ids)
        objects = sources or empty, metadata or [{} for _ in empty], thumbnails or empty
        sizes = [len(column) for column in (ids, vectors, class_names, image_ids, *objects)]
        if len(set(sizes)) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        for name in {*class_names, *image_ids, *(set(objects[0]) - {None})}:
            check_name(name)
        names = Names()
        codes = names.encode(class_names), names.encode(image_ids)
        columns = (np.fromiter(column, object, len(ids)) for column in objects)
        return cls(ids, vectors, *codes, *columns, names)

    @property
    def columns(self) -> tuple[NDArray, ...]:
        """The seven columns, in the order of the fields."""
        return tuple(getattr(self, one.name) for one in fields(self)[:7])

    @cached_property
    def class_names(self) -> NDArray[np.str_]:
        """(P,) str, the class of each row."""
        return np.array(self.names.decode(self.class_codes), dtype=np.str_)

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """(P,) str, the image of each row."""
        return np.array(self.names.decode(self.image_codes), dtype=np.str_)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The different class names, in the order of their first rows."""
        return tuple(self.names.decode(pd.unique(self.class_codes)))

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The different image ids, in the order of their first rows."""
        return tuple(self.names.decode(pd.unique(self.image_codes)))

    def of_classes(self, class_names: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether each row is of one of these classes."""
        return self.names.contain(self.class_codes, class_names)

    def of_images(self, image_ids: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether each row is of one of these images."""
        return self.names.contain(self.image_codes, image_ids)

    @cached_property
    def class_sums(self) -> dict[str, NDArray[np.float32]]:
        """Class name -> the sum (D,) of its rows."""
        rows = {name: np.asarray(self.vectors[self.of_classes([name])]) for name in self.classes}
        return {name: vectors.sum(0) for name, vectors in rows.items()}

    def keys(self) -> list[tuple[str, str]]:
        """(image id, class name) of each row."""
        names = self.names.decode(self.image_codes), self.names.decode(self.class_codes)
        return list(zip(*names, strict=True))

    def take(self, where: NDArray | slice) -> Prototypes:
        """Some rows, by position, mask or slice."""
        return Prototypes(*(column[where] for column in self.columns), self.names)

    def positions(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Where prototype ids (any shape) are in this table, -1 for those that are not; ids increase."""
        ids = np.asarray(ids, dtype=np.int64)
        if not len(self):
            return np.full(ids.shape, -1)
        at = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def extended(self, more: Prototypes) -> Prototypes:
        """These rows and then others. Adding n rows one by one takes O(n) in all."""
        with changes:
            buffer, end = self._buffer, len(self) + len(more)
            if buffer is None or buffer.used != len(self) or buffer.size < end:
                buffer = _Buffer(self.columns, max(end, len(self) * 3 // 2, len(self) + 64))
            codes = (self.names.encode(more.names.decode(c)) for c in (more.class_codes, more.image_codes))
            columns = buffer.append([more.ids, more.vectors, *codes, *more.columns[4:]])
            return Prototypes(*columns, self.names, buffer)

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """The fields without the buffer, and without the properties that can be computed again."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"_buffer": None}


class _Buffer:
    """Columns with free places at their end. Tables are slices of them, so a row is written only once."""

    def __init__(self, columns: Sequence[NDArray], size: int) -> None:
        self.size, self.used = size, len(columns[0])
        self._columns = [np.empty((size, *column.shape[1:]), column.dtype) for column in columns]
        for whole, column in zip(self._columns, columns, strict=True):
            whole[: self.used] = column

    def append(self, columns: Sequence[NDArray]) -> list[NDArray]:
        """Write rows into the first free places; returns the columns up to the last of them."""
        end = self.used + len(columns[0])
        for whole, column in zip(self._columns, columns, strict=True):
            whole[self.used : end] = column
        self.used = end
        return [whole[:end] for whole in self._columns]


def pool_prototypes(
    image_id: str,
    feature_map: FeatureMap,
    mask: NDArray,
    classes: Mapping[int, str],
    source: str | Path | None = None,
    thumbnail: NDArray[np.uint8] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
) -> Prototypes:
    """One row per class that an annotated image shows; the arguments are those of `SupportMemory.add`.

    Raises:
        ValueError: something has the wrong shape or type, or features are not of unit norm.
    """
    mask = np.asarray(mask)
    if mask.dtype.kind not in "iub":
        raise ValueError(f"mask must hold whole numbers, got {mask.dtype}")
    if IGNORE in classes:
        raise ValueError(f"classes calls {IGNORE} {classes[IGNORE]!r}, but {IGNORE} means ignore")
    repeated = [name for name, n in Counter(classes.values()).items() if n > 1]
    if repeated:
        raise ValueError(f"several mask values are called {repeated[0]!r}; merge them in the mask")
    check_unit(feature_map.flat(), "patch")
    vectors, counts = pool_masks(feature_map, mask, list(classes))  # (C, D), (C,)
    present = np.flatnonzero(counts)  # (R,)
    values = [list(classes)[c] for c in present]
    ids, names, image_ids = np.arange(len(values)), [classes[v] for v in values], [image_id] * len(values)
    sources = [None if source is None else str(source)] * len(values)
    facts, thumbnails = [check_metadata(metadata)] * len(values), pack_thumbnails(thumbnail, mask, values)
    return Prototypes.make(ids, vectors[present], names, image_ids, sources, facts, thumbnails)


def pack_thumbnails(image: NDArray[np.uint8] | None, mask: NDArray, values: Sequence[int]) -> list:
    """For each value of a mask, the small image (one array for all) and the bits of its small mask.

    Args:
        image: (H, W, 3) uint8, or None: no thumbnails.
        mask: (H, W) integers.
        values: R values of `mask`.

    Returns:
        R pairs (image, bytes), or R times None.

    Raises:
        ValueError: the image is not uint8 (H, W, 3).
    """
    if image is None:
        return [None for _ in values]
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape != (*mask.shape, 3):
        raise ValueError(f"thumbnail must be uint8 {(*mask.shape, 3)}, got {image.dtype} {image.shape}")
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    shared = np.array(small)  # (h, w, 3)
    return [(shared, np.packbits(shrink_mask(mask == v, small.size)).tobytes()) for v in values]


def shrink_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool -> (h, w), where `size` is (w, h): True where at least half of a cell is covered.

    A region that covers half of no cell gets the cell that it covers most.
    """
    cover = np.array(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))
    return cover >= min(0.5, cover.max())


# --- what may enter a memory: all raise ValueError ------------------------------------------------------


def check_name(name: str) -> None:
    """Refuse a name that cannot be saved: empty, with a NUL character or half of a surrogate pair."""
    if not isinstance(name, str) or not re.fullmatch("[^\0\ud800-\udfff]+", name):
        raise ValueError(f"{name!r} cannot name a class, an image or a source: expected non-empty text")


def check_unit(vectors: NDArray[np.float32], what: str) -> None:
    """Refuse (N, D) vectors whose norm is further than 1e-3 from 1, NaN included."""
    norms = np.linalg.norm(vectors, axis=-1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= 1e-3))
    if len(wrong):
        raise ValueError(f"{what} {wrong[0]} has norm {norms[wrong[0]]:.4g}; expected unit norm")


def check_metadata(metadata: Mapping[str, Scalar] | None) -> dict[str, Scalar]:
    """A copy of a flat mapping; refuse what JSON cannot represent."""
    for key, value in (metadata or {}).items():
        infinite = isinstance(value, float) and not math.isfinite(value)
        if not isinstance(key, str) or not isinstance(value, Scalar) or infinite:
            raise ValueError(
                f"metadata {key!r}: {value!r}: expected text and then text, a finite number or None"
            )
    return dict(metadata or {})
