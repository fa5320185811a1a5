"""Zero-shot, late fusion and retrieval, against slow legible twins."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.claims.lookup import RETRIEVALS
from rose_kit import RNS, Freeda, FssDino, KnnClip, Query, SupportMemory, Vocabulary, ZeroShot, methods, unit
from rose_kit.fusion import retrieve
from rose_kit.fusion.retrieval import restrict
from rose_kit.fusion.zero_shot import class_cosines

NAMES = ("bus", "background", "sky", "tree")
ROWS = ("bus", "bus", "sky", "background", "background", "car")  # tree has none; car is not asked for
D = 12
METHODS = [KnnClip(k=3, scale=100), Freeda(global_share=0)]  # zero-shot is a part of them


def world(seed: int = 0, n: int = 9):
    """Features, memory, vocabulary: random, small, with one class unsupported and one not asked for."""
    rng = np.random.default_rng(seed)
    bank = unit(rng.normal(size=(len(ROWS), D)))
    memory = SupportMemory.from_prototypes(bank, ROWS, ["a", "b", "a", "a", "b", "b"])
    text = rng.normal(size=D) + 0.1 * rng.normal(size=(len(NAMES), D))  # alike, so that nothing is certain
    return unit(rng.normal(size=(n, D))), memory, Vocabulary(NAMES, unit(text))


def predicted(method, *args, **options) -> np.ndarray:
    return np.asarray(method.predict(*args, **options))


# --- text -------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), again=st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_zero_shot_is_a_softmax_of_cosines_and_a_text_given_twice_changes_nothing(seed, again):
    features, _, v = world(seed)
    e = np.exp(100 * (features @ v.text.T).astype(np.float64))
    twice = Vocabulary(v.names, np.concatenate([v.text, v.text[again]]), np.concatenate([v.owner, again]))
    for vocabulary in (v, twice):
        answer = predicted(ZeroShot(), features, None, vocabulary)
        np.testing.assert_allclose(answer, e / e.sum(1, keepdims=True), atol=1e-4)


def test_classes_without_text_share_the_mean_text_and_tie_to_the_last_bit():
    features, _, v = world(n=200)
    partial = v.without_text(["bus", "tree"])
    mean = unit(v.text[[1, 2]].mean(0))
    np.testing.assert_allclose(partial.completed.text[2:], [mean, mean], atol=1e-6)
    cosines = class_cosines(features, partial)
    np.testing.assert_array_equal(cosines[:, 0], cosines[:, 3])
    assert 3 not in cosines.argmax(1)


# --- late fusion ------------------------------------------------------------------------------------


def assert_evidence(prediction, n: int, gain: dict):
    """The evidence of query n lists these ids with these weights, which add up to `gain`'s sum."""
    top = prediction.evidence.top(n, 99)
    assert dict(zip(top.prototype_id, top.weight, strict=True)) == pytest.approx(gain, abs=1e-5)


def assert_effects(prediction, n: int, score, without: dict):
    """The effects of query n are changes of the winning score, less the mean change over the classes.

    Args:
        score: (C,) with all prototypes.
        without: prototype id -> (C,) without it; also of prototypes that the evidence does not list.
    """
    changes = {i: other - score for i, other in without.items()}
    effects = {i: change[score.argmax()] - change.mean() for i, change in changes.items()}
    found = prediction.evidence.leave_out(np.array(list(effects)))[:, n]
    assert dict(zip(effects, found, strict=True)) == pytest.approx(effects, abs=1e-5)
    listed = prediction.evidence.with_effects().top(n, 99)
    expected = [effects.get(i, np.nan) for i in listed.prototype_id]  # -1, the remainder, has none
    assert listed.effect == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_knn_clip_and_its_evidence_against_a_loop():
    features, memory, vocabulary = world(n=40)
    text = predicted(ZeroShot(scale=10), features, None, vocabulary)
    method = KnnClip(weight=0.3, k=3, temperature=0.1, scale=10, threshold=np.median(text.max(1)))
    prediction, sure = method.predict(features, memory, vocabulary), 0
    every = [r for r in range(len(ROWS)) if ROWS[r] in NAMES]

    def votes(x, weight, left_out=None):
        rows = sorted(set(every) - {left_out}, key=lambda r: -float(x @ memory.vectors[r]))[:3]
        power = {r: np.exp(float(x @ memory.vectors[r]) / 0.1) for r in rows}
        share = {r: weight * e / sum(power.values()) for r, e in power.items()}
        return share, np.array([sum(p for r, p in share.items() if ROWS[r] == name) for name in NAMES])

    for n, x in enumerate(features):
        weight = 0 if text[n].max() > method.threshold else 0.3
        sure += weight == 0
        read = (1 - weight) * text[n]
        share, vote = votes(x, weight)
        expected = vote + read
        np.testing.assert_allclose(np.asarray(prediction)[n], expected, atol=1e-5)
        np.testing.assert_allclose(prediction.scores[n], expected, atol=1e-5)
        without = {i: votes(x, weight, i)[1] + read for i in range(len(ROWS))}
        assert_effects(prediction, n, expected, without)
        c = expected.argmax()
        gain = {r: p for r, p in share.items() if ROWS[r] == NAMES[c] and p}
        assert_evidence(prediction, n, gain | {-1: read[c]})
    assert 0 < sure < len(features)


