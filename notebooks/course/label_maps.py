"""Maps of many classes, in which those that matter can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rose_kit.viz.overlay import LabelMap

LEAST = 0.03  # share of a map that a class must have to be shown, if the truth lacks it


def told_apart(
    maps: Sequence[NDArray[np.int64]], truth: NDArray[np.int64], names: Sequence[str]
) -> list[LabelMap]:
    """Maps to show together; light grey are classes that the truth lacks and of which no map has `LEAST`.

    Some ten classes have colours that differ well; the answers of an encoder often hold twice as many.

    Args:
        maps: (H, W) each, integers into `names`.
        truth: (H, W); its classes are all shown.
        names: (C,) class names.
    """
    shares = [np.bincount(one.ravel(), minlength=len(names)) / one.size for one in maps]  # (C,) each
    shown = np.max(shares, axis=0) >= LEAST  # (C,)
    shown[np.unique(truth)] = True
    return [LabelMap(np.where(shown[one], one, -1), names) for one in maps]
