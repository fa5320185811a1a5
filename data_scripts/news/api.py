"""MediaWiki's web API, the part of it that searching pages and pictures needs; formatversion 2.

As documented at https://www.mediawiki.org/wiki/API: the same parameters, the same shape of answers, the same
errors (an object `error` with status 200), and `continue` where there is more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from PIL import Image

from data_scripts.news.archive import Archive, canonical, older, png, snippet, uploaded
from data_scripts.news.pages import Page
from data_scripts.news.photos import LICENCES, SIZE, Photo
from data_scripts.news.world import LICENCE

Answer = dict[str, Any]
_MOST = 500  # results of one call
_BYTES = len(png(Image.new("RGB", (SIZE, SIZE))))


class ApiError(Exception):
    """What MediaWiki answers to a bad request: a code and a sentence."""

    def __init__(self, code: str, info: str) -> None:
        super().__init__(info)
        self.code, self.info = code, info


class Api:
    """Answers calls of `/w/api.php`.

    Args:
        archive: what the wiki holds.
        base: "http://host:port", for the addresses in answers.
    """

    def __init__(self, archive: Archive, base: str) -> None:
        self.archive, self.base = archive, base

    def answer(self, given: Mapping[str, str]) -> Answer:
        """The JSON object for the parameters of a call; errors of the caller's are in it."""
        try:
            if given.get("format") != "json" or given.get("formatversion") != "2":
                raise ApiError("badvalue", "This wiki answers format=json and formatversion=2 only.")
            return self._act(given)
        except ApiError as error:
            docref = f"See {self.base}/w/api.php for API usage."
            return {
                "error": {"code": error.code, "info": error.info, "docref": docref},
                "servedby": "miniature",
            }

    def _act(self, given: Mapping[str, str]) -> Answer:
        action = _needed(given, "action")
        if action == "parse":
            return self._parse(given)
        _one_of("action", action, ("query",))
        if "generator" in given:
            _one_of("generator", given["generator"], ("search",))
            return self._files(given)
        if "list" in given:
            _one_of("list", given["list"], ("search",))
            return self._search(given)
        if "meta" in given:
            _one_of("meta", given["meta"], ("siteinfo",))
            rights = {"url": LICENCE[0], "text": LICENCE[1]}
            return {"batchcomplete": True, "query": {"rightsinfo": rights}}
        return self._pages(given)

    def _search(self, given: Mapping[str, str]) -> Answer:
        """list=search: pages by their words."""
        query = _needed(given, "srsearch")
        hits = self.archive.search_pages(query)
        first, shown = _window(given, "sr", hits)
        wanted = given.get("srprop", "size|wordcount|timestamp|snippet").split("|")
        found = [self._hit(page, query, wanted) for page in shown]
        rest = {"sroffset": first + len(shown), "continue": "-||"} if first + len(shown) < len(hits) else None
        query_part = {"searchinfo": {"totalhits": len(hits)}, "search": found}
        return {"batchcomplete": True, **({"continue": rest} if rest else {}), "query": query_part}

    def _hit(self, page: Page, query: str, wanted: list[str]) -> Answer:
        text, saved = page.revisions[-1].text, page.revisions[-1].saved
        more: dict[str, Callable[[], Any]] = {
            "size": lambda: len(text.encode()),
            "wordcount": lambda: len(text.split()),
            "snippet": lambda: snippet(text, query),
            "timestamp": lambda: _stamp(saved),
        }
        about = {"ns": 0, "title": page.title, "pageid": page.id}
        return about | {key: value() for key, value in more.items() if key in wanted}

    def _pages(self, given: Mapping[str, str]) -> Answer:
        """prop=revisions|info: one page as it was at a time."""
        titles, props = _needed(given, "titles").split("|"), given.get("prop", "").split("|")
        for prop in props:
            _one_of("prop", prop, ("revisions", "info"))
        if len(titles) > 1 and {"rvlimit", "rvstart", "rvdir"} & set(given):
            raise ApiError("invalidparammix", "rvlimit, rvdir and rvstart may only be used on a single page.")
        pages, rest = [], None
        for title in map(canonical, titles):
            page = self.archive.pages.get(title)
            entry: Answer = {"ns": 0, "title": title} | ({"pageid": page.id} if page else {"missing": True})
            if page and "revisions" in props:
                entry, rest = self._revisions(page, entry, given)
            pages.append(entry | (self._info(title, page, given) if "info" in props else {}))
        renamed = [{"fromencoded": False, "from": t, "to": canonical(t)} for t in titles if t != canonical(t)]
        found = {"pages": pages} | ({"normalized": renamed} if renamed else {})
        return ({"continue": rest} if rest else {"batchcomplete": True}) | {"query": found}

    def _revisions(self, page: Page, entry: Answer, given: Mapping[str, str]) -> tuple[Answer, Answer | None]:
        _one_of("rvdir", given.get("rvdir", "older"), ("older",))
        known = older(page, _time(given["rvstart"], "rvstart") if "rvstart" in given else datetime.max)
        if "rvcontinue" in given:
            last = _number({"rvcontinue": given["rvcontinue"].partition("|")[2]}, "rvcontinue", None)
            known = [r for r in known if r.id <= last]
        limit = _number(given, "rvlimit", 1)
        shown, rest = known[:limit], known[limit:]
        wanted = given.get("rvprop", "ids|timestamp|flags|comment|user").split("|")
        parents = {r.id: p.id for p, r in zip(page.revisions, page.revisions[1:], strict=False)}
        lines = [
            ({"revid": r.id, "parentid": parents.get(r.id, 0)} if "ids" in wanted else {})
            | ({"timestamp": _stamp(r.saved)} if "timestamp" in wanted else {})
            for r in shown
        ]
        more = None
        if rest:
            more = {"rvcontinue": f"{rest[0].saved:%Y%m%d%H%M%S}|{rest[0].id}", "continue": "||info"}
        return entry | ({"revisions": lines} if lines else {}), more

    def _info(self, title: str, page: Page | None, given: Mapping[str, str]) -> Answer:
        info: Answer = {"contentmodel": "wikitext", "pagelanguage": "en", "pagelanguagedir": "ltr"}
        if page:
            last = page.revisions[-1]
            info |= {"touched": _stamp(last.saved), "lastrevid": last.id, "length": len(last.text.encode())}
        if "url" in given.get("inprop", "").split("|"):
            address = f"{self.base}/wiki/{quote(title.replace(' ', '_'))}"
            info |= {"fullurl": address, "canonicalurl": address}
        return info

    def _parse(self, given: Mapping[str, str]) -> Answer:
        """action=parse: the HTML of one revision."""
        number = _number(given, "oldid", None)
        if number not in self.archive.revisions:
            raise ApiError("nosuchrevid", f"There is no revision with ID {number}.")
        page, revision = self.archive.revisions[number]
        about = {"title": page.title, "pageid": page.id, "revid": revision.id}
        return {"parse": about | ({"text": revision.html} if "text" in given.get("prop", "text") else {})}

    def _files(self, given: Mapping[str, str]) -> Answer:
        """generator=search over pictures with prop=imageinfo; pages come by number, `index` ranks them."""
        query = _needed(given, "gsrsearch")
        hits = self.archive.search_files(query) if "6" in given.get("gsrnamespace", "0").split("|") else []
        first, shown = _window(given, "gsr", hits)
        pages = [self._file(photo, first + i, given) for i, photo in enumerate(shown, 1)]
        end = first + len(shown)
        rest = {"continue": {"gsroffset": end, "continue": "gsroffset||"}} if end < len(hits) else {}
        found = {"query": {"pages": sorted(pages, key=lambda p: p["pageid"])}} if pages else {}
        return {"batchcomplete": True, **rest, **found}

    def _file(self, photo: Photo, index: int, given: Mapping[str, str]) -> Answer:
        number = self.archive.file_ids[photo.title]
        page: Answer = {"pageid": number, "ns": 6, "title": photo.title, "index": index}
        if "imageinfo" in given.get("prop", ""):
            info = self._image_info(photo, given, given.get("iiprop", "timestamp|user").split("|"))
            page |= {"imagerepository": "local", "imageinfo": [info]}
        return page

    def _image_info(self, photo: Photo, given: Mapping[str, str], wanted: list[str]) -> Answer:
        name = quote(photo.title.removeprefix("File:").replace(" ", "_"))
        info: Answer = {"timestamp": _stamp(uploaded(photo))} if "timestamp" in wanted else {}
        if "size" in wanted:
            info |= {"size": _BYTES, "width": SIZE, "height": SIZE}
        if "url" in wanted:
            if "iiurlwidth" in given:  # like MediaWiki, which never enlarges
                width = min(_number(given, "iiurlwidth", SIZE), SIZE)
                thumb = f"thumb/{name}/{width}px-{name}" if width < SIZE else name
                info |= {"thumburl": f"{self.base}/images/{thumb}", "thumbwidth": width, "thumbheight": width}
            info |= {"url": f"{self.base}/images/{name}", "descriptionurl": f"{self.base}/wiki/File:{name}"}
        if "mime" in wanted:
            info["mime"] = "image/png"
        if "extmetadata" in wanted:
            info["extmetadata"] = _metadata(photo)
        return info


