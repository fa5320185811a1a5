"""The regulariser of RNS, chosen on the support set: each image asked of a memory without it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from rose_kit.adapter.samples import class_relevance
from rose_kit.fusion.method import SupportExample
from rose_kit.fusion.text import softmax
from rose_kit.memory import SupportMemory
from rose_kit.types import IGNORE, Query, Vocabulary

if TYPE_CHECKING:
    from rose_kit.adapter.rns import RNS

GRID = tuple(0.12 * 10 ** (-half / 2) for half in range(5))  # 0.12 to 0.0012 by half decades
IMAGES = 16  # asked; more cost more and change little
FLOOR = 1e-3  # least probability counted, so that no single patch decides


def best_mu(
    method: RNS, memory: SupportMemory, vocabulary: Vocabulary, support: Iterable[SupportExample]
) -> float | None:
    """The value of `GRID` under which left-out support images are the most likely.

    Likelihood, since mIoU rewards rare classes that a left-out image takes from the memory.

    Args:
        method: makes and solves the samples.
        memory, vocabulary, support: as for `Method.fit`; the first `IMAGES` are asked.

    Returns:
        None if no support image leaves anything to learn from.
    """
    likelihood, asked = np.zeros(len(GRID)), 0
    for example, target, image_id in islice(support, IMAGES):
        rest = memory.image_ids != image_id
        others = memory.subset(memory.ids[rest])
        query, target = Query.of(example), np.asarray(target)
        if not (rest.any() or vocabulary.has_text.any()):
            continue
        samples = method.samples(query, method.retrieve(query, others, vocabulary), others, vocabulary)
        weight = samples.weight(class_relevance(query.image_feature, vocabulary, method.tau))
        known = np.flatnonzero((target >= 0) & (target != IGNORE))
        for i, mu in enumerate(GRID):
            p = softmax(method.solve(samples, weight, mu=mu).logits(query.features[known]))  # (n, C)
            likelihood[i] += np.log(p[np.arange(len(known)), target[known]].clip(FLOOR)).sum()
        asked += len(known)
    return GRID[int(likelihood.argmax())] if asked else None
