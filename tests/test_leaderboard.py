"""The leaderboard: scores, differences and intervals by hand, what does not pair, how it reads."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rose_kit.evaluation import GROUP, dataset_iou, leaderboard
from rose_kit.metrics import mean_interval, mean_iou
from rose_kit.viz.leaderboard import leaderboard_figure

CLASSES = ["sky", "bus", "cat", "kite"]


def matrices(skill, images=12, seed=0, noise=None):
    """(I, C, C) confusion matrices; images and their difficulty by `seed`, errors by `noise`."""
    rng, luck = np.random.default_rng(seed), np.random.default_rng(noise if noise is not None else seed + 1)
    target = rng.integers(1, 400, (images, 4)) * (rng.random((images, 4)) < [1, 0.9, 0.5, 0.15])
    hard = rng.normal(0, 0.5, (images, 1))
    right = (target / (1 + np.exp(-skill - hard - luck.normal(0, 0.3, target.shape)))).astype(int)
    cm = np.zeros((images, 4, 4), int)
    for i, c in itertools.product(range(images), range(4)):
        cm[i, c, c] = right[i, c]
        cm[i, c] += luck.multinomial(target[i, c] - right[i, c], [0.7, 0.2, 0.1, 0.0])
    return cm


def rows(method, cm, seed=1, **changed):
    counts = {"target": cm.sum(2), "predicted": cm.sum(1), "intersection": np.einsum("icc->ic", cm)}
    about = {"image_id": [f"i{i}" for i in range(len(cm))], "classes": [CLASSES] * len(cm)}
    group = {"dataset": "scenes", "encoder": "bundled", "shots": 1}
    lines = about | {name: list(value) for name, value in counts.items()} | group
    return pd.DataFrame(lines | {"method": method, "seed": seed, "support": f"s{seed}"} | changed)


def board_of(*tables, **options):
    return leaderboard(pd.concat(tables, ignore_index=True), **options)


def line_of(board, method):
    [line] = board.table[board.table.method == method].to_dict("records")
    return line


@pytest.fixture
def two():
    """kNN-CLIP and a better method, two seeds each, with their matrices."""
    cms = {(m, s): matrices(k, noise=10 * s + k) for m, k in (("knn-clip", 0), ("mine", 1)) for s in (1, 2)}
    return cms, [rows(m, cm, s) for (m, s), cm in cms.items()]


def gain(cms, seeds=(1, 2), at=slice(None)):
    """Points of mIoU that "mine" is ahead, by hand."""
    return np.mean([100 * (mean_iou(cms["mine", s][at].sum(0)) - mean_iou(cms["knn-clip", s][at].sum(0)))
                    for s in seeds])  # fmt: skip


@given(st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=3, max_size=3))
def test_counts_give_the_miou_of_the_summed_matrix(cm):
    cm = np.array(cm)
    got = dataset_iou(cm.sum(1), cm.sum(0), np.diag(cm))
    assert got == pytest.approx(mean_iou(cm), abs=1e-12, nan_ok=True)
    stacked = dataset_iou(*np.stack([[cm.sum(1), cm.sum(0), np.diag(cm)]] * 2, 1))
    assert stacked.shape == (2,) and np.array_equal(stacked, [got, got], equal_nan=True)


def test_scores_and_difference_are_those_of_the_whole_set(two):
    cms, tables = two
    board = board_of(*tables)
    for method in ("knn-clip", "mine"):
        line = line_of(board, method)
        scores = [100 * mean_iou(cms[method, s].sum(0)) for s in (1, 2)]
        assert (line["miou"], line["half_width"]) == pytest.approx(mean_interval(scores))
        assert (line["seeds"], line["images"]) == (2, 12)
    assert line_of(board, "mine")["difference"] == pytest.approx(gain(cms))
    assert list(board.table.method) == ["mine", "knn-clip"]  # best first
    assert line_of(board, "knn-clip")["verdict"] == "baseline"


def test_the_interval_is_that_of_drawing_images_again_by_hand(two):
    cms, tables = two
    line = line_of(board_of(*tables, draws=4000, level=0.9), "mine")
    rng = np.random.default_rng(5)
    gains = [gain(cms, at=rng.integers(0, 12, 12)) for _ in range(4000)]  # for both methods, every seed
    spread = np.std(gains)
    assert (line["low"], line["high"]) == pytest.approx(
        tuple(np.quantile(gains, [0.05, 0.95])), abs=spread / 8
    )
    wide = line_of(board_of(*tables, draws=4000), "mine")
    assert wide["low"] < line["low"] < line["high"] < wide["high"] and wide["verdict"] == "better"


def test_the_same_seed_gives_the_same_board_and_the_baseline_turns_its_sign(two):
    _, tables = two
    first, second, other = board_of(*tables), board_of(*tables), board_of(*tables, seed=1)
    pd.testing.assert_frame_equal(first.table, second.table)
    assert line_of(first, "mine")["low"] != line_of(other, "mine")["low"]
    there, back = line_of(first, "mine"), line_of(board_of(*tables, baseline="mine"), "knn-clip")
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))
    assert back["verdict"] == "worse"
    with pytest.raises(ValueError, match="baseline 'knn' is not among the methods: knn-clip, mine"):
        board_of(*tables, baseline="knn")
    assert line_of(board_of(rows("b", matrices(0)), rows("a", matrices(1))), "a")["verdict"] == "baseline"


def test_ties_and_single_images_settle_nothing():
    cm = matrices(0)
    line = line_of(board_of(rows("knn-clip", cm), rows("twin", cm)), "twin")
    assert (line["difference"], line["low"], line["high"], line["verdict"]) == (0, 0, 0, "not settled")
    board = board_of(rows("knn-clip", cm[:1]), rows("mine", matrices(3)[:1]))
    line = line_of(board, "mine")
    assert line["difference"] > 0 and (line["low"], line["high"]) == (-np.inf, np.inf)
    assert line["verdict"] == "not settled" and line["images"] == 1 and "-inf to +inf" in str(board)
    fig = leaderboard_figure(board)
    fig.canvas.draw()
    assert np.isfinite(fig.axes[1].get_xlim()).all() and np.ptp(fig.axes[1].get_xlim()) < 1000
    plt.close(fig)


def test_pairing_narrows_the_interval_and_intervals_hold_what_they_should():
    a, b = matrices(0, 1000, noise=3), matrices(0.3, 1000, noise=4)
    paired = line_of(board_of(rows("knn-clip", a[:60]), rows("mine", b[:60])), "mine")
    shuffled = rows("mine", b[:60][np.random.default_rng(0).permutation(60)])  # pairs, wrongly
    loose = line_of(board_of(rows("knn-clip", a[:60]), shuffled), "mine")
    assert paired["high"] - paired["low"] < 0.8 * (loose["high"] - loose["low"])
    truth, rng, held = 100 * (mean_iou(b.sum(0)) - mean_iou(a.sum(0))), np.random.default_rng(0), 0
    for _ in range(60):
        at = rng.choice(1000, 40, replace=False)
        line = line_of(board_of(rows("knn-clip", a[at]), rows("mine", b[at]), draws=250), "mine")
        held += line["low"] <= truth <= line["high"]
    assert 51 <= held <= 60  # three standard deviations of 57


def test_only_what_both_answered_is_paired_and_said_so(two):
    cms, tables = two
    board = board_of(*tables[:2], tables[2].iloc[3:], tables[3])  # the first seed lacks three images
    assert (
        "scenes, bundled, shots 1: mine and the baseline do not share 3 answers: left out of the difference"
        in (board.notes)
    )
    assert line_of(board, "mine")["difference"] == pytest.approx(gain(cms, at=slice(3, None)))
    for change in ({"support": "others"}, {"seed": 9}):
        board = board_of(*tables[:2], tables[2].assign(**change), tables[3])
        assert any("do not share 12 answers" in note for note in board.notes), board.notes
        assert line_of(board, "mine")["difference"] == pytest.approx(gain(cms, seeds=[2]))
    assert line_of(board, "mine")["seeds"] == 2


def test_what_a_second_table_repeats_counts_once(two):
    _, tables = two
    twice = board_of(*tables, tables[0], tables[1])  # two grids with the same baseline
    pd.testing.assert_frame_equal(twice.table, board_of(*tables).table)


def test_nothing_in_common_is_no_difference(two):
    _, tables = two
    board = board_of(*tables[:2], *(t.assign(support="others") for t in tables[2:]))
    line = line_of(board, "mine")
    assert line["verdict"] == "not comparable" and np.isnan(line["difference"])
    apart = board_of(*tables, tables[2].assign(shots=5))
    assert "scenes, bundled, shots 5: no run of knn-clip, so no differences" in apart.notes
    assert len(apart.table.groupby(GROUP)) == 2


def test_it_reads_as_markdown_and_as_a_figure(two):
    board = board_of(*two[1])
    lines = str(board).splitlines()
    assert lines[0] == "scenes, bundled, shots 1" and lines[1] == ""
    head = ["method", "seeds", "images", "mIoU", "difference", "95 % interval", "verdict"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == head
    assert len({len(line) for line in lines[2:6]}) == 1 and "better" in lines[4] and " ± " in lines[4]
    assert lines[-1].startswith("- ") and "12 images are few" in lines[-1]
    assert "95 % interval" not in str(board_of(*two[1], level=0.9)) and "90 % interval" in str(
        board_of(*two[1], level=0.9)
    )
    left, right = (fig := leaderboard_figure(board)).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["mine", "knn-clip"]
    assert [t.get_text() for t in right.get_yticklabels()] == ["better", "baseline"]
    plt.close(fig)
