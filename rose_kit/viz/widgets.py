"""Three widgets for the notebook: explain an answer, turn the dials of a method, teach by example.

All of them work by mouse and by keyboard, and a line of text, which screen readers read out, says what
happened.
"""

import copy
import html
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rose_kit.data import eight_bits
from rose_kit.fusion import Method, pooled_evidence
from rose_kit.metrics import confusion_matrix, mean_iou
from rose_kit.model import methods as registered
from rose_kit.regions import Regions, make_regions
from rose_kit.segmenter import Segmenter, name_vocabulary, query_map
from rose_kit.types import IGNORE, Segmentation, Vocabulary, class_name
from rose_kit.viz.export import strongest_prototypes
from rose_kit.viz.overlay import SIDE, contours, deepest_pixel, fit, outline, overlay
from rose_kit.viz.plots import evidence_figure

STYLE = {"description_width": "190px"}
SOLVER = ("steps", "lr", "weight_decay", "seed", "tolerance")  # options of RNS that change the time it takes


class Canvas(anywidget.AnyWidget):
    """An image. An active one has a cursor, which clicks, drags and the arrow keys move.

    A click, a drag, Enter and Space also send a message {"stroke": [[row, column], ...]}: the pixels passed.

    Args:
        pixels: (h, w, 3) uint8, at the size of the screen.
        label: the title above the image, which also describes it to a screen reader.
        size: (H, W) of the image in its own pixels, which is what row and column count; makes it active.
    """

    _esm = Path(__file__).with_name("widgets.js")
    _css = Path(__file__).with_name("widgets.css")
    png = traitlets.Bytes().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    size = traitlets.Tuple().tag(sync=True)
    cursor = traitlets.Tuple().tag(sync=True)

    def __init__(self, pixels: NDArray[np.uint8], label: str, size: tuple[int, ...] = ()) -> None:
        super().__init__(label=label, size=size, cursor=tuple(side // 2 for side in size))
        self.draw(pixels)
        self.on_msg(self._take)

    def _take(self, _: Any, content: Mapping, __: Any) -> None:
        self.cursor = tuple(content["stroke"][-1])
        self.send({})

    def draw(self, pixels: NDArray[np.uint8]) -> None:
        """Show another image of the same size."""
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, format="png", compress_level=1)  # quick rather than small
        self.png = data.getvalue()


class Entry(anywidget.AnyWidget):
    """A text field and a button: a click on it, or Enter, sends a message {"text": what the field holds}.

    A field and a button of ipywidgets send a message each, and the click may arrive before the text. Both are
    locked until a message is sent back.

    Args:
        label: of the field.
        placeholder: what an empty field shows.
        action: what the button says.
    """

    _esm = Path(__file__).with_name("entry.js")
    label, placeholder, action = (traitlets.Unicode().tag(sync=True) for _ in range(3))

    def clear(self) -> None:
        """Empty the field, and unlock it."""
        self.send({"clear": True})


class ImageWidget(widgets.VBox):
    """Base of the widgets: an image, the latest answer about it, and a line of text that says what happened.

    Args:
        segmenter: encodes the image, once.
        image: (H, W, 3) uint8, or what `Segmenter.encode` takes.
        side: px, the longer side of the image on the screen.

    Attributes:
        segmentation: the answer; while there is none, its labels are all -1.
        regions: (H, W) ids of the patches or regions that can be pointed at, where there are some.
        status: the line of text.
    """

    def __init__(self, segmenter: Segmenter, image: NDArray[np.uint8], side: int = SIDE) -> None:
        super().__init__()
        self.segmenter, self.encoded, self.side = segmenter, segmenter.encode(image), side
        self.image = eight_bits(image)
        self.size = self.image.shape[:2]
        # Nothing is drawn for the label -1, and `names[-1]` says so in words.
        self.unanswered = Segmentation(np.full(self.size, -1), np.empty((0, 0, 0)), ("unanswered",))
        self.segmentation = self.unanswered
        self.status, self.line = "", widgets.HTML()
        self.add_class("rk-widget")

    def draw(self, labels: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
        """An `overlay` of labels over the image, at the size of the screen."""
        return overlay(fit(self.image, self.side), fit(labels, self.side), names)

    def show_answer(self, answer: Segmentation, canvas: Canvas) -> str:
        """Draw a new answer, and say in a sentence how many pixels have changed.

        Either of the new and the previous list of names must begin with the other.
        """
        differ, self.segmentation = answer.labels != self.segmentation.labels, answer
        canvas.draw(self.draw(answer.labels, answer.names))
        if not differ.any():
            return "No pixel changed."
        labels, counts = np.unique(answer.labels[differ], return_counts=True)
        most = answer.names[labels[counts.argmax()]]
        return f"{differ.sum()} of {differ.size} pixels changed, most to {most!r}."

    def region_at(self, row: int, column: int) -> int:
        """The id of the region around a pixel.

        Raises:
            ValueError: the pixel is not in the image.
        """
        height, width = self.size
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"pixel ({row}, {column}) is outside the image of {height} x {width} pixels")
        return int(self.regions[row, column])

    def class_at(self, row: int, column: int) -> str:
        """The name of the class that was answered at a pixel."""
        return self.segmentation.names[self.segmentation.labels[row, column]]

    def set_status(self, text: str, error: bool = False) -> None:
        """Write the line of text; screen readers read it out."""
        self.status = text
        css, role, mark = ("rk-status rk-error", "alert", "⚠ ") if error else ("rk-status", "status", "")
        text = mark + html.escape(text)
        self.line.value = f'<div class="{css}" role="{role}" aria-live="polite">{text}</div>'

    def safely(self, action: Callable, *args: Any) -> None:
        """Call an action for the front end: a user's mistake becomes a line of text."""
        try:
            action(*args)
        except ValueError as error:
            self.set_status(str(error), error=True)

    def __repr__(self) -> str:
        """One line without ids of models, so that a notebook prints the same twice."""
        return f"{type(self).__name__}: {self.status}"


class EvidenceExplorer(ImageWidget):
    """Explains a segmentation, pixel by pixel: from which stored prototypes does the answer come?

    Of the strongest it shows the weight, its share of the score, and the effect, which is how the score would
    change without it (see `Evidence`).

    `explain` does in code what a click does. The list "go to" holds the classes of the answer, each with
    the pixel deepest inside it.

    Args:
        segmenter: with a method that gives evidence.
        image: (H, W, 3) uint8, or what `Segmenter.encode` takes.
        vocabulary: the classes, or their names.

    Raises:
        ValueError: the method gives no evidence, or as `Segmenter.segment`.
    """

    def __init__(
        self, segmenter: Segmenter, image: NDArray[np.uint8], vocabulary: Vocabulary | Sequence[str]
    ) -> None:
        super().__init__(segmenter, image)
        self.memory = segmenter.memory.copy()
        self.segmentation = answer = segmenter.segment(self.encoded, vocabulary)
        if answer.evidence is None:
            raise ValueError(f"{type(segmenter.method).__name__} gives no evidence: take one that retrieves")
        self.regions, self.base = query_map(self.encoded), self.draw(answer.labels, answer.names)
        label = "the answer: click, or use the arrow keys"
        self.canvas, self.evidence = Canvas(self.base, label, self.size), Canvas(self.base, "")
        places = [(answer.names[c], deepest_pixel(answer.labels == c)) for c in np.unique(answer.labels)]
        self.go_to = widgets.Dropdown(options=places, description="go to", value=None)
        self.go_to.observe(self._go, "value")
        self.canvas.observe(self._show, "cursor")
        right = widgets.VBox([self.go_to, self.line], layout={"width": "440px"})
        self.children = [widgets.HBox([self.canvas, right]), self.evidence]
        self._show()

    def explain(self, row: int, column: int) -> dict[str, Any]:
        """Move the cursor to a pixel and show the evidence for its answer.

        Returns:
            {"region": (H, W) bool, the patch or region around the pixel, "winner": the class that won it,
            "score", "prototypes", "rest": as `strongest_prototypes` gives them}.

        Raises:
            ValueError: the pixel is not in the image.
        """
        self.region_at(row, column)  # raises outside the image
        self.canvas.cursor = (row, column)
        return self.explanation

    def _go(self, change: Any) -> None:
        if change.new:
            self.canvas.cursor = change.new
            self.go_to.value = None  # so that the same class can be chosen again

    def _show(self, _: Any = None) -> None:
        """Outline the patch or region at the cursor; show its evidence as an image and in words."""
        row, column = self.canvas.cursor
        query, own = self.region_at(row, column), self.class_at(row, column)
        region, evidence = self.regions == query, pooled_evidence(self.segmentation.evidence, [query])
        winner = evidence.class_name[evidence.prototype_id < 0].item()
        evidence = evidence.with_effects(evidence.strongest())
        parts = strongest_prototypes(evidence, self.memory)
        self.explanation = {"region": region, "winner": winner} | parts
        between = "" if own == winner else f", though the pixel itself is {own}"
        terms = [f"{p['weight']:+.3g} {p['class']} in {p['image_id']}" for p in parts["prototypes"]]
        for i, prototype in enumerate(parts["prototypes"]):
            if prototype["effect"] is not None:
                terms[i] += f" (effect {prototype['effect']:+.3g})"
        terms.append(f"{parts['rest']:+.3g} text and the rest")
        self.canvas.draw(outline(self.base, region))
        self.set_status(f"row {row}, column {column}: {winner}{between}. Strongest: {terms[0]}.")
        fig, data = Figure(figsize=(8.4, 3)), io.BytesIO()
        fig.subplots_adjust(0.01, 0.08, 0.99, 0.9)  # a layout engine would take twice as long in all
        evidence_figure(self.image, region, evidence, self.memory, winner, fig=fig)
        fig.savefig(data, format="png")
        self.evidence.png = data.getvalue()
        self.evidence.label = f"{winner}: score {parts['score']:.3g} = {', '.join(terms)}"


class FusionPlayground(ImageWidget):
    """One image under one method, whose options can be changed.

    In code, `choice.value` is the method, and `sliders[method][option].value` an option of it. A method with
    something to fit is fitted to the memory anew each time.

    Args:
        segmenter: encoder, memory, regions and windows; its own method is not used.
        image: (H, W, 3) uint8, or what `Segmenter.encode` takes.
        vocabulary: the classes, or their names.
        truth: (H, W) the annotation, integers into the vocabulary, if there is one.
        methods: names of any registered methods, a plugin's among them, or name -> method with the options to
            start at, a dataclass.

    Raises:
        ValueError: a method is unknown.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        vocabulary: Vocabulary | Sequence[str],
        truth: NDArray[np.int64] | None = None,
        methods: Sequence[str] | Mapping[str, Method] = ("knn-clip", "freeda", "rns"),
    ) -> None:
        super().__init__(segmenter, image, side=256)
        if not isinstance(methods, Mapping):
            methods = {name: registered.make(name) for name in methods}
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = name_vocabulary(vocabulary, segmenter.encoder)
        self.vocabulary, self.truth = vocabulary, truth
        self.methods = methods
        photo = fit(self.image, self.side)
        self.answer = Canvas(photo, "the answer")
        images = [Canvas(photo, "the image"), self.answer]
        if truth is not None:
            images.append(Canvas(self.draw(truth, vocabulary.names), "the annotation"))
        self.choice = widgets.Dropdown(options=list(self.methods), description="method", style=STYLE)
        self.choice.observe(self._show, "value")
        self.sliders = {name: make_sliders(method, self._show) for name, method in self.methods.items()}
        self.box = widgets.VBox()
        self.children = [widgets.HBox(images), self.choice, self.box, self.line]
        self._show()

    def _show(self, _: Any = None) -> None:
        self.safely(self._segment)

    def _segment(self) -> None:
        """Segment with the chosen method, its options where the sliders stand."""
        name, score = self.choice.value, ""
        self.box.children = list(self.sliders[name].values())
        options = {option: slider.value for option, slider in self.sliders[name].items()}
        setting = ", ".join([name, *(f"{option} {value:.3g}" for option, value in options.items())])
        if self.status.startswith(f"{setting}: "):  # a page sends a value back with another last digit
            return
        method = replace(self.methods[name], **options) if options else self.methods[name]
        if hasattr(method, "fit"):
            method = copy.deepcopy(method).fit(self.segmenter.memory, self.vocabulary)
        segmenter = Segmenter(self.segmenter.encoder, self.segmenter.memory, method)
        first = self.segmentation is self.unanswered
        changes = self.show_answer(segmenter.segment(self.encoded, self.vocabulary), self.answer)
        if first:
            changes = "the first answer."
        if self.truth is not None:
            counts = confusion_matrix(self.segmentation.labels, self.truth, len(self.vocabulary))
            miou = f"{100 * mean_iou(counts):.1f} %" if counts.any() else "none, as every pixel is ignored"
            score = f" Its mIoU on this image: {miou}."
        self.set_status(f"{setting}: {changes}{score}")


class TeachByExample(ImageWidget):
    """Adds named regions of one photo to a memory, and segments it anew after each.

    `pick`, `add_example` and `undo` do in code what clicks and buttons do.

    Args:
        segmenter: whose memory is added to; it may be empty.
        image: (H, W, 3) uint8, or what `Segmenter.encode` takes.
        names: the classes to segment into at first; may be none.
        image_id: of the photo in the memory; example n is stored as `image_id`/n.
        proposals: makes the regions to pick from: image -> (H, W) map of ids, or "slic" or "sam".

    Attributes:
        names: the classes, those added included.
        picked: ids of the picked regions.

    Raises:
        ValueError: as `Segmenter.encode`, `make_regions` and `name_vocabulary`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        names: Sequence[str] = (),
        image_id: str = "photo",
        proposals: str | Regions = "slic",
    ) -> None:
        super().__init__(segmenter, image)
        if isinstance(names, str):
            raise ValueError(f"class names must be a list, got the text {names!r}")
        make = make_regions(proposals) if isinstance(proposals, str) else proposals
        self.regions = np.asarray(make(self.image))
        self.names, self.picked, self.image_id = tuple(names), set(), image_id
        self._examples: list[tuple] = []  # image id and name of each, and the names and picked regions before
        self.photo = fit(self.image)
        self.photo[contours(fit(self.regions))] = 180
        self.canvas = Canvas(self.photo, "the photo: click, or use the arrow keys and Enter", self.size)
        self.canvas.observe(self._point, "cursor")
        self.canvas.on_msg(lambda _, content, __: self.pick(content["stroke"]))
        self.answer = Canvas(self.photo, "the answer")
        self.name = Entry(label="name", placeholder="what is it?", action="Add to memory")
        self.name.on_msg(self._enter)
        self.take_back = widgets.Button(description="Undo")
        self.take_back.on_click(lambda _: self.safely(self.undo))
        tools = widgets.HBox([self.name, self.take_back])
        self.children = [widgets.HBox([self.canvas, self.answer]), tools, self.line]
        self._segment()
        self._point()

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes, with text where the encoder has a text tower."""
        return name_vocabulary(self.names, self.segmenter.encoder) if self.names else Vocabulary(())

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) the picked regions."""
        return np.isin(self.regions, list(self.picked))

    def pick(self, points: Sequence[Sequence[int]]) -> None:
        """Pick the regions that a stroke of (row, column) passes, or unpick them if its first is picked.

        Raises:
            ValueError: a pixel is not in the image.
        """
        regions = [self.region_at(*point) for point in points]
        change = self.picked.difference if regions[0] in self.picked else self.picked.union
        self.picked = change(regions)
        self.canvas.cursor = tuple(points[-1])
        self._point()

    def _enter(self, _: Any, content: Mapping, __: Any) -> None:
        try:
            self.safely(self.add_example, content["text"])
        finally:
            self.name.send({})

    def add_example(self, name: str) -> Segmentation:
        """Add the picked regions to the memory under a name, as one prototype, and segment anew.

        Args:
            name: one of the classes, or a new one.

        Raises:
            ValueError: the text cannot name a class, nothing is picked, or the encoder, memory or method
                refuses. Then nothing changes, nor with any other error.
        """
        if not name.strip():
            raise ValueError("the name is empty: type what the picked regions are")
        name, memory = class_name(name.strip()), self.segmenter.memory
        if not self.picked:
            raise ValueError(f"nothing is picked: click the regions that are {name!r}, then add them")
        ids = (f"{self.image_id}/{number}" for number in itertools.count(1))
        example, new = next(i for i in ids if i not in memory.images), name not in self.vocabulary.names
        mask = self.mask.astype(np.int64)
        memory.add(example, self.encoded.feature_map, mask, {1: name}, thumbnail=self.image)
        self._examples.append((example, name, self.names, self.picked))
        event = f"added {name!r}, {'a new class' if new else 'another example'}. "
        self.names, self.picked = (*self.names, *[name] * new), set()
        try:
            self._segment(event)
        except BaseException:  # an interrupt as well
            self._take_back()
            raise
        self.name.clear()
        return self.segmentation

    def undo(self) -> None:
        """Take back the latest example; its regions are picked again.

        Raises:
            ValueError: there is none, or it is no longer in the memory.
        """
        if not self._examples:
            raise ValueError("there is nothing to undo: nothing was added here")
        example, name, *_ = self._examples[-1]
        self._take_back()
        self._segment(f"took back {name!r}, stored as {example!r}; its regions are picked again. ")

    def _take_back(self) -> None:
        example, _, names, picked = self._examples[-1]
        self.segmenter.memory.remove(example)  # an image of its own: nothing else goes with it
        self._examples.pop()
        self.names, self.picked = names, picked

    def _segment(self, event: str = "") -> None:
        """Segment and show the answer, if there is anything to answer with; say what happened."""
        answer, vocabulary = self.unanswered, self.vocabulary
        if vocabulary.has_text.any() or set(self.segmenter.memory.classes) & set(vocabulary.names):
            answer = self.segmenter.segment(self.encoded, vocabulary)
        changes = self.show_answer(answer, self.answer)
        self._point()
        self.set_status(event + changes)

    def _point(self, _: Any = None) -> None:
        """Show the picked regions, outline the one at the cursor, and say what is there."""
        row, column = self.canvas.cursor
        region = self.region_at(row, column)
        drawn = overlay(self.photo, np.where(fit(self.mask), 0, IGNORE), ["picked"])
        self.canvas.draw(outline(drawn, self.regions == region))
        picked = "picked" if region in self.picked else "not picked"
        self.set_status(
            f"region {region} at row {row}, column {column}: now {self.class_at(row, column)}, {picked}. "
            f"Regions picked: {len(self.picked)} ({self.mask.sum()} px)."
        )


