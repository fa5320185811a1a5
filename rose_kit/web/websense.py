"""WebSense: is a look-up needed? Rules about time first, a language model only where they cannot tell."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from typing import Literal

from rose_kit.web.language import RECENT, TIMED, target

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


class WebSense:
    """The gate: `llm` is asked where rules cannot tell; the segmenter knows the words `known` (singular)."""

    def __init__(self, llm: Callable[[str], str] | None = None, known: Collection[str] = ()) -> None:
        self.llm, self.known = llm, {word.lower() for word in known}

    def knows(self, phrase: str) -> bool:
        """Whether a phrase ends in a word the segmenter knows, participles and superlatives aside."""
        words = re.sub(r"( \w+(est|ed|ing|left|right))+$", "", phrase.lower()).split()
        last = {" ".join(words[n:]) for n in (-1, -2, -3)}
        return any(word.removesuffix(end) in self.known for word in last for end in ("", "s", "es"))

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
            why = f"the segmenter knows {phrase!r}; {timed[0]!r} tells of something else"
            return Decision(False, why, "rule")
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
        reason = f"the model's answer {answer[:60]!r} is neither yes nor no: better to look up"
        return Decision(True, reason, "default")
