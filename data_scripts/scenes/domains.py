"""Weather and daylight: the same scene, seen differently."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DOMAINS = ("day", "night", "fog", "snow")


def apply_domain(
    image: NDArray[np.uint8], ground: NDArray[np.bool_], domain: str, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Change the light of a drawn scene; its annotation stays as it was.

    Args:
        image: (H, W, 3) uint8 by day.
        ground: (H, W) where snow may lie.
        domain: one of `DOMAINS`.
        rng: draws snow flakes and sensor noise.

    Returns:
        (H, W, 3) uint8.
    """
    x = image.astype(np.float32)
    depth = np.linspace(1, 0, len(image), dtype=np.float32)[:, None, None]  # the top is far away
    if domain == "night":
        x = x * np.array([0.26, 0.3, 0.46], np.float32) + (2, 4, 14)
        x[image.min(-1) > 200] *= 1.5  # what is nearly white glows
    elif domain == "fog":
        veil = 0.35 + 0.4 * depth
        x = x * (1 - veil) + 205 * veil
    elif domain == "snow":
        x[ground] = 0.3 * x[ground] + 0.7 * np.array([236, 240, 248], np.float32)
        x = 0.85 * x + 30
        flakes = rng.random(image.shape[:2]) < 0.02
        x[flakes] = 250
    noise = 7.0 if domain == "night" else 3.0
    x += noise * rng.standard_normal(image.shape, dtype=np.float32)
    return x.clip(0, 255).astype(np.uint8)
