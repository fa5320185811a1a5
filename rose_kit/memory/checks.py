"""What may enter a memory, and what the error says when it may not. All raise ValueError."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scalar = str | int | float | bool | None


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


def check_keys(keys: Sequence[tuple[str, str]], taken: Collection[tuple[str, str]]) -> None:
    """Refuse an (image id, class name) that is there already, or twice in one go."""
    again = set(keys).intersection(taken) or {key for key, n in Counter(keys).items() if n > 1}
    if again:
        image_id, name = min(again)
        raise ValueError(
            f"there is already a prototype of class {name!r} for image {image_id!r}; to replace it, "
            f"first remove(image_id={image_id!r}, class_name={name!r})"
        )


def check_count(what: str, value: Any) -> int:
    """Refuse all but whole numbers from 1 up."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{what} must be a positive whole number, got {value!r}")
    return int(value)


def name_list(what: str, names: Iterable[str]) -> list[str]:
    """Refuse one text where several names are meant; it would be read letter by letter."""
    if isinstance(names, str):
        raise ValueError(f"{what} must be a list of names, got the text {names!r}")
    return list(names)


def near(name: str, known: Sequence[str]) -> str:
    """The names close to one that is not known, for an error message.

    >>> near("buz", ["bus", "sky"])
    "did you mean 'bus'? There are: bus, sky"
    """
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"{hint}There are: {', '.join(known[:20])}{more}"


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


def check_queries(queries: ArrayLike, dim: int) -> NDArray[np.float32]:
    """(N, dim) float32 queries; refuse another shape, NaN and infinity."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries must be (N, {dim}), got shape {queries.shape}")
    bad = np.flatnonzero(~np.isfinite(queries).all(1))
    if len(bad):
        raise ValueError(f"query {bad[0]} is not finite ({len(bad)} of {len(queries)} are not)")
    return queries
