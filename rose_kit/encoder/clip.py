"""Dense features and text features of any open_clip vision transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from rose_kit.encoder.base import WindowedEncoder, content_hash
from rose_kit.encoder.dense import DENSE
from rose_kit.encoder.prompts import Template, encode_names
from rose_kit.encoder.windows import Windows

Tokenizer = Callable[[list[str], int], Tensor]  # (texts, context_length) -> (B, L) int64


class OpenClipEncoder(WindowedEncoder):
    """A frozen CLIP whose patches can be compared with texts.

    Args:
        model: an open_clip model whose `visual` is a `VisionTransformer`; set to evaluation mode.
        tokenizer: called as open_clip's are, `(texts, context_length)`; None: images only.
        dense: how the last block is changed, a key of `rose_kit.encoder.dense.DENSE`.
        templates: prompts for class names, "a photo of a {}." or functions; by default CLIP's
            80 for ImageNet.
        name: how the encoder is called in messages.
        device: where it runs.
        preferred_windows: the windows its makers recommend; callers pass them on to `encode_image`.
        words: classes it was trained to name, "dog|puppy" being one with two words; the web framework takes
            a look-up of anything else to be needed.
        thresholds: by which the web framework's visual prompt enhancer compares its features.

    Raises:
        ValueError: an unknown dense variant, or a vision tower of another kind.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer | None = None,
        *,
        dense: str = "maskclip",
        templates: Sequence[Template] = open_clip.OPENAI_IMAGENET_TEMPLATES,
        name: str = "open_clip",
        device: str | torch.device = "cpu",
        preferred_windows: Windows | None = None,
        words: Sequence[str] = (),
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        if dense not in DENSE:
            raise ValueError(f"unknown dense variant {dense!r}; known: {', '.join(DENSE)}")
        _check_tower(model)
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        self.tokenizer = tokenizer
        self.variant = dense
        self.templates = templates
        self.name = name
        self.preferred_windows = preferred_windows
        self.words, self.thresholds = tuple(words), thresholds
        self.patch_size = model.visual.patch_size[0]
        self.dim = model.visual.output_dim
        mean = getattr(model.visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN
        std = getattr(model.visual, "image_std", None) or open_clip.OPENAI_DATASET_STD
        self._mean, self._std = (
            torch.tensor(v, device=self.device, dtype=torch.float32).view(3, 1, 1) for v in (mean, std)
        )

    @classmethod
    def from_model(
        cls, model: nn.Module, tokenizer: Tokenizer | None = None, dense: str = "maskclip", **options: Any
    ) -> OpenClipEncoder:
        """Wrap a model object; `options` are those of the class."""
        return cls(model, tokenizer, dense=dense, **options)

    @cached_property
    def fingerprint(self) -> str:
        """Encoder, dense variant and a content hash of the vision tower with its mean and deviation."""
        state = {**self.model.visual.state_dict(), "mean": self._mean, "std": self._std}
        activation = type(self.model.visual.transformer.resblocks[-1].mlp.gelu).__name__
        size = f"ViT/{self.patch_size} {self.dim}-d {activation}"
        return f"open_clip {size}, {self.variant}, weights {content_hash(state)}"

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, h, w, D) patches in the text space, not yet normalised."""
        visual = self.model.visual
        x, grid = self._embed((images - self._mean) / self._std)  # (B, 1 + h * w, width)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x = block(x)
        x = DENSE[self.variant](last, x, grid)[:, 1:]  # the class token goes: (B, h * w, width)
        # ln_post per patch, whether the model pools before or after it: a patch is an image of one token.
        x = visual.ln_post(x) @ visual.proj  # (B, h * w, D)
        return x.float().unflatten(1, grid)

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        visual = self.model.visual
        x = visual.conv1(images.to(visual.conv1.weight.dtype))  # (B, width, h, w)
        grid = tuple(x.shape[2:])
        cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)  # (B, 1, width)
        x = torch.cat([cls, x.flatten(2).mT], dim=1)  # (B, 1 + h * w, width)
        return visual.ln_pre(x + self._positions(grid).to(x.dtype)), grid

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Positional embedding of the class token and an (h, w) grid, by bicubic interpolation."""
        visual = self.model.visual
        table = visual.positional_embedding.float()  # (1 + h0 * w0, width)
        patches = table[1:].T.unflatten(1, visual.grid_size)[None]  # (1, width, h0, w0)
        patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
        return torch.cat([table[:1], patches[0].flatten(1).T])  # (1 + h * w, width)

    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Class names -> (C, D) float32 unit-norm features, averaged over the prompt templates.

        Raises:
            NoTextTower: (a ValueError) the model has no text tower, or came without a tokenizer.
            ValueError: there is no name.
        """
        if self.tokenizer is None or not hasattr(self.model, "encode_text"):
            return super().encode_text(names)
        return encode_names(names, self.templates, self._embed_text)

    def _embed_text(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(prompts, self.model.context_length)  # (B, L)
        return self.model.encode_text(tokens.to(self.device))


def _check_tower(model: nn.Module) -> None:
    """Refuse what `dense` would get wrong."""
    visual = getattr(model, "visual", None)
    supported = (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and isinstance(visual.transformer.resblocks[-1], ResidualAttentionBlock)
        and visual.proj is not None
        and visual.patch_size[0] == visual.patch_size[1]
    )
    if not supported:
        raise ValueError(
            f"{type(model).__name__}.visual, a {type(visual).__name__}, has no patches for texts to match; "
            "supported is open_clip's VisionTransformer with standard blocks, square patches, a projection "
            "and no attentional pooling"
        )
