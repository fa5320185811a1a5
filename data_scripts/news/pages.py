"""What is written: articles, encyclopaedia pages that are revised, and decoys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

import numpy as np

from data_scripts.news.bank import fill, pick, turn
from data_scripts.news.truth import Entity, Role

if TYPE_CHECKING:
    from data_scripts.news.world import NewsWorld


@dataclass(frozen=True)
class Revision:
    """One version of a page: its number, when it was saved (UTC), paragraphs between line breaks."""

    id: int
    saved: datetime
    text: str


@dataclass(frozen=True)
class Page:
    """A page with its revisions, oldest first; without an address it is of the miniature web."""

    id: int
    title: str
    revisions: tuple[Revision, ...]
    licence: str = "Creative Commons Attribution 4.0"
    url: str = ""

    def on(self, day: date) -> Revision | None:
        """The page as it was at the end of a day; None where there was no such page yet."""
        known = [r for r in self.revisions if r.saved.date() <= day]
        return known[-1] if known else None


Draft = tuple[str, date, str]  # title, day, text


def write_pages(world: NewsWorld, rng: np.random.Generator) -> tuple[Page, ...]:
    """All pages of a world: the encyclopaedia's with their revisions, and articles of one revision each.

    An article whose headline is taken gets its day added.
    """
    pages: dict[str, list[tuple[datetime, str]]] = {}

    def save(title: str, day: date, text: str) -> None:
        hour = time(int(rng.integers(5, 22)), int(rng.integers(60)))
        pages.setdefault(title, []).append((datetime.combine(day, hour), text))

    for title, day, text in _encyclopaedia(world, rng):
        save(title, day, text)
    for title, day, text in _news(world, rng):
        save(f"{title} ({day})" if title in pages else title, day, text)
    ordered = sorted(pages.items(), key=lambda item: min(item[1]))
    numbers = iter(range(1000, 1_000_000))
    return tuple(
        Page(i, title, tuple(Revision(next(numbers), *version) for version in sorted(versions)))
        for i, (title, versions) in enumerate(ordered, 1)
    )


def _news(world: NewsWorld, rng: np.random.Generator) -> Iterator[Draft]:
    """Dated articles: news, and what only looks like it."""
    for role in world.roles:
        yield from _changes(world, role, rng)
        yield from _rumours(world, role, rng)
        yield from _decoys(world, role, rng)
    for product in world.products:
        yield from _about_launch(world, product, rng)
    for _ in range(2 * len(world.phrases.fillers)):
        day = _day(world, rng)
        yield _article(world.phrases.fillers, day, rng, place=pick(world.phrases.places, rng), day=day)


def _encyclopaedia(world: NewsWorld, rng: np.random.Generator) -> Iterator[Draft]:
    """What individuals, products, events and makers are; one draft for every change."""
    words = world.phrases
    for role in world.roles:
        for who in role.members:
            about = words.about_classes if who.is_class else words.about_individuals
            text = fill(pick(about, rng), event=role.event, **_slots(who))
            yield who.name[:1].upper() + who.name[1:], who.since, text
        same = {"title": role.title, "event": role.event, "place": role.place}
        for i, (first, holder) in enumerate(role.reigns):
            text, late = turn(words.about_events, i), timedelta(int(rng.integers(3)))  # after the news
            yield role.event, first + late, fill(text, day=first, holder=holder.in_text, **same)
        for i, rumour in enumerate(role.rumours):
            same |= {"rival": rumour.rival.in_text, "holder": role.holder(rumour.day).in_text}
            yield role.event, rumour.day, fill(turn(words.about_events_rumour, i), **same)
            text = turn(words.about_events_fixed, i)
            yield role.event, rumour.withdrawn, fill(text, day=rumour.withdrawn, **same)
    for i, product in enumerate(world.products):
        slots = _slots(product)
        yield product.name, product.since, fill(pick(words.about_products, rng), day=product.since, **slots)
        text = turn(words.about_makers, i)
        yield product.maker, product.since, fill(text, day=product.since, **slots)


def _changes(world: NewsWorld, role: Role, rng: np.random.Generator) -> Iterator[Draft]:
    """One or two articles on every change, on the day itself and after it."""
    for i, (first, holder) in enumerate(role.reigns):
        rest = [m for m in role.members if m is not holder]
        former = role.reigns[i - 1][1] if i else rest[0]
        rival = pick([m for m in rest if m is not former], rng)
        chosen = rng.permutation(len(world.phrases.changes))[: 1 + int(rng.random() < 0.6)]
        for k, j in enumerate(chosen):
            slots = _slots(holder) | {"former": former.in_text, "rival": rival.in_text, "day": first}
            yield _article([world.phrases.changes[j]], first + timedelta(k), rng, role, **slots)


def _rumours(world: NewsWorld, role: Role, rng: np.random.Generator) -> Iterator[Draft]:
    """A rumour, and its withdrawal."""
    for rumour in role.rumours:
        slots = _slots(role.holder(rumour.day)) | {"rival": rumour.rival.in_text}
        yield _article(world.phrases.rumours, rumour.day, rng, role, day=rumour.day, **slots)
        day = rumour.withdrawn
        yield _article(world.phrases.withdrawals, day, rng, role, day=day, **slots)


def _decoys(world: NewsWorld, role: Role, rng: np.random.Generator) -> Iterator[Draft]:
    """Former champions, opinions and other events, about somebody who does not hold the role that day; and
    things that merely share a name."""
    words = world.phrases
    for kind in (words.looking_back, words.opinions, words.other_events):
        for template in kind:
            day = _day(world, rng)
            holder = role.holder(day)
            rival = pick([m for m in role.members if m is not holder], rng).in_text
            yield _article([template], day, rng, role, day=day, rival=rival, **_slots(holder))
    for i in rng.permutation(len(role.members))[:2]:
        who, day = role.members[i], _day(world, rng)
        clashes = words.class_clashes if who.is_class else words.clashes
        yield _article(clashes, day, rng, role, day=day, **_slots(who))


def _about_launch(world: NewsWorld, product: Entity, rng: np.random.Generator) -> Iterator[Draft]:
    """Launch, review, and guesses about what may follow; nothing for a maker's very first."""
    earlier = [p for p in world.products if p.maker == product.maker and p.since < product.since]
    if earlier:
        slots = _slots(product) | {"older": max(earlier, key=lambda p: p.since).name, "day": product.since}
        words = world.phrases
        for i in rng.permutation(len(words.launches))[: int(rng.integers(1, 3))]:
            yield _article([words.launches[i]], product.since, rng, **slots)
        later = product.since + timedelta(int(rng.integers(3, 15)))
        yield _article(words.reviews, later, rng, **slots)
        later += timedelta(int(rng.integers(3, 15)))
        yield _article(words.product_rumours, later, rng, **(slots | {"older": product.name}))


def _article(
    kinds: Sequence, on: date, rng: np.random.Generator, role: Role | None = None, /, **slots
) -> Draft:
    """One of several templates, filled."""
    headline, text = pick(kinds, rng)
    if role:
        slots |= {"title": role.title, "event": role.event, "place": role.place}
    slots |= {"lastyear": str(on.year - 1)}
    return fill(headline, **slots), on, "\n".join(fill(line, **slots) for line in text.split("\n"))


def _slots(who: Entity) -> dict[str, str]:
    """What phrases say of an entity."""
    slots = {"holder": who.in_text, "kind": who.thing, "colour": who.colour, "place": who.place}
    return slots | ({"product": who.name, "maker": who.maker} if who.maker else {})


def _day(world: NewsWorld, rng: np.random.Generator) -> date:
    return world.start + timedelta(int(rng.integers((world.end - world.start).days + 1)))
