"""What becomes of a memory as it grows: class after class, as the world comes, and by its own guesses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from course.memory_noise import part
from data_scripts.scenes import SceneDataset
from experiments.claims.lab import APART, Asked, Case, Lab, prototypes
from rose_kit.adapter import RNS
from rose_kit.evaluation import ABSENT, relabel
from rose_kit.fusion import Method, ZeroShot
from rose_kit.fusion.text import softmax
from rose_kit.memory import Prototypes, SupportMemory
from rose_kit.metrics import confusion_matrix, iou
from rose_kit.pooling import patch_counts
from rose_kit.segmenter import paint
from rose_kit.types import Prediction, Query, Vocabulary, unit

STREAM = 4_000_000  # scene seeds of pictures that a memory teaches itself, apart from all others


# --- asking -------------------------------------------------------------------------------------------------


def ask(
    lab: Lab,
    method: Method,
    memory: SupportMemory | None,
    seed: int,
    names: Sequence[str] | None = None,
    query: str = "day",
) -> NDArray[np.int64]:
    """Answer the query scenes of a seed from any memory.

    Args:
        lab: whose scenes and texts.
        method: answers; stays as it is.
        memory: None for methods that need none.
        seed: of the query scenes.
        names: (C,) the classes asked about; pixels of others are ignored. None: all of the lab's.
        query: domain of the scenes.

    Returns:
        (C, C) confusion matrix in the order of `names`.
    """
    full, names = lab.text(), tuple(names or lab.names)
    vocabulary = Vocabulary(names, full.text[[full.index(name) for name in names]])
    table = np.full(len(full) + 1, ABSENT)  # the last entry is that of pixels without a class, -1
    table[[full.index(name) for name in names]] = range(len(names))
    method, total = copy.deepcopy(method), np.zeros((len(names), len(names)), np.int64)
    for features, what, target in lab.asked(Case(method, query=query), seed):
        labels, _ = paint(np.asarray(method.predict(what, memory, vocabulary)), what, features)
        total += confusion_matrix(labels, table[target], len(names), ignore_index=ABSENT)
    return total


def percent(counts: NDArray[np.int64], of: Sequence[int] | None = None) -> float:
    """mIoU in percent of a confusion matrix, over all classes or some positions; NaN if none occurs."""
    scores = iou(counts)[list(range(len(counts)) if of is None else of)]
    return 100 * float(np.nanmean(scores)) if not np.isnan(scores).all() else float("nan")


# --- class after class --------------------------------------------------------------------------------------


@dataclass
class GradientHead:
    """A linear head on the rows it was shown, trained by gradient on the newest ones alone.

    What a network does that is fine-tuned lesson by lesson, with nothing kept of earlier lessons.

    Args:
        names: (C,) all classes that it will ever know.
        epochs: passes over a lesson.
        seed: of the order within a pass.
    """

    names: Sequence[str]
    epochs: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        from sklearn.linear_model import SGDClassifier  # here, since it is slow to import

        self._model = SGDClassifier(loss="log_loss", alpha=1e-4, random_state=self.seed)

    def learn(self, rows: Prototypes) -> None:
        """Train on one lesson, from where the last one ended."""
        order = np.random.default_rng(self.seed).permutation(len(rows))
        x, y = np.asarray(rows.vectors)[order], rows.class_names[order]
        for _ in range(self.epochs):
            self._model.partial_fit(x, y, classes=np.array(sorted(self.names)))

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `Method.predict`; the memory is not looked at."""
        scores = self._model.decision_function(Query.of(query).features)  # (N, C) one against the rest
        columns = np.searchsorted(self._model.classes_, vocabulary.names)
        return Prediction(softmax(scores[:, columns]))


def continual(lab: Lab, seed: int, lessons: int, method: Method, shots: int = 2) -> pd.DataFrame:
    """Learn classes in groups: a memory gains rows, a gradient head is trained on the same rows.

    Args:
        lab: whose scenes.
        seed: of the support, the groups and the query scenes.
        lessons: groups of classes, as equal as can be.
        method: answers from the memory.
        shots: support images per class.

    Returns:
        Columns label ("memory", "gradient head"), asked (among which classes: "all so far", and for the
        first group "first group"), step and group (from 1), seed, miou (percent, over the group's
        classes; NaN if none occurs).
    """
    order = np.random.default_rng(seed).permutation(lab.names).tolist()
    groups = [tuple(group) for group in np.array_split(np.array(order, dtype=object), lessons)]
    rows = lab.memory(Case(method, shots), seed).rows
    memory = SupportMemory(lab.encoder().dim, fingerprint=lab.encoder().fingerprint)
    head, lines = GradientHead(order, seed=seed), []
    for step in range(1, lessons + 1):
        lesson = rows.take(np.isin(rows.class_names, groups[step - 1]))
        memory.extend(lesson)
        head.learn(lesson)
        for label, who in (("memory", method), ("gradient head", head)):
            known = [name for group in groups[:step] for name in group]
            counts = ask(lab, who, memory, seed, known)
            first = percent(ask(lab, who, memory, seed, groups[0]))
            lines.append((label, "first group", step, 1, seed, first))
            for g, group in enumerate(groups[:step], start=1):
                miou = percent(counts, [known.index(name) for name in group])
                lines.append((label, "all so far", step, g, seed, miou))
    return pd.DataFrame(lines, columns=["label", "asked", "step", "group", "seed", "miou"])


