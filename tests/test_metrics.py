"""Metrics against torchmetrics, scikit-learn and SciPy."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from rose_kit.metrics import ciou, class_counts, confusion_matrix, giou, iou, mean_interval, mean_iou


def test_counts_and_iou_are_those_of_torchmetrics_and_scikit_learn():
    rng = np.random.default_rng(0)
    pred, target = rng.integers(0, 5, (2, 3, 17, 23))  # the sixth class never occurs
    target[rng.random(target.shape) < 0.2] = 255
    ours, valid = confusion_matrix(pred, target, num_classes=6), target != 255
    settings = {"num_classes": 6, "ignore_index": 255}
    theirs = multiclass_confusion_matrix(torch.tensor(pred), torch.tensor(target), **settings)
    np.testing.assert_array_equal(ours, theirs.numpy())
    np.testing.assert_array_equal(ours, sk.confusion_matrix(target[valid], pred[valid], labels=range(6)))
    scores = sk.jaccard_score(target[valid], pred[valid], labels=range(5), average=None)
    np.testing.assert_allclose(iou(ours)[:5], scores, atol=1e-12)
    assert ours.dtype == np.int64 and np.isnan(iou(ours)[5])
    each = multiclass_jaccard_index(torch.tensor(pred), torch.tensor(target), average="none", **settings)
    np.testing.assert_allclose(iou(ours)[:5], each.numpy()[:5], atol=1e-6)  # theirs is float32
    assert mean_iou(ours) == pytest.approx(scores.mean(), abs=1e-12)


def test_absent_classes_and_ignored_pixels():
    assert mean_iou(confusion_matrix([0, 1], [0, 0], 3)) == pytest.approx((0.5 + 0) / 2)
    assert np.isnan(mean_iou(np.zeros((3, 3), dtype=int)))
    assert class_counts([[2, 1], [3, 4]]).tolist() == [[3, 7], [5, 5], [2, 4]]  # target, predicted, both
    assert confusion_matrix([250, 0], [255, 0], 1).tolist() == [[1]]
    assert confusion_matrix([9, 0], [-1, 0], 1, ignore_index=-1).tolist() == [[1]]


@pytest.mark.parametrize(
    ("metric", "pred", "target", "value"),
    [
        (partial(confusion_matrix, num_classes=3), [0, 7], [0, 0], r"pred holds \[7\]"),
        (partial(confusion_matrix, num_classes=3), [0, 0], [0, -1], r"target holds \[-1\]"),
        (partial(confusion_matrix, num_classes=3), [0, 1], [0, 1, 1], r"\(2,\).*\(3,\)"),
        (ciou, [[2, 1]], [[1, 1]], r"\[2\]"),
    ],
)
def test_bad_values_are_named(metric, pred, target, value):
    with pytest.raises(ValueError, match=value):
        metric(pred, target)


def test_giou_and_ciou_are_means_of_scikit_learn_scores():
    preds, targets = np.random.default_rng(0).random((2, 7, 9, 11)) < 0.4
    each = [sk.jaccard_score(t.ravel(), p.ravel()) for p, t in zip(preds, targets, strict=True)]
    assert giou(preds, targets) == pytest.approx(np.mean(each), abs=1e-12)
    together = sk.jaccard_score(targets.ravel(), preds.ravel())
    assert ciou(preds, targets) == pytest.approx(together, abs=1e-12)


def test_interval_is_that_of_scipy():
    values = [41.0, 44.5, 39.2, 43.3]
    for level in (0.9, 0.95):
        mean, half = mean_interval(values, level)
        interval = stats.t.interval(level, 3, loc=np.mean(values), scale=stats.sem(values))
        assert (mean - half, mean + half) == pytest.approx(interval, abs=1e-9)
    mean, half = mean_interval([12.0])
    assert mean == 12.0 and np.isnan(half)
    for values, level in (([], 0.95), ([1.0, 2.0], 1.5)):
        with pytest.raises(ValueError, match=str(level)):
            mean_interval(values, level)
