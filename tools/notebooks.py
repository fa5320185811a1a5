"""Execute and save the notebooks: `python tools/notebooks.py [NAME ...]` (all of them without a name).

The .ipynb files are the only source, but for their exercises (see exercises.py). For each, in order, this
stamps what all share (see contents.py), formats its code, executes it in a fresh kernel, strips whatever
differs from run to run, and writes it back. Then it renews notebooks/README.md and the pictures in docs/
that it shows, and the one that 00_quickstart writes for the README of the project. `--no-run` only stamps.
`cell` and `notebook` make the first version of a new one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import contents
import exercises
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
Link = Path | None


def cell(kind: str, source: str, tags: Iterable[str] = ()) -> NotebookNode:
    """Make one cell.

    Args:
        kind: "markdown" or "code".
        source: its text.
        tags: "header", "footer" (the opening and closing text), "parameters", "versions", "result"
            (what `rose-kit run` prints at the end), "cover" (the figure that stands for the notebook),
            "exercise" (written by exercises.py), "nbval-ignore-output", "raises-exception".

    Raises:
        ValueError: the kind is another.
    """
    makers = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    if kind not in makers:
        raise ValueError(f"unknown kind of cell {kind!r}; known: {', '.join(makers)}")
    metadata = {"tags": list(tags)} if tags else {}
    return makers[kind](source.strip("\n"), metadata=metadata)


def notebook(cells: Iterable[tuple]) -> NotebookNode:
    """Make a notebook from (kind, source) or (kind, source, tags) cells."""
    return clean(v4.new_notebook(cells=[cell(*parts) for parts in cells]))


def clean(nb: NotebookNode) -> NotebookNode:
    """Strip what differs from run to run: ids, timings, widget state, progress bars, kernel details."""
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat, nb.nbformat_minor = 4, 5
    for i, c in enumerate(nb.cells):
        c.id = f"cell-{i:02d}"
        tags = c.metadata.get("tags")
        c.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if c.cell_type == "code":
            c.outputs = [o for o in c.outputs if not _is_progress(o)]
    return nb


def _is_progress(output: NotebookNode) -> bool:
    bar = output.get("name") == "stderr" and "\r" in output.text
    return bar or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def stamp(path: Path, before: Link = None, after: Link = None) -> None:
    """Stamp what all notebooks share into one of them, and format it."""
    nb = nbformat.read(path, as_version=4)
    contents.stamp(nb, path, before, after)
    nbformat.write(clean(nb), path)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=True)


def execute(path: Path, before: Link = None, after: Link = None) -> float:
    """Stamp, format, execute and save one notebook; returns the seconds its execution took."""
    stamp(path, before, after)
    nb = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(
        nb,
        timeout=600,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # of the kernel, whose start-up notes are for servers
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    nbformat.write(clean(nb), path)
    return time.perf_counter() - start


def main(arguments: list[str]) -> None:
    """Execute the notebooks whose names start with one of those given, or all of them and the template."""
    names = [name for name in arguments if name != "--no-run"]
    story = contents.story()
    neighbours = {p: (a, b) for p, a, b in zip(story, [None, *story], [*story[1:], None], strict=False)}
    neighbours[FOLDER / "_template.ipynb"] = (None, None)
    chosen = [p for p in neighbours if not names or p.name.startswith(tuple(names))]
    if not chosen:
        sys.exit(f"no notebook is named {names}; there are: {', '.join(p.stem for p in neighbours)}")
    for path in chosen:
        if "--no-run" in arguments:
            stamp(path, *neighbours[path])
            continue
        seconds = execute(path, *neighbours[path])
        print(f"{path.name:<32} {seconds:5.1f} s {path.stat().st_size / 1e3:6.0f} kB")
        if path.stem == "00_quickstart":
            shutil.copy(ROOT / "runs" / path.stem / "quickstart.png", ROOT / "docs" / "quickstart.png")
    exercises.write_solutions([path.stem for path in chosen])
    contents.refresh(chosen)


if __name__ == "__main__":
    main(sys.argv[1:])
