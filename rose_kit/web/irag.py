"""IRAG: search, map passages to votes, reduce votes to candidates, and compare those with the image."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from rose_kit.web.language import aggregate_votes, assess, capitalised_names, is_injection, search_terms
from rose_kit.web.llm import Model, ask_model, fenced
from rose_kit.web.reading import bm25, split
from rose_kit.web.types import Candidate, Page, Provider, ReferenceImage, Source, Step
from rose_kit.web.vpe import Match

QUESTION = (
    "By this text alone, what does a user mean who asks on {day}: {question!r}? Reply with JSON: "
    '{{"answer": a name copied from the text, or null, "confidence": 0 to 1}}.'
)
MAX_PASSAGES = 48  # to read; a model is asked about each
MAX_COMPARED = 4  # candidates that are looked for in the image


@dataclass(frozen=True)
class RetrievalResult:
    """What was searched and read, and the answer that was chosen."""

    query: str
    passages: tuple[Page, ...] = ()
    candidates: tuple[Candidate, ...] = ()  # the most confident first
    answer: Candidate | None = None
    agreed: bool = False  # whether the answer is visible in the image
    matches: Mapping[str, Match] = field(default_factory=dict)  # candidate -> what looks like it
    references: tuple[ReferenceImage, ...] = ()  # of the answer
    query_by: str = "rules"  # or "model", or why not
    read_by: str = "rules"

    @property
    def steps(self) -> list[Step]:
        """What each step made."""
        pages = len({passage.source for passage in self.passages})
        named = ", ".join(f"{c.text} ({c.confidence:.2f})" for c in self.candidates[:4]) or "nobody"
        seen = ", ".join(f"{name} {m.similarity:.2f}" for name, m in self.matches.items()) or "nothing"
        steps = [
            Step("searched", repr(self.query), f"by {self.query_by}"),
            Step("read", f"{len(self.passages)} passages of {pages} pages"),
            Step("candidates", named, f"by {self.read_by}"),
            Step("compared", seen, "similarity of what looks most like it in the image"),
        ]
        why = f"{'' if self.agreed else 'not '}visible in the image"
        return [*steps, Step("answer", self.answer.text, why)] if self.answer else steps


@dataclass
class IRAG:
    """Finds the answer to a question about an image on the web (ROSE, section 2.2)."""

    provider: Provider  # where to search
    matcher: Callable[..., Mapping[str, Match]] | None = None  # (image, references by name); None: text alone
    llm: Model | None = None  # words the search and reads each passage; None: rules
    known: Collection[str] = ()  # what the segmenter understands, which may be an answer too
    pages: int = 12  # to ask for in each of two searches
    images: int = 8  # to ask for, of each candidate
    visible_from: float = 0.35  # minimum similarity of a candidate to count as visible

    def __call__(self, image: NDArray[np.uint8], question: str, day: date) -> RetrievalResult:
        """Answer a question about an (H, W, 3) uint8 image that is asked on a day, in five steps.

        The answer is the most confident candidate that is visible in the image; or else, that the web has
        images of; or else, of all. WebError: there is no web.
        """
        query, query_by = self.rewrite(question)  # 1.
        passages = self.find_passages(query, day)  # 2.
        references = cache(lambda name: self.find_references(name, day))
        named = tuple(c for c in self.named_candidates(question, passages) if references(c.text))
        candidates, read_by = named, "rules"
        if not named:
            candidates, read_by = self.read_candidates(passages, question, day)  # 3.
        compared = [c for c in candidates[:MAX_COMPARED] if references(c.text)] or candidates[:1]
        looked_at = {c.text: references(c.text) for c in compared}
        matches = self.matcher(image, looked_at) if self.matcher else {}  # 4.
        agreeing = [c for c in compared if matches.get(c.text, Match()).similarity >= self.visible_from]
        answer = next(iter(agreeing or compared), None)  # 5.
        shown = references(answer.text) if answer else ()
        return RetrievalResult(
            query, passages, candidates, answer, bool(agreeing), matches, shown, query_by, read_by
        )

    def rewrite(self, question: str) -> tuple[str, str]:
        """The words to search for, and by what: the model or, if it says none, rules."""
        prompt = f"Words only: a short web search for who or what is meant by {question!r}"
        words, by = ask_model(self.llm, prompt, lambda reply: re.findall(r"[\w’'-]+", reply[:200]) or None)
        return (" ".join(words) if words else search_terms(question)), by

    def find_passages(self, query: str, day: date) -> tuple[Page, ...]:
        """The passages of pages written by a day that fit best, without those that give orders to readers."""
        queries = (query, f"{query} {day:%B %Y}")
        pages = dict.fromkeys(page for q in queries for page in self.provider.search(q, self.pages, day))
        passages = [p for page in pages if (page.source.date or day) <= day for p in split(page)]
        passages = [p for p in passages if not is_injection(_titled_text(p))]
        order = np.argsort(-bm25(query, [_titled_text(p) for p in passages]), kind="stable")
        return tuple(passages[i] for i in order[:MAX_PASSAGES])

    def find_references(self, name: str, day: date) -> tuple[ReferenceImage, ...]:
        """Reference images whose title or caption contains the name."""
        images = self.provider.images(name, self.images, day)
        return tuple(i for i in images if name.casefold() in f"{i.source.title} {i.caption}".casefold())

    def named_candidates(self, question: str, passages: Sequence[Page]) -> tuple[Candidate, ...]:
        """Names in the question that are titles of pages and not part of a longer name, as in "Hawk 3"."""
        titles = {p.source.title.casefold(): p.source for p in reversed(passages)}
        names = dict.fromkeys(name for name, _ in capitalised_names(question) if name.casefold() in titles)
        longer = {n: rf"\b{re.escape(n)} [A-Z\d]" for n in names}
        whole = [n for n in names if not any(re.search(longer[n], p.text) for p in passages)]
        return tuple(Candidate(name, 1.0, (titles[name.casefold()],)) for name in whole)

    def read_candidates(
        self, passages: Sequence[Page], question: str, day: date
    ) -> tuple[tuple[Candidate, ...], str]:
        """Map every passage to votes for names, and reduce them to candidates; by the model or by rules."""
        votes, by = self.vote_by_model(passages, question, day) if self.llm else (None, "rules")
        if votes is None:
            years = [(p.source.date or day).year for p in passages]
            votes = assess([_titled_text(p) for p in passages], question, years, self.known)
        votes_of: dict[tuple[str, Source], list[float]] = defaultdict(list)
        for passage, passage_votes in zip(passages, votes, strict=True):
            for name, vote in passage_votes:
                votes_of[name, passage.source].append(vote)
        return tuple(Candidate(*candidate) for candidate in aggregate_votes(votes_of, day)), by

    def vote_by_model(
        self, passages: Sequence[Page], question: str, day: date
    ) -> tuple[list[list[tuple[str, float]]] | None, str]:
        """The model's vote on each passage, and by what; None if it fails or gives no usable reply."""
        votes, by, asked = [], "rules", QUESTION.format(day=day, question=question)
        for passage in passages:
            text = _titled_text(passage)
            prompt = fenced(f"({passage.source.date}) {text}", asked)
            vote, said_by = ask_model(self.llm, prompt, partial(parse_vote, text=text))
            if "the model failed" in said_by:
                return None, said_by  # it would keep us waiting for each passage
            votes.append(vote or [])
            by = "model" if "model" in (by, said_by) else said_by
        return (votes if by == "model" else None), by


def parse_vote(reply: str, text: str) -> list[tuple[str, float]] | None:
    """The name and the confidence in a model's reply about a text; none if it says null.

    None: it is not the JSON that was asked for, or the name is not in the text.
    """
    try:
        answer = json.loads(re.search(r"\{.*?\}", reply, re.S)[0])
        if answer["answer"] is None:
            return []
        name, confidence = answer["answer"].strip(), float(answer["confidence"])
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    return [(name, confidence)] if 0 < len(name) < 80 and name in text and 0 < confidence <= 1 else None


def _titled_text(passage: Page) -> str:
    return f"{passage.source.title}.\n{passage.text}"
