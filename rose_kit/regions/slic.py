"""SLIC superpixels: k-means of colour and place (Achanta et al. 2012), through scikit-image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label
from skimage.segmentation import slic

from rose_kit.encoder.base import image_tensor
from rose_kit.encoder.windows import resize
from rose_kit.pooling import resize_nearest, unique_inverse
from rose_kit.registry import register_regions


@register_regions("slic")
@dataclass(frozen=True)
class Slic:
    """Cuts an image into connected superpixels of about equal size.

    Args:
        segments: how many to aim at; textured images end up with fewer, as slivers are merged. (The
            defaults were chosen on drawn images, apart from those that results are from.)
        compactness: how much place counts against CIE Lab colour; larger is squarer.
        iterations: of k-means.
        side: a larger image is first reduced to this shorter side, and the regions are enlarged: the
            cost is per pixel, and the patches they pool are far coarser.

    Raises:
        ValueError: a setting is not positive.

    >>> Slic(segments=4)(np.zeros((8, 8, 3), np.uint8)).max() + 1
    np.int64(4)
    """

    segments: int = 100
    compactness: float = 20.0
    iterations: int = 10
    side: int = 224

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} of Slic must be positive, got {value!r}")

    def __call__(self, image: Any) -> NDArray[np.int64]:
        """Cut one image.

        Args:
            image: (H, W, 3) uint8, float in [0, 1], or a PIL image.

        Returns:
            (H, W) ids 0 ... R - 1, each region 4-connected.

        Raises:
            ValueError: not such an image.
        """
        pixels = image_tensor(image)  # (3, H, W)
        size = tuple(pixels.shape[1:])
        if min(size) > self.side:
            pixels = resize(pixels, tuple(-(-s * self.side // min(size)) for s in size))
        small = slic(
            pixels.permute(1, 2, 0).numpy(),
            n_segments=self.segments,
            compactness=self.compactness,
            max_num_iter=self.iterations,
        )
        # Its own merging of slivers may leave an id in two places.
        return unique_inverse(resize_nearest(label(small, connectivity=1, background=-1), size))[1]
