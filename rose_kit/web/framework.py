"""The ROSE framework around any promptable segmenter: gate, look-up, better prompt, checked mask."""

import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from rose_kit.encoder import Encoder
from rose_kit.web.irag import IRAG, RetrievalResult
from rose_kit.web.tpe import TPE
from rose_kit.web.types import Candidate, Mask, Promptable, Provider, Source
from rose_kit.web.vpe import Thresholds, Verification, VisualPromptEnhancer
from rose_kit.web.websense import Decision, WebSense


@dataclass(frozen=True)
class FrameworkResult:
    """A mask, and how it came about: what was decided, read, asked of the segmenter, and verified."""

    mask: Mask
    decision: Decision
    prompt: str
    retrieval: RetrievalResult | None = None
    background: tuple[Source, ...] = ()
    verification: Verification | None = None
    failure: str = ""  # of the web, where the mask is the plain segmenter's

    @property
    def answer(self) -> Candidate | None:
        """What the question was taken to mean."""
        return self.retrieval and self.retrieval.answer

    @property
    def sources(self) -> tuple[Source, ...]:
        """Pages of the answer and of its background, then the images that were compared; each once."""
        pages = (self.answer.sources if self.answer else ()) + self.background
        images = self.verification.used if self.verification else ()
        return tuple(dict.fromkeys((*pages, *(image.source for image in images))))

    def lines(self) -> Iterator[str]:
        """How it came about, a line of text each, as `rose-kit ask` prints it."""
        gate = self.decision
        yield f"gate      {'look up' if gate.retrieve else 'no look-up'} (by {gate.by}): {gate.reason}"
        if found := self.retrieval:
            yield f"searched  {found.query!r}: {len(found.passages)} passages"
            for one in found.candidates[:4]:
                alike = f", in the image {found.visible[one.text]:.2f}" if one.text in found.visible else ""
                yield f"candidate {one.text}: confidence {one.confidence:.2f}{alike}"
            how = "text and image agree" if found.agreed else "nothing like it in the image; the text alone"
            yield f"answer    {found.answer.text} ({how})" if found.answer else "answer    none found"
        for source in self.sources[:12]:
            yield f"source    {source.date or 'no date'}, {source.licence}: {source.title} <{source.url}>"
        yield f"prompt    {self.prompt!r}"
        if check := self.verification:
            images = f"{len(check.used)} images used, {len(check.rejected)} rejected"
            yield f"verified  {check.action}: {check.reason}; {images}"
        share = self.mask.mask.mean()
        yield f"mask      {share:.1%} of the image, confidence {self.mask.confidence:.2f}"


@dataclass
class RoseFramework:
    """Wraps a segmenter (ROSE, section 2); a module that is None is off, and `of` makes all of them."""

    segmenter: Promptable
    websense: Callable[[str, date], Decision] | None = None  # None: everything is looked up
    irag: Callable[[NDArray[np.uint8], str, date], RetrievalResult] | None = None
    tpe: Callable[[str, str, date], tuple[str, tuple[Source, ...]]] | None = None  # None: "Please segment X"
    vpe: Callable[..., Verification] | None = None

    @classmethod
    def of(
        cls,
        segmenter: Promptable,
        provider: Provider,
        encoder: Encoder,
        llm: Callable[[str], str] | None = None,
        *,
        known: Collection[str] | None = None,
        thresholds: Thresholds | None = None,
    ) -> "RoseFramework":
        """All modules.

        Args:
            segmenter: what is wrapped.
            provider: where to search.
            encoder: compares images and ranks passages.
            llm: see `rose_kit.web.llm`; None: rules.
            known: words the segmenter understands; None: those the encoder was trained to name.
            thresholds: of the visual prompt enhancer; None: those that come with the encoder.
        """
        known = words_of(encoder) if known is None else known
        vpe = VisualPromptEnhancer(encoder, thresholds)
        irag = IRAG(provider, vpe.best_similarity, encoder, llm, visible_from=vpe.thresholds.correct)
        return cls(segmenter, WebSense(llm, known), irag, TPE(provider, known), vpe)

    def ask(self, image: NDArray[np.uint8], question: str, day: date) -> FrameworkResult:
        """Segment what a question about an (H, W, 3) uint8 image means on a day.

        Without a web, or without its model, it segments what the question says, with a warning.
        """
        decision = Decision(True, "the gate is switched off", "default")
        if self.websense:
            decision = self.websense(question, day)
        if not (decision.retrieve and self.irag):
            return FrameworkResult(self.segmenter.segment(image, question), decision, question)
        try:
            retrieval = self.irag(image, question, day)
            prompt, background = self._prompt(question, retrieval.answer, day)
        except OSError as error:
            failure = f"{error}; the mask is the plain segmenter's, which knows only what it was trained on"
            warnings.warn(failure, stacklevel=2)
            mask = self.segmenter.segment(image, question)
            return FrameworkResult(mask, decision, question, failure=failure)
        mask, verification = self.segmenter.segment(image, prompt), None
        if self.vpe and retrieval.references:
            verification = self.vpe(image, mask, retrieval.references)
            mask = verification.mask
        return FrameworkResult(mask, decision, prompt, retrieval, background, verification)

    def _prompt(self, question: str, answer: Candidate | None, day: date) -> tuple[str, tuple[Source, ...]]:
        """What the segmenter is asked, and where its background is from."""
        if answer is None:
            return question, ()
        if self.tpe is None:
            return f"Please segment {answer.text}", ()
        return self.tpe(question, answer.text, day)


def words_of(encoder: Encoder) -> tuple[str, ...]:
    """All words an encoder was trained to name, synonyms one by one; none where it does not tell."""
    return tuple(word for names in getattr(encoder, "words", ()) for word in names.split("|"))
