"""`rose-kit memory`: build, add, remove, info."""

import pytest

from conftest import write_folder
from rose_kit import SupportMemory, load_encoder

BUILD = ("--encoder", "handcrafted", "--out")


def test_build_takes_the_support_split_and_records_its_encoder(memory, folder):
    held = SupportMemory.load(memory, fingerprint=load_encoder("handcrafted").fingerprint)
    assert held.images == ("p0", "p1", "p2") and held.encoder == "handcrafted"
    assert held.summary() == {"sky": 3, "grass": 3, "bus": 2}
    assert held.rows.sources[0] == str(folder / "images" / "p0.jpg") and held.thumbnail(0) is not None


def test_build_draws_shots_by_seed(run, folder, tmp_path):
    draws = []
    for seed in (1, 1, 2, 3, 4):
        out = tmp_path / str(len(draws))
        run("memory", "build", folder, *BUILD, out, "--shots", 1, "--seed", seed, "--split", "val")
        draws.append(SupportMemory.load(out).images)
    assert draws[0] == draws[1] and len(set(draws)) > 1 and set().union(*draws) <= {"p3", "p4", "p5"}


def test_build_of_scenes(run, few, tmp_path):
    assert "12 images" in run("memory", "build", few, *BUILD, tmp_path / "m", "--size", 48)
    assert SupportMemory.load(tmp_path / "m").images == tuple(f"scene-{1_000_000 + i}-day" for i in range(12))


def test_add_then_remove_then_info(run, memory, folder):
    assert "6 images" in run("memory", "add", memory, folder, "--split", "val")
    assert "removed 3 prototype(s)" in run("memory", "remove", memory, "--image", "p3")
    assert "removed 4 prototype(s)" in run("memory", "remove", memory, "--class", "bus")
    assert "removed 1 prototype(s)" in run("memory", "remove", memory, "--image", "p4", "--class", "sky")
    lines = run("memory", "info", memory).splitlines()
    assert lines[0].endswith("9 prototypes of 2 classes in 5 images")
    assert "encoder: handcrafted (" in lines[1]
    assert lines[2] == "index: auto: flat, exact"
    assert [line.split() for line in lines[3:5]] == [["grass", "5"], ["sky", "4"]]
    assert lines[5:8] == [
        "undo 1: remove class 'sky' of image 'p4'",
        "undo 2: remove class 'bus'",
        "undo 3: remove image 'p3'",
    ]
    assert len(lines) == 9 and lines[8].startswith("undo 4: add ")
    assert "undone: remove class 'bus'" in run("memory", "undo", memory, "--steps", 2)
    assert SupportMemory.load(memory).summary()["bus"] == 4
    run("memory", "remove", memory, "--class", "bus", "--for-good")
    assert "undo" not in run("memory", "info", memory)


def test_merge_and_replace(run, memory, folder):
    before = SupportMemory.load(memory)
    assert "prototype(s) fewer" in run("memory", "merge", memory, "--threshold", "0.5")
    assert len(SupportMemory.load(memory)) < len(before)
    assert "undone: merge" in run("memory", "undo", memory)
    assert SupportMemory.load(memory).ids.tolist() == before.ids.tolist()
    run("memory", "add", memory, folder, "--replace")
    after = SupportMemory.load(memory)
    assert after.images == before.images and not set(after.ids) & set(before.ids)


def test_what_is_stored_is_never_overwritten_or_half_added(refused, run, memory, folder, tmp_path):
    before = SupportMemory.load(memory).ids.tolist()
    refused("memory", "build", folder, *BUILD, memory, said=[memory, "memory add"])
    refused("memory", "add", memory, folder, said=["'p0'", "already"])  # the same images again
    broken = write_folder(tmp_path / "broken")
    for path in broken.glob("images/*"):
        path.rename(path.with_name(f"b{path.name}"))
    for path in broken.glob("masks/*"):
        path.rename(path.with_name(f"b{path.name}"))
    (broken / "splits" / "train.txt").write_text("bp1\nbp2\n")
    last = broken / "images" / "bp2.jpg"
    last.write_bytes(last.read_bytes()[:-300])
    refused("memory", "add", memory, broken, said=[last])
    assert SupportMemory.load(memory).ids.tolist() == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["remove", "{m}"], ["--image", "--class"]),
        (["remove", "{m}", "--class", "buss"], ["'buss'", "'bus'", "sky, grass, bus"]),
        (["remove", "{m}", "--image", "q1"], ["'q1'", "p0, p1, p2"]),
        (["info", "{m}/nowhere"], ["nowhere", "manifest.json"]),
        (["add", "{m}", "{m}/nowhere"], ["nowhere"]),
        (["add", "{m}", "{f}", "--split", "tset"], ["'tset'", "train, val"]),
        (["build", "{f}", "--encoder", "handcrafted", "--out", "{f}/classes.txt/x"], ["classes.txt"]),
        (["build", "{f}", "--encoder", "clip", "--out", "{m}2"], ["'clip'", "bundled"]),
        (["build", "{f}", "--encoder", "handcrafted", "--out", "{m}2", "--seed", "-1"], ["-1"]),
        (["build", "{f}", "--encoder", "handcrafted", "--out", "{m}2", "--shots", "0"], ["shots", "0"]),
        (["undo", "{m}"], ["cannot undo 1", "remembers 0"]),
        (["merge", "{m}", "--threshold", "2"], ["threshold", "2"]),
        (["merge", "{m}", "--class", "buss"], ["'buss'", "'bus'"]),
        (["merge", "{m}/nowhere"], ["nowhere", "manifest.json"]),
        (
            ["build", "{f}", "--encoder", "handcrafted", "--out", "{m}2", "--index", "tree"],
            ["'tree'", "hnsw"],
        ),
        (["biuld", "{f}"], ["'biuld'", "build, add, remove, info"]),
    ],
)
def test_wrong_calls_are_refused(refused, memory, folder, args, said):
    refused("memory", *(a.format(m=memory, f=folder) for a in args), said=said)


@pytest.mark.parametrize("pattern", ["manifest.json", "*.parquet", "*.safetensors"])
def test_a_corrupt_memory_is_refused(refused, memory, pattern):
    [path] = memory.glob(pattern)
    path.write_bytes(path.read_bytes()[:-40])
    refused("memory", "info", memory, said=[path])


def test_adding_with_an_encoder_that_has_changed_is_refused(refused, folder, tmp_path):
    SupportMemory(512, fingerprint="handcrafted 0", encoder="handcrafted").save(tmp_path / "old")
    refused("memory", "add", tmp_path / "old", folder, said=["'handcrafted 0'", "handcrafted 1"])
    SupportMemory(512).save(tmp_path / "bare")
    refused("memory", "add", tmp_path / "bare", folder, said=["bare", "encoder"])
