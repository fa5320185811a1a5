"""Training ROSE on annotated images: features once, then episodes with a memory of their own.

Each step makes a memory anew from some of the rows and hides some texts, so that no class can count on
being known from both, or at all; sometimes there is no memory. An image never sees its own rows: not as
neighbours, not in the prototypes of the classes. The model so learns what a class needs that arrives
after training: to use whatever anchors and rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from rose_kit.data import Dataset
from rose_kit.encoder import Encoder
from rose_kit.memory import SupportMemory
from rose_kit.model.pyramid import FrozenEncoder
from rose_kit.model.retriever import MemoryRetriever, without_image
from rose_kit.model.rose import ROSE
from rose_kit.pooling import patch_counts
from rose_kit.types import FeatureMap, Vocabulary


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome, beside the encoder and the images."""

    seed: int = 0
    steps: int = 300
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 20
    k: int = 8
    scales: tuple[int, ...] = (1, 2)
    rows_per_class: int = 10  # most rows of a class in memory: a new class comes with as few
    hide_class: float = 0.25  # share of the classes that an episode's memory leaves out
    hide_text: float = 0.4  # share of the classes in memory that have no text in an episode
    blind: float = 0.1  # share of the episodes without a memory

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch", "learning_rate", "k", "rows_per_class")
        for name in ("hide_class", "hide_text", "blind"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")


def check_positive(config: object, *names: str) -> None:
    """Refuse settings that are not above 0, NaN included.

    Raises:
        ValueError: one is not; names it and its value.
    """
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def warm_cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine to 0 (Loshchilov & Hutter 2017).

    Args:
        step: 0 to `steps`.
        steps: of the whole training.
        warmup: steps until the peak; 0 for none.

    >>> [round(warm_cosine(step, 100, 10), 2) for step in (0, 9, 50, 100)]
    [0.1, 0.98, 0.5, 0.0]
    """
    return min((step + 1) / max(warmup, 1), 1.0) * float(1 + np.cos(np.pi * step / steps)) / 2


@dataclass(frozen=True)
class EncodedDataset:
    """What a training needs of its images, encoded once.

    Args:
        maps: P features, of one grid.
        targets: (P, h, w, C) share of each patch's pixels of each class; what is ignored is in none.
        image_ids: (P,).
        memory: all rows of the images.
        vocabulary: the C classes, with their texts.
    """

    maps: Sequence[FeatureMap]
    targets: Tensor
    image_ids: Sequence[str]
    memory: SupportMemory
    vocabulary: Vocabulary


def prepare(
    dataset: Dataset, encoder: Encoder, vocabulary: Vocabulary, progress: bool = True
) -> EncodedDataset:
    """Encode annotated images of one size, windowed as the encoder prefers; other classes are ignored.

    Raises:
        ValueError: no image, or images of several sizes.
    """
    maps, targets, names, frozen = [], [], vocabulary.names, FrozenEncoder(encoder)
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    for i in tqdm(range(len(dataset)), "features", disable=not progress):
        sample = dataset[i]
        classes = {value: name for value, name in sample.classes.items() if name in names}
        feature_map = frozen.features(sample.image)
        memory.add(sample.image_id, feature_map, sample.mask, classes)
        counts = np.zeros((len(feature_map.flat()), len(names)), np.float32)  # (h * w, C)
        columns = [names.index(name) for name in classes.values()]
        counts[:, columns] = patch_counts(feature_map, sample.mask, list(classes))
        targets.append(counts.reshape(*feature_map.grid, -1) / feature_map.patch_size**2)
        maps.append(feature_map)
    if len({m.grid for m in maps}) != 1:
        raise ValueError(f"training needs images of one size, got grids {sorted({m.grid for m in maps})}")
    return EncodedDataset(maps, torch.from_numpy(np.stack(targets)), dataset.ids, memory, vocabulary)


def at_most(memory: SupportMemory, rows_per_class: int, seed: int = 0) -> SupportMemory:
    """A memory of random rows, at most so many of a class: a rare class weighs as much as a common one."""
    order = np.random.default_rng(seed).permutation(len(memory))
    names = memory.class_names
    kept = [order[names[order] == name][:rows_per_class] for name in memory.classes]
    return memory.subset(memory.ids[np.concatenate(kept)])


def episode(
    memory: SupportMemory, vocabulary: Vocabulary, config: TrainConfig, rng: np.random.Generator
) -> tuple[SupportMemory | None, NDArray[np.float32]]:
    """A memory with fewer rows of fewer classes, and the texts, some of them NaN.

    A class keeps its text unless the memory holds at least two images of it: one may be the image's own.

    Returns:
        memory, or None for an episode without one; (C, D) text.
    """
    text = np.array(vocabulary.text)
    if rng.random() < config.blind:
        return None, text
    names, kept, without_text = memory.class_names, [], []
    for name in memory.classes:
        rows = rng.permutation(np.flatnonzero(names == name))
        if rng.random() >= config.hide_class:
            kept.append(rows[: rng.integers(1, config.rows_per_class + 1)])
            if len(kept[-1]) > 1 and rng.random() < config.hide_text:
                without_text.append(vocabulary.index(name))
    if not kept:
        return None, text
    text[without_text] = np.nan
    return memory.subset(memory.ids[np.concatenate(kept)]), text


def loss(model: ROSE, dataset: EncodedDataset, positions: Sequence[int], text: NDArray[np.float32]) -> Tensor:
    """Cross-entropy of the patches of some images with the classes they hold, by pixels.

    Each image's own rows are excluded from what it retrieves and from the anchors it is compared with.
    """
    own, vocabulary = [dataset.image_ids[i] for i in positions], Vocabulary(dataset.vocabulary.names, text)
    total = weight = torch.zeros(())
    vectors = model([dataset.maps[i] for i in positions], exclude_images=own)  # (B, h, w, D)
    for i, image, y in zip(positions, own, vectors, strict=True):
        scores = model.scores(y, vocabulary, without_image(model.retriever.memory, image))  # (h, w, C)
        absent = torch.isneginf(scores[0, 0])  # (C,)
        target = dataset.targets[i] * ~absent
        log_p = (model.scale.exp() * scores.masked_fill(absent, -1e4)).log_softmax(-1)
        total, weight = total - (target * log_p).sum(), weight + target.sum()
    return total / weight.clamp(min=1e-6)


def train(
    dataset: EncodedDataset,
    encoder: Encoder,
    fusion: str = "similarity",
    config: TrainConfig = TrainConfig(),
    progress: bool = True,
) -> tuple[ROSE, list[float]]:
    """Train one fusion with its decoder; the encoder stays as it is.

    Args:
        dataset: from `prepare`, with the same encoder.
        encoder: frozen.
        fusion: a key of `FUSIONS`.
        config: see `TrainConfig`; its seed decides initialisation, images and episodes.
        progress: show a progress bar.

    Returns:
        the model, whose memory holds at most `rows_per_class` of the training rows of a class; and the
        mean loss of each tenth of the way.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = ROSE(FrozenEncoder(encoder, config.scales), MemoryRetriever(None, config.k), fusion)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = LambdaLR(optimizer, partial(warm_cosine, steps=config.steps, warmup=config.warmup))
    losses, batch = [], min(config.batch, len(dataset.maps))
    bar = tqdm(range(config.steps), f"training {fusion}", disable=not progress)
    for _ in bar:
        model.retriever.memory, text = episode(dataset.memory, dataset.vocabulary, config, rng)
        value = loss(model, dataset, rng.choice(len(dataset.maps), batch, replace=False), text)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.retriever.memory = at_most(dataset.memory, config.rows_per_class, config.seed)
    tenths = [round(float(np.mean(part)), 4) for part in np.array_split(losses, 10) if len(part)]
    return model.eval(), tenths
