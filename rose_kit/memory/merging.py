"""Near-duplicates of a class become one row that remembers where it comes from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.rows import Rows
from rose_kit.types import unit


def near_duplicates(rows: Rows, threshold: float, class_name: str | None = None) -> list[NDArray[np.int64]]:
    """Groups of rows of one class whose cosine with the group's first row reaches a threshold.

    The first row of a class that is in no group yet starts one, so no group drifts away from its start
    as chains of neighbours would.

    Args:
        rows: P rows.
        threshold: cosine, in (0, 1].
        class_name: look at this class only; None: at each.

    Returns:
        positions (n,) of each group of two or more.
    """
    groups = []
    for name in dict.fromkeys(rows.class_names.tolist()) if class_name is None else [class_name]:
        free = np.flatnonzero(rows.class_names == name)  # (n,)
        vectors = np.asarray(rows.vectors[free])  # (n, D)
        while len(free) > 1:
            close = vectors @ vectors[0] >= threshold
            close[0] = True
            if close.sum() > 1:
                groups.append(free[close])
            free, vectors = free[~close], vectors[~close]
    return groups


def merged(rows: Rows, groups: list[NDArray[np.int64]], first_id: int) -> Rows:
    """One row per group: the unit-norm sum, each row counting as often as rows went into it before.

    Class, image, source and picture are those of the group's first row; metadata is what all agree on;
    `origins` has the image id, source and metadata of every row that went in.
    """
    made = []
    for group in groups:
        origins = [origin for n in group for origin in origins_of(rows, n)]
        weights = np.array([len(origins_of(rows, n)) for n in group], dtype=np.float32)  # (n,)
        facts = [facts.items() for _, _, facts in origins]
        shared = {key: value for key, value in facts[0] if all((key, value) in other for other in facts)}
        made.append((weights @ np.asarray(rows.vectors[group]), shared, tuple(origins)))
    firsts = np.array([group[0] for group in groups], dtype=np.int64)
    columns = (list(getattr(rows, c)[firsts]) for c in ("class_names", "image_ids", "sources"))
    vectors = unit(
        np.array([vector for vector, _, _ in made], dtype=np.float32).reshape(-1, rows.vectors.shape[1])
    )
    return Rows.make(
        first_id + np.arange(len(groups)),
        vectors,
        *columns,
        [facts for _, facts, _ in made],
        list(rows.thumbnails[firsts]),
        [origins for _, _, origins in made],
    )


def origins_of(rows: Rows, n: int) -> tuple:
    """(image id, source, metadata) of each row that went into row n; its own, if it was never merged."""
    own = (str(rows.image_ids[n]), rows.sources[n], rows.metadata[n])
    return rows.origins[n] or (own,)
