"""Milvus as the index of a memory: embedded in a local file, or served by a cluster.

The collection holds ids, vectors, class names and image ids, so that Milvus answers searches with filters of
classes and images. Everything else stays in the memory, whose folder is the one place where it is saved.
"""

import logging
import threading
import weakref
import zlib
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.index import Filter, Index, Ranking, rerank
from rose_kit.memory.prototypes import Prototypes

BATCH = 5_000  # rows to a message: at 1,536 dimensions they stay below the 64 MB that a server takes
MOST = 16_384  # neighbours that a server gives to one query, ids that it deletes at once
FIELDS = ["id", "image_id", "class_name", "checksum"]
_connections: Counter[str] = Counter()  # address -> how many indexes of this process use it


class MilvusIndex(Index):
    """A Milvus collection that holds the rows of one memory.

    Before a search, rows that the collection lacks are sent, and rows that are not the memory's are deleted.
    A saved memory is loaded with `SupportMemory.load(path, index=MilvusIndex(...))`.

    Args:
        dim: D, the width of the features.
        uri: a local path that ends in .db (embedded; one process at a time), or the address of a server
            or cluster, such as "http://host:19530".
        collection: its name. If there is none, it is made; one made beforehand, with fields "id", "vector",
            "class_name" and "image_id" and the metric IP, may have an index of any type.
        **options: of `pymilvus.MilvusClient`, such as `token`.

    Raises:
        ValueError: pymilvus is not installed, or the address cannot be opened.
    """

    def __init__(self, dim: int, uri: str, collection: str = "rose_kit", **options: Any) -> None:
        super().__init__(dim)
        try:
            import pymilvus
        except ImportError as error:
            raise ValueError(f'Milvus needs an extra: pip install "rose_kit[milvus]" ({error})') from None
        for library in ("pymilvus", "milvus_lite"):
            logging.getLogger(library).setLevel(logging.CRITICAL)  # errors are raised, not logged as well
        self.uri, self.collection, self._error = str(uri), collection, pymilvus.MilvusException
        self._lock = threading.Lock()
        self._ids: NDArray[np.int64] | None = None  # of the rows in the collection; None: not known
        try:
            self._client = pymilvus.MilvusClient(self.uri, **options)
        except self._error as error:
            raise ValueError(f"cannot open Milvus at {self.uri!r}: {error.message}") from error
        _connections[self.uri] += 1
        self.close = weakref.finalize(self, _close, self._client, self.uri)
        if not self._call("has_collection"):
            schema = {"dimension": dim, "metric_type": "IP", "consistency_level": "Strong"}
            self._call("create_collection", **schema)  # the fields "id" and "vector"; rows may have others
        self._call("load_collection")

    def __reduce__(self) -> tuple:
        """A copy is exact and needs no server; so is what another process receives."""
        return Index, (self.dim,)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, method)(self.collection, *arguments, **options)
        except self._error as error:
            raise OSError(f"Milvus at {self.uri!r}: {' '.join(error.message.split())}") from error

    def search(self, table: Prototypes, queries: NDArray[np.float32], k: int, row_filter: Filter) -> Ranking:
        """See `Index.search`. What Milvus cannot answer is compared row by row.

        That is: filters by metadata, names with a backslash or both kinds of quotation marks, and more
        neighbours than there are rows or than Milvus gives.

        Raises:
            OSError: Milvus fails.
            ValueError: the collection holds rows of another memory.
        """
        expression = _expression(row_filter)
        if row_filter.where is None and k <= MOST and "\\" not in expression:
            with self._lock:  # another thread may search with an older table
                self._synchronise(table)
                hits = self._call("search", list(queries), expression, limit=k)
            ids = [[hit["id"] for hit in row] + [-1] * (k - len(row)) for row in hits]  # (N, k)
            positions = table.positions(ids)
            if (positions >= 0).all():
                return rerank(table.vectors, queries, positions, k)
        return super().search(table, queries, k, row_filter)

    def compares_all(self, table: Prototypes, k: int, row_filter: Filter) -> bool:
        """See `Index.compares_all`."""
        return False

    def describe(self) -> str:
        """One line on what it is."""
        return f"milvus, collection {self.collection!r} at {self.uri!r}"

    def _synchronise(self, table: Prototypes) -> None:
        """Make the collection hold the rows of a table and no others."""
        if self._ids is not None and np.array_equal(self._ids, table.ids):
            return
        stored, self._ids = self._stored(table) if self._ids is None else self._ids, None
        self._delete(np.setdiff1d(stored, table.ids).tolist())
        missing = table.take(~np.isin(table.ids, stored))
        for start in range(0, len(missing), BATCH):
            part = missing.take(slice(start, start + BATCH))
            rows = zip(_identities(part), part.vectors, strict=True)
            self._call("upsert", [dict(zip(FIELDS, own, strict=True)) | {"vector": v} for own, v in rows])
        self._ids = table.ids  # not before all has been done

    def _stored(self, table: Prototypes) -> NDArray[np.int64]:
        """The ids of the table's rows that the collection holds; other rows are deleted from it."""
        pages = self._call("query_iterator", MOST, output_fields=FIELDS)
        stored = {tuple(row[name] for name in FIELDS) for page in iter(pages.next, []) for row in page}
        own = set(_identities(table))
        if stored and stored.isdisjoint(own):
            raise ValueError(f"{self.describe()} holds {len(stored)} rows of another memory")
        self._delete([row[0] for row in stored - own])
        return np.array([row[0] for row in stored & own], dtype=np.int64)

    def _delete(self, ids: list[int]) -> None:
        for start in range(0, len(ids), MOST):
            self._call("delete", ids=ids[start : start + MOST])


def _identities(table: Prototypes) -> list[tuple[int, str, str, int]]:
    """What tells a row from others, in the order of FIELDS; two encoders give two checksums."""
    checksums = [zlib.crc32(vector) for vector in np.ascontiguousarray(table.vectors)]
    return list(zip(table.ids.tolist(), table.image_ids, table.class_names, checksums, strict=True))


def _expression(row_filter: Filter) -> str:
    """The filter in the language of Milvus."""
    lists = {"class_name in": row_filter.classes, "image_id not in": row_filter.exclude_images or None}
    return " and ".join(f"{condition} {names}" for condition, names in lists.items() if names is not None)


def _close(client: Any, uri: str) -> None:
    """Disconnect. The last index to leave an embedded Milvus stops it, so that others can open the file."""
    client.close()
    _connections[uri] -= 1
    if uri.endswith(".db") and not _connections[uri]:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)
