"""`rose-kit evaluate`: right calls and wrong ones."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import write_folder
from rose_kit.cli import evaluate as command
from rose_kit.registry import methods

CAMVID = Path(__file__).parents[2] / "shared" / "data" / "camvid"
QUICK = ("--encoder", "handcrafted", "--methods", "knn-clip", "--shots", "1", "--seeds", "1,2")


def rows_of(path):
    return json.loads(path.read_text())["rows"]


def test_a_folder_by_its_default_splits(run, folder, tmp_path):
    out = tmp_path / "new" / "out.json"
    text = run("evaluate", folder, *QUICK, "--methods", "rns, knn-clip", "--json", out)
    lines = text.splitlines()
    assert lines[0].split() == ["method", "shots", "seeds", "mIoU"]
    assert [line.split()[0] for line in lines[1:3]] == ["rns", "knn-clip"] and "±" in lines[1]
    rows = rows_of(out)
    assert [(r["method"], r["seed"]) for r in rows] == [
        ("rns", 1),
        ("knn-clip", 1),
        ("rns", 2),
        ("knn-clip", 2),
    ]
    for row in rows:
        assert row["query_ids"] == ["p3", "p4", "p5"] and set(row["support_ids"]) <= {"p0", "p1", "p2"}
        assert set(row["per_class_iou"]) == {"sky", "grass", "bus"} and 60 < row["miou"] <= 100


def test_splits_limit_and_classes(run, folder, tmp_path):
    out = tmp_path / "out.json"
    splits = ("--support-split", "val", "--query-split", "train")
    run("evaluate", folder, *QUICK, *splits, "--limit", 1, "--classes", "bus,sky", "--json", out)
    row = rows_of(out)[0]
    assert row["query_ids"] == ["p0"] and set(row["support_ids"]) <= {"p3", "p4", "p5"}
    assert list(row["per_class_iou"]) == ["bus", "sky"]


def test_scenes_keep_support_and_query_apart(run, few, tmp_path):
    out = tmp_path / "out.json"
    run("evaluate", few, *QUICK, "--size", 48, "--limit", 2, "--domain", "fog", "--json", out)
    row = rows_of(out)[0]
    assert row["query_ids"] == ["scene-2000000-fog", "scene-2000002-fog"]
    assert all(i.startswith("scene-10000") for i in row["support_ids"])


def test_methods_default_to_all_and_those_without_text_are_left_out(folder, capsys):
    from rose_kit import cli

    args = ["evaluate", str(folder), "--encoder", "handcrafted", "--shots", "1", "--seeds", "1"]
    assert cli.status(args) == 0
    out, err = capsys.readouterr()
    assert {line.split()[0] for line in out.splitlines()[1:]} >= {"rns", "knn-clip", "freeda"}
    assert "zero-shot" not in out and err.startswith("warning: left out: ") and err.count("\n") == 1


def test_a_plugin_brings_its_method(run, folder, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from rose_kit import KnnClip, register_method\n@register_method('mine')\nclass Mine(KnnClip): pass\n"
    )
    try:
        text = run("evaluate", folder, *QUICK, "--methods", "mine", "--plugin", plugin)
    finally:
        methods.pop("mine", None)
    assert text.splitlines()[1].startswith("mine")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--encoder", "handcraftd"], ["'handcraftd'", "bundled", "handcrafted"]),
        (["--methods", "rsn"], ["'rsn'", "did you mean 'rns'", "knn-clip", "freeda", "zero-shot"]),
        (["--methods", "rns,,rns"], ["'rns,,rns'"]),
        (["--methods", "zero-shot"], ["'handcrafted'", "no text", "zero-shot"]),
        (["--seeds", "1,two"], ["'two'", "1,2,3"]),
        (["--seeds", "1,-2"], ["'-2'", "whole number from 0"]),
        (["--seeds", "1,1"], ["'1,1'"]),
        (["--seeds", ""], ["''"]),
        (["--shots", "0"], ["shots", "0"]),
        (["--shots", "many"], ["'many'"]),
        (["--limit", "0"], ["limit", "0"]),
        (["--classes", "bus,zebra"], ["'zebra'", "sky, grass, bus"]),
        (["--preset", "rms"], ["'rms'", "rns, rns-dinov3txt, rns-openclip"]),
        (["--query-split", "val"], ["'val'", "None"]),
        (["--support-split", "trian", "--query-split", "val"], ["'trian'", "train, val"]),
        (["--support-split", "val", "--query-split", "val"], ["'p3'"]),
        (["--plugin", "missing.py"], ["'missing.py'"]),
        (["--colour", "red"], ["--colour", "--classes"]),
    ],
)
def test_wrong_options_are_refused(refused, folder, args, said):
    refused("evaluate", folder, *QUICK, *args, said=said)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--domain", "rain"], ["'rain'", "day, night, fog, snow"]),
        (["--size", "8"], ["8", "32"]),
        (["--support-split", "train"], ["'train'", "scenes"]),
    ],
)
def test_wrong_options_for_scenes_are_refused(refused, args, said):
    refused("evaluate", "scenes", *QUICK, *args, said=said)


@pytest.mark.parametrize(
    ("code", "said"),
    [("x = 1\ny = x / 0\n", ["line 2", "ZeroDivisionError"]), ("x = (\n", ["line 1", "SyntaxError"])],
)
def test_a_broken_plugin_is_told_by_its_line(refused, folder, tmp_path, code, said):
    plugin = tmp_path / "broken.py"
    plugin.write_text(code)
    refused("evaluate", folder, *QUICK, "--plugin", plugin, said=[plugin, *said])


def test_broken_folders_are_refused(refused, folder, tmp_path):
    refused("evaluate", tmp_path / "nowhere", *QUICK, said=[tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    refused("evaluate", tmp_path / "empty", *QUICK, said=[tmp_path / "empty", "classes.txt"])
    bare = write_folder(tmp_path / "bare", count=0)
    refused("evaluate", bare, *QUICK, said=[bare / "images", ".jpg", ".png"])


def test_a_mask_of_another_size_is_refused(refused, folder):
    from PIL import Image

    path = folder / "masks" / "p4.png"
    Image.open(path).resize((20, 20), 0).save(path)
    refused("evaluate", folder, *QUICK, said=[path, "(20, 20)", "(40, 48)"])


@pytest.mark.parametrize("image", ["p1", "p5"])  # one of the support, one of the queries
def test_a_truncated_jpeg_is_refused(refused, folder, image):
    path = folder / "images" / f"{image}.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    refused("evaluate", folder, *QUICK, "--shots", 3, said=[path, "truncated"])


def test_results_that_cannot_be_written_are_told_before_the_work(refused, folder, monkeypatch):
    monkeypatch.setattr(command, "make_encoder", lambda name: pytest.fail("too late"))
    inside = folder / "classes.txt" / "out.json"
    refused("evaluate", folder, *QUICK, "--json", inside, said=[folder / "classes.txt"])
    refused("evaluate", folder, *QUICK, "--json", folder, said=[folder, "folder"])


def rose_kit(*args):
    command = [sys.executable, "-m", "rose_kit.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_real_program(folder, tmp_path):
    done = rose_kit("evaluate", folder, *QUICK, "--json", tmp_path / "out.json")
    assert (done.returncode, done.stderr) == (0, "") and len(rows_of(tmp_path / "out.json")) == 2
    done = rose_kit("evaluate", folder, *QUICK, "--seeds", "1,x")
    assert (done.returncode, done.stdout) == (2, "") and re.fullmatch(
        r"error: [^\n]*'x'[^\n]+\n", done.stderr
    )
    done = rose_kit("segment", "--help")
    assert done.returncode == 0 and "[default: rns]" in done.stdout and "Example: " in done.stdout


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the photographs of ../shared/data/camvid")
def test_photographs(run, tmp_path):
    out = tmp_path / "out.json"
    run("evaluate", CAMVID, *QUICK, "--limit", 1, "--json", out)
    assert len(rows_of(out)) == 2 and all(row["miou"] > 5 for row in rows_of(out))
