"""What every encoder offers, and the part of it that they share."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rose_kit.encoder.windows import Windows, pad, resize, slide
from rose_kit.types import FeatureMap


class Encoder(Protocol):
    """Image -> dense features; class names -> text features of the same width.

    Attributes:
        name: what `load_encoder` was asked for.
        dim: D, the width of a feature.
        patch_size: pixels to a patch.
        fingerprint: names encoder, weights and dense variant; features of two encoders may be
            compared only if their fingerprints are equal.
        preferred_windows: the windows its makers recommend; callers pass them on to `encode_image`.
    """

    name: str
    dim: int
    patch_size: int
    fingerprint: str
    preferred_windows: Windows | None = None

    def encode_image(self, image: Any, windows: Windows | None = None) -> FeatureMap: ...

    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]: ...  # (C, D), or NoTextTower


def preferred_windows(encoder: Encoder) -> Windows | None:
    """The windows that an encoder's makers recommend, or None where it names none."""
    return getattr(encoder, "preferred_windows", None)


class NoTextTower(ValueError):
    """The encoder knows images only; what `encode_text` raises, so that callers can do without text."""


class WeightsUnavailable(ValueError):
    """The encoder is known, but its weights are not on this machine and could not be fetched."""


def image_tensor(image: Any) -> Tensor:
    """An image as users hold it -> (3, H, W) float32 in [0, 1]; floats are not quantised.

    Args:
        image: (H, W, 3) uint8, (H, W, 3) float in [0, 1], or a PIL image of any mode.

    Raises:
        ValueError: anything else.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    expected = "an (H, W, 3) array, uint8 or float in [0, 1], or a PIL image"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be {expected}, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image must be {expected}, got shape {image.shape}")
    if image.dtype == np.uint8:
        return torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1).copy()) / 255
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"an image must be {expected}, got dtype {image.dtype}")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise ValueError(f"a float image must lie in [0, 1], got values from {low:g} to {high:g}")
    return torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1).copy())


class WindowedEncoder:
    """An encoder defined by one function, `dense`; resizing, padding and windows come from here."""

    name: str
    dim: int
    patch_size: int
    fingerprint: str
    preferred_windows: Windows | None = None
    device: torch.device = torch.device("cpu")
    batch_size: int = 16  # windows that go through `dense` at once
    pad_mode: str = "constant"  # zeros, as RNS; or another mode of torch.nn.functional.pad

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W whole patches -> (B, h, w, D), not yet normalised."""
        raise NotImplementedError

    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Raises NoTextTower: an encoder knows images only, unless its class says otherwise."""
        raise NoTextTower(f"encoder {self.name!r} has no text tower, so it cannot encode {list(names)!r}")

    def encode_image(self, image: Any, windows: Windows | None = None) -> FeatureMap:
        """Encode one image.

        Args:
            image: (H, W, 3) uint8, or float in [0, 1] (not quantised), or a PIL image.
            windows: how to scale and cut it; None encodes the image whole, at its own size.

        Raises:
            ValueError: not such an image, or the windows do not fit the patch size.
        """
        return self.encode_images([image], windows)[0]

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Any], windows: Windows | None = None) -> list[FeatureMap]:
        """Encode several images, those of one size together; see `encode_image`."""
        originals = [image_tensor(image) for image in images]  # (3, H, W) each
        resized = [x if windows is None else resize(x, windows.scaled_size(x.shape[1:])) for x in originals]
        padded = [pad(x, self.patch_size, self.pad_mode) for x in resized]
        groups = defaultdict(list)
        for i, x in enumerate(padded):
            groups[x.shape].append(i)
        values: dict[int, NDArray[np.float32]] = {}
        for members in groups.values():
            batch = torch.stack([padded[i] for i in members]).to(self.device)  # (B, 3, H, W)
            features = slide(self.dense, batch, windows, self.patch_size, self.batch_size)
            values.update(zip(members, features.float().cpu().numpy(), strict=True))
        return [
            FeatureMap(values[i], self.patch_size, tuple(resized[i].shape[1:]), tuple(originals[i].shape[1:]))
            for i in range(len(originals))
        ]


def one_line(error: Exception) -> str:
    """The type of an error and the first line of what it says."""
    return " ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def content_hash(state: dict[str, Tensor]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of named tensors: equal weights, equal hash."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]
