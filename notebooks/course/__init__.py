"""The exercises: `check(answer)` says whether an answer is right, and in words what is wrong with it.

Each notebook has one file here, `n00.py` and so on: the only source of its exercises. A solution and its
docstring make the cell with the gap in the notebook and the page in `solutions/`
(`python notebooks/course/build.py` writes them), and the check beside it makes the message. A lesson goes on
with `yours(answer)`: the reader's function once it is right, the solution until then.
"""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import json
import os
import re
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from IPython import get_ipython
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from rose_kit.data import atomic_write, cache_folder
from rose_kit.types import unknown_name

HERE = Path(__file__).parent
NOTES = "solved_exercises.json"  # in the cache folder

# NumPy's products in the lessons are small, and its threads would wait for torch's: with two of each on two
# cores, lesson 08 took three times as long.
threadpool_limits(1, "blas")

# Torch and open_clip leave a million objects that stay. A full collection goes through all of them, and a
# lesson had eight, a third of a second each; now they are a hundred times as rare.
gc.set_threshold(700, 10, 1000)


class Wrong(Exception):
    """What is wrong with an answer, in words for the one who wrote it."""


@dataclass
class Exercise:
    """One exercise.

    Args:
        solution: a right answer; its name, signature and docstring are those of the gap.
        level: 1 (easy), 2 (medium) or 3 (hard).
        minutes: that it takes.
        hints: the first says where to begin, the second is close to the solution.
        right: what a right answer shows, or what to try next.
        check: takes an answer, raises `Wrong`.
    """

    solution: Callable
    level: int
    minutes: int
    hints: tuple[str, str]
    right: str
    check: Callable[[Callable], None] | None = None

    @property
    def effort(self) -> str:
        """Difficulty and minutes, as in "level 2 of 3, about 15 min"."""
        return f"level {self.level} of 3, about {self.minutes} min"


EXERCISES: dict[str, Exercise] = {}
_GIVEN: Counter[str] = Counter()  # hints that were given, by exercise


def exercise(
    *, level: int, minutes: int, hints: tuple[str, str], right: str = ""
) -> Callable[[Callable], Callable]:
    """Register the solution below as an exercise."""

    def register(solution: Callable) -> Callable:
        EXERCISES[solution.__name__] = Exercise(solution, level, minutes, hints, right)
        return solution

    return register


def checks(solution: Callable) -> Callable[[Callable], Callable]:
    """Register the function below as the check of an exercise."""

    def register(test: Callable) -> Callable:
        EXERCISES[solution.__name__].check = test
        return test

    return register


def names() -> dict[str, str]:
    """Name of each exercise -> its file here, in the order of the lessons."""
    known = {}
    for path in sorted(HERE.glob("[nt]*.py")):
        own = re.findall(r"^@exercise\((?:.|\n)*?^def (\w+)", path.read_text(encoding="utf-8"), re.M)
        known |= dict.fromkeys(own, path.stem)
    return known


def find(name: str) -> Exercise:
    """The exercise of this name.

    Raises:
        ValueError: there is none; lists those there are.
    """
    if name not in (known := names()):
        raise ValueError(f"there is no exercise {name!r}; there are: {', '.join(known)}")
    importlib.import_module(f"{__name__}.{known[name]}")
    return EXERCISES[name]


def verdict(answer: Callable) -> str:
    """What `check` prints: "right", "not done yet" or "not right yet", and why.

    Raises:
        ValueError: the function's name is not that of an exercise.
    """
    name = answer.__name__
    one = find(name)
    try:
        one.check(untouched(answer))
    except NotImplementedError:
        return f"not done yet: {name}"
    except Wrong as wrong:
        return f"not right yet: {name} {wrong}"
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.name == name]
        place = f" in line {lines[-1]} of its cell" if lines else ""
        return f"not right yet: {name} stopped{place}: {type(error).__name__}: {error}"
    return f"right: {name}. {one.right}".strip()


def check(answer: Callable) -> None:
    """Print whether the answer to an exercise is right, or what is wrong with it; what is right is noted.

    Args:
        answer: the completed function; its name says which exercise it answers.
    """
    told = verdict(answer)
    if told.startswith("right: "):
        _note({*_solved(), answer.__name__})
    print(told)


def yours(answer: Callable) -> Callable:
    """The reader's own function if its check finds it right; else the solution, and a line that says so.

    Args:
        answer: the function of an exercise; its name says which one.
    """
    if verdict(answer).startswith("right: "):
        return answer
    print(f"{answer.__name__} is not solved yet: what follows uses the solution")
    return find(answer.__name__).solution


def hint(name: str) -> None:
    """Print the first hint for an exercise, and the second, closer to the solution, when asked again.

    Args:
        name: of the exercise, which is that of its function.

    Raises:
        ValueError: there is no such exercise; lists those there are.
    """
    hints = find(name).hints
    number = _GIVEN[name] = min(_GIVEN[name] + 1, len(hints))
    print(f"hint {number} of {len(hints)}: {hints[number - 1]}")


# --- how far one has come ----------------------------------------------------------------------------


def progress() -> None:
    """Print which exercises `check` has found right, lesson by lesson; the kit's cache folder keeps them."""
    solved, known = _solved(), names()
    lessons = sorted({file for file in known.values() if file != "template"})
    for lesson in lessons:
        own = [f"[{'x' if name in solved else ' '}] {name}" for name, file in known.items() if file == lesson]
        print(f"{lesson[1:]}  {'  '.join(own)}")
    print(f"{len(solved & known.keys())} of {sum(file in lessons for file in known.values())} are solved")


