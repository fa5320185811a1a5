"""The ROSE framework around any promptable segmenter: gate, look-up, better prompt, checked mask."""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from rose_kit.encoder import Encoder
from rose_kit.web.irag import IRAG, Findings
from rose_kit.web.tpe import TPE
from rose_kit.web.types import Candidate, Mask, Promptable, Provider, Source
from rose_kit.web.vpe import Thresholds, Verified, VisualPromptEnhancer
from rose_kit.web.websense import Decision, WebSense


@dataclass(frozen=True)
class Trail:
    """A mask, and how it came about: what was decided, read, asked of the segmenter, and verified."""

    mask: Mask
    decision: Decision
    prompt: str
    findings: Findings | None = None
    background: tuple[Source, ...] = ()
    verified: Verified | None = None
    failure: str = ""  # of the web, where the plain segmenter had to do

    @property
    def answer(self) -> Candidate | None:
        """What the question was taken to mean."""
        return self.findings and self.findings.answer

    @property
    def sources(self) -> tuple[Source, ...]:
        """Pages of the answer and of its background, then the pictures that were compared."""
        pages = (*(self.answer.sources if self.answer else ()), *self.background)
        pictures = self.verified.used if self.verified else ()
        return tuple(dict.fromkeys((*pages, *(picture.source for picture in pictures))))


@dataclass
class RoseFramework:
    """Wraps a segmenter (ROSE, section 2); a module that is None is off, `of` makes all of them."""

    segmenter: Promptable
    websense: Callable[[str, date], Decision] | None = None  # None: everything is looked up
    irag: Callable[[NDArray[np.uint8], str, date], Findings] | None = None
    tpe: Callable[[str, str, date], tuple[str, tuple[Source, ...]]] | None = None  # "Please segment X"
    vpe: Callable[..., Verified] | None = None

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
            encoder: compares pictures and ranks passages.
            llm: see `rose_kit.web.llm`; None: rules.
            known: words the segmenter understands; None: those the encoder was trained to name.
            thresholds: of the visual prompt enhancer; None: those that come with the encoder.
        """
        known = words_of(encoder) if known is None else known
        vpe = VisualPromptEnhancer(encoder, thresholds)
        irag = IRAG(provider, matcher(vpe), encoder, llm, visible_from=vpe.thresholds.correct)
        return cls(segmenter, WebSense(llm, known), irag, TPE(provider, known), vpe)

    def ask(self, image: NDArray[np.uint8], question: str, day: date) -> Trail:
        """Segment what a question means on a day; without a web what it says, with a warning."""
        gate = self.websense or (lambda *asked: Decision(True, "the gate is switched off", "default"))
        decision = gate(question, day)
        if not (decision.retrieve and self.irag):
            return Trail(self.segmenter.segment(image, question), decision, question)
        findings, prompt, background, failure = None, question, (), ""
        try:
            findings = self.irag(image, question, day)
            if findings.answer:
                prompt = f"Please segment {findings.answer.text}"
                if self.tpe:
                    prompt, background = self.tpe(question, findings.answer.text, day)
        except OSError as error:  # of the web or of the model: what is there still works
            failure = f"{error}; the mask is the plain segmenter's, which knows only what it was trained on"
            warnings.warn(failure, stacklevel=2)
            findings, prompt = None, question
        mask, pictures = self.segmenter.segment(image, prompt), findings.pictures if findings else ()
        verified = self.vpe(image, mask, pictures) if self.vpe and pictures else None
        mask = verified.mask if verified else mask
        return Trail(mask, decision, prompt, findings, background, verified, failure)


def words_of(encoder: Encoder) -> tuple[str, ...]:
    """All words an encoder was trained to name, synonyms one by one; none where it does not tell."""
    return tuple(word for names in getattr(encoder, "words", ()) for word in names.split("|"))


def matcher(vpe: VisualPromptEnhancer) -> Callable[..., float]:
    """(image, pictures) -> similarity of the likest thing in it: 1 as the references, 0 as background."""
    nothing = lambda image: Mask(np.zeros(image.shape[:2], bool), 0.0)  # noqa: E731
    return lambda image, pictures: float(np.nan_to_num(vpe(image, nothing(image), pictures).proposed))
