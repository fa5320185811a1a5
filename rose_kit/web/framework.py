"""The ROSE framework around any promptable segmenter: gate, look-up, better prompt, verified mask."""

import warnings
from collections.abc import Callable, Collection, Iterator
from copy import copy
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.encoder import Encoder
from rose_kit.types import unknown_name
from rose_kit.web.irag import IRAG, RetrievalResult
from rose_kit.web.llm import Model
from rose_kit.web.tpe import TPE, Background
from rose_kit.web.types import Candidate, Mask, Promptable, Provider, Source, Step
from rose_kit.web.vpe import Thresholds, Verification, VisualPromptEnhancer
from rose_kit.web.websense import Decision, WebSense

Search = Callable[[NDArray[np.uint8], str, date], RetrievalResult]  # image, question, day
Prompter = Callable[[str, str, date], Background]  # question, answer, day


@dataclass(frozen=True)
class FrameworkResult:
    """A mask, and what every step contributed to it."""

    mask: Mask
    decision: Decision
    background: Background  # the prompt of the segmenter, and what it says of the answer
    retrieval: RetrievalResult | None = None
    verification: Verification | None = None
    failure: str = ""  # why the web could not be used, so that the mask is the plain segmenter's

    @property
    def answer(self) -> Candidate | None:
        """What the question was taken to mean."""
        return self.retrieval and self.retrieval.answer

    @property
    def sources(self) -> tuple[Source, ...]:
        """Pages of the answer and of the prompt, then the images that were compared; each once."""
        pages = (self.answer.sources if self.answer else ()) + self.background.sources
        images = self.verification.used if self.verification else ()
        return tuple(dict.fromkeys((*pages, *(image.source for image in images))))

    @property
    def steps(self) -> list[Step]:
        """What every step of every module made, and why."""
        modules = (self.decision, self.retrieval, self.background, self.verification)
        return [step for module in modules if module for step in module.steps]

    def lines(self) -> Iterator[str]:
        """A line of text for every step, the sources and the mask, as `rose-kit ask` prints them."""
        for step in self.steps:
            yield f"{step.name:<10} {step.made}{f' ({step.why})' if step.why else ''}"
        for source in self.sources[:12]:
            yield f"source     {source.date or 'no date'}, {source.licence}: {source.title} <{source.url}>"
        yield f"mask       {self.mask.mask.mean():.1%} of the image, confidence {self.mask.confidence:.2f}"


class RoseFramework:
    """A segmenter with the four modules of ROSE (section 2) around it; a module that is None is off.

    Args:
        segmenter: what is asked for masks.
        searcher: where to search for pages and images.
        encoder: compares images.
        known: what the segmenter understands: names in the singular, such as those of ImageNet or COCO;
            "dog|puppy" is two.
        thresholds: of the visual prompt enhancer, as `calibrate(encoder, labelled images)` makes them.
        llm: prompt -> answer, see `rose_kit.web.llm`; None: rules.

    Attributes:
        websense, irag, tpe, vpe: the modules.

    Raises:
        ValueError: no thresholds are given, or they are for another encoder.
    """

    def __init__(
        self,
        segmenter: Promptable,
        searcher: Provider,
        encoder: Encoder,
        *,
        known: Collection[str],
        thresholds: Thresholds | None,
        llm: Model | None = None,
    ) -> None:
        self.segmenter, objects = segmenter, getattr(segmenter, "objects", None)
        self.vpe: VisualPromptEnhancer | None = VisualPromptEnhancer(encoder, thresholds, objects)
        self.websense: Callable[[str, date], Decision] | None = WebSense(llm, known)  # None: always look up
        visible_from = self.vpe.thresholds.correct
        self.irag: Search | None = IRAG(searcher, self.vpe.match, llm, known, visible_from=visible_from)
        self.tpe: Prompter | None = TPE(searcher, known, llm)  # None: "Please segment ANSWER"

    def replace(self, **modules: Any) -> "RoseFramework":
        """The framework with other modules, by the names of its attributes; None switches one off."""
        changed = copy(self)
        for name, module in modules.items():
            if name not in vars(self):
                raise unknown_name("module of the framework", name, vars(self))
            setattr(changed, name, module)
        return changed

    def ask(self, image: NDArray[np.uint8], question: str, day: date) -> FrameworkResult:
        """Segment what a question about an (H, W, 3) uint8 image means on a day.

        Where the web fails, it warns and segments what the question says; where the language model fails,
        rules take its place.

        Raises:
            ValueError: the question is empty.
        """
        if not question.strip():
            raise ValueError(f"the question is empty: {question!r}; say what to segment")
        decision = Decision(True, "the gate is switched off", "default")
        if self.websense:
            decision = self.websense(question, day)
        retrieval, background, verification, failure = None, Background(question), None, ""
        if decision.retrieve and self.irag:
            try:
                retrieval = self.irag(image, question, day)
                if retrieval.answer and self.tpe:
                    background = self.tpe(question, retrieval.answer.text, day)
                elif retrieval.answer:
                    background = Background(f"Please segment {retrieval.answer.text}")
            except OSError as error:
                failure = f"{error}; the mask is the plain segmenter's, which knows only its training data"
                warnings.warn(failure, stacklevel=2)
                retrieval = None
        mask = self.segmenter.segment(image, background.prompt)
        if self.vpe and retrieval and retrieval.references:
            match = retrieval.matches.get(retrieval.answer.text)
            verification = (
                self.vpe.verify(mask, match) if match else self.vpe(image, mask, retrieval.references)
            )
            mask = verification.mask
        return FrameworkResult(mask, decision, background, retrieval, verification, failure)
