"""Figures of fusion and of the adapter: what they draw, and that what cannot be drawn is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from course.adapter_figures import class_probability_bars, line_plot, mixing_planes, plane, sample_map
from rose_kit.types import unit
from rose_kit.viz.plots import BLUE, ORANGE


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_lines_have_their_own_points_or_share_them():
    (ax,) = line_plot([1, 10], {"a": [1, 2], "b": [3, 4]}, xlabel="x", ylabel="y", levels={"floor": 0.5}).axes
    assert [line.get_label() for line in ax.lines] == ["a", "b", "floor"]
    assert [line.get_marker() for line in ax.lines[:2]] == ["o", "s"]
    own = {"a": [1.0, 2], "b": np.arange(30)}
    (ax,) = line_plot(own, own, xlabel="x", ylabel="y", scale=("log", "linear")).axes
    assert ax.get_xscale() == "log" and ax.lines[0].get_xdata().tolist() == [1, 2]
    assert ax.lines[1].get_marker() == ""  # many points


@pytest.mark.parametrize("count", [0, 7])
def test_lines_that_cannot_be_told_apart_are_refused(count):
    with pytest.raises(ValueError, match=f"got {count}"):
        line_plot([1], {f"line {i}": [1] for i in range(count)}, xlabel="x", ylabel="y")


def test_opinions_show_the_truth_and_every_favourite():
    p = np.eye(8)[[3, 5]] * 0.9 + 0.0125
    fig = class_probability_bars(
        {"names": p[0], "vote": p[1]}, [f"class {c}" for c in range(8)], truth=3, top=2
    )
    assert [ax.get_title() for ax in fig.axes] == ["names", "vote"]
    shown = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert shown == ["class 3", "class 5"]
    colours = [[bar.get_facecolor() for bar in ax.patches] for ax in fig.axes]
    blue, orange = (plt.matplotlib.colors.to_rgba(c) for c in (BLUE, ORANGE))
    assert colours[0][0] == colours[1][0] == blue and colours[1][1] == orange != colours[0][1]


def test_plane_keeps_lengths_and_angles_within_it():
    rng = np.random.default_rng(0)
    v, t = unit(rng.normal(size=(2, 6)))
    basis = plane(v, t)
    assert np.allclose(basis @ basis.T, np.eye(2), atol=1e-6)
    seen = np.stack([v, t]) @ basis.T
    assert np.allclose(seen[0], [1, 0], atol=1e-6) and seen[1, 1] > 0
    assert np.isclose(seen[0] @ seen[1], v @ t, atol=1e-6) and np.isclose(
        np.linalg.norm(seen[1]), 1, atol=1e-6
    )


def test_mixtures_lie_on_the_circle_between_name_and_prototype():
    rng = np.random.default_rng(1)
    v, t, *patches = unit(rng.normal(size=(9, 5)))
    fig = mixing_planes({"bus": (v, t, np.array(patches[:3]), np.array(patches[3:]))}, [0.75, 0.0])
    at = {part.get_label(): part.get_offsets() for part in fig.axes[0].collections}
    assert len(at["its patches"]) == 3 and len(at["other patches"]) == 4
    assert np.allclose(np.linalg.norm(at["mixtures"], axis=1), 1, atol=1e-6)
    assert np.allclose(at["mixtures"][1], at["name"][0], atol=1e-6)  # a share of 0 is the name
    angles = np.arctan2(*at["mixtures"].T[::-1])
    assert 0 < angles[0] < angles[1]


def test_sample_map_draws_every_sample_and_names_the_commonest_classes():
    rng = np.random.default_rng(2)
    names = [f"class {c}" for c in range(9)]
    kinds = {
        "retrieved": (rng.normal(size=(9, 4)), np.arange(9)),
        "fused": (rng.normal(size=(7, 4)), np.arange(7)),
    }
    fig = sample_map(rng.normal(size=(20, 4)), kinds, names)
    drawn = sum(len(part.get_offsets()) for part in fig.axes[0].collections)
    assert drawn == 20 + 9 + 7
    listed = {text.get_text() for text in fig.legends[0].get_texts()}
    assert listed == {"patches", "retrieved", "fused", *names[:6]}
