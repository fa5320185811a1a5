"""Claims about classes that lack visual support or text: how gently the answer gets worse, and a warning."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from course.pseudo_labels import pseudo_labels
from course.reliability import auroc
from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.claim import Claim, Measure, miou_difference
from experiments.claims.few_shots import WORDS
from experiments.claims.verdict import LESS, MORE, NO_WORSE, SMALL
from rose_kit.adapter import RNS
from rose_kit.evaluation import MissingSupport
from rose_kit.fusion import KnnClip, Method, ZeroShot
from rose_kit.pooling import patch_counts

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOTS = 5
SIGNS = {
    "margin": "zero-shot's margin",
    "size": "the area",
    "unknown": "being nearer to its text than to known prototypes",
    "agreement": "RNS keeping the label",
}
HALF = MissingSupport(visual=0.5)


def without(what: str, share: float, method: Method | None = None) -> Setting:
    """RNS (or another method) at five shots, a share of the classes without `what`: "visual" or "text"."""
    return Setting(method or RNS(), SHOTS, missing=MissingSupport(**{what: share}))


def least_over_zero_shot(what: str, method: Method | None = None) -> Measure:
    """The worst share's mIoU less that of zero-shot with all texts."""
    settings = [without(what, share, method) for share in SHARES[1:]]
    floor = Setting(ZeroShot())
    return lambda bench, seed: (
        min(bench.miou(setting, seed) for setting in settings) - bench.miou(floor, seed)
    )


def max_drop_below_linear(what: str, method: Method | None = None) -> Measure:
    """How far the mIoU falls below a straight line from all support to none: 0 for an even decline."""

    def measure(bench: SceneBenchmark, seed: int) -> float:
        curve = np.array([bench.miou(without(what, share, method), seed) for share in SHARES])
        line = np.interp(SHARES, (SHARES[0], SHARES[-1]), curve[[0, -1]])
        return float((line - curve).max())

    return measure


def unseen_over_zero_shot(method: Method | None = None) -> Measure:
    """mIoU over the classes without visual support, half of all, less that of zero-shot."""

    def measure(bench: SceneBenchmark, seed: int) -> float:
        over = HALF.draw(bench.names, seed)[0]
        one, other = without("visual", 0.5, method), Setting(ZeroShot())
        return bench.miou(one, seed, over) - bench.miou(other, seed, over)

    return measure


def _signs(bench: SceneBenchmark, seed: int) -> dict[str, float]:
    """Area under the ROC curve, in percent, with which each sign tells right pseudo-labels from wrong."""
    memory, right, scores = bench.memory(without("visual", 0.5), seed), [], defaultdict(list)
    for encoded, target in bench.query_set(Setting(ZeroShot()), seed):
        labels = pseudo_labels(encoded.query, memory, bench.text(), RNS())
        counts = patch_counts(encoded.feature_map, target, range(len(bench.names)))  # (N, C)
        right += labels.right(counts).tolist()
        for sign, values in labels.scores.items():
            scores[sign] += values.tolist()
    return {sign: 100 * auroc(right, values) for sign, values in scores.items()}


def detection(sign: str) -> Measure:
    """How much better than chance a sign (see `pseudo_labels`) tells right pseudo-labels from wrong."""
    return lambda bench, seed: bench.cached(("signs", seed), lambda: _signs(bench, seed))[sign] - 50


FIGURE = "Figure 4, " + WORDS


def _no_visual(who: str, method: Method) -> tuple[Claim, ...]:
    """Four statements about missing visual support, for one strength of the pseudo-labels."""
    kl = miou_difference(without("visual", 0.5, method), without("visual", 0.5, RNS(beta_pseudo=0)))
    with_kl = f"{who} with its KL term over without, half the classes without visual support"
    worst = f"{who}, the worst of 25 to 100 % of classes without visual support, over zero-shot"
    unseen = f"{who} over zero-shot, on the half of the classes without visual support"
    line = f"{who}, how far mIoU sags below a straight line, from all to no visual support"
    return (
        Claim("pseudo-labels", with_kl, MORE, kl, "a sharp drop without", FIGURE),
        Claim("missing", worst, NO_WORSE, least_over_zero_shot("visual", method), "never below", FIGURE),
        Claim("missing", unseen, NO_WORSE, unseen_over_zero_shot(method), "at or above", f"Table 3, {WORDS}"),
        Claim("missing", line, SMALL, max_drop_below_linear("visual", method), "smooth", FIGURE),
    )


CLAIMS = (
    *_no_visual("RNS", RNS()),
    # The paper's strength, made for AdamW, whose steps hardly depend on a sample's weight.
    *_no_visual("RNS (pseudo-labels at the published 0.2)", RNS(beta_pseudo=0.2)),
    Claim(
        "missing",
        "kNN-CLIP over zero-shot, half the classes without visual support",
        LESS,
        miou_difference(without("visual", 0.5, KnnClip()), Setting(ZeroShot())),
        "falls below quickly",
        FIGURE,
    ),
    Claim(
        "missing",
        "RNS, the worst of 25 to 100 % of classes without text, over zero-shot with all texts",
        NO_WORSE,
        least_over_zero_shot("text"),
        "above even without any text",
        FIGURE,
    ),
    Claim(
        "missing",
        "RNS, how far mIoU sags below a straight line, from all texts to none",
        SMALL,
        max_drop_below_linear("text"),
        "smooth",
        FIGURE,
    ),
    *(
        Claim(
            "detection",
            f"{what} tells right pseudo-labels from wrong: area under the curve over 50",
            MORE,
            detection(sign),
            "zero-shot's errors are copied",
            "limitations, " + WORDS,
            "points of AUC",
        )
        for sign, what in SIGNS.items()
    ),
)
