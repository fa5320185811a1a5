"""Regions: what may take the place of patches. SLIC by default, SAM where its weights are at hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.regions.felzenszwalb import Felzenszwalb
from rose_kit.regions.sam import Sam, Sam2, load_sam
from rose_kit.regions.slic import Slic
from rose_kit.registry import region_makers

__all__ = ["Felzenszwalb", "Regions", "Sam", "Sam2", "Slic", "load_sam", "make_regions"]

Regions = Callable[[Any], NDArray[np.int64]]  # image -> (H, W) ids 0 ... R - 1


def make_regions(name: str, **options: Any) -> Regions:
    """Build a maker of regions by name.

    Args:
        name: "slic", "felzenszwalb", "sam", "sam2", or your own `@register_regions`.
        **options: passed on, such as `segments` of `Slic` or `checkpoint` of `Sam`.

    Returns:
        image -> (H, W) ids.

    Raises:
        ValueError: the name is unknown (the message lists the known ones), or an option is wrong.

    >>> make_regions("slic", segments=4)(np.zeros((8, 8, 3), np.uint8)).shape
    (8, 8)
    """
    return region_makers.make(name, **options)
