"""The exercise of 05_adapter_rns."""

import numpy as np

from course import checks, close, exercise, expect, shaped


@exercise(
    hint="all alike, and the same sum; then call SOLVERS['lbfgs'] with them, as above",
    minutes=10,
    right="Train with them: how many patches change their label?",
)
def equal_weights(weight):
    """(S,) weights of samples -> (S,) float32: every sample counts the same, and the sum stays."""
    return np.full(len(weight), weight.sum() / len(weight), np.float32)


@checks(equal_weights)
def _(answer):
    weight = np.random.default_rng(0).random(7).astype(np.float32)
    given = weight.copy()
    found = answer(weight)
    values = shaped(found, (7,), "(S,)")
    expect(close(weight, given), "changes the weights it is given: make new ones")
    expect(np.ptp(values) < 1e-6, "returns weights that differ")
    expect(
        not close(values, np.ones(7)), "returns ones: the sum has to stay, or the regulariser counts for less"
    )
    expect(not close(values, np.full(7, 1 / 7)), "returns weights that add up to 1: their sum has to stay")
    expect(
        close(values.sum(), given.sum()), f"returns a sum of {values.sum():.3f}, which was {given.sum():.3f}"
    )
    expect(
        np.asarray(found).dtype == np.float32, f"returns {np.asarray(found).dtype}: the solvers take float32"
    )
