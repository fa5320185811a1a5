"""Grids of evaluations, and the leaderboard: what is crossed and kept; statistics against NumPy and SciPy."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml

from conftest import write_folder
from rose_kit.data import FolderDataset, open_dataset
from rose_kit.encoder import load_encoder
from rose_kit.evaluation import GROUP, evaluate, expand_grid, leaderboard, run_grid
from rose_kit.evaluation import table as summary_table
from rose_kit.fusion import KnnClip
from rose_kit.metrics import mean_interval, mean_iou, mean_iou_of_counts
from rose_kit.registry import load_plugin

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds")
BASE = {"methods": "knn-clip", "dataset": "photos"}
COUNTS = ("target", "predicted", "intersection")

# --- grids --------------------------------------------------------------------------------------------


def test_lists_are_crossed_options_name_the_method_and_a_plugins_methods_join():
    options = {"rns": {"solver": ["adamw", "lbfgs"], "k": [4, 8]}}
    grid = {"methods": ["rns", options], "dataset": ["a", {"b": {"size": 64}}], "shots": [1, 5], "limit": 2}
    specs = expand_grid([grid, BASE | {"seeds": 3}], ["zero-shot"])
    shots = [(spec["dataset"][0].split()[0], spec["shots"]) for spec in specs]
    assert shots == [*itertools.product("ab", (1, 5)), ("photos", 1)]
    crossed = [f"rns solver={s} k={k}" for s, k in itertools.product(("adamw", "lbfgs"), (4, 8))]
    assert set(specs[0]["methods"]) == {"rns", *crossed, "zero-shot"}
    assert specs[0]["methods"]["rns solver=lbfgs k=8"] == ("rns", {"solver": "lbfgs", "k": 8})
    assert specs[2]["dataset"] == ("b size=64", ("b", {"size": 64}))
    assert (specs[2]["limit"], specs[2]["seeds"]) == (2, [1, 2, 3])
    assert (list(specs[4]["methods"]), specs[4]["seeds"]) == (["knn-clip", "zero-shot"], [3])


WRONG = [
    ({"methods": "rns"}, "methods"),
    (BASE | {"sead": 1}, "sead"),
    (None, "None"),
    (BASE | {"methods": "rsn"}, "'rsn'"),
    (BASE | {"methods": {"rns": {"q": 8}}}, "'q'"),
    (BASE | {"methods": {"rns": {"k": [4, 0]}}}, "0"),
    (BASE | {"methods": {"rns": 3}}, "{'rns': 3}"),
    (BASE | {"shots": []}, "shots"),
    (BASE | {"limit": "many"}, "'many'"),
]


@pytest.mark.parametrize(("grid", "value"), WRONG)
def test_wrong_grids_are_refused(grid, value):
    with pytest.raises(ValueError) as refusal:
        expand_grid(grid)
    assert value in str(refusal.value)


def grid_of(folder, **changed):
    fixed = {"methods": "knn-clip", "dataset": str(folder), "encoder": "handcrafted", "seeds": [1, 2]}
    return fixed | changed


def test_processes_give_the_rows_that_evaluate_gives(folder, tmp_path):
    specs = expand_grid(grid_of(folder, shots=[1, 2], methods=["knn-clip", {"knn-clip": {"k": [1, 3]}}]))
    rows, skipped = run_grid(specs, tmp_path / "one", jobs=2)
    assert skipped == 0 and len(list((tmp_path / "one").iterdir())) == 2
    chosen = {"knn-clip": KnnClip(), "knn-clip k=1": KnnClip(k=1), "knn-clip k=3": KnnClip(k=3)}
    encoder, options = load_encoder("handcrafted"), {"shots": [1, 2], "seeds": [1, 2], "progress": False}
    for row in evaluate(*open_dataset(str(folder)), encoder, chosen, **options):
        own = rows[(rows.method == row["method"]) & (rows.shots == row["shots"]) & (rows.seed == row["seed"])]
        sums = [np.sum(own[name].to_list(), axis=0) for name in COUNTS]
        assert 100 * mean_iou_of_counts(sums) == pytest.approx(row["miou"], abs=1e-12)
        assert list(own.image_id) == row["query_ids"] and own.support.nunique() == 1
    assert len(leaderboard(rows).table) == 6


def test_splits_other_support_and_the_default_encoder_reach_the_evaluation(folder, tmp_path):
    other = write_folder(tmp_path / "other", prefix="q")
    data = {str(folder): {"support_from": str(other), "support": "val", "query": "train"}}
    specs = expand_grid({"methods": "knn-clip", "dataset": data, "seeds": [1, 2]})
    rows, _ = run_grid(specs, tmp_path / "out")
    assert (
        specs[0]["encoder"] == "photos"
        and expand_grid(BASE | {"dataset": "scenes"})[0]["encoder"] == "bundled"
    )
    pair, encoder = (FolderDataset(other, "val"), FolderDataset(folder, "train")), load_encoder("photos")
    options = dict.fromkeys(("support_windows", "query_windows"), encoder.preferred_windows)
    options |= {"shots": 1, "seeds": [1, 2], "per_image": True, "progress": False}
    expected = pd.DataFrame(evaluate(*pair, encoder, {"knn-clip": KnnClip()}, **options))
    for name in COUNTS:
        np.testing.assert_array_equal(np.stack(rows[name]), np.stack(expected[name]))


PLUGIN = "from functools import partial\nfrom rose_kit import KnnClip, register_method\n"
PLUGIN += "register_method('mine')(partial(KnnClip, k=3))\n"


def test_tables_are_kept_until_the_settings_or_the_plugin_change(folder, tmp_path):
    plugin, out = tmp_path / "mine.py", tmp_path / "runs"
    plugin.write_text(PLUGIN)
    load_plugin(plugin)

    def run(**changed):
        """Tables that were there, and tables that there are then."""
        grid = grid_of(folder, **{"methods": ["knn-clip", "mine"]} | changed)
        _, skipped = run_grid(expand_grid(grid), out, plugin=plugin)
        return skipped, len(list(out.glob("*.parquet")))

    assert [run(), run(), run(shots=[1, 2]), run(shots=[2, 1])] == [(0, 1), (1, 1), (1, 2), (2, 2)]
    assert [run(seeds=1), run(limit=2), run(limit=None)] == [(0, 3), (0, 4), (1, 4)]
    plugin.write_text(PLUGIN.replace("k=3", "k=1"))
    assert [run(), run()] == [(0, 5), (1, 5)]


def test_a_killed_sweep_leaves_whole_tables_and_goes_on(folder, tmp_path):
    grid, out = tmp_path / "grid.yaml", tmp_path / "runs"
    grid.write_text(yaml.safe_dump(grid_of(folder, shots=list(range(1, 9)))))
    command = [sys.executable, "-m", "rose_kit", "sweep", str(grid), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
        while not list(out.glob("[!.]*.parquet")):
            assert sweep.poll() is None
            time.sleep(0.01)
        os.kill(sweep.pid, signal.SIGKILL)
    done = len(list(out.glob("[!.]*.parquet")))
    assert 1 <= done < 8
    rows, skipped = run_grid(expand_grid(yaml.safe_load(grid.read_text())), out)
    assert skipped == done and rows.groupby("shots").size().eq(2 * 3).all()


# --- statistics ---------------------------------------------------------------------------------------


def matrices(skill, seed=0, images=12):
    """(I, 4, 4) confusion matrices with more on the diagonal the higher the skill; some lack a class."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 100, (images, 4, 4)) + skill * 60 * np.eye(4, dtype=int)
    return counts * (rng.random((images, 4, 1)) < [[1], [0.9], [0.5], [0.15]])


