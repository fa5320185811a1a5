"""A picture that can be clicked and walked by keys, on plain ipywidgets, and a line that says what happened.

ipywidgets' own pictures hear no clicks. So a grid of bare buttons lies over the picture, in the same cell of
a CSS grid. They are for the mouse and no stops of the Tab key, or there would be hundreds; by keyboard two
numbers, row and column, move the cursor to any pixel.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from rose_kit.pooling import resize_nearest
from rose_kit.types import Segmentation
from rose_kit.viz.overlay import contours, overlay

SIDE = 384  # px on the screen, the longer side of a picture
CELL = 24  # px, about the side of a button
STYLE = """<style>
.rk-cell { border: 0; border-radius: 0; box-shadow: none; cursor: crosshair; }
.rk-cell:hover { outline: 2px solid #000; box-shadow: inset 0 0 0 2px #fff; }
.rk-widget button:focus-visible { outline: 3px solid #0072B2; outline-offset: 1px; }
.rk-widget .widget-html-content, .rk-widget .widget-html { line-height: 1.4; overflow: visible; }
.rk-says { border-left: 4px solid #0072B2; padding: 2px 8px; white-space: normal; }
.rk-says.rk-wrong { border-color: #D55E00; font-weight: bold; }
</style>"""


def fit(pixels: ArrayLike, side: int = SIDE) -> NDArray:
    """Scale a picture or a map to its size on the screen.

    Args:
        pixels: (H, W, 3) uint8, or (H, W) labels, which are never mixed.
        side: px, the longer side of the result.
    """
    pixels = np.asarray(pixels)
    size = tuple(max(1, round(n * side / max(pixels.shape[:2]))) for n in pixels.shape[:2])
    if pixels.ndim == 2 or size[0] >= pixels.shape[0]:
        return resize_nearest(pixels, size)
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BOX))


def drawn(image: NDArray[np.uint8], answer: Segmentation | None, side: int = SIDE) -> NDArray[np.uint8]:
    """An `overlay` at the size of the screen; without an answer, the image alone."""
    return (
        fit(image, side)
        if answer is None
        else overlay(fit(image, side), fit(answer.labels, side), answer.names)
    )


def at(pixels: NDArray, row: int, column: int) -> Any:
    """The value of an (H, W) map at a pixel.

    Raises:
        ValueError: the pixel is not in it.
    """
    height, width = pixels.shape
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"pixel ({row}, {column}) is not in the image of {height} rows and {width} columns")
    return pixels[row, column]


def outline(picture: NDArray[np.uint8], region: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the border of a region: white within black, seen on any ground.

    Args:
        picture: (H, W, 3), at the size of the screen.
        region: (h, w) bool, at any size.
    """
    inside = np.pad(resize_nearest(region, picture.shape[:2]), 1)  # padded: closed at the picture's edge
    edge = contours(inside) | np.roll(contours(inside), 1, (0, 1))
    thick = edge.copy()
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        thick |= np.roll(edge, shift, (0, 1))
    out = picture.copy()
    out[thick[1:-1, 1:-1]] = 0
    out[edge[1:-1, 1:-1]] = 255
    return out


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG, made quickly rather than small."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="png", compress_level=1)
    return data.getvalue()


def picture(pixels: NDArray[np.uint8], says: str) -> widgets.Image:
    """A picture that is only looked at; `says` describes it."""
    height, width = pixels.shape[:2]
    size = {"width": f"{width}px", "height": f"{height}px", "margin": "0", "flex": "0 0 auto"}
    return widgets.Image(value=png(pixels), layout=widgets.Layout(**size))


class Canvas(widgets.VBox):
    """A picture with a cursor.

    Args:
        pixels: (h, w, 3) uint8, at the size of the screen.
        size: (H, W) of the image in its own pixels, which is what row and column count.
        says: describes the picture.
        clicked: called with (row, column) when the picture is clicked.
        moved: the same when the cursor was moved by keys; by default as `clicked`.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        size: tuple[int, int],
        says: str,
        clicked: Callable[[int, int], Any],
        moved: Callable[[int, int], Any] | None = None,
    ) -> None:
        self.size, self.clicked, self.moved = tuple(size), clicked, moved or clicked
        self.cells = tuple(max(1, round(n / CELL)) for n in pixels.shape[:2])  # rows, columns of buttons
        self.image = picture(pixels, says)
        self.image.layout.grid_area = "1 / 1 / 2 / 2"
        self.buttons = self._make_buttons()
        self.row, self.column = (
            self._number(name, n) for name, n in zip(("row", "column"), size, strict=True)
        )
        self.place(size[0] // 2, size[1] // 2)
        stack = widgets.GridBox([self.image, self._grid()], layout=widgets.Layout(flex="0 0 auto"))
        super().__init__([widgets.HBox([self.row, self.column]), stack])

    def _number(self, name: str, most: int) -> widgets.BoundedIntText:
        step = max(1, most // self.cells[name == "column"])
        box = widgets.BoundedIntText(
            0, min=0, max=most - 1, step=step, description=name, tooltip=f"{name} of the cursor, in pixels",
            layout=widgets.Layout(width="130px"), style={"description_width": "55px"},
        )  # fmt: skip
        box.observe(self._typed, "value")
        return box

    def _make_buttons(self) -> list[widgets.Button]:
        bare = widgets.Layout(width="auto", height="auto", min_width="0", margin="0", padding="0")
        clear = widgets.ButtonStyle(button_color="transparent")
        made = []
        for cell in range(self.cells[0] * self.cells[1]):
            row, column = self.centre(cell)
            button = widgets.Button(
                tooltip=f"row {row}, column {column}", layout=bare, style=clear, tabbable=False
            )
            button.add_class("rk-cell")
            button.on_click(lambda _, at=(row, column): self.press(*at))
            made.append(button)
        return made

    def _grid(self) -> widgets.GridBox:
        rows, columns = self.cells
        return widgets.GridBox(self.buttons, layout=widgets.Layout(
            grid_area="1 / 1 / 2 / 2", grid_gap="0", width=self.image.layout.width,
            height=self.image.layout.height, overflow="hidden",
            grid_template_rows=f"repeat({rows}, 1fr)", grid_template_columns=f"repeat({columns}, 1fr)",
        ))  # fmt: skip

    def centre(self, cell: int) -> tuple[int, int]:
        """(row, column) of the pixel under the middle of a button."""
        at = divmod(cell, self.cells[1])
        return tuple(int((i + 0.5) * n / c) for i, n, c in zip(at, self.size, self.cells, strict=True))

    def press(self, row: int, column: int) -> None:
        """What a click there does."""
        self.place(row, column)
        self.clicked(row, column)

    def place(self, row: int, column: int) -> None:
        """Move the cursor without telling anybody."""
        self.quiet = True
        self.row.value, self.column.value = row, column
        self.quiet = False

    def _typed(self, _: Any) -> None:
        if not self.quiet:
            self.place(self.row.value, self.column.value)
            self.moved(self.row.value, self.column.value)

    def draw(self, pixels: NDArray[np.uint8]) -> None:
        """Show another picture of the same size."""
        self.image.value = png(pixels)


class Shell(widgets.VBox):
    """Base of the widgets: one line of text says what happened, also when it went wrong."""

    def __init__(self, *children: widgets.Widget) -> None:
        self.line = widgets.HTML()
        self.said = ""
        super().__init__([widgets.HTML(STYLE, layout={"display": "none"}), *children, self.line])
        self.add_class("rk-widget")

    def tell(self, text: str, wrong: bool = False) -> None:
        """Say something below the widget; screen readers read it out."""
        self.said = text
        role, mark = ("alert", "⚠ ") if wrong else ("status", "")
        kind = "rk-says rk-wrong" if wrong else "rk-says"
        self.line.value = (
            f'<div class="{kind}" role="{role}" aria-live="polite">{mark}{html.escape(text)}</div>'
        )

    def attempt(self, action: Callable, *given: Any, **named: Any) -> None:
        """Do what was clicked; a user's mistake becomes a line of text."""
        try:
            action(*given, **named)
        except ValueError as error:
            self.tell(str(error), wrong=True)

    def __repr__(self) -> str:
        """One line without ids of models, so that a notebook prints the same twice."""
        return f"{type(self).__name__}: {self.said}"
