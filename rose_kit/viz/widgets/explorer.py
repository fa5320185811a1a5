"""The evidence explorer: click a pixel, see the stored examples that its answer rests on."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from rose_kit.segmenter import EncodedImage, Segmenter
from rose_kit.types import Vocabulary
from rose_kit.viz.maps import spotlight
from rose_kit.viz.plots import BLUE, ORANGE
from rose_kit.viz.widgets.canvas import Canvas, Shell, at, drawn, outline, png


@dataclass(frozen=True)
class Example:
    """A stored prototype that spoke: for the answer (weight > 0) or against it."""

    prototype_id: int
    class_name: str
    image_id: str
    source: str | None
    weight: float


@dataclass(frozen=True)
class Answer:
    """What was asked at a pixel, and what the answer rests on.

    Args:
        row, column: the pixel.
        shown: the class that the pixel has; between patches it may differ from `name`.
        name: the class that won the patch or region around it; where its evidence lists no row for text
            and the rest (id -1), the class shown by most of it.
        score: its winning score, as far as evidence tells; the weights of `examples` and `rest` add up to it.
        region: (H, W) bool, the patch or region.
        examples: strongest first.
        rest: text and all that is not listed.
    """

    row: int
    column: int
    shown: str
    name: str
    score: float
    region: NDArray[np.bool_]
    examples: tuple[Example, ...]
    rest: float


def query_map(encoded: EncodedImage) -> NDArray[np.int64]:
    """(H, W) which patch or region of the query each pixel of the image lies in."""
    if isinstance(encoded.query.layout, np.ndarray):
        return encoded.query.layout
    fm = encoded.feature_map
    rows, columns = (
        np.arange(n) * inside // n // fm.patch_size
        for n, inside in zip(fm.image_size, fm.encoded_size, strict=True)
    )
    return rows[:, None] * fm.grid[1] + columns


class Explorer:
    """Asks a segmentation for its reasons, pixel by pixel.

    Args:
        segmenter: with a method that gives evidence.
        image: (H, W, 3) uint8.
        vocabulary: the classes, or their names.
        top: examples to list.

    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        vocabulary: Vocabulary | Sequence[str],
        top: int = 5,
    ) -> None:
        encoded = segmenter.encode(image)
        self.memory, self.image, self.top = segmenter.memory.snapshot(), np.asarray(image), top
        self.method = type(segmenter.method).__name__
        self.segmentation = segmenter.segment(encoded, vocabulary) if len(self.memory) else None
        self.queries = query_map(encoded)

    @cached_property
    def classes(self) -> dict[str, tuple[int, int]]:
        """Class name -> the pixel deepest inside it, the largest class first."""
        found: dict[str, tuple[int, int]] = {}
        if self.segmentation is None:
            return found
        labels = self.segmentation.labels
        pixels = np.bincount(labels.ravel())
        for c in np.argsort(-pixels, kind="stable")[: np.count_nonzero(pixels)]:
            depth = distance_transform_edt(np.pad(labels == c, 1))[1:-1, 1:-1]
            found[self.segmentation.names[c]] = tuple(map(int, np.unravel_index(depth.argmax(), depth.shape)))
        return found

    def ask(self, row: int, column: int) -> Answer:
        """What the answer at a pixel rests on.

        Raises:
            ValueError: the pixel is not in the image, the memory is empty, or the method gives no evidence.
        """
        query = int(at(self.queries, row, column))
        if self.segmentation is None:
            raise ValueError("the memory is empty, so no answer can rest on it: add pictures first")
        evidence = self.segmentation.evidence
        if evidence is None:
            raise ValueError(f"{self.method} gives no evidence: choose a method that retrieves, such as RNS")
        found = evidence.top(query, len(evidence))
        listed = np.flatnonzero(found.prototype_id >= 0)[: self.top]
        held = self.memory.lookup(found.prototype_id[listed])
        columns = (held.ids, held.class_names, held.image_ids, held.sources, found.weight[listed])
        examples = tuple(map(Example, *(column.tolist() for column in columns)))
        region, names, labels = self.queries == query, self.segmentation.names, self.segmentation.labels
        winner = found.class_name[found.prototype_id < 0]
        name = str(winner[0]) if len(winner) else names[np.bincount(labels[region]).argmax()]
        score = float(found.weight.sum())
        rest = score - sum(e.weight for e in examples)
        return Answer(row, column, names[labels[row, column]], name, score, region, examples, rest)

    def find(self, name: str) -> Answer:
        """The same for a pixel in the middle of a class.

        Raises:
            ValueError: no pixel shows that class.
        """
        if name not in self.classes:
            raise ValueError(
                f"no pixel shows {name!r}; this answer has: {', '.join(self.classes) or 'nothing'}"
            )
        return self.ask(*self.classes[name])


