"""The exercise of 13_nest."""

import numpy as np

from course import checks, exercise, expect
from rose_kit.metrics import ciou, giou


@exercise(
    level=1,
    minutes=15,
    hints=(
        "count intersection and union of each pair first; gIoU averages ratios, cIoU divides sums",
        "with arrays `shared` and `either` of one number per image, the ratios are "
        "`np.where(either == 0, 1, shared / np.maximum(either, 1))`; gIoU is their mean, cIoU "
        "`shared.sum() / either.sum()`",
    ),
    right="The curves of the next figure are yours.",
)
def both_ious(answers, truths):
    """(gIoU, cIoU), from 0 to 1, of a list of (H, W) bool answers and one of truths.

    gIoU is the mean IoU of the images; an empty answer to an empty truth counts 1. cIoU is the sum of
    all intersections divided by the sum of all unions.
    """
    shared = np.array([np.sum(a & t) for a, t in zip(answers, truths, strict=True)])
    either = np.array([np.sum(a | t) for a, t in zip(answers, truths, strict=True)])
    each = np.where(either == 0, 1, shared / np.maximum(either, 1))
    return each.mean(), shared.sum() / either.sum()


@checks(both_ious)
def _(answer):
    def rows(*counts):
        return [np.arange(20).reshape(4, 5) < n for n in counts]

    answers, truths = rows(3, 18, 0, 4), rows(6, 16, 0, 0)
    found = answer(answers, truths)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(
        np.shape(found) == (2,), f"returns shape {np.shape(found)} where the pair (gIoU, cIoU) is asked for"
    )
    g, c = giou(answers, truths), ciou(answers, truths)
    expect(not np.isnan(found).any(), "returns NaN: an empty answer to an empty truth was divided by 0")
    expect(not np.allclose(found, (c, g)), "returns (cIoU, gIoU): the other way round")
    expect(abs(found[0] - c) > 1e-6, "sums before it divides for gIoU, too: there, each image counts as one")
    expect(
        abs(found[0] - (g - 1 / 4)) > 1e-6, "gives 0 to an empty answer to an empty truth: it is right, so 1"
    )
    overlap = np.mean([6 / 9, 32 / 34, 1, 0])
    expect(
        abs(found[0] - overlap) > 1e-6,
        "is Dice, which counts what is shared twice: divide by the union",
    )
    twice = np.mean([3 / 9, 16 / 34, 1, 0])
    expect(
        abs(found[0] - twice) > 1e-6,
        "adds the two areas for a union: what is shared counts twice in it",
    )
    lenient = np.mean([3 / 6, 16 / 18, 1, 1])
    expect(abs(found[0] - lenient) > 1e-6, "gives 1 to whatever is answered to an empty truth")
    left_out = np.mean([3 / 6, 16 / 18, 0])
    expect(
        abs(found[0] - left_out) > 1e-6,
        "leaves out images whose truth is empty and answered so: they count 1",
    )
    expect(abs(found[1] - g) > 1e-6, "averages ratios for cIoU, too: sum first, then divide once")
    expect(np.allclose(found, (g, c)), f"returns {found[0]:.3f}, {found[1]:.3f}; right: {g:.3f}, {c:.3f}")
