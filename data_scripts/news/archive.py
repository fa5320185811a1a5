"""What the wiki holds, found by title, by revision, by words and by day."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from datetime import datetime, time
from functools import cached_property, lru_cache

import bm25s
import numpy as np
from PIL import Image

from data_scripts.news.pages import Page, Revision
from data_scripts.news.photos import SIZE, Photo
from data_scripts.news.world import NewsWorld


class Index:
    """Ranked full-text search (BM25) over texts in which the title counts twice.

    Args:
        texts: (title, words) of each document.
    """

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        self._bm25 = bm25s.BM25()
        self._bm25.index(_tokens([f"{t} {t} {words}" for t, words in texts]), show_progress=False)

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


class Archive:
    """The pages and pictures of a world as a wiki holds them.

    Args:
        world: whose pages and pictures.
    """

    def __init__(self, world: NewsWorld) -> None:
        self.world = world
        self.pages = {page.title: page for page in world.pages}
        self.files = {photo.title: photo for photo in world.photos}
        self.file_ids = {title: len(self.pages) + i for i, title in enumerate(self.files, 1)}
        self.revisions = {r.id: (page, r) for page in world.pages for r in page.revisions}
        self.picture = lru_cache(maxsize=512)(self._picture)

    @cached_property
    def _page_index(self) -> Index:
        return Index([(p.title, p.revisions[-1].text) for p in self.world.pages])

    @cached_property
    def _file_index(self) -> Index:
        return Index([(p.title, p.caption) for p in self.world.photos])

    def search_pages(self, query: str) -> list[Page]:
        """Pages whose present text shares words with a query, best first."""
        return [self.world.pages[i] for i in self._page_index.search(query)]

    def search_files(self, query: str) -> list[Photo]:
        """Pictures whose title or caption shares words with a query, best first."""
        return [self.world.photos[i] for i in self._file_index.search(query)]

    def _picture(self, title: str, width: int) -> bytes:
        """A picture as PNG, so many pixels wide; drawn when it is first asked for."""
        image = Image.fromarray(self.files[title].draw())
        return png(image.resize((width, width), Image.Resampling.LANCZOS) if width != SIZE else image)


def png(image: Image.Image) -> bytes:
    """A picture as PNG without compression: its length is known before it is drawn."""
    kept = io.BytesIO()
    image.save(kept, "PNG", compress_level=0)
    return kept.getvalue()


def older(page: Page, start: datetime) -> list[Revision]:
    """Revisions saved at `start` or before, newest first."""
    return [r for r in reversed(page.revisions) if r.saved <= start]


def uploaded(photo: Photo) -> datetime:
    """When a picture came into the archive."""
    return datetime.combine(photo.taken, time(12))


def canonical(title: str) -> str:
    """A title as MediaWiki writes it: blanks for underscores, no blanks around it, a capital first.

    >>> canonical(" marigold_(song) ")
    'Marigold (song)'
    """
    title = re.sub(r"[_\s]+", " ", title).strip()
    return title[:1].upper() + title[1:]


def snippet(text: str, query: str, width: int = 150) -> str:
    """The part of a text around the first word of a query, its words marked as MediaWiki marks them."""
    words = "|".join(re.escape(w) for w in re.findall(r"\w+", query))
    hit = re.search(rf"\b({words})\b", text, re.IGNORECASE) if words else None
    first = max(0, hit.start() - width // 3) if hit else 0
    part = text[first : first + width].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    mark = r'<span class="searchmatch">\1</span>'
    return re.sub(rf"\b({words})\b", mark, part, flags=re.IGNORECASE) if words else part
