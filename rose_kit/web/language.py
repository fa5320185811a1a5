"""Reading questions and news by rules: the phrase a question asks for, and what a text says about a name.

The rules are lists of English words, in `english.toml`. A language model can take their place: see
`rose_kit.web.llm`.
"""

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

HALF_LIFE = 10.0  # days after which a statement counts half


def any_of(phrases: str) -> str:
    """A regular expression for any of the phrases (separated by commas), in upper or lower case.

    `*` stands for any ending. A phrase may be a regular expression itself.

    >>> bool(re.search(any_of("award*, no longer"), "Awarded to Ada"))
    True
    """
    alternatives = " ".join(phrases.split()).replace("| ", "|").replace("*", r"\w*").split(", ")
    return rf"(?i:\b(?:{'|'.join(alternatives)})\b)"


ENGLISH = tomllib.loads((Path(__file__).parent / "english.toml").read_text(encoding="utf-8"))
DETERMINERS, PREPOSITIONS, CLAUSE_WORDS = (
    frozenset(ENGLISH.pop(kind).split()) for kind in ("determiners", "prepositions", "clause_words")
)
FUNCTION_WORDS = DETERMINERS | PREPOSITIONS | CLAUSE_WORDS  # they end a noun phrase
_FUNCTION = "|".join(word for word in FUNCTION_WORDS if word.isalpha())
WORDS = {name: any_of(phrases) for name, phrases in ENGLISH.items()}

# --- questions --------------------------------------------------------------------------------------------

# A verb is a command in "please mask the dog", but not in "the mask" or "the flower show".
SEGMENT_VERB = (
    r"(?i:^\W*|(?<=[.,;:!?] )|\b(?:to|please|and|now|you|then|just|so|let's|let me) )(?i:\w+ly )?"
    + WORDS["command"]
)
_SHOWS = r"(?: (?:show|cover|contain|hold|form|mark|belong|depict)\w*)?"  # as in "which pixels show a dog"
GENERIC = rf"(?:{WORDS['no_object']}|^(?:thing|object|item|product|model)s?){_SHOWS}$"
# A question for a person: "who won", but not "who is the champion", where the noun says more.
WHO = r"(?i)(?:^|[.?!:,]) *(?:out )?(who(?:ever)?\b(?!(?:'s| is| are| was) the\b)[^.?!]*)"
AFTER_NOUN = rf"(?: {WORDS['after_noun']})*"
_TOKEN = r"[\w’'-]+|[^\w\s]"


@dataclass(frozen=True)
class Phrase:
    """A noun phrase of a text."""

    words: str  # without a determiner
    preposition: str  # before it; "" if there is none
    rest: str  # of its sentence, after it
    determined: bool  # whether a determiner is before it
    opens: bool = False  # whether no word is before it


def phrases(text: str) -> list[Phrase]:
    """The noun phrases of a text: words between function words.

    >>> [(p.preposition, p.words, p.rest) for p in phrases("the red boat on my quay.")]
    [('', 'red boat', ' on my quay'), ('on', 'quay', '')]
    """
    found, before = [], []
    words = re.finditer(_TOKEN, text.replace("’", "'"))
    for is_function, group in groupby(words, lambda word: word.group().lower() in FUNCTION_WORDS):
        run = list(group)
        if is_function:
            before = [word.group().lower() for word in run]
            continue
        link = next((word for word in reversed(before) if word not in DETERMINERS), "")
        preposition = link if link in PREPOSITIONS else ""
        if len(run) > 1 and {"do", "does", "did"} & set(before):
            run.pop()  # the verb of "where does the water end?"
        phrase = text[run[0].start() : run[-1].end()]
        rest = re.split("[.;:?!]", text[run[-1].end() :])[0]
        is_determined = bool(before) and before[-1] in DETERMINERS
        found.append(Phrase(phrase, preposition, rest, is_determined, not found and not before))
    return found


