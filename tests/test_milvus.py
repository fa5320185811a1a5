"""The same memory on a real Milvus: embedded in a file, and behind an address."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import test_memory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_memory import DIM, NAMES, QUERIES, features, filled, mask_of, ready, same_content

from rose_kit.memory import Prototypes, SupportMemory
from rose_kit.memory.index import Filter, Index
from rose_kit.memory.milvus import MilvusIndex
from rose_kit.types import unit

numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory):
    """The path of an embedded Milvus."""
    global DATABASE
    DATABASE = str(tmp_path_factory.mktemp("milvus") / "memory.db")
    return DATABASE


def new(**options) -> MilvusIndex:
    return MilvusIndex(DIM, DATABASE, f"c{next(numbers)}", **options)


class Changes(test_memory.Changes):
    """Any order of changes, on Milvus; copies leave it."""

    def new(self):
        return SupportMemory(DIM, fingerprint="enc", index=new())

    def load(self, mapped):
        return SupportMemory.load(self.folder, mapped=mapped, index=new())


class TestChanges(Changes.TestCase):
    settings = settings(max_examples=3, stateful_step_count=20, deadline=None)


# --- filters

NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4)
FACT = st.none() | st.booleans() | st.integers(-4, 4) | st.sampled_from([0.5, 3.0, "day", "fog", 'a"\\n'])
KEY = st.sampled_from(["d", "year", "a b", "é", 'x"'])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_filter_means_the_same_as_without_milvus(data):
    names = data.draw(
        st.lists(NAME | st.sampled_from(['q"', "b\\", "n\n", "{y}", "'"]), min_size=1, max_size=8)
    )
    images = [f'i"{n}' for n in range(len(names))]
    facts = [data.draw(st.dictionaries(KEY, FACT, max_size=3)) for _ in names]
    vectors = unit(np.random.default_rng(len(names)).standard_normal((len(names), DIM)))
    rows = Prototypes.make(np.arange(len(names)) * 2, vectors, names, images, metadata=facts)
    index = new()
    index.added(rows)
    for _ in range(3):
        classes = data.draw(st.none() | st.lists(st.sampled_from(names) | NAME, max_size=3))
        excluded = data.draw(st.lists(st.sampled_from([*images, "elsewhere"]), max_size=3))
        wanted = data.draw(st.none() | st.dictionaries(KEY, FACT | st.lists(FACT, max_size=3), max_size=2))
        same_hits(index, rows, data.draw(st.integers(1, 9)), Filter.of(classes, excluded, wanted))
    index.close()


def same_hits(index, rows, k=4, chosen=Filter()):  # noqa: B008
    scores, positions = index.search(rows, QUERIES, k, chosen)
    expected = Index(DIM).search(rows, QUERIES, k, chosen)
    np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    assert np.array_equal(positions, expected[1]) and positions.shape == (len(QUERIES), k)


def test_only_a_snapshots_own_rows_are_found():
    rows = ready([(f"i{n}", "bus") for n in range(40)])
    index = new()
    index.added(rows)
    same_hits(index, rows.take(np.arange(20)))  # later rows are not its own
    same_hits(index, rows.take(np.arange(0, 40, 2)))  # nor are those that others wrote in between
    index.removed(rows.ids[:30])
    same_hits(index, rows)  # an older snapshot still has what is gone from the server
    same_hits(index, rows.take(np.arange(30, 40)), k=30)
    index.added(rows.take(np.arange(10)))
    same_hits(index, rows.take(np.r_[0:10, 30:40]))


def test_most_searches_are_the_servers(monkeypatch):
    memory = filled(4, index=new())
    memory.remove("img1")
    expected = memory.copy().search(QUERIES, 2, classes=["sky", "it's"], exclude_images=["img0", "é"])
    monkeypatch.setattr(Index, "search", None)  # whatever is compared here fails
    found = memory.search(QUERIES, 2, classes=["sky", "it's"], exclude_images=["img0", "é"])
    assert np.array_equal(found.ids, expected.ids) and (found.ids >= 0).all()


# --- the rows come back

ELSEWHERE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_memory import DIM, filled
from rose_kit.memory.milvus import MilvusIndex
index = MilvusIndex(DIM, sys.argv[2], "shared", fingerprint="encoder/weights")
filled(3, index=index, fingerprint="encoder/weights").remove("img1")
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
    expected = filled(3)
    expected.remove("img1")
    with server(tmp_path) as uri:
        code = [sys.executable, "-c", ELSEWHERE, str(Path(__file__).parent), uri]
        assert subprocess.run(code, timeout=120).returncode == -9
        index = MilvusIndex(DIM, uri, "shared")
        memory = SupportMemory(DIM, index=index, fingerprint=index.fingerprint)
        assert index.fingerprint == "encoder/weights"
        same_content(memory, expected)
        assert np.array_equal(*(m.extend(ready([("more", "bus")])) for m in (memory, expected)))
        memory.save(tmp_path / "folder")
        same_content(SupportMemory.load(tmp_path / "folder", index="flat"), expected)
        with pytest.raises(ValueError, match="7 rows of its own"):
            SupportMemory.load(tmp_path / "folder", index=index)
    with pytest.raises(OSError, match=uri):
        memory.search(QUERIES, 1)


def test_thumbnails_and_sources_come_back(database):
    fmap = features(4)
    image = np.random.default_rng(0).integers(0, 255, (*fmap.image_size, 3), dtype=np.uint8)
    memory = SupportMemory(DIM, index=new())
    about = {"metadata": {"year": 2020, "ok": True, "x": 0.1, "none": None, "é": "ü"}, "source": "ph ö/b.png"}
    memory.add("shown", fmap, mask_of(fmap), NAMES, thumbnail=image, **about)
    memory.add("plain", fmap, mask_of(fmap), NAMES)
    again = SupportMemory(DIM, index=MilvusIndex(DIM, database, memory._index.collection))
    same_content(again, memory)
    assert again.rows.thumbnails[0][0] is again.rows.thumbnails[1][0]  # rows of one image share it
    for back in (memory.copy(), pickle.loads(pickle.dumps(memory))):  # both are in this process
        assert type(back._index) is Index
        back.remove("shown")
    assert len(memory) == len(memory._index.stored()) == 6


def test_a_temporary_database_goes_with_its_index():
    memory = filled(1, index="milvus")
    folder = Path(memory._index.uri).parent
    assert folder.is_dir() and len(memory.search(QUERIES, 2).ids) == len(QUERIES)
    memory._index.close()
    assert not folder.exists()


# --- what is refused


def test_what_does_not_fit_is_refused(database, tmp_path, monkeypatch):
    held = new(fingerprint="A")
    held._client.create_collection("other", dimension=DIM)
    for dim, collection, fingerprint, value in [
        (9, held.collection, None, "8 dimensions, not 9"),
        (DIM, held.collection, "B", "'A'.*'B'"),
        (DIM, "other", None, "'other'.*id, vector"),
    ]:
        with pytest.raises(ValueError, match=value):
            MilvusIndex(dim, database, collection, fingerprint=fingerprint)
    wrong = str(tmp_path / "no" / "folder.db")
    with pytest.raises(ValueError, match=wrong):
        MilvusIndex(DIM, wrong)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ValueError, match=r"rose_kit\[milvus\]"):
        SupportMemory(DIM, index="milvus")


def test_a_write_that_fails_leaves_nothing_behind(monkeypatch):
    index, fmap = new(), features(5)
    memory = filled(1, index=index)
    monkeypatch.setattr("rose_kit.memory.milvus.BATCH", 2)
    real, calls = index._client.upsert, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise index._milvus.MilvusException(message="disk\nfull")
        return real(*arguments)

    monkeypatch.setattr(index._client, "upsert", fail)
    with pytest.raises(OSError, match="disk full"):
        memory.add("more", fmap, mask_of(fmap), NAMES)
    assert len(calls) == 2 and len(memory) == len(index.stored()) == 3
    assert memory.add("more", fmap, mask_of(fmap), NAMES).tolist() == [3, 4, 5]  # the same ids again
    monkeypatch.setattr(Index, "search", None)  # the server has them
    assert {3, 4, 5} < {*memory.search(QUERIES, 6).ids.ravel().tolist()}
