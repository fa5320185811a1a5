"""`rose-kit ask IMAGE QUESTION --date D`: segment what only the web can tell, with the trail of how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rose_kit.cli.inputs import parse_day, writable_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rose_kit.scenes.news import NewsWorld
    from rose_kit.web.framework import Trail
    from rose_kit.web.types import Provider

EXAMPLE = (
    'Example: rose-kit ask example "Segment the current regatta champion." --date 2026-03-01 --out mask.png'
)
WINDOW = date(2026, 1, 1), date(2026, 6, 30)  # of the miniature web


def ask(
    image: Annotated[
        str,
        typer.Argument(
            help="A picture (jpg or png), or 'example': one is drawn of the miniature web that shows what "
            "you ask for. `rose-kit nest build` makes many; of its folders the question's web is known."
        ),
    ],
    question: Annotated[str, typer.Argument(help='As you would say it: "Segment the reigning champion."')],
    day: Annotated[
        str | None,
        typer.Option("--date", help="When it is asked [default: today; miniature web: its last day]."),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(help="Where to look: mini, wikimedia, duckduckgo, or a folder of pages and pictures."),
    ] = "mini",
    out: Annotated[
        Path, typer.Option(help="PNG for the mask; MASK.overlay.png is written beside it.")
    ] = Path("mask.png"),
    seed: Annotated[int, typer.Option(help="Of the miniature web.", min=0)] = 1,
    model: Annotated[
        str | None,
        typer.Option(
            help="Language model at OPENAI_BASE_URL (key: OPENAI_API_KEY) [default: none, but rules]."
        ),
    ] = None,
) -> None:
    """Segment what a question means on a day, looking it up if need be.

    Prints the trail: why it was looked up or not, where with date and licence, the answer, what the segmenter
    was asked, and whether the mask looks like pictures of the answer. The miniature web, news about drawn
    scenes from January to June 2026, is served on this machine while the command runs. Without the network
    it, folders, and questions that need no look-up still work.
    """
    from rose_kit.web.llm import NO_MODEL, LanguageModel

    asked = parse_day(day, "--date") if day else None
    check_out(out, image)
    llm = _model(LanguageModel, model) if model else None
    with searching(provider, seed, image, asked) as (where, world):
        when = asked or (WINDOW[1] if world else date.today())
        picture = example(world, question, when) if image == "example" else _read(image)
        from rose_kit.encoder import load_encoder
        from rose_kit.web.framework import RoseFramework
        from rose_kit.web.promptable import OpenVocabulary

        encoder = load_encoder("bundled")
        trail = RoseFramework.of(OpenVocabulary(encoder), where, encoder, llm).ask(picture, question, when)
    typer.echo("\n".join(map(printable, story(trail, question, when))))
    typer.echo(f"model     {model or NO_MODEL}")
    for path in write(out, picture, trail, drawn=image == "example"):
        typer.echo(f"written   {path}")
    if trail.failure:
        raise typer.Exit(1)


@contextmanager
def searching(
    name: str, seed: int, image: str, day: date | None
) -> Iterator[tuple[Provider, NewsWorld | None]]:
    """The place to search, and the miniature world if it is that one, served while the block runs.

    Raises:
        ValueError: neither a known name nor a folder, or a day outside of the miniature web.
    """
    from rose_kit.net import Client
    from rose_kit.web.providers import DuckDuckGo, Folder, Wikimedia

    others = {"wikimedia": Wikimedia, "duckduckgo": DuckDuckGo}
    if name != "mini":
        if name not in others and not Path(name).is_dir():
            raise ValueError(f"provider {name!r} is no folder, nor one of mini, {', '.join(others)}")
        if image == "example":
            raise ValueError(f"an example is of the miniature web, and cannot be looked up by {name!r}")
        yield others[name]() if name in others else Folder(name), None
        return
    from rose_kit.scenes.news import NewsWorld, serve

    world = _world_of(image) or NewsWorld(seed, *WINDOW)
    if day and not world.start <= day <= world.end:
        raise ValueError(f"--date {day} is outside of the miniature web, {world.start} to {world.end}")
    with serve(world) as base:
        api = f"{base}/w/api.php"
        yield Wikimedia(api, api, Client(allow_private=[base.partition("//")[2]])), world


def _world_of(image: str) -> NewsWorld | None:
    """The world of a picture in a folder of `rose-kit nest build`."""
    from rose_kit.bench.nest import load_nest

    folder = Path(image).absolute().parent.parent
    return load_nest(folder).world if (folder / "nest.json").is_file() else None


def example(world: NewsWorld, question: str, day: date) -> NDArray[np.uint8]:
    """A picture of whoever holds the title, or of the product, that a question names, beside another.

    Raises:
        ValueError: it names none; lists those there are.
    """
    from rose_kit.scenes import draw_scene
    from rose_kit.scenes.classes import BY_NAME

    said = question.casefold()
    roles = [r for r in world.roles if r.title.casefold() in said or r.event.casefold() in said]
    made = [p for p in world.products if p.since <= day and p.maker.casefold() in said]
    if not roles and not made:
        makers = sorted({p.maker for p in world.products})
        known = [*(r.title for r in world.roles), *(f"latest product of {maker}" for maker in makers)]
        raise ValueError(
            f"the miniature web knows nothing of {question!r}; ask for the {', the '.join(known)}"
        )
    if roles:
        shown = [roles[0].holder(day), roles[0].holder(day, back=1)]
    else:
        shown = [next((p for p in made if p.name.casefold() in said), max(made, key=lambda p: p.since))]
    cast = [(who.thing, who.individual) for who in shown]
    layout = BY_NAME[shown[0].thing].places[0]
    scenes = (
        draw_scene(2**42 + n, 160, cast=cast, layout=layout, things=(3, 4), scale=(0.4, 0.6))
        for n in range(20)
    )
    return max(scenes, key=lambda s: sum((p.name, p.individual) == cast[0] for p in s.things)).image


def story(trail: Trail, question: str, day: date) -> Iterator[str]:
    """The trail as lines of text."""
    yield f"question  {question!r}, asked on {day}"
    gate = trail.decision
    yield f"gate      {'look up' if gate.retrieve else 'no look-up'} (by {gate.by}): {gate.reason}"
    if found := trail.findings:
        yield f"searched  {found.query!r}: {len(found.passages)} passages"
        for one in found.candidates[:4]:
            alike = f", in the image {found.visible[one.text]:.2f}" if one.text in found.visible else ""
            yield f"candidate {one.text}: confidence {one.confidence:.2f}{alike}"
        how = "text and image agree" if found.agreed else "the image shows nothing like it; the text alone"
        yield f"answer    {found.answer.text} ({how})" if found.answer else "answer    none found"
    for source in trail.sources[:12]:
        yield f"source    {source.date or 'no date'}, {source.licence}: {source.title} <{source.url}>"
    yield f"prompt    {trail.prompt!r}"
    if check := trail.verified:
        pictures = f"{len(check.used)} pictures used, {len(check.rejected)} rejected"
        yield f"verified  {check.action}: {check.reason}; {pictures}"
    share = trail.mask.mask.mean()
    yield f"mask      {share:.1%} of the picture, confidence {trail.mask.confidence:.2f}"


def write(out: Path, picture: NDArray[np.uint8], trail: Trail, drawn: bool = False) -> list[Path]:
    """The mask (0 and 255), an overlay to look at, and the picture if it was drawn; their paths."""
    from PIL import Image

    from rose_kit.ui.overlay import overlay

    name = trail.answer.text if trail.answer else "mask"
    labels = trail.mask.mask.astype(int)
    beside = _beside(out, "overlay")
    Image.fromarray((255 * labels).astype("uint8")).save(out, "PNG")
    Image.fromarray(overlay(picture, labels - 1 + 256 * (labels == 0), [name])).save(beside, "PNG")
    if not drawn:
        return [out, beside]
    Image.fromarray(picture).save(image := _beside(out, "image"), "PNG")
    return [out, beside, image]


def _read(image: str) -> NDArray[np.uint8]:
    from rose_kit.data import read_image

    return read_image(Path(image))


def printable(line: str) -> str:
    """A line without what could steer a terminal: text of the web is shown, never obeyed."""
    return "".join(c if c.isprintable() else " " for c in line)


def check_out(out: Path, image: str) -> None:
    """Refuse to write over the picture that is asked about, or into nowhere.

    Raises:
        ValueError: `out` is a folder, cannot be written, or it or what is written beside it is the picture.
    """
    if out.is_dir():
        raise ValueError(f"--out {str(out)!r} is a folder; name a PNG file")
    writable_folder(out.parent)
    for path in (out, _beside(out, "overlay")):
        if path.exists() and Path(image).exists() and path.samefile(image):
            raise ValueError(f"--out {str(out)!r} would overwrite the picture {image!r}; name another file")


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}.{what}.png")


def _model(make, name: str):
    try:
        return make(name)
    except ImportError as error:
        raise ValueError(str(error)) from error
