"""Execute and save notebooks: `python notebooks/course/build.py [NAME ...]`, all of them without a name.

The .ipynb files are the only source, but for their exercises, whose solutions, hints and checks stand in
this folder: from them come the gap in each cell tagged `exercise`, wherever the lesson has it, and a page in
notebooks/solutions. The map at the top of a lesson comes from maps.py, and terms of glossary.md are linked
where a lesson first uses them. Each notebook is formatted, executed in a fresh kernel, stripped of what
differs from run to run, and written back. In JupyterLab, the source of a cell tagged `folded` is collapsed.
The figure of the cell tagged `cover` is saved as a thumbnail for the table of contents. `--no-run` does all
but execute.
"""

from __future__ import annotations

import ast
import base64
import functools
import importlib
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parents[1]
SOLUTIONS, DOCS = FOLDER / "solutions", FOLDER.parent / "docs"
COVER = (340, 200)  # px, width and height at most
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
if str(FOLDER) not in sys.path:  # as it is for a notebook, which runs in its own folder
    sys.path.insert(0, str(FOLDER))

import course  # noqa: E402
from course import maps  # noqa: E402


def module_of(stem: str) -> str:
    """Name of the file with the exercises of a notebook."""
    return "template" if stem == "_template" else f"n{stem[:2]}"


def of(stem: str) -> list[course.Exercise]:
    """The exercises of a notebook, in their order; none where it has no file."""
    name = module_of(stem)
    if not (course.HERE / f"{name}.py").is_file():
        return []
    module = importlib.import_module(f"course.{name}")
    return [
        one for one in course.EXERCISES.values() if inspect.unwrap(one.solution).__module__ == module.__name__
    ]


