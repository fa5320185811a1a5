"""rose-kit ask: the trail, the mask, mistakes in a line; the ablation of NEST: its tables."""

import csv
from datetime import date

import numpy as np
import pytest
from PIL import Image

from data_scripts.news import NewsWorld
from data_scripts.news.nest import Result, ablation, build_nest, measure
from rose_kit import cli, load_encoder
from rose_kit.cli.ask import printable
from rose_kit.evaluation import CachedEncoder
from rose_kit.web import providers
from rose_kit.web.net import WebError

BUNDLED = load_encoder("bundled")
QUESTION = "Segment the current regatta champion."


def test_one_command_against_the_miniature_web(run, tmp_path):
    mask = tmp_path / "out" / "mask.png"
    out = run("ask", "example", QUESTION, "--date", "2026-03-01", "--out", mask)
    lines = dict(line.split(None, 1) for line in reversed(out.splitlines()))
    assert lines["gate"].startswith("look up (by rule)") and "2026-03-01" in lines["question"]
    assert "confidence" in lines["candidate"] and lines["verified"].startswith(("kept", "corrected"))
    name = lines["answer"].split(" (")[0]
    assert name in lines["prompt"] and "no language model" in lines["model"]
    sources = [line for line in out.splitlines() if line.startswith("source")]
    assert len(sources) > 2 and all(
        "/wiki/" in s and "2026-03-01" >= s.split()[1].rstrip(",") for s in sources
    )
    pixels = np.asarray(Image.open(mask))
    assert pixels.shape == (160, 160) and set(np.unique(pixels)) == {0, 255}
    image = np.asarray(Image.open(mask.with_name("mask.image.png")))
    changed = (np.asarray(Image.open(mask.with_name("mask.overlay.png"))) != image).any(2)
    assert changed[pixels > 0].mean() > 0.9
    again = run("ask", mask.with_name("mask.image.png"), "Segment the boat.", "--out", tmp_path / "boat.png")
    assert "no look-up" in again and "\nanswer" not in again


def test_a_folder_is_a_place_to_search_too(run, tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "Tamsin.txt").write_text(
        "Tamsin is the new mayor. The mayor since May is Tamsin, a dog."
    )
    Image.new("RGB", (40, 40), "white").save(tmp_path / "photo.png")
    out = run(
        "ask",
        tmp_path / "photo.png",
        "Segment the mayor.",
        "--provider",
        tmp_path / "pages",
        "--out",
        tmp_path / "m.png",
    )
    assert "answer    Tamsin" in out and "no date, unknown" in out


def test_without_the_network_the_plain_segmenter_answers_and_the_status_is_1(tmp_path, capsys, monkeypatch):
    def away(self, api, **params):
        raise WebError("no route to host")

    monkeypatch.setattr(providers.Wikimedia, "_ask", away)
    Image.new("RGB", (40, 40), "white").save(tmp_path / "photo.png")
    args = ["ask", tmp_path / "photo.png", QUESTION, "--provider", "wikimedia", "--out", tmp_path / "m.png"]
    assert cli.status([str(a) for a in args]) == 1
    out, err = capsys.readouterr()
    assert "no route to host" in err and "Folder" in err and "still works" in err and "plain segmenter" in err
    assert (tmp_path / "m.png").exists() and "written" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.png", QUESTION], ["nowhere.png"]),
        (
            ["example", "Segment the goose."],
            ["'Segment the goose.'", "regatta champion", "latest product of Aerix"],
        ),
        (["example", QUESTION, "--date", "1 March"], ["'1 March'", "2026-03-01"]),
        (["example", QUESTION, "--date", "2031-01-01"], ["2031-01-01", "2026-01-01 to 2026-06-30"]),
        (["example", QUESTION, "--provider", "alta"], ["'alta'", "duckduckgo, mini, wikimedia"]),
        (["example", QUESTION, "--provider", "wikimedia"], ["example", "wikimedia"]),
        (["example", QUESTION, "--model", "m"], ["'m'", "OPENAI_BASE_URL"]),
    ],
)
def test_mistakes_are_told_in_one_line(refused, tmp_path, monkeypatch, args, said):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refused("ask", *args, "--out", tmp_path / "m.png", said=said)


def test_a_folder_cannot_be_the_mask(refused, tmp_path):
    refused("ask", "example", QUESTION, "--out", tmp_path, said=["is a folder"])


# --- the ablation ---------------------------------------------------------------------------------


def blank(name):
    """A system that finds nothing and looks everything up, but for one that never does."""
    return lambda image, question, day: Result(np.zeros(image.shape[:2], bool), "", name != "base")


def test_the_ablation_writes_every_table(tmp_path, monkeypatch):
    names = [ablation.BASE, ablation.TEXT, ablation.TPE, ablation.VPE, ablation.ALL, ablation.GATED]
    monkeypatch.setattr(ablation, "make_systems", lambda base, encoder: {name: blank(name) for name in names})
    worlds = [NewsWorld(seed, date(2026, 1, 1), date(2026, 6, 30), "dev") for seed in (5, 6)]
    summary, goals = ablation.ablate(worlds, tmp_path, 10, 12, progress=False)
    assert set(summary.system) == set(names) and not goals.met.all()
    tables = {path.name: list(csv.DictReader(path.open())) for path in tmp_path.glob("*.csv")}
    assert {name: len(rows) for name, rows in tables.items() if name != "nest.csv"} == {
        "nest_samples.csv": 6 * 2 * 10,
        "nest_gate.csv": 5,
        "nest_goals.csv": 7,
    }
    met = {row["goal"]: row["met"] for row in tables["nest_goals.csv"]}
    assert met["WebSense: needed look-ups skipped"] == "True" and (tmp_path / "nest.md").exists()
    assert met["all over text-only search, gIoU of NEST"] == "False"


def test_the_gate_chooses_between_all_and_base_and_what_is_shared_changes_nothing():
    nest = build_nest(
        NewsWorld(5, date(2026, 1, 1), date(2026, 3, 31), "dev"), 4, nest_share=0.5, progress=False
    )
    rows = measure([nest], lambda base: ablation.make_systems(base, CachedEncoder(BUNDLED)), False)
    by = {(row["system"], row["id"]): row for row in rows}
    assert len(by) == 7 * 4
    for sample in nest:
        gated = by[ablation.GATED, sample.id]
        same = by[ablation.ALL if gated["searched"] else ablation.BASE, sample.id]
        assert (gated["intersection"], gated["union"]) == (same["intersection"], same["union"])
        assert gated["searched"] == sample.needs_web and not by[ablation.BASE, sample.id]["searched"]
        assert by[ablation.TEXT, sample.id]["searched"]


def test_the_picture_that_is_asked_about_is_never_written_over(tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (32, 32), "white").save(photo)
    before = photo.read_bytes()
    (tmp_path / "here").mkdir()
    for out in (photo, tmp_path / "here" / ".." / "photo.png"):
        assert cli.status(["ask", str(photo), "Segment the dog.", "--out", str(out)]) == 2
        assert "would overwrite the picture" in capsys.readouterr().err
    overlay = photo.rename(tmp_path / "mask.overlay.png")
    out = str(tmp_path / "mask.png")
    assert cli.status(["ask", str(overlay), "Segment the dog.", "--out", out]) == 2
    assert overlay.read_bytes() == before and not (tmp_path / "mask.png").exists()


def test_text_of_the_web_does_not_steer_the_terminal():
    assert printable("a\x1b[2Jb\r\nverified\u202e kept") == "a [2Jb  verified  kept"
