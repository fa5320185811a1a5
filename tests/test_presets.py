"""Presets: what they hold, that own options win, and whole runs on scenes and on a standard dataset."""

import json
from dataclasses import replace

import pytest
from test_data_scripts import MAKERS

from data_scripts.convert import convert
from rose_kit import evaluation
from rose_kit.adapter import RNS
from rose_kit.adapter import methods as registered
from rose_kit.cli import evaluate as command
from rose_kit.encoder import Windows, load_encoder
from rose_kit.evaluation import Preset, known_presets, read_preset


def rows_of(path):
    return json.loads(path.read_text())["rows"]


def test_presets_are_the_released_configurations():
    """Windows, seeds and adapter of RNS for OpenCLIP and DINOv3.txt, written down a second time."""
    clip, dino = read_preset("rns-openclip"), read_preset("rns-dinov3txt")
    assert clip.support_windows == Windows(448, (448, 224), 112)
    assert clip.query_windows == Windows(448, (448,), 224)
    assert dino.support_windows == Windows(None, (384,), 112)
    assert dino.query_windows == Windows(384, (384,), 192)
    assert clip.seeds == dino.seeds == (100, 18, 42, 84)
    assert (clip.encoder, dino.encoder) == ("ViT-B-16/laion2b_s34b_b88k", "dinov3txt")
    for preset in (clip, dino):
        method = registered.make("rns", **preset.options["rns"])
        assert method == RNS(4, lambdas=(0.9, 0.8, 0.6, 0.4, 0.2, 0.0), solver="adamw", steps=700, lr=2e-3)
        assert (method.tau, method.beta_fused, method.beta_pseudo) == (0.1, 1.5, 0.2)
        assert method.weight_decay == 5e-4
        assert preset.regions["sam"]["order"] == "largest"


@pytest.mark.parametrize("name", known_presets())
def test_every_preset_can_be_built(name):
    preset = read_preset(name)
    for method in preset.methods:
        registered.make(method, **preset.options.get(method, {}))
    assert set(preset.options) <= set(preset.methods)


@pytest.fixture
def seen(monkeypatch):
    """What the command would evaluate; the encoder is asked for by name only."""
    seen = {}

    def evaluate(support, query, encoder, methods, **options):
        seen.update(options, support=support, encoder=encoder, methods=methods)
        return []

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(command, "make_encoder", lambda name: name)
    return seen


def test_a_preset_sets_what_is_not_given(run, folder, seen):
    run("evaluate", folder, "--preset", "rns-openclip")
    assert seen["seeds"] == (100, 18, 42, 84) and seen["shots"] == 5
    assert seen["support_windows"].crops == (448, 224) and seen["query_windows"].stride == 224
    assert seen["encoder"] == "ViT-B-16/laion2b_s34b_b88k"
    assert list(seen["methods"]) == ["zero-shot", "knn-clip", "freeda", "rns"]
    assert seen["methods"]["rns"].solver == "adamw"


def test_what_is_given_wins(run, folder, seen):
    own = ("--seeds", "7", "--encoder", "handcrafted", "--methods", "rns,knn-clip")
    for one in ("rns.solver=lbfgs", "knn-clip.k=3", "rns.lambdas=0.5,0.1"):
        own += ("--set", one)
    run("evaluate", folder, "--preset", "rns-openclip", *own)
    assert seen["seeds"] == [7] and seen["encoder"] == "handcrafted"
    assert list(seen["methods"]) == ["rns", "knn-clip"] and seen["methods"]["knn-clip"].k == 3
    assert seen["methods"]["rns"] == RNS(solver="lbfgs", tau=0.1, lambdas=(0.5, 0.1), beta_pseudo=0.2)
    assert seen["query_windows"].crops == (448,)  # not given, so the preset's
    run("evaluate", "scenes", "--preset", "rns")
    assert seen["support"][0].image.shape == (128, 128, 3)
    run("evaluate", "scenes", "--preset", "rns", "--size", 64)
    assert seen["support"][0].image.shape == (64, 64, 3)


