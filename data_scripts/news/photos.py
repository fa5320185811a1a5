"""Images of what has a name, as a media archive holds them: several of each, and some of something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from data_scripts.news.bank import fill, pick
from data_scripts.news.truth import Entity
from data_scripts.scenes.classes import BY_NAME, SEEN_THINGS
from data_scripts.scenes.scene import draw_scene

if TYPE_CHECKING:
    from data_scripts.news.world import NewsWorld

SIZE = 128  # pixels a side
FIRST_SEED = 2**40  # apart from the scenes that anything was trained or tested on
LICENCES = ("CC BY 4.0", "CC BY-SA 4.0", "CC0")
_LEAST = 0.05  # share of the image that its subject fills


@dataclass(frozen=True)
class Photo:
    """An image in the archive.

    Args:
        title: of its page, "File:Marigold 2.png".
        caption: what its page says it shows.
        about: the entity that title and caption name.
        shows: the entity it truly shows; None for mere scenery.
        taken: the day it was taken and uploaded.
        licence: one of `LICENCES`.
        seed: of the scene.
    """

    title: str
    caption: str
    about: Entity
    shows: Entity | None
    taken: date
    licence: str
    seed: int
    url: ClassVar[str] = ""  # that of its page in the miniature web

    def draw(self) -> NDArray[np.uint8]:
        """The image, (SIZE, SIZE, 3) uint8; the subject fills at least a twentieth of it."""
        if self.shows is None:
            return draw_scene(self.seed, SIZE, things=(0, 2)).image
        who = self.shows
        rest = [name for name in SEEN_THINGS if name != who.thing]
        layout = BY_NAME[who.thing].places[self.seed % len(BY_NAME[who.thing].places)]
        best = None
        for attempt in range(40):  # whether a thing fits into a scene is left to chance
            scene = draw_scene(
                self.seed + attempt, SIZE, cast=[who.look(self.seed)], classes=rest, layout=layout,
                things=(1, 2), scale=(0.6, 0.85),
            )  # fmt: skip
            shown = max(p.visible for p in scene.things if p.name == who.thing)
            best = max(best or (0, None), (shown, scene.image), key=lambda pair: pair[0])
            if shown >= _LEAST * SIZE**2:
                break
        return best[1]


def take_photos(world: NewsWorld, rng: np.random.Generator) -> tuple[Photo, ...]:
    """Four to six right images of every entity and one or two wrong ones, in random order."""
    return tuple(photo for who in world.entities for photo in _of(world, who, rng))


def _of(world: NewsWorld, who: Entity, rng: np.random.Generator) -> Iterator[Photo]:
    right, wrong = int(rng.integers(4, 7)), int(rng.integers(1, 3))
    strangers = [e for e in world.entities if e.thing != who.thing and e.since <= who.since]
    shown = [who] * right + [pick([*strangers, None, None], rng) for _ in range(wrong)]
    early = set(range(3)) | {right}  # three right ones and a wrong one are there from the first day
    for number, i in enumerate(rng.permutation(len(shown)), 1):
        taken = who.since + timedelta(0 if i in early else int(rng.integers(1, 20)))
        caption = fill(pick(world.phrases.captions, rng), name=who.name, place=who.place)
        title, licence = f"File:{who.name} {number}.png", pick(LICENCES, rng)
        yield Photo(title, caption, who, shown[i], taken, licence, FIRST_SEED + int(rng.integers(2**40)))
