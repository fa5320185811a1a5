"""A memory that changes: against a slow one that forgets nothing, with threads, processes and kills."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_memory import DIM, NAMES, features, filled, mask_of, same_content

from rose_kit.memory import Rows, SupportMemory, cache, state
from rose_kit.memory.files import writing
from rose_kit.memory.indexes.auto import AutoIndex
from rose_kit.memory.indexes.flat import FlatIndex
from rose_kit.memory.indexes.ivfpq import IVFPQIndex
from rose_kit.types import unit

CLASSES, IMAGES, DOMAINS = ["sky", "bus"], ["a", "b", "c", "d"], ["day", "fog"]
QUERIES = unit(np.random.default_rng(9).standard_normal((5, DIM)))


def ready(image: str, names: list[str], seed: int, domain: str) -> Rows:
    """One row per class, near one of few directions so that there is something to merge."""
    rng = np.random.default_rng((1, seed))
    base = np.eye(DIM)[[CLASSES.index(name) for name in names]]
    vectors = unit(base + 0.1 * rng.standard_normal((len(names), DIM))).astype(np.float32)
    return Rows.make(
        np.arange(len(names)), vectors, names, [image] * len(names), None, [{"domain": domain}] * len(names)
    )


class Slow:
    """The legible memory: a list of (id, vector, class, images, domain or None), and copies to undo."""

    def __init__(self):
        self.rows, self.past, self.next_id = [], [], 0

    def step(self, rows, new):
        self.past.append(self.rows)
        self.rows = rows + [(self.next_id + n, *row) for n, row in enumerate(new)]
        self.next_id += len(new)

    def merge(self, threshold):
        left, new = list(self.rows), []
        for name in dict.fromkeys(row[2] for row in self.rows):
            free = [row for row in left if row[2] == name]
            while free:
                group = [row for row in free if row is free[0] or row[1] @ free[0][1] >= threshold]
                free = [row for row in free if all(row is not other for other in group)]
                if len(group) > 1:
                    left = [row for row in left if all(row is not other for other in group)]
                    total = sum(len(row[3]) * row[1].astype(np.float64) for row in group)
                    domains = {row[4] for row in group}
                    images = tuple(image for row in group for image in row[3])
                    new.append(
                        (
                            total / np.linalg.norm(total),
                            name,
                            images,
                            domains.pop() if len(domains) == 1 else None,
                        )
                    )
        if new:
            self.step(left, new)

    def search(self, k, classes, exclude, domain):
        allowed = [
            row
            for row in self.rows
            if (classes is None or row[2] in classes)
            and not set(row[3]) & set(exclude)
            and (domain is None or row[4] == domain)
        ]
        scores = np.full((len(QUERIES), k), -np.inf)
        for n, query in enumerate(QUERIES):
            best = sorted((query @ row[1] for row in allowed), reverse=True)[:k]
            scores[n, : len(best)] = best
        return scores


class Changes(RuleBasedStateMachine):
    """Any order of changes, saves and searches that are asked twice."""

    def __init__(self):
        super().__init__()
        self.memory, self.slow, self.seed = SupportMemory(DIM), Slow(), 0
        self.folder = FOLDERS.mktemp("memory")

    def _rows(self, image, names, domain):
        self.seed += 1
        rows = ready(image, names, self.seed, domain)
        return rows, [(v, n, (image,), domain) for v, n in zip(rows.vectors, names, strict=True)]

    @rule(
        image=st.sampled_from(IMAGES),
        names=st.lists(st.sampled_from(CLASSES), min_size=1, unique=True),
        domain=st.sampled_from(DOMAINS),
    )
    def add(self, image, names, domain):
        rows, new = self._rows(image, names, domain)
        if any(image in row[3] and row[2] in names for row in self.slow.rows):
            with pytest.raises(ValueError, match="already"):
                self.memory.extend(rows)
        else:
            self.memory.extend(rows)
            self.slow.step(self.slow.rows, new)

    @rule(image=st.sampled_from(IMAGES), domain=st.sampled_from(DOMAINS))
    def replace(self, image, domain):
        rows, new = self._rows(image, CLASSES, domain)
        self.memory.extend(rows, replace=True)
        self.slow.step([row for row in self.slow.rows if image not in row[3]], new)

    @rule(image=st.none() | st.sampled_from(IMAGES), name=st.sampled_from(CLASSES))
    def remove(self, image, name):
        gone = [row for row in self.slow.rows if row[2] == name and (image is None or image in row[3])]
        if gone:
            assert self.memory.remove(image, name) == len(gone)
            self.slow.step([row for row in self.slow.rows if all(row is not other for other in gone)], [])
        else:
            with pytest.raises(ValueError, match="there is no"):
                self.memory.remove(image, name)

    @rule(threshold=st.sampled_from([0.5, 0.93, 0.97]))
    def merge(self, threshold):
        before = len(self.slow.rows)
        self.slow.merge(threshold)
        assert self.memory.merge(threshold) == before - len(self.slow.rows)

    @precondition(lambda self: self.memory.history)
    @rule(data=st.data())
    def undo(self, data):
        steps = data.draw(st.integers(1, min(3, len(self.memory.history))))
        assert len(self.memory.undo(steps)) == steps
        for _ in range(steps):
            self.slow.rows = self.slow.past.pop()

    @rule(mapped=st.booleans())
    def save_and_load(self, mapped):
        self.memory.save(self.folder)
        self.memory = SupportMemory.load(self.folder, mapped=mapped)

    @rule(
        k=st.integers(1, 4),
        classes=st.none() | st.just(["bus"]),
        exclude=st.sampled_from([(), ("a",), ("b", "c")]),
        domain=st.none() | st.sampled_from(DOMAINS),
    )
    def search_twice(self, k, classes, exclude, domain):
        if not self.slow.rows:
            return
        where = domain and {"domain": [domain]}
        hits = [
            self.memory.search(QUERIES, k, classes=classes, exclude_images=exclude, where=where) for _ in "ab"
        ]
        np.testing.assert_allclose(hits[0].scores, self.slow.search(k, classes, exclude, domain), atol=1e-5)
        assert np.array_equal(hits[0].rows, hits[1].rows)
        hits[1].rows[:] = -7  # the caller's own copy
        bare = self.memory._index.search(*self._bare(k, classes, exclude, where))
        assert np.array_equal(np.append(self.memory.ids, -1)[bare[1]], hits[0].rows)

    def _bare(self, k, classes, exclude, where):
        from rose_kit.memory.filters import Filter

        return self.memory.rows, QUERIES, k, Filter.of(classes, exclude, where)

    @invariant()
    def same_rows(self):
        rows = self.memory.rows
        expected = sorted(self.slow.rows, key=lambda row: row[0])
        assert rows.ids.tolist() == [row[0] for row in expected]
        assert rows.class_names.tolist() == [row[2] for row in expected]
        if expected:
            np.testing.assert_allclose(np.asarray(rows.vectors), [row[1] for row in expected], atol=1e-5)
        origins = [
            tuple(o[0] for o in own) if own else (str(i),)
            for own, i in zip(rows.origins, rows.image_ids, strict=True)
        ]
        assert origins == [row[3] for row in expected]
        assert len(self.memory.history) == min(len(self.slow.past), state.UNDO_STEPS)


@pytest.fixture(autouse=True, scope="module")
def folders(tmp_path_factory):
    global FOLDERS
    FOLDERS = tmp_path_factory


class TestChanges(Changes.TestCase):
    settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


# --- one by one


def test_replace_is_one_step_and_refuses_strangers():
    memory, fmap = filled(3), features(9)
    before = memory.rows
    ids = memory.replace("img1", fmap, mask_of(fmap), {0: "sky"}, source="new.jpg")
    assert memory.lookup(ids).sources.tolist() == ["new.jpg"]
    assert (memory.image_ids == "img1").sum() == 1 and memory.history[-1] == "replace image 'img1'"
    memory.undo()
    assert np.array_equal(memory.ids, before.ids)
    with pytest.raises(ValueError, match="no image 'img9'"):
        memory.replace("img9", fmap, mask_of(fmap), NAMES)
    with pytest.raises(ValueError, match="'' cannot name"):
        memory.replace("img1", fmap, mask_of(fmap), {0: ""})
    assert np.array_equal(memory.ids, before.ids)


def test_merged_rows_remember_where_they_come_from(tmp_path):
    vectors = unit(np.array([[1, 0, 0.01], [1, 0, -0.01], [1, 0, 0], [0, 1, 0]]))
    facts = [{"domain": "day", "n": n} for n in range(4)]
    memory = SupportMemory(3)
    memory.extend(
        Rows.make(range(4), vectors, ["bus", "bus", "sky", "bus"], list("abcd"), list("ABCD"), facts)
    )
    assert memory.merge(0.99) == 1
    assert memory.ids.tolist() == [2, 3, 4]  # of another class, too far, merged
    assert memory.rows.origins[2] == (("a", "A", facts[0]), ("b", "B", facts[1]))
    assert memory.rows.metadata[2] == {"domain": "day"}  # what all agree on
    memory.save(tmp_path)
    loaded = SupportMemory.load(tmp_path)
    assert loaded.rows.origins[2] == memory.rows.origins[2]
    assert loaded.search(vectors[:1], 1, exclude_images=["b"]).rows.tolist() == [[2]]  # no leak of b
    with pytest.raises(ValueError, match="already a prototype of class 'bus' for image 'b'"):
        loaded.extend(Rows.make([0], vectors[:1], ["bus"], ["b"]))
    assert loaded.remove("b") == 1 and loaded.undo(2) == ("remove image 'b'", "merge 2 rows into 1")
    assert loaded.ids.tolist() == [0, 1, 2, 3]


def test_undo_has_an_end_and_forget_makes_final(tmp_path):
    memory = filled(state.UNDO_STEPS + 3)
    assert len(memory.history) == state.UNDO_STEPS
    with pytest.raises(ValueError, match=f"cannot undo {state.UNDO_STEPS + 1} changes; .* remembers 20"):
        memory.undo(state.UNDO_STEPS + 1)
    memory.undo(state.UNDO_STEPS)
    assert memory.images == ("img0", "img1", "img2")
    memory.remove("img0")
    memory.save(tmp_path)
    memory.forget()
    memory.save(tmp_path)
    with pytest.raises(ValueError, match="cannot undo 1"):
        SupportMemory.load(tmp_path).undo()
    assert "img0" not in {str(i) for i in SupportMemory.load(tmp_path)._state.kept.image_ids}


def test_the_cache_answers_and_a_function_is_asked_again():
    memory = filled()
    for _ in range(3):
        memory.search(QUERIES, 2)
    assert memory._state.cache.hits == 2
    for wanted in ("day", "fog"):  # one function that changes its mind
        hits = memory.search(QUERIES, 9, where=lambda facts, w=wanted: facts["domain"] == w)
        assert {facts["domain"] for facts in memory.lookup(hits.rows[hits.rows >= 0]).metadata} == {wanted}
    for k in range(1, cache.SEARCHES + 9):
        memory.search(QUERIES[:1], k)
    assert len(memory._state.cache._found) == cache.SEARCHES


# --- readers beside a writer


def test_a_snapshot_stays_and_refuses_changes():
    memory = filled(3)
    held, before = memory.snapshot(), memory.search(QUERIES, 4)
    memory.remove("img0")
    memory.merge(0.1)
    after = held.search(QUERIES, 4)
    assert np.array_equal(before.rows, after.rows) and held.images == ("img0", "img1", "img2")
    for change in (lambda: held.remove("img0"), held.undo, held.forget, lambda: held.extend(memory.rows)):
        with pytest.raises(ValueError, match="snapshot"):
            change()


@pytest.mark.parametrize("index", ["flat", "auto", "ivfpq"])
@pytest.mark.parametrize("make", [SupportMemory.copy, copy.copy, copy.deepcopy])
def test_a_copy_goes_its_own_way(make, index, monkeypatch):
    monkeypatch.setattr(IVFPQIndex, "least", 10)
    monkeypatch.setattr(AutoIndex, "rule", ((10, FlatIndex), (float("inf"), IVFPQIndex)))
    vectors = unit(np.random.default_rng(0).standard_normal((300, DIM)))
    names, images = [f"c{n % 3}" for n in range(300)], [f"i{n}" for n in range(300)]
    memory = SupportMemory.from_prototypes(vectors, names, images, index=index)
    memory.search(QUERIES, 2)  # an approximate index is made
    twin = make(memory)
    same_content(twin, memory)
    assert twin.history == memory.history and type(twin._index) is type(memory._index)
    twin.remove(class_name="c1")
    twin.extend(ready("new", CLASSES, 1, "day"))
    memory.extend(ready("other", CLASSES, 2, "fog"))  # the same ids, other rows
    for one in (memory, twin):
        exact = SupportMemory(DIM)
        exact.extend(one.rows)
        np.testing.assert_allclose(
            one.search(one.vectors, 1).scores, exact.search(one.vectors, 1).scores, atol=1e-5
        )
    assert memory.images[-1] == "other" and len(memory) == 302 and len(twin) == 202


def test_threads_read_whole_states_while_one_writes():
    memory, stop, wrong = SupportMemory(DIM), threading.Event(), []
    base = ready("keep", CLASSES, 0, "day")
    memory.extend(base)

    def read():
        while not stop.is_set():
            held = memory.snapshot()
            ids = set(held.ids.tolist())
            hits = held.search(QUERIES, 200)
            found = {r for r in hits.rows[0].tolist() if r >= 0}
            if found != ids or len(ids) % 2 or len(held.rows.vectors) != len(ids):  # both classes or none
                wrong.append((found, ids))
            time.sleep(0.001)  # let the writer write

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    for n in range(40):
        memory.extend(ready(f"i{n}", CLASSES, n, "day"))
        if n % 3 == 2:
            memory.remove(memory.images[-1])
        if n % 10 == 9:
            memory.undo(2)
    stop.set()
    for thread in readers:
        thread.join()
    assert not wrong and len(memory) > 20


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_memory_changes import CLASSES, SupportMemory, ready
from rose_kit.memory.files import writing
print("ready", flush=True)
for n in range(int(sys.argv[3]), int(sys.argv[4])):
    with writing(sys.argv[1]):
        memory = SupportMemory.load(sys.argv[1])
        memory.extend(ready(f"w{n}", CLASSES, n, "day"))
        if n % 4 == 3:
            memory.remove(f"w{n}", "bus")
            memory.undo()
        memory.save(sys.argv[1])
    print(n, flush=True)
"""


