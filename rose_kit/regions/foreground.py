"""Finding one object: regions by colour, the foreground of a reference image, and regions similar to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import felzenszwalb
from sklearn.cluster import AgglomerativeClustering

from rose_kit.pooling import pool_masks, unique_inverse
from rose_kit.types import FeatureMap

LEAST = 0.02  # cosine distance to its border at which an object is one; noise stays well below


def colour_regions(image: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Class-agnostic regions of an (H, W, 3) image at two scales (Felzenszwalb and Huttenlocher 2004).

    Returns:
        (H, W) ids each, the finer first. Their borders follow things that are smaller than a patch.
    """
    return [felzenszwalb(image, scale, sigma=0.5, min_size=20) for scale in (50, 150)]


def foreground(feature_map: FeatureMap) -> NDArray[np.bool_]:
    """Patches unlike those along the image's border: the object, where an image shows one.

    Args:
        feature_map: (h, w, D) of the image.

    Returns:
        (h * w,) bool: the distance to the three nearest border patches is above Otsu's threshold. None
        where all patches are much alike.
    """
    v = feature_map.values
    edge = np.concatenate([v[0], v[-1], v[:, 0], v[:, -1]])  # (E, D)
    away = 1 - np.sort(feature_map.flat() @ edge.T, axis=1)[:, -3:].mean(1)  # (h * w,)
    return away > max(threshold_otsu(away), LEAST)


def discriminant(target: NDArray, background: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fisher's linear discriminant, whitened by the background, which is plenty where examples are few.

    Args:
        target: (P, D); its mean is the prototype.
        background: (B, D); may hold some of the target, as an image does in which it is looked for.

    Returns:
        (D,) mean and (D,) w: (x - mean) @ w is 0 on average of the background, and 1 at the prototype.
    """
    mean, spread = background.mean(0), np.cov(background.T)  # (D,), (D, D)
    away = target.mean(0) - mean
    w = np.linalg.solve(spread + np.trace(spread) / len(spread) * np.eye(len(spread)), away)
    return mean, (w / (w @ away)).astype(np.float32)


def similarity(feature_map: FeatureMap, parts: NDArray, rule: tuple[NDArray, NDArray]) -> NDArray[np.float32]:
    """How each part of an image is rated by a discriminant.

    Args:
        feature_map: (h, w, D) of the image.
        parts: (H, W) bool, or integers: parts 1 ... K on 0.
        rule: what `discriminant` returned.

    Returns:
        (K,) 0: as the background, 1: as the prototype; -1 where a part vanishes in the encoded image.
    """
    pooled = pool_masks(feature_map, parts.astype(int), range(1, int(parts.max()) + 1))[0]  # (K, D)
    return np.nan_to_num((pooled - rule[0]) @ rule[1], nan=-1)


def largest_cluster(features: Sequence[NDArray], distance: float) -> list[int]:
    """Positions of the largest cluster; of equally large ones, that of the earliest feature.

    Args:
        features: (D,) each.
        distance: clusters with a mean cosine distance up to this are joined.

    >>> largest_cluster([np.array([1.0, 0]), np.array([0, 1.0]), np.array([0.1, 1])], 0.5)
    [1, 2]
    """
    if len(features) < 2:
        return list(range(len(features)))
    cut = {"n_clusters": None, "distance_threshold": distance}
    groups = AgglomerativeClustering(**cut, metric="cosine", linkage="average").fit_predict(features)
    return np.flatnonzero(groups == groups[np.bincount(groups)[groups].argmax()]).tolist()


def most_similar_region(
    maps: Sequence[NDArray],
    pixels: NDArray,
    feature_map: FeatureMap,
    rule: tuple[NDArray, NDArray],
    part: float,
    whole: float,
) -> tuple[NDArray[np.bool_], float]:
    """What an image holds of the target: neighbouring regions that look like it, merged.

    Args:
        maps: (H, W) region ids each, at one or several scales.
        pixels: (H, W) similarity of each pixel.
        feature_map: (h, w, D) of the image.
        rule: what `discriminant` returned.
        part: mean similarity from which a region belongs.
        whole: similarity from which what was merged is one of the instances; the most similar one always is.

    Returns:
        (H, W) bool, all instances at the scale that shows most of them (the sum of similarity over
        `part`); the similarity of the most similar one, NaN where no region belongs.
    """
    region, most, best = np.zeros(pixels.shape, bool), -np.inf, float("nan")
    for regions in maps:
        ids = unique_inverse(regions)[1]
        means = np.bincount(ids.ravel(), pixels.ravel()) / np.bincount(ids.ravel())  # (R,)
        merged = label(means[ids] > part)  # (H, W) from 1
        if not (each := similarity(feature_map, merged, rule)).size:  # (K,)
            continue
        instances = np.append(False, each >= min(whole, each.max()))[merged]
        if (gain := (pixels[instances] - part).sum()) > most:
            region, most, best = instances, gain, float(each.max())
    return region, best
