"""The evidence explorer: click a pixel, see the stored prototypes behind its answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from rose_kit.segmenter import EncodedImage, Segmenter
from rose_kit.types import Vocabulary
from rose_kit.viz.evidence import strongest_prototypes
from rose_kit.viz.overlay import deepest_pixel, outline, spotlight
from rose_kit.viz.plots import BLUE, ORANGE
from rose_kit.viz.widgets.canvas import Canvas, StatusWidget, encode_png, fitted_overlay, titled, value_at


def query_map(encoded: EncodedImage) -> NDArray[np.int64]:
    """(H, W) which patch or region of the query each pixel of the image lies in."""
    if isinstance(encoded.query.layout, np.ndarray):
        return encoded.query.layout
    fm = encoded.feature_map
    (height, width), (inside_height, inside_width) = fm.image_size, fm.encoded_size
    rows = np.arange(height) * inside_height // height // fm.patch_size
    columns = np.arange(width) * inside_width // width // fm.patch_size
    return rows[:, None] * fm.grid[1] + columns


class EvidenceExplorer(StatusWidget):
    """Explains a segmentation, pixel by pixel.

    `explain` and `explain_class` do in code what a click and the list of classes do. `segmentation` is None
    while the memory is empty, and `classes` maps each class to the pixel deepest inside it, largest first.

    Args:
        segmenter: with a method that gives evidence.
        image: (H, W, 3) uint8.
        vocabulary: the classes, or their names.
        top: prototypes to list.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.uint8],
        vocabulary: Vocabulary | Sequence[str],
        top: int = 5,
    ) -> None:
        encoded = segmenter.encode(image)
        self.memory, self.method, self.top = segmenter.memory.snapshot(), segmenter.method, top
        self.segmentation = segmenter.segment(encoded, vocabulary) if len(self.memory) else None
        self.queries = query_map(encoded)
        self.base = fitted_overlay(image, self.segmentation)
        self.classes: dict[str, tuple[int, int]] = {}
        if self.segmentation is not None:
            labels, names = self.segmentation.labels, self.segmentation.names
            classes, pixels = np.unique(labels, return_counts=True)
            largest_first = classes[np.argsort(-pixels, kind="stable")]
            self.classes = {names[c]: deepest_pixel(labels == c) for c in largest_first}

        label = "the answer: click a pixel, or move the cursor with the arrow keys"
        explain = lambda row, column: self.run_safely(self.explain, row, column)  # noqa: E731
        self.canvas = Canvas(self.base, self.queries.shape, label, explain)
        self.go_to = widgets.Dropdown(options=list(self.classes), description="go to", value=None)
        self.go_to.observe(self._chosen, "value")
        self.panel = widgets.HTML(layout={"width": "400px"})
        right = widgets.VBox([self.go_to, self.panel])
        super().__init__(widgets.HBox([titled("the answer", self.canvas), right]))
        self.run_safely(self.explain, *next(iter(self.classes.values()), (0, 0)))

    def explain(self, row: int, column: int) -> dict[str, Any]:
        """Move the cursor to a pixel and show the evidence for its answer.

        Returns:
            {"region": (H, W) bool, the patch or region around the pixel, "winner": the class that won it,
            "score", "prototypes", "rest": as `strongest_prototypes` gives them}.

        Raises:
            ValueError: the pixel is not in the image, the memory is empty, or the method gives no evidence.
        """
        query = int(value_at(self.queries, row, column))
        if self.segmentation is None:
            raise ValueError("the memory is empty, so there is no answer to explain: add images first")
        evidence, names, labels = (
            self.segmentation.evidence,
            self.segmentation.names,
            self.segmentation.labels,
        )
        if evidence is None:
            method = type(self.method).__name__
            raise ValueError(f"{method} gives no evidence: choose a method that retrieves, such as RNS")
        region = self.queries == query
        won = evidence.class_name[(evidence.query == query) & (evidence.prototype_id < 0)]
        winner = str(won[0]) if len(won) else names[np.bincount(labels[region]).argmax()]
        parts = strongest_prototypes(evidence, self.memory, [query], self.top)
        self._show(row, column, region, winner, parts)
        return {"region": region, "winner": winner, **parts}

    def explain_class(self, name: str) -> dict[str, Any]:
        """The same for a pixel in the middle of a class.

        Raises:
            ValueError: no pixel has that class.
        """
        if name not in self.classes:
            raise ValueError(f"no pixel is {name!r}; this answer has: {', '.join(self.classes)}")
        return self.explain(*self.classes[name])

    def _chosen(self, change: Any) -> None:
        if change.new:
            self.run_safely(self.explain_class, change.new)
            self.go_to.value = None  # so that the same class can be chosen again

    def _show(
        self, row: int, column: int, region: NDArray[np.bool_], winner: str, parts: dict[str, Any]
    ) -> None:
        self.canvas.place(row, column)
        self.canvas.draw(outline(self.base, region))
        rest = {"class": "text and the rest", "image_id": "", "weight": parts["rest"]}
        listed = [*parts["prototypes"], rest]
        largest = max(abs(part["weight"]) for part in listed) or 1.0
        rows = "".join(self._list_item(part, largest) for part in listed)
        title = f"<b>{escape(winner)}</b>: score {parts['score']:.3g}, the sum of"
        self.panel.value = f'<div>{title}</div><div role="list">{rows}</div>'
        of_pixel = self.segmentation.names[self.segmentation.labels[row, column]]
        between = "" if of_pixel == winner else f", though the pixel itself is {of_pixel}"
        best = next((p for p in parts["prototypes"] if p["weight"] > 0), None)
        source = f"{best['class']} in {best['image_id']}" if best else "none"
        self.set_status(
            f"row {row}, column {column}: {winner}{between}. The strongest prototype for it: {source}."
        )

    def _list_item(self, part: dict[str, Any], largest: float) -> str:
        """Image, class and source of a prototype, and a bar for its weight, whose sign is in words too."""
        weight, image = part["weight"], ""
        if "prototype_id" in part:
            stored = self.memory.thumbnail(part["prototype_id"])
            image = "no image stored"
            if stored is not None:
                data = base64.b64encode(encode_png(spotlight(*stored))).decode()
                alt = escape(f"{part['class']} in {part['image_id']}", quote=True)
                image = f'<img src="data:image/png;base64,{data}" alt="{alt}">'
        colour, side = (BLUE, "for") if weight >= 0 else (ORANGE, "against")
        width = max(1, 100 * abs(weight) / largest)
        return (
            f'<div role="listitem" class="rk-item"><div class="rk-thumbnail">{image}</div>'
            f"<div><b>{escape(part['class'])}</b> {escape(part['image_id'])}"
            f'<div class="rk-bar" style="background:{colour};width:{width:.0f}%"></div>'
            f"{weight:+.3g} {side}</div></div>"
        )
