"""Searches that were asked before.

A cache belongs to one snapshot of a memory, and a snapshot never changes: every write makes a new one
with an empty cache. So nothing stale can be found, and there is nothing to invalidate.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.filters import Filter

SEARCHES = 64  # kept per snapshot; the least recently asked goes first


class SearchCache:
    """Findings by what was asked."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, tuple] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0

    def get(self, key: Hashable | None, search: Callable[[], tuple]) -> tuple[NDArray, ...]:
        """What `search()` returns, from the cache if it was asked before; always the caller's own copy.

        Args:
            key: from `search_key`; None: do not keep.
        """
        if key is None:
            return search()
        with self._lock:
            found = self._found.pop(key, None)
            self.hits += found is not None
        found = found or search()
        with self._lock:
            self._found[key] = found
            while len(self._found) > SEARCHES:
                self._found.popitem(last=False)
        return tuple(array.copy() for array in found)


def search_key(queries: NDArray[np.float32], k: int, chosen: Filter, version: int) -> Hashable | None:
    """What tells two searches of one snapshot apart; None where a function filters, as it may change."""
    if callable(chosen.where):
        return None
    where = repr(sorted(chosen.where.items())) if chosen.where is not None else None
    digest = hashlib.blake2b(np.ascontiguousarray(queries).data, digest_size=16).digest()
    return queries.shape, digest, k, chosen.classes, chosen.exclude_images, where, version
