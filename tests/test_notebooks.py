"""Every notebook has the shape all of them share. That it still computes what it holds, nbval checks."""

import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import typer
from nbformat import v4

from course import build
from rose_kit.cli import run

FOLDER = Path(__file__).parents[1] / "notebooks"
STORY = sorted(FOLDER.glob("[0-9]*.ipynb"))
LESSONS = [*STORY, FOLDER / "_template.ipynb"]
PATHS = [*LESSONS, *sorted((FOLDER / "experiments").glob("*.ipynb"))]


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(nb, tag):
    return [c for c in nb.cells if tag in c.metadata.get("tags", [])]


def code(nb):
    return [c for c in nb.cells if c.cell_type == "code"]


def test_names_are_numbered_in_order():
    assert set(FOLDER.glob("*.ipynb")) == set(LESSONS)
    assert [int(p.stem[:2]) for p in STORY] == list(range(16))
    assert all(re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", p.stem) for p in STORY)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_was_executed_in_a_fresh_kernel_and_shows_no_error_and_no_path_of_this_machine(path):
    nb = read(path)
    nbformat.validate(nb)
    assert path.stat().st_size < 400_000
    assert [c.execution_count for c in code(nb)] == list(range(1, len(code(nb)) + 1))
    for c in code(nb):
        expected = "raises-exception" in c.metadata.get("tags", [])
        assert expected or all(o.output_type != "error" for o in c.outputs), c.source
    found = re.findall(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|usr|opt|var)/[^\s\"']*", path.read_text())
    assert not found


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_parameters_are_literals_with_types_and_comments_and_are_printed_with_the_versions(path):
    nb = read(path)
    first, second = code(nb)[:2]
    assert tagged(nb, "parameters") == [first] and tagged(nb, "versions") == [second]
    declared = run.declared_parameters(nb)
    assert len(declared) == len(first.source.splitlines())
    assert all(re.fullmatch(r"\w+: [^=]+ = .+  # .+", line) for line in first.source.splitlines())
    printed = "".join(o.text for o in second.outputs)
    assert "torch " in printed
    assert path not in LESSONS or all(f"{name}=" in printed for name in declared)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_opens_and_closes_as_all_do(path):
    nb = read(path)
    header, footer = nb.cells[0], nb.cells[-1]
    assert "header" in header.metadata.tags and "footer" in footer.metadata.tags
    title, promise = header.source.split("\n\n")[:2]
    assert re.fullmatch(r"# .+: .+", title), "the title holds a promise"
    assert promise.count(". ") == 0 and promise.endswith(".") and not promise.startswith("**")
    for part in ("**You will**\n\n1. ", "\n2. ", "\n**Prerequisites:** ", "\n**Previous:** ", "\n**Time:** "):
        assert part in header.source, part
    closing = r"^## What we learned\n\n- .*^## Exercises?\n\n.*^\*\*Solutions:\*\* .*^\*\*Next:\*\* "
    assert re.search(closing, footer.source, re.M | re.S)
    assert all(len(c.source.splitlines()) <= 15 for c in code(nb))


def test_each_lesson_links_to_its_neighbours():
    for before, after in pairwise(STORY):
        first, second = read(before), read(after)
        titles = [nb.cells[0].source.splitlines()[0].removeprefix("# ") for nb in (first, second)]
        assert f"**Next:** [{titles[1]}]({after.name})" in first.cells[-1].source
        assert f"**Previous:** [{titles[0]}]({before.name})" in second.cells[0].source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_links_lead_to_files(path):
    text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).is_file(), target


# --- how they are saved, and the command that runs them -------------------------------------------------


def cell(source, *tags):
    return v4.new_code_cell(source, metadata={"tags": list(tags)})


def small(tmp_path: Path, source: str) -> Path:
    header = v4.new_markdown_cell("# A: b", metadata={"tags": ["header"]})
    parameters = cell('k: int = 4\nout: str = "x"', "parameters")
    nb = build.clean(v4.new_notebook(cells=[header, parameters, cell(source, "result")]))
    nbformat.write(nb, tmp_path / "small.ipynb")
    return tmp_path / "small.ipynb"


