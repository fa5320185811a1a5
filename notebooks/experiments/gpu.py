"""What a GPU does with many images together: the adapter, the encoder, and both from image to labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence

from experiments.solvers import SIZES, clustered_world
from rose_kit.adapter import RNS, SOLVERS
from rose_kit.adapter.rns import class_relevance
from rose_kit.encoder import OpenClipEncoder, Windows
from rose_kit.fusion import retrieve
from rose_kit.memory import SupportMemory
from rose_kit.segmenter import Segmenter
from rose_kit.types import Vocabulary, unit

COLUMNS = [
    "card",
    "what",
    "size",
    "batch",
    "ms_per_image",
    "images_per_s",
    "times_published",
    "agree_percent",
]
Row = dict[str, Any]


def card(device: torch.device) -> str:
    """The name of a GPU, or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def seconds(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Of the quickest of several runs, once warm, until the device is done."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    taken = []
    for _ in range(repeats + 1):
        wait()
        start = time.perf_counter()
        function()
        wait()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def adapter_rows(
    device: torch.device, sizes: Sequence[str], batches: Sequence[int], steps: int, repeats: int
) -> list[Row]:
    """The published loop on one image, and the default solver on several, on the same samples.

    `agree_percent`: patches that have the label of the default solver on the CPU.
    """
    rows = []
    for size in sizes:
        one, published, method = {}, RNS.published(steps=steps), RNS()
        problems = []
        for seed in range(max(batches)):
            query, memory, vocabulary = clustered_world(*SIZES[size], seed=seed)
            nearest = retrieve(query.features, memory, vocabulary, method.k)
            samples = method.samples(query, nearest, memory.class_prototypes(vocabulary.names), vocabulary)
            weight = samples.weight(class_relevance(query.image_feature, vocabulary, method.tau))
            problems.append((query.features, samples.features, samples.target, weight, method.ridge(samples)))
        x, features, target, weight, mu = zip(*problems, strict=True)

        def stacked(parts: Sequence[np.ndarray], count: int) -> torch.Tensor:
            return pad_sequence([torch.from_numpy(part) for part in parts[:count]], batch_first=True).to(
                device
            )

        first = [stacked(parts, 1) for parts in (features, target, weight)]
        one = vars(published)
        loop = seconds(lambda: SOLVERS["adamw"](*first, None, **one), device, 1)  # noqa: B023
        rows.append({"what": "published loop", "size": size, "batch": 1, "ms_per_image": 1e3 * loop})
        for count in batches:
            many = [stacked(parts, count) for parts in (features, target, weight)]
            settings = vars(method) | {"mu": torch.tensor(mu[:count], device=device)}
            run = lambda: SOLVERS["lbfgs"](*many, None, **settings)  # noqa: B023, E731
            each, heads = seconds(run, device, repeats) / count, run()
            agree = []
            for i in range(min(count, 4)):
                settings_of_one = vars(method) | {"mu": mu[i]}
                exact = SOLVERS["lbfgs"](features[i], target[i], weight[i], None, **settings_of_one)
                weights, bias = heads.weight[i].cpu().numpy(), heads.bias[i].cpu().numpy()
                agree.append(exact.logits(x[i]).argmax(1) == (x[i] @ weights.T + bias).argmax(1))
            about = {"what": "default solver", "size": size, "batch": count, "ms_per_image": 1e3 * each}
            rows.append(about | {"times_published": loop / each, "agree_percent": 100 * np.mean(agree)})
    return rows


def encoder_rows(
    device: torch.device, architecture: str, batches: Sequence[int], side: int, repeats: int
) -> list[Row]:
    """A vision tower with random weights on crops of `side` pixels, in float32 and in bfloat16."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        model = open_clip.create_model(architecture).to(device, dtype)
        encoder = OpenClipEncoder.from_model(model)
        for count in batches:
            images = torch.rand(count, 3, side, side, device=device)
            with torch.no_grad():
                each = seconds(lambda: encoder.dense(images), device, repeats) / count  # noqa: B023
            what = f"{architecture} in {str(dtype).removeprefix('torch.')}"
            rows.append({"what": what, "size": f"{side} px", "batch": count, "ms_per_image": 1e3 * each})
    return rows


def pipeline_rows(
    device: torch.device, architecture: str, classes: Sequence[int], batches: Sequence[int], side: int,
    repeats: int,
) -> list[Row]:  # fmt: skip
    """From images as arrays to labels as arrays, in the windows of RNS; labels against those of the CPU."""
    rng, rows = np.random.default_rng(0), []
    patch = 32 if "32" in architecture else 16
    windows = Windows(side, (side,), side // 2 // patch * patch)
    images = [smooth_image(rng, (side, side * 10 // 7)) for _ in range(max(batches))]
    torch.manual_seed(0)
    model = open_clip.create_model(architecture)
    here = OpenClipEncoder.from_model(model)
    patches = np.concatenate([here.encode_image(image, windows).flat() for image in images[:2]])
    for count in classes:
        drawn = patches[rng.integers(len(patches), size=3 * count)]
        vectors = unit(drawn + 0.3 * rng.normal(size=drawn.shape) / np.sqrt(drawn.shape[1]))
        names = [f"class {c}" for c in range(count)]
        memory = SupportMemory.from_prototypes(vectors, 3 * names, np.repeat(range(3), count).astype(str))
        vocabulary = Vocabulary(names, unit(rng.normal(size=(count, drawn.shape[1]))))
        expected = [
            Segmenter(here, memory, windows=windows)(image, vocabulary).labels for image in images[:2]
        ]
        there = OpenClipEncoder.from_model(open_clip.create_model(architecture), device=str(device))
        there.model.load_state_dict(model.state_dict())
        segmenter = Segmenter(there, memory, windows=windows)
        for batch in batches:
            asked = images[:batch]

            def labels() -> list[np.ndarray]:
                return [one.labels for one in segmenter.segment_batch(asked, vocabulary)]  # noqa: B023

            each = seconds(labels, device, repeats) / batch
            agree = [np.mean(a == b) for a, b in zip(labels(), expected, strict=False)]
            about = {"what": f"{architecture}, image to labels", "size": f"{count} classes", "batch": batch}
            rows.append(about | {"ms_per_image": 1e3 * each, "agree_percent": 100 * np.mean(agree)})
    return rows


def smooth_image(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 patches of colour: noise would look alike everywhere."""
    coarse = torch.from_numpy(rng.random((1, 3, 7, 10), dtype=np.float32))
    large = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return (255 * large[0]).byte().permute(1, 2, 0).numpy()


def table(rows: Sequence[Row], device: torch.device) -> pd.DataFrame:
    """The rows with the card they are of, in the order of `COLUMNS`."""
    own = pd.DataFrame(rows).assign(card=card(device))
    own["images_per_s"] = 1e3 / own["ms_per_image"]
    return own.reindex(columns=COLUMNS)


def not_run() -> pd.DataFrame:
    """The table where there was no GPU."""
    whats = [
        "published loop",
        "default solver",
        "encoder in float32",
        "encoder in bfloat16",
        "image to labels",
    ]
    return pd.DataFrame([{"card": "not run", "what": what} for what in whats]).reindex(columns=COLUMNS)
