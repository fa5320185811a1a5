"""The shell of the course: the lines that all notebooks share, their pictures, and notebooks/README.md.

What a notebook is about stands in its own header (title, promise, objectives, prerequisites, minutes).
From these come the links between notebooks, the table of contents and the paths through it. The picture
of a notebook is the figure of the cell tagged `cover`; without that tag, its largest one.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import exercises
import nbformat
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
README = FOLDER / "README.md"
CONTENTS = "[all notebooks](README.md)"
TIME = re.compile(
    r"about (\d+) min to read, (?:(\d+) min for the exercises?, )?(\d+) s to run on 2 CPU cores"
)
Link = Path | None


@dataclass(frozen=True)
class Step:
    """One notebook of a path.

    Args:
        number: of the notebook.
        until: the heading to stop before; all of it without one.
        minutes: for such a part; those of the header for the whole.
        practice: whether the exercises belong to the path.
        why: what it gives to those who take the path.
    """

    number: int
    why: str
    until: str = ""
    minutes: int = 0
    practice: bool = False


WORKSHOP = [
    Step(0, "the whole idea once, with pictures"),
    Step(1, "what a patch feature is, and zero-shot", until="MaskCLIP's trick", minutes=15),
    Step(2, "a mask becomes a prototype, prototypes a memory", until="What is stored", minutes=20),
    Step(
        3,
        "search, votes, and text beside them",
        until="A leak: the picture that remembers itself",
        minutes=25,
    ),
    Step(
        9,
        "teach it one thing of your own (a `Lab` draws the scenes)",
        until="How ambiguous are individuals?",
        minutes=15,
    ),
    Step(14, "your own photographs", until="A pretrained CLIP", minutes=25),
]
STUDENT = [
    Step(0, "the whole idea once", practice=True),
    Step(1, "perception: what patches say", practice=True),
    Step(2, "memory: prototypes", practice=True),
    Step(3, "retrieval: nearest prototypes, votes, leaks", practice=True),
    Step(4, "fusion: two opinions and how to weigh them", practice=True),
    Step(5, "RNS from its samples to its answer", practice=True),
    Step(6, "regions in place of patches", practice=True),
    Step(7, "classes that lack pictures or names", practice=True),
    Step(8, "a memory that grows, and its mistakes", practice=True),
    Step(9, "individuals", practice=True),
    Step(10, "the same idea, trained", practice=True),
    Step(12, "knowledge from the web, with dates", practice=True),
    Step(14, "your own photographs", practice=True),
]
RESEARCHER = [
    Step(0, "the pipeline and its words"),
    Step(4, "what there is to beat, and how close it lies together"),
    Step(5, "RNS, and why it is solved rather than stopped"),
    Step(7, "partial support: where methods part"),
    Step(10, "ROSE: fusions that are trained"),
    Step(11, "a million prototypes, several processes"),
    Step(13, "NEST: novel and emerging entities"),
    Step(15, "your own fusion on the leaderboard", practice=True),
]
PATHS = {
    "A workshop of two hours": (
        WORKSHOP,
        "Everyone sees the whole idea and ends with pictures of their own.",
    ),
    "A course for students": (STUDENT, "In order, with the exercises; each builds on those before it."),
    "For researchers": (RESEARCHER, "From what is there to a method of your own, measured fairly."),
}


def story() -> list[Path]:
    """The numbered notebooks, in order."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def read(path: Path) -> NotebookNode:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)


def title(path: Path) -> str:
    """The first heading of a notebook, without its marks."""
    return read(path).cells[0].source.splitlines()[0].lstrip("# ")


def minutes(nb: NotebookNode) -> tuple[int, int]:
    """Minutes to read it and for its exercises, from the `**Time:**` line.

    Raises:
        ValueError: the line is missing or has another form.
    """
    if not (found := TIME.search(nb.cells[0].source)):
        raise ValueError(
            f"no `**Time:** {TIME.pattern}` in the header: {nb.cells[0].source.splitlines()[-1]!r}"
        )
    return int(found[1]), int(found[2] or 0)


# --- stamping ------------------------------------------------------------------------------------------


def stamp(nb: NotebookNode, path: Path, before: Link, after: Link) -> None:
    """Rewrite what all notebooks share: links, minutes of exercises, solutions, and the exercises."""
    exercises.stamp(nb, path.stem)
    linked = {
        label: f"**{label}:** " + (f"[{title(p)}]({p.name})" if p else "none")
        for label, p in (("Previous", before), ("Next", after))
    }
    practice = sum(one.minutes for one in exercises.of(path.stem))
    for c in nb.cells:
        tags, lines = c.metadata.get("tags", []), c.source.split("\n")
        if "header" in tags:
            at = _line(lines, "**Previous:**")
            lines[at] = " | ".join([linked["Previous"], linked["Next"], CONTENTS])
            if found := TIME.search(c.source):
                kept = f"about {found[1]} min to read, "
                kept += f"{practice} min for the exercises, " if practice else ""
                at = _line(lines, "**Time:**")
                lines[at] = TIME.sub(f"{kept}{found[3]} s to run on 2 CPU cores", lines[at])
        if "footer" in tags:
            for one in exercises.of(path.stem)[:1]:
                lines = [s.replace("the function above", f"`{one.solution.__name__}` above") for s in lines]
            lines = [s for s in lines if not s.startswith(("**Solutions:**", "**Solution:**"))]
            at = _line(lines, "**Next:**")
            while at and not lines[at - 1].strip():
                at -= 1
            page = f"solutions/{path.stem}.py"
            solved = [f"**Solutions:** [{page}]({page}); each `check` above says what an answer lacks.", ""]
            lines[at:] = ["", *(solved if practice else []), f"{linked['Next']} | {CONTENTS}"]
        c.source = "\n".join(lines)


