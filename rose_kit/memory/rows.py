"""What a memory is made of (rows), and what a search returns (hits)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.checks import Scalar, check_name, name_list, near

Where = Mapping[str, Scalar] | Callable[[Mapping[str, Scalar]], bool]


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
        vectors: (P, D) float32, unit norm.
        class_names: (P,) str.
        image_ids: (P,) str.
        sources: (P,) object, where the picture can be found, or None.
        metadata: (P,) object, one flat mapping each.
        thumbnails: (P,) object, None or a pair: (h, w, 3) uint8 picture, shared by the rows of one call
            of `add`; the (h, w) mask of the row's region as bits, eight to a byte.

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

    @classmethod
    def make(cls, ids, vectors, class_names, image_ids, sources=None, metadata=None, thumbnails=None) -> Rows:
        """Rows from sequences; the last three may be left out."""
        empty = [None] * len(ids)
        optional = (sources or empty, metadata or [{} for _ in ids], thumbnails or empty)
        sizes = [len(c) for c in (ids, vectors, class_names, image_ids, *optional)]
        if len(set(sizes)) != 1:
            raise ValueError(f"columns differ in length: {sizes}")
        for name in {*class_names, *image_ids, *(source for source in optional[0] if source is not None)}:
            check_name(name)
        ids, vectors = np.asarray(ids, dtype=np.int64), np.asarray(vectors, dtype=np.float32)
        names = (np.array(column, dtype=np.str_) for column in (class_names, image_ids))
        return cls(ids, vectors, *names, *map(_objects, optional))

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """Several blocks of rows as one."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def take(self, where: NDArray) -> Rows:
        """A copy of some rows, by position or by mask."""
        return Rows(*(getattr(self, f.name)[where] for f in fields(self)))

    def keys(self) -> list[tuple[str, str]]:
        """(image id, class name) of each row."""
        return list(zip(self.image_ids.tolist(), self.class_names.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.ids)


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: NumPy would unpack the pairs of a thumbnail
        column[i] = value
    return column


def matching(
    rows: Rows, classes: Iterable[str] | None, exclude_images: Iterable[str], where: Where | None
) -> NDArray[np.bool_]:
    """(P,) which rows a search may return; the arguments are those of `SupportMemory.search`."""
    if not (where is None or callable(where) or isinstance(where, Mapping)):
        raise ValueError(f"where must be a mapping or a function, got {where!r}")
    allowed = ~np.isin(rows.image_ids, name_list("exclude_images", exclude_images))
    if classes is not None:
        allowed &= np.isin(rows.class_names, name_list("classes", classes))
    if where is not None:
        fits = where if callable(where) else lambda facts: where.items() <= facts.items()
        allowed &= np.array([bool(fits(facts)) for facts in rows.metadata])
    return allowed


def belonging(rows: Rows, image_id: str | None, class_name: str | None) -> NDArray[np.bool_]:
    """(P,) the rows of an image, of a class, or of both; raises ValueError if there are none."""
    if image_id is None and class_name is None:
        raise ValueError("which rows? Give image_id, class_name or both")
    found = np.ones(len(rows), dtype=bool)
    for what, name, column in (("image", image_id, rows.image_ids), ("class", class_name, rows.class_names)):
        if name is None:
            continue
        match = found & (column == name)
        if not match.any():
            inside = f" in image {image_id!r}" if what == "class" and image_id is not None else ""
            known = list(dict.fromkeys(column[found].tolist()))
            raise ValueError(f"there is no {what} {name!r}{inside}; {near(str(name), known)}")
        found = match
    return found
