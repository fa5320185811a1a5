"""The three places to search: Wikimedia against recorded shapes of answers, DuckDuckGo, a folder."""

import json
from datetime import date
from urllib.parse import parse_qsl, urlsplit

import pytest

from rose_kit.web.net import Client, WebError
from rose_kit.web.providers import DuckDuckGo, Folder, Wikimedia
from tests.webserver import image_bytes

DAY = date(2026, 3, 1)


@pytest.fixture
def client(server):
    return Client(allow_private=[server.host], seconds=5)


class MediaWiki:
    """Answers of `api.php` in MediaWiki's shape (formatversion 2): pages and files A, B and C."""

    def __init__(self, server, client):
        self.url, self.texts = server.url, {"A": "alpha", "B": "beta", "C": "gamma"}
        self.revisions = {title: [{"timestamp": "2026-01-02T03:04:05Z"}] for title in "ABC"}
        about = {"timestamp": "2026-02-01T00:00:00Z"}
        self.files = {name: about | {"url": f"{self.url}/{name}.png"} for name in "ABC"}
        server.routes = {f"/{name}.png": (200, {}, image_bytes()) for name in "ABC"}
        server.routes["/api"] = self.route
        self.provider = Wikimedia(f"{self.url}/api", f"{self.url}/api", client)

    def route(self, handler):
        lasting = {"Cache-Control": f"private, must-revalidate, max-age={handler.query['maxage']}"}
        return 200, lasting, json.dumps(self.answer(handler.query)).encode()

    def answer(self, query):
        if query["action"] == "parse":
            return {"parse": {"text": f"<p>{self.texts[query['oldid']]}</p>"}}
        if "meta" in query:
            return {"query": {"rightsinfo": {"url": "", "text": "CC BY"}}}
        if "list" in query:
            return {"query": {"search": [{"title": title} for title in "ABC"]}}
        if "generator" in query:
            files = [self.file(name, index) for index, name in enumerate("ABC")]
            return {"query": {"pages": files[::-1]}}  # by number; `index` ranks them
        title = query["titles"]
        revisions = [revision | {"revid": title} for revision in self.revisions[title]]
        page = {"title": title, "fullurl": f"{self.url}/wiki/{title}", "revisions": revisions}
        return {"query": {"pages": [page]}}

    def file(self, name, index):
        info = {"descriptionurl": f"{self.url}/File:{name}"} | self.files[name]
        return {"title": f"File:{name}.png", "index": index, "imageinfo": [info]}


@pytest.fixture
def wiki(server, client):
    return MediaWiki(server, client)


def test_pages_are_read_as_of_the_day_by_mediawikis_own_calls(server, wiki):
    wiki.revisions["B"] = []  # it was written later
    first, second = wiki.provider.search("regatta & cup", 2, DAY)
    assert (first.text, first.source.title, first.source.licence) == ("alpha", "A", "CC BY")
    assert first.source.date == date(2026, 1, 2) and first.source.url == f"{server.url}/wiki/A"
    assert second.text == "gamma"
    calls = [dict(parse_qsl(urlsplit(path).query)) for path in server.asked]
    assert all((c["format"], c["formatversion"]) == ("json", "2") for c in calls)
    assert calls[0]["srsearch"] == "regatta & cup" and calls[0]["srlimit"] == "50"
    assert calls[1]["titles"] == "A" and calls[1]["rvstart"] == "2026-03-01T23:59:59Z"
    assert (calls[1]["prop"], calls[1]["rvlimit"], calls[1]["inprop"]) == ("revisions|info", "1", "url")
    assert calls[2]["oldid"] == "A" and sum("meta" in c for c in calls) == 1  # the licence is asked for once