def test_without_a_preset_nothing_changes(run, folder, seen):
    run("evaluate", folder)
    assert seen["seeds"] == (1, 2, 3) and seen["encoder"] == "bundled"
    assert seen["support_windows"] == seen["query_windows"] == Windows()
    assert set(seen["methods"]) > {"zero-shot", "rns"} and seen["methods"]["rns"] == RNS()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--preset", "rms"], ["'rms'", "rns, rns-dinov3txt, rns-openclip"]),
        (["--set", "rns"], ["'rns'", "METHOD.OPTION=VALUE", "knn-clip"]),
        (["--set", "rsn.k=3"], ["'rsn.k=3'", "rns"]),
        (["--set", "rns.kk=3"], ["'kk'", "k=4", "solver="]),
        (["--set", "rns.k=many"], ["'many'", "int"]),
        (["--set", "rns.k=0"], ["k must be positive", "0"]),
        (["--set", "rns.solver=sgd"], ["'sgd'", "adamw", "lbfgs"]),
        (["--methods", "rsn", "--set", "rsn.k=3"], ["'rsn.k=3'"]),
        (["--size", "0", "--preset", "rns"], ["0", "32"]),
        (["--encoder", "", "--preset", "rns"], ["''", "bundled"]),
    ],
)
def test_wrong_settings_are_refused(refused, args, said):
    refused("evaluate", "scenes", *args, said=said)


def test_scenes_by_the_kits_own_protocol(run, few, tmp_path):
    out, little = tmp_path / "out.json", ("--limit", 2, "--shots", 1, "--seeds", "1", "--size", 64)
    text = run("evaluate", few, "--preset", "rns", *little, "--json", out)
    assert [line.split()[0] for line in text.splitlines()[1:5]] == ["zero-shot", "knn-clip", "freeda", "rns"]
    assert len(rows_of(out)) == 4 and all(len(row["query_ids"]) == 2 for row in rows_of(out))


def test_a_preset_may_be_a_file_of_your_own(run, refused, folder, seen, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{methods: [rns], seeds: [7], options: {rns: {k: 8}}, query_windows: {crops: [64], stride: 32}}"
    )
    windows = Windows(crops=(64,), stride=32)
    expected = Preset(("rns",), {"rns": {"k": 8}}, query_windows=windows, seeds=(7,))
    assert read_preset(path) == expected
    run("evaluate", folder, "--preset", path)
    assert seen["methods"] == {"rns": RNS(k=8)} and seen["query_windows"] == windows
    for text, said in (
        ("{method: [rns]}", "unknown key 'method'; keys: methods, options"),
        ("{query_windows: {crop: 64}}", "crop"),
        ("[rns]", "mine.yaml"),
        ("methods: [rns", "mine.yaml"),
    ):
        path.write_text(text)
        refused("evaluate", folder, "--preset", path, said=["mine.yaml", said])
    refused("evaluate", folder, "--preset", tmp_path / "none.yaml", said=["none.yaml", "rns-openclip"])


@pytest.mark.parametrize("preset", ["rns", "rns-openclip"])
@pytest.mark.filterwarnings("ignore:no image to draw holds")
def test_a_standard_dataset_from_the_same_command_line(run, tmp_path, monkeypatch, preset):
    """VOC's archive in small -> folder -> evaluation, with several texts for the background."""
    MAKERS["voc2012"](tmp_path)
    folder = convert("voc2012", tmp_path, tmp_path / "out", progress=False)
    small = Windows(short_side=64, crops=(64, 32), stride=16)  # 448 px windows take minutes on a CPU
    quick = replace(read_preset(preset), support_windows=small, query_windows=small)
    monkeypatch.setattr(evaluation, "read_preset", lambda name: quick)
    texts = (folder / "prompts.txt").read_text().strip()
    out, own = tmp_path / "out.json", ("--encoder", "bundled", "--seeds", "100", "--shots", 1)
    run("evaluate", folder, "--preset", preset, *own, "--classes", texts, "--json", out)
    rows = rows_of(out)
    assert {row["method"] for row in rows} == {"zero-shot", "knn-clip", "freeda", "rns"}
    assert all(row["query_ids"] == ["2007_000033"] for row in rows)
    assert all(set(row["support_ids"]) <= {"2007_000032", "2007_000039"} for row in rows)
    assert list(rows[0]["per_class_iou"])[:3] == ["background", "aeroplane", "bicycle"]
    assert len(rows[0]["per_class_iou"]) == 21


def test_without_the_network_the_paper_preset_says_what_it_lacks(refused, folder, monkeypatch):
    monkeypatch.setattr("open_clip.create_model", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    refused("evaluate", folder, "--preset", "rns-openclip", said=["ViT-B-16/laion2b_s34b_b88k", "network"])
    refused("evaluate", folder, "--preset", "rns-dinov3txt", said=["'dinov3txt'"])


def test_the_bundled_encoder_takes_the_released_windows():
    """448 and 224 at 112 must be whole patches of the encoder that a preset may be run with."""
    encoder = load_encoder("bundled")
    for preset in (read_preset("rns-openclip"), read_preset("rns-dinov3txt")):
        for windows in (preset.support_windows, preset.query_windows):
            assert all(size % encoder.patch_size == 0 for size in (*windows.crops, windows.stride))
