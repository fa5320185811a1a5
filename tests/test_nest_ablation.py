"""The ablation of NEST: its tables, and what the gate chooses between."""

from datetime import date

from data_scripts.news import NewsWorld
from data_scripts.news.nest import ablation, build_nest, measure
from rose_kit import load_encoder
from rose_kit.evaluation import CachedEncoder

WINDOW = date(2026, 1, 1), date(2026, 3, 31)


def test_the_gate_chooses_between_all_modules_and_none():
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
