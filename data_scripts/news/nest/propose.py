"""What the data engine draws before its checks: an image, a question about it, and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from data_scripts.news.bank import fill, pick
from data_scripts.news.nest.sample import KINDS
from data_scripts.news.truth import Entity, Role
from data_scripts.news.world import NewsWorld
from data_scripts.scenes import SEEN_THINGS, Placed, Scene, draw_scene
from data_scripts.scenes.classes import BY_NAME, CLASS_ID

_FIRST_SEED = 2**41  # apart from the images in the archive and from all other scenes
RECENT_DAYS = 28  # days after its launch in which a product is asked for


@dataclass(frozen=True)
class Proposal:
    """A sample that nobody has checked yet.

    Args:
        kind: one of `KINDS`.
        form: the form of the question: "role", "product", "newest", "thing", "stuff", "left" or "right".
        question, day, answer, hint: as in `NestSample`.
        scene: the image and all that is in it.
        target: what is asked for; None for stuff.
        mask: (H, W) bool.
        who: the entity that is asked for, if it has a name; `role`: what it is asked for as.
        others: further entities that the image was to hold.
    """

    kind: str
    form: str
    question: str
    day: date
    answer: str
    hint: bool
    scene: Scene
    target: Placed | None
    mask: NDArray[np.bool_]
    who: Entity | None = None
    role: Role | None = None
    others: tuple[Entity, ...] = ()


def propose(world: NewsWorld, kind: str, rng: np.random.Generator, size: int) -> Proposal | None:
    """Draw one of a kind; None where the image does not hold what it was to show.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    return {"novel": _novel, "emerging": _emerging, "static": _static}[kind](world, rng, size)


def _emerging(world: NewsWorld, rng: np.random.Generator, size: int) -> Proposal | None:
    """Whoever holds a role on some day, often beside the one who held it before, or one like it.

    In a split with such roles, every other one is held by what a class is called.
    """
    by_class = rng.random() < 0.5 and any(r.members[0].is_class for r in world.roles)
    role = pick([r for r in world.roles if r.members[0].is_class == by_class], rng)
    day = world.start + timedelta(int(rng.integers((world.end - world.start).days + 1)))
    holder, others = role.holder(day), []
    if rng.random() < 0.6:
        others.append(role.holder(day, back=1))
    strangers = [(holder.thing, int(rng.integers(10**6)))] if rng.random() < 0.4 and not by_class else []
    text, hint = pick(world.phrases.role_questions, rng)
    question = fill(text, title=role.title, event=role.event, day=day)
    return _named("emerging", "role", question, day, hint, holder, others, strangers, role, rng, size)


def _novel(world: NewsWorld, rng: np.random.Generator, size: int) -> Proposal | None:
    """A product within weeks of its launch, sometimes beside another: by its name, or as a maker's newest."""
    fresh = [p for p in world.products if world.start <= p.since < world.end]
    product = pick(fresh, rng)
    last = min(RECENT_DAYS, (world.end - product.since).days)
    day = product.since + timedelta(int(rng.integers(1, last + 1)))
    rivals = [p for p in world.products if p.since <= day and p is not product]
    others = [pick(rivals, rng)] if rng.random() < 0.4 else []
    form = "product" if rng.random() < 0.6 else "newest"
    questions = world.phrases.product_questions if form == "product" else world.phrases.newest_questions
    text, hint = pick(questions, rng)
    question = fill(text, product=product.name, maker=product.maker, day=day)
    return _named("novel", form, question, day, hint, product, others, [], None, rng, size)


def _named(kind, form, question, day, hint, who, others, strangers, role, rng, size) -> Proposal | None:
    """The image and mask of an entity; nothing else of its class is there by chance."""
    rest = [name for name in SEEN_THINGS if name != who.thing]
    cast = [e.look(int(rng.integers(10**6))) for e in (who, *others)] + strangers
    scene = draw_scene(
        _FIRST_SEED + int(rng.integers(2**40)), size, cast=cast, classes=rest, scale=(0.38, 0.62),
        things=(len(cast) + 1, len(cast) + 2), layout=pick(BY_NAME[who.thing].places, rng),
    )  # fmt: skip
    found = [i for i, p in enumerate(scene.things) if (p.name, p.individual) == cast[0]]
    if not found:
        return None
    mask, target = scene.instances == found[0] + 1, scene.things[found[0]]
    return Proposal(kind, form, question, day, who.name, hint, scene, target, mask, who, role, tuple(others))


def _static(world: NewsWorld, rng: np.random.Generator, size: int) -> Proposal | None:
    """Something that its class, and perhaps its place, says all about."""
    form, text, hint = pick(world.phrases.static_questions, rng)
    day = world.start + timedelta(int(rng.integers((world.end - world.start).days + 1)))
    seed, twins, rest = _FIRST_SEED + int(rng.integers(2**40)), [], list(SEEN_THINGS)
    if form in ("left", "right"):
        twin = pick(SEEN_THINGS, rng)
        twins, rest = [(twin, int(n)) for n in rng.integers(10**6, size=2)], [n for n in rest if n != twin]
    layout = pick(BY_NAME[twins[0][0]].places, rng) if twins else None
    scene = draw_scene(seed, size, cast=twins, classes=rest, things=(3, 5), scale=(0.38, 0.62), layout=layout)
    target = _asked_for(scene, form, twins, rng)
    if not scene.things or not scene.stuff or (form != "stuff" and target is None):
        return None
    stuff = pick(scene.stuff, rng)
    answer = stuff if target is None else target.name
    others = [p.name for p in scene.things if p.name != answer] or ["person"]
    question = fill(text, thing=answer, stuff=stuff, other=pick(others, rng))
    if target is None:
        mask = scene.mask == CLASS_ID[stuff]
    else:
        mask = scene.instances == scene.things.index(target) + 1
    return Proposal("static", form, question, day, answer, hint, scene, target, mask)


def _asked_for(scene: Scene, form: str, twins, rng: np.random.Generator) -> Placed | None:
    """The thing that a static question is about; None for stuff, and where a twin is missing."""
    if form == "stuff" or not scene.things:
        return None
    if form == "thing":
        return pick(scene.things, rng)
    pair = sorted((p for p in scene.things if p.name == twins[0][0]), key=middle)
    return pair[0 if form == "left" else -1] if len(pair) == 2 else None


def middle(placed: Placed) -> float:
    """The column of a thing's middle, in pixels."""
    return placed.box[0] + placed.box[2] / 2
