"""Textual prompt enhancer: what a second search tells about the answer, in words the segmenter knows."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from rose_kit.web.language import is_injection, sentences
from rose_kit.web.types import Provider, Source


@dataclass
class TPE:
    """Prompt = query + answer + background found by a second search (ROSE, section 2.3)."""

    provider: Provider  # where to search
    known: Collection[str]  # words the segmenter understands
    pages: int = 5  # to read

    def __call__(self, question: str, answer: str, day: date) -> tuple[str, tuple[Source, ...]]:
        """The prompt, and the page its background is from, if there is any."""
        words = rf"(?i)\b({'|'.join(map(re.escape, self.known))})(e?s)?\b"
        best: tuple[int, str, tuple[Source, ...]] = (0, answer, ())
        for page in self.provider.search(answer, self.pages, day):
            if is_injection(f"{page.source.title} {page.text}"):
                continue
            titled = page.source.title.casefold() == answer.casefold()  # not the song of that name
            for text in (sentence[:800] for sentence in sentences(page.text)):  # a longer one is no sentence
                if defined := re.search(rf"{re.escape(answer)}\b(.* )?(is|are|was)\b.*", text):
                    worth = 4 * titled + 2 * bool(re.search(words, defined[0])) + 1
                    best = max(best, (worth, defined[0][:300], (page.source,)), key=lambda found: found[0])
        return f"{question} {best[1]}", best[2]
