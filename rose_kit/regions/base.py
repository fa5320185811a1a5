"""What makes regions, by name: image -> one id per pixel."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rose_kit.registry import region_makers


class Regions(Protocol):
    """Anything that cuts an image into regions; a plain function will do."""

    def __call__(self, image: Any) -> NDArray[np.int64]: ...  # (H, W) ids 0 ... R - 1


def make_regions(name: str, **options: Any) -> Regions:
    """Build a maker of regions by name.

    Args:
        name: "slic", "sam", or your own `@register_regions`.
        **options: passed on, such as `segments` of `Slic` or `checkpoint` of `Sam`.

    Returns:
        image -> (H, W) ids.

    Raises:
        ValueError: the name is unknown (the message lists the known ones), or an option is wrong.

    >>> make_regions("slic", segments=4)(np.zeros((8, 8, 3), np.uint8)).shape
    (8, 8)
    """
    return region_makers.make(name, **options)
