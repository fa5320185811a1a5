"""Where claims are tested: scenes that are encoded once, and any setting's mIoU on them.

A seed draws the support images and has query scenes of its own, and support scenes too if it is told so: then
seeds share no image, and an interval over seeds is one over images and draws. Settings of one seed share
images, features and draws: their differences are paired.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_scripts.scenes import CLASSES, THINGS, SceneDataset
from data_scripts.scenes.splits import QUERY, STRIDE, SUPPORT
from rose_kit.data import Sample, sample_support
from rose_kit.encoder import Encoder, OpenClipEncoder, load_encoder, preferred_windows
from rose_kit.evaluation import (
    CachedEncoder,
    EncodedQuery,
    MissingSupport,
    SupportExamples,
    add_dataset,
    count_pixels,
    relabel,
)
from rose_kit.fusion import Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.metrics import iou
from rose_kit.regions import Regions, make_regions
from rose_kit.segmenter import encode_queries
from rose_kit.types import Vocabulary

COMPLETE = MissingSupport()  # nothing is missing


class SharedImages(CachedEncoder):
    """The text tower of one encoder, and the cached images of another with the same vision tower."""

    def __init__(self, text: OpenClipEncoder, images: CachedEncoder) -> None:
        if text.fingerprint != images.fingerprint:
            raise ValueError(f"the vision tower is {text.fingerprint!r}, not {images.fingerprint!r}")
        vars(self).update(vars(images), encoder=text)


@dataclass(frozen=True)
class Setting:
    """One setting to be measured.

    Args:
        method: answers; its `repr` tells it from others.
        shots: support images per class.
        support, query: domains (see `data_scripts.scenes.DOMAINS`); "day+night" is a support of both.
        missing: shares of the classes without prototypes, text or both; which ones, the seed decides.
        regions: name of the regions that are answered instead of patches, such as "slic"; None: patches.
        encoder: "own", the benchmark's, or a name for `load_encoder`.
        tuned: whether `fit` is given the support images.
        images: query images to use; None: all of the benchmark's.
    """

    method: Method
    shots: int = 1
    support: str = "day"
    query: str = "day"
    missing: MissingSupport = COMPLETE
    regions: str | None = None
    encoder: str = "own"
    tuned: bool = False
    images: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.method, ZeroShot):  # one answer, whatever the memory holds
            missing = MissingSupport(text=self.missing.text + self.missing.both)
            for name, value in (("shots", 1), ("support", self.query), ("missing", missing)):
                object.__setattr__(self, name, value)


class SceneBenchmark:
    """Measures settings, and caches what it measured: claims share what they have in common.

    Args:
        encoder: a name for `load_encoder`, or an encoder.
        size: side of the scenes, in pixels.
        pool: support scenes to draw from.
        queries: query scenes per seed.
        names: the classes; by default those too that the bundled encoder has never seen or read.
        apart: whether each seed has support scenes of its own; if not, all draw from the same.
        others: further encoders that a setting may name.

    Raises:
        ValueError: a size below 32, no support scenes, or more of a seed than 1000.
    """

    def __init__(
        self,
        encoder: str | Encoder = "bundled",
        *,
        size: int = 128,
        pool: int = 400,
        queries: int = 24,
        names: Sequence[str] = CLASSES,
        apart: bool = False,
        others: Mapping[str, Encoder] = MappingProxyType({}),
    ) -> None:
        if size < 32 or pool < 1 or not 1 <= queries <= STRIDE or (apart and pool > STRIDE):
            given = f"size {size}, pool {pool}, queries {queries}"
            raise ValueError(f"a benchmark needs size >= 32, pool >= 1, queries up to {STRIDE}; got {given}")
        encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        self.size, self.pool, self.queries, self.names, self.apart = size, pool, queries, names, apart
        self.windows = preferred_windows(encoder)  # of other encoders too
        encoders = {"own": encoder, **others}
        self._cache: dict[tuple, Any] = {("encoder", n): CachedEncoder(e) for n, e in encoders.items()}

    def cached(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first called under this key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def settings(self) -> str:
        """What every number depends on besides the seed and further encoders, in one line."""
        scenes = f"{self.size} px, {self.queries} query scenes a seed, {self.pool} support scenes"
        scenes += " a seed" * self.apart
        return f"{self.encoder().fingerprint}; {len(self.names)} classes, {scenes}"

    def forget(self) -> None:
        """Drop what was measured and encoded; of the encoders, those that are loaded stay."""
        self._cache = {key: value for key, value in self._cache.items() if key[0] == "encoder"}

    def encoder(self, name: str = "own") -> CachedEncoder:
        """The benchmark's own encoder, or another one, which shares its images if it has the same vision."""

        def load() -> CachedEncoder:
            encoder, own = load_encoder(name), self.encoder()
            same = encoder.fingerprint == own.fingerprint
            return SharedImages(encoder, own) if same else CachedEncoder(encoder)

        return self.cached(("encoder", name), load)

    def text(self, encoder: str = "own") -> Vocabulary:
        """All classes with their texts."""
        return self.cached(("text", encoder), lambda: Vocabulary.encode(self.names, self.encoder(encoder)))

    def vocabulary(self, setting: Setting, seed: int) -> Vocabulary:
        """The classes with the texts that a setting leaves them."""
        return self.text(setting.encoder).without_text(setting.missing.draw(self.names, seed)[1])

    def examples(self, setting: Setting, seed: int) -> SupportExamples:
        """The support images that a seed draws, as `Method.fit` takes them."""
        first = SUPPORT + STRIDE * seed * self.apart

        def scenes(domain: str) -> SceneDataset:
            return self.cached(("scenes", domain, first), lambda: self._scenes(self.pool, first, domain))

        drawn = self.cached(  # a scene has the same classes in every domain
            ("draw", setting.shots, seed),
            lambda: sample_support(scenes("day"), setting.shots, seed, classes=self.names),
        )
        encoder, hidden = self.encoder(setting.encoder), setting.missing.draw(self.names, seed)[0]
        return SupportExamples(
            drawn, scenes(setting.support), encoder, self.windows, self.text(setting.encoder), hidden
        )

    def _scenes(self, count: int, first: int, domain: str) -> SceneDataset:
        things = [thing.name for thing in THINGS if thing.name in self.names]
        return SceneDataset(count, first=first, size=self.size, domain=domain, classes=things)

    def memory(self, setting: Setting, seed: int) -> SupportMemory:
        """The prototypes that a seed draws, without those that a setting leaves out."""
        key = ("memory", setting.encoder, setting.support, setting.shots, setting.missing, seed)
        return self.cached(key, lambda: self._memory(setting, seed))

    def _memory(self, setting: Setting, seed: int) -> SupportMemory:
        domains = setting.support.split("+")
        memory = self.empty_memory(setting.encoder)
        for examples in (self.examples(replace(setting, support=domain), seed) for domain in domains):
            self.add_images(memory, examples, examples.positions)
        return memory

    def empty_memory(self, encoder: str = "own") -> SupportMemory:
        """A memory for features of an encoder."""
        own = self.encoder(encoder)
        return SupportMemory(own.dim, fingerprint=own.fingerprint)

    def add_images(self, memory: SupportMemory, examples: SupportExamples, positions: Sequence[int]) -> None:
        """Add some of the support images to a memory, without the classes that are hidden."""
        classes = [name for name in self.names if name not in examples.hidden]
        options = {"positions": positions, "classes": classes, "thumbnails": False, "progress": False}
        add_dataset(memory, examples.dataset, examples.encoder, examples.windows, **options)

    def query_set(self, setting: Setting, seed: int) -> list[EncodedQuery]:
        """The query scenes of a seed, encoded."""
        key = ("query", setting.encoder, setting.query, setting.regions, seed)
        scenes = self._scenes(self.queries, QUERY + STRIDE * seed, setting.query)
        regions, vocabulary = setting.regions and make_regions(setting.regions), self.text(setting.encoder)
        made = self.cached(key, lambda: self.encode(scenes, vocabulary, setting.encoder, regions))
        return made[: setting.images]

    def encode(
        self,
        samples: Iterable[Sample],
        vocabulary: Vocabulary,
        encoder: str = "own",
        regions: Regions | None = None,
    ) -> list[EncodedQuery]:
        """Encoded images, with the vocabulary's class of each pixel."""
        own = self.encoder(encoder)
        return [
            (encode_queries([sample.image], own, self.windows, regions)[0], relabel(sample, vocabulary))
            for sample in samples
        ]

    def counts(self, setting: Setting, seed: int) -> NDArray[np.int64]:
        """(C, C) confusion matrix of a setting over the query scenes of a seed."""
        return self.cached(("counts", repr(setting), seed), lambda: self._counts(setting, seed))

    def _counts(self, setting: Setting, seed: int) -> NDArray[np.int64]:
        memory, vocabulary = self.memory(setting, seed), self.vocabulary(setting, seed)
        examples = self.examples(setting, seed) if setting.tuned else None
        method = copy.deepcopy(setting.method).fit(memory, vocabulary, examples)
        return count_pixels(method, memory, vocabulary, self.query_set(setting, seed))

    def miou(self, setting: Setting, seed: int, over: Sequence[str] | None = None) -> float:
        """Dataset mIoU in percent, over all classes that occur or over some of them.

        Args:
            setting: to be measured.
            seed: of the draw and the query scenes.
            over: class names to average over; NaN if none of them occurs.
        """
        return miou_percent(self.counts(setting, seed), over and [self.names.index(name) for name in over])


def miou_percent(counts: NDArray[np.int64], positions: Sequence[int] | None = None) -> float:
    """mIoU in percent of a confusion matrix, over all classes or some positions; NaN if none occurs."""
    scores = iou(counts)[list(range(len(counts)) if positions is None else positions)]
    known = scores[~np.isnan(scores)]
    return 100 * float(known.mean()) if len(known) else float("nan")
