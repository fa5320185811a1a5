"""Where the article's claims are tested: trained models, their memory, and scenes of each seed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np
import pandas as pd

from data_scripts.scenes import SceneDataset
from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.statements import LANGUAGES, tuned
from experiments.rose.trial import Trial
from experiments.rose.world import confusable_pairs
from rose_kit.encoder import Encoder
from rose_kit.encoder.base import content_hash
from rose_kit.fusion import KnnClip, Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.model import ROSE, RoseMethod
from rose_kit.model.training import EncodedDataset, TrainConfig, at_most

FURTHER = 6_000_000  # support and queries lie so far behind those of the RNS claims; `stream` is shared
TEXT_ONLY, KNN = "text only", "knn-clip"
ARTICLE = "the article, in words"  # the source of what it claims


class RoseBenchmark(SceneBenchmark):
    """A benchmark with trained models: growing memories are measured in trials.

    Args:
        encoder: the one that the models were trained on.
        models: name -> trained model.
        dataset: what they were trained on; its rows are the memory of the trials.
        sizes: of each trial, as `Trial` takes them.
        **options: of `SceneBenchmark`.

    Raises:
        ValueError: a model was trained on another encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        models: Mapping[str, ROSE],
        dataset: EncodedDataset,
        sizes: Mapping[str, int] | None = None,
        **options,
    ) -> None:
        super().__init__(encoder, **options)
        for name, model in models.items():
            if model.fingerprint != encoder.fingerprint:
                raise ValueError(f"{name} was trained on {model.fingerprint!r}, not {encoder.fingerprint!r}")
        self.models, self.dataset, self.sizes = dict(models), dataset, dict(sizes or {})
        self.hashes = {name: content_hash(model.state_dict()) for name, model in models.items()}

    def settings(self) -> str:
        """See `SceneBenchmark.settings`; with the weights and the sizes of the trials."""
        weights = ", ".join(f"{name} {digest}" for name, digest in self.hashes.items())
        return f"{super().settings()}; {self.sizes}; weights {weights}"

    def _scenes(self, count: int, first: int, domain: str) -> SceneDataset:
        return super()._scenes(count, first + FURTHER, domain)

    @property
    def language(self) -> str:
        """Of the encoder's names, "vague" or "clear"; "" where nothing was tuned with the encoder."""
        names = {"bundled": "vague"} | {name: language for language, name in LANGUAGES.items()}
        return names.get(self.encoder().name, "")

    def knn_clip(self) -> Method:
        """kNN-CLIP as it was tuned with the encoder's language; as it comes where it was not."""
        return tuned(KNN, self.language) if self.language else KnnClip()

    @property
    def shots(self) -> tuple[int, int]:
        """Few and many: images by which a class is added, and by which a novel one is once more."""
        default = inspect.signature(Trial).parameters
        few, many = (self.sizes.get(name, default[name].default) for name in ("shots", "many"))
        return few, many

    def rose(self, fusion: str, use_memory: bool = True) -> RoseMethod:
        """A trained model as a method."""
        return RoseMethod(self.models[fusion], use_memory)

    def setting(
        self, fusion: str, support: str = "day", query: str = "day", use_memory: bool = True
    ) -> Setting:
        """A trained model on the queries of one domain with a memory of another."""
        return Setting(self.rose(fusion, use_memory), 3, support, query)

    def trained_memory(self, seed: int) -> SupportMemory:
        """Rows of the training scenes, as many of a class as its training had in memory."""
        return at_most(self.dataset.memory, TrainConfig().rows_per_class, seed)

    def confusable_pairs(self) -> list[tuple[str, str]]:
        """Things that text alone confuses; see `world.confusable_pairs`."""
        return self.cached(("confusable pairs",), lambda: confusable_pairs(self.dataset))

    def trial(self, seed: int) -> Trial:
        """The images of a seed."""
        options = {"size": self.size, **self.sizes}
        return self.cached(("trial", seed), lambda: Trial(self.encoder(), seed, **options))

    def answers(self, seed: int) -> pd.DataFrame:
        """`Trial.rows` of text alone, kNN-CLIP, and every model with and without a memory.

        Raises:
            RuntimeError: a weight changed while classes were added, which must not be.
        """
        return self.cached(("answers", seed), lambda: self._answers(seed))

    def _answers(self, seed: int) -> pd.DataFrame:
        trial, memory = self.trial(seed), self.trained_memory(seed)
        rows = trial.rows(TEXT_ONLY, ZeroShot(), None) + trial.rows(KNN, self.knn_clip(), memory)
        for name in self.models:
            rows += trial.rows(f"{name} without memory", self.rose(name), None)
            rows += trial.rows(name, self.rose(name), memory)
            if content_hash(self.models[name].state_dict()) != self.hashes[name]:
                raise RuntimeError(f"the weights of {name} changed while classes were added")
        return pd.DataFrame(rows)

    def score(self, seed: int, method: str, group: str, when: str = "after", many: bool = False) -> float:
        """Mean IoU in percent of a group's classes, before or after few (or many) rows were added."""
        table = self.answers(seed)
        mine = table[(table.method == method) & (table.group == group)]
        return float(np.nanmean(mine[mine.shots == (mine.shots.max() if many else mine.shots.min())][when]))
