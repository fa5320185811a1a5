"""The miniature web that `rose-kit ask --provider mini` looks things up in."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_scripts.news.archive import THRESHOLDS, NewsArchive
from data_scripts.news.nest.folder import load_nest
from data_scripts.news.world import NewsWorld
from data_scripts.scenes import SEEN_NAMES, draw_scene
from data_scripts.scenes.classes import BY_NAME

WINDOW = date(2026, 1, 1), date(2026, 6, 30)


class MiniatureWeb(NewsArchive):
    """A `Provider` of news about drawn scenes from January to June 2026.

    Args:
        image: file of an image; of a folder made by `python -m data_scripts.news` its own news are searched.
        seed: of the news otherwise.

    Attributes:
        known: the names that the bundled encoder was trained on.
        thresholds: the file of those of its vision tower.
        days: the first and the last day of the news.
    """

    known, thresholds = SEEN_NAMES, THRESHOLDS

    def __init__(self, image: str | Path | None = None, seed: int = 1) -> None:
        folder = Path(image or "").absolute().parent.parent
        nest = image is not None and (folder / "nest.json").is_file()
        super().__init__(load_nest(folder).world if nest else NewsWorld(seed, *WINDOW))
        self.days = self.world.start, self.world.end

    def example(self, question: str, day: date) -> NDArray[np.uint8]:
        """An image of whoever holds the title, or of the product, that a question names, beside another.

        Raises:
            ValueError: it names none; lists those there are.
        """
        world, asked = self.world, question.casefold()
        roles = [r for r in world.roles if r.title.casefold() in asked or r.event.casefold() in asked]
        products = [p for p in world.products if p.since <= day and p.maker.casefold() in asked]
        if not roles and not products:
            makers = sorted({p.maker for p in world.products})
            known = [*(r.title for r in world.roles), *(f"latest product of {maker}" for maker in makers)]
            raise ValueError(
                f"the miniature web knows nothing of {question!r}; ask for the {', the '.join(known)}"
            )
        if roles:
            shown = [roles[0].holder(day), roles[0].holder(day, back=1)]
        else:
            named = (p for p in products if p.name.casefold() in asked)
            shown = [next(named, max(products, key=lambda p: p.since))]
        cast = [who.look(0) for who in shown]
        layout = BY_NAME[shown[0].thing].places[0]
        scenes = (
            draw_scene(2**42 + n, 160, cast=cast, layout=layout, things=(3, 4), scale=(0.4, 0.6))
            for n in range(20)
        )
        return max(scenes, key=lambda s: sum((p.name, p.individual) == cast[0] for p in s.things)).image
