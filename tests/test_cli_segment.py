"""`rose-kit segment`: what it writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rose_kit import HandcraftedEncoder, SupportMemory, encoders
from rose_kit.data import read_classes
from rose_kit.viz.overlay import palette

CAMVID = Path(__file__).parents[2] / "shared" / "data" / "camvid"


@pytest.fixture
def photo(folder):
    return folder / "images" / "p4.jpg"


def test_writes_labels_overlay_and_evidence(run, memory, folder, photo, tmp_path):
    out = tmp_path / "deep" / "out"
    run("segment", photo, folder / "images" / "p5.jpg", "--memory", memory, "--out", out, "--overlay")
    names = {"p4.png", "p4.overlay.png", "p4.evidence.json"}
    assert {p.name for p in out.iterdir()} == names | {n.replace("4", "5") for n in names} | {"classes.txt"}
    classes = read_classes(out / "classes.txt")
    assert classes == {0: "sky", 1: "grass", 2: "bus"}
    with Image.open(out / "p4.png") as labels:
        assert labels.mode == "P" and np.array_equal(np.reshape(labels.getpalette()[:9], (3, 3)), palette(3))
        answer = np.asarray(labels)
    truth = np.asarray(Image.open(folder / "masks" / "p4.png"))  # ids 0, 3, 7
    assert np.mean(np.array([0, 3, 7])[answer] == truth) > 0.85
    assert np.asarray(Image.open(out / "p4.overlay.png")).shape == (40, 48, 3)


def test_evidence_adds_up_and_names_the_support(run, memory, photo, tmp_path):
    run("segment", photo, "--memory", memory, "--out", tmp_path / "out", "--no-overlay")
    assert not (tmp_path / "out" / "p4.overlay.png").exists()
    record = json.loads((tmp_path / "out" / "p4.evidence.json").read_text())
    assert record["image"] == str(photo) and set(record["classes"]) == {"sky", "grass", "bus"}
    assert sum(c["pixels"] for c in record["classes"].values()) == pytest.approx(1)
    assert sum(c["patches"] for c in record["classes"].values()) == 5 * 6
    held = SupportMemory.load(memory)
    for name, entry in record["classes"].items():
        weights = [p["weight"] for p in entry["prototypes"]]
        assert sum(weights) + entry["rest"] == pytest.approx(entry["score"], abs=1e-4)
        assert [abs(w) for w in weights] == sorted(map(abs, weights), reverse=True)
        assert entry["prototypes"][0]["class"] == name, "a class rests on its own prototypes most"
        for p in entry["prototypes"]:
            row = held.lookup([p["prototype_id"]])
            assert (row.image_ids[0], row.class_names[0]) == (p["image_id"], p["class"])
            assert p["source"].endswith(f"{p['image_id']}.jpg")


def test_classes_may_be_chosen_and_a_second_run_must_keep_them(run, refused, memory, photo, tmp_path):
    call = ("segment", photo, "--memory", memory, "--out", tmp_path / "out", "--method", "knn-clip")
    run(*call, "--classes", "grass,sky")
    run(*call, "--classes", "grass,sky")
    assert read_classes(tmp_path / "out" / "classes.txt") == {0: "grass", 1: "sky"}
    refused(*call, said=["classes.txt", "sky, grass, bus"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["{p}/nowhere.jpg"], ["nowhere.jpg"]),
        (["{p}/images"], ["images"]),
        (["{p}/classes.txt"], ["classes.txt"]),
        (["{p}/cut.jpg"], ["cut.jpg", "truncated"]),
        (["{p}/images/p4.jpg", "{p}/cut.jpg"], ["cut.jpg"]),
        (["{p}/images/p4.jpg", "{p}/images/p4.jpg"], ["'p4'"]),
        (["{p}/images/p4.jpg", "--classes", "bus,zebra"], ["'zebra'", "'handcrafted'", "sky, grass, bus"]),
        (["{p}/images/p4.jpg", "--method", "rsn"], ["'rsn'", "rns"]),
        (["{p}/images/p4.jpg", "--method", "zero-shot"], ["'zero-shot'", "text", "freeda, knn-clip"]),
        (["{p}/images/p4.jpg", "--encoder", "hand"], ["'hand'", "handcrafted"]),
        (["{p}/images/p4.jpg", "--preset", "mine"], ["'mine'", "rns-openclip"]),
        (["{p}/images/p4.jpg", "--out", "{p}/masks"], ["p4.png", "overwritten"]),
        (["{p}/images/p4.jpg", "--out", "{p}/classes.txt"], ["classes.txt"]),
        (["{p}/images/p4.jpg", "--out", "{p}"], ["classes.txt", "other classes"]),
        (["{p}/images/p4.jpg", "--memory", "{p}/none"], ["none", "manifest.json"]),
        ([], ["images"]),
    ],
)
def test_wrong_calls_are_refused_and_write_nothing(refused, memory, folder, tmp_path, args, said):
    whole = (folder / "images" / "p3.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[:-200])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    usual = ["--memory", str(memory), "--out", str(tmp_path / "out")]
    refused("segment", *usual, *(a.format(p=folder) for a in args), said=said)
    assert not list((tmp_path / "out").glob("*")) and not list(folder.rglob("*.overlay.png"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_another_encoder_is_refused(refused, memory, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(encoders, "coarse", lambda: HandcraftedEncoder(16))
    call = ("segment", photo, "--memory", memory, "--out", tmp_path / "o", "--encoder", "coarse")
    refused(*call, said=["handcrafted 1, 512-d, patch 8", "handcrafted 1, 512-d, patch 16"])


def test_a_damaged_or_empty_memory_is_refused(refused, memory, photo, tmp_path):
    SupportMemory(512, encoder="handcrafted").save(tmp_path / "empty")
    refused("segment", photo, "--memory", tmp_path / "empty", "--out", tmp_path / "o", said=["empty"])
    [path] = memory.glob("*.safetensors")
    path.write_bytes(b"")
    refused("segment", photo, "--memory", memory, "--out", tmp_path / "o", said=[path])


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the photographs of ../shared/data/camvid")
def test_a_photograph(run, tmp_path):
    run("memory", "build", CAMVID, "--encoder", "handcrafted", "--shots", 1, "--out", tmp_path / "m")
    photo = CAMVID / "images" / "0001TP_006690.jpg"
    run("segment", photo, "--memory", tmp_path / "m", "--out", tmp_path / "out", "--method", "knn-clip")
    with Image.open(tmp_path / "out" / f"{photo.stem}.png") as labels:
        assert labels.size == Image.open(photo).size
        assert len(np.unique(np.asarray(labels))) > 3
