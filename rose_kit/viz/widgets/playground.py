"""The fusion playground: sliders for the options of a fusion, and the mask that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from rose_kit.adapter import RNS
from rose_kit.adapter.rns import LAMBDAS, SPREADS
from rose_kit.fusion import Freeda, KnnClip
from rose_kit.fusion.zero_shot import class_cosines
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.segmenter import Segmenter, name_vocabulary
from rose_kit.types import Segmentation, Vocabulary, unit
from rose_kit.viz.overlay import fit
from rose_kit.viz.widgets.canvas import Canvas, StatusWidget, fitted_overlay, titled
from rose_kit.viz.widgets.teach import changes


def _knn_clip(k: int = 16, lam: float = 0.5, temperature: float = 0.01) -> KnnClip:
    return KnnClip(lam, k=k, temperature=temperature)


def _freeda(lam: float = 0.5, temperature: float = 0.01) -> Freeda:
    return Freeda(lam, scale=1 / temperature)


def _rns(k: int = 4, lam: float = max(LAMBDAS), temperature: float = 0.1, text: float = 1.5) -> RNS:
    # All six mixtures in proportion: the most visual one has the share `lam`.
    lambdas = tuple(value * lam / max(LAMBDAS) for value in LAMBDAS)
    return RNS(k=k, lambdas=lambdas, tau=temperature, beta_fused=text)


METHODS = {"kNN-CLIP": _knn_clip, "FREEDA": _freeda, "RNS": _rns}
OPTIONS = {  # label, lowest value, highest value
    "k": ("k, neighbours", 1, 32),
    "lam": ("λ, share of images", 0.0, 1.0),
    "temperature": ("temperature", 0.001, 10.0),
    "text": ("text weight", 0.0, 5.0),
}
SIDE = 256  # px, of each of up to three images
STYLE = {"description_width": "190px"}


class FusionPlayground(StatusWidget):
    """One image under one fusion, whose options can be changed. Features are computed once.

    The options: `k` the neighbours per patch; `lam` the share of images as against names (of RNS'
    six mixtures, that of the most visual, the others in proportion); `temperature` that of kNN-CLIP's vote,
    of FREEDA's softmax, of RNS' class relevance; `text` how strongly the mixtures with names count beside
    retrieved prototypes when RNS trains. `set` does in code what the sliders do.

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
        self.vocabulary, self.method = vocabulary, next(iter(METHODS))
        self.options = {
            name: {option: p.default for option, p in signature(make).parameters.items()}
            for name, make in METHODS.items()
        }
        if vocabulary.has_text.all():  # RNS fits it to how far the cosines spread: see `class_relevance`
            cosines = class_cosines(unit(self.encoded.query.image_feature)[None], vocabulary)
            fitted = (SPREADS * cosines.std()).clip(*OPTIONS["temperature"][1:])
            self.options["RNS"]["temperature"] = float(fitted)
        self.segmentation: Segmentation | None = None
        super().__init__(*self._parts())
        self.safely(self.set)()

    def set(self, method: str | None = None, **options: float) -> Segmentation:
        """Choose a method, set its options, and segment anew; what is not given stays as it was.

        Args:
            method: "kNN-CLIP", "FREEDA" or "RNS".
            **options: `k`, `lam`, `temperature`, `text`, as far as the method has them.

        Raises:
            ValueError: the method has no such name or option, a value is out of range or refused by the
                method, or the memory is empty; nothing changes then.
        """
        method = method or self.method
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; there are: {', '.join(METHODS)}")
        known = self.options[method]
        for option, value in options.items():
            if option not in known:
                raise ValueError(f"{method} has no option {option!r}; it has: {', '.join(known)}")
            _, low, high = OPTIONS[option]
            if not low <= value <= high:
                raise ValueError(f"{option} must be from {low} to {high}, got {value!r}")
        if not len(self.segmenter.memory):
            raise ValueError("the memory is empty, so there is nothing to fuse with: add images first")
        options = known | options
        segmenter = Segmenter(self.segmenter.encoder, self.segmenter.memory, METHODS[method](**options))
        before, self.segmentation = self.segmentation, segmenter.segment(self.encoded, self.vocabulary)
        self.method, self.options[method] = method, options
        self._show(before)
        return self.segmentation

    @property
    def miou(self) -> float | None:
        """mIoU of this one image, in [0, 1], over the classes in answer or truth; None without them."""
        if self.truth is None or self.segmentation is None:
            return None
        return mean_iou(confusion_matrix(self.segmentation.labels, self.truth, len(self.vocabulary)))

    def _parts(self) -> list[widgets.Widget]:
        """The images side by side, then what chooses a method, then a slider for each option."""
        size = self.image.shape[:2]
        images = {"the image": fit(self.image, SIDE), "the answer": fit(self.image, SIDE)}
        if self.truth is not None:
            annotation = Segmentation(self.truth, None, self.vocabulary.names)
            images["the annotation"] = fitted_overlay(self.image, annotation, SIDE)
        canvases = {title: Canvas(image, size, title) for title, image in images.items()}
        self.answer = canvases["the answer"]
        self.choice = widgets.Dropdown(options=list(METHODS), description="method", style=STYLE)
        self.choice.observe(lambda change: self._turned(method=change.new), "value")
        self.sliders = {option: _slider(option) for option in OPTIONS}
        for option, slider in self.sliders.items():
            slider.observe(lambda change, option=option: self._turned(**{option: change.new}), "value")
        self.quiet = False  # whether sliders are moved by code
        columns = [titled(title, canvas) for title, canvas in canvases.items()]
        return [widgets.HBox(columns), self.choice, *self.sliders.values()]

    def _turned(self, **options) -> None:
        if not self.quiet:
            self.safely(self.set)(**options)

    def _show(self, before: Segmentation | None) -> None:
        """The answer; the sliders stand where the options do, and those that the method lacks say so."""
        options = self.options[self.method]
        self.quiet = True
        self.choice.value = self.method
        for option, slider in self.sliders.items():
            slider.disabled = option not in options
            slider.description = OPTIONS[option][0] + (" (not used)" if slider.disabled else "")
            slider.value = options.get(option, slider.value)
        self.quiet = False
        self.answer.draw(fitted_overlay(self.image, self.segmentation, SIDE))
        values = ", ".join(f"{OPTIONS[name][0].split(',')[0]} {value:.3g}" for name, value in options.items())
        changed = changes(before, self.segmentation) if before else ""
        score = "" if self.miou is None else f" Its mIoU: {100 * self.miou:.1f} %."
        self.set_status(f"{self.method}, {values}: {changed}{score}")


def _slider(option: str) -> widgets.Widget:
    label, low, high = OPTIONS[option]
    common = {"description": label, "style": STYLE, "layout": {"width": "460px"}}
    if option == "k":
        return widgets.IntSlider(min=low, max=high, **common)
    if option == "temperature":
        powers = {"min": np.log10(low), "max": np.log10(high)}
        return widgets.FloatLogSlider(**powers, step=0.05, readout_format=".3f", **common)
    return widgets.FloatSlider(min=low, max=high, step=0.05, **common)
