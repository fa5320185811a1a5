"""Grids and their presets: what is crossed, what is refused, which tables are kept; the released settings."""

import itertools
import os
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_scripts.scenes import support_and_query
from rose_kit.adapter import RNS
from rose_kit.cli import read_preset, windows_of
from rose_kit.data import default_splits
from rose_kit.encoder import Windows, load_encoder
from rose_kit.evaluation import dataset_iou, evaluate, expand_grid, leaderboard, run_grid
from rose_kit.fusion import KnnClip
from rose_kit.model import methods
from rose_kit.registry import datasets, load_plugin

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds")
BASE = {"methods": "knn-clip", "dataset": "photos"}


@pytest.fixture(autouse=True)
def forget():
    """No test leaves a plugin's method in the registry."""
    before = dict(methods)
    yield
    methods.clear()
    methods.update(before)


# --- what a grid means --------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["zero-shot", "knn-clip", "rns"]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from(["bundled", "handcrafted"]), min_size=1, max_size=2, unique=True),
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
)
def test_lists_are_crossed(names, encoders, shots):
    found = expand_grid(
        {"methods": names, "dataset": ["a", "b"], "encoder": encoders, "shots": shots, "seeds": 3}
    )
    asked = [(one["data"], one["encoder"], one["shots"]) for one in found]
    assert sorted(asked) == sorted(itertools.product("ab", encoders, shots))
    for one in found:
        assert one["methods"] == {name: (name, {}) for name in names} and one["seeds"] == [3]


def test_options_that_are_lists_are_crossed_and_name_the_method():
    mine = {"rns": {"solver": ["adamw", "lbfgs"], "k": [4, 8]}}
    [one] = expand_grid(BASE | {"methods": ["rns", mine], "dataset": {"scenes": {"size": 64}}, "limit": 2})
    assert (one["data"], one["data_options"], one["limit"]) == ("scenes", {"size": 64}, 2)
    assert one["shots"] == 1 and one["seeds"] == [1, 2, 3] and one["encoder"] == "bundled"
    crossed = [f"rns solver={s} k={k}" for s, k in itertools.product(("adamw", "lbfgs"), (4, 8))]
    assert set(one["methods"]) == {"rns", *crossed}
    assert one["methods"]["rns solver=lbfgs k=8"] == ("rns", {"solver": "lbfgs", "k": 8})


def test_several_grids_follow_each_other_and_a_plugins_methods_join():
    found = expand_grid([BASE | {"shots": [1, 5]}, BASE | {"methods": "rns", "dataset": "b"}], ["zero-shot"])
    assert [(one["data"], one["shots"], list(one["methods"])) for one in found] == [
        ("photos", 1, ["knn-clip", "zero-shot"]),
        ("photos", 5, ["knn-clip", "zero-shot"]),
        ("b", 1, ["rns", "zero-shot"]),
    ]


