"""Noise in the labels of a memory, and what tells the wrong rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion import ZeroShot
from rose_kit.memory import Prototypes, SupportMemory
from rose_kit.types import Vocabulary, unit


def with_label_noise(
    memory: SupportMemory, share: float, seed: int
) -> tuple[SupportMemory, NDArray[np.bool_]]:
    """A copy in which a share of the rows bears the name of a class that its image does not hold.

    Args:
        memory: stays as it is; two classes at least.
        share: of the rows, in [0, 1].
        seed: draws the rows and their new names. A smaller share changes a part of the same rows.

    Returns:
        the copy, its rows in the same order; (P,) which of them are wrong.

    Raises:
        ValueError: the share is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    wrong = np.random.default_rng(seed).permutation(len(memory)) < round(share * len(memory))  # (P,)
    rng, rows = np.random.default_rng([seed, 1]), memory.rows
    held, names = set(memory.rows.keys()), memory.class_names.astype(object)
    drawn = [rng.permutation(memory.classes).tolist() for _ in names]  # for every row: shares are nested
    for i in np.flatnonzero(wrong):
        image = str(memory.image_ids[i])
        names[i] = next((n for n in drawn[i] if (image, n) not in held), names[i])
        wrong[i] = names[i] != memory.class_names[i]
        held.add((image, names[i]))
    noisy = SupportMemory(memory.dim, fingerprint=memory.fingerprint, encoder=memory.encoder)
    metadata = list(rows.metadata)
    noisy.extend(
        Prototypes.make(rows.ids, rows.vectors, list(names), rows.image_ids.tolist(), metadata=metadata)
    )
    return noisy, wrong


def agreement(memory: SupportMemory, k: int = 5) -> NDArray[np.float64]:
    """(P,) in [0, 1]: the share of a row's k nearest rows of other images that bear its class."""
    agree = np.zeros(len(memory))
    for image in memory.images:
        own = np.flatnonzero(memory.image_ids == image)
        found = memory.search(memory.vectors[own], k, exclude_images=[image]).rows  # (n, k)
        names = np.append(memory.class_names, "")[np.searchsorted(memory.ids, found)]
        names[found < 0] = ""
        agree[own] = (names == memory.class_names[own, None]).sum(1) / np.maximum((found >= 0).sum(1), 1)
    return agree


def leave_one_out_similarity(memory: SupportMemory) -> NDArray[np.float64]:
    """(P,) in [-1, 1]: cosine of a row with the mean of its class's other rows; NaN if it has none."""
    rest = memory.class_sums(memory.class_names.tolist()) - memory.vectors  # (P, D) the sum of the others
    alone = np.array([memory.summary()[name] for name in memory.class_names]) < 2
    return np.where(alone, np.nan, (unit(np.where(alone[:, None], 1, rest)) * memory.vectors).sum(1))


def zero_shot_confidence(memory: SupportMemory, vocabulary: Vocabulary) -> NDArray[np.float64]:
    """(P,) in [0, 1]: the zero-shot probability of a row's class.

    Raises:
        ValueError: a class of the memory is not in the vocabulary.
    """
    probabilities = np.asarray(ZeroShot().predict(memory.vectors, None, vocabulary))  # (P, C)
    return probabilities[
        np.arange(len(memory)), [vocabulary.index(name) for name in memory.class_names.tolist()]
    ]


def filter_lowest(memory: SupportMemory, score: NDArray, share: float) -> SupportMemory:
    """The memory without a share of its rows: those of the lowest score, class by class.

    Going class by class keeps rare classes, whose rows have fewer like them. The last row of a class
    stays, and so does one whose score is NaN: there is nothing to judge it by.

    Args:
        memory: P rows; stays as it is.
        score: (P,) high for good rows.
        share: to leave out, in [0, 1].

    Raises:
        ValueError: the share is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    keep = np.ones(len(memory), dtype=bool)
    for name in memory.classes:
        rows = np.flatnonzero((memory.class_names == name) & ~np.isnan(score))
        lowest = rows[np.argsort(score[rows], kind="stable")]
        keep[lowest[: min(round(share * len(rows)), max(len(rows) - 1, 0))]] = False
    return memory.subset(memory.ids[keep])
