"""Solutions of 15_leaderboard, written by course/build.py from course/n15.py."""

import numpy as np


def by_entropy(seen: np.ndarray, read: np.ndarray) -> np.ndarray:
    """(N, C) vote and names -> (N, C): the share of each goes down as its entropy goes up.

    The share of each is exp(-entropy), divided by the sum of both.
    """
    sure = [np.exp((p * np.log(np.maximum(p, 1e-12))).sum(1, keepdims=True)) for p in (seen, read)]  # (N, 1)
    return (sure[0] * seen + sure[1] * read) / (sure[0] + sure[1])
