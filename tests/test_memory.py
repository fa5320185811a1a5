"""SupportMemory against a slow legible twin, under arbitrary changes and with bad input."""

from __future__ import annotations

import copy
import pickle
import shutil
import tempfile
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rose_kit.memory import Prototypes, SupportMemory, storage
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


def same_content(a: SupportMemory, b: SupportMemory) -> None:
    for name in ("ids", "vectors", "class_names", "image_ids", "sources", "metadata"):
        left, right = getattr(a.rows, name), getattr(b.rows, name)
        assert np.array_equal(left, right) and left.dtype == right.dtype
    left, right = ([p and (p[0].tolist(), p[1]) for p in m.rows.thumbnails] for m in (a, b))
    assert left == right


# --- any history

Row = namedtuple("Row", "id name image facts source vector")  # the legible memory is a list of these
WHERE = {  # what is asked, and what it means
    "any": (None, lambda facts: True),
    "both": ({"domain": {"day", "fog"}, "year": [1, 2]}, lambda facts: facts["year"] < 3),
    "function": (lambda facts: facts["domain"] == "fog", lambda facts: facts["domain"] == "fog"),
    "none": ({"era": None}, lambda facts: False),
}
IMAGES = st.sampled_from(["a", "b", "c", "é 'd\""])
CLASSES = st.sampled_from(list(NAMES.values()))
FACTS = st.sampled_from([{"domain": d, "year": y} for d in ("day", "fog") for y in (1, 2, 3)])
COPIES = [SupportMemory.copy, copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]


class Changes(RuleBasedStateMachine):
    """Any order of changes, searches, copies and saves."""

    def __init__(self):
        super().__init__()
        self.memory, self.rows, self.next_id, self.seed = self.new(), [], 0, 0
        self.aside = []  # (memory, rows, next id): nothing that is done to `memory` may be seen in these
        self.folder = tempfile.mkdtemp()

    def new(self):
        return SupportMemory(DIM, fingerprint="enc")

    def load(self):
        return SupportMemory.load(self.folder)

    def teardown(self):
        shutil.rmtree(self.folder)

    def expect(self, change, new):
        """Run a change that adds rows (without their ids), or that is refused for their keys."""
        keys = [row[:2] for row in new]
        if len({*keys, *(row[1:3] for row in self.rows)}) < len(keys) + len(self.rows):
            with pytest.raises(ValueError, match="already has a prototype of class"):
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
        new = [(NAMES[v], image, facts, None, unit(fmap.values[cells == v].sum(0))) for v in shown]
        mask, classes = cells.repeat(4, 0).repeat(4, 1), {v: NAMES[v] for v in values}
        given = dict(facts)
        self.expect(lambda: self.memory.add(image, fmap, mask, classes, metadata=given), new)
        given["year"] = 99  # the memory has a copy

    @rule(pairs=st.lists(st.tuples(IMAGES, CLASSES), max_size=4), facts=FACTS)
    def extend(self, pairs, facts):
        self.seed += 1
        rows = ready(pairs, self.seed, facts)
        new = [(name, image, facts, "x.jpg", v) for v, (image, name) in zip(rows.vectors, pairs, strict=True)]
        self.expect(lambda: self.memory.extend(rows), new)

    @rule(image=st.none() | IMAGES, name=st.none() | CLASSES, data=st.data())
    def remove(self, image, name, data):
        if image is None and name is None:
            ids = data.draw(st.lists(st.integers(0, self.next_id), max_size=5))
            gone, options = {row.id for row in self.rows if row.id in ids}, {"ids": ids}
        else:
            named = [row for row in self.rows if image in (None, row.image) and name in (None, row.name)]
            ids = gone = {row.id for row in named}
            options = {"image_id": image, "class_name": name}
        if gone and gone == set(ids):
            assert self.memory.remove(**options) == len(gone)
            self.rows = [row for row in self.rows if row.id not in gone]
        else:
            with pytest.raises(ValueError, match="unknown|there is no|which rows"):
                self.memory.remove(**options)

    def put_aside(self, memory, rows):
        self.aside = [*self.aside[-5:], (memory, rows, self.next_id)]

    @rule(data=st.data())
    def subset(self, data):
        ids = data.draw(st.lists(st.sampled_from([row.id for row in self.rows]))) if self.rows else []
        self.put_aside(self.memory.subset(ids), [row for row in self.rows if row.id in ids])

    @rule(how=st.sampled_from(COPIES))
    def copy(self, how):
        self.put_aside(how(self.memory), self.rows)

    @rule(mapped=st.booleans())
    def save_and_load(self, mapped):
        self.memory.save(self.folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "MAPPED_FROM", 0 if mapped else 2**28)
            self.put_aside(self.load(), self.rows)

    @precondition(lambda self: self.aside)
    @rule(data=st.data())
    def go_on_with_another(self, data):
        memory, rows, next_id = self.aside.pop(data.draw(st.integers(0, len(self.aside) - 1)))
        self.put_aside(self.memory, self.rows)
        self.memory, self.rows, self.next_id = memory, rows, next_id

    @precondition(lambda self: self.rows)
    @rule(
        k=st.integers(1, 6),
        classes=st.none() | st.lists(CLASSES | st.just("unknown"), max_size=2),
        exclude=st.lists(IMAGES | st.just("elsewhere"), max_size=2),
        where=st.sampled_from(list(WHERE)),
    )
    def search(self, k, classes, exclude, where):
        asked, meant = WHERE[where]
        hits = self.memory.search(QUERIES, k, classes=classes, exclude_images=exclude, where=asked)
        allowed = [row for row in self.rows if classes is None or row.name in classes]
        allowed = [row for row in allowed if row.image not in exclude and meant(row.facts)]
        assert hits.scores.shape == hits.ids.shape == (len(QUERIES), k) and hits.rows is hits.ids
        assert hits.scores.dtype == np.float32 and hits.ids.dtype == np.int64
        for query, scores, ids in zip(QUERIES, hits.scores, hits.ids, strict=True):
            best = sorted(((query @ row.vector, row.id) for row in allowed), reverse=True)[:k]
            best += [(-np.inf, -1)] * (k - len(best))
            np.testing.assert_allclose(scores, [score for score, _ in best], atol=1e-5)
            assert ids.tolist() == [id for _, id in best]

    @invariant()
    def same_rows(self):
        for memory, expected, _ in [(self.memory, self.rows, 0), *self.aside]:
            rows = memory.rows
            columns = rows.ids, rows.class_names, rows.image_ids, rows.metadata, rows.sources
            found = list(zip(*(column.tolist() for column in columns), strict=True))
            assert found == [row[:-1] for row in expected]
            vectors = np.array([row.vector for row in expected]).reshape(-1, DIM)
            np.testing.assert_allclose(np.asarray(rows.vectors), vectors, atol=1e-6)
            assert memory.images == tuple(dict.fromkeys(row.image for row in expected))
            assert memory.classes == tuple(dict.fromkeys(row.name for row in expected))
            copied = memory.lookup(rows.ids[::-1]).vectors
            assert np.array_equal(copied, rows.vectors[::-1])
            copied[:] = 0  # seen in the next step if it were no copy
        for name, found in zip(NAMES.values(), self.memory.class_prototypes(NAMES.values()), strict=True):
            own = [row.vector for row in self.rows if row.name == name]
            assert self.memory.summary().get(name, 0) == len(own)
            expected = unit(np.sum(own, 0)) if own else np.full(DIM, np.nan)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:image .* adds no prototype")
