"""SLIC superpixels: k-means of colour and position (Achanta et al. 2012), through scikit-image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label
from skimage.segmentation import slic

from rose_kit.encoder.base import image_tensor, resize
from rose_kit.pooling import resize_nearest, unique_inverse
from rose_kit.registry import register_regions
from rose_kit.types import check_positive


@register_regions("slic")
@dataclass(frozen=True)
class Slic:
    """Cuts an image into connected superpixels of about equal size.

    The defaults were chosen on drawn images, other ones than those of the reported results.

    Args:
        segments: number of superpixels to aim at; textured images end up with fewer, as slivers are merged.
        compactness: weight of position against CIE Lab colour; larger values make squarer superpixels.
        side: a larger image is first reduced to this shorter side in pixels, and the regions are enlarged:
            the cost is per pixel, and the patches that regions pool are far coarser.

    Raises:
        ValueError: a setting is not positive.

    >>> Slic(segments=4)(np.zeros((8, 8, 3), np.uint8)).max() + 1
    np.int64(4)
    """

    segments: int = 100
    compactness: float = 20.0
    side: int = 224

    def __post_init__(self) -> None:
        check_positive(**vars(self))

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
        pixels = pixels.permute(1, 2, 0).numpy()  # (H', W', 3)
        small = slic(pixels, self.segments, self.compactness)
        # SLIC's own merging of slivers may leave an id in two places: `label` separates them.
        return unique_inverse(resize_nearest(label(small, connectivity=1, background=-1), size))[1]
