"""The miniature web as a place to search: what `rose-kit ask --provider mini` looks things up in."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_scripts.news.nest.folder import load_nest
from data_scripts.news.server import serve
from data_scripts.news.world import NewsWorld
from data_scripts.scenes import draw_scene
from data_scripts.scenes.classes import BY_NAME
from rose_kit.web.net import Client
from rose_kit.web.providers import Wikimedia

WINDOW = date(2026, 1, 1), date(2026, 6, 30)


class MiniatureWeb:
    """News about drawn scenes from January to June 2026, served on this machine inside a `with` block.

    Args:
        image: file of a picture; of a folder made by `python -m data_scripts.news` the own news are served.
        seed: of the news otherwise.
    """

    def __init__(self, image: str | Path | None = None, seed: int = 1) -> None:
        folder = Path(image or "").absolute().parent.parent
        nest = image is not None and (folder / "nest.json").is_file()
        self.world = load_nest(folder).world if nest else NewsWorld(seed, *WINDOW)
        self.days = self.world.start, self.world.end  # that its news cover
        self._stack = ExitStack()

    def __enter__(self) -> MiniatureWeb:
        base = self._stack.enter_context(serve(self.world))
        api = f"{base}/w/api.php"
        wiki = Wikimedia(api, api, Client(allow_private=[base.partition("//")[2]]))
        self.search, self.images = wiki.search, wiki.images
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def example(self, question: str, day: date) -> NDArray[np.uint8]:
        """A picture of whoever holds the title, or of the product, that a question names, beside another.

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
        cast = [(who.thing, who.individual) for who in shown]
        layout = BY_NAME[shown[0].thing].places[0]
        scenes = (
            draw_scene(2**42 + n, 160, cast=cast, layout=layout, things=(3, 4), scale=(0.4, 0.6))
            for n in range(20)
        )
        return max(scenes, key=lambda s: sum((p.name, p.individual) == cast[0] for p in s.things)).image
