"""Train every fusion on the same scenes, load those that are trained, and report on the article's claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.claims.run import measure
from experiments.rose.benchmark import RoseBenchmark
from experiments.rose.claims import claims_of
from experiments.rose.storing import storing
from rose_kit.encoder.base import content_hash
from rose_kit.model import ROSE
from rose_kit.model.training import EncodedDataset, TrainConfig, train


def train_fusions(
    dataset: EncodedDataset,
    fusions: Sequence[str],
    config: TrainConfig = TrainConfig(),  # noqa: B008 (frozen)
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, ROSE]:
    """Train fusions on the same images in the same order, and keep them in a folder each."""
    models = {}
    for fusion in fusions:
        models[fusion], losses = train(dataset, fusion, config, progress)
        if out is not None:
            about = {"seed": config.seed, "steps": config.steps, "images": len(dataset.maps)}
            models[fusion].save(out / fusion, losses=losses, **about)
    return models


def load_trained(fusions: Sequence[str], heads: str) -> dict[str, ROSE]:
    """Models that are there: those of a folder, or those that come with the kit ("bundled").

    Raises:
        ValueError: one is missing or damaged.
    """
    return {name: ROSE.load(name if heads == "bundled" else Path(heads) / name) for name in fusions}


def report_claims(bench: RoseBenchmark, seeds: Sequence[int], out: Path, progress: bool = True) -> None:
    """Measure the article's claims, print and write them."""
    table = measure(claims_of(bench), seeds, bench, out / "rose_claims.partial.csv", progress)
    for line in table.itertuples():
        measured = f"{line.effect:+.2f} ± {line.half_width:.2f}"
        print(f"{measured:>16}  {line.expected:>8}  {line.verdict:<13}  {line.claim}: {line.statement}")
    table.to_csv(out / "rose_claims.csv", index=False, float_format="%.3f")


def report_storing(bench: RoseBenchmark, seeds: Sequence[int], out: Path, progress: bool = True) -> None:
    """Measure what a memory could keep of each image, print and write it."""
    stored = storing(bench, list(bench.models)[-1], seeds, progress)
    print(stored.drop(columns="seed").groupby("store", sort=False).mean().round(1).to_string())
    stored.to_csv(out / "rose_storing.csv", index=False, float_format="%.3f")


def weight_hash(model: ROSE) -> str:
    """Digits that change when a weight does."""
    return content_hash(model.state_dict())
