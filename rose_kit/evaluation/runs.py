"""Methods fitted to one draw of support images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rose_kit.data import Dataset, Sample
from rose_kit.encoder import Encoder, Windows
from rose_kit.evaluation.parallel import parallel_map
from rose_kit.fusion import Method, SupportExample
from rose_kit.memory import SupportMemory
from rose_kit.pooling import patch_counts
from rose_kit.segmenter import Regions, Segmenter
from rose_kit.types import IGNORE, FeatureMap, Vocabulary

ABSENT = -1  # in targets, a pixel of no class asked for; 255 may be the index of a class
FEATURE_BUDGET = 2**29  # bytes of support features kept; the rest is encoded again when asked for


@dataclass
class Run:
    """One method with one draw of support images.

    Args:
        name: the method's name in the results.
        seed: of the draw.
        segmenter: the method, fitted to a memory of the draw.
        support_ids: the images drawn.
        vocabulary: the classes to answer, with the texts that this draw leaves them.
        counts: (C, C) confusion matrix, added up over the query images.
    """

    name: str
    seed: int
    segmenter: Segmenter
    support_ids: list[str]
    vocabulary: Vocabulary
    counts: NDArray[np.int64]


class SupportFeatures:
    """Features of support images by position: several seeds draw the same image.

    They are kept while they fit in `FEATURE_BUDGET`; what does not fit is encoded on every call.
    """

    def __init__(self, dataset: Dataset, encoder: Encoder, windows: Windows | None) -> None:
        self.dataset, self.encoder, self.windows = dataset, encoder, windows
        self._kept: dict[int, FeatureMap] = {}
        self._room = FEATURE_BUDGET

    def sample(self, i: int) -> tuple[Sample, FeatureMap]:
        """Sample i with its features."""
        sample = self.dataset[i]
        feature_map = self._kept.get(i)
        if feature_map is None:
            feature_map = self.encoder.encode_image(sample.image, self.windows)
            self.keep(i, feature_map)
        return sample, feature_map

    def keep(self, i: int, feature_map: FeatureMap) -> None:
        """Keep features that were made elsewhere, if there is room."""
        if i not in self._kept and feature_map.values.nbytes <= self._room:
            self._kept[i] = feature_map
            self._room -= feature_map.values.nbytes


@dataclass(frozen=True)
class SupportExamples:
    """The labelled patches of one draw, as `Method.fit` takes them; made anew on each pass.

    Patches of the classes `hidden` have no label.
    """

    chosen: Sequence[int]
    features: SupportFeatures
    vocabulary: Vocabulary
    hidden: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[SupportExample]:
        hidden = [self.vocabulary.index(name) for name in self.hidden]
        for i in self.chosen:
            sample, feature_map = self.features.sample(i)
            target = relabel(sample, self.vocabulary)
            counts = patch_counts(feature_map, target, range(len(self.vocabulary)))  # (N, C)
            labels = np.where(counts.any(1), counts.argmax(1), ABSENT)  # (N,) most frequent class
            labels[np.isin(labels, hidden)] = ABSENT
            yield feature_map, labels, sample.image_id


def relabel(sample: Sample, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Class ids of a sample -> class indices of a vocabulary.

    Returns:
        (H, W) int64; -1 where the pixel is ignored or its class is not in the vocabulary.
    """
    index = {name: c for c, name in enumerate(vocabulary.names)}
    table = np.full(int(sample.mask.max()) + 1, ABSENT)
    for value, name in sample.classes.items():
        if value < len(table) and value != IGNORE:
            table[value] = index.get(name, ABSENT)
    return table[sample.mask]


def build_memories(
    draws: Mapping[int, Sequence[int]],
    features: SupportFeatures,
    vocabulary: Vocabulary,
    progress: bool,
    scheduler: Any = None,
) -> dict[int, SupportMemory]:
    """One memory per seed; an image that several seeds drew is encoded once.

    Args:
        draws: seed -> positions of the support images drawn.
        features: where they come from.
        vocabulary: classes outside it get no prototypes.
        progress: show a progress bar.
        scheduler: where images are encoded (see `parallel_map`); None: here.
    """
    encoder = features.encoder
    memories = {seed: SupportMemory(encoder.dim, fingerprint=encoder.fingerprint) for seed in draws}
    images = sorted(set().union(*draws.values()))
    encoded = parallel_map(features.sample, images, scheduler=scheduler, desc="support", progress=progress)
    for i, (sample, feature_map) in zip(images, encoded, strict=True):
        features.keep(i, feature_map)
        asked = {value: name for value, name in sample.classes.items() if name in vocabulary.names}
        for seed, chosen in draws.items():
            if i in chosen:
                memories[seed].add(sample.image_id, feature_map, sample.mask, asked)
    return memories


def fit_methods(
    methods: Mapping[str, Method],
    seed: int,
    memory: SupportMemory,
    examples: SupportExamples,
    regions: Regions | None = None,
    query_windows: Windows | None = None,
) -> list[Run]:
    """Fit a copy of every method to the memory of one draw.

    Args:
        methods: name -> method; they stay as they are.
        seed: of the draw, for the record.
        memory: the prototypes of the draw.
        examples: its images, for methods with something to tune.
        regions, query_windows: how the segmenters see a query image.
    """
    features, vocabulary = examples.features, examples.vocabulary
    size = len(vocabulary)
    ids = [features.dataset.ids[i] for i in examples.chosen]
    runs = []
    for name, method in methods.items():
        method = copy.deepcopy(method)  # what it learns belongs to this draw alone
        if hasattr(method, "fit"):
            method = method.fit(memory, vocabulary, examples)
        segmenter = Segmenter(features.encoder, memory, method, regions, query_windows)
        runs.append(Run(name, seed, segmenter, ids, vocabulary, np.zeros((size, size), dtype=np.int64)))
    return runs


def fit_on_everything(
    methods: Mapping[str, Method], features: SupportFeatures, vocabulary: Vocabulary, progress: bool
) -> dict[str, Method]:
    """Fit, once for all draws, a copy of those that stand for full supervision (`upper_bound = True`).

    Args:
        methods: name -> method; the others pass through.
        features: of the whole support set, whose every annotation they may see.
        vocabulary: the classes, with all their texts.
        progress: show a progress bar.
    """
    fitted = dict(methods)
    examples = SupportExamples(range(len(features.dataset)), features, vocabulary)
    for name, method in methods.items():
        if getattr(method, "upper_bound", False):
            shown = tqdm(examples, desc=name, disable=not progress)
            fitted[name] = copy.deepcopy(method).fit(None, vocabulary, shown)
    return fitted
