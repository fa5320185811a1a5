"""Train every fusion on the same scenes, and report on all of them: `rose-kit train-rose`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from rose_kit.bench.claims.run import measure
from rose_kit.bench.rose.claims import rows
from rose_kit.bench.rose.lab import RoseLab
from rose_kit.bench.rose.storing import storing
from rose_kit.bench.rose.trial import summary
from rose_kit.encoder import Encoder
from rose_kit.encoder.base import content_hash
from rose_kit.model.rose import ROSE
from rose_kit.model.training import Lessons, Training, train


def teach(
    lessons: Lessons,
    encoder: Encoder,
    fusions: Sequence[str],
    settings: Training = Training(),  # noqa: B008 (frozen)
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, ROSE]:
    """Train fusions on the same pictures in the same order, and keep them in a folder each."""
    models = {}
    for fusion in fusions:
        models[fusion], losses = train(lessons, encoder, fusion, settings, progress)
        if out is not None:
            about = {"seed": settings.seed, "steps": settings.steps, "pictures": len(lessons.maps)}
            models[fusion].save(out / fusion, losses=losses, **about)
    return models


def trained(encoder: Encoder, fusions: Sequence[str], heads: str) -> dict[str, ROSE]:
    """Models that are there: those of a folder, or those that come with the kit ("bundled").

    Raises:
        ValueError: one is missing, damaged, or of another encoder.
    """
    return {name: ROSE.load(name if heads == "bundled" else Path(heads) / name, encoder) for name in fusions}


def report(
    lab: RoseLab,
    seeds: Sequence[int],
    out: Path,
    claims: bool = True,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Measure, print, and write rose.csv, rose_claims.csv and rose_storing.csv."""
    table = pd.concat([lab.answers(seed) for seed in seeds], ignore_index=True)
    say(_text(pd.DataFrame(summary(table.to_dict("records")))))
    _write(table, out / "rose.csv", say)
    if not claims:
        return
    found = measure(rows(lab), seeds, lab, out / "rose_claims.partial.csv", progress)
    for line in found.itertuples():
        measured = f"{line.effect:+.2f} ± {line.half_width:.2f}"
        say(f"{measured:>16}  {line.expected:>8}  {line.verdict:<13}  {line.claim}: {line.statement}")
    _write(found, out / "rose_claims.csv", say)
    lead = list(lab.models)[-1]
    kept = storing(lab, lead, seeds, progress)
    say(_text(kept.drop(columns="seed").groupby("store", sort=False).mean().reset_index()))
    _write(kept, out / "rose_storing.csv", say)
    for name, model in lab.models.items():
        digest = content_hash(model.state_dict())
        if digest != lab.hashes[name]:
            raise RuntimeError(f"the weights of {name} changed while it was asked")
        say(f"weights of {name} after all that was added: {digest}, unchanged")


def _text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format=lambda x: f"{x:.1f}")


def _write(table: pd.DataFrame, path: Path, say: Callable[[str], None]) -> None:
    table.to_csv(path, index=False, float_format="%.3f")
    say(f"written to {path}")
