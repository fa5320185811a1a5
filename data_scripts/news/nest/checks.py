"""What a proposed sample must pass; every check says why it exists."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from data_scripts.news.nest.propose import Proposal, middle
from data_scripts.news.truth import difference
from data_scripts.news.world import NewsWorld
from data_scripts.scenes import Placed
from data_scripts.scenes.classes import BY_NAME, plural
from data_scripts.scenes.look import DRAWINGS, Look
from data_scripts.scenes.pen import Canvas, Pen

LEAST_SHARE = 0.015  # of the image, below which a target is too small to be judged
LEAST_VISIBLE = 0.5  # of a target's own outline, the rest being covered or outside the image
LEAST_DIFFERENCE = 12.0  # between two individuals of a class; below it people do not tell them apart
LEAST_IMAGES = 3  # right reference images by the day of the question


def hidden(p: Proposal, world: NewsWorld) -> bool:
    """The target is too small, or most of it is covered or outside the image."""
    if p.target is None:
        return p.mask.mean() < 2 * LEAST_SHARE
    return p.mask.mean() < LEAST_SHARE or p.mask.sum() < LEAST_VISIBLE * outline(p.target)


def outline(placed: Placed) -> int:
    """How many pixels a thing would fill if nothing covered it and the image did not end."""
    x, y, wide, tall = placed.box
    room = int(max(wide, tall)) + 8  # on every side: what is tilted reaches over its box
    height, width = int(tall) + 2 * room, int(wide) + 2 * room
    canvas = Canvas(np.zeros((2 * height, 2 * width, 3), np.uint8), np.zeros((height, width), np.uint8))
    pen = Pen(canvas, 1, (room + x % 1, room + y % 1, wide, tall), placed.tilt, placed.flip)
    DRAWINGS[placed.name].draw(pen, Look.of(placed.name, placed.individual))
    return int(canvas.finish()[1].sum())


def alone(p: Proposal, world: NewsWorld) -> bool:
    """Nothing else is in the image, so that whoever finds what stands out finds the target."""
    return sum(t.visible >= 0.01 * p.mask.size for t in p.scene.things) < (1 if p.target is None else 2)


def contested(p: Proposal, world: NewsWorld) -> bool:
    """What was published by that day does not agree: a rumour is in the air, or the change is of that day."""
    return (p.role is not None and not p.role.settled(p.day)) or (p.who is not None and p.who.since >= p.day)


def outdated(p: Proposal, world: NewsWorld) -> bool:
    """Somebody else holds the role on that day, or the maker has unveiled something newer."""
    if p.role is not None:
        return p.role.holder(p.day) is not p.who
    return p.form == "newest" and world.newest(p.who.maker, p.day) is not p.who


def ambiguous(p: Proposal, world: NewsWorld) -> bool:
    """Something else in the image fits the question, or looks just like the target."""
    same = [
        t for t in p.scene.things if p.target is not None and t.name == p.target.name and t is not p.target
    ]
    if p.form in ("left", "right"):
        return abs(middle(same[0]) - middle(p.target)) < 0.15 * p.mask.shape[1] if len(same) == 1 else True
    if p.form == "newest" and any(other.maker == p.who.maker for other in p.others):
        return True
    if p.kind == "emerging" and not p.who.is_class:
        alike = (difference(t.name, t.individual, p.target.individual) < LEAST_DIFFERENCE for t in same)
        return any(alike)
    return bool(same)


def given_away(p: Proposal, world: NewsWorld) -> bool:
    """A question that should need a look-up names the target's class; or one that should not names something
    that only a look-up explains."""
    if p.kind == "static":
        names = [e.name for e in world.entities if not e.is_class] + [e.maker for e in world.products]
        return _names(p.question, names + [w for r in world.roles for w in (r.title, r.event)])
    thing = BY_NAME[p.who.thing]
    return _names(p.question, [w for name in (thing.name, *thing.words) for w in (name, plural(name))])


def unsupported(p: Proposal, world: NewsWorld) -> bool:
    """No page says so by that day, or there are too few images of it to know it by."""
    if p.who is None:
        return False
    words = (p.who.in_text.casefold(), (p.role.title if p.role else p.who.maker).casefold())
    texts = (r.text.casefold() for page in world.pages if (r := page.on(p.day)) is not None)
    stated = any(all(word in text for word in words) for text in texts)
    right = [f for f in world.photos if f.shows == p.who == f.about and f.taken <= p.day]
    return not stated or len(right) < LEAST_IMAGES


CHECKS: dict[str, Callable[[Proposal, NewsWorld], bool]] = {
    check.__name__.replace("_", " "): check
    for check in (hidden, alone, contested, outdated, ambiguous, given_away, unsupported)
}


def fault(proposal: Proposal | None, world: NewsWorld) -> str | None:
    """The first check that a proposal fails, by name; None if it is sound."""
    if proposal is None:
        return "not drawn"
    return next((name for name, fails in CHECKS.items() if fails(proposal, world)), None)


def _names(text: str, words: list[str]) -> bool:
    return bool(re.search(rf"\b(?:{'|'.join(map(re.escape, words))})\b", text, re.IGNORECASE))
