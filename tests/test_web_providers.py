"""The three places to search: Wikimedia against the miniature web and a broken one, DuckDuckGo, a folder."""

import json
from datetime import date
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest

from data_scripts import news
from rose_kit.web.net import Client, WebError
from rose_kit.web.providers import DuckDuckGo, Folder, Wikimedia
from rose_kit.web.types import Provider
from tests.webserver import picture_bytes, serving

DAY = date(2026, 3, 1)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def client(server):
    return Client(allow_private=[server.host], seconds=5)


def article(text):
    return f"<html><body><article><p>{text}</p></article></body></html>"


# --- Wikimedia ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return news.NewsWorld(0, date(2025, 6, 1), date(2026, 6, 1))


@pytest.fixture(scope="module")
def wiki(world):
    with news.serve(world) as base:
        api = f"{base}/w/api.php"
        yield Wikimedia(api, api, Client(allow_private=[base.removeprefix("http://")]))


def test_providers_are_what_the_framework_asks_for(tmp_path):
    assert Wikimedia().api.startswith("https://en.wikipedia.org/") and "commons" in Wikimedia().images_api
    for provider in (Wikimedia(), DuckDuckGo(), Folder(tmp_path)):
        assert isinstance(provider, Provider)


def test_pages_are_read_as_they_were_on_the_day(world, wiki):
    for day in (date(2025, 9, 1), DAY):
        found = wiki.search("regatta champion", 4, day)
        assert len(found) == 4
        for page in found:
            known = next(p for p in world.pages if p.title == page.source.title)
            then = [r for r in known.revisions if r.saved.date() <= day][-1]
            assert page.text.split() == then.text.split() and page.source.date == then.saved.date()
            assert page.source.url.startswith("http://127.0.0.1:") and page.source.licence != "unknown"


def test_what_was_not_written_by_then_is_not_found(world, wiki):
    late = next(p for p in world.pages if p.revisions[0].saved.date() > DAY)
    assert late.title in {page.source.title for page in wiki.search(late.title, 3)}
    assert late.title not in {page.source.title for page in wiki.search(late.title, 3, DAY)}
    assert wiki.search("xylophone quintessence") == [] == wiki.images("xylophone quintessence")


def test_pictures_carry_licence_and_date_and_none_is_from_the_future(world, wiki):
    name = next(photo for photo in world.photos if photo.taken > DAY).about.name
    everything, found = wiki.images(name, 6), wiki.images(name, 4, DAY)
    assert any(p.source.date > DAY for p in everything) and len(found) == 4
    assert all(p.source.date <= DAY for p in found)
    for shot in found:
        assert shot.image.dtype == np.uint8 and shot.image.shape[2] == 3 and max(shot.image.shape) <= 512
        assert shot.source.licence.startswith("CC") and shot.caption and "File:" in shot.source.url


