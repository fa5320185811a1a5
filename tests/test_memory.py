"""SupportMemory against a slow legible twin, under arbitrary changes, with threads, and with bad input."""

from __future__ import annotations

import copy
import pickle
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rose_kit.memory import Prototypes, SupportMemory, prototypes
from rose_kit.memory.index import make_index
from rose_kit.pooling import pool_masks
from rose_kit.types import FeatureMap, unit

NAMES = {0: "sky", 1: "bus", 7: "tram"}
DIM = 8
QUERIES = unit(np.random.default_rng(9).standard_normal((5, DIM))).astype(np.float32)


def features(seed: int = 0, grid: tuple[int, int] = (3, 4), dim: int = DIM, patch: int = 4) -> FeatureMap:
    size = (grid[0] * patch, grid[1] * patch)
    values = unit(np.random.default_rng(seed).standard_normal((*grid, dim)))
    return FeatureMap(values, patch, size, size)


def mask_of(feature_map: FeatureMap, seed: int = 0, values=(0, 1, 7, 9, 255)) -> np.ndarray:
    return np.random.default_rng(seed).choice(values, feature_map.image_size).astype(np.uint8)


def filled(images: int = 6, **options) -> SupportMemory:
    memory = SupportMemory(DIM, **options)
    for i in range(images):
        fmap = features(i)
        memory.add(f"img{i}", fmap, mask_of(fmap, i), NAMES, metadata={"domain": "day" if i % 2 else "fog"})
    return memory


def ready(pairs: list[tuple[str, str]], seed: int = 0, facts: dict | None = None) -> Prototypes:
    """A row of random direction per (image, class)."""
    vectors = unit(np.random.default_rng((1, seed)).standard_normal((len(pairs), DIM)))
    images, names = zip(*pairs, strict=True) if pairs else ((), ())
    return Prototypes.make(
        range(len(pairs)), vectors, names, images, ["x.jpg"] * len(pairs), [facts or {}] * len(pairs)
    )


GOOD = features()
MASK = mask_of(GOOD)


def same_content(a: SupportMemory, b: SupportMemory, ids: bool = True) -> None:
    if ids:
        assert np.array_equal(a.ids, b.ids)
    for name in ("vectors", "class_names", "image_ids"):
        left, right = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        assert np.array_equal(left, right) and left.dtype.kind == right.dtype.kind, name
    for name in ("sources", "metadata"):
        assert getattr(a.rows, name).tolist() == getattr(b.rows, name).tolist(), name
    assert all(p is None or p[0].dtype == np.uint8 for p in [*a.rows.thumbnails, *b.rows.thumbnails])
    left, right = ([p and (p[0].tolist(), p[1]) for p in m.rows.thumbnails] for m in (a, b))
    assert left == right


# --- any history


class Row(NamedTuple):
    id: int
    vector: np.ndarray
    name: str
    image: str
    facts: dict
    source: str | None


class Kept(NamedTuple):
    """A memory, and what is expected of it: the legible memory is a list of rows."""

    memory: SupportMemory
    rows: list[Row]
    next_id: int
    frozen: bool = False


WHERE = {  # what is asked, and what it means
    "any": (None, lambda facts: True),
    "fog": ({"domain": "fog"}, lambda facts: facts.get("domain") == "fog"),
    "year": ({"year": [1, 2]}, lambda facts: facts.get("year") in (1, 2)),
    "both": ({"domain": {"day", "fog"}, "year": 1}, lambda facts: facts.get("year") == 1),
    "function": (lambda facts: facts.get("year", 0) > 1, lambda facts: facts.get("year", 0) > 1),
    "none": ({"era": None}, lambda facts: False),
}
IMAGES = st.sampled_from(["a", "b", "c", "é 'd\""])
CLASSES = st.sampled_from(list(NAMES.values()))
FACTS = st.sampled_from([{"domain": d, "year": y} for d in ("day", "fog") for y in (1, 2, 3)])
COPIES = {
    "method": SupportMemory.copy,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda memory: pickle.loads(pickle.dumps(memory)),
}


