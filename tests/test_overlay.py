"""Overlays: colours that differ for every eye, names that can be read."""

import numpy as np
import pytest
from PIL import Image

from rose_kit.viz.overlay import ALPHA, as_seen, overlay, palette

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8)
HALVES = np.repeat([[0, 1]], 90, axis=0).repeat(60, axis=1)  # (90, 120)


def test_colours_are_stable_and_differ_in_normal_and_colour_blind_sight():
    """CIE76 distances; 2.3 is just noticeable."""
    whole = palette(256)
    assert len(np.unique(whole, axis=0)) == 256 and whole.dtype == np.uint8
    for n, least in ((10, 15), (42, 10)):
        assert np.array_equal(palette(n), whole[:n])
        seen = as_seen(palette(n))  # (3, n, 3)
        apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
        assert apart[:, ~np.eye(n, dtype=bool)].min() > least
    with pytest.raises(ValueError, match="read-only"):
        whole[0] = 0


def test_overlay_blends_by_the_formula_and_leaves_ignored_pixels():
    labels = HALVES.copy()
    labels[:10] = 255
    out = overlay(PHOTO, labels, ["", "b"])  # an empty name writes nothing
    expected = PHOTO[20:, :59] * (1 - ALPHA) + palette(1)[0] * ALPHA
    assert np.abs(out[20:, :59] - expected).max() <= 0.5 and np.array_equal(out[:9], PHOTO[:9])
    assert np.array_equal(overlay(Image.fromarray(PHOTO), labels, ["", "b"]), out)
    for image, wrong in ((PHOTO[..., 0], HALVES), (PHOTO / 255, HALVES), (PHOTO, HALVES[:5])):
        with pytest.raises(ValueError, match=r"\(90, 120"):
            overlay(image, wrong, ["a", "b"])


@pytest.mark.parametrize("shade", [0, 255])
def test_names_stand_in_their_own_region_on_any_background(shade):
    image = np.full((90, 120, 3), shade, np.uint8)
    named = overlay(image, HALVES, ["left", "right"])
    written = (named != overlay(image, HALVES, ["", ""])).any(-1)
    assert written[:, :60].any() and written[:, 60:].any() and not written[:, 58:62].any()
    assert (named[written] > 240).all(1).any() and (named[written] < 40).all(1).any(), "white, dark rim"
