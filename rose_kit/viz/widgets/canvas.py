"""What the widgets are made of: an image that hears the mouse and the keys, and a line of status below it."""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

from rose_kit.types import Segmentation
from rose_kit.viz.overlay import SIDE, fit, overlay


def fitted_overlay(
    image: NDArray[np.uint8], segmentation: Segmentation | None, side: int = SIDE
) -> NDArray[np.uint8]:
    """An `overlay` at the size of the screen; without a segmentation, the image alone."""
    image = fit(image, side)
    return overlay(image, fit(segmentation.labels, side), segmentation.names) if segmentation else image


def value_at(pixels: NDArray, row: int, column: int) -> Any:
    """The value of an (H, W) map at a pixel.

    Raises:
        ValueError: the pixel is not in it.
    """
    height, width = pixels.shape
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"pixel ({row}, {column}) is not in the image of {height} rows and {width} columns")
    return pixels[row, column]


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG, made quickly rather than small."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="png", compress_level=1)
    return data.getvalue()


class Canvas(anywidget.AnyWidget):
    """An image, and in it a cursor if anything is to be called when that moves.

    Args:
        pixels: (h, w, 3) uint8, at the size of the screen.
        size: (H, W) of the image in its own pixels, which is what row and column count.
        label: describes the image to a screen reader.
        moved: called with (row, column) when the arrow keys have moved the cursor.
        stroked: called with the pixels [[row, column], ...] of a click or a drag; Enter and Space are clicks.
            By default, `moved` is called with the last.
    """

    _esm = Path(__file__).with_name("canvas.js")
    _css = Path(__file__).with_name("canvas.css")
    png = traitlets.Bytes().tag(sync=True)
    size = traitlets.Tuple().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    active = traitlets.Bool().tag(sync=True)
    cursor = traitlets.Tuple().tag(sync=True)

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        size: tuple[int, int],
        label: str,
        moved: Callable[[int, int], Any] | None = None,
        stroked: Callable[[list[list[int]]], Any] | None = None,
    ) -> None:
        super().__init__(size=size, label=label, active=moved is not None)
        self.png, self.cursor = encode_png(pixels), (size[0] // 2, size[1] // 2)
        self._moved, self._placing = moved, False
        self._stroked = stroked or (lambda points: moved(*points[-1]))
        self.observe(self._on_cursor, "cursor")
        self.on_msg(self._on_stroke)

    def place(self, row: int, column: int) -> None:
        """Move the cursor, and call nothing."""
        self._placing = True
        self.cursor = (row, column)
        self._placing = False

    def draw(self, pixels: NDArray[np.uint8]) -> None:
        """Show another image of the same size."""
        self.png = encode_png(pixels)

    def _on_cursor(self, _: Any) -> None:
        if not self._placing:
            self._moved(*self.cursor)

    def _on_stroke(self, _: Any, content: dict[str, Any], __: Any) -> None:
        self._stroked(content["stroke"])


class StatusWidget(widgets.VBox):
    """Base of the widgets: a line of text says what happened, also when it went wrong."""

    def __init__(self, *children: widgets.Widget) -> None:
        self.status = ""
        self.line = widgets.HTML()
        super().__init__([*children, self.line])
        self.add_class("rk-widget")

    def set_status(self, text: str, error: bool = False) -> None:
        """Write a line below the widget; screen readers read it out."""
        self.status = text
        css, role, mark = ("rk-status rk-error", "alert", "⚠ ") if error else ("rk-status", "status", "")
        text = mark + html.escape(text)
        self.line.value = f'<div class="{css}" role="{role}" aria-live="polite">{text}</div>'

    def safely(self, action: Callable) -> Callable:
        """The same action for the front end to call: a user's mistake becomes a line of text."""

        def act(*args: Any, **kwargs: Any) -> None:
            try:
                action(*args, **kwargs)
            except ValueError as error:
                self.set_status(str(error), error=True)

        return act

    def __repr__(self) -> str:
        """One line without ids of models, so that a notebook prints the same twice."""
        return f"{type(self).__name__}: {self.status}"


def titled(title: str, canvas: Canvas) -> widgets.VBox:
    """A canvas under its title."""
    column = widgets.VBox([widgets.HTML(f"<b>{title}</b>"), canvas])
    column.layout.margin = "0 12px 0 0"
    return column
