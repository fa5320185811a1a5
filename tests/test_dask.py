"""Work spread over real processes gives what the serial run gives, also when workers are killed."""

from __future__ import annotations

import copy
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed.protocol.pickle import loads
from test_memory import same_content

from data_scripts.scenes import SceneDataset
from rose_kit.adapter import RNS
from rose_kit.encoder import load_encoder
from rose_kit.evaluation import evaluate, parallel, parallel_map, remember
from rose_kit.fusion import ZeroShot
from rose_kit.memory import SupportMemory

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds")
SUPPORT = SceneDataset(6, first=1_000, size=64)
QUERY = SceneDataset(5, first=2_000, size=64)


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes; none of them is left at the end."""
    from distributed import LocalCluster

    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with LocalCluster(2, threads_per_worker=1, memory_limit=None, **quiet) as cluster:
        workers = {process.pid for process in psutil.Process().children(recursive=True)}
        yield cluster
    left = psutil.wait_procs([psutil.Process(p) for p in workers if psutil.pid_exists(p)], timeout=10)[1]
    assert not [p for p in left if "spawn_main" in " ".join(p.cmdline())]


@pytest.fixture
def client(cluster):
    from distributed import Client

    with Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        yield client


class Deadly:
    """Kills the process that it runs in: once, at one item, or whenever it meets that item."""

    def __init__(self, marker: Path, item: int, always: bool = False) -> None:
        self.marker, self.item, self.always = marker, item, always

    def __call__(self, i: int) -> tuple[int, int]:
        if i == self.item and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return i * i, os.getpid()


class DeadlyScenes(SceneDataset):
    """Scenes of which one kills the worker that is the first to draw it."""

    def __init__(self, count: int, marker: Path, **options) -> None:
        super().__init__(count, **options)
        self.marker, self.drawing = marker, os.getpid()

    def __getitem__(self, i: int):
        if i == 2 and os.getpid() != self.drawing and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


class Counted:
    """Leaves a line behind whenever it is unpacked."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = state
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, i: int) -> int:
        return -i


def fail_at_three(i: int) -> int:
    if i == 3:
        raise KeyError("three")
    return i


# --- the map


def test_a_killed_worker_loses_no_result_and_no_order(client, tmp_path):
    function = Deadly(tmp_path / "killed", item=7)
    found = list(parallel_map(function, range(40), scheduler=client, progress=False))
    assert [square for square, _ in found] == [i * i for i in range(40)]
    assert (tmp_path / "killed").exists() and os.getpid() not in {pid for _, pid in found}


def test_what_is_mapped_travels_once_to_each_worker(client, tmp_path):
    log = tmp_path / "log"
    assert list(parallel_map(Counted(log), range(30), scheduler=client)) == [-i for i in range(30)]
    pids = log.read_text().split()
    assert 1 <= len(pids) == len(set(pids)) <= 2


def test_a_task_that_kills_every_worker_is_given_up(cluster, client, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(OSError, match="its worker died each time"):
        list(parallel_map(Deadly(tmp_path / "x", 2, always=True), range(4), scheduler=client, progress=False))


@pytest.mark.parametrize("where", [None, "address"])
def test_errors_of_the_function_arrive_and_progress_is_shown(cluster, client, capsys, where):
    options = {"scheduler": where and cluster.scheduler_address, "desc": "squares"}
    done = []
    with pytest.raises(KeyError, match="three"):
        for result in parallel_map(fail_at_three, range(5), **options):
            done.append(result)
    assert done == [0, 1, 2] and "3/5" in capsys.readouterr().err
    assert list(parallel_map(abs, [-1, -2], **options)) == [1, 2]
    assert "squares: 100%" in capsys.readouterr().err
    assert list(parallel_map(abs, [], progress=False, **options)) == []


def test_a_local_cluster_is_started_and_stopped():
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    results = parallel_map(os.path.basename, ["a/b", "c"], scheduler="local:1", progress=False)
    assert next(results) == "b"
    during = {p.pid for p in psutil.Process().children(recursive=True)} - before
    assert list(results) == ["c"] and during
    left = [psutil.Process(p) for p in during if psutil.pid_exists(p)]
    assert not [p for p in psutil.wait_procs(left, timeout=10)[1] if "spawn_main" in " ".join(p.cmdline())]


def test_bad_schedulers_are_refused(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 1)
    for wrong in ("locale", "local:0", "local:two", "host:8786", 3):
        with pytest.raises(ValueError, match=f"unknown scheduler {wrong!r}: local, local:N, or an address"):
            list(parallel_map(abs, [1], scheduler=wrong, progress=False))
    with pytest.raises(OSError, match=r"no Dask scheduler with workers at 'tcp://127.0.0.1:9'"):
        list(parallel_map(abs, [1], scheduler="tcp://127.0.0.1:9", progress=False))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r'pip install "rose_kit\[dask\]"'):
        list(parallel_map(abs, [1], progress=False))


