"""What a sweep keeps of a run: one row per image, with the counts that any score can be made from again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rose_kit.adapter import methods
from rose_kit.data import open_dataset
from rose_kit.encoder import Encoder, Windows, load_encoder
from rose_kit.evaluation.cache import CachedEncoder
from rose_kit.evaluation.evaluate import evaluate
from rose_kit.evaluation.runs import Run
from rose_kit.fusion import Method
from rose_kit.metrics import iou, mean_iou
from rose_kit.model import ROSE, RoseMethod
from rose_kit.registry import Registry, load_plugin

KEPT = 128  # side in pixels up to which the features of images that a dataset draws are kept
_WINDOWS = Windows()


def rose(fusion: str = "similarity") -> dict[str, Any]:
    """Options of the method `rose`, a trained head that comes with the kit: one per neural fusion."""
    return {"fusion": fusion}


def known_methods() -> Registry:
    """Name -> what is called with its options: every registered method, and `rose`."""
    known = Registry("method")
    known.update(methods, rose=rose)
    return known


def make_method(name: str, options: Mapping[str, Any], encoder: Encoder) -> Method:
    """A method by name; `rose` is loaded for its encoder.

    Raises:
        ValueError: an unknown name or option, or a head that was trained on another encoder.
    """
    if name == "rose":
        return RoseMethod(ROSE.load(rose(**options)["fusion"], encoder))
    return methods.make(name, **options)


@cache
def _kept(encoder: str) -> CachedEncoder:
    """Remembers features, which all runs of a kernel share."""
    return CachedEncoder(load_encoder(encoder))


def image_rows(
    method: str,
    *,
    data: str,
    options: Mapping[str, Any] | None = None,
    encoder: str = "bundled",
    data_options: Mapping[str, Any] | None = None,
    shots: int = 1,
    seed: int = 1,
    limit: int | None = None,
    plugin: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Answer every query image with one method and one draw of support images.

    Args:
        method: a name of `known_methods`.
        options: of the method.
        encoder: what `load_encoder` takes; images are seen through the windows it prefers.
        data, data_options: as for `rose_kit.data.open_dataset`.
        shots, seed, limit: as for `evaluate`.
        plugin: file that brings the method or the encoder.
        progress: show a progress bar.

    Returns:
        One row per image: image_id; support, which names the images drawn; iou, the mean over the classes
        in truth or answer; giou, the mean over the classes in the truth (both in [0, 1]); classes, and
        for each of the C classes pixels of target, predicted and intersection. Sums over images
        give dataset mIoU, exactly (`dataset_iou`).

    Raises:
        ValueError: as `evaluate`, `make_method` and `open_dataset`.
    """
    if plugin:
        load_plugin(plugin)
    support, query = open_dataset(data, data_options)
    made = load_encoder(encoder)
    small = (data_options or {}).get("size", KEPT + 1) <= KEPT
    windows, rows = getattr(made, "preferred_windows", None) or _WINDOWS, []
    evaluate(
        support,
        query,
        _kept(encoder) if small else made,
        {method: make_method(method, options or {}, made)},
        shots=shots,
        seeds=[seed],
        limit=limit,
        support_windows=windows,
        query_windows=windows,
        progress=progress,
        each=lambda run, image_id, counts: rows.append(_row(run, image_id, counts)),
    )
    return pd.DataFrame(rows)


def _row(run: Run, image_id: str, counts: NDArray[np.int64]) -> dict[str, Any]:
    drawn = hashlib.sha256("\n".join(sorted(run.support_ids)).encode()).hexdigest()[:12]
    target, predicted, both = counts.sum(1), counts.sum(0), np.diag(counts)
    return {
        "image_id": image_id,
        "support": drawn,
        "iou": mean_iou(counts),
        "giou": float(iou(counts)[target > 0].mean()) if target.any() else float("nan"),
        "classes": list(run.vocabulary.names),
        "target": target,
        "predicted": predicted,
        "intersection": both,
    }


def dataset_iou(target: NDArray, predicted: NDArray, intersection: NDArray) -> NDArray[np.float64]:
    """Counts per class -> mean IoU over the classes that occur, as `mean_iou` of the summed matrix.

    Args:
        target, predicted, intersection: (..., C) pixels, summed over images.

    Returns:
        (...) in [0, 1]; NaN where nothing was counted.

    >>> dataset_iou(np.array([3, 1, 0]), np.array([2, 2, 0]), np.array([2, 1, 0])).round(3).item()
    0.583
    """
    union = np.asarray(target) + predicted - intersection
    with np.errstate(invalid="ignore"):  # 0 / 0: a class nobody saw
        return (np.where(union > 0, intersection / union, 0).sum(-1)) / (union > 0).sum(-1)


def write_rows(rows: pd.DataFrame, path: str | Path) -> None:
    """Write parquet in one step: a reader finds all rows or none.

    Raises:
        OSError: the place cannot be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        rows.to_parquet(beside, index=False)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
