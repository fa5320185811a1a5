"""DINOv3.txt from your own checkout: an encoder that is not an open_clip model, in one file.

Its code and weights have a licence of their own, so the kit holds neither. Clone the DINOv3
repository, ask its owners for the two weight files, and then:

    encoder = load_encoder(
        "dinov3txt", repo="dinov3", weights="dinotxt.pth", backbone_weights="vitl16.pth",
    )

An encoder of your own is registered in the same way: an `Encoder` with a `dense` method
and the four attributes, and a function under `@register_encoder("its name")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from rose_kit.encoder.base import Encoder, Template, WeightsUnavailable, content_hash
from rose_kit.registry import register_encoder

MODEL = "dinov3_vitl16_dinotxt_tet1280d20h24l"  # ViT-L/16, the only one released
PATCHES = {"backbone": 2, "head": 1}  # position among the outputs of encode_image_with_patch_tokens
TEXT_HALVES = {"patch": 1, "class": 0}  # a text vector is [aligned to class token | to patches]


class DinoTxtEncoder(Encoder):
    """A frozen DINOv3.txt.

    Args:
        model: with `encode_image_with_patch_tokens(x)`, the tuple (class token (B, D), head patches
            (B, h * w, D), backbone patches (B, h * w, D)), and `encode_text(tokens)` -> (B, 2 D).
        tokenizer: with `tokenize(texts)` -> (B, L).
        patches: "backbone" takes the tokens before the text head, as RNS and DINOv3's own
            segmentation notebook do; "head" those after it.
        text_half: "patch" takes the half of the text vector aligned to patches, as they do;
            "class" the half aligned to the class token.
        templates: prompts for class names; by default CLIP's 80 for ImageNet.
        patch_size: pixels to a patch.
        device: where it runs.

    Raises:
        ValueError: an unknown choice of `patches` or `text_half`.
    """

    name = "dinov3txt"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        patches: str = "backbone",
        text_half: str = "patch",
        templates: Sequence[Template] = open_clip.OPENAI_IMAGENET_TEMPLATES,
        patch_size: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:
        for value, known in ((patches, PATCHES), (text_half, TEXT_HALVES)):
            if value not in known:
                raise ValueError(f"unknown option {value!r}; known: {', '.join(known)}")
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        self.tokenizer, self.templates = tokenizer, templates
        self.patches, self.text_half = patches, text_half
        self.patch_size = patch_size
        self._mean, self._std = (
            torch.tensor(v, device=self.device).view(3, 1, 1)
            for v in (open_clip.constants.IMAGENET_MEAN, open_clip.constants.IMAGENET_STD)
        )
        with torch.inference_mode():
            self.dim = self.dense(torch.zeros(1, 3, patch_size, patch_size, device=self.device)).shape[-1]

    @cached_property
    def fingerprint(self) -> str:
        """Encoder, which patch tokens, and a content hash of the weights."""
        return f"dinov3txt {self.dim}-d, {self.patches}, weights {content_hash(self.model.state_dict())}"

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, h, w, D) patch tokens, not yet normalised."""
        outputs = self.model.encode_image_with_patch_tokens((images - self._mean) / self._std)
        tokens = outputs[PATCHES[self.patches]]  # (B, h * w, D)
        return tokens.float().unflatten(1, (images.shape[2] // self.patch_size, -1))

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """(B,) prompts -> (B, D), not yet normalised."""
        both = self.model.encode_text(self.tokenizer.tokenize(prompts).to(self.device))  # (B, 2 D)
        return both.chunk(2, dim=-1)[TEXT_HALVES[self.text_half]]  # (B, D)


@register_encoder("dinov3txt")
def load_dinov3txt(
    repo: str | Path = "dinov3",
    weights: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    *,
    model: str = MODEL,
    **options: Any,
) -> DinoTxtEncoder:
    """Load DINOv3.txt through the `hubconf.py` of a local checkout, whose code is then run.

    Args:
        repo: the folder of the checkout.
        weights: file of the text head's weights.
        backbone_weights: file of the vision backbone's weights.
        model: the entry point of `hubconf.py`.
        **options: of `DinoTxtEncoder`.

    Raises:
        WeightsUnavailable: (a ValueError) the checkout or a weight file is missing.
    """
    if not (Path(repo) / "hubconf.py").is_file():
        raise WeightsUnavailable(
            f"no checkout of DINOv3 at {str(repo)!r} (no hubconf.py there); clone its repository and pass "
            "repo=FOLDER, weights=FILE and backbone_weights=FILE"
        )
    files = {"weights": weights, "backbone_weights": backbone_weights}
    for option, file in files.items():
        if file is None or not Path(file).is_file():
            raise WeightsUnavailable(f"dinov3txt needs {option}=FILE, got {option}={file and str(file)!r}")
    paths = {option: str(file) for option, file in files.items()}
    return DinoTxtEncoder(*torch.hub.load(str(repo), model, source="local", **paths), **options)
