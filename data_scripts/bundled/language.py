"""Captions as the web has them: short, in varying words, ambiguous, and sometimes of another image.

One number, the dial, says how vague the language is. Each way to be vague has a rate, the probability that it
strikes at dial 1; at dial d a caption escapes it with probability (1 - rate)^d. So dial 0 is clear language,
dial 1 what the bundled vague tower has read, and a large dial noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from data_scripts.scenes.captions import STUFF_WORDS, mentionable, noun_phrase, sentence
from data_scripts.scenes.classes import BY_NAME, SEEN
from data_scripts.scenes.scene import Scene
from rose_kit.types import check_share

WORDS = {name: STUFF_WORDS[name] if name in STUFF_WORDS else (name, *BY_NAME[name].words) for name in SEEN}
_KINDS = {
    "vehicle": ("car", "bicycle", "boat", "bus", "truck", "airplane"),
    "animal": ("dog", "cat", "sheep", "bird", "fish"),
    "plant": ("tree", "flower", "cactus", "mushroom"),
    "furniture": ("chair", "lamp"),
    "device": ("clock", "television"),
    "toy": ("balloon", "ball", "kite"),
    "figure": ("person", "robot"),
    "container": ("bottle", "cup"),
    "shelter": ("umbrella", "tent"),
    "ground": ("grass", "road", "sand", "floor"),
    "landscape": ("sky", "water", "mountain", "forest"),
    "structure": ("building", "wall"),
}
KIND = {name: kind for kind, names in _KINDS.items() for name in names}  # class -> its superordinate


@dataclass(frozen=True)
class Language:
    """How captions are worded: probabilities at dial 1, all in [0, 1].

    Args:
        dial: 0 is clear, 1 vague, and the more the closer to noise.
        brief: a caption names one or two salient things, and rarely the stuff; otherwise it lists each thing
            with probability 0.75 and each stuff with probability 0.5.
        kind: a mention says "a vehicle" instead of "a bus".
        borrowed: a mention uses a word of another class that has this class as its second meaning, if there
            is any such word.
        strange: a caption is that of another image.
        stuff: a brief caption names some stuff too, whatever the dial; with no thing to name, it always does.
        ambiguous: the share of all words that have a second meaning, whatever the dial.

    Raises:
        ValueError: the dial is negative, or a probability not in [0, 1].
    """

    dial: float = 1.0
    brief: float = 0.8
    kind: float = 0.2
    borrowed: float = 0.2
    strange: float = 0.1
    stuff: float = 0.25
    ambiguous: float = 0.5

    def __post_init__(self) -> None:
        check_share(**{name: rate for name, rate in asdict(self).items() if name != "dial"})
        if not self.dial >= 0:
            raise ValueError(f"dial must be a number from 0, got {self.dial}")

    def rate(self, name: str) -> float:
        """The probability of one of the four ways to be vague, at this dial.

        >>> Language(dial=2).rate("kind")  # 1 - 0.8^2
        0.36
        """
        return round(1 - (1 - getattr(self, name)) ** self.dial, 9)


@dataclass(frozen=True)
class View:
    """What somebody who writes a caption sees.

    Args:
        things: class -> how many of it are large enough to be mentioned.
        sizes: class -> the pixels of these, as a share of the image.
        stuff: from top to bottom.
        domain: the weather or daylight.
    """

    things: Mapping[str, int]
    sizes: Mapping[str, float]
    stuff: Sequence[str]
    domain: str

    @classmethod
    def of(cls, scene: Scene) -> View:
        """What is to be seen in a scene; of its mask, only how large each thing is."""
        things = mentionable(scene)
        pixels = {name: sum(p.visible for p in scene.things if p.name == name) for name in things}
        return cls(things, {n: p / scene.mask.size for n, p in pixels.items()}, scene.stuff, scene.domain)


def second_meanings(language: Language, seed: int) -> dict[str, str]:
    """Word -> a class that it means too, other than its own: drawn from all words and all classes alike."""
    rng = np.random.default_rng([seed, 7])
    meanings = {}
    for name, words in WORDS.items():
        others = [other for other in SEEN if other != name]
        for word in words:
            if rng.random() < language.ambiguous:
                meanings[word] = str(rng.choice(others))
    return meanings


def write_captions(views: Sequence[View], language: Language, seed: int) -> list[str]:
    """One caption of each image; the same arguments give the same captions."""
    rng = np.random.default_rng([seed, 8])
    borrowed: dict[str, list[str]] = {}
    for word, name in second_meanings(language, seed).items():
        borrowed.setdefault(name, []).append(word)
    captions = [_write_caption(view, language, borrowed, rng) for view in views]
    strange = rng.permutation(np.flatnonzero(rng.random(len(views)) < language.rate("strange")))
    theirs = [captions[i] for i in np.roll(strange, 1)]
    for i, caption in zip(strange, theirs, strict=True):
        captions[i] = caption
    return captions


def _write_caption(
    view: View, language: Language, borrowed: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> str:
    named = (
        _salient(view, language.stuff, rng) if rng.random() < language.rate("brief") else _listed(view, rng)
    )
    words = [_choose_word(name, language, borrowed.get(name, ()), rng) for name in named]
    phrases = [
        noun_phrase(word, view.things[name], rng) if name in view.things else f"the {word}"
        for name, word in zip(named, words, strict=True)
    ]
    return sentence(phrases, view.domain, rng)


def _listed(view: View, rng: np.random.Generator) -> list[str]:
    """Most of the things and half of the stuff, as clear captions have them; at least one."""
    named = [name for name in view.things if rng.random() < 0.75]
    rng.shuffle(named)
    named += [name for name in view.stuff if rng.random() < 0.5]
    return named or [str(rng.choice(view.stuff))]


def _salient(view: View, stuff: float, rng: np.random.Generator) -> list[str]:
    """One or two things, the larger the likelier, and sometimes one stuff."""
    named: list[str] = []
    if view.things:
        size = np.array([view.sizes[name] for name in view.things])
        count = min(len(size), int(rng.integers(1, 3)))
        named = rng.choice(list(view.things), count, replace=False, p=size / size.sum()).tolist()
    if not named or rng.random() < stuff:
        named.append(str(rng.choice(view.stuff)))
    return named


def _choose_word(name: str, language: Language, borrowed: Sequence[str], rng: np.random.Generator) -> str:
    """A word for a class: one of another class, its superordinate, or one of its own by Zipf's law."""
    if borrowed and rng.random() < language.rate("borrowed"):
        return str(rng.choice(borrowed))
    if rng.random() < language.rate("kind"):
        return KIND[name]
    frequency = 1 / np.arange(1, len(WORDS[name]) + 1)
    return str(rng.choice(WORDS[name], p=frequency / frequency.sum()))
