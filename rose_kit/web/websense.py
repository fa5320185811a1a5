"""WebSense: is a look-up needed? Rules about time decide first, a language model where they cannot."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from typing import Literal

from rose_kit.web.language import RECENT, any_of, target, word_pattern

_NOW = any_of(r"now, currently, today, of the moment, as of, this \w+ or, last, just, new, news, \d{4}")
TIME = f"{RECENT}|{_NOW}"
# An event that is known from news, and says which individual is meant: "the boat that won the cup".
EVENT = any_of(r"""win, wins, won, winning, chosen, elected, named, crowned, awarded, released, launched,
    unveiled, announced, appointed, voted, by (the )?(?-i:[A-Z])\w+, h[eo]lds? the \w+,
    (is|was|are) (\w+ly )?(now )?the (?!one\b)(?!\w+est\b)\w+""")
PROMPT = (
    "Today is {day}. A user asks an image segmenter: {question!r}. Is knowledge of current or recent facts, "
    "people or products needed to know what is meant? Begin your answer with YES or NO."
)


@dataclass(frozen=True)
class Decision:
    """Whether to look up, why, and who decided: a rule, the model, or the default, which is to look up."""

    retrieve: bool
    reason: str
    by: Literal["rule", "model", "default"]


@dataclass
class WebSense:
    """The gate in front of the search."""

    llm: Callable[[str], str] | None = None  # decides what the rules leave open; None: it is looked up
    known: Collection[str] = ()  # words that the segmenter understands, in the singular

    def __call__(self, question: str, day: date) -> Decision:
        """Decide about a question that is asked on a day."""
        phrase, clause = target(question)
        is_known, time = self.knows(phrase), re.search(TIME, question)
        if is_known and self._depends_on_news(question, phrase, clause):
            return Decision(True, f"which {phrase!r} is meant depends on the day or on news", "rule")
        if time and not is_known:
            return Decision(True, f"{time[0]!r} asks for what holds on {day}", "rule")
        if is_known and not time:
            return Decision(False, f"the segmenter knows {phrase!r}, and nothing tells of time", "rule")
        if self.llm:
            return self._ask(question, day)
        if is_known:
            reason = f"the segmenter knows {phrase!r}; {time[0]!r} tells of something else"
            return Decision(False, reason, "rule")
        reason = f"the segmenter does not know {phrase!r}, and there is no model to ask: better to look up"
        return Decision(True, reason, "default")

    def knows(self, phrase: str) -> bool:
        """Whether a phrase ends in a known word; a participle or superlative after it does not count."""
        head = re.sub(r"( \w+(est|ed|ing|left|right))+$", "", phrase.lower())
        return bool(re.search(f"{word_pattern(self.known)}$", head))

    def _depends_on_news(self, question: str, phrase: str, clause: str) -> bool:
        """Whether a known word means another individual from time to time: "the new bus", "the Aerix car"."""
        about = question if re.match("(?i)who|which|what", question) else clause
        about = re.split(r"\b(?:looks?|as) (?:like|if|though)\b", about)[0]
        return bool(re.search(rf"{RECENT}|\b[A-Z]", phrase) or re.search(EVENT, about))

    def _ask(self, question: str, day: date) -> Decision:
        try:
            answer = self.llm(PROMPT.format(day=day, question=question)).strip()
        except Exception as error:  # a gate that fails must not stop the search
            return Decision(True, f"the model failed ({error}): better to look up", "default")
        if match := re.match(r"\W*(yes|no)\b", answer, re.I):
            return Decision(match[1].lower() == "yes", f"the model says {answer[:200]!r}", "model")
        return Decision(True, f"the model's answer {answer[:60]!r} is neither yes nor no", "default")
