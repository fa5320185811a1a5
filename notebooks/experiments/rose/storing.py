"""What to store: images, the embedding of every patch, prototypes, or one mean per class."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from course.growth import evaluate_memory
from experiments.claims.benchmark import miou_percent
from experiments.rose.benchmark import RoseBenchmark
from rose_kit.data import Sample
from rose_kit.fusion import KnnClip
from rose_kit.memory import SupportMemory
from rose_kit.pooling import patch_counts
from rose_kit.types import FeatureMap

Shown = Sequence[tuple[Sample, FeatureMap]]
MIN_SHARE = 0.5  # share of a patch's pixels that its class must have to be stored as its patch


def prototypes(bench: RoseBenchmark, shown: Shown) -> SupportMemory:
    """A row per class and image."""
    memory = bench.empty_memory()
    for sample, features in shown:
        memory.add(sample.image_id, features, sample.mask, sample.classes)
    return memory


def patches(bench: RoseBenchmark, shown: Shown) -> SupportMemory:
    """A row per patch that is mostly of one class."""
    vectors, names, ids = [], [], []
    for sample, features in shown:
        values = list(sample.classes)
        share = patch_counts(features, sample.mask, values) / features.patch_size**2  # (N, C)
        for n in np.flatnonzero(share.max(1) > MIN_SHARE):
            vectors.append(features.flat()[n])
            names.append(sample.classes[values[share[n].argmax()]])
            ids.append(f"{sample.image_id} patch {n}")
    return SupportMemory.from_prototypes(
        np.array(vectors), names, ids, fingerprint=bench.encoder().fingerprint
    )


def means(bench: RoseBenchmark, shown: Shown) -> SupportMemory:
    """A row per class: the mean of its prototypes."""
    memory = prototypes(bench, shown)
    names = list(memory.classes)
    images = [f"all of {name}" for name in names]
    means = memory.class_prototypes(names)  # (C, D)
    return SupportMemory.from_prototypes(means, names, images, fingerprint=memory.fingerprint)


def _write_images(shown: Shown, folder: Path) -> None:
    for i, (sample, _) in enumerate(shown):
        Image.fromarray(sample.image).save(folder / f"{i}.image.png")
        Image.fromarray(sample.mask).save(folder / f"{i}.mask.png")


def _read_images(bench: RoseBenchmark, shown: Shown, folder: Path) -> SupportMemory:
    """What images need before they can be searched: to be read, encoded and pooled."""
    read = []
    for i, (sample, _) in enumerate(shown):
        image, mask = (np.asarray(Image.open(folder / f"{i}.{kind}.png")) for kind in ("image", "mask"))
        features = bench.encoder().encoder.encode_image(image, bench.windows)  # timed: not from the cache
        read.append((Sample(sample.image_id, image, mask, sample.classes), features))
    return prototypes(bench, read)


STORES: dict[str, Callable[[RoseBenchmark, Shown], SupportMemory] | None] = {
    "raw images": None,
    "patch embeddings": patches,
    "prototypes": prototypes,
    "class means": means,
}


def storing(bench: RoseBenchmark, fusion: str, seeds: Sequence[int], progress: bool = True) -> pd.DataFrame:
    """Store the same annotated images in each way, and measure each in the same way.

    Args:
        bench: whose scenes.
        fusion: the trained model that answers, beside kNN-CLIP.
        seeds: draws of images and query scenes.
        progress: show a progress bar.

    Returns:
        One line per store and seed: store, seed, images, rows, bytes (on disk, per image), ready_ms
        (from disk to the first search, per image), ask_ms (per query, by ROSE), rose and knn_clip
        (mIoU in percent). Times are of the processor.
    """
    lines, todo = [], [(seed, name) for seed in seeds for name in STORES]
    for seed, name in tqdm(todo, "what to store", disable=not progress):
        examples = bench.examples(bench.setting(fusion), seed)
        samples = [examples.dataset[i] for i in examples.positions]
        shown = [(s, examples.encoder.encode_image(s.image, examples.windows)) for s in samples]
        memory, size, ready = _stored(bench, name, shown)
        began = time.process_time()
        rose = miou_percent(evaluate_memory(bench, bench.rose(fusion), memory, seed))
        took = 1000 * (time.process_time() - began) / bench.queries
        knn_clip = miou_percent(evaluate_memory(bench, KnnClip(), memory, seed))
        lines.append({"store": name, "seed": seed, "images": len(shown), "rows": len(memory),
                      "bytes": size / len(shown), "ready_ms": ready / len(shown), "ask_ms": took,
                      "rose": rose, "knn_clip": knn_clip})  # fmt: skip
    return pd.DataFrame(lines)


def _stored(bench: RoseBenchmark, name: str, shown: Shown) -> tuple[SupportMemory, float, float]:
    """The memory as it comes back from disk, its bytes there, and the ms until it can be searched."""
    make = STORES[name]
    with TemporaryDirectory() as folder:
        path = Path(folder)
        if make is None:
            _write_images(shown, path)
        else:
            path = path / "memory"
            make(bench, shown).save(path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        began = time.process_time()
        memory = _read_images(bench, shown, path) if make is None else SupportMemory.load(path)
        memory.search(np.asarray(shown[0][1].flat()[:1]), 1)
        return memory, size, 1000 * (time.process_time() - began)
