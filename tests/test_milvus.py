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
from rose_kit.memory import index as indexing
from rose_kit.memory.index import Index
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
    """Any order of changes, on Milvus; copies that change leave it."""

    def new(self):
        return SupportMemory(DIM, fingerprint="enc", index=new())

    def load(self):
        return SupportMemory.load(self.folder, index=new())


class TestChanges(Changes.TestCase):
    settings = settings(max_examples=3, stateful_step_count=20, deadline=None)


def same_hits(memory, **filters):
    here, there = (m.search(QUERIES, 4, **filters) for m in (memory.subset(memory.ids), memory))
    np.testing.assert_allclose(here.scores, there.scores, atol=1e-6)
    assert np.array_equal(here.ids, there.ids)


def test_each_copy_is_answered_for_its_own_rows():
    memory = SupportMemory(DIM, index=new())
    memory.extend(ready([(f"i{n}", name) for n in range(20) for name in ("sky", "bus")]))
    older = memory.copy()
    memory.remove(class_name="bus")
    memory.extend(ready([("more", "sky")]))
    for _ in range(2):
        same_hits(older)  # its rows were removed from the other one
        same_hits(memory, classes=["sky", "bus"], exclude_images=["i3", "i4"])
    older.remove("i0")
    assert type(older._index) is Index and type(memory._index) is MilvusIndex


def test_milvus_answers_filters_of_classes_and_images(monkeypatch):
    memory = filled(index=new())
    filters = {"classes": ["bus", "sky", "tram"], "exclude_images": ["img1"]}
    expected = memory.subset(memory.ids).search(QUERIES, 4, **filters)
    monkeypatch.setattr(indexing, "exact_search", None)  # rows compared in this process
    assert np.array_equal(memory.search(QUERIES, 4, **filters).ids, expected.ids)


# --- the collection, and the folder that rows come from

ELSEWHERE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_memory_store import DIM, SupportMemory, ready
from test_milvus import QUERIES, MilvusIndex
memory = SupportMemory.load(sys.argv[3], index=MilvusIndex(DIM, sys.argv[2], "shared"))
memory.search(QUERIES, 1)
memory.remove("img0")
memory.extend(ready([("lost", "sky"), ("lost", "bus")]))
memory.search(QUERIES, 1)
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


def sent(monkeypatch, index):
    """The ids of the rows that an index sends from now on."""
    ids, real = [], index._client.upsert

    def upsert(collection, rows):
        ids.extend(row["id"] for row in rows)
        return real(collection, rows)

    monkeypatch.setattr(index._client, "upsert", upsert)
    return ids


def test_a_loaded_memory_and_its_collection_agree_after_a_kill(tmp_path, monkeypatch):
    saved = illustrated()
    saved.save(tmp_path / "folder")
    with server(tmp_path / "data") as uri:
        arguments = str(Path(__file__).parent), uri, str(tmp_path / "folder")
        assert subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], timeout=120).returncode == -9
        index = MilvusIndex(DIM, uri, "shared")
        ids = sent(monkeypatch, index)
        memory = SupportMemory.load(tmp_path / "folder", index=index)
        same_content(memory, saved)
        same_hits(memory)
        assert set(ids) == set(saved.ids[saved.image_ids == "img0"])  # and no others
        memory.extend(ready([("next", "sky")]))  # of the id of a row that was lost
        same_hits(memory, classes=["sky"])
        with pytest.raises(ValueError, match="'shared'.* rows of another memory"):
            other = SupportMemory(DIM, index=MilvusIndex(DIM, uri, "shared"))
            other.extend(ready([("other", "sky")]))
            other.search(QUERIES, 1)
    with pytest.raises(OSError, match=uri):
        memory.search(QUERIES, 1)


def test_a_write_that_fails_is_made_good(monkeypatch):
    index = new()
    memory = filled(2, index=index)
    monkeypatch.setattr("rose_kit.memory.milvus.BATCH", 2)
    real, calls = index._client.upsert, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise index._error(message="disk\nfull")
        return real(*arguments)

    monkeypatch.setattr(index._client, "upsert", fail)
    with pytest.raises(OSError, match="disk full"):
        memory.search(QUERIES, 1)
    memory.remove(ids=memory.ids[:1])
    same_hits(memory)
    assert len(calls) == 1 + 1 + 2  # one was stored before the failure, and is not sent again


def test_the_last_index_of_a_file_lets_it_go(tmp_path):
    from milvus_lite.server_manager import server_manager_instance as servers

    path = str(tmp_path / "own.db")
    one, other = (MilvusIndex(DIM, path, name) for name in ("a", "b"))
    one.close()
    filled(1, index=other).search(QUERIES, 1)
    assert path in servers._servers
    other.close()
    assert path not in servers._servers
