"""Claims about what is retrieved, and from where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.claims.few_shots import WORDS, rns
from experiments.claims.lab import Case
from experiments.claims.row import Row, gain
from experiments.claims.verdict import EQUAL, MORE
from rose_kit.adapter import RNS
from rose_kit.fusion import Retrieved, ZeroShot, retrieve
from rose_kit.fusion.retrieval import retrieve_random
from rose_kit.memory import SupportMemory
from rose_kit.types import Vocabulary

SHOTS = 5
KS = (1, 4, 16)


def in_nearest_classes(
    features: NDArray, memory: SupportMemory, vocabulary: Vocabulary, k: int
) -> SupportMemory:
    """The part of a memory that holds the classes which nearest retrieval finds."""
    classes = np.unique(retrieve(features, memory, vocabulary, k).classes)
    return memory.subset(memory.ids[np.isin(memory.class_names, np.array(vocabulary.names)[classes])])


def whole_classes(features: NDArray, memory: SupportMemory, vocabulary: Vocabulary, k: int) -> Retrieved:
    """Every prototype of the classes that nearest retrieval finds."""
    part = in_nearest_classes(features, memory, vocabulary, k)
    return retrieve(features, part, vocabulary, len(part))


def random_in_classes(features: NDArray, memory: SupportMemory, vocabulary: Vocabulary, k: int) -> Retrieved:
    """As many prototypes as nearest retrieval finds, at random from the classes that it finds."""
    return retrieve_random(features, in_nearest_classes(features, memory, vocabulary, k), vocabulary, k)


# Best first, by the claim.
RETRIEVALS = {
    "nearest": "nearest",
    "classes": whole_classes,
    "random-in-classes": random_in_classes,
    "random": "random",
    "furthest": "furthest",
}


def retrieving(how: str) -> Case:
    """RNS at five shots, trained on prototypes chosen in this way."""
    return Case(RNS(retrieve=RETRIEVALS[how]), SHOTS)


def _order(one: str, other: str, says: str, paper: str) -> Row:
    effect = gain(retrieving(one), retrieving(other))
    return Row("retrieval", says, MORE, effect, paper, "Figure 5, " + WORDS)


def from_to(support: str, query: str, method=None) -> Case:
    """RNS (or another method) with five shots of one domain, asked about another."""
    return Case(method or RNS(), SHOTS, support, query)


def _domains(there: str, here: str) -> tuple[Row, Row]:
    far, near, none = from_to(there, here), from_to(here, here), from_to(here, here, ZeroShot())
    says = f"{here} queries: RNS with a {there} memory over zero-shot"
    better = f"{here} queries: a {here} memory over a {there} memory"
    source = "Figure 9, " + WORDS
    return (
        Row("domain", says, MORE, gain(far, none), "still improves", source),
        Row("domain", better, MORE, gain(near, far), "in-domain is best", source),
    )


ROWS = (
    _order("nearest", "classes", "nearest prototypes over all of the classes found", "slightly better"),
    _order("classes", "random", "all prototypes of the classes found over random ones", "better"),
    _order(
        "random-in-classes",
        "random",
        "random prototypes of the classes found over random of all",
        "clearly better",
    ),
    _order("random", "furthest", "random prototypes over the furthest", "furthest is worst"),
    Row("k", "k = 4 over k = 1", MORE, gain(rns(SHOTS), rns(SHOTS, k=1)), "clearly", "Table 5, " + WORDS),
    Row(
        "k",
        "k = 16 over k = 4",
        EQUAL,
        gain(rns(SHOTS, k=16), rns(SHOTS)),
        "about equal",
        "Table 5, " + WORDS,
    ),
    *_domains("day", "night"),
    *_domains("night", "day"),
)
