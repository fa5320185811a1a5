"""Sweeps: what a grid means, runs that fail, are killed, are found again; and the real notebook."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import v4

from rose_kit import cli
from rose_kit.cli.parameters import declared_parameters, described_parameters, parse_parameters
from rose_kit.data import default_splits
from rose_kit.encoder import load_encoder
from rose_kit.evaluation import evaluate, jobs
from rose_kit.evaluation.grid import expand
from rose_kit.evaluation.jobs import NOTEBOOK, plan
from rose_kit.evaluation.records import dataset_iou, image_rows
from rose_kit.evaluation.sweep import cores, sweep
from rose_kit.fusion import KnnClip
from rose_kit.registry import datasets, encoders, load_plugin

RNS = {"method": "rns", "dataset": "scenes", "seeds": 1}
PARAMETERS = (
    "method = options = encoder = data = data_options = plugin = None\nshots = seed = limit = 0\nout = ''"
)
# Quick and simple: no torch. Seed 13 fails; every run says in which process, and slow ones take their time.
CODE = """import os, time
import pandas as pd
assert "left_over" not in globals(), "not a clean start"
left_over = 1
if seed == 13:
    raise KeyError(method)
time.sleep(60 if seed == 99 and not os.path.exists("hurry") else 0)
counts = {"target": [[4, 2]], "predicted": [[3, 3]], "intersection": [[3, 2]]}
row = {"image_id": ["a"], "support": ["s"], "iou": [0.7], "giou": [0.8], "process": [os.getpid()]}
pd.DataFrame({**row, "classes": [["sky", "bus"]], **counts}).to_parquet(out + "/rows.parquet")"""


@pytest.fixture
def quick(tmp_path):
    """A notebook that stands in for the real one."""
    cells = [v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    path = tmp_path / "quick.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(v4.new_notebook(cells=[*cells, v4.new_code_cell(CODE)], metadata=kernel), path)
    return path


def grid_of(seeds, method="zero-shot"):
    return expand({"method": method, "encoder": "handcrafted", "dataset": "scenes", "seeds": seeds})


# --- what a grid means --------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["zero-shot", "knn-clip", "rns"]), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_lists_are_crossed(methods, shots, seeds):
    cells = expand({"method": methods, "dataset": "scenes", "shots": shots, "seeds": seeds})
    asked = set(itertools.product(methods, shots, seeds))
    assert {(c.method, c.shots, c.seed) for c in cells} == asked and len(cells) == len(asked)


def test_a_fusion_is_crossed_with_methods_that_have_one():
    grid = {"method": ["rns", "rose"], "fusion": ["none", "similarity"]}
    cells = expand(grid | {"dataset": "scenes", "seeds": 1})
    assert [c.label for c in cells] == ["rns", "rose fusion=none", "rose fusion=similarity"]


def test_include_adds_and_exclude_takes_away():
    grid = {"method": ["rns", "knn-clip"], "dataset": "scenes", "seeds": [1, 2], "shots": [1, 5]}
    more = {
        "include": [{"method": {"rns": {"k": 8}}, "shots": 5}],
        "exclude": [{"method": "rns", "shots": 1}],
    }
    labels = [(c.label, c.shots, c.seed) for c in expand(grid | more)]
    assert len(labels) == 8 and ("rns k=8", 5, 2) in labels and ("rns", 1, 1) not in labels


WRONG = {
    "metod: rns": ["'metod'", "did you mean 'method'", "seeds"],
    "method: rsn": ["'rsn'", "did you mean 'rns'", "knn-clip", "rose"],
    "method: [{rns: {q: 8}}]": ["rns has no option 'q'", "k=4"],
    "method: [{rns: {k: eight}}]": ["rns k", "'eight' is no int"],
    "method: [{rns: {k: 0}}]": ["k must be positive, got 0"],
    "method: [{rns: 3}]": ["{'rns': 3}", "{name: {option: value}}"],
    "method: []": ["method: nothing is listed"],
    "shots: 0": ["shots", "0 is not a whole number from 1"],
    "shots: [1, two]": ["'two'"],
    "seeds: [-1]": ["seeds", "-1"],
    "seeds: true": ["seeds", "True"],
    "limit: 0": ["limit", "0"],
    "limit: [3, 4]": ["limit: one number"],
    "encoder: bundeld": ["'bundeld'", "bundled"],
    "dataset: nowhere": ["'nowhere'"],
    "dataset: {scenes: {side: 96}}": ["'side'", "size=160"],
    "dataset: {scenes: {size: [96, 128]}}": ["size must be a whole number, got [96, 128]", "size=160"],
    "dataset: {scenes: {size: '96'}}": ["size must be a whole number, got '96'"],
    "dataset: {scenes: {pool: 2.5}}": ["pool must be a whole number, got 2.5"],
    "dataset: {scenes: {domain: [fog]}}": ["domain must be a name, got ['fog']"],
    "dataset: {scenes: {3: 1, side: 2}}": ["no option 3"],
    "dataset: {scenes: {domain: rain}}": ["'rain'", "fog"],
    "{method: rose, fusion: mixture, dataset: scenes}": ["'mixture'", "similarity"],
    "{method: rns, fusion: similarity, dataset: scenes}": ["fusion", "rose does", "rns"],
    "exclude: [{shots: 7}]": ["no run matches {'shots': 7}"],
    "exclude: [{limit: 7}]": ["'limit'"],
    "exclude: [{shots: 1}]": ["every run is excluded"],
    "include: rns": ["include", "'rns'"],
    "include: [rns]": ["include", "'rns'"],
    "- rns": ["['rns']", "method"],
    "method: [rns": ["is not YAML", "at line 1, column 9"],
    "seeds: !!python/object/apply:os.getcwd []": ["is not YAML", "python/object"],
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_grids_are_refused(refused, tmp_path, text):
    path = tmp_path / "grid.yaml"
    whole = "dataset" in text or text.startswith("-") or "is not YAML" in WRONG[text]
    path.write_text(text if whole else f"dataset: scenes\n{text}")
    said = ["grid.yaml" if "bundeld" not in text else "", *WRONG[text]]
    refused("sweep", path, "--out", tmp_path / "runs", said=said)
    assert not (tmp_path / "runs").exists()


def test_a_message_about_yaml_names_no_string_of_python(refused, tmp_path):
    (tmp_path / "grid.yaml").write_text("method: [rns")
    assert "string>" not in refused("sweep", tmp_path / "grid.yaml", said=["is not YAML"])


def test_wrong_commands_are_refused(refused, tmp_path):
    refused("sweep", tmp_path, said=[f"{str(tmp_path)!r} is a folder"])
    refused("sweep", tmp_path / "no.yaml", said=["no.yaml", "does not exist"])
    (tmp_path / "nothing.yaml").write_text("method: rns")
    refused("sweep", tmp_path / "nothing.yaml", said=["nothing.yaml", "dataset: nothing is listed"])
    (tmp_path / "grid.yaml").write_text("{seeds: 1, dataset: scenes}")
    refused("sweep", tmp_path / "grid.yaml", "--jobs", 0, said=["0"])
    refused("sweep", tmp_path / "grid.yaml", "--out", tmp_path / "grid.yaml", said=["grid.yaml"])
    refused("sweep", tmp_path / "grid.yaml", "--plugin", "no.py", said=["'no.py'"])
    both = ("--jobs", 3, "--scheduler", "local:2")
    refused("sweep", tmp_path / "grid.yaml", *both, said=["--jobs 3", "--scheduler local:2", "give one"])
    out = tmp_path / "runs"  # before any run
    said = ["'freda'", "zero-shot, knn-clip, freeda, rns"]
    refused("sweep", tmp_path / "grid.yaml", "--baseline", "freda", "--out", out, said=said)
    assert not out.exists()


def test_a_dry_run_lists_and_does_nothing(run, tmp_path):
    (tmp_path / "grid.yaml").write_text("{method: rns, seeds: [1, 2], limit: 3, dataset: scenes}")
    text = run("sweep", tmp_path / "grid.yaml", "--dry-run", "--out", tmp_path / "runs")
    assert (
        "to do     rns on scenes, bundled, shots 1, seed 2" in text and "2 runs, 0 of them finished" in text
    )
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_loads_no_encoder(run, refused, tmp_path, monkeypatch):
    def fetch(name):
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(jobs, "load_encoder", fetch)
    (tmp_path / "ViT-B-32.pt").write_bytes(b"weights")
    names = f"[bundled, ViT-B-16/laion2b_s34b_b88k, ViT-B-32/random, ViT-B-32/{tmp_path / 'ViT-B-32.pt'}]"
    (tmp_path / "grid.yaml").write_text(f"{{method: rns, seeds: 1, dataset: scenes, encoder: {names}}}")
    assert "4 runs, 0 of them finished" in run("sweep", tmp_path / "grid.yaml", "--dry-run")
    monkeypatch.undo()
    (tmp_path / "grid.yaml").write_text("{encoder: ViT-B-16/laion, dataset: scenes}")
    refused("sweep", tmp_path / "grid.yaml", "--dry-run", said=["'ViT-B-16/laion'", "laion2b_s34b_b88k"])


# --- runs ---------------------------------------------------------------------------------------------


def test_a_failing_run_stops_no_other_and_is_tried_again(quick, tmp_path):
    todo = plan(grid_of([1, 13, 2]), tmp_path / "runs", quick)
    report = sweep(todo, workers=1, progress=False)
    assert [job.cell.seed for job in report.done] == [1, 2]
    [(job, error)] = report.failed
    assert job.cell.seed == 13 and re.search(r"cell \[\d\]: KeyError: 'zero-shot'", error)
    outputs = [o for c in nbformat.read(job.folder / "evaluate.ipynb", 4).cells for o in c.get("outputs", [])]
    assert any(o.output_type == "error" and o.ename == "KeyError" for o in outputs)
    again = sweep(todo, workers=1, progress=False)
    assert [len(found) for found in (again.kept, again.done, again.failed)] == [2, 0, 1]
    record = json.loads((report.done[0].folder / "run.json").read_text())
    assert record["parameters"]["seed"] == 1 and record["images"] == 1
    assert set(record["versions"]) >= {"rose_kit", "torch", "code", "commit", "encoder", "python", "data"}
    rows = pd.read_parquet(report.done[0].folder / "rows.parquet")
    assert rows[["method", "dataset", "seed"]].to_numpy().tolist() == [["zero-shot", "scenes", 1]]


def test_one_kernel_answers_several_runs_and_none_is_left(quick, tmp_path):
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    todo = plan(grid_of([1, 2, 3]), tmp_path / "runs", quick)
    assert len(sweep(todo, workers=1, progress=False).done) == 3
    processes = {pd.read_parquet(job.folder / "rows.parquet").process[0] for job in todo}
    assert len(processes) == 1 and processes.isdisjoint(before)
    assert not psutil.pid_exists(int(processes.pop()))


def test_what_numbers_depend_on_makes_a_new_run(quick, tmp_path, monkeypatch, folder):
    def digests(cells):
        return [job.digest for job in plan(cells, tmp_path, quick)]

    photos = expand({"method": "knn-clip", "encoder": "handcrafted", "dataset": str(folder), "seeds": [1, 2]})
    first = digests(photos)
    assert digests(photos) == first and len(set(first)) == 2
    os.utime(folder / "masks/p1.png", (1, 1))
    changed = digests(photos)
    assert not set(changed) & set(first)
    monkeypatch.setattr(jobs, "_versions", lambda: {"rose_kit": "99", "commit": "b"})
    newer = digests(photos)
    assert not set(newer) & set(changed)
    monkeypatch.setattr(jobs, "_versions", lambda: {"rose_kit": "99", "commit": "c"})
    assert digests(photos) == newer  # a commit alone, of a README, say, is no reason


CHANGES = {  # of a file of the package -> whether a run done before is done again
    "evaluation/cache.py": True,
    "evaluation/parallel.py": True,
    "fusion/text.py": True,
    "model/weights/similarity/rose.safetensors": True,
    "encoder/weights/tokenizer.json": True,
    "evaluation/leaderboard.py": False,
    "contract.py": False,
    "cli/sweep.py": False,
}


@pytest.mark.parametrize("name", CHANGES)
def test_code_and_trained_weights_make_a_new_run(quick, tmp_path, monkeypatch, name):
    monkeypatch.setattr(jobs, "PACKAGE", tmp_path / "package")

    def digest():
        jobs._versions.cache_clear()
        [job] = plan(grid_of(1), tmp_path, quick)
        return job.digest

    for each in CHANGES:
        (path := tmp_path / "package" / each).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    try:
        first = digest()
        assert digest() == first
        (tmp_path / "package" / name).write_bytes(b"2")
        assert (digest() != first) == CHANGES[name]
        monkeypatch.setattr(jobs, "version", lambda package: "0" if package == "faiss-cpu" else "1")
        assert digest() != first
    finally:
        jobs._versions.cache_clear()


def test_what_an_encoder_is_made_of_makes_a_new_run(quick, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()

    def digest():
        [job] = plan(expand(RNS | {"encoder": str(folder)}), tmp_path, quick)
        return job.digest

    (folder / "model.safetensors").write_bytes(b"1")
    first = digest()
    (folder / "model.safetensors").write_bytes(b"2")
    assert digest() != first


def test_the_weights_of_a_plugins_encoder_make_a_new_run(quick, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom types import SimpleNamespace\n"
        "from rose_kit.registry import encoders\n"
        "at = Path(__file__).with_name('weights')\n"
        "encoders.register('mine')(lambda: SimpleNamespace(fingerprint=at.read_text()))\n"
    )
    load_plugin(tmp_path / "mine.py")
    cells = expand(RNS | {"encoder": "mine"}, plugin=tmp_path / "mine.py")
    digests = []
    try:
        for weights in "aab":
            (tmp_path / "weights").write_text(weights)
            digests += [job.digest for job in plan(cells, tmp_path, quick)]
    finally:
        del encoders["mine"]
    assert cells[0].plugin and digests[0] == digests[1] != digests[2]


def test_a_dataset_of_a_plugin_is_swept_and_its_code_makes_a_new_run(run, tmp_path):
    """A partial of a function of another file, as one writes it; the kernel has to load the plugin too."""
    plugin, grid = tmp_path / "mine.py", tmp_path / "grid.yaml"
    plugin.write_text(
        "from functools import partial\nfrom rose_kit import register_dataset\n"
        "from data_scripts.scenes import support_and_query\n"
        "register_dataset('tiny')(partial(support_and_query, pool=8, queries=2, size=48))\n"
    )
    grid.write_text("{method: knn-clip, encoder: handcrafted, dataset: tiny, seeds: 1}")
    args = ("sweep", grid, "--plugin", plugin, "--out", tmp_path / "runs")
    try:
        assert "1 runs done" in run(*args, "--jobs", 1) and "finished  knn-clip" in run(*args, "--dry-run")
        plugin.write_text(plugin.read_text().replace("queries=2", "queries=3"))
        assert "to do     knn-clip" in run(*args, "--dry-run")
    finally:
        datasets.pop("tiny", None)


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == 64


def test_a_killed_sweep_goes_on_where_it_was(quick, tmp_path):
    """A real kill of a real process; its kernel ends too, and what was finished is not done again."""
    code = (
        "import sys; from pathlib import Path; from rose_kit.evaluation.grid import expand;"
        "from rose_kit.evaluation.jobs import plan; from rose_kit.evaluation.sweep import sweep;"
        "what = {'method': 'zero-shot', 'encoder': 'handcrafted', 'dataset': 'scenes'};"
        "cells = expand(what | {'seeds': [1, 2, 99, 3]});"
        "sweep(plan(cells, 'runs', Path(sys.argv[1])), workers=1, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(quick)], cwd=tmp_path)
    todo = plan(grid_of([1, 2, 99, 3]), tmp_path / "runs", quick)
    slow = todo[2].folder / "evaluate.ipynb"
    deadline = time.monotonic() + 400
    while not (slow.exists() and todo[1].finished) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [job.finished for job in todo] == [True, True, False, False]
    stamps = [(job.folder / "run.json").stat().st_mtime_ns for job in todo[:2]]
    assert kernels and not psutil.wait_procs(kernels, timeout=30)[1]
    (tmp_path / "hurry").touch()
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        report = sweep(todo, workers=1, progress=False)
    finally:
        os.chdir(here)
    assert [job.cell.seed for job in report.done] == [99, 3] and len(report.kept) == 2
    assert [(job.folder / "run.json").stat().st_mtime_ns for job in todo[:2]] == stamps


def test_the_same_on_dask(quick, tmp_path):
    from distributed import LocalCluster

    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    todo = plan(grid_of([1, 13]), tmp_path / "runs", quick)
    with LocalCluster(1, processes=False, threads_per_worker=2, **quiet) as cluster:
        report = sweep(todo, scheduler=cluster.get_client(), progress=False)
    assert [job.cell.seed for job in report.done] == [1] and "KeyError" in report.failed[0][1]


# --- rows and the real notebook -----------------------------------------------------------------------


def test_rows_give_what_evaluate_gives(folder):
    rows = image_rows("knn-clip", encoder="handcrafted", data=str(folder), seed=2, progress=False)
    support, query = default_splits(folder)
    methods = {"knn-clip": KnnClip()}
    [whole] = evaluate(
        support, query, load_encoder("handcrafted"), methods, shots=1, seeds=[2], progress=False
    )
    sums = [np.sum(rows[name].to_list(), axis=0) for name in ("target", "predicted", "intersection")]
    assert 100 * dataset_iou(*sums) == pytest.approx(whole["miou"], abs=1e-12)
    assert list(rows.image_id) == whole["query_ids"] and rows.support.nunique() == 1
    assert rows.iou.between(0, 1).all() and (rows.giou >= rows.iou - 1e-12).all()


def test_the_real_notebook_takes_the_fields_of_a_cell():
    declared = declared_parameters(nbformat.read(NOTEBOOK, 4))
    [cell] = expand(RNS)
    assert set(declared) == {*cell.parameters, "out"}


def test_the_command_with_the_real_notebook_on_a_folder(run, capsys, folder, tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"method: [knn-clip, zero-shot]\nencoder: handcrafted\nseeds: [1]\ndataset: {folder}\n")
    out = tmp_path / "runs"
    whole = ["sweep", str(grid), "--out", str(out), "--jobs", "1", "--baseline", "zero-shot"]
    assert cli.status(whole) == 1  # the baseline is one of those that fail: the others are told all the same
    text, err = capsys.readouterr()
    assert "baseline 'zero-shot' finished" in err.splitlines()[-1] and "| baseline" in text
    assert "1 runs done, 0 were finished, 1 failed" in text and "| knn-clip | 1 " in text
    assert re.search(
        r"^failed: zero-shot on .*: ValueError: .*no text.* \(see .*evaluate\.ipynb\)$", err, re.M
    )
    assert (out / "leaderboard.md").is_file() and len(list(out.glob("*/run.json"))) == 1
    grid.write_text(grid.read_text().replace(", zero-shot", ""))
    assert "0 runs done, 1 were finished, 0 failed" in run("sweep", grid, "--out", out)


# --- parameters of notebooks --------------------------------------------------------------------------

CELL = """k: int = 4  # neighbours
mu: float | None = None  # none: tuned
domain: "Literal['day', 'fog']" = "day"  # weather
shots: list = [1, 5]
lambdas: list = [0.1, 0.5]
classes: list = ["sky"]
pair: tuple = ()
options: dict = {}  # of the method
old = 3"""


@pytest.fixture(scope="module")
def described():
    cell = v4.new_code_cell(CELL, metadata={"tags": ["parameters"]})
    return described_parameters(v4.new_notebook(cells=[cell]))


def parse(text, described):
    return parse_parameters([text], {name: one.default for name, one in described.items()}, described)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=5", 5),
        ("mu=0.5", 0.5),
        ("mu=1", 1.0),
        ("mu=none", None),
        ("domain=fog", "fog"),
        ("shots=3", [3]),
        ("shots=3,4", [3, 4]),
        ("lambdas=0,1", [0.0, 1.0]),
        ("lambdas=[0, 0.5]", [0.0, 0.5]),
        ("classes=bus, cat", ["bus", "cat"]),
        ("classes=bus", ["bus"]),
        ("classes=1,2", ["1", "2"]),
        ("classes='a,b','c'", ["a,b", "c"]),
        ("pair=fog,1", ("fog", 1)),
        ('options={"k": 8}', {"k": 8}),
        ("old=4", 4),
    ],
)
def test_values_are_held_to_their_annotation(described, text, value):
    [got] = parse(text, described).values()
    assert repr(got) == repr(value)  # with the types of what a list holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k=0.5", "'0.5' is not of type int"),
        ("mu=soon", "'soon' is not of type float or none"),
        ("mu=True", "'True' is not of type float or none"),
        ("domain=rain", "'rain' is none of 'day', 'fog'"),
        ("options=[1]", "'[1]' is not of type dict"),
        ("options={[1]: 2}", "'{[1]: 2}' is not of type dict"),
        ("shots=one,2", "'one,2' is not of type list"),
        ("shots=0.5", "'0.5' is not of type list"),
        ("classes=bus,,cat", "'bus,,cat' is not of type list"),
        ("classes=[bus", "'[bus' is not of type list"),
        ("classes=[1]", "'[1]' is not of type list"),
        ("shot=1", "unknown parameter 'shot', did you mean 'shots'?"),
    ],
)
def test_wrong_values_are_refused_with_what_is_known_of_the_valid_ones(described, text, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        parse(text, described)
    for known in ("k=4 (int: neighbours)", "mu=None (float or none: none: tuned)", "old=3 (int)"):
        assert known in str(error.value)


def test_the_command_lists_parameters(run):
    assert "shots=1 (int: annotated images per class in the memory)" in run("run", NOTEBOOK, "--list")
