"""The command line: what each command does on small data, and how what is wrong is told.

The second half is one table: a command line, and what its one line on standard error must name.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from nbformat import v4, write
from PIL import Image

import rose_kit
from conftest import write_folder
from rose_kit import HandcraftedEncoder, SupportMemory, cli, encoders, load_encoder
from rose_kit.data import read_classes
from rose_kit.model import methods
from rose_kit.viz.coco import read_coco
from rose_kit.viz.overlay import palette
from rose_kit.web import providers
from rose_kit.web.net import WebError

QUICK = ("--encoder", "handcrafted", "--methods", "knn-clip", "--shots", "1", "--seeds", "1,2")
QUESTION = "Segment the current regatta champion."
MINE = (
    "from rose_kit import KnnClip, register_method\n@register_method('mine')\nclass Mine(KnnClip):\n    pass"
)


@pytest.fixture(autouse=True)
def forget():
    """No test leaves its plugin in the registry."""
    before = dict(methods)
    yield
    methods.clear()
    methods.update(before)


def rows_of(path):
    return json.loads(path.read_text())["rows"]


def notebook(path, source, parameters='k: int = 4  # how many\nout: str = "x"  # folder'):
    """A notebook with parameters and one result."""
    tagged = ((parameters, "parameters"), (source, "result"))
    cells = [v4.new_code_cell(text, metadata={"tags": [tag]}) for text, tag in tagged]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    write(v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_compares_methods_on_the_default_splits(run, folder, tmp_path):
    out = tmp_path / "new" / "out.json"
    given = ("--methods", "rns, knn-clip", "--set", "rns.k=2", "--shots", "1,2")
    lines = run("evaluate", folder, *QUICK, *given, "--json", out).splitlines()
    assert lines[0].split() == ["method", "shots", "seeds", "mIoU"]
    assert {line.split()[0] for line in lines[1:5]} == {"rns", "knn-clip"} and "±" in lines[1]
    rows = rows_of(out)
    asked = {(m, shots, seed) for m in ("rns", "knn-clip") for shots in (1, 2) for seed in (1, 2)}
    assert {(r["method"], r["shots"], r["seed"]) for r in rows} == asked and len(rows) == 8
    for row in rows:
        assert row["query_ids"] == ["p3", "p4", "p5"] and set(row["support_ids"]) <= {"p0", "p1", "p2"}
        assert set(row["per_class_iou"]) == {"sky", "grass", "bus"} and 60 < row["miou"] <= 100


def test_evaluate_takes_splits_a_limit_and_classes(run, folder, tmp_path):
    out = tmp_path / "out.json"
    splits = ("--support-split", "val", "--query-split", "train")
    run("evaluate", folder, *QUICK, *splits, "--limit", 1, "--classes", "bus,sky", "--json", out)
    row = rows_of(out)[0]
    assert row["query_ids"] == ["p0"] and set(row["support_ids"]) <= {"p3", "p4", "p5"}
    assert list(row["per_class_iou"]) == ["bus", "sky"]


def test_evaluate_draws_datasets_by_name(run, few, tmp_path):
    out = tmp_path / "out.json"
    run("evaluate", few, *QUICK, "--size", 48, "--limit", 2, "--domain", "fog", "--json", out)
    row = rows_of(out)[0]
    assert row["query_ids"] == ["scene-2000000-fog", "scene-2000002-fog"]
    assert all(i.startswith("scene-10000") for i in row["support_ids"])


def test_evaluate_leaves_out_what_needs_text_and_says_so(folder, capsys):
    args = ["evaluate", str(folder), "--encoder", "handcrafted", "--shots", "1", "--seeds", "1"]
    assert cli.status(args) == 0
    out, err = capsys.readouterr()
    assert {line.split()[0] for line in out.splitlines()[1:]} >= {"rns", "knn-clip", "freeda"}
    assert "zero-shot" not in out and err.startswith("warning: left out: ") and err.count("\n") == 1


def test_evaluate_with_a_preset_of_your_own_a_plugin_and_regions(run, folder, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    preset, out = tmp_path / "mine.yaml", tmp_path / "out.json"
    preset.write_text("{methods: [mine], seeds: [7], encoder: handcrafted, options: {mine: {k: 2}}}")
    plugin = ("--plugin", tmp_path / "mine.py", "--regions", "slic:segments=12")
    text = run("evaluate", folder, "--preset", preset, *plugin, "--shots", 1, "--json", out)
    [row] = rows_of(out)
    assert text.splitlines()[1].startswith("mine") and (row["method"], row["seed"]) == ("mine", 7)


# --- memory ---------------------------------------------------------------------------------------


def test_memory_build_takes_the_support_split_and_records_its_encoder(memory, folder):
    held = SupportMemory.load(memory, fingerprint=load_encoder("handcrafted").fingerprint)
    assert held.images == ("p0", "p1", "p2") and held.encoder == "handcrafted"
    assert held.summary() == {"sky": 3, "grass": 3, "bus": 2}
    assert held.rows.sources[0] == str(folder / "images" / "p0.jpg") and held.thumbnail(0) is not None


def test_memory_build_draws_shots_by_seed(run, folder, few, tmp_path):
    draws = []
    for seed in (1, 1, 2, 3, 4):
        out = tmp_path / str(len(draws))
        given = ("--encoder", "handcrafted", "--shots", 1, "--seed", seed, "--split", "val", "--out", out)
        run("memory", "build", folder, *given)
        draws.append(SupportMemory.load(out).images)
    assert draws[0] == draws[1] and len(set(draws)) > 1 and set().union(*draws) <= {"p3", "p4", "p5"}
    given = ("--encoder", "handcrafted", "--size", 48, "--index", "hnsw", "--out", tmp_path / "few")
    assert "12 images" in run("memory", "build", few, *given)
    assert "index: hnsw" in run("memory", "info", tmp_path / "few")


def test_memory_add_then_remove_then_info(run, memory, folder):
    assert "6 images" in run("memory", "add", memory, folder, "--split", "val")
    assert "removed 3 prototype(s)" in run("memory", "remove", memory, "--image", "p3")
    assert "removed 4 prototype(s)" in run("memory", "remove", memory, "--class", "bus")
    assert "removed 1 prototype(s)" in run("memory", "remove", memory, "--image", "p4", "--class", "sky")
    lines = run("memory", "info", memory).splitlines()
    assert lines[0].endswith("9 prototypes of 2 classes in 5 images")
    assert "encoder: handcrafted (" in lines[1] and lines[2].startswith("index: auto")
    assert [line.split() for line in lines[3:]] == [["grass", "5"], ["sky", "4"]]


def test_memory_add_is_whole_or_not_at_all(refused, memory, tmp_path):
    before = SupportMemory.load(memory).ids.tolist()
    broken = write_folder(tmp_path / "broken")
    for path in [*broken.glob("images/*"), *broken.glob("masks/*")]:
        path.rename(path.with_name(f"b{path.name}"))
    (broken / "splits" / "train.txt").write_text("bp1\nbp2\n")
    last = broken / "images" / "bp2.jpg"
    last.write_bytes(last.read_bytes()[:-300])
    refused("memory", "add", memory, broken, said=[last])
    assert SupportMemory.load(memory).ids.tolist() == before


# --- segment --------------------------------------------------------------------------------------


def test_segment_writes_labels_overlays_evidence_and_coco(run, memory, folder, tmp_path):
    out, coco = tmp_path / "deep" / "out", tmp_path / "coco" / "all.json"
    photos = [folder / "images" / name for name in ("p4.jpg", "p5.jpg")]
    run("segment", *photos, "--memory", memory, "--out", out, "--coco", coco)
    names = {f"{stem}.{kind}" for stem in ("p4", "p5") for kind in ("png", "overlay.png", "evidence.json")}
    assert {p.name for p in out.iterdir()} == names | {"classes.txt"}
    assert read_classes(out / "classes.txt") == {0: "sky", 1: "grass", 2: "bus"}
    with Image.open(out / "p4.png") as labels:
        assert labels.mode == "P" and np.array_equal(np.reshape(labels.getpalette()[:9], (3, 3)), palette(3))
        answer = np.asarray(labels)
    truth = np.asarray(Image.open(folder / "masks" / "p4.png"))  # ids 0, 3, 7
    assert np.mean(np.array([0, 3, 7])[answer] == truth) > 0.85
    assert np.asarray(Image.open(out / "p4.overlay.png")).shape == (40, 48, 3)
    masks, classes = read_coco(coco)
    assert list(masks) == ["p4.jpg", "p5.jpg"] and classes == {0: "sky", 1: "grass", 2: "bus"}
    assert np.array_equal(masks["p4.jpg"], answer)


def test_evidence_adds_up_and_names_the_support(run, memory, folder, tmp_path):
    photo = folder / "images" / "p4.jpg"
    run("segment", photo, "--memory", memory, "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "p4.evidence.json").read_text())
    assert record["image"] == str(photo) and set(record["classes"]) == {"sky", "grass", "bus"}
    assert sum(c["pixels"] for c in record["classes"].values()) == pytest.approx(1)
    held = SupportMemory.load(memory)
    for name, entry in record["classes"].items():
        weights = [p["weight"] for p in entry["prototypes"]]
        assert sum(weights) + entry["rest"] == pytest.approx(entry["score"], abs=1e-4)
        assert [abs(w) for w in weights] == sorted(map(abs, weights), reverse=True)
        assert entry["prototypes"][0]["class"] == name, "a class rests on its own prototypes most"
        for p in entry["prototypes"]:
            row = held.lookup([p["prototype_id"]])
            assert (row.image_ids[0], row.class_names[0]) == (p["image_id"], p["class"])


def test_segment_keeps_the_ids_of_a_folder(run, refused, memory, folder, tmp_path):
    photo, out = folder / "images" / "p4.jpg", tmp_path / "out"
    call = ("segment", photo, "--memory", memory, "--out", out, "--method", "knn-clip")
    run(*call, "--classes", "grass,sky")
    run(*call, "--classes", "grass,sky", "--regions", "slic:segments=12")
    assert read_classes(out / "classes.txt") == {0: "grass", 1: "sky"}
    refused(*call, said=["classes.txt", "sky, grass, bus"])


# --- ask ------------------------------------------------------------------------------------------


def test_ask_the_miniature_web(run, tmp_path):
    mask = tmp_path / "out" / "mask.png"
    out = run("ask", "example", QUESTION, "--date", "2026-03-01", "--out", mask)
    lines = dict(line.split(None, 1) for line in reversed(out.splitlines()))
    assert lines["gate"].startswith("look up (by rule)") and "2026-03-01" in lines["question"]
    assert "confidence" in lines["candidate"] and lines["verified"].startswith(("kept", "corrected"))
    assert lines["answer"].split(" (")[0] in lines["prompt"] and "no language model" in lines["model"]
    sources = [line for line in out.splitlines() if line.startswith("source")]
    assert len(sources) > 2
    assert all("/wiki/" in s and "2026-03-01" >= s.split()[1].rstrip(",") for s in sources)
    pixels = np.asarray(Image.open(mask))
    assert pixels.shape == (160, 160) and set(np.unique(pixels)) == {0, 255}
    image = np.asarray(Image.open(mask.with_name("mask.image.png")))
    changed = (np.asarray(Image.open(mask.with_name("mask.overlay.png"))) != image).any(2)
    assert changed[pixels > 0].mean() > 0.9
    again = run("ask", mask.with_name("mask.image.png"), "Segment the boat.", "--out", tmp_path / "boat.png")
    assert "no look-up" in again and "\nanswer" not in again


def test_ask_a_folder_whose_pages_cannot_steer_the_terminal(run, tmp_path):
    (tmp_path / "pages").mkdir()
    text = "Tamsin is the new mayor. The mayor since May is Tamsin, a dog."
    (tmp_path / "pages" / "Mayor\x07\x9b2J.txt").write_text(text)
    Image.new("RGB", (40, 40), "white").save(tmp_path / "photo.png")
    given = ("--provider", tmp_path / "pages", "--out", tmp_path / "m.png")
    out = run("ask", tmp_path / "photo.png", "Segment the mayor.", *given)
    assert "answer    Tamsin" in out and "no date, unknown" in out
    assert "Mayor" in out and all(c.isprintable() or c == "\n" for c in out)
    assert cli.printable("a\x1b[2Jb\r\nverified\u202e kept") == "a [2Jb  verified  kept"
    assert cli._one_line("no\x1b[2J page\n\n'x'") == "no [2J page 'x'"


def test_ask_without_the_network_answers_plainly_with_status_1(tmp_path, capsys, monkeypatch):
    def away(self, api, **params):
        raise WebError("no route to host")

    monkeypatch.setattr(providers.Wikimedia, "_ask", away)
    Image.new("RGB", (40, 40), "white").save(tmp_path / "photo.png")
    args = ["ask", tmp_path / "photo.png", QUESTION, "--provider", "wikimedia", "--out", tmp_path / "m.png"]
    assert cli.status([str(a) for a in args]) == 1
    out, err = capsys.readouterr()
    assert "no route to host" in err and "Folder" in err and "still works" in err and "plain segmenter" in err
    assert (tmp_path / "m.png").exists() and "written" in out


# --- run ------------------------------------------------------------------------------------------


def test_run_passes_parameters_and_prints_the_result(run, tmp_path):
    path = notebook(tmp_path / "small.ipynb", "open(out + '/k.txt', 'w').write(str(k))\nprint(f'k is {k}')")
    before = path.read_bytes()
    assert run("run", path, "--list").splitlines()[0] == "k=4 (int: how many)"
    out = run("run", path, "-p", "k=7", "--out", tmp_path / "there")
    assert "k is 7" in out and "k.txt" in out and "small.ipynb" in out
    assert (tmp_path / "there" / "k.txt").read_text() == "7" and path.read_bytes() == before


def test_run_names_the_cell_that_fails(tmp_path, capsys):
    path = notebook(tmp_path / "small.ipynb", "raise KeyError(k)")
    assert cli.status(["run", str(path), "--out", str(tmp_path / "there")]) == 1
    assert "cell [" in (err := capsys.readouterr().err) and "of small.ipynb failed: KeyError: 4" in err
    assert (tmp_path / "there" / "small.ipynb").exists()


def test_notebooks_are_found_by_number_name_and_path(monkeypatch, tmp_path):
    (tmp_path / "notebooks" / "experiments").mkdir(parents=True)
    path = notebook(tmp_path / "notebooks" / "07_small.ipynb", "1")
    other = notebook(tmp_path / "notebooks" / "experiments" / "nest.ipynb", "1")
    monkeypatch.chdir(tmp_path)
    for name in ("07", "07_small", "07_small.ipynb", "notebooks/07_small.ipynb", str(path)):
        assert cli.find_notebook(name).resolve() == path
    assert cli.find_notebook("experiments/nest").resolve() == other
    with pytest.raises(ValueError, match="no notebook '7'; there are: 07_small, experiments/nest"):
        cli.find_notebook("7")


# --- sweep, check, doctor -------------------------------------------------------------------------


def test_sweep_makes_each_table_once_and_a_leaderboard(run, folder, tmp_path):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    (tmp_path / "mine.py").write_text(MINE)
    asked = {"methods": ["knn-clip"], "dataset": str(folder), "encoder": "handcrafted", "seeds": [1, 2]}
    grid.write_text(yaml.safe_dump(asked | {"shots": [1, 2]}))
    call = ("sweep", grid, "--out", out, "--plugin", tmp_path / "mine.py")
    first = run(*call)
    assert "0 of 2 tables" in first and "knn-clip" in first and "mine" in first
    again = run(*call, "--baseline", "mine")
    assert "2 of 2 tables" in again and len(list(out.glob("*.parquet"))) == 2
    assert {p.name for p in out.glob("leaderboard.*")} == {f"leaderboard.{x}" for x in ("md", "csv", "png")}
    assert "mine" in (out / "leaderboard.md").read_text()


def test_check_tells_what_a_plugin_does_wrong(run, capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    told = run("check", path)
    assert told.splitlines()[0] == "mine" and "FAIL" not in told and "speed" in told
    wrong = MINE.replace("pass", "def predict(self, *a, **k):\n        return super().predict(*a, **k).array")
    path.write_text(wrong)
    assert cli.status(["check", str(path)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_doctor_reports_every_part_and_how_to_mend_it(run, capsys, monkeypatch):
    told = run("doctor")
    assert told.count("\nok ") == 3 and told.splitlines()[-1] == "all parts are ok"

    def broken(*args, **options):
        raise OSError("weights are\ntruncated")

    monkeypatch.setattr("rose_kit.encoder.load_encoder", broken)
    lacks = subprocess.CompletedProcess([], 1, "rose-kit requires torch,\nwhich is not installed.\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: lacks)
    assert cli.status(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  bundled weights  OSError: weights are truncated\n      to mend it: git checkout" in told
    assert "requires torch, which is not installed.\n      to mend it: run `make`" in told
    assert "ok    jupyter kernel" in told and told.endswith("2 part(s) failed\n")


# --- the program ----------------------------------------------------------------------------------


def test_the_real_program(folder):
    def program(*args):
        command = [sys.executable, "-m", "rose_kit", *map(str, args)]
        root = str(Path(rose_kit.__file__).parents[1])
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
        return done.returncode, done.stdout, done.stderr

    assert program("--version") == (0, f"rose_kit {rose_kit.__version__}\n", "")
    code, out, err = program("evaluate", folder, *QUICK, "--seeds", "1,x")
    assert (code, out) == (2, "") and "'x'" in err and err.count("\n") == 1


def test_help_says_it_all(run):
    listed = run()
    assert listed == run("--help") and "..." not in listed.partition("Commands:")[2]  # no sentence is cut
    for command in ("evaluate", "memory", "segment", "ask", "run", "sweep", "check", "doctor"):
        assert f"\n  {command} " in listed
    told = " ".join(run("segment", "--help").split())
    assert "[default: rns]" in told and "Example: " in told and "[default: as it records]" in told


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (ValueError("two\nlines"), 2, "error: two lines\n"),
        (FileNotFoundError("no file 'x'"), 2, "error: no file 'x'\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_statuses(capsys, monkeypatch, raised, status, said):
    def fail(name):
        raise raised

    monkeypatch.setattr(cli, "find_notebook", fail)
    assert cli.status(["run", "00"]) == status
    assert capsys.readouterr().err == said


def test_a_bug_is_not_reported_as_a_users_mistake(monkeypatch):
    monkeypatch.setattr(cli, "find_notebook", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.status(["run", "00"])


# --- what is wrong --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with right and wrong things of every kind, which no refused command may change."""
    here = tmp_path_factory.mktemp("world")
    photos = write_folder(here / "photos")
    build = ["memory", "build", str(photos), "--encoder", "handcrafted", "--out"]
    assert cli.status([*build, str(here / "memory")]) == 0
    held = {"encoder": "handcrafted", "fingerprint": HandcraftedEncoder().fingerprint}
    SupportMemory(512, **held).save(here / "vacant")
    SupportMemory(512, fingerprint="handcrafted 0", encoder="handcrafted").save(here / "old")
    SupportMemory(512).save(here / "nameless")
    for pattern in ("manifest.json", "*.parquet", "*.safetensors"):
        [path] = shutil.copytree(here / "memory", here / f"torn-{pattern[-8:]}").glob(pattern)
        path.write_bytes(path.read_bytes()[:-40])
    image = (photos / "images" / "p4.jpg").read_bytes()
    for name, size in (("support", "p1"), ("query", "p5")):  # a broken picture on either side
        (write_folder(here / f"cut-{name}") / "images" / f"{size}.jpg").write_bytes(image[:-200])
    (here / "cut.jpg").write_bytes(image[:-200])
    shutil.copy(photos / "images" / "p4.jpg", here / "p4.jpg")
    mask = write_folder(here / "resized") / "masks" / "p4.png"
    Image.open(mask).resize((20, 20), 0).save(mask)
    write_folder(here / "bare", count=0)
    for name, code in {
        "divides": "x = 1\ny = x / 0\n",
        "silent": "x = 1\n",
        "unfit": MINE.replace("pass", "def predict(self, query, memory, names):\n        return 1"),
    }.items():
        (here / f"{name}.py").write_text(code)
    notebook(here / "small.ipynb", "1", "k: int = 4\nx: float = 1.5\nseeds: list = [1, 2]")
    notebook(here / "loose.ipynb", "1", "k = 2 * seed")
    (here / "text.ipynb").write_text("{")
    for name, text in {
        "key": "{method: [rns]}", "crop": "{query_windows: {crop: 64}}",
        "kk": "{options: {knn-clip: {kk: 2}}}", "seeds": "{seeds: one}",
        "cut": "{regions: {slic: {segment: 9}}}",
        "grid": "{methods: [rns]}", "typo": "{methods: [rsn], dataset: photos}",
        "fine": "{methods: [knn-clip], dataset: photos, encoder: handcrafted, seeds: [1], shots: 1}",
        "lost": "{methods: [knn-clip], dataset: nowhere, encoder: handcrafted, seeds: [1], shots: 1}",
    }.items():  # fmt: skip
        (here / f"{name}.yaml").write_text(text)
    return here


