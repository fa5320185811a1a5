"""The exercises of 10_trainable_rose."""

import numpy as np

from course import OVERFLOW, agrees, checks, close, exercise, expect, shaped
from rose_kit import SupportMemory, unit


@exercise(
    level=2,
    minutes=15,
    hints=(
        "a softmax over the k scores of a patch makes weights that add up to 1; then sum the rows by them",
        "with `w` (N, k) the softmax of `scores / temperature`, the sum is `(w[..., None] * rows).sum(1)` of "
        "shape (N, D); add it, times the gate, to z",
    ),
    right="The next figure is made with it.",
)
def blend(z, scores, rows, gate, temperature):
    """(N, D) patches with their rows blended in, each row weighed by a softmax of its score.

    Args: z (N, D) patches; scores (N, k) cosines; rows (N, k, D); gate (N, 1); temperature above 0,
    however small.
    """
    w = np.exp((scores - scores.max(1, keepdims=True)) / temperature)  # (N, k)
    w = w / w.sum(1, keepdims=True)  # the weights of a patch add up to 1
    return z + gate * (w[..., None] * rows).sum(1)  # (N, k, 1) * (N, k, D) -> (N, D)


@checks(blend)
def _(answer):
    rng = np.random.default_rng(0)
    z, scores, rows = rng.normal(size=(5, 4)), rng.uniform(-1, 1, (5, 3)), rng.normal(size=(5, 3, 4))
    gate, temperature = rng.uniform(0, 2, (5, 1)), 0.5
    found = shaped(answer(z, scores, rows, gate, temperature), (5, 4), "(N, D)")
    w = np.exp(scores / temperature)
    w = w / w.sum(1, keepdims=True)
    mix = gate * (w[..., None] * rows).sum(1)
    across = np.exp(scores / temperature) / np.exp(scores / temperature).sum(0)
    wrong = [
        (gate * z + mix, "multiplies the patch by the gate as well: only the rows are"),
        ((1 - gate) * z + mix, "takes from the patch what it gives to the rows: z is added whole"),
        (unit(z + mix), "scales the sum to length 1: the formula does not"),
        (
            z + gate * (across[..., None] * rows).sum(1),
            "takes the softmax over the patches: over the k of each",
        ),
        (gate * (w[..., None] * rows).sum(1), "leaves out the patch itself: the blend is added to z"),
        (z + (w[..., None] * rows).sum(1), "takes no notice of the gate"),
        (z + gate * rows.mean(1), "weighs all rows alike: a better score counts more"),
        (blend(z, scores, rows, gate, 1), "takes no notice of the temperature"),
        (z + gate * (scores[..., None] * rows).sum(1), "weighs by the scores themselves: take their softmax"),
        (
            z + gate * rows[np.arange(5), scores.argmax(1)],
            "takes the best row alone: each of the k has a part",
        ),
        ((z + mix) / 2, "halves the sum: the formula does not"),
        (blend(z, scores, rows, gate, 1 / temperature), "multiplies by the temperature: divide by it"),
        (
            z + gate * (np.exp(scores / temperature)[..., None] * rows).sum(1),
            "uses weights that do not add up to 1: divide by their sum",
        ),
    ]
    for other, says in wrong:
        expect(not close(found, other), says)
    expect(close(found, blend(z, scores, rows, gate, temperature)), "weighs the rows by something else")
    says = "is right at a temperature of 0.5 alone"
    agrees(answer, blend, says, (z, scores, rows, gate, 0.05), (z[:2], scores[:2], rows[:2], gate[:2], 3.0))
    agrees(answer, blend, OVERFLOW, (z, scores, rows, gate, 1e-3))


@exercise(
    level=1,
    minutes=10,
    hints=(
        "work on a copy, so that the memory that is given stays as it is",
        "`memory.copy()` makes the copy, `remove(class_name=name)` takes the rows away, and "
        "returns their number: return the copy",
    ),
    right="The third map of the next figure is made with it.",
)
def forget(memory, name):
    """The memory without a class; the one it is given stays as it is."""
    part = memory.copy()
    part.remove(class_name=name)
    return part


@checks(forget)
def _(answer):
    vectors = unit(np.random.default_rng(0).normal(size=(6, 4)))
    memory = SupportMemory.from_prototypes(
        vectors, ["dog", "cat", "dog", "cat", "dogfish", "dog"], list("xabbcd")
    )
    memory.remove(ids=[0])  # from here on, the id of a row is not its place
    found = answer(memory, "dog")
    expect(len(memory) == 5, "takes the rows from the memory it is given: work on a copy of it")
    expect(found is not None, "returns None: is the `return` missing?")
    wanted = f"returns a {type(found).__name__} where a memory is asked for (`remove` returns a count)"
    expect(isinstance(found, SupportMemory), wanted)
    expect("dog" not in found.classes, "still holds the class")
    expect("dogfish" in found.classes, "takes 'dogfish', too, whose name only begins alike")
    expect(len(found) != 2, "takes whole images, in which other classes have rows, too")
    expect(len(found) == 3, f"holds {len(found)} rows where 3 are of other classes")
    right = forget(memory, "dog")
    same = close(found.vectors, right.vectors) and found.class_names.tolist() == right.class_names.tolist()
    same = same and found.image_ids.tolist() == right.image_ids.tolist()
    expect(same, "mixes up vectors, names and images of the rows that stay")
