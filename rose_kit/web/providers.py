"""Where to search: Wikimedia, DuckDuckGo, a folder. A bad item is skipped, with a warning that says why."""

from __future__ import annotations

import csv
import html
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rose_kit.web.http import Client, WebError, naming, picture
from rose_kit.web.reading import bm25, read
from rose_kit.web.types import Page, Picture, Source

TEXTS, PICTURES = (".html", ".htm", ".txt", ".md"), (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
STILL = (
    "a folder of pages and pictures (Folder) still works, and so does segmenting without looking things up"
)


@contextmanager
def _searching(where: str) -> Iterator[None]:
    try:
        with naming(where):
            yield
    except WebError as error:
        raise WebError(f"cannot search {where} ({error}); {STILL}") from error


def _each(
    items: Mapping[str, Any], read_one: Callable[[Any], Any], limit: int, until: date | None
) -> list[Any]:
    """The first `limit` of the named items that can be read and were there by the end of the day `until`."""
    kept = []
    for name, item in items.items():
        try:
            with naming(name):
                found = read_one(item)
        except WebError as error:
            warnings.warn(f"skipped {error}", stacklevel=3)
        else:
            if found and not (until and found.source.date and found.source.date > until):
                kept.append(found)
        if len(kept) == limit:
            break
    return kept


@dataclass
class Wikimedia:
    """Wikipedia's pages as they were on a day, and the pictures of Commons; or any MediaWiki with its API."""

    api: str = "https://en.wikipedia.org/w/api.php"
    images_api: str = "https://commons.wikimedia.org/w/api.php"
    client: Client = field(default_factory=Client)

    def search(self, query: str, limit: int = 5, until: date | None = None) -> list[Page]:
        """Pages in the order of the search; raises WebError if the API cannot be reached."""
        with _searching(self.api):
            found = self._ask(
                self.api,
                list="search",
                srsearch=query,
                srlimit=limit if until is None else 50,
                srprop="timestamp|snippet",
            )
            titles = {hit["title"]: hit["title"] for hit in found["search"]}
        return _each(titles, lambda title: self._page(title, until), limit, until)

    def images(self, query: str, limit: int = 5, until: date | None = None) -> list[Picture]:
        """Pictures, at most 512 px wide; raises WebError if the API cannot be reached."""
        asked = {
            "generator": "search",
            "gsrnamespace": 6,
            "gsrsearch": query,
            "gsrlimit": limit if until is None else 50,
        }
        wanted = {"prop": "imageinfo", "iiprop": "url|timestamp|mime|size|extmetadata", "iiurlwidth": 512}
        with _searching(self.images_api):
            found = self._ask(self.images_api, **asked, **wanted).get("pages", [])
            files = {file["title"]: file for file in sorted(found, key=lambda file: file.get("index", 0))}
        return _each(files, lambda file: self._picture(file, until), limit, until)

    @cached_property
    def licence(self) -> str:
        """The licence of its texts."""
        rights = self._ask(self.api, meta="siteinfo", siprop="rightsinfo").get("rightsinfo", {})
        return rights.get("text") or rights.get("url") or "unknown"

    def _ask(self, api: str, action: str = "query", **params: Any) -> dict[str, Any]:
        answer = self.client.json(api, action=action, format="json", formatversion=2, maxage=3600, **params)
        if "error" in answer:
            raise WebError(f"{api}: {answer['error']['info']}")
        return answer.get(action, {})

    def _page(self, title: str, until: date | None) -> Page | None:
        end = {"rvstart": f"{until}T23:59:59Z"} if until else {}
        asked = {"titles": title, "rvlimit": 1, "rvdir": "older", "rvprop": "ids|timestamp", "inprop": "url"}
        page = self._ask(self.api, prop="revisions|info", **asked, **end)["pages"][0]
        if not page.get("revisions"):
            return None  # it did not exist by then
        revision = page["revisions"][0]
        text = self._ask(self.api, action="parse", oldid=revision["revid"], prop="text")["text"]
        text = f"<html><body><article>{text}</article></body></html>"  # it is only a part of a page
        return read(text, Source(page["fullurl"], page["title"], _day(revision["timestamp"]), self.licence))

    def _picture(self, file: dict[str, Any], until: date | None) -> Picture | None:
        info = file["imageinfo"][0]
        if until and _day(info["timestamp"]) > until:
            return None  # not worth fetching
        about = {key: _plain(value["value"]) for key, value in dict(info.get("extmetadata") or {}).items()}
        licence = about.get("LicenseShortName") or "unknown"
        source = Source(info["descriptionurl"], file["title"], _day(info["timestamp"]), licence)
        image = self.client.get(info.get("thumburl") or info["url"])
        return Picture(source, picture(image, source.url), about.get("ImageDescription") or file["title"])


@dataclass
class DuckDuckGo:
    """The web by way of DuckDuckGo; what it finds is fetched by our own client. Pictures carry no date."""

    client: Client = field(default_factory=Client)

    def search(self, query: str, limit: int = 5, until: date | None = None) -> list[Page]:
        """Pages in the order of the search; raises WebError if it cannot be reached."""
        hits = {hit["href"]: Source(hit["href"], hit["title"]) for hit in self._ask("text", query, limit)}
        return _each(hits, lambda hit: read(self.client.get(hit.url), hit), limit, until)

    def images(self, query: str, limit: int = 5, until: date | None = None) -> list[Picture]:
        """Pictures in the order of the search; raises WebError if it cannot be reached."""
        hits = {hit["image"]: hit for hit in self._ask("images", query, limit)}
        return _each(hits, self._picture, limit, until)

    def _picture(self, hit: dict[str, str]) -> Picture:
        image = picture(self.client.get(hit["image"]), hit["image"])
        return Picture(Source(hit["url"], hit["title"]), image, hit["title"])

    def _ask(self, kind: str, query: str, limit: int) -> list[dict[str, str]]:
        from ddgs import DDGS

        with _searching("DuckDuckGo"):
            try:
                return getattr(DDGS(timeout=10), kind)(query, max_results=limit, backend="duckduckgo")
            except Exception as error:
                if "No results" in str(error):
                    return []
                raise


@dataclass
class Folder:
    """Pages and pictures in a folder. Its `index.csv`, if any: file,url,title,date,licence,caption."""

    path: str | Path

    def __post_init__(self) -> None:
        if not (folder := Path(self.path)).is_dir():
            raise NotADirectoryError(f"{folder} is not a folder")
        index = folder / "index.csv"
        with naming(str(index)):
            rows = csv.DictReader(index.read_text("utf-8").splitlines()) if index.is_file() else ()
            self.index = {row["file"]: row for row in rows}

    def search(self, query: str, limit: int = 5, until: date | None = None) -> list[Page]:
        """Pages that share words with the query, best first."""
        pages = _each(self._files(TEXTS), self._page, 10**6, until)
        return _best(query, pages, [f"{page.source.title} {page.text}" for page in pages])[:limit]

    def images(self, query: str, limit: int = 5, until: date | None = None) -> list[Picture]:
        """Pictures whose caption, title or name shares words with the query, best first."""
        files = list(self._files(PICTURES).values())
        best = _best(query, files, [f"{file.stem} {' '.join(self._row(file).values())}" for file in files])
        return _each({str(file): file for file in best}, self._picture, limit, until)

    def _files(self, endings: tuple[str, ...]) -> dict[str, Path]:
        return {str(f): f for f in sorted(Path(self.path).iterdir()) if f.suffix.lower() in endings}

    def _row(self, file: Path) -> dict[str, str]:
        return self.index.get(file.name, {})

    def _source(self, file: Path) -> Source:
        row = self._row(file)
        day = _day(row["date"]) if row.get("date") else None
        return Source(
            row.get("url") or file.absolute().as_uri(),
            row.get("title", ""),
            day,
            row.get("licence") or "unknown",
        )

    def _page(self, file: Path) -> Page:
        source, text = self._source(file), file.read_bytes()
        if file.suffix.lower().startswith(".htm"):
            return read(text, source)
        return Page(replace(source, title=source.title or file.stem), text.decode("utf-8", "replace"))

    def _picture(self, file: Path) -> Picture:
        caption = self._row(file).get("caption") or file.stem
        return Picture(self._source(file), picture(file.read_bytes(), str(file)), caption)


def _best(query: str, items: Sequence[Any], texts: Sequence[str]) -> list[Any]:
    scores = bm25(query, texts)
    return [items[i] for i in np.argsort(-scores, kind="stable") if scores[i] > 0]


def _day(stamp: str) -> date:
    return date.fromisoformat(stamp[:10])


def _plain(text: Any) -> str:
    return html.unescape(re.sub("<[^>]*>", "", str(text))).strip()
