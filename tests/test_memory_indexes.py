"""Exact search against sorting, approximate indexes against exact search: after any changes, on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.retrieval import Clusters
from rose_kit.memory import Prototypes, SupportMemory, storage
from rose_kit.memory import index as indexing
from rose_kit.memory.index import AutoIndex, Filter, Index, exact_search

DIM, COUNT = 32, 3000
KINDS = ["hnsw", "ivfpq", "auto"]


def rows_of(count: int, seed: int = 1, first: int = 0) -> Prototypes:
    vectors, owner = Clusters(COUNT, DIM).draw(count, seed)
    facts = [{"odd": n % 2 == 1, "tenth": n % 10} for n in range(10)]
    names, images = [f"c{c % 5}" for c in owner], [f"i{first + n}" for n in range(count)]
    metadata = [facts[n % 10] for n in range(count)]
    return Prototypes.make(np.arange(count), vectors, names, images, None, metadata)


QUERIES = Clusters(COUNT, DIM).draw(200, 2)[0]  # never stored


@pytest.fixture(scope="module")
def trained():
    """For each kind, a memory of 3000 rows that has been searched; tests change copies of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoIndex, "exact_up_to", 2500)
        memories = {kind: SupportMemory(DIM, index=kind) for kind in KINDS}
        for memory in memories.values():
            memory.extend(rows_of(COUNT))
            memory.search(QUERIES[:1], 1)
        yield memories


@pytest.fixture(params=KINDS)
def memory(request, trained):
    memory = trained[request.param].copy()
    index = type(memory._index)(DIM)  # a copy that changes would be trained anew
    index._trained, memory._index, memory._shares_index = memory._index._trained, index, False
    return memory


def recall(memory: SupportMemory, k: int = 4, **filters) -> float:
    """What share of the true neighbours is found; what is found must be allowed and rightly scored."""
    found = memory.search(QUERIES, k, **filters)
    exact = memory.subset(memory.ids).search(QUERIES, k, **filters)
    assert np.array_equal(found.ids < 0, exact.ids < 0)  # rows run out where they do, not before
    there = found.ids >= 0
    rows = memory.lookup(found.ids[there]).vectors
    scores = (rows * QUERIES.repeat(there.sum(1), axis=0)).sum(1)
    np.testing.assert_allclose(found.scores[there], scores, atol=1e-5)
    assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()
    assert np.isin(found.ids[there], memory.ids[Filter(**filters).mask(memory.rows)]).all()
    hits = [len({*a} & {*b} - {-1}) for a, b in zip(found.ids, exact.ids, strict=True)]
    return float(sum(hits) / wanted) if (wanted := (exact.ids >= 0).sum()) else 1.0


# --- exact


@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("held", ["array", "file", "tensor"])
def test_exact_search_agrees_with_sorting(monkeypatch, tmp_path, chunk, held):
    monkeypatch.setattr(indexing, "CHUNK", chunk)
    vectors, queries = rows_of(50).vectors, QUERIES[:9]
    if held == "file":
        vectors.tofile(tmp_path / "vectors")
        vectors = np.memmap(tmp_path / "vectors", np.float32, "r", 0, (50, DIM))
    given = tuple(map(torch.tensor, (vectors, queries))) if held == "tensor" else (vectors, queries)
    among = np.arange(0, 50, 3)
    for allowed in (np.arange(50), among, among[:2], among[:0]):
        scores, near = exact_search(*given, 4, np.isin(np.arange(50), allowed))
        assert type(scores) is type(near) is type(given[1])
        scores, near = np.asarray(scores), np.asarray(near)
        full = np.full((9, 54), -np.inf)
        full[:, allowed] = queries @ vectors[allowed].T
        order = np.argsort(-full, 1)[:, :4]
        np.testing.assert_allclose(scores, np.take_along_axis(full, order, 1), atol=1e-5)
        assert np.array_equal(near, np.where(np.isinf(scores), -1, order))


# --- approximate


def test_recall_reaches_its_target_on_queries_never_seen(memory):
    index = memory._index
    assert recall(memory) >= index.recall_target and index._trained.recall >= index.recall_target
    assert f"{index.name} of 3000 rows" in memory.describe_index()
    few = memory.subset(memory.ids[: index.exact_up_to])
    few._index = type(index)(DIM)
    assert recall(few) == 1 and "exact up to" in few.describe_index() and few._index._trained is None
    with pytest.raises(ValueError, match="1.5"):
        type(index)(DIM, recall_target=1.5)


def test_rows_come_and_go_after_training(memory):
    index, old, first = memory._index, memory.copy(), memory._index._trained
    for n in range(5):  # newer rows are compared one by one
        memory.extend(rows_of(60, 20 + n, 9000 + 60 * n))
        assert np.array_equal(memory.search(memory.vectors[-60:], 1).ids[:, 0], memory.ids[-60:])
    assert index._trained is first and recall(memory) >= 0.95
    memory.remove(class_name="c1")
    memory.remove(ids=memory.ids[::50])
    assert recall(memory) >= 0.95 and recall(memory, 2200) >= 0.9 and recall(memory, len(memory) + 1) == 1
    memory.extend(rows_of(300, 4, 9900))  # more than a tenth are new: a new index is trained
    assert recall(memory) >= 0.95 and np.array_equal(index._trained.ids, memory.ids)
    assert recall(old) >= 0.95 and "c1" in old.classes  # the copy still finds what is gone
    for name in ("c0", "c2"):
        memory.remove(class_name=name)
    # two queries in five are now of classes that are gone: unlike any row that the effort was tuned on
    assert recall(memory) >= 0.9 and set(memory.classes) == {"c1", "c3", "c4"}
    memory.remove(ids=memory.ids[20:])
    assert recall(memory) == 1


def test_filters_run_out_only_where_rows_do(memory):
    for gone in (3, 250, 1500):
        assert recall(memory, exclude_images=[f"i{n}" for n in range(gone)]) >= 0.95, gone
    assert recall(memory, classes=["c0", "c1", "c2", "c3"]) >= 0.95
    assert recall(memory, where=lambda facts: facts["tenth"] != 3) >= 0.95
    few = {"where": {"odd": True}, "classes": ["c1"], "exclude_images": ["i1", "i3"]}
    assert recall(memory, **few) == 1  # exact
    assert recall(memory, where={"tenth": [3, 4]}, k=700) == 1 and recall(memory, where={"era": 1}) == 1


# --- copies, disk


def test_a_copy_shares_the_trained_index_until_it_changes(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MAPPED_FROM", 0)
    shared, changed, trained = memory.copy(), memory.copy(), memory._index._trained
    assert recall(shared) >= 0.95 and shared._index._trained is trained
    changed.extend(rows_of(20, 5, 9000))
    memory.extend(rows_of(20, 6, 9500))  # other rows of the same ids
    assert np.array_equal(changed.search(changed.vectors[-20:], 1).ids[:, 0], memory.ids[-20:])
    assert changed._index._trained is not trained and memory._index._trained is trained
    memory.save(tmp_path)
    loaded = SupportMemory.load(tmp_path)
    assert isinstance(loaded.vectors, np.memmap) and recall(loaded) >= 0.95
    assert type(loaded._index) is type(memory._index)
    assert type(SupportMemory.load(tmp_path, index="flat")._index) is Index
