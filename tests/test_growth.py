"""Growing memories: noise and filters against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.memory_noise import agreement, filter_lowest, with_label_noise
from rose_kit.memory import SupportMemory
from rose_kit.types import unit

SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 999)
NAMES = ("sky", "bus", "tree", "cup")


def clusters(images=8, noise=0.1, seed=0) -> SupportMemory:
    """Four classes around four axes; each image shows two of them."""
    rng = np.random.default_rng(seed)
    rows = [(c, f"p{i}") for i in range(images) for c in ((i % 4), (i + 1) % 4)]
    vectors = unit(np.eye(6)[[c for c, _ in rows]] + noise * rng.normal(size=(len(rows), 6)))
    return SupportMemory.from_prototypes(vectors, [NAMES[c] for c, _ in rows], [image for _, image in rows])


@given(SHARES, SEEDS)
@settings(max_examples=40)
def test_noise_changes_the_share_it_is_asked_for_and_nothing_else(share, seed):
    memory = clusters()
    noisy, wrong = with_label_noise(memory, share, seed)
    assert wrong.sum() == round(share * len(memory))
    assert np.array_equal(noisy.vectors, memory.vectors)
    assert np.array_equal(noisy.class_names != memory.class_names, wrong)
    shown = list(zip(memory.image_ids, memory.class_names, strict=True))
    assert all((noisy.image_ids[i], noisy.class_names[i]) not in shown for i in np.flatnonzero(wrong))
    more = with_label_noise(memory, min(1, share + 0.2), seed)[1]
    assert not (wrong & ~more).any()  # a smaller share is a part of a larger one


def test_agreement_is_that_of_brute_force():
    memory, k = with_label_noise(clusters(noise=0.4), 0.3, 3)[0], 3
    x, names, images = memory.vectors, memory.class_names, memory.image_ids
    for i, share in enumerate(agreement(memory, k)):
        others = sorted((j for j in range(len(x)) if images[j] != images[i]), key=lambda j: -(x[i] @ x[j]))
        assert share == pytest.approx(np.mean([names[j] == names[i] for j in others[:k]]))


@given(SHARES, SEEDS)
@settings(max_examples=30)
def test_a_filter_leaves_the_best_rows_of_each_class(share, seed):
    memory = clusters()
    score = np.random.default_rng(seed).random(len(memory))
    score[0] = np.nan
    left = filter_lowest(memory, score, share)
    stays = np.isin(memory.ids, left.ids)
    assert stays.sum() == len(left) and stays[0]  # there is nothing to judge a NaN by
    for name in NAMES:
        own = (memory.class_names == name) & ~np.isnan(score)
        assert (own & ~stays).sum() == min(round(share * own.sum()), own.sum() - 1)
        if (own & ~stays).any():
            assert score[own & ~stays].max() <= score[own & stays].min()
