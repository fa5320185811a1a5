"""Metrics against torchmetrics and scikit-learn, and the properties that counting must have."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from rose_kit.metrics import ciou, confusion_matrix, giou, iou, mean_interval, mean_iou


def maps(seed, classes=6, shape=(3, 17, 23), ignored=0.2):
    """Random prediction and target; the last class never occurs."""
    rng = np.random.default_rng(seed)
    pred, target = rng.integers(0, classes - 1, (2, *shape))
    target[rng.random(shape) < ignored] = 255
    return pred, target


@pytest.mark.parametrize("seed", range(5))
def test_confusion_matrix_is_that_of_torchmetrics_and_scikit_learn(seed):
    pred, target = maps(seed)
    cm = confusion_matrix(pred, target, num_classes=6)
    theirs = multiclass_confusion_matrix(torch.tensor(pred), torch.tensor(target), 6, ignore_index=255)
    valid = target != 255
    assert cm.dtype == np.int64
    np.testing.assert_array_equal(cm, theirs.numpy())
    np.testing.assert_array_equal(cm, sk.confusion_matrix(target[valid], pred[valid], labels=range(6)))


@pytest.mark.parametrize("seed", range(5))
def test_iou_is_that_of_torchmetrics_and_scikit_learn(seed):
    pred, target = maps(seed)
    valid = target != 255
    ours = iou(confusion_matrix(pred, target, num_classes=6))
    assert np.isnan(ours[5])
    theirs = sk.jaccard_score(target[valid], pred[valid], labels=range(5), average=None)
    np.testing.assert_allclose(ours[:5], theirs, atol=1e-12)
    per_class = multiclass_jaccard_index(
        torch.tensor(pred), torch.tensor(target), 6, average="none", ignore_index=255
    )
    np.testing.assert_allclose(ours[:5], per_class.numpy()[:5], atol=1e-6)  # theirs is float32
    assert mean_iou(confusion_matrix(pred, target, 6)) == pytest.approx(theirs.mean(), abs=1e-12)


pairs = npst.arrays(np.uint8, st.integers(1, 60).map(lambda n: (2, n)), elements=st.integers(0, 4))


@given(pairs, st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_counts_add_up_over_any_split(pair, cut):
    whole = confusion_matrix(*pair, 5)
    parts = confusion_matrix(*pair[:, :cut], 5) + confusion_matrix(*pair[:, cut:], 5)
    np.testing.assert_array_equal(whole, parts)
    assert whole.sum() == pair.shape[1]


@given(pairs, st.permutations(range(5)), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_renaming_classes_permutes_and_shuffling_pixels_changes_nothing(pair, order, random):
    cm = confusion_matrix(*pair, 5)
    order = np.array(order)
    renamed = confusion_matrix(*order[pair], 5)
    np.testing.assert_array_equal(renamed[np.ix_(order, order)], cm)
    assert mean_iou(renamed) == pytest.approx(mean_iou(cm), abs=1e-12)
    pixels = random.sample(range(pair.shape[1]), pair.shape[1])
    np.testing.assert_array_equal(confusion_matrix(*pair[:, pixels], 5), cm)


def test_a_class_predicted_but_absent_counts_zero_and_an_unseen_one_does_not_count():
    assert mean_iou(confusion_matrix([0, 1], [0, 0], 3)) == pytest.approx((0.5 + 0) / 2)
    assert np.isnan(mean_iou(np.zeros((3, 3), dtype=int)))


def test_ignored_targets_excuse_any_prediction():
    assert confusion_matrix([250, 0], [255, 0], 1).tolist() == [[1]]
    assert confusion_matrix([9, 0], [-1, 0], 1, ignore_index=-1).tolist() == [[1]]


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        ([0, 7], [0, 0], r"pred holds \[7\], outside \[0, 3\)"),
        ([0, -1], [0, 0], r"pred holds \[-1\]"),
        ([0, 0], [0, 3], r"target holds \[3\]"),
        ([0.0, 1.0], [0, 1], "pred must hold integers, got float64"),
        ([0, 1], [0, 1, 1], r"pred has shape \(2,\), target \(3,\)"),
    ],
)
def test_bad_values_are_named(pred, target, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(pred, target, num_classes=3)


def test_iou_needs_a_square_matrix():
    with pytest.raises(ValueError, match=r"got shape \(2, 3\)"):
        iou(np.zeros((2, 3)))


def masks(seed, count=7):
    rng = np.random.default_rng(seed)
    return [(rng.random((2, 9, 11)) < 0.4) for _ in range(count)]


def test_giou_and_ciou_are_means_of_scikit_learn_scores():
    drawn = masks(0)
    preds, targets = zip(*drawn, strict=True)
    each = [sk.jaccard_score(t.ravel(), p.ravel()) for p, t in drawn]
    assert giou(preds, targets) == pytest.approx(np.mean(each), abs=1e-12)
    together = sk.jaccard_score(np.ravel(targets), np.ravel(preds))
    assert ciou(preds, targets) == pytest.approx(together, abs=1e-12)


def test_empty_masks():
    empty, full = np.zeros((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)
    assert giou([empty], [empty]) == 1.0
    assert giou([full], [empty]) == 0.0
    assert giou([empty, full], [empty, full]) == 1.0
    assert np.isnan(ciou([empty], [empty]))
    assert np.isnan(giou([], []))
    assert giou([[1, 1]], [[1, 255]]) == 1.0  # ignored pixels do not count


def test_masks_that_do_not_pair_up_or_are_not_binary_are_refused():
    with pytest.raises(ValueError, match="2 predicted masks for 1 targets"):
        giou([[1], [0]], [[1]])
    with pytest.raises(ValueError, match=r"pred holds \[2\]"):
        ciou([[2, 1]], [[1, 1]])


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_is_that_of_scipy(level):
    values = [41.0, 44.5, 39.2, 43.3]
    mean, half = mean_interval(values, level)
    low, high = stats.t.interval(level, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-9)


def test_interval_of_one_value_and_of_none():
    mean, half = mean_interval([12.0])
    assert mean == 12.0
    assert np.isnan(half)
    with pytest.raises(ValueError, match="needs values"):
        mean_interval([])
    with pytest.raises(ValueError, match=r"1\.5"):
        mean_interval([1.0, 2.0], level=1.5)
