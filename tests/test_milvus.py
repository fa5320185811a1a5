"""The same memory on a real Milvus: embedded in a file, and behind an address."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import test_memory
from distributed.protocol.pickle import loads
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_memory import DIM, NAMES, check_against_slow, features, filled, mask_of, same_content

from rose_kit.evaluation.parallel import dumps
from rose_kit.memory import Rows, SupportMemory
from rose_kit.memory.filters import Filter
from rose_kit.memory.indexes.flat import FlatIndex
from rose_kit.memory.indexes.milvus import MilvusIndex
from rose_kit.types import unit

QUERIES = unit(np.random.default_rng(1).standard_normal((9, DIM))).astype(np.float32)
SAME = {n: t for n, t in vars(test_memory).items() if n.startswith("test_") and inspect.isfunction(t)}
globals().update(SAME)
numbers = itertools.count()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The path of an embedded Milvus, kept open for the whole module."""
    path = str(tmp_path_factory.mktemp("milvus") / "memory.db")
    opened = MilvusIndex(2, path, "keeps_it_open")
    yield path
    opened.close()


@pytest.fixture
def new(database):
    """Makes empty indexes."""
    return lambda dim=DIM, **options: MilvusIndex(dim, database, f"c{next(numbers)}", **options)


# --- every test of a memory, on Milvus


@pytest.fixture(scope="module", autouse=True)
def on_milvus(database):
    """In `test_memory`, whatever asks for the flat index gets a collection of its own."""

    class OnMilvus(SupportMemory):
        def __init__(self, dim, *, index="flat", **options):
            fresh = index == "flat" and type(dim) is int and dim > 0
            super().__init__(
                dim, index=MilvusIndex(dim, database, f"c{next(numbers)}") if fresh else index, **options
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_memory, "SupportMemory", OnMilvus)
        for test in SAME.values():  # properties are tried on fewer examples
            if usual := getattr(test, "_hypothesis_internal_use_settings", None):
                patch.setattr(test, "_hypothesis_internal_use_settings", settings(usual, max_examples=6))
        yield


def test_memories_of_test_memory_are_on_milvus_here():
    assert type(filled(1)._index) is MilvusIndex


# --- filters

NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4)
FACT = st.none() | st.booleans() | st.integers(-4, 4) | st.sampled_from([0.5, 3.0, "day", "fog", 'a"\\n'])
KEY = st.sampled_from(["d", "year", "a b", "é", 'x"'])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_filter_means_the_same_as_without_milvus(new, data):
    names = data.draw(
        st.lists(NAME | st.sampled_from(['q"', "b\\", "n\n", "{y}", "'"]), min_size=1, max_size=8)
    )
    images = [f'i"{n}' for n in range(len(names))]
    facts = [data.draw(st.dictionaries(KEY, FACT, max_size=3)) for _ in names]
    origins = [
        ((image, None, {}), ("elsewhere", None, {})) if n % 3 == 0 else None for n, image in enumerate(images)
    ]
    vectors = unit(np.random.default_rng(len(names)).standard_normal((len(names), DIM)))
    rows = Rows.make(np.arange(len(names)) * 2, vectors, names, images, metadata=facts, origins=origins)
    index = new()
    index.added(rows)
    classes = data.draw(st.none() | st.lists(st.sampled_from(names) | NAME, max_size=3))
    excluded = data.draw(st.lists(st.sampled_from([*images, "elsewhere"]), max_size=3))
    wanted = data.draw(st.none() | st.dictionaries(KEY, FACT | st.lists(FACT, max_size=3), max_size=2))
    chosen, k = Filter.of(classes, excluded, wanted), data.draw(st.integers(1, 9))
    same_hits(index, rows, k, chosen)
    index.close()


def same_hits(index, rows, k=4, chosen=Filter()):  # noqa: B008
    scores, positions = index.search(rows, QUERIES, k, chosen)
    expected = FlatIndex(DIM).search(rows, QUERIES, k, chosen)
    np.testing.assert_allclose(scores, expected[0], atol=1e-6)
    assert np.array_equal(positions, expected[1]) and positions.shape == (len(QUERIES), k)


def test_only_a_snapshots_own_rows_are_found(new):
    vectors = unit(np.random.default_rng(2).standard_normal((40, DIM)))
    rows = Rows.make(np.arange(40), vectors, ["bus"] * 40, [f"i{n}" for n in range(40)])
    index = new()
    index.added(rows)
    same_hits(index, rows.take(np.arange(20)))  # later rows are not its own
    same_hits(index, rows.take(np.arange(0, 40, 2)))  # nor are those that others wrote in between
    index.removed(rows.ids[:30])
    same_hits(index, rows)  # an older snapshot still has what is gone from the server
    same_hits(index, rows.take(np.arange(30, 40)), k=30)
    index.added(rows.take(np.arange(10)))  # as undo does
    same_hits(index, rows.take(np.r_[0:10, 30:40]))