def test_images_come_as_ranked_with_licence_and_caption_and_none_from_the_future(server, wiki):
    description = {"value": "<b>A</b> boat &amp; its crew"}
    about = {"LicenseShortName": {"value": "CC BY-SA 4.0"}, "ImageDescription": description}
    wiki.files["A"] |= {"extmetadata": about}
    wiki.files["B"] |= {"timestamp": "2026-04-01T00:00:00Z"}
    first, second = wiki.provider.images("boat", 3, DAY)
    assert (first.caption, first.source.licence) == ("A boat & its crew", "CC BY-SA 4.0")
    assert (second.caption, second.source.licence) == ("File:C.png", "unknown")
    assert first.image.shape == (30, 40, 3) and "/B.png" not in server.asked
    (call,) = [dict(parse_qsl(urlsplit(path).query)) for path in server.asked if "generator" in path]
    assert (call["gsrnamespace"], call["gsrsearch"], call["iiurlwidth"]) == ("6", "boat", "512")


@pytest.mark.parametrize(
    "change", [{"url": "http://10.0.0.1/b.png"}, {"url": "absent.png"}, {"timestamp": None}]
)
def test_one_bad_image_or_page_is_skipped_and_named(wiki, change):
    wiki.files["B"] |= change
    with pytest.warns(UserWarning, match=r"skipped .*(B|b|absent)"):
        assert [image.caption for image in wiki.provider.images("x", 5, DAY)] == ["File:A.png", "File:C.png"]
    wiki.texts["B"] = ""
    with pytest.warns(UserWarning, match="skipped .*B"):
        assert [page.text for page in wiki.provider.search("x", 5, DAY)] == ["alpha", "gamma"]


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b'{"query": [1]}', b'{"error": {"info": "Out of order"}}', b'{"error": 1}']
)
def test_a_malformed_answer_of_an_api_is_an_error_that_names_the_place(server, wiki, answer):
    server.routes["/api"] = (200, {}, answer)
    for search in (wiki.provider.search, wiki.provider.images):
        with pytest.raises(WebError, match="cannot search Wikimedia: "):
            search("x", 5, DAY)
    server.routes["/api"] = (200, {"Cache-Control": "no-store"}, b'{"query": []}')  # PHP's empty object
    assert wiki.provider.search("y", 5, DAY) == [] == wiki.provider.images("y", 5, DAY)


@pytest.fixture
def duck(server, client, monkeypatch):
    """The real library, with our server as DuckDuckGo."""
    monkeypatch.setattr("ddgs.engines.duckduckgo.Duckduckgo.search_url", f"{server.url}/html")
    monkeypatch.setattr("ddgs.engines.duckduckgo.Duckduckgo.search_method", "GET")
    return DuckDuckGo(client)


def test_duckduckgos_pages_are_fetched_and_read(server, duck):
    link = '<div class="body"><h2>T{0}</h2><a href="{1}/{0}">boat</a></div>'
    hits = "".join(link.format(i, server.url) for i in range(3))
    dated = '<html><head><meta property="article:published_time" content="{}"></head><body><p>{}</p></body>'
    server.routes = {
        "/html": (200, {}, f"<html><body>{hits}</body></html>".encode()),
        "/0": (200, {}, dated.format("2026-01-01", "boat 0").encode()),
        "/1": (200, {}, dated.format("2026-04-01", "boat 1").encode()),
    }
    with pytest.warns(UserWarning, match=f"skipped {server.url}/2: HTTP 404"):
        (page,) = duck.search("boat", 5, DAY)
    assert (page.source.url, page.text, page.source.title) == (f"{server.url}/0", "boat 0", "T0")
    assert page.source.date == date(2026, 1, 1)