def test_when_no_worker_is_left_nobody_waits_for_ever(monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(parallel, "PATIENCE", 0.2)
    cluster = LocalCluster(1, processes=False, dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster) as client:
        cluster.scale(0)
        while client.nthreads():
            time.sleep(0.05)
        with pytest.raises(OSError, match="every Dask worker is gone"):
            list(parallel_map(abs, [1], scheduler=client, progress=False))


# --- what travels


def test_encoders_of_the_kit_travel_by_name_and_others_whole():
    encoder = load_encoder("handcrafted")
    packed = parallel.dumps([encoder, encoder])
    assert len(packed) < 300
    one, two = loads(packed)
    assert one is two and one.fingerprint == encoder.fingerprint
    other = copy.copy(encoder)
    other.batch_size = 3  # no longer what its name gives
    assert loads(parallel.dumps(other)).batch_size == 3


def test_memories_travel_with_all_they_hold():
    rows = np.eye(4, dtype=np.float32)
    memory = SupportMemory.from_prototypes(rows, list("abca"), list("ijkl"), fingerprint="f")
    memory.remove("j")
    back = loads(parallel.dumps({"memory": memory}))["memory"]
    same_content(back, memory)
    assert back.fingerprint == "f" and np.array_equal(back.search(rows, 2).rows, memory.search(rows, 2).rows)


# --- experiments


def test_evaluation_is_the_same_as_serial_bit_for_bit_though_a_worker_dies(client, tmp_path):
    encoder, methods = load_encoder("bundled"), {"zero-shot": ZeroShot(), "rns": RNS()}
    options = {"shots": 1, "seeds": [1, 2], "progress": False}
    serial = evaluate(SUPPORT, QUERY, encoder, methods, **options)
    query = DeadlyScenes(5, tmp_path / "killed", first=2_000, size=64)
    spread = evaluate(SUPPORT, query, encoder, methods, scheduler=client, **options)
    assert (tmp_path / "killed").exists()
    assert spread == serial and len({row["miou"] for row in serial}) > 1


def test_a_support_set_encoded_on_workers_makes_the_same_memory(client):
    encoder = load_encoder("handcrafted")
    memories = [SupportMemory(encoder.dim, fingerprint=encoder.fingerprint) for _ in range(2)]
    ids = [
        remember(memory, SUPPORT, encoder, positions=[4, 0, 2], scheduler=scheduler, progress=False)
        for memory, scheduler in zip(memories, (None, client), strict=True)
    ]
    assert np.array_equal(*ids) and memories[0].images == tuple(SUPPORT.ids[i] for i in (4, 0, 2))
    same_content(*memories)
    with pytest.raises(ValueError, match="already a prototype"):
        remember(memories[0], SUPPORT, encoder, positions=[5, 2], progress=False)
    same_content(*memories)  # image 5 was not added either
    assert len(remember(memories[0], SUPPORT, encoder, positions=[], progress=False)) == 0


def test_the_command_line_takes_a_scheduler(run, refused, folder, cluster, tmp_path):
    at = ["--scheduler", cluster.scheduler_address]
    build = ["memory", "build", folder, "--encoder", "handcrafted", "--out"]
    run(*build, tmp_path / "spread", *at)
    run(*build, tmp_path / "serial")
    same_content(*(SupportMemory.load(tmp_path / name) for name in ("spread", "serial")))
    evaluate = ["evaluate", folder, "--encoder", "handcrafted", "--methods", "knn-clip", "--seeds", "1"]
    tables = [run(*evaluate, *options) for options in (at, [])]
    assert tables[0] == tables[1] and "knn-clip" in tables[0]
    refused(*evaluate, "--scheduler", "here", said=["'here'", "local, local:N", "tcp://host:8786"])
