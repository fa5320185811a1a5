"""Reading pages: hostile ones are text and nothing else; passages; what fits a query."""

import socket
import subprocess
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit.web.net import WebError
from rose_kit.web.reading import MAX_PASSAGES, bm25, read, retrieve, split
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


words = st.text("abcdefg ", min_size=1, max_size=30).map(lambda t: f"x{t.strip()}.")


@settings(max_examples=25)
@given(st.lists(words, min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 5))
def test_windows_cover_every_sentence_and_overlap(sentences, size, overlap):
    page = Page(HERE, " ".join(sentences))
    if overlap >= size:
        with pytest.raises(ValueError, match=f"not {overlap}"):
            split(page, size, overlap)
        return
    windows, step = split(page, size, overlap), size - overlap
    assert {w.source for w in windows} == {HERE}
    assert [w.text for w in windows] == [" ".join(sentences[i * step :][:size]) for i in range(len(windows))]
    last = (len(windows) - 1) * step
    assert last + size >= len(sentences) and (last + overlap < len(sentences) or last == 0)


def test_windows_are_bounded():
    assert split(Page(HERE, " \n ")) == []
    assert [len(w.text) for w in split(Page(HERE, "x" * 5000), longest=100)] == [100]
    many = split(Page(HERE, "A cat sat. " * 50_000))
    assert len(many) == MAX_PASSAGES and max(len(w.text) for w in many) <= 800


class Letters:
    """Encodes a text by the counts of its letters, as a stand-in that anybody can work out."""

    def encode_text(self, names):
        counts = np.array([[name.lower().count(letter) + 1e-3 for letter in "abcdefghij"] for name in names])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


VOCABULARY = st.sampled_from(["barge", "tug", "regatta", "harbour", "won", "lost", "red", "blue"])
texts = st.lists(st.lists(VOCABULARY, min_size=1, max_size=9).map(" ".join), min_size=1, max_size=9)


@settings(max_examples=25)
@given(texts, st.integers(1, 9), st.sampled_from([None, Letters()]))
def test_ranks_by_words_and_by_meaning_are_fused_as_the_formula_says(documents, k, encoder):
    query, full = "red barge won", [f"T. {text}" for text in documents]
    by_words = bm25(query, full)
    order = sorted(range(len(full)), key=lambda i: -by_words[i])
    expected = [1 / (61 + order.index(i)) if by_words[i] > 0 else 0 for i in range(len(full))]
    if encoder:
        asked, *vectors = encoder.encode_text([query, *full])
        order = sorted(range(len(full)), key=lambda i: -(np.array(vectors) @ asked)[i])
        expected = [score + 1 / (61 + order.index(i)) for i, score in enumerate(expected)]
    passages = [Page(Source(f"{i}", "T"), text) for i, text in enumerate(documents)]
    found = retrieve(query, passages, k, encoder)
    assert len(found) == min(k, np.count_nonzero(expected))
    assert [p.score for p in found] == pytest.approx(sorted(expected, reverse=True)[: len(found)])
    assert all(p.score == pytest.approx(expected[int(p.source.url)]) for p in found)


def test_words_that_tell_nothing_find_nothing_but_meaning_finds_what_shares_no_word():
    passages = [Page(HERE, "aaa bbb"), Page(HERE, "hhh jjj")]
    for query in ("", "the of and", "?!", "ab ba"):
        assert bm25(query, ["the red barge", ""]).tolist() == [0, 0] and retrieve(query, passages) == []
    assert retrieve("ab ba", passages, 1, Letters())[0].text == "aaa bbb"
    assert retrieve("ab ba", [], 1, Letters()) == []
