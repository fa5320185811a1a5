"""Reading pages: hostile ones are text and nothing else; passages; what fits a query."""

import math
import re
import socket
import subprocess
from collections import Counter
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit.web.net import Client, WebError
from rose_kit.web.reading import MAX_PASSAGES, bm25, read, retrieve, split
from rose_kit.web.types import Page, Source
from tests import hostile
from tests.webserver import serving

HERE = Source("http://a.example/page", "Page")
HOSTILE = hostile.pages("the regatta champion", "Rubber Duck", "http://127.0.0.1:9/trap")

# --- reading --------------------------------------------------------------------------------------


def test_what_a_page_says_and_what_it_says_of_itself():
    html = """<html><head><title>The Cup</title>
    <meta property="article:published_time" content="2026-02-01"></head>
    <body><nav>Home News</nav>
    <article><h1>The Cup</h1><p>Petrel has won the cup, its third this year.</p><script>x()</script></article>
    <footer>Under
    <a rel="license" href="https://creativecommons.org/licenses/by/4.0/">a licence</a></footer>"""
    page = read(html, Source("http://a.example/cup", ""))
    assert "Petrel has won the cup, its third this year." in page.text and "x()" not in page.text
    assert (
        page.source.title == "The Cup"
        and page.source.date == date(2026, 2, 1)
        and "CC BY" in page.source.licence
    )
    given = Source("http://a.example/cup", "Mine", date(2025, 1, 1), "CC0")
    assert read(html.encode(), given).source == given  # what the search said counts for more


def test_dates_are_not_guessed_from_the_text():
    html = "<html><body><article><p>On 3 May 2024 the barge sank in the harbour.</p></article></body></html>"
    assert read(html, HERE).source.date is None


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(99), b"\xff\xfe\x00", "<div>" * 50_000, b"<p>&#0;</p>"],
)
def test_what_holds_no_text_is_refused(body):
    with pytest.raises(WebError, match="http://a.example/page: no readable text"):
        read(body, HERE)


@settings(max_examples=25)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_or_refused(noise, wrapped):
    try:
        page = read(b"<html><body><p>" + noise + b"</p>" if wrapped else noise, HERE)
    except WebError:
        return
    assert page.text and page.source.url == HERE.url


# --- hostile pages --------------------------------------------------------------------------------


def test_there_are_twenty_hostile_pages_and_all_push_the_lure():
    assert len(HOSTILE) == 20 == len(set(HOSTILE.values()))
    lacking = [name for name, html in HOSTILE.items() if "Rubber Duck" not in html]
    assert lacking == ["refresh", "embedded", "external entity", "exfiltration"]  # these want to be fetched
    assert all("127.0.0.1:9/trap" in HOSTILE[name] for name in lacking)


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_a_hostile_page_runs_and_fetches_nothing(monkeypatch, name):
    def caught(*args, **_):
        raise AssertionError(f"reading wanted {args}")

    monkeypatch.setattr(socket, "socket", caught)
    monkeypatch.setattr(socket, "getaddrinfo", caught)
    monkeypatch.setattr(subprocess, "Popen", caught)
    monkeypatch.setattr("os.system", caught)
    page = read(HOSTILE[name], Source("http://evil.example/", "Evil"))
    assert "This page is about the regatta champion." in page.text
    assert "root:" not in page.text and "fetch(" not in page.text and "<!--" not in page.text
    found = retrieve("the regatta champion", split(page), 3)
    assert found and {type(p) for p in found} == {Page} and {p.source for p in found} == {page.source}


def test_hostile_pages_over_http_lead_to_no_other_request():
    with serving() as server:
        told = hostile.pages("the regatta champion", "Rubber Duck", f"{server.url}/trap")
        server.routes = {
            f"/{i}": (200, {"Content-Type": "text/html"}, html.encode())
            for i, html in enumerate(told.values())
        }
        client = Client(allow_private=[server.host])
        texts = [read(client.get(f"{server.url}/{i}"), HERE).text for i in range(20)]
        assert server.asked == [f"/{i}" for i in range(20)]
    assert all("This page is about" in text for text in texts)


def test_a_comment_and_hidden_text_are_not_read():
    for name in ("comment", "script", "title and attributes"):
        assert "Rubber Duck" not in read(HOSTILE[name], HERE).text, name


# --- passages -------------------------------------------------------------------------------------

words = st.text("abcdefg ", min_size=1, max_size=30).map(lambda t: f"x{t.strip()}")


