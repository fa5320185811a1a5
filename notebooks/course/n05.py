"""The exercise of 05_adapter_rns."""

import numpy as np

from course import checks, close, exercise, expect, shaped
from rose_kit.fusion.zero_shot import softmax


@exercise(
    level=2,
    minutes=15,
    hints=(
        "in each step, take the gradients for W and for b at the same place, and go against both",
        "the error is `softmax(x @ w.T + b) - target` of shape (S, C), each row times its weight; its "
        "transpose times x, plus `mu * w`, is the gradient for W, and its sum over the samples the one for b",
    ),
    right="The figure below now has your descent beside the other two.",
)
def descend(x, target, weight, mu, rate, steps):
    """(C, D), (C,) the head W, b after so many steps of gradient descent on J, from zeros.

    Args: x (S, D) samples; target (S, C) their distributions; weight (S,); mu, rate numbers.
    """
    w, b = np.zeros((target.shape[1], x.shape[1])), np.zeros(target.shape[1])
    for _ in range(steps):
        error = weight[:, None] * (softmax(x @ w.T + b) - target)  # (S, D) @ (D, C) -> (S, C)
        w = w - rate * (error.T @ x + mu * w)  # (C, S) @ (S, D) -> (C, D)
        b = b - rate * error.sum(0)
    return w, b


@checks(descend)
def _(answer):
    rng = np.random.default_rng(0)
    x, target, weight = rng.normal(size=(9, 4)), rng.dirichlet(np.ones(3), 9), rng.random(9)
    given = x.copy(), target.copy(), weight.copy()
    found = answer(x, target, weight, 0.5, 0.1, 3)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(isinstance(found, tuple) and len(found) == 2, "does not return two arrays, W and b")
    w, b = shaped(found[0], (3, 4), "W (C, D)"), shaped(found[1], (3,), "b (C,)")
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
        expect(not close(w, descend(*other)[0]), says)
    right = descend(x, target, weight, 0.5, 0.1, 3)
    expect(not close(b, 0 * b), "leaves b at 0: the bias has a gradient too, the sum of the errors")
    expect(close(w, right[0]), "goes another way with W than the gradient of J, taken where W and b are now")
    expect(close(b, right[1]), "goes another way with b than the sum of the errors (b has no regulariser)")
