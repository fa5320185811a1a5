"""The fusion playground: sliders for what a fusion weighs, and the mask that comes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from rose_kit.adapter import RNS
from rose_kit.adapter.samples import LAMBDAS, SPREADS
from rose_kit.fusion import Freeda, KnnClip, Method
from rose_kit.fusion.text import class_cosines
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.types import Segmentation, Vocabulary, unit
from rose_kit.viz.widgets.canvas import Shell, drawn, fit, picture, png
from rose_kit.viz.widgets.teach import changes


@dataclass(frozen=True)
class Recipe:
    """A method and what can be turned on it: dial -> where it starts, as the method itself does."""

    make: Callable[..., Method]
    dials: Mapping[str, float]


def _rns(k: int, lam: float, temperature: float, text: float) -> RNS:
    # All six mixtures in proportion: the most visual one has the share asked for.
    lambdas = tuple(value * lam / max(LAMBDAS) for value in LAMBDAS)
    return RNS(k=k, lambdas=lambdas, tau=temperature, beta_fused=text)


RECIPES = {
    "kNN-CLIP": Recipe(
        lambda k, lam, temperature: KnnClip(lam, k=k, temperature=temperature),
        {"k": 16, "lam": 0.5, "temperature": 0.01},
    ),
    "FREEDA": Recipe(
        lambda lam, temperature: Freeda(lam, scale=1 / temperature), {"lam": 0.5, "temperature": 0.01}
    ),
    "RNS": Recipe(_rns, {"k": 4, "lam": max(LAMBDAS), "temperature": 0.1, "text": 1.5}),
}
SIDE = 256  # px, of each of up to three pictures
WIDE = {"description_width": "190px"}
LIMITS = {"k": (1, 32), "lam": (0.0, 1.0), "temperature": (0.001, 10.0), "text": (0.0, 5.0)}
LABELS = {
    "k": "k, neighbours",
    "lam": "λ, share of pictures",
    "temperature": "temperature",
    "text": "text weight",
}


class Playground:
    """One image under one fusion, whose dials can be turned. Features are computed once.

    What the dials are: `k` the neighbours per patch; `lam` the share of pictures as against names (of RNS'
    six mixtures, that of the most visual, the others in proportion); `temperature` that of kNN-CLIP's vote,
    of FREEDA's softmax, of RNS' class relevance; `text` how strongly the mixtures with names count beside
    retrieved prototypes when RNS trains.

    Args:
        segmenter: encoder, memory, regions and windows; its own method is not used.
        image: (H, W, 3) uint8.
        vocabulary: the classes, or their names.
        truth: (H, W) the annotation, integers into the vocabulary, if there is one.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        vocabulary: Vocabulary | Sequence[str],
        truth: NDArray[np.int64] | None = None,
    ) -> None:
        self.segmenter, self.image, self.truth = segmenter, np.asarray(image), truth
        self.encoded = segmenter.encode(image)
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = name_vocabulary(vocabulary, segmenter.encoder)
        self.vocabulary, self.method = vocabulary, next(iter(RECIPES))
        self.dials = {name: dict(recipe.dials) for name, recipe in RECIPES.items()}
        if vocabulary.has_text.all():  # RNS fits it to how far the cosines spread: see `class_relevance`
            cosines = class_cosines(unit(self.encoded.query.image_feature)[None], vocabulary)
            self.dials["RNS"]["temperature"] = float((SPREADS * cosines.std()).clip(*LIMITS["temperature"]))
        self.segmentation: Segmentation | None = None

    def set(self, method: str | None = None, **dials: float) -> Segmentation:
        """Choose a method, turn its dials, and answer anew; what is not given stays as it was.

        Args:
            method: "kNN-CLIP", "FREEDA" or "RNS".
            **dials: `k`, `lam`, `temperature`, `text`, as far as the method has them.

        Raises:
            ValueError: the method has no such name or dial, a value is no number or out of range, or the
                memory is empty; nothing changes then.
        """
        method = method or self.method
        if method not in [*RECIPES]:
            raise ValueError(f"unknown method {method!r}; there are: {', '.join(RECIPES)}")
        for dial, value in dials.items():
            if dial not in RECIPES[method].dials:
                raise ValueError(f"{method} has no dial {dial!r}; it has: {', '.join(RECIPES[method].dials)}")
            low, high = LIMITS[dial]
            kind, what = (Integral, "a whole number ") if dial == "k" else (Real, "")
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                raise ValueError(f"{dial} must be {what}from {low} to {high}, got {value!r}")
        if not len(self.segmenter.memory):
            raise ValueError("the memory is empty, so there is nothing to fuse with: add pictures first")
        settings = self.dials[method] | dials
        segmenter = Segmenter(self.segmenter.encoder, self.segmenter.memory, RECIPES[method].make(**settings))
        self.segmentation = segmenter.segment(self.encoded, self.vocabulary)
        self.method, self.dials[method] = method, settings
        return self.segmentation

    @property
    def miou(self) -> float | None:
        """mIoU of this one image, in [0, 1], over the classes in answer or truth; None without them."""
        if self.truth is None or self.segmentation is None:
            return None
        return mean_iou(confusion_matrix(self.segmentation.labels, self.truth, len(self.vocabulary)))


