"""A benchmark as a folder: `images/`, `masks/`, `samples.jsonl`, `nest.json`, and where it all comes from."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_scripts.news.articles import ArticleWorld
from data_scripts.news.nest.engine import Nest
from data_scripts.news.nest.sample import NestSample
from data_scripts.news.world import NewsWorld
from rose_kit.data import DataError, read_image

FORMAT = 1
ARTICLES = "articles"  # folder of the articles that a benchmark was made from, if they are real
_TEXTS = ("id", "question", "answer", "kind", "thing")


def save_nest(nest: Nest, out: str | Path) -> Path:
    """Write a benchmark; the folder appears complete or not at all.

    Args:
        nest: what to write.
        out: a folder that does not exist yet, or is empty.

    Raises:
        ValueError: `out` is a file or holds something.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{str(out)!r} holds something already; name a new or an empty folder")
    beside = out.with_name(out.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    for part in ("images", "masks"):
        (beside / part).mkdir(parents=True)
    with open(beside / "samples.jsonl", "w", encoding="utf-8") as file:
        for s in nest.samples:
            Image.fromarray(s.image).save(beside / "images" / f"{s.id}.png")
            Image.fromarray(s.mask.astype(np.uint8) * 255).save(beside / "masks" / f"{s.id}.png")
            line = {key: getattr(s, key) for key in _TEXTS} | {
                "day": f"{s.day}",
                "hint": s.hint,
                "seed": s.seed,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    world = nest.world
    about = {"format": FORMAT, "seed": world.seed, "start": f"{world.start}", "end": f"{world.end}"}
    if isinstance(world, ArticleWorld):
        about["articles"] = ARTICLES
        shutil.copytree(world.folder, beside / ARTICLES)
    about |= {"split": world.split, "nest_share": nest.nest_share, "discards": nest.discards}
    (beside / "nest.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (beside / "README.md").write_text(_provenance(nest), encoding="utf-8")
    if out.exists():
        out.rmdir()
    return beside.rename(out)


def load_nest(folder: str | Path) -> Nest:
    """Read a benchmark back, checking every sample.

    Raises:
        DataError: no benchmark there, or a file that is missing or not what it should be; names it.
    """
    folder = Path(folder)
    about = _json(_text(folder / "nest.json"), folder / "nest.json")
    try:
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r} is not {FORMAT}")
        window = (date.fromisoformat(about[key]) for key in ("start", "end"))
        if "articles" in about:
            world = ArticleWorld(folder / ARTICLES, about["seed"], about["split"])
        else:
            world = NewsWorld(about["seed"], *window, about["split"])
        share, discards = float(about["nest_share"]), dict(about["discards"])
    except (KeyError, TypeError, ValueError, NotADirectoryError) as error:
        raise DataError(f"{folder / 'nest.json'}: {_say(error)}") from error
    path = folder / "samples.jsonl"
    lines = [(n, line) for n, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
    samples = tuple(_sample(folder, _json(line, f"{path}, line {n}"), n) for n, line in lines)
    twice = [i for i, n in Counter(s.id for s in samples).items() if n > 1]
    if not samples or twice:
        raise DataError(f"{path}: {f'id {twice[0]!r} occurs twice' if twice else 'holds no sample'}")
    return Nest(world, samples, discards, share)


def _sample(folder: Path, line: dict[str, Any], number: int) -> NestSample:
    where = f"{folder / 'samples.jsonl'}, line {number}"
    wrong = [key for key in _TEXTS if not isinstance(line.get(key), str)]
    if wrong:
        raise DataError(f"{where}: {wrong[0]!r} must be text, got {line.get(wrong[0])!r}")
    if Path(line["id"]).name != line["id"]:
        raise DataError(f"{where}: id {line['id']!r} is no file name")
    image = read_image(folder / "images" / f"{line['id']}.png")
    mask = read_image(folder / "masks" / f"{line['id']}.png")[..., 0] > 127
    try:
        rest = {"day": date.fromisoformat(line["day"]), "hint": bool(line["hint"]), "seed": int(line["seed"])}
        return NestSample(**{key: line[key] for key in _TEXTS}, image=image, mask=mask, **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {_say(error)}") from error


def _say(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _json(text: str, where: str | Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: must be an object, got {type(value).__name__}")
    return value


def _provenance(nest: Nest) -> str:
    """The README of a benchmark: what it was made from and how, and what was thrown away."""
    world, counts = nest.world, Counter(s.kind for s in nest.samples)
    plus = f" --plus --nest-share {nest.nest_share:g}" if nest.nest_share < 1 else ""
    options = f"--seed {world.seed} --split {world.split} --count {len(nest)}{plus}"
    if isinstance(world, ArticleWorld):
        title, source = "NEST of articles", f"--articles {ARTICLES}"
        origin = "Texts and images are those of `articles/`, under the licences that are stated there."
    else:
        title, source = "NEST in miniature", f"--start {world.start} --end {world.end}"
        options += f" --size {nest.samples[0].image.shape[0]}"
        origin = (
            "Images are drawn, articles and questions are filled templates: all of it is made up, and CC0."
        )
    lines = [
        f"# {title}: {len(nest)} samples",
        "",
        f"News window {world.start} to {world.end}, seed {world.seed}, phrases of the {world.split} split; "
        f"{nest.nest_share:.0%} need a look-up.",
        "",
        f"    python -m data_scripts.news {source} {options} --out DIR",
        "",
        origin,
        "`samples.jsonl` has one object a line; `masks/` hold 255 where the answer is, 0 elsewhere.",
        "",
        "| kind | samples | proposals discarded, by the first check they failed |",
        "|---|---|---|",
    ]
    for kind, found in nest.discards.items():
        listed = ", ".join(f"{name} {n}" for name, n in found.items()) or "none"
        lines.append(f"| {kind} | {counts[kind]} | {listed} |")
    return "\n".join(lines) + "\n"