def _line(lines: list[str], mark: str) -> int:
    """Position of the line that begins with a mark; the end if none does, which is added then."""
    for i, line in enumerate(lines):
        if line.startswith(mark):
            return i
    lines += ["", mark]
    return len(lines) - 1


# --- pictures and the table of contents ----------------------------------------------------------------


def figure(nb: NotebookNode) -> bytes | None:
    """The PNG of the cell tagged `cover`, or the largest; None where there is none."""
    found = []
    for c in nb.cells:
        for output in c.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                found.append(("cover" in c.metadata.get("tags", []), len(png), png))
    return base64.b64decode(max(found)[2]) if found else None


def thumbnail(png: bytes, size: tuple[int, int] = (340, 200), limit: int = 40_000) -> bytes:
    """A small PNG of a figure, under `limit` bytes."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail(size, Image.Resampling.LANCZOS)
    for colours in (256, 128, 64, 32, 16):
        buffer = io.BytesIO()
        picture.quantize(colours).save(buffer, "PNG", optimize=True)
        if buffer.tell() < limit:
            break
    return buffer.getvalue()


def picture_of(path: Path) -> Path:
    """Where the picture of a notebook lies."""
    return ROOT / "docs" / f"course_{path.stem[:2]}.png"


def headings(nb: NotebookNode) -> list[str]:
    """The second-level headings between header and footer."""
    body = "\n".join(c.source for c in nb.cells[1:-1] if c.cell_type == "markdown")
    return re.findall(r"^## (?:\d+\. )?(.+)$", body, re.M)


def path_table(steps: list[Step], notebooks: dict[int, Path]) -> tuple[list[str], int]:
    """Markdown rows of a path, and its minutes.

    Raises:
        ValueError: a heading to stop before is not in its notebook.
    """
    rows, total = ["| | notebook | minutes | what it gives |", "|---|---|---|---|"], 0
    for step in (s for s in steps if s.number in notebooks):
        path = notebooks[step.number]
        nb = read(path)
        reading, practice = minutes(nb)
        if step.until and step.until not in headings(nb):
            raise ValueError(
                f"{path.name} has no heading {step.until!r}; there are: {', '.join(headings(nb))}"
            )
        spent = min(step.minutes or reading, reading) + (practice if step.practice else 0)
        part = f", until *{step.until}*" if step.until else ", with the exercises" if step.practice else ""
        rows.append(
            f"| {step.number:02d} | [{title(path).split(':')[0]}]({path.name}){part} | {spent} | {step.why} |"
        )
        total += spent
    return [*rows, f"| | **in all** | **{total}** | |"], total


def contents() -> str:
    """The text of notebooks/README.md."""
    notebooks = {int(path.stem[:2]): path for path in story()}
    lines = [
        "# The course",
        "",
        "<!-- Written by `python tools/notebooks.py`, from the notebooks themselves. -->",
        "",
        "Each notebook opens with what it promises, and closes with what we learned and with exercises: a",
        "gap to fill in, a `check` that says in words what is wrong with an answer, and a solution in",
        "[solutions](solutions). They run on two CPU cores, without a GPU and without a network; `make lab`",
        "opens them.",
        "",
        "## Three ways through it",
    ]
    for name, (steps, says) in PATHS.items():
        rows, total = path_table(steps, notebooks)
        hours = f"{total // 60} h {total % 60:02d} min"
        lines += ["", f"### {name}", "", f"{says} Together {hours}.", "", *rows]
    lines += ["", "## All notebooks", "", "| | | |", "|---|---|---|"]
    for number, path in notebooks.items():
        nb = read(path)
        promise = nb.cells[0].source.split("\n\n")[1].replace("\n", " ")
        reading, practice = minutes(nb)
        name = title(path)
        picture = f"![A figure of {path.stem}](../docs/{picture_of(path).name})"
        time = f"{reading} min" + (f", exercises {practice} min" if practice else "")
        lines.append(f"| {number:02d} | {picture} | **[{name}]({path.name})**<br>{promise}<br>{time} |")
    lines += ["", "[_template.ipynb](_template.ipynb) is the shape that all of them share."]
    return "\n".join(lines) + "\n"


def refresh(paths: list[Path]) -> None:
    """Write the pictures of these notebooks, and the table of contents."""
    for path in paths:
        if path.stem[0] != "_" and (png := figure(read(path))):
            picture_of(path).write_bytes(thumbnail(png))
    README.write_text(contents(), encoding="utf-8")
