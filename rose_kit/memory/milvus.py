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

from rose_kit.memory.index import Filter, Index, Ranking
from rose_kit.memory.prototypes import Prototypes

BATCH = 500  # rows to a message: with a thumbnail each they stay below the 64 MB that a server takes
MOST = 16_384  # neighbours that a server gives to one query, ids that it deletes at once
FINGERPRINT = "rose_kit.fingerprint"  # a property of the collection
COLUMNS = ["id", "vector", "class_name", "image_id", "about"]
_open: Counter[str] = Counter()  # how many in this process are connected to each address


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

    name = "milvus"

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

    def __reduce__(self) -> tuple:
        """A copy, or what travels to another process, is exact and without a server."""
        return Index, (self.dim,)

    def _create(self, fingerprint: str | None, index_type: str) -> None:
        types, schema = self._milvus.DataType, self._client.create_schema()
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=self.dim)
        for name in ("class_name", "image_id"):
            schema.add_field(name, types.VARCHAR, max_length=65_535)  # bytes, the most there can be
        schema.add_field("about", types.JSON)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type=index_type, metric_type="IP")
        about = {} if fingerprint is None else {FINGERPRINT: fingerprint}
        self._client.create_collection(self.collection, schema=schema, index_params=index, properties=about)

    def _check(self, fingerprint: str | None) -> str | None:
        description = self._client.describe_collection(self.collection)
        fields = {f["name"]: f["params"] for f in description["fields"]}
        recorded = (description.get("properties") or {}).get(FINGERPRINT)
        where = f"collection {self.collection!r} at {self.uri!r}"
        if list(fields) != COLUMNS:
            raise ValueError(f"{where} is not a memory: its fields are {', '.join(fields)}")
        if int(fields["vector"]["dim"]) != self.dim:
            raise ValueError(f"{where} has {fields['vector']['dim']} dimensions, not {self.dim}")
        if None not in (fingerprint, recorded) and fingerprint != recorded:
            raise ValueError(f"{where} was made with {recorded!r}; you gave {fingerprint!r}")
        return recorded

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._milvus.MilvusException as error:
            raise OSError(f"Milvus at {self.uri!r}: {' '.join(error.message.split())}") from error

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, chosen: Filter) -> Ranking:
        """See `Index.search`. What the server cannot answer for this very table is compared here.

        That is: filters by metadata, more neighbours than there are rows or than a server gives, an older
        table that has rows which are gone from the server, and rows that others wrote in between.
        """
        mask, expression = chosen.mask(table), _expression(table, chosen)
        count = len(table) if mask is None else int(mask.sum())
        removed = table.positions(np.fromiter(self._removed, dtype=np.int64))
        if chosen.where is None and k <= min(count, MOST) and "\\" not in expression and (removed < 0).all():
            with self._errors():
                hits = self._client.search(
                    self.collection, list(queries), expression, limit=k, consistency_level="Strong"
                )
            if all(len(row) == k for row in hits):
                positions = table.positions([[hit["id"] for hit in row] for row in hits])
                if (positions >= 0).all():
                    return np.array([[hit["distance"] for hit in row] for row in hits], np.float32), positions
        return super().search(table, queries, k, chosen)

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


def _expression(table: Prototypes, chosen: Filter) -> str:
    """The filter in Milvus' language; rows that came after the table are left out."""
    parts = [f"id <= {table.ids[-1]}"]
    if chosen.classes is not None:
        parts.append(f"class_name in {json.dumps(chosen.classes, ensure_ascii=False)}")
    if chosen.exclude_images:
        parts.append(f"image_id not in {json.dumps(chosen.exclude_images, ensure_ascii=False)}")
    return " and ".join(parts)


def _records(table: Prototypes) -> Iterator[dict[str, Any]]:
    """What is sent for each row."""
    about = zip(table.sources, table.metadata, map(_packed, table.thumbnails), strict=True)
    facts = (dict(zip(("source", "metadata", "thumbnail"), one, strict=True)) for one in about)
    columns = table.ids.tolist(), table.vectors, table.class_texts, table.image_texts, facts
    return (dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True))


def _packed(pair: tuple | None) -> list | None:
    return pair and [pair[0].shape, *(b64encode(data).decode() for data in pair)]


def _unpacked(stored: list | None, images: dict[str, NDArray[np.uint8]]) -> tuple | None:
    if stored is None:
        return None
    shape, blob, mask = stored
    image = images.setdefault(blob, np.frombuffer(b64decode(blob), np.uint8).reshape(shape))
    return image, b64decode(mask)


def _close(client: Any, uri: str, folder: str | None) -> None:
    """Part from the server; the last to leave an embedded one stops it, and a temporary folder goes."""
    client.close()
    _open[uri] -= 1
    if uri.endswith(".db") and not _open[uri]:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