INDEX = """file,url,title,date,licence,caption
cup.html,http://a.example/cup,The cup,2026-02-01,CC0,
late.md,,Later,2026-04-01,,
x1.jpg,,,2026-02-02,CC BY,A regatta boat
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cup.html").write_text("<html><body><p>Petrel has won the regatta cup.</p></body></html>")
    (tmp_path / "moon.txt").write_text("A new moon over the harbour.")
    (tmp_path / "late.md").write_text("Rook has won the regatta cup, regatta, regatta.")
    (tmp_path / "petrel.png").write_bytes(image_bytes())
    (tmp_path / "x1.jpg").write_bytes(image_bytes("JPEG"))
    (tmp_path / "index.csv").write_text(INDEX)
    return tmp_path


def test_a_folder_is_searched_by_words_captions_and_names(folder, duck, wiki):
    (cup,) = Folder(folder).search("regatta cup", 5, DAY)
    assert cup.source.url == "http://a.example/cup" and cup.source.licence == "CC0"
    assert {p.source.title for p in Folder(folder).search("regatta cup", 5, date.max)} == {"Later", "The cup"}
    (moon,) = Folder(str(folder)).search("moon", 5, DAY)
    assert moon.source.url.startswith("file://") and moon.source.date is None and moon.source.title == "moon"
    (boat,) = Folder(folder).images("regatta", 5, DAY)
    assert (boat.caption, boat.source.licence) == ("A regatta boat", "CC BY")
    assert [image.caption for image in Folder(folder).images("petrel", 5, DAY)] == ["petrel"]
    assert Folder(folder).images("regatta", 5, date(2026, 1, 1)) == []
    assert Folder(folder).search("unheard", 5, DAY) == []


def test_a_folder_takes_any_format_and_form_of_unicode_and_names_what_it_does_not_read(folder):
    one, two = "Caf\u00e9.tiff", "Cafe\u0301.tga"  # composed, decomposed
    (folder / one).write_bytes(image_bytes("TIFF"))
    (folder / two).write_bytes(image_bytes("TGA"))
    rows = "Cafe\u0301.tiff,A cup of coffee\nCaf\u00e9.tga,Another coffee\n"
    (folder / "index.csv").write_text(f"file,caption\n{rows}")
    (folder / "page.pdf").write_bytes(b"%PDF")
    (folder / "page_files").mkdir()
    with pytest.warns(UserWarning, match=r"kinds: 1 \(.*/page.pdf\); subfolders: 1 \(.*/page_files\)$"):
        own = Folder(folder)
    captions = {image.caption for image in own.images("coffee", 5, DAY)}
    assert captions == {"A cup of coffee", "Another coffee"}
    (folder / "index.csv").write_text("file,dat\nmoon.txt,x\nsub/sun.txt,y\n")
    with pytest.warns(UserWarning, match=r"columns of .*: 1 \(dat\); lines of .*: 1 \(sub/sun.txt\)$"):
        Folder(folder)


LINE = 'moon.txt,http://a.example/m,"The\nmoon, Caf\u00e9",2026-01-05'


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_texts_of_any_office_program_are_read_as_they_were_written(folder, coding):
    (folder / "moon.txt").write_text("The new moon, Caf\u00e9", encoding=coding)
    (folder / "index.csv").write_text(f"file, url, title, date\n{LINE}\n", encoding=coding)
    (moon,) = Folder(folder).search("new moon", 5, DAY)
    assert (moon.text, moon.source.title) == ("The new moon, Caf\u00e9", "The\nmoon, Caf\u00e9")
    assert moon.source.date == date(2026, 1, 5)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("file;url\nmoon.txt;x\n", "expected the columns file, url, .*got file;url"),
        ("name,url\nmoon.txt,x\n", "expected the columns"),
        ("file,title\nmoon.txt,The moon, new\n", "'moon.txt' has too many cells"),
        ("file,title\nmoon.txt,a\nmoon.txt,b\n", "'moon.txt' has several lines"),
    ],
)
def test_an_index_that_is_none_is_refused(folder, index, message):
    (folder / "index.csv").write_text(index)
    with pytest.raises(WebError, match=f"index.csv: .*{message}"):
        Folder(folder)


def test_a_folders_bad_files_are_skipped_and_named(folder):
    (folder / "petrel2.png").write_bytes(b"oops")
    with pytest.warns(UserWarning, match="skipped .*petrel2"):
        assert len(Folder(folder).images("petrel petrel2", 5, DAY)) == 1
    (folder / "index.csv").write_text("file,date\ncup.html,yesterday\n")
    with pytest.warns(UserWarning, match="skipped .*cup.html: .*yesterday"):
        assert [p.source.title for p in Folder(folder).search("won", 5, date.max)] == ["late"]
