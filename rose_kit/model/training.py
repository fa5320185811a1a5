"""Training ROSE on annotated pictures: features once, then episodes with a memory of their own.

Each step makes a memory anew from some of the rows and hides some texts, so that no class can count on
being known from both, or at all; sometimes there is no memory. A picture never sees its own rows: not as
neighbours, not in the prototypes of the classes. What the model is asked for is thereby what a class
needs that arrives after training: to use whatever anchors and rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from rose_kit.data import Dataset
from rose_kit.encoder import Encoder
from rose_kit.memory import SupportMemory
from rose_kit.model.anchors import best_of
from rose_kit.model.fusion import FUSIONS
from rose_kit.model.pyramid import FrozenEncoder
from rose_kit.model.retriever import MemoryRetriever
from rose_kit.model.rose import ROSE
from rose_kit.model.schedule import check_positive, check_shares, set_rate, warm_cosine
from rose_kit.pooling import patch_counts
from rose_kit.types import FeatureMap, Vocabulary


@dataclass(frozen=True)
class Training:
    """Everything that decides the outcome, beside the encoder and the pictures."""

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
        check_shares(self, "hide_class", "hide_text", "blind")

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine."""
        return warm_cosine(self.learning_rate, step, self.steps, self.warmup)


@dataclass(frozen=True)
class Lessons:
    """What a training needs of its pictures, encoded once.

    Args:
        maps: P features, of one grid.
        targets: (P, h, w, C) share of each patch's pixels of each class; what is ignored is in none.
        image_ids: (P,).
        memory: all rows of the pictures.
        vocabulary: the C classes, with their texts.
    """

    maps: Sequence[FeatureMap]
    targets: Tensor
    image_ids: Sequence[str]
    memory: SupportMemory
    vocabulary: Vocabulary


def prepare(dataset: Dataset, encoder: Encoder, vocabulary: Vocabulary, progress: bool = True) -> Lessons:
    """Encode annotated pictures of one size, windowed as the encoder prefers; other classes are ignored.

    Raises:
        ValueError: no picture, or pictures of several sizes.
    """
    maps, targets, names, see = [], [], vocabulary.names, FrozenEncoder(encoder)
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    for i in tqdm(range(len(dataset)), "features", disable=not progress):
        sample = dataset[i]
        asked = {value: name for value, name in sample.classes.items() if name in names}
        feature_map = see.features(sample.image)
        memory.add(sample.image_id, feature_map, sample.mask, asked)
        counts = np.zeros((len(feature_map.flat()), len(names)), np.float32)  # (h * w, C)
        counts[:, [names.index(n) for n in asked.values()]] = patch_counts(
            feature_map, sample.mask, list(asked)
        )
        targets.append(counts.reshape(*feature_map.grid, -1) / feature_map.patch_size**2)
        maps.append(feature_map)
    if len({m.grid for m in maps}) != 1:
        raise ValueError(f"training needs pictures of one size, got grids {sorted({m.grid for m in maps})}")
    return Lessons(maps, torch.from_numpy(np.stack(targets)), dataset.ids, memory, vocabulary)


def at_most(memory: SupportMemory, rows_per_class: int, seed: int = 0) -> SupportMemory:
    """A memory of random rows, at most so many of a class: a rare class weighs as much as a common one."""
    order = np.random.default_rng(seed).permutation(len(memory))
    names = memory.class_names
    kept = [order[names[order] == name][:rows_per_class] for name in memory.classes]
    return memory.subset(memory.ids[np.concatenate(kept)])


def episode(
    memory: SupportMemory, vocabulary: Vocabulary, settings: Training, rng: np.random.Generator
) -> tuple[SupportMemory | None, NDArray[np.float32]]:
    """A memory with fewer rows of fewer classes, and the texts, some of them NaN.

    A class keeps its text unless the memory holds at least two images of it: one may be the picture's own.

    Returns:
        memory, or None for an episode without one; (C, D) text.
    """
    text = np.array(vocabulary.text)
    if rng.random() < settings.blind:
        return None, text
    names, kept, spare = memory.class_names, [], []
    for name in memory.classes:
        rows = rng.permutation(np.flatnonzero(names == name))
        if rng.random() >= settings.hide_class:
            kept.append(rows[: rng.integers(1, settings.rows_per_class + 1)])
            spare += [name] * (len(kept[-1]) > 1 and rng.random() < settings.hide_text)
    if not kept:
        return None, text
    text[[vocabulary.index(name) for name in spare]] = np.nan
    return memory.subset(memory.ids[np.concatenate(kept)]), text


def loss(model: ROSE, lessons: Lessons, rows: Sequence[int], text: NDArray[np.float32]) -> Tensor:
    """Cross-entropy of the patches of some pictures with the classes they hold, by pixels.

    Each picture's own rows are excluded from what it retrieves and from the prototypes it is compared with.
    """
    own, vocabulary = [lessons.image_ids[i] for i in rows], Vocabulary(lessons.vocabulary.names, text)
    total = weight = torch.zeros(())
    for i, image, y in zip(
        rows, own, model([lessons.maps[i] for i in rows], exclude_images=own), strict=True
    ):
        anchors, owner = model.anchors.of(vocabulary, model.retriever.memory, image)
        scores = best_of(y @ anchors.T, owner, len(vocabulary))  # (h, w, D) @ (D, A) -> (h, w, C)
        absent = torch.isneginf(scores[0, 0])  # (C,)
        target = lessons.targets[i] * ~absent
        log_p = (model.scale.exp() * scores.masked_fill(absent, -1e4)).log_softmax(-1)
        total, weight = total - (target * log_p).sum(), weight + target.sum()
    return total / weight.clamp(min=1e-6)


def train(
    lessons: Lessons,
    encoder: Encoder,
    fusion: str = "similarity",
    settings: Training = Training(),
    progress: bool = True,
) -> tuple[ROSE, list[float]]:
    """Train one fusion with its decoder; the encoder stays as it is.

    Args:
        lessons: from `prepare`, with the same encoder.
        encoder: frozen.
        fusion: a key of `FUSIONS`.
        settings: see `Training`; a seed decides initialisation, pictures and episodes.
        progress: show a progress bar.

    Returns:
        the model, whose memory holds at most `rows_per_class` of the training rows of a class; and the
        mean loss of each tenth of the way.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    model = ROSE(FrozenEncoder(encoder, settings.scales), MemoryRetriever(None, settings.k), fusion)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    losses, batch = [], min(settings.batch, len(lessons.maps))
    bar = tqdm(range(settings.steps), f"training {fusion}", disable=not progress)
    for step in bar:
        set_rate(optimizer, settings.rate(step))
        model.retriever.memory, text = episode(lessons.memory, lessons.vocabulary, settings, rng)
        value = loss(model, lessons, rng.choice(len(lessons.maps), batch, replace=False), text)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.retriever.memory = at_most(lessons.memory, settings.rows_per_class, settings.seed)
    tenths = [round(float(np.mean(part)), 4) for part in np.array_split(losses, 10) if len(part)]
    return model.eval(), tenths


__all__ = ["FUSIONS", "Lessons", "Training", "at_most", "prepare", "train"]
