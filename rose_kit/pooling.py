"""Soft pooling: patches -> one vector per mask, class or region."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rose_kit.types import FeatureMap, to_array, to_tensor


def patch_counts(feature_map: FeatureMap, mask: NDArray, ids: Sequence[int]) -> NDArray[np.float32]:
    """How many pixels of each id lie in each patch (RNS, the n_jc of section 3).

    The mask is resized to the encoded image by nearest neighbour. What pads the image holds no pixels.

    Args:
        feature_map: gives the grid, patch size and sizes.
        mask: (H, W) integers at the image's own size.
        ids: the C values of `mask` to count.

    Returns:
        (h * w, C) float32 pixel counts.

    Raises:
        ValueError: the mask's size is not the image's.
    """
    mask = np.asarray(mask)
    if mask.shape != tuple(feature_map.image_size):
        raise ValueError(f"mask is {mask.shape}, but its image is {tuple(feature_map.image_size)}")
    resized = resize_nearest(mask, feature_map.encoded_size)
    h, w = feature_map.grid
    p = feature_map.patch_size
    patches = np.arange(resized.shape[0])[:, None] // p * w + np.arange(resized.shape[1]) // p  # (H', W')
    columns = pd.Index(ids).get_indexer(resized.ravel()) + 1  # (H' * W'); column 0: any other value
    bins = patches.ravel() * (len(ids) + 1) + columns  # one per (patch, id)
    counts = np.bincount(bins, minlength=h * w * (len(ids) + 1)).reshape(h * w, -1)
    return counts[:, 1:].astype(np.float32)


def pool_masks(
    feature_map: FeatureMap, mask: NDArray, ids: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Average the patches under each mask, softly by pixel membership (RNS, equation 2).

    Each patch counts in proportion to the pixels of the mask it holds, so a patch on a border
    gives a share to both sides. The mean is scaled to unit norm, as in the authors' code.

    Args:
        feature_map: (h, w, D) features of the image.
        mask: (H, W) integers at the image's own size; class ids or region ids.
        ids: the C values to pool.

    Returns:
        (C, D) float32 unit-norm features, NaN where an id covers no pixel of the encoded image;
        (C,) float32 pixel counts in the encoded image.

    Raises:
        ValueError: the mask's size is not the image's.
    """
    return to_array(pool_masks_on_device(feature_map, mask, ids))


def pool_masks_on_device(feature_map: FeatureMap, mask: NDArray, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What `pool_masks` returns, on the device of the features."""
    x = feature_map.tensor.flatten(0, 1)  # (N, D)
    counts = to_tensor(patch_counts(feature_map, mask, ids), x.device)  # (N, C)
    totals = counts.sum(0)  # (C,)
    membership = counts / totals  # (N, C), columns sum to 1; NaN where absent
    return F.normalize(membership.T @ x, dim=1), totals  # (C, N) @ (N, D) -> (C, D)


def resize_nearest(labels: NDArray, size: tuple[int, int]) -> NDArray:
    """Resize an integer map to `size` = (H, W) by nearest neighbour (floor of the scaled index).

    >>> resize_nearest(np.array([[1, 2]]), (2, 4)).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    rows = np.arange(size[0]) * labels.shape[0] // size[0]
    cols = np.arange(size[1]) * labels.shape[1] // size[1]
    return labels[rows[:, None], cols]


def unique_inverse(labels: NDArray) -> tuple[NDArray, NDArray[np.int64]]:
    """What `np.unique` returns with `return_inverse=True`, five times as fast on maps of labels.

    Args:
        labels: (H, W) integers.

    Returns:
        (R,) the values, ascending; (H, W) the position of each pixel's value among them.

    >>> unique_inverse(np.array([[7, -3], [7, 9]]))[1].tolist()
    [[1, 0], [1, 2]]
    """
    positions, values = pd.factorize(labels.ravel(), sort=True)
    return values, positions.reshape(labels.shape)
