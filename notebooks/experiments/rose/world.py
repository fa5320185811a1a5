"""What ROSE is trained on: scenes in which some classes are rare, and others do not occur at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_scripts.scenes import SEEN_THINGS, STUFF, SceneDataset
from rose_kit.data import Sample
from rose_kit.encoder import Encoder
from rose_kit.model.training import EncodedDataset, prepare
from rose_kit.types import Vocabulary

HELD_OUT = ("bus", "sheep", "clock", "cup")  # the encoder read their names; ROSE is not trained on them
RARE = ("fish", "mushroom", "kite", "robot")  # trained on a few images only
TRAINED = tuple(name for name in SEEN_THINGS if name not in HELD_OUT)
FIRST_SEED = 6_000_000  # of the training scenes; to 6_999_999 they, and what choices were made on


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


def training_scenes(encoder: Encoder, images: int = 200, progress: bool = True) -> EncodedDataset:
    """The long-tailed training scenes, encoded."""
    vocabulary = Vocabulary.encode(STUFF + TRAINED, encoder)
    return prepare(ThinnedScenes(images), encoder, vocabulary, progress)


def confusable_pairs(dataset: EncodedDataset, pairs: int = 4) -> list[tuple[str, str]]:
    """The things that text alone takes for each other most often in the training scenes; no thing twice.

    How often: patches of either that are nearer to the other's text, in percent of the patches of both.
    """
    names = [n for n in dataset.vocabulary.names if n not in STUFF]
    at = [dataset.vocabulary.index(n) for n in names]
    patches = np.concatenate([m.flat() for m in dataset.maps])  # (P * N, D)
    share = np.concatenate([target.flatten(0, 1).numpy() for target in dataset.targets])[:, at]  # (P * N, C)
    cosines = patches @ dataset.vocabulary.text[at].T
    wrong = {}
    for a in range(len(names)):
        for b in range(a):
            own = share[:, a] - share[:, b]  # > 0: a's
            clear = np.abs(own) > 0.5
            wrong[a, b] = np.mean((own[clear] > 0) != (cosines[clear, a] > cosines[clear, b]))
    chosen: list[tuple[int, int]] = []
    for pair in sorted(wrong, key=lambda pair: -wrong[pair]):
        if len(chosen) < pairs and not {i for p in chosen for i in p}.intersection(pair):
            chosen.append(pair)
    return [(names[a], names[b]) for a, b in chosen]