class FusionPlayground(Shell):
    """`Playground` with sliders; `set` does in code what they do.

    Args:
        segmenter, image, vocabulary, truth: as for `Playground`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        vocabulary: Vocabulary | Sequence[str],
        truth: NDArray[np.int64] | None = None,
    ) -> None:
        self.model = Playground(segmenter, image, vocabulary, truth)
        self.choice = widgets.Dropdown(options=list(RECIPES), description="method", style=WIDE)
        self.sliders = {dial: _slider(dial) for dial in LIMITS}
        self.mask = picture(fit(self.model.image, SIDE), "the answer")
        shown = {"the picture": picture(fit(self.model.image, SIDE), "the picture"), "the answer": self.mask}
        if truth is not None:
            as_answer = Segmentation(truth, None, self.model.vocabulary.names)
            shown["the annotation"] = picture(drawn(self.model.image, as_answer, SIDE), "the annotation")
        columns = [widgets.VBox([widgets.HTML(f"<b>{title}</b>"), image]) for title, image in shown.items()]
        for column in columns:
            column.layout.margin = "0 12px 0 0"
        self.choice.observe(lambda change: self._turned(method=change.new), "value")
        for dial, slider in self.sliders.items():
            slider.observe(lambda change, dial=dial: self._turned(**{dial: change.new}), "value")
        self.quiet = False
        super().__init__(widgets.HBox(columns), self.choice, *self.sliders.values())
        self.attempt(self.set)

    def set(self, method: str | None = None, **dials: float) -> Segmentation:
        """Choose a method and turn its dials; see `Playground.set`."""
        before = self.model.segmentation
        answer = self.model.set(method, **dials)
        self._show_dials()
        self.mask.value = png(drawn(self.model.image, answer, SIDE))
        settings = ", ".join(f"{LABELS[d].split(',')[0]} {v:.3g}" for d, v in self._settings.items())
        score = "" if self.model.miou is None else f" Its mIoU: {100 * self.model.miou:.1f} %."
        self.tell(f"{self.model.method}, {settings}: {changes(before, answer) if before else ''}{score}")
        return answer

    @property
    def _settings(self) -> dict[str, float]:
        return self.model.dials[self.model.method]

    def _turned(self, **what) -> None:
        if not self.quiet:
            self.attempt(self.set, **what)

    def _show_dials(self) -> None:
        """The sliders stand where the method's dials do; those it has not cannot be moved, and say so."""
        self.quiet = True
        self.choice.value = self.model.method
        for dial, slider in self.sliders.items():
            slider.disabled = dial not in self._settings
            slider.description = LABELS[dial] + (" (not used)" if slider.disabled else "")
            if not slider.disabled:
                slider.value = self._settings[dial]
        self.quiet = False


def _slider(dial: str) -> widgets.Widget:
    low, high = LIMITS[dial]
    common = {"description": LABELS[dial], "style": WIDE, "layout": {"width": "460px"}}
    if dial == "k":
        return widgets.IntSlider(min=low, max=high, **common)
    if dial == "temperature":
        return widgets.FloatLogSlider(
            min=round(np.log10(low)), max=round(np.log10(high)), step=0.05, readout_format=".3f", **common
        )
    return widgets.FloatSlider(min=low, max=high, step=0.05, **common)
