"""Where to search: Wikimedia, DuckDuckGo, a folder. A bad item is skipped, with a warning that says why."""

import csv
import html
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ddgs import DDGS

from rose_kit.registry import register_provider
from rose_kit.web.net import Client, WebError, as_web_error, decode_image
from rose_kit.web.reading import bm25, read
from rose_kit.web.types import Page, ReferenceImage, Source

TEXTS, IMAGES = (".html", ".htm", ".txt", ".md"), (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
MOST_HITS = 50  # where some may be too new
ADVICE = "; what still works is a Folder of pages and images, or segmenting without looking things up"


class ListingProvider:
    """A provider that lists what fits a query, by names that a warning would tell, then reads one by one.

    Variants say how: `_list(kind, query, limit)` with the kind "text" or "images", `_page` and `_image`.
    """

    def search(self, query: str, limit: int = 5, until: date | None = None) -> list[Page]:
        """Pages as of the end of the day `until`, best first; raises WebError: no place to search."""
        return list(islice(self._read("text", self._page, query, limit, until), limit))

    def images(self, query: str, limit: int = 5, until: date | None = None) -> list[ReferenceImage]:
        """Images that were there on the day `until`, best first; raises WebError: no place to search."""
        return list(islice(self._read("images", self._image, query, limit, until), limit))

    def _read(self, kind: str, one: Callable, query: str, limit: int, until: date | None) -> Iterator[Any]:
        with as_web_error(f"cannot search {type(self).__name__}", ADVICE):
            hits = self._list(kind, query, MOST_HITS if until else limit)
        for name, hit in hits.items():
            try:
                with as_web_error(name):
                    item = one(hit, until)
            except WebError as error:
                warnings.warn(f"skipped {error}", stacklevel=3)
            else:
                if item and not (until and item.source.date and item.source.date > until):
                    yield item


def _day(stamp: str) -> date:
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
        with as_web_error(api):
            answer = json.loads(self.client.get(api, action=action, **shared, **params))
            if "error" in answer:
                raise ValueError(answer["error"]["info"])
            return dict(answer.get(action, {}))

    def _list(self, kind: str, query: str, limit: int) -> Mapping[str, Any]:
        if kind == "text":
            hits = self._ask(self.api, list="search", srsearch=query, srlimit=limit, srprop="timestamp")
            return {hit["title"]: hit["title"] for hit in hits.get("search", [])}
        search = {"generator": "search", "gsrnamespace": 6, "gsrsearch": query, "gsrlimit": limit}
        about = {"prop": "imageinfo", "iiprop": "url|timestamp|extmetadata", "iiurlwidth": 512}
        files = self._ask(self.images_api, **search, **about).get("pages", [])
        return {file["title"]: file for file in sorted(files, key=lambda file: file.get("index", 0))}

    def _page(self, title: str, until: date | None) -> Page | None:
        wanted = {"prop": "revisions|info", "rvlimit": 1, "rvprop": "ids|timestamp", "inprop": "url"}
        end = {"rvstart": f"{until}T23:59:59Z"} if until else {}
        page = self._ask(self.api, titles=title, **wanted, **end)["pages"][0]
        if not page.get("revisions"):
            return None  # it did not exist yet
        revision = page["revisions"][0]
        text = self._ask(self.api, action="parse", oldid=revision["revid"], prop="text")["text"]
        rights = self._ask(self.api, meta="siteinfo", siprop="rightsinfo")["rightsinfo"]  # once: then cached
        licence, day = rights.get("text") or "unknown", _day(revision["timestamp"])
        source = Source(page["fullurl"], page["title"], day, licence)
        return read(f"<html><body><article>{text}</article></body></html>", source)

    def _image(self, file: Mapping[str, Any], until: date | None) -> ReferenceImage | None:
        info = file["imageinfo"][0]
        if until and _day(info["timestamp"]) > until:
            return None  # not worth fetching
        metadata = info.get("extmetadata") or {}
        plain = {key: html.unescape(re.sub("<[^>]*>", "", str(metadata[key]["value"]))) for key in metadata}
        licence = plain.get("LicenseShortName", "unknown")
        source = Source(info["descriptionurl"], file["title"], _day(info["timestamp"]), licence)
        pixels = decode_image(self.client.get(info.get("thumburl") or info["url"]), source.url)
        return ReferenceImage(source, pixels, plain.get("ImageDescription", file["title"]))


@register_provider("duckduckgo")
@dataclass
class DuckDuckGo(ListingProvider):
    """The web by way of DuckDuckGo; what it finds is fetched by our own client. Images have no date."""

    client: Client = field(default_factory=Client)

    def _list(self, kind: str, query: str, limit: int) -> Mapping[str, Any]:
        try:
            hits = getattr(DDGS(timeout=10), kind)(query, max_results=limit, backend="duckduckgo")
        except Exception as error:
            if "No results" not in str(error):
                raise
            return {}
        return {hit["href" if kind == "text" else "image"]: hit for hit in hits}

    def _page(self, hit: Mapping[str, str], until: date | None) -> Page:
        return read(self.client.get(hit["href"]), Source(hit["href"], hit["title"]))

    def _image(self, hit: Mapping[str, str], until: date | None) -> ReferenceImage:
        pixels = decode_image(self.client.get(hit["image"]), hit["image"])
        return ReferenceImage(Source(hit["url"], hit["title"]), pixels, hit["title"])


@dataclass
class Folder(ListingProvider):
    """Pages and images in a folder. Its `index.csv`, if any: file,url,title,date,licence,caption.

    Raises:
        NotADirectoryError: there is no such folder.
        WebError: its index cannot be read.
    """

    path: str | Path

    def __post_init__(self) -> None:
        index = Path(self.path) / "index.csv"
        if not index.parent.is_dir():
            raise NotADirectoryError(f"{self.path} is not a folder")
        with as_web_error(str(index)):
            lines = index.read_text("utf-8").splitlines() if index.is_file() else ()
            self.rows = {row["file"]: row for row in csv.DictReader(lines)}

    def _list(self, kind: str, query: str, limit: int) -> Mapping[str, Path]:
        endings = TEXTS if kind == "text" else IMAGES
        files = [f for f in sorted(Path(self.path).iterdir()) if f.suffix.lower() in endings and f.is_file()]
        texts = [" ".join([f.stem, *map(str, self.rows.get(f.name, {}).values())]) for f in files]
        if kind == "text":
            texts = [f"{t} {f.read_text('utf-8', 'replace')}" for t, f in zip(texts, files, strict=True)]
        scores = bm25(query, texts)
        return {str(files[i]): files[i] for i in np.argsort(-scores, kind="stable") if scores[i] > 0}

    def _source(self, file: Path) -> Source:
        row = {key: value for key, value in self.rows.get(file.name, {}).items() if value}
        url, title = row.get("url", file.absolute().as_uri()), row.get("title", file.stem)
        return Source(url, title, _day(row["date"]) if "date" in row else None, row.get("licence", "unknown"))

    def _page(self, file: Path, until: date | None) -> Page:
        if file.suffix.lower() in (".html", ".htm"):
            return read(file.read_bytes(), self._source(file))
        return Page(self._source(file), file.read_text("utf-8", "replace"))

    def _image(self, file: Path, until: date | None) -> ReferenceImage:
        caption = self.rows.get(file.name, {}).get("caption") or file.stem
        return ReferenceImage(self._source(file), decode_image(file.read_bytes(), str(file)), caption)
