"""Things that text alone takes for each other."""

from __future__ import annotations

import numpy as np

from experiments.rose.benchmark import RoseBenchmark
from rose_kit.evaluation import EncodedQuery, count_pixels
from rose_kit.fusion import Method
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
