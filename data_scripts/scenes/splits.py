"""The dataset "scenes": where evaluations draw support images from, and what they ask about."""

from __future__ import annotations

from functools import cache

from data_scripts.scenes.classes import THINGS
from data_scripts.scenes.scene import SceneDataset, draw_scene

SUPPORT, QUERY = 1_000_000, 2_000_000  # first scene seeds: apart from each other, and from all training
STRIDE = 1000  # from the query scenes of one seed to those of the next, which so share none
MAX_SEEDS = 1000


@cache  # several runs of one process share the scenes that were drawn
def support_and_query(
    pool: int = 400, queries: int = 60, size: int = 160, domain: str = "day", query_seed: int = 0
) -> tuple[SceneDataset, SceneDataset]:
    """Scenes to draw support images from, and scenes to answer.

    Args:
        pool: support scenes.
        queries: query scenes.
        size: side in pixels, 32 to 2048.
        domain: `day`, `night`, `fog` or `snow`.
        query_seed: of the query scenes, 0 to 999; for other ones than those of 0, which have been looked at.

    Raises:
        ValueError: one of these is out of range.
    """
    draw_scene(0, 32, domain=domain)  # refuses an unknown domain, before any work is done
    if not (isinstance(size, int) and 32 <= size <= 2048 and 0 < pool <= QUERY - SUPPORT and queries > 0):
        raise ValueError(
            f"scenes need a size of 32 to 2048, whole, got {size}; a pool and queries above 0, got {pool} "
            f"and {queries}"
        )
    if not (isinstance(query_seed, int) and 0 <= query_seed < MAX_SEEDS and queries <= STRIDE):
        raise ValueError(
            f"the query seed is a whole number from 0 to {MAX_SEEDS - 1}, with at most {STRIDE} queries; "
            f"got {query_seed!r}, {queries}"
        )
    look = {"size": size, "domain": domain, "classes": tuple(thing.name for thing in THINGS)}
    return SceneDataset(pool, first=SUPPORT, **look), SceneDataset(
        queries, first=QUERY + STRIDE * query_seed, **look
    )
