"""The article's claims about a trained ROSE: rare classes, and classes that arrive after training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rose_kit.data import Sample
from rose_kit.encoder import Encoder
from rose_kit.encoder.base import content_hash
from rose_kit.fusion import KnnClip, Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.metrics import confusion_matrix, iou
from rose_kit.model.fusion import FUSIONS
from rose_kit.model.pyramid import FrozenEncoder
from rose_kit.model.rose import RoseMethod
from rose_kit.model.training import Lessons, Training, at_most, prepare, train
from rose_kit.scenes import CLASSES, NOVEL, SEEN_THINGS, STUFF, SceneDataset
from rose_kit.segmenter import paint
from rose_kit.types import FeatureMap, Query, Vocabulary

HELD_OUT = ("bus", "sheep", "clock", "cup")  # the encoder read their names; ROSE is not trained on them
RARE = ("fish", "mushroom", "kite", "robot")  # trained on a few pictures only
TRAINED = tuple(name for name in SEEN_THINGS if name not in HELD_OUT)
FIRST_SEED = 6_000_000  # of the scenes: apart from every other training, support and query
Picture = tuple[FeatureMap, NDArray[np.integer]]


@dataclass
class ThinnedScenes:
    """The first scenes in which no rare class has more than its share: a long tail.

    Args:
        count: scenes wanted.
        first: seed of the first candidate.
        quota: most scenes that may show a rare class.
        size: side in pixels.
    """

    count: int
    first: int = FIRST_SEED
    quota: int = 3
    size: int = 128
    class_names = STUFF + TRAINED

    @cached_property
    def _samples(self) -> list[Sample]:
        scenes = SceneDataset(4 * self.count + 40, first=self.first, size=self.size, classes=TRAINED)
        kept, shown = [], Counter()
        for sample in (scenes[i] for i in range(len(scenes))):
            rare = {sample.classes[v] for v in np.unique(sample.mask).tolist()}.intersection(RARE)
            if len(kept) < self.count and all(shown[name] < self.quota for name in rare):
                kept.append(sample)
                shown.update(rare)
            if len(kept) == self.count:
                break
        return kept

    @property
    def ids(self) -> list[str]:
        """Image ids, in order."""
        return [sample.image_id for sample in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> Sample:
        return self._samples[i]

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in scene `i`."""
        sample = self._samples[i]
        return frozenset(sample.classes[v] for v in np.unique(sample.mask).tolist())


class Trial:
    """The pictures every method is asked about, encoded once.

    Args:
        encoder: the trained models' own.
        queries: scenes of trained classes.
        per_class: query scenes that surely show a rare or new class.
        shots: pictures by which a class is added to memory.
        size: side in pixels.
    """

    def __init__(
        self, encoder: Encoder, queries: int = 24, per_class: int = 6, shots: int = 5, size: int = 128
    ) -> None:
        self.size, self._see = size, FrozenEncoder(encoder)
        self.vocabulary = Vocabulary.encode(CLASSES, encoder)
        self.common = [self._picture(FIRST_SEED + 500_000 + i, ()) for i in range(queries)]
        self.queries, self.support = {}, {}
        for c, name in enumerate((*RARE, *HELD_OUT, *NOVEL)):
            first = FIRST_SEED + 600_000 + 1000 * c  # individuals that are asked for are not those added
            self.queries[name] = [self._picture(first + i, [(name, 100 + i)]) for i in range(per_class)]
            self.support[name] = [
                (f"added-{name}-{i}", *self._picture(first + 500 + i, [(name, 900 + i)]))
                for i in range(shots)
            ]

    def _picture(self, seed: int, cast: Sequence[tuple[str, int]]) -> Picture:
        sample = SceneDataset(1, first=seed, size=self.size, classes=TRAINED, cast=cast)[0]
        return self._see.features(sample.image), sample.mask

    def added(self, memory: SupportMemory, name: str) -> SupportMemory:
        """A copy of a memory with the rows of one more class, and of nothing else in its pictures."""
        copy = at_most(memory, len(memory))
        for image_id, feature_map, mask in self.support[name]:
            copy.add(image_id, feature_map, mask, {CLASSES.index(name): name})
        return copy

    def counts(self, method: Method, memory: SupportMemory | None, pictures: Sequence[Picture]) -> NDArray:
        """(C, C) confusion matrix of some pictures, every class of the world being a possible answer."""
        counts = np.zeros((len(CLASSES),) * 2, np.int64)
        for feature_map, mask in pictures:
            query = Query.of(feature_map)
            prediction = method.predict(query, memory, self.vocabulary)
            labels, _ = paint(np.asarray(prediction), query, feature_map)
            counts += confusion_matrix(labels, mask, len(CLASSES))
        return counts

    def rows(self, name: str, method: Method, memory: SupportMemory | None, progress: bool) -> list[dict]:
        """One row per question: class or group, memory as trained and with the class added.

        `before` and `after` are IoU in percent; `others` the change of the other classes' mIoU.
        """
        seen = [CLASSES.index(n) for n in STUFF + TRAINED]
        common = self.counts(method, memory, self.common)
        rows = [
            {
                "method": name,
                "group": "seen",
                "class": "",
                "before": float(np.nanmean(100 * iou(common)[seen])),
            }
        ]
        groups = {**dict.fromkeys(RARE, "rare"), **dict.fromkeys(HELD_OUT, "held-out")}
        for new in tqdm(self.queries, name, disable=not progress):
            c, pictures = CLASSES.index(new), self.queries[new]
            before = after = 100 * iou(common + self.counts(method, memory, pictures))
            if memory is not None:
                after = 100 * iou(self.counts(method, self.added(memory, new), pictures + self.common))
            others = float(np.nanmean(np.delete(after, c)) - np.nanmean(np.delete(before, c)))
            rows.append(
                {"method": name, "group": groups.get(new, "novel"), "class": new,
                 "before": float(before[c]), "after": float(after[c]), "others": others}
            )  # fmt: skip
        return rows


