"""WebSense: is a look-up needed? Rules about time decide first, a language model where they cannot."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Literal

from rose_kit.web.language import WORDS, known_noun, phrases, target
from rose_kit.web.llm import Model, ask_model
from rose_kit.web.types import Step

_BEFORE_NOUN = rf"{WORDS['recent']}|{WORDS['famous']}|\b[A-Z][\w’'-]*"
# What follows is no fact about a noun: "that looks like a winner".
_LIKENESS = (
    r"\b(?:looks?|looking|seems?|appears?|as) (?:like|if|though|about|to)\b|, (?:I|we|please|thanks)\b"
)
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
    target: str = ""  # the phrase that is to be segmented
    known: str = ""  # the noun in it that the segmenter understands
    cue: str = ""  # what tells of time or news

    @property
    def steps(self) -> list[Step]:
        """What each step made."""
        known = repr(self.known) if self.known else "the segmenter knows no word of it"
        cue = repr(self.cue) if self.cue else "nothing tells of time or news"
        verdict = Step("gate", "look up" if self.retrieve else "no look-up", f"by {self.by}: {self.reason}")
        return [Step("target", repr(self.target)), Step("known", known), Step("cue", cue), verdict]


@dataclass
class WebSense:
    """The gate in front of the search (ROSE, section 2.1)."""

    llm: Model | None = None  # decides what the rules leave open; None: it is looked up
    known: Collection[str] = ()  # what the segmenter understands, in the singular; "dog|puppy" is two

    def __call__(self, question: str, day: date) -> Decision:
        """Decide about a question that is asked on a day, in five steps."""
        phrase = target(question, self.known).words  # 1. what is to be segmented?
        noun = known_noun(phrase, self.known)  # 2. does the segmenter know it?
        event = self.find_event(question, noun) if noun else ""  # 3. does news say which one is meant?
        time = re.search(f"{WORDS['recent']}|{WORDS['now']}", question)  # 4. does it at least speak of time?
        cue = event or (time[0] if time else "")
        return self.decide(question, day, phrase, noun, cue, bool(event))  # 5.

    def find_event(self, question: str, noun: str) -> str:
        """What makes a known noun mean another individual from time to time: "the newest bus", "Volvo's bus".

        Wherever the question names it, what is before and after it counts, but nothing further away.
        """
        for phrase in phrases(question[:1].lower() + question[1:]):
            before, is_named, after = phrase.words.partition(noun)
            after = re.split(_LIKENESS, after + phrase.rest)[0]
            entitled = re.match(rf"\W*{WORDS['entitled']}", after)
            cue = re.search(_BEFORE_NOUN, before) or re.search(WORDS["event"], after) or entitled
            if is_named and cue:
                return cue[0].strip()
        return ""

    def decide(self, question: str, day: date, phrase: str, noun: str, cue: str, is_event: bool) -> Decision:
        """The rules; then the model; or else, what is not known is looked up."""
        saw = phrase, noun, cue
        if is_event:
            reason = f"{cue!r} says which {noun!r} is meant, and that depends on news"
            return Decision(True, reason, "rule", *saw)
        if noun and not cue:
            return Decision(False, f"the segmenter knows {noun!r}, and nothing tells of time", "rule", *saw)
        if cue and not noun:
            return Decision(True, f"{cue!r} asks for what holds on {day}", "rule", *saw)
        reply, by = ask_model(self.llm, PROMPT.format(day=day, question=question), parse_yes_or_no)
        if reply:
            return Decision(reply[1].lower() == "yes", f"the model says {reply[0][:200]!r}", "model", *saw)
        why = by.removeprefix("rules, as ") if self.llm else "there is no model to ask"
        if noun:
            reason = f"the segmenter knows {noun!r}; {cue!r} tells of something else; {why}"
            return Decision(False, reason, "rule", *saw)
        reason = f"the segmenter does not know {phrase!r}, and {why}: better to look up"
        return Decision(True, reason, "default", *saw)


def parse_yes_or_no(reply: str) -> re.Match | None:
    """The reply, if it begins with yes or no, which is its first group."""
    return re.match(r"\W*(yes|no)\b.*", reply, re.IGNORECASE | re.DOTALL)