@functools.cache
def formatted(code: str) -> str:
    """Code as ruff formats it."""
    from ruff import find_ruff_bin  # for developers alone

    command = [find_ruff_bin(), "format", "--line-length", "110", "--stdin-filename", "x.py", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout.strip("\n")


def _parts(one: course.Exercise) -> tuple[str, str]:
    """The function's signature with its docstring, and its body, both indented as in the source."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(one.solution)))
    (node,) = ast.parse(source).body
    lines = source.splitlines()
    doc = node.body[0].end_lineno
    return "\n".join(lines[node.lineno - 1 : doc]), "\n".join(lines[doc : node.end_lineno])


def gap(one: course.Exercise) -> str:
    """The function of an exercise without its body."""
    name = one.solution.__name__
    todo = f"{one.effort}; hint({name!r}) helps"
    return formatted(f"{_parts(one)[0]}\n    raise NotImplementedError({json.dumps(todo)})\n")


def stamp(nb: NotebookNode, stem: str) -> None:
    """Write the gap of each exercise into the cell tagged `exercise` that defines its function.

    Raises:
        ValueError: not exactly one such cell per exercise, or no `check(...)` in a later cell.
    """
    gaps = {one.solution.__name__: gap(one) for one in of(stem)}
    found = []
    for i, c in enumerate(nb.cells):
        if "exercise" in c.metadata.get("tags", []):
            (name,) = re.findall(r"^def (\w+)\(", c.source, re.M)
            found.append(name)
            if name in gaps and any(f"check({name})" in later.source for later in nb.cells[i + 1 :]):
                c.source = gaps[name]
                continue
            raise ValueError(
                f"{stem}: {name} is not in {module_of(stem)}.py, or no cell below says check({name})"
            )
    if sorted(found) != sorted(gaps):
        raise ValueError(f"{stem}: tagged `exercise` are {found}; in {module_of(stem)}.py are {list(gaps)}")


def solution_page(stem: str) -> str:
    """The page of a notebook's solutions: the functions, and the imports that they need."""
    found = of(stem)
    module = sys.modules[f"course.{module_of(stem)}"]
    functions = "\n\n\n".join("\n".join(_parts(one)) for one in found)
    used = {node.id for node in ast.walk(ast.parse(functions)) if isinstance(node, ast.Name)}
    imports = {False: [], True: []}  # of others, and our own: two groups, each sorted in the source
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "course":
            node.names = [a for a in node.names if (a.asname or a.name).split(".")[0] in used]
            if node.names:
                own = getattr(node, "module", "").startswith(("course.", "rose_kit"))
                imports[own].append(ast.unparse(node))
    groups = ["\n".join(group) for group in imports.values() if group]
    head = f'"""Solutions of {stem}, written by course/build.py from course/{module_of(stem)}.py."""'
    return formatted("\n\n".join([head, *groups, functions])) + "\n"


def write_solutions(stems: list[str]) -> None:
    """Write the pages of solutions of these notebooks."""
    SOLUTIONS.mkdir(exist_ok=True)
    for stem in stems:
        if of(stem):
            (SOLUTIONS / f"{stem}.py").write_text(solution_page(stem), encoding="utf-8")


@functools.cache
def glossary() -> dict[str, str]:
    """Each term of glossary.md -> its anchor, longer terms first."""
    page = (FOLDER / "glossary.md").read_text(encoding="utf-8")
    found = {term: anchor for anchor, term in re.findall(r'<a id="([\w-]+)"></a>\*\*(.+?)\*\*', page)}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


# What takes no link on a page of Markdown: code, formulas, HTML, links, headings and rows of tables.
NO_PROSE = r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<[^>]*>|!?\[[^\]]*\]\([^)]*\)|^[#|].*?$"


def link_terms(nb: NotebookNode) -> None:
    """Link each term of the glossary where the prose first has it; the header, the quiz and links stay."""
    page = [
        c
        for c in nb.cells
        if c.cell_type == "markdown" and not {"header", "quiz"} & {*c.metadata.get("tags", [])}
    ]
    for term, anchor in glossary().items():
        to = f"(glossary.md#{anchor})"
        # a word of small letters may begin a sentence; an abbreviation is found as it is written
        word = f"[{term[0]}{term[0].upper()}]{re.escape(term[1:])}" if term.islower() else re.escape(term)
        word = word.replace(r"\ ", r"\s+")
        pattern = re.compile(rf"(?P<no>{NO_PROSE})|(?<![\w-]){word}(?:e?s)?(?![\w-])", re.M | re.S)
        hits = ((c, m) for c in page for m in pattern.finditer(c.source) if not m["no"])
        if any(to in c.source for c in page) or (hit := next(hits, None)) is None:
            continue
        cell, m = hit
        cell.source = f"{cell.source[: m.start()]}[{m[0]}]{to}{cell.source[m.end() :]}"


def write_map(stem: str) -> None:
    """Write the map of a lesson."""
    maps.FOLDER.mkdir(exist_ok=True)
    (maps.FOLDER / f"{stem[:2]}.svg").write_text(maps.svg(stem[:2]), encoding="utf-8")


def clean(nb: NotebookNode) -> NotebookNode:
    """Strip what differs from run to run: ids, timings, widget state, progress bars, kernel details."""
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat, nb.nbformat_minor = 4, 5
    for i, c in enumerate(nb.cells):
        c.id = f"cell-{i:02d}"
        tags = c.metadata.get("tags")
        c.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if "folded" in (tags or []):
            c.metadata.jupyter = {"source_hidden": True}
        if c.cell_type == "code":
            c.outputs = [o for o in c.outputs if not _is_progress(o)]
    return nb


def _is_progress(output: NotebookNode) -> bool:
    bar = output.get("name") == "stderr" and "\r" in output.text
    return bar or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def prepare(path: Path) -> NotebookNode:
    """Write the exercises of a notebook into it, and format it."""
    nb = nbformat.read(path, as_version=4)
    stamp(nb, path.stem)
    if path in FOLDER.glob("[0-9]*.ipynb"):
        link_terms(nb)
        write_map(path.stem)
    nbformat.write(clean(nb), path)
    from ruff import find_ruff_bin

    subprocess.run([find_ruff_bin(), "format", "--quiet", path], check=True)
    return nbformat.read(path, as_version=4)


def execute(path: Path) -> float:
    """Prepare, execute and save one notebook; returns the seconds its execution took."""
    nb = prepare(path)
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


def save_cover(path: Path) -> None:
    """Save the figure of a notebook's cell tagged `cover` in docs/, for the table of contents."""
    for cell in nbformat.read(path, as_version=4).cells:
        if "cover" in cell.metadata.get("tags", []):
            (png,) = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            figure = Image.open(io.BytesIO(base64.b64decode(png)))
            figure.thumbnail(COVER, Image.Resampling.LANCZOS)
            figure.save(DOCS / f"course_{path.stem[:2]}.png", optimize=True)


def main(arguments: list[str]) -> None:
    """Execute the notebooks whose names start with one of those given, or all lessons and experiments."""
    names = tuple(name for name in arguments if name != "--no-run")
    known = [*sorted(FOLDER.glob("*.ipynb")), *sorted((FOLDER / "experiments").glob("*.ipynb"))]
    chosen = [path for path in known if not names or path.name.startswith(names)]
    if not chosen:
        sys.exit(f"no notebook is named {', '.join(names)}; there are: {', '.join(p.stem for p in known)}")
    for path in chosen:
        if "--no-run" in arguments:
            prepare(path)
            continue
        seconds = execute(path)
        print(f"{path.name:<32} {seconds:5.1f} s {path.stat().st_size / 1e3:6.0f} kB")
        save_cover(path)
        if path.stem == "00_quickstart":
            shutil.copy(FOLDER.parent / "runs" / path.stem / "quickstart.png", DOCS / "quickstart.png")
    write_solutions([path.stem for path in chosen])


if __name__ == "__main__":
    main(sys.argv[1:])
