"""One moment of a memory, and the steps that led to it.

A state is never changed: a write makes the next one, so a reader who holds one needs no lock. Rows that
a step removed are kept until that step can no longer be undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.cache import SearchCache
from rose_kit.memory.rows import Rows

UNDO_STEPS = 20  # that can be taken back
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """A change: ids that came, ids that went, and what to call it."""

    what: str
    added: Ids
    removed: Ids


class State:
    """The rows of a memory at one moment.

    Args:
        blocks: rows by increasing id, those that can come back included; joined when first read.
        gone: increasing ids of those that can come back.
        steps: the latest changes, oldest first.
        next_id: the first id that was never given.
    """

    def __init__(self, blocks: tuple[Rows, ...], gone: Ids, steps: tuple[Step, ...], next_id: int) -> None:
        self._blocks, self.gone, self.steps, self.next_id = blocks, gone, steps, next_id
        self.cache = SearchCache()

    @classmethod
    def empty(cls, dim: int) -> State:
        """No rows, no history."""
        nothing = Rows.make([], np.zeros((0, dim), np.float32), [], [])
        return cls((nothing,), np.zeros(0, np.int64), (), 0)

    @property
    def kept(self) -> Rows:
        """All rows, those that can come back included."""
        if len(self._blocks) > 1:
            self._blocks = (Rows.concatenate(self._blocks),)
        return self._blocks[0]

    @cached_property
    def rows(self) -> Rows:
        """The rows of the memory."""
        return self.kept.take(~np.isin(self.kept.ids, self.gone)) if len(self.gone) else self.kept

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The different class names, first seen first."""
        return tuple(dict.fromkeys(self.rows.class_names.tolist()))

    @cached_property
    def class_sums(self) -> dict[str, NDArray[np.float32]]:
        """Class name -> the sum (D,) of its rows."""
        owner = self.rows.class_names
        return {name: np.asarray(self.rows.vectors[owner == name]).sum(0) for name in self.classes}

    def after(self, what: str, added: Rows | None, removed: Ids) -> State:
        """The state once rows have come and ids have gone."""
        ids = np.zeros(0, np.int64) if added is None else added.ids
        blocks = self._blocks if added is None else (*self._blocks, added)
        steps = (*self.steps, Step(what, ids, removed))
        next_id = self.next_id if not len(ids) else int(ids[-1]) + 1
        state = State(blocks, np.union1d(self.gone, removed), steps[-UNDO_STEPS:], next_id)
        over = [step.removed for step in steps[:-UNDO_STEPS]]
        return state.dropping(np.concatenate(over)) if sum(map(len, over)) else state

    def before(self) -> State:
        """The state that the latest step was taken from; ids that it gave are not given again."""
        *steps, last = self.steps
        state = State(self._blocks, np.setdiff1d(self.gone, last.removed), tuple(steps), self.next_id)
        return state.dropping(last.added) if len(last.added) else state

    def settled(self) -> State:
        """The same rows, with nothing to undo and nothing kept for it."""
        return State((self.rows,), np.zeros(0, np.int64), (), self.next_id)

    def dropping(self, ids: Ids) -> State:
        """Without some ids, for good."""
        kept = self.kept.take(~np.isin(self.kept.ids, ids))
        return State((kept,), np.setdiff1d(self.gone, ids), self.steps, self.next_id)


def to_ranges(ids: Ids) -> list[list[int]]:
    """Increasing ids -> [first, last] pairs.

    >>> to_ranges(np.array([0, 1, 2, 7]))
    [[0, 2], [7, 7]]
    """
    ends = np.flatnonzero(np.diff(ids) != 1)
    firsts, lasts = np.append(0, ends + 1), np.append(ends, len(ids) - 1)
    return [] if not len(ids) else np.stack([ids[firsts], ids[lasts]], axis=1).tolist()


def from_ranges(ranges: Iterable[Iterable[int]]) -> Ids:
    """What `to_ranges` was given."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(a, b + 1) for a, b in ranges)])
