"""A window of news: what is true, what was written about it, and the images that were taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from types import SimpleNamespace

import numpy as np

from data_scripts.news.bank import bank
from data_scripts.news.pages import Page, write_pages
from data_scripts.news.photos import Photo, take_photos
from data_scripts.news.truth import Entity, Role, draw_products, draw_roles


@dataclass(frozen=True)
class NewsWorld:
    """A miniature web; the same arguments give the same pages and images.

    Args:
        seed: draws names, looks, timelines, phrases and images.
        start, end: first and last day of the news window, at least 30 days apart.
        split: "dev" or "eval", whose phrases are used.

    Raises:
        ValueError: a window that is too short, a negative seed, or an unknown split.
    """

    seed: int
    start: date
    end: date
    split: str = "dev"

    def __post_init__(self) -> None:
        bank(self.split)
        if self.seed < 0:
            raise ValueError(f"a seed is a whole number from 0, got {self.seed}")
        if not 30 <= (self.end - self.start).days <= 3660:
            raise ValueError(f"a news window lasts 30 days to 10 years, got {self.start} to {self.end}")

    @property
    def phrases(self) -> SimpleNamespace:
        """The phrase bank of the split."""
        return bank(self.split)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """Titles with their timelines; those that individuals hold, then those that classes hold."""
        return draw_roles(self.phrases, self.start, self.end, self.rng("roles"))

    @cached_property
    def products(self) -> tuple[Entity, ...]:
        """All products, each maker's in order of time."""
        return draw_products(self.phrases, self.start, self.end, self.rng("products"))

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Everything that has a name: members of roles, then products."""
        return tuple(dict.fromkeys(m for role in self.roles for m in role.members)) + self.products

    def newest(self, maker: str, day: date) -> Entity:
        """What a maker had unveiled last by that day.

        Raises:
            ValueError: it had unveiled nothing, or there is no such maker.
        """
        known = [p for p in self.products if p.maker == maker and p.since <= day]
        if not known:
            raise ValueError(f"{maker!r} had unveiled nothing by {day}")
        return max(known, key=lambda p: p.since)

    @cached_property
    def pages(self) -> tuple[Page, ...]:
        """Articles, encyclopaedia pages and decoys, in order of their first day."""
        return write_pages(self, self.rng("pages"))

    @cached_property
    def photos(self) -> tuple[Photo, ...]:
        """Images of the entities, some of which show something else."""
        return take_photos(self, self.rng("photos"))

    def rng(self, part: str) -> np.random.Generator:
        """A generator for one part of this world: another split or window shares no look and no image."""
        key = f"{self.split} {self.start} {self.end} {part}"
        return np.random.default_rng([self.seed, *key.encode()])
