"""HTML into text, text into passages, and how well texts fit a query."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import bm25s
import numpy as np
import trafilatura
from numpy.typing import NDArray

from rose_kit.registry import errors_as
from rose_kit.web.language import sentences
from rose_kit.web.net import WebError
from rose_kit.web.types import Page, Source

MAX_HTML, MAX_PASSAGES = 500_000, 1000  # characters, passages: the rest of a page would take too long
MAX_CHARACTERS = 800  # of a sentence and of a passage


def read(html: bytes | str, source: Source) -> Page:
    """Extract the text of HTML without running or fetching anything.

    Title, date and licence that `source` lacks are taken from the page. Raises WebError: there is no text.
    """
    dates = {"extensive_search": False, "original_date": True}  # only a date that the page states
    options = {"with_metadata": True, "include_comments": False, "date_extraction_params": dates}
    with errors_as(WebError, source.url):
        page = trafilatura.bare_extraction(html[:MAX_HTML], **options)
        if not (page and page.text):
            raise ValueError("no readable text")
        day = source.date or (date.fromisoformat(page.date) if page.date else None)
        licence = page.license or "unknown" if source.licence == "unknown" else source.licence
        title = source.title or page.title or source.url
        return Page(replace(source, title=title, date=day, licence=licence), page.text)


def split(page: Page) -> list[Page]:
    """Passages of four sentences; each begins with the last sentence of the one before."""
    parts = [sentence.strip()[:MAX_CHARACTERS] for sentence in sentences(page.text)]
    starts = range(0, max(1, len(parts) - 1), 3)[:MAX_PASSAGES]
    return [replace(page, text=" ".join(parts[i : i + 4])[:MAX_CHARACTERS]) for i in starts if parts]


def bm25(query: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """(N,) BM25 scores of texts; 0 where no word is shared with the query."""
    terms, *words = bm25s.tokenize([query, *texts], stopwords="en", show_progress=False, return_ids=False)
    if not terms or not any(words):
        return np.zeros(len(texts), np.float32)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return index.get_scores(terms)
