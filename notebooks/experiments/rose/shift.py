"""Ambiguity, and light that the memory has not seen."""

from __future__ import annotations

import numpy as np

from data_scripts.scenes import CLASSES
from experiments.claims.row import Measure, Row, gain
from experiments.claims.verdict import MORE, NO_WORSE
from experiments.rose.lab import ARTICLE, RoseLab, difference
from rose_kit.fusion import Method, ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.metrics import confusion_matrix
from rose_kit.segmenter import paint
from rose_kit.types import Query, Vocabulary

PICTURES = 4  # of each class of a pair
FIRST = 15_000  # of the scenes of a trial: behind those of its classes


def told_apart(lab: RoseLab, seed: int, method: Method, memory: SupportMemory | None) -> float:
    """Pixels of two things alike that get the right one of the two names, in percent; chance is 50.

    The mean over both things and over all pairs that text alone confuses.
    """
    right = []
    for number, pair in enumerate(lab.pairs()):
        chosen = [lab.text().index(name) for name in pair]
        vocabulary = Vocabulary(pair, lab.text().text[chosen])
        table = np.full(256, 255)
        table[[CLASSES.index(name) for name in pair]] = (0, 1)
        counts = np.zeros((2, 2), np.int64)
        for features, mask in lab.once(("pair", seed, number), lambda n=number: _pictures(lab, seed, n)):
            query = Query.of(features)
            labels, _ = paint(np.asarray(method.predict(query, memory, vocabulary)), query, features)
            counts += confusion_matrix(labels, table[mask], 2)
        right.append(np.diag(counts) / counts.sum(1))
    return 100 * float(np.nanmean(right))


def _pictures(lab: RoseLab, seed: int, number: int) -> list:
    first, trial = FIRST + 100 * number, lab.trial(seed)
    casts = [(name, 10 * c + i) for c, name in enumerate(lab.pairs()[number]) for i in range(PICTURES)]
    return [trial.picture(first + i, [(name, trial.individual(i))]) for name, i in casts]


def _ambiguity(fusion: str) -> list[Row]:
    def with_memory(lab: RoseLab, seed: int) -> float:
        return told_apart(lab, seed, lab.rose(fusion), lab.trained_memory(seed))

    says = f"{fusion} with memory: things that text confuses are told apart better than by"
    rivals: dict[str, Measure] = {
        "the same weights without memory": lambda lab, seed: told_apart(lab, seed, lab.rose(fusion), None),
        "text only": lambda lab, seed: told_apart(lab, seed, ZeroShot(), None),
    }
    return [
        Row(
            "ambiguity",
            f"{says} {name}",
            MORE,
            difference(with_memory, rival),
            source=ARTICLE,
            unit="% of pixels",
        )
        for name, rival in rivals.items()
    ]


def _domain(fusion: str, domain: str) -> list[Row]:
    def case(lab: RoseLab, support: str, query: str, memory: bool = True):
        return lab.case(fusion, support, query, memory)

    both = f"day+{domain}"
    return [
        Row("domain shift", f"{fusion}, {domain} queries: a day memory over no memory", MORE,
            lambda lab, seed: gain(case(lab, "day", domain), case(lab, "day", domain, False))(lab, seed),
            source=ARTICLE),
        Row("domain shift", f"{fusion}, {domain} queries: {domain} rows added to the day's", MORE,
            lambda lab, seed: gain(case(lab, both, domain), case(lab, "day", domain))(lab, seed),
            source=ARTICLE),
        Row("domain shift", f"{fusion}, day queries: {domain} rows added to the day's", NO_WORSE,
            lambda lab, seed: gain(case(lab, both, "day"), case(lab, "day", "day"))(lab, seed)),
    ]  # fmt: skip


def rows(fusion: str) -> list[Row]:
    """Statements about one trained model."""
    return _ambiguity(fusion) + [
        row for domain in ("night", "fog", "snow") for row in _domain(fusion, domain)
    ]