class Broken:
    """MediaWiki's answers, from which tests take away."""

    def __init__(self, server):
        self.base, self.pages = (
            server.url,
            {"A": article("alpha"), "B": article("beta"), "C": article("gamma")},
        )
        self.rights = {"rightsinfo": {"url": "", "text": "CC BY"}}
        self.files = {
            n: {"timestamp": "2026-02-01T00:00:00Z", "url": f"{self.base}/{n}.png"} for n in self.pages
        }
        server.routes = {"/api": self.answer} | {f"/{n}.png": (200, {}, picture_bytes()) for n in self.pages}

    def answer(self, handler):
        answer = self._answer(handler.query)
        return (200, {}, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def _answer(self, q):
        if q["action"] == "parse":
            return {"parse": {"text": self.pages[q["oldid"]]}}
        if "meta" in q:
            return {"query": self.rights}
        if "generator" in q:
            files = [
                {
                    "title": f"File:{n}.png",
                    "index": i,
                    "imageinfo": [{"descriptionurl": f"{self.base}/File:{n}"} | info],
                }
                for i, (n, info) in enumerate(self.files.items())
            ]
            return {"query": {"pages": files[::-1]}}
        if "list" in q:
            return {"query": {"search": [{"title": title} for title in self.pages]}}
        title = q["titles"]
        revision = {"revid": title, "timestamp": "2026-01-02T03:04:05Z"}
        url = f"{self.base}/wiki/{title}"
        return {"query": {"pages": [{"title": title, "fullurl": url, "revisions": [revision]}]}}


@pytest.fixture
def broken(server, client):
    wiki = Broken(server)
    wiki.provider = Wikimedia(f"{server.url}/api", f"{server.url}/api", client)
    return wiki


def test_the_calls_are_those_of_mediawiki(server, broken):
    found = broken.provider.search("regatta & cup", 2, DAY)
    assert [(p.text, p.source.title, p.source.licence) for p in found] == [
        ("alpha", "A", "CC BY"),
        ("beta", "B", "CC BY"),
    ]
    shots = broken.provider.images("boat", 2)
    assert [shot.caption for shot in shots] == ["File:A.png", "File:B.png"]  # as ranked
    shared = {"action": "query", "format": "json", "formatversion": "2", "maxage": "3600"}
    asked = [dict(parse_qsl(urlsplit(path).query)) for path in server.asked]
    assert asked[0] == shared | {
        "list": "search",
        "srsearch": "regatta & cup",
        "srlimit": "50",
        "srprop": "timestamp|snippet",
    }
    assert asked[1] == shared | {
        "prop": "revisions|info",
        "titles": "A",
        "rvlimit": "1",
        "rvdir": "older",
        "rvstart": "2026-03-01T23:59:59Z",
        "rvprop": "ids|timestamp",
        "inprop": "url",
    }
    assert asked[2] == shared | {"action": "parse", "oldid": "A", "prop": "text"}
    assert asked[3] == shared | {"meta": "siteinfo", "siprop": "rightsinfo"}
    assert sum("meta" in params for params in asked) == 1
    assert asked[-3] == shared | {
        "generator": "search",
        "gsrnamespace": "6",
        "gsrsearch": "boat",
        "gsrlimit": "2",
        "prop": "imageinfo",
        "iiprop": "url|timestamp|mime|size|extmetadata",
        "iiurlwidth": "512",
    }


def test_one_bad_page_is_skipped_and_named(broken):
    broken.pages["B"] = "<div></div>"
    with pytest.warns(UserWarning, match="skipped .*/wiki/B: no readable text"):
        assert [page.text for page in broken.provider.search("x")] == ["alpha", "gamma"]
    broken.pages["B"] = {"not": "text"}
    with pytest.warns(UserWarning, match="skipped .*B"):
        assert [page.text for page in broken.provider.search("x")] == ["alpha", "gamma"]


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://10.0.0.1/b.png"},
        {"url": "file:///etc/passwd"},
        {"url": "absent.png"},
        {"timestamp": "yesterday"},
        {"timestamp": None},
        {"extmetadata": {"LicenseShortName": "CC0"}},
    ],
)
def test_one_bad_picture_is_skipped_and_named(broken, change):
    broken.files["B"] |= change
    with pytest.warns(UserWarning, match=r"skipped .*(B|b|passwd|absent)"):
        assert [shot.caption for shot in broken.provider.images("x")] == ["File:A.png", "File:C.png"]


def test_what_commons_tells_is_plain_text(broken):
    about = {
        "LicenseShortName": {"value": "CC BY-SA 4.0"},
        "ImageDescription": {"value": "<b>A</b> boat &amp; its crew"},
    }
    broken.files = {
        "A": broken.files["A"] | {"extmetadata": about},
        "B": broken.files["B"] | {"extmetadata": []},
    }
    first, second = broken.provider.images("x")
    assert (first.caption, first.source.licence) == ("A boat & its crew", "CC BY-SA 4.0")
    assert (second.caption, second.source.licence) == ("File:B.png", "unknown")


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Sorry</html>",
        b"[]",
        b'{"query": [1]}',
        b'{"error": {"code": "x", "info": "Out of order"}}',
        b'{"error": 1}',
    ],
)
def test_an_api_that_talks_nonsense_is_named_with_what_still_works(server, broken, answer):
    server.routes["/api"] = (200, {}, answer)
    for search in (broken.provider.search, broken.provider.images):
        with pytest.raises(
            WebError, match=f"cannot search Wikimedia: {server.url}/api: .*what still works is a Folder"
        ):
            search("x")


def test_an_empty_answer_is_nothing_found(server, broken):
    server.routes["/api"] = (200, {}, b'{"query": []}')  # as PHP writes an empty object
    assert broken.provider.search("x") == [] == broken.provider.images("x")


def test_without_a_network_the_error_says_what_still_works(monkeypatch):
    def fail(*_, **__):
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    for search in (Wikimedia().search, Wikimedia().images):
        with pytest.raises(
            WebError, match="cannot search Wikimedia: https://.*name resolution.*what still works is a Folder"
        ):
            search("x")


# --- DuckDuckGo -----------------------------------------------------------------------------------


@pytest.fixture
def duck(server, client, monkeypatch):
    """The real library, pointed at our server."""
    monkeypatch.setattr("ddgs.engines.duckduckgo.Duckduckgo.search_url", f"{server.url}/html")
    monkeypatch.setattr("ddgs.engines.duckduckgo.Duckduckgo.search_method", "GET")
    monkeypatch.setattr("ddgs.engines.duckduckgo_images.DuckduckgoImages.search_url", f"{server.url}/i.js")
    monkeypatch.setattr("ddgs.engines.duckduckgo_images.DuckduckgoImages._get_vqd", lambda *_: "1-2")
    return DuckDuckGo(client)


