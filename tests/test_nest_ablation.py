"""The ablation of NEST: its tables, and what the gate chooses between."""

from datetime import date

import numpy as np

from data_scripts.news import NewsWorld
from data_scripts.news.nest import Result, ablation, build_nest, measure
from rose_kit import load_encoder
from rose_kit.evaluation import CachedEncoder

WINDOW = date(2026, 1, 1), date(2026, 3, 31)


def test_the_gate_chooses_between_all_and_base_and_what_is_shared_changes_nothing():
    nest = build_nest(NewsWorld(5, *WINDOW, "dev"), 4, nest_share=0.5, progress=False)
    encoder = CachedEncoder(load_encoder("bundled"))
    rows = measure([nest], lambda archive: ablation.make_systems(archive, encoder), False)
    by = {(row["system"], row["id"]): row for row in rows}
    assert len(by) == 7 * 4
    for sample in nest:
        gated = by[ablation.GATED, sample.id]
        same = by[ablation.ALL if gated["searched"] else ablation.BASE, sample.id]
        assert (gated["intersection"], gated["union"]) == (same["intersection"], same["union"])
        assert gated["searched"] == sample.needs_web and not by[ablation.BASE, sample.id]["searched"]
        assert by[ablation.TEXT, sample.id]["searched"]


def test_the_ablation_writes_every_table(tmp_path, monkeypatch):
    def blank(name):
        return lambda image, question, day: Result(np.zeros(image.shape[:2], bool), "", name != "base")

    names = [ablation.BASE, ablation.TEXT, ablation.TPE, ablation.VPE, ablation.ALL, ablation.GATED]
    monkeypatch.setattr(ablation, "make_systems", lambda *_: {name: blank(name) for name in names})
    worlds = [NewsWorld(seed, *WINDOW, "dev") for seed in (5, 6)]
    summary, goals = ablation.ablate(worlds, tmp_path, 6, 8, progress=False)
    assert set(summary.system) == set(names) and len(goals) == 7
    met = goals.set_index("goal").met
    assert met["WebSense: needed look-ups skipped"] and not met["all over text-only search, gIoU of NEST"]
    tables = {"nest.md", "nest.csv", "nest_samples.csv", "nest_gate.csv", "nest_goals.csv"}
    assert {path.name for path in tmp_path.iterdir()} == tables
