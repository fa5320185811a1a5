"""Exercises from one source: `python tools/exercises.py` writes what it says, `--check` only compares.

The source is notebooks/course: solutions with docstrings, hints and checks. From it come, in each notebook,
a cell with a gap and a cell that checks it (both tagged `exercise`, before the footer), and a page in
notebooks/solutions. With `--check`, whatever differs is named and the exit status is 1.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4
from ruff import find_ruff_bin

FOLDER = Path(__file__).parents[1] / "notebooks"
SOLUTIONS = FOLDER / "solutions"
if str(FOLDER) not in sys.path:  # as it is for a notebook, which runs in its own folder
    sys.path.insert(0, str(FOLDER))

import course  # noqa: E402


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
    command = [find_ruff_bin(), "format", "--line-length", "110", "--stdin-filename", "x.py", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout.strip("\n")


def _parts(one: course.Exercise) -> tuple[str, str]:
    """The function's signature with its docstring, and its body, both indented as in the source."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(one.solution)))
    (node,) = ast.parse(source).body
    lines = source.splitlines()
    doc = node.body[0].end_lineno
    return "\n".join(lines[node.lineno - 1 : doc]), "\n".join(lines[doc : node.end_lineno])


def stub(one: course.Exercise) -> str:
    """The cell with the gap."""
    return formatted(f"{_parts(one)[0]}\n    raise NotImplementedError({json.dumps(one.hint)})\n")


def cells(stem: str) -> list[NotebookNode]:
    """The cells of a notebook's exercises: a gap and its check, one after the other."""
    made = []
    for i, one in enumerate(of(stem)):
        call = f"check({one.solution.__name__})"
        checking = call if i else f"from course import check\n\n{call}"
        made += [v4.new_code_cell(text, metadata={"tags": ["exercise"]}) for text in (stub(one), checking)]
    return made


def stamp(nb: NotebookNode, stem: str) -> None:
    """Put the exercises before the footer, in place of those that are there."""
    names = {one.solution.__name__ for one in of(stem)}
    old = [c for c in nb.cells if _is_exercise(c, names)]
    made = cells(stem)
    if [c.source for c in old] == [c.source for c in made] and all(
        "exercise" in c.metadata.tags for c in old
    ):
        return
    kept = [c for c in nb.cells if not _is_exercise(c, names)]
    at = next((i for i, c in enumerate(kept) if "footer" in c.metadata.get("tags", [])), len(kept))
    nb.cells = [*kept[:at], *made, *kept[at:]]


def _is_exercise(cell: NotebookNode, names: set[str]) -> bool:
    """Whether a cell is tagged so, or defines a gap of the same name."""
    if "exercise" in cell.metadata.get("tags", []):
        return True
    gap = cell.cell_type == "code" and "raise NotImplementedError(" in cell.source
    return gap and any(f"def {name}(" in cell.source for name in names)


def solution_page(stem: str) -> str:
    """The page of a notebook's solutions: the functions, and the imports that they need."""
    found = of(stem)
    module = sys.modules[f"course.{module_of(stem)}"]
    functions = "\n\n\n".join("\n".join(_parts(one)) for one in found)
    used = {node.id for node in ast.walk(ast.parse(functions)) if isinstance(node, ast.Name)}
    imports = {False: [], True: []}  # of others, and of the package: two groups, each sorted in the source
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "course":
            node.names = [a for a in node.names if (a.asname or a.name).split(".")[0] in used]
            if node.names:
                imports[getattr(node, "module", "").startswith("rose_kit")].append(ast.unparse(node))
    groups = ["\n".join(group) for group in imports.values() if group]
    head = f'"""Solutions of {stem}, written by tools/exercises.py from course/{module_of(stem)}.py."""'
    return formatted("\n\n".join([head, *groups, functions])) + "\n"


def write_solutions(stems: list[str]) -> None:
    """Write the pages of solutions of these notebooks."""
    SOLUTIONS.mkdir(exist_ok=True)
    for stem in stems:
        if of(stem):
            (SOLUTIONS / f"{stem}.py").write_text(solution_page(stem), encoding="utf-8")


def drift() -> list[str]:
    """What differs from the source, in words; nothing if all agrees."""
    said = []
    for path in sorted(FOLDER.glob("*.ipynb")):
        names = {one.solution.__name__ for one in of(path.stem)}
        found = [c.source for c in nbformat.read(path, as_version=4).cells if _is_exercise(c, names)]
        wanted = [c.source for c in cells(path.stem)]
        if found != wanted:
            said.append(f"{path.name}: its exercises are not those of course/{module_of(path.stem)}.py")
        page = SOLUTIONS / f"{path.stem}.py"
        if wanted and (not page.is_file() or page.read_text(encoding="utf-8") != solution_page(path.stem)):
            said.append(f"solutions/{page.name}: not what course/{module_of(path.stem)}.py says")
    return said


def main(arguments: list[str]) -> None:
    """Write notebooks and solutions, or compare them (`--check`)."""
    if arguments not in ([], ["--check"]):
        sys.exit(f"unknown arguments {arguments}; known: --check")
    if not arguments:
        paths = sorted(FOLDER.glob("*.ipynb"))
        for path in paths:
            nb = nbformat.read(path, as_version=4)
            stamp(nb, path.stem)
            nbformat.write(nb, path)
        write_solutions([path.stem for path in paths])
    if said := drift():
        sys.exit("\n".join([*said, "to mend it: python tools/exercises.py"]))
    print("exercises, solutions and their source agree")


if __name__ == "__main__":
    main(sys.argv[1:])
