"""Solutions of 13_nest, written by course/build.py from course/n13.py."""

import numpy as np


def both_ious(answers, truths):
    """(gIoU, cIoU), from 0 to 1, of a list of (H, W) bool answers and one of truths.

    gIoU is the mean IoU of the images; an empty answer to an empty truth counts 1. cIoU is the sum of
    all intersections divided by the sum of all unions.
    """
    shared = np.array([np.sum(a & t) for a, t in zip(answers, truths, strict=True)])
    either = np.array([np.sum(a | t) for a, t in zip(answers, truths, strict=True)])
    each = np.where(either == 0, 1, shared / np.maximum(either, 1))
    return each.mean(), shared.sum() / either.sum()
