"""The exercise of 15_leaderboard."""

import numpy as np

from course import checks, close, exercise, expect, shaped


@exercise(
    level=2,
    minutes=20,
    hints=(
        "compute the entropy (N, 1) of each, then weights from exp(-entropy)",
        "exp(-entropy) is `np.exp((p * np.log(np.maximum(p, 1e-12))).sum(1, keepdims=True))`; "
        "divide each of the two by their sum, and add what is weighted",
    ),
    right="Put it into a copy of the template, and see where it lands.",
)
def by_entropy(seen: np.ndarray, read: np.ndarray) -> np.ndarray:
    """(N, C) vote and names -> (N, C): the share of each goes down as its entropy goes up.

    The share of each is exp(-entropy), divided by the sum of both.
    """
    sure = [np.exp((p * np.log(np.maximum(p, 1e-12))).sum(1, keepdims=True)) for p in (seen, read)]  # (N, 1)
    return (sure[0] * seen + sure[1] * read) / (sure[0] + sure[1])


@checks(by_entropy)
def _(answer):
    rng = np.random.default_rng(0)
    seen, read = rng.dirichlet(np.ones(5), 8), rng.dirichlet(np.ones(5) / 3, 8)
    seen[0] = np.eye(5)[2]  # a vote that is all for one class: log 0
    found = answer(seen, read)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(not np.isnan(found).any(), "returns NaN: the logarithm of 0 has no value; keep p above 1e-12")
    found = shaped(found, (8, 5), "(N, C)")
    s, r = (np.exp((p * np.log(np.maximum(p, 1e-12))).sum(1, keepdims=True)) for p in (seen, read))
    h, g = -np.log(s), -np.log(r)  # entropies
    s2, r2 = s ** (1 / np.log(2)), r ** (1 / np.log(2))
    wrong = [
        ((seen + read) / 2, "weighs all patches alike"),
        (
            (r * seen + s * read) / (s + r),
            "gives more weight to the one that is less sure (mind the sign of entropy)",
        ),
        (s * seen + r * read, "returns rows that do not add up to 1: divide by the sum of both weights"),
        (np.where(s > r, seen, read), "picks the surer one: a mixture is asked for"),
        ((s2 * seen + r2 * read) / (s2 + r2), "takes the logarithm to the base 2: `np.log` is meant"),
        (
            (s.prod() * seen + r.prod() * read) / (s.prod() + r.prod()),
            "takes one entropy for all patches: sum over the classes of each",
        ),
    ]
    others = {
        "the mean over classes of p log p": (s ** (1 / 5), r ** (1 / 5)),
        "1 / entropy": (1 / np.maximum(h, 1e-9), 1 / np.maximum(g, 1e-9)),
        "1 - entropy / log(C)": (1 - h / np.log(5), 1 - g / np.log(5)),
    }
    wrong += [
        ((a * seen + b * read) / (a + b), f"weighs by {says}, not by exp(-entropy)")
        for says, (a, b) in others.items()
    ]
    for other, says in wrong:
        expect(not close(found, other), says)
    expect(np.allclose(found.sum(1), 1, atol=1e-4), "returns rows that do not add up to 1")
    expect(close(found, by_entropy(seen, read)), "weighs by something else than exp(-entropy)")
