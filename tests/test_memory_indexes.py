"""Approximate indexes: against the flat one, over any history, on disk, and with filters."""

from __future__ import annotations

import subprocess

import faiss
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from course.scaling_figures import index_costs, recall_against_cost
from experiments.retrieval import Clusters, retrieval_rows
from rose_kit.memory import Rows, SupportMemory
from rose_kit.memory.indexes import Index, exact_search, make_index
from rose_kit.memory.indexes.auto import AutoIndex
from rose_kit.memory.indexes.flat import FlatIndex
from rose_kit.memory.indexes.hnsw import HNSWIndex
from rose_kit.memory.indexes.ivfpq import IVFPQIndex
from rose_kit.memory.mapped import Mapped

DIM, COUNT = 32, 3000
KINDS = [HNSWIndex, IVFPQIndex]


def rows_of(count: int, seed: int = 1, first: int = 0) -> Rows:
    vectors, owner = Clusters(COUNT, DIM).draw(count, seed)
    facts = [{"odd": n % 2 == 1, "tenth": n % 10} for n in range(10)]
    names, images = [f"c{c % 5}" for c in owner], [f"i{first + n}" for n in range(count)]
    metadata = [facts[n % 10] for n in range(count)]
    return Rows.make(np.arange(count), vectors, names, images, None, metadata)


def of_size(index: Index | str, count: int = COUNT) -> SupportMemory:
    memory = SupportMemory(DIM, index=index)
    memory.extend(rows_of(count))
    return memory


QUERIES = Clusters(COUNT, DIM).draw(200, 2)[0]  # never stored


