"""The phrase bank of a split, and how its slots are filled."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
SPLITS = ("dev", "eval", "test")
PHRASES = Path(__file__).parent / "phrases"


@cache
def bank(split: str) -> SimpleNamespace:
    """The phrases of a split, as tuples: the tables of its files in `phrases/`, those that it lacks empty.

    Raises:
        ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    named = {"class_roles": (), "class_clashes": (), "about_classes": ()}
    for path in sorted(PHRASES.glob(f"{split}*.toml")):
        named |= tables(path)
    return SimpleNamespace(**named)


def tables(path: Path) -> dict[str, Any]:
    """The tables of one file of phrases, as tuples."""
    return {name: _frozen(table) for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items()}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def fill(text: str, **slots: object) -> str:
    """Fill a phrase: days in words, the maker once where the product's name begins with it, and a capital at
    the start of every sentence.

    Raises:
        KeyError: a slot of `text` is not given.

    >>> fill("Of {day}. {product}: by {maker}.", maker="Aerix", product="the sheep", day=date(2026, 3, 1))
    'Of 1 March 2026. The sheep: by Aerix.'
    >>> fill("the {maker} {product}", maker="Aerix", product="Aerix Hawk 5")
    'The Aerix Hawk 5'
    """
    words = {k: f"{v.day} {v:%B %Y}" if isinstance(v, date) else v for k, v in slots.items()}
    filled = text.format(**words)
    if words.get("maker"):
        maker = re.escape(words["maker"])
        filled = re.sub(rf"\b{maker}(?:'s)? (?={maker}\b)", "", filled)
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), filled)


def turn(options: Sequence[T], i: int) -> T:
    """One of several in turn."""
    return options[i % len(options)]


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of several, which need not be of an array's kind."""
    return options[int(rng.integers(len(options)))]
