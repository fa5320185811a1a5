"""Zero-shot and late fusion: against slow legible twins, and what must not change the answer."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit import Freeda, KnnClip, Query, SupportMemory, Vocabulary, ZeroShot, unit
from rose_kit.fusion import retrieve
from rose_kit.fusion.text import class_cosines, complete_text

NAMES = ("bus", "background", "sky", "tree")
ROWS = ("bus", "bus", "sky", "background", "background", "car")  # tree has none; car is not asked for
D = 12


def world(seed: int = 0, n: int = 9):
    """Features, memory, vocabulary: random, small, with one class unsupported and one not asked for."""
    rng = np.random.default_rng(seed)
    bank = unit(rng.normal(size=(len(ROWS), D)))
    memory = SupportMemory.from_prototypes(bank, ROWS, ["a", "b", "a", "a", "b", "b"])
    text = rng.normal(size=D) + 0.1 * rng.normal(size=(len(NAMES), D))  # alike, so that nothing is certain
    return unit(rng.normal(size=(n, D))), memory, Vocabulary(NAMES, unit(text))


def summed(evidence, n: int) -> np.ndarray:
    return np.bincount(evidence.query, weights=evidence.weight, minlength=n)


def permuted(vocabulary: Vocabulary, order: np.ndarray) -> Vocabulary:
    place = np.argsort(order)
    return Vocabulary([vocabulary.names[c] for c in order], vocabulary.text, place[vocabulary.owner])


METHODS = [KnnClip(k=3, temperature=0.1), Freeda()]


def test_zero_shot_is_a_softmax_of_cosines():
    features, _, vocabulary = world()
    e = np.exp(100 * (features @ vocabulary.text.T).astype(np.float64))
    expected = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(
        np.asarray(ZeroShot().predict(features, None, vocabulary)), expected, atol=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), again=st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_saying_a_text_twice_changes_nothing_in_zero_shot(seed, again):
    features, _, v = world(seed)
    twice = Vocabulary(v.names, np.concatenate([v.text, v.text[again]]), np.concatenate([v.owner, again]))
    before, after = (np.asarray(ZeroShot().predict(features, None, x)) for x in (v, twice))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_several_texts_of_a_class_reduce_by_the_maximum_and_background_need_not_be_first():
    features, _, v = world()
    several = Vocabulary(("bus", "background"), v.text, [0, 1, 1, 0])
    cosines = features @ v.text.T
    expected = np.stack([cosines[:, [0, 3]].max(1), cosines[:, [1, 2]].max(1)], 1)
    np.testing.assert_allclose(class_cosines(features, several), expected, atol=1e-6)


def test_classes_without_text_share_the_mean_text_and_tie_to_the_last_bit():
    features, _, v = world(n=200)
    partial = v.without_text(["bus", "tree"])
    mean = unit(v.text[[1, 2]].mean(0))
    np.testing.assert_allclose(complete_text(partial).text[2:], [mean, mean], atol=1e-6)
    cosines = class_cosines(features, partial)
    np.testing.assert_array_equal(cosines[:, 0], cosines[:, 3])
    assert 3 not in cosines.argmax(1)


def test_a_class_that_keeps_one_of_its_texts_is_not_given_the_mean():
    v = Vocabulary(("a", "b"), [[1, 0], [np.nan, np.nan], [0, 1]], [0, 0, 1])
    complete = complete_text(v)
    assert complete.text.tolist() == [[1, 0], [0, 1]] and complete.owner.tolist() == [0, 1]


@pytest.mark.parametrize("text", [None, np.full((4, D), np.nan)])
def test_zero_shot_without_any_text_says_which_classes(text):
    with pytest.raises(ValueError, match="no class of the vocabulary has text: bus, background"):
        ZeroShot().predict(world()[0], None, Vocabulary(NAMES, text))


def test_text_of_another_width_is_refused():
    with pytest.raises(ValueError, match="features are 12 wide, but the text is 3"):
        ZeroShot().predict(world()[0], None, Vocabulary(("a", "b", "c"), np.eye(3)))


def test_knn_clip_against_a_loop():
    features, memory, vocabulary = world()
    text = np.asarray(ZeroShot().predict(features, None, vocabulary))
    method = KnnClip(weight=0.3, k=3, temperature=0.1)
    answer = np.asarray(method.predict(features, memory, vocabulary))
    for x, p_text, p in zip(features, text, answer, strict=True):
        asked = [r for r in range(len(ROWS)) if ROWS[r] in NAMES]
        nearest = sorted(asked, key=lambda r: -float(x @ memory.vectors[r]))[:3]
        power = [np.exp(float(x @ memory.vectors[r]) / 0.1) for r in nearest]
        vote = np.zeros(4)
        for r, e in zip(nearest, power, strict=True):
            vote[NAMES.index(ROWS[r])] += e / sum(power)
        np.testing.assert_allclose(p, 0.3 * vote + 0.7 * p_text, atol=1e-5)


def test_knn_clip_asks_no_vote_where_zero_shot_is_sure():
    features, memory, vocabulary = world()
    text = np.asarray(ZeroShot().predict(features, None, vocabulary))
    threshold = float(np.sort(text.max(1))[2])
    prediction = KnnClip(weight=1.0, k=2, threshold=threshold).predict(features, memory, vocabulary)
    sure = text.max(1) > threshold
    assert 0 < sure.sum() < len(sure)
    np.testing.assert_allclose(np.asarray(prediction)[sure], text[sure], atol=1e-6)
    assert set(prediction.evidence.query[prediction.evidence.prototype_id >= 0]) <= set(np.flatnonzero(~sure))


def test_freeda_against_a_loop():
    features, memory, vocabulary = world()
    score = np.zeros((len(features), 4))
    for c, name in enumerate(NAMES):
        rows = [v for v, n in zip(memory.vectors, ROWS, strict=True) if n == name]
        prototype = unit(np.sum(rows, 0)) if rows else None
        for n, x in enumerate(features):
            text = x @ vocabulary.text[c]
            score[n, c] = text if prototype is None else 0.3 * x @ prototype + 0.7 * text
    e = np.exp(100 * score)
    answer = np.asarray(Freeda(weight=0.3).predict(features, memory, vocabulary))
    np.testing.assert_allclose(answer, e / e.sum(1, keepdims=True), atol=1e-4)


def test_freeda_evidence_is_the_class_prototype_taken_apart():
    features, memory, vocabulary = world()
    prediction = Freeda(weight=0.3).predict(features, memory, vocabulary)
    for n in range(len(features)):
        c = int(np.asarray(prediction)[n].argmax())
        rows = np.flatnonzero(memory.class_names == NAMES[c])
        top = prediction.evidence.top(n, 99)
        assert set(top.prototype_id) == {-1, *rows}
        norm = np.linalg.norm(memory.vectors[rows].sum(0)) if len(rows) else 1
        for i, weight in zip(top.prototype_id, top.weight, strict=True):
            text = features[n] @ vocabulary.text[c] * (0.7 if len(rows) else 1)
            expected = text if i == -1 else 0.3 * features[n] @ memory.vectors[i] / norm
            assert weight == pytest.approx(expected, abs=1e-5)


def test_knn_clip_evidence_adds_up_to_the_winning_probability():
    features, memory, vocabulary = world()
    prediction = KnnClip(k=3, temperature=0.1).predict(features, memory, vocabulary)
    np.testing.assert_allclose(summed(prediction.evidence, 9), np.asarray(prediction).max(1), atol=1e-5)
    winners = np.asarray(prediction).argmax(1)[prediction.evidence.query]
    assert (np.array(NAMES)[winners] == prediction.evidence.class_name).all()
    # What is not a vote is zero-shot's half.
    text = np.asarray(ZeroShot().predict(features, None, vocabulary))
    rest = prediction.evidence.prototype_id == -1
    expected = 0.5 * np.take_along_axis(text, np.asarray(prediction).argmax(1)[:, None], 1)[:, 0]
    np.testing.assert_allclose(prediction.evidence.weight[rest], expected, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_and_classes_does_not_matter(method, seed):
    features, memory, vocabulary = world(seed)
    rng = np.random.default_rng(seed)
    rows, classes = rng.permutation(len(ROWS)), rng.permutation(4)
    shuffled = SupportMemory.from_prototypes(
        memory.vectors[rows], memory.class_names[rows], memory.image_ids[rows]
    )
    before = np.asarray(method.predict(features, memory, vocabulary))
    after = np.asarray(method.predict(features, shuffled, permuted(vocabulary, classes)))
    np.testing.assert_allclose(after, before[:, classes], atol=1e-4)
    np.testing.assert_allclose(before.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_missing_text_or_support_never_raises(method):
    features, memory, vocabulary = world()
    empty = SupportMemory(D)
    foreign = SupportMemory.from_prototypes(np.eye(D)[:1], ["car"], ["a"])
    for v in (vocabulary, vocabulary.without_text(["sky", "tree"]), Vocabulary(NAMES)):
        p = np.asarray(method.predict(features, memory, v))
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    assert np.asarray(method.predict(features, memory, Vocabulary(NAMES)))[:, 3].max() == 0  # tree: nothing
    for m in (None, empty, foreign):
        np.testing.assert_allclose(
            np.asarray(method.predict(features, m, vocabulary)),
            np.asarray(ZeroShot().predict(features, None, vocabulary)),
            atol=1e-5,
        )
        with pytest.raises(ValueError, match="no prototype of its classes: bus, background"):
            method.predict(features, m, Vocabulary(NAMES))


@pytest.mark.parametrize("method", [KnnClip, Freeda])
def test_fit_finds_the_side_that_is_right(method):
    rng = np.random.default_rng(3)
    centre = unit(rng.normal(size=(4, D)))
    bank = unit(np.repeat(centre, 3, 0) + 0.02 * rng.normal(size=(12, D)))
    images = [f"i{i % 3}" for i in range(12)]
    memory = SupportMemory.from_prototypes(bank, np.repeat(NAMES, 3), images)
    target = np.array([0, 1, 2, 3, 3, 255, -1])
    query = Query(unit(centre[[0, 1, 2, 3, 3, 0, 0]] + 0.02 * rng.normal(size=(7, D))))
    wrong_text = Vocabulary(NAMES, centre[[1, 2, 3, 0]])
    fitted = method(weight=0.0).fit(memory, wrong_text, [(query, target, "i0")])
    assert fitted.fitted_weight > 0.4 and fitted.weight == 0.0
    assert (np.asarray(fitted.predict(query, memory, wrong_text)).argmax(1)[:5] == target[:5]).all()
    # Each image is left out: with a single support image there is nothing to tune on.
    alone = SupportMemory.from_prototypes(bank[::3], NAMES, ["i0"] * 4)
    assert method(weight=0.2).fit(alone, wrong_text, [(query, target, "i0")]).fitted_weight == 0.2
    assert fitted.fit(memory, wrong_text).fitted_weight == 0.0  # no support: back to the given weight


def test_retrieval_returns_each_prototype_once_and_knows_who_asked():
    features, memory, vocabulary = world()
    found = retrieve(features, memory, vocabulary, k=50)
    assert found.ids.tolist() == [0, 1, 2, 3, 4]  # the car is not asked for
    assert found.rows.shape == (9, 50) and (found.rows[:, 5:] == -1).all()
    near = np.take_along_axis(features @ found.vectors.T, found.rows[:, :5], 1)
    np.testing.assert_allclose(found.scores[:, :5], near, atol=1e-6)
    assert retrieve(features, memory, vocabulary, 2, exclude_images=["a"]).ids.tolist() == [1, 4]


def test_the_public_registry_of_methods_is_full():
    code = "from rose_kit import methods; print(*sorted(methods))"
    known = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    baselines = ["offline-linear", "offline-pixels", "supervised"]
    assert known.split() == sorted(["freeda", "knn-clip", "rns", "zero-shot", *baselines])


def test_options_outside_their_range_are_refused():
    for wrong in (lambda: Freeda(weight=1.5), lambda: KnnClip(weight=-1)):
        with pytest.raises(ValueError, match=r"weight must be in \[0, 1\], got"):
            wrong()
    for wrong in (lambda: KnnClip(k=0), lambda: KnnClip(temperature=0.0)):
        with pytest.raises(ValueError, match="k and temperature must be positive, got"):
            wrong()
