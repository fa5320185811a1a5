"""Solutions of _template, written by course/build.py from course/template.py."""

import numpy as np

from rose_kit import FeatureMap, unit
from rose_kit.pooling import patch_counts


def pool_inside(features: FeatureMap, mask: np.ndarray) -> np.ndarray:
    """(D,) prototype of the patches that lie wholly under class 1 of the mask."""
    pixels = patch_counts(features, mask, [1])[:, 0]  # (N,)
    inside = pixels == features.patch_size**2
    return unit(features.flat()[inside].mean(0))
