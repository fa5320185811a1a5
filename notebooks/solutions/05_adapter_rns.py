"""Solutions of 05_adapter_rns, written by course/build.py from course/n05.py."""

import numpy as np

from rose_kit.fusion.zero_shot import softmax


def descend(x, target, weight, mu, rate, steps):
    """(C, D), (C,) the head W, b after so many steps of gradient descent on J, from zeros.

    Args: x (S, D) samples; target (S, C) their distributions; weight (S,) a * beta of each; mu, rate numbers.
    """
    w, b = np.zeros((target.shape[1], x.shape[1])), np.zeros(target.shape[1])
    for _ in range(steps):
        error = weight[:, None] * (softmax(x @ w.T + b) - target)  # (S, D) @ (D, C) -> (S, C)
        w = w - rate * (error.T @ x + mu * w)  # (C, S) @ (S, D) -> (C, D)
        b = b - rate * error.sum(0)
    return w, b
