"""What is said of a dataset: its archives, the paths within, its splits and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CLASS_LISTS = Path(__file__).parent / "classes"


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Args:
        file: its name.
        size: about how large, for people; empty where nobody says.
        url: where it is; None if it can only be had after registration, from `page`.
        md5: published checksum, or None.
        page: where to register.
    """

    file: str
    size: str
    url: str | None = None
    md5: str | None = None
    page: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One dataset.

    Args:
        title: its name in print.
        archives: the files it comes in.
        image, mask: patterns of the paths of images and masks within the archives. What their groups
            match, joined by "_", is the image id.
        classes: name of a list in `classes/`.
        folders: split -> pattern to be found in the mask's path.
        lists: split -> file within the archives that names the images, one per line; or, for
            "flags", CUB's pair of files.
        read: how a mask file becomes values, a key of `convert.READERS`.
        rest: class id of every value that the class list does not name; None refuses such values,
            except 255, which is ignored.
        note: what else there is to know.
    """

    title: str
    archives: tuple[Archive, ...]
    image: str
    mask: str
    classes: str
    folders: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    read: str = "values"
    rest: int | None = None
    note: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return ("train", "test") if "flags" in self.lists else (*self.folders, *self.lists)


@dataclass(frozen=True)
class Label:
    """One class: its id in the converted masks, its texts, its values in the source's masks."""

    id: int
    texts: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def name(self) -> str:
        """The first text."""
        return self.texts[0]


def labels(benchmark: Benchmark) -> list[Label]:
    """The classes of a dataset, from its list `id,text|text,value value`."""
    rows = (CLASS_LISTS / f"{benchmark.classes}.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for row in rows:
        if not row.startswith("#"):
            key, texts, values = [*row.split(","), ""][:3]
            given = tuple(map(int, values.split())) or (int(key),)
            found.append(Label(int(key), tuple(texts.split("|")), given))
    return found


def prompts(benchmark: Benchmark) -> str:
    """All texts of all classes as `rose-kit evaluate --classes` takes them: "background|sky|wall,bus"."""
    return ",".join("|".join(label.texts) for label in labels(benchmark))
