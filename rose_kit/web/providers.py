"""Places to search: Wikimedia, DuckDuckGo, a folder. A bad item is skipped with a warning that says why."""

import codecs
import csv
import html
import io
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from ddgs import DDGS

from rose_kit.data import image_suffixes, list_files, read_image, warn_left_out
from rose_kit.registry import errors_as, register_provider
from rose_kit.types import composed
from rose_kit.web.net import Client, WebError, decode_image
from rose_kit.web.reading import bm25, read
from rose_kit.web.types import Page, ReferenceImage, Source

MAX_HITS = 50  # to ask for: some are too new or cannot be read
TEXTS = (".html", ".htm", ".txt", ".md")
COLUMNS = ("file", "url", "title", "date", "licence", "caption")  # of a folder's index.csv


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, in UTF-16 with a byte-order mark, or else in Windows-1252."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


class ListingProvider:
    """A `Provider` that lists hits for a query, then reads one after the other until there are enough.

    Subclasses define `_list(kind, query)` (name -> hit, best first; kind: "text" or "images"), and
    `_page(hit, day)` and `_image(hit, day)`, which read a hit as it was on that day (None: it was not there).
    """

    def search(self, query: str, limit: int, day: date) -> list[Page]:
        """Pages as of the end of the day, best first; raises WebError: the place cannot be searched."""
        return self._read("text", query, limit, day)

    def images(self, query: str, limit: int, day: date) -> list[ReferenceImage]:
        """Images that were there on the day, best first; raises WebError: the place cannot be searched."""
        return self._read("images", query, limit, day)

    def _read(self, kind: str, query: str, limit: int, day: date) -> list[Any]:
        with errors_as(WebError, f"cannot search {type(self).__name__}"):
            hits = self._list(kind, query)
        read_hit, items = self._page if kind == "text" else self._image, []
        for name, hit in hits.items():
            if len(items) == limit:
                break
            try:
                with errors_as(WebError, name):
                    item = read_hit(hit, day)
            except WebError as error:
                warnings.warn(f"skipped {error}", stacklevel=3)
                continue
            if item and (item.source.date or day) <= day:
                items.append(item)
        return items


def _date(stamp: str) -> date:
    return date.fromisoformat(stamp[:10])


@register_provider("wikimedia")
@dataclass
class Wikimedia(ListingProvider):
    """Wikipedia's pages as they were on a day, and images of Commons; or any MediaWiki by its API."""

    api: str = "https://en.wikipedia.org/w/api.php"
    images_api: str = "https://commons.wikimedia.org/w/api.php"
    client: Client = field(default_factory=Client)

    def _ask(self, api: str, action: str = "query", **params: Any) -> dict[str, Any]:
        shared = {"format": "json", "formatversion": 2, "maxage": 3600}
        answer = json.loads(self.client.get(api, action=action, **shared, **params))
        if "error" in answer:
            raise ValueError(f"{api} says {answer['error']['info']}")
        return dict(answer.get(action, {}))

    def _list(self, kind: str, query: str) -> Mapping[str, Any]:
        if kind == "text":
            hits = self._ask(self.api, list="search", srsearch=query, srlimit=MAX_HITS, srprop="timestamp")
            return {hit["title"]: hit["title"] for hit in hits.get("search", [])}
        search = {"generator": "search", "gsrnamespace": 6, "gsrsearch": query, "gsrlimit": MAX_HITS}
        properties = {"prop": "imageinfo", "iiprop": "url|timestamp|extmetadata", "iiurlwidth": 512}
        files = self._ask(self.images_api, **search, **properties).get("pages", [])
        return {file["title"]: file for file in sorted(files, key=lambda file: file.get("index", 0))}

    def _page(self, title: str, day: date) -> Page | None:
        properties = {"prop": "revisions|info", "rvlimit": 1, "rvprop": "ids|timestamp", "inprop": "url"}
        page = self._ask(self.api, titles=title, **properties, rvstart=f"{day}T23:59:59Z")["pages"][0]
        if not page.get("revisions"):
            return None
        revision = page["revisions"][0]
        text = self._ask(self.api, action="parse", oldid=revision["revid"], prop="text")["text"]
        rights = self._ask(self.api, meta="siteinfo", siprop="rightsinfo")["rightsinfo"]  # once: then cached
        licence = rights.get("text") or "unknown"
        source = Source(page["fullurl"], page["title"], _date(revision["timestamp"]), licence)
        return read(f"<html><body><article>{text}</article></body></html>", source)

    def _image(self, file: Mapping[str, Any], day: date) -> ReferenceImage | None:
        info = file["imageinfo"][0]
        if _date(info["timestamp"]) > day:
            return None
        metadata = info.get("extmetadata") or {}
        plain = {key: html.unescape(re.sub("<[^>]*>", "", str(metadata[key]["value"]))) for key in metadata}
        licence = plain.get("LicenseShortName", "unknown")
        source = Source(info["descriptionurl"], file["title"], _date(info["timestamp"]), licence)
        pixels = decode_image(self.client.get(info.get("thumburl") or info["url"]), source.url)
        return ReferenceImage(source, pixels, plain.get("ImageDescription", file["title"]))


