"""The exercise of 07_partial_support."""

import numpy as np

from course import checks, exercise, expect
from course.pseudo_labels import pseudo_labels
from rose_kit import Query, SupportMemory, Vocabulary, unit


@exercise(
    level=3,
    minutes=20,
    hints=(
        "find the classes whose pseudo-label is too small, and make a shorter vocabulary without them",
        "`pseudo_labels(query, memory, vocabulary)` has `classes` and `scores['size']`; a "
        "`Vocabulary` takes the names, the rows of `text` whose `owner` stays, and their "
        "owners counted anew from 0",
    ),
    right="Ask RNS with it: does mIoU rise, and what does it cost where the class is there?",
)
def trusted(query, memory, vocabulary, least=0.05):
    """The vocabulary less the unseen classes whose pseudo-label claims under `least` of the image.

    Classes that have prototypes, and classes without a pseudo-label, stay; so do the texts of all that stay.
    """
    found = pseudo_labels(query, memory, vocabulary)
    doubtful = set(found.classes[found.scores["size"] < least].tolist())
    keep = [c for c in range(len(vocabulary)) if c not in doubtful]
    rows = np.isin(vocabulary.owner, keep)
    owner = np.searchsorted(keep, vocabulary.owner[rows])
    return Vocabulary([vocabulary.names[c] for c in keep], vocabulary.text[rows], owner)


def _drawn(seed):
    """An image of 30 patches, a memory of two classes, and six classes of one to three texts each."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(6), rng.integers(1, 4, 6))
    text = unit(rng.normal(size=(len(owner), 8))).astype(np.float32)
    x = unit(text[rng.integers(0, len(owner), 30)] + 0.3 * rng.normal(size=(30, 8)))
    memory = SupportMemory.from_prototypes(text[:2], ["sky", "grass"], ["p", "q"])
    return Query.of(x), memory, Vocabulary(["sky", "bus", "grass", "cat", "moon", "kite"], text, owner)


@checks(trusted)
def _(answer):
    axes, noise = np.eye(7, dtype=np.float32), np.random.default_rng(0)
    names = ["sky", "bus", "grass", "cat", "moon", "kite"]  # sky and grass have prototypes
    bus, kite = [axes[1], unit(axes[1] + 0.1 * axes[4])], list(unit(axes[5] + [[0.3], [-0.3]] * axes[6]))
    text = np.stack([axes[0], *bus, axes[2], axes[3], axes[4], *kite])  # two texts each
    owner = np.array([0, 1, 1, 2, 3, 4, 5, 5])
    memory = SupportMemory.from_prototypes(axes[[0, 2]], ["sky", "grass"], ["p", "q"])
    of = [0] * 15 + [1] * 21 + [3] * 1 + [4] * 1 + [6] * 1 + [7] * 1  # rows of text; no moon, and of forty
    x = unit(text[of] + 0.05 * noise.normal(size=(40, 7)))  # one of grass, one of cat, two of kite
    x[-2:] = unit(kite + 0.985 * axes[4])  # which could nearly be the moon: their size counts, not how sure
    vocabulary = Vocabulary(names, text, owner)
    found = answer(Query.of(x), memory, vocabulary, 0.05)
    expect(found is not None, "returns None: is the `return` missing?")
    expect(isinstance(found, Vocabulary), f"returns a {type(found).__name__} where a Vocabulary is asked for")
    left = list(found.names)
    expect(left != names, "drops nothing: 'cat' claims one patch in forty and has no prototype")
    expect("grass" in left, "drops 'grass', which has a prototype and needs no pseudo-label")
    expect("cat" not in left, "keeps 'cat', whose pseudo-label claims one patch in forty")
    expect("bus" in left, "drops 'bus', whose pseudo-label claims more than half of the image")
    says = "exactly `least` of the image, by its two texts together, whatever the other signs say"
    expect("kite" in left, f"drops 'kite', whose pseudo-label claims {says}")
    expect(
        "moon" in left,
        "drops 'moon': no patch is its own, so it has no pseudo-label (a row of text is no class: see owner)",
    )
    few, every = (answer(Query.of(x), memory, vocabulary, least).names for least in (0.7, 0.0))
    expect(
        "bus" not in few and list(every) == names,
        "takes no notice of `least`: at 0.7 'bus' has to go, at 0 nobody",
    )
    expect(found.text is not None, "drops the texts of the classes that stay")
    kept = {n: found.text[found.owner == c] for c, n in enumerate(left)}
    same = all(len(kept[n]) == (2 if n in ("bus", "kite") else 1) for n in left)
    same = same and all(np.allclose(kept[n], text[owner == names.index(n)], atol=1e-5) for n in left)
    expect(same, "mixes up the texts: owner says which class a text belongs to, and its numbers shift")
    for seed in range(6):
        given = _drawn(seed)
        stays, right = (list(one(*given, 0.15).names) for one in (answer, trusted))
        expect(stays == right, f"keeps {stays} of an image of which {right} is right")
