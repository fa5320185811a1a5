"""Every notebook has the shape all of them share. That it still computes what it holds, nbval checks."""

import ast
import re
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import nbformat
import papermill
import pytest

from course import build, maps

FOLDER = Path(__file__).parents[1] / "notebooks"
STORY = sorted(FOLDER.glob("[0-9]*.ipynb"))
LESSONS = [*STORY, FOLDER / "_template.ipynb"]
PATHS = [*LESSONS, *sorted((FOLDER / "experiments").glob("*.ipynb"))]
MACHINE = r"(?<![\w.:/])/(?:home|Users|root|tmp|work|usr|opt|var)/[^\s\"']*"


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(nb, tag):
    return [c for c in nb.cells if tag in c.metadata.get("tags", [])]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_in_a_fresh_kernel_and_is_fit_to_publish(path):
    nb = read(path)
    nbformat.validate(nb)
    code = [c for c in nb.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < 400_000
    assert not re.findall(MACHINE, path.read_text())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_typed_literal_parameters_and_the_versions(path):
    nb = read(path)
    parameters, versions = [c for c in nb.cells if c.cell_type == "code"][:2]
    assert tagged(nb, "header") == [nb.cells[0]] and tagged(nb, "footer") == [nb.cells[-1]]
    assert tagged(nb, "parameters") == [parameters] and tagged(nb, "versions") == [versions]
    assert all(re.fullmatch(r"\w+: [^=]+ = .+  # .+", line) for line in parameters.source.splitlines())
    declared = papermill.inspect_notebook(str(path))
    assert len(declared) == len(parameters.source.splitlines())
    for parameter in declared.values():
        ast.literal_eval(parameter["default"])
    printed = "".join(o.text for o in versions.outputs)
    assert "torch " in printed
    assert path not in LESSONS or all(f"{name}=" in printed for name in declared)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_names_the_parameter_that_it_cannot_take(path, tmp_path, monkeypatch):
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    code = [c.source for c in read(path).cells if c.cell_type == "code"]
    last = next(i for i, source in enumerate(code) if "check_parameters(\n" in source)
    declared = papermill.inspect_notebook(str(path))
    defaults = {name: ast.literal_eval(about["default"]) for name, about in declared.items()}
    checked = set(re.findall(r"^    (\w+)=\(", code[last], re.M))
    for name, default in defaults.items():
        wrong = {int: [-1, 2.5, 10**12], float: [-1.0, "a"], list: [[], [-1]], str: ["no such"]}
        if type(default) in (int, float, list) and name != "folders":
            assert name in checked or name in ("seeds", "fusions", "methods")  # checked by what takes them
        for value in wrong.get(type(default), ()) if name in checked else ():
            space = {"__name__": "a notebook"}
            with warnings.catch_warnings():
                exec(code[0], space)
                space |= {"out": str(tmp_path), name: value}
                with pytest.raises(ValueError, match=rf"\b{name}\b"):
                    exec("\n".join(code[2 : last + 1]), space)


RUNS = [
    ("14_your_images", "segments=0", "segments must be a whole number from 10 to 5000, got 0"),
    ("experiments/pipeline", "sizes=tiny", "'tiny'. Known: VOC size, ADE size"),
]


@pytest.mark.parametrize(("name", "parameter", "said"), RUNS, ids=[name for name, *_ in RUNS])
def test_a_wrong_parameter_ends_a_run_in_one_line(refused, tmp_path, name, parameter, said):
    refused("run", name, "-p", parameter, "--out", tmp_path, said=[f"{Path(name).name}.ipynb", said])


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_holds_its_exercises_as_their_source_has_them(path):
    nb = read(path)
    build.stamp(nb, path.stem)
    if path in STORY:
        build.link_terms(nb)
        assert (maps.FOLDER / f"{path.stem[:2]}.svg").read_text(encoding="utf-8") == maps.svg(path.stem[:2])
        assert maps.link(path.stem[:2]) in nb.cells[0].source
    assert nb == read(path)


@pytest.mark.parametrize("path", [p for p in STORY if tagged(read(p), "quiz")], ids=lambda path: path.stem)
def test_a_quiz_has_three_questions_whose_answers_are_folded(path):
    (quiz,) = tagged(read(path), "quiz")
    _, *questions = re.split(r"^\*\*\d\.", quiz.source, flags=re.M)
    assert len(questions) == 3
    for question in questions:
        options = re.findall(r"^- ([A-D])\. ", question, re.M)
        ((right, why),) = re.findall(
            r"\n\n<details>\n<summary>Answer</summary>\n\n\*\*([A-D])\.\*\* (.+?)\n\n</details>",
            question,
            re.S,
        )
        assert options == list("ABCD")[: len(options)] and len(options) > 2 and right in options
        assert all(re.search(rf"\b{other}\b", why) for other in options if other != right)


def text_of(page):
    if page.suffix != ".ipynb":
        return page.read_text(encoding="utf-8")
    return "\n\n".join(c.source for c in read(page).cells if c.cell_type == "markdown")


def anchors(page):
    """Where a link into a page can go: ids, and headings as GitHub names them."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", prose, re.M))
    return {slug.replace(" ", "-") for slug in slugs} | set(re.findall(r'id="([^"]+)"', prose))


ROOT = FOLDER.parent
MARKDOWN = [*ROOT.glob("*.md"), *FOLDER.rglob("*.md"), *(ROOT / "docs").glob("*.md")]
PAGES = sorted({*PATHS, *(page for page in MARKDOWN if ".ipynb_checkpoints" not in page.parts)})


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_anchors_that_are_there(page):
    for target in re.findall(r"\]\(([^):\s]+)\)", text_of(page)):
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_lessons_are_numbered_in_order_and_link_to_their_neighbours():
    assert [int(path.stem[:2]) for path in STORY] == list(range(len(STORY)))
    for before, after in pairwise(STORY):
        first, second = read(before), read(after)
        titles = [nb.cells[0].source.splitlines()[0].removeprefix("# ") for nb in (first, second)]
        assert f"**Next:** [{titles[1]}]({after.name})" in first.cells[-1].source
        assert f"**Previous:** [{titles[0]}]({before.name})" in second.cells[0].source
