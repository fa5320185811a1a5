"""The protocol: the same support images, query images and pixels for every method.

Support images are drawn per seed ("B images per class"), their prototypes go into one memory per seed, and
every method answers every query image. Counts are summed over the query set at the images' own size; mIoU
is computed once, at the end. Work is spread by joblib: inside
`with joblib.parallel_config("loky", n_jobs=2)`, or on a cluster by its "dask" backend, `evaluate` and
`add_dataset` give the same results.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap
from sklearn.model_selection import ParameterGrid
from tqdm.auto import tqdm

from rose_kit import __version__
from rose_kit.data import Dataset, Sample, atomic_write, open_dataset, sample_support
from rose_kit.encoder import Encoder, Windows, load_encoder
from rose_kit.fusion import Method, SupportExample
from rose_kit.memory import Prototypes, SupportMemory
from rose_kit.memory.prototypes import pool_prototypes
from rose_kit.metrics import confusion_matrix, iou, mean_interval, mean_iou
from rose_kit.model import methods
from rose_kit.pooling import patch_counts
from rose_kit.registry import load_plugin
from rose_kit.segmenter import EncodedImage, Regions, encode_image, name_vocabulary, paint
from rose_kit.types import IGNORE, FeatureMap, Vocabulary

ABSENT = -1  # in targets, a pixel of no class of the vocabulary; 255 may be the index of a class
FEATURE_BUDGET = 2**29  # bytes of support features kept; the rest is encoded again when needed
FEW = 30  # images, below which the intervals of a leaderboard are called too narrow
Row = dict[str, Any]
EncodedQuery = tuple[EncodedImage, NDArray[np.int64]]  # an image and its (H, W) target


# --- caches -----------------------------------------------------------------------------------------------


class CachedDataset:
    """A dataset whose samples are drawn or read once, for sets that fit in memory.

    Args:
        dataset: any; each of its samples is kept from its first use on.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.class_names, self.ids = dataset.class_names, dataset.ids
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        if i not in self._samples:
            self._samples[i] = self.dataset[i]
        return self._samples[i]

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in mask `i`."""
        sample = self[i]
        return frozenset(sample.classes[v] for v in np.unique(sample.mask).tolist() if v != IGNORE)


class CachedEncoder:
    """An encoder that encodes each image once per windows, and each name once; all else is its own.

    Args:
        encoder: any.
        most: bytes of features that are kept; of more, the oldest go.
    """

    def __init__(self, encoder: Encoder, most: int = FEATURE_BUDGET) -> None:
        self.encoder, self.most = encoder, most
        self._maps: dict[tuple, FeatureMap] = {}
        self._text: dict[str, NDArray[np.float32]] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "encoder":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.encoder, name)

    def encode_image(self, image: Any, windows: Windows | None = None) -> FeatureMap:
        """See `Encoder.encode_image`."""
        pixels = np.ascontiguousarray(image)
        key = (hashlib.sha256(pixels).digest(), pixels.shape, str(pixels.dtype), windows)
        if key in self._maps:
            return self._maps[key]
        feature_map = self._maps[key] = self.encoder.encode_image(image, windows)
        while len(self._maps) * feature_map.values.nbytes > self.most:
            self._maps.pop(next(iter(self._maps)))
        return feature_map

    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]:
        """See `Encoder.encode_text`."""
        new = [name for name in dict.fromkeys(names) if name not in self._text]
        if new or not names:  # of no names, the encoder's own error
            self._text |= zip(new, self.encoder.encode_text(new), strict=True)
        return np.stack([self._text[name] for name in names])


# --- classes that lack something --------------------------------------------------------------------------


@dataclass(frozen=True)
class MissingSupport:
    """The shares of classes that lack visual support, text, or both, each in [0, 1].

    Which classes lack what depends on their number, the shares and a seed alone, so every method faces the
    same gaps; with one seed, the classes that a smaller share takes are among those that a larger one takes.

    Args:
        visual: without visual support.
        text: without text.
        both: without either, in addition to the other two.

    Raises:
        ValueError: a share is outside [0, 1], or adds up with `both` to more than all classes.

    >>> MissingSupport(visual=0.5).draw(["sky", "bus", "tree", "car"], seed=0)
    (('tree', 'sky'), ())
    """

    visual: float = 0.0
    text: float = 0.0
    both: float = 0.0

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            together = share if name == "both" else share + self.both
            if not (share >= 0 and together <= 1 + 1e-9):
                raise ValueError(
                    f"the share of classes without {name} must be in [0, 1], also together with the "
                    f"{self.both} without both; got {share}"
                )

    def draw(self, names: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The classes without visual support, and those without text.

        The two overlap in `both`, and beyond it only if the shares add up to more than 1. The texts that
        `MissingSupport(text=t, both=b)` and `MissingSupport(text=t + b)` leave out are the same.

        Args:
            names: (C,) the classes.
            seed: of the draw.
        """
        order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
        shares = (self.both, self.both + self.visual, self.both + self.text)
        neither, no_visual, no_text = (floor(share * len(order) + 0.5) for share in shares)
        rest, end = order[: len(order) - neither], order[::-1]
        return tuple(end[:neither] + rest[: no_visual - neither]), tuple(end[:no_text])