def compare(
    encoder: Encoder,
    fusions: Sequence[str] = tuple(FUSIONS),
    settings: Training = Training(),  # noqa: B008 (frozen)
    pictures: int = 200,
    out: Path | None = None,
    trial: Trial | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train fusions on the same pictures, then ask all of them, text alone and kNN-CLIP the same.

    Args:
        encoder: frozen; must read text.
        fusions: keys of `FUSIONS`.
        settings: of every training alike.
        pictures: training scenes.
        out: folder for the trained models, one folder a fusion; None keeps none.
        trial: what is asked; by default `Trial(encoder)`.
        progress: show progress bars.

    Returns:
        rows of `Trial.rows`; "NAME without memory" is the same trained model with text anchors alone.

    Raises:
        RuntimeError: a weight changed while classes were added, which must not be.
    """
    lessons = training_scenes(encoder, pictures, progress)
    trial = Trial(encoder) if trial is None else trial
    memory = at_most(lessons.memory, settings.rows_per_class, settings.seed)
    rows = trial.rows("text only", ZeroShot(), None, progress)
    rows += trial.rows("knn-clip", KnnClip(), memory, progress)
    for fusion in fusions:
        model, losses = train(lessons, encoder, fusion, settings, progress)
        if out is not None:
            model.save(
                out / fusion, losses=losses, seed=settings.seed, steps=settings.steps, pictures=pictures
            )
        weights = content_hash(model.state_dict())
        rows += trial.rows(f"{fusion} without memory", RoseMethod(model), None, progress)
        rows += trial.rows(fusion, RoseMethod(model), memory, progress)
        if content_hash(model.state_dict()) != weights:
            raise RuntimeError(f"the weights of {fusion} changed while classes were added")
    return rows


def training_scenes(encoder: Encoder, pictures: int = 200, progress: bool = True) -> Lessons:
    """The long-tailed training scenes, encoded."""
    vocabulary = Vocabulary.encode(STUFF + TRAINED, encoder)
    return prepare(ThinnedScenes(pictures), encoder, vocabulary, progress)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per method: means over the classes of each group, in percent."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        line: dict[str, Any] = {"method": method}
        line["seen mIoU"] = next(row["before"] for row in mine if row["group"] == "seen")
        for group in ("rare", "held-out", "novel"):
            of_group = [row for row in mine if row["group"] == group]
            line[f"{group} before"] = float(np.nanmean([row["before"] for row in of_group]))
            line[f"{group} after"] = float(np.nanmean([row["after"] for row in of_group]))
        line["others, worst"] = min(row["others"] for row in mine if row["group"] != "seen")
        lines.append(line)
    return lines
