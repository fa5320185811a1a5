"""Growing memories: noise and filters against brute force, learning in lessons and self-training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.growth import (
    GradientHead,
    continual,
    drift,
    evaluate_memory,
    miou_percent,
    self_training_curve,
    self_training_step,
    stream,
)
from course.memory_noise import (
    agreement,
    filter_lowest,
    leave_one_out_similarity,
    weighted,
    with_domain_noise,
    with_label_noise,
)
from experiments.claims import SceneBenchmark, Setting
from rose_kit.adapter import RNS
from rose_kit.memory import SupportMemory
from rose_kit.types import Vocabulary, unit

SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 999)
NAMES = ("sky", "bus", "tree", "cup")


def clusters(images=8, noise=0.1, seed=0) -> SupportMemory:
    """Four classes around four axes; each image shows two of them."""
    rng = np.random.default_rng(seed)
    rows = [(c, f"p{i}") for i in range(images) for c in ((i % 4), (i + 1) % 4)]
    vectors = unit(np.eye(6)[[c for c, _ in rows]] + noise * rng.normal(size=(len(rows), 6)))
    return SupportMemory.from_prototypes(vectors, [NAMES[c] for c, _ in rows], [image for _, image in rows])


@pytest.fixture(scope="module")
def bench():
    return SceneBenchmark(size=48, pool=16, queries=2)


@pytest.fixture(scope="module")
def memory(bench):
    return bench.memory(Setting(RNS()), 1)


# --- noise -----------------------------------------------------------------------------------------


@given(SHARES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_wrong_names_are_names_of_what_the_image_does_not_show(share, seed):
    memory = clusters()
    spoilt, wrong = with_label_noise(memory, share, seed)
    assert wrong.sum() == round(share * len(memory))
    assert np.array_equal(spoilt.vectors, memory.vectors)
    assert np.array_equal(spoilt.class_names != memory.class_names, wrong)
    keys = list(zip(memory.image_ids, memory.class_names, strict=True))
    assert all((spoilt.image_ids[i], spoilt.class_names[i]) not in keys for i in np.flatnonzero(wrong))
    more = with_label_noise(memory, min(1, share + 0.2), seed)[1]
    assert not (wrong & ~more).any()


@given(SHARES, SEEDS)
@settings(max_examples=20, deadline=None)
def test_strange_rows_keep_their_names_and_come_from_the_other_domain(share, seed):
    memory, other = clusters(), clusters(seed=1)
    spoilt, strange = with_domain_noise(memory, other, share, seed)
    assert strange.sum() == round(share * len(memory))
    assert spoilt.class_names.tolist() == memory.class_names.tolist()
    for i in range(len(memory)):
        source = other.vectors[other.class_names == memory.class_names[i]] if strange[i] else memory.vectors
        assert (spoilt.vectors[i] == source).all(1).any()
    less = with_domain_noise(memory, other.subset(other.ids[other.class_names != "cup"]), share, seed)[1]
    assert np.array_equal(less, strange & (memory.class_names != "cup"))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_outside_0_to_1_are_refused(share):
    memory = clusters()
    for call in (
        lambda: with_label_noise(memory, share, 0),
        lambda: with_domain_noise(memory, memory, share, 0),
        lambda: filter_lowest(memory, np.ones(len(memory)), share),
    ):
        with pytest.raises(ValueError, match=f"share must be in .* got {share}"):
            call()


# --- filters -----------------------------------------------------------------------------------------------


def test_signs_agree_with_brute_force():
    memory, k = with_label_noise(clusters(noise=0.4), 0.3, 3)[0], 3
    x, names, images = memory.vectors, memory.class_names, memory.image_ids
    for i, (agree, near) in enumerate(
        zip(agreement(memory, k), leave_one_out_similarity(memory), strict=True)
    ):
        others = sorted((j for j in range(len(x)) if images[j] != images[i]), key=lambda j: -(x[i] @ x[j]))
        assert agree == pytest.approx(np.mean([names[j] == names[i] for j in others[:k]]))
        mean = np.mean([x[j] for j in range(len(x)) if j != i and names[j] == names[i]], axis=0)
        assert near == pytest.approx(x[i] @ mean / np.linalg.norm(mean), abs=1e-5)


@given(SHARES, SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_best_rows_of_each_class_stay(share, seed):
    memory = clusters()
    sign = np.random.default_rng(seed).random(len(memory))
    sign[0] = np.nan
    kept = filter_lowest(memory, sign, share)
    left = set(kept.rows.keys())
    stays = np.array([key in left for key in memory.rows.keys()])  # noqa: SIM118 (rows are no mapping)
    assert stays.sum() == len(kept)
    assert stays[0]
    for name in NAMES:
        own = (memory.class_names == name) & ~np.isnan(sign)
        assert (own & ~stays).sum() == min(round(share * own.sum()), own.sum() - 1)
        if (own & ~stays).any():
            assert sign[own & ~stays].max() <= sign[own & stays].min()


def test_weights_of_one_and_zero_are_class_prototypes_and_filters():
    memory = clusters()
    whole = weighted(memory, np.full(len(memory), 0.7))
    assert np.allclose(whole.class_prototypes(NAMES), memory.class_prototypes(NAMES), atol=1e-6)
    keep = np.arange(len(memory)) % 2 == 0
    filtered = memory.subset(memory.ids[keep]).class_prototypes(memory.classes)
    assert np.isnan(filtered).any() or np.allclose(
        weighted(memory, keep).class_prototypes(memory.classes), filtered, atol=1e-6
    )
    nothing = weighted(memory, np.zeros(len(memory)))
    assert np.allclose(nothing.vectors, whole.vectors, atol=1e-6)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="weights must be at least 0"):
            weighted(memory, np.full(len(memory), bad))


# --- asking and learning ------------------------------------------------------------------------------------


def test_pixels_of_classes_not_asked_about_do_not_count(bench, memory):
    names = ("road", "sky")
    counts = evaluate_memory(bench, RNS(), memory, 1, names)
    for c, name in enumerate(names):
        targets = [target for *_, target in bench.query_set(Setting(RNS()), 1)]
        assert counts[c].sum() == sum((t == bench.names.index(name)).sum() for t in targets)


def test_a_memory_forgets_nothing_and_a_head_learns_its_lesson(bench):
    found = continual(bench, 1, 2, RNS(), shots=1)
    assert found.groupby("asked").size().to_dict() == {"all so far": 6, "first group": 4}
    first = found[(found.label == "memory") & (found.asked == "first group")]
    assert first.step.tolist() == [1, 2] and first.miou.nunique(dropna=False) == 1
    memory = clusters()
    head = GradientHead(NAMES)
    head.learn(memory.rows)
    answer = np.asarray(head.predict(memory.vectors, None, Vocabulary(NAMES)))
    assert np.allclose(answer.sum(1), 1, atol=1e-5)
    assert np.array_equal(np.array(NAMES)[answer.argmax(1)], memory.class_names)
    swapped = np.asarray(head.predict(memory.vectors, None, Vocabulary(NAMES[::-1])))
    assert np.allclose(swapped[:, ::-1], answer)


def test_what_a_memory_taught_itself_can_be_taken_back(bench, memory):
    rows = memory.vectors.copy()
    found = self_training_curve(bench, memory, 1, [0, 2], threshold=0.0)
    assert np.array_equal(memory.vectors, rows)  # it worked on a copy
    assert (
        found.miou[0] == pytest.approx(miou_percent(evaluate_memory(bench, RNS(), memory, 1)))
        and found.drift[0] < 1e-6
    )
    assert found["rows"].tolist()[0] == 0 and found["rows"][1] > 0 and 0 <= found.wrong[1] <= 100
    now = memory.copy()
    for image_id, seen in stream(bench, 1, 2):
        self_training_step(now, image_id, seen, bench.text(), RNS(), 0.0)
    assert len(now) == len(memory) + found["rows"][1]
    assert drift(now, memory) == pytest.approx(found.drift[1], abs=1e-6)
    kept = now.subset(now.ids[[not facts.get("self") for facts in now.rows.metadata]])
    assert np.array_equal(kept.vectors, memory.vectors)