def without_classes(memory: SupportMemory, names: Collection[str]) -> SupportMemory:
    """A memory of its own without the prototypes of some classes; a name it does not hold is no error."""
    return memory.subset(memory.ids[~np.isin(memory.class_names, list(names))])


# --- support ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SupportExamples:
    """The labelled patches of one draw, as `Method.fit` takes them; made anew on each pass.

    Args:
        positions: of the images drawn.
        dataset: where they come from.
        encoder: makes the features; it should be cached, since several seeds draw the same image.
        windows: how they are encoded.
        vocabulary: the classes; patches of others have no label.
        hidden: classes whose patches have no label either.
    """

    positions: Sequence[int]
    dataset: Dataset
    encoder: Encoder
    windows: Windows | None
    vocabulary: Vocabulary
    hidden: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[SupportExample]:
        hidden = [self.vocabulary.index(name) for name in self.hidden]
        for i in self.positions:
            sample = self.dataset[i]
            feature_map = self.encoder.encode_image(sample.image, self.windows)
            target = relabel(sample, self.vocabulary)
            counts = patch_counts(feature_map, target, range(len(self.vocabulary)))  # (N, C)
            labels = np.where(counts.any(1), counts.argmax(1), ABSENT)  # (N,) most frequent class
            labels[np.isin(labels, hidden)] = ABSENT
            yield feature_map, labels, sample.image_id


