"""Textual prompt enhancer: describes the answer in words that the segmenter knows."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from rose_kit.web.language import is_injection, sentences, word_pattern
from rose_kit.web.types import Provider, Source

MAX_SENTENCE = 800  # characters; the rest of a longer one is not read


@dataclass
class TPE:
    """Prompt = question + definition of the answer, which a second search finds (ROSE, section 2.3)."""

    provider: Provider  # where to search
    known: Collection[str]  # words that the segmenter understands
    pages: int = 5  # to read

    def __call__(self, question: str, answer: str, day: date) -> tuple[str, tuple[Source, ...]]:
        """The prompt, and the page of the definition; without one, the question and the answer's name.

        A definition is a sentence such as "Petrel is a red boat". The best one is on the page that has the
        answer as its title (and is not about the song of that name), and holds a word that is known.
        """
        best: tuple[int, str, tuple[Source, ...]] = (0, answer, ())
        for page in self.provider.search(answer, self.pages, day):
            if is_injection(f"{page.source.title} {page.text}"):
                continue
            is_own_page = page.source.title.casefold() == answer.casefold()
            for sentence in sentences(page.text):
                definition = rf"{re.escape(answer)}\b(.* )?(is|are|was)\b.*"
                if match := re.search(definition, sentence[:MAX_SENTENCE]):
                    score = 1 + 4 * is_own_page + 2 * bool(re.search(word_pattern(self.known), match[0]))
                    if score > best[0]:
                        best = (score, match[0][:300], (page.source,))
        return f"{question} {best[1]}", best[2]