def rows_of(method, cm, seed=1, **changed):
    """Rows per image, as a sweep keeps them."""
    counts = zip(COUNTS, (cm.sum(2), cm.sum(1), np.einsum("icc->ic", cm)), strict=True)
    columns = {"image_id": [f"i{i:03d}" for i in range(len(cm))], "method": method, "seed": seed}
    columns |= {"dataset": "scenes", "encoder": "bundled", "shots": 1, "support": f"s{seed}"}
    return pd.DataFrame(columns | {name: list(value) for name, value in counts} | changed)


def board_of(*tables, **options):
    return leaderboard(pd.concat(tables, ignore_index=True), **options)


def line_of(board, method):
    [line] = board.table[board.table.method == method].to_dict("records")
    return line


@pytest.fixture
def two():
    """kNN-CLIP and a better method, two seeds each, with their matrices."""
    cms = {(m, s): matrices(k, 10 * s + k) for m, k in (("knn-clip", 0), ("mine", 1)) for s in (1, 2)}
    return cms, [rows_of(m, cm, s) for (m, s), cm in cms.items()]


def difference(cms, at=slice(None), seeds=(1, 2)):
    """Points of mIoU that "mine" is ahead on some images, by hand."""
    scores = {key: 100 * mean_iou(cm[at].sum(0)) for key, cm in cms.items()}
    return np.mean([scores["mine", s] - scores["knn-clip", s] for s in seeds])


