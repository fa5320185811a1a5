"""The ablation of NEST: its tables, and what the gate chooses between."""

import csv
from datetime import date

import numpy as np

from data_scripts.news import NewsWorld
from data_scripts.news.nest import Result, ablation, build_nest, measure
from rose_kit import load_encoder
from rose_kit.evaluation import CachedEncoder

BUNDLED = load_encoder("bundled")


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
