"""What is true in the miniature world on any day: who holds which role, which product is the newest."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np

from data_scripts.news.bank import pick
from data_scripts.scenes.classes import NOVEL
from data_scripts.scenes.look import DRAWINGS, Look
from data_scripts.scenes.pen import Canvas, Pen

_MEMBERS = 5  # individuals that compete for a role
_REIGN = 50  # days between changes, about
_HUES = ((0.03, "red"), (0.11, "orange"), (0.19, "yellow"), (0.45, "green"), (0.53, "turquoise"))
_HUES += ((0.71, "blue"), (0.82, "purple"), (0.95, "pink"), (1.0, "red"))


@dataclass(frozen=True)
class Entity:
    """Something with a name: an individual that is always drawn alike, a product, or what a class is called.

    Args:
        name: "Marigold", "Aerix Hawk 5", "sheep".
        thing: its class, and `individual` its number: `Look.of(thing, individual)` is what it looks like;
            None: any of its class.
        place: where it is at home.
        since: the first day on which anything is known of it.
        maker: of a product.
    """

    name: str
    thing: str
    individual: int | None
    place: str
    since: date
    maker: str = ""

    @property
    def is_class(self) -> bool:
        """Whether any individual of its class is meant."""
        return self.individual is None

    @property
    def in_text(self) -> str:
        """Its name in a sentence: "Marigold", "the sheep"."""
        return f"the {self.name}" if self.is_class else self.name

    def look(self, number: int) -> tuple[str, int]:
        """Class and individual to draw; of a class, the individual of that number."""
        return self.thing, number % 10**6 if self.individual is None else self.individual

    @property
    def colour(self) -> str:
        """A word for its main colour; empty for a class."""
        return "" if self.individual is None else colour_word(Look.of(self.thing, self.individual).main)


@dataclass(frozen=True)
class Rumour:
    """Somebody said on `day` that `rival` held a role; it was false, and withdrawn on a later day."""

    day: date
    withdrawn: date
    rival: Entity


@dataclass(frozen=True)
class Role:
    """A title that passes from one named individual to the next.

    Args:
        title: "regatta champion", given away at `event` in `place`.
        members: who competes for it.
        reigns: (first day, holder), in order of time.
        rumours: what was said and withdrawn.
    """

    title: str
    event: str
    place: str
    members: tuple[Entity, ...]
    reigns: tuple[tuple[date, Entity], ...]
    rumours: tuple[Rumour, ...]

    def holder(self, day: date, back: int = 0) -> Entity:
        """Who holds it on a day, or held it `back` changes earlier.

        Raises:
            ValueError: the day, or the change, is before the first that is known.
        """
        known = [who for first, who in self.reigns if first <= day]
        if len(known) <= back:
            raise ValueError(f"nothing is known of the {self.title} {back} changes before {day}")
        return known[-1 - back]

    def settled(self, day: date) -> bool:
        """Whether all that was published by that day agrees: no change on it, no rumour in the air."""
        rumoured = any(r.day <= day <= r.withdrawn for r in self.rumours)
        return not rumoured and all(day != first for first, _ in self.reigns)


def colour_word(colour: tuple[int, int, int]) -> str:
    """The everyday word for an RGB colour.

    >>> colour_word((200, 30, 30)), colour_word((240, 240, 235)), colour_word((120, 80, 40))
    ('red', 'white', 'brown')
    """
    h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    if s < 0.2:
        return "white" if v > 0.85 else "grey" if v > 0.35 else "black"
    if 0.03 < h < 0.14 and v < 0.75:
        return "brown"
    return next(word for bound, word in _HUES if h <= bound)


@lru_cache(maxsize=4096)
def _portrait(thing: str, individual: int, side: int = 24) -> np.ndarray:
    """An individual on grey, (side, side, 3) in [0, 255]."""
    canvas = Canvas(np.full((2 * side, 2 * side, 3), 128, np.uint8), np.zeros((side, side), np.uint8))
    DRAWINGS[thing].draw(Pen(canvas, 1, (1, 1, side - 2, side - 2)), Look.of(thing, individual))
    return canvas.finish()[0].astype(np.float32)


def difference(thing: str, one: int, other: int) -> float:
    """How differently two individuals of a class are drawn, in the same place.

    Returns:
        The mean absolute difference of their pixels, per channel, in [0, 255]; 0: drawn alike.
    """
    return float(abs(_portrait(thing, one) - _portrait(thing, other)).mean())


def draw_roles(
    phrases: SimpleNamespace, start: date, end: date, rng: np.random.Generator
) -> tuple[Role, ...]:
    """Every role of a split with its members and timeline: held by individuals, then by classes."""
    names, roles = rng.permutation(phrases.names).tolist(), []

    def add(title: str, event: str, members: list[Entity]) -> None:
        reigns = _reigns(members, start, end, rng)
        rumours = _rumours(members, reigns, end, rng)
        roles.append(Role(title, event, pick(phrases.places, rng), tuple(members), reigns, rumours))

    for title, event, things in phrases.roles:
        kinds = [*rng.permutation(things), *rng.choice(things, _MEMBERS)][:_MEMBERS]
        members: list[Entity] = []
        for kind in map(str, kinds):
            number = _unlike(kind, [m.individual for m in members if m.thing == kind], rng)
            home, since = pick(phrases.places, rng), start - timedelta(int(rng.integers(150, 300)))
            members.append(Entity(names.pop(), kind, number, home, since))
        add(title, event, members)
    for title, event, things in phrases.class_roles:
        chosen = rng.permutation(things)[:_MEMBERS].tolist()
        add(title, event, [Entity(k, k, None, phrases.places[0], start - timedelta(300)) for k in chosen])
    return tuple(roles)


def draw_products(
    phrases: SimpleNamespace, start: date, end: date, rng: np.random.Generator
) -> tuple[Entity, ...]:
    """Every maker's products in order of time: two from before the window, then one in about 60 days."""
    products: list[Entity] = []
    for maker in phrases.makers:
        own = list(
            zip(*(rng.permutation(names)[:2].tolist() for names in (phrases.lines, NOVEL)), strict=True)
        )
        number, place = int(rng.integers(2, 6)), pick(phrases.places, rng)
        early = [start - timedelta(days) for days in (int(rng.integers(200, 300)), int(rng.integers(30, 90)))]
        for i, day in enumerate([*early, *_spread(start, end, 60, rng)]):
            line, kind = own[i % 2]
            look = _unlike(kind, [p.individual for p in products if p.thing == kind], rng)
            products.append(Entity(f"{maker} {line} {number + i // 2}", kind, look, place, day, maker))
    return tuple(products)


