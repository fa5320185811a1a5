"""How well the signs of an unreliable pseudo-label tell the wrong ones from the right ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from course.pseudo_labels import pseudo_labels
from rose_kit.data import Dataset, sample_support
from rose_kit.encoder import Encoder, Windows
from rose_kit.evaluation import (
    MissingSupport,
    Row,
    SupportExamples,
    build_memories,
    relabel,
    without_classes,
)
from rose_kit.fusion import Method
from rose_kit.pooling import patch_counts
from rose_kit.segmenter import name_vocabulary


def pseudo_label_auroc(
    support: Dataset,
    query: Dataset,
    encoder: Encoder,
    *,
    shots: int,
    seeds: Sequence[int],
    missing: MissingSupport,
    method: Method | None = None,
    windows: Windows | None = None,
    progress: bool = True,
) -> list[Row]:
    """Pseudo-labels of every query image, and the area under the ROC curve of each of their signs.

    A pseudo-label, which is a class and the patches that zero-shot gives to it in one image, counts as
    right if at least half of these patches' pixels are of that class.

    Args:
        support, query, encoder, shots, seeds, missing: as for `evaluate`; the encoder needs text.
        method: asked for "agreement"; None leaves that sign out.
        windows: how all images are encoded; None: whole.
        progress: show a progress bar.

    Returns:
        One row per seed and sign: {"seed", "sign", "auroc" (0.5 is chance; NaN if all labels are right
        or all wrong), "labels" (how many), "right" (share of them)}.
    """
    vocabulary = name_vocabulary(query.class_names, encoder)
    shown = SupportExamples(range(len(support)), support, encoder, windows, vocabulary)
    held = [name for name in vocabulary.names if name in support.class_names]
    draws = {(shots, seed): sample_support(support, shots, seed, classes=held) for seed in seeds}
    gone = {seed: missing.draw(vocabulary.names, seed) for seed in seeds}
    built = build_memories(draws, shown, progress)
    memories = {seed: without_classes(memory, gone[seed][0]) for (_, seed), memory in built.items()}
    right: dict[int, list] = {seed: [] for seed in seeds}
    scores: dict[int, list] = {seed: [] for seed in seeds}
    for i in tqdm(range(len(query)), desc="query", disable=not progress):
        sample = query[i]
        feature_map = encoder.encode_image(sample.image, windows)
        counts = patch_counts(feature_map, relabel(sample, vocabulary), range(len(vocabulary)))  # (N, C)
        for seed, memory in memories.items():
            labels = pseudo_labels(feature_map, memory, vocabulary.without_text(gone[seed][1]), method)
            right[seed] += labels.right(counts).tolist()
            scores[seed].append(pd.DataFrame(labels.scores))
    return [row for seed in seeds for row in _rows(seed, np.array(right[seed], bool), scores[seed])]


def _rows(seed: int, right: NDArray[np.bool_], scores: Sequence[pd.DataFrame]) -> list[Row]:
    share = float(right.mean()) if len(right) else float("nan")
    base = {"seed": seed, "labels": len(right), "right": share}
    signs = pd.concat(scores, ignore_index=True) if len(right) else pd.DataFrame()
    return [base | {"sign": sign, "auroc": auroc(right, signs[sign])} for sign in signs]


def auroc(right: NDArray[np.bool_], score: Sequence[float]) -> float:
    """Chance that a right label scores higher than a wrong one, ties counting half; NaN without both.

    >>> auroc(np.array([True, True, False]), [0.9, 0.2, 0.2])
    0.75
    """
    return float(roc_auc_score(right, score)) if 0 < np.mean(right) < 1 else float("nan")
