"""Maps of the notebooks: what they draw, and that wrong counts are refused."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rose_kit.viz.maps import heat_row, label_map, spotlight
from rose_kit.viz.overlay import ALPHA, palette

PICTURE = np.full((8, 12, 3), 100, np.uint8)


def test_label_map_is_enlarged_and_has_the_colours_of_the_classes():
    drawn = label_map(np.repeat([[0, 255]], 2, axis=0), ["a"], side=60)
    assert drawn.shape == (60, 60, 3) and drawn.dtype == np.uint8
    expected = 240 * (1 - ALPHA) + palette(1)[0] * ALPHA
    assert np.abs(drawn[1, 1] - expected).max() <= 1
    assert (drawn[-1, -1] == 240).all()  # ignored


def test_spotlight_keeps_the_region_and_pales_the_rest():
    region = np.zeros((8, 12), bool)
    region[2:4, 3:5] = True
    lit = spotlight(PICTURE, region)
    assert lit.dtype == np.uint8 and (lit[region] == 100).all() and (lit[~region] == 210).all()


def test_heat_row_draws_all_maps_on_one_scale_and_numbers_the_marks():
    maps = [np.array([[0.0, 1.0]]), np.array([[2.0, 5.0]])]
    fig = heat_row(PICTURE, maps, ["p", "m", "n"], marks=[(2, 3), (4, 5)])
    left, *right = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["p", "m", "n"]
    assert [ax.images[0].get_clim() for ax in right] == [(0, 5)] * 2
    assert [(t.get_text(), t.get_position()) for t in left.texts] == [("1", (3, 2)), ("2", (5, 4))]
    limited = heat_row(PICTURE, maps[:1], ["p", "m"], limits=(-1, 9))
    assert limited.axes[1].images[0].get_clim() == (-1, 9)
    plt.close("all")


@pytest.mark.parametrize(
    ("maps", "titles"), [([], ["p"]), ([np.eye(2)], ["p"]), ([np.eye(2)], ["p", "m", "n"])]
)
def test_titles_that_do_not_fit_are_refused(maps, titles):
    with pytest.raises(ValueError, match=f"{len(maps)} maps do not go with {len(titles)} titles"):
        heat_row(PICTURE, maps, titles)
