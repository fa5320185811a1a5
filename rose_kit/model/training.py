"""Training ROSE on annotated images: encode once, then learn in episodes that each have their own memory.

An episode's memory holds only some of the rows, and some texts are hidden, so that the model cannot count
on either for any class; sometimes there is no memory. An image never sees its own rows, neither as
neighbours nor in the anchors. So the model learns what a class needs that arrives after training: to use
whatever text and rows there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from rose_kit.data import Dataset
from rose_kit.encoder import Encoder, preferred_windows
from rose_kit.memory import SupportMemory
from rose_kit.model.rose import ROSE
from rose_kit.pooling import patch_counts
from rose_kit.types import FeatureMap, Vocabulary, check_positive, check_share


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome, besides the encoder, the images and the fusion.

    Raises:
        ValueError: a count or rate is not positive, or a share not in [0, 1].
    """

    seed: int = 0  # of initialisation, images and episodes
    steps: int = 300
    batch: int = 4  # images per step
    learning_rate: float = 2e-3  # at its peak
    weight_decay: float = 0.01
    warmup: int = 20  # steps until the peak
    k: int = 8  # rows per patch
    rows_per_class: int = 10  # at most, in an episode's memory: a new class comes with as few
    hide_class: float = 0.25  # share of the classes that an episode's memory leaves out
    hide_text: float = 0.4  # share of the classes in memory that have no text in an episode
    blind: float = 0.1  # share of the episodes without a memory

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, batch=self.batch, learning_rate=self.learning_rate, k=self.k,
                       rows_per_class=self.rows_per_class)  # fmt: skip
        check_share(hide_class=self.hide_class, hide_text=self.hide_text, blind=self.blind)


@dataclass(frozen=True)
class EncodedDataset:
    """Annotated images as training needs them, encoded once.

    Args:
        maps: P feature maps.
        targets: P times (h, w, C) float32, the share of each patch's pixels that belongs to each class;
            ignored pixels belong to none.
        image_ids: P ids.
        memory: a row per class and image.
        vocabulary: the C classes, with their texts.
    """

    maps: Sequence[FeatureMap]
    targets: Sequence[Tensor]
    image_ids: Sequence[str]
    memory: SupportMemory
    vocabulary: Vocabulary


def prepare(
    dataset: Dataset, encoder: Encoder, vocabulary: Vocabulary, progress: bool = True
) -> EncodedDataset:
    """Encode annotated images, in the windows that the encoder prefers.

    Args:
        dataset: the images, of any sizes.
        encoder: frozen.
        vocabulary: the classes to train on; pixels of others are ignored.
        progress: show a progress bar.

    Raises:
        ValueError: there is no image.
    """
    if not len(dataset):
        raise ValueError("training needs annotated images, got none")
    maps, targets = [], []
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    for i in tqdm(range(len(dataset)), "features", disable=not progress):
        sample = dataset[i]
        classes = {value: name for value, name in sample.classes.items() if name in vocabulary.names}
        feature_map = encoder.encode_image(sample.image, preferred_windows(encoder))
        memory.add(sample.image_id, feature_map, sample.mask, classes)
        counts = patch_counts(feature_map, sample.mask, list(classes))  # (h * w, classes here)
        one_hot = np.eye(len(vocabulary), dtype=np.float32)[[vocabulary.index(n) for n in classes.values()]]
        shares = counts @ one_hot / feature_map.patch_size**2  # (h * w, C)
        targets.append(torch.from_numpy(shares).unflatten(0, feature_map.grid))
        maps.append(feature_map)
    return EncodedDataset(maps, targets, dataset.ids, memory, vocabulary)


def at_most(memory: SupportMemory, rows_per_class: int, seed: int = 0) -> SupportMemory:
    """A memory of random rows, at most so many of each class: a rare class weighs as much as a common one."""
    order = np.random.default_rng(seed).permutation(len(memory))
    names = memory.class_names[order]
    chosen = [order[names == name][:rows_per_class] for name in memory.classes]
    return memory.subset(memory.ids[np.concatenate(chosen)])


def episode(dataset: EncodedDataset, config: TrainConfig, rng: np.random.Generator) -> EncodedDataset:
    """The same images with a memory of fewer rows of fewer classes, and without some of the texts.

    A class keeps its text unless the memory holds at least two images of it: one may be the image's own.
    """
    memory, chosen, without_text = dataset.memory, [], []  # chosen: positions in the memory
    classes = () if rng.random() < config.blind else memory.classes
    for name in classes:
        rows = rng.permutation(np.flatnonzero(memory.class_names == name))
        if rng.random() < config.hide_class:
            continue
        rows = rows[: rng.integers(1, config.rows_per_class + 1)]
        chosen += rows.tolist()
        if len(rows) > 1 and rng.random() < config.hide_text:
            without_text.append(name)
    vocabulary = dataset.vocabulary.without_text(without_text)
    return replace(dataset, memory=memory.subset(memory.ids[chosen]), vocabulary=vocabulary)


def loss(model: ROSE, dataset: EncodedDataset, positions: Sequence[int]) -> Tensor:
    """Cross-entropy of the patches of some images with the classes they hold, by pixels.

    Each image is compared with the memory without its own rows; a class that this leaves without an anchor
    does not count.

    Args:
        model: trained or not.
        dataset: the images, with a memory and texts that may be those of an episode.
        positions: which of the images.

    Returns:
        () float32, the mean over all pixels of these classes.
    """
    memory, device = dataset.memory, model.scale.device
    total, weight = torch.zeros(2, device=device)
    for i in positions:
        others = memory.subset(memory.ids[memory.image_ids != dataset.image_ids[i]])
        logits = model(dataset.maps[i].tensor.to(device), dataset.vocabulary, others)  # (h, w, C)
        anchored = logits[0, 0].isfinite()  # (C,)
        log_p, target = logits[..., anchored].log_softmax(-1), dataset.targets[i].to(device)[..., anchored]
        total, weight = total - (target * log_p).sum(), weight + target.sum()
    return total / weight.clamp(min=1e-6)


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


def train(
    dataset: EncodedDataset,
    fusion: str = "similarity",
    config: TrainConfig = TrainConfig(),
    progress: bool = True,
) -> tuple[ROSE, list[float]]:
    """Train one fusion with its decoder and anchors.

    Args:
        dataset: from `prepare`.
        fusion: a name in `rose_kit.registry.fusions`.
        config: see `TrainConfig`.
        progress: show a progress bar.

    Returns:
        the model, and the mean loss of each tenth of the steps.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = ROSE(dataset.memory.dim, dataset.memory.fingerprint, fusion, config.k)
    model.to(dataset.maps[0].tensor.device)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = LambdaLR(optimizer, lambda step: warm_cosine(step, config.steps, config.warmup))
    losses, batch = [], min(config.batch, len(dataset.maps))
    for _ in tqdm(range(config.steps), f"training {fusion}", disable=not progress):
        drawn = episode(dataset, config, rng)
        positions = rng.choice(len(dataset.maps), batch, replace=False)
        value = loss(model, drawn, positions)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    tenths = [round(float(np.mean(part)), 4) for part in np.array_split(losses, 10) if len(part)]
    return model.eval(), tenths