class Changes(RuleBasedStateMachine):
    """Any order of changes, searches, copies and saves."""

    def __init__(self):
        super().__init__()
        self.memory, self.rows, self.next_id, self.seed = self.new(), [], 0, 0
        self.aside: list[Kept] = []  # nothing that is done to `memory` may be seen in these
        self.folder = tempfile.mkdtemp()

    def new(self):
        return SupportMemory(DIM, fingerprint="enc")

    def load(self, mapped):
        return SupportMemory.load(self.folder, mapped=mapped)

    def teardown(self):
        shutil.rmtree(self.folder)

    def expect(self, change, new):
        """Run a change that adds rows (vector, class, image, facts, source), or is refused for their keys."""
        keys = [(row[2], row[1]) for row in new]
        if len({*keys, *((row.image, row.name) for row in self.rows)}) < len(keys) + len(self.rows):
            with pytest.raises(ValueError, match="already a prototype of class"):
                change()
        else:
            fresh = [Row(self.next_id + n, *row) for n, row in enumerate(new)]
            assert change().tolist() == [row.id for row in fresh]
            self.rows, self.next_id = self.rows + fresh, self.next_id + len(fresh)

    @rule(image=IMAGES, values=st.sets(st.sampled_from(list(NAMES))), facts=FACTS)
    def add(self, image, values, facts):
        self.seed += 1
        fmap = features(self.seed)
        cells = np.random.default_rng(self.seed).choice([0, 1, 7, 255], (3, 4))
        shown = [v for v in values if (cells == v).any()]
        new = [(unit(fmap.values[cells == v].sum(0)), NAMES[v], image, facts, None) for v in shown]
        mask, classes = cells.repeat(4, 0).repeat(4, 1), {v: NAMES[v] for v in values}
        self.expect(lambda: self.memory.add(image, fmap, mask, classes, metadata=facts), new)

    @rule(pairs=st.lists(st.tuples(IMAGES, CLASSES), max_size=4), facts=FACTS)
    def extend(self, pairs, facts):
        self.seed += 1
        rows = ready(pairs, self.seed, facts)
        new = [(v, name, image, facts, "x.jpg") for v, (image, name) in zip(rows.vectors, pairs, strict=True)]
        self.expect(lambda: self.memory.extend(rows), new)

    @rule(image=st.none() | IMAGES, name=st.none() | CLASSES)
    def remove(self, image, name):
        gone = [row for row in self.rows if image in (None, row.image) and name in (None, row.name)]
        self.forget(gone, lambda: self.memory.remove(image, name), (image, name) != (None, None))

    @rule(data=st.data())
    def remove_ids(self, data):
        ids = data.draw(st.lists(st.integers(0, self.next_id), max_size=5))
        gone = [row for row in self.rows if row.id in ids]
        self.forget(gone, lambda: self.memory.remove(ids=ids), {row.id for row in gone} == set(ids))

    def forget(self, gone, change, meant):
        if gone and meant:
            assert change() == len(gone)
            self.rows = [row for row in self.rows if all(row is not other for other in gone)]
        else:
            with pytest.raises(ValueError, match="there is no|which rows"):
                change()

    def put_aside(self, frozen=False):
        memory = self.memory.snapshot() if frozen else self.memory
        self.aside = [*self.aside[-5:], Kept(memory, self.rows, self.next_id, frozen)]

    @rule(data=st.data())
    def subset(self, data):
        ids = data.draw(st.lists(st.sampled_from([row.id for row in self.rows]))) if self.rows else []
        self.put_aside()
        self.memory = self.memory.subset(ids)
        self.rows = [row for row in self.rows if row.id in ids]

    @rule(how=st.sampled_from(list(COPIES)))
    def copy(self, how):
        self.put_aside()
        self.memory = COPIES[how](self.memory)

    @rule()
    def snapshot(self):
        self.put_aside(frozen=True)

    @precondition(lambda self: self.aside)
    @rule(data=st.data())
    def go_on_with_another(self, data):
        other = self.aside.pop(data.draw(st.integers(0, len(self.aside) - 1)))
        if other.frozen:
            for change in (
                lambda: other.memory.remove("a"),
                lambda: other.memory.extend(ready([("z", "z")])),
            ):
                with pytest.raises(ValueError, match="snapshot"):
                    change()
            other = other._replace(memory=other.memory.copy())
        self.put_aside()
        self.memory, self.rows, self.next_id, _ = other

    @rule(mapped=st.booleans())
    def save_and_load(self, mapped):
        self.memory.save(self.folder)
        self.put_aside()
        self.memory = self.load(mapped)
        assert self.memory.fingerprint == "enc"

    @rule(
        k=st.integers(1, 6),
        classes=st.none() | st.lists(CLASSES | st.just("unknown"), max_size=2),
        exclude=st.lists(IMAGES | st.just("elsewhere"), max_size=2),
        where=st.sampled_from(list(WHERE)),
    )
    def search(self, k, classes, exclude, where):
        asked, meant = WHERE[where]
        options = {"classes": classes, "exclude_images": exclude, "where": asked}
        for memory, rows in [(self.memory, self.rows), *(kept[:2] for kept in self.aside[-2:])]:
            if not rows:
                with pytest.raises(ValueError, match="memory is empty"):
                    memory.search(QUERIES, k, **options)
                continue
            hits = memory.search(QUERIES, k, **options)
            allowed = [
                row
                for row in rows
                if (classes is None or row.name in classes) and row.image not in exclude and meant(row.facts)
            ]
            assert hits.scores.shape == hits.ids.shape == (len(QUERIES), k) and hits.rows is hits.ids
            assert hits.scores.dtype == np.float32 and hits.ids.dtype == np.int64
            for query, scores, ids in zip(QUERIES, hits.scores, hits.ids, strict=True):
                best = sorted(((query @ row.vector, row.id) for row in allowed), reverse=True)[:k]
                best += [(-np.inf, -1)] * (k - len(best))
                np.testing.assert_allclose(scores, [score for score, _ in best], atol=1e-5)
                assert ids.tolist() == [id for _, id in best]

    @invariant()
    def same_rows(self):
        for memory, expected in [(self.memory, self.rows), *(kept[:2] for kept in self.aside)]:
            rows = memory.rows
            assert len(memory) == len(expected)
            assert rows.ids.tolist() == [row.id for row in expected]
            assert rows.class_names.tolist() == [row.name for row in expected]
            assert rows.image_ids.tolist() == [row.image for row in expected]
            assert rows.metadata.tolist() == [row.facts for row in expected]
            assert rows.sources.tolist() == [row.source for row in expected]
            assert memory.images == tuple(dict.fromkeys(row.image for row in expected))
            assert memory.classes == tuple(dict.fromkeys(row.name for row in expected))
            if expected:
                np.testing.assert_allclose(
                    np.asarray(rows.vectors), [row.vector for row in expected], atol=1e-6
                )
                some = rows.ids[[-1, 0]]
                assert np.array_equal(memory.lookup(some).vectors, rows.vectors[[-1, 0]])
        for name, found in zip(NAMES.values(), self.memory.class_prototypes(NAMES.values()), strict=True):
            own = [row.vector for row in self.rows if row.name == name]
            assert self.memory.summary().get(name, 0) == len(own)
            np.testing.assert_allclose(
                found, unit(np.sum(own, 0)) if own else np.full(DIM, np.nan), atol=1e-5
            )