# --- the rows come back

ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_memory import DIM, filled
from rose_kit.memory import SupportMemory
from rose_kit.memory.indexes.milvus import MilvusIndex
index = MilvusIndex(DIM, sys.argv[2], "shared", fingerprint="encoder/weights")
memory = filled(3, index=index, fingerprint="encoder/weights")
memory.remove("img1")
print(memory.ids.tolist(), flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_elsewhere(uri):
    """Write to Milvus in a process that is killed as soon as it has."""
    code = [sys.executable, "-c", ELSEWHERE, str(Path(__file__).parent), uri]
    return subprocess.run(code, capture_output=True, text=True, timeout=120)


def expected_memory():
    memory = filled(3)
    memory.remove("img1")
    return memory


def test_rows_written_by_a_killed_process_are_found_by_the_next(tmp_path):
    uri = str(tmp_path / "shared.db")
    done = run_elsewhere(uri)
    assert done.stdout.strip() == "[0, 1, 2, 6, 7, 8]", done.stderr
    index = MilvusIndex(DIM, uri, "shared")
    memory = SupportMemory(DIM, index=index, fingerprint=index.fingerprint)
    assert index.fingerprint == "encoder/weights"
    same_content(memory, expected_memory())
    fmap = features(9)
    assert memory.add("more", fmap, mask_of(fmap), NAMES).tolist() == [9, 10, 11]
    check_against_slow(memory, QUERIES, 5, memory.class_names == "bus", classes=["bus"])
    memory.save(tmp_path / "folder")
    same_content(SupportMemory.load(tmp_path / "folder", index="flat"), memory)
    index.close()


def test_a_server_by_address(tmp_path):
    """Milvus' own server process; a cluster differs in its address alone."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--port", port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            uri = f"http://127.0.0.1:{port}"
            for _ in range(600):  # until it listens
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
                    break
                time.sleep(0.1)
            assert run_elsewhere(uri).stdout.strip() == "[0, 1, 2, 6, 7, 8]"
            index = MilvusIndex(DIM, uri, "shared")
            memory = SupportMemory(DIM, index=index)
            same_content(memory, expected_memory())
        finally:
            server.terminate()
    with pytest.raises(OSError, match=f"Milvus at '{uri}'"):
        memory.search(QUERIES, 1)
    index.close()


def test_thumbnails_origins_and_sources_come_back(new, database):
    fmap = features(4)
    picture = np.random.default_rng(0).integers(0, 255, (*fmap.image_size, 3), dtype=np.uint8)
    memory = SupportMemory(DIM, index=new())
    about = {"metadata": {"year": 2020, "ok": True, "x": 0.1, "none": None, "é": "ü"}, "source": "ph ö/b.png"}
    memory.add("shown", fmap, mask_of(fmap), NAMES, thumbnail=picture, **about)
    memory.add("plain", fmap, mask_of(fmap), NAMES)
    assert memory.merge() == 3
    again = SupportMemory(DIM, index=MilvusIndex(DIM, database, memory._index.collection))
    same_content(again, memory)
    first = again.rows.thumbnails
    assert first[0] is None or first[0][0] is first[1][0]  # rows of one picture share it


def test_a_temporary_database_goes_with_its_index():
    index = MilvusIndex(DIM)
    folder = Path(index.uri).parent
    assert folder.is_dir() and index.rows() is None
    memory = filled(1, index=index)
    assert len(memory.search(QUERIES, 2).rows) == len(QUERIES)
    index.close()
    assert not folder.exists()


def test_workers_get_a_flat_copy_of_a_memory_on_milvus(new):
    memory = filled(2, index=new())
    back = loads(dumps(memory))
    same_content(back, memory)
    assert type(back._index) is FlatIndex and memory._stored is None


def test_the_command_line_keeps_a_memory_in_milvus_too(run, refused, folder, tmp_path):
    uri, out = tmp_path / "memory.db", tmp_path / "memory"
    build = ["memory", "build", folder, "--encoder", "handcrafted", "--uri", uri]
    run(*build, "--out", out)
    saved = SupportMemory.load(out)
    index = MilvusIndex(saved.dim, str(uri))
    same_content(SupportMemory(saved.dim, index=index), saved)
    assert index.fingerprint == saved.fingerprint
    refused(*build, "--out", tmp_path / "other", said=["'rose_kit'", "holds rows already"])
    index.close()


# --- what is refused


def test_what_does_not_fit_is_refused(new, database, tmp_path, monkeypatch):
    held = new(fingerprint="A")
    again = {"uri": database, "collection": held.collection}
    with pytest.raises(ValueError, match=f"{held.collection!r} at .*has 8 dimensions, not 9"):
        MilvusIndex(9, **again)
    with pytest.raises(ValueError, match="was made with 'A'; you gave 'B'"):
        MilvusIndex(DIM, fingerprint="B", **again)
    held._client.create_collection("other", dimension=DIM)
    with pytest.raises(ValueError, match="'other' at .* is not a memory: its fields are id, vector"):
        MilvusIndex(DIM, database, "other")
    for wrong in ("memory.sqlite", str(tmp_path / "no" / "folder.db")):
        with pytest.raises(ValueError, match=f"cannot open Milvus at '{wrong}'"):
            MilvusIndex(DIM, wrong)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ValueError, match=r'pip install "rose_kit\[milvus\]"'):
        MilvusIndex(DIM)


def test_a_write_that_fails_leaves_nothing_behind(new, monkeypatch):
    index = new()
    memory = filled(1, index=index)
    monkeypatch.setattr("rose_kit.memory.indexes.milvus.BATCH", 2)
    real, calls = index._client.upsert, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise index._milvus.MilvusException(message="disk\nfull")
        return real(*arguments)

    monkeypatch.setattr(index._client, "upsert", fail)
    fmap = features(5)
    with pytest.raises(OSError, match="Milvus at .*: disk full"):
        memory.add("more", fmap, mask_of(fmap), NAMES)
    assert len(calls) == 2 and len(memory) == len(index.rows()) == 3