def test_duckduckgos_pages_are_fetched_and_read(server, duck):
    hits = "".join(
        f'<div class="body"><h2>T{i}</h2><a href="{server.url}/{i}">boat</a></div>' for i in range(4)
    )
    server.routes["/html"] = (200, {}, f"<html><body>{hits}</body></html>".encode())
    dated = '<html><head><meta property="article:published_time" content="{}"></head><body><article><p>{}</p>'
    for i, day in enumerate(["2026-01-01", "2026-04-01", "2025-01-01"]):
        server.routes[f"/{i}"] = (200, {}, dated.format(day, f"boat {i}").encode())
    with pytest.warns(UserWarning, match=f"skipped {server.url}/3: HTTP 404"):
        found = duck.search("boat", 5, DAY)
    assert sorted((p.source.url, p.text, p.source.title, p.source.date) for p in found) == [
        (f"{server.url}/0", "boat 0", "T0", date(2026, 1, 1)),
        (f"{server.url}/2", "boat 2", "T2", date(2025, 1, 1)),
    ]


def test_duckduckgos_pictures_are_fetched(server, duck):
    results = [
        {
            "title": f"boat {n}",
            "image": f"{server.url}/{n}.png",
            "url": f"{server.url}/page",
            "thumbnail": "",
            "source": "x",
        }
        for n in ("good", "bad")
    ]
    server.routes["/i.js"] = (200, {}, json.dumps({"results": results}).encode())
    server.routes |= {"/good.png": (200, {}, picture_bytes()), "/bad.png": (200, {}, b"oops")}
    with pytest.warns(UserWarning, match=f"skipped {server.url}/bad.png: cannot identify"):
        (shot,) = duck.images("boat", 2)
    assert shot.image.shape == (30, 40, 3) and shot.caption == "boat good"
    assert shot.source.url == f"{server.url}/page" and shot.source.date is None


def test_duckduckgo_finding_nothing_is_not_an_error_but_silence_is(server, duck):
    server.routes["/html"] = (200, {}, b"<html><body>No more results</body></html>")
    assert duck.search("boat") == []
    server.server_close()
    server.shutdown()
    with pytest.raises(WebError, match="cannot search DuckDuckGo: .*what still works is a Folder"):
        duck.search("boat")


# --- a folder -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cup.html").write_text(article("Petrel has won the regatta cup."))
    (tmp_path / "moon.txt").write_text("A new moon over the harbour.")
    (tmp_path / "late.md").write_text("Rook has won the regatta cup, regatta, regatta.")
    (tmp_path / "petrel.png").write_bytes(picture_bytes())
    (tmp_path / "x1.jpg").write_bytes(picture_bytes("JPEG"))
    (tmp_path / "index.csv").write_text(
        "file,url,title,date,licence,caption\n"
        "cup.html,http://a.example/cup,The cup,2026-02-01,CC0,\n"
        "late.md,,Later,2026-04-01,,\n"
        "x1.jpg,,,2026-02-02,CC BY,A regatta boat\n"
    )
    return tmp_path


def test_a_folder_is_searched_by_words(folder):
    found = Folder(folder).search("regatta cup", until=DAY)
    assert [(p.source.url, p.source.title, p.source.date, p.source.licence) for p in found] == [
        ("http://a.example/cup", "The cup", date(2026, 2, 1), "CC0")
    ]
    assert {p.source.title for p in Folder(folder).search("regatta cup")} == {"Later", "The cup"}
    assert [p.source.title for p in Folder(folder).search("Petrel won", limit=1)] == ["The cup"]
    (moon,) = Folder(str(folder)).search("moon")
    assert moon.source.url.startswith("file://") and moon.source.date is None and moon.source.title == "moon"
    assert Folder(folder).search("unheard") == []


def test_a_folders_pictures_are_found_by_caption_or_name(folder):
    (shot,) = Folder(folder).images("regatta", until=DAY)
    assert (shot.caption, shot.source.licence, shot.source.date) == (
        "A regatta boat",
        "CC BY",
        date(2026, 2, 2),
    )
    assert [shot.caption for shot in Folder(folder).images("petrel")] == ["petrel"]
    assert Folder(folder).images("regatta", until=date(2026, 1, 1)) == []


def test_a_folders_bad_files_are_skipped_and_named(folder):
    (folder / "petrel2.png").write_bytes(b"oops")
    (folder / "petrel3.jpg").write_bytes(picture_bytes("JPEG")[:300])
    with pytest.warns(UserWarning, match="skipped .*petrel[23]"):
        assert len(Folder(folder).images("petrel petrel2 petrel3")) == 1
    (folder / "index.csv").write_text("file,date\ncup.html,yesterday\n")
    with pytest.warns(UserWarning, match="skipped .*cup.html: .*yesterday"):
        assert [p.source.title for p in Folder(folder).search("won")] == ["late"]


def test_a_folder_that_is_none_is_refused(folder):
    with pytest.raises(NotADirectoryError, match="nowhere is not a folder"):
        Folder(folder / "nowhere")
    (folder / "index.csv").write_text("name;day\na;b\n")
    with pytest.raises(WebError, match=r"index\.csv: .*file"):
        Folder(folder)
