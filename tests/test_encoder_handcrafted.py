"""The handcrafted encoder: deterministic, local, quick, and of use on photographs."""

import numpy as np
import pytest

from rose_kit.encoder import HandcraftedEncoder, Windows
from rose_kit.pooling import pool_masks, resize_nearest


def textures(seed, size=96):
    """Four quarters: stripes down, stripes across, noise, plain; all of the same mean grey."""
    rng = np.random.default_rng(seed)
    wave = 0.5 + 0.3 * np.sign(np.sin(np.arange(size) * np.pi / 3 + rng.uniform(0, 6)))
    image = np.full((size, size), 0.5)
    half = size // 2
    image[:half, :half] = wave[None, :half]
    image[:half, half:] = wave[:half, None]
    image[half:, :half] = 0.5 + 0.3 * np.sign(rng.standard_normal((half, half)))
    mask = np.arange(4).reshape(2, 2).repeat(half, 0).repeat(half, 1)
    return np.repeat(image[..., None], 3, -1), mask


def test_textures_are_told_apart_by_one_prototype_each():
    encoder = HandcraftedEncoder()
    image, mask = textures(0)
    prototypes, _ = pool_masks(encoder.encode_image(image), mask, range(4))
    image, mask = textures(1)
    got = (encoder.encode_image(image).values @ prototypes.T).argmax(-1)  # (12, 12)
    assert (got == resize_nearest(mask, got.shape)).mean() > 0.9


def test_constants_are_frozen():
    """A change of any constant or of the random stream must raise the version in the fingerprint."""
    encoder = HandcraftedEncoder()
    gradient = np.linspace(0, 1, 32 * 32 * 3).reshape(32, 32, 3)
    assert encoder.fingerprint == "handcrafted 1, 512-d, patch 8"
    expected = [0.05242, -0.05932, -0.05886, 0.06009]
    np.testing.assert_allclose(encoder.encode_image(gradient).values[1, 2, :4], expected, atol=1e-4)


def test_sizes_patches_and_windows():
    image = np.random.default_rng(0).random((37, 50, 3))
    encoder = HandcraftedEncoder()
    scaled = encoder.encode_image(image, Windows(74, (32,), 16))
    assert (scaled.encoded_size, scaled.image_size, scaled.grid) == ((74, 100), (37, 50), (10, 13))
    assert HandcraftedEncoder(patch_size=4).encode_image(image).grid == (10, 13)
    assert encoder.encode_image(np.zeros((1, 1, 3), np.uint8)).grid == (1, 1)
    uniform = encoder.encode_image(np.full((60, 61, 3), 0.8)).values  # padding repeats the border
    np.testing.assert_allclose(uniform[3, -1], uniform[3, 0], atol=1e-3)
    with pytest.raises(ValueError, match="0"):
        HandcraftedEncoder(0)
