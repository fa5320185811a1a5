"""SupportMemory against slow NumPy twins, under arbitrary changes, and with bad input."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit.memory import Rows, SupportMemory
from rose_kit.pooling import pool_masks
from rose_kit.types import FeatureMap, unit

NAMES = {0: "sky", 1: "bus", 7: "tram"}
DIM = 8


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


def same_content(a: SupportMemory, b: SupportMemory, ids: bool = True) -> None:
    for field in fields(Rows)[0 if ids else 1 :]:
        left, right = getattr(a.rows, field.name), getattr(b.rows, field.name)
        if field.name == "thumbnails":
            assert all(p is None or p[0].dtype == np.uint8 for p in [*left, *right])
            left, right = ([p and (p[0].tolist(), p[1]) for p in column] for column in (left, right))
            assert left == right
        else:
            assert np.array_equal(left, right) and left.dtype.kind == right.dtype.kind, field.name


# --- adding


def test_rows_are_pooled_prototypes_with_their_provenance():
    fmap = features()
    mask = mask_of(fmap)
    memory = SupportMemory(DIM, fingerprint="enc")
    ids = memory.add("a", fmap, mask, NAMES, source="photos/a.jpg", metadata={"domain": "day", "year": 2020})
    expected, _ = pool_masks(fmap, mask, list(NAMES))
    assert ids.tolist() == [0, 1, 2] and ids.dtype == np.int64
    assert np.array_equal(memory.vectors, expected) and memory.vectors.dtype == np.float32
    assert memory.class_names.tolist() == ["sky", "bus", "tram"] and memory.images == ("a",)
    assert memory.rows.sources.tolist() == ["photos/a.jpg"] * 3
    assert memory.rows.metadata.tolist() == [{"domain": "day", "year": 2020}] * 3
    assert memory.summary() == {"sky": 1, "bus": 1, "tram": 1} and len(memory) == 3
    assert "3 prototypes of 3 classes in 1 images" in repr(memory)


def test_absent_classes_make_no_row_and_a_picture_may_gain_classes_later():
    fmap = features()
    memory = SupportMemory(DIM)
    mask = np.zeros(fmap.image_size, int)
    mask[:5] = 7
    assert memory.add("a", fmap, mask, {7: "tram", 1: "bus"}).tolist() == [0]
    assert memory.add("a", fmap, mask, {0: "sky"}).tolist() == [1]
    assert memory.add("a", fmap, mask, {}).tolist() == []
    assert memory.classes == ("tram", "sky")


def test_ids_are_never_reused():
    memory = filled(1)
    memory.remove("img0")
    fmap = features()
    assert len(memory) == 0 and memory.add("img0", fmap, mask_of(fmap), NAMES).tolist() == [3, 4, 5]


# --- searching


def slow_search(memory: SupportMemory, queries: np.ndarray, k: int, allowed: np.ndarray):
    """Sort everything: scores (N, k) and ids (N, k)."""
    scores = np.where(allowed, queries.astype(np.float64) @ memory.vectors.T.astype(np.float64), -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, 1)
    ids = np.where(np.isinf(best), -1, memory.ids[order])
    short = ((0, 0), (0, k - order.shape[1]))
    return np.pad(best, short, constant_values=-np.inf), np.pad(ids, short, constant_values=-1)


def check_against_slow(memory: SupportMemory, queries: np.ndarray, k: int, allowed: np.ndarray, **filters):
    hits = memory.search(queries, k, **filters)
    scores, ids = slow_search(memory, queries, k, allowed)
    assert hits.scores.shape == hits.rows.shape == (len(queries), k)
    assert hits.scores.dtype == np.float32 and hits.rows.dtype == np.int64
    np.testing.assert_allclose(hits.scores, scores, atol=1e-5)
    assert np.array_equal(hits.rows == -1, ids == -1)
    differ = hits.rows != ids  # allowed for ties only: the row that was returned scores the same
    for n, j in zip(*np.nonzero(differ), strict=True):
        row = memory.lookup(hits.rows[n, j]).vectors[0]
        assert abs(queries[n] @ row - scores[n, j]) < 1e-5


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_search_agrees_with_sorting_everything(data):
    seed, count, k = (data.draw(st.integers(low, high)) for low, high in ((0, 99), (1, 30), (1, 40)))
    rng = np.random.default_rng(seed)
    names = rng.choice(["sky", "bus", "tram"], count)
    images = [f"i{n}" for n in range(count)]
    memory = SupportMemory.from_prototypes(unit(rng.standard_normal((count, DIM))), names, images)
    queries = rng.standard_normal((data.draw(st.sampled_from([1, 7, 33])), DIM)).astype(np.float32)
    classes = data.draw(st.none() | st.lists(st.sampled_from(["sky", "bus", "unknown"])))
    excluded = data.draw(st.lists(st.sampled_from([*images, "elsewhere"])))
    allowed = np.array([classes is None or n in classes for n in names]) & ~np.isin(images, excluded)
    check_against_slow(memory, queries, k, allowed, classes=classes, exclude_images=excluded)


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize(
    "where", [{"domain": "fog"}, lambda facts: facts["domain"] == "fog", {"domain": "snow"}, {"era": None}]
)
def test_search_filters_by_metadata(n, where):
    memory = filled()
    wanted = where if callable(where) else lambda facts: where.items() <= facts.items()
    allowed = np.array([wanted(facts) for facts in memory.rows.metadata])
    queries = unit(np.random.default_rng(1).standard_normal((n, DIM)))
    check_against_slow(memory, queries, 12, allowed, where=where)


def test_every_row_finds_itself():
    memory = filled()
    assert np.array_equal(memory.search(memory.vectors, 1).rows[:, 0], memory.ids)


def test_class_prototypes_are_normalised_sums():
    memory = filled()
    found = memory.class_prototypes(["tram", "nothing", "sky"])
    for row, name in ((0, "tram"), (2, "sky")):
        total = memory.vectors[memory.class_names == name].astype(np.float64).sum(0)
        np.testing.assert_allclose(found[row], total / np.linalg.norm(total), atol=1e-6)
    assert np.isnan(found[1]).all() and found.dtype == np.float32
    before = found[2].copy()
    memory.remove("img0", "sky")
    assert not np.allclose(memory.class_prototypes(["sky"])[0], before)  # never a stale sum
    assert memory.class_prototypes([]).shape == (0, DIM)
    assert np.isnan(SupportMemory(DIM).class_prototypes(["sky"])).all()


def test_lookup_keeps_the_order_asked():
    memory = filled()
    memory.remove("img1")
    ids = memory.ids[[4, 0, 4]]
    rows = memory.lookup(ids)
    assert np.array_equal(rows.ids, ids) and np.array_equal(rows.vectors, memory.vectors[[4, 0, 4]])
    rows.vectors[:] = 0  # a copy
    assert np.linalg.norm(memory.vectors, axis=1).min() > 0.99


# --- any history equals a fresh start

CHANGES = st.lists(
    st.tuples(st.sampled_from("aaarcb"), st.integers(0, 4), st.sampled_from([0, 1, 7])), max_size=15
)


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_any_history_equals_a_fresh_memory(changes):
    memory, given_ids = SupportMemory(DIM), []
    kept: list[tuple[int, int]] = []  # (image, class id), in the order of adding
    for kind, image, value in changes:
        fmap = features(image)
        mask = mask_of(fmap, image)
        image_id, name = f"img{image}", NAMES[value]
        if kind == "a" and (image, value) not in kept:
            given_ids += memory.add(image_id, fmap, mask, {value: name}).tolist()
            kept.append((image, value))
        elif kind != "a":
            by_image, by_class = kind in "rb", kind in "cb"
            gone = [x for x in kept if (x[0] == image or not by_image) and (x[1] == value or not by_class)]
            target = {"image_id": image_id} if by_image else {}
            target |= {"class_name": name} if by_class else {}
            if gone:
                assert memory.remove(**target) == len(gone)
                kept = [x for x in kept if x not in gone]
            else:
                with pytest.raises(ValueError, match="there is no"):
                    memory.remove(**target)
    fresh = SupportMemory(DIM)
    for image, value in kept:
        fmap = features(image)
        fresh.add(f"img{image}", fmap, mask_of(fmap, image), {value: NAMES[value]})
    same_content(memory, fresh, ids=False)
    assert given_ids == list(range(len(given_ids))) and (np.diff(memory.ids) > 0).all()
    names = list(NAMES.values())
    np.testing.assert_array_equal(memory.class_prototypes(names), fresh.class_prototypes(names))
    if kept:
        queries = unit(np.random.default_rng(0).standard_normal((3, DIM)))
        a, b = memory.search(queries, 4), fresh.search(queries, 4)
        assert np.array_equal(a.scores, b.scores)
        assert np.array_equal(
            np.searchsorted(memory.ids, a.rows[a.rows >= 0]), np.searchsorted(fresh.ids, b.rows[b.rows >= 0])
        )


# --- thumbnails


def test_thumbnails_show_the_region():
    fmap = features(grid=(48, 100))  # 192 x 400 px
    mask = np.zeros(fmap.image_size, np.uint8)
    mask[:, 200:] = 1
    mask[0, 0] = 7  # one pixel: it would vanish if the mask were resized by nearest neighbour
    picture = np.full((*mask.shape, 3), 30, np.uint8)
    picture[:, 200:] = (200, 10, 10)
    memory = SupportMemory(DIM)
    ids = memory.add("a", fmap, mask, {1: "bus", 7: "tram"}, thumbnail=picture)
    later = memory.add("a", fmap, mask, {0: "sky"})
    image, region = memory.thumbnail(ids[0])
    assert image.shape == (46, 96, 3) and image.dtype == np.uint8
    assert region.shape == (46, 96) and region.dtype == bool
    assert region[:, 48:].all() and not region[:, :48].any()
    assert (image[:, 48:] == (200, 10, 10)).all() and (image[:, :48] == 30).all()
    tiny = memory.thumbnail(int(ids[1]))[1]
    assert tiny[0, 0] and tiny.sum() == 1
    assert memory.thumbnail(later[0]) is None
    memory.remove("a", "bus")
    assert memory.thumbnail(ids[1])[1][0, 0]
    with pytest.raises(ValueError, match="no prototype with id 0"):
        memory.thumbnail(ids[0])


# --- every guard fires

GOOD = features()
MASK = mask_of(GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_map": features(dim=5)}, "features have 5 dimensions; this memory has 8"),
        ({"feature_map": FeatureMap(GOOD.values * 2, 4, (12, 16), (12, 16))}, "patch 0 has norm 2"),
        ({"feature_map": FeatureMap(GOOD.values * np.nan, 4, (12, 16), (12, 16))}, "patch 0 has norm nan"),
        ({"mask": MASK[1:]}, r"mask is \(11, 16\), but its image is \(12, 16\)"),
        ({"mask": MASK.astype(float)}, "mask must hold whole numbers, got float64"),
        ({"classes": {255: "void", 1: "bus"}}, "classes calls 255 'void'"),
        ({"classes": {0: "bus", 1: "bus"}}, "several mask values are called 'bus'"),
        ({"classes": {0: ""}}, "'' cannot name"),
        ({"classes": {0: None}}, "None cannot name"),
        ({"image_id": 3}, "3 cannot name"),
        ({"image_id": "a\0"}, "cannot name"),
        ({"source": "\ud800"}, "cannot name"),
        ({"metadata": {"tags": ["x"]}}, "metadata 'tags'.*cannot be kept"),
        ({"metadata": {1: "x"}}, "metadata 1"),
        ({"metadata": {"score": float("nan")}}, "metadata 'score'"),
        ({"thumbnail": np.zeros((12, 16), np.uint8)}, r"thumbnail must be uint8 \(12, 16, 3\), got uint8"),
        ({"thumbnail": np.zeros((12, 16, 3))}, "thumbnail must be uint8.*float64"),
        ({"thumbnail": "a.jpg"}, "thumbnail must be uint8.*str"),
        ({"image_id": "img0"}, r"already a prototype of class 'bus' for image 'img0'.*remove\("),
    ],
)
def test_a_bad_picture_is_refused_and_changes_nothing(change, message):
    memory = filled(2)
    arguments = {"image_id": "new", "feature_map": GOOD, "mask": MASK, "classes": NAMES}
    with pytest.raises(ValueError, match=message):
        memory.add(**arguments | change)
    same_content(memory, filled(2))
    assert memory.add("after", GOOD, MASK, NAMES).tolist() == [6, 7, 8]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: SupportMemory(0), "dim must be a positive whole number, got 0"),
        (lambda m: SupportMemory(2.5), "dim must be"),
        (
            lambda m: SupportMemory(DIM, index="tree"),
            "unknown index 'tree'. Known: auto, flat, hnsw",
        ),
        (lambda m: SupportMemory(DIM, fingerprint=3), "fingerprint must be text or None, got 3"),
        (lambda m: SupportMemory(DIM).search(np.ones((1, DIM)), 1), "memory is empty"),
        (lambda m: m.search(np.ones((2, 5)), 1), r"queries must be \(N, 8\), got shape \(2, 5\)"),
        (lambda m: m.search(np.ones(DIM), 1), "queries must be"),
        (lambda m: m.search(np.full((2, DIM), np.nan), 1), r"query 0 is not finite \(2 of 2"),
        (lambda m: m.search(np.ones((1, DIM)), 0), "k must be a positive whole number, got 0"),
        (lambda m: m.search(np.ones((1, DIM)), True), "k must be"),
        (lambda m: m.search(np.ones((1, DIM)), 1, classes="bus"), "classes must be a list of names.*'bus'"),
        (lambda m: m.search(np.ones((1, DIM)), 1, exclude_images="img0"), "exclude_images must be a list"),
        (lambda m: m.search(np.ones((1, DIM)), 1, where="day"), "where must be a mapping or a function"),
        (lambda m: m.class_prototypes("bus"), "names must be a list"),
        (lambda m: m.lookup([0, 99]), "no prototype with id 99; the memory holds 6 ids from 0 to 5"),
        (lambda m: m.lookup([-1]), "no prototype with id -1"),
        (lambda m: SupportMemory(DIM).lookup([0]), "holds none"),
        (lambda m: m.remove(), "which rows"),
        (lambda m: m.remove("imh0"), "no image 'imh0'; did you mean 'img0'.*There are: img0, img1"),
        (lambda m: m.remove(class_name="buss"), "no class 'buss'; did you mean 'bus'"),
        (lambda m: m.remove("img0", "boat"), "no class 'boat' in image 'img0'; There are: sky, bus, tram"),
        (lambda m: SupportMemory(DIM).remove(class_name="bus"), "no class 'bus'"),
    ],
)
def test_bad_calls_repeat_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(filled(2))


@pytest.mark.parametrize(
    ("vectors", "names", "images", "message"),
    [
        (np.ones(3), ["a"], ["i"], r"vectors must be \(P, D\), got shape \(3,\)"),
        (np.eye(3) * 1.01, list("abc"), list("ijk"), "vector 0 has norm 1.01"),
        (np.eye(3), list("ab"), list("ijk"), r"columns differ in length: \[3, 3, 2, 3"),
        (np.eye(3), list("aab"), list("iij"), "already a prototype of class 'a' for image 'i'"),
    ],
)
def test_bad_prototypes_are_refused(vectors, names, images, message):
    with pytest.raises(ValueError, match=message):
        SupportMemory.from_prototypes(vectors, names, images)


def test_another_encoder_is_refused():
    class Encoder:
        def __init__(self, fingerprint, dim=DIM):
            self.fingerprint, self.dim = fingerprint, dim

    SupportMemory(DIM).check_encoder(Encoder("any"))
    SupportMemory(DIM, fingerprint="A").check_encoder(Encoder("A"))
    with pytest.raises(ValueError, match="made with 'A'; you gave 'B'"):
        SupportMemory(DIM, fingerprint="A").check_encoder(Encoder("B"))
    with pytest.raises(ValueError, match="the memory has 8 dimensions, the encoder 9"):
        SupportMemory(DIM).check_encoder(Encoder("A", dim=9))