def start_writer(folder, first, last):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), os.path.dirname(__file__), str(first), str(last)],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
def test_two_processes_write_in_turn_and_a_third_reads(tmp_path):
    SupportMemory(DIM).save(tmp_path)
    writers = [start_writer(tmp_path, n, n + 12) for n in (0, 100)]
    sizes = []
    while any(process.poll() is None for process in writers):
        held = SupportMemory.load(tmp_path, mapped=True)
        time.sleep(0.01)  # files are swept meanwhile
        assert len(np.asarray(held.vectors)) == len(held) and len(held) % 2 == 0
        sizes.append(len(held))
    for process in writers:
        process.stdout.close()
    assert sizes == sorted(sizes) and len(SupportMemory.load(tmp_path)) == 48


def kill_writers(folder, kills: int) -> int:
    """Kill a writer again and again; whatever it reported as saved must be there. Returns rows lost."""
    rng, saved, last, lost = np.random.default_rng(0), set(), 0, 0
    SupportMemory(DIM).save(folder)
    for _ in range(kills):
        with start_writer(folder, last, last + 10_000) as process:
            process.stdout.readline()
            said = [int(process.stdout.readline()) for _ in range(rng.integers(3))]
            time.sleep(rng.uniform(0, 0.05))  # into the next load, change or save
            process.send_signal(signal.SIGKILL)
            said += [int(line) for line in process.stdout if line.endswith("\n")]
        saved |= {f"w{n}" for n in said}
        loaded = SupportMemory.load(folder)
        lost += len(saved - set(loaded.images))
        assert loaded.summary().get("sky") == loaded.summary().get("bus")  # never half a picture
        names = {int(image[1:]) for image in loaded.images}
        assert names == set(range(len(names)))
        last = len(names)
    SupportMemory.load(folder).save(folder)
    assert len(saved) >= kills // 3  # kills came after saves, too
    return lost


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_kills_at_random_moments_lose_no_saved_row(tmp_path):
    """ROSE_KILLS=100 for the full number."""
    assert kill_writers(tmp_path, int(os.environ.get("ROSE_KILLS", "6"))) == 0