@pytest.mark.parametrize(("g", "sigmoid"), [(0.0, False), (0.4, False), (1.0, True)])
def test_freeda_and_its_evidence_against_a_loop(g, sigmoid):
    features, memory, vocabulary = world()
    image = unit(np.random.default_rng(1).normal(size=D))
    query = Query(features, image_feature=3 * image)
    prediction = Freeda(weight=0.3, global_share=g, sigmoid=sigmoid).predict(query, memory, vocabulary)
    rows = [np.flatnonzero(memory.class_names == name) for name in NAMES]

    def mixed(x, left_out=None):
        own = [[i for i in members if i != left_out] for members in rows]
        seen = [x @ unit(memory.vectors[members].sum(0)) if members else None for members in own]
        if sigmoid:
            seen = [None if s is None else 4 / (1 + np.exp(-s)) - 2 for s in seen]
        read = (1 - g) * vocabulary.text @ x + g * vocabulary.text @ image
        return np.array([t if v is None else 0.3 * v + 0.7 * t for v, t in zip(seen, read, strict=True)])

    for n, x in enumerate(features):
        np.testing.assert_allclose(prediction.scores[n], mixed(x), atol=1e-5)
        assert_effects(prediction, n, mixed(x), {i: mixed(x, i) for i in memory.ids})
        gains = []
        for c in range(4):
            total = np.linalg.norm(memory.vectors[rows[c]].sum(0))
            gain = {i: 0.3 * x @ memory.vectors[i] / total for i in rows[c]}
            if sigmoid and gain:
                seen = sum(gain.values()) / 0.3
                gain = {i: g_i * (4 / (1 + np.exp(-seen)) - 2) / seen for i, g_i in gain.items()}
            read = (1 - g) * x @ vocabulary.text[c] + g * image @ vocabulary.text[c]
            gains.append(gain | {-1: read * (0.7 if len(rows[c]) else 1)})
        score = np.array([sum(gain.values()) for gain in gains])
        e = np.exp(100 * score)
        np.testing.assert_allclose(np.asarray(prediction)[n], e / e.sum(), atol=1e-4)
        assert_evidence(prediction, n, gains[score.argmax()])


