"""Ambiguity, and light that the memory has not seen."""

from __future__ import annotations

import numpy as np

from experiments.claims.claim import Claim, Measure, miou_difference
from experiments.claims.verdict import MORE, NO_WORSE
from experiments.rose.benchmark import ARTICLE, RoseBenchmark, difference
from rose_kit.evaluation import EncodedQuery, count_pixels
from rose_kit.fusion import Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.types import Vocabulary

IMAGES = 4  # of each class of a pair
FIRST = 15_000  # of the scenes of a trial: behind those of its classes


def pairwise_accuracy(bench: RoseBenchmark, seed: int, method: Method, memory: SupportMemory | None) -> float:
    """Pixels of two confusable things that get the right one of the two names, in percent; chance is 50.

    The mean over both things and over all pairs that text alone confuses.
    """
    right = []
    for number, pair in enumerate(bench.confusable_pairs()):
        vocabulary = Vocabulary(pair, bench.text().text[[bench.text().index(name) for name in pair]])
        key = ("pair", seed, number)
        query_set = bench.cached(key, lambda n=number, v=vocabulary: _query_set(bench, seed, n, v))
        counts = count_pixels(method, memory, vocabulary, query_set)
        right.append(np.diag(counts) / counts.sum(1))
    return 100 * float(np.nanmean(right))


def _query_set(bench: RoseBenchmark, seed: int, number: int, vocabulary: Vocabulary) -> list[EncodedQuery]:
    first, trial = FIRST + 100 * number, bench.trial(seed)
    casts = [(name, 10 * c + i) for c, name in enumerate(vocabulary.names) for i in range(IMAGES)]
    samples = [trial.sample(first + i, [(name, trial.individual(i))]) for name, i in casts]
    return bench.encode(samples, vocabulary)


def _ambiguity(fusion: str) -> list[Claim]:
    def with_memory(bench: RoseBenchmark, seed: int) -> float:
        return pairwise_accuracy(bench, seed, bench.rose(fusion), bench.trained_memory(seed))

    says = f"{fusion} with memory: things that text confuses are told apart better than by"
    rivals: dict[str, Measure] = {
        "the same weights without memory": lambda bench, seed: pairwise_accuracy(
            bench, seed, bench.rose(fusion), None
        ),
        "text only": lambda bench, seed: pairwise_accuracy(bench, seed, ZeroShot(), None),
    }
    return [
        Claim(
            "ambiguity",
            f"{says} {name}",
            MORE,
            difference(with_memory, rival),
            source=ARTICLE,
            unit="% of pixels",
        )
        for name, rival in rivals.items()
    ]


def _domain(fusion: str, domain: str) -> list[Claim]:
    def effect(one: tuple, other: tuple) -> Measure:
        """mIoU of one (support, query[, whether a memory is used]) less that of another."""
        return lambda bench, seed: miou_difference(
            bench.setting(fusion, *one), bench.setting(fusion, *other)
        )(bench, seed)

    both, name = f"day+{domain}", "domain shift"
    return [
        Claim(name, f"{fusion}, {domain} queries: a day memory over no memory", MORE,
              effect(("day", domain), ("day", domain, False)), source=ARTICLE),
        Claim(name, f"{fusion}, {domain} queries: {domain} rows added to the day's", MORE,
              effect((both, domain), ("day", domain)), source=ARTICLE),
        Claim(name, f"{fusion}, day queries: {domain} rows added to the day's", NO_WORSE,
              effect((both, "day"), ("day", "day"))),
    ]  # fmt: skip


def claims(fusion: str) -> list[Claim]:
    """Statements about one trained model."""
    return _ambiguity(fusion) + [
        row for domain in ("night", "fog", "snow") for row in _domain(fusion, domain)
    ]
