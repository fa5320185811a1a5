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
        self.memory, self.method, self.top = segmenter.memory.copy(), segmenter.method, top
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
        self.canvas = Canvas(self.base, self.queries.shape, label, self.safely(self.explain))
        self.go_to = widgets.Dropdown(options=list(self.classes), description="go to", value=None)
        self.go_to.observe(self._chosen, "value")
        self.panel = widgets.HTML(layout={"width": "400px"})
        right = widgets.VBox([self.go_to, self.panel])
        super().__init__(widgets.HBox([titled("the answer", self.canvas), right]))
        self.safely(self.explain)(*next(iter(self.classes.values()), (0, 0)))

    def explain(self, row: int, column: int) -> dict[str, Any]:
        """Move the cursor to a pixel and show the evidence for its answer.

        Returns:
            {"region": (H, W) bool, the patch or region around the pixel, "winner": the class that won it,
            "score", "prototypes", "rest": as `strongest_prototypes` gives them}.

        Raises:
            ValueError: the pixel is not in the image, the memory is empty, or the method gives no evidence.
        """
        query, answer = int(value_at(self.queries, row, column)), self.segmentation
        if answer is None:
            raise ValueError("the memory is empty, so there is no answer to explain: add images first")
        evidence, names, labels = answer.evidence, answer.names, answer.labels
        if evidence is None:
            method = type(self.method).__name__
            raise ValueError(f"{method} gives no evidence: choose a method that retrieves, such as RNS")
        region = self.queries == query
        won = evidence.class_name[(evidence.query == query) & (evidence.prototype_id < 0)]
        winner = str(won[0]) if len(won) else names[np.bincount(labels[region]).argmax()]
        parts = strongest_prototypes(evidence, self.memory, [query], self.top)
        self.canvas.place(row, column)
        self.canvas.draw(outline(self.base, region))
        self.panel.value = self._as_list(winner, **parts)
        own = names[labels[row, column]]
        between = "" if own == winner else f", though the pixel itself is {own}"
        supporting = [p for p in parts["prototypes"] if p["weight"] > 0]
        source = "{class} in {image_id}".format(**supporting[0]) if supporting else "none"
        self.set_status(
            f"row {row}, column {column}: {winner}{between}. Strongest prototype for it: {source}."
        )
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
            self.safely(self.explain_class)(change.new)
            self.go_to.value = None  # so that the same class can be chosen again

    def _as_list(self, winner: str, score: float, prototypes: list[dict[str, Any]], rest: float) -> str:
        """Image, class and source of each prototype, and a bar for its weight, whose sign is in words too."""
        items, largest = [], max(abs(rest), *(abs(p["weight"]) for p in prototypes), 1e-9)
        for p in [*prototypes, {"class": "text and the rest", "image_id": "", "weight": rest}]:
            name, image_id, weight = escape(p["class"]), escape(p["image_id"]), p["weight"]
            stored = self.memory.thumbnail(p["prototype_id"]) if "prototype_id" in p else None
            data = base64.b64encode(encode_png(spotlight(*stored))).decode() if stored else ""
            image = f'<img src="data:image/png;base64,{data}" alt="{name} in {image_id}">' if data else ""
            colour, side = (BLUE, "for") if weight >= 0 else (ORANGE, "against")
            bar = f"background:{colour};width:{max(1, 100 * abs(weight) / largest):.0f}%"
            bar = f'<div class="rk-bar" style="{bar}"></div>{weight:+.3g} {side}'
            thumbnail = f'<div class="rk-thumbnail">{image}</div>'
            text = f"<div><b>{name}</b> {image_id}{bar}</div>"
            items.append(f'<div role="listitem" class="rk-item">{thumbnail}{text}</div>')
        title = f"<div><b>{escape(winner)}</b>: score {score:.3g}, the sum of</div>"
        return f'{title}<div role="list">{"".join(items)}</div>'