EVALUATE = "evaluate photos --encoder handcrafted --methods knn-clip --shots 1 --seeds 1"
SCENES = EVALUATE.replace("photos", "scenes")
BUILD = "memory build photos --encoder handcrafted --out new"
SEGMENT = "segment --memory memory --out out p4.jpg"
ASK = "ask example Segment-the-current-regatta-champion. --out m.png"
WRONG = [  # the command line (words after blanks), what its one line must hold (after |)
    # words that are none
    ("docter", "docter | Commands: evaluate, segment, ask"),
    ("memory biuld photos", "'biuld' | build, add, remove, info"),
    (f"{EVALUATE} --colour red", "--colour | --classes"),
    (f"{SEGMENT} --overlay", "--overlay | --coco"),
    ("run", "notebook"),
    ("segment --memory memory --out out", "images"),
    # evaluate
    (f"{EVALUATE} --encoder handcraftd", "'handcraftd' | bundled | handcrafted"),
    (f"{EVALUATE} --methods rsn", "'rsn' | did you mean 'rns' | knn-clip"),
    (f"{EVALUATE} --methods zero-shot", "'handcrafted' | no text | zero-shot"),
    (f"{EVALUATE} --seeds 1,two", "'two' | 1,2,3"),
    (f"{EVALUATE} --seeds 1,1", "'1,1'"),
    (f"{EVALUATE} --shots 0", "shots | 0"),
    (f"{EVALUATE} --shots 1,many", "'many'"),
    (f"{EVALUATE} --limit 0", "limit | 0"),
    (f"{EVALUATE} --classes bus,zebra", "'zebra' | sky, grass, bus"),
    (f"{EVALUATE} --preset rms", "'rms' | rns, rns-dinov3txt, rns-openclip"),
    (f"{EVALUATE} --preset key.yaml", "key.yaml | unknown key 'method' | keys: methods, options"),
    (f"{EVALUATE} --preset crop.yaml", "query_windows | 'crop' | crops="),
    (f"{EVALUATE} --preset kk.yaml", "knn-clip | 'kk' | k=16"),
    (f"{EVALUATE} --preset seeds.yaml", "seeds.yaml | 'one'"),
    (f"{EVALUATE} --preset cut.yaml --regions slic", "slic | 'segment' | segments="),
    (f"{EVALUATE} --set rns", "'rns' | METHOD.OPTION=VALUE | knn-clip"),
    (f"{EVALUATE} --set knn-clip.kk=3", "'kk' | did you mean 'k' | k=16"),
    (f"{EVALUATE} --set knn-clip.k=many", "'many' | int"),
    (f"{EVALUATE} --query-split val", "'val' | None"),
    (f"{EVALUATE} --support-split trian --query-split val", "'trian' | train, val"),
    (f"{EVALUATE} --support-split val --query-split val", "'p3'"),
    (f"{EVALUATE} --without-visual 2", "visual | 2"),
    (f"{EVALUATE} --regions slick", "'slick' | slic"),
    (f"{EVALUATE} --regions slic:segment=9", "'segment' | did you mean 'segments'"),
    (f"{EVALUATE} --plugin missing.py", "'missing.py'"),
    (f"{EVALUATE} --plugin divides.py", "divides.py | line 2 | ZeroDivisionError"),
    (f"{EVALUATE} --json photos", "--json 'photos' | folder"),
    (f"{SCENES} --domain rain", "'rain' | day, night, fog, snow"),
    (f"{SCENES} --support-split train", "'train' | scenes"),
    (f"{EVALUATE} --domain fog", "'photos' | domain"),
    (EVALUATE.replace("photos", "nowhere"), "'nowhere'"),
    (EVALUATE.replace("photos", "bare"), "bare/images | .jpg | .png"),
    (EVALUATE.replace("photos", "resized"), "p4.png | (20, 20) | (40, 48)"),
    (f"{EVALUATE.replace('photos', 'cut-support')} --shots 3", "p1.jpg | truncated"),
    (EVALUATE.replace("photos", "cut-query"), "p5.jpg | truncated"),
    # memory
    ("memory remove memory", "--image | --class"),
    ("memory remove memory --class buss", "'buss' | 'bus' | sky, grass, bus"),
    ("memory remove memory --image q1", "'q1' | p0, p1, p2"),
    ("memory info nowhere", "nowhere | manifest.json"),
    ("memory info torn-.parquet", ".parquet"),
    ("memory info torn-etensors", ".safetensors"),
    ("memory add memory nowhere", "'nowhere'"),
    ("memory add memory photos", "'p0' | already"),
    ("memory add memory photos --split tset", "'tset' | train, val"),
    ("memory add old photos", "'handcrafted 0' | handcrafted 1"),
    ("memory add nameless photos", "nameless | encoder"),
    (BUILD.replace("new", "memory"), "memory | memory add"),
    (BUILD.replace("new", "photos/classes.txt/x"), "classes.txt"),
    (f"{BUILD} --seed -1", "-1"),
    (f"{BUILD} --index tree", "'tree' | hnsw"),
    # segment
    (f"{SEGMENT} nowhere.jpg", "nowhere.jpg"),
    (f"{SEGMENT} cut.jpg", "cut.jpg | truncated"),
    (f"{SEGMENT} photos/images/p4.jpg", "'p4'"),
    (f"{SEGMENT} --classes bus,zebra", "'zebra' | 'handcrafted' | sky, grass, bus"),
    (f"{SEGMENT} --method rsn", "'rsn' | rns"),
    (f"{SEGMENT} --method zero-shot", "'zero-shot' | text | freeda, knn-clip"),
    (f"{SEGMENT} --encoder coarse", "handcrafted 1, 512-d, patch 8 | handcrafted 1, 512-d, patch 16"),
    (f"{SEGMENT} --out photos/masks", "p4.png | overwritten"),
    (f"{SEGMENT} --out photos", "classes.txt | other classes"),
    (f"{SEGMENT} --coco p4.jpg", "--coco 'p4.jpg' | overwrite"),
    (f"{SEGMENT} --memory nowhere", "nowhere | manifest.json"),
    (f"{SEGMENT} --memory vacant", "'vacant' | empty"),
    # ask
    (ASK.replace("example", "nowhere.png"), "nowhere.png"),
    ("ask example Segment-the-goose. --out m.png", "'Segment-the-goose.' | regatta champion"),
    (f"{ASK} --date March", "--date | 'March' | 2026-03-01"),
    (f"{ASK} --date 2031-01-01", "2031-01-01 | 2026-01-01 to 2026-06-30"),
    (f"{ASK} --provider alta", "'alta' | duckduckgo, mini, wikimedia"),
    (f"{ASK} --llm m", "'m' | OPENAI_BASE_URL"),
    ("ask p4.jpg Segment-the-dog. --out p4.jpg", "would overwrite | 'p4.jpg'"),
    ("ask p4.jpg Segment-the-dog. --out photos/../p4.jpg", "would overwrite | 'p4.jpg'"),
    ("ask m.overlay.png Segment-the-dog. --out m.png", "m.overlay.png"),
    # run
    ("run nowhere", "'nowhere' | 00_quickstart | experiments/nest"),
    ("run text.ipynb", "text.ipynb is not a notebook"),
    ("run loose.ipynb", "loose.ipynb | literal"),
    ("run small.ipynb -p k=5.5", "'5.5' is not of type int | k=4"),
    ("run small.ipynb -p K=5", "unknown parameter 'K' | k=4"),
    ("run small.ipynb -p sedes=5", "'sedes' | did you mean 'seeds'"),
    ("run small.ipynb -p k", "'k' is not name=value"),
    ("run small.ipynb -p seeds=1,two", "'two' is not of type int | seeds=[1, 2]"),
    ("run small.ipynb --out .", "small.ipynb | overwrite"),
    # sweep, check
    ("sweep nowhere.yaml", "'nowhere.yaml'"),
    ("sweep grid.yaml", "grid.yaml | dataset | methods"),
    ("sweep typo.yaml", "typo.yaml | 'rsn' | did you mean 'rns'"),
    ("sweep lost.yaml", "'nowhere'"),
    ("sweep fine.yaml --jobs 0", "0"),
    ("sweep fine.yaml --plugin unfit.py", "'mine' of unfit.py | initial_weight | rose-kit check unfit.py"),
    ("check missing.py", "'missing.py'"),
    ("check silent.py", "'silent.py' | registers no method"),
]


@pytest.mark.parametrize(
    ("line", "said"), WRONG, ids=[line.replace(EVALUATE, "evaluate") for line, _ in WRONG]
)
def test_what_is_wrong_is_told_in_one_line_and_changes_nothing(refused, world, monkeypatch, line, said):
    monkeypatch.chdir(world)
    monkeypatch.setitem(encoders, "coarse", lambda: HandcraftedEncoder(16))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    before = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    refused(*line.split(), said=said.split(" | "))
    assert {path: path.read_bytes() for path in world.rglob("*") if path.is_file()} == before
