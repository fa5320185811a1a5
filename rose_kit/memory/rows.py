"""What a memory is made of (rows), and what a search returns (hits)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.checks import check_name
from rose_kit.memory.mapped import join


@dataclass(frozen=True)
class Hits:
    """The nearest prototypes of each query, best first.

    Args:
        scores: (N, k) float32 inner products, -inf where there are fewer than k.
        rows: (N, k) int64 prototype ids, -1 where there are fewer than k.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Prototypes, column by column.

    Args:
        ids: (P,) int64 prototype ids, increasing in a memory.
        vectors: (P, D) float32, unit norm; a `Mapped` where they stay on disk.
        class_names: (P,) str.
        image_ids: (P,) str.
        sources: (P,) object, where the picture can be found, or None.
        metadata: (P,) object, one flat mapping each.
        thumbnails: (P,) object, None or a pair: (h, w, 3) uint8 picture, shared by the rows of one call
            of `add`; the (h, w) mask of the row's region as bits, eight to a byte.
        origins: (P,) object, None, or for a merged row the (image id, source, metadata) of each row that
            went into it, the first being the row's own.

    Raises:
        ValueError: columns differ in length, or a name is not text that can be kept.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    class_names: NDArray[np.str_]
    image_ids: NDArray[np.str_]
    sources: NDArray[np.object_]
    metadata: NDArray[np.object_]
    thumbnails: NDArray[np.object_]
    origins: NDArray[np.object_]

    @classmethod
    def make(
        cls, ids, vectors, class_names, image_ids, sources=None, metadata=None, thumbnails=None, origins=None
    ) -> Rows:
        """Rows from sequences; the last four may be left out. Vectors that are float32 are not copied."""
        empty = [None] * len(ids)
        optional = (sources or empty, metadata or [{}] * len(ids), thumbnails or empty, origins or empty)
        sizes = [len(c) for c in (ids, vectors, class_names, image_ids, *optional)]
        if len(set(sizes)) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        for name in {*class_names, *image_ids, *(source for source in optional[0] if source is not None)}:
            check_name(name)
        ids, vectors = np.asarray(ids, dtype=np.int64), join([vectors])
        names = (np.array(column, dtype=np.str_) for column in (class_names, image_ids))
        return cls(ids, vectors, *names, *map(_objects, optional))

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """Several blocks of rows as one; vectors that are on disk stay there."""
        columns = ([getattr(part, f.name) for part in parts] for f in fields(cls))
        return cls(
            *(
                join(c) if f.name == "vectors" else np.concatenate(c)
                for f, c in zip(fields(cls), columns, strict=True)
            )
        )

    def take(self, where: NDArray) -> Rows:
        """A copy of some rows, by position or by mask; vectors on disk are not read."""
        pick = getattr(self.vectors, "pick", self.vectors.__getitem__)
        return Rows(self.ids[where], pick(where), *(getattr(self, f.name)[where] for f in fields(self)[2:]))

    def with_ids(self, ids: NDArray[np.int64]) -> Rows:
        """The same rows under other ids (P,)."""
        return replace(self, ids=np.asarray(ids, dtype=np.int64))

    def keys(self) -> list[tuple[str, str]]:
        """(image id, class name) of each row, and of each row merged into one."""
        keys = list(zip(self.image_ids.tolist(), self.class_names.tolist(), strict=True))
        for n in self.merged:
            keys += [(image_id, str(self.class_names[n])) for image_id, *_ in self.origins[n][1:]]
        return keys

    @property
    def merged(self) -> NDArray[np.int64]:
        """Positions of the rows that were merged from several."""
        return np.flatnonzero(np.not_equal(self.origins, None))

    def __len__(self) -> int:
        return len(self.ids)


def positions_of(rows: Rows, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of ids (any shape) in rows, -1 for those that are not there."""
    if not len(rows):
        return np.full(np.shape(ids), -1)
    at = np.searchsorted(rows.ids, ids).clip(max=len(rows) - 1)  # ids only ever grow, so they are sorted
    return np.where(rows.ids[at] == ids, at, -1)


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: NumPy would unpack the pairs of a thumbnail
        column[i] = value
    return column