# --- the folder


def test_a_save_writes_only_what_is_new(tmp_path):
    memory = SupportMemory(DIM)
    vectors = unit(np.random.default_rng(0).standard_normal((400, DIM)))
    memory.extend(Rows.make(range(400), vectors, ["sky"] * 400, [f"i{n}" for n in range(400)]))
    memory.save(tmp_path)
    first = {path.name for path in tmp_path.iterdir()}
    memory = SupportMemory.load(tmp_path)
    for n in range(40):
        memory.extend(ready(f"new{n}", CLASSES, n, "day"))
        memory.save(tmp_path)
        names = {path.name for path in tmp_path.iterdir()}
        assert first <= names and len(names) <= 17  # the first segment untouched, few in all
    same_content(SupportMemory.load(tmp_path, mapped=True), memory)
    memory.remove(class_name="sky")
    memory.forget()
    memory.save(tmp_path)
    assert not first - {"manifest.json"} & {path.name for path in tmp_path.iterdir()}  # most of it is gone
    same_content(SupportMemory.load(tmp_path), memory)


def test_a_lock_is_kept_by_one_and_nests(tmp_path):
    order = []

    def other():
        with writing(tmp_path):
            order.append("other")

    with writing(tmp_path), writing(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.05)
        order.append("one")
    thread.join()
    assert order == ["one", "other"]