def test_scores_differences_and_intervals_are_those_of_the_whole_set(two):
    """Against the definition, draw by draw: redrawn images, the spread over seeds, Satterthwaite's t."""
    cms, tables = two
    board = board_of(*tables, draws=600, level=0.9, seed=5)
    assert list(board.table.method) == ["mine", "knn-clip"]  # best first
    for line in board.table.to_dict("records"):
        scores = [100 * mean_iou(cms[line["method"], s].sum(0)) for s in (1, 2)]
        assert (line["miou"], line["half_width"]) == pytest.approx(mean_interval(scores, 0.9))
        assert (line["seeds"], line["images"]) == (2, 12)
    mine = line_of(board, "mine")
    rng, again = np.random.default_rng(5), []
    for times in rng.multinomial(12, np.full(12, 1 / 12), 600):
        again.append(difference(cms, np.repeat(np.arange(12), times)))
    alone = [difference(cms, seeds=[s]) for s in (1, 2)]
    images, seeds = np.var(again, ddof=1), np.var(alone, ddof=1) / 2
    freedom = (images + seeds) ** 2 / (images**2 / 11 + seeds**2 / 1)
    own = scipy.stats.t(freedom, difference(cms), np.sqrt(images + seeds))
    assert (mine["low"], mine["high"]) == pytest.approx(own.interval(0.9))
    assert mine["p"] == pytest.approx(2 * own.cdf(0)) and mine["difference"] == pytest.approx(own.mean())
    back = line_of(board_of(*tables, baseline="mine", level=0.9, draws=600, seed=5), "knn-clip")
    assert (back["low"], back["p"]) == pytest.approx((-mine["high"], mine["p"]))
    with pytest.raises(ValueError, match="'knn'.*knn-clip, mine"):
        board_of(*tables, baseline="knn")


@pytest.mark.parametrize("spread", [(0.03, 0.05, 0.05), (0.001, 0.15, 0.05), (0.03, 0.0, 0.1)])
def test_intervals_over_drawn_seeds_and_images_hold_the_true_difference(spread):
    """About 95 times in 100; a crossed random-effects model, whose mIoU is a mean over images."""
    rng, gain, hits, repeats = np.random.default_rng(0), 0.05, 0, 80
    for _ in range(repeats):
        seed, image, both = (rng.normal(0, s, (4, 30, 1)) for s in spread)
        base = 0.5 + rng.normal(0, 0.1, (1, 30, 1))
        own = base + gain + seed[:, :1] + image[:1] + both  # (S, I, 1)
        tables = []
        for name, share in (("knn-clip", np.repeat(base, 4, 0)), ("mine", own)):
            for s, right in enumerate(np.rint(1e6 * share).astype(int).clip(0, 10**6)):
                counts = (np.full_like(right, 10**6), right, right)  # the union is the target
                table = rows_of(name, np.zeros((30, 1, 1), int), s)
                tables.append(table.assign(**{c: list(v) for c, v in zip(COUNTS, counts, strict=True)}))
        line = line_of(board_of(*tables, draws=100), "mine")
        hits += line["low"] < 100 * gain < line["high"]
    assert 0.88 <= hits / repeats


