"""The exercises of 02_memory."""

import numpy as np

from course import checks, close, exercise, expect, shaped
from rose_kit import SupportMemory, unit


@exercise(
    level=1,
    minutes=10,
    hints=(
        "turn the counts of each class into shares that add up to 1, then average the features with them",
        "`counts / counts.sum(0)` is P of shape (N, C); its transpose times x is (C, D); `unit` scales rows "
        "to length 1",
    ),
    right="The prototypes of the next figure are yours.",
)
def prototypes_of(counts, x):
    """(C, D) prototypes, of length 1: the mean of the patches, each counted by the pixels it shares.

    Args: counts (N, C) pixels of each class in each patch; x (N, D) features of the patches.
    """
    membership = counts / counts.sum(0)  # (N, C), columns add up to 1
    return unit(membership.T @ x)  # (C, N) @ (N, D) -> (C, D)


@checks(prototypes_of)
def _(answer):
    rng = np.random.default_rng(0)
    counts, x = rng.integers(1, 65, (6, 3)).astype(float), unit(rng.normal(size=(6, 4)))
    counts[0, 1] = 0
    found = shaped(answer(counts, x), (3, 4), "(C, D)")
    wrong = [
        (unit((counts > 0).T.astype(float) @ x), "counts every patch that a class touches as one"),
        (unit(np.eye(3)[counts.argmax(1)].T @ x), "gives each patch to one class alone: use the shares"),
        (
            unit((counts / counts.sum(1, keepdims=True)).T @ x),
            "divides by the sum of a patch, not of a class",
        ),
    ]
    for other, says in wrong:
        expect(not close(found, other), says)
    expect(close(np.linalg.norm(found, axis=1), np.ones(3)), "returns rows whose length is not 1: scale them")
    expect(close(found, prototypes_of(counts, x)), "weighs the patches in another way than equation 2")


@exercise(
    level=1,
    minutes=10,
    hints=(
        "find the ids of these images in the metadata of the rows, then remove image by image",
        "`zip(memory.rows.image_ids, memory.rows.metadata)` gives the image id and the facts "
        "of each row; collect the ids in a set, and sum what `memory.remove(image_id=...)` "
        "returns for each",
    ),
    right="Forget the night, and look at 'same class' again.",
)
def forget_domain(memory, domain):
    """Remove every image whose metadata has this domain; returns how many rows went."""
    rows = memory.rows
    gone = {
        i for i, facts in zip(rows.image_ids, rows.metadata, strict=True) if facts.get("domain") == domain
    }
    return sum(memory.remove(image_id=image_id) for image_id in gone)


@checks(forget_domain)
def _(answer):
    memory = _small_memory()
    found = answer(memory, "night")
    left = sorted(set(memory.image_ids))
    expect(left != ["a", "b", "c", "d", "e", "f"], "removes nothing from the memory it is given")
    expect("b" not in left or "d" not in left or "a" in left, "removes the other domain, and keeps this one")
    expect(
        left != ["a", "c", "f"],
        "removes 'e', too, which has the value 'night', but under another key than 'domain'",
    )
    expect("f" in left or "b" in left, "removes 'f', too, whose domain is 'nightfall'")
    expect(left == ["a", "c", "e", "f"], f"leaves the images {left} where 'b' and 'd' alone are by night")
    expect(found is not None, "returns None where the number of rows that went is asked for")
    expect(found != 2, "returns how many images went: rows are asked for, several to an image")
    expect(found == 5, f"returns {found} where 5 rows went")
    expect(answer(_small_memory(), "day") == 3, "takes no notice of the domain that it is given")
    expect(answer(memory, "fog") == 0, "does not return 0 where no image has the domain")


def _small_memory():
    """Images a and c by day, b and d by night, of 2, 2, 1 and 3 rows, and e and f that only seem so."""
    from rose_kit.memory import Prototypes

    images = ["z", "a", "a", "b", "b", "c", "d", "d", "d", "e", "f"]
    names = ["sky", "sky", "bus", "sky", "bus", "sky", "sky", "bus", "dog", "dog", "dog"]
    about = {"e": {"film": "night"}, "f": {"domain": "nightfall"}}
    facts = [about.get(i, {"domain": "day" if i in "ac" else "night"}) for i in images]
    memory = SupportMemory(4)
    vectors = unit(np.random.default_rng(0).normal(size=(11, 4)))
    memory.extend(Prototypes.make(np.arange(11), vectors, names, images, metadata=facts))
    memory.remove(image_id="z")  # from here on, the id of a row is not its place
    return memory


@exercise(
    level=2,
    minutes=20,
    hints=(
        "start with one, then again and again take the one farthest from all taken",
        "the cosine of each row to the nearest one taken is `(vectors @ "
        "vectors[taken].T).max(1)`; take the row where it is smallest, never one that is "
        "taken already; return ids, not positions",
    ),
    right="Keep five prototypes per class with it, and measure what is lost.",
)
def diverse(memory, name, n):
    """(n,) ids of prototypes of one class that differ most from each other."""
    rows = memory.rows.take(memory.class_names == name)
    taken = [0]
    while len(taken) < min(n, len(rows.ids)):
        nearest = (rows.vectors @ rows.vectors[taken].T).max(1)  # (R,) cosine to the nearest one taken
        nearest[taken] = np.inf
        taken.append(int(nearest.argmin()))
    return rows.ids[taken]


@checks(diverse)
def _(answer):
    angles = np.radians([0, 2, 4, 6, 150, 152, 80])  # heaps: 0 to 6, 150 to 152, 80 degrees
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    vectors = np.vstack([[[0.6, -0.8]] * 3, vectors])
    names = ["dog", "dog", "dog", *["cat"] * 7]
    memory = SupportMemory.from_prototypes(vectors, names, [f"p{i}" for i in range(10)])
    memory.remove(ids=[0])  # from here on, the id of a row is not its place
    found = answer(memory, "cat", 3)
    expect(found is not None, "returns None: is the `return` missing?")
    found = np.asarray(found).ravel().tolist()
    expect(len(found) == 3, f"returns {len(found)} ids where 3 are asked for")
    expect(len(set(found)) == 3, f"returns the same prototype more than once: {found}")
    expect(
        set(found) & {0, 1, 2} == set(),
        "returns positions among the class's rows, or rows of another class: ids "
        "are asked for, those in memory.ids",
    )
    expect(
        set(found) - {3, 4, 5, 6} != set(), "takes rows that lie close together: the farthest are asked for"
    )
    heaps = {0 if i < 7 else 1 if i < 9 else 2 for i in found}
    expect(
        len(heaps) == 3,
        "takes two that lie close together: each new one has to be far from the nearest of all those taken",
    )
    every = sorted(np.asarray(answer(memory, "cat", 9)).ravel().tolist())
    expect(every == list(range(3, 10)), "does not return each prototype once where a class has fewer than n")
