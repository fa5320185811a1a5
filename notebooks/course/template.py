"""The exercise of the template."""

import numpy as np

from course import checks, close, exercise, expect, shaped
from rose_kit import FeatureMap, pool_masks, unit
from rose_kit.pooling import patch_counts


@exercise(
    level=1,
    minutes=10,
    hints=(
        "keep the patches whose pixels are all of class 1, then average them",
        "`patch_counts(features, mask, [1])[:, 0]` counts the pixels of class 1 in each "
        "patch; a patch inside has `features.patch_size**2` of them; `unit` scales their mean",
    ),
)
def pool_inside(features: FeatureMap, mask: np.ndarray) -> np.ndarray:
    """(D,) prototype of the patches that lie wholly under class 1 of the mask."""
    pixels = patch_counts(features, mask, [1])[:, 0]  # (N,)
    inside = pixels == features.patch_size**2
    return unit(features.flat()[inside].mean(0))


@checks(pool_inside)
def _(answer):
    rng = np.random.default_rng(0)
    features = FeatureMap(unit(rng.normal(size=(4, 4, 8))), 8, (32, 32), (32, 32))
    mask = np.zeros((32, 32), np.int64)
    mask[:20, :20] = 1  # the third patch of a row is half inside
    found = shaped(answer(features, mask), (8,), "(D,)")
    expect(not close(found, pool_masks(features, mask, [1])[0][0]), "still counts the patches on the border")
    expect(abs(np.linalg.norm(found) - 1) < 1e-3, "returns a vector whose length is not 1: scale it")
    expect(close(found, pool_inside(features, mask)), "averages other patches than those wholly inside")
