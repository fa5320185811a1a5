"""The exercise of 08_growing_memory."""

import numpy as np

from course import checks, close, exercise, expect, shaped
from rose_kit import SupportMemory, unit


@exercise(
    level=2,
    minutes=15,
    hints=(
        "search for each new row, and ask how many of its neighbours have its name",
        "`memory.lookup(hits.ids).class_names.reshape(hits.ids.shape)` are the names of the "
        "neighbours (R, k); compare them with `rows.class_names[:, None]` and take the mean "
        "of each row",
    ),
    right="Below, it keeps bad rows out of six memories.",
)
def vetted(memory, rows, k=4):
    """(R,) bool: which new rows a memory should let in: at least half of their k nearest bear their name."""
    hits = memory.search(rows.vectors, k)
    names = memory.lookup(hits.ids).class_names.reshape(hits.ids.shape)  # (R, k)
    return (names == rows.class_names[:, None]).mean(1) >= 0.5


@checks(vetted)
def _(answer):
    from rose_kit.memory import Prototypes

    rng, counts = np.random.default_rng(0), (6, 6, 6, 2, 6)
    centres = np.repeat(np.eye(4)[[3, 0, 1, 2, 3]], counts, axis=0)
    names = np.repeat(["owl", "cat", "dog", "fox", "owl"], counts).tolist()
    memory = SupportMemory.from_prototypes(
        unit(centres + 0.05 * rng.normal(size=(26, 4))), names, [f"p{i}" for i in range(26)]
    )
    memory.remove(ids=range(6))  # from here on, the id of a row is not its place
    vectors = unit(np.array([[1.0, 0, 0, 0], [1, 0, 0, 0.1], [0, 1, 0.1, 0], [0.6, 0, 1, 0], [1, 0.1, 0, 0]]))
    told = ["cat", "dog", "dog", "fox", "owl"]  # fox: two of four neighbours are foxes
    rows = Prototypes.make(np.arange(5), vectors, told, [f"new{i}" for i in range(5)])
    before = len(memory)
    found = shaped(answer(memory, rows), (5,), "(R,)")
    expect(len(memory) == before, "adds rows to the memory: only say which ones it should let in")
    expect(found.dtype == bool, "returns numbers where True and False are asked for")
    expect(
        not close(found, [False, True, False, False, False]),
        "takes ids for places, which differ once a row was removed: `memory.lookup(ids)` finds the rows",
    )
    expect(
        not close(found, ~np.array([True, False, True, True, False])),
        "lets in those that contradict their neighbours",
    )
    expect(not found[1], "lets in a 'dog' that lies among cats")
    expect(found[0] and found[2], "refuses a row all of whose neighbours bear its name")
    expect(found[3], "refuses a row half of whose neighbours bear its name: at least half is enough")
    lone = Prototypes.make(np.arange(1), vectors[3:4], ["fox"], ["lone"])
    sole = memory.subset(memory.ids[:13])  # one fox is left: of four neighbours, it is one
    says = "lets in a row one of whose four neighbours bears its name: the nearest row alone is not enough"
    expect(not answer(sole, lone)[0], says)
    expect(answer(sole, lone, 2)[0], "takes no notice of k: with k=2, one fox is half of the neighbours")
    four = SupportMemory.from_prototypes(np.eye(4), ["cat", "dog", "owl", "fox"], list("abcd"))
    middle = Prototypes.make(np.arange(1), unit(np.array([[1.0, 0.9, 0.8, 0.7]])), ["cat"], ["new"])
    says = "lets in a row whose four neighbours have four names: no name is more frequent, but none has half"
    expect(not answer(four, middle)[0], says)
    says = "lets in a row two of whose five neighbours bear its name: count them, all alike; half is 2.5"
    expect(not answer(memory, rows, 5)[3], says)
