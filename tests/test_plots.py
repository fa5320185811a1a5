"""Figures: what is drawn is what was given; and they stay small."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from rose_kit import Evidence, FeatureMap, SupportMemory, unit
from rose_kit.fusion import pooled_evidence
from rose_kit.viz import plots

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def evidence(*rows) -> Evidence:
    query, ids, names, weight = zip(*rows, strict=True)
    return Evidence(np.array(query), np.array(ids), np.array(names), np.array(weight, np.float32))


@pytest.fixture
def memory() -> SupportMemory:
    memory = SupportMemory(8)
    mask = np.zeros((24, 32), int)
    mask[:, 16:] = 1
    for i in range(2):  # ids 0 and 1, then 2 and 3
        features = FeatureMap(unit(RNG.normal(size=(3, 4, 8))), 8, (24, 32), (24, 32))
        memory.add(f"image-{i}", features, mask, {0: "sky", 1: "bus"}, thumbnail=None if i else PICTURE)
    return memory


def test_evidence_of_several_patches_is_their_mean_and_loses_nothing():
    rows = [(0, 7, "bus", 1.0), (0, -1, "bus", 2.0), (1, 7, "bus", -4.0), (1, -1, "sky", 3.0)]
    pooled = pooled_evidence(evidence(*rows, (2, 9, "sky", 9.0)), [1, 0])
    keys = zip(pooled.prototype_id.tolist(), pooled.class_name.tolist(), strict=True)
    found = dict(zip(keys, pooled.weight.tolist(), strict=True))
    assert found == {(7, "bus"): -1.5, (-1, "bus"): 1.0, (-1, "sky"): 1.5}
    assert pooled.weight.sum() == pytest.approx((1 + 2 - 4 + 3) / 2)
    assert (np.diff(np.abs(pooled.weight)) <= 0).all() and (pooled.query == 0).all()


def test_evidence_about_other_patches_is_refused():
    with pytest.raises(ValueError, match=r"no evidence about patches \[5\]"):
        pooled_evidence(evidence((0, 7, "bus", 1.0)), [5])


def test_enlarging_repeats_pixels():
    large = plots.enlarge(PICTURE, side=50)
    assert large.shape == (72, 96, 3)
    assert (large[1::3, 1::3] == PICTURE).all()


def test_a_row_shows_each_picture_under_its_title():
    fig = plots.image_row([PICTURE, PICTURE[::-1], PICTURE[..., 0]], ["a", "b", "c"], columns=2)
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["a", "b", "c"]
    assert (shown[1].images[0].get_array() == PICTURE[::-1]).all()


@pytest.mark.parametrize(("images", "titles"), [([], []), ([PICTURE], ["a", "b"])])
def test_titles_that_do_not_fit_are_refused(images, titles):
    with pytest.raises(ValueError, match=f"{len(images)} pictures do not go with {len(titles)} titles"):
        plots.image_row(images, titles)


def test_bars_are_as_long_as_the_scores():
    summary = {"method": "rns", "shots": 5, "miou": 40.0, "half_width": 2.5}
    (ax,) = plots.score_bars([summary, summary | {"method": "one seed", "half_width": np.nan}]).axes
    assert [bar.get_width() for bar in ax.patches] == [40, 40]
    assert [t.get_text() for t in ax.texts] == [" 40.0 ± 2.5", " 40.0"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["rns", "one seed"]


def test_evidence_is_shown_strongest_first_with_its_sign(memory):
    given = evidence((0, 0, "sky", -0.5), (0, 3, "bus", 2.0), (0, -1, "bus", 9.0), (0, 1, "bus", 1.0))
    fig = plots.evidence_figure(PICTURE, np.ones((24, 32), bool), given, memory, "bus", count=4)
    titles = [ax.get_title() for ax in fig.axes if ax.get_title()]
    assert titles == ["answer: bus", "bus", "bus", "sky"]
    bars = [ax.patches[0] for ax in fig.axes if ax.patches]
    assert [bar.get_height() for bar in bars] == [2.0, 1.0, -0.5]
    colours = [plots.BLUE, plots.BLUE, plots.ORANGE]
    assert [bar.get_facecolor() for bar in bars] == [to_rgba(c) for c in colours]
    pictures = [ax.images[0].get_array() for ax in fig.axes if ax.images]  # prototype 3 has no thumbnail
    assert len(pictures) == 3 and (pictures[1] == PICTURE).all()


def test_evidence_without_a_prototype_is_refused(memory):
    with pytest.raises(ValueError, match=r"names no prototype; its ids are \[-1\]"):
        plots.evidence_figure(PICTURE, PICTURE[..., 0] > 9, evidence((0, -1, "bus", 1.0)), memory, "bus")


def test_saved_figures_are_palette_images(tmp_path):
    path = plots.save(plots.image_row([PICTURE]), tmp_path / "new" / "row.png")
    assert Image.open(path).mode == "P"
    assert not plt.get_fignums(), "saving closes the figure"


def test_a_shown_figure_is_followed_by_its_line(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    plots.show(plots.image_row([PICTURE]), "One picture.")
    assert Image.open(io.BytesIO(shown[0].data)).format == "PNG"
    assert capsys.readouterr().out == "One picture.\n"
