"""The exercises of 14_your_images."""

import numpy as np

from course import checks, exercise, expect
from rose_kit import unit


@exercise(
    level=2,
    minutes=20,
    hints=(
        "keep how near each region is; for each candidate, ask how much nearer all regions would become",
        "start from `near[name] = (x @ vectors.T).max(1)`; a candidate `c` would make it "
        "`np.maximum(near[name], (x @ c.T).max(1))`, and its gain is the sum of share @ (that - near[name]) "
        "over all photographs; take the best, put its nearness in place of the old one, and go on",
    ),
    right="The next figure shows your order.",
)
def annotate_next(vectors, photographs):
    """The names of all photographs, in the order in which to annotate them.

    Each time, the one that raises the sum of share times nearness most, over all regions of all photographs.

    Args: vectors (P, D) rows of the memory; photographs, name -> (regions (R, D), their shares (R,)).
    """
    near = {name: (x @ vectors.T).max(1) for name, (x, _) in photographs.items()}  # (R,) each
    order = []
    while len(order) < len(photographs):
        nearer = {
            c: {n: np.maximum(near[n], (x @ photographs[c][0].T).max(1)) for n, (x, _) in photographs.items()}
            for c in photographs
            if c not in order
        }
        order.append(max(nearer, key=lambda c: sum(a @ nearer[c][n] for n, (_, a) in photographs.items())))
        near = nearer[order[-1]]
    return order


def _chosen(vectors, photographs, worth, nearest=np.max, grows=True):
    """The order by another worth of a candidate, which is given its name, and nearness before and after."""
    near = {name: nearest(x @ vectors.T, axis=1) for name, (x, _) in photographs.items()}
    order = []
    while len(order) < len(photographs):
        after = {
            c: {n: np.maximum(near[n], nearest(x @ own.T, axis=1)) for n, (x, _) in photographs.items()}
            for c, (own, _) in photographs.items()
            if c not in order
        }
        order.append(max(after, key=lambda c: worth(c, near, after[c])))
        near = after[order[-1]] if grows else near
    return order


