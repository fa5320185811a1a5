"""Every notebook has the shape all of them share. That it still computes what it holds, nbval checks."""

import base64
import io
import re
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
import typer
from PIL import Image

from rose_kit.cli import run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import contents  # noqa: E402

import notebooks as tool  # noqa: E402

FOLDER = ROOT / "notebooks"
STORY = sorted(FOLDER.glob("[0-9]*.ipynb"))
PATHS = [*STORY, FOLDER / "_template.ipynb"]


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def nb(path):
    return nbformat.read(path, as_version=4)


def tagged(nb, tag):
    return [c for c in nb.cells if tag in c.metadata.get("tags", [])]


def code(nb):
    return [c for c in nb.cells if c.cell_type == "code"]


def test_names_are_numbered_in_order():
    assert set(FOLDER.glob("*.ipynb")) == set(PATHS)
    assert [int(p.stem[:2]) for p in STORY] == list(range(16))
    assert all(re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", p.stem) for p in STORY)


def test_is_valid_and_small(path, nb):
    nbformat.validate(nb)
    assert path.stat().st_size < 400_000


def test_was_executed_in_order_in_a_fresh_kernel(nb):
    assert [c.execution_count for c in code(nb)] == list(range(1, len(code(nb)) + 1))


def test_shows_no_error_and_no_path_of_this_machine(path, nb):
    for c in code(nb):
        expected = "raises-exception" in c.metadata.get("tags", [])
        assert expected or all(o.output_type != "error" for o in c.outputs), c.source
    found = re.findall(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|usr|opt|var)/[^\s\"']*", path.read_text())
    assert not found


def test_cells_are_short(nb):
    for c in code(nb):
        assert len(c.source.splitlines()) <= 15, c.source


def test_parameters_are_literals_with_types_and_comments(nb):
    (cell,) = tagged(nb, "parameters")
    assert code(nb)[0] is cell
    declared = run.declared_parameters(nb)
    assert len(declared) == len(cell.source.splitlines())
    assert all(re.fullmatch(r"\w+: [^=]+ = .+  # .+", line) for line in cell.source.splitlines())


def test_versions_and_parameters_in_effect_are_printed(nb):
    (cell,) = tagged(nb, "versions")
    assert code(nb)[1] is cell
    printed = "".join(o.text for o in cell.outputs)
    assert "torch " in printed
    assert all(f"{name}=" in printed for name in run.declared_parameters(nb))


def test_opens_as_all_do(nb):
    header = nb.cells[0]
    assert "header" in header.metadata.tags
    title, promise = header.source.split("\n\n")[:2]
    assert re.fullmatch(r"# .+: .+", title), "the title holds a promise"
    assert promise.count(". ") == 0 and promise.endswith(".") and not promise.startswith("**")
    for part in ("**You will**\n\n1. ", "\n2. ", "\n**Prerequisites:** ", "\n**Previous:** ", "\n**Time:** "):
        assert part in header.source, part
    assert re.search(rf"^\*\*Time:\*\* {contents.TIME.pattern}$", header.source, re.M)


def test_closes_as_all_do(nb):
    footer = nb.cells[-1]
    assert "footer" in footer.metadata.tags
    assert re.search(
        r"^## What we learned\n\n- .*^## Exercises?\n\n.*^\*\*Solutions:\*\* .*^\*\*Next:\*\* ",
        footer.source,
        re.M | re.S,
    )


def test_each_links_to_its_neighbours():
    for before, after in pairwise(STORY):
        first, second = (nbformat.read(p, as_version=4) for p in (before, after))
        assert f"**Next:** [{contents.title(after)}]({after.name})" in first.cells[-1].source
        assert f"**Previous:** [{contents.title(before)}]({before.name})" in second.cells[0].source


def test_what_all_share_is_as_stamped(path, nb):
    story = dict(
        zip(STORY, [(a, b) for a, b in zip([None, *STORY], [*STORY[1:], None], strict=False)], strict=True)
    )
    before = [c.source for c in nb.cells]
    contents.stamp(nb, path, *story.get(path, (None, None)))
    assert [c.source for c in nb.cells] == before, "python tools/notebooks.py --no-run"


def test_links_lead_to_files(path, nb):
    text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (FOLDER / target).is_file(), target


# --- the table of contents ------------------------------------------------------------------------------


def test_the_table_of_contents_is_what_the_notebooks_say():
    assert contents.README.read_text(encoding="utf-8") == contents.contents(), (
        "python tools/notebooks.py --no-run"
    )
    for target in re.findall(r"\]\(([^)#:]+)\)", contents.README.read_text()):
        assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("path", STORY, ids=lambda path: path.stem)
def test_each_picture_is_a_figure_of_its_notebook(path):
    nb, picture = contents.read(path), contents.picture_of(path)
    (cover,) = tagged(nb, "cover")
    assert any("image/png" in o.get("data", {}) for o in cover.outputs), "the cell tagged cover draws nothing"
    assert picture.stat().st_size < 40_000
    fresh = Image.open(io.BytesIO(contents.thumbnail(contents.figure(nb))))
    kept = Image.open(picture)
    assert kept.size == fresh.size, "python tools/notebooks.py --no-run"
    pair = [np.asarray(one.convert("RGB"), float) for one in (kept, fresh)]
    assert np.abs(pair[0] - pair[1]).mean() < 4, "python tools/notebooks.py --no-run"


@pytest.mark.parametrize("name", contents.PATHS)
def test_the_minutes_of_a_path_add_up(name):
    steps, _ = contents.PATHS[name]
    notebooks = {int(path.stem[:2]): path for path in STORY}
    assert {step.number for step in steps} <= set(notebooks)
    assert [step.number for step in steps] == sorted({step.number for step in steps}), "in order, each once"
    rows, total = contents.path_table(steps, notebooks)
    spent = [int(row.split("|")[3]) for row in rows[2:-1]]
    assert len(spent) == len(steps) and sum(spent) == total and f"**{total}**" in rows[-1]
    for step, minutes in zip(steps, spent, strict=True):
        reading, practice = contents.minutes(contents.read(notebooks[step.number]))
        whole = reading + practice * step.practice
        assert 0 < minutes < whole if step.until else minutes == whole
    section = contents.README.read_text().split(f"### {name}\n")[1].split("\n### ")[0]
    assert f"Together {total // 60} h {total % 60:02d} min." in section
    assert total <= 120 or "two hours" not in name


def test_paths_and_times_that_do_not_fit_their_notebook_are_refused():
    with pytest.raises(
        ValueError, match="01_dense_features.ipynb has no heading 'Nowhere'; there are: A vector"
    ):
        contents.path_table([contents.Step(1, "", until="Nowhere", minutes=5)], {1: STORY[1]})
    with pytest.raises(ValueError, match="no `\\*\\*Time:\\*\\*"):
        contents.minutes(tool.notebook([("markdown", "# A: b\n\n**Time:** a while", ["header"])]))


def test_stamping_makes_what_is_missing_and_keeps_the_rest(tmp_path):
    head = "# A: b\n\nA promise.\n\n**Time:** about 5 min to read, 7 s to run on 2 CPU cores"
    cells = [("markdown", head, ["header"]), ("code", "1"), ("markdown", "## Exercise\n\nNone.", ["footer"])]
    nb = tool.notebook(cells)
    contents.stamp(nb, tmp_path / "03_x.ipynb", None, STORY[1])
    assert nb.cells[0].source.startswith(head.replace("read, ", "read, 15 min for the exercises, "))
    assert (
        nb.cells[0].source.endswith("](README.md)")
        and "**Previous:** none | **Next:** [" in nb.cells[0].source
    )
    assert [c.metadata.get("tags") for c in nb.cells[2:4]] == [["exercise"]] * 2
    assert re.search(r"None\.\n\n\*\*Solutions:\*\* .*\n\n\*\*Next:\*\* ", nb.cells[-1].source)
    once = [c.source for c in nb.cells]
    contents.stamp(nb, tmp_path / "03_x.ipynb", None, STORY[1])
    assert [c.source for c in nb.cells] == once


def test_a_picture_is_the_tagged_figure_and_small():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)

    def png(array):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return buffer.getvalue()

    def drawn(array, tags):
        made = tool.cell("code", "show()", tags)
        data = {"image/png": base64.b64encode(png(array)).decode()}
        made.outputs = [nbformat.v4.new_output("display_data", data=data)]
        return made

    small = np.zeros((100, 200, 3), np.uint8)
    nb = nbformat.v4.new_notebook(cells=[drawn(small, ["cover"]), drawn(noise, [])])
    assert contents.figure(nb) == png(small)
    nb.cells[0].metadata["tags"] = []
    assert contents.figure(nb) == png(noise)
    assert len(contents.thumbnail(png(noise))) < 40_000
    assert contents.figure(nbformat.v4.new_notebook()) is None


