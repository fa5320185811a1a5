"""What becomes of a memory as it grows: class after class, as images come, and by its own answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_scripts.scenes import SceneDataset
from experiments.claims.benchmark import STRIDE, SceneBenchmark, Setting, miou_percent
from rose_kit.adapter import RNS
from rose_kit.evaluation import ABSENT, EncodedQuery, count_pixels
from rose_kit.fusion import Method, ZeroShot
from rose_kit.memory import Prototypes, SupportMemory
from rose_kit.pooling import patch_counts
from rose_kit.types import Vocabulary, unit

STREAM = 4_000_000  # scene seeds of the images of self-training, apart from all others


# --- evaluating ---------------------------------------------------------------------------------------------


def evaluate_memory(
    bench: SceneBenchmark,
    method: Method,
    memory: SupportMemory | None,
    seed: int,
    names: Sequence[str] | None = None,
    query: str = "day",
) -> NDArray[np.int64]:
    """Answer the query scenes of a seed from any memory.

    Args:
        bench: whose scenes and texts.
        method: answers; stays as it is.
        memory: None for methods that need none.
        seed: of the query scenes.
        names: (C,) the classes; pixels of others are ignored. None: all of the benchmark's.
        query: domain of the scenes.

    Returns:
        (C, C) confusion matrix in the order of `names`.
    """
    full, names = bench.text(), tuple(names or bench.names)
    chosen = [full.index(name) for name in names]
    table = np.full(len(full) + 1, ABSENT)  # the last entry is that of pixels without a class, -1
    table[chosen] = range(len(names))
    encoded = bench.query_set(Setting(method, query=query), seed)
    query_set = ((image, table[target]) for image, target in encoded)
    return count_pixels(copy.deepcopy(method), memory, Vocabulary(names, full.text[chosen]), query_set)


# --- class after class --------------------------------------------------------------------------------------


def continual(
    bench: SceneBenchmark,
    seed: int,
    lessons: int,
    method: Method,
    make_head: Callable[[Sequence[str]], Any],
    shots: int = 2,
) -> pd.DataFrame:
    """Learn classes in groups: a memory gains rows, one head is trained on them, one on all rows so far.

    Args:
        bench: whose scenes.
        seed: of the support, the groups and the query scenes.
        lessons: groups of classes, as equal as can be.
        method: answers from the memory.
        make_head: names of all classes -> a head with `learn(rows)` and the `predict` of a method.
        shots: support images per class.

    Returns:
        Columns label ("memory", "head: newest rows", "head: all rows"), step and group (from
        1), seed, miou (percent, among all classes so far, over the group's; NaN if none occurs).
    """
    order = np.random.default_rng(seed).permutation(bench.names).tolist()
    groups = [tuple(group) for group in np.array_split(np.array(order, dtype=object), lessons)]
    rows, memory = bench.memory(Setting(method, shots), seed).rows, bench.empty_memory()
    head, lines = make_head(order), []
    for step in range(1, lessons + 1):
        lesson = rows.take(np.isin(rows.class_names, groups[step - 1]))
        memory.extend(lesson)
        head.learn(lesson)
        upper = make_head(order)
        upper.learn(memory.rows)
        known = [name for group in groups[:step] for name in group]
        for label, learner in (("memory", method), ("head: newest rows", head), ("head: all rows", upper)):
            counts = evaluate_memory(bench, learner, memory, seed, known)
            for g, group in enumerate(groups[:step], start=1):
                miou = miou_percent(counts, [known.index(name) for name in group])
                lines.append((label, step, g, seed, miou))
    return pd.DataFrame(lines, columns=["label", "step", "group", "seed", "miou"])


# --- self-training ------------------------------------------------------------------------------------------


def stream(
    bench: SceneBenchmark, seed: int, count: int, domain: str = "day"
) -> list[tuple[str, EncodedQuery]]:
    """Images without annotation: (image id, (encoded image, (H, W) target)) each.

    The target is there to measure with. Seeds share no image.
    """
    scenes = SceneDataset(count, first=STREAM + STRIDE * seed, size=bench.size, domain=domain)
    key = ("stream", seed, count, domain)
    encoded = bench.cached(key, lambda: bench.encode(scenes, bench.text()))
    return list(zip(scenes.ids, encoded, strict=True))


def self_training_step(
    memory: SupportMemory,
    image_id: str,
    example: EncodedQuery,
    vocabulary: Vocabulary,
    method: Method,
    threshold: float | None,
    named: bool = False,
) -> list[bool]:
    """Add an image under the classes that the memory itself finds in it.

    Args:
        memory: gains one row per class found, marked `{"self": True}`.
        image_id: the image's name.
        example: the encoded image; its target judges the rows.
        vocabulary: the classes.
        method: answers.
        threshold: patches whose winning probability is lower add nothing. None: the annotation labels
            the patches, as a careful annotator would.
        named: patches count only if zero-shot gives the same answer.

    Returns:
        for each row whether it is right: whether most of its patches' pixels are of its class.
    """
    (encoded, target), features = example, example[0].feature_map
    pixels = patch_counts(features, target, range(len(vocabulary)))  # (N, C)
    answer = pixels if threshold is None else np.asarray(method.predict(encoded.query, memory, vocabulary))
    labels = np.where(answer.max(1) >= (threshold or 1e-9), answer.argmax(1), ABSENT)  # (N,)
    if named:
        zero_shot = np.asarray(ZeroShot().predict(encoded.query, None, vocabulary))
        labels[zero_shot.argmax(1) != labels] = ABSENT
    classes = [c for c in np.unique(labels) if c != ABSENT]
    if not classes:
        return []
    vectors = unit([features.flat()[labels == c].sum(0) for c in classes])  # (R, D)
    names = [vocabulary.names[c] for c in classes]
    ids, marks = [image_id] * len(names), [{"self": True}] * len(names)
    memory.extend(Prototypes.make(range(len(names)), vectors, names, ids, metadata=marks))
    return [bool(pixels[labels == c, c].sum() * 2 >= pixels[labels == c].sum()) for c in classes]


def drift(now: SupportMemory, start: SupportMemory, names: Sequence[str] | None = None) -> float:
    """How far class prototypes have moved: 1 - cosine, in the mean over the classes of both."""
    names = [n for n in names or start.classes if n in now.classes and n in start.classes]
    return float(1 - (now.class_prototypes(names) * start.class_prototypes(names)).sum(1).mean())


def self_training_curve(
    bench: SceneBenchmark,
    memory: SupportMemory,
    seed: int,
    steps: Sequence[int],
    method: Method | None = None,
    domain: str = "day",
    **options,
) -> pd.DataFrame:
    """Let a memory learn from its own answers, and measure what becomes of it.

    Args:
        bench: whose scenes.
        memory: where it starts; stays as it is.
        seed: of the images it sees and of the query scenes.
        steps: images seen when it is measured, increasing.
        method: answers; by default RNS.
        domain: of the images and of the queries.
        **options: threshold and named, of `self_training_step`.

    Returns:
        One line per step: x, seed, miou (percent), wrong (percent of the rows added so far; NaN if
        none), rows (added so far), drift.
    """
    method, now, right, lines = method or RNS(), memory.copy(), [], []
    images, done = stream(bench, seed, max(steps), domain), 0
    for step in steps:
        for image_id, example in images[done:step]:
            right += self_training_step(now, image_id, example, bench.text(), method, **options)
        done = step
        wrong = 100 * (1 - float(np.mean(right))) if right else float("nan")
        miou = miou_percent(evaluate_memory(bench, method, now, seed, query=domain))
        line = {"x": step, "seed": seed, "miou": miou, "wrong": wrong}
        lines.append({**line, "rows": len(right), "drift": drift(now, memory)})
    return pd.DataFrame(lines)