def reset(*exercises: str) -> None:
    """Forget which exercises are solved; the gap of the last one comes back into the cell that says so.

    Args:
        exercises: their names; none: all of them, and no cell changes.

    Raises:
        ValueError: there is no such exercise; lists those there are.
    """
    found = [find(name) for name in exercises]
    _note(_solved() - set(exercises) if exercises else set())
    if found:
        from course.build import gap

        shell = get_ipython()
        show = print if shell is None else functools.partial(shell.set_next_input, replace=True)
        show(gap(found[-1]))


def _solved() -> set[str]:
    with suppress(OSError, ValueError):
        return set(json.loads((cache_folder() / NOTES).read_text(encoding="utf-8")))
    return set()


def _note(solved: set[str]) -> None:
    with suppress(OSError), atomic_write(cache_folder() / NOTES) as beside:  # a full disk does not matter
        beside.write_text(json.dumps(sorted(solved)), encoding="utf-8")


# --- for the files of the exercises ------------------------------------------------------------------


def expect(holds: bool, says: str) -> None:
    """Go on if it holds; else this is what is wrong, as a sentence that begins with the answer's name."""
    if not holds:
        raise Wrong(says)


def untouched(answer: Callable) -> Callable:
    """The answer, which is wrong if it changes an array or a list that it is given."""

    @functools.wraps(answer)
    def call(*given: Any, **named: Any) -> Any:
        before = [(one, copy.deepcopy(one)) for one in given if isinstance(one, np.ndarray | list)]
        found = answer(*given, **named)
        says = "changes what it is given, which others still need: make something new"
        expect(all(np.array_equal(now, then) for now, then in before), says)
        return found

    return call


def shaped(found: Any, shape: tuple[int, ...], meaning: str) -> np.ndarray:
    """The answer, an array of this shape, without NaN; `meaning` names the axes, such as "(N, C)"."""
    expect(found is not None, "returns None: is the `return` missing?")
    says = f"returns a {type(found).__name__} where an array {meaning} of NumPy is asked for"
    expect(isinstance(found, np.ndarray) and found.dtype.kind in "biuf", says)
    expect(found.shape == shape, f"returns shape {found.shape} where {meaning} = {shape} is asked for")
    expect(bool(np.isfinite(found).all()), "returns values that are not finite (NaN or infinite)")
    return found if found.dtype == bool else found.astype(float)


def close(a: ArrayLike, b: ArrayLike, atol: float = 1e-4) -> bool:
    """Whether two arrays have one shape and agree."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return a.shape == b.shape and bool(np.allclose(a, b, atol=atol, equal_nan=True))


def agrees(answer: Callable, solution: Callable, says: str, *inputs: tuple) -> None:
    """Expect what the solution gives, for other arguments than those whose mistakes were told apart."""
    for given in inputs:
        with np.errstate(all="ignore"):
            found, right = answer(*given), solution(*given)
        if not isinstance(right, tuple):
            found, right = (found,), (right,)
        expect(all(close(a, b) for a, b in zip(found, right, strict=True)), says)


OVERFLOW = (
    "overflows, or is wrong, where exp of the scores is not finite (above 700): subtract each row's maximum"
)


# --- for the parameters of the notebooks -------------------------------------------------------------


def require(holds: bool, says: str) -> None:
    """Go on if it holds; else the parameters do not allow what follows, and `says` tells why.

    Raises:
        ValueError: it does not hold.
    """
    if not holds:
        raise ValueError(says)


def check_parameters(**expected: tuple) -> None:
    """Refuse a parameter that the notebook cannot take, before any work.

    Args:
        expected: by the parameter's name, either (value, lowest, highest), numbers that are whole if the
            lowest is, or (value, known), a collection of names. A value that is a list has at least one
            element, all different, and each is checked.

    Raises:
        ValueError: names the parameter, its value, and what was expected.

    >>> check_parameters(shots=(5, 1, 100), methods=(["rns"], ["knn-clip", "rns"]))
    """
    for name, (value, *allowed) in expected.items():
        values = value if isinstance(value, list) else [value]
        different = len(set(map(repr, values))) == len(values)
        require(
            bool(values) and different, f"{name} must list at least one value, all different, got {value!r}"
        )
        for one in values:
            if len(allowed) == 1:
                if one not in list(allowed[0]):
                    raise unknown_name(f"value of the parameter {name}:", one, allowed[0])
                continue
            (low, high), whole = allowed, isinstance(allowed[0], int)
            fits = type(one) in ((int,) if whole else (int, float)) and low <= one <= high
            says = f"{name} must be a {'whole ' if whole else ''}number from {low} to {high}, got {one!r}"
            require(fits, says)


def finding(holds: bool, says: str) -> None:
    """Print what does not hold with other parameters than the notebook's own.

    In the test suite, which executes the notebooks as they are, it is an error.

    Raises:
        AssertionError: it does not hold, and the environment has ROSE_AS_COMMITTED.
    """
    if not holds:
        print(f"Not with these parameters: {says}.")
        assert not os.environ.get("ROSE_AS_COMMITTED"), says
