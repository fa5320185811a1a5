"""Train every fusion on the same scenes, load those that are trained, and report on the article's claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.claims.run import measure
from experiments.rose.claims import rows
from experiments.rose.lab import RoseLab
from experiments.rose.storing import storing
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


def report_claims(lab: RoseLab, seeds: Sequence[int], out: Path, progress: bool = True) -> None:
    """Measure the article's claims and what to store, print and write them."""
    found = measure(rows(lab), seeds, lab, out / "rose_claims.partial.csv", progress)
    for line in found.itertuples():
        measured = f"{line.effect:+.2f} ± {line.half_width:.2f}"
        print(f"{measured:>16}  {line.expected:>8}  {line.verdict:<13}  {line.claim}: {line.statement}")
    found.to_csv(out / "rose_claims.csv", index=False, float_format="%.3f")
    stored = storing(lab, list(lab.models)[-1], seeds, progress)
    print(stored.drop(columns="seed").groupby("store", sort=False).mean().round(1).to_string())
    stored.to_csv(out / "rose_storing.csv", index=False, float_format="%.3f")


def weight_hash(model: ROSE) -> str:
    """Digits that change when a weight does."""
    return content_hash(model.state_dict())
