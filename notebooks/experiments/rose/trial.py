"""One seed's query images: classes trained on, rare ones, and classes that arrive after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_scripts.scenes import CLASSES, NOVEL, STUFF, SceneDataset
from experiments.rose.world import HELD_OUT, RARE, TRAINED
from rose_kit.data import Sample
from rose_kit.encoder import Encoder, preferred_windows
from rose_kit.evaluation import EncodedQuery, count_pixels, relabel
from rose_kit.fusion import Method
from rose_kit.memory import SupportMemory
from rose_kit.metrics import iou
from rose_kit.segmenter import EncodedImage
from rose_kit.types import FeatureMap, Query, Vocabulary

FIRST_TRIAL, STRIDE = 10_000_000, 20_000  # scene seeds: of trial s from FIRST_TRIAL + STRIDE * s on
FIRST_SEED = 2  # the encoder was trained on 10,000,000 to 10,031,999, where the scenes of seeds 0 and 1 lie
GROUPS = {
    **dict.fromkeys(RARE, "rare"),
    **dict.fromkeys(HELD_OUT, "held-out"),
    **dict.fromkeys(NOVEL, "novel"),
}


class Trial:
    """The images that every method answers in one seed, encoded once.

    Args:
        encoder: the trained models' own.
        seed: 2 or more; its scenes and individuals are in no other trial, and its scenes in no training.
        queries: scenes of trained classes.
        per_class: query scenes that surely show a rare or new class.
        shots: images by which a class is added to memory.
        many: images by which a novel class is added once more.
        size: side in pixels.

    Raises:
        ValueError: a seed below 2, whose scenes the encoder was trained on.
    """

    def __init__(
        self,
        encoder: Encoder,
        seed: int = 6,
        queries: int = 16,
        per_class: int = 5,
        shots: int = 5,
        many: int = 20,
        size: int = 128,
    ) -> None:
        check_seeds([seed])
        self.seed, self.size, self.shots, self.many = seed, size, shots, many
        self._encoder, self._first = encoder, FIRST_TRIAL + STRIDE * seed
        self.vocabulary = Vocabulary.encode(CLASSES, encoder)
        self.common = [self._query(self.sample(i, ())) for i in range(queries)]
        self.queries, self.support = {}, {}
        for c, (name, group) in enumerate(GROUPS.items(), start=1):
            shown = [self.sample(1000 * c + i, [(name, self.individual(i))]) for i in range(per_class)]
            self.queries[name] = [self._query(sample) for sample in shown]
            count = max(many, shots) if group == "novel" else shots
            self.support[name] = [
                self.sample(1000 * c + 500 + i, [(name, self.individual(500 + i))]) for i in range(count)
            ]

    def individual(self, i: int) -> int:
        """Number of an individual: each seed has its own, and those of the queries are not those added."""
        return 1000 * (self.seed + 2) % 1_000_000 + i

    def sample(self, i: int, cast: Sequence[tuple[str, int]]) -> Sample:
        """The trial's scene `i`, in which a cast is tried first."""
        return SceneDataset(1, first=self._first + i, size=self.size, classes=TRAINED, cast=cast)[0]

    def _encode(self, sample: Sample) -> FeatureMap:
        return self._encoder.encode_image(sample.image, preferred_windows(self._encoder))

    def _query(self, sample: Sample) -> EncodedQuery:
        features = self._encode(sample)
        return EncodedImage(features, Query.of(features)), relabel(sample, self.vocabulary)

    def added(self, memory: SupportMemory, name: str, shots: int) -> SupportMemory:
        """A copy of a memory with the rows of one more class, and of nothing else in its images."""
        grown = memory.copy()
        for i, sample in enumerate(self.support[name][:shots]):
            features = self._encode(sample)
            grown.add(f"added-{name}-{i}", features, sample.mask, {CLASSES.index(name): name})
        return grown

    def counts(
        self, method: Method, memory: SupportMemory | None, query_set: Sequence[EncodedQuery]
    ) -> NDArray[np.int64]:
        """(C, C) confusion matrix of some images, every class of the scenes being a possible answer."""
        return count_pixels(method, memory, self.vocabulary, query_set)

    def rows(self, name: str, method: Method, memory: SupportMemory | None) -> list[dict[str, Any]]:
        """One row per class or group, memory as trained and with the class added.

        `before` and `after` are IoU in percent; `others` the change of the other classes' mIoU. Without
        a memory nothing is added, and after is before.
        """
        common = self.counts(method, memory, self.common)
        line = {"method": name, "seed": self.seed}
        seen = float(np.nanmean(100 * iou(common)[[CLASSES.index(n) for n in STUFF + TRAINED]]))
        rows = [{**line, "group": "common", "class": "", "shots": 0, "before": seen, "after": seen}]
        for new, group in GROUPS.items():
            c, query_set = CLASSES.index(new), self.queries[new]
            before = 100 * iou(common + self.counts(method, memory, query_set))
            for shots in sorted({self.shots, self.many} if group == "novel" else {self.shots}):
                after = before
                if memory is not None:
                    grown = self.added(memory, new, shots)
                    after = 100 * iou(self.counts(method, grown, query_set + self.common))
                others = float(np.nanmean(np.delete(after, c)) - np.nanmean(np.delete(before, c)))
                values = {"before": float(before[c]), "after": float(after[c]), "others": others}
                rows.append({**line, "group": group, "class": new, "shots": shots, **values})
        return rows


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse trials on scenes that the encoder was trained on.

    Raises:
        ValueError: a seed below 2.
    """
    if low := [seed for seed in seeds if seed < FIRST_SEED]:
        raise ValueError(
            f"trial seeds begin at {FIRST_SEED}, got {low[0]}: the encoder was trained on earlier scenes"
        )


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per method: means over seeds and the classes of each group, in percent."""
    import pandas as pd

    table, lines = pd.DataFrame(rows), []
    few = table.shots.isin([0, table[table.group == "rare"].shots.min()])
    for method, mine in table.groupby("method", sort=False):
        line: dict[str, Any] = {"method": method, "common": mine[mine.group == "common"].before.mean()}
        for group in ("rare", "held-out", "novel"):
            chosen = mine[few[mine.index] & (mine.group == group)]
            line |= {f"{group} before": chosen.before.mean(), f"{group} after": chosen.after.mean()}
        line[f"novel, {table.shots.max()} rows"] = mine[~few[mine.index]].after.mean()
        line["others, worst"] = mine.others.min()
        lines.append(line)
    return lines
