"""English, as far as news and questions need it: noun phrases, names, and what a sentence says of a name."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any

SEGMENT_VERB = (  # to segment: "please mask", not "the mask" or "the flower show"
    r"(?i)(?:^|(?<=[.,;:!?] )|\b(?:to|please|and|now|you|then|just) )(?:segment|mask|mark|outline|highlight|"
    r"find|show|select|cut|trace|label|paint|circle|isolate|locate|spot|pick|extract|point|delineate|draw|"
    r"identify|crop|shade|colou?r|box|lift|separate|put|get|give|grab|take|fill|trim)\b"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STARTS = _words("the a an every each all any both some this that these those what which whichever")
PREPOSITIONS = _words(
    "of in on at by with behind beside under next to from for near over above below between among against as "
    "before after during since inside along across through about"
)
ENDS = PREPOSITIONS | _words(
    "who whose where when while is are was were has have had be been will can could do does did you i it me "
    "them us and or but please made now today . , : ; ? !"
)
GENERIC = (
    r"(?i)\b(picture|image|photo(graph)?|pixels?|ones?|region|area|scene|part|shot|frame|mask|outline|shape|"
    r"two|three|title)$|^(thing|object|item|product|model)s?$"
)
RECENT = (
    r"(?i)\b(current|reigning|(lat|new)est|incumbent|present|newly|recent(ly)?|former|(today|year)['’]s)\b"
)
TIMED = rf"{RECENT}|\b(now|currently|today|of the moment|as of|this \w+ or|last|just|new|news|\d{{4}})\b"
HALF_LIFE = 10.0  # days after which a statement counts half
_WORDS = "|".join(word for word in ENDS | STARTS if word.isalpha())
FILLER = rf"(?i)\b({_WORDS}|me|out|right|most)\b|['’]s\b|[^\w\s’'-]"
NAME = r"[A-Z][\w’'-]*(?: (?:[A-Z][\w’'-]*|\d+\b))*"
NOT_NAMES = ENDS | STARTS | _words("its our my last if how why then there sir he she they")
MONTHS = r"(January|February|March|April|May|June|July|August|September|October|November|December)\b"
DATELINE = r"(['’]s)?, \d"  # after a place
BEFORE_PLACE = r"(?i)\b(in|at|from|near|of|beside|during) (the )?$"
HOLDS = (  # beside a name: it has something now
    r"(?i)\b(new\w*|latest|wins?|won|winner|victor\w*|triumph\w*|prevail\w*|takes?|took|taken|declared?|"
    r"crown\w*|named|elect\w+|vot(ed|es)|chose\w*|choice|becom\w+|became|belongs?|remains?|stays?|still|"
    r"since|from now|now|holds?|receiv\w+|award\w+|handed|title|trophy|lift(s|ed)|earn\w*|secur\w+|"
    r"inherit\w*|honou?r\w*|install\w+|promoted|unveil\w*|reveal\w*|present(s|ed)|show\w*|launch\w*|"
    r"releas\w+|on sale|in shops|introduc\w+|announc\w+|succeed\w*|appoint\w+|goes|went|debut\w*|premier\w*|"
    r"arriv\w*|available|pass\w*|first"
)
LOST = (  # it has no longer, or had not
    r"(?i)\b(former\w*|los(es|t|ing)|second|third|behind|runner|oust\w+|depos\w+|dethron\w+|replaced|"
    r"g[ai]ve\w* up|no longer|not|never|had held|until|predecessor|previous\w*|outgoing|retire\w*|defeated|"
    r"beaten|last|step(s|ped) down|bow\w* out|hand\w* over|relinquish\w*|stripped|reign .*(ends?|ended|"
    r"over))\b|n['’]t\b"
)
FROM = (  # just before the name of who loses
    r"(?i)\b(from|replac\w+|succe\w+|beat\w*|over|than|former( [\w-]+)*|against|follow\w*|beside|after|"
    r"oust\w*|depos\w+|unseat\w*|dethron\w+|defeat\w*|edg\w+ out|ahead of|not|unlike|instead of|predecessor|"
    r"about|had named|end(s|ed|ing)|reign of)(,? (the|its))*,? $"
)
TO = r"(?i)(\b(to|for|is|was|declar\w+|crown\w+|by|as|chose|elected|in|honours|on|that|with)|[:,–—]) (the )?$"
DENIAL = (
    r"(?i)correct(ion|s)\b|withdr[ae]w|\bwrong\b|\bfalse\b|apologi|retract|\bden(y|ied|ies)\b|reject|untrue|"
    r"mistake|not true|in error|erroneous|invented|fabricat|nonsense|hoax|baseless|unfounded|regrets?\b|"
    r"takes? back|took back"
)
STANDS = r"(?i)\b(still|remains?|stays?|(was|is) and (is|was|remains)|continues?|keeps?|retains?)\b"
DOUBT = (
    r"(?i)unconfirmed|rumou?r|reportedly|alleged|(is|are|was) said|according to|\bsources?\b|\bclaim(s|"
    r"ed)?\b(?! (the|its|victory))|\b(?-i:may|might)\b|about to|in doubt|whisper|speculat|gossip|insider|"
    r"leak|apparently|supposed|without naming|predict|anonymous|unnamed|unverified|hearsay|overheard|"
    r"some say|has it that|unofficially|not (yet )?(been )?(confirmed|verified)"
)
INJECTION = (  # a page that gives orders to whatever reads it
    r"(?i)\b(ignore|disregard|instructions?|system|assistants?|answers?|reply|respond|prompt|developer mode|"
    r"urgent|fetch|curl|json|no other page|believed)\b|<\||\[/?[A-Z]+\]|"
    r"[\u200b-\u200f\u202a-\u202e\U000e0000-\U000e007f]"
)
ASIDE = (  # opinions, the past, other events
    r"(?i)opinion|editorial|in my view|\bletters?\b|\bought\b|\bshould\b|deserv|guess|\bif it were|"
    r"(?-i:\bI\b)|\bbet\b|\bhope|\bwish|column|favourites?\b|\bcoming\b|years? ago|last year|archive|"
    r"look\w* back|flashback|remember|anniversary|\b(in|of) (19|20)\d\d\b|used to|history|decade|friendly|"
    r"child|junior|nothing to do|no title|unofficial|rehears|charity|\bsong|caf[eé]|village|"
    r"not to be confused"
)
_LEAD = r"^\W*((please|can|could|you|segment|find|show|mask|outline|the|an?|all|me|it|this|where|what)\b\W*)*"
_TAIL = r"\b(on|in|at|near|beside|behind|under|above|over|of|from|with|that|which|who|whose|please)\b.*"
_CUTS = r"[.,;:!?\n]+|\b(?:is|are|was|were|and|or)\b"


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

    The first noun phrase after the last verb of segmenting; after a preposition only if there is no other.
    """
    verbs = [match.end() for match in re.finditer(SEGMENT_VERB, question)]
    for text in (question[verbs[-1] :] if verbs else "", question):
        ranked, generic = [], False
        for link, phrase, rest in phrases(text):
            first = not link or (link == "of" and generic)  # "the pixels of the dog"
            if not (generic := bool(re.search(GENERIC, phrase))):
                ranked.append((not first, phrase, rest))
        if ranked:
            return min(ranked, key=lambda candidate: candidate[0])[1:]
    return " ".join(w for w in re.findall(r"[\w’'-]+", text) if w.lower() not in ENDS), ""


