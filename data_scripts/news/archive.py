"""The miniature web as a place to search: its pages as they were on a day, and its images."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import bm25s
import numpy as np

from data_scripts.news.articles import ArticleImage, ArticleWorld
from data_scripts.news.pages import Page as NewsPage
from data_scripts.news.photos import Photo
from data_scripts.news.world import NewsWorld
from rose_kit.web.types import Page, ReferenceImage, Source

MOST_HITS = 50  # that a search looks at
# Of the visual prompt enhancer, for the vision tower of the bundled encoders: made by the experiment
# `verification` on scenes of seen classes.
THRESHOLDS = Path(__file__).with_name("thresholds.json")


class Index:
    """Ranked full-text search (BM25) over texts in which the title counts twice.

    Args:
        texts: (title, words) of each document.
    """

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        self._bm25 = bm25s.BM25()
        self._bm25.vocab_dict = {}  # of no texts
        if tokens := _tokens([f"{title} {title} {words}" for title, words in texts]):
            self._bm25.index(tokens, show_progress=False)

    def search(self, query: str) -> list[int]:
        """Positions of the documents that share a word with the query, best first."""
        known = [token for token in _tokens([query])[0] if token in self._bm25.vocab_dict]
        if not known:
            return []
        scores = self._bm25.get_scores(known)
        return [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > 0]


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    """Words without stop words; single digits are words, which tell a product from its successor."""
    return bm25s.tokenize(list(texts), token_pattern=r"\b\w+\b", return_ids=False, show_progress=False)


class NewsArchive:
    """A `Provider` of the pages and photos of a world, drawn or of real articles.

    Like Wikipedia, it searches the pages as they are at the end of the window, and then reads each as it was
    on the day that is asked about.

    Args:
        world: whose pages and photos.
    """

    def __init__(self, world: NewsWorld | ArticleWorld) -> None:
        self.world = world
        self._pages = Index([(page.title, page.revisions[-1].text) for page in world.pages])
        self._photos = Index([(photo.title, photo.caption) for photo in world.photos])
        self._pixels = lru_cache(maxsize=512)(lambda photo: photo.draw())

    def search(self, query: str, limit: int, day: date) -> list[Page]:
        """Pages that share a word with the query, as they were at the end of the day, best first."""
        hits = self._pages.search(query)[:MOST_HITS]
        revisions = ((self.world.pages[i], self.world.pages[i].on(day)) for i in hits)
        written = (
            Page(_source(page, revision.saved.date()), revision.text)
            for page, revision in revisions
            if revision is not None
        )
        return list(islice(written, limit))

    def images(self, query: str, limit: int, day: date) -> list[ReferenceImage]:
        """Images whose title or caption shares a word with the query, taken by the day."""
        hits = self._photos.search(query)[:MOST_HITS]
        taken = (photo for i in hits if (photo := self.world.photos[i]).taken <= day)
        return [ReferenceImage(_source(p, p.taken), self._pixels(p), p.caption) for p in islice(taken, limit)]


def _source(item: NewsPage | Photo | ArticleImage, day: date) -> Source:
    wiki = f"http://miniature.example/wiki/{quote(item.title.replace(' ', '_'), safe=':')}"
    return Source(item.url or wiki, item.title, day, item.licence)