def _spread(start: date, end: date, every: int, rng: np.random.Generator) -> list[date]:
    """Days in the window, one about the middle of each of its equal parts of about so many days."""
    edges = np.linspace(0, (end - start).days, max(1, round((end - start).days / every)) + 1)
    return [start + timedelta(int(a + (b - a) * rng.uniform(0.15, 0.85))) for a, b in pairwise(edges)]


def _unlike(thing: str, taken: Sequence[int], rng: np.random.Generator) -> int:
    """The number of an individual whose colours differ from those of others, as far as its class allows."""

    numbers = rng.integers(1_000_000, size=8).tolist()
    return max(numbers, key=lambda n: min((difference(thing, n, other) for other in taken), default=0))


def _reigns(members: Sequence[Entity], start: date, end: date, rng: np.random.Generator):
    """(first day, holder): two from before the window, so that there is always a former one."""
    early = [start - timedelta(days) for days in (int(rng.integers(100, 140)), int(rng.integers(20, 60)))]
    order = [members[i] for i in rng.permutation(len(members))]
    days = [*early, *_spread(start, end, _REIGN, rng)]
    return tuple((day, order[i % len(order)]) for i, day in enumerate(days))


def _rumours(members, reigns, end: date, rng: np.random.Generator) -> tuple[Rumour, ...]:
    """In most reigns somebody else is said to hold the role, and the story is withdrawn within days."""
    found = []
    for (first, holder), (last, follower) in zip(reigns, [*reigns[1:], (end, None)], strict=True):
        room = (last - first).days
        if room >= 16 and rng.random() < 0.7:
            day = first + timedelta(int(rng.integers(3, room - 10)))
            rivals = [m for m in members if m not in (holder, follower)]
            found.append(Rumour(day, day + timedelta(int(rng.integers(2, 7))), pick(rivals, rng)))
    return tuple(found)
