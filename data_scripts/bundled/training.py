"""How the bundled CLIP was trained: images and captions only, from scratch, on a CPU.

Two contrastive losses share one model. The first is CLIP's own, between whole images and whole
captions. The second aligns patches: each patch chooses among all noun phrases of the batch, and a
phrase that an image's captions list should win some of its patches, and win more of them than in
other images. Which patch belongs to which phrase is never said; it is what the model has to find
out (image-level labels as in Pinheiro & Collobert 2015, patches against captions as in PACL,
Mukhoti 2023). First the area a phrase wins is what counts, which finds the classes fast but lets
small ones spill over the sky; later sure patches count more than area, and every patch should fall to
some listed phrase.

Two things decide how well it goes. Images are cut into pieces that do not see each other, or a
patch of plain sky learns to name what is elsewhere in the image. And all of an image's captions
count together, or a patch of sky that one caption happened to leave out is taught to be something
else. README.md tells what else was tried.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from data_scripts.bundled.corpus import build_corpus, phrases
from data_scripts.bundled.losses import clip_loss, cut, inside_loss, presence_loss
from data_scripts.bundled.merges import learn_merges, write_merges
from rose_kit.data import atomic_write
from rose_kit.encoder import OpenClipEncoder, Windows
from rose_kit.encoder.dense import DENSE

TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}", "a photo of the {}", "two {}s")
MERGES = "merges.txt.gz"  # as `load_bundled` expects it


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome, with the values that made the bundled weights."""

    seed: int = 0
    pictures: int = 32_000  # drawn once; 96 px
    size: int = 96
    # (last step, side in pixels, pieces a side in turn, power of the mean, weight of inside_loss)
    phases: tuple[tuple[int, int, tuple[int, ...], float, float], ...] = (
        (800, 64, (2,), 1.0, 0.0),
        (3200, 64, (2,), 2.0, 0.5),
        (3900, 96, (2,), 2.0, 1.0),
        (4500, 96, (1, 2, 3), 2.0, 0.5),
    )
    horizon: int = 5_400  # of the cosine that the learning rate follows
    anneal: int = 3_900  # step from which it falls in a straight line to 0
    steps: int = 4_500
    batch: int = 64
    width: int = 128
    layers: int = 5
    text_width: int = 128
    text_layers: int = 2
    embed_dim: int = 128
    merges: int = 400
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 150
    whole: float = 0.3  # weight of CLIP's own loss
    whole_every: int = 4  # steps between its turns: it costs a fifth of the time

    def phase(self, step: int) -> tuple[int, int, tuple[int, ...], float, float]:
        """The phase that a step belongs to; a longer run stays in the last one."""
        return next((phase for phase in self.phases if step < phase[0]), self.phases[-1])

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, half a cosine, and from `anneal` on a straight line to 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (min(step, self.anneal) - self.warmup) / (self.horizon - self.warmup)
        rate = self.learning_rate * (0.02 + 0.98 * float((1 + np.cos(np.pi * done)) / 2))
        return rate * min(1.0, (self.steps - step) / max(1, self.steps - self.anneal))


def build_model(recipe: Recipe, vocab_size: int, context_length: int) -> tuple[open_clip.CLIP, dict]:
    """A small open_clip model, and the config that `load_bundled` rebuilds it from."""
    vision = {
        "image_size": recipe.size, "patch_size": 8, "width": recipe.width, "layers": recipe.layers,
        "head_width": 32, "pool_type": "avg", "pos_embed_type": "sin_cos_2d",
    }  # fmt: skip
    text = {
        "context_length": context_length, "vocab_size": vocab_size, "width": recipe.text_width,
        "heads": recipe.text_width // 32, "layers": recipe.text_layers,
    }  # fmt: skip
    config = {
        "embed_dim": recipe.embed_dim, "vision_cfg": vision, "text_cfg": text,
        "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "dense": "maskclip", "templates": TEMPLATES[:5],
        "windows": {"short_side": 128, "crops": [64, 32], "stride": 16},
    }  # fmt: skip
    model = open_clip.CLIP(recipe.embed_dim, vision, text, init_logit_scale=np.log(14.0))
    model.visual.image_mean, model.visual.image_std = config["image_mean"], config["image_std"]
    model.patch_scale = torch.nn.Parameter(torch.tensor(np.log(14.0), dtype=torch.float32))
    return model, config


def encode_patches(encoder: OpenClipEncoder, images: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, N, D) unit-norm MaskCLIP patches, as `encoder.encode_image` gives them."""
    visual = encoder.model.visual
    x, grid = encoder.before_last_block(images)
    patches = DENSE["maskclip"](visual.transformer.resblocks[-1], x, grid)[:, 1:]  # (B, N, width)
    return F.normalize((visual.ln_post(patches) @ visual.proj).float(), dim=-1)


def encode_pictures(encoder: OpenClipEncoder, images: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, D) unit norm: `model.encode_image`, at any S."""
    visual = encoder.model.visual
    x = visual.transformer.resblocks[-1](encoder.before_last_block(images)[0])
    return F.normalize((visual._pool(x)[0] @ visual.proj).float(), dim=-1)


