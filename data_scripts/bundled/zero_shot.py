"""How well an encoder segments scenes from class names alone: the bundled CLIP's own report card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from data_scripts.scenes import SEEN, STUFF, SceneDataset
from rose_kit.encoder import OpenClipEncoder, Windows, preferred_windows
from rose_kit.evaluation import count_answer, relabel
from rose_kit.metrics import iou
from rose_kit.segmenter import EncodedImage
from rose_kit.types import Query, Vocabulary

# The fixed evaluation set: day scenes of three sizes, 3-6 things each, seeds no other split uses.
EVALUATION = {
    size: SceneDataset(40, first=9_000_000 + 1000 * i, size=size) for i, size in enumerate((128, 160, 192))
}


def zero_shot_iou(
    encoder: OpenClipEncoder,
    names: Sequence[str] = SEEN,
    sets: Sequence[SceneDataset] = tuple(EVALUATION.values()),
    windows: Windows | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Per-class IoU of argmax_c cos(patch, text_c), upsampled bilinearly to pixels.

    Args:
        encoder: one with a text tower.
        names: (C,) the vocabulary; pixels of other classes count for nothing.
        sets: scenes to evaluate on.
        windows: how images are encoded.
        progress: show a progress bar.

    Returns:
        (C,) IoU in [0, 1] over all pixels of all sets; NaN for a class that never occurs.
    """
    vocabulary, counts = Vocabulary.encode(names, encoder), np.zeros((len(names), len(names)), dtype=np.int64)
    for scenes in sets:
        for sample in tqdm(scenes, "zero-shot", disable=not progress):
            features = encoder.encode_image(sample.image, windows=windows)
            cosines = features.flat() @ vocabulary.text.T  # (N, D) @ (D, C) -> (N, C)
            encoded = EncodedImage(features, Query.of(features))
            counts += count_answer(cosines, encoded, relabel(sample, vocabulary))
    return iou(counts)


def report(encoder: OpenClipEncoder, **options) -> dict[str, float]:
    """Mean IoU in percent over all seen classes, over stuff and over things; options of `zero_shot_iou`."""
    return _means(100 * zero_shot_iou(encoder, **options))


def report_card(encoder: OpenClipEncoder, **options) -> dict[str, object]:
    """What stands beside the weights: the means of `report`, each class's IoU, and how they were made.

    In the windows the encoder prefers, unless others are named; then the means on whole images follow.
    """
    preferred = preferred_windows(encoder)
    options = {"windows": preferred} | options
    values = 100 * zero_shot_iou(encoder, **options)
    sets = options.get("sets", EVALUATION.values())
    card = {
        **_means(values),
        "per_class_iou": {n: round(float(v), 2) for n, v in zip(SEEN, values, strict=True) if v == v},
        "scenes": [f"{s.ids[0]} to {s.ids[-1]}, {s.options.get('size')} px" for s in sets],
        "windows": str(options.get("windows")),
        "definition": "IoU from one confusion matrix over all pixels; argmax of cosine to the class name",
    }
    if preferred is not None and options["windows"] == preferred:
        whole = Windows(short_side=preferred.short_side)
        card["whole_images"] = {**report(encoder, **options | {"windows": whole}), "windows": str(whole)}
    return card


def _means(values: np.ndarray) -> dict[str, float]:
    parts = {"miou": values, "stuff": values[: len(STUFF)], "things": values[len(STUFF) :]}
    return {name: round(float(np.nanmean(part)), 2) for name, part in parts.items()}
