"""SupportMemory: what the kit knows, one row per class and annotated image."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rose_kit.memory.index import Filter, Index, Where, exact_search, make_index, name_list
from rose_kit.memory.prototypes import (
    Hits,
    Prototypes,
    Scalar,
    changes_lock,
    check_unit,
    lost_classes,
    pool_prototypes,
)
from rose_kit.memory.storage import MemoryFormatError, read_folder, write_folder
from rose_kit.types import (
    FeatureMap,
    check_positive,
    class_name,
    composed,
    show_html,
    to_array,
    to_tensor,
    unit,
    unknown_name,
)


class SupportMemory:
    """Class prototypes of annotated images, keyed by class name and image id.

    Each row is the mean feature of one class in one image (RNS, equation 2). Rows come and go without
    training, each change whole or not at all; a row's id is never given to another.

    Threads may search while one adds or removes: each call reads one table of rows, and a `copy()` keeps one
    for several calls. Processes share a memory through its folder.

    Args:
        dim: D, the width of the features.
        fingerprint: of the encoder; features of another encoder are refused. None: any are accepted.
        encoder: the name that `load_encoder` makes the encoder by, saved for those who load the memory.
        index: how rows are searched: "flat" (exact), "hnsw", "ivfpq", "auto" (by the number of rows),
            or an `Index` made beforehand, such as a `MilvusIndex`.

    Raises:
        ValueError: `dim` is not positive, or the index is unknown.

    >>> memory = SupportMemory.from_prototypes(np.eye(3), ["sky", "bus", "bus"], ["a", "a", "b"])
    >>> memory.search(np.eye(3)[[1]], k=2, classes=["bus"]).ids.tolist()
    [[1, 2]]
    >>> memory.remove(class_name="bus"), memory.classes
    (2, ('sky',))
    """

    def __init__(
        self,
        dim: int,
        *,
        fingerprint: str | None = None,
        encoder: str | None = None,
        index: str | Index = "flat",
    ) -> None:
        check_positive(dim=dim)
        self.dim, self.fingerprint, self.encoder = dim, fingerprint, encoder
        # In the order of adding. Copy the arrays, which are the memory's own, before you write to them.
        self.rows = Prototypes.make([], np.zeros((0, dim)), [], [])
        self._next_id = 0
        self._keys: set[tuple[str, str]] | None = None  # of all rows, once they are needed
        self._index, self._shares_index = make_index(index, dim), False

    @classmethod
    def from_prototypes(
        cls, vectors: ArrayLike, class_names: Sequence[str], image_ids: Sequence[str], **options: Any
    ) -> SupportMemory:
        """A memory of ready-made prototypes, with ids 0 to P-1.

        Args:
            vectors: (P, D), unit norm.
            class_names: (P,).
            image_ids: (P,); no image has two rows of one class.
            **options: as for the constructor.

        Raises:
            ValueError: the shapes do not fit, a vector is not of unit norm, or a key repeats.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2:
            raise ValueError(f"vectors must be (P, D), got shape {vectors.shape}")
        memory = cls(vectors.shape[1], **options)
        memory.extend(Prototypes.make(np.arange(len(vectors)), vectors, class_names, image_ids))
        return memory

    # --- changing -------------------------------------------------------------------------------------------

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
        """Add one prototype per class that an annotated image shows.

        Args:
            image_id: the image's name in this memory.
            feature_map: its (h, w, D) features.
            mask: (H, W) integers at the image's own size.
            classes: value of `mask` -> class name, all different; values not listed are ignored, and 255 is
                never listed.
            source: where the image can be found.
            thumbnail: the whole (H, W, 3) uint8 image, to show as evidence; it is stored at 96 px at most.
            metadata: flat mapping of text, numbers, truth values; `search` can filter by it.

        Returns:
            (R,) int64 ids of the new rows, in the order of `classes`; absent classes make no row.

        Warns:
            UserWarning: all are absent, or some have no pixel left at the scale of the encoded image.

        Raises:
            ValueError: something has the wrong shape or type, features are not of unit norm, a name cannot
                name a class (`rose_kit.types.class_name`), or the memory already has one of these classes for
                this image. Nothing is added then.
        """
        rows = pool_prototypes(image_id, feature_map, mask, classes, source, thumbnail, metadata)
        if not len(rows):
            values = f"its mask holds {np.unique(mask)[:10].tolist()}, and classes lists {[*classes][:10]}"
            warnings.warn(f"image {image_id!r} adds no prototype: {values}", stacklevel=2)
        elif lost := lost_classes(rows, mask, classes):
            small = "less than a pixel at the encoder's scale"
            warnings.warn(f"{image_id}: not stored, {small}: {', '.join(lost)}", stacklevel=2)
        return self.extend(rows)

    def extend(self, rows: Prototypes) -> NDArray[np.int64]:
        """Add ready-made rows, in one step; they get new ids.

        Args:
            rows: from another memory, or from `Prototypes.make`.

        Returns:
            (R,) int64 ids of the new rows.

        Raises:
            ValueError: a vector is not of unit norm or of another width, a name cannot name a class, or an
                image has one of the classes already.
        """
        if rows.vectors.shape[1] != self.dim:
            raise ValueError(f"features have {rows.vectors.shape[1]} dimensions; this memory has {self.dim}")
        check_unit(rows.vectors, "vector")
        for name in rows.classes:
            class_name(name)
        with changes_lock:
            keys = rows.keys()
            if self._keys is None:
                self._keys = set(self.rows.keys())
            again = self._keys.intersection(keys) or {key for key, n in Counter(keys).items() if n > 1}
            if again:
                image, name = min(again)
                raise ValueError(
                    f"image {image!r} already has a prototype of class {name!r}, or gets two; remove one"
                )
            ids = self._next_id + np.arange(len(rows))
            self._next_id += len(rows)  # first: a copy made in between must not give these ids again
            self._own_index()
            self.rows = self.rows.extended(replace(rows, ids=ids))
            self._keys.update(keys)
        return ids

    def remove(self, image_id: str | None = None, class_name: str | None = None, ids: ArrayLike = ()) -> int:
        """Remove the rows of an image, of a class, or by prototype id; the rows that match all that is given.

        Returns:
            how many rows were removed.

        Raises:
            ValueError: nothing is given, there is no row with one of the ids, or no row matches.
        """
        if image_id is None and class_name is None and not np.size(ids):
            raise ValueError("which rows? Give image_id, class_name or both, or ids")
        with changes_lock:
            rows = self.rows
            chosen = rows.take(rows.of_ids(ids)) if np.size(ids) else rows
            for what, name, column in (
                ("image", image_id, "image_ids"),
                ("class", class_name and composed(class_name), "class_names"),
            ):
                names = getattr(chosen, column)
                if name is not None and name not in names:
                    raise unknown_name(what, name, dict.fromkeys(names))
                chosen = chosen if name is None else chosen.take(names == name)
            self._own_index()
            self.rows = rows.take(~np.isin(rows.ids, chosen.ids))
            self._keys = None
            return len(rows) - len(self)

    def subset(self, ids: ArrayLike) -> SupportMemory:
        """A memory of its own with some of the rows, which keep their ids. It is searched exactly.

        Args:
            ids: (R,) prototype ids, in any order.

        Raises:
            ValueError: there is no such id.
        """
        twin = self.copy()
        twin.rows = twin.rows.take(np.unique(twin.rows.of_ids(ids)))
        twin._index = Index(self.dim)
        return twin

    # --- searching ------------------------------------------------------------------------------------------

    def search(
        self,
        queries: ArrayLike,
        k: int,
        *,
        classes: Iterable[str] | None = None,
        exclude_images: Iterable[str] = (),
        where: Where | None = None,
    ) -> Hits:
        """The k rows with the largest inner product with each query.

        Args:
            queries: (N, D); of a tensor, the hits are tensors on its device, too. Away from the CPU, exact
                search runs on that device.
            k: rows per query.
            classes: search among these class names only; a name without rows adds nothing.
            exclude_images: ids of images whose rows are left out, such as the query's own.
            where: metadata that a row must have (for each key a value, or a list of allowed values), or a
                function of a row's metadata that says whether the row is allowed.

        Returns:
            scores (N, k) float32 and prototype ids (N, k) int64; -inf and -1 where rows run out.

        Raises:
            ValueError: the memory is empty, the queries have the wrong shape or are not finite, or k < 1.
        """
        is_tensor = isinstance(queries, Tensor)
        x = queries.float() if is_tensor else torch.from_numpy(np.ascontiguousarray(queries, np.float32))
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"queries must be (N, {self.dim}), got shape {tuple(x.shape)}")
        if not (finite := x.isfinite().all(1)).all():
            bad = torch.nonzero(~finite)[:, 0].tolist()
            raise ValueError(f"query {bad[0]} is not finite ({len(bad)} of {len(x)} are not)")
        rows = self.rows
        if not len(rows):
            raise ValueError("the memory is empty: add images before searching it")
        check_positive(k=k)
        row_filter = Filter(classes, exclude_images, where)
        if x.device.type != "cpu" and self._index.compares_all(rows, k, row_filter):
            scores, positions = exact_search(rows.tensor(x.device), x, k, row_filter.mask(rows))
        else:
            scores, positions = to_tensor(self._index.search(rows, to_array(x), k, row_filter), x.device)
        ids = to_tensor(rows.ids, x.device)[positions].where(positions >= 0, -1)
        return Hits(scores, ids) if is_tensor else Hits(*to_array((scores, ids)))

    def lookup(self, ids: ArrayLike) -> Prototypes:
        """Rows by prototype id, in the order of the ids.

        Args:
            ids: (R,) int64; an array of another shape is flattened.

        Raises:
            ValueError: there is no row with such an id.
        """
        rows = self.rows
        return rows.take(rows.of_ids(ids))

    def thumbnail(self, prototype_id: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """The image behind a prototype, and where in it the prototype was pooled.

        Returns:
            (h, w, 3) uint8 and (h, w) bool, at most 96 px, or None where no image was given.
        """
        pair = self.lookup(prototype_id).thumbnails[0]
        if pair is None:
            return None
        image, bits = pair
        mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=image[..., 0].size)
        return image.copy(), mask.reshape(image.shape[:2]).astype(bool)

    def class_prototypes(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) one prototype per class: the sum of its rows, at unit norm (RNS, equation 5).

        NaN where a class has no row.
        """
        return unit(self.class_sums(names))

    def class_sums(self, names: Iterable[str]) -> NDArray[np.float32]:
        """(C, D) the sum of each class's rows; NaN where a class has no row."""
        sums = self.rows.class_sums
        absent = np.full(self.dim, np.nan)
        rows = [sums.get(composed(name), absent) for name in name_list("names", names)]
        return np.array(rows, dtype=np.float32).reshape(-1, self.dim)

    ids = property(lambda self: self.rows.ids, doc="(P,) int64 prototype ids, increasing.")
    vectors = property(lambda self: self.rows.vectors, doc="(P, D) float32 prototypes, unit norm.")
    class_names = property(lambda self: self.rows.class_names, doc="(P,) object, the class of each row.")
    image_ids = property(lambda self: self.rows.image_ids, doc="(P,) object, the image of each row.")
    classes = property(lambda self: self.rows.classes, doc="The different class names, oldest first.")
    images = property(lambda self: self.rows.images, doc="The different image ids, oldest first.")

    def summary(self) -> dict[str, int]:
        """Rows per class, most first."""
        return dict(Counter(self.class_names.tolist()).most_common())

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        size = f"{len(self)} prototypes of {len(self.classes)} classes in {len(self.images)} images"
        return f"SupportMemory({size}, dim={self.dim}, fingerprint={self.fingerprint!r})"

    _repr_html_ = show_html

    def describe_index(self) -> str:
        """One line on how the memory is searched. An index is trained by the first search that needs it."""
        return self._index.describe()

    # --- copies, folders ------------------------------------------------------------------------------------

    def copy(self) -> SupportMemory:
        """The memory as it is now, whatever is added or removed later; also what `copy.deepcopy` makes.

        It costs nothing: rows are shared, as they never change, and so is the index until the copy itself is
        changed. A copy made before a change is how the change is taken back. The copy of a memory on Milvus
        is searched there until it changes, and exactly in this process from then on.
        """
        rows, twin = self.rows, object.__new__(type(self))
        twin.__dict__ = self.__dict__ | {"rows": rows, "_keys": None, "_shares_index": True}
        return twin

    __copy__, __deepcopy__ = copy, lambda self, memo: self.copy()

    def _own_index(self) -> None:
        """Before a change, a copy stops sharing the index: it may give an id that the memory gives, too."""
        if self._shares_index:
            self._index, self._shares_index = copy.copy(self._index), False

    def save(self, path: str | Path) -> None:
        """Write the memory to a folder, replacing in one step the memory that was there.

        A crash at any moment leaves either the old memory or the new one, whole. What an index has learned is
        not saved: it is trained again at the first search after loading.

        Raises:
            OSError: the path is a file, or the disk refuses.
            MemoryFormatError: (a ValueError) the folder has a `memory.safetensors` that is no memory.
        """
        saved = self.copy()  # another thread may change the memory meanwhile
        options = {"fingerprint": saved.fingerprint, "encoder": saved.encoder, "index": saved._index.name}
        write_folder(Path(path), saved.rows, {"dim": saved.dim, "next_id": saved._next_id, **options})

    @classmethod
    def load(cls, path: str | Path, *, index: str | Index | None = None) -> SupportMemory:
        """Read a memory, verifying its checksums. Vectors that take 256 MiB or more are left on disk.

        Args:
            path: the folder.
            index: as for the constructor, in place of the one the memory was saved with.

        Raises:
            MemoryFormatError: a file is missing, damaged or of another format (a ValueError).
        """
        rows, header = read_folder(Path(path))
        options = {"fingerprint": header["fingerprint"], "encoder": header["encoder"]}
        try:
            memory = cls(header["dim"], index=index or header["index"], **options)
        except ValueError as error:  # an index of another kit, or of another width
            raise MemoryFormatError(f"the memory {str(path)!r} cannot be read: {error}") from None
        memory.rows, memory._next_id = rows, header["next_id"]
        return memory

    def check_encoder(self, encoder: Any) -> None:
        """Refuse an encoder other than the one this memory was made with, by its `fingerprint` and `dim`.

        Raises:
            ValueError: one of them differs.
        """
        if None not in (self.fingerprint, encoder.fingerprint) and self.fingerprint != encoder.fingerprint:
            raise ValueError(f"the memory was made with {self.fingerprint!r}, not {encoder.fingerprint!r}")
        if getattr(encoder, "dim", self.dim) != self.dim:
            raise ValueError(f"the memory has {self.dim} dimensions, the encoder {encoder.dim}")
