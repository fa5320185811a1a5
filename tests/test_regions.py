"""Regions: superpixels, and soft pooling under them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import label
from skimage.segmentation import felzenszwalb
from test_segmenter import scene

from data_scripts.scenes import draw_scene
from rose_kit import FeatureMap, Felzenszwalb, Slic, make_regions, unit
from rose_kit.pooling import patch_counts
from rose_kit.segmenter import region_query


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    segments=st.integers(1, 60),
    side=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_superpixels_cover_everything_and_are_connected(size, segments, side, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    ids = Slic(segments=segments, side=side)(image)
    assert ids.shape == size and ids.dtype == np.int64
    assert np.array_equal(np.unique(ids), np.arange(ids.max() + 1)), "ids are 0 ... R - 1, without gaps"
    assert all(label(ids == r)[1] == 1 for r in range(ids.max() + 1))


def test_superpixels_follow_edges_and_their_number():
    image, mask = scene()
    ids = Slic(segments=30)(image)
    assert all(len(np.unique(mask[ids == r])) == 1 for r in range(ids.max() + 1))
    image = draw_scene(0, 96).image
    few, many = (Slic(segments=n)(image).max() + 1 for n in (20, 300))
    assert 10 <= few <= 40 and 150 <= many <= 450
    for same in (Image.fromarray(image), image.astype(np.float32) / 255):
        np.testing.assert_array_equal(Slic()(same), Slic()(image))
    blocks = Slic(side=48)(image).reshape(48, 2, 48, 2)  # a large image is reduced: 2 x 2 pixels are one
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_superpixels_of_felzenszwalb_are_those_of_scikit_image_and_follow_edges():
    image, mask = scene()
    ids = Felzenszwalb()(image)  # smoothing moves an edge by a pixel at most
    assert sum(np.bincount(mask[ids == r]).max() for r in range(ids.max() + 1)) > 0.97 * mask.size
    image = draw_scene(0, 96).image
    few, many = Felzenszwalb(scale=400.0, min_size=60), make_regions("felzenszwalb", scale=20.0)
    np.testing.assert_array_equal(few(Image.fromarray(image)), felzenszwalb(image, 400, 1.0, 60))
    assert few(image).max() < many(image).max() and np.bincount(few(image).ravel()).min() >= 60
    with pytest.raises(ValueError, match="-1"):
        Felzenszwalb(sigma=-1)


def pooled_slowly(feature_map, regions, r):
    """Pixel by pixel of the encoded image: each adds its patch's feature to its region's."""
    total = np.zeros(feature_map.dim)
    (height, width), p = feature_map.encoded_size, feature_map.patch_size
    for i, j in np.ndindex(height, width):
        if regions[i * regions.shape[0] // height, j * regions.shape[1] // width] == r:
            total += feature_map.values[i // p, j // p]
    return total / np.linalg.norm(total)


@pytest.mark.parametrize(("encoded", "size"), [((10, 13), (10, 13)), ((12, 16), (30, 41))])
def test_regions_pool_softly_by_pixels(encoded, size):
    rng = np.random.default_rng(0)
    grid = -(-encoded[0] // 4), -(-encoded[1] // 4)
    feature_map = FeatureMap(unit(rng.normal(size=(*grid, 5))), 4, encoded, size)
    seeds = rng.random((6, 2)) * size  # a region is what lies nearest to one of six points
    places = np.moveaxis(np.indices(size), 0, -1)[..., None, :]  # (H, W, 1, 2)
    regions = ((places - seeds) ** 2).sum(-1).argmin(-1)  # (H, W)
    query = region_query(feature_map, regions)
    for r in range(6):
        np.testing.assert_allclose(query.features[r], pooled_slowly(feature_map, regions, r), atol=1e-5)
    shares = patch_counts(feature_map, regions, range(6))
    assert ((shares > 0).sum(1) > 1).any(), "no patch is shared: nothing soft was tested"
    assert shares.sum() == encoded[0] * encoded[1]