def make_sliders(method: Method, moved: Callable[[Any], None]) -> dict[str, widgets.Widget]:
    """A slider for each option of a method that is a number, starting at its value.

    Counts go up to eight times the value; above 0.1 and up to 1, a number is a share and goes from 0 to 1;
    any other positive number can be a hundred times smaller or larger. The options of RNS that belong to a
    solver, and change how long it takes rather than the answer, have no slider.

    Args:
        method: a dataclass; any other has no options.
        moved: called with the change when a slider is moved.

    Returns:
        option -> slider.
    """
    sliders: dict[str, widgets.Widget] = {}
    own = fields(method) if is_dataclass(method) else ()
    options = {o.name: getattr(method, o.name) for o in own if o.init and o.name not in SOLVER}
    for name, value in options.items():
        if type(value) is int:
            sliders[name] = widgets.IntSlider(value, min(1, value), max(8, 8 * value))
        elif type(value) is float and (value <= 0 or (0.1 < value <= 1 and round(20 * value, 6) % 1 == 0)):
            # A page moves a value to the next step, so one between two steps has a slider of its own below.
            sliders[name] = widgets.FloatSlider(value, min=min(0, value), max=1, step=0.05)
        elif type(value) is float:
            low, high = np.log10(value) - 2, np.log10(value) + 2
            sliders[name] = widgets.FloatLogSlider(value, min=low, max=high, step=0.05)
    for name, slider in sliders.items():
        slider.description, slider.style, slider.layout = name, STYLE, {"width": "460px"}
        slider.observe(moved, "value")
    return sliders