def recall(memory: SupportMemory, k: int = 4, **filters) -> float:
    found = memory.search(QUERIES, k, **filters)
    truth = SupportMemory(DIM)
    truth.extend(memory.rows)
    expected = truth.search(QUERIES, k, **filters).rows
    expected = np.append(memory.ids, -1)[expected]  # counted from 0 there
    scores = np.einsum(
        "nkd,nd->nk", memory.lookup(found.rows).vectors.reshape(*found.rows.shape, DIM), QUERIES
    )
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)  # exact scores, whatever was found
    assert (np.diff(found.scores, axis=1) <= 0).all()
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.rows, expected, strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
def test_recall_reaches_its_target_on_held_out_queries(kind):
    index = kind(DIM)
    memory = of_size(index)
    assert recall(memory) >= index.recall_target
    assert index._sealed.recall >= index.recall_target and "held-out" in memory.describe_index()
    with pytest.raises(ValueError, match="recall_target must lie between 0 and 1, got 1.5"):
        kind(DIM, recall_target=1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_any_history_is_searched_as_it_is(kind):
    index = kind(DIM)
    memory = of_size(index)
    memory.search(QUERIES[:1], 1)
    sealed = index._sealed
    old = memory.snapshot()
    memory.extend(rows_of(200, 3, COUNT))  # compared one by one
    memory.remove(class_name="c1")
    assert index._sealed is sealed and recall(memory) >= 0.95
    assert recall(old) >= 0.95 and "c1" in old.classes  # the snapshot still finds what is gone
    memory.undo()
    assert recall(memory) >= 0.95 and "c1" in memory.classes
    memory.extend(rows_of(2500, 4, 9000))  # too many to compare: a new one is made
    assert recall(memory) >= 0.95 and index._sealed is not sealed and index.version == 2
    for name in ("c0", "c1", "c2"):
        memory.remove(class_name=name)
    # Three queries in five are now of classes that are gone: unlike any row that it was tuned on.
    assert recall(memory) >= 0.95 and set(memory.classes) == {"c3", "c4"}


@pytest.mark.parametrize("kind", KINDS)
def test_filters_and_large_k_run_out_only_where_rows_do(kind, monkeypatch):
    monkeypatch.setattr(kind, "least", 10)  # filtered searches go through the index, too
    memory = of_size(kind(DIM))
    assert recall(memory, classes=["c0", "c2"]) >= 0.95
    assert recall(memory, where={"odd": True}, exclude_images=["i1", "i3"]) >= 0.95
    assert recall(memory, where={"tenth": [3, 4]}) >= 0.95 and recall(memory, where={"tenth": 7}) >= 0.95
    assert recall(memory, exclude_images=[f"i{n}" for n in range(100)]) >= 0.95
    assert recall(memory, k=25) >= 0.95 and recall(memory, k=9, classes=["c1"]) >= 0.95
    rare = np.unique(memory.class_names, return_counts=True)
    name, count = rare[0][rare[1].argmin()], rare[1].min()
    hits = memory.search(QUERIES[:20], int(count) + 3, classes=[str(name)])
    assert ((hits.rows >= 0).sum(1) == count).all() and np.isinf(hits.scores[:, count:]).all()
    memory.search(QUERIES[:3], len(memory) + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_saved_and_rows_stay_on_disk(kind, tmp_path):
    memory = of_size(kind.name)
    before = memory.search(QUERIES, 4)
    memory.save(tmp_path)
    loaded = SupportMemory.load(tmp_path, mapped=True)
    assert isinstance(loaded.vectors, Mapped) and loaded._index._sealed is not None
    after = loaded.search(QUERIES, 4)
    assert np.array_equal(before.rows, after.rows) and loaded._index.version == 0  # not made again
    np.testing.assert_allclose(before.scores, after.scores, atol=1e-6)
    loaded.remove("i5")
    loaded.extend(rows_of(10, 5, 9000))
    assert isinstance(loaded.vectors, Mapped) and recall(loaded) >= 0.95
    loaded.save(tmp_path)
    assert isinstance(SupportMemory.load(tmp_path, index="flat")._index, FlatIndex)
    [path] = tmp_path.glob("index-*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=path.name):
        SupportMemory.load(tmp_path)


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq", "auto"])
@pytest.mark.parametrize("spoil", ["three facts", "no facts", "no ids", "no index", "other width"])
def test_an_index_saved_in_another_form_is_made_anew(kind, spoil, tmp_path, monkeypatch):
    monkeypatch.setattr(AutoIndex, "rule", ((2500, FlatIndex), (float("inf"), HNSWIndex)))
    memory = of_size(kind)
    memory.search(QUERIES[:1], 1)
    learned = memory._index.dump()
    if spoil == "other width":
        learned["faiss"] = faiss.serialize_index(faiss.IndexFlat(DIM + 1))
    elif spoil == "three facts":
        learned["facts"] = learned["facts"][:3]
    elif spoil == "no index":
        learned["faiss"] = learned["faiss"][:9]
    else:
        del learned[spoil.removeprefix("no ")]
    monkeypatch.setattr(type(memory._index), "dump", lambda _: learned)
    memory.save(tmp_path)
    loaded = SupportMemory.load(tmp_path)
    np.testing.assert_array_equal(loaded.vectors, memory.vectors)
    assert recall(loaded) >= 0.95 and loaded._index.version


def test_a_process_that_is_killed_is_told(monkeypatch):
    def killed(command, **_):
        return subprocess.CompletedProcess(command, -9, "")

    monkeypatch.setattr("experiments.retrieval.subprocess.run", killed)
    with pytest.raises(OSError, match="flat at 1000 rows was killed"):
        retrieval_rows([1000], ["hnsw"])


def test_auto_follows_its_rule(monkeypatch, tmp_path):
    monkeypatch.setattr(AutoIndex, "rule", ((100, FlatIndex), (2500, HNSWIndex), (float("inf"), IVFPQIndex)))
    memory = SupportMemory(DIM, index="auto")
    names = []
    for n, count in enumerate((100, 2200, 500)):
        memory.extend(rows_of(count, n, 10_000 * n))
        assert recall(memory) >= 0.95
        names.append(memory._index._chosen.name)
    assert names == ["flat", "hnsw", "ivfpq"]
    memory.save(tmp_path)
    assert SupportMemory.load(tmp_path)._index._chosen._sealed is not None


def test_exact_search_of_pieces_agrees_with_sorting(monkeypatch):
    monkeypatch.setattr("rose_kit.memory.indexes.base.CHUNK", 7)
    vectors = rows_of(50).vectors
    parts = Mapped([vectors[:20], vectors[20:]])
    among = np.arange(0, 50, 3)
    for held in (vectors, parts, parts.pick(np.arange(50))):
        for chosen in (None, among, among[:2], among[:0]):
            scores, near = exact_search(held, QUERIES[:9], 4, chosen)
            allowed = np.arange(50) if chosen is None else chosen
            full = np.full((9, 50), -np.inf)
            full[:, allowed] = QUERIES[:9] @ vectors[allowed].T
            np.testing.assert_allclose(scores, -np.sort(-full, 1)[:, :4], atol=1e-5)
            assert np.array_equal(near == -1, np.isinf(scores))


def test_mapped_vectors_behave_as_an_array():
    vectors = rows_of(30).vectors
    mapped = Mapped([vectors[:10], vectors[10:]]).pick(np.arange(0, 30, 2))
    plain = vectors[::2]
    for key in (
        3,
        -1,
        slice(2, 5),
        np.array([4, 0, 4]),
        np.array([[1, 2], [3, 0]]),
        plain[:, 0] > 0,
        ([1, 2], 0),
    ):
        assert np.array_equal(mapped[key], plain[key]), key
    assert mapped.shape == plain.shape and len(mapped) == 15 and np.array_equal(np.asarray(mapped), plain)


def test_an_index_of_another_width_is_refused():
    with pytest.raises(ValueError, match="index is for 8 dimensions, the memory has 32"):
        make_index(FlatIndex(8), 32)


def test_figures_show_what_was_measured():
    found = pd.DataFrame(
        {"rows": [10, 100, 100], "index": ["flat", "flat", "ivfpq"], "query_ms": [1.0, 9, 2]}
        | {"bytes_per_row": [8.0, 8, 1], "build_s": [0.0, 0, 3], "recall_at_4": [1.0, 1, 0.97]}
    )
    speed, _, build, recalls = index_costs(found, plt.figure()).axes
    assert [line.get_label() for line in speed.lines] == ["flat", "ivfpq"]
    assert speed.lines[0].get_ydata().tolist() == [1, 9] and recalls.lines[1].get_ydata().tolist() == [0.97]
    assert not len(build.lines[0].get_ydata())  # flat is not built
    efforts = pd.DataFrame({"index": list("aab"), "cost": [0.1, 0.2, 0.3], "recall": [0.5, 0.9, 1.0]})
    (ax,) = recall_against_cost(efforts, 0.95, plt.figure()).axes
    assert ax.lines[0].get_ydata().tolist() == [0.5, 0.9] and set(ax.lines[2].get_ydata()) == {0.95}
    plt.close("all")
    for draw in (index_costs, lambda table: recall_against_cost(table, 1)):
        with pytest.raises(ValueError, match="nothing|no indexes|no efforts"):
            draw(found[:0])
