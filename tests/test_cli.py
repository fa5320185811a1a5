"""The command line: each command once for real on small data, and one table of wrong inputs.

The table holds a command line, and what its one line on standard error must name.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from nbformat import v4, write
from PIL import Image

import rose_kit
from conftest import write_folder
from data_scripts.news import THRESHOLDS
from rose_kit import RNS, Freeda, HandcraftedEncoder, SupportMemory, Windows, cli, load_encoder
from rose_kit.data import read_classes
from rose_kit.registry import region_makers
from rose_kit.types import join_names
from rose_kit.viz.export import read_coco
from rose_kit.web import providers
from rose_kit.web.net import WebError
from tests.imagefiles import turned

QUICK = ("--encoder", "handcrafted", "--methods", "knn-clip", "--shots", "1", "--seeds", "1,2")
QUESTION = "Segment the current regatta champion."
GIVEN = ("--known", "dog,boat", "--thresholds", THRESHOLDS)  # for a provider that has none
MINE = "from rose_kit import KnnClip, register_method\n@register_method('mine')\nclass Mine(KnnClip): "


def rows_of(path):
    return json.loads(path.read_text())["rows"]


def notebook(path, source, parameters='k: int = 4  # how many\nout: str = "x"  # folder'):
    """A notebook with parameters and one result."""
    tagged = ((parameters, "parameters"), (source, "result"))
    cells = [v4.new_code_cell(text, metadata={"tags": [tag]}) for text, tag in tagged]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    write(v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_evaluate_compares_methods_on_a_folder(run, folder, tmp_path):
    out = tmp_path / "new" / "out.json"
    given = ("--methods", "rns, knn-clip", "--set", "rns.k=2", "--shots", "1,2", "--classes", "bus,sky")
    lines = run("evaluate", folder, *QUICK, *given, "--json", out).splitlines()
    about, table = json.loads(out.read_text()), pd.read_csv(out.with_suffix(".csv"))
    assert about["versions"]["numpy"] == np.__version__ and about["support"] == ["p0", "p2", 3]
    assert about["options"]["classes"] == ["bus", "sky"] and about["options"]["options"] == ["rns.k=2"]
    assert len(table) == 8 and table["per_class_iou: bus"][3] == about["rows"][3]["per_class_iou"]["bus"]
    assert lines[0].split() == ["method", "shots", "seeds", "mIoU"] and "±" in lines[1]
    rows = rows_of(out)
    assert [(r["method"], r["shots"], r["seed"]) for r in rows] == [
        (method, shots, seed) for shots in (1, 2) for seed in (1, 2) for method in ("rns", "knn-clip")
    ]
    for row in rows:
        assert row["query_ids"] == ["p3", "p4", "p5"] and set(row["support_ids"]) <= {"p0", "p1", "p2"}
        assert list(row["per_class_iou"]) == ["bus", "sky"] and 60 < row["miou"] <= 100


def test_evaluate_draws_datasets_by_name_and_leaves_out_what_needs_text(few, tmp_path, capsys):
    out = tmp_path / "out.json"
    drawn = ["--size", "48", "--limit", "2", "--domain", "fog", "--json", str(out)]
    args = ["evaluate", few, *QUICK, "--methods", "zero-shot,knn-clip", *drawn]
    assert cli.status(args) == 0
    err = capsys.readouterr().err
    assert "warning: left out: zero-shot" in err and "warning: 2 seed(s) are few" in err
    assert "warning: classes that no method knows, with an IoU below 1 %: " in err
    row = rows_of(out)[0]
    assert row["query_ids"] == ["scene-2000000-fog", "scene-2000002-fog"]
    assert cli.status([*args, "--query-seed", "7"]) == 0
    other = rows_of(out)[0]
    assert other["query_ids"] == ["scene-2007000-fog", "scene-2007002-fog"]
    assert other["support_ids"] == row["support_ids"]
    capsys.readouterr()
    assert cli.status([*args, "--query-seed", "1000"]) == 2 and "got 1000" in capsys.readouterr().err


def test_folders_get_the_encoder_of_photographs_and_are_told_that_it_knows_no_names(
    folder, few, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where "photos" is a folder too
    for data, encoder, told in ((folder.name, "photos", "knows no class names"), (few, "bundled", "")):
        assert cli.status(["memory", "build", data, "--out", f"memory of {data}"]) == 0
        assert [told in line for line in capsys.readouterr().err.splitlines()] == [True] * bool(told)
        assert SupportMemory.load(f"memory of {data}").encoder == encoder


def test_evaluate_draws_support_from_another_folder_whose_classes_match_by_name(
    run, refused, folder, tmp_path
):
    """Other ids for the classes, other images, further classes: names alone count."""
    other, out = write_folder(tmp_path / "other", prefix="q"), tmp_path / "out.json"
    (other / "classes.txt").write_text("3,sky\n0,grass\n7,bus\n9,sheep\n")
    for path in (other / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask < 7, 3 - mask, mask)).save(path)
    run("evaluate", folder, *QUICK, "--support", other, "--json", out)
    for row in rows_of(out):
        assert set(row["support_ids"]) <= {"q0", "q1", "q2"} and row["query_ids"] == ["p3", "p4", "p5"]
        assert row["miou"] > 60
    given = ("evaluate", other, *QUICK, "--support", folder)
    refused(*given, said=["'sheep'", "sky, grass, bus", "match by name"])
    run(*given, "--classes", "sky,grass", "--support-split", "val", "--json", out)
    assert {*rows_of(out)[0]["per_class_iou"]} == {"sky", "grass"}
    refused("evaluate", "scenes", *QUICK, "--support", folder, said=["scenes", "support_from"])


def test_evaluate_takes_a_preset_a_plugin_splits_and_regions(run, folder, tmp_path):
    (tmp_path / "mine.py").write_text(f"{MINE}pass")
    preset, out = tmp_path / "mine.yaml", tmp_path / "out.json"
    preset.write_text("{methods: [mine], seeds: [7], encoder: handcrafted, set: [mine.k=2, rns.k=3]}")
    given = ("--plugin", tmp_path / "mine.py", "--regions", "slic:segments=12", "--limit", 1, "--shots", 1)
    splits = ("--support-split", "val", "--query-split", "train")
    run("evaluate", folder, "--preset", preset, *given, *splits, "--json", out)
    [row] = rows_of(out)
    assert (row["method"], row["seed"], row["query_ids"]) == ("mine", 7, ["p0"])


def test_presets_are_the_released_configurations():
    """Windows, seeds and adapter of RNS for OpenCLIP and DINOv3.txt, written down a second time."""
    command = typer.main.get_command(cli.app).commands["evaluate"]

    def preset(*names):
        given = command.make_context("evaluate", ["photos", "--preset", *names, "--set", "rns.k=8"]).params
        return given, cli.make_methods(given["methods"], given["options"], given["preset"])

    for name, support, query in (
        ("rns-openclip", Windows(448, (448, 224), 112), Windows(448, (448,), 224)),
        ("rns-dinov3txt", Windows(None, (384,), 112), Windows(384, (384,), 192)),
    ):
        given, made = preset(f"{name},rns-sam")
        assert cli.make_windows(given["support_windows"], None) == support
        assert cli.make_windows(given["query_windows"], None) == query
        assert given["seeds"] == [100, 18, 42, 84] and given["regions"] == "sam2"
        lambdas = (0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
        own = {"solver": "adamw", "steps": 700, "lr": 2e-3, "tau": 0.1, "lambdas": lambdas}
        assert made["rns"] == RNS(k=8, beta_fused=1.5, beta_pseudo=0.2, weight_decay=5e-4, **own)
    sam2 = {name: field.default for name, field in region_makers["sam2"].__dataclass_fields__.items()}
    thresholds = {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.4, "points_per_side": 32}
    checkpoint = {"checkpoint": "facebook/sam2.1-hiera-large", "largest_on_top": True, "device": "cpu"}
    assert sam2 == thresholds | checkpoint
    given, made = preset("freeda")
    assert made["freeda"] == Freeda(weight=0.5, global_share=1.0, sigmoid=True)
    assert given["regions"] == "felzenszwalb"


def test_memory_build_add_remove_info(run, capsys, memory, folder, tmp_path):
    held = SupportMemory.load(memory)
    held.check_encoder(load_encoder("handcrafted"))
    assert held.images == ("p0", "p1", "p2") and held.encoder == "handcrafted"
    assert held.summary() == {"sky": 3, "grass": 3, "bus": 2}
    assert held.rows.sources[0] == str(folder / "images" / "p0.jpg") and held.thumbnail(0) is not None
    assert "6 images" in run("memory", "add", memory, folder, "--split", "val")
    assert "removed 3 " in run("memory", "remove", memory, "--image", "p3")
    assert "removed 4 " in run("memory", "remove", memory, "--class", "bus")
    assert "removed 1 " in run("memory", "remove", memory, "--image", "p4", "--class", "sky")
    lines = run("memory", "info", memory).splitlines()
    assert "9 prototypes of 2 classes in 5 images" in lines[0] and lines[1] == "encoder: handcrafted"
    assert [line.split() for line in lines[3:]] == [["grass", "5"], ["sky", "4"]]
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "classes.txt").write_text("0,sea\n3,sand\n7,boat\n")
    assert cli.status(["memory", "add", str(memory), str(other)]) == 0
    err = capsys.readouterr().err
    assert "image id(s)" in err and f"is {folder / 'images'}" in err  # other images under these ids
    shots = ("--encoder", "handcrafted", "--shots", 1, "--seed", 2, "--split", "val")
    run("memory", "build", folder, *shots, "--out", tmp_path / "few")
    assert set(SupportMemory.load(tmp_path / "few").images) < {"p3", "p4", "p5"}


def test_an_image_id_may_be_written_in_any_form_of_unicode(run, folder, tmp_path):
    (folder / "images" / "p0.jpg").rename(folder / "images" / "cafe\u0301.JPG")
    (folder / "masks" / "p0.png").rename(folder / "masks" / "caf\u00e9.png")
    shutil.rmtree(folder / "splits")
    run("memory", "build", folder, "--encoder", "handcrafted", "--out", tmp_path / "memory")
    assert "removed 2 " in run("memory", "remove", tmp_path / "memory", "--image", "cafe\u0301")


def test_segment_writes_labels_overlays_evidence_and_coco(run, refused, memory, folder, tmp_path):
    out, coco = tmp_path / "deep" / "out", tmp_path / "coco" / "all.json"
    photos = [folder / "images" / name for name in ("p4.jpg", "p5.jpg")]
    run("segment", *photos, "--memory", memory, "--out", out, "--coco", coco)
    names = {f"{stem}.{kind}" for stem in ("p4", "p5") for kind in ("png", "overlay.png", "evidence.json")}
    assert {p.name for p in out.iterdir()} == names | {"classes.txt", cli.RECORD}
    assert read_classes(out / "classes.txt") == {0: "sky", 1: "grass", 2: "bus"}
    labels, truth = np.asarray(Image.open(out / "p4.png")), Image.open(folder / "masks" / "p4.png")
    assert np.mean(np.array([0, 3, 7])[labels] == truth) > 0.85
    masks, _ = read_coco(coco)
    assert list(masks) == ["p4.jpg", "p5.jpg"] and np.array_equal(masks["p4.jpg"], labels)
    record, held = json.loads((out / "p4.evidence.json").read_text()), SupportMemory.load(memory)
    for name, entry in record["classes"].items():
        weights = [p["weight"] for p in entry["prototypes"]]
        assert all(p["effect"] is None for p in entry["prototypes"])
        assert sum(weights) + entry["rest"] == pytest.approx(entry["score"], abs=1e-4)
        row = held.lookup([entry["prototypes"][0]["prototype_id"]])
        assert row.class_names[0] == entry["prototypes"][0]["class"] == name
    pixels, lying = np.asarray(Image.open(photos[0])), tmp_path / "p4.png"
    Image.fromarray(np.rot90(pixels)).save(lying, exif=turned(6))  # which a viewer shows upright
    again = ("segment", lying, "--memory", memory, "--out", tmp_path / "two", "--method", "knn-clip")
    run(*again, "--classes", "grass,sky", "--regions", "slic:segments=12", "--effects")
    assert Image.open(tmp_path / "two" / "p4.png").size == pixels.shape[1::-1]
    record = json.loads((tmp_path / "two" / "p4.evidence.json").read_text())["classes"]
    effects = [p["effect"] for entry in record.values() for p in entry["prototypes"]]
    assert max(effects) < 1e-6 and min(effects) < -0.01  # all of them voted for the answer
    refused(*again, said=["classes.txt", "sky, grass, bus"])  # ids of a folder keep their meaning


def rewrite_masks(folder, table):
    """Replace ids in all masks of a folder."""
    for path in (folder / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.vectorize(lambda value: table.get(value, value))(mask).astype(np.uint8)).save(path)


BINARY, BLANK = {3: 255, 7: 255}, {0: 255, 3: 255, 7: 255}
LOST = [  # classes.txt, ids that are replaced in the masks, commands, what they say
    ("0,sky\n1,cat\n", BINARY, "build shots add evaluate sweep", ["0 and 255 only", "'cat'", "1 for 255"]),
    ("0,sky\n255,cat\n", BINARY, "build shots add evaluate sweep", ["255 is 'cat'", "ignore"]),
    ("0,sky\n3,grass\n", BLANK, "build shots add", ["every pixel", "255: ignore"]),
    ("0,sky\n3,grass\n", BLANK, "evaluate sweep", ["sky"]),
]


@pytest.mark.parametrize(("classes", "table", "commands", "said"), LOST)
def test_masks_that_lose_a_class_are_refused_before_any_number(
    capsys, folder, memory, tmp_path, classes, table, commands, said
):
    (folder / "classes.txt").write_text(classes)
    rewrite_masks(folder, table)
    build = ("memory", "build", folder, "--encoder", "handcrafted", "--out", tmp_path / "new")
    grid = {"methods": ["knn-clip"], "dataset": str(folder), "encoder": "handcrafted", "seeds": [1]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    lines = {"build": build, "shots": (*build, "--shots", 1), "add": ("memory", "add", memory, folder)}
    lines |= {"evaluate": ("evaluate", folder, *QUICK)}
    lines |= {"sweep": ("sweep", tmp_path / "grid.yaml", "--out", tmp_path / "s")}
    for command in commands.split():
        cli.status([str(part) for part in lines[command]])
        out, err = capsys.readouterr()
        assert "100.0" not in out and "prototypes" not in out, command
        assert all(text in err for text in said), (command, err)
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_a_class_without_a_pixel_and_what_is_left_out_are_told_once(folder, tmp_path, capsys):
    (folder / "classes.txt").write_text("0,sky\n3,grass\n7,bus\n8,kite\n")
    (folder / "images" / "more").mkdir()
    shutil.rmtree(folder / "splits")
    build = ["memory", "build", folder, "--encoder", "handcrafted", "--out", tmp_path / "new"]
    for line, told in (
        (build, ["no image to add holds: kite"]),
        ([*build[:-1], tmp_path / "two", "--shots", 1], ["no image to draw holds: kite"]),
        (["evaluate", folder, *QUICK], ["no image to answer holds: kite", "no image to draw holds: kite"]),
    ):
        assert cli.status([str(part) for part in line]) == 0
        err = capsys.readouterr().err
        assert all(err.count(text) == 1 for text in [*told, "left out: subfolders: 1 (images/more)"]), err
        assert err.count("warning") - err.count("2 seed(s) are few") == len(told) + 1
    rewrite_masks(folder, {3: 0, 7: 0})
    assert cli.status([str(part) for part in line]) == 0
    assert "'sky' is there alone: answered everywhere, it scores 100" in capsys.readouterr().err


def test_results_are_written_anew_while_nobody_has_changed_them(run, refused, memory, folder, tmp_path):
    out, coco, table = tmp_path / "out", tmp_path / "coco.json", tmp_path / "table.json"
    image = folder / "images" / "p4.jpg"
    call = ("segment", image, "--memory", memory, "--out", out, "--method", "knn-clip", "--coco", coco)
    run(*call, "--classes", "sky,grass,bus")
    one = len(json.loads(coco.read_text())["annotations"])
    run(*call, "--classes", "sky, grass, bus", "--instances")
    found = json.loads(coco.read_text())["annotations"]
    assert len(found) >= one and all(0 < a["score"] <= 1 for a in found)
    for _ in range(2):
        run("evaluate", folder, *QUICK, "--json", table)
    for path in (coco, out / "p4.evidence.json", out / "p4.png"):
        path.write_bytes(mine := path.read_bytes() + b" ")
        refused(*call, said=[path])
        assert path.read_bytes() == mine
        path.unlink()


@pytest.mark.parametrize("name", ["red, dark", 'the "sky"', "caf\u00e9 'noir'", "a;b"])
def test_a_name_goes_from_a_folder_through_memory_and_options_to_results(run, tmp_path, name):
    folder = write_folder(tmp_path / "photos")
    (folder / "classes.txt").write_text(f"0,{join_names([name])}\n3,grass\n7,bus\n", encoding="utf-8")
    run("memory", "build", folder, "--encoder", "handcrafted", "--out", tmp_path / "memory")
    assert f"  {name}" in run("memory", "info", tmp_path / "memory")
    image, out = folder / "images" / "p4.jpg", tmp_path / "out"
    given = ("--memory", tmp_path / "memory", "--out", out, "--coco", tmp_path / "c.json")
    run("segment", image, *given, "--method", "knn-clip", "--classes", join_names(["bus", name]))
    assert read_classes(out / "classes.txt") == read_coco(tmp_path / "c.json")[1] == {0: "bus", 1: name}
    preset = tmp_path / "names.yaml"
    preset.write_text(yaml.safe_dump({"classes": [name, "bus"]}))
    run("evaluate", folder, *QUICK, "--preset", preset, "--json", tmp_path / "rows.json")
    assert list(rows_of(tmp_path / "rows.json")[0]["per_class_iou"]) == [name, "bus"]
    assert cli.parse_value("x", f"[{join_names(['bus (old)', name])}]", ["y"]) == ["bus (old)", name]


def test_ask_the_miniature_web(run, tmp_path):
    mask = tmp_path / "out" / "mask.png"
    out = run("ask", "example", QUESTION, "--date", "2026-03-01", "--out", mask)
    lines = dict(line.split(None, 1) for line in reversed(out.splitlines()))
    assert lines["gate"].startswith("look up") and "2026-03-01" in lines["question"]
    assert lines["answer"].split(" (")[0] in lines["prompt"] and lines["verified"] and lines["candidates"]
    sources = [line.split()[1].rstrip(",") for line in out.splitlines() if line.startswith("source")]
    assert len(sources) > 2 and max(sources) <= "2026-03-01"
    pixels, image = np.asarray(Image.open(mask)), np.asarray(Image.open(mask.with_name("mask.image.png")))
    assert pixels.shape == (160, 160) and set(np.unique(pixels)) == {0, 255}
    changed = (np.asarray(Image.open(mask.with_name("mask.overlay.png"))) != image).any(2)
    assert changed[pixels > 0].mean() > 0.9
    again = run("ask", mask.with_name("mask.image.png"), "Segment the boat.", "--out", tmp_path / "boat.png")
    assert "no look-up" in again and "\nanswer" not in again


def test_ask_a_folder_whose_pages_cannot_steer_the_terminal(run, tmp_path):
    (tmp_path / "pages").mkdir()
    text = "Tamsin is the new mayor. The mayor since May is Tamsin, a dog."
    (tmp_path / "pages" / "Mayor\x07\x9b2J.txt").write_text(text)
    Image.new("RGB", (40, 40), "white").save(tmp_path / "photo.png")
    given = ("--provider", tmp_path / "pages", *GIVEN, "--out", tmp_path / "m.png")
    out = run("ask", tmp_path / "photo.png", "Segment the mayor.", *given)
    assert "answer     Tamsin" in out and "Mayor" in out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert cli.printable("a\x1b[2Jb\r\nverified\u202e kept") == "a [2Jb  verified  kept"


def test_ask_without_the_network_answers_plainly_with_status_1(tmp_path, capsys, monkeypatch):
    def away(self, api, **params):
        raise WebError("no route to host")

    monkeypatch.setattr(providers.Wikimedia, "_ask", away)
    Image.new("RGB", (40, 40), "white").save(tmp_path / "photo.png")
    args = ["ask", tmp_path / "photo.png", QUESTION, "--provider", "wikimedia", *GIVEN]
    args += ["--out", tmp_path / "m.png"]
    assert cli.status([str(a) for a in args]) == 1
    out, err = capsys.readouterr()
    assert "no route to host" in err and (tmp_path / "m.png").exists() and "written" in out


def test_run_passes_parameters_and_prints_the_result_or_names_the_cell_that_fails(run, tmp_path, capsys):
    source = "open(out + '/k.txt', 'w').write(str(k))\nprint('k is', 8 // k)"
    path = notebook(tmp_path / "small.ipynb", source)
    before = path.read_bytes()
    out = run("run", path, "-p", "k=4", "--out", tmp_path / "there")
    assert "k is 2" in out and "k.txt" in out and "small.ipynb" in out
    assert (tmp_path / "there" / "k.txt").read_text() == "4" and path.read_bytes() == before
    assert cli.status(["run", str(path), "-p", "k=0", "--out", str(tmp_path / "there")]) == 1
    assert "cell [" in (err := capsys.readouterr().err) and "ZeroDivisionError" in err
    for source, status, said in (
        ("assert k > 5", 1, "k > 5"),
        ("raise ValueError(f'{k} is odd')", 2, "5 is odd"),
        ("from rose_kit import DataError; raise DataError('no folder')", 2, "no folder"),
    ):
        path = notebook(tmp_path / "small.ipynb", source)
        assert cli.status(["run", str(path), "-p", "k=5", "--out", str(tmp_path / "there")]) == status
        err = capsys.readouterr().err
        assert said in err and err.splitlines()[-1].startswith("error: ")


def test_sweep_makes_each_table_once_and_a_leaderboard(run, folder, tmp_path):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    (tmp_path / "mine.py").write_text(f"{MINE}pass")
    fixed = {"methods": ["knn-clip"], "dataset": str(folder), "encoder": "handcrafted", "seeds": [1, 2]}
    grid.write_text(yaml.safe_dump(fixed | {"shots": [1, 2]}))
    call = ("sweep", grid, "--out", out, "--plugin", tmp_path / "mine.py")
    first, again = run(*call), run(*call)
    assert "0 of 2 tables" in first and "knn-clip" in first and "mine" in first and "2 of 2" in again
    assert [p.name for p in out.glob("leaderboard.*")] == ["leaderboard.csv"]


def test_check_says_what_is_right_and_wrong_and_a_sweep_refuses_what_is_wrong(run, capsys, folder, tmp_path):
    template = Path(__file__).parents[1] / "notebooks" / "plugins" / "my_encoder.py"
    assert run("check", template).count("ok") == 2
    args = ("--encoder", "my-encoder", "--methods", "knn-clip", "--shots", 1, "--seeds", 1)
    assert "knn-clip" in run("evaluate", folder, *args, "--plugin", template)
    path, grid = tmp_path / "mine.py", tmp_path / "grid.yaml"
    path.write_text(f"{MINE}\n    def predict(self, *a, initial_weight=None): return 1")
    grid.write_text("{methods: [rns], dataset: scenes}")
    for command in (["check", path], ["sweep", grid, "--plugin", path, "--out", tmp_path / "out"]):
        assert cli.status([str(word) for word in command]) == 1
        out = capsys.readouterr().out
        assert out.startswith("mine\n") and "FAIL  predictions" in out
    assert not (tmp_path / "out").exists()


def test_doctor_checks_every_part_and_stops_at_a_fault(run, capsys, monkeypatch):
    assert run("doctor").count("ok  ") == 3

    def broken(*args, **options):
        raise OSError("weights are\ntruncated")

    monkeypatch.setattr("rose_kit.load_encoder", broken)
    assert cli.status(["doctor"]) == 2
    out, err = capsys.readouterr()
    assert err == "error: weights are truncated\n" and out.count("ok  ") == 1


def test_the_real_program(folder):
    def program(*args):
        command = [sys.executable, "-m", "rose_kit", *map(str, args)]
        path = os.pathsep.join([str(Path(rose_kit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
        return done.returncode, done.stdout, done.stderr

    assert program("--version") == (0, f"rose_kit {rose_kit.__version__}\n", "")
    code, out, err = program("evaluate", folder, *QUICK, "--seeds", "1,x")
    assert (code, out) == (2, "") and "'x'" in err and err.count("\n") == 1


def test_an_interrupt_is_130_and_a_bug_is_not_reported_as_a_users_mistake(monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "find_notebook", interrupted)
    assert cli.status(["run", "00"]) == 130
    monkeypatch.setattr(cli, "find_notebook", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.status(["run", "00"])


# --- wrong inputs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with right and wrong things of every kind, which no refused command may change."""
    here = tmp_path_factory.mktemp("world")
    photos = write_folder(here / "photos")
    build = ["memory", "build", str(photos), "--encoder", "handcrafted", "--out"]
    assert cli.status([*build, str(here / "memory")]) == 0
    for name, fingerprint in (("void", HandcraftedEncoder().fingerprint), ("old", "handcrafted 0")):
        SupportMemory(512, fingerprint=fingerprint, encoder="handcrafted").save(here / name)
    SupportMemory(512).save(here / "nameless")
    [file] = shutil.copytree(here / "memory", here / "torn").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-40])
    image = (photos / "images" / "p4.jpg").read_bytes()
    (here / "cut.jpg").write_bytes(image[:-200])
    (write_folder(here / "cut") / "images" / "p5.jpg").write_bytes(image[:-200])
    shutil.copy(photos / "images" / "p4.jpg", here / "p4.jpg")
    (here / "mine").mkdir()
    for name in ("mine.json", "mine/p4.overlay.png", "mine/leaderboard.csv"):
        (here / name).write_text("{}")
    (here / "divides.py").write_text("x = 1\ny = x / 0\n")
    (here / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (here / "silent.py").write_text("x = 1\n")
    notebook(here / "small.ipynb", "1", "k: int = 4\nx: float = 1.5\nseeds: list = [1, 2]")
    notebook(here / "loose.ipynb", "1", "k = 2 * seed")
    yaml_files = {
        "keys": "[rns]", "key": "{method: rns}", "torn": "methods: [rns", "kk": "{set: knn-clip.kk=2}",
        "grid": "{methods: [rns]}", "twice": "{methods: [rns], dataset: photos, seeds: [1], seeds: [2]}",
        "fine": "{methods: [knn-clip], dataset: photos, encoder: handcrafted, seeds: [1], shots: 1}",
    }  # fmt: skip
    for name, text in yaml_files.items():
        (here / f"{name}.yaml").write_text(text)
    return here


EVALUATE = "evaluate photos --encoder handcrafted --methods knn-clip --shots 1 --seeds 1"
ON = {name: EVALUATE.replace("photos", name) for name in ("scenes", "nowhere", "cut")}
BUILD = "memory build photos --encoder handcrafted --out new"
SEGMENT = "segment --memory memory --out out p4.jpg"
ASK = "ask example Segment-the-current-regatta-champion. --out m.png"
WRONG = f"""
docter | docter
{EVALUATE} --colour red | --colour
run | notebook
{EVALUATE} --encoder handcraftd | 'handcraftd' | bundled
{EVALUATE} --methods rsn | 'rsn' | 'rns'
{EVALUATE} --seeds 1,two | 'two'
{EVALUATE} --preset rms | 'rms' | rns, rns-dinov3txt, rns-openclip
{EVALUATE} --preset key.yaml | key.yaml | 'method' | 'methods'
{EVALUATE} --preset kk.yaml | knn-clip | 'kk' | 'k'
{EVALUATE} --preset keys.yaml | keys.yaml | 'rns'
{EVALUATE} --set knn-clip.kk=3 | 'kk' | 'k'
{EVALUATE} --set knn-clip.k=many | 'many' | int
{EVALUATE} --set rns.k=3 | 'rns' | knn-clip
{EVALUATE} --regions slic:segment=9 | 'segment' | 'segments'
{EVALUATE} --regions sam2 | 'facebook/sam2.1-hiera-large' | fetched once
{EVALUATE} --dense plain | 'handcrafted' | 'dense'
{EVALUATE} --encoder bundled --dense maskclp | 'maskclp' | did you mean 'maskclip'
{EVALUATE} --encoder ViT-B-16-SigLIP2/webli | 'ViT-B-16-SigLIP2/webli' | fetched once
{EVALUATE} --plugin divides.py | divides.py | line 2 | ZeroDivisionError
{EVALUATE} --plugin exits.py | exits.py | sys.exit(3)
{EVALUATE} --json photos | 'photos'
{EVALUATE} --json mine.json | 'mine.json'
{EVALUATE} --classes "sky | CSV
{EVALUATE} --classes Bus,sky | 'Bus' | did you mean 'bus'
{EVALUATE} --domain fog | 'photos' | domain
{ON["scenes"]} --support-split train | 'support' | scenes
{ON["cut"]} | p5.jpg
memory remove memory --class buss | 'buss' | 'bus'
memory info torn | torn
memory info nowhere | 'nowhere'
memory add memory photos | 'p0'
memory add old photos | 'handcrafted 0' | handcrafted 1
memory add nameless photos | nameless
{BUILD.replace("new", "memory")} | memory
{BUILD} --seed -1 | --seed | 0
{BUILD} --shots -1 | shots | -1
{SEGMENT} cut.jpg | cut.jpg
{SEGMENT} photos/images/p4.jpg | p4
{SEGMENT} --method zero-shot | text
{SEGMENT} --method supervised | 'supervised'
{SEGMENT} --classes bus,car | 'car' | sky, grass, bus
{SEGMENT} --out photos/masks | p4.png
{SEGMENT} --out photos | classes.txt
{SEGMENT} --coco p4.jpg | 'p4.jpg'
{SEGMENT} --coco out/p4.png | 'out/p4.png'
{SEGMENT} --coco out/../out/classes.txt | classes.txt
{SEGMENT} --out mine | 'mine/p4.overlay.png'
{SEGMENT} --instances | --coco
{SEGMENT} --memory void | 'void'
{ASK.replace("example", "nowhere.png")} | nowhere.png
{ASK} --date March | --date | 'March'
{ASK} --provider alta | 'alta' | duckduckgo, mini, wikimedia
{ASK} --llm m | 'm' | OPENAI_BASE_URL
ask p4.jpg Segment-the-dog. --out m.png --segmenter sam | 'sam' | zero-shot
ask p4.jpg Segment-the-dog. --out m.png --encoder handcrafted | another encoder | 'handcrafted 1 | --calibrate
ask p4.jpg Segment-the-dog. --out m.png --provider wikimedia --known dog | 'bundled/clear' | --calibrate
ask p4.jpg Segment-the-dog. --out m.png --provider wikimedia | --known
ask p4.jpg Segment-the-dog. --out m.png --encoder handcrafted --calibrate photos | episodes
{ASK} --calibrate photos --thresholds photos/classes.txt | classes.txt
ask p4.jpg Segment-the-dog. --out p4.jpg | 'p4.jpg'
ask p4.jpg Segment-the-dog. --out mine/p4.png | 'mine/p4.overlay.png'
run small.ipynb --out photos | 'photos' | empty
sweep fine.yaml --out mine | leaderboard.csv
run nowhere | 'nowhere' | 00_quickstart | experiments/evidence
run loose.ipynb | loose.ipynb
run small.ipynb -p k=5.5 | '5.5' | int | 4
run small.ipynb -p sedes=5 | 'sedes' | 'seeds'
run small.ipynb --out . | small.ipynb
sweep grid.yaml | dataset
sweep twice.yaml | twice.yaml | seeds
sweep fine.yaml --jobs 0 | 0
check silent.py | 'silent.py'
""".strip().splitlines()


@pytest.mark.parametrize("line", WRONG, ids=[line.replace(EVALUATE, "evaluate") for line in WRONG])
def test_wrong_inputs_are_refused_in_one_line_and_change_nothing(refused, world, monkeypatch, line):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # wherever it runs
    monkeypatch.chdir(world)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    files = [path for path in world.rglob("*") if path.is_file() and path.name != ".lock"]
    before = [path.read_bytes() for path in files]
    command, *said = line.split(" | ")
    refused(*command.split(), said=said)
    assert [path.read_bytes() for path in files] == before
    assert {path for path in world.rglob("*") if path.is_file() and path.name != ".lock"} == {*files}
