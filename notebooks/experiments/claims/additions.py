"""Claims about a memory that grows: what it knew it still knows, and one image teaches one individual."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.claim import Claim, miou_difference
from experiments.claims.few_shots import WORDS
from experiments.claims.personal import THINGS, personal_metrics
from experiments.claims.verdict import MORE, NO_WORSE, Expected
from rose_kit.adapter import RNS
from rose_kit.evaluation import MissingSupport
from rose_kit.fusion import ZeroShot
from rose_kit.types import Vocabulary

SHOTS = 5
HALF = MissingSupport(visual=0.5)
NOTHING = Expected(-0.01, 0.01)


def _halves(bench: SceneBenchmark, seed: int) -> tuple[Setting, Setting, list[str]]:
    """RNS before and after the memory learned half the classes, and the other half, which it knew."""
    before, after = (Setting(RNS(), SHOTS, missing=gaps) for gaps in (HALF, MissingSupport()))
    learned = HALF.draw(bench.names, seed)[0]
    return before, after, [name for name in bench.names if name not in learned]


def changed_answers(bench: SceneBenchmark, seed: int) -> float:
    """Patches, in percent, that get another class once the memory holds classes nobody asks for."""
    before, after, known = _halves(bench, seed)
    full = bench.text()
    vocabulary = Vocabulary(known, full.text[[full.index(name) for name in known]])
    memories = [bench.memory(setting, seed) for setting in (before, after)]
    changed = []
    for encoded, _ in bench.query_set(before, seed):
        first, second = (np.asarray(RNS().predict(encoded.query, m, vocabulary)).argmax(1) for m in memories)
        changed.append(first != second)  # (N,)
    return 100 * float(np.concatenate(changed).mean())


def known_classes(bench: SceneBenchmark, seed: int) -> float:
    """mIoU of half the classes, asked among all, after the memory learned the others, less before."""
    before, after, known = _halves(bench, seed)
    return bench.miou(after, seed, known) - bench.miou(before, seed, known)


def personal(measure: str, one: tuple[Callable, int], other: tuple[Callable, int]) -> Callable:
    """A measure of how well individuals are found, by one method and number of images less another's."""

    def effect(bench: SceneBenchmark, seed: int) -> float:
        scores = [
            [personal_metrics(bench, thing, seed, make(), pictures)[measure] for thing in THINGS]
            for make, pictures in (one, other)
        ]
        return float(np.subtract(*np.mean(scores, axis=1)))

    return effect


def _more(domain: str, other: str) -> Claim:
    statement = f"{domain} queries: a memory of {domain} and {other} scenes over one of {domain} alone"
    both, one = (Setting(RNS(), SHOTS, support, domain) for support in (f"{domain}+{other}", domain))
    return Claim("growth", statement, NO_WORSE, miou_difference(both, one))


CLAIMS = (
    Claim(
        "growth",
        "answers about known classes that change when others are added",
        NOTHING,
        changed_answers,
        "memory grows without training",
        WORDS,
        "% of patches",
    ),
    Claim(
        "growth", "known classes, asked among all, after the other half was added", NO_WORSE, known_classes
    ),
    _more("day", "night"),
    _more("night", "day"),
    Claim(
        "personalised",
        "telling an individual from others of its class, one picture over text: area under the curve",
        MORE,
        personal("auc", (RNS, 1), (ZeroShot, 1)),
        "a few masks suffice",
        WORDS,
        "points of AUC",
    ),
    Claim(
        "personalised",
        "telling an individual from others of its class, five pictures over one: area under the curve",
        MORE,
        personal("auc", (RNS, 5), (RNS, 1)),
        unit="points of AUC",
    ),
    Claim(
        "personalised",
        "IoU of an individual among others of its class, one picture over text",
        MORE,
        personal("iou", (RNS, 1), (ZeroShot, 1)),
        "a few masks suffice",
        WORDS,
        "IoU",
    ),
)
