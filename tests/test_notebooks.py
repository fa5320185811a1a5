"""Every notebook has the shape all of them share. That it still computes what it holds, nbval checks."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat import v4

from course import build

FOLDER = Path(__file__).parents[1] / "notebooks"
STORY = sorted(FOLDER.glob("[0-9]*.ipynb"))
LESSONS = [*STORY, FOLDER / "_template.ipynb"]
PATHS = [*LESSONS, *sorted((FOLDER / "experiments").glob("*.ipynb"))]
MACHINE = r"(?<![\w.:/])/(?:home|Users|root|tmp|work|usr|opt|var)/[^\s\"']*"
OPENS = ("**You will**\n\n1. ", "\n2. ", "\n**Prerequisites:** ", "\n**Previous:** ", "\n**Time:** ")
CLOSES = r"^## What we learned\n\n- .*^## Exercises?\n\n.*^\*\*Solutions:\*\* .*^\*\*Next:\*\* "


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(nb, tag):
    return [c for c in nb.cells if tag in c.metadata.get("tags", [])]


def code(nb):
    return [c for c in nb.cells if c.cell_type == "code"]


def was_executed_in_a_fresh_kernel(path, nb):
    nbformat.validate(nb)
    assert path.stat().st_size < 400_000
    assert [c.execution_count for c in code(nb)] == list(range(1, len(code(nb)) + 1))
    for c in code(nb):
        expected = "raises-exception" in c.metadata.get("tags", [])
        assert expected or all(o.output_type != "error" for o in c.outputs), c.source


def shows_no_path_of_this_machine(path, nb):
    assert not re.findall(MACHINE, path.read_text())


def opens_with_header_parameters_and_versions_and_closes_with_a_footer(path, nb):
    first, second = code(nb)[:2]
    assert tagged(nb, "header") == [nb.cells[0]] and tagged(nb, "footer") == [nb.cells[-1]]
    assert tagged(nb, "parameters") == [first] and tagged(nb, "versions") == [second]


def has_typed_literal_parameters_that_are_printed(path, nb):
    first, second = code(nb)[:2]
    assert all(re.fullmatch(r"\w+: [^=]+ = .+  # .+", line) for line in first.source.splitlines())
    declared = papermill.inspect_notebook(str(path))
    assert len(declared) == len(first.source.splitlines())
    for about in declared.values():
        ast.literal_eval(about["default"])
    printed = "".join(o.text for o in second.outputs)
    assert "torch " in printed
    assert path not in LESSONS or all(f"{name}=" in printed for name in declared)


def links_to_files(path, nb):
    text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).is_file(), target


def reads_as_all_lessons_do(path, nb):
    if path in LESSONS:
        title, promise = nb.cells[0].source.split("\n\n")[:2]
        assert re.fullmatch(r"# .+: .+", title), "the title holds a promise"
        assert promise.count(". ") == 0 and promise.endswith(".") and not promise.startswith("**")
        for part in OPENS:
            assert part in nb.cells[0].source, part
        assert re.search(CLOSES, nb.cells[-1].source, re.M | re.S)
        assert all(len(c.source.splitlines()) <= 15 for c in code(nb))


def holds_its_exercises(path, nb):
    if path in LESSONS:
        assert [c.source for c in tagged(nb, "exercise")] == [c.source for c in build.cells(path.stem)]


SHAPE = (
    was_executed_in_a_fresh_kernel,
    shows_no_path_of_this_machine,
    opens_with_header_parameters_and_versions_and_closes_with_a_footer,
    has_typed_literal_parameters_that_are_printed,
    links_to_files,
    reads_as_all_lessons_do,
    holds_its_exercises,
)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_has_the_shape_of_all(path):
    nb = read(path)
    for check in SHAPE:
        check(path, nb)


def test_names_are_numbered_in_order_and_each_lesson_links_to_its_neighbours():
    assert set(FOLDER.glob("*.ipynb")) == set(LESSONS)
    assert [int(p.stem[:2]) for p in STORY] == list(range(len(STORY)))
    assert all(re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", p.stem) for p in STORY)
    for before, after in pairwise(STORY):
        first, second = read(before), read(after)
        titles = [nb.cells[0].source.splitlines()[0].removeprefix("# ") for nb in (first, second)]
        assert f"**Next:** [{titles[1]}]({after.name})" in first.cells[-1].source
        assert f"**Previous:** [{titles[0]}]({before.name})" in second.cells[0].source


def changed(nb, **how):
    """A copy of a notebook with one thing wrong."""
    bad = nbformat.from_dict(nb)
    for cell in how.get("tags", ()):
        tagged(bad, cell)[0].metadata.tags.remove(cell)
    for tag, source in how.get("sources", {}).items():
        tagged(bad, tag)[0].source = source
    if "count" in how:
        code(bad)[1].execution_count = how["count"]
    if "output" in how:
        code(bad)[-1].outputs.append(v4.new_output("stream", text=how["output"]))
    return bad


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ({"count": 7}, was_executed_in_a_fresh_kernel),
        ({"output": "x" * 400_000}, was_executed_in_a_fresh_kernel),
        ({"output": "/home/me/photos/a.png"}, shows_no_path_of_this_machine),
        ({"tags": ["footer"]}, opens_with_header_parameters_and_versions_and_closes_with_a_footer),
        ({"tags": ["versions"]}, opens_with_header_parameters_and_versions_and_closes_with_a_footer),
        ({"sources": {"parameters": "k = 4  # no type"}}, has_typed_literal_parameters_that_are_printed),
        ({"sources": {"parameters": "k: int = f(4)  # no literal"}},
         has_typed_literal_parameters_that_are_printed),
        ({"sources": {"header": "# A: b\n\n[gone](gone.ipynb)"}}, links_to_files),
        ({"sources": {"exercise": "pass"}}, holds_its_exercises),
    ],
)  # fmt: skip
def test_each_check_finds_what_it_is_for(tmp_path, how, check):
    path = LESSONS[-1]  # the template
    nb = read(path)
    check(path, nb)
    copy = tmp_path / path.name
    nbformat.write(changed(nb, **how), copy)
    told = path if check is holds_its_exercises else copy
    with pytest.raises((AssertionError, ValueError, SyntaxError)):
        check(told, read(copy))


def test_saving_twice_gives_the_same_bytes(tmp_path):
    source = "import sys\nprint(k, file=sys.stderr, end='\\r')\nprint(k)"
    header = v4.new_markdown_cell("# A: b", metadata={"tags": ["header"]})
    cells = [
        v4.new_code_cell(text, metadata={"tags": [tag]})
        for text, tag in (("k: int = 4", "parameters"), (source, "result"))
    ]
    path = tmp_path / "small.ipynb"
    nbformat.write(build.clean(v4.new_notebook(cells=[header, *cells])), path)
    build.execute(path)
    first = path.read_bytes()
    build.execute(path)
    assert path.read_bytes() == first
    assert [o.name for o in read(path).cells[2].outputs] == ["stdout"]
