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
from rose_kit.bench.evaluate import evaluate
from rose_kit.bench.keep import KeptFeatures
from rose_kit.bench.runs import Run
from rose_kit.data import Dataset, default_splits
from rose_kit.encoder import Encoder, Windows, load_encoder
from rose_kit.fusion import Method
from rose_kit.metrics import iou, mean_iou
from rose_kit.model import ROSE, RoseMethod
from rose_kit.registry import Registry, load_plugin
from rose_kit.scenes import THINGS, SceneDataset, draw_scene

# Support and query scenes have seeds of their own, apart from each other and from all training.
SCENES = {"pool": 400, "queries": 60, "size": 128, "domain": "day"}
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


@cache  # a kernel answers several runs in turn: scenes that were drawn once are remembered
def _scenes(pool: int, queries: int, size: int, domain: str) -> tuple[Dataset, Dataset]:
    draw_scene(0, 32, domain=domain)  # refuses an unknown domain
    if not (32 <= size <= 2048 and pool > 0 and queries > 0):
        raise ValueError(f"scenes need a size of 32 to 2048 pixels, got {size}; a pool and queries above 0")
    look = {"size": size, "domain": domain, "classes": tuple(thing.name for thing in THINGS)}
    return SceneDataset(pool, first=1_000_000, **look), SceneDataset(queries, first=2_000_000, **look)


@cache
def _kept(encoder: str) -> KeptFeatures:
    """Remembers the features of scenes, which all runs of a kernel share."""
    return KeptFeatures(load_encoder(encoder))


def open_data(data: str, options: Mapping[str, Any]) -> tuple[Dataset, Dataset]:
    """Where support images are drawn from, and the images to answer.

    Args:
        data: "scenes", or a folder in the folder format with its default splits.
        options: of scenes, those of `SCENES`; a folder has none.

    Raises:
        ValueError: no such folder, an option there is not, one of the wrong type or out of range.
    """
    known = SCENES if data == "scenes" else {}
    has = ", ".join(f"{key}={default!r}" for key, default in known.items()) or "none"
    for key, value in options.items():
        if key not in known:
            raise ValueError(f"dataset {data!r} has no option {key!r}; options: {has}")
        if type(value) is not type(known[key]):
            what = "a whole number" if type(known[key]) is int else "a name"
            raise ValueError(f"dataset {data!r}: {key} must be {what}, got {value!r}; options: {has}")
    return _scenes(**SCENES | options) if data == "scenes" else default_splits(data)


def image_rows(
    method: str,
    *,
    options: Mapping[str, Any] | None = None,
    encoder: str = "bundled",
    data: str = "scenes",
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
        data, data_options: as for `open_data`.
        shots, seed, limit: as for `evaluate`.
        plugin: file that brings the method or the encoder.
        progress: show a progress bar.

    Returns:
        One row per image: image_id; support, which names the images drawn; iou, the mean over the classes
        in truth or answer; giou, the mean over the classes in the truth (both in [0, 1]); classes, and
        for each of the C classes pixels of target, predicted and intersection. Sums over images
        give dataset mIoU, exactly (`dataset_iou`).

    Raises:
        ValueError: as `evaluate`, `make_method` and `open_data`.
    """
    if plugin:
        load_plugin(plugin)
    support, query = open_data(data, data_options or {})
    made = load_encoder(encoder)
    small = isinstance(support, SceneDataset) and support.options["size"] <= SCENES["size"]
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
