"""`rose-kit ask IMAGE QUESTION --date D`: segment what only the web can tell, with the trail of how."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rose_kit.cli.inputs import parse_day, writable_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rose_kit.web.framework import Trail
    from rose_kit.web.types import Provider

EXAMPLE = (
    'Example: rose-kit ask example "Segment the current regatta champion." --date 2026-03-01 --out mask.png'
)


def ask(
    image: Annotated[
        str,
        typer.Argument(
            help="A picture (jpg or png), or 'example': where the provider can draw one that shows what you "
            "ask for, as the miniature web can."
        ),
    ],
    question: Annotated[str, typer.Argument(help='As you would say it: "Segment the reigning champion."')],
    day: Annotated[
        str | None,
        typer.Option("--date", help="When it is asked [default: today, or the last that is covered]."),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(help="Where to look: mini, wikimedia, duckduckgo, or a folder of pages and pictures."),
    ] = "mini",
    out: Annotated[
        Path, typer.Option(help="PNG for the mask; MASK.overlay.png is written beside it.")
    ] = Path("mask.png"),
    model: Annotated[
        str | None,
        typer.Option(
            help="Language model at OPENAI_BASE_URL (key: OPENAI_API_KEY) [default: none, but rules]."
        ),
    ] = None,
) -> None:
    """Segment what a question means on a day, looking it up if need be.

    Prints the trail: why it was looked up or not, where with date and licence, the answer, what the segmenter
    was asked, and whether the mask looks like pictures of the answer. The provider "mini" is a miniature web
    of the first half of 2026, served on this machine while the command runs. Without the network it, folders,
    and questions that need no look-up still work.
    """
    from rose_kit.web.llm import NO_MODEL, LanguageModel

    asked = parse_day(day, "--date") if day else None
    check_out(out, image)
    llm = _model(LanguageModel, model) if model else None
    where = make_provider(provider, image)
    first, last = getattr(where, "days", (date.min, date.max))
    if asked and not first <= asked <= last:
        raise ValueError(f"--date {asked} is outside of {provider!r}, which covers {first} to {last}")
    when = asked or min(last, date.today())
    picture = where.example(question, when) if image == "example" else _read(image)
    from rose_kit.encoder import load_encoder
    from rose_kit.web.framework import RoseFramework
    from rose_kit.web.promptable import OpenVocabulary

    encoder = load_encoder("bundled")
    with where if hasattr(where, "__enter__") else nullcontext(where):
        trail = RoseFramework.of(OpenVocabulary(encoder), where, encoder, llm).ask(picture, question, when)
    typer.echo("\n".join(map(printable, story(trail, question, when))))
    typer.echo(f"model     {model or NO_MODEL}")
    for path in write(out, picture, trail, drawn=image == "example"):
        typer.echo(f"written   {path}")
    if trail.failure:
        raise typer.Exit(1)


def make_provider(name: str, image: str) -> Provider:
    """The place to search: a registered one by its name, or a folder.

    Raises:
        ValueError: neither a known name nor a folder, or an example is asked of one that has none.
    """
    from rose_kit.registry import providers
    from rose_kit.web.providers import Folder

    if name in providers.names():
        factory = providers.find(name)
        where = factory(image=image) if "image" in inspect.signature(factory).parameters else factory()
    elif Path(name).is_dir():
        where = Folder(name)
    else:
        raise ValueError(f"provider {name!r} is no folder, nor one of {', '.join(providers.names())}")
    if image == "example" and not hasattr(where, "example"):
        raise ValueError(f"provider {name!r} has no example; name a picture")
    return where


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

    from rose_kit.viz.overlay import overlay

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
