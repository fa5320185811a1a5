"""How a memory changes: one writer at a time makes the next state, and readers never wait."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.checks import Scalar, check_keys, check_unit
from rose_kit.memory.filters import belonging, of_images
from rose_kit.memory.indexes import Index
from rose_kit.memory.merging import merged, near_duplicates
from rose_kit.memory.pictures import picture_rows
from rose_kit.memory.rows import Rows
from rose_kit.memory.state import State
from rose_kit.types import FeatureMap

NONE = np.zeros(0, np.int64)


class Writer:
    """The changing half of `SupportMemory`. Each change is one step, whole or not at all, and undoable."""

    dim: int
    _state: State
    _index: Index
    _lock: threading.RLock
    _frozen: bool
    _held: set[tuple[str, str]] | None  # (image id, class name) of every row; None: to be collected

    def add(
        self,
        image_id: str,
        feature_map: FeatureMap,
        mask: NDArray,
        classes: Mapping[int, str],
        *,
        source: str | Path | None = None,
        thumbnail: NDArray[np.uint8] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
    ) -> NDArray[np.int64]:
        """Add one prototype per class that an annotated picture shows.

        Args:
            image_id: the picture's name in this memory.
            feature_map: its (h, w, D) features.
            mask: (H, W) integers at the picture's own size.
            classes: value of `mask` -> class name; values not listed are ignored.
            source: where the picture can be found.
            thumbnail: the (H, W, 3) uint8 picture itself; a copy of at most 96 px is kept.
            metadata: flat mapping of text, numbers, truth values; `search` can filter by it.

        Returns:
            (R,) int64 ids of the new rows, in the order of `classes`; absent classes make no row.

        Raises:
            ValueError: something has the wrong shape or type, features are not of unit norm, or the
                memory already has one of these classes for this image. Nothing is added then.
        """
        self._check_width(feature_map.dim)
        rows = picture_rows(0, image_id, feature_map, mask, classes, source, thumbnail, metadata)
        return self._change(f"add image {image_id!r}", rows)

    def replace(
        self,
        image_id: str,
        feature_map: FeatureMap,
        mask: NDArray,
        classes: Mapping[int, str],
        **more,
    ) -> NDArray[np.int64]:
        """Put a picture's new annotation in the place of its old one, in one step.

        Args:
            image_id: a picture of this memory.
            feature_map, mask, classes, **more: as for `add`.

        Returns:
            (R,) int64 ids of the new rows.

        Raises:
            ValueError: there is no such picture, or `add` would refuse the new one; nothing changes.
        """
        self._check_width(feature_map.dim)
        more = {"source": None, "thumbnail": None, "metadata": None} | more
        rows = picture_rows(0, image_id, feature_map, mask, classes, **more)
        with self._lock:
            old = self._state.rows.ids[belonging(self._state.rows, image_id, None)]
            return self._change(f"replace image {image_id!r}", rows, old)

    def extend(self, rows: Rows, *, replace: bool = False) -> NDArray[np.int64]:
        """Add ready-made rows, in one step; their ids are given anew.

        Args:
            rows: from another memory, or of `Rows.make`.
            replace: whether images that the memory has already lose the rows they had.

        Returns:
            (R,) int64 ids of the new rows.

        Raises:
            ValueError: a vector is not of unit norm or of another width, or an image has one of the
                classes already.
        """
        self._check_width(rows.vectors.shape[1])
        with self._lock:
            held = self._state.rows
            old = held.ids[of_images(held, set(rows.image_ids.tolist()))] if replace else NONE
            return self._change(f"{'replace by' if len(old) else 'add'} {len(rows)} rows", rows, old)

    def remove(self, image_id: str | None = None, class_name: str | None = None) -> int:
        """Remove the rows of an image, of a class, or of a class in an image.

        A row merged from several images goes with any of them: `undo` the merge first to keep the others.

        Returns:
            how many rows were removed.

        Raises:
            ValueError: neither is given, or no row matches (lists near names).
        """
        with self._lock:
            gone = self._state.rows.ids[belonging(self._state.rows, image_id, class_name)]
            named = (("class", class_name), ("image", image_id))
            what = " of ".join(f"{kind} {name!r}" for kind, name in named if name is not None)
            self._change(f"remove {what}", None, gone)
        return len(gone)

    def merge(self, threshold: float = 0.98, class_name: str | None = None) -> int:
        """Make one row of near-duplicates: rows of a class that are almost alike. In one step.

        The new row is their unit-norm sum and keeps in `origins` where each came from; it is excluded,
        and removed, with any of its images.

        Args:
            threshold: cosine with the group's first row, in (0, 1].
            class_name: in this class only; None: in each.

        Returns:
            how many rows the memory has less.

        Raises:
            ValueError: the threshold is out of range, or there is no such class.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be a cosine in (0, 1], got {threshold!r}")
        with self._lock:
            rows = self._state.rows
            if class_name is not None:
                belonging(rows, None, class_name)  # refuses an unknown one
            groups = near_duplicates(rows, threshold, class_name)
            if not groups:
                return 0
            old = rows.ids[np.sort(np.concatenate(groups))]
            self._change(f"merge {len(old)} rows into {len(groups)}", merged(rows, groups, 0), old)
        return len(old) - len(groups)

    @property
    def history(self) -> tuple[str, ...]:
        """What `undo` can take back, the latest last; saved with the memory."""
        return tuple(step.what for step in self._state.steps)

    def undo(self, steps: int = 1) -> tuple[str, ...]:
        """Take back the latest changes: rows that were removed return with their ids.

        Args:
            steps: how many changes, at most 20 are kept.

        Returns:
            what was taken back, the latest change first.

        Raises:
            ValueError: there are not so many.
        """
        with self._lock:
            self._check_writable()
            if not isinstance(steps, int) or not 1 <= steps <= len(self.history):
                raise ValueError(f"cannot undo {steps!r} changes; the memory remembers {len(self.history)}")
            undone = []
            for _ in range(steps):
                last, state = self._state.steps[-1], self._state.before()
                back = state.rows.take(np.isin(state.rows.ids, last.removed))
                self._tell(back, last.added)
                self._state, self._held = state, None
                undone.append(last.what)
        return tuple(undone)

    def forget(self) -> None:
        """Make all changes final: nothing can be undone, and no removed row is kept for it."""
        with self._lock:
            self._check_writable()
            self._state = self._state.settled()

    def _change(self, what: str, rows: Rows | None, gone: NDArray[np.int64] = NONE) -> NDArray[np.int64]:
        """Take the step to the next state: check, tell the index, show it to readers."""
        with self._lock:
            self._check_writable()
            if self._held is None:
                self._held = set(self._state.rows.keys())
            left = self._leaving(gone)
            if rows is not None:
                check_unit(rows.vectors, "vector")
                check_keys(rows.keys(), self._held - left if left else self._held)
                rows = rows.with_ids(self._state.next_id + np.arange(len(rows)))
            if rows is None or not len(rows):
                rows = None
                if not len(gone):
                    return NONE.copy()
            state = self._state.after(what, rows, gone)
            self._tell(rows, gone)
            self._state = state
            self._held -= left
            self._held.update(rows.keys() if rows is not None else ())
        return NONE.copy() if rows is None else rows.ids.copy()

    def _leaving(self, gone: NDArray[np.int64]) -> set[tuple[str, str]]:
        return set(self._state.rows.take(np.isin(self._state.rows.ids, gone)).keys()) if len(gone) else set()

    def _tell(self, rows: Rows | None, gone: NDArray[np.int64]) -> None:
        if rows is not None and len(rows):
            self._index.added(rows)
        if len(gone):
            try:
                self._index.removed(gone)
            except BaseException:
                if rows is not None and len(rows):
                    self._index.removed(rows.ids)
                raise

    def _check_writable(self) -> None:
        if self._frozen:
            raise ValueError("this is a snapshot, which cannot be changed; change the memory it is of")

    def _check_width(self, dim: int) -> None:
        if dim != self.dim:
            raise ValueError(f"features have {dim} dimensions; this memory has {self.dim}")