@register_provider("duckduckgo")
@dataclass
class DuckDuckGo(ListingProvider):
    """The web by way of DuckDuckGo; our own client fetches the hits. Its images have no date."""

    client: Client = field(default_factory=Client)

    def _list(self, kind: str, query: str) -> Mapping[str, Any]:
        try:
            hits = getattr(DDGS(timeout=10), kind)(query, max_results=MAX_HITS, backend="duckduckgo")
        except Exception as error:
            if "No results" not in str(error):
                raise
            return {}
        return {hit["href" if kind == "text" else "image"]: hit for hit in hits}

    def _page(self, hit: Mapping[str, str], day: date) -> Page:
        return read(self.client.get(hit["href"]), Source(hit["href"], hit["title"]))

    def _image(self, hit: Mapping[str, str], day: date) -> ReferenceImage:
        pixels = decode_image(self.client.get(hit["image"]), hit["image"])
        return ReferenceImage(Source(hit["url"], hit["title"]), pixels, hit["title"])


@dataclass
class Folder(ListingProvider):
    """Pages and images in a folder, with an optional `index.csv`: file,url,title,date,licence,caption.

    Warns:
        UserWarning: names the files that are neither, and the folders, which are not read; and other columns
            of the index, and its lines of files that are not there.

    Raises:
        NotADirectoryError: there is no such folder.
        WebError: its index cannot be read, has no column "file", or has several lines of one file.
    """

    path: str | Path

    def __post_init__(self) -> None:
        index = Path(self.path) / "index.csv"
        if not index.parent.is_dir():
            raise NotADirectoryError(f"{self.path} is not a folder")
        with errors_as(WebError, str(index)):
            text = io.StringIO(read_text(index) if index.is_file() else "file\n", newline="")
            table, self.rows = csv.DictReader(text, skipinitialspace=True), {}
            if "file" not in (header := table.fieldnames or ()):
                raise ValueError(f"expected the columns {', '.join(COLUMNS)}, got {', '.join(header)}")
            for row in table:
                if any(row.get(None, ())):
                    raise ValueError(f"{row['file']!r} has too many cells; text with commas needs quotes")
                if (name := composed(row["file"] or "")) in self.rows:
                    raise ValueError(f"{name!r} has several lines")
                self.rows[name] = {key: row[key] for key in COLUMNS if row.get(key)}
        left_out: dict[str, list[str]] = {}
        known = (*TEXTS, *image_suffixes(), index.name)
        there = {composed(f.name) for f in list_files(index.parent, known, left_out)}
        left_out["columns of index.csv"] = [name for name in header if name not in COLUMNS]
        left_out["lines of index.csv without a file"] = [name for name in self.rows if name not in there]
        warn_left_out(index.parent, left_out)

    def _list(self, kind: str, query: str) -> Mapping[str, Path]:
        files = list_files(Path(self.path), TEXTS if kind == "text" else image_suffixes(), {})
        texts = [read_text(f) if kind == "text" else "" for f in files]
        rows = [" ".join(map(str, self._row(f).values())) for f in files]
        scores = bm25(query, [f"{f.stem} {r} {t}" for f, r, t in zip(files, rows, texts, strict=True)])
        return {str(files[i]): files[i] for i in np.argsort(-scores, kind="stable") if scores[i] > 0}

    def _row(self, file: Path) -> dict[str, str]:
        return self.rows.get(composed(file.name), {})

    def _source(self, file: Path) -> Source:
        row = self._row(file)
        url, title = row.get("url", file.absolute().as_uri()), row.get("title", file.stem)
        day = _date(row["date"]) if "date" in row else None
        return Source(url, title, day, row.get("licence", "unknown"))

    def _page(self, file: Path, day: date) -> Page:
        if file.suffix.lower() in (".html", ".htm"):
            return read(file.read_bytes(), self._source(file))
        return Page(self._source(file), read_text(file))

    def _image(self, file: Path, day: date) -> ReferenceImage:
        return ReferenceImage(self._source(file), read_image(file), self._row(file).get("caption", file.stem))
