"""The map at the top of each lesson: the stages of the pipeline as an SVG, those of the lesson marked."""

from __future__ import annotations

from course import HERE

FOLDER = HERE.parent / "maps"
WHOLE = ("00", "14")  # lessons about all stages but the web framework
STAGES = {  # left and top in pixels, what the stage gives, and the lessons about it
    "Perception": (62, 44, "features of patches", "01"),
    "Retrieval": (224, 44, "nearest examples", "03 11"),
    "Fusion": (386, 44, "examples and names", "04 10 15"),
    "Prediction": (548, 44, "a class per patch", "05 07 10"),
    "Regions": (62, 138, "sharper borders", "06"),
    "Memory": (224, 138, "annotated examples", "02 07 08 09 11"),
    "Web framework": (548, 138, "look up, then check", "12 13"),
}
WIDTH, HEIGHT = 138, 66  # of a box
WORDS = {"image": (26, 82), "mask": (730, 82), "class names": (455, 176)}
ARROWS = ["M48 77H60", "M200 77H222", "M362 77H384", "M524 77H546", "M686 77H708"]
ARROWS += ["M131 138V112", "M293 138V112", "M455 162V112", "M548 171H500", "M617 138V112"]
INK, PAPER, MARK, LINE = "#1a1a1a", "#ffffff", "#0b4f8a", "#767676"


def stages(lesson: str) -> list[str]:
    """The stages that a lesson is about, by its number such as "02"."""
    whole = list(STAGES)[:-1] if lesson in WHOLE else []
    return whole or [name for name, (*_, lessons) in STAGES.items() if lesson in lessons.split()]


def here(lesson: str) -> str:
    """The sentence above the map."""
    return f"You are here: {'the whole pipeline' if lesson in WHOLE else ' and '.join(stages(lesson))}"


def link(lesson: str) -> str:
    """The map as an image of Markdown, with what it shows in words."""
    words = (
        "Map: an image passes perception, retrieval, fusion and prediction, and leaves as a mask. Regions "
        "join perception, memory feeds retrieval, and class names feed fusion. The web framework looks names "
        f"up and checks the mask. {here(lesson)}."
    )
    return f"![{words}](maps/{lesson}.svg)"


def svg(lesson: str) -> str:
    """The map with the stages of a lesson marked, on white paper, so that a dark page does not matter."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 220" width="760" height="220" role="img">',
        f"<title>{here(lesson)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>',
        f'<rect x="1" y="1" width="758" height="218" rx="10" fill="{PAPER}" stroke="{LINE}"/>',
        '<g font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="13" text-anchor="middle" '
        f'fill="{INK}">',
        *(f'<path d="{d}" stroke="{LINE}" stroke-width="2" marker-end="url(#tip)"/>' for d in ARROWS),
        *(f'<text x="{x}" y="{y}">{word}</text>' for word, (x, y) in WORDS.items()),
        f'<text x="380" y="28" font-size="16" font-weight="bold" fill="{MARK}">{here(lesson)}</text>',
    ]
    for name, (left, top, gives, lessons) in STAGES.items():
        marked = name in stages(lesson)
        x, box, text = left + WIDTH // 2, MARK if marked else PAPER, PAPER if marked else INK
        parts += [
            f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{box}" '
            f'stroke="{LINE}"/>',
            f'<text x="{x}" y="{top + 21}" font-size="16" font-weight="bold" fill="{text}">{name}</text>',
            f'<text x="{x}" y="{top + 40}" fill="{text}">{gives}</text>',
            f'<text x="{x}" y="{top + 57}" fill="{text}">lesson {lessons}</text>',
        ]
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"