def encode_phrases(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """(K, L) -> (K, D) unit norm: what `model.encode_text` gives, without computing the padding."""
    end = tokens.argmax(-1)  # (K,): the end token has the largest id
    n = int(end.max()) + 1
    x = model.token_embedding(tokens[:, :n]) + model.positional_embedding[:n]  # (K, n, width)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:n, :n]))
    return F.normalize((x[torch.arange(len(x)), end] @ model.text_projection).float(), dim=-1)


def _batch(images, captions, tokenizer, recipe: Recipe, step: int) -> tuple[Tensor, ...]:
    """Images (B, 3, S, S), caption tokens, phrase tokens, (B, K) listed phrases."""
    rng = np.random.default_rng([recipe.seed, step])
    rows = np.sort(rng.choice(len(images), recipe.batch, replace=False))
    x = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float() / 255
    side = recipe.phase(step)[1]
    if side != recipe.size:
        x = F.interpolate(x, size=side, mode="area")
    flip = torch.from_numpy(rng.random(len(x)) < 0.5)
    x[flip] = x[flip].flip(-1)
    lists = [{p for text in captions[r] for p in phrases(text)} for r in rows]
    names = sorted(set().union(*lists))
    listed = torch.tensor([[name in own for name in names] for own in lists])
    opening = ["a photo of {}", "{}"][rng.integers(2)]
    tokens = tokenizer([opening.format(name) for name in names])
    one = [captions[r][rng.integers(len(captions[r]))] for r in rows]
    return x, tokenizer(one), tokens, listed


def train_encoder(
    out: Path,
    work: Path,
    recipe: Recipe = Recipe(),
    evaluate: Callable[[OpenClipEncoder], dict[str, float]] | None = None,
    every: int = 500,
) -> OpenClipEncoder:
    """Train from scratch, or go on from the last checkpoint in `work`.

    Args:
        out: folder for `config.json`, `merges.txt.gz`, `model.safetensors` (float16), `recipe.json`
            and `curve.csv`.
        work: folder for the corpus and the checkpoint; a killed run resumes from here.
        recipe: see `Recipe`.
        evaluate: called on the encoder every `every` steps; its numbers join the curve.
        every: steps between checkpoints.

    Returns:
        The trained encoder.
    """
    torch.manual_seed(recipe.seed)
    images, captions = build_corpus(work, recipe.pictures, recipe.size)
    write_merges(learn_merges((c for own in captions[:4000] for c in own), recipe.merges), work / MERGES)
    tokenizer = SimpleTokenizer(str(work / MERGES), context_length=24)
    model, config = build_model(recipe, tokenizer.vocab_size, tokenizer.context_length)
    encoder = OpenClipEncoder.from_model(model, tokenizer, templates=TEMPLATES[:5], name="bundled")
    encoder.preferred_windows = Windows(**config["windows"])
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=recipe.learning_rate, betas=(0.9, 0.98),
    )  # fmt: skip
    start, curve = _resume(work, model, optimizer)
    progress = tqdm(range(start, recipe.steps), "training", recipe.steps, initial=start)
    began, losses = time.time(), []
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        losses.append(
            _step(encoder, optimizer, _batch(images, captions, tokenizer, recipe, step), recipe, step)
        )
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            row = {
                "step": step + 1,
                "loss": round(float(np.mean(losses)), 4),
                "seconds": round(time.time() - began),
            }
            curve.append(row | (evaluate(encoder) if evaluate else {}))
            losses.clear()
            tqdm.write(json.dumps(curve[-1]))
            _checkpoint(work, model, optimizer, step + 1, curve)
            _export(out, work, encoder, config, recipe, curve)
    return encoder


def _step(encoder: OpenClipEncoder, optimizer, batch, recipe: Recipe, step: int) -> float:
    """One update; the math attention kernel is 2-3 times faster than the fused one on a CPU."""
    x, captions, names, listed = batch
    model = encoder.model
    _, _, pieces, power, inside = recipe.phase(step)
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
        patches = encode_patches(encoder, cut(x, pieces[step % len(pieces)]))  # (B n^2, N / n^2, D)
        phrase = encode_phrases(model, names)
    patches = patches.reshape(len(x), -1, patches.shape[-1])  # the pieces of an image together: (B, N, D)
    log_p = (model.patch_scale.exp() * patches @ phrase.T).log_softmax(-1)  # (B, N, K): phrases compete
    loss = presence_loss(log_p, listed, power) + inside * inside_loss(log_p, listed)
    value = loss.item()
    if step % recipe.whole_every == 0:
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
            image, text = encode_pictures(encoder, x), encode_phrases(model, captions)
        loss = loss + recipe.whole * clip_loss(image, text, model.logit_scale.exp())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, np.log(100))
        model.patch_scale.clamp_(0, np.log(100))
    return value


def _checkpoint(work: Path, model, optimizer, step: int, curve: list[dict]) -> None:
    """Write the whole state as safetensors over the last one."""
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, slot in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{k}": v for k, v in slot.items()}
    with atomic_write(work / "checkpoint.safetensors") as beside:
        save_file(state, beside, {"step": str(step), "curve": json.dumps(curve)})


def _resume(work: Path, model, optimizer) -> tuple[int, list[dict]]:
    """Load the last checkpoint if there is one -> steps done, curve so far."""
    path = work / "checkpoint.safetensors"
    if not path.exists():
        return 0, []
    from safetensors import safe_open

    state = load_file(path)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
    whole = optimizer.state_dict()
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            whole["state"].setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(whole)
    return int(notes["step"]), json.loads(notes["curve"])


def _export(
    out: Path, work: Path, encoder: OpenClipEncoder, config: dict, recipe: Recipe, curve: list[dict]
) -> None:
    """Write what `load_bundled` reads, with the recipe and the loss curve beside it."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {k: v.half().contiguous() for k, v in encoder.model.state_dict().items() if k != "patch_scale"}
    save_file(weights, out / "model.safetensors")
    shutil.copyfile(work / MERGES, out / MERGES)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    with (out / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(curve[-1]))
        writer.writeheader()
        writer.writerows(curve)
