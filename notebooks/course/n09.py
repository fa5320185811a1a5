"""The exercise of 09_personalised."""

import numpy as np

from course import checks, exercise, expect


@exercise(
    level=2,
    minutes=15,
    hints=(
        "try every value that occurs, and for each count both kinds of mistake",
        "`odds >= cuts[:, None]` says for each cut which patches are called mine; the mean "
        "over those that are mine, plus the mean of the opposite over the others, is largest "
        "at the best cut",
    ),
    right="The solid line of the next figure is yours.",
)
def best_cut(odds, mine):
    """The threshold t that tells best: patches with `odds >= t` are called mine.

    Best is the largest mean of two shares: of mine that are called mine, of the others that are not.

    Args: odds (N,) numbers; mine (N,) bool, the truth.
    """
    cuts = np.unique(odds)  # sorted
    called = odds >= cuts[:, None]  # (cuts, N)
    score = called[:, mine].mean(1) + (~called)[:, ~mine].mean(1)  # (cuts,)
    return cuts[score.argmax()]


@checks(best_cut)
def _(answer):
    odds = np.array([-3.0, -2.5, -2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0, -4.0, -5.0, -3.5, -1.5])
    mine = np.array([0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)  # three of thirteen
    found = answer(odds, mine)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(np.ndim(found) == 0, f"returns shape {np.shape(found)} where one number is asked for")

    def score(t):
        called = odds >= t
        return (called[mine].mean() + (~called[~mine]).mean()) / 2

    best, reached = max(score(t) for t in odds), score(found)
    expect(reached > 1 - best + 1e-9, "cuts the wrong way round: mine are those with high odds")
    expect(found not in (0, 0.0), "cuts at 0, where p(mine) = p(class): look for a better place")
    places = {i for row in (np.unique(odds), odds) for i, t in enumerate(row) if score(t) == best}
    says = f"returns {found}: a threshold is asked for, which is a value of the odds, and not its place"
    expect(reached >= best - 1e-9 or found not in places, says)
    accuracy = max(odds, key=lambda t: ((odds >= t) == mine).mean())
    plain = ((odds >= found) == mine).mean() >= ((odds >= accuracy) == mine).mean()
    expect(
        reached >= best - 1e-9 or not plain,
        "counts all patches alike: mine are few, so that calling none mine looks good",
    )
    says = f"cuts at {found:.2f}, where the mean of the shares is {reached:.2f}; {best:.2f} can be reached"
    expect(reached >= best - 1e-9, says)
    rng = np.random.default_rng(0)  # F1 and other measures have other cuts than these
    sets = [(np.array([3, 1, 0, -0.5, -1, -1.5, -3, -4]), np.array([1, 0, 0, 1, 0, 0, 0, 1], bool))]
    sets += [(rng.normal(size=20), rng.permutation(20) < 5) for _ in range(20)]
    for odds, mine in sets:
        best, reached = max(score(t) for t in odds), score(answer(odds, mine))
        expect(reached >= best - 1e-9, "goes by another measure than the mean of the two shares")