class TestChanges(Changes.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("read", [SupportMemory.lookup, SupportMemory.subset])
def test_a_call_reads_one_table_even_if_rows_go_meanwhile(monkeypatch, read):
    memory, real = filled(3), Prototypes.positions

    def meanwhile(table, ids):
        monkeypatch.setattr(Prototypes, "positions", real)
        memory.remove("img0")
        return real(table, ids)

    monkeypatch.setattr(Prototypes, "positions", meanwhile)
    assert read(memory, [0, 4]).image_ids.tolist() == ["img0", "img1"]


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
        (adding(feature_map=FeatureMap(GOOD.values * 2, 4, (12, 16), (12, 16))), "patch 0 .* 2"),
        (adding(mask=MASK[1:]), r"\(11, 16\)"),
        (adding(classes={255: "void", 1: "bus"}), "255 'void'"),
        (adding(classes={"bus": 1}), "'bus': 1"),
        (adding(classes=["sky", "bus"]), "'sky', 'bus'"),
        (adding(image_id=7), "^7 "),
        (adding(image_id="a\0"), r"'a\\x00'"),
        (adding(metadata={"tags": ["x"]}), r"'tags': \['x'\]"),
        (adding(image_id="img0"), "'img0' already has .*'bus'"),
        (lambda m: m.extend(ready([("i", "a"), ("i", "a")])), "'i' already has .*'a'"),
        (lambda m: m.extend(Prototypes.make([0], np.eye(1, DIM) * 3, ["a"], ["i"])), "vector 0 .* 3"),
        (lambda m: SupportMemory(DIM, index="hnws"), "'hnws'.*'hnsw'"),
        (lambda m: SupportMemory(DIM).search(np.ones((1, DIM)), 1), "empty"),
        (lambda m: m.lookup([0, 99]), "id 99 .* 6 rows"),
        (searching(queries=np.ones((2, 5))), r"\(2, 5\)"),
        (searching(queries=np.full((2, DIM), np.nan)), "query 0"),
        (searching(k=0), "0"),
        (searching(classes="bus"), "'bus'"),
        (lambda m: m.remove("imh0"), "'imh0'.*'img0'"),
        (lambda m: m.remove("img0", "boat"), "'boat'.*sky, bus"),
        (lambda m: SupportMemory.from_prototypes(np.eye(3), list("ab"), list("ijk")), "3, 3, 2, 3"),
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


def test_a_mask_without_any_of_the_classes_is_told_and_one_of_truth_values_is_read():
    memory = SupportMemory(DIM)
    with pytest.warns(UserWarning, match=r"'new' adds no prototype: .*\[255\].*\[1\]"):
        memory.add("new", GOOD, np.full_like(MASK, 255), {1: "bus"})
    assert memory.add("new", GOOD, np.ones_like(MASK, bool), {1: "bus"}).tolist() == [0]


def test_rows_taken_from_another_memory_get_ids_and_places_of_their_own():
    memories = [SupportMemory(DIM), SupportMemory(DIM)]
    for n in range(9):
        memories[0].extend(ready([(f"a{n}", "sky")], n))
        assert len(memories[0].rows) == n + (n < 1)  # joined row by row
        if n == 0:
            memories[0].remove("a0")
    assert memories[1].extend(memories[0].rows).tolist() == list(range(8))
    for n in range(2):
        for memory in reversed(memories):
            memory.extend(ready([(f"b{n}", "bus")], 10 + n))
    assert [memory.ids.tolist() for memory in memories] == [list(range(1, 11)), list(range(10))]
    assert np.array_equal(memories[0].vectors, memories[1].vectors)
