"""Overlays: colours that differ for every eye, contours, names that can be read."""

import numpy as np
import pytest
from PIL import Image

from rose_kit.viz.overlay import ALPHA, _as_seen, contours, overlay, palette

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8)
HALVES = np.repeat([[0, 1]], 90, axis=0).repeat(60, axis=1)  # (90, 120)


def test_palette_is_stable_and_different():
    whole = palette(256)
    assert whole.shape == (256, 3) and whole.dtype == np.uint8
    assert len(np.unique(whole, axis=0)) == 256
    for n in (0, 1, 7, 8, 100):
        assert np.array_equal(palette(n), whole[:n])
    whole[:] = 0
    assert palette(1).any(), "callers get copies"


@pytest.mark.parametrize(("n", "least"), [(10, 15), (42, 10)])
def test_colours_differ_in_normal_and_colour_blind_sight(n, least):
    """CIE76 distances; 2.3 is just noticeable."""
    seen = _as_seen(palette(n))  # (3, n, 3)
    apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
    assert apart[:, ~np.eye(n, dtype=bool)].min() > least


@pytest.mark.parametrize("n", [-1, 257])
def test_palette_refuses(n):
    with pytest.raises(ValueError, match=f"0 to 256 colours, got {n}"):
        palette(n)


def test_overlay_blends_by_the_formula_and_leaves_ignored_pixels():
    labels = HALVES.copy()
    labels[:10] = 255
    out = overlay(PHOTO, labels, ["", "b"])  # an empty name writes nothing
    left, ignored = out[20:, :59], out[:9]
    expected = PHOTO[20:, :59] * (1 - ALPHA) + palette(1)[0] * ALPHA
    assert np.abs(left - expected).max() <= 0.5
    assert np.array_equal(ignored, PHOTO[:9])
    assert out.shape == PHOTO.shape and out.dtype == np.uint8
    assert np.array_equal(overlay(Image.fromarray(PHOTO), labels, ["", "b"]), out)


def test_contours_against_a_loop():
    labels = RNG.integers(0, 2, (7, 8))
    expected = [
        [
            (x + 1 < 8 and labels[y, x] != labels[y, x + 1])
            or (y + 1 < 7 and labels[y, x] != labels[y + 1, x])
            for x in range(8)
        ]
        for y in range(7)
    ]
    assert contours(labels).tolist() == expected


@pytest.mark.parametrize("shade", [0, 255])
def test_names_stand_in_their_own_region_on_any_background(shade):
    image = np.full((90, 120, 3), shade, np.uint8)
    plain = overlay(image, HALVES, ["", ""])
    written = (overlay(image, HALVES, ["left", "right"]) != plain).any(-1)
    assert written[:, :60].any() and written[:, 60:].any()
    assert not written[:, 58:62].any(), "names stay clear of the border between the classes"
    letters = overlay(image, HALVES, ["left", "right"])[written]
    assert (letters > 240).all(1).any() and (letters < 40).all(1).any(), "white letters, dark rim"


def test_names_do_not_overlap_and_crowded_images_do_not_fail():
    labels = np.arange(40).repeat(3)[None].repeat(12, axis=0)  # (12, 120), 40 slivers
    assert overlay(PHOTO[:12], labels, [f"class {i}" for i in range(40)]).shape == (12, 120, 3)


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (PHOTO[..., 0], HALVES, r"uint8 \(H, W, 3\), got uint8 \(90, 120\)"),
        (PHOTO / 255, HALVES, "got float64"),
        (PHOTO, HALVES[:5], r"labels are \(5, 120\) .*, but the image is \(90, 120\)"),
    ],
)
def test_overlay_refuses(image, labels, message):
    with pytest.raises(ValueError, match=message):
        overlay(image, labels, ["a", "b"])
