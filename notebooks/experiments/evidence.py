"""Evidence against leave-one-out: what weights and effects say, and what happens without a prototype.

A prototype is removed from the memory, and the image is answered again. The change of the winning score, less
the mean change over the classes that have a score both times, is the truth that weights and effects are
compared with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.solvers import SIZES, clustered_world, one_thread
from rose_kit.adapter import RNS
from rose_kit.fusion import Freeda, KnnClip, Method
from rose_kit.fusion.evidence import winning_change
from rose_kit.memory import SupportMemory
from rose_kit.types import Query, Vocabulary

METHODS = {"rns": RNS(), "knn-clip": KnnClip(), "freeda": Freeda()}
Row = dict[str, Any]


def leave_one_out(
    method: Method, query: Query, memory: SupportMemory, vocabulary: Vocabulary, ids: NDArray, winner: NDArray
) -> tuple[NDArray, float]:
    """Remove prototypes one at a time and predict again.

    Returns:
        (R, N) changes of the winning scores, and the seconds of the processor that a removal takes, the
        prediction included.
    """
    before = method.predict(query, memory, vocabulary).scores
    clock, after = time.process_time(), []
    for i in ids:
        rest = memory.subset(memory.ids[memory.ids != i])
        after.append(method.predict(query, rest, vocabulary).scores)
    seconds = (time.process_time() - clock) / len(ids)
    return np.stack([winning_change(before, scores, winner) for scores in after]), seconds


def image_pairs(
    method: Method, query: Query, memory: SupportMemory, vocabulary: Vocabulary, most: int, seed: int = 0
) -> pd.DataFrame:
    """Every listed pair of a patch and one of at most `most` prototypes of an image, drawn by the seed.

    Returns:
        columns `weight` and `effect` as listed; `true`, the change without the prototype, for RNS between
        heads at the minimum, and `stopped`, where its solver stops early; and in each row the image's
        `effect_ms`, `retrain_ms` and `predict_ms` of the processor (the first two for each prototype).
    """
    clock = time.process_time()
    evidence = method.predict(query, memory, vocabulary).evidence
    predict_s = time.process_time() - clock
    listed = np.unique(evidence.prototype_id[evidence.prototype_id >= 0])
    ids = np.sort(np.random.default_rng(seed).permutation(listed)[:most])
    clock = time.process_time()
    evidence = evidence.with_effects(ids)
    effect_s = (time.process_time() - clock) / len(ids)
    rows = np.flatnonzero(np.isin(evidence.prototype_id, ids))
    patches, which = evidence.query[rows], np.searchsorted(ids, evidence.prototype_id[rows])
    winner = np.asarray(method.predict(query, memory, vocabulary)).argmax(1)
    exact = replace(method, tolerance=0.0) if isinstance(method, RNS) else method
    world = query, memory, vocabulary, ids, winner
    true, retrain_s = leave_one_out(exact, *world)
    stopped = leave_one_out(method, *world)[0] if exact is not method else true
    columns = {
        "weight": evidence.weight[rows],
        "effect": evidence.effect[rows],
        "true": true[which, patches],
        "stopped": stopped[which, patches],
        "prototypes": len(ids),
    }
    times = {"effect_ms": effect_s, "retrain_ms": retrain_s, "predict_ms": predict_s}
    return pd.DataFrame(columns | {name: 1000 * seconds for name, seconds in times.items()})


def agreement(predicted: pd.Series, true: pd.Series) -> tuple[float, float]:
    """Spearman's correlation, and the slope of the true changes over the predicted ones."""
    finite = np.isfinite(predicted) & np.isfinite(true)
    if finite.sum() < 3:
        return float("nan"), float("nan")
    x, y = predicted[finite], true[finite]
    return float(spearmanr(x, y).statistic), float(np.polyfit(x, y, 1)[0])


def summary(images: Sequence[pd.DataFrame]) -> Row:
    """What the listed pairs of several images say together.

    Returns:
        `known_percent` of the pairs have an effect; in `gone_percent` the class could not be answered any
        more (an effect of -inf, left out of all comparisons). Comparisons are a Spearman correlation and the
        slope of the true changes over what predicts them: without a prefix, effects and changes between heads
        at the minimum; `stopped_`, effects and changes between heads as the default solver leaves them;
        `weight_`, minus the weight. `image_spearman` is the median over images, `change` the standard
        deviation of the changes.
    """
    pairs = pd.concat(images)
    gone = np.isneginf(pairs.true)
    row = {
        "images": len(images),
        "prototypes": sum(int(image.prototypes.iloc[0]) for image in images),
        "pairs": len(pairs),
        "known_percent": 100 * float(pairs.effect.notna().mean()),
        "gone_percent": 100 * float(gone.mean()),
        "change": float(pairs.true[~gone].std()),
    }
    comparisons = {
        "": (pairs.effect, pairs.true),
        "stopped_": (pairs.effect, pairs.stopped),
        "weight_": (-pairs.weight, pairs.true),
    }
    for name, (predicted, true) in comparisons.items():
        row[f"{name}spearman"], row[f"{name}slope"] = agreement(predicted, true)
    row["image_spearman"] = float(np.nanmedian([agreement(image.effect, image.true)[0] for image in images]))
    for name in ("effect_ms", "retrain_ms", "predict_ms"):
        row[name] = float(np.median([image[name].iloc[0] for image in images]))
    return row


def scene_rows(
    names: Sequence[str], shots: Sequence[int], seeds: Sequence[int], images: int, pool: int, most: int
) -> list[Row]:
    """A row for each method, number of shots and seed, and one for all seeds together (seed "all").

    Args:
        names: keys of `METHODS`.
        shots: support images per class.
        seeds: each draws its support images and has query scenes of its own.
        images: query scenes of a seed.
        pool: scenes that support images are drawn from.
        most: prototypes to remove, of each image.
    """
    bench, rows = SceneBenchmark(pool=pool, queries=images), []
    with one_thread():
        for name in names:
            method = METHODS[name]
            for count in shots:
                by_seed = {}
                for seed in tqdm(seeds, f"{name}, {count} shots", disable=None):
                    setting = Setting(method, shots=count)
                    memory, vocabulary = bench.memory(setting, seed), bench.vocabulary(setting, seed)
                    queries = [encoded.query for encoded, _ in bench.query_set(setting, seed)]
                    by_seed[seed] = [
                        image_pairs(method, query, memory, vocabulary, most, n)
                        for n, query in enumerate(queries)
                    ]
                whole = [image for images in by_seed.values() for image in images]
                for seed, made in [*by_seed.items(), ("all", whole)]:
                    rows.append(
                        {"data": "scenes", "method": name, "shots": count, "seed": seed} | summary(made)
                    )
    return rows


def size_rows(sizes: Sequence[str], most: int) -> list[Row]:
    """The same for RNS on the drawn samples of `experiments.solvers.SIZES`, 512 wide."""
    rows = []
    with one_thread():
        for size in sizes:
            world = clustered_world(*SIZES[size])
            METHODS["rns"].predict(*world)  # warms up
            rows.append(
                {"data": size, "method": "rns"} | summary([image_pairs(METHODS["rns"], *world, most)])
            )
    return rows