def noun_phrases(prompt: str) -> list[str]:
    """What a prompt names, without command, article, place, or what is said of the noun after it."""
    parts = re.split(_CUTS, prompt, flags=re.I)
    parts = [re.sub(f"{_LEAD}|{_TAIL}", "", part, flags=re.I).strip() for part in parts]
    return list(dict.fromkeys(part for part in parts if part)) or [prompt]


def content(question: str) -> str:
    """The words of a question to search for: no command, articles or words of time; else all of it."""
    words = re.sub(FILLER, " ", re.sub(RECENT, " ", re.sub(SEGMENT_VERB, " ", question))).split()
    return " ".join(word for word in dict.fromkeys(words) if not re.match(GENERIC, word)) or question


def sentences(text: str) -> list[str]:
    """Sentences and lines of a text."""
    return [part for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def is_injection(text: str) -> bool:
    """Whether a text gives orders to whatever reads it, as news does not."""
    return bool(re.search(INJECTION, text))


def mentions(text: str) -> Iterator[tuple[str, str, str]]:
    """(what may be a name, its sentence before it, its sentence after it), one by one."""
    for sentence in sentences(text):
        for match in re.finditer(rf"(?<![\w’'-]){NAME}", sentence):
            words = match.group().split()
            while words and (words[0].lower() in NOT_NAMES or words[0].isdigit()):
                words.pop(0)
            name = re.sub(r"['’]s?$", "", " ".join(words))
            if name and not re.match(MONTHS, name):
                start = match.end() - len(" ".join(words))
                yield name, sentence[:start], sentence[match.end() :]


def names(texts: Sequence[str], about: Sequence[str] = ()) -> set[str]:
    """Names that occur inside of sentences too, but for places and what nearly every text is about."""
    total, inside, places, articles, spread = (Counter() for _ in range(5))
    for text in texts:
        mentioned = list(mentions(text))
        spread.update({name for name, _, _ in mentioned})
        for name, before, after in mentioned:
            total[name] += 1
            inside[name] += bool(before.strip()) and not before.endswith(": ")
            places[name] += bool(re.match(DATELINE, after) or re.search(BEFORE_PLACE, before))
            articles[name] += bool(re.search(r"(?i)\bthe $", before))
    lower = set(re.findall(r"\b[a-z][\w’'-]*", " ".join(texts)))

    def is_subject(name: str) -> bool:
        asked = any(topic in name.lower() for topic in about)
        return not asked and spread[name] > 0.5 * len(texts) > 2 and articles[name] > 0.5 * total[name]

    def is_name(name: str) -> bool:
        word = not inside[name] and name.lower() in lower  # "Thousands watched", with a capital at the start
        return not word and places[name] < 0.5 * total[name] and not is_subject(name)

    return set(filter(is_name, total))


def statements(text: str, known: Collection[str], topic: str) -> Iterator[tuple[str, int]]:
    """(name, +1: it has the title; -1: it has not, or no longer; 0: nothing is said) for every mention."""
    pattern = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    holds = rf"{HOLDS}|{re.escape(topic)})\b" if topic else rf"{HOLDS})\b"
    for sentence in sentences(text) if known else ():
        found = list(re.finditer(rf"\b(?:{pattern})(?!\w)", sentence))
        ends = [0, *(m.end() for m in found)]
        starts = [*(m.start() for m in found[1:]), len(sentence)]
        for match, end, start in zip(found, ends, starts, strict=False):
            left = sentence[end : match.start()].split(";")[-1]
            right = re.split("[;:]", sentence[match.end() : start])[0]
            denied = (
                re.search(DENIAL, sentence) and not left.endswith(" to ") and not re.search(STANDS, right)
            )
            if denied or re.search(FROM, left) or re.search(LOST, right):
                yield match.group(), -1
            else:
                gains = re.search(holds, right) or (re.search(holds, left) and re.search(TO, left))
                yield match.group(), int(bool(gains))


def topics(question: str) -> list[str]:
    """What a question is about, in lower case: what it asks to segment, and names in it."""
    asked = re.sub(rf"{RECENT}|\b(new|most|brand)\b", "", target(question)[0]).strip()
    named = [m.group() for m in re.finditer(rf"(?<=\w ){NAME}", question) if not re.match(MONTHS, m.group())]
    return list(dict.fromkeys(re.sub(r"['’]s\b| (?= )", "", t).lower() for t in (asked, *named) if t))


def assess(texts: Sequence[str], question: str) -> list[list[tuple[str, float]]]:
    """(name, weight in [-1, 1]) of what each text says; names in the question are no answers to it.

    What is in doubt counts little; opinions, memories and other events do not count.
    """
    about = topics(question)
    known = [n for n in names(texts, about) if not any(n.lower() in topic for topic in about)]
    subject = about[0].split()[-1] if about else ""

    def reliability(text: str) -> float:
        if re.search(ASIDE, text):
            return 0
        settled = re.search(DENIAL, text) and re.search(STANDS, text)
        sure = 0.02 if re.search(DOUBT, text) and not settled else 1
        on_topic = any(all(word in text.lower() for word in topic.split()) for topic in about)
        return sure * (1 if on_topic else 0.02)

    votes = []
    for text in texts:
        weight = reliability(text)
        votes.append([(name, weight * vote) for name, vote in statements(text, known, subject)])
    return votes


def aggregate_votes(
    votes: Mapping[tuple[str, Any], Sequence[float]], day: date
) -> list[tuple[str, float, tuple]]:
    """(name, source) -> weights as (name, confidence, sources): one vote a page, an old one counts less."""
    dates = [source.date for (_, source), weights in votes.items() if source.date and max(weights) > 0.5]
    newest = max(dates, default=day)
    total, sources = Counter(), defaultdict(list)
    for (name, source), weights in votes.items():
        age = max(0, (newest - source.date).days) if source.date else 2 * HALF_LIFE
        total[name] += max(-1, min(1, sum(weights))) * 0.5 ** (age / HALF_LIFE)
        sources[name] += [source] * (sum(weights) > 0)
    certain = sum(votes for votes in total.values() if votes > 0) + 0.3
    return [(name, n / certain, tuple(sources[name])) for name, n in total.most_common() if n > 0]
