"""One individual among others of its class: "my robot", learned from one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from course.reliability import auroc
from data_scripts.scenes import SEEN_THINGS, draw_scene
from experiments.claims.benchmark import STRIDE, SceneBenchmark, Setting
from rose_kit.adapter import RNS
from rose_kit.data import Sample
from rose_kit.encoder import Encoder, preferred_windows
from rose_kit.evaluation import EncodedQuery, count_answer
from rose_kit.fusion import Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.metrics import iou
from rose_kit.pooling import patch_counts
from rose_kit.types import Vocabulary

THINGS = ("tent", "bus", "car", "robot")  # from looks that differ all over to looks that differ in a panel
FIRST = 3_000_000  # scene seeds of images and queries, apart from all others


@dataclass(frozen=True)
class Personal:
    """One individual of the scenes' world.

    Args:
        thing: its class.
        individual: its number: what it looks like.
    """

    thing: str
    individual: int

    @property
    def name(self) -> str:
        """What it is called: a class of its own."""
        return f"my {self.thing}"

    def sample(self, seed: int, others: Sequence[int] = (), **options) -> Sample:
        """A scene that shows it, perhaps beside others of its class.

        Args:
            seed: of the scene.
            others: numbers of the others.
            **options: of `draw_scene`. No further individual of the class appears by chance.
        """
        mine = (self.thing, self.individual)
        cast = [mine, *((self.thing, other) for other in others)]
        rest = [name for name in options.pop("classes", SEEN_THINGS) if name != self.thing]
        scene = draw_scene(seed, cast=cast, named={self.name: mine}, classes=rest, **options)
        return Sample(f"{self.name}-{seed}", scene.image, scene.mask, dict(enumerate(scene.names)))

    def scenes(self, count: int, first: int, others: int = 2, **options) -> list[Sample]:
        """Scenes `first` and on: each shows it beside others, new ones in each."""
        numbers = np.random.default_rng(first).integers(1000, 10**6, (count, others))
        return [self.sample(first + i, numbers[i].tolist(), **options) for i in range(count)]

    def add_to(self, memory: SupportMemory, encoder: Encoder, images: Sequence[Sample]) -> None:
        """Add it to a memory: one prototype per image, of its own pixels and nothing else."""
        for sample in images:
            own = {value: name for value, name in sample.classes.items() if name == self.name}
            features = encoder.encode_image(sample.image, preferred_windows(encoder))
            memory.add(sample.image_id, features, sample.mask, own, thumbnail=sample.image)

    def vocabulary(self, names: Sequence[str], encoder: Encoder) -> Vocabulary:
        """The classes, and it as the last of them."""
        return Vocabulary.encode([*names, self.name], encoder)


def instance_metrics(
    method: Method,
    query_set: Sequence[EncodedQuery],
    memory: SupportMemory,
    vocabulary: Vocabulary,
    thing: str,
) -> dict[str, float]:
    """How well one individual, the last class of a vocabulary, is found among others of its class.

    Args:
        method: answers.
        query_set: scenes, encoded, with their targets.
        memory: knows the individual, perhaps.
        vocabulary: its last class is the individual.
        thing: the class of the others.

    Returns:
        In percent: "iou" of the individual; "precision": of the pixels called by its name that are its
        or another's of its class, the share that are its; "share" of its pixels among theirs, which is
        what guessing would give; "auc": area under the ROC curve of log p(it) - log p(class) over the
        patches of it and of the others, 50 for guessing.
    """
    mine, other, counts, truth, odds = len(vocabulary) - 1, vocabulary.index(thing), 0, [], []
    for encoded, target in query_set:
        answer = np.asarray(method.predict(encoded.query, memory, vocabulary))  # (N, C)
        counts = counts + count_answer(answer, encoded, target)
        held = patch_counts(encoded.feature_map, target, (mine, other))  # (N, 2) pixels
        clear = held.max(1) > 0.5 * encoded.feature_map.patch_size**2
        log_odds = np.log(answer[:, mine] + 1e-12) - np.log(answer[:, other] + 1e-12)  # (N,)
        truth.append(held.argmax(1)[clear] == 0)
        odds.append(log_odds[clear])
    hit, confused = counts[mine, mine], counts[other, mine]
    area = counts[[mine, other]].sum(1)
    return {
        "iou": 100 * float(iou(counts)[mine]),
        "precision": 100 * float(hit / max(hit + confused, 1)),
        "share": 100 * float(area[0] / area.sum()),
        "auc": 100 * auroc(np.concatenate(truth), np.concatenate(odds)),
    }


def personal_metrics(
    bench: SceneBenchmark,
    thing: str,
    seed: int,
    method: Method,
    images: int,
    scenes: int = 8,
    encoder: str = "own",
) -> dict[str, float]:
    """`instance_metrics` for an individual that the seed chooses, with so many images of it in memory.

    The memory also holds five shots of every class. The scenes show it beside two others, new in each.
    """
    key = (thing, seed, images, scenes, encoder)
    problem = bench.cached(("personal", *key), lambda: _problem(bench, *key))
    made = ("personal metrics", repr(method), *key)
    return bench.cached(made, lambda: instance_metrics(method, *problem, thing))


def personal_frame(
    bench: SceneBenchmark,
    seeds: Sequence[int],
    things: Sequence[str] = THINGS,
    images: Sequence[int] = (0, 1, 5),
    scenes: int = 8,
    progress: bool = True,
) -> pd.DataFrame:
    """`personal_metrics` for several classes, seeds and numbers of images; 0 images: zero-shot, text alone.

    Returns:
        Columns label (the class), x (images), seed, and those of `instance_metrics`.
    """
    lines = []
    for thing, x, seed in tqdm(list(product(things, images, seeds)), "individuals", disable=not progress):
        metrics = personal_metrics(bench, thing, seed, RNS() if x else ZeroShot(), max(x, 1), scenes)
        lines.append({"label": thing, "x": x, "seed": seed, **metrics})
    return pd.DataFrame(lines)


def _problem(
    bench: SceneBenchmark, thing: str, seed: int, images: int, scenes: int, name: str
) -> tuple[list[EncodedQuery], SupportMemory, Vocabulary]:
    encoder, individual, first = bench.encoder(name), Personal(thing, seed), FIRST + STRIDE * seed
    memory = bench.memory(Setting(method=None, shots=5, encoder=name), seed).copy()
    shown = [individual.sample(first + i, size=bench.size) for i in range(images)]
    individual.add_to(memory, encoder, shown)
    vocabulary = individual.vocabulary(bench.names, encoder)
    query = individual.scenes(scenes, first + STRIDE // 2, size=bench.size)
    return bench.encode(query, vocabulary, name), memory, vocabulary
