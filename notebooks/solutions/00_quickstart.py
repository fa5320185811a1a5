"""Solutions of 00_quickstart, written by course/build.py from course/n00.py."""

import numpy as np


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
