"""The leaderboard: what is paired, differences and intervals against slow references, notes, bad input."""

import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rose_kit import cli
from rose_kit.cli.sweep import _tell
from rose_kit.evaluation.grid import expand
from rose_kit.evaluation.jobs import Job
from rose_kit.evaluation.leaderboard import GROUP, leaderboard, markdown, read_runs
from rose_kit.evaluation.records import dataset_iou, write_rows
from rose_kit.evaluation.sweep import Report
from rose_kit.metrics import iou, mean_interval, mean_iou
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


def rows(method, cm, seed=1, support="s1", finished=1.0, **changed):
    table = {
        "image_id": [f"i{i}" for i in range(len(cm))],
        "support": support,
        "iou": [mean_iou(one) for one in cm],
        "giou": 0.0,
        "classes": [CLASSES] * len(cm),
        "target": list(cm.sum(2)),
        "predicted": list(cm.sum(1)),
        "intersection": list(np.einsum("icc->ic", cm)),
        "method": method,
        "encoder": "bundled",
        "dataset": "scenes",
        "shots": 1,
        "seed": seed,
        "finished": finished,
    }
    return pd.DataFrame(table | changed)


def board_of(*tables, **options):
    return leaderboard(pd.concat(tables, ignore_index=True), **options)


def line_of(board, method):
    (line,) = board.table[board.table.method == method].to_dict("records")
    return line


@pytest.fixture
def two():
    """kNN-CLIP and a better method, two seeds each, with their matrices."""
    cms = {(m, s): matrices(k, noise=10 * s + k) for m, k in (("knn-clip", 0), ("mine", 1)) for s in (1, 2)}
    return cms, [rows(m, cm, s, support=f"s{s}") for (m, s), cm in cms.items()]


def test_counts_give_the_dataset_miou_of_the_summed_matrix():
    cm = matrices(0.5).sum(0)
    got = dataset_iou(cm.sum(1), cm.sum(0), np.diag(cm))
    assert got == pytest.approx(mean_iou(cm), abs=1e-12)
    assert np.isnan(dataset_iou(*np.zeros((3, 4), int)))


def test_scores_and_difference_are_those_of_the_whole_set(two):
    cms, tables = two
    board = board_of(*tables)
    scores = {m: [100 * mean_iou(cms[m, s].sum(0)) for s in (1, 2)] for m in ("knn-clip", "mine")}
    for method, values in scores.items():
        line = line_of(board, method)
        assert (line["miou"], line["half_width"]) == pytest.approx(mean_interval(values))
        assert (line["seeds"], line["images"]) == (2, 12)
    masks = [iou(one)[one.sum(1) > 0] for s in (1, 2) for one in cms["mine", s]]
    assert line_of(board, "mine")["giou"] == pytest.approx(100 * np.concatenate(masks).mean())
    assert line_of(board, "mine")["difference"] == pytest.approx(
        np.mean(np.subtract(scores["mine"], scores["knn-clip"]))
    )
    assert list(board.table.method) == ["mine", "knn-clip"]  # best first


def test_the_interval_is_that_of_drawing_images_again_by_hand(two):
    cms, tables = two
    line = line_of(board_of(*tables, draws=300, seed=5), "mine")
    times, gains = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), 300), []
    for drawn in times:
        at = np.repeat(np.arange(12), drawn)  # the same images for both methods and every seed
        gain = [mean_iou(cms["mine", s][at].sum(0)) - mean_iou(cms["knn-clip", s][at].sum(0)) for s in (1, 2)]
        gains.append(100 * np.mean(gain))
    assert (line["low"], line["high"]) == pytest.approx(tuple(np.quantile(gains, [0.025, 0.975])), abs=1e-9)
    assert line["verdict"] == "better"


def test_the_same_rows_give_the_same_board_and_the_baseline_turns_its_sign(two):
    _, tables = two
    first, second = board_of(*tables), board_of(*tables)
    pd.testing.assert_frame_equal(first.table, second.table)
    there, back = line_of(first, "mine"), line_of(board_of(*tables, baseline="mine"), "knn-clip")
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))
    assert back["verdict"] == "worse" and line_of(first, "knn-clip")["verdict"] == "baseline"


