"""The training corpus of the bundled CLIP: images and captions of scenes, and nothing else."""

from __future__ import annotations

import json
import re
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_scripts.scenes import DOMAINS, Scene, caption, draw_scene

FIRST_SEED = 10_000_000  # training scenes lie far from those used for support, queries and evaluation
CAPTIONS = 6  # written for each image: any one lists part of what is visible, together most of it

_FRAME = re.compile(r"^(a photo of|a picture of|a snapshot of|this shows|there is) | in view$")
_WEATHER = re.compile(r" (at night|in the dark|in the fog|on a foggy day|in the snow|on a snowy day)$")


def draw_view(seed: int, size: int) -> tuple[Scene, np.random.Generator]:
    """One training scene, and the generator that goes on to draw its captions.

    Images are taken as people take them: nearer than the evaluation scenes, one to five things,
    mostly by day, and often pointed up or down, so that no two kinds of stuff are always seen together:
    captions alone could never tell such a pair apart.
    """
    rng = np.random.default_rng([seed, 1])
    near = float(np.exp(rng.uniform(np.log(0.38), np.log(0.9))))
    most = 2 if near > 0.65 else 5
    domain = DOMAINS[0] if rng.random() < 0.82 else str(rng.choice(DOMAINS[1:]))
    pan = float(rng.uniform(-0.45, 0.45)) if rng.random() < 0.6 else 0.0
    scale = (0.85 * near, near)
    return draw_scene(seed, size, domain=domain, things=(1, most), scale=scale, stray=0.5, pan=pan), rng


def draw_pair(seed: int, size: int) -> tuple[NDArray[np.uint8], list[str]]:
    """One training image with its captions; the annotation is dropped here."""
    scene, rng = draw_view(seed, size)
    return scene.image, [caption(scene, rng, mention=0.75) for _ in range(CAPTIONS)]


def phrases(text: str) -> list[str]:
    """The noun phrases a caption lists.

    >>> phrases("a photo of a bike, two cars and the sea at night")
    ['a bike', 'two cars', 'the sea']
    """
    return re.split(r", | and ", _FRAME.sub("", _WEATHER.sub("", text)))


def _draw_many(job: tuple[int, int, int]) -> tuple[NDArray[np.uint8], list[list[str]]]:
    first, count, size = job
    pairs = [draw_pair(first + i, size) for i in range(count)]
    return np.stack([p for p, _ in pairs]), [c for _, c in pairs]


def build_corpus(
    folder: Path, count: int, size: int, workers: int = 2
) -> tuple[NDArray[np.uint8], list[list[str]]]:
    """Draw the corpus once and keep it on disk; later calls with the same arguments read it.

    Args:
        folder: where `images-<count>-<size>.npy` and the captions beside it are kept.
        count: images, a multiple of 500.
        size: their side in pixels.
        workers: processes that draw.

    Returns:
        (count, size, size, 3) uint8, memory-mapped; and the captions of each.
    """
    images_at, captions_at = (
        folder / f"{kind}-{count}-{size}.{end}" for kind, end in (("images", "npy"), ("captions", "json"))
    )
    if not captions_at.exists():  # written last, so its presence means the images are complete
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(images_at, "w+", np.uint8, (count, size, size, 3))
        jobs = [(FIRST_SEED + i, 500, size) for i in range(0, count, 500)]
        texts: list[list[str]] = []
        with get_context("spawn").Pool(workers) as pool:
            for i, (pictures, captions) in enumerate(tqdm(pool.imap(_draw_many, jobs), "drawing", len(jobs))):
                images[500 * i : 500 * (i + 1)] = pictures
                texts += captions
        images.flush()
        captions_at.write_text(json.dumps(texts))
    return np.load(images_at, mmap_mode="r"), json.loads(captions_at.read_text())
