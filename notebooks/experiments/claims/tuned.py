"""Methods with the settings that a recorded table of `experiments/tuning.py` has as chosen."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rose_kit.fusion import Method
from rose_kit.model import methods

Options = Mapping[str, Any]
NO_TEXT = " without text"  # after a method's name: it has the text of no class
# Rows that stand as their authors have them and are not tuned: name -> method and options.
PUBLISHED: dict[str, tuple[str, Options]] = {
    "rns-published": ("rns-published", {}),
    "freeda-published": ("freeda", {"global_share": 1.0, "sigmoid": True}),
}


def tuned_method(path: Path, name: str, encoder: str, answered: str = "patches") -> Method:
    """A method with the setting that a recorded table has as chosen.

    Args:
        path: of the table, see `add_to_table`.
        name: of the method in the table.
        encoder, answered: the rows to read.

    Raises:
        ValueError: the table has no such row.
    """
    table = pd.read_csv(path, keep_default_na=False)
    rows = table[(table.method == name) & (table.encoder == encoder) & (table.answered == answered)]
    rows = rows[rows.chosen]
    if not len(rows):
        raise ValueError(f"{path} has no setting of {name!r} chosen for {encoder!r}, {answered!r}")
    texts = [text.split("=") for text in rows.settings.item().split()]
    return make_method(name, {option: ast.literal_eval(value) for option, value in texts})


def make_method(name: str, options: Options) -> Method:
    """A method by its name in the table, "NAME without text" and `PUBLISHED` ones too."""
    kind, published = PUBLISHED.get(name, (name.removesuffix(NO_TEXT), {}))
    return methods.make(kind, **published, **options)
