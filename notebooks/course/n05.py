"""The exercise of 05_adapter_rns."""

import numpy as np

from course import agrees, checks, close, exercise, expect, shaped
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

    Args: x (S, D) samples; target (S, C) their distributions; weight (S,) a * beta of each; mu, rate numbers.
    """
    w, b = np.zeros((target.shape[1], x.shape[1])), np.zeros(target.shape[1])
    for _ in range(steps):
        error = weight[:, None] * (softmax(x @ w.T + b) - target)  # (S, D) @ (D, C) -> (S, C)
        w = w - rate * (error.T @ x + mu * w)  # (C, S) @ (S, D) -> (C, D)
        b = b - rate * error.sum(0)
    return w, b


def _variants(x, target, weight, mu=0.5, rate=0.1):
    """What typical mistakes make of three steps: W and b, and what to say."""

    def run(error_of=lambda w, b: softmax(x @ w.T + b) - target, held=mu, of_bias=weight, stale=True):
        w, b = np.zeros((target.shape[1], x.shape[1])), np.zeros(target.shape[1])
        for _ in range(3):
            error = error_of(w, b)
            w = w - rate * ((weight[:, None] * error).T @ x + held * w)
            b = b - rate * (of_bias @ (error if stale else error_of(w, b)))
        return w, b

    yield run(held=mu / 2), "takes mu / 2 * W: the derivative of mu / 2 * W**2 is mu * W"
    yield run(of_bias=np.ones(len(x))), "leaves out the weights of the samples in the gradient for b"
    yield run(of_bias=weight / weight.sum()), "takes the mean of the errors for b: J has their sum"
    yield run(stale=False), "steps with b after W has moved: take both gradients first, then step"
    hard = np.eye(target.shape[1])[target.argmax(1)]
    yield run(lambda w, b: softmax(x @ w.T + b) - hard), "makes the targets one-hot: they are distributions"


@checks(descend)
def _(answer):
    rng = np.random.default_rng(0)
    x, target, weight = rng.normal(size=(9, 4)), rng.dirichlet(np.ones(3), 9), rng.random(9)
    found = answer(x, target, weight, 0.5, 0.1, 3)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(isinstance(found, tuple | list) and len(found) == 2, "does not return two arrays, W and b")
    w, b = shaped(found[0], (3, 4), "W (C, D)"), shaped(found[1], (3,), "b (C,)")
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
    for other, says in _variants(x, target, weight):
        expect(not (close(w, other[0]) and close(b, other[1])), says)
    expect(not close(b, 0 * b), "leaves b at 0: the bias has a gradient too, the sum of the errors")
    expect(close(w, right[0]), "goes another way with W than the gradient of J, taken where W and b are now")
    expect(close(b, right[1]), "goes another way with b than the sum of the errors (b has no regulariser)")
    says = "is right with three steps of rate 0.1 and mu = 0.5 alone"
    agrees(
        answer, descend, says, (x, target, weight, 0.1, 0.3, 5), (x[:5], target[:5], weight[:5], 2.0, 0.01, 2)
    )
