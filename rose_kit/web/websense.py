"""WebSense: is a look-up needed? Rules about time first, a language model only where they cannot tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Literal

ORDER = (  # to segment: "please mask", not "the mask" or "the flower show"
    r"(?i)(?:^|(?<=[.,;:!?] )|\b(?:to|please|and|now|you|then|just) )(?:segment|mask|mark|outline|highlight|"
    r"find|show|select|cut|trace|label|paint|circle|isolate|locate|spot|pick|extract|point|delineate|draw|"
    r"identify|crop|shade|colou?r|box|lift|separate|put|get|give|grab|take|fill|trim)\b"
)
_STARTS = "the a an every each all any both some this that these those what which whichever"
_PREPOSITIONS = (
    "of in on at by with behind beside under next to from for near over above below between among against as "
    "before after during since inside along across through about"
)
_ENDS = (
    "who whose where when while is are was were has have had be been will can could do does did you i it me "
    "them us and or but please made now today . , : ; ? !"
)
STARTS, PREPOSITIONS = frozenset(_STARTS.split()), frozenset(_PREPOSITIONS.split())
ENDS = PREPOSITIONS | frozenset(_ENDS.split())
GENERIC = (
    r"(?i)\b(picture|image|photo(graph)?|pixels?|ones?|region|area|scene|part|shot|frame|mask|outline|shape|"
    r"two|three|title)$|^(thing|object|item|product|model)s?$"
)
RECENT = (
    r"(?i)\b(current|reigning|(lat|new)est|incumbent|present|newly|recent(ly)?|former|(today|year)['’]s)\b"
)
TIMED = rf"{RECENT}|\b(now|currently|today|of the moment|as of|this \w+ or|last|just|new|news|\d{{4}})\b"
EVENT = (  # what tells one from others of its kind, and is known from the news only
    r"\b(w[io]n(s|ning)?|chosen|elected|named|crowned|awarded|released|launched|unveiled|announced|"
    r"appointed|voted|by (the )?[A-Z]\w+|h[eo]lds? the \w+|(is|was|are) (\w+ly )?(now )?the (?!one\b|"
    r"\w+est\b)\w+)\b"
)


@dataclass(frozen=True)
class Decision:
    """Whether to look up, why, and who said so: a rule, the model, or neither (then it is done)."""

    retrieve: bool
    reason: str
    by: Literal["rule", "model", "default"]


def phrases(text: str) -> list[tuple[str, str, str]]:
    """Noun phrases: (preposition before it or "", the phrase without article, the rest of the clause)."""
    text = re.sub(r"(?i)\bright now\b", "now", re.sub(r"(?i)\b(who|where|what|that)['’]s\b", r"\1 is", text))
    found, before = [], [""]
    words = re.finditer(r"[\w’'-]+|[.,:;?!]", text)
    for closed, group in groupby(words, lambda word: word.group().lower() in ENDS | STARTS):
        run = list(group)
        if closed:
            before = [word.group().lower() for word in run]
            continue
        first = run[0].group()
        relative = found and before in (["that"], ["which"])  # "the one that carries"
        starts = (before[-1] in STARTS and not relative) or before[-1] == "of"
        if starts or first.endswith(("'s", "’s")) or (first[0].isupper() and run[0].start()):
            link = next((word for word in reversed(before) if word not in STARTS), "")
            rest = re.split("[.;:?!]", text[run[-1].end() :])[0]
            found.append((link if link in PREPOSITIONS else "", " ".join(w.group() for w in run), rest))
        before = [""]
    return found


def target(question: str) -> tuple[str, str]:
    """What is to be segmented and the rest of its clause: ("red boat", "that won the race").

    The first noun phrase after the last order to segment; one after a preposition only if there is no other.
    """
    orders = [match.end() for match in re.finditer(ORDER, question)]
    for text in (question[orders[-1] :] if orders else "", question):
        ranked, generic = [], False
        for link, phrase, rest in phrases(text):
            first = not link or (link == "of" and generic)  # "the pixels of the dog"
            if not (generic := bool(re.search(GENERIC, phrase))):
                ranked.append((not first, phrase, rest))
        if ranked:
            return min(ranked, key=lambda found: found[0])[1:]
    return " ".join(w for w in re.findall(r"[\w’'-]+", text) if w.lower() not in ENDS), ""


class WebSense:
    """The gate before the web.

    Args:
        llm: prompt -> answer, asked only where the rules cannot tell; None: there is no model.
        known: words the segmenter understands, in the singular; what it knows needs no look-up.
    """

    def __init__(self, llm: Callable[[str], str] | None = None, known: Collection[str] = ()) -> None:
        self.llm, self.known = llm, {word.lower() for word in known}

    def knows(self, phrase: str) -> bool:
        """Whether a phrase ends in a word the segmenter knows, participles and superlatives aside."""
        words = re.sub(r"( \w+(est|ed|ing|left|right))+$", "", phrase.lower()).split()
        last = {" ".join(words[n:]) for n in (-1, -2, -3)}
        return bool(
            self.known & (last | {w.removesuffix("s") for w in last} | {w.removesuffix("es") for w in last})
        )

    def __call__(self, question: str, date: date) -> Decision:
        """Decide about a question that is asked on a day."""
        phrase, rest = target(question)
        timed = re.search(TIMED, question)
        if self.knows(phrase):
            told = question if re.match("(?i)who|which|what", question) else rest
            told = re.split(r"\b(?:looks?|as) (?:like|if|though)\b", told)[0]
            if re.search(RECENT, phrase) or re.search(r"\b[A-Z]", phrase) or re.search(EVENT, told):
                return Decision(True, f"which {phrase!r} is meant depends on the day or on news", "rule")
            if not timed:
                return Decision(False, f"the segmenter knows {phrase!r}, and nothing tells of time", "rule")
        elif timed:
            return Decision(True, f"{timed[0]!r} asks for what holds on {date}", "rule")
        if self.llm is not None:
            return self._ask(question, date)
        if self.knows(phrase):
            return Decision(
                False, f"the segmenter knows {phrase!r}; {timed[0]!r} tells of something else", "rule"
            )
        reason = f"the segmenter does not know {phrase!r}, and there is no model to ask: better to look up"
        return Decision(True, reason, "default")

    def _ask(self, question: str, date: date) -> Decision:
        prompt = (
            f"Today is {date}. A user asks an image segmenter: {question!r}. Is knowledge of current or "
            "recent facts, people or products needed to know what is meant? Begin your answer with YES or NO."
        )
        try:
            answer = self.llm(prompt).strip()
        except Exception as error:  # a gate that breaks must not close
            return Decision(True, f"the model did not answer ({error}): better to look up", "default")
        if match := re.match(r"\W*(yes|no)\b", answer, re.I):
            return Decision(match[1].lower() == "yes", f"the model says {answer[:200]!r}", "model")
        return Decision(
            True, f"the model's answer {answer[:60]!r} is neither yes nor no: better to look up", "default"
        )
