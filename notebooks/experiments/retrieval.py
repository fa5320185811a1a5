"""Retrieval at size: what an index costs to build, to ask and to hold, and what it finds.

Rows are drawn as clusters, a stand-in for the prototypes of real images, whose neighbours of one class
lie close in few directions. There are P/100 clusters, of sizes drawn from a log-normal (sigma 1). A row
is its cluster's centre (a random direction) plus noise of the same expected length, at unit norm; the
noise lies in 64 directions of the cluster's own, the i-th with a variance in proportion to 1/i. A row so
has an expected cosine of 0.5 with others of its cluster. The clusters' directions are chosen from 4,096
shared random ones. Queries are further draws from the same clusters and are never stored.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rose_kit.memory import Prototypes, SupportMemory, storage
from rose_kit.memory.index import make_index
from rose_kit.types import unit

PER_CLUSTER = 100
CHUNK = 20_000  # rows drawn at a time
K = 4
HNSW_MOST = 200_000  # rows: beyond, building the graph takes long


class Clusters:
    """The distribution that rows and queries are drawn from.

    Args:
        count: rows that will be drawn; sets the number of clusters.
        dim: D.
        seed: of the clusters.
    """

    def __init__(self, count: int, dim: int = 512, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.dim, number = dim, max(1, count // PER_CLUSTER)
        self._centres = unit(rng.standard_normal((number, dim), np.float32))
        sizes = rng.lognormal(0, 1, number)
        self._shares = np.cumsum(sizes / sizes.sum())
        self._pool = unit(rng.standard_normal((4096, dim), np.float32))
        self._own = rng.integers(0, len(self._pool), (number, min(64, dim)))  # directions of each cluster
        spectrum = 1 / np.arange(1, self._own.shape[1] + 1)
        self._scale = np.sqrt(spectrum / spectrum.sum()).astype(np.float32)

    def draw(self, count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(n, D) unit vectors and the (n,) cluster of each, the same for the same seed."""
        rng = np.random.default_rng((1, seed % 2**32))
        owner = np.searchsorted(self._shares, rng.random(count)).clip(max=len(self._centres) - 1)  # (n,)
        weights = rng.standard_normal((count, len(self._scale)), np.float32) * self._scale  # (n, 64)
        vectors = self._centres[owner]
        order = np.argsort(owner, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            vectors[rows] += weights[rows] @ self._pool[self._own[owner[rows[0]]]]  # (m, 64) @ (64, D)
        return unit(vectors), owner


def retrieval_rows(
    sizes: Sequence[int], names: Sequence[str], dim: int = 512, asked: int = 512
) -> list[dict]:
    """Measure indexes at several sizes, each in processes of its own with one thread.

    Args:
        sizes: rows of the memories.
        names: indexes besides flat, which is always measured, as its answers are the truth.
        dim: D.
        asked: queries to a search, about the patches of an image.

    Returns:
        one mapping per size and index: `rows`, `index`, `build_s` and `query_ms` (per query, the quickest
        of three searches; time of the processor), `recall_at_4`, `bytes_per_row` (resident, of the whole
        memory but for pages of files; None where the system does not tell), `speedup` and `memory_share`
        against flat, `how`.

    Raises:
        ValueError: an index is unknown.
        OSError: a process was killed or failed; says of which size and index.
    """
    for name in names:
        make_index(name, dim)
    table = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="rose_kit_") as folder:
            write_memory(Path(folder), size, dim)
            exact = None
            fit = [name for name in names if name != "flat" and (name != "hnsw" or size <= HNSW_MOST)]
            for name in tqdm(["flat", *fit], f"{size} rows", disable=None):
                row = {"rows": size, "index": name, **_in_process(folder, size, dim, name, asked)}
                exact = exact or row
                row["speedup"] = exact["query_ms"] / row["query_ms"]
                if row["bytes_per_row"]:
                    row["memory_share"] = row["bytes_per_row"] / exact["bytes_per_row"]
                table.append(row)
    return table


def write_memory(folder: Path, size: int, dim: int) -> None:
    """Draw a memory of `size` rows and save it."""
    clusters, memory = Clusters(size, dim), SupportMemory(dim)
    vectors, owner = np.empty((size, dim), np.float32), np.empty(size, np.int64)
    for start in tqdm(range(0, size, CHUNK), "drawing", disable=None):
        piece = slice(start, min(start + CHUNK, size))
        vectors[piece], owner[piece] = clusters.draw(piece.stop - start, 1 + start)
    images = [f"i{n}" for n in range(size)]
    memory.extend(Prototypes.make(np.arange(size), vectors, [f"c{c}" for c in owner.tolist()], images))
    memory.save(folder)


def measure(folder: str, size: int, dim: int, index: str, asked: int) -> dict[str, Any]:
    """Load a memory, build its index and search with it; called in a process of its own."""
    _warm_up()
    clusters, before = Clusters(size, dim), _resident()
    storage.MAPPED_FROM = math.inf if index == "flat" else 0
    memory = SupportMemory.load(folder, index=index)
    first, *searches = (clusters.draw(asked, -seed)[0] for seed in range(1, 5))
    start = time.process_time()
    memory.search(first[:1] if index != "flat" else first, K)  # the first search makes the index
    build_s = time.process_time() - start if index != "flat" else 0.0
    memory.search(first, K)
    found, seconds = [], []
    for queries in searches:
        start = time.process_time()
        found.append(memory.search(queries, K).rows)  # (N, K)
        seconds.append(time.process_time() - start)
    found, held = np.concatenate(found), _resident()
    truth = Path(folder) / "truth.npy"
    if index == "flat":
        np.save(truth, found)
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, np.load(truth), strict=True)])
    return {
        "build_s": build_s,
        "query_ms": 1000 * min(seconds) / asked,
        "recall_at_4": float(recall),
        "bytes_per_row": None if None in (held, before) else (held - before) / size,
        "how": "exact, rows in memory" if index == "flat" else memory.describe_index(),
    }


def _warm_up() -> None:
    """Load and ask a small memory: what the libraries take once is not counted as rows."""
    with tempfile.TemporaryDirectory(prefix="rose_kit_") as folder:
        SupportMemory.from_prototypes(np.eye(8), ["c"] * 8, list("abcdefgh")).save(folder)
        SupportMemory.load(folder).search(np.eye(8), K)


def _resident() -> int | None:
    """Bytes of this process in memory that belong to no file; Linux only."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is not held
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status.read_text())[1])


def _in_process(folder: str, size: int, dim: int, index: str, asked: int) -> dict[str, Any]:
    task = json.dumps([folder, size, dim, index, asked])
    done = subprocess.run(
        [sys.executable, __file__, task],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )
    if done.returncode:
        why = "was killed, most likely for want of memory" if done.returncode < 0 else "failed (see above)"
        raise OSError(f"measuring {index} at {size} rows {why}: status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
