"""The table that a memory is made of, what a search returns, and how an annotated image becomes rows."""

from __future__ import annotations

import difflib
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

THUMBNAIL_SIDE = 96  # px, the longer side at most
Scalar = str | int | float | bool | None
_growing = threading.Lock()


@dataclass(frozen=True)
class Hits:
    """The nearest prototypes of each query, best first.

    Args:
        scores: (N, k) float32 inner products, -inf where there are fewer than k.
        ids: (N, k) int64 prototype ids, -1 where there are fewer than k; `rows` is another name for them.
    """

    scores: NDArray[np.float32]
    ids: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """(N, k) int64: `ids`, as they were called first."""
        return self.ids


@dataclass(frozen=True)
class Prototypes:
    """Prototypes, column by column. What a row holds never changes, so tables may share memory.

    Args:
        ids: (P,) int64, increasing in a memory.
        vectors: (P, D) float32, unit norm; a memory map where they stay on disk.
        class_texts, image_texts: (P,) object, the class and the image of each row.
        sources: (P,) object, where the image can be found, or None.
        metadata: (P,) object, one flat mapping each.
        thumbnails: (P,) object, None or a pair: (h, w, 3) uint8 image, shared by the rows of one call of
            `add`; the (h, w) mask of the row's region as bits, eight to a byte.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    class_texts: NDArray[np.object_]
    image_texts: NDArray[np.object_]
    sources: NDArray[np.object_]
    metadata: NDArray[np.object_]
    thumbnails: NDArray[np.object_]
    _room: _Room | None = field(default=None, compare=False, repr=False)

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
        """A table from sequences; the last three may be left out.

        Raises:
            ValueError: columns differ in length, or a name is not text that can be kept.
        """
        ids, vectors = np.asarray(ids, dtype=np.int64), np.asanyarray(vectors, dtype=np.float32)
        empty = [None] * len(ids)
        columns = [list(class_names), list(image_ids), sources or empty]
        columns += [metadata or [{} for _ in empty], thumbnails or empty]
        sizes = [len(column) for column in (ids, vectors, *columns)]
        if len(set(sizes)) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        for name in {*columns[0], *columns[1], *(set(columns[2]) - {None})}:
            check_name(name)
        return cls(ids, vectors, *map(_objects, columns))

    @property
    def columns(self) -> tuple[NDArray, ...]:
        """The seven columns, in the order of the fields."""
        return tuple(getattr(self, one.name) for one in fields(self)[:7])

    @cached_property
    def _classes(self) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """(P,) the number of each row's class, and the class names by number, first seen first."""
        return pd.factorize(self.class_texts)

    @cached_property
    def _images(self) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """As `_classes`, for the images."""
        return pd.factorize(self.image_texts)

    @cached_property
    def class_names(self) -> NDArray[np.str_]:
        """(P,) str, the class of each row."""
        return self._classes[1].astype(str)[self._classes[0]]

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """(P,) str, the image of each row."""
        return self._images[1].astype(str)[self._images[0]]

    @property
    def classes(self) -> tuple[str, ...]:
        """The different class names, first seen first."""
        return tuple(self._classes[1])

    @property
    def images(self) -> tuple[str, ...]:
        """The different image ids, first seen first."""
        return tuple(self._images[1])

    def of_classes(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether each row is of one of these classes."""
        return _among(self._classes, names)

    def of_images(self, image_ids: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether each row is of one of these images."""
        return _among(self._images, image_ids)

    @cached_property
    def class_sums(self) -> dict[str, NDArray[np.float32]]:
        """Class name -> the sum (D,) of its rows."""
        codes, names = self._classes
        return {name: np.asarray(self.vectors[codes == c]).sum(0) for c, name in enumerate(names)}

    def keys(self) -> list[tuple[str, str]]:
        """(image id, class name) of each row."""
        return list(zip(self.image_texts, self.class_texts, strict=True))

    def take(self, where: NDArray | slice) -> Prototypes:
        """Some rows, by position, mask or slice."""
        return Prototypes(*(column[where] for column in self.columns))

    def positions(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Where prototype ids (any shape) are in this table, -1 for those that are not; ids increase."""
        ids = np.asarray(ids, dtype=np.int64)
        if not len(self):
            return np.full(ids.shape, -1)
        at = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def extended(self, more: Prototypes) -> Prototypes:
        """These rows and then others. Room is kept at the end, so that n rows one by one cost O(n)."""
        with _growing:  # of two copies of a memory, one alone may write behind their common rows
            room = self._room
            if room is None or room.used != len(self) or room.size < len(self) + len(more):
                room = _Room(self.columns, len(self) + max(len(more), len(self) // 2, 64))
            return Prototypes(*room.append(more.columns), room)

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """Without the room at the end, and what can be computed anew."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"_room": None}


class _Room:
    """Columns with room at their end. What has been written stays as it is: tables are slices of it."""

    def __init__(self, columns: Sequence[NDArray], size: int) -> None:
        self.size, self.used = size, len(columns[0])
        self._columns = [np.empty((size, *c.shape[1:]), c.dtype) for c in columns]
        for whole, column in zip(self._columns, columns, strict=True):
            whole[: self.used] = column

    def append(self, columns: Sequence[NDArray]) -> list[NDArray]:
        """Write behind what is used; returns all that is used then."""
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
    return Prototypes.make(
        np.arange(len(present)),
        vectors[present],
        [classes[value] for value in values],
        [image_id] * len(values),
        [None if source is None else str(source)] * len(values),
        [check_metadata(metadata)] * len(values),
        pack_thumbnails(thumbnail, mask, values),
    )


def pack_thumbnails(image: NDArray[np.uint8] | None, mask: NDArray, values: Sequence[int]) -> list:
    """For each value, the small image (one array for all) and the bits of the value's small mask.

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
    dtype, shape = getattr(image, "dtype", type(image).__name__), np.shape(image)
    if dtype != np.uint8 or shape != (*mask.shape, 3):
        raise ValueError(f"thumbnail must be uint8 {(*mask.shape, 3)}, got {dtype} {shape}")
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    shared = np.array(small)  # (h, w, 3)
    return [(shared, np.packbits(shrink_mask(mask == v, small.size)).tobytes()) for v in values]


def unpack_thumbnail(pair: tuple | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """(h, w, 3) image and (h, w) mask of one row, as copies."""
    if pair is None:
        return None
    h, w = pair[0].shape[:2]
    bits = np.unpackbits(np.frombuffer(pair[1], dtype=np.uint8), count=h * w)
    return pair[0].copy(), bits.reshape(h, w).astype(bool)


def shrink_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool -> (h, w), with `size` = (w, h): cells covered by half, or a tiny region's fullest."""
    cover = np.array(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))
    return cover >= min(0.5, cover.max())


def _among(column: tuple[NDArray, NDArray], names: Iterable[str]) -> NDArray[np.bool_]:
    """(P,) whether each row of a factorised column, (codes, values), has one of the names."""
    codes, values = column
    wanted = set(names)
    return np.fromiter((value in wanted for value in values), bool, len(values))[codes]


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: NumPy would unpack the pairs of a thumbnail
        column[i] = value
    return column


# --- what may enter a memory: all raise ValueError ------------------------------------------------------


def check_name(name: str) -> None:
    """Refuse a name that NumPy or Parquet could not give back: empty, with NUL or half a surrogate."""
    if not isinstance(name, str) or not re.fullmatch("[^\0\ud800-\udfff]+", name):
        raise ValueError(f"{name!r} cannot name a class, an image or a source: expected non-empty text")


def check_unit(vectors: NDArray[np.float32], what: str) -> None:
    """Refuse (N, D) vectors whose norm is further than 1e-3 from 1, NaN included."""
    norms = np.linalg.norm(vectors, axis=-1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= 1e-3))
    if len(wrong):
        raise ValueError(f"{what} {wrong[0]} has norm {norms[wrong[0]]:.4g}; expected unit norm")


def check_metadata(metadata: Mapping[str, Scalar] | None) -> dict[str, Scalar]:
    """A copy of a flat mapping; refuse what JSON could not give back."""
    for key, value in (metadata or {}).items():
        endless = isinstance(value, float) and not math.isfinite(value)
        if not isinstance(key, str) or not isinstance(value, Scalar) or endless:
            raise ValueError(
                f"metadata {key!r}: {value!r} cannot be kept; a key is text, a value is text, a finite "
                "number, True, False or None"
            )
    return dict(metadata or {})


def near_names(name: str, known: Sequence[str]) -> str:
    """The names close to one that is not known, for an error message.

    >>> near_names("buz", ["bus", "sky"])
    "did you mean 'bus'? There are: bus, sky"
    """
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"{hint}There are: {', '.join(known[:20])}{more}"
