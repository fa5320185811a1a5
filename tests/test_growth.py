"""Growing memories: spoiling and curing against brute force, learning in lessons and from oneself."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.growth import (
    GradientHead,
    as_it_comes,
    ask,
    continual,
    drift,
    learn_from_itself,
    percent,
    self_taught,
    stream,
    thirds,
)
from course.growth_figures import lesson_maps, sign_histograms
from course.memory_noise import (
    agreement,
    best,
    confidence,
    mislabelled,
    named_right,
    nearness,
    off_domain,
    part,
    weighted,
)
from course.reliability import auroc
from experiments.claims import Case, Lab
from rose_kit.adapter import RNS
from rose_kit.memory import Prototypes, SupportMemory
from rose_kit.types import Prediction, Vocabulary, unit

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
def lab():
    return Lab(size=48, pool=16, queries=2)


@pytest.fixture(scope="module")
def memory(lab):
    return lab.memory(Case(RNS()), 1)


# --- careless hands -----------------------------------------------------------------------------------------


@given(SHARES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_wrong_names_are_names_of_what_the_image_does_not_show(share, seed):
    memory = clusters()
    spoilt, wrong = mislabelled(memory, share, seed)
    assert wrong.sum() == round(share * len(memory))
    assert np.array_equal(spoilt.vectors, memory.vectors)
    assert np.array_equal(spoilt.class_names != memory.class_names, wrong)
    keys = list(zip(memory.image_ids, memory.class_names, strict=True))
    assert all((spoilt.image_ids[i], spoilt.class_names[i]) not in keys for i in np.flatnonzero(wrong))
    more = mislabelled(memory, min(1, share + 0.2), seed)[1]
    assert not (wrong & ~more).any()


@given(SHARES, SEEDS)
@settings(max_examples=20, deadline=None)
def test_strange_rows_keep_their_names_and_come_from_the_other_domain(share, seed):
    memory, other = clusters(), clusters(seed=1)
    spoilt, strange = off_domain(memory, other, share, seed)
    assert strange.sum() == round(share * len(memory))
    assert spoilt.class_names.tolist() == memory.class_names.tolist()
    for i in range(len(memory)):
        source = other.vectors[other.class_names == memory.class_names[i]] if strange[i] else memory.vectors
        assert (spoilt.vectors[i] == source).all(1).any()
    less = off_domain(memory, part(other, other.class_names != "cup"), share, seed)[1]
    assert np.array_equal(less, strange & (memory.class_names != "cup"))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_outside_0_to_1_are_refused(share):
    memory = clusters()
    for call in (
        lambda: mislabelled(memory, share, 0),
        lambda: off_domain(memory, memory, share, 0),
        lambda: best(memory, np.ones(len(memory)), share),
    ):
        with pytest.raises(ValueError, match=f"share must be in .* got {share}"):
            call()


# --- the cure -----------------------------------------------------------------------------------------------


def test_signs_agree_with_brute_force():
    memory, k = mislabelled(clusters(noise=0.4), 0.3, 3)[0], 3
    x, names, images = memory.vectors, memory.class_names, memory.image_ids
    for i, (agree, near) in enumerate(zip(agreement(memory, k), nearness(memory), strict=True)):
        others = sorted((j for j in range(len(x)) if images[j] != images[i]), key=lambda j: -(x[i] @ x[j]))
        assert agree == pytest.approx(np.mean([names[j] == names[i] for j in others[:k]]))
        mean = np.mean([x[j] for j in range(len(x)) if j != i and names[j] == names[i]], axis=0)
        assert near == pytest.approx(x[i] @ mean / np.linalg.norm(mean), abs=1e-5)


def test_signs_of_what_cannot_be_judged():
    memory = SupportMemory.from_prototypes(np.eye(3), NAMES[:3], ["a", "a", "b"])
    assert np.isnan(nearness(memory)).all()  # every class has one row
    assert agreement(memory).tolist() == [0, 0, 0]  # neighbours, but none of the class
    alone = SupportMemory.from_prototypes(np.eye(2), NAMES[:2], ["a", "a"])
    assert agreement(alone).tolist() == [0, 0]  # no other image at all
    with pytest.raises(ValueError, match="'tree' is not in the vocabulary: sky, bus"):
        named_right(memory, Vocabulary(NAMES[:2], np.eye(3)[:2]))


def test_every_sign_finds_wrong_names_where_classes_lie_apart():
    spoilt, wrong = mislabelled(clusters(images=24), 0.2, 0)
    vocabulary = Vocabulary(NAMES, np.eye(6)[:4])
    signs = (agreement(spoilt), nearness(spoilt), named_right(spoilt, vocabulary))
    for sign in (*signs, confidence(spoilt, vocabulary)):
        assert auroc(~wrong, sign) > 0.95
    spared = best(spoilt, nearness(spoilt), 0.3)
    bad = set(part(spoilt, wrong).rows.keys())
    assert len(bad & set(spared.rows.keys())) < len(bad) / 2 and set(spared.classes) == set(NAMES)


@given(SHARES, SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_best_rows_of_each_class_stay(share, seed):
    memory = clusters()
    sign = np.random.default_rng(seed).random(len(memory))
    sign[0] = np.nan
    kept = best(memory, sign, share)
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
    filtered = part(memory, keep).class_prototypes(memory.classes)
    assert np.isnan(filtered).any() or np.allclose(
        weighted(memory, keep).class_prototypes(memory.classes), filtered, atol=1e-6
    )
    nothing = weighted(memory, np.zeros(len(memory)))
    assert np.allclose(nothing.vectors, whole.vectors, atol=1e-6)
    for bad in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="weights must be at least 0"):
            weighted(memory, np.full(len(memory), bad))


# --- asking and learning ------------------------------------------------------------------------------------


def test_asking_a_memory_of_the_lab_gives_the_labs_own_counts(lab, memory):
    counts = ask(lab, RNS(), memory, 1)
    assert np.array_equal(counts, lab.counts(Case(RNS()), 1))
    assert percent(counts) == pytest.approx(lab.miou(Case(RNS()), 1))
    assert np.isnan(percent(np.zeros((3, 3), int)))


def test_pixels_of_classes_not_asked_about_do_not_count(lab, memory):
    names = ("road", "sky")
    counts = ask(lab, RNS(), memory, 1, names)
    for c, name in enumerate(names):
        targets = [target for *_, target in lab.asked(Case(RNS()), 1)]
        assert counts[c].sum() == sum((t == lab.names.index(name)).sum() for t in targets)


def test_a_memory_forgets_nothing_and_a_head_learns_its_lesson(lab):
    found = continual(lab, 1, 2, RNS(), shots=1)
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


def test_the_tail_of_scenes_as_they_come(lab):
    memory = as_it_comes(lab, 6, seed=3)
    assert len(memory.images) == 6 and np.array_equal(memory.vectors, as_it_comes(lab, 6, 3).vectors)
    ranks = thirds(memory, lab.names)
    assert sorted(sum(ranks.values(), ())) == sorted(lab.names)
    rows = [[memory.summary().get(name, 0) for name in group] for group in ranks.values()]
    assert min(rows[0]) >= max(rows[1]) and min(rows[1]) >= max(rows[2])


class Says:
    """A method that always gives the same answer."""

    def __init__(self, answer):
        self.answer = answer

    def predict(self, query, memory, vocabulary, *, initial_weight=None):
        return Prediction(self.answer)


def test_a_memory_learns_what_it_answers_right_or_wrong(lab, memory):
    image_id, seen = stream(lab, 1, 1)[0]
    sure = np.zeros((len(seen[1]), len(lab.names)), np.float32)
    wrong = next(c for c in range(len(lab.names)) if not (seen[2] == c).any())
    sure[:, wrong] = 0.8
    for threshold, rows in ((0.81, 0), (0.8, 1)):
        now = part(memory, np.ones(len(memory), bool))
        given = learn_from_itself(now, image_id, seen, lab.text(), Says(sure), threshold)
        assert given == [False] * rows and len(now) == len(memory) + rows
    assert now.class_names[-1] == lab.names[wrong] and now.rows.metadata[-1] == {"self": True}
    assert np.allclose(now.vectors[-1], unit(seen[0].flat().sum(0)), atol=1e-5)
    taught = learn_from_itself(
        part(memory, np.ones(len(memory), bool)), image_id, seen, lab.text(), None, None
    )
    assert taught and all(taught)


def test_what_a_memory_taught_itself_can_be_taken_back(lab, memory):
    rows = memory.vectors.copy()
    found = self_taught(lab, memory, 1, [0, 2], threshold=0.0)
    assert np.array_equal(memory.vectors, rows)  # it worked on a copy
    assert found.miou[0] == pytest.approx(percent(ask(lab, RNS(), memory, 1))) and found.drift[0] < 1e-6
    assert found["rows"].tolist()[0] == 0 and found["rows"][1] > 0 and 0 <= found.wrong[1] <= 100
    now = part(memory, np.ones(len(memory), bool))
    for image_id, seen in stream(lab, 1, 2):
        learn_from_itself(now, image_id, seen, lab.text(), RNS(), 0.0)
    assert len(now) == len(memory) + found["rows"][1]
    assert drift(now, memory) == pytest.approx(found.drift[1], abs=1e-6)
    kept = part(now, [not facts.get("self") for facts in now.rows.metadata])
    assert np.array_equal(kept.vectors, memory.vectors)


def test_drift_is_none_without_change_and_one_at_a_right_angle():
    start = SupportMemory.from_prototypes(np.eye(3)[:2], NAMES[:2], ["a", "b"])
    turned = SupportMemory.from_prototypes(np.eye(3)[[2, 1]], NAMES[:2], ["a", "b"])
    assert drift(start, start) == 0 and drift(turned, start) == 0.5
    assert drift(turned, start, NAMES[:1]) == 1
    lesson = Prototypes.make([0], np.eye(3)[[2]], ["cup"], ["c"])
    turned.extend(lesson)
    assert drift(turned, start, ("sky", "cup")) == 1  # cup is new: it cannot have moved


# --- figures ------------------------------------------------------------------------------------------------


def test_figures_show_a_map_per_learner_and_a_panel_per_sign():
    lines = [(who, step, group, 50.0) for who in "ab" for step in (1, 2) for group in range(1, step + 1)]
    fig = lesson_maps(pd.DataFrame(lines, columns=["label", "step", "group", "miou"]))
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"]
    assert [t.get_text() for t in fig.axes[0].texts] == ["50", "", "50", "50"]
    bad = np.array([True, False, False, True])
    fig = sign_histograms({"one": (np.array([0.1, 0.9, np.nan, 0.2]), bad), "two": (np.zeros(4), bad)})
    heights = [sum(bar.get_height() > 0 for bar in bars) for bars in fig.axes[0].containers]
    assert len(fig.axes) == 2 and heights == [1, 2]  # of good rows, of bad rows; NaN is left out
    plt.close("all")
    for call in (lambda: lesson_maps(pd.DataFrame()), lambda: sign_histograms({})):
        with pytest.raises(ValueError, match="to draw"):
            call()
