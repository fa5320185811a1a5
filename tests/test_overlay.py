"""Overlays: colours that differ for every eye, names that can be read."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from rose_kit.viz.overlay import ALPHA, APART, DIFFERENT, as_seen, figure_colours, overlay, palette
from rose_kit.viz.plots import LabelMap, image_row

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8)
HALVES = np.repeat([[0, 1]], 90, axis=0).repeat(60, axis=1)  # (90, 120)


def test_colours_are_stable_and_differ_in_normal_and_colour_blind_sight():
    """CIE76 distances; 2.3 is just noticeable."""
    whole = palette(256)
    assert len(np.unique(whole, axis=0)) == 256 and whole.dtype == np.uint8
    for n, least in ((10, 15), (42, DIFFERENT)):
        assert np.array_equal(palette(n), whole[:n])
        seen = as_seen(palette(n))  # (3, n, 3)
        apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
        assert apart[:, ~np.eye(n, dtype=bool)].min() > least
    with pytest.raises(ValueError, match="read-only"):
        whole[0] = 0


def distances(colours):
    """(n, n) CIE76, the least of those that eyes of three kinds see."""
    seen = as_seen(colours)
    return np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1).min(0)


def test_classes_of_a_figure_are_told_apart_by_their_colours():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        few = rng.choice(42, 9, replace=False)
        maps = [rng.choice([*few, 255, -1], size) for size in ((20, 30), (7, 9))]
        colours = figure_colours(maps, 42)
        assert distances(colours[few])[~np.eye(9, dtype=bool)].min() >= APART
        stripes = np.repeat(rng.permutation(42), 5)[None].repeat(3, axis=0)  # too many: neighbours differ
        order = stripes[0, ::5]
        apart = distances(figure_colours([stripes], 42))
        assert apart[order[1:], order[:-1]].min() >= APART
        mixed = rng.choice(rng.choice(42, 17, replace=False), (12, 12))  # nearly all touch: none are the same
        shown = np.unique(mixed)
        apart = distances(figure_colours([mixed], 42)[shown])
        assert apart[~np.eye(len(shown), dtype=bool)].min() >= DIFFERENT
    assert np.array_equal(figure_colours([np.array([[0, 1]])], 2), palette(2))  # nothing to change


def test_a_row_of_maps_shares_its_colours_and_lists_them():
    first, second = (
        np.array([[3, 9]]).repeat(8, 1).repeat(8, 0),
        np.array([[9, 255]]).repeat(8, 1).repeat(8, 0),
    )
    names = [f"class {c}" for c in range(12)]
    fig = image_row([PHOTO, LabelMap(first, names), LabelMap(second, names, PHOTO[:8, :16])])
    colours = figure_colours([first, second], 12)
    [legend] = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["class 3", "class 9"]
    assert np.allclose([patch.get_facecolor()[:3] for patch in legend.get_patches()], colours[[3, 9]] / 255)
    left = fig.axes[1].images[0].get_array()
    assert (left[2, 2] == colours[3]).all() and left.shape[:2] == (192, 384)
    plt.close(fig)


def test_overlay_blends_by_the_formula_and_leaves_ignored_pixels():
    labels = HALVES.copy()
    labels[:10] = 255
    out = overlay(PHOTO, labels, ["", "b"])  # an empty name writes nothing
    grey = 80 + PHOTO[20:, :59] @ [0.2125, 0.7154, 0.0721] * 175 / 255  # ITU-R BT.709
    expected = grey[..., None] * (1 - ALPHA) + palette(1)[0] * ALPHA
    assert np.abs(out[20:, :59] - expected).max() <= 0.51 and np.array_equal(out[:9], PHOTO[:9])
    assert np.array_equal(overlay(Image.fromarray(PHOTO), labels, ["", "b"]), out)
    for image, wrong in ((PHOTO[..., 0], HALVES), (PHOTO, HALVES[:5])):
        with pytest.raises(ValueError, match=r"\(90, 120"):
            overlay(image, wrong, ["a", "b"])


@pytest.mark.parametrize("shade", [0, 255])
def test_names_stand_in_their_own_region_on_any_background(shade):
    image = np.full((90, 120, 3), shade, np.uint8)
    named = overlay(image, HALVES, ["left", "right"])
    written = (named != overlay(image, HALVES, ["", ""])).any(-1)
    assert written[:, :60].any() and written[:, 60:].any() and not written[:, 58:62].any()
    assert (named[written] > 240).all(1).any() and (named[written] < 40).all(1).any(), "white, dark rim"
