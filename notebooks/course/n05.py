"""The exercise of 05_adapter_rns."""

import numpy as np

from course import checks, close, exercise, expect, shaped
from rose_kit.fusion.zero_shot import softmax


@exercise(
    level=2,
    minutes=15,
    hints=(
        "in each step, the gradient is the sum of errors times samples, plus mu * W; go against it",
        "the error is `softmax(x @ w.T) - target` of shape (S, C), each row times its weight; "
        "its transpose times x is (C, D); add `mu * w`, multiply by the rate, subtract from w",
    ),
    right="How many steps does it take to come as near to the minimum as L-BFGS in ten passes?",
)
def descend(x, target, weight, mu, rate, steps):
    """(C, D) the head after so many steps of gradient descent on J, from zeros and without a bias.

    Args: x (S, D) samples; target (S, C) their distributions; weight (S,); mu, rate numbers.
    """
    w = np.zeros((target.shape[1], x.shape[1]))
    for _ in range(steps):
        error = softmax(x @ w.T) - target  # (S, D) @ (D, C) -> (S, C)
        w = w - rate * ((weight[:, None] * error).T @ x + mu * w)  # (C, S) @ (S, D) -> (C, D)
    return w


@checks(descend)
def _(answer):
    rng = np.random.default_rng(0)
    x, target, weight = rng.normal(size=(9, 4)), rng.dirichlet(np.ones(3), 9), rng.random(9)
    given = x.copy(), target.copy(), weight.copy()
    found = shaped(answer(x, target, weight, 0.5, 0.1, 3), (3, 4), "(C, D)")
    expect(
        all(close(a, b) for a, b in zip((x, target, weight), given, strict=True)), "changes what it is given"
    )
    wrong = [
        ((x, target, weight, 0.5, -0.1, 3), "climbs: the step goes against the gradient"),
        ((x, target, weight, 0.0, 0.1, 3), "leaves out mu * W, so that J has no minimum"),
        ((x, target, np.ones(9), 0.5, 0.1, 3), "leaves out the weights of the samples"),
        ((x, target, weight / 9, 0.5, 0.1, 3), "takes the mean over samples: J has their sum"),
        ((x, target, weight, 0.5, 0.1, 2), "takes one step too few"),
        ((x, target, weight, 0.5, 0.1, 1), "takes a single step"),
    ]
    for other, says in wrong:
        expect(not close(found, descend(*other)), says)
    expect(close(found, descend(x, target, weight, 0.5, 0.1, 3)), "goes another way than the gradient of J")