@pytest.mark.parametrize("method", [*METHODS, Freeda(sigmoid=True), RNS()], ids=lambda m: type(m).__name__)
def test_effects_where_little_is_left_without_a_prototype(method):
    features, memory, vocabulary = world()[0], world()[1].subset([0, 2]), Vocabulary(NAMES)  # a bus, a sky
    answer = method.predict(features, memory, vocabulary)
    assert np.isnan(answer.evidence.effect).all()  # until they are asked for
    won = np.asarray(answer).argmax(1)
    listed = pickle.loads(pickle.dumps(answer)).evidence.with_effects([2])
    rows = np.flatnonzero(listed.prototype_id == 2)
    for q, effect in zip(listed.query[rows], listed.effect[rows], strict=True):
        gone = won[q] == NAMES.index("sky") and not isinstance(method, KnnClip)  # there, a score of 0 is left
        assert np.isneginf(effect) == gone and (gone or np.isfinite(effect))
    assert len(rows) and np.isnan(np.delete(listed.effect, rows)).all()
    with pytest.raises(ValueError, match=r"no prototype 7; it lists \[0, 2\]"):
        answer.evidence.with_effects([7])
    alone = method.predict(features, memory.subset([0]), vocabulary).evidence
    assert np.isnan(alone.leave_out(np.array([0]))).all()  # nothing could be answered


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_without_support_it_is_zero_shot_and_without_text_unsupported_classes_get_nothing(method):
    features, memory, vocabulary = world()
    assert predicted(method, features, memory, Vocabulary(NAMES))[:, 3].max() == 0
    text = predicted(ZeroShot(), features, None, vocabulary)
    for empty in (None, SupportMemory(D), SupportMemory.from_prototypes(np.eye(D)[:1], ["car"], ["a"])):
        answer = method.predict(features, empty, vocabulary)
        np.testing.assert_allclose(answer, text, atol=1e-5)
        np.testing.assert_allclose(method.probabilities(answer.scores), text, atol=1e-5)
        with pytest.raises(ValueError, match="bus, background, sky, tree"):
            method.predict(features, empty, Vocabulary(NAMES))


# --- FSSDINO ----------------------------------------------------------------------------------------


def fssdino_slowly(features, support: dict, size: int):
    """(N, C) max times mean of the cosines with each support feature and of the scaled Gram energy."""
    scores = np.full((len(features), size), -np.inf)
    for c, vectors in support.items():
        gram = sum(np.outer(v, v) for v in vectors.astype(np.float64)) / len(vectors)
        energy = np.array([x @ gram @ x for x in features])
        energy = (energy - energy.min()) / (energy.max() - energy.min())
        for n, x in enumerate(features):
            maps = [*(float(x @ v) for v in vectors), energy[n]]
            scores[n, c] = max(maps) * sum(maps) / len(maps)
    return scores


def test_fssdino_against_a_loop_with_the_rows_of_the_memory_and_with_patches():
    features, memory, vocabulary = world(n=20)
    rows = {c: memory.vectors[memory.class_names == name] for c, name in enumerate(NAMES[:3])}
    patches, labels = (
        unit(np.random.default_rng(2).normal(size=(8, D))),
        np.array([0, 3, 3, -1, 0, 255, 1, 0]),
    )
    support = [(patches[:5], labels[:5], "a"), (patches[5:], labels[5:], "b")]
    shown = {c: patches[labels == c] for c in (0, 1, 3)}
    for examples, own in ((None, rows), (support, shown)):
        method = FssDino(clusters=5, scale=7.0).fit(memory, vocabulary, examples)
        scores = fssdino_slowly(features, own, 4)
        answer, e = method.predict(features, memory, vocabulary), np.exp(7 * scores)
        np.testing.assert_allclose(np.asarray(answer), e / e.sum(1, keepdims=True), atol=1e-4)
        np.testing.assert_allclose(answer.scores, scores, atol=1e-5)
        assert answer.evidence is None
    silent = FssDino().fit(memory, Vocabulary(["moon"]), support[:0])
    with pytest.raises(ValueError, match="moon"):
        silent.predict(features, memory, Vocabulary(["moon"]))


def test_the_prototypes_of_fssdino_are_where_spherical_k_means_rests():
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(D, D)))[0][:4].astype(np.float32)
    rows = unit(np.repeat(centres, 25, 0) + 0.1 * rng.normal(size=(100, D)))
    found = FssDino(clusters=4).describe(rows).prototypes  # (4, D)
    nearest = (rows @ found.T).argmax(1)
    expected = unit([rows[nearest == k].mean(0) for k in range(4)])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(rows @ found.T, axis=1).min() > 0.5  # none of the four is empty or shared


