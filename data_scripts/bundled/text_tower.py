"""A text tower for vague language over the locked vision tower of the bundled CLIP (LiT, Zhai et al. 2022).

The vision tower is never changed, so the patches of all images are computed once. The text tower starts from
nothing and reads one caption of each image. Its loss is that of `training.py`: each noun phrase of the batch
should win patches of the images whose captions list it, and win more of them than in other images. Which
patches a phrase belongs to is never said.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from data_scripts.bundled.corpus import FIRST_SEED, draw_view, phrases
from data_scripts.bundled.language import Language, View, write_captions
from data_scripts.bundled.losses import presence_loss
from data_scripts.bundled.training import encode_phrases
from rose_kit.data import atomic_write
from rose_kit.encoder import OpenClipEncoder, Windows, load_encoder
from rose_kit.encoder.base import content_hash
from rose_kit.encoder.loading import TEXT, TOWERS, load_bundled
from rose_kit.model.training import warm_cosine
from rose_kit.types import check_positive

WINDOWS = Windows(short_side=96, crops=(64, 32), stride=32)  # how training images are encoded
BATCH_IMAGES = 100  # drawn and encoded at once


@dataclass(frozen=True)
class TextRecipe:
    """Everything that decides the outcome, with the values that made the bundled vague tower."""

    seed: int = 0  # of the second meanings, the captions, the weights and the batches
    language: Language = field(default_factory=Language)
    images: int = 1_500  # training scenes of 96 px, the first of those that the vision tower has seen
    steps: int = 300
    batch: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 100
    power: float = 2.0  # of `presence_loss`

    def __post_init__(self) -> None:
        check_positive(images=self.images, steps=self.steps, batch=self.batch)
        if self.images < self.batch:
            raise ValueError(f"images must be at least the {self.batch} of a batch, got {self.images}")


def build_features(
    encoder: OpenClipEncoder, folder: Path, count: int, size: int = 96
) -> tuple[NDArray[np.float16], list[View]]:
    """Draw and encode the training images once and keep what is needed of them on disk.

    Args:
        encoder: only its vision tower is used.
        folder: where `features-<count>-<size>-<vision hash>.npy` and the views beside it are kept.
        count: images.
        size: their side in pixels.

    Returns:
        (count, N, D) float16 unit-norm patches, memory-mapped; and what there is to say about each image.
    """
    name = f"{count}-{size}-{encoder.fingerprint.split()[-1]}"
    features_at, views_at = folder / f"features-{name}.npy", folder / f"views-{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    views = json.loads(views_at.read_text()) if views_at.exists() else []
    shape = (count, (size // encoder.patch_size) ** 2, encoder.dim)
    mode = "r+" if views else "w+"
    features = np.lib.format.open_memmap(features_at, mode, np.float16, shape)
    for first in tqdm(range(len(views), count, BATCH_IMAGES), "drawing and encoding"):
        scenes = [draw_view(FIRST_SEED + i, size)[0] for i in range(first, min(count, first + BATCH_IMAGES))]
        maps = encoder.encode_images([scene.image for scene in scenes], WINDOWS)
        features[first : first + len(maps)] = np.stack([each.flat() for each in maps])  # (B, N, D)
        features.flush()
        views += [asdict(View.of(scene)) for scene in scenes]
        with atomic_write(views_at) as beside:  # after their features, so a killed run goes on from here
            beside.write_text(json.dumps(views))
    return features, [View(**view) for view in views]


def train_text_tower(
    out: Path,
    work: Path,
    recipe: TextRecipe = TextRecipe(),
    evaluate: Callable[[OpenClipEncoder], dict[str, float]] | None = None,
    every: int = 50,
) -> OpenClipEncoder:
    """Train a text tower over the bundled vision tower, from nothing.

    Args:
        out: new folder for `text.safetensors` (float16), `recipe.json` and `curve.csv`.
        work: folder for the features of the training images, which all recipes share.
        recipe: see `TextRecipe`.
        evaluate: called on the encoder every `every` steps; its numbers join the curve.
        every: steps between evaluations.

    Returns:
        The encoder, as `load_encoder(str(out))` gives it.

    Raises:
        ValueError: `out` has files in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{str(out)!r} exists already: name a new folder")
    encoder = load_encoder("bundled/clear")
    features, views = build_features(encoder, work, recipe.images)
    captions = write_captions(views, recipe.language, recipe.seed)
    _forget_text(encoder.model, recipe.seed)
    scale = torch.nn.Parameter(torch.tensor(np.log(14.0), dtype=torch.float32))
    text = [p for name, p in encoder.model.named_parameters() if not name.startswith("visual.")]
    groups = [{"params": [p for p in text if p.ndim > 1], "weight_decay": recipe.weight_decay}]
    groups.append({"params": [*(p for p in text if p.ndim <= 1), scale], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    schedule = LambdaLR(optimizer, lambda step: warm_cosine(step, recipe.steps, recipe.warmup))
    losses: list[float] = []
    curve: list[dict[str, float]] = []
    for step in tqdm(range(recipe.steps), "training"):
        patches, tokens, listed = _batch(features, captions, encoder, recipe, step)
        with sdpa_kernel(SDPBackend.MATH):  # faster than the fused kernel on a CPU
            names = encode_phrases(encoder.model, tokens)  # (K, D)
        log_p = (scale.exp() * patches @ names.T).log_softmax(-1)  # (B, N, D) @ (D, K) -> (B, N, K)
        loss = presence_loss(log_p, listed, recipe.power)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*text, scale], 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            scale.clamp_(0, np.log(100))
        losses.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            row = {"step": step + 1, "loss": round(float(np.mean(losses)), 4)}
            curve.append(row | (evaluate(encoder) if evaluate else {}))
            losses.clear()
    _export(out, encoder, recipe, curve)
    return load_bundled(out)


def _forget_text(model: open_clip.CLIP, seed: int) -> None:
    """Give a model a text tower without training, and lock everything else."""
    config = json.loads((TOWERS["clear"] / "config.json").read_text())
    torch.manual_seed(seed)
    fresh = open_clip.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    model.load_state_dict({**fresh.state_dict(), **_part(model, vision=True)})
    model.requires_grad_(True)
    model.visual.requires_grad_(False)


def _part(model: open_clip.CLIP, vision: bool) -> dict[str, Tensor]:
    """The tensors of the vision tower, or those of the rest."""
    return {key: v for key, v in model.state_dict().items() if key.startswith("visual.") == vision}


def _batch(
    features: NDArray, captions: list[str], encoder: OpenClipEncoder, recipe: TextRecipe, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (B, N, D), tokens of K noun phrases, and which of them each image's caption lists (B, K)."""
    rng = np.random.default_rng([recipe.seed, step])
    rows = np.sort(rng.choice(len(features), recipe.batch, replace=False))
    lists = [phrases(captions[row]) for row in rows]
    names = sorted(set().union(*lists))
    listed = torch.tensor([[name in own for name in names] for own in lists])
    opening = ["a photo of {}", "{}"][rng.integers(2)]
    tokens = encoder.tokenizer([opening.format(name) for name in names], encoder.model.context_length)
    return torch.from_numpy(features[rows].astype(np.float32)), tokens, listed


def _export(out: Path, encoder: OpenClipEncoder, recipe: TextRecipe, curve: list[dict[str, float]]) -> None:
    """Write the text tower alone, with the hash of the vision tower that it belongs to."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {key: v.half().contiguous() for key, v in _part(encoder.model, vision=False).items()}
    save_file(weights, out / TEXT, {"vision": content_hash(_part(encoder.model, vision=True))})
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    with (out / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(curve[-1]))
        writer.writeheader()
        writer.writerows(curve)
