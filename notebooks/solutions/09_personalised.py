"""Solutions of 09_personalised, written by course/build.py from course/n09.py."""

import numpy as np


def best_cut(odds, mine):
    """The threshold t that tells best: patches with `odds >= t` are called mine.

    Best is the largest mean of two shares: of mine that are called mine, of the others that are not.

    Args: odds (N,) numbers; mine (N,) bool, the truth.
    """
    cuts = np.unique(odds)  # sorted
    called = odds >= cuts[:, None]  # (cuts, N)
    score = called[:, mine].mean(1) + (~called)[:, ~mine].mean(1)  # (cuts,)
    return cuts[score.argmax()]