def _metadata(photo: Photo) -> Answer:
    """What Commons tells about a picture."""
    values = {
        "ObjectName": photo.title.removeprefix("File:").removesuffix(".png"),
        "ImageDescription": photo.caption,
        "DateTimeOriginal": f"{photo.taken}",
        "Artist": f"News desk of {photo.about.place}",
        "LicenseShortName": photo.licence,
        "LicenseUrl": LICENCES[photo.licence],
    }
    return {key: {"value": value, "source": "commons-desc-page"} for key, value in values.items()}


def _window(given: Mapping[str, str], prefix: str, hits: list) -> tuple[int, list]:
    """The first result's number, and the results that limit and offset ask for."""
    first = _number(given, f"{prefix}offset", 0)
    return first, hits[first : first + min(_number(given, f"{prefix}limit", 10), _MOST)]


def _needed(given: Mapping[str, str], name: str) -> str:
    if not given.get(name):
        raise ApiError("missingparam", f'The "{name}" parameter must be set.')
    return given[name]


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ApiError("badvalue", f'Unrecognized value for parameter "{name}": {value}.')


def _number(given: Mapping[str, str], name: str, default: int | None) -> int:
    text = given.get(name, default if default is None else str(default))
    if text is None:
        raise ApiError("missingparam", f'The "{name}" parameter must be set.')
    if text == "max":
        return _MOST
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ApiError("badinteger", f'Invalid value "{text}" for integer parameter "{name}".')
    return int(text)


def _time(text: str, name: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise ApiError("badtimestamp", f'Invalid value "{text}" for timestamp parameter "{name}".') from None


def _stamp(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