# --- retrieval --------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), k=st.integers(1, 25))
def test_retrieval_against_a_loop(seed, k):
    rng = np.random.default_rng(seed)
    names = rng.choice(["sky", "bus", "tree", "car"], 20)
    memory = SupportMemory.from_prototypes(
        unit(rng.normal(size=(20, 6))), names, [f"i{i}" for i in range(20)]
    )
    features, vocabulary = unit(rng.normal(size=(3, 6))), Vocabulary(["tree", "bus", "sky"])
    allowed = [i for i in range(20) if names[i] in vocabulary.names]
    order = [sorted(allowed, key=lambda i: -float(memory.vectors[i] @ x)) for x in features]
    near, far = ({i for row in order for i in row[part]} for part in (slice(k), slice(-k, None)))
    retrieved = retrieve(features, memory, vocabulary, k)
    assert retrieved.ids.tolist() == sorted(near)
    np.testing.assert_array_equal(retrieved.vectors, memory.vectors[retrieved.ids])
    assert [vocabulary.names[c] for c in retrieved.classes] == names[retrieved.ids].tolist()
    rows = zip(retrieved.positions, retrieved.scores, order, features, strict=True)
    for positions, scores, row, x in rows:
        assert retrieved.ids[positions[positions >= 0]].tolist() == row[:k] and positions.shape == (k,)
        np.testing.assert_allclose(scores[positions >= 0], memory.vectors[row[:k]] @ x, atol=1e-6)
    assert RETRIEVALS["furthest"](features, memory, vocabulary, k).ids.tolist() == sorted(far)
    drawn = RETRIEVALS["random"](features, memory, vocabulary, k).ids
    assert set(drawn) <= set(allowed) and len(set(drawn)) == len(near)


@pytest.mark.parametrize("name", ["knn-clip", "freeda", "fssdino", "rns", "offline-linear", "offline-pixels"])
@pytest.mark.parametrize("where", [{"domain": "day"}, lambda facts: facts["domain"] != "night"])
def test_where_answers_as_the_matching_part_of_the_memory_does(name, where):
    features, plain, vocabulary = world(seed=1)
    rows = plain.rows
    facts = [{"domain": d} for d in ("day", "night", "night", "day", "day", "night")]  # sky is seen by night
    memory = SupportMemory(D)
    memory.extend(type(rows).make(rows.ids, rows.vectors, rows.class_names, rows.image_ids, metadata=facts))
    day = memory.subset([0, 3, 4])
    night = type(rows).make([0], unit(-features[:1]), ["bus"], ["c"], metadata=[{"domain": "night"}])
    memory.extend(night)
    support = [(features, np.arange(9) % 4, "a"), (features, np.arange(9) % 3, "c")]
    by_day = support[:1]  # the other shows the night
    restricted = methods.make(name, where=where).fit(memory, vocabulary, support)
    expected = methods.make(name).fit(day, vocabulary, by_day)
    answer = restricted.predict(features, memory, vocabulary)
    np.testing.assert_array_equal(answer, predicted(expected, features, day, vocabulary))
    same = expected.predict(features, day, vocabulary).evidence
    for column, values in (answer.evidence.with_effects().columns() if same else {}).items():
        np.testing.assert_array_equal(values, same.with_effects().columns()[column])
    anything = methods.make(name).fit(memory, vocabulary, support)
    assert np.abs(predicted(anything, features, memory, vocabulary) - answer).max() > 1e-3
    nothing = methods.make(name, where={"domain": "dusk"}).fit(memory, vocabulary, support)
    np.testing.assert_allclose(predicted(nothing, features, memory, vocabulary).sum(1), 1, atol=1e-5)


def test_the_part_of_a_memory_follows_the_memory_and_the_condition():
    _, memory, _ = world()
    memory.extend(type(memory.rows).make([0], np.eye(D)[:1], ["sky"], ["new"], metadata=[{"domain": "day"}]))
    part, every = restrict(memory, {"domain": "day"}), restrict(memory, lambda facts: True)
    assert part.ids.tolist() == [6] and restrict(memory, None).rows is memory.rows
    memory.remove("new")
    assert len(restrict(memory, {"domain": "day"})) == 0 and len(restrict(memory, {"domain": "night"})) == 0
    assert len(part) == 1 and len(every) == 7  # they are the memory of then
