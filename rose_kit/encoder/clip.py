"""Dense features and text features of any open_clip model."""

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, Self

import open_clip
import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from rose_kit.encoder.base import Encoder, Template, content_hash
from rose_kit.encoder.dense import DENSE
from rose_kit.encoder.towers import find_tower, value_of_pooling
from rose_kit.types import unknown_name

Tokenizer = Callable[[list[str], int], Tensor]  # (texts, context_length) -> (B, L) int64


class OpenClipEncoder(Encoder):
    """A frozen CLIP whose patches can be compared with texts.

    Args:
        model: an open_clip model with a vision tower of one of the kinds in `rose_kit.encoder.towers`; set
            to evaluation mode.
        tokenizer: called as open_clip's are, `(texts, context_length)`; None: images only.
        dense: how patches are brought into the text space, a key of `rose_kit.encoder.dense.DENSE`; every
            tower has "maskclip".
        templates: prompts for class names, "a photo of a {}." or functions; by default CLIP's
            80 for ImageNet.
        name: the encoder's name in messages.
        device: where it runs, see `find_device`; None: where the model is.

    Raises:
        ValueError: a dense variant that the tower lacks, or a vision tower of another kind.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer | None = None,
        dense: str = "maskclip",
        templates: Sequence[Template] = open_clip.OPENAI_IMAGENET_TEMPLATES,
        name: str = "open_clip",
        device: str | torch.device | None = None,
    ) -> None:
        self.tower = find_tower(model)
        if dense not in self.tower.variants:
            raise unknown_name(f"dense variant of {self.tower.name}:", dense, self.tower.variants)
        visual = model.visual
        self.device = next(model.parameters()).device
        self.model, self.tokenizer = model.eval(), tokenizer
        self.variant, self.templates, self.name = dense, templates, name
        self.patch_size, self.dim = self.tower.patch_size, self.tower.dim
        mean = getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN
        std = getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD
        channels = torch.tensor([mean, std], device=self.device, dtype=torch.float32)  # (2, 3)
        self._mean, self._std = channels[:, :, None, None]  # (3, 1, 1) each
        if device is not None:
            self.to(device)

    @classmethod
    def from_model(
        cls, model: nn.Module, tokenizer: Tokenizer | None = None, dense: str = "maskclip", **options: Any
    ) -> Self:
        """Wrap a model object; the options are those of the class."""
        return cls(model, tokenizer, dense, **options)

    @cached_property
    def fingerprint(self) -> str:
        """Encoder, dense variant and a content hash of the vision tower with its mean and deviation."""
        state = {**self.model.visual.state_dict(), "mean": self._mean, "std": self._std}
        return f"open_clip {self.tower.name}, {self.variant}, weights {content_hash(state)}"

    @property
    def text_fingerprint(self) -> str:
        """A content hash of what the model has beside its vision tower, as it is now."""
        state = self.model.state_dict()
        return content_hash({key: value for key, value in state.items() if not key.startswith("visual.")})

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, h, w, D) patches in the text space, not yet normalised."""
        visual = self.model.visual
        if self.tower.dense is not None:
            x = ((images - self._mean) / self._std).to(next(visual.parameters()).dtype)
            return self.tower.dense(visual, x, self.variant).float()
        x, grid = self.before_last_block(images)
        last, pooling = visual.transformer.resblocks[-1], visual.attn_pool
        x = DENSE[self.variant](last, x, grid) if pooling is None else value_of_pooling(pooling, last(x))
        # ln_post per patch, whether the model pools before or after it: a patch is an image of one token.
        x = visual.ln_post(x[:, 1:]) @ visual.proj  # without the class token: (B, h * w, D)
        return x.float().unflatten(1, grid)

    def before_last_block(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) in [0, 1] -> tokens (B, 1 + h * w, width), the class token first; the grid (h, w)."""
        visual = self.model.visual
        x = (images - self._mean) / self._std
        x = visual.conv1(x.to(visual.conv1.weight.dtype))  # (B, width, h, w)
        grid = tuple(x.shape[2:])
        class_token = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)  # (B, 1, width)
        x = torch.cat([class_token, x.flatten(2).mT], dim=1)  # (B, 1 + h * w, width)
        x = visual.ln_pre(x + self._positions(grid).to(x.dtype))
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        return x, grid

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Positional embedding of the class token and an (h, w) grid, by bicubic interpolation."""
        table = self.model.visual.positional_embedding.float()  # (1 + h0 * w0, width)
        patches = table[1:].T.unflatten(1, self.model.visual.grid_size)[None]  # (1, width, h0, w0)
        patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
        return torch.cat([table[:1], patches[0].flatten(1).T])  # (1 + h * w, width)

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """(B,) prompts -> (B, D), not yet normalised.

        Raises:
            NoTextTower: (a ValueError) the model has no text tower, or came without a tokenizer.
        """
        return self.model.encode_text(self._tokenise(prompts).to(self.device))

    def text_keys(self, prompts: list[list[str]]) -> list[str]:
        """See `Encoder.text_keys`: weights, modules, kind of device, and the tokens of the prompts."""
        tokens = [self._tokenise(group).numpy().tobytes() for group in prompts]
        model = f"{self.text_fingerprint} {self.device.type} {self.model}".encode()
        return [sha256(model + of_one_name).hexdigest() for of_one_name in tokens]

    def _tokenise(self, prompts: list[str]) -> Tensor:
        if self.tokenizer is None or not hasattr(self.model, "encode_text"):
            return super().embed_prompts(prompts)  # which raises
        # One of transformers takes more tokens than it has learned.
        of_transformers = isinstance(getattr(self.model, "text", None), HFTextEncoder)
        length = (self.tokenizer if of_transformers else self.model).context_length
        return self.tokenizer(prompts, length)  # (B, L)
