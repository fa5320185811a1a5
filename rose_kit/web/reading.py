"""Pages into text, text into passages, and the passages that fit a query best by words and by meaning."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import bm25s
import numpy as np
import trafilatura
from numpy.typing import NDArray
from scipy.stats import rankdata

from rose_kit.types import TextEncoder
from rose_kit.web import language
from rose_kit.web.net import as_web_error
from rose_kit.web.types import Page, Source

MAX_HTML, MAX_PASSAGES = 500_000, 1000  # what comes after is left out: reading it would take too long
Passage = Page  # a few sentences of one


def read(html: bytes | str, source: Source) -> Page:
    """The text of HTML, none of which is run or fetched. What `source` leaves open is read from the page.

    Raises WebError: there is no text.
    """
    dates = {"extensive_search": False, "original_date": True}  # that it states, none guessed
    wanted = {"with_metadata": True, "include_comments": False, "date_extraction_params": dates}
    with as_web_error(source.url):
        found = trafilatura.bare_extraction(html[:MAX_HTML], **wanted)
        if not (found and found.text):
            raise ValueError("no readable text")
        day = source.date or (date.fromisoformat(found.date) if found.date else None)
        licence = found.license or "unknown" if source.licence == "unknown" else source.licence
        title = source.title or found.title or source.url
        return Page(replace(source, title=title, date=day, licence=licence), found.text)


def split(page: Page, sentences: int = 4, overlap: int = 1, longest: int = 800) -> list[Page]:
    """Windows of `sentences`, each sharing `overlap` with the next, cut at `longest` characters."""
    if not 0 <= overlap < sentences:
        raise ValueError(f"overlap must be 0 to {sentences - 1}, not {overlap}")
    found = [sentence.strip()[:longest] for sentence in language.sentences(page.text)]
    starts = range(0, max(1, len(found) - overlap), sentences - overlap)[:MAX_PASSAGES]
    return [replace(page, text=" ".join(found[i : i + sentences])[:longest]) for i in starts if found]


def bm25(query: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """BM25 scores of texts, (N,); 0 where no word is shared."""
    terms, *words = bm25s.tokenize([query, *texts], stopwords="en", show_progress=False, return_ids=False)
    if not terms or not any(words):
        return np.zeros(len(texts), np.float32)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return index.get_scores(terms)


def retrieve(
    query: str, passages: Sequence[Page], k: int = 5, encoder: TextEncoder | None = None
) -> list[Page]:
    """The k best passages by reciprocal rank fusion (Cormack et al. 2009) of BM25 and the encoder's cosines.

    Without an encoder only passages that share a word with the query are found.
    """
    texts = [f"{p.source.title}. {p.text}" for p in passages]
    words = bm25(query, texts)
    fused = (words > 0) / (60 + rankdata(-words, "ordinal"))
    if encoder is not None and texts:
        vectors = encoder.encode_text([query, *texts])  # (1 + N, D)
        fused += 1 / (60 + rankdata(-(vectors[1:] @ vectors[0]), "ordinal"))
    best = [i for i in np.argsort(-fused, kind="stable")[:k] if fused[i] > 0]
    return [replace(passages[i], score=float(fused[i])) for i in best]
