"""The exercise of 14_your_images."""

import numpy as np

from course import checks, exercise, expect


@exercise(
    level=1,
    minutes=10,
    hints=(
        "find the first and the last row and column that hold a pixel",
        "`np.flatnonzero(mask.any(0))` lists the columns that hold a pixel, `mask.any(1)` the "
        "rows; the width is last - first + 1",
    ),
    right="The boxes of the next figure are yours.",
)
def box_of(mask):
    """COCO's bounding box [x, y, width, height] in pixels of an (H, W) bool mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = columns[0], rows[0]
    return [int(x), int(y), int(columns[-1] - x + 1), int(rows[-1] - y + 1)]


@checks(box_of)
def _(answer):
    mask = np.zeros((20, 30), bool)
    mask[4:9, 11:23] = True  # 5 rows, 12 columns
    mask[5, 12] = False
    found = answer(mask)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(np.shape(found) == (4,), f"returns shape {np.shape(found)} where four numbers are asked for")
    found = [float(value) for value in found]
    expect(found != [4, 11, 5, 12], "gives y before x: arrays count rows first, boxes count x first")
    expect(found != [11, 4, 22, 8], "gives the last column and row: width and height are asked for")
    expect(found != [11, 4, 23, 9], "gives the corner behind the mask: width and height are asked for")
    expect(found != [11, 4, 11, 4], "is one pixel short: the last one belongs to the box")
    expect(found != [11, 4, 5, 12], "swaps width and height")
    expect(found == [11, 4, 12, 5], f"returns {found} where [11, 4, 12, 5] is right")
    disc = np.hypot(*np.mgrid[-5:6, -4:7]) < 4  # its first pixel in row order is not its leftmost
    says = "is wrong for a disc, whose first pixel, row by row, is not the leftmost one"
    expect([float(value) for value in answer(disc)] == [1, 2, 7, 7], says)
    one = np.zeros((3, 3), bool)
    one[2, 1] = True
    expect(list(answer(one)) == [1, 2, 1, 1], "is wrong for a single pixel, whose box is 1 x 1")