# --- the tool that saves them, and the command that runs them -------------------------------------------


def small(tmp_path: Path, source: str, tags=("result",)) -> Path:
    header = ("markdown", "# A: b", ["header"])
    parameters = ("code", 'k: int = 4\nout: str = "x"', ["parameters"])
    nb = tool.notebook([header, parameters, ("code", source, list(tags))])
    nbformat.write(nb, tmp_path / "small.ipynb")
    return tmp_path / "small.ipynb"


def test_saving_twice_gives_the_same_bytes(tmp_path):
    path = small(tmp_path, "import sys\nprint(k, file=sys.stderr, end='\\r')\nprint(k)")
    tool.execute(path)
    first = path.read_bytes()
    tool.execute(path)
    assert path.read_bytes() == first
    assert [o.name for o in nbformat.read(path, as_version=4).cells[2].outputs] == ["stdout"]


def test_the_tool_refuses_an_unknown_kind_of_cell():
    with pytest.raises(ValueError, match="'markdwn'; known: markdown, code"):
        tool.cell("markdwn", "")


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
        run.declared_parameters(tool.notebook([("code", source, ["parameters"])]))


def test_notebooks_are_found_by_number_name_and_path(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    path = small(tmp_path / "notebooks", "1").rename(tmp_path / "notebooks/07_small.ipynb")
    monkeypatch.chdir(tmp_path)
    for name in ("07", "07_small", "07_small.ipynb", "notebooks/07_small.ipynb", str(path)):
        assert run.find_notebook(name).resolve() == path
    with pytest.raises(ValueError, match="no notebook '7'; there are: 07_small"):
        run.find_notebook("7")
