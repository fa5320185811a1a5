"""Colour, texture and position of patches: an encoder of photographs that needs no weights at all.

Nothing is learned and nothing depends on a data set: every constant below is a round number chosen
once. It sees what a patch and its surroundings look like, not what they mean, and knows no text.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab
from skimage.measure import block_reduce
from torch import Tensor

from rose_kit.encoder.base import Encoder, Windows
from rose_kit.registry import register_encoder
from rose_kit.types import check_positive, to_array

LAB_CENTRE, LAB_SPREAD = (50, 0, 0), (25, 12, 12)
CONTEXTS = (0.0, 1.0, 2.5)  # surroundings of a patch: Gaussians of these many patches
SCALES = (0.7, 1.5, 3.0)  # gradients: Gaussians of these many pixels
ANGLES = np.arange(6) * np.pi / 6
COLOUR, CONTRAST, ORIENTATION, EDGES, ROW = 1.5, 0.8, 0.8, 0.75, 1.5  # weights of the groups
BANDWIDTH = 1.25  # of the Gaussian kernel between descriptors


@register_encoder("handcrafted")
class HandcraftedEncoder(Encoder):
    """Multi-scale colour and oriented gradients per patch, as random Fourier features.

    A patch's descriptor holds, for the patch itself and for wider surroundings: the mean and the
    spread of CIE Lab colour; how gradients of three scales divide over six orientations and how
    strong they are; and, once, the row. Random Fourier features (Rahimi and Recht 2007) then make the
    cosine of two patches approximate a Gaussian kernel of their descriptors, so that a mean of
    patches, a prototype, is a density estimate and may have several modes.

    Args:
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: the patch size is not positive.
    """

    name = "handcrafted"
    dim = 512
    pad_mode = "replicate"  # black padding would be taken for black things

    def __init__(self, patch_size: int = 8) -> None:
        check_positive(patch_size=patch_size)
        self.patch_size = patch_size
        self.fingerprint = f"handcrafted 1, {self.dim}-d, patch {patch_size}"
        width = self._describe(np.zeros((patch_size, patch_size, 3), np.float32)).shape[-1]
        normal = np.random.RandomState(0).randn(width, self.dim // 2)  # a stream NumPy keeps frozen
        self._frequencies = (normal / BANDWIDTH).astype(np.float32)

    def slide(self, images: Tensor, windows: Windows | None) -> Tensor:
        """Encode images whole: features are local, so only the scale of `windows` matters."""
        return super().slide(images, None)

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, h, w, 512)."""
        described = np.stack([self._describe(image) for image in to_array(images.permute(0, 2, 3, 1))])
        angles = described @ self._frequencies  # (B, h, w, G) @ (G, 256) -> (B, h, w, 256)
        return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=-1))

    def _describe(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W, 3) -> (h, w, G): groups standardised, each of a squared length near its weight squared."""
        lab = ((rgb2lab(image) - LAB_CENTRE) / LAB_SPREAD).astype(np.float32)
        mean, square = self._per_patch(lab), self._per_patch(lab**2)  # (h, w, 3)
        groups = []
        for sigma in CONTEXTS:
            near = _surround(mean, sigma)
            spread = np.sqrt(np.maximum(_surround(square, sigma) - near**2, 0))
            groups += [(COLOUR, near), (CONTRAST, np.log(spread + 0.03) + 2)]
        for scale in SCALES:
            energy = self._per_patch(_oriented_energy(lab[..., 0], scale))  # (h, w, 6)
            for sigma in CONTEXTS[1:]:
                bins = _surround(energy, sigma)
                total = bins.sum(-1, keepdims=True) + 0.02
                groups += [(ORIENTATION, 6 * bins / total - 1), (EDGES, np.log(total) + 2.5)]
        rows = np.indices((*mean.shape[:2], 1))[0]  # (h, w, 1)
        groups.append((ROW, (rows + 0.5) / len(mean) * 2 - 1))
        parts = [weight * values / np.sqrt(values.shape[-1]) for weight, values in groups]
        return np.concatenate(parts, axis=-1).astype(np.float32)

    def _per_patch(self, pixels: NDArray) -> NDArray:
        """(H, W, G) -> (h, w, G) means."""
        return block_reduce(pixels, (self.patch_size, self.patch_size, 1), np.mean)


def _surround(patches: NDArray, sigma: float) -> NDArray:
    """(h, w, G) averaged over the surroundings of each patch."""
    return gaussian_filter(patches, (sigma, sigma, 0), mode="nearest")


def _oriented_energy(lightness: NDArray, scale: float) -> NDArray:
    """(H, W) -> (H, W, 6): gradient magnitude, shared among orientations by max(cos 2(a - t), 0)."""
    gy = gaussian_filter(lightness, scale, order=(1, 0)) * scale
    gx = gaussian_filter(lightness, scale, order=(0, 1)) * scale
    magnitude = np.hypot(gx, gy) + 1e-6
    double = np.stack([gx**2 - gy**2, 2 * gx * gy], -1) / magnitude[..., None]  # its cos 2a and sin 2a
    waves = double @ np.stack([np.cos(2 * ANGLES), np.sin(2 * ANGLES)])  # (H, W, 2) @ (2, 6)
    return np.maximum(waves, 0).astype(np.float32)
