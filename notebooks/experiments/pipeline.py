"""Where the time of one image goes: the encoder, and everything that comes after it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import open_clip
from tqdm.auto import tqdm

from data_scripts.scenes import draw_scene
from experiments.solvers import SIZES, clustered_world, one_thread
from rose_kit.adapter import RNS
from rose_kit.encoder import OpenClipEncoder
from rose_kit.fusion import retrieve
from rose_kit.memory import SupportMemory
from rose_kit.regions import Slic
from rose_kit.segmenter import paint, region_query
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary

SIDE, PATCH = 448, 16
STAGES = ("retrieve", "samples", "solve")  # of RNS, in this order; all but the first are its methods
Row = dict[str, Any]


class Clock:
    """Seconds of the processor per stage, one list for each."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def timed(self, stage: str, function: Callable) -> Callable:
        """The same function, noting what each call takes."""

        def call(*args, **options):
            start = time.process_time()
            result = function(*args, **options)
            self.seconds[stage].append(time.process_time() - start)
            return result

        return call

    def quickest(self) -> dict[str, float]:
        """The least of each stage."""
        return {stage: min(taken) for stage, taken in self.seconds.items()}


def encoder_seconds(image: np.ndarray, repeats: int = 3) -> float:
    """ViT-B/16 with random weights on one image, once warm: the quickest of several runs."""
    encoder = OpenClipEncoder.from_model(open_clip.create_model("ViT-B-16"))
    clock = Clock()
    encode = clock.timed("encoder", encoder.encode_image)
    for _ in range(repeats + 1):
        encode(image)
    return clock.quickest()["encoder"]


def stage_seconds(
    feature_map: FeatureMap,
    memory: SupportMemory,
    vocabulary: Vocabulary,
    regions: Callable | None = None,
    image: np.ndarray | None = None,
    repeats: int = 5,
) -> dict[str, float]:
    """What each stage after the encoder takes, the quickest of several runs.

    Args:
        feature_map, memory, vocabulary: what is asked, of what, for which classes.
        regions: image -> (H, W) region ids, with `image`; None: per patch.
        repeats: runs that count; one before them does not.
    """
    clock = Clock()
    method = RNS(retrieve=clock.timed("retrieve", retrieve))
    for stage in STAGES[1:]:
        setattr(method, stage, clock.timed(stage, getattr(method, stage)))

    def answer(*asked) -> Prediction:
        """What a method predicts, with the evidence, which is made on demand."""
        prediction = method.predict(*asked)
        assert prediction.evidence is not None
        return prediction

    predict, painted = clock.timed("predict", answer), clock.timed("paint", paint)
    cut = clock.timed("regions", lambda: region_query(feature_map, regions(image)))
    for _ in range(repeats + 1):
        query = Query.of(feature_map) if regions is None else cut()
        painted(np.asarray(predict(query, memory, vocabulary)), query, feature_map)
    seconds = clock.quickest()
    rest = seconds.pop("predict") - sum(seconds[stage] for stage in STAGES)
    return {"regions": 0.0, **seconds, "logits, evidence": max(rest, 0.0)}


def pipeline_rows(sizes: Sequence[str] = tuple(SIZES), repeats: int = 5, progress: bool = True) -> list[Row]:
    """One row per case: each of `SIZES` per patch and per SLIC region, on one thread.

    The encoder runs on a drawn 448 px image; what follows gets drawn, clustered features of as many
    patches (see `clustered_world`), since those of a random encoder retrieve nothing in particular.
    """
    with one_thread():
        image = draw_scene(0, SIDE).image
        encoder = encoder_seconds(image, min(repeats, 3))
        rows = []
        cases = [(size, regions) for regions in (None, Slic()) for size in sizes]
        for size, regions in tqdm(cases, "pipeline", disable=not progress):
            query, memory, vocabulary = clustered_world(*SIZES[size])
            grid = SIDE // PATCH
            values = query.features.reshape(grid, grid, -1)
            feature_map = FeatureMap(values, PATCH, (SIDE, SIDE), (SIDE, SIDE))
            seconds = stage_seconds(feature_map, memory, vocabulary, regions, image, repeats)
            rows.append(shares(len(vocabulary), "patches" if regions is None else "SLIC", encoder, seconds))
    return rows


def shares(classes: int, level: str, encoder: float, seconds: Mapping[str, float]) -> Row:
    """A row: the encoder in seconds, everything else in percent of it."""
    percent = {stage: 100 * taken / encoder for stage, taken in seconds.items()}
    total = {"all but the encoder": sum(percent.values())}
    return {"classes": classes, "level": level, "encoder_s": encoder} | percent | total
