"""Solvers side by side: time, objective reached, mIoU; every comparison within one run, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from experiments.baseline_solvers import BASELINE_SOLVERS
from rose_kit.adapter import RNS, SOLVERS, Head
from rose_kit.adapter.rns import Samples
from rose_kit.data import Dataset
from rose_kit.encoder import Encoder, Windows, preferred_windows
from rose_kit.evaluation import evaluate
from rose_kit.memory import SupportMemory
from rose_kit.types import Prediction, Query, Vocabulary, unit

REFERENCE = "adamw"
EXACT = "lbfgs-exact"  # the default without its early stop: where J has its minimum
# Classes, support images, classes an image, spread of patches: about 300 and 3,000 samples.
SIZES = {"VOC size": (21, 60, 3, 2.0), "ADE size": (150, 460, 12, 1.5)}
Row = dict[str, Any]


class Log(list):
    """(seconds of solve, of predict, J, samples, classes) of each image; copies of a method share one."""

    def __deepcopy__(self, memo) -> Log:
        return self


@dataclass
class TimedRNS(RNS):
    """RNS with any solver, which notes what it took, in seconds of the processor."""

    run: Callable[..., Head] = SOLVERS["lbfgs"]
    log: Log = field(default_factory=Log)

    def solve(self, samples: Samples, weight: NDArray, start: NDArray | None = None) -> Head:
        """See `RNS.solve`."""
        self.settings = vars(self) | {"mu": self.ridge(samples)}
        clock = time.process_time()
        self.head = self.run(samples.features, samples.target, weight, start, **self.settings)
        self.seconds = time.process_time() - clock
        self.problem = samples, weight
        return self.head

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `RNS.predict`."""
        clock = time.process_time()
        prediction = super().predict(query, memory, vocabulary, initial_weight=initial_weight)
        whole = time.process_time() - clock
        value = objective(self.head, *self.problem, self.settings["mu"])
        self.log.append((self.seconds, whole, value, *self.problem[0].target.shape))
        return prediction


def timed_methods(names: Sequence[str] | None = None) -> dict[str, TimedRNS]:
    """RNS with each solver: the reference, the default, the default without early stop, the others.

    Raises:
        ValueError: there is no solver of that name; lists those there are.
    """
    known = {REFERENCE: TimedRNS(run=SOLVERS[REFERENCE]), "lbfgs": TimedRNS(), EXACT: TimedRNS(tolerance=0)}
    known |= {name: TimedRNS(run=run) for name, run in BASELINE_SOLVERS.items()}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"unknown solver {unknown[0]!r}. Known: {', '.join(known)}")
    return {name: method for name, method in known.items() if names is None or name in names}


def objective(head: Head, samples: Samples, weight: NDArray, mu: float) -> float:
    """J = sum of weight * cross-entropy + mu / 2 * |W|^2, in float64."""
    logits = torch.as_tensor(head.logits(samples.features)).double()  # (S, C)
    loss = -(torch.as_tensor(samples.target) * torch.log_softmax(logits, 1)).sum(1)
    return float(torch.as_tensor(weight).double() @ loss) + float(mu / 2 * (head.weight**2.0).sum())


