"""Solutions of 02_memory, written by course/build.py from course/n02.py."""

import numpy as np

from rose_kit import unit


def prototypes_of(counts, x):
    """(C, D) prototypes, of length 1: the mean of the patches, each counted by the pixels it shares.

    Args: counts (N, C) pixels of each class in each patch; x (N, D) features of the patches.
    """
    membership = counts / counts.sum(0)  # (N, C), columns add up to 1
    return unit(membership.T @ x)  # (C, N) @ (N, D) -> (C, D)


def forget_domain(memory, domain):
    """Remove every image whose metadata has this domain; returns how many rows went."""
    rows = memory.rows
    gone = {
        i for i, facts in zip(rows.image_ids, rows.metadata, strict=True) if facts.get("domain") == domain
    }
    return sum(memory.remove(image_id=image_id) for image_id in gone)


def diverse(memory, name, n):
    """(n,) ids of prototypes of one class that differ most from each other."""
    rows = memory.rows.take(memory.class_names == name)
    taken = [0]
    while len(taken) < min(n, len(rows.ids)):
        nearest = (rows.vectors @ rows.vectors[taken].T).max(1)  # (R,) cosine to the nearest one taken
        nearest[taken] = np.inf
        taken.append(int(nearest.argmin()))
    return rows.ids[taken]
