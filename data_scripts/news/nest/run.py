"""Ask systems the questions of a benchmark; one row per system and sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from data_scripts.news.archive import NewsArchive
from data_scripts.news.nest.engine import Nest
from data_scripts.news.nest.sample import NestSample, same_answer
from data_scripts.news.nest.systems import Result, System
from rose_kit.metrics import confusion_matrix

Row = dict[str, Any]
_ABOUT = ("seed", "id", "kind", "hint", "needs_web", "known_by_name")  # of a sample


def run_nest(
    samples: Iterable[NestSample], systems: Mapping[str, System], progress: bool = True
) -> list[Row]:
    """Every system's result on every sample, which are all it is given: image, question and day.

    Args:
        samples: of one or more benchmarks.
        systems: name -> `system(image, question, day)`.
        progress: show a progress bar.

    Returns:
        Rows with system, seed, id, kind, hint, needs_web, known_by_name, searched, reason, answer, correct
        (None where the question needs no look-up), intersection and union in pixels, and iou in [0, 1].

    Raises:
        ValueError: no samples or systems, or a mask whose shape or type is wrong; names the system.
    """
    samples = list(samples)
    if not samples or not systems:
        raise ValueError(f"nothing to run: {len(samples)} samples, {len(systems)} systems")
    rows = []
    for sample in tqdm(samples, "NEST", disable=not progress):
        for name, system in systems.items():
            rows.append(_row(name, sample, system(sample.image.copy(), sample.question, sample.day)))
    return rows


def measure(
    nests: Iterable[Nest], make_systems: Callable[[NewsArchive], Mapping[str, System]], progress: bool = True
) -> list[Row]:
    """`run_nest` for each benchmark, with systems that search its own miniature web.

    Args:
        nests: one per seed, to get intervals.
        make_systems: the web of a benchmark -> name -> system.
        progress: show a progress bar for each benchmark.

    Raises:
        ValueError: as for `run_nest`, or two benchmarks of one seed.
    """
    nests, rows = list(nests), []
    seeds = [nest.world.seed for nest in nests]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"intervals are over seeds; these benchmarks have the seeds {seeds}")
    for nest in nests:
        rows += run_nest(nest, make_systems(NewsArchive(nest.world)), progress)
    return rows


def _row(name: str, sample: NestSample, result: Result) -> Row:
    mask = np.asarray(result.mask)
    if mask.shape != sample.mask.shape or mask.dtype != bool:
        raise ValueError(
            f"{name}, sample {sample.id}: the mask is {mask.dtype} {mask.shape}, not bool {sample.mask.shape}"
        )
    cm = confusion_matrix(mask, sample.mask, 2)
    intersection, union = int(cm[1, 1]), int(cm.sum() - cm[0, 0])  # the target is never empty: union > 0
    correct = same_answer(result.answer, sample.answer) if sample.needs_web else None
    about = {key: getattr(sample, key) for key in _ABOUT}
    said = {"searched": bool(result.searched), "reason": result.reason, "answer": result.answer}
    counted = {"intersection": intersection, "union": union, "iou": intersection / union}
    return {"system": name, **about, **said, "correct": correct, **counted}
