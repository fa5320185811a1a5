"""What to store: pictures, the embedding of every patch, prototypes, or one mean per class."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from course.growth import ask, percent
from course.memory_noise import weighted
from experiments.rose.lab import RoseLab
from rose_kit.data import Sample
from rose_kit.fusion import KnnClip
from rose_kit.memory import SupportMemory
from rose_kit.pooling import patch_counts
from rose_kit.types import FeatureMap

Shown = Sequence[tuple[Sample, FeatureMap]]
MOSTLY = 0.5  # share of a patch's pixels that its class must have to be stored as its patch


def _empty(lab: RoseLab) -> SupportMemory:
    return SupportMemory(lab.encoder().dim, fingerprint=lab.encoder().fingerprint)


def prototypes(lab: RoseLab, shown: Shown) -> SupportMemory:
    """A row per class and picture."""
    memory = _empty(lab)
    for sample, features in shown:
        memory.add(sample.image_id, features, sample.mask, sample.classes)
    return memory


def patches(lab: RoseLab, shown: Shown) -> SupportMemory:
    """A row per patch that is mostly of one class."""
    vectors, names, ids = [], [], []
    for sample, features in shown:
        values = list(sample.classes)
        share = patch_counts(features, sample.mask, values) / features.patch_size**2  # (N, C)
        for n in np.flatnonzero(share.max(1) > MOSTLY):
            vectors.append(features.flat()[n])
            names.append(sample.classes[values[share[n].argmax()]])
            ids.append(f"{sample.image_id} patch {n}")
    return SupportMemory.from_prototypes(np.array(vectors), names, ids, fingerprint=lab.encoder().fingerprint)


def means(lab: RoseLab, shown: Shown) -> SupportMemory:
    """A row per class: the mean of its prototypes."""
    memory = prototypes(lab, shown)
    return weighted(memory, np.ones(len(memory)))


def _write_pictures(shown: Shown, folder: Path) -> None:
    for i, (sample, _) in enumerate(shown):
        Image.fromarray(sample.image).save(folder / f"{i}.image.png")
        Image.fromarray(sample.mask).save(folder / f"{i}.mask.png")


def _read_pictures(lab: RoseLab, shown: Shown, folder: Path) -> SupportMemory:
    """What pictures need before they can be asked: to be read, encoded and pooled."""
    read = []
    for i, (sample, _) in enumerate(shown):
        image, mask = (np.asarray(Image.open(folder / f"{i}.{kind}.png")) for kind in ("image", "mask"))
        features = lab.encoder().encode_image(image, lab.windows)
        read.append((Sample(sample.image_id, image, mask, sample.classes), features))
    return prototypes(lab, read)


STORES: dict[str, Callable[[RoseLab, Shown], SupportMemory] | None] = {
    "raw images": None,
    "patch embeddings": patches,
    "prototypes": prototypes,
    "class means": means,
}


def storing(lab: RoseLab, fusion: str, seeds: Sequence[int], progress: bool = True) -> pd.DataFrame:
    """Store the same annotated pictures in each way, and ask each of them the same.

    Args:
        lab: whose scenes.
        fusion: the trained model that answers, beside kNN-CLIP.
        seeds: draws of pictures and query scenes.
        progress: show a progress bar.

    Returns:
        One line per store and seed: store, seed, pictures, rows, bytes (on disk, per picture), ready_ms
        (from disk to the first question, per picture), ask_ms (per query, by ROSE), rose and knn_clip
        (mIoU in percent). Times are of the processor.
    """
    lines, todo = [], [(seed, name) for seed in seeds for name in STORES]
    for seed, name in tqdm(todo, "what to store", disable=not progress):
        examples = lab.examples(lab.case(fusion), seed)
        samples = [examples.dataset[i] for i in examples.positions]
        shown = [(s, examples.encoder.encode_image(s.image, examples.windows)) for s in samples]
        memory, size, ready = _kept(lab, name, shown)
        began = time.process_time()
        rose = percent(ask(lab, lab.rose(fusion), memory, seed))
        took = 1000 * (time.process_time() - began) / lab.queries
        lines.append({"store": name, "seed": seed, "pictures": len(shown), "rows": len(memory),
                      "bytes": size / len(shown), "ready_ms": ready / len(shown), "ask_ms": took,
                      "rose": rose, "knn_clip": percent(ask(lab, KnnClip(), memory, seed))})  # fmt: skip
    return pd.DataFrame(lines)


def _kept(lab: RoseLab, name: str, shown: Shown) -> tuple[SupportMemory, float, float]:
    """The memory as it comes back from disk, its bytes there, and the ms until it can be asked."""
    make = STORES[name]
    with TemporaryDirectory() as folder:
        path = Path(folder)
        if make is None:
            _write_pictures(shown, path)
        else:
            path = path / "memory"
            make(lab, shown).save(path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        began = time.process_time()
        memory = _read_pictures(lab, shown, path) if make is None else SupportMemory.load(path)
        memory.search(np.asarray(shown[0][1].flat()[:1]), 1)
        return memory, size, 1000 * (time.process_time() - began)
