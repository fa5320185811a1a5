"""Milvus: the rows live in a database of their own, embedded in a local file or served by a cluster.

A memory keeps its table of the rows; the server searches among these. Rows that another process writes
are there for memories opened afterwards.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import weakref
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.index import Filter, Found, Index
from rose_kit.memory.prototypes import Prototypes

BATCH = 500  # rows to a message: with a thumbnail each they stay below the 64 MB that a server takes
MOST = 16_384  # neighbours that a server gives to one query, ids that it deletes at once
FINGERPRINT = "rose_kit.fingerprint"  # a property of the collection
COLUMNS = ["id", "vector", "class_name", "image_id", "about"]
_open: Counter[str] = Counter()  # who is connected to what, in this process


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
        self._removed: frozenset[int] = frozenset()  # it is replaced, not changed: others may be reading
        self._milvus, folder = pymilvus, None if uri else tempfile.mkdtemp(prefix="rose_kit_")
        self.uri, self.collection = str(uri or f"{folder}/memory.db"), collection
        try:
            self._client = pymilvus.MilvusClient(self.uri, token=token)
        except pymilvus.MilvusException as error:
            raise ValueError(f"cannot open Milvus at {self.uri!r}: {error.message}") from error
        _open[self.uri] += 1
        self.close = weakref.finalize(self, _close, self._client, self.uri, folder)
        with self._errors():
            if not self._client.has_collection(collection):
                self._create(fingerprint, index_type)
            self.fingerprint = self._check(fingerprint)
            self._client.load_collection(collection)

    def _create(self, fingerprint: str | None, index_type: str) -> None:
        types, schema = self._milvus.DataType, self._client.create_schema()
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=self.dim)
        for name in ("class_name", "image_id"):
            schema.add_field(name, types.VARCHAR, max_length=65_535)  # bytes, the most there can be
        schema.add_field("about", types.JSON)
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
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._milvus.MilvusException as error:
            raise OSError(f"Milvus at {self.uri!r}: {' '.join(error.message.split())}") from error

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, chosen: Filter) -> Found:
        """See `Index.search`. Filters by metadata, and rows that the server lacks, are compared here."""
        expression = f"id <= {table.ids[-1]}"
        if chosen.classes is not None:
            expression += f" and class_name in {json.dumps(list(chosen.classes), ensure_ascii=False)}"
        if chosen.exclude_images:
            expression += (
                f" and image_id not in {json.dumps(list(chosen.exclude_images), ensure_ascii=False)}"
            )
        gone = table.positions(np.fromiter(self._removed, dtype=np.int64))  # that an older table still has
        if (
            (gone >= 0).any()
            or chosen.where is not None
            or chosen.classes == ()
            or "\\" in expression
            or k > MOST
        ):
            return super().search(table, queries, k, chosen)
        scores, ids = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
        with self._errors():
            hits = self._client.search(
                self.collection, list(queries), expression, limit=k, consistency_level="Strong"
            )
        for n, found in enumerate(hits):
            scores[n, : len(found)] = [hit["distance"] for hit in found]
            ids[n, : len(found)] = [hit["id"] for hit in found]
        positions, mask = table.positions(ids), chosen.mask(table)
        there = min(k, len(table) if mask is None else int(mask.sum()))
        foreign = ((ids >= 0) & (positions < 0)).any() or (ids[:, :there] < 0).any()
        return super().search(table, queries, k, chosen) if foreign else (scores, positions)

    def added(self, table: Prototypes) -> None:
        """Write rows; on an error none of them stays."""
        try:
            for start in range(0, len(table), BATCH):
                part = list(_records(table.take(slice(start, start + BATCH))))
                with self._errors():
                    self._client.upsert(self.collection, part)
            self._removed -= frozenset(table.ids.tolist())
        except OSError:
            with suppress(OSError):
                self.removed(table.ids)
            raise

    def removed(self, ids: NDArray[np.int64]) -> None:
        """Delete rows."""
        self._removed |= frozenset(ids.tolist())
        for start in range(0, len(ids), MOST):
            with self._errors():
                self._client.delete(self.collection, ids=ids[start : start + MOST].tolist())

    def stored(self) -> Prototypes | None:
        """All that the collection holds, by increasing id; None if it is empty."""
        with self._errors():
            pages = self._client.query_iterator(self.collection, BATCH, output_fields=COLUMNS)
            records = sorted((r for page in iter(pages.next, []) for r in page), key=lambda r: r["id"])
        about = [r["about"] for r in records]
        columns = ([r[name] for r in records] for name in COLUMNS[:4])
        images: dict[str, NDArray[np.uint8]] = {}  # one for all rows that show it
        thumbnails = [_unpacked(one["thumbnail"], images) for one in about]
        more = [one["source"] for one in about], [one["metadata"] for one in about], thumbnails
        return Prototypes.make(*columns, *more) if records else None

    def describe(self) -> str:
        """One line on what it is."""
        return f"milvus, collection {self.collection!r} at {self.uri!r}"


def _records(table: Prototypes) -> Iterator[dict[str, Any]]:
    """What is sent for each row."""
    for row in zip(*table.columns[:2], table.class_names, table.image_ids, *table.columns[4:], strict=True):
        *named, source, metadata, pair = row
        thumbnail = pair and [
            pair[0].shape,
            b64encode(pair[0].tobytes()).decode(),
            b64encode(pair[1]).decode(),
        ]
        about = {"source": source, "metadata": dict(metadata), "thumbnail": thumbnail}
        yield dict(zip(COLUMNS, (int(named[0]), named[1], *map(str, named[2:]), about), strict=True))


def _unpacked(stored: list | None, images: dict[str, NDArray[np.uint8]]) -> tuple | None:
    if stored is None:
        return None
    shape, blob, mask = stored
    image = images.setdefault(blob, np.frombuffer(b64decode(blob), np.uint8).reshape(shape))
    return image, b64decode(mask)


def _close(client: Any, uri: str, folder: str | None) -> None:
    """Part from the server; the last to leave an embedded one stops it, and a temporary one goes."""
    client.close()
    _open[uri] -= 1
    if uri.endswith(".db") and not _open[uri]:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
