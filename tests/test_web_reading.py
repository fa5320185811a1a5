"""Reading pages: hostile ones are text and nothing else; passages; what fits a query."""

import socket
import subprocess
from datetime import date

import pytest

from rose_kit.web.net import WebError
from rose_kit.web.reading import bm25, read, split
from rose_kit.web.types import Page, Source
from tests import hostile

HERE = Source("http://a.example/page", "Page")
HOSTILE = hostile.pages("the regatta champion", "Rubber Duck", "http://127.0.0.1:9/trap")


def test_what_a_page_says_and_what_it_says_of_itself():
    html = """<html><head><title>The Cup</title>
    <meta property="article:published_time" content="2026-02-01"></head>
    <body><nav>Home News</nav>
    <article><h1>The Cup</h1><p>On 3 May 2024 Petrel won the cup, its third this year.</p></article>
    <footer><a rel="license" href="https://creativecommons.org/licenses/by/4.0/">a licence</a></footer>"""
    page = read(html, Source("http://a.example/cup", ""))
    assert "Petrel won the cup, its third this year." in page.text
    assert page.source.title == "The Cup" and "CC BY" in page.source.licence
    assert page.source.date == date(2026, 2, 1)
    given = Source("http://a.example/cup", "Mine", date(2025, 1, 1), "CC0")
    assert read(html.encode(), given).source == given  # what the search said counts for more
    undated = html.replace("article:published_time", "other")
    assert read(undated, HERE).source.date is None  # none is guessed from the text


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(99), b"\xff\xfe\x00", "<div>" * 50_000, b"<p>&#0;</p>"],
)
def test_what_holds_no_text_is_refused(body):
    with pytest.raises(WebError, match="http://a.example/page: "):
        read(body, HERE)


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_a_hostile_page_runs_and_fetches_nothing(monkeypatch, name):
    def caught(*args, **_):
        raise AssertionError(f"reading wanted {args}")

    assert len(HOSTILE) == 20 and ("Rubber Duck" in HOSTILE[name] or "127.0.0.1:9/trap" in HOSTILE[name])
    monkeypatch.setattr(socket, "socket", caught)
    monkeypatch.setattr(socket, "getaddrinfo", caught)
    monkeypatch.setattr(subprocess, "Popen", caught)
    monkeypatch.setattr("os.system", caught)
    page = read(HOSTILE[name], Source("http://evil.example/", "Evil"))
    assert "This page is about the regatta champion." in page.text
    assert "root:" not in page.text and "fetch(" not in page.text and "<!--" not in page.text
    if name in ("comment", "script", "title and attributes"):
        assert "Rubber Duck" not in page.text


def test_passages_overlap_by_a_sentence_and_texts_are_scored_by_the_words_they_share():
    text = " ".join(f"Sentence {i}." for i in range(8))
    passages = [passage.text for passage in split(Page(HERE, text))]
    assert [(p.split()[1], p.split()[-1]) for p in passages] == [("0.", "3."), ("3.", "6."), ("6.", "7.")]
    assert [len(p.text) for p in split(Page(HERE, "x" * 2000))] == [800] and split(Page(HERE, " ")) == []
    assert (bm25("cab", ["the aaa", "the cab"]) > 0).tolist() == [False, True]
    assert bm25("the", ["the cab"]).tolist() == [0] and bm25("cab", []).tolist() == []