def test_saving_twice_gives_the_same_bytes(tmp_path):
    path = small(tmp_path, "import sys\nprint(k, file=sys.stderr, end='\\r')\nprint(k)")
    build.execute(path)
    first = path.read_bytes()
    build.execute(path)
    assert path.read_bytes() == first
    assert [o.name for o in read(path).cells[2].outputs] == ["stdout"]


def test_run_passes_parameters_and_prints_the_result(tmp_path, capsys):
    path = small(tmp_path, "open(out + '/k.txt', 'w').write(str(k))\nprint(f'k is {k}')")
    run.run(str(path), ["k=7"], tmp_path / "there")
    out = capsys.readouterr().out
    assert "k is 7" in out and "k.txt" in out and "small.ipynb" in out
    assert (tmp_path / "there/k.txt").read_text() == "7"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("01", ["words=dog,tree,grass", "layout=meadow", "count=3", "first=7100"]),
        ("03", ["shots=1", "pool=40", "queries=3", "k=2", "seed=5"]),
    ],
)
def test_a_notebook_of_the_course_runs_with_other_parameters(tmp_path, capsys, name, given):
    run.run(name, given, tmp_path)
    assert "written to" in capsys.readouterr().out
    done = nbformat.read(tmp_path / run.find_notebook(name).name, as_version=4)
    (injected,) = tagged(done, "injected-parameters")
    for one in given:
        key, _, value = one.partition("=")
        assert re.search(rf"""^{key} = ["']?{value}["']?$""", injected.source, re.M), injected.source
    shown = "".join(o.get("text", "") for c in tagged(done, "versions") for o in c.outputs)
    assert all(f"{key}=" in shown for key in (one.partition("=")[0] for one in given))
    assert not [o for c in code(done) for o in c.outputs if o.output_type == "error"]
    assert [p for p in tmp_path.iterdir() if p.suffix == ".png"]  # its figures went where they were told


def test_a_failing_cell_is_named(tmp_path, capsys):
    with pytest.raises(typer.Exit) as stop:
        run.run(str(small(tmp_path, "raise KeyError(k)")), None, tmp_path / "there")
    assert stop.value.exit_code == 1
    assert "cell [3] of small.ipynb failed: KeyError: 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("k=5.5", "'5.5' is not of type int"),
        ("k=True", "'True' is not of type int"),
        ("k=__import__('os')", "is not of type int"),
        ("K=5", "unknown parameter 'K'"),
        ("k", "'k' is not name=value"),
        ("seeds=1,two", "'1,two' is not of type list"),
        ("seeds=1,2.5", "'1,2.5' is not of type list"),
    ],
)
def test_wrong_parameters_are_refused_with_the_valid_ones(given, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        run.parse_parameters([given], {"k": 4, "seeds": [1, 2]})
    assert "k=4, seeds=[1, 2]" in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[]", "\0\xff", '{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'],
)
def test_files_that_are_no_notebooks_are_refused(tmp_path, text):
    (tmp_path / "x.ipynb").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.ipynb is not a notebook: ."):
        run.read_notebook(tmp_path / "x.ipynb")


@pytest.mark.parametrize("source", ["k = 2 * seed", "import os", "k += 1", "k = ("])
def test_parameters_that_are_not_literals_are_refused(source):
    with pytest.raises(ValueError, match="parameter"):
        run.declared_parameters(v4.new_notebook(cells=[cell(source, "parameters")]))


def test_notebooks_are_found_by_number_name_and_path(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    path = small(tmp_path / "notebooks", "1").rename(tmp_path / "notebooks/07_small.ipynb")
    monkeypatch.chdir(tmp_path)
    for name in ("07", "07_small", "07_small.ipynb", "notebooks/07_small.ipynb", str(path)):
        assert run.find_notebook(name).resolve() == path
    with pytest.raises(ValueError, match="no notebook '7'; there are: 07_small"):
        run.find_notebook("7")
