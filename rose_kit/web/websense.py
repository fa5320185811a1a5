"""WebSense: is a look-up needed? Rules about time decide first, a language model where they cannot."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from typing import Literal

from rose_kit.web.language import RECENT, any_of, phrases, target, word_pattern

# Time, wherever in a question: alone it decides only about what the segmenter does not know.
_NOW = any_of(r"now, currently, today, of the moment, as of, this \w+ or, last, just, new, news, \d{4}")
TIME = f"{RECENT}|{_NOW}"
# After a noun: an adverb, a superlative or a participle, which belongs to it.
_AFTER_NOUN = r"(?: (?:\w+(?:ed|ing|est|ly)|won|made|built|seen|shown|worn|cut|drawn|left|right|best|first|which|that))*"
# Before a noun: it was in the news, or is a title.
FAMOUS = any_of(r"""champion, winning, victorious, \w+-winning, record-\w+, title-\w+, best-selling, top-selling,
    world['’]s, fastest, most (recent|popular|successful|famous|valuable|up-to-date)""")
_TITLE = "titles?|records?|championship|prizes?|awards?|office|honou?rs?|post|rank|lead|place|vote|election"
# After a noun: an event that is known from news, and says which individual is meant.
EVENT = any_of(rf"""(re)?elected, appointed, inaugurated, voted, unveiled, dethroned, nominated, awarded,
    honou?red, succeed*, replaced, w[io]ns?(?! (the )?(my|me|our|your|his|her|over|hearts?)\b), winning, beat, defeated,
    becam*, becomes, (was|were|been) made (?!of|from|by|to|out|in|for)\w+,
    (crowned|named|chosen|declared|proclaimed)(?! (with|on|for|from|after|by me)\b),
    (launched|released|introduced|announced|presented|revealed)(?! (from|into|onto|off|up|on the)\b),
    (takes?|took|taken|claim*|clinched|lifted|received|secured|earned|got|holds?|held|holding|broke|broken|
    set|bears?|carries|retain*|defend*) (\w+ ){{0,4}}({_TITLE}),
    (came|comes|come|finish*|placed|ranked) (in )?(first|second|third|last|top|ahead),
    (came|comes|come|brought|brings) out, on sale, hit the (shops|market|streets), by (the )?(?-i:[A-Z])\w+""")
# Right after a noun: a title ("of the year"), or a statement of who has it ("is now the champion").
_PLACE = r"(?!\w+est\b|(?:one|ones|only|most|least|same|first|last|left|right|other|colou?r|\w+er)\b)"
ENTITLED = any_of(rf"""of (the|this|last) (year|month|week|season|decade|century|moment), of (19|20)\d\d,
    ((which|that|who) )?(is|was|are)( \w+ly| now| still| at present)? the {_PLACE}\w+""")
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


@dataclass
class WebSense:
    """The gate in front of the search (ROSE, section 2.1)."""

    llm: Callable[[str], str] | None = None  # decides what the rules leave open; None: it is looked up
    known: Collection[str] = ()  # what the segmenter understands, in the singular; "dog|puppy" is two

    def __call__(self, question: str, day: date) -> Decision:
        """Decide about a question that is asked on a day, in five steps."""
        phrase = target(question, self.known).words  # 1. what is to be segmented?
        noun = self.known_noun(phrase)  # 2. does the segmenter know it?
        event = self.find_event(question, noun) if noun else ""  # 3. does news say which one is meant?
        time = re.search(TIME, question)  # 4. does it at least speak of time?
        cue = event or (time[0] if time else "")
        return self.decide(question, day, phrase, noun, cue, bool(event))  # 5.

    def known_noun(self, phrase: str) -> str:
        """The known noun that a phrase is about, "" if there is none; participles may follow it."""
        match = re.search(rf"({word_pattern(self.known)}){_AFTER_NOUN}$", phrase)
        return match[1] if match else ""

    def find_event(self, question: str, noun: str) -> str:
        """What makes a known noun mean another individual from time to time: "the newest bus", "Aerix's bus".

        Wherever the question names it, what is before and after it counts, but nothing further away.
        """
        for phrase in phrases(question[:1].lower() + question[1:]):
            before, is_named, after = phrase.words.partition(noun)
            after = re.split(_LIKENESS, after + phrase.rest)[0]
            cues = [re.search(rf"{RECENT}|{FAMOUS}|\b[A-Z][\w’'-]*", before), re.search(EVENT, after)]
            cues.append(re.match(rf"\W*(?:{ENTITLED})", after))
            if is_named and (cue := next(filter(None, cues), None)):
                return cue[0].strip()
        return ""

    def decide(self, question: str, day: date, phrase: str, noun: str, cue: str, is_event: bool) -> Decision:
        """The rules; then the model; or else, what is not known is looked up."""
        saw = phrase, noun, cue
        if is_event:
            return Decision(
                True, f"{cue!r} says which {noun!r} is meant, and that depends on news", "rule", *saw
            )
        if noun and not cue:
            return Decision(False, f"the segmenter knows {noun!r}, and nothing tells of time", "rule", *saw)
        if cue and not noun:
            return Decision(True, f"{cue!r} asks for what holds on {day}", "rule", *saw)
        if self.llm:
            return self.ask_model(question, day, saw)
        if noun:
            reason = f"the segmenter knows {noun!r}; {cue!r} tells of something else"
            return Decision(False, reason, "rule", *saw)
        reason = f"the segmenter does not know {phrase!r}, and there is no model to ask: better to look up"
        return Decision(True, reason, "default", *saw)

    def ask_model(self, question: str, day: date, saw: tuple[str, str, str]) -> Decision:
        """The model's decision; if it gives none, it is looked up."""
        try:
            answer = self.llm(PROMPT.format(day=day, question=question)).strip()
        except Exception as error:  # a gate that fails must not stop the search
            return Decision(True, f"the model failed ({error}): better to look up", "default", *saw)
        if match := re.match(r"\W*(yes|no)\b", answer, re.I):
            return Decision(match[1].lower() == "yes", f"the model says {answer[:200]!r}", "model", *saw)
        return Decision(True, f"the model's answer {answer[:60]!r} is neither yes nor no", "default", *saw)
