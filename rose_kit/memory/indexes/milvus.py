"""Milvus: the rows live in a database of their own, embedded in a local file or served by a cluster.

A memory keeps its snapshot of the rows; the server searches among these. Rows that another process
writes are there for memories opened afterwards.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
import weakref
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.filters import Filter
from rose_kit.memory.indexes.base import Found, Index, exact_search, positions_of
from rose_kit.memory.rows import Rows

BATCH = 500  # rows to a message: with a thumbnail each they stay below the 64 MB that a server takes
QUERIES = 4096  # to a message
MOST = 16_384  # neighbours that a server gives to one query
FINGERPRINT = "rose_kit.fingerprint"  # a property of the collection
_open: Counter[str] = Counter()  # who is connected to what, in this process
COLUMNS = ["id", "vector", "class_name", "images", "metadata", "more"]


class MilvusIndex(Index):
    """A Milvus collection: the index of a memory, and the place where its rows are found again.

    Args:
        dim: D, the width of the features.
        uri: a local path that ends in .db (embedded; one process at a time), or the address of a server
            or cluster, such as "http://host:19530"; None: embedded, in a temporary folder.
        collection: its name; made if it is not there.
        token: "user:password" or a key, where the server asks for one.
        fingerprint: of the encoder; recorded with a new collection, compared with that of an old one.
        index_type: how a new collection is searched: "FLAT" is exact; "HNSW", "AUTOINDEX", ... scale.

    Raises:
        ValueError: pymilvus is not installed, the address cannot be opened, or the collection has
            another width, another encoder's features, or is not a memory.
    """

    name, shared = "milvus", True

    def __init__(
        self,
        dim: int,
        uri: str | None = None,
        collection: str = "rose_kit",
        *,
        token: str = "",
        fingerprint: str | None = None,
        index_type: str = "FLAT",
    ) -> None:
        super().__init__(dim)
        try:
            import pymilvus
        except ImportError as error:
            raise ValueError(f'Milvus needs an extra: pip install "rose_kit[milvus]" ({error})') from None
        for library in ("pymilvus", "milvus_lite"):
            logging.getLogger(library).setLevel(logging.CRITICAL)  # what goes wrong is raised
        self._milvus, self._removed = pymilvus, set()
        folder = None if uri else tempfile.mkdtemp(prefix="rose_kit_")
        self.uri, self.collection = str(uri or f"{folder}/memory.db"), collection
        try:
            self._client = pymilvus.MilvusClient(self.uri, token=token)
        except pymilvus.MilvusException as error:
            raise ValueError(f"cannot open Milvus at {self.uri!r}: {error.message}") from error
        _open[self.uri] += 1
        self.close = weakref.finalize(self, _close, self._client, self.uri, folder)
        with self._told():
            if not self._client.has_collection(collection):
                self._create(fingerprint, index_type)
            self.fingerprint = self._check(fingerprint)
            self._client.load_collection(collection)

    def _create(self, fingerprint: str | None, index_type: str) -> None:
        types = self._milvus.DataType
        schema = self._client.create_schema()
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=self.dim)
        schema.add_field("class_name", types.VARCHAR, max_length=65_535)  # bytes, the most there can be
        for column in COLUMNS[3:]:
            schema.add_field(column, types.JSON)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type=index_type, metric_type="IP")
        kept = {} if fingerprint is None else {FINGERPRINT: fingerprint}
        self._client.create_collection(self.collection, schema=schema, index_params=index, properties=kept)

    def _check(self, fingerprint: str | None) -> str | None:
        found = self._client.describe_collection(self.collection)
        fields = {f["name"]: f["params"] for f in found["fields"]}
        kept = (found.get("properties") or {}).get(FINGERPRINT)
        where = f"collection {self.collection!r} at {self.uri!r}"
        if list(fields) != COLUMNS:
            raise ValueError(f"{where} is not a memory: its fields are {', '.join(fields)}")
        if int(fields["vector"]["dim"]) != self.dim:
            raise ValueError(f"{where} has {fields['vector']['dim']} dimensions, not {self.dim}")
        if None not in (fingerprint, kept) and fingerprint != kept:
            raise ValueError(f"{where} was made with {kept!r}; you gave {fingerprint!r}")
        return kept

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._milvus.MilvusException as error:
            raise OSError(f"Milvus at {self.uri!r}: {' '.join(error.message.split())}") from error

    def search(self, rows: Rows, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
        """See `Index.search`. What the server cannot know is compared here, exactly: filters by a
        function, and rows of an older snapshot that have been removed since.
        """
        expression, most = _expression(chosen), min(k, len(rows))
        gone = positions_of(rows, np.fromiter(self._removed, dtype=np.int64))
        if expression is None or most > MOST or (gone >= 0).any():
            mask = chosen.mask(rows)
            return exact_search(rows.vectors, queries, k, None if mask is None else np.flatnonzero(mask))
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        ids, foreign = np.full((len(queries), k), -1, dtype=np.int64), [-1]
        while len(foreign):  # written by others into gaps of this snapshot: ask again, passing them over
            expression += f" and id not in {sorted(foreign)} and id <= {rows.ids[-1]}"
            for start in range(0, len(queries), QUERIES):
                part = list(queries[start : start + QUERIES])
                with self._told():
                    found = self._client.search(
                        self.collection, part, expression, limit=most, consistency_level="Strong"
                    )
                for n, hits in enumerate(found, start):
                    scores[n], ids[n] = -np.inf, -1
                    scores[n, : len(hits)] = [hit["distance"] for hit in hits]
                    ids[n, : len(hits)] = [hit["id"] for hit in hits]
            positions = positions_of(rows, ids)
            foreign = np.unique(ids[(ids >= 0) & (positions < 0)]).tolist()
        return scores, positions

    def added(self, rows: Rows) -> None:
        """Write rows; on an error none of them stays."""
        try:
            for start in range(0, len(rows), BATCH):
                with self._told():
                    part = list(_records(rows.take(slice(start, start + BATCH))))
                    self._client.upsert(self.collection, part)
        except OSError:
            with suppress(OSError):
                self.removed(rows.ids)
            raise
        self._removed.difference_update(rows.ids.tolist())

    def removed(self, ids: NDArray[np.int64]) -> None:
        """Delete rows."""
        for start in range(0, len(ids), MOST):
            with self._told():
                self._client.delete(self.collection, ids=ids[start : start + MOST].tolist())
        self._removed.update(ids.tolist())

    def describe(self) -> str:
        """One line on what it is."""
        return f"milvus, collection {self.collection!r} at {self.uri!r}"

    def rows(self) -> Rows | None:
        """All that the collection holds, by increasing id; None if it is empty."""
        with self._told():
            pages = self._client.query_iterator(self.collection, BATCH, output_fields=COLUMNS)
            records = sorted((r for page in iter(pages.next, []) for r in page), key=lambda r: r["id"])
        return _rows(records) if records else None


def _expression(chosen: Filter) -> str | None:
    """What to search among, in Milvus' language; None where that could mean something else than here."""
    where, parts = chosen.where or {}, ["id >= 0"]
    if callable(where):
        return None
    if chosen.classes is not None:
        parts.append(f"class_name in {_text(chosen.classes)}")
    if chosen.exclude_images:
        parts.append(f"not json_contains_any(images, {_text(chosen.exclude_images)})")
    for key, value in where.items():
        options = list(value) if isinstance(value, list | tuple | set) else [value]
        # In Python 1 == True == 1.0, and None is a value: such are left to it, text and numbers pushed.
        plain = [type(o) is str or (type(o) is int and 1 < abs(o) < 2**53) for o in options]
        if not (options and all(plain) and re.fullmatch(r"[A-Za-z]\w*", key, re.ASCII)):
            return None
        parts.append("({})".format(" or ".join(f'metadata["{key}"] == {_text(o)}' for o in options)))
    expression = " and ".join(parts)
    return None if chosen.classes == () or re.search(r'\\[^"\\]', expression) else expression