# --- as the world comes -------------------------------------------------------------------------------------


def as_it_comes(lab: Lab, count: int, seed: int) -> SupportMemory:
    """The memory of so many support scenes drawn without regard to what they show: a long tail."""
    shown = lab.examples(Case(ZeroShot()), seed)
    chosen = np.random.default_rng(seed).choice(lab.pool, min(count, lab.pool), replace=False)
    rows = [row for i in chosen for row in prototypes(shown, int(i))]
    vectors, names, ids = zip(*rows, strict=True)
    fingerprint = lab.encoder().fingerprint
    return SupportMemory.from_prototypes(np.array(vectors), names, ids, fingerprint=fingerprint)


def thirds(memory: SupportMemory, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Classes by their rows in a memory: a third common, a third middling, a third rare (perhaps none)."""
    ranked = sorted(names, key=lambda name: -memory.summary().get(name, 0))  # ties: in the order given
    parts = np.array_split(np.array(ranked, dtype=object), 3)
    return dict(zip(("common", "middling", "rare"), map(tuple, parts), strict=True))


# --- a memory that teaches itself ---------------------------------------------------------------------------


def stream(lab: Lab, seed: int, count: int, domain: str = "day") -> list[tuple[str, Asked]]:
    """Pictures nobody has annotated: (image id, (features, query, (H, W) target)) each.

    The target is there to measure with. Seeds share no picture.
    """
    scenes = SceneDataset(count, first=STREAM + APART * seed, size=lab.size, domain=domain)

    def encode() -> list[tuple[str, Asked]]:
        maps = [(sample, lab.encoder().encode_image(sample.image, lab.windows)) for sample in scenes]
        return [(s.image_id, (m, Query.of(m), relabel(s, lab.text()))) for s, m in maps]

    return lab.once(("stream", seed, count, domain), encode)


def learn_from_itself(
    memory: SupportMemory,
    image_id: str,
    seen: Asked,
    vocabulary: Vocabulary,
    method: Method,
    threshold: float | None,
    named: bool = False,
) -> list[bool]:
    """Add a picture under the classes that the memory itself finds in it.

    Args:
        memory: gains one row per class found, marked `{"self": True}`.
        image_id: the picture's name.
        seen: its features and query; the target judges the rows.
        vocabulary: the classes.
        method: answers.
        threshold: patches whose winning probability is lower teach nothing. None: the annotation
            teaches, patch by patch, as careful hands would.
        named: patches teach only if zero-shot gives the same answer.

    Returns:
        for each row whether it is right: whether most of its patches' pixels are of its class.
    """
    features, query, target = seen
    pixels = patch_counts(features, target, range(len(vocabulary)))  # (N, C)
    answer = pixels if threshold is None else np.asarray(method.predict(query, memory, vocabulary))
    labels = np.where(answer.max(1) >= (threshold or 1e-9), answer.argmax(1), ABSENT)  # (N,)
    if named:
        labels[np.asarray(ZeroShot().predict(query, None, vocabulary)).argmax(1) != labels] = ABSENT
    found = [c for c in np.unique(labels) if c != ABSENT]
    if not found:
        return []
    vectors = unit([features.flat()[labels == c].sum(0) for c in found])  # (R, D)
    names = [vocabulary.names[c] for c in found]
    marks = [{"self": True}] * len(found)
    memory.extend(Prototypes.make(range(len(found)), vectors, names, [image_id] * len(found), metadata=marks))
    return [bool(pixels[labels == c, c].sum() * 2 >= pixels[labels == c].sum()) for c in found]


def drift(now: SupportMemory, start: SupportMemory, names: Sequence[str] | None = None) -> float:
    """How far class prototypes have moved: 1 - cosine, in the mean over the classes of both."""
    names = [n for n in names or start.classes if n in now.classes and n in start.classes]
    return float(1 - (now.class_prototypes(names) * start.class_prototypes(names)).sum(1).mean())


def self_taught(
    lab: Lab,
    memory: SupportMemory,
    seed: int,
    steps: Sequence[int],
    method: Method | None = None,
    domain: str = "day",
    **how,
) -> pd.DataFrame:
    """Let a memory learn from its own answers, and measure what becomes of it.

    Args:
        lab: whose scenes.
        memory: where it starts; stays as it is.
        seed: of the pictures it sees and of the query scenes.
        steps: pictures seen when it is measured, increasing.
        method: answers; by default RNS.
        domain: of the pictures and of the queries.
        **how: threshold and named, of `learn_from_itself`.

    Returns:
        One line per step: x, seed, miou (percent), wrong (percent of the rows added so far; NaN if
        none), rows (added so far), drift.
    """
    method, now, right, lines = method or RNS(), part(memory, np.ones(len(memory), bool)), [], []
    pictures, done = stream(lab, seed, max(steps), domain), 0
    for step in steps:
        for image_id, seen in pictures[done:step]:
            right += learn_from_itself(now, image_id, seen, lab.text(), method, **how)
        done = step
        wrong = 100 * (1 - float(np.mean(right))) if right else float("nan")
        miou = percent(ask(lab, method, now, seed, query=domain))
        line = {"x": step, "seed": seed, "miou": miou, "wrong": wrong}
        lines.append({**line, "rows": len(right), "drift": drift(now, memory)})
    return pd.DataFrame(lines)
