"""What every method must do, tried on a small world: shapes, missing supports, determinism, speed."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rose_kit.bench.checks import CHECKS, MENDS, Failed, Make, World, fitted
from rose_kit.bench.plugins import load_own
from rose_kit.fusion import KnnClip
from rose_kit.registry import methods


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Args:
        name: what was checked.
        passed: whether it held.
        said: what was seen, and how to mend what the check itself found; for speed, the measurement.
    """

    name: str
    passed: bool
    said: str = ""


def check_method(make: Make, file: str | Path | None = None) -> list[Check]:
    """Try a method on everything an evaluation may ask of it.

    Args:
        make: called without arguments, gives the method; a class with defaults will do.
        file: where its code is, so that an error names the line.

    Returns:
        One outcome per check, and the speed relative to kNN-CLIP, which is only reported.
    """
    outcomes = [_outcome(name, check, make, file) for name, check in CHECKS.items()]
    if all(outcome.passed for outcome in outcomes):
        outcomes.append(Check("speed", True, _speed(make)))
    return outcomes


def check_plugin(path: str | Path) -> dict[str, list[Check]]:
    """Load a plugin file and check each of its methods.

    Args:
        path: of the file.

    Returns:
        name of the method -> its outcomes; empty where the file registers no method.

    Raises:
        ValueError: the file cannot be loaded.
    """
    return {name: check_method(methods[name], path) for name in load_own(path)}


def _outcome(name: str, check: Callable, make: Make, file: str | Path | None) -> Check:
    try:
        check(make, World())
    except Failed as error:
        return Check(name, False, f"{error}. To mend it: {MENDS[name]}.")
    except Exception as error:  # whatever the user's own code raises
        at = [f"line {f.lineno}, {f.name}" for f in traceback.extract_tb(error.__traceback__)
              if file is not None and Path(f.filename).resolve() == Path(file).resolve()]  # fmt: skip
        where = f" ({at[-1]})" if at else ""
        return Check(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}{where}")
    return Check(name, True)


def _speed(make: Make) -> str:
    """Median of five predictions of 800 patches, 20 classes and 200 prototypes, next to kNN-CLIP's."""
    world = World(tuple(f"class {i}" for i in range(20)), patches=40, rows=10, dim=128)
    seconds = []
    for maker in (make, KnnClip):
        method, times = fitted(maker, world, world.memory, world.vocabulary), []
        for query in [world.grid(turn) for turn in range(5)]:
            began = time.perf_counter()
            method.predict(query, world.memory, world.vocabulary)
            times.append(time.perf_counter() - began)
        seconds.append(float(np.median(times)))
    ratio = seconds[0] / seconds[1]
    return f"{1000 * seconds[0]:.1f} ms for {len(world.features)} patches, {ratio:.1f} times kNN-CLIP's"
