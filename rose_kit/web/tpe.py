"""Textual prompt enhancer: describes the answer in words that the segmenter knows."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date

from rose_kit.web.language import is_injection, phrases, sentences, word_pattern
from rose_kit.web.llm import Model, ask_model, fenced
from rose_kit.web.types import Page, Provider, Source, Step

MAX_SENTENCE, MAX_SENTENCES, MAX_TEXT = 800, 1000, 4000  # characters, sentences, characters for the model
QUESTION = (
    "By this text alone, what kind of visible thing is {answer!r}? Reply with at most ten words, "
    "with one of these nouns if it fits: {known}. Reply UNKNOWN if the text does not say."
)


@dataclass(frozen=True)
class Background:
    """What the prompt says of the answer, and where that comes from."""

    prompt: str  # of the segmenter
    text: str = ""  # the definition
    noun: str = ""  # the known noun in it, with its adjectives
    by: str = "rules"  # or "model", or why not
    sources: tuple[Source, ...] = ()
    reason: str = ""

    @property
    def steps(self) -> list[Step]:
        """What each step made."""
        steps = [Step("prompt", repr(self.prompt))]
        if self.reason:
            steps.insert(0, Step("background", repr(self.text), f"by {self.by}: {self.reason}"))
        return steps


@dataclass
class TPE:
    """Prompt = question + answer + background, which a second search finds (ROSE, section 2.3)."""

    provider: Provider  # where to search
    known: Collection[str]  # what the segmenter understands, "dog|puppy" is two
    llm: Model | None = None  # words the background; None: a sentence of a page
    pages: int = 5  # to read

    def __call__(self, question: str, answer: str, day: date) -> Background:
        """The prompt for an answer, in five steps; without a background, it is the question and the name."""
        if re.fullmatch(word_pattern(self.known), answer):  # 1. is the answer known by its own name?
            reason = f"the segmenter knows {answer!r} by name"
            return Background(f"{question} That is {answer}.", answer, answer, reason=reason)
        pages = self.find_pages(answer, day)  # 2.
        rated = self.rate_sentences(answer, pages)  # 3. the best first
        text, by, page = self.define(answer, rated)  # 4.
        return self.word_prompt(question, answer, text, by, page)  # 5.

    def find_pages(self, answer: str, day: date) -> list[Page]:
        """Pages about the answer, without the sentences that are within three of an order to readers."""
        pages = []
        for page in self.provider.search(answer, self.pages, day):
            lines = [sentence[:MAX_SENTENCE] for sentence in sentences(page.text)][:MAX_SENTENCES]
            near = (" ".join([page.source.title, *lines[max(0, i - 3) : i + 4]]) for i in range(len(lines)))
            kept = [line for line, text in zip(lines, near, strict=True) if not is_injection(text)]
            pages.append(replace(page, text="\n".join(kept)))
        return pages

    def rate_sentences(self, answer: str, pages: Sequence[Page]) -> list[tuple[int, str, Page]]:
        """(score, sentence, page) for each sentence about the answer, the best first.

        It names the answer, or goes on after that with "it", "he" or "she". It is good if it holds a noun
        that the segmenter knows, is of the page that has the answer as its title (and not of a song of
        that name), and says "is a", "called" or the like.
        """
        name, rated = re.escape(answer), []
        definition = (
            rf"(?i:{name}\b,?(?: \S+){{0,6}}? an? )|(?i:\b(?:called|named|known as) {name}\b)|^It is an? "
        )
        for page in pages:
            title, is_about = page.source.title.casefold(), False
            own = 4 * (title == answer.casefold()) - 4 * title.startswith(f"{answer.casefold()} (")
            for sentence in page.text.split("\n"):
                goes_on = is_about and re.match(r"(?:It|He|She|They)\b", sentence)
                is_about = bool(goes_on or re.search(rf"\b{name}\b", sentence))
                if is_about:
                    noun, defined = self.find_noun(sentence, answer), re.search(definition, sentence)
                    rated.append((own + 5 * bool(noun) + 2 * bool(defined), sentence, page))
        return sorted(rated, key=lambda candidate: -candidate[0])

    def define(self, answer: str, rated: Sequence[tuple[int, str, Page]]) -> tuple[str, str, Page | None]:
        """(background, by what, its page): the model's words if they are known, or the best sentence."""
        if not rated or rated[0][0] <= 0:
            return "", "rules", None
        _, sentence, page = rated[0]
        names = ", ".join(name.split("|")[0] for name in self.known) or "any noun"
        prompt = fenced(page.text[:MAX_TEXT], QUESTION.format(answer=answer, known=names))
        words, by = ask_model(self.llm, prompt, self.parse)
        return (f"{answer} is {words}." if words else sentence[:300]), by, page

    def parse(self, reply: str) -> str | None:
        """The words of a model's reply, if one of them is known."""
        words = " ".join(re.findall(r"[\w’'-]+", reply))[:120]
        is_known = self.find_noun(words) or not self.known
        return words if words and is_known and "UNKNOWN" not in words else None

    def find_noun(self, text: str, answer: str = "") -> str:
        """The first known noun in a text outside of the answer, with the words before it: "red boat"."""
        for phrase in phrases(text.replace(answer, " , ") if answer else text):
            if match := re.search(rf"^.*?{word_pattern(self.known)}", phrase.words):
                return match[0]
        return ""

    def word_prompt(self, question: str, answer: str, text: str, by: str, page: Page | None) -> Background:
        """The prompt: the question, the answer, what it is, and the whole background."""
        noun = self.find_noun(text, answer)
        prompt = f"{question} That is {answer}{f', a {noun}' if noun else ''}. {text}".strip()
        reason = f"it holds {noun!r}" if noun else "no page says what it is in known words"
        return Background(prompt, text, noun, by, (page.source,) if page else (), reason)
