"""Solutions of 05_adapter_rns, written by course/build.py from course/n05.py."""

import numpy as np


def equal_weights(weight):
    """(S,) weights of samples -> (S,) float32: every sample counts the same, and the sum stays."""
    return np.full(len(weight), weight.sum() / len(weight), np.float32)
