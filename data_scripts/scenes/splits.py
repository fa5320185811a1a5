"""The dataset "scenes": where evaluations draw support images from, and what they ask about."""

from __future__ import annotations

from functools import cache

from data_scripts.scenes.classes import THINGS
from data_scripts.scenes.scene import SceneDataset, draw_scene

SUPPORT, QUERY = 1_000_000, 2_000_000  # first scene seeds: apart from each other, and from all training


@cache  # several runs of one process share the scenes that were drawn
def support_and_query(
    pool: int = 400, queries: int = 60, size: int = 160, domain: str = "day"
) -> tuple[SceneDataset, SceneDataset]:
    """Scenes to draw support images from, and scenes to answer.

    Args:
        pool: support scenes.
        queries: query scenes.
        size: side in pixels, 32 to 2048.
        domain: `day`, `night`, `fog` or `snow`.

    Raises:
        ValueError: one of these is out of range.
    """
    draw_scene(0, 32, domain=domain)  # refuses an unknown domain, before any work is done
    if not (isinstance(size, int) and 32 <= size <= 2048 and 0 < pool <= QUERY - SUPPORT and queries > 0):
        raise ValueError(
            f"scenes need a size of 32 to 2048, whole, got {size}; a pool and queries above 0, got {pool} "
            f"and {queries}"
        )
    look = {"size": size, "domain": domain, "classes": tuple(thing.name for thing in THINGS)}
    return SceneDataset(pool, first=SUPPORT, **look), SceneDataset(queries, first=QUERY, **look)
