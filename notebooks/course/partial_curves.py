"""What happens as support is taken away: mIoU against the share of classes that lack something."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rose_kit.data import Dataset
from rose_kit.encoder import Encoder
from rose_kit.evaluation import CachedEncoder, MissingSupport, Row, evaluate
from rose_kit.fusion import Method

KINDS = ("visual", "text", "both")


def partial_curves(
    support: Dataset,
    query: Dataset,
    encoder: Encoder,
    methods: Mapping[str, Method],
    *,
    shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    kinds: Sequence[str] = KINDS,
    progress: bool = True,
    **options: Any,
) -> list[Row]:
    """Evaluate with each share of the classes lacking visual support, text, or both.

    Images are drawn and encoded once. There is no point where nothing at all would be left, nor, for
    methods that need text, where no class has any.

    Args:
        support, query, encoder, methods: as for `evaluate`; samples and features are kept in memory.
        shares: of the classes, each in [0, 1].
        kinds: of "visual", "text" and "both".
        progress: show a progress bar.
        **options: `shots`, `seeds` and others of `evaluate`, but no `progress`.

    Returns:
        The rows of `evaluate` with "kind" and "share" added.

    Raises:
        ValueError: an unknown kind, or a share outside [0, 1].
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"unknown kind {unknown[0]!r} of gap. Known: {', '.join(KINDS)}")
    points = [(kind, share, MissingSupport(**{kind: share})) for kind in kinds for share in shares]
    encoder = CachedEncoder(encoder)
    rows: list[Row] = []
    for kind, share, gaps in tqdm(points, "gaps", disable=not progress):
        if share == 0 and (whole := [row for row in rows if row["share"] == 0 and row["kind"] == kinds[0]]):
            rows += [{**row, "kind": kind} for row in whole]  # no gap is the same for every kind
            continue
        blank = gaps.text == 1
        able = {n: m for n, m in methods.items() if not (blank and getattr(m, "needs_text", False))}
        if able and gaps.both < 1:
            got = evaluate(support, query, encoder, able, missing=gaps, progress=False, **options)
            rows += [{**row, "kind": kind, "share": share} for row in got]
    return rows


def part_miou(row: Mapping[str, Any], names: Collection[str]) -> float:
    """Mean IoU in percent of some classes of a row; those that never occur are skipped.

    Args:
        row: from `evaluate`.
        names: such as `row["without_visual"]`.

    Returns:
        NaN where none of them occurs.

    >>> part_miou({"per_class_iou": {"sky": 80.0, "bus": 20.0, "kite": None}}, ["bus", "kite"])
    20.0
    """
    found = [v for name, v in row["per_class_iou"].items() if name in names and v is not None]
    return float(np.mean(found)) if found else float("nan")
