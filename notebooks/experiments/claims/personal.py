"""One individual among others of its class: "my robot", learned from one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from course.reliability import auroc
from data_scripts.scenes import SEEN_THINGS, draw_scene
from experiments.claims.lab import APART, Asked, Case, Lab
from rose_kit.adapter import RNS
from rose_kit.data import Sample
from rose_kit.encoder import Encoder
from rose_kit.evaluation import ABSENT, relabel
from rose_kit.fusion import Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.metrics import confusion_matrix, iou
from rose_kit.pooling import patch_counts
from rose_kit.segmenter import paint
from rose_kit.types import Query, Vocabulary

THINGS = ("tent", "bus", "car", "robot")  # from looks that differ all over to looks that differ in a panel
FIRST = 3_000_000  # scene seeds of pictures and queries, apart from all others


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

    def remember(self, memory: SupportMemory, encoder: Encoder, pictures: Sequence[Sample]) -> None:
        """Add it to a memory: one prototype a picture, of its own pixels and nothing else."""
        for sample in pictures:
            asked = {value: name for value, name in sample.classes.items() if name == self.name}
            features = encoder.encode_image(sample.image, getattr(encoder, "preferred_windows", None))
            memory.add(sample.image_id, features, sample.mask, asked, thumbnail=sample.image)

    def vocabulary(self, names: Sequence[str], encoder: Encoder) -> Vocabulary:
        """The classes, and it as the last of them."""
        return Vocabulary.encode([*names, self.name], encoder)


def tell_apart(
    method: Method, asked: Sequence[Asked], memory: SupportMemory, vocabulary: Vocabulary, thing: str
) -> dict[str, float]:
    """How well one individual, the last class of a vocabulary, is found among others of its class.

    Args:
        method: answers.
        asked: features, query and target of each scene.
        memory: knows the individual, perhaps.
        vocabulary: its last class is the individual.
        thing: the class of the others.

    Returns:
        In percent: "iou" of the individual; "precision": of the pixels called by its name that are its
        or another's of its class, the share that are its; "share" of its pixels among theirs, which is
        what guessing would give; "auc": area under the ROC curve of log p(it) - log p(class) over the
        patches of it and of the others, 50 for guessing.
    """
    mine, other, size = len(vocabulary) - 1, vocabulary.index(thing), len(vocabulary)
    counts, truth, evidence = np.zeros((size, size), dtype=np.int64), [], []
    for features, query, target in asked:
        answer = np.asarray(method.predict(query, memory, vocabulary))  # (N, C)
        counts += confusion_matrix(paint(answer, query, features)[0], target, size, ignore_index=ABSENT)
        held = patch_counts(features, target, (mine, other))  # (N, 2) pixels
        whose = held.max(1) > 0.5 * features.patch_size**2
        odds = np.log(answer[:, mine] + 1e-12) - np.log(answer[:, other] + 1e-12)  # (N,)
        truth.append(held.argmax(1)[whose] == 0)
        evidence.append(odds[whose])
    hit, confused = counts[mine, mine], counts[other, mine]
    area = counts[[mine, other]].sum(1)
    return {
        "iou": 100 * float(iou(counts)[mine]),
        "precision": 100 * float(hit / max(hit + confused, 1)),
        "share": 100 * float(area[0] / area.sum()),
        "auc": 100 * auroc(np.concatenate(truth), np.concatenate(evidence)),
    }


def trial(
    lab: Lab, thing: str, seed: int, method: Method, pictures: int, scenes: int = 8
) -> dict[str, float]:
    """`tell_apart` for an individual that the seed chooses, remembered from so many pictures.

    The memory also holds five shots of every class. The scenes show it beside two others, new in each.
    """
    key = (thing, seed, pictures, scenes)
    world = lab.once(("personal", *key), lambda: _world(lab, *key))
    return lab.once(("trial", repr(method), *key), lambda: tell_apart(method, *world, thing))


def personal_frame(
    lab: Lab,
    seeds: Sequence[int],
    things: Sequence[str] = THINGS,
    pictures: Sequence[int] = (0, 1, 5),
    scenes: int = 8,
    progress: bool = True,
) -> pd.DataFrame:
    """`trial` for several classes, seeds and numbers of pictures; 0 pictures are zero-shot, the text alone.

    Returns:
        Columns label (the class), x (pictures), seed, and those of `tell_apart`.
    """
    lines = []
    for thing, x, seed in tqdm(list(product(things, pictures, seeds)), "individuals", disable=not progress):
        found = trial(lab, thing, seed, RNS() if x else ZeroShot(), max(x, 1), scenes)
        lines.append({"label": thing, "x": x, "seed": seed, **found})
    return pd.DataFrame(lines)


def _world(lab: Lab, thing: str, seed: int, pictures: int, scenes: int):
    """What is asked, the memory, and the vocabulary of a trial."""
    encoder, who, first = lab.encoder(), Personal(thing, seed), FIRST + APART * seed
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    memory.extend(lab.memory(Case(method=None, shots=5), seed).rows)
    who.remember(memory, encoder, [who.sample(first + i, size=lab.size) for i in range(pictures)])
    vocabulary, asked = who.vocabulary(lab.names, encoder), []
    for sample in who.scenes(scenes, first + APART // 2, size=lab.size):
        features = encoder.encode_image(sample.image, getattr(encoder, "preferred_windows", None))
        asked.append((features, Query.of(features), relabel(sample, vocabulary)))
    return asked, memory, vocabulary
