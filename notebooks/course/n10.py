"""The exercise of 10_trainable_rose."""

import numpy as np

from course import checks, exercise, expect
from rose_kit import SupportMemory, unit


@exercise(
    level=1,
    minutes=10,
    hints=(
        "work on a copy, so that the memory that is given stays as it is",
        "`memory.copy()` makes the copy, `remove(class_name=name)` takes the rows away, and "
        "returns their number: return the copy",
    ),
    right="What does the model answer with it?",
)
def forget(memory, name):
    """The memory without a class; the one it is given stays as it is."""
    part = memory.copy()
    part.remove(class_name=name)
    return part


@checks(forget)
def _(answer):
    vectors = unit(np.random.default_rng(0).normal(size=(5, 4)))
    memory = SupportMemory.from_prototypes(vectors, ["cat", "dog", "cat", "fox", "dog"], list("abcde"))
    found = answer(memory, "dog")
    expect(len(memory) == 5, "takes the rows from the memory it is given: work on a copy of it")
    expect(found is not None, "returns None: is the `return` missing?")
    wanted = f"returns a {type(found).__name__} where a memory is asked for (`remove` returns a count)"
    expect(isinstance(found, SupportMemory), wanted)
    expect("dog" not in found.classes, "still holds the class")
    expect(len(found) == 3, f"holds {len(found)} rows where 3 are of other classes")
