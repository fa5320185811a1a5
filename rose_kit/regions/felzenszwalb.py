"""Felzenszwalb's superpixels: neighbours merge along a graph while they are alike, through scikit-image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from rose_kit.encoder.base import image_tensor
from rose_kit.registry import register_regions
from rose_kit.types import check_positive


@register_regions("felzenszwalb")
@dataclass(frozen=True)
class Felzenszwalb:
    """Cuts an image into superpixels of very different sizes (Felzenszwalb and Huttenlocher 2004).

    The defaults are those of FREEDA's release.

    Args:
        scale: larger values make fewer and larger superpixels.
        sigma: of the Gaussian that smoothes the image first, in pixels.
        min_size: pixels that a superpixel has at least.

    Raises:
        ValueError: a setting is not positive.

    >>> Felzenszwalb(min_size=4)(np.zeros((8, 8, 3), np.uint8)).max() + 1
    np.int64(1)
    """

    scale: float = 100.0
    sigma: float = 1.0
    min_size: int = 20

    def __post_init__(self) -> None:
        check_positive(**vars(self))

    def __call__(self, image: Any) -> NDArray[np.int64]:
        """Cut one image.

        Args:
            image: (H, W, 3) uint8, float in [0, 1], or a PIL image.

        Returns:
            (H, W) ids 0 ... R - 1.

        Raises:
            ValueError: not such an image.
        """
        return felzenszwalb(image_tensor(image).permute(1, 2, 0).numpy(), **vars(self))
