"""The table that a memory is made of, what a search returns, and how an annotated image becomes rows."""

from __future__ import annotations

import difflib
import math
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
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


class Names:
    """Texts and the whole numbers that stand for them; it only ever grows, so that tables can share it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._codes: dict[str, int] = {}

    def encode(self, texts: Iterable[str]) -> NDArray[np.int32]:
        """(P,) a code per text; a text that is new gets the next one."""
        codes = self._codes
        for text in texts if isinstance(texts, list) else (texts := list(texts)):
            if text not in codes:
                check_name(text)
                self.texts.append(text)
                codes[text] = len(codes)
        return np.fromiter((codes[text] for text in texts), np.int32, len(texts))

    def among(self, codes: NDArray[np.int32], texts: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether each code stands for one of these texts."""
        known = [self._codes[text] for text in texts if text in self._codes]
        chosen = np.zeros(len(self.texts), dtype=bool)  # after that: another thread may add texts
        chosen[known] = True
        return chosen[codes]


@dataclass(frozen=True)
class Prototypes:
    """Prototypes, column by column. What a row holds never changes, so tables may share memory.

    Args:
        ids: (P,) int64, increasing in a memory.
        vectors: (P, D) float32, unit norm; a memory map where they stay on disk.
        class_codes, image_codes: (P,) int32, what `class_texts` and `image_texts` call each row.
        sources: (P,) object, where the image can be found, or None.
        metadata: (P,) object, one flat mapping each.
        thumbnails: (P,) object, None or a pair: (h, w, 3) uint8 image, shared by the rows of one call of
            `add`; the (h, w) mask of the row's region as bits, eight to a byte.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    class_codes: NDArray[np.int32]
    image_codes: NDArray[np.int32]
    sources: NDArray[np.object_]
    metadata: NDArray[np.object_]
    thumbnails: NDArray[np.object_]
    class_texts: Names = field(default_factory=Names, compare=False, repr=False)
    image_texts: Names = field(default_factory=Names, compare=False, repr=False)
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
        columns = [list(map(str, class_names)), list(map(str, image_ids))]
        empty = [None] * len(ids)
        columns += [sources or empty, metadata or [{} for _ in empty], thumbnails or empty]
        sizes = [len(column) for column in (ids, vectors, *columns)]
        if len(set(sizes)) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        for source in {source for source in columns[2] if source is not None}:
            check_name(source)
        classes, images = Names(), Names()
        codes = classes.encode(columns[0]), images.encode(columns[1])
        return cls(ids, vectors, *codes, *map(_objects, columns[2:]), classes, images)

    @property
    def columns(self) -> tuple[NDArray, ...]:
        """The seven columns, in the order of the fields."""
        return (self.ids, self.vectors, self.class_codes, self.image_codes,
                self.sources, self.metadata, self.thumbnails)  # fmt: skip

    @cached_property
    def class_names(self) -> NDArray[np.str_]:
        """(P,) str, the class of each row."""
        return _decoded(self.class_texts, self.class_codes)

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """(P,) str, the image of each row."""
        return _decoded(self.image_texts, self.image_codes)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The different class names, first seen first."""
        codes, first = np.unique(self.class_codes, return_index=True)
        return tuple(self.class_texts.texts[c] for c in codes[np.argsort(first)])

    @cached_property
    def class_sums(self) -> dict[str, NDArray[np.float32]]:
        """Class name -> the sum (D,) of its rows."""
        codes = self.class_texts.encode(list(self.classes))
        return {
            name: np.asarray(self.vectors[self.class_codes == code]).sum(0)
            for name, code in zip(self.classes, codes, strict=True)
        }

    def keys(self) -> list[tuple[str, str]]:
        """(image id, class name) of each row."""
        return list(zip(self.image_ids.tolist(), self.class_names.tolist(), strict=True))

    def take(self, where: NDArray | slice) -> Prototypes:
        """Some rows, by position, mask or slice."""
        return Prototypes(*(column[where] for column in self.columns), self.class_texts, self.image_texts)

    def with_ids(self, ids: NDArray[np.int64]) -> Prototypes:
        """The same rows under other ids (P,)."""
        return replace(self, ids=np.asarray(ids, dtype=np.int64))

    def positions(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Where prototype ids (any shape) are in this table, -1 for those that are not; ids increase."""
        ids = np.asarray(ids, dtype=np.int64)
        if not len(self):
            return np.full(ids.shape, -1)
        at = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def extended(self, more: Prototypes) -> Prototypes:
        """These rows and then others. Room is kept at the end, so that n rows one by one cost O(n)."""
        if not len(self):  # the first rows bring the names along
            return replace(more, _room=None)
        names = _decoded(more.class_texts, more.class_codes), _decoded(more.image_texts, more.image_codes)
        with _growing:  # of two copies of a memory, one alone may write behind their common rows
            texts = self.class_texts, self.image_texts
            codes = (own.encode(new.tolist()) for own, new in zip(texts, names, strict=True))
            added = (more.ids, more.vectors, *codes, more.sources, more.metadata, more.thumbnails)
            room = self._room
            if room is None or room.used != len(self) or room.size < len(self) + len(more):
                room = _Room(self.columns, len(self) + max(len(more), len(self) // 2, 64))
            return Prototypes(*room.append(added), *texts, room)

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

    def append(self, columns: Iterable[NDArray]) -> list[NDArray]:
        """Write behind what is used; returns all that is used then."""
        columns = list(columns)
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
    check_name(image_id)
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
        [_checked(classes[value]) for value in values],
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
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    small = np.array(picture)  # (h, w, 3)
    return [(small, np.packbits(shrink_mask(mask == v, picture.size)).tobytes()) for v in values]


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


def _decoded(names: Names, codes: NDArray[np.int32]) -> NDArray[np.str_]:
    if not len(codes):
        return np.array([], dtype=np.str_)
    known, inverse = np.unique(codes, return_inverse=True)
    return np.array([names.texts[c] for c in known], dtype=np.str_)[inverse]


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


def _checked(name: str) -> str:
    check_name(name)
    return name


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
