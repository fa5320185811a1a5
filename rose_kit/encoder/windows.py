"""Resizing, padding and sliding windows, all at feature level (RNS, implementation details)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Dense = Callable[[Tensor], Tensor]  # (B, 3, H, W) in [0, 1] -> (B, h, w, D)


@dataclass(frozen=True)
class Windows:
    """How an image is scaled and cut before it is encoded.

    The released RNS settings for OpenCLIP are `Windows(448, (448, 224), 112)` for support images
    and `Windows(448, (448,), 224)` for the test image.

    Args:
        short_side: the shorter side is scaled to this many pixels; None keeps the image's size.
        crops: sides of the square windows, one feature map each, averaged; () is the whole image.
        stride: pixels between windows; needed with `crops`, at most the smallest of them.
        max_long_side: the longer side never exceeds this, whatever `short_side` says.

    Raises:
        ValueError: a size is not a positive integer, or the stride would leave gaps.
    """

    short_side: int | None = None
    crops: tuple[int, ...] = ()
    stride: int | None = None
    max_long_side: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "crops", tuple(self.crops))
        sizes = {"short_side": self.short_side, "stride": self.stride, "max_long_side": self.max_long_side}
        for name, size in [*sizes.items(), *(("crop", crop) for crop in self.crops)]:
            if size is not None and (not isinstance(size, int) or size < 1):
                raise ValueError(f"{name} must be a positive integer, got {size!r}")
        if self.crops and (self.stride is None or self.stride > min(self.crops)):
            raise ValueError(f"stride must be at most the smallest crop {min(self.crops)}, got {self.stride}")

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H', W') to which an image of (H, W) is scaled, rounded half up.

        >>> Windows(short_side=448).scaled_size((360, 480))
        (448, 597)
        """
        scale = 1.0 if self.short_side is None else self.short_side / min(size)
        scale = min(scale, self.max_long_side / max(size))
        return tuple(max(1, int(side * scale + 0.5)) for side in size)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) -> (3, H', W'), bilinear without anti-aliasing, as the RNS release (OpenCV) does."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def pad(image: Tensor, multiple: int, mode: str = "constant") -> Tensor:
    """Pad the bottom and right of (3, H, W) to whole patches: with zeros, before any normalisation."""
    return F.pad(image, (0, -image.shape[2] % multiple, 0, -image.shape[1] % multiple), mode=mode)


def positions(side: int, crop: int, stride: int) -> list[int]:
    """Where windows start along one side; the last is shifted back to fit.

    >>> positions(side=144, crop=64, stride=48)
    [0, 48, 80]
    """
    return [*range(0, side - crop, stride), max(side - crop, 0)]


def slide(dense: Dense, images: Tensor, windows: Windows | None, patch_size: int, batch_size: int) -> Tensor:
    """Encode images window by window, several windows at a time.

    Args:
        dense: the encoder, (B, 3, H, W) -> (B, h, w, D).
        images: (B, 3, H, W) in [0, 1], already padded to whole patches.
        windows: None or without crops: each image is one window.
        patch_size: pixels to a patch.
        batch_size: how many windows go through the encoder at once.

    Returns:
        (B, h, w, D) unit-norm features: the mean over crops of `window_mean`, normalised.

    Raises:
        ValueError: a crop or the stride is no multiple of the patch size.
    """
    if windows is None or not windows.crops:
        return _encode(dense, images, batch_size)
    stride = windows.stride
    for name, size in [("stride", stride), *(("crop", crop) for crop in windows.crops)]:
        if size % patch_size:
            raise ValueError(f"{name} {size} is not a multiple of the encoder's patch size {patch_size}")
    means = [window_mean(dense, images, crop, stride, patch_size, batch_size) for crop in windows.crops]
    return F.normalize(sum(means), dim=-1)  # of the sum: the mean has the same direction


def window_mean(
    dense: Dense, images: Tensor, crop: int, stride: int, patch_size: int, batch_size: int
) -> Tensor:
    """Unit-norm patches of every window, averaged where windows overlap; not normalised again.

    As in the RNS release: a patch on which windows disagree is shorter, so it says less when the
    maps of several crops are averaged. Arguments as for `slide`; returns (B, h, w, D).
    """
    n, _, height, width = images.shape
    tall, wide = min(crop, height), min(crop, width)  # a window larger than the image is the image
    corners = [(y, x) for y in positions(height, tall, stride) for x in positions(width, wide, stride)]
    cuts = torch.cat([images[:, :, y : y + tall, x : x + wide] for y, x in corners])  # (windows * B, 3, t, w)
    features = _encode(dense, cuts, batch_size)  # (windows * B, t / p, w / p, D)
    total = features.new_zeros(n, height // patch_size, width // patch_size, features.shape[-1])
    count = features.new_zeros(*total.shape[1:3], 1)  # (h, w, 1)
    for (y, x), window in zip(corners, features.split(n), strict=True):
        rows = slice(y // patch_size, (y + tall) // patch_size)
        cols = slice(x // patch_size, (x + wide) // patch_size)
        total[:, rows, cols] += window
        count[rows, cols] += 1
    return total / count


def _encode(dense: Dense, images: Tensor, batch_size: int) -> Tensor:
    return F.normalize(torch.cat([dense(chunk) for chunk in images.split(batch_size)]), dim=-1)
