"""A folder of real dated articles as a window of news: its texts, its images, and masks of what they show.

    FOLDER/harbour.json           {"title", "date", "text", "url", "licence", "images": [{"file", "caption"}]}
    FOLDER/launch.html            as saved from the web; its own <img> with their <figcaption> or alt
    FOLDER/cup.txt (or .md)       headline, a line with the date, paragraphs; images as ![caption](file)
    FOLDER/quay.jpg               an image that an article shows
    FOLDER/masks/quay/Petrel.png  white where that image shows Petrel; "boat.png" where it shows boats

A mask's name begins with a capital where it is the name of an individual, of a person or a product, and with
a small letter where it is what a class is called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import lxml.html
import numpy as np
from numpy.typing import NDArray

from data_scripts.news.bank import bank
from data_scripts.news.pages import Page, Revision
from rose_kit.data import DataError, image_suffixes, list_files, read_image, warn_left_out
from rose_kit.registry import errors_as
from rose_kit.web.providers import read_text
from rose_kit.web.reading import read
from rose_kit.web.types import Source

MASKS = "masks"  # subfolder
TEXTS = (".json", ".html", ".htm", ".md", ".txt")
_MARKDOWN_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class ArticleImage:
    """An image that an article shows.

    Args:
        file: where it lies.
        caption: what the article says it shows.
        taken: the day of the article.
        licence, url: of the article.
        masks: name -> file of the mask of what has that name in the image.
    """

    file: Path
    caption: str
    taken: date
    licence: str
    url: str
    masks: Mapping[str, Path] = field(default_factory=dict, hash=False)

    @property
    def title(self) -> str:
        """Of its page in the archive."""
        return f"File:{self.file.name}"

    def draw(self) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8; raises DataError: it cannot be read."""
        return read_image(self.file)


@dataclass(frozen=True)
class Article:
    """A text with the day on which it was published, and its images."""

    title: str
    day: date
    text: str
    licence: str
    url: str
    images: tuple[ArticleImage, ...]


@dataclass(frozen=True)
class ArticleWorld:
    """A window of real news; what `NewsArchive` searches, and `build_from_articles` asks about.

    Args:
        folder: of the articles.
        seed: draws which questions are asked.
        split: whose phrases the questions take.

    Raises:
        NotADirectoryError: there is no such folder.
        DataError: it holds no article, or one without a title, date or text; or a mask of no image.

    Warns:
        UserWarning: names what is neither an article nor an image that one shows.
    """

    folder: Path
    seed: int = 0
    split: str = "test"

    def __post_init__(self) -> None:
        bank(self.split)
        if not self.articles:
            raise DataError(f"{self.folder}: no article; expected files ending in {', '.join(TEXTS)}")
        shown = {image.file.stem for article in self.articles for image in article.images}
        strangers = sorted({path.parent.name for path in self.folder.glob(f"{MASKS}/*/*.png")} - shown)
        if strangers:
            raise DataError(f"{self.folder / 'masks' / strangers[0]}: no article shows an image of that name")

    @property
    def phrases(self) -> SimpleNamespace:
        """The phrase bank of the split."""
        return bank(self.split)

    @cached_property
    def articles(self) -> tuple[Article, ...]:
        """All articles, in order of their days."""
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is not a folder")
        left_out: dict[str, list[str]] = {}
        files = list_files(self.folder, (*TEXTS, *image_suffixes()), left_out)
        read_files = [read_article(f) for f in files if f.suffix.lower() in TEXTS]
        shown = {image.file.name for article in read_files for image in article.images}
        images = [f.name for f in files if f.suffix.lower() not in TEXTS]
        left_out["images that no article shows"] = [name for name in images if name not in shown]
        others = left_out.get("subfolders", [])
        others[:] = [name for name in others if Path(name).name != MASKS]
        warn_left_out(self.folder, left_out)
        return tuple(sorted(read_files, key=lambda article: (article.day, article.title)))

    @property
    def start(self) -> date:
        """The day of the first article."""
        return self.articles[0].day

    @property
    def end(self) -> date:
        """The day of the last article."""
        return self.articles[-1].day

    @cached_property
    def pages(self) -> tuple[Page, ...]:
        """The articles, as pages of one revision."""
        return tuple(
            Page(i, a.title, (Revision(i, datetime.combine(a.day, time(12)), a.text),), a.licence, a.url)
            for i, a in enumerate(self.articles, 1)
        )

    @cached_property
    def photos(self) -> tuple[ArticleImage, ...]:
        """Images without masks: what a search may find. Those with masks are asked about, and never found."""
        return tuple(image for a in self.articles for image in a.images if not image.masks)

    def rng(self, part: str) -> np.random.Generator:
        """A generator for one part of a benchmark of this world."""
        return np.random.default_rng([self.seed, *f"{self.split} {part}".encode()])


def read_article(file: Path) -> Article:
    """Read an article; raises DataError: it has no title, date or text, or names an image that is missing."""
    kind = file.suffix.lower()
    with errors_as(DataError, str(file)):
        parse = {".json": _json, ".html": _html, ".htm": _html}.get(kind, _plain)
        source, text, shown = parse(read_text(file))
        if not (source.title and source.date and text.strip()):
            missing = "title" if not source.title else "date" if not source.date else "text"
            raise ValueError(
                f"an article has a title, a date such as 2026-03-01 and a text; no {missing} here"
            )
        url, licence = source.url or file.absolute().as_uri(), source.licence
        images = tuple(_images(file.parent, shown, source.date, licence, url))
        return Article(source.title, source.date, text, licence, url, images)


Parsed = tuple[Source, str, list[tuple[str, str]]]  # source, text, (file, caption) of every image


def _json(content: str) -> Parsed:
    about = json.loads(content)
    if not isinstance(about, dict):
        raise ValueError(f"must be an object, got {type(about).__name__}")
    day = date.fromisoformat(about["date"][:10]) if about.get("date") else None
    source = Source(about.get("url", ""), about.get("title", ""), day, about.get("licence", "unknown"))
    return source, about.get("text", ""), [(i["file"], i.get("caption", "")) for i in about.get("images", [])]


def _html(content: str) -> Parsed:
    page, shown = read(content, Source("", "")), []
    for image in lxml.html.fromstring(content).iter("img"):
        figure = next(image.iterancestors("figure"), None)
        caption = "" if figure is None else " ".join(figure.text_content().split())
        shown.append((image.get("src", ""), caption or image.get("alt", "")))
    return page.source, page.text, [(file, c) for file, c in shown if file and not re.match(r"\w+:|//", file)]


def _plain(content: str) -> Parsed:
    title, _, rest = content.strip().partition("\n")
    line, _, text = rest.strip().partition("\n")
    day = re.search(r"\d{4}-\d\d-\d\d", line)
    shown = [(file, caption) for caption, file in _MARKDOWN_IMAGE.findall(text)]
    source = Source("", title.strip("# "), date.fromisoformat(day[0]) if day else None)
    return source, _MARKDOWN_IMAGE.sub("", text).strip(), shown


def _images(
    folder: Path, shown: Iterable[tuple[str, str]], day: date, licence: str, url: str
) -> Iterator[ArticleImage]:
    for name, caption in shown:
        file = folder / name
        if file.parent.resolve() != folder.resolve() or not file.is_file():
            raise ValueError(f"image {name!r} must be a file beside the article")
        masks = {path.stem: path for path in sorted((folder / MASKS / file.stem).glob("*.png"))}
        yield ArticleImage(file, caption, day, licence, url, masks)
