"""The classes of the procedural world: names, words, frequencies, and where things live."""

from __future__ import annotations

from dataclasses import dataclass

STUFF = ("sky", "grass", "road", "water", "sand", "mountain", "forest", "building", "wall", "floor")


@dataclass(frozen=True)
class Thing:
    """A countable class.

    Args:
        name: the class name.
        words: synonyms that captions may use instead.
        zone: where it is found: `ground`, `water`, `air` or `wall`.
        height: height beside a person's, roughly, compressed so that small things stay visible.
        places: layouts it is typical of.
        novel: True where no training image and no caption ever shows or names it.
    """

    name: str
    words: tuple[str, ...]
    zone: str
    height: float
    places: tuple[str, ...]
    novel: bool = False


_OUT = ("street", "meadow", "beach", "desert", "lake")

# In order of frequency, most frequent first: the head and the long tail of the world.
THINGS = (
    Thing("person", ("man", "woman", "pedestrian"), "ground", 1.0, (*_OUT, "room")),
    Thing("car", ("automobile", "motorcar"), "ground", 0.75, ("street", "desert")),
    Thing("tree", ("oak",), "ground", 1.2, ("meadow", "street", "lake")),
    Thing("dog", ("hound", "puppy"), "ground", 0.75, ("meadow", "room", "street", "beach")),
    Thing("chair", ("seat",), "ground", 0.95, ("room",)),
    Thing("bicycle", ("bike",), "ground", 0.9, ("street", "meadow")),
    Thing("boat", ("sailboat", "sailing boat"), "water", 1.0, ("beach", "lake")),
    Thing("cat", ("kitten",), "ground", 0.75, ("room", "street")),
    Thing("flower", ("blossom",), "ground", 0.75, ("meadow", "lake")),
    Thing("bus", ("coach",), "ground", 0.95, ("street",)),
    Thing("umbrella", ("parasol",), "ground", 0.9, ("beach", "street")),
    Thing("lamp", ("lampshade",), "ground", 1.1, ("room",)),
    Thing("sheep", ("lamb",), "ground", 0.75, ("meadow",)),
    Thing("balloon", ("hot-air balloon",), "air", 1.0, ("meadow", "desert", "street")),
    Thing("truck", ("lorry",), "ground", 0.9, ("street", "desert")),
    Thing("bird", ("gull",), "air", 0.6, _OUT),
    Thing("ball", ("beach ball",), "ground", 0.55, ("beach", "room", "meadow")),
    Thing("clock", ("wall clock",), "wall", 0.7, ("room",)),
    Thing("television", ("tv", "screen"), "ground", 0.8, ("room",)),
    Thing("airplane", ("plane", "aircraft"), "air", 0.6, ("desert", "street", "beach")),
    Thing("cactus", ("saguaro",), "ground", 1.0, ("desert",)),
    Thing("bottle", ("flask",), "ground", 0.8, ("room", "beach")),
    Thing("tent", ("camping tent",), "ground", 0.8, ("meadow", "desert", "lake")),
    Thing("fish", ("goldfish",), "water", 0.6, ("lake", "beach")),
    Thing("mushroom", ("toadstool",), "ground", 0.7, ("meadow", "lake")),
    Thing("kite", ("stunt kite",), "air", 0.8, ("beach", "meadow")),
    Thing("cup", ("mug",), "ground", 0.6, ("room",)),
    Thing("robot", ("android",), "ground", 0.95, ("room", "street")),
    Thing("drone", ("quadcopter",), "air", 0.6, _OUT, novel=True),
    Thing("rocket", ("spaceship",), "ground", 1.2, ("desert", "beach"), novel=True),
    Thing("windmill", ("wind turbine",), "ground", 1.2, ("meadow", "lake"), novel=True),
    Thing("scooter", ("kick scooter",), "ground", 0.9, ("street", "room"), novel=True),
)

BY_NAME = {thing.name: thing for thing in THINGS}
SEEN_THINGS = tuple(t.name for t in THINGS if not t.novel)
NOVEL = tuple(t.name for t in THINGS if t.novel)
SEEN = STUFF + SEEN_THINGS
SEEN_NAMES = (*STUFF, *("|".join((t.name, *t.words)) for t in THINGS if not t.novel))  # with synonyms
CLASSES = SEEN + NOVEL
CLASS_ID = {name: i for i, name in enumerate(CLASSES)}


def frequency(name: str, tail: float = 8.0) -> float:
    """Relative frequency of a thing: the commonest is about 1 + 27 / tail times the rarest seen one.

    Novel things count as rare ones.
    """
    rank = min([t.name for t in THINGS].index(name), len(SEEN_THINGS) - 1)
    return 1.0 / (1.0 + rank / tail)


def plural(noun: str) -> str:
    """The plural of a noun of this world.

    >>> [plural(n) for n in ("bus", "woman", "sheep", "puppy", "car", "fish", "lorry", "flash")]
    ['buses', 'women', 'sheep', 'puppies', 'cars', 'fish', 'lorries', 'flashes']
    """
    head, _, last = noun.rpartition(" ")
    irregular = {"man": "men", "woman": "women", "person": "people", "cactus": "cacti"}
    unchanged = ("sheep", "fish", "goldfish", "aircraft")
    if last in irregular:
        last = irregular[last]
    elif last in unchanged:
        pass
    elif last.endswith(("s", "sh", "ch")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()