def test_a_twin_is_never_better():
    cm = matrices(0)
    line = line_of(board_of(rows("knn-clip", cm), rows("twin", cm)), "twin")
    assert (line["difference"], line["low"], line["high"], line["verdict"]) == (0, 0, 0, "not settled")


def test_pairing_narrows_the_interval():
    """Methods that find the same images hard differ less than their scores vary."""
    tables = rows("knn-clip", matrices(0, 60, noise=3)), rows("mine", matrices(0.3, 60, noise=4))
    paired = line_of(board_of(*tables), "mine")
    shuffled = np.random.default_rng(0).permutation(60)
    apart = rows("mine", matrices(0.3, 60, noise=4)[shuffled])
    apart["target"] = tables[0]["target"]  # so that they pair, wrongly
    loose = line_of(board_of(tables[0], apart), "mine")
    assert paired["high"] - paired["low"] < 0.8 * (loose["high"] - loose["low"])


def test_intervals_hold_what_they_should():
    """Of 60 samples of 40 images from 1,000, about 95 % hold the difference over all 1,000."""
    a, b = matrices(0, 1000, noise=3), matrices(0.3, 1000, noise=4)
    truth, rng, held = 100 * (mean_iou(b.sum(0)) - mean_iou(a.sum(0))), np.random.default_rng(0), 0
    for _ in range(60):
        at = rng.choice(1000, 40, replace=False)
        line = line_of(board_of(rows("knn-clip", a[at]), rows("mine", b[at]), draws=250), "mine")
        held += line["low"] <= truth <= line["high"]
    assert 51 <= held <= 60  # three standard deviations of 57


def test_only_what_both_answered_is_paired_and_said_so(two):
    cms, tables = two
    mine = tables[2].iloc[3:], tables[3]  # the first seed lacks three images
    board = board_of(*tables[:2], *mine)
    assert any("mine, seed 1 and the baseline share 9 images; 3 are left out" in n for n in board.notes)
    scores = [
        100 * mean_iou(cms["mine", s][at:].sum(0)) - 100 * mean_iou(cms["knn-clip", s][at:].sum(0))
        for s, at in ((1, 3), (2, 0))
    ]
    assert line_of(board, "mine")["difference"] == pytest.approx(np.mean(scores))


def changed_truth(table):
    other = table.copy()
    other["target"] = [t + 1 if i == 0 else t for i, t in enumerate(other["target"])]
    return other


@pytest.mark.parametrize(
    ("change", "said", "left"),
    [
        (lambda t: t.assign(support="others"), "mine, seed 1 had other support images", 1),
        (lambda t: t.assign(classes=[CLASSES[::-1]] * len(t)), "mine, seed 1 had other classes", 1),
        (lambda t: t.assign(seed=9), "do not share seeds [1, 9]", 1),
        (changed_truth, "share 11 images; 1 are left out", 2),
    ],
)
def test_what_does_not_pair_is_left_out(two, change, said, left):
    cms, tables = two
    board = board_of(*tables[:2], change(tables[2]), tables[3])
    assert any(said in note for note in board.notes), board.notes
    if left == 1:  # only the second seed
        gain = 100 * (mean_iou(cms["mine", 2].sum(0)) - mean_iou(cms["knn-clip", 2].sum(0)))
        assert line_of(board, "mine")["difference"] == pytest.approx(gain)


def test_nothing_in_common_is_no_difference(two):
    _, tables = two
    board = board_of(*tables[:2], *(t.assign(support="others") for t in tables[2:]))
    assert line_of(board, "mine")["verdict"] == "not comparable"
    assert any("shares nothing with the baseline" in note for note in board.notes)
    alone = board_of(*tables, tables[2].assign(shots=5))
    assert any("shots 5: no run of knn-clip" in note for note in alone.notes)
    assert len(alone.table.groupby(GROUP)) == 2


def test_the_newest_of_two_runs_counts(two):
    _, tables = two
    board = board_of(*tables, rows("mine", matrices(-3), 1, finished=0.5))
    assert line_of(board, "mine")["difference"] == line_of(board_of(*tables), "mine")["difference"]
    assert "scenes, bundled, shots 1: mine, seed 1: 1 older or smaller run left out" in board.notes


def test_a_later_smaller_run_does_not_replace_a_full_one(two):
    _, tables = two
    board = board_of(*tables, rows("mine", matrices(-3, 2), 1, support="s1", finished=9.0))
    assert line_of(board, "mine") == line_of(board_of(*tables), "mine")
    assert "scenes, bundled, shots 1: mine, seed 1: 1 older or smaller run left out" in board.notes


