"""The exercise of 00_quickstart."""

import numpy as np

from course import checks, exercise, expect
from rose_kit.metrics import confusion_matrix, mean_iou


@exercise(
    level=1,
    minutes=10,
    hints=(
        "count the shared and the joint pixels of each class over all images, divide, then average",
        "stack the images into one array; for class c the shared pixels are `np.sum((answers "
        "== c) & (truths == c))`, the joint ones the same with `|`; leave out a class without "
        "joint pixels",
    ),
    right="This is the mIoU of every table in this course.",
)
def miou_by_hand(answers, truths, count):
    """mIoU, from 0 to 1, of `count` classes over a list of (H, W) answers and one of truths.

    A class that neither an answer nor a truth holds does not count.
    """
    answers, truths = np.stack(answers), np.stack(truths)  # (images, H, W)
    ious = []
    for c in range(count):
        shared = np.sum((answers == c) & (truths == c))
        either = np.sum((answers == c) | (truths == c))
        if either:
            ious.append(shared / either)
    return np.mean(ious)


@checks(miou_by_hand)
def _(answer):
    truths = [np.array([[0, 0, 0, 0], [1, 1, 1, 1]]), np.array([[0, 0, 0, 0], [3, 0, 1, 1]])]
    answers = [np.array([[0, 0, 1, 0], [1, 1, 1, 1]]), np.array([[0, 0, 1, 1], [0, 2, 2, 1]])]
    cm = sum(confusion_matrix(a, t, 5) for a, t in zip(answers, truths, strict=True))
    each = [mean_iou(confusion_matrix(a, t, 5)) for a, t in zip(answers, truths, strict=True)]
    ious = np.diag(cm) / np.maximum(cm.sum(0) + cm.sum(1) - np.diag(cm), 1)
    found = answer(answers, truths, 5)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(np.ndim(found) == 0, f"returns shape {np.shape(found)} where one number is asked for")
    expect(not np.isnan(found), "returns NaN: a class that is nowhere was divided by 0")
    wrong = {
        np.diag(cm).sum() / cm.sum(): "returns the share of right pixels: a class has to count as one",
        np.mean(each): "averages over images: count over all of them first, then divide",
        ious.mean(): "counts a class that is nowhere as 0: leave it out",
        np.mean(
            (np.diag(cm) / np.maximum(cm.sum(1), 1))[cm.sum(1) > 0]
        ): "divides by the truth alone: what is wrongly answered has to count, too",
        ious[cm.sum(1) > 0].mean(): "leaves out a class that only the truth or only an answer holds: its IoU "
        "is 0",  # there is one of each, so that both mistakes give this number
        100 * mean_iou(cm): "returns percent where a number from 0 to 1 is asked for",
        np.mean(ious[1:4]): "leaves out class 0: it counts as every other",
        np.mean((np.diag(cm) / np.maximum(cm.sum(0) + cm.sum(1), 1))[:4]): "counts the shared pixels twice "
        "below the line: they belong to both, and to the joint ones once",
        np.mean((2 * np.diag(cm) / np.maximum(cm.sum(0) + cm.sum(1), 1))[:4]): "is the mean Dice score: IoU "
        "divides the shared pixels by the joint ones",
    }
    for value, says in wrong.items():
        expect(abs(found - value) > 1e-6, says)
    swapped = np.array([0, 1, 4, 3, 2])  # now the last class is one that only answers hold
    other = answer([swapped[a] for a in answers], [swapped[t] for t in truths], 5)
    says = "leaves out the last class, or takes their number from the truths: it is `count`"
    expect(abs(other - found) < 1e-6, says)
    expect(abs(found - mean_iou(cm)) < 1e-6, f"returns {found:.3f} where {mean_iou(cm):.3f} is right")