class EvidenceExplorer(Shell):
    """`Explorer` to click at. `ask` and `find` do in code what a click and the list of classes do.

    Args:
        segmenter, image, vocabulary, top: as for `Explorer`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        vocabulary: Vocabulary | Sequence[str],
        top: int = 5,
    ) -> None:
        self.model = Explorer(segmenter, image, vocabulary, top)
        seg, size = self.model.segmentation, self.model.queries.shape
        self.base = drawn(self.model.image, seg)
        click = lambda row, column: self.attempt(self.ask, row, column)  # noqa: E731
        self.canvas = Canvas(self.base, size, "the answer: click a pixel", click)
        self.go_to = widgets.Dropdown(options=list(self.model.classes), description="go to", value=None)
        self.go_to.observe(self._chosen, "value")
        self.panel = widgets.HTML(layout={"width": "400px", "margin": "0 0 0 12px"})
        super().__init__(widgets.HBox([self.canvas, widgets.VBox([self.go_to, self.panel])]))
        self.attempt(self.ask, *next(iter(self.model.classes.values()), (0, 0)))

    def ask(self, row: int, column: int) -> Answer:
        """Move the cursor to a pixel and show what its answer rests on; see `Explorer.ask`."""
        return self._show(self.model.ask(row, column))

    def find(self, name: str) -> Answer:
        """Move the cursor into a class; see `Explorer.find`."""
        return self._show(self.model.find(name))

    def _chosen(self, change: Any) -> None:
        if change.new:
            self.attempt(self.find, change.new)
            self.go_to.value = None  # so that the same class can be chosen again

    def _show(self, answer: Answer) -> Answer:
        self.canvas.place(answer.row, answer.column)
        self.canvas.draw(outline(self.base, answer.region))
        self.panel.value = answer_html(answer, self.model.memory)
        between = "" if answer.shown == answer.name else f", though the pixel itself shows {answer.shown}"
        first = next((e for e in answer.examples if e.weight > 0), None)
        loudest = f"{first.class_name} in {first.image_id} speaks most" if first else "none speaks"
        self.tell(
            f"row {answer.row}, column {answer.column}: {answer.name}{between}. "
            f"Of the stored examples, {loudest} for it."
        )
        return answer


def answer_html(answer: Answer, memory: Any) -> str:
    """The examples as a list: picture, class, source, and a bar for the weight, its sign in words too.

    Args:
        answer: from `Explorer.ask`.
        memory: where the pictures are.
    """
    weights = [*(e.weight for e in answer.examples), answer.rest]
    most = max(map(abs, weights)) or 1.0
    rows = [_row(_thumbnail(memory, e), e.class_name, e.image_id, e.weight, most) for e in answer.examples]
    rows.append(_row("", "text and the rest", "all that is not listed", answer.rest, most))
    title = f"<b>{html.escape(answer.name)}</b>, score {answer.score:.3g}, rests on"
    return f'<div>{title}</div><div role="list">{"".join(rows)}</div>'


def _thumbnail(memory: Any, example: Example) -> str:
    stored = memory.thumbnail(example.prototype_id)
    if stored is None:
        return "no picture stored"
    data = base64.b64encode(png(spotlight(*stored))).decode()
    says = html.escape(f"{example.class_name} in {example.image_id}", quote=True)
    style = "width:60px;height:60px;object-fit:contain"
    return f'<img src="data:image/png;base64,{data}" alt="{says}" style="{style}">'


def _row(image: str, name: str, source: str, weight: float, most: float) -> str:
    colour, side = (BLUE, "for") if weight >= 0 else (ORANGE, "against")
    return (
        '<div role="listitem" style="display:flex;gap:10px;align-items:center;margin:4px 0">'
        f'<div style="flex:0 0 60px;font-size:11px">{image}</div>'
        f'<div style="flex:1"><b>{html.escape(name)}</b> <span>{html.escape(source)}</span>'
        f'<div style="background:{colour};height:9px;width:{max(1, 100 * abs(weight) / most):.0f}%"></div>'
        f"{weight:+.3g} {side}</div></div>"
    )
