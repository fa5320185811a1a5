"""What people would write under a scene: part of what is visible, in varying words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_scripts.scenes.classes import BY_NAME, plural
from data_scripts.scenes.scene import Scene

STUFF_WORDS = {
    "sky": ("sky", "heaven", "clouds"),
    "grass": ("grass", "lawn", "pasture"),
    "road": ("road", "street", "asphalt"),
    "water": ("water", "sea", "waves"),
    "sand": ("sand", "dunes"),
    "mountain": ("mountain", "mountains", "hills"),
    "forest": ("forest", "woods"),
    "building": ("building", "buildings", "houses"),
    "wall": ("wall", "wallpaper"),
    "floor": ("floor", "floorboards"),
}
_OPENINGS = (
    "a photo of {}",
    "a picture of {}",
    "{}",
    "{} in view",
    "a snapshot of {}",
    "this shows {}",
    "there is {}",
)
_DOMAIN_WORDS = {
    "night": ("at night", "in the dark"),
    "fog": ("in the fog", "on a foggy day"),
    "snow": ("in the snow", "on a snowy day"),
}
_NUMBERS = {2: "two", 3: "three", 4: "four"}
_LEAST_PIXELS = 0.004  # share of the image below which nobody mentions a thing


def _any_word(name: str, rng: np.random.Generator) -> str:
    """The name of a thing, or one of its synonyms."""
    return name if rng.random() < 0.6 else str(rng.choice(BY_NAME[name].words))


def noun_phrase(noun: str, count: int, rng: np.random.Generator) -> str:
    """'a bike', 'two cars', 'buses': a noun with its article, or in the plural."""
    if count > 1:
        return f"{_NUMBERS.get(count, 'many') if rng.random() < 0.6 else ''} {plural(noun)}".strip()
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def mentionable(scene: Scene) -> dict[str, int]:
    """How many of each thing are visible enough to be mentioned."""
    counts: dict[str, int] = {}
    for placed in scene.things:
        if placed.visible >= _LEAST_PIXELS * scene.mask.size:
            counts[placed.name] = counts.get(placed.name, 0) + 1
    return counts


def caption(scene: Scene, rng: np.random.Generator, mention: float = 0.7) -> str:
    """One caption of a scene: some of its things, some of its stuff, perhaps the weather.

    Args:
        scene: what to describe; only classes, counts and weather are used, never the mask.
        rng: draws what is mentioned and the words.
        mention: probability that a visible thing is mentioned.

    Returns:
        A lower-case sentence that names at least one thing or stuff.
    """
    parts = [
        noun_phrase(_any_word(n, rng), c, rng)
        for n, c in mentionable(scene).items()
        if rng.random() < mention
    ]
    rng.shuffle(parts)
    stuff = [f"the {rng.choice(STUFF_WORDS[n])}" for n in scene.stuff if rng.random() < 0.5]
    rng.shuffle(stuff)
    if not parts and not stuff:
        stuff = [f"the {rng.choice(STUFF_WORDS[str(rng.choice(scene.stuff))])}"]
    return sentence(parts + stuff, scene.domain, rng)


def sentence(phrases: Sequence[str], domain: str, rng: np.random.Generator) -> str:
    """One or more noun phrases, and perhaps the weather, as a caption lists them."""
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    text = str(rng.choice(_OPENINGS)).format(listed)
    if domain in _DOMAIN_WORDS and rng.random() < 0.7:
        text += f" {rng.choice(_DOMAIN_WORDS[domain])}"
    return text
