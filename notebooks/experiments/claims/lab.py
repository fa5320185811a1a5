"""Where claims are tested: scenes that are encoded once, and any setting's mIoU on them.

A seed draws the support images and has query scenes of its own, so that an interval over seeds covers
both. Settings of one seed share images, features and draws: their differences are paired.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_scripts.scenes import CLASSES, THINGS, SceneDataset
from experiments.claims.weak import WEAK, spoil
from rose_kit.data import sample_support
from rose_kit.encoder import Encoder, load_encoder
from rose_kit.evaluation import ABSENT, CachedDataset, CachedEncoder, MissingSupport, SupportExamples, relabel
from rose_kit.fusion import Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.metrics import confusion_matrix, iou
from rose_kit.pooling import pool_masks
from rose_kit.regions import Slic
from rose_kit.segmenter import paint, region_query
from rose_kit.types import FeatureMap, Query, Vocabulary

SUPPORT, QUERY = 1_000_000, 2_000_000  # scene seeds: no training has seen them, and they never meet
WHOLE = MissingSupport()
APART = 1000  # query scenes of seed s: QUERY + APART * s and following
MOST = 1000  # seeds, so that no two share a scene

Asked = tuple[FeatureMap, Query, NDArray[np.int64]]  # features, what is asked, (H, W) target


@dataclass(frozen=True)
class Case:
    """One setting to be measured.

    Args:
        method: answers; its `repr` tells it from others.
        shots: support images per class.
        support, query: domains (see `data_scripts.scenes.DOMAINS`); "day+night" is a support of both.
        gaps: shares of the classes without prototypes, text or both; which ones, the seed decides.
        regions: whether regions (SLIC) are asked about instead of patches.
        encoder: "own", the lab's, or a key of `WEAK`.
        tuned: whether `fit` is given the support images.
        images: query images to use; None: all of the lab's.
    """

    method: Method
    shots: int = 1
    support: str = "day"
    query: str = "day"
    gaps: MissingSupport = WHOLE
    regions: bool = False
    encoder: str = "own"
    tuned: bool = False
    images: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.method, ZeroShot):  # one answer, whatever the memory holds
            gaps = MissingSupport(text=self.gaps.text + self.gaps.both)
            for name, value in (("shots", 1), ("support", self.query), ("gaps", gaps)):
                object.__setattr__(self, name, value)


class Lab:
    """Measures cases, and remembers what it measured: claims share what they have in common.

    Args:
        encoder: a name for `load_encoder`, or an encoder.
        size: side of the scenes, in pixels.
        pool: support scenes to draw from.
        queries: query scenes per seed.

    Raises:
        ValueError: a size below 32, no support scenes, or queries outside 1 to 1000.
    """

    names = CLASSES  # those too that the bundled encoder has never seen or read

    def __init__(
        self,
        encoder: str | Encoder = "bundled",
        *,
        size: int = 128,
        pool: int = 400,
        queries: int = 24,
    ) -> None:
        if size < 32 or pool < 1 or not 1 <= queries <= APART:
            given = f"size {size}, pool {pool}, queries {queries}"
            raise ValueError(f"a lab needs size >= 32, pool >= 1, queries from 1 to {APART}; got {given}")
        self._encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        self.size, self.pool, self.queries = size, pool, queries
        self.windows = getattr(self._encoder, "preferred_windows", None)  # of weak encoders too
        self._kept: dict[tuple, Any] = {}

    def once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first asked for under this key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def settings(self) -> str:
        """What every number depends on besides the seed, in one line."""
        scenes = f"{self.size} px, {self.queries} query scenes a seed, {self.pool} support scenes"
        return f"{self.encoder().fingerprint}; {scenes}"

    def encoder(self, name: str = "own") -> Encoder:
        """The lab's own encoder, or a weak one by its name."""
        return self._encoder if name == "own" else self.once(("encoder", name), lambda: spoil(WEAK[name]))

    def text(self, encoder: str = "own") -> Vocabulary:
        """All classes with their texts."""
        return self.once(("text", encoder), lambda: Vocabulary.encode(self.names, self.encoder(encoder)))

    def vocabulary(self, case: Case, seed: int) -> Vocabulary:
        """The classes with the texts that a case leaves them."""
        return self.text(case.encoder).without_text(case.gaps.draw(self.names, seed)[1])

    def examples(self, case: Case, seed: int) -> SupportExamples:
        """The support images that a seed draws, as `Method.fit` takes them."""
        scenes = self.once(("scenes", case.support), lambda: self._pool(case.support))
        encoder = self.once(("cached", case.encoder), lambda: CachedEncoder(self.encoder(case.encoder)))
        drawn = self.once(
            ("draw", case.support, case.shots, seed),
            lambda: sample_support(scenes, case.shots, seed, classes=self.names),
        )
        hidden = case.gaps.draw(self.names, seed)[0]
        return SupportExamples(drawn, scenes, encoder, self.windows, self.text(case.encoder), hidden)

    def _pool(self, domain: str) -> CachedDataset:
        return CachedDataset(self._scenes(self.pool, SUPPORT, domain))

    def _scenes(self, count: int, first: int, domain: str) -> SceneDataset:
        things = [thing.name for thing in THINGS]
        return SceneDataset(count, first=first, size=self.size, domain=domain, classes=things)

    def memory(self, case: Case, seed: int) -> SupportMemory:
        """The prototypes that a seed draws, without those that a case leaves out."""
        key = ("memory", case.encoder, case.support, case.shots, case.gaps, seed)
        return self.once(key, lambda: self._memory(case, seed))

    def _memory(self, case: Case, seed: int) -> SupportMemory:
        encoder, gone = self.encoder(case.encoder), case.gaps.draw(self.names, seed)[0]
        rows = []
        for domain in case.support.split("+"):
            examples = self.examples(replace(case, support=domain), seed)
            for i in examples.positions:
                key = ("prototypes", case.encoder, domain, i)
                rows += self.once(key, lambda e=examples, i=i: prototypes(e, i))
        rows = [row for row in rows if row[1] not in gone]
        if not rows:
            return SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
        vectors, names, ids = zip(*rows, strict=True)
        return SupportMemory.from_prototypes(np.array(vectors), names, ids, fingerprint=encoder.fingerprint)

    def asked(self, case: Case, seed: int) -> list[Asked]:
        """The query scenes of a seed, encoded."""
        key = ("asked", case.encoder, case.query, case.regions, seed)
        return self.once(key, lambda: self._ask(case, seed))[: case.images]

    def _ask(self, case: Case, seed: int) -> list[Asked]:
        vocabulary, asked = self.text(case.encoder), []
        for sample in self._scenes(self.queries, QUERY + APART * seed, case.query):
            features = self.encoder(case.encoder).encode_image(sample.image, self.windows)
            query = region_query(features, Slic()(sample.image)) if case.regions else Query.of(features)
            asked.append((features, query, relabel(sample, vocabulary)))
        return asked

    def counts(self, case: Case, seed: int) -> NDArray[np.int64]:
        """(C, C) confusion matrix of a case over the query scenes of a seed."""
        return self.once(("counts", repr(case), seed), lambda: self._count(case, seed))

    def _count(self, case: Case, seed: int) -> NDArray[np.int64]:
        memory, vocabulary = self.memory(case, seed), self.vocabulary(case, seed)
        method = copy.deepcopy(case.method).fit(
            memory, vocabulary, self.examples(case, seed) if case.tuned else None
        )
        total = np.zeros((len(vocabulary), len(vocabulary)), dtype=np.int64)
        for features, query, target in self.asked(case, seed):
            answer = np.asarray(method.predict(query, memory, vocabulary))
            labels, _ = paint(answer, query, features)
            total += confusion_matrix(labels, target, len(vocabulary), ignore_index=ABSENT)
        return total

    def miou(self, case: Case, seed: int, over: Sequence[str] | None = None) -> float:
        """Dataset mIoU in percent, over all classes that occur or over some of them.

        Args:
            case: the setting.
            seed: of the draw and the query scenes.
            over: class names to average over; NaN if none of them occurs.
        """
        scores = iou(self.counts(case, seed))
        if over is not None:
            scores = scores[[self.names.index(name) for name in over]]
        known = scores[~np.isnan(scores)]
        return 100 * float(known.mean()) if len(known) else float("nan")


def prototypes(shown: SupportExamples, i: int) -> list[tuple[NDArray, str, str]]:
    """(vector, class name, image id) of each class in one support image."""
    sample = shown.dataset[i]
    feature_map = shown.encoder.encode_image(sample.image, shown.windows)
    vectors, pixels = pool_masks(feature_map, sample.mask, list(sample.classes))  # (C, D), (C,)
    names = list(sample.classes.values())
    return [(vectors[c], names[c], sample.image_id) for c in np.flatnonzero(pixels)]
