"""The handcrafted encoder: the features it gave once, it gives for ever."""

import numpy as np

from rose_kit.encoder import HandcraftedEncoder


def test_constants_are_frozen():
    """A change of any constant or of the random stream must raise the version in the fingerprint."""
    encoder = HandcraftedEncoder()
    gradient = np.linspace(0, 1, 32 * 32 * 3).reshape(32, 32, 3)
    assert encoder.fingerprint == "handcrafted 1, 512-d, patch 8"
    expected = [0.05242, -0.05932, -0.05886, 0.06009]
    np.testing.assert_allclose(encoder.encode_image(gradient).values[1, 2, :4], expected, atol=1e-4)