def target(question: str, known: Collection[str] = ()) -> Phrase:
    """The noun phrase that is to be segmented.

    It is the first noun phrase after the last command to segment, if there is a command. One that follows a
    preposition is taken only if there is no other, or if that is "mask", "pixels" or the like. In "who won
    the cup?" it is all of that. What "it" stands for is rather one of the known words, if any are given.

    >>> target("Near the quay, segment the red boat that won the race.").words
    'red boat'
    >>> target("The tide moves the boat. Outline it.", ["boat"]).words
    'boat'
    """
    commands = [match.end() for match in re.finditer(SEGMENT_VERB, question)]
    for text in (question[commands[-1] :] if commands else "", question):
        if asked := re.search(WHO, text):
            return Phrase(asked[1], "", "", True)
        ranked, after_generic = [], False
        for phrase in phrases(text):
            is_object = not phrase.preposition or after_generic
            is_noun = phrase.determined or phrase.opens  # and no stray verb
            after_generic = bool(re.search(GENERIC, phrase.words))
            is_known = text is question and re.search(word_pattern(known), phrase.words)
            if not after_generic and not re.fullmatch(WORDS["command"], phrase.words):
                ranked.append(((not is_noun, not is_object, not is_known, not phrase.determined), phrase))
        best = min(ranked, key=lambda candidate: candidate[0], default=None)
        if best and (text is question or not best[0][0]):
            return best[1]
    return Phrase(search_terms(question), "", "", False)


def search_terms(question: str) -> str:
    """The words of a question to search for; the whole question if none is left.

    >>> search_terms("Please segment the current winner of the Olympic Games in this picture.")
    'winner olympic games'
    """
    common, proper = question_topics(question)
    return " ".join([*common, *proper]) or question


# --- news -------------------------------------------------------------------------------------------------