def _text(value: str | int | Iterable[str]) -> str:
    return json.dumps(value if isinstance(value, str | int) else list(value), ensure_ascii=False)


def _records(rows: Rows) -> Iterator[dict[str, Any]]:
    """What is sent for each row; `more` holds what nobody searches by."""
    for i, (image_id, class_name) in enumerate(zip(rows.image_ids, rows.class_names, strict=True)):
        thumbnail, origins = rows.thumbnails[i], rows.origins[i]
        if thumbnail is not None:
            blobs = (thumbnail[0].tobytes(), thumbnail[1])
            thumbnail = [thumbnail[0].shape, *(b64encode(blob).decode() for blob in blobs)]
        yield {
            "id": int(rows.ids[i]),
            "vector": rows.vectors[i],
            "class_name": str(class_name),
            "images": list(dict.fromkeys([str(image_id), *(origin[0] for origin in origins or ())])),
            "metadata": dict(rows.metadata[i]),
            "more": {"source": rows.sources[i], "origins": origins, "thumbnail": thumbnail},
        }


def _rows(records: list[dict[str, Any]]) -> Rows:
    """What `_records` made, with one picture for all rows that show it."""
    pictures: dict[str, NDArray[np.uint8]] = {}
    thumbnails, origins = [], []
    for more in (record["more"] for record in records):
        thumbnail = more["thumbnail"]
        if thumbnail is not None:
            shape, blob, mask = thumbnail
            picture = pictures.setdefault(blob, np.frombuffer(b64decode(blob), np.uint8).reshape(shape))
            thumbnail = picture, b64decode(mask)
        thumbnails.append(thumbnail)
        origins.append(more["origins"] and tuple(map(tuple, more["origins"])))
    columns = {name: [record[name] for record in records] for name in COLUMNS[:5]}
    images, sources = [names[0] for names in columns["images"]], [r["more"]["source"] for r in records]
    named = (columns["id"], columns["vector"], columns["class_name"], images, sources)
    return Rows.make(*named, columns["metadata"], thumbnails, origins)


def _close(client: Any, uri: str, folder: str | None) -> None:
    """Part from the server; the last to leave an embedded one stops it, and a temporary one goes."""
    client.close()
    _open[uri] -= 1
    if uri.endswith(".db") and not _open[uri]:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