BAD = {
    "a method alone": ({"methods": "rns"}, "needs methods and dataset.*got methods"),
    "an unknown key": (
        BASE | {"seed": 1},
        "of the keys methods, dataset.*got methods, dataset, seed",
    ),
    "a list of names": (["rns"], "got 'rns'"),
    "nothing": (None, "got None"),
    "an unknown method": (BASE | {"methods": "rsn"}, "unknown method 'rsn', did you mean 'rns'"),
    "an unknown option": (BASE | {"methods": {"rns": {"q": 8}}}, "method rns: .*'q'"),
    "a bad value": (BASE | {"methods": {"rns": {"k": [4, 0]}}}, "k must be positive, got 0"),
    "a text for a number": (BASE | {"methods": {"rns": {"k": "eight"}}}, "method rns: .*'str'"),
    "no options": (BASE | {"methods": {"rns": 3}}, r"method: \{'rns': 3\} is neither a name nor"),
    "two in one": (BASE | {"methods": {"rns": {}, "freeda": {}}}, "neither a name nor"),
    "a number": (BASE | {"dataset": 3}, "dataset: 3 is neither a name nor"),
    "no method": (BASE | {"methods": []}, "methods: nothing is listed"),
    "no seed": (BASE | {"seeds": []}, "seeds: nothing is listed"),
    "no shots": (BASE | {"shots": []}, "shots: nothing is listed"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_grids_are_refused(case):
    grid, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        expand_grid(grid)


# --- tables -------------------------------------------------------------------------------------------

PLUGIN = """from functools import partial
from rose_kit import KnnClip, register_method
register_method("mine")(partial(KnnClip, k=3))
"""


def grid_of(folder, **changed):
    return {
        "methods": "knn-clip",
        "dataset": str(folder),
        "encoder": "handcrafted",
        "seeds": [1, 2],
    } | changed


def same(a, b):
    order = ["dataset", "shots", "method", "seed", "image_id"]
    a, b = (table.sort_values(order, ignore_index=True).map(str) for table in (a, b))
    return a.equals(b)


def test_rows_give_what_evaluate_gives_and_two_jobs_give_the_same(folder, tmp_path):
    settings = expand_grid(grid_of(folder, shots=[1, 2], methods=["knn-clip", {"knn-clip": {"k": [1, 3]}}]))
    rows, kept = run_grid(settings, tmp_path / "one")
    assert kept == 0 and len(list((tmp_path / "one").iterdir())) == 2
    chosen = {"knn-clip": KnnClip(), "knn-clip k=1": KnnClip(k=1), "knn-clip k=3": KnnClip(k=3)}
    encoder, options = load_encoder("handcrafted"), {"shots": [1, 2], "seeds": [1, 2], "progress": False}
    windows = getattr(encoder, "preferred_windows", None)
    options |= {"support_windows": windows, "query_windows": windows}
    for row in evaluate(*default_splits(folder), encoder, chosen, **options):
        own = rows[(rows.method == row["method"]) & (rows.shots == row["shots"]) & (rows.seed == row["seed"])]
        sums = [np.sum(own[name].to_list(), axis=0) for name in ("target", "predicted", "intersection")]
        assert 100 * dataset_iou(*sums) == pytest.approx(row["miou"], abs=1e-12)
        assert list(own.image_id) == row["query_ids"] and own.support.nunique() == 1
    again, _ = run_grid(settings, tmp_path / "two", jobs=2)
    assert same(rows, again) and set(rows.encoder) == {"handcrafted"}
    assert len(leaderboard(rows).table) == 6


def test_tables_are_kept_until_something_they_depend_on_changes(folder, tmp_path, monkeypatch):
    plugin, out = tmp_path / "mine.py", tmp_path / "runs"
    plugin.write_text(PLUGIN)
    load_plugin(plugin)

    def run(**changed):
        """Tables that were there, and tables that there are then."""
        grid = grid_of(folder, **{"methods": ["knn-clip", "mine"]} | changed)
        rows, kept = run_grid(expand_grid(grid), out, plugin=plugin)
        assert set(rows.method) == {"knn-clip", "mine"}
        return kept, len(list(out.glob("*.parquet")))

    assert [run(), run(), run(shots=[1, 2]), run(shots=[2, 1])] == [(0, 1), (1, 1), (1, 2), (2, 2)]
    assert [run(seeds=1), run(limit=2), run(seeds=[1], limit=None)] == [(0, 3), (0, 4), (1, 4)]
    plugin.write_text(PLUGIN.replace("k=3", "k=1"))
    assert [run(), run()] == [(0, 5), (1, 5)]
    os.utime(folder / "masks" / "p1.png", (1, 1))
    assert [run(), run()] == [(0, 6), (1, 6)]
    code = tmp_path / "kit" / "evaluation.py"
    code.parent.mkdir()
    code.write_text("1")
    monkeypatch.setattr("rose_kit.evaluation.__file__", str(code))
    assert [run(), run()] == [(0, 7), (1, 7)]
    code.write_text("2")
    assert [run(), run()] == [(0, 8), (1, 8)]
    assert not [path for path in out.iterdir() if path.suffix != ".parquet"]


def test_what_failed_or_was_cut_short_leaves_no_table(folder, tmp_path, monkeypatch):
    settings = expand_grid(grid_of(folder, shots=[1, 2]))

    def full(table, path, **options):
        path.write_bytes(b"PAR1")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="no space left"):
        run_grid(settings, tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())
    monkeypatch.undo()
    run_grid(settings[:1], tmp_path / "runs")
    assert run_grid(settings, tmp_path / "runs")[1] == 1  # it goes on where it was


def test_a_dataset_of_a_plugin_and_a_folder_of_weights_count(tmp_path, monkeypatch):
    monkeypatch.setitem(datasets, "tiny", partial(support_and_query, pool=8, queries=2, size=64))
    one = {
        "methods": "knn-clip",
        "encoder": "handcrafted",
        "seeds": 1,
        "dataset": {"tiny": {"domain": "fog"}},
    }
    rows, _ = run_grid(expand_grid(one), tmp_path)
    assert set(rows.dataset) == {"tiny domain=fog"} and rows.image_id.str.endswith("fog").all()
    assert run_grid(expand_grid(one), tmp_path)[1] == 1
    from rose_kit.evaluation import _stamp

    weights = tmp_path / "own"
    weights.mkdir()
    [setting] = expand_grid(one | {"encoder": str(weights)})
    names = [_stamp(setting, None)]
    (weights / "model.safetensors").write_bytes(b"1")
    names += [_stamp(setting, None), _stamp(setting, None)]
    assert names[0] != names[1] == names[2] and re.fullmatch(r"[\w.=-]+", names[0])


# --- presets ------------------------------------------------------------------------------------------


def test_presets_are_the_released_configurations():
    """Windows, seeds and adapter of RNS for OpenCLIP and DINOv3.txt, written down a second time."""
    clip, dino = read_preset("rns-openclip"), read_preset("rns-dinov3txt")
    bundled = load_encoder("bundled")
    wanted = {
        ("support", 0): Windows(448, (448, 224), 112),
        ("query", 0): Windows(448, (448,), 224),
        ("support", 1): Windows(None, (384,), 112),
        ("query", 1): Windows(384, (384,), 192),
    }
    for (role, i), windows in wanted.items():
        assert windows_of((clip, dino)[i], role, bundled) == windows
        assert all(size % bundled.patch_size == 0 for size in (*windows.crops, windows.stride))
    assert clip["seeds"] == dino["seeds"] == [100, 18, 42, 84]
    assert (clip["encoder"], dino["encoder"]) == ("ViT-B-16/laion2b_s34b_b88k", "dinov3txt")
    for preset in (clip, dino):
        method = methods.make("rns", **preset["options"]["rns"])
        lambdas = tuple(method.lambdas)
        assert lambdas == (0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
        assert (method.k, method.solver, method.steps, method.lr) == (4, "adamw", 700, 2e-3)
        assert (method.tau, method.beta_fused, method.beta_pseudo) == (0.1, 1.5, 0.2)
        assert method.weight_decay == 5e-4 and preset["regions"]["sam"]["order"] == "largest"


@pytest.mark.parametrize("name", ["rns", "rns-openclip", "rns-dinov3txt", None])
def test_every_preset_can_be_built(name):
    preset = read_preset(name)
    made = [methods.make(method, **preset["options"].get(method, {})) for method in preset["methods"] or ()]
    assert bool(made) == (name is not None) and set(preset["options"]) <= set(preset["methods"] or ())


def test_a_preset_may_be_a_file_of_your_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{methods: [rns], seeds: [7], options: {rns: {k: 8}}, query_windows: {crops: [64], stride: 32}}"
    )
    mine, usual = read_preset(str(path)), read_preset(None)
    assert methods.make("rns", **mine["options"]["rns"]) == RNS(k=8) and mine["encoder"] == "bundled"
    encoder = load_encoder("handcrafted")
    assert windows_of(mine, "query", encoder) == Windows(crops=(64,), stride=32)
    assert windows_of(mine, "support", encoder) == windows_of(usual, "support", encoder)
    for text, said in (
        ("{method: [rns]}", "unknown key 'method'; keys: methods, options"),
        ("[rns]", "mine.yaml"),
        ("methods: [rns", "mine.yaml.*is not YAML"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_preset(str(path))
    for name in ("rms", str(tmp_path / "none.yaml")):
        with pytest.raises(ValueError, match="unknown preset .*Known: rns, rns-dinov3txt, rns-openclip"):
            read_preset(name)