# Words with a capital, and numbers: "Boeing 737".
NAME = (
    rf"(?<![\w’'-])(?!(?i:{_FUNCTION}|its|our|my|last|if|how|why|then|there|sir|he|she|they)\b)"
    r"(?!(January|February|March|April|May|June|July|August|September|October|November|December)\b)"
    r"[A-Z][\w’'-]*(?: (?:[A-Z][\w’'-]*|\d+\b))*"
)
BEFORE_PLACE, DATELINE = r"(?i:\b(?:in|at|from|near|of|beside|during) (?:the )?)$", r"^, \d{1,2} [A-Z]"
BEFORE_HOLDER = rf"({WORDS['link']}|[:,–—]) (?i:(the|its) )?$"
PREVAILS = rf"^,?(?: \w+ly| has| had| have)* {WORDS['prevails']}(?: \w+){{0,3}} $"
BEFORE_LOSER = f"{WORDS['away']}(?i:,? (the|its))*,? $"
# A year that is named without a day: the sentence is about the past if that is over.
YEAR = r"(?i:\b(?:in|of|from|since|during|season|edition|winter|summer|spring|autumn)) ((?:19|20)\d\d)\b"
INJECTION = rf"{WORDS['orders']}|<\||\[/?[A-Z]+\]|[\u200b-\u200f\u202a-\u202e\U000e0000-\U000e007f]"


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text."""
    return [part for part in re.split(r"(?<=[.!?;])\s+|\n+", text) if part.strip()]


def is_injection(text: str) -> bool:
    """Whether a text gives orders to whatever reads it, as news does not."""
    return bool(re.search(INJECTION, text))


def word_pattern(words: Collection[str]) -> str:
    """A regular expression for any of the words, in upper or lower case, in the singular or plural.

    >>> bool(re.search(word_pattern(["bus|coach", "dog"]), "Two Buses"))
    True
    """
    texts = [text for word in words for text in word.split("|")]
    any_word = "|".join(map(re.escape, texts)) or "(?!)"  # of no words, it matches nothing
    return rf"(?i:\b(?:{any_word})(?:e?s)?\b)"


def known_noun(phrase: str, known: Collection[str]) -> str:
    """The known noun that a phrase is about, "" if there is none; participles and the like may follow it.

    >>> known_noun("red boat painted", ["boat"]), known_noun("boat race", ["boat"])
    ('boat', '')
    """
    match = re.search(rf"({word_pattern(known)}){AFTER_NOUN}$", phrase)
    return match[1] if match else ""


def noun_phrases(prompt: str) -> list[str]:
    """What a prompt names, without the command, articles and whatever follows each noun.

    >>> noun_phrases("Segment the red boat on the water, please. It is a drone.")
    ['red boat', 'drone']
    """
    found = [p.words for p in phrases(re.sub(SEGMENT_VERB, " ", prompt)) if not p.preposition]
    return list(dict.fromkeys(found)) or [prompt]


def capitalised_names(text: str) -> list[tuple[str, str]]:
    """(what may be a name, the text before it) wherever words begin with a capital.

    >>> capitalised_names("The cup went to Ajax’s team in May.")
    [('Ajax', 'The cup went to ')]
    """
    matches = re.finditer(NAME, text)
    return [(re.sub(r"['’]s?$", "", match.group()), text[: match.start()]) for match in matches]


def names(texts: Sequence[str]) -> set[str]:
    """Names in texts, but no places or events, and no words with a capital only at the start of a sentence.

    An event is what more than half of the texts mention, mostly with an article: "the Olympic Games".
    """
    total, inside, places, articles, spread = (Counter() for _ in range(5))
    for text in texts:
        mentions = [mention for sentence in sentences(text) for mention in capitalised_names(sentence)]
        spread.update({name for name, _ in mentions})
        for name, before in mentions:
            total[name] += 1
            inside[name] += bool(before.strip())
            after = re.search(DATELINE, text.partition(f"{before}{name}")[2])
            places[name] += bool(re.search(BEFORE_PLACE, before) or after)
            articles[name] += bool(re.search(r"(?i)\bthe $", before))
    lower = set(re.findall(r"\b[a-z][\w’'-]*", " ".join(texts)))
    events = {n for n in total if spread[n] > 0.5 * len(texts) > 2 and articles[n] > 0.5 * total[n]}
    no_places = {name for name in total if places[name] < 0.5 * total[name]}
    return {name for name in no_places - events if inside[name] or name.lower() not in lower}


def question_topics(question: str) -> tuple[list[str], list[str]]:
    """What a question is about, in lower case: the common words of it, and the names in it.

    >>> question_topics("Please mask the current winner of the Olympic Games in this picture.")
    (['winner'], ['olympic games'])
    """
    plain = re.sub(SEGMENT_VERB, " ", question[:1].lower() + question[1:])
    proper = [name.lower() for name, _ in capitalised_names(plain)]
    words = [p.words for p in phrases(plain) if not re.search(f"{WORDS['no_object']}{_SHOWS}$", p.words)]
    text = re.sub(rf"{WORDS['recent']}|{WORDS['no_topic']}|\d+|['’]s\b", " ", " ".join(words).lower())
    common = [word for word in text.split() if not any(word in name for name in proper)]
    return list(dict.fromkeys(common)), list(dict.fromkeys(proper))


def assess(
    texts: Sequence[str], question: str, years: Sequence[int] = (), known: Collection[str] = ()
) -> list[list[tuple[str, float]]]:
    """What each text, a headline and more, says about the names that may answer a question.

    Args:
        texts: to read.
        question: that they may answer. A name in it is no answer to it.
        years: in which each was written, if that is known.
        known: words that are names too, wherever a text has them with "the" and says of nobody by name
            that it has the title.

    Returns:
        For each text, (name, vote in [-1, 1]) for every mention. What is no fact has no vote, and texts off
        the topic 0.02 of one.
    """
    common, proper = question_topics(question)
    nouns = re.findall(rf"\b[Tt]he ({word_pattern(known)})", "\n".join(texts))
    kinds = {noun.lower() for noun in nouns} - set(" ".join([*common, *proper]).split())
    answers = [
        name for name in names(texts) if not any(name.lower() in topic for topic in (*common, *proper))
    ]
    votes = []
    for text, year in zip(texts, years or [9999] * len(texts), strict=True):
        lower = text.lower()
        share = sum(word in lower for word in common) / max(1, len(common))
        weight = 1 if any(name in lower for name in proper) or share >= 0.6 else 0.02
        headline = next(iter(sentences(text)), "")
        if _is_no_fact(headline, year):
            weight = 0
        statements = list(_statements(text, [*answers, *kinds], common, year))
        if any(vote > 0 for name, vote in statements if name not in kinds):  # "the dog" is who is named
            statements = [(name, vote) for name, vote in statements if name not in kinds]
        votes.append([(name, weight * vote) for name, vote in statements])
    return votes


def _is_no_fact(sentence: str, year: int) -> bool:
    is_past = any(int(match) < year for match in re.findall(YEAR, sentence))
    sentence = re.sub(r"\b[A-Z]\w+(?: [A-Z]\w+)+", " ", sentence)  # "the Straw Poll Cup" is no poll
    return is_past or sentence.rstrip().endswith("?") or bool(re.search(WORDS["unreliable"], sentence))


def _statements(
    text: str, answers: Sequence[str], common: Sequence[str], year: int
) -> Iterator[tuple[str, float]]:
    """(name, +1: it holds the title; -1: it does not, or no longer; 0: neither) for every mention.

    A mention is judged by the words of its sentence between the names before and after it. Who is named alone
    in a sentence with the words of the title (`common`) gets half a vote.
    """
    any_name = "|".join(re.escape(name) for name in sorted(answers, key=len, reverse=True))
    title = rf"(?i:\b(?:{'|'.join(map(re.escape, common)) or '(?!)'})\b)"
    has_title = f"{WORDS['has_title']}|{title}"
    for sentence in sentences(text) if answers else ():
        parts = re.split(rf"\b({any_name})(?!\w)", sentence)  # text, name, text, name ... text
        named_title = len(set(re.findall(title, sentence))) >= 0.6 * len(common) > 0
        is_alone = named_title and len(set(parts[1::2])) == 1
        for left, name, right in zip(parts[0::2], parts[1::2], parts[2::2], strict=False):
            if _is_no_fact(sentence, year):
                yield name, 0
            elif re.search(BEFORE_LOSER, left):
                yield name, -1
            elif re.search(PREVAILS, right):
                yield name, 1
            elif re.search(WORDS["lost_title"], right):
                yield name, -1
            else:
                before = re.search(has_title, left) and re.search(BEFORE_HOLDER, left)
                after = re.search(has_title, right)
                yield name, 1 if before or after else 0.5 * is_alone


def aggregate_votes(
    votes: Mapping[tuple[str, Any], Sequence[float]], day: date
) -> list[tuple[str, float, tuple]]:
    """Reduce votes to candidates: each page has one vote on a name, and an old page counts less.

    Args:
        votes: (name, `Source` of the page) -> votes in [-1, 1] of the page's passages.
        day: from which ages count if no dated page is sure of anything.

    Returns:
        (name, confidence in [0, 1], sources that speak for it), the most confident first.
    """
    dates = [source.date for (_, source), weights in votes.items() if source.date and max(weights) > 0.5]
    newest = max(dates, default=day)
    total, sources = Counter(), defaultdict(list)
    for (name, source), weights in votes.items():
        age = max(0, (newest - source.date).days) if source.date else 2 * HALF_LIFE
        total[name] += max(-1, min(1, sum(weights))) * 0.5 ** (age / HALF_LIFE)
        sources[name] += [source] * (sum(weights) > 0)
    certain = sum(vote for vote in total.values() if vote > 0) + 0.3  # 0.3: what nobody wrote about
    return [(name, vote / certain, tuple(sources[name])) for name, vote in total.most_common() if vote > 0]
