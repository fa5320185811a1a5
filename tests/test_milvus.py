"""The same memory on a real Milvus: embedded in a file, and behind an address."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import test_memory
from hypothesis import settings
from test_memory import DIM, QUERIES, filled, ready, same_content
from test_memory_store import illustrated

from rose_kit.memory import SupportMemory
from rose_kit.memory.index import Filter, Index
from rose_kit.memory.milvus import MilvusIndex

numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory):
    """The path of an embedded Milvus."""
    global DATABASE
    DATABASE = str(tmp_path_factory.mktemp("milvus") / "memory.db")


def new() -> MilvusIndex:
    return MilvusIndex(DIM, DATABASE, f"c{next(numbers)}")


class Changes(test_memory.Changes):
    """Any order of changes, on Milvus; copies leave it."""

    def new(self):
        return SupportMemory(DIM, fingerprint="enc", index=new())

    def load(self, mapped):
        return SupportMemory.load(self.folder, mapped=mapped, index=new())


class TestChanges(Changes.TestCase):
    settings = settings(max_examples=3, stateful_step_count=20, deadline=None)


def same_hits(index, rows):
    scores, positions = index.search(rows, QUERIES, 4, Filter())
    expected = Index(DIM).search(rows, QUERIES, 4, Filter())
    np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    assert np.array_equal(positions, expected[1])


def test_only_a_snapshots_own_rows_are_found():
    rows = ready([(f"i{n}", "bus") for n in range(40)])
    index = new()
    index.added(rows)
    same_hits(index, rows.take(np.arange(20)))  # later rows are not its own
    same_hits(index, rows.take(np.arange(0, 40, 2)))  # nor are those that others wrote in between
    index.removed(rows.ids[:30])
    same_hits(index, rows)  # an older snapshot still has what is gone from the server
    index.added(rows.take(np.arange(10)))
    same_hits(index, rows.take(np.r_[0:10, 30:40]))


# --- the rows come back

ELSEWHERE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_memory_store import DIM, SupportMemory, illustrated
from rose_kit.memory.milvus import MilvusIndex
index = MilvusIndex(DIM, sys.argv[2], "shared", fingerprint="encoder/weights")
SupportMemory(DIM, index=index).extend(illustrated().rows)
os.kill(os.getpid(), signal.SIGKILL)
"""


@contextlib.contextmanager
def server(folder):
    """Milvus' own server process and its address; a cluster differs in its address alone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("milvus-lite"), "server", "--data-dir", folder]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*map(str, command), "--port", str(port)], **quiet) as process:
        for _ in range(600):  # until it listens
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_rows_written_by_a_killed_process_are_found_by_the_next(tmp_path):
    expected = SupportMemory(DIM)
    expected.extend(illustrated().rows)
    with server(tmp_path) as uri:
        code = [sys.executable, "-c", ELSEWHERE, str(Path(__file__).parent), uri]
        assert subprocess.run(code, timeout=120).returncode == -9
        index = MilvusIndex(DIM, uri, "shared")
        memory = SupportMemory(DIM, index=index, fingerprint=index.fingerprint)
        assert index.fingerprint == "encoder/weights"
        same_content(memory, expected)  # thumbnails, sources and metadata, too
        assert np.array_equal(*(m.extend(ready([("more", "bus")])) for m in (memory, expected)))
        memory.save(tmp_path / "folder")
        same_content(SupportMemory.load(tmp_path / "folder", index="flat"), expected)
        with pytest.raises(ValueError, match=f"{len(memory)} rows of its own"):
            SupportMemory.load(tmp_path / "folder", index=index)
    with pytest.raises(OSError, match=uri):
        memory.search(QUERIES, 1)


def test_a_write_that_fails_leaves_nothing_behind(monkeypatch):
    memory = filled(1, index="milvus")  # in a temporary folder
    index, folder = memory._index, Path(memory._index.uri).parent
    monkeypatch.setattr("rose_kit.memory.milvus.BATCH", 2)
    real, calls = index._client.upsert, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise index._milvus.MilvusException(message="disk\nfull")
        return real(*arguments)

    monkeypatch.setattr(index._client, "upsert", fail)
    more = ready([("more", name) for name in ("sky", "bus", "tram")])
    with pytest.raises(OSError, match="disk full"):
        memory.extend(more)
    assert len(calls) == 2 and len(memory) == len(index.stored()) == 3
    assert memory.extend(more).tolist() == [3, 4, 5]  # the same ids again
    monkeypatch.setattr(Index, "search", None)  # whatever is compared in this process fails
    assert {3, 4, 5} < {*memory.search(QUERIES, 4, classes=["sky", "bus", "tram"]).ids.ravel().tolist()}
    assert folder.is_dir()
    index.close()
    assert not folder.exists()
