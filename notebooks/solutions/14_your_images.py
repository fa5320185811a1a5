"""Solutions of 14_your_images, written by course/build.py from course/n14.py."""

import numpy as np


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


def box_of(mask):
    """COCO's bounding box [x, y, width, height] in pixels of an (H, W) bool mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = columns[0], rows[0]
    return [int(x), int(y), int(columns[-1] - x + 1), int(rows[-1] - y + 1)]
