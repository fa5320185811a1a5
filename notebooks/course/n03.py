"""The exercise of 03_retrieval."""

import numpy as np

from course import checks, close, exercise, expect, shaped
from rose_kit import unit


def _top(s, k, axis):
    """Which entries are among the k largest along an axis."""
    return np.argsort(np.argsort(-s, axis=axis), axis=axis) < k


@exercise(
    level=2,
    minutes=15,
    hints=(
        "find the k nearest along both axes of x @ v.T; both have to hold",
        "`np.argsort(np.argsort(-s, axis=1), axis=1)` is the rank of each prototype for its "
        "patch; with axis=0 it is the rank of each patch for its prototype; compare both with "
        "k",
    ),
    right="Let only mutual neighbours vote; what becomes of a patch that has none?",
)
def mutual(x, v, k):
    """(N, P) bool: patch j and prototype i are each among the other's k nearest."""
    s = x @ v.T  # (N, D) @ (D, P) -> (N, P)
    by_patch = np.argsort(np.argsort(-s, axis=1), axis=1) < k  # rank of i for j
    by_prototype = np.argsort(np.argsort(-s, axis=0), axis=0) < k  # rank of j for i
    return by_patch & by_prototype


@checks(mutual)
def _(answer):
    rng = np.random.default_rng(0)
    x, v, k = unit(rng.normal(size=(12, 6))), unit(rng.normal(size=(9, 6))), 3
    s = x @ v.T
    found = shaped(answer(x, v, k), (12, 9), "(N, P)")
    expect(found.dtype == bool, "returns numbers where True and False are asked for")
    rows, columns = _top(s, k, 1), _top(s, k, 0)
    expect(not close(found, rows | columns), "takes pairs of which one is near to the other: both have to be")
    expect(not close(found, rows), "asks the patches only: the prototypes have to have the patch near, too")
    expect(not close(found, columns), "asks the prototypes only: the patches have a say, too")
    expect(
        not close(found, _top(-s, k, 1) & _top(-s, k, 0)), "takes the furthest: nearest is the largest cosine"
    )
    once = (np.argsort(-s, 1) < k) & (np.argsort(-s, 0) < k)
    expect(
        not close(found, once), "reads an argsort as ranks: argsort says who is at a place; sort it once more"
    )
    expect(close(found, mutual(x, v, k)), "marks other pairs than the mutual ones")
