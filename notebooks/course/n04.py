"""The exercise of 04_fusion."""

import numpy as np

from course import checks, close, exercise, expect, shaped


@exercise(
    hint="weights from the largest probability of each, (N, 1), then the same sum",
    minutes=15,
    right="Does it come nearer to the referee than one fixed weight?",
)
def by_confidence(by_name, by_vote):
    """(N, C) a mixture in which each patch has a weight of its own: who is surer counts for more.

    The share of each of the two is its largest probability, divided by the sum of both.
    """
    sure_name, sure_vote = by_name.max(1, keepdims=True), by_vote.max(1, keepdims=True)  # (N, 1)
    weight = sure_vote / (sure_name + sure_vote)
    return weight * by_vote + (1 - weight) * by_name


@checks(by_confidence)
def _(answer):
    rng = np.random.default_rng(0)
    names, vote = rng.dirichlet(np.ones(5), 8), rng.dirichlet(np.ones(5) / 4, 8)
    found = shaped(answer(names, vote), (8, 5), "(N, C)")
    n, v = names.max(1, keepdims=True), vote.max(1, keepdims=True)
    wrong = [
        ((names + vote) / 2, "weighs all patches alike: the weight has to come from each patch"),
        ((v * names + n * vote) / (n + v), "gives more weight to the one that is less sure"),
        (n * names + v * vote, "returns rows that do not add up to 1: divide by the sum of both weights"),
        (np.where(v > n, vote, names), "picks the surer one: a mixture is asked for"),
        (
            (names.max() * names + vote.max() * vote) / (names.max() + vote.max()),
            "takes one maximum over all patches: each row has its own (axis 1, keepdims)",
        ),
    ]
    for other, says in wrong:
        expect(not close(found, other), says)
    expect(np.allclose(found.sum(1), 1, atol=1e-4), "returns rows that do not add up to 1")
    expect(close(found, by_confidence(names, vote)), "weighs by something else than the largest probability")
