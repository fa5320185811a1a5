"""Counts first, averages second: every score here is a reduction of pixel counts that can be added up.

"mIoU" alone says too little. Two images, 100 x 100, one class on a background: in the first a large
object is found one row too high or low, in the second a small object is missed altogether.

>>> target = np.zeros((2, 100, 100), dtype=int)
>>> target[0, :50], target[1, :5, :10] = 1, 1
>>> pred = np.zeros_like(target)
>>> pred[0, 1:51] = 1
>>> cms = [confusion_matrix(p, t, num_classes=2) for p, t in zip(pred, target)]

Dataset mIoU adds the counts of all images, then averages over classes (VOC, ADE20K, mmseg). It is
what this kit means by mIoU:

>>> print(f"{mean_iou(sum(cms)):.3f}")
0.967

The mean over images and classes of the same pixels:

>>> print(f"{np.mean([iou(cm) for cm in cms]):.3f}")
0.729

cIoU and gIoU look at the object alone (referring segmentation, as LISA reports them):

>>> print(f"{ciou(pred, target):.3f} {giou(pred, target):.3f}")
0.951 0.480
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from rose_kit.types import IGNORE


def confusion_matrix(
    pred: ArrayLike, target: ArrayLike, num_classes: int, ignore_index: int = IGNORE
) -> NDArray[np.int64]:
    """Count pixels by (target class, predicted class); matrices of several images add up.

    Args:
        pred: integers of any shape, in [0, num_classes) wherever the target is not ignored.
        target: integers of the same shape, in [0, num_classes) or `ignore_index`.
        num_classes: C.
        ignore_index: target value whose pixels are not counted, whatever was predicted there.

    Returns:
        (C, C) int64; rows are targets, columns predictions.

    Raises:
        ValueError: the shapes differ, a value is not an integer or lies outside [0, C).

    >>> confusion_matrix([0, 1, 1, 0], [0, 1, 0, 255], num_classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    pred, target = np.asarray(pred), np.asarray(target)
    if pred.shape != target.shape:
        raise ValueError(f"pred has shape {pred.shape}, target {target.shape}")
    valid = target != ignore_index
    for name, values in (("pred", pred), ("target", target)):
        if values.dtype.kind not in "biu":
            raise ValueError(f"{name} must hold integers, got {values.dtype}")
        outside = np.unique(values[valid & ((values < 0) | (values >= num_classes))])
        if len(outside):
            raise ValueError(f"{name} holds {outside[:5].tolist()}, outside [0, {num_classes})")
    bins = target[valid].astype(np.int64) * num_classes + pred[valid].astype(np.int64)  # (P,) one per pair
    counts = np.bincount(bins, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def class_counts(cm: ArrayLike) -> NDArray[np.int64]:
    """What IoU needs of a confusion matrix: per class, the pixels of target, prediction and both.

    Args:
        cm: (C, C) pixel counts, rows targets, columns predictions.

    Returns:
        (3, C) pixels of the target, of the prediction, and of their intersection; like confusion matrices,
        the counts of several images add up.

    Raises:
        ValueError: `cm` is not square.
    """
    cm = np.asarray(cm)
    return np.stack([cm.sum(1), cm.sum(0), np.diag(cm)])


def iou_of_counts(counts: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of each class: (..., 3, C) of `class_counts` -> (..., C).

    The values lie in [0, 1]; NaN for a class that is neither in the targets nor predicted.
    """
    target, predicted, intersection = np.moveaxis(np.asarray(counts), -2, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 -> NaN: a class that does not occur
        return intersection / (target + predicted - intersection)


def mean_iou_of_counts(counts: ArrayLike) -> NDArray[np.float64]:
    """Dataset mIoU: (..., 3, C) of `class_counts`, summed over the images -> (...).

    The mean of `iou_of_counts` over the classes in the targets or predicted, in [0, 1]; NaN if nothing was
    counted.

    >>> mean_iou_of_counts([[[3, 1, 0], [2, 2, 0], [2, 1, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]]).round(3)
    array([0.583,   nan])
    """
    known = np.ma.masked_invalid(iou_of_counts(counts))
    return np.ma.filled(known.mean(-1), np.nan)


def iou(cm: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of each class, from a confusion matrix.

    Args:
        cm: (C, C) pixel counts, rows targets, columns predictions.

    Returns:
        (C,) in [0, 1]; NaN for a class that is neither in the targets nor predicted.

    Raises:
        ValueError: `cm` is not square.

    >>> iou([[2, 1, 0], [0, 1, 0], [0, 0, 0]]).round(3).tolist()
    [0.667, 0.5, nan]
    """
    return iou_of_counts(class_counts(cm))


def mean_iou(cm: ArrayLike) -> float:
    """Dataset mIoU: the mean of `iou` over the classes in the targets or predicted (VOC, ADE20K, mmseg).

    Args:
        cm: (C, C) pixel counts summed over the whole set.

    Returns:
        mIoU in [0, 1]; NaN if nothing was counted.

    >>> round(mean_iou([[2, 1, 0], [0, 1, 0], [0, 0, 0]]), 3)
    0.583
    """
    return float(mean_iou_of_counts(class_counts(cm)))


def giou(preds: Iterable[ArrayLike], targets: Iterable[ArrayLike], ignore_index: int = IGNORE) -> float:
    """Mean IoU per mask (LISA's gIoU; not the generalised IoU of boxes).

    Args:
        preds: M binary masks (bool, or 0 and 1), one per query.
        targets: M binary masks, each of its prediction's shape; `ignore_index` pixels do not count.

    Returns:
        The mean in [0, 1]; an empty prediction on an empty target scores 1. NaN for no masks.

    Raises:
        ValueError: the masks do not pair up or are not binary.

    >>> giou([[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]])
    0.75
    """
    scores = iou_of_counts(_mask_counts(preds, targets, ignore_index))  # (M, 1), NaN where both are empty
    return float(pd.Series(scores[:, 0]).fillna(1.0).mean())


def ciou(preds: Iterable[ArrayLike], targets: Iterable[ArrayLike], ignore_index: int = IGNORE) -> float:
    """Cumulative IoU (LISA's cIoU): summed intersections over summed unions; large masks weigh more.

    Args:
        preds: M binary masks (bool, or 0 and 1), one per query.
        targets: M binary masks, each of its prediction's shape; `ignore_index` pixels do not count.

    Returns:
        The ratio in [0, 1]; NaN where no mask holds a pixel.

    Raises:
        ValueError: the masks do not pair up or are not binary.

    >>> ciou([[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1]]).__round__(3)
    0.667
    """
    return float(mean_iou_of_counts(_mask_counts(preds, targets, ignore_index).sum(0)))


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean over seeds with a Student t confidence interval: mean ± half-width.

    The interval covers the draw of the seed (support images, initialisation), not of the query images.

    Args:
        values: one score per seed.
        level: coverage of the interval, in (0, 1).

    Returns:
        (mean, half-width); the half-width of a single value is NaN.

    Raises:
        ValueError: no values, or `level` outside (0, 1).

    >>> tuple(round(x, 2) for x in mean_interval([50.0, 52.0, 54.0]))
    (52.0, 4.97)
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if not len(values) or not 0 < level < 1:
        raise ValueError(f"an interval needs values and a level in (0, 1), got {values.tolist()}, {level}")
    if len(values) == 1:
        return float(values[0]), float("nan")
    quantile = stdtrit(len(values) - 1, (1 + level) / 2)
    return float(values.mean()), float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def _mask_counts(
    preds: Iterable[ArrayLike], targets: Iterable[ArrayLike], ignore_index: int
) -> NDArray[np.int64]:
    """(M, 3, 1): for each pair of binary masks, the `class_counts` of the ones."""
    cms = [confusion_matrix(p, t, 2, ignore_index) for p, t in zip(preds, targets, strict=True)]
    return np.array([class_counts(cm)[:, 1:] for cm in cms], dtype=np.int64).reshape(-1, 3, 1)