@pytest.mark.parametrize(
    ("there", "taken"), [(["rns", "knn-clip"], "knn-clip"), (["zero-shot", "rns"], "rns")]
)
def test_sweep_and_leaderboard_share_their_usual_baseline(run, capsys, there, taken, tmp_path):
    for i, method in enumerate(there):
        write_rows(rows(method, matrices(i)), tmp_path / f"{i}/rows.parquet")
    assert re.search(rf"^\| {taken} .*\| baseline", run("leaderboard", tmp_path), re.M)
    cells = expand({"method": there, "seeds": 1, "dataset": "scenes"})
    done = [Job(cell, tmp_path / str(i), "", {}) for i, cell in enumerate(cells)]
    _tell(Report(done=done), tmp_path, None)
    assert re.search(rf"^\| {taken} .*\| baseline", capsys.readouterr().out, re.M)


def test_failed_runs_are_told_before_a_board_that_cannot_be_made(capsys, tmp_path):
    cells = expand({"method": "rns", "seeds": [1, 2], "dataset": "scenes"})
    done, failed = [Job(cell, tmp_path, "", {}) for cell in cells]
    with pytest.raises(ValueError, match="no finished run"):
        _tell(Report(done=[done], failed=[(failed, "KeyError: 1")]), tmp_path, None)
    assert "failed: rns on scenes, bundled, shots 1, seed 2: KeyError: 1" in capsys.readouterr().err


def test_a_board_that_cannot_be_written_leaves_the_old_one(run, two, tmp_path, monkeypatch):
    write_rows(two[1][0], tmp_path / "a/rows.parquet")
    out = tmp_path / "board"
    run("leaderboard", tmp_path, "--out", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"leaderboard.md", "leaderboard.csv", "leaderboard.png"}

    def full(table, path, **options):
        Path(path).write_text("half a l")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert cli.status(["leaderboard", str(tmp_path), "--out", str(out)]) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_markdown_reads_as_a_table(two):
    lines = markdown(board_of(*two[1])).splitlines()
    assert lines[0] == "scenes, bundled, shots 1"
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]][3:6] == [
        "mIoU",
        "difference",
        "95 % interval",
    ]
    assert len({len(line) for line in lines[2:6]}) == 1 and "better" in lines[4]
    assert "12 images are few" in lines[-1]


def test_the_figure_names_methods_and_verdicts(two):
    fig = leaderboard_figure(board_of(*two[1]))
    left, right = fig.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["mine", "knn-clip"]
    assert [t.get_text() for t in right.get_yticklabels()] == ["better", "baseline"]
    plt.close(fig)


def test_the_command(run, two, tmp_path):
    for i, table in enumerate(two[1]):
        write_rows(table, tmp_path / f"runs/{i}/rows.parquet")
    write_rows(two[1][0][["image_id", "iou"]], tmp_path / "runs/cut-short/rows.parquet")  # never named
    out = tmp_path / "board"
    text = run("leaderboard", tmp_path / "runs", "--out", out)
    assert "| mine " in text and (out / "leaderboard.md").read_text().strip() in text
    table = pd.read_csv(out / "leaderboard.csv")
    assert list(table.method) == ["mine", "knn-clip"] and table.difference[0] > 0
    assert (out / "leaderboard.png").read_bytes().startswith(b"\x89PNG")
    assert "| knn-clip |" in run("leaderboard", tmp_path / "runs", "--baseline", "mine")
    assert len(read_runs(tmp_path / "runs")) == 48


def test_wrong_commands_are_refused(refused, two, tmp_path):
    refused("leaderboard", tmp_path / "nowhere", said=["nowhere", "rose-kit sweep"])
    refused("leaderboard", tmp_path, said=["no finished run", tmp_path])
    write_rows(two[1][0], tmp_path / "a/rows.parquet")
    refused("leaderboard", tmp_path, "--baseline", "knn", said=["'knn'", "knn-clip"])
    refused("leaderboard", tmp_path, "--draws", 5, said=["5", "100"])
    (tmp_path / "a/rows.parquet").write_bytes(b"PAR1 and no more")
    refused("leaderboard", tmp_path, said=["rows.parquet", "cannot be read"])