def relabel(sample: Sample, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Class ids of a sample -> class indices of a vocabulary.

    Returns:
        (H, W) int64; -1 where the pixel is ignored or its class is not in the vocabulary.
    """
    index = {name: c for c, name in enumerate(vocabulary.names)}
    table = np.full(int(sample.mask.max()) + 1, ABSENT)
    for value, name in sample.classes.items():
        if value < len(table) and value != IGNORE:
            table[value] = index.get(name, ABSENT)
    return table[sample.mask]


def prototypes_of(
    dataset: Dataset,
    encoder: Encoder,
    windows: Windows | None = None,
    *,
    positions: Sequence[int] | None = None,
    classes: Collection[str] | None = None,
    thumbnails: bool = True,
    progress: bool | None = True,
) -> list[Prototypes]:
    """One table per annotated image, a row per class that it shows; encoded by joblib's workers.

    Args:
        dataset: the images.
        encoder: makes the features.
        windows: how an image is scaled and cut; None: whole.
        positions: of the images; None: all.
        classes: names that get rows; None: all.
        thumbnails: whether rows keep a small copy of their image.
        progress: show a progress bar; None: on terminals only.
    """

    def pool(i: int) -> Prototypes:
        sample = dataset[i]
        feature_map = encoder.encode_image(sample.image, windows)
        named = {v: name for v, name in sample.classes.items() if classes is None or name in classes}
        thumbnail = sample.image if thumbnails else None
        return pool_prototypes(sample.image_id, feature_map, sample.mask, named, sample.source, thumbnail)

    return list(_each(pool, range(len(dataset)) if positions is None else positions, "support", progress))


def add_dataset(
    memory: SupportMemory, dataset: Dataset, encoder: Encoder, windows: Windows | None = None, **options: Any
) -> NDArray[np.int64]:
    """Add annotated images to a memory, all in one step at the end.

    Args:
        memory: gains one row per class and image.
        dataset, encoder, windows, **options: as for `prototypes_of`.

    Returns:
        (R,) int64 ids of the new rows.

    Raises:
        ValueError: the memory was made with another encoder, or has one of these classes for an image
            already; nothing is added then.
    """
    memory.check_encoder(encoder)
    tables = prototypes_of(dataset, encoder, windows, **options)
    return memory.extend(reduce(Prototypes.extended, tables)) if tables else np.zeros(0, dtype=np.int64)


def build_memories(
    draws: Mapping[tuple[int, int], Sequence[int]], pool: SupportExamples, progress: bool
) -> dict[tuple[int, int], SupportMemory]:
    """One memory per draw; an image that several of them hold is encoded once.

    Args:
        draws: (shots, seed) -> positions of the images drawn.
        pool: all images that may be drawn; its vocabulary's classes get rows.
        progress: show a progress bar.
    """
    encoder, images = pool.encoder, sorted(set().union(*draws.values()))
    options = {"positions": images, "classes": pool.vocabulary.names, "thumbnails": False}
    tables = prototypes_of(pool.dataset, encoder, pool.windows, **options, progress=progress)
    table_of = dict(zip(images, tables, strict=True))
    memories = {}
    for draw, positions in draws.items():
        memories[draw] = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
        if positions:  # no image may show a class that the dataset declares
            memories[draw].extend(reduce(Prototypes.extended, [table_of[i] for i in sorted(positions)]))
    return memories


# --- counting ---------------------------------------------------------------------------------------------


def encode_query(
    sample: Sample,
    vocabulary: Vocabulary,
    encoder: Encoder,
    windows: Windows | None = None,
    regions: Regions | None = None,
) -> EncodedQuery:
    """Encode a query image once, for any number of methods and memories.

    Args:
        sample: the annotated image.
        vocabulary: the classes; pixels of others get the target -1.
        encoder: makes the features.
        windows: how the image is scaled and cut; None: whole.
        regions: image -> (H, W) region ids; None: patches are asked.
    """
    return encode_image(sample.image, encoder, windows, regions), relabel(sample, vocabulary)


def count_pixels(
    method: Method,
    memory: SupportMemory | None,
    vocabulary: Vocabulary,
    query_set: Iterable[EncodedQuery],
) -> NDArray[np.int64]:
    """Let a method answer encoded images and count its pixels; every score of the kit is made from this.

    Args:
        method: fitted, if it has anything to fit.
        memory: None for a method that needs none.
        vocabulary: the C classes.
        query_set: encoded images, each with its (H, W) target, `ABSENT` where nothing is counted.

    Returns:
        (C, C) int64 confusion matrix, added up over the images.
    """
    counts = np.zeros((len(vocabulary), len(vocabulary)), dtype=np.int64)
    for encoded, target in query_set:
        counts += count_answer(method.predict(encoded.query, memory, vocabulary), encoded, target)
    return counts


def count_answer(
    prediction: ArrayLike, encoded: EncodedImage, target: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(N, C) scores of an encoded image's patches or regions, (H, W) target -> (C, C) confusion matrix."""
    scores = np.asarray(prediction)
    labels, _ = paint(scores, encoded.query, encoded.feature_map)
    return confusion_matrix(labels, target, scores.shape[1], ignore_index=ABSENT)


# --- evaluating -------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One method with one draw of support images.

    Args:
        name: the method's name in the results.
        seed: of the draw.
        shots: images per class of the draw.
        method: fitted to the memory.
        memory: the prototypes of the draw.
        support_ids: the images drawn.
        vocabulary: the classes to answer, with the texts that this draw leaves them.
        counts: (C, C) confusion matrix, added up over the query images.
    """

    name: str
    seed: int
    shots: int
    method: Method
    memory: SupportMemory
    support_ids: list[str]
    vocabulary: Vocabulary
    counts: NDArray[np.int64]


def evaluate(
    support: Dataset,
    query: Dataset,
    encoder: Encoder,
    methods: Mapping[str, Method],
    *,
    shots: int | Sequence[int] = (1, 5),
    seeds: Sequence[int] = (1, 2, 3),
    support_windows: Windows | None = None,
    query_windows: Windows | None = None,
    regions: Regions | None = None,
    classes: Sequence[str] | None = None,
    missing: MissingSupport = MissingSupport(),
    limit: int | None = None,
    progress: bool = True,
    each: Callable[[Run, str, NDArray[np.int64]], None] | None = None,
) -> list[Row]:
    """Dataset mIoU of several methods over several draws of support images.

    Each query image is encoded once and answered by all methods, shots and seeds, then forgotten. Methods
    with something to tune see the support images only.

    Args:
        support: where support images are drawn from; shares no image id with `query`.
        query: the images to answer.
        encoder: makes the features; without a text tower, methods that need text are left out with
            a warning.
        methods: name for the results -> method.
        shots: B, support images per class, one or several numbers (see `sample_support`).
        seeds: one draw of support images each.
        support_windows: how support images are encoded; None: whole.
        query_windows: how query images are encoded; None: whole.
        regions: query image -> (H, W) region ids; None answers per patch.
        classes: the vocabulary, "background|wall|sky" being one class with several texts; pixels of
            other classes are ignored. Default: all classes of `query`.
        missing: shares of the classes that have no visual support, no text or neither, drawn anew with
            each seed; what is left is the same for all methods, only an upper bound sees everything.
        limit: answer only that many query images, spread evenly over the set.
        progress: show a progress bar.
        each: called with what every run counted on every image: run, image id, (C, C) confusion matrix.

    Returns:
        One row per method, shots and seed: {"method", "seed", "shots", "miou" (percent), "per_class_iou"
        (name -> percent, None for a class neither present nor predicted), "support_ids",
        "query_ids", "without_visual" and "without_text" (names of the classes that lack them)}.

    Raises:
        ValueError: support and query share an image, a class is unknown or labels no query pixel,
            no method is left to run, or `shots`, `seeds` or `limit` make no sense.
    """
    positions = _query_positions(query, limit)
    vocabulary = _vocabulary(support, query, positions, encoder, classes)
    methods = _runnable(methods, vocabulary, encoder, missing, regions)
    draws = _draws(support, shots, seeds, vocabulary)
    cached = CachedDataset(support), CachedEncoder(encoder)
    pool = SupportExamples(range(len(support)), *cached, support_windows, vocabulary)
    runs = _fit(methods, draws, pool, missing, progress)
    query_ids = [query.ids[i] for i in positions]

    def answer(i: int) -> list[NDArray[np.int64]]:
        """Position of a query image -> one (C, C) confusion matrix per run."""
        image = encode_query(query[i], vocabulary, encoder, query_windows, regions)
        return [count_pixels(run.method, run.memory, run.vocabulary, [image]) for run in runs]

    for image_id, counts in zip(query_ids, _each(answer, positions, "query", progress), strict=True):
        for run, own in zip(runs, counts, strict=True):
            run.counts += own
            if each is not None:
                each(run, image_id, own)
    return [_row(run, query_ids) for run in runs]


def _fit(
    methods: Mapping[str, Method],
    draws: Mapping[tuple[int, int], Sequence[int]],
    pool: SupportExamples,
    missing: MissingSupport,
    progress: bool,
) -> list[Run]:
    """A run per draw and method, each with a copy of the method fitted to the memory of the draw."""
    methods, names, runs = dict(methods), pool.vocabulary.names, []
    for name, method in methods.items():
        if getattr(method, "upper_bound", False):  # full supervision: fitted once, on everything
            examples = tqdm(pool, desc=name, disable=not progress)
            methods[name] = copy.deepcopy(method).fit(None, pool.vocabulary, examples)
    for (shots, seed), memory in build_memories(draws, pool, progress).items():
        no_visual, no_text = missing.draw(names, seed)
        memory, vocabulary = without_classes(memory, no_visual), pool.vocabulary.without_text(no_text)
        examples = replace(pool, positions=draws[shots, seed], vocabulary=vocabulary, hidden=no_visual)
        support_ids = [pool.dataset.ids[i] for i in examples.positions]
        for name, method in methods.items():
            method = copy.deepcopy(method)  # what it learns belongs to this draw alone
            if hasattr(method, "fit"):
                method = method.fit(memory, vocabulary, examples)
            counts = np.zeros((len(names), len(names)), dtype=np.int64)
            runs.append(Run(name, seed, shots, method, memory, support_ids, vocabulary, counts))
    return runs


def _each(function: Callable, items: Sequence[Any], desc: str, progress: bool | None) -> Iterator[Any]:
    """The function's results in order, by whatever workers joblib is configured for; serial by default."""
    results = Parallel(return_as="generator")(delayed(function)(item) for item in items)
    yield from tqdm(results, desc, len(items), disable=None if progress is None else not progress)


def _row(run: Run, query_ids: list[str]) -> Row:
    vocabulary = run.vocabulary
    per_class = [None if np.isnan(value) else 100 * float(value) for value in iou(run.counts)]
    return {
        "method": run.name,
        "seed": run.seed,
        "shots": run.shots,
        "miou": 100 * mean_iou(run.counts),
        "per_class_iou": dict(zip(vocabulary.names, per_class, strict=True)),
        "support_ids": run.support_ids,
        "query_ids": query_ids,
        "without_visual": [name for name in vocabulary.names if name not in run.memory.classes],
        "without_text": [n for n, has in zip(vocabulary.names, vocabulary.has_text, strict=True) if not has],
    }


def _query_positions(query: Dataset, limit: int | None) -> list[int]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    count = min(len(query), len(query) if limit is None else limit)
    # Neighbours in a dataset are often frames of one video: spread out rather than take the first.
    return [i * len(query) // count for i in range(count)]


def _vocabulary(
    support: Dataset,
    query: Dataset,
    positions: Sequence[int],
    encoder: Encoder,
    classes: Sequence[str] | None,
) -> Vocabulary:
    """The classes to answer; refuses data that share an image, or classes that the query images lack."""
    if shared := sorted(set(support.ids) & set(query.ids)):
        raise ValueError(f"support and query share {len(shared)} image ids, such as {shared[0]!r}")
    vocabulary = name_vocabulary(query.class_names if classes is None else classes, encoder)
    names = vocabulary.names
    if unknown := [name for name in names if name not in query.class_names]:
        raise ValueError(f"class {unknown[0]!r} is not in the query data: {', '.join(query.class_names)}")
    if not any(query.classes_of(i) & set(names) for i in positions):
        raise ValueError(f"no query image holds any of: {', '.join(names)}")
    return vocabulary


def _runnable(
    methods: Mapping[str, Method],
    vocabulary: Vocabulary,
    encoder: Encoder,
    missing: MissingSupport,
    regions: Regions | None,
) -> Mapping[str, Method]:
    """The methods that can answer; the others are named in a warning, with the reason."""
    no_class_visual, no_class_text = (len(n) == len(vocabulary) for n in missing.draw(vocabulary.names, 0))
    no_text = no_class_text or vocabulary.text is None
    if no_class_visual and no_text:
        raise ValueError(f"{missing} leaves no class with visual support or text")

    def obstacle(method: Method) -> str | None:
        if no_text and getattr(method, "needs_text", False):
            return "no class has text" if no_class_text else f"encoder {encoder.name!r} has no text tower"
        if getattr(method, "fingerprint", encoder.fingerprint) != encoder.fingerprint:
            return f"trained on another encoder than {encoder.name!r}"
        if regions is not None and getattr(method, "needs_grid", False):
            return "answers patches, not regions"
        return None

    obstacles = {name: obstacle(method) for name, method in methods.items()}
    left_out = ", ".join(f"{name} ({why})" for name, why in obstacles.items() if why)
    runnable = {name: method for name, method in methods.items() if not obstacles[name]}
    if not runnable:
        raise ValueError(f"no method to evaluate{left_out and ': '}{left_out}")
    if left_out:
        warnings.warn(f"left out: {left_out}", stacklevel=3)
    return runnable


def _draws(
    support: Dataset, shots: int | Sequence[int], seeds: Sequence[int], vocabulary: Vocabulary
) -> dict[tuple[int, int], list[int]]:
    """(shots, seed) -> positions of the support images drawn."""
    counts = [shots] if isinstance(shots, int) else list(shots)
    for what, values in (("seeds", seeds), ("shots", counts)):
        if not len(values) or len(set(values)) < len(values):
            raise ValueError(f"{what} must be one or more, all different, got {list(values)}")
    names = [name for name in vocabulary.names if name in support.class_names]
    if not names:
        raise ValueError(f"no class is in the support data: {', '.join(support.class_names)}")
    return {(b, s): sample_support(support, b, s, classes=names) for b in counts for s in seeds}


# --- rows -------------------------------------------------------------------------------------------------


def summarise(rows: Sequence[Mapping[str, Any]], level: float = 0.95) -> list[Row]:
    """Average over seeds: one row per method and number of shots, in the order they first appear.

    Args:
        rows: from `evaluate`, perhaps of several calls.
        level: coverage of the Student t interval over seeds.

    Returns:
        rows {"method", "shots", "seeds", "miou", "half_width"}: the mean in percent, plus or minus
        the half-width (NaN for a single seed); "seeds" lists them.

    >>> rows = [{"method": "rns", "shots": 1, "seed": s, "miou": m} for s, m in ((1, 50.0), (2, 52.0))]
    >>> [summary] = summarise(rows)
    >>> summary["miou"], round(summary["half_width"], 1), summary["seeds"]
    (51.0, 12.7, [1, 2])
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["method"], row["shots"]].append(row)
    summaries = []
    for (method, shots), members in groups.items():
        mean, half_width = mean_interval([row["miou"] for row in members], level)
        about = {"method": method, "shots": shots, "seeds": [row["seed"] for row in members]}
        summaries.append(about | {"miou": mean, "half_width": half_width})
    return summaries


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary of `rows` as text, for a terminal or a notebook.

    >>> print(table([{"method": "rns", "shots": 5, "seed": s, "miou": 50.0 + s} for s in (1, 2, 3)]))
    method  shots  seeds         mIoU
    rns         5      3  52.0 ± 2.5
    """
    lines = [["method", "shots", "seeds", f"{'mIoU':>11}"]]
    for s in summarise(rows):
        score = _plus_minus(s["miou"], s["half_width"])
        lines.append([s["method"], str(s["shots"]), str(len(s["seeds"])), score])
    return "\n".join("  ".join(cells).rstrip() for cells in _aligned(lines, right=(1, 2)))


def _plus_minus(mean: float, half_width: float) -> str:
    return f"{mean:.1f}" if np.isnan(half_width) else f"{mean:.1f} ± {half_width:.1f}"


def _aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[list[str]]:
    """The cells of a table, padded to the width of their columns; those of columns `right` on the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pads = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return [
        [pad(cell, width) for pad, cell, width in zip(pads, cells, widths, strict=True)] for cells in lines
    ]


def write_json(path: str | Path, rows: Sequence[Mapping[str, Any]], **provenance: Any) -> None:
    """Write `{"rows": [...]}` in one step, and beside the rows what they depend on.

    Raises:
        ValueError: the rows hold something JSON has no word for, such as NaN.
        OSError: the place cannot be written to.
    """
    text = json.dumps({**provenance, "rows": list(rows)}, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_write(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


# --- rows per image, and the difference between two methods -----------------------------------------------

GROUP = ["dataset", "encoder", "shots"]  # what is compared lies within one of these
COUNTS = ["target", "predicted", "intersection"]


def image_rows(
    support: Dataset, query: Dataset, encoder: Encoder, methods: Mapping[str, Method], **options: Any
) -> pd.DataFrame:
    """Like `evaluate`, but a row per image, from which any score can be made again.

    Returns:
        Columns method, seed, shots, image_id; support, which names the draw; classes, and for each of the
        C classes pixels of target, predicted and intersection. Summed over images they give the
        dataset's mIoU, exactly (`dataset_iou`).
    """
    rows: list[Row] = []

    def note(run: Run, image_id: str, counts: NDArray[np.int64]) -> None:
        draw = hashlib.sha256("\n".join(sorted(run.support_ids)).encode()).hexdigest()[:12]
        about = {"method": run.name, "seed": run.seed, "shots": run.shots, "image_id": image_id}
        per_class = dict(zip(COUNTS, (counts.sum(1), counts.sum(0), np.diag(counts)), strict=True))
        rows.append(about | {"support": draw, "classes": list(run.vocabulary.names)} | per_class)

    evaluate(support, query, encoder, methods, **options, each=note)
    return pd.DataFrame(rows)


def dataset_iou(target: NDArray, predicted: NDArray, intersection: NDArray) -> NDArray[np.float64]:
    """Counts per class -> mean IoU over the classes that occur, as `mean_iou` of the summed matrix.

    Args:
        target, predicted, intersection: (..., C) pixels, summed over images.

    Returns:
        (...) in [0, 1]; NaN where nothing was counted.

    >>> dataset_iou(np.array([3, 1, 0]), np.array([2, 2, 0]), np.array([2, 1, 0])).round(3).item()
    0.583
    """
    union = np.asarray(target) + predicted - intersection
    with np.errstate(invalid="ignore"):  # 0 / 0: a class that is neither present nor predicted
        return (np.where(union > 0, intersection / union, 0).sum(-1)) / (union > 0).sum(-1)


@dataclass
class Leaderboard:
    """Methods side by side.

    Args:
        table: a row per group and method, best first: dataset, encoder, shots, method, seeds, images, miou
            (percent, mean over seeds), half_width (of its Student t interval over seeds); difference to the
            baseline in points of mIoU, its interval low to high, verdict.
        notes: what was left out of a comparison, and why.
        level: coverage of the intervals.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    level: float = 0.95

    def __str__(self) -> str:
        """The leaderboard as Markdown, aligned so that it reads well in a terminal too."""
        interval = f"{100 * self.level:g} % interval"
        titles = ["method", "seeds", "images", "mIoU", "difference", interval, "verdict"]
        parts = []
        for group, lines in self.table.groupby(GROUP, sort=False):
            head, *body = _aligned([titles, *map(_cells, lines.itertuples())])
            ruled = [head, ["-" * len(cell) for cell in head], *body]
            parts.append(_title(group) + "\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in ruled))
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join([*parts, notes] if notes else parts)


def leaderboard(
    rows: pd.DataFrame,
    baseline: str | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Leaderboard:
    """Compare every method with a baseline, on what both answered with the same support.

    A difference is measured on the same images with the same support, and its interval comes from drawing
    the images again with replacement (Efron 1979): one draw serves both methods and all seeds, so what
    makes an image hard for everybody cancels.

    Args:
        rows: from `image_rows`, with columns dataset and encoder.
        baseline: one of the methods; None: knn-clip, else the first by name.
        level: coverage of both intervals.
        draws: bootstrap draws of the images.
        seed: of the draws; the same rows and seed, the same leaderboard.

    Raises:
        ValueError: there is no such method; lists those there are.
    """
    known = sorted(set(rows["method"]))
    baseline = ("knn-clip" if "knn-clip" in known else known[0]) if baseline is None else baseline
    if baseline not in known:
        raise ValueError(f"baseline {baseline!r} is not among the methods: {', '.join(known)}")
    rows = rows.drop_duplicates([*GROUP, "method", "seed", "support", "image_id"])  # of two grids, say
    notes: list[str] = []
    lines: list[Row] = []
    for group, members in rows.groupby(GROUP, sort=False):
        by_method = dict(iter(members.groupby("method", sort=True)))
        own_lines = []
        for name, part in by_method.items():
            pair = _paired(part, by_method.get(baseline), f"{_title(group)}: {name}", notes)
            line = dict(zip(GROUP, group, strict=True)) | {"method": name} | _score(part, level)
            own_lines.append(line | _difference(pair, name == baseline, level, draws, seed))
        if baseline not in by_method:
            notes.append(f"{_title(group)}: no run of {baseline}, so no differences")
        elif len(own_lines) > 1 and (few := min(line["images"] for line in own_lines)) < FEW:
            notes.append(f"{_title(group)}: {few} images are few, and the intervals somewhat too narrow")
        lines += sorted(own_lines, key=lambda line: -line["miou"])
    return Leaderboard(pd.DataFrame(lines), notes, level)


def _title(group: tuple) -> str:
    return "{}, {}, shots {}".format(*group)


def _stacked(rows: pd.DataFrame, suffix: str = "") -> NDArray[np.int64]:
    """(I, 3, C) counts of target, answer and both."""
    return np.stack([np.stack(rows[name + suffix].to_list()) for name in COUNTS], 1)


def _score(rows: pd.DataFrame, level: float) -> Row:
    by_seed = [_stacked(part) for _, part in rows.groupby("seed")]
    mean, half_width = mean_interval([float(_percent(counts.sum(0))) for counts in by_seed], level)
    images = rows["image_id"].nunique()
    return {"seeds": len(by_seed), "images": images, "miou": mean, "half_width": half_width}


def _percent(counts: NDArray) -> NDArray[np.float64]:
    """(..., 3, C) counts -> (...) mIoU in percent."""
    return 100 * dataset_iou(*np.moveaxis(counts, -2, 0))


def _paired(
    own: pd.DataFrame, base: pd.DataFrame | None, name: str, notes: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """(S, I, 3, C) counts of two methods on what both answered; what does not pair is noted and left out."""
    if base is None:
        return None
    both = own.merge(base, on=["seed", "support", "image_id"], suffixes=("", " of base"))
    if lost := max(len(own), len(base)) - len(both):
        notes.append(f"{name} and the baseline do not share {lost} answers: left out of the difference")
    in_all_seeds = both.groupby("image_id")["seed"].transform("count") == both["seed"].nunique()
    both = both[in_all_seeds].sort_values(["seed", "image_id"])
    if both.empty:
        return None
    shape = (both["seed"].nunique(), -1, len(COUNTS), len(both["target"].iloc[0]))
    return _stacked(both).reshape(shape), _stacked(both, " of base").reshape(shape)


def _difference(
    pair: tuple[NDArray, NDArray] | None, same: bool, level: float, draws: int, seed: int
) -> dict[str, float | str]:
    if same or pair is None:
        nothing = dict.fromkeys(("difference", "low", "high"), float("nan"))
        return {**nothing, "verdict": "baseline" if same else "not comparable"}

    def difference(at: NDArray, axis: int = -1) -> NDArray[np.float64]:
        """(..., I) positions of images -> (...) points of mIoU, averaged over seeds."""
        times = np.apply_along_axis(np.bincount, -1, at, minlength=at.shape[-1])  # (..., I)
        own, base = (np.einsum("...i,sikc->...skc", times, x, optimize=True) for x in pair)
        return (_percent(own) - _percent(base)).mean(-1)

    images = np.arange(pair[0].shape[1])
    options = {"confidence_level": level, "n_resamples": draws, "batch": 250, "method": "percentile"}
    if len(images) < 2:
        low, high = -np.inf, np.inf
    else:
        low, high = bootstrap((images,), difference, vectorized=True, rng=seed, **options).confidence_interval
    verdict = "better" if low > 0 else "worse" if high < 0 else "not settled"
    points = float(difference(images))
    return {"difference": points, "low": float(low), "high": float(high), "verdict": verdict}


def _cells(line: Any) -> list[str]:
    """A row of a leaderboard as text."""
    difference = interval = ""
    if not np.isnan(line.difference):
        difference, interval = f"{line.difference:+.1f}", f"{line.low:+.1f} to {line.high:+.1f}"
    score = _plus_minus(line.miou, line.half_width)
    return [line.method, str(line.seeds), str(line.images), score, difference, interval, line.verdict]


# --- grids of evaluations ---------------------------------------------------------------------------------

GRID = {"methods": None, "dataset": None, "encoder": "bundled", "shots": 1, "seeds": [1, 2, 3], "limit": None}


@dataclass(frozen=True)
class RunSpec:
    """One evaluation of a grid: a dataset, an encoder and a number of shots, with all methods and seeds.

    Args:
        data: a registered dataset by its name, or a folder.
        data_options: of the dataset.
        encoder: a name for `load_encoder`.
        shots: support images per class.
        methods: name in the results -> name and options of the method.
        seeds: one draw of support images each.
        limit: query images to answer; None: all.
    """

    data: str
    data_options: Mapping[str, Any]
    encoder: str
    shots: int
    methods: Mapping[str, tuple[str, Mapping[str, Any]]]
    seeds: Sequence[int]
    limit: int | None


def expand_grid(grid: Any, extra: Sequence[str] = ()) -> list[RunSpec]:
    """What a YAML grid asks for: one evaluation per dataset, encoder and number of shots.

    Args:
        grid: keys of `GRID`, each a value or a list; lists are crossed. A method or dataset is a name or
            {name: {option: value}}, where a method's option may list several values. A list of such grids
            is done one after the other.
        extra: names of methods that join those of the grid: a plugin's own.

    Raises:
        ValueError: not a mapping, an unknown key, method, option or dataset.

    >>> [spec] = expand_grid({"methods": ["rns", {"rns": {"k": [4, 8]}}], "dataset": "photos"})
    >>> spec.methods
    {'rns': ('rns', {}), 'rns k=4': ('rns', {'k': 4}), 'rns k=8': ('rns', {'k': 8})}
    """
    specs = []
    for one in grid if isinstance(grid, list) else [grid]:
        if not isinstance(one, Mapping) or not {"methods", "dataset"} <= set(one) <= set(GRID):
            keys = ", ".join(map(str, one)) if isinstance(one, Mapping) else repr(one)
            raise ValueError(f"a grid needs methods and dataset, of the keys {', '.join(GRID)}; got {keys}")
        one = GRID | one
        for key, value in one.items():
            if not _listed(value):
                raise ValueError(f"{key}: nothing is listed")
            numbers = _listed(value) if key in ("shots", "seeds", "limit") and value is not None else []
            if any(type(number) is not int for number in numbers):
                raise ValueError(f"{key} takes whole numbers, got {value!r}")
        chosen = _grid_methods([*_listed(one["methods"]), *extra])
        for key in ParameterGrid({key: _listed(one[key]) for key in ("dataset", "encoder", "shots")}):
            data = _name_and_options("dataset", key["dataset"])
            rest = chosen, _listed(one["seeds"]), one["limit"]
            specs.append(RunSpec(*data, key["encoder"], key["shots"], *rest))
    return specs


def _grid_methods(values: Sequence[Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Methods of a grid, their options crossed; each is made once, so that it refuses what it cannot take."""
    chosen = {}
    for value in values:
        name, options = _name_and_options("method", value)
        for crossed in ParameterGrid({key: _listed(value) for key, value in options.items()}):
            crossed = {key: crossed[key] for key in options}  # in the order they were written
            try:
                methods.make(name, **crossed)
            except TypeError as error:  # an option it does not have, or text for a number
                raise ValueError(f"method {name}: {error}") from None
            chosen[_label(name, crossed)] = (name, crossed)
    return chosen


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name_and_options(what: str, value: Any) -> tuple[str, dict[str, Any]]:
    """A name, or {name: {option: value}}."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and len(value) == 1:
        [(name, options)] = value.items()
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, dict(options)
    raise ValueError(f"{what}: {value!r} is neither a name nor {{name: {{option: value}}}}")


def _label(name: str, options: Mapping[str, Any]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def run_grid(
    specs: Sequence[RunSpec], folder: str | Path, *, jobs: int = 1, plugin: str | Path | None = None
) -> tuple[pd.DataFrame, int]:
    """Do each evaluation, and keep a table of it in a folder: `image_rows` as parquet.

    A table that is there is not made again while its settings, the plugin and the kit's version are the
    same: a sweep that was killed goes on where it was. After a change of data or code, name another folder.

    Args:
        specs: from `expand_grid`.
        folder: of the tables.
        jobs: evaluations at a time, each in a process of its own where there are several.
        plugin: file that brings methods or encoders.

    Returns:
        All rows, with columns dataset and encoder; how many tables were there already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{_table_name(spec, plugin)}.parquet" for spec in specs]
    missing = [(spec, path) for spec, path in zip(specs, paths, strict=True) if not path.exists()]
    with parallel_config("loky"):
        made = Parallel(n_jobs=jobs, return_as="generator")(delayed(_run)(*pair, plugin) for pair in missing)
        for _ in tqdm(made, "evaluations", len(missing), disable=None):
            pass
    return pd.concat(map(pd.read_parquet, paths), ignore_index=True), len(paths) - len(missing)


def _run(spec: RunSpec, path: Path, plugin: str | Path | None) -> None:
    if plugin is not None:
        load_plugin(plugin)  # this may be a process of its own
    encoder = load_encoder(spec.encoder)
    chosen = {label: methods.make(name, **options) for label, (name, options) in spec.methods.items()}
    windows = getattr(encoder, "preferred_windows", None)
    options = {"shots": spec.shots, "seeds": spec.seeds, "limit": spec.limit, "progress": False}
    options |= {"support_windows": windows, "query_windows": windows}
    rows = image_rows(*open_dataset(spec.data, spec.data_options), encoder, chosen, **options)
    rows = rows.assign(dataset=_label(spec.data, spec.data_options), encoder=spec.encoder)
    with atomic_write(path) as beside:
        rows.to_parquet(beside, index=False)


def _table_name(spec: RunSpec, plugin: str | Path | None) -> str:
    """A file name that changes with the settings, the kit's version and the plugin's text."""
    digest = hashlib.sha256(json.dumps([asdict(spec), __version__], sort_keys=True).encode())
    if plugin is not None:
        digest.update(Path(plugin).read_bytes())
    name = f"{_label(Path(spec.data).name, spec.data_options)}-{spec.encoder}-{spec.shots}"
    return re.sub(r"[^\w.=-]+", "-", name)[:80] + f"-{digest.hexdigest()[:12]}"