@checks(annotate_next)
def _(answer):
    def photograph(*regions):
        """Regions of a share each, along an axis, tilted towards another one."""
        x = [np.eye(6)[axis] + tilt * np.eye(6)[3] for _, axis, tilt in regions]
        return unit(x), np.array([share for share, *_ in regions])

    album = {
        "a": photograph((0.5, 1, 0), (0.5, 2, 0)),
        "b": photograph((0.45, 1, 0), (0.45, 2, 0), (0.1, 5, 0)),  # all that "a" has, and more
        "c": photograph((0.7, 4, 0), (0.3, 0, 0)),
        "d": photograph((1.0, 0, 0.3)),  # nearly what the memory has
    }
    cases = [
        album,
        {"a": photograph((0.1, 1, 0), (0.9, 0, 0)), "b": photograph((0.3, 2, 0), (0.7, 0, 0))},
        {"a": photograph((1.0, 0, 0)), "b": photograph((1.0, 0, 0.2)), "c": photograph((1.0, 1, 0))},
        {  # many regions, which are all new
            "a": photograph((0.8, 1, 0), (0.2, 0, 0)),
            "b": photograph(*[(0.25, axis, 0) for axis in (2, 3, 4, 5)]),
        },
    ]
    rng, memories = np.random.default_rng(0), [np.eye(6)[:1]] * len(cases)
    for _ in range(8):  # nobody knows these orders beforehand
        memories.append(unit(rng.normal(size=(3, 6))))
        sizes = dict(zip("abcde", rng.permutation([2, 3, 4, 5, 6]).tolist(), strict=True))
        cases.append(
            {a: (unit(rng.normal(size=(n, 6))), rng.dirichlet(np.ones(n))) for a, n in sizes.items()}
        )
    shares = [{name: share for name, (_, share) in case.items()} for case in cases]
    found = [answer(rows, dict(case)) for rows, case in zip(memories, cases, strict=True)]
    expect(found[0] is not None, "returns None: is the `return` missing?")
    says = f"returns a {type(found[0]).__name__}, where a list of names is asked for"
    expect(isinstance(found[0], list | tuple), says)
    found = list(map(list, found))
    says = f"returns {found[0]}, where each of a, b, c, d is asked for once"
    expect(sorted(found[0]) == sorted(album), says)

    def all_by(worth, **options):
        """What a worth of (a case's shares, candidate, before, after) makes of all cases."""
        all_of = zip(memories, cases, shares, strict=True)
        return [_chosen(rows, case, lambda *of, a=a: worth(a, *of), **options) for rows, case, a in all_of]

    def total(a, c, before, after):
        return sum(a[n] @ after[n] for n in a)

    wrong = [
        (all_by(lambda a, c, before, after: -total(a, c, before, after)), "begins with what brings least"),
        (
            all_by(lambda a, c, before, after: -a[c] @ before[c], grows=False),
            "goes by nearness to the memory alone: what was chosen before counts, too",
        ),
        (all_by(total, grows=False), "forgets what was chosen before: it counts as if it were in the memory"),
        (
            all_by(lambda a, c, before, after: a[c] @ (after[c] - before[c])),
            "looks at a photograph's own regions only: 'b' makes those of 'a' near as well",
        ),
        (
            all_by(lambda a, c, before, after: sum(a[n] @ (after[n] - before[n]) for n in a if n != c)),
            "leaves out a photograph's own regions: they become near as well",
        ),
        (
            all_by(lambda a, c, before, after: sum(after[n].sum() - before[n].sum() for n in a)),
            "counts all regions alike: a larger share counts more",
        ),
        (
            all_by(lambda a, c, before, after: sum((a[n] * after[n]).mean() for n in a)),
            "takes the mean over regions: the shares add up to 1 already, so sum them",
        ),
        (all_by(total, nearest=np.mean), "takes the mean cosine: a region is near by its largest one"),
    ]
    for other, says in wrong:
        expect(found != other, says)
    expect(found[2][0] == "c", "takes no notice of what the memory holds")
    for rows, case, order in zip(memories, cases, found, strict=True):
        right = annotate_next(rows, case)
        expect(order == right, f"returns {order}, where {', '.join(right)} is right")


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
    mask[6], mask[:, 14:16] = False, False  # four pieces
    found = answer(mask)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(np.shape(found) == (4,), f"returns shape {np.shape(found)} where four numbers are asked for")
    expect(isinstance(found, list), f"returns a {type(found).__name__}: COCO is JSON, which needs a list")
    found = [float(value) for value in found]
    expect(found != [4, 11, 5, 12], "gives y before x: arrays count rows first, boxes count x first")
    expect(found != [11, 4, 22, 8], "gives the last column and row: width and height are asked for")
    expect(found != [11, 4, 23, 9], "gives the corner behind the mask: width and height are asked for")
    expect(found != [11, 4, 11, 4], "is one pixel short: the last one belongs to the box")
    expect(found != [11, 4, 5, 12], "swaps width and height")
    says = "counts the columns and rows that hold a pixel: those between two pieces belong to the box"
    expect(found != [11, 4, 10, 4], says)
    expect(found == [11, 4, 12, 5], f"returns {found} where [11, 4, 12, 5] is right")
    disc = np.hypot(*np.mgrid[-5:6, -4:7]) < 4  # its first pixel in row order is not its leftmost
    says = "is wrong for a disc, whose first pixel, row by row, is not the leftmost one"
    expect([float(value) for value in answer(disc)] == [1, 2, 7, 7], says)
    corner = np.pad(np.ones((3, 4), bool), (0, 5))
    expect(list(answer(corner)) == [0, 0, 4, 3], "is wrong for a mask in the corner, whose first row is 0")
    one = np.zeros((3, 3), bool)
    one[2, 1] = True
    expect(list(answer(one)) == [1, 2, 1, 1], "is wrong for a single pixel, whose box is 1 x 1")
