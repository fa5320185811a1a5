"""The table of prototypes, what a search of it returns, and how an annotated image becomes rows of it."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from rose_kit.pooling import pool_masks
from rose_kit.types import IGNORE, FeatureMap, composed, tensor_on

THUMBNAIL_SIDE = 96  # pixels, the longer side at most
Scalar = str | int | float | bool | None
changes_lock = threading.RLock()  # held by the one thread of this process that adds, removes or joins rows


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


@dataclass(frozen=True)
class Prototypes:
    """Prototypes, column by column. A row never changes, so tables may share memory.

    Args:
        ids: (P,) int64, increasing in a memory.
        vectors: (P, D) float32, unit norm; a memory map where they stay on disk.
        class_names, image_ids: (P,) object, the text that names the class and the image of each row.
        sources: (P,) object, where the image can be found, or None.
        metadata: (P,) object, one flat mapping each.
        thumbnails: (P,) object, None or a pair: the (h, w, 3) uint8 image, shared by the rows of one call
            of `add`; the (h, w) mask of the row's region as bits, eight to a byte.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    class_names: NDArray[np.object_]
    image_ids: NDArray[np.object_]
    sources: NDArray[np.object_]
    metadata: NDArray[np.object_]
    thumbnails: NDArray[np.object_]
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
        sources = empty if sources is None else sources
        metadata = [{} for _ in empty] if metadata is None else metadata
        objects = class_names, image_ids, sources, metadata, empty if thumbnails is None else thumbnails
        sizes = [len(column) for column in (ids, vectors, *objects)]
        if len(set(sizes)) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        for name in {*class_names, *image_ids, *(set(sources) - {None})}:
            check_name(name)
        objects = list(map(composed, class_names)), *objects[1:]
        return cls(ids, vectors, *(np.fromiter(column, object, len(ids)) for column in objects))

    @classmethod
    def concatenate(cls, tables: Iterable[Prototypes]) -> Prototypes:
        """The rows of one or more tables, in a new one."""
        return cls(*map(np.concatenate, zip(*(table.columns for table in tables), strict=True)))

    def extended(self, more: Prototypes) -> Prototypes:
        """A copy of these rows and then others. Extending n times by one row takes O(n) in all."""
        buffer, end = self._buffer, len(self) + len(more)
        if buffer is None or buffer.used != len(self) or len(buffer.columns[0]) < end:
            places = end + end // 2 if len(self) else end  # many rows are often added at once, and no others
            buffer = _Buffer([np.empty((places, *c.shape[1:]), c.dtype) for c in self.columns])
            for column, old in zip(buffer.columns, self.columns, strict=True):
                column[: len(self)] = old
        for column, new in zip(buffer.columns, more.columns, strict=True):
            column[len(self) : end] = new
        buffer.used = end
        return Prototypes(*(column[:end] for column in buffer.columns), buffer)

    @property
    def columns(self) -> tuple[NDArray, ...]:
        """The seven columns, in the order of the fields."""
        return tuple(getattr(self, one.name) for one in fields(self)[:7])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The different class names, in the order of their first rows."""
        return tuple(pd.unique(self.class_names))

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The different image ids, in the order of their first rows."""
        return tuple(pd.unique(self.image_ids))

    def of_classes(self, class_names: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether each row is of one of these classes."""
        return pd.Series(self.class_names, dtype=object).isin(list(class_names)).to_numpy()

    def of_images(self, image_ids: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether each row is of one of these images."""
        return pd.Series(self.image_ids, dtype=object).isin(list(image_ids)).to_numpy()

    @cached_property
    def class_sums(self) -> dict[str, NDArray[np.float32]]:
        """Class name -> the sum (D,) of its rows."""
        codes, names = pd.factorize(self.class_names)
        return {name: np.asarray(self.vectors[codes == c]).sum(0) for c, name in enumerate(names)}

    def tensor(self, device: torch.device) -> Tensor:
        """(P, D) the vectors on a device, where they stay as long as the table does."""
        return tensor_on(device, self, "vectors")

    def keys(self) -> list[tuple[str, str]]:
        """(image id, class name) of each row."""
        return list(zip(self.image_ids.tolist(), self.class_names.tolist(), strict=True))

    def take(self, where: NDArray | slice) -> Prototypes:
        """Some rows, by position, mask or slice."""
        return Prototypes(*(column[where] for column in self.columns))

    def positions(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Where ids of any shape are in this table, whose own ids must increase; -1 where they are not."""
        ids = np.asarray(ids, dtype=np.int64)
        if not len(self):
            return np.full(ids.shape, -1)
        at = np.searchsorted(self.ids, ids).clip(max=len(self) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def of_ids(self, ids: ArrayLike) -> NDArray[np.int64]:
        """(R,) where the rows with these ids are; raises ValueError if there is no such id."""
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        positions = self.positions(ids)
        if (positions < 0).any():
            raise ValueError(f"there is no row with id {ids[positions < 0][0]} among the {len(self)} rows")
        return positions

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple:
        return Prototypes, self.columns


@dataclass
class _Buffer:
    """Columns with free places at their end. Tables are slices of them, so a row is written only once."""

    columns: list[NDArray]
    used: int = 0  # rows of the longest table


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
    mask = mask.astype(np.uint8) if mask.dtype == bool else mask
    if not isinstance(classes, Mapping) or not all(isinstance(c, int | np.integer) for c in classes):
        raise ValueError(f"classes must map values of the mask, such as 1, to names, got {classes!r}")
    if IGNORE in classes:
        raise ValueError(f"classes calls {IGNORE} {classes[IGNORE]!r}, but {IGNORE} means ignore")
    check_unit(feature_map.flat(), "patch")
    vectors, counts = pool_masks(feature_map, mask, list(classes))  # (C, D), (C,)
    present = np.flatnonzero(counts)  # (R,)
    values = [list(classes)[c] for c in present]
    ids, names, image_ids = np.arange(len(values)), [classes[v] for v in values], [image_id] * len(values)
    sources = [None if source is None else str(source)] * len(values)
    facts, thumbnails = [check_metadata(metadata)] * len(values), pack_thumbnails(thumbnail, mask, values)
    return Prototypes.make(ids, vectors[present], names, image_ids, sources, facts, thumbnails)


def lost_classes(rows: Prototypes, mask: NDArray, classes: Mapping[int, str]) -> list[str]:
    """The classes of an image that made no row, as their few pixels are gone once the mask is scaled down."""
    shown = {classes[value] for value in pd.unique(np.ravel(mask)).tolist() if value in classes}
    return sorted(shown.difference(rows.class_names))


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
        raise ValueError(f"{name!r} cannot name a class, an image or a source: expected text in Unicode")


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
            raise ValueError(f"metadata maps text to text, finite numbers or None, got {key!r}: {value!r}")
    return dict(metadata or {})