def clustered_world(
    classes: int,
    images: int,
    per_image: int,
    spread: float,
    dim: int = 512,
    patches: int = 784,
    seed: int = 0,
) -> tuple[Query, SupportMemory, Vocabulary]:
    """A query, a memory and a vocabulary with the statistics of image-text features, drawn.

    All directions have a decaying spectrum, as pretrained features have, and a little isotropic noise.
    Prototypes are a common direction + the class's centre + an offset of the image + their own noise;
    patches the same, with `spread` times more noise; texts have a common direction of their own (the
    modality gap) and a noisy view of the class's centre. Classes occur with a long tail.
    """
    rng = np.random.default_rng(seed)
    spectrum = 1 / np.sqrt(1 + np.arange(64) / 8)
    basis = rng.normal(size=(64, dim)) / np.sqrt(dim) * spectrum[:, None] / 2

    def draw(n: int, flat: float) -> NDArray:
        return rng.normal(size=(n, 64)) @ basis + flat * rng.normal(size=(n, dim)) / np.sqrt(dim)

    vision, language = 2 * unit(rng.normal(size=(2, dim)))
    centres = draw(classes, 0)
    text = unit(language + 0.7 * centres + 0.4 * draw(classes, 0.75))
    share = np.arange(1, classes + 1) ** -0.7
    shown = [rng.choice(classes, per_image, replace=False, p=share / share.sum()) for _ in range(images)]
    offsets = np.repeat(0.3 * draw(images, 0), per_image, axis=0)
    own = 0.7 * spread * draw(images * per_image, 0.15)
    vectors = unit(vision + centres[np.concatenate(shown)] + offsets + own)
    names = [f"class {c}" for c in range(classes)]
    memory = SupportMemory.from_prototypes(
        vectors, [names[c] for c in np.concatenate(shown)], np.repeat(range(images), per_image).astype(str)
    )
    seen = rng.integers(classes, size=patches)
    features = unit(vision + centres[seen] + 0.3 * draw(1, 0) + spread * draw(patches, 0.4))
    return Query(features), memory, Vocabulary(names, text)


def speed_rows(
    names: Sequence[str] | None = None,
    sizes: Sequence[str] = tuple(SIZES),
    repeats: int = 5,
    progress: bool = True,
) -> list[Row]:
    """Each solver on the same samples of each of `SIZES`: the quickest of several runs (AdamW: one)."""
    rows = []
    with one_thread():
        for size in sizes:
            world = clustered_world(*SIZES[size])
            for name, method in tqdm(timed_methods(names).items(), size, disable=not progress):
                for _ in range(1 if name == REFERENCE else repeats + 1):  # the first warms up
                    method.predict(*world)
                rows.append(
                    {"data": size, "solver": name} | _facts(method) | {"width": world[0].features.shape[1]}
                )
    return compared(rows)


def data_rows(
    label: str,
    support: Dataset,
    query: Dataset,
    encoder: Encoder,
    shots: int,
    seeds: Sequence[int],
    limit: int | None = None,
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> list[Row]:
    """Each solver on the same images: mean time per image, mean J, mean mIoU over the seeds."""
    methods = timed_methods(names)
    windows = preferred_windows(encoder) or Windows()
    with one_thread():
        scores = evaluate(
            support, query, encoder, methods, shots=shots, seeds=seeds, limit=limit, progress=progress,
            support_windows=windows, query_windows=windows,
        )  # fmt: skip
    rows = []
    for name, method in methods.items():
        miou = [row["miou"] for row in scores if row["method"] == name]
        rows.append({"data": label, "solver": name} | _facts(method, np.mean))
        rows[-1] |= {"width": encoder.dim, "miou": float(np.mean(miou)), "seeds": len(seeds)}
    return compared(rows)


def _facts(method: TimedRNS, summary: Callable = np.min) -> Row:
    """What a method's log says; `np.min` for repeats of one image, `np.mean` for many images."""
    solve, predict, value, samples, classes = zip(*method.log, strict=True)
    return {
        "classes": classes[0],
        "samples": round(np.mean(samples)),
        "solve_s": float(summary(solve)),
        "predict_s": float(summary(predict)),
        "objective": None if method.run is SOLVERS[REFERENCE] else float(np.mean(value)),
    }


def compared(rows: list[Row]) -> list[Row]:
    """Add what relates rows of one run: speed-up over AdamW, J above the minimum, mIoU against AdamW."""
    for row in rows:
        by_name = {other["solver"]: other for other in rows if other["data"] == row["data"]}
        reference, exact = by_name.get(REFERENCE), by_name.get(EXACT)
        if reference:
            row["solve_speedup"] = reference["solve_s"] / row["solve_s"]
            row["predict_speedup"] = reference["predict_s"] / row["predict_s"]
            if "miou" in row:
                row["miou_gain"] = row["miou"] - reference["miou"]
        if exact and row["objective"] is not None:
            row["above_minimum_percent"] = 100 * (row["objective"] / exact["objective"] - 1)
    return rows


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread; NumPy's and FAISS's products follow OMP_NUM_THREADS, set before the start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
