"""Claims about what is retrieved, and from where."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from experiments.claims.benchmark import Setting
from experiments.claims.claim import Claim, miou_difference
from experiments.claims.few_shots import WORDS, rns
from experiments.claims.verdict import EQUAL, MORE
from rose_kit.adapter import RNS
from rose_kit.fusion import ZeroShot, retrieve
from rose_kit.fusion.retrieval import Retrieved
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


def furthest(features: NDArray, memory: SupportMemory, vocabulary: Vocabulary, k: int) -> Retrieved:
    """The k furthest prototypes of each query; scores are those of the opposite query, best first."""
    return retrieve(-features, memory, vocabulary, k)


def random(features: NDArray, memory: SupportMemory, vocabulary: Vocabulary, k: int) -> Retrieved:
    """As many prototypes as nearest retrieval finds, at random; each image has a draw of its own.

    Every chosen prototype is a neighbour of every query: `positions` is (N, R).
    """
    size = len(retrieve(features, memory, vocabulary, k))
    candidates = np.concatenate([memory.ids[memory.class_names == name] for name in vocabulary.names])
    rng = np.random.default_rng([0, zlib.crc32(np.ascontiguousarray(features).tobytes())])
    part = memory.subset(rng.choice(candidates, size, replace=False))
    return retrieve(features, part, vocabulary, max(size, 1))


def random_in_classes(features: NDArray, memory: SupportMemory, vocabulary: Vocabulary, k: int) -> Retrieved:
    """As many prototypes as nearest retrieval finds, at random from the classes that it finds."""
    return random(features, in_nearest_classes(features, memory, vocabulary, k), vocabulary, k)


# Best first, by the claim.
RETRIEVALS = {
    "nearest": retrieve,
    "classes": whole_classes,
    "random-in-classes": random_in_classes,
    "random": random,
    "furthest": furthest,
}


def retrieving(how: str) -> Setting:
    """RNS at five shots, trained on prototypes chosen in this way."""
    return Setting(RNS(retrieve=RETRIEVALS[how]), SHOTS)


def _order(one: str, other: str, statement: str, paper: str) -> Claim:
    effect = miou_difference(retrieving(one), retrieving(other))
    return Claim("retrieval", statement, MORE, effect, paper, "Figure 5, " + WORDS)


def from_to(support: str, query: str, method=None) -> Setting:
    """RNS (or another method) with five shots of one domain, asked about another."""
    return Setting(method or RNS(), SHOTS, support, query)


def _domains(there: str, here: str) -> tuple[Claim, Claim]:
    far, near, none = from_to(there, here), from_to(here, here), from_to(here, here, ZeroShot())
    statement = f"{here} queries: RNS with a {there} memory over zero-shot"
    better = f"{here} queries: a {here} memory over a {there} memory"
    source = "Figure 9, " + WORDS
    return (
        Claim("domain", statement, MORE, miou_difference(far, none), "still improves", source),
        Claim("domain", better, MORE, miou_difference(near, far), "in-domain is best", source),
    )


CLAIMS = (
    _order("nearest", "classes", "nearest prototypes over all of the classes found", "slightly better"),
    _order("classes", "random", "all prototypes of the classes found over random ones", "better"),
    _order(
        "random-in-classes",
        "random",
        "random prototypes of the classes found over random of all",
        "clearly better",
    ),
    _order("random", "furthest", "random prototypes over the furthest", "furthest is worst"),
    Claim(
        "k",
        "k = 4 over k = 1",
        MORE,
        miou_difference(rns(SHOTS), rns(SHOTS, k=1)),
        "clearly",
        "Table 5, " + WORDS,
    ),
    Claim(
        "k",
        "k = 16 over k = 4",
        EQUAL,
        miou_difference(rns(SHOTS, k=16), rns(SHOTS)),
        "about equal",
        "Table 5, " + WORDS,
    ),
    *_domains("day", "night"),
    *_domains("night", "day"),
)