def test_several_methods_are_judged_together():
    """By Holm: the k-th smallest p of m counts m - k + 1 times, and never less than the one before."""
    base = rows_of("knn-clip", matrices(0, 0, 40))
    rivals = [rows_of(f"m{i}", matrices(gain, i, 40)) for i, gain in enumerate((0.7, 0.35, 0.2, 0.0), 1)]
    alone = [line_of(board_of(base, rival), f"m{i}")["p"] for i, rival in enumerate(rivals, 1)]
    board, least = board_of(base, *rivals), 0.0
    for k, i in enumerate(np.argsort(alone)):
        least = max(least, min(1.0, (4 - k) * alone[i]))
        line = line_of(board, f"m{i + 1}")
        assert line["p"] == pytest.approx(least) and (line["verdict"] == "better") == (least < 0.05)
    assert min(alone) < 0.05 < np.nanmax(board.table.p)


def test_ties_and_single_images_settle_nothing():
    cm = matrices(0)
    line = line_of(board_of(rows_of("knn-clip", cm), rows_of("twin", cm)), "twin")
    assert (line["difference"], line["low"], line["high"], line["verdict"]) == (0, 0, 0, "not settled")
    board = board_of(rows_of("knn-clip", cm[:1]), rows_of("mine", matrices(3)[:1]))
    line = line_of(board, "mine")
    assert (line["low"], line["high"], line["verdict"]) == (-np.inf, np.inf, "not settled")
    assert any("cover images alone" in note for note in board.notes)


def test_draws_that_share_their_support_are_named(folder):
    """The same images drawn by several seeds: so says the table of an evaluation, and the leaderboard."""
    encoder, options = load_encoder("handcrafted"), {"seeds": [1, 2, 3], "progress": False}
    pair = open_dataset(str(folder))
    rows = evaluate(*pair, encoder, {"knn-clip": KnnClip()}, shots=[1, 4], **options)
    for row in rows:
        own, others = set(row["support_ids"]), [r for r in rows if r["shots"] == row["shots"] and r != row]
        expected = np.mean([len(own.intersection(other["support_ids"])) / len(own) for other in others])
        assert row["shared"] == pytest.approx(expected)
    mean = np.mean([row["shared"] for row in rows if row["shots"] == 4])
    assert mean > 0.25 and f"share {mean:.0%}" in summary_table(rows)
    images = pd.DataFrame(
        evaluate(*pair, encoder, {"knn-clip": KnnClip()}, shots=4, per_image=True, **options)
    )
    board = leaderboard(images.assign(dataset="photos", encoder="handcrafted"))
    assert any(f"share {mean:.0%}" in note for note in board.notes)


def test_only_what_both_answered_is_paired_and_the_rest_is_noted(two):
    cms, tables = two
    board = board_of(*tables[:2], tables[2].iloc[3:], tables[3])  # the first seed lacks three images
    assert any("mine" in note and " 6 answers" in note for note in board.notes), board.notes
    assert line_of(board, "mine")["difference"] == pytest.approx(difference(cms, slice(3, None)))
    board = board_of(*tables[:2], *(t.assign(support="others") for t in tables[2:]))
    line = line_of(board, "mine")
    assert line["verdict"] == "not comparable" and np.isnan(line["difference"])
    apart = board_of(*tables, tables[2].assign(shots=5))
    assert any("shots 5: mine" in note and " 12 answers" in note for note in apart.notes)
    assert len(apart.table.groupby(GROUP)) == 2
    twice = board_of(*tables, tables[0], tables[1])  # two grids with the same baseline
    pd.testing.assert_frame_equal(twice.table, board_of(*tables).table)