class TestChanges(Changes.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# --- adding


def test_rows_are_the_memorys_own():
    memory, facts = SupportMemory(DIM), {"year": 2020}
    ids = memory.add("a", GOOD, MASK, NAMES, source="photos/a.jpg", metadata=facts)
    facts["year"] = 1
    memory.lookup(ids).vectors[:] = 0  # a copy, too
    assert memory.rows.metadata.tolist() == [{"year": 2020}] * 3
    assert np.array_equal(memory.vectors, pool_masks(GOOD, MASK, list(NAMES))[0])


def test_thumbnails_show_the_region():
    fmap = features(grid=(48, 100))  # 192 x 400 px
    mask = np.zeros(fmap.image_size, np.uint8)
    mask[:, 200:] = 1
    mask[0, 0] = 7  # one pixel: it would vanish if the mask were resized by nearest neighbour
    image = np.full((*mask.shape, 3), 30, np.uint8)
    image[:, 200:] = (200, 10, 10)
    memory = SupportMemory(DIM)
    bus, tram = memory.add("a", fmap, mask, {1: "bus", 7: "tram"}, thumbnail=image)
    small, region = memory.thumbnail(bus)
    assert small.shape == (46, 96, 3) and small.dtype == np.uint8
    assert np.array_equal(region, np.arange(96) >= np.full((46, 1), 48)) and region.dtype == bool
    assert (small[region] == (200, 10, 10)).all() and (small[~region] == 30).all()
    tiny = memory.thumbnail(tram)[1]
    assert tiny[0, 0] and tiny.sum() == 1
    assert memory.rows.thumbnails[0][0] is memory.rows.thumbnails[1][0]  # one image for all its rows
    assert memory.thumbnail(memory.add("a", fmap, mask, {0: "sky"})[0]) is None


def test_adding_row_by_row_copies_few_rows(monkeypatch):
    copied = []

    class Counted(prototypes._Room):
        def __init__(self, columns, size):
            copied.append(len(columns[0]))
            super().__init__(columns, size)

    monkeypatch.setattr(prototypes, "_Room", Counted)
    memory, rows = SupportMemory(DIM), ready([(f"i{n}", "bus") for n in range(2000)])
    for n in range(2000):
        memory.extend(rows.take(slice(n, n + 1)))
        if n % 20 == 0:
            assert memory.search(rows.vectors[[n]], 1).ids[0, 0] == n  # and it is found at once
    assert sum(copied) < 3 * 2000 and memory.rows._room.size < 2 * 2000
    lean = pickle.dumps(memory.rows), pickle.dumps(memory.rows.take(slice(None)))
    assert len(lean[0]) == len(lean[1])  # the room does not travel


# --- others who read or write meanwhile


def test_two_copies_grow_from_common_rows_at_once():
    memory = filled(3)
    memory.extend(ready([("more", "bus")]))  # room is made, which only one can use
    alone, twins = [memory.subset(memory.ids) for _ in range(3)], [memory, memory.copy(), memory.copy()]
    grown = [ready([(f"{n}-{i}", f"c{i % 40}") for i in range(300)], n) for n in range(3)]

    def grow(twin, rows):
        for i in range(300):
            twin.extend(rows.take(slice(i, i + 1)))

    in_threads(*(partial(grow, *pair) for pair in zip(twins, grown, strict=True)))
    for twin, other, rows in zip(twins, alone, grown, strict=True):
        other.extend(rows)
        same_content(twin, other)


def test_threads_read_whole_states_while_one_writes(tmp_path):
    memory, done, seen = SupportMemory(DIM), threading.Event(), []
    memory.extend(ready([("early", "sky"), ("early", "bus"), ("keep", "sky"), ("keep", "bus")]))

    def read():
        while not done.is_set():
            held = memory.snapshot()
            ids, hits = held.ids.tolist(), held.search(QUERIES, 400)
            assert len(ids) % 2 == 0 and {*hits.ids[0].tolist()} - {-1} == set(ids)  # both classes or none
            assert held.copy()._next_id > max(ids)
            assert memory.search(QUERIES, 1, classes=["new7", "sky"], exclude_images=["x"]).ids.min() >= 0
            assert memory.lookup([3, 2]).image_ids.tolist() == ["keep", "keep"]
            seen.append(len(ids))

    def save():
        while not done.is_set():
            memory.save(tmp_path)
            loaded = SupportMemory.load(tmp_path)
            assert loaded._next_id > loaded.ids.max() and len(loaded) % 2 == 0

    def write():
        try:
            for n in range(90):
                memory.extend(ready([(f"i{n}", f"new{n}"), (f"i{n}", "bus")], n))
                if n % 3 == 2:
                    memory.remove("early" if n == 2 else f"i{n - 3}")
        finally:
            done.set()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        in_threads(read, read, save, write)
    finally:
        sys.setswitchinterval(usual)
    assert seen and len(memory) == 4 - 2 + 180 - 2 * 29


def in_threads(*tasks):
    """Run tasks at once; what one of them raises is raised here."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for running in [pool.submit(task) for task in tasks]:
            running.result()


@pytest.mark.parametrize("read", [SupportMemory.lookup, SupportMemory.subset])
def test_a_call_reads_one_table_even_if_rows_go_meanwhile(monkeypatch, read):
    memory, real = filled(3), Prototypes.positions

    def meanwhile(table, ids):
        positions = real(table, ids)
        if "img0" in memory.images:
            memory.remove("img0")
        return positions

    monkeypatch.setattr(Prototypes, "positions", meanwhile)
    assert read(memory, [0, 4]).image_ids.tolist() == ["img0", "img1"]
    assert memory.images == ("img1", "img2")


# --- every guard fires

ENCODER = SimpleNamespace(fingerprint="B", dim=9)


def adding(**change):
    good = {"image_id": "new", "feature_map": GOOD, "mask": MASK, "classes": NAMES}
    return lambda memory: memory.add(**good | change)


def searching(**change):
    good = {"queries": np.ones((1, DIM)), "k": 1}
    return lambda memory: memory.search(**good | change)


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (adding(feature_map=features(dim=5)), "5 dimensions"),
        (adding(feature_map=FeatureMap(GOOD.values * 2, 4, (12, 16), (12, 16))), "patch 0 has norm 2"),
        (adding(mask=MASK[1:]), r"\(11, 16\)"),
        (adding(mask=MASK.astype(float)), "float64"),
        (adding(classes={255: "void", 1: "bus"}), "255 'void'"),
        (adding(classes={0: "bus", 1: "bus"}), "'bus'"),
        (adding(classes={0: ""}), "''"),
        (adding(classes={0: None}), "None"),
        (adding(image_id="a\0"), r"'a\\x00'"),
        (adding(source="\ud800"), r"'\\ud800'"),
        (adding(metadata={"tags": ["x"]}), r"'tags': \['x'\]"),
        (adding(metadata={"score": float("nan")}), "'score': nan"),
        (adding(thumbnail=np.zeros((12, 16), np.uint8)), r"uint8 \(12, 16\)"),
        (adding(image_id="img0"), r"'bus' for image 'img0'.*remove\("),
        (lambda m: m.extend(ready([("i", "a"), ("i", "a")])), "'a' for image 'i'"),
        (lambda m: m.extend(Prototypes.make([0], np.eye(1, DIM) * 3, ["a"], ["i"])), "vector 0 has norm 3"),
        (lambda m: SupportMemory(2.5), "2.5"),
        (lambda m: SupportMemory(DIM, index="hnws"), "'hnws', did you mean 'hnsw'.*auto, flat, hnsw"),
        (lambda m: SupportMemory(DIM, index=make_index("flat", 9)), "9 dimensions, the memory has 8"),
        (lambda m: SupportMemory(DIM, fingerprint=3), "3"),
        (lambda m: SupportMemory(DIM).search(np.ones((1, DIM)), 1), "empty"),
        (searching(queries=np.ones((2, 5))), r"\(2, 5\)"),
        (searching(queries=np.full((2, DIM), np.nan)), "query 0"),
        (searching(k=0), "0"),
        (searching(classes="bus"), "'bus'"),
        (searching(exclude_images="img0"), "'img0'"),
        (searching(where="day"), "'day'"),
        (lambda m: m.class_prototypes("bus"), "'bus'"),
        (lambda m: m.lookup([0, 99]), "99.*6 ids from 0 to 5"),
        (lambda m: m.remove("imh0"), "'imh0'.*'img0'"),
        (lambda m: m.remove("img0", "boat"), "'boat' in image 'img0'.*sky, bus, tram"),
        (lambda m: SupportMemory.from_prototypes(np.ones(3), ["a"], ["i"]), r"\(3,\)"),
        (lambda m: SupportMemory.from_prototypes(np.eye(3), list("ab"), list("ijk")), r"3, 3, 2, 3"),
        (lambda m: SupportMemory(DIM, fingerprint="A").check_encoder(ENCODER), "'A'.*'B'"),
        (lambda m: m.check_encoder(ENCODER), "8.*9"),
    ],
)
def test_bad_calls_repeat_the_value_and_change_nothing(call, value):
    memory = filled(2)
    with pytest.raises(ValueError, match=value):
        call(memory)
    same_content(memory, filled(2))
    assert memory.add("after", GOOD, MASK, NAMES).tolist() == [6, 7, 8]
