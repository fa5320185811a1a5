"""What a notebook shows of an object at the end of a cell: a drawing or a table, in HTML.

`Displayed` of `rose_kit.types` asks `to_html`; so this module is loaded when the first such object is shown.
"""

import base64
import html
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rose_kit.fusion import pooled_evidence
from rose_kit.memory import SupportMemory
from rose_kit.types import Evidence, Segmentation
from rose_kit.viz.overlay import LabelMap, figure_colours, fit, small_png, spotlight

MOST = 12  # lines of a table
THUMBNAILS = 5  # of a class; their longer side has 64 px


@singledispatch
def to_html(value: Any) -> str:
    """HTML of a segmentation, a memory or evidence; whatever else it is, its text."""
    return f"<pre>{html.escape(repr(value))}</pre>"


@to_html.register
def _(answer: Segmentation) -> str:
    """The classes over their image, and a legend with the share of the pixels that each has."""
    colours = figure_colours([answer.labels], len(answer.names))
    drawn = LabelMap(answer.labels, answer.names, answer.image).draw(colours)
    classes, counts = np.unique(answer.labels, return_counts=True)
    lines = []
    for c in np.argsort(-counts, kind="stable")[:MOST]:
        red, green, blue = colours[classes[c]]
        square = f'<span style="background: rgb({red}, {green}, {blue})">&emsp;</span>'
        lines.append([square, html.escape(answer.names[classes[c]]), f"{counts[c] / answer.labels.size:.1%}"])
    return f'<div style="display: flex; gap: 1em">{_image(drawn)}{_table(lines, len(classes))}</div>'


@to_html.register
def _(memory: SupportMemory) -> str:
    """A line for each class: how many prototypes it has, and where some of them were pooled."""
    lines = []
    for name, count in list(memory.summary().items())[:MOST]:
        pairs = map(memory.thumbnail, memory.ids[memory.class_names == name][:THUMBNAILS].tolist())
        images = [_image(fit(spotlight(*pair), 64)) for pair in pairs if pair is not None]
        lines.append([html.escape(name), str(count), " ".join(images)])
    return f"<p>{html.escape(repr(memory))}</p>{_table(lines, len(memory.classes))}"


@to_html.register
def _(evidence: Evidence) -> str:
    """The prototypes with the largest weights, on average over all patches or regions."""
    queries = np.unique(evidence.query)
    if not len(queries):
        return "<p>Evidence of nothing: no prototype is listed.</p>"
    table = pd.DataFrame(pooled_evidence(evidence, queries).columns()).drop(columns="query")
    listed = table[table["prototype_id"] >= 0].head(MOST).astype({"prototype_id": object})
    listed.loc[-1] = ["text and the rest", "", table["weight"].sum() - listed["weight"].sum(), np.nan]
    shown = listed.to_html(index=False, float_format="{:+.3g}".format, na_rep="")
    return f"<p>What {len(queries)} patches or regions rest on, on average:</p>{shown}"


def _table(lines: list[list[str]], count: int) -> str:
    """Lines of cells; `count` says how many there would be in all."""
    rows = ""
    for line in lines:
        cells = "".join(f'<td style="text-align: left">{cell}</td>' for cell in line)
        rows += f"<tr>{cells}</tr>"
    more = f"<p>and {count - len(lines)} more</p>" if count > len(lines) else ""
    return f"<div><table>{rows}</table>{more}</div>"


def _image(pixels: NDArray[np.uint8]) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(small_png(pixels)).decode()}">'
