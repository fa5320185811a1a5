"""A CLIP fine-tuned with masks: what the annotation that RNS does without is worth.

The text tower stays as it is, so that class names keep their meaning; the vision tower learns that
every patch should be nearest to the texts of the classes it holds. Any encoder in the bundled layout
can be the start, and the result is one again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from data_scripts.scenes import SceneDataset
from rose_kit.data import Dataset, atomic_write
from rose_kit.encoder import OpenClipEncoder
from rose_kit.encoder.base import find_device, image_tensor
from rose_kit.encoder.loading import WEIGHTS, load_bundled
from rose_kit.evaluation import relabel
from rose_kit.model.training import warm_cosine
from rose_kit.pooling import patch_counts
from rose_kit.types import FeatureMap, Vocabulary, check_positive

FIRST_SEED = 5_000_000  # of the training scenes: apart from support, queries and every other training
PICTURES, SIZE = 400, 128


@dataclass(frozen=True)
class FineTuning:
    """Everything that decides the outcome, beside the encoder and the images."""

    seed: int = 0
    steps: int = 300
    batch: int = 8
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 20
    scale: float = 20.0  # of the cosines: 1 / temperature; at CLIP's 100 the loss would not let go of errors

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, batch=self.batch, learning_rate=self.learning_rate, scale=self.scale)


def finetune(
    out: str | Path,
    base: str | Path = WEIGHTS,
    dataset: Dataset | None = None,
    settings: FineTuning = FineTuning(),
    progress: bool = True,
    device: str = "auto",
) -> OpenClipEncoder:
    """Fine-tune the vision tower on annotated images and write the encoder to a folder.

    Args:
        out: new folder; `load_encoder(str(out))` or `--encoder OUT` loads it.
        base: folder of the encoder to start from; by default that of "bundled/clear".
        dataset: images of one size, whole patches; by default 400 scenes of 128 px that no other
            part of the kit uses.
        settings: see `FineTuning`.
        progress: show a progress bar.
        device: where it is trained, see `load_encoder`.

    Returns:
        The fine-tuned encoder, there.

    Raises:
        ValueError: `out` has files in it, images differ in size, the base cannot be read, or there is no such
            device.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{str(out)!r} exists already: name a new folder")
    target = find_device(device)
    encoder = load_bundled(base, name=str(out), device=target)
    dataset = SceneDataset(PICTURES, first=FIRST_SEED, size=SIZE) if dataset is None else dataset
    vocabulary = Vocabulary.encode(dataset.class_names, encoder)
    drawn = _batches(dataset, vocabulary, encoder.patch_size, progress)
    images, targets, text = (part.to(target) for part in (*drawn, torch.from_numpy(vocabulary.text)))
    losses = _train(encoder, images, targets, text, settings, progress)
    _export(out, Path(base), encoder, {**asdict(settings), "pictures": len(dataset), "losses": losses})
    return load_bundled(out, name=str(out), device=target)


def dense_loss(patches: Tensor, text: Tensor, target: Tensor, scale: float) -> Tensor:
    """Cross-entropy of each patch with the classes it holds, weighted by their pixels.

    Args:
        patches: (..., D) unit norm.
        text: (C, D) unit norm.
        target: (..., C) share of the patch's pixels of each class; what is ignored is in none.
        scale: of the cosines.
    """
    log_p = (scale * patches @ text.T).log_softmax(-1)  # (..., C)
    return -(target * log_p).sum() / target.sum().clamp(min=1e-6)


def _batches(dataset: Dataset, vocabulary: Vocabulary, patch: int, progress: bool) -> tuple[Tensor, Tensor]:
    """All images (P, 3, H, W) in [0, 1] and the class shares of their patches (P, h, w, C)."""
    images, targets = [], []
    for i in tqdm(range(len(dataset)), "pictures", disable=not progress):
        sample = dataset[i]
        size = sample.mask.shape
        if (images and size != tuple(images[0].shape[1:])) or size[0] % patch or size[1] % patch:
            raise ValueError(
                f"picture {sample.image_id!r} is {size}; all must have one size, in whole {patch} px"
            )
        grid = (size[0] // patch, size[1] // patch)
        empty = FeatureMap(np.zeros((*grid, 1), np.float32), patch, size, size)
        counts = patch_counts(empty, relabel(sample, vocabulary), range(len(vocabulary)))  # (h * w, C)
        images.append(image_tensor(sample.image))
        targets.append(torch.from_numpy(counts.reshape(*grid, -1) / patch**2))
    return torch.stack(images), torch.stack(targets)


def _train(
    encoder: OpenClipEncoder,
    images: Tensor,
    targets: Tensor,
    text: Tensor,
    settings: FineTuning,
    progress: bool,
) -> list[float]:
    """Train the vision tower in place; returns the loss every tenth of the way."""
    weights = [p for p in encoder.model.visual.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = LambdaLR(optimizer, partial(warm_cosine, steps=settings.steps, warmup=settings.warmup))
    rng, losses = np.random.default_rng(settings.seed), []
    bar = tqdm(range(settings.steps), "fine-tuning", disable=not progress)
    for step in bar:
        rows = torch.from_numpy(rng.choice(len(images), min(settings.batch, len(images)), replace=False))
        x, target = images[rows], targets[rows]
        if rng.random() < 0.5:  # mirrored
            x, target = x.flip(-1), target.flip(-2)
        with sdpa_kernel(SDPBackend.MATH), torch.autocast(images.device.type, torch.bfloat16):
            patches = encoder.dense(x)  # (B, h, w, D)
        loss = dense_loss(F.normalize(patches.float(), dim=-1), text, target, settings.scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % max(settings.steps // 10, 1) == 0:
            losses.append(round(loss.item(), 4))
    return losses


def _export(out: Path, base: Path, encoder: OpenClipEncoder, recipe: dict) -> None:
    """Write beside, then rename: the folder appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    weights = {k: v.detach().half().contiguous() for k, v in encoder.model.state_dict().items()}
    with atomic_write(out) as folder:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(base / "merges.txt.gz", folder / "merges.txt.gz")
        save_file(weights, folder / "model.safetensors")
        (folder / "finetuning.json").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