@settings(max_examples=25)
@given(st.lists(words, min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 5))
def test_windows_cover_every_sentence_and_overlap(sentences, size, overlap):
    page = Page(HERE, ". ".join(sentences) + ".")
    if overlap >= size:
        with pytest.raises(ValueError, match=f"not {overlap}"):
            split(page, size, overlap)
        return
    told = [f"{s}." for s in sentences]
    windows = split(page, size, overlap)
    assert {w.source for w in windows} == {HERE}
    step, at = size - overlap, 0
    for window in windows:
        assert window.text == " ".join(told[at : at + size])
        at += step
    assert at + overlap >= len(told) > at - step  # the last window ends the page, and none is needless


def test_windows_are_bounded():
    assert split(Page(HERE, "")) == [] == split(Page(HERE, " \n "))
    assert [len(w.text) for w in split(Page(HERE, "x" * 5000), longest=100)] == [100]
    many = split(Page(HERE, "A cat sat. " * 50_000))
    assert len(many) == MAX_PASSAGES and max(len(w.text) for w in many) <= 800


# --- what fits ------------------------------------------------------------------------------------


def lucene(query, texts, k1=1.5, b=0.75):
    """BM25 written out, after Kamphuis et al. (2020), "Which BM25 do you mean?", its variant of Lucene."""
    documents = [Counter(re.findall(r"\w\w+", text.lower())) for text in texts]
    mean = sum(d.total() for d in documents) / len(documents)
    scores = []
    for d in documents:
        total = 0.0
        for word in re.findall(r"\w\w+", query.lower()):
            n = sum(word in other for other in documents)
            weight = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            total += weight * d[word] / (d[word] + k1 * (1 - b + b * d.total() / mean))
        scores.append(total)
    return scores


VOCABULARY = ["barge", "tug", "regatta", "harbour", "won", "lost", "red", "blue"]
texts = st.lists(
    st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=9
)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=3, unique=True).map(" ".join), texts)
def test_bm25_is_the_formula(query, documents):
    np.testing.assert_allclose(bm25(query, documents), lucene(query, documents), rtol=1e-4)


@pytest.mark.parametrize("query", ["", "the", "?!", "unheard", "the of and"])
def test_words_that_tell_nothing_find_nothing(query):
    assert bm25(query, ["the red barge", ""]).tolist() == [0, 0]
    assert retrieve(query, [Page(HERE, "the red barge")]) == []
    assert bm25("red", []).tolist() == [] and bm25("red", ["the", ""]).tolist() == [0, 0]


class Meanings:
    """Encodes a text by the counts of letters, as a stand-in that anybody can work out."""

    def encode_text(self, names):
        counts = np.array([[name.lower().count(letter) + 1e-3 for letter in "abcdefghij"] for name in names])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=25)
@given(texts, st.integers(1, 9), st.booleans())
def test_ranks_are_fused_as_the_formula_says(documents, k, meaning):
    passages = [Page(Source(f"http://a.example/{i}", "T"), text) for i, text in enumerate(documents)]
    query = "red barge won"
    full = [f"T. {text}" for text in documents]
    by_words = bm25(query, full)
    expected = np.zeros(len(documents))
    for place, i in enumerate(sorted(range(len(full)), key=lambda i: -by_words[i])):
        expected[i] += 1 / (61 + place) if by_words[i] > 0 else 0
    if meaning:
        vectors = Meanings().encode_text([query, *full])
        cosines = vectors[1:] @ vectors[0]
        for place, i in enumerate(sorted(range(len(full)), key=lambda i: -cosines[i])):
            expected[i] += 1 / (61 + place)
    found = retrieve(query, passages, k, Meanings() if meaning else None)
    assert len(found) == min(k, (expected > 0).sum())
    np.testing.assert_allclose(
        [p.score for p in found], sorted(expected, reverse=True)[: len(found)], rtol=1e-6
    )
    for passage in found:
        i = int(passage.source.url.rsplit("/", 1)[1])
        assert passage.text == documents[i] and passage.score == pytest.approx(expected[i])


def test_meaning_finds_what_shares_no_word():
    passages = [Page(HERE, "aaa bbb"), Page(HERE, "hhh jjj")]
    assert retrieve("ab ba", passages) == []
    assert retrieve("ab ba", passages, 1, Meanings())[0].text == "aaa bbb"
    assert retrieve("ab ba", [], 1, Meanings()) == []
