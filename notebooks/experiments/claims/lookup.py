"""Other retrievals than that of the nearest, to compare with."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion import retrieve
from rose_kit.fusion.retrieval import Retrieved
from rose_kit.memory import SupportMemory
from rose_kit.types import Vocabulary


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
