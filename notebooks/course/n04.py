"""The exercise of 04_fusion."""

import numpy as np

from course import OVERFLOW, agrees, checks, close, exercise, expect, shaped
from rose_kit.fusion.zero_shot import softmax


@exercise(
    level=1,
    minutes=15,
    hints=(
        "turn the cosines into probabilities first, then take the weighted sum",
        "the names give `softmax(scale * cosine)`; the vote has the share `weight`, the names "
        "what is left of 1",
    ),
    right="Now mix: with a quiet vote, what do scales of 5 and 100 bring?",
)
def late_fusion(cosine, vote, scale, weight):
    """(N, C) cosines of patches and names, (N, C) vote -> (N, C) probabilities of both.

    The names say softmax(scale * cosine), at any scale; `weight` is the share of the vote.
    """
    return weight * vote + (1 - weight) * softmax(scale * cosine)


@checks(late_fusion)
def _(answer):
    rng = np.random.default_rng(0)
    cosine, vote = rng.uniform(-0.5, 0.9, (8, 5)), rng.dirichlet(np.ones(5), 8)
    found = shaped(answer(cosine, vote, 5.0, 0.8), (8, 5), "(N, C)")
    wrong = [
        (0.8 * vote + 0.2 * cosine, "mixes cosines with probabilities: the names need a softmax"),
        (0.2 * vote + 0.8 * softmax(5 * cosine), "gives the weight to the names: it is that of the vote"),
        (0.8 * vote + 0.2 * softmax(cosine / 5), "divides by the scale: it is one over the temperature"),
        (0.8 * vote + 0.2 * softmax(cosine), "leaves out the scale"),
        (0.8 * vote + softmax(5 * cosine), "returns rows that do not add up to 1: w and 1 - w do"),
        (0.8 * vote + 0.2 * softmax(5 * cosine.T).T, "takes the softmax over patches: it goes over classes"),
    ]
    for other, says in wrong:
        expect(not close(found, other), says)
    right = late_fusion(cosine, vote, 5.0, 0.8)
    expect(
        close(found, right) or close(found.sum(1), 1 + 0 * found[:, 0]),
        "returns rows that do not add up to 1",
    )
    expect(
        close(found, right),
        "returns another mixture: the softmax is of the names alone, and then comes the vote",
    )
    says = "is right at a scale of 5 and a weight of 0.8 alone"
    agrees(answer, late_fusion, says, (cosine, vote, 5.0, 0.3), (cosine[:3], vote[:3], 60.0, 1.0))
    agrees(answer, late_fusion, OVERFLOW, (cosine, vote, 5000.0, 0.8))
