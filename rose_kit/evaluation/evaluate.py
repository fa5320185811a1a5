"""The protocol: the same support images, query images and pixels for every method.

Support images are drawn per seed ("B images per class"), their prototypes go into one memory per
seed, and every method answers every query image. Counts are summed over the query set at the
images' own size; mIoU is computed once, at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.data import Dataset, sample_support
from rose_kit.encoder import Encoder, Windows
from rose_kit.evaluation.parallel import parallel_map
from rose_kit.evaluation.partial import Gaps, without_classes
from rose_kit.evaluation.report import Row
from rose_kit.evaluation.runs import (
    ABSENT,
    Run,
    SupportExamples,
    SupportFeatures,
    build_memories,
    fit_methods,
    fit_on_everything,
    relabel,
)
from rose_kit.fusion import Method
from rose_kit.metrics import confusion_matrix, iou, mean_iou
from rose_kit.segmenter import Regions, name_vocabulary
from rose_kit.types import Vocabulary


def evaluate(
    support: Dataset,
    query: Dataset,
    encoder: Encoder,
    methods: Mapping[str, Method],
    *,
    shots: int,
    seeds: Sequence[int],
    support_windows: Windows | None = None,
    query_windows: Windows | None = None,
    regions: Regions | None = None,
    classes: Sequence[str] | None = None,
    gaps: Gaps | None = None,
    limit: int | None = None,
    scheduler: Any = None,
    progress: bool = True,
    each: Callable[[Run, str, NDArray[np.int64]], None] | None = None,
) -> list[Row]:
    """Dataset mIoU of several methods over several draws of support images.

    Each query image is encoded once and answered by all methods and seeds, then forgotten. Methods
    with something to tune see the support images only.

    Args:
        support: where support images are drawn from; shares no image id with `query`.
        query: the images to answer.
        encoder: makes the features; without a text tower, methods that need text are left out with
            a warning.
        methods: name for the results -> method.
        shots: B, support images per class (see `sample_support`).
        seeds: one draw of support images each.
        support_windows: how support images are encoded; None: whole.
        query_windows: how query images are encoded; None: whole.
        regions: query image -> (H, W) region ids; None answers per patch.
        classes: the vocabulary, "background|wall|sky" being one class with several texts; pixels of
            other classes are ignored. Default: all classes of `query`.
        gaps: shares of the classes that have no visual support, no text or neither, drawn anew with
            each seed; what is left is the same for all methods, only an upper bound sees everything.
            None: no gaps.
        limit: answer only that many query images, spread evenly over the set.
        scheduler: encode and answer images on Dask: "local", "local:N", an address or a client (see
            `parallel_map`); None: in this process.
        progress: show a progress bar.
        each: told what every run counted on every image: run, image id, (C, C) confusion matrix.

    Returns:
        One row per method and seed: {"method", "seed", "shots", "miou" (percent), "per_class_iou"
        (name -> percent, None for a class neither present nor predicted), "support_ids",
        "query_ids", "without_visual" and "without_text" (names of the classes that lack them)}.

    Raises:
        ValueError: support and query share an image, a class is unknown or labels no query pixel,
            no method is left to run, or `shots`, `seeds`, `limit` or `scheduler` make no sense.
        OSError: the scheduler does not answer.
    """
    gaps, positions = gaps or Gaps(), _query_positions(query, limit)
    _check_disjoint(support, query)
    vocabulary = _vocabulary(query, encoder, classes)
    _check_labelled(query, positions, vocabulary)
    methods = _runnable(methods, vocabulary, encoder, gaps)
    draws = _draws(support, shots, seeds, vocabulary)
    features = SupportFeatures(support, encoder, support_windows)
    methods, runs = fit_on_everything(methods, features, vocabulary, progress), []
    for seed, memory in build_memories(draws, features, vocabulary, progress, scheduler).items():
        no_visual, no_text = gaps.draw(vocabulary.names, seed)
        memory = without_classes(memory, no_visual) if no_visual else memory
        examples = SupportExamples(draws[seed], features, vocabulary.without_text(no_text), no_visual)
        runs += fit_methods(methods, seed, memory, examples, regions, query_windows)
    answering = Answering(query, vocabulary, runs)
    spread = {"scheduler": scheduler, "desc": "query", "progress": progress}
    query_ids = [query.ids[i] for i in positions]
    for image_id, counts in zip(query_ids, parallel_map(answering, positions, **spread), strict=True):
        for run, count in zip(runs, counts, strict=True):
            run.counts += count
            if each is not None:
                each(run, image_id, count)
    return [_row(run, shots, query_ids) for run in runs]


@dataclass(frozen=True)
class Answering:
    """What is done for one query image: encode it once, let every run answer, count.

    Args:
        query: the images.
        vocabulary: the classes; C of them.
        runs: who answers.
    """

    query: Dataset
    vocabulary: Vocabulary
    runs: Sequence[Run]

    def __call__(self, i: int) -> list[NDArray[np.int64]]:
        """Position of an image -> one (C, C) confusion matrix per run."""
        sample = self.query[i]
        target = relabel(sample, self.vocabulary)
        encoded = self.runs[0].segmenter.encode(sample.image)  # the same for all: they differ in what follows
        answers = (run.segmenter.segment(encoded, run.vocabulary).labels for run in self.runs)
        return [confusion_matrix(a, target, len(self.vocabulary), ignore_index=ABSENT) for a in answers]


def _row(run: Run, shots: int, query_ids: list[str]) -> Row:
    vocabulary, held = run.vocabulary, run.segmenter.memory.classes
    per_class = [None if np.isnan(value) else 100 * float(value) for value in iou(run.counts)]
    return {
        "method": run.name,
        "seed": run.seed,
        "shots": shots,
        "miou": 100 * mean_iou(run.counts),
        "per_class_iou": dict(zip(vocabulary.names, per_class, strict=True)),
        "support_ids": run.support_ids,
        "query_ids": query_ids,
        "without_visual": [name for name in vocabulary.names if name not in held],
        "without_text": [n for n, has in zip(vocabulary.names, vocabulary.has_text, strict=True) if not has],
    }


def _query_positions(query: Dataset, limit: int | None) -> list[int]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    count = min(len(query), len(query) if limit is None else limit)
    # Neighbours in a dataset are often frames of one video: spread out rather than take the first.
    return [i * len(query) // count for i in range(count)]


def _check_disjoint(support: Dataset, query: Dataset) -> None:
    shared = sorted(set(support.ids) & set(query.ids))
    if shared:
        raise ValueError(f"support and query share {len(shared)} image ids, such as {shared[0]!r}")


def _vocabulary(query: Dataset, encoder: Encoder, classes: Sequence[str] | None) -> Vocabulary:
    vocabulary = name_vocabulary(query.class_names if classes is None else classes, encoder)
    unknown = [name for name in vocabulary.names if name not in query.class_names]
    if unknown:
        raise ValueError(f"class {unknown[0]!r} is not in the query data: {', '.join(query.class_names)}")
    return vocabulary


def _check_labelled(query: Dataset, positions: Sequence[int], vocabulary: Vocabulary) -> None:
    if not any(query.classes_of(i) & set(vocabulary.names) for i in positions):
        raise ValueError(f"no query image holds any of: {', '.join(vocabulary.names)}")


def _runnable(
    methods: Mapping[str, Method], vocabulary: Vocabulary, encoder: Encoder, gaps: Gaps
) -> Mapping[str, Method]:
    bare, blank = (len(gone) == len(vocabulary) for gone in gaps.draw(vocabulary.names, seed=0))
    no_text = blank or vocabulary.text is None
    if bare and no_text:
        raise ValueError(f"{gaps} leaves no class with visual support or text")
    blind = [name for name, method in methods.items() if no_text and getattr(method, "needs_text", False)]
    kept = {name: method for name, method in methods.items() if name not in blind}
    lack = "no class has text" if blank else f"encoder {encoder.name!r} has no text tower"
    why = f"{lack}, which {', '.join(blind)} cannot do without"
    if not kept:
        raise ValueError(why if blind else "no method to evaluate")
    if blind:
        warnings.warn(f"left out: {why}", stacklevel=3)
    return kept


def _draws(
    support: Dataset, shots: int, seeds: Sequence[int], vocabulary: Vocabulary
) -> dict[int, list[int]]:
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more, all different, got {list(seeds)}")
    names = [name for name in vocabulary.names if name in support.class_names]
    if not names:
        raise ValueError(f"no class is in the support data: {', '.join(support.class_names)}")
    return {seed: sample_support(support, shots, seed, classes=names) for seed in seeds}
