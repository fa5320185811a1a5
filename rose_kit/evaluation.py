"""The protocol: the same support images, query images and pixels for every method.

Support images are drawn per seed ("B images per class"), their prototypes go into one memory per seed, and
every method answers every query image. Pixels are counted per image, at the image's own size, and added up
over the query set; mIoU is computed once, at the end. The rows of `evaluate`, the leaderboard and its
intervals are all made from these counts.

Work is spread by joblib: inside `with joblib.parallel_config("loky", n_jobs=2)`, or on a cluster by its
"dask" backend, `evaluate` and `add_dataset` give the same results.
"""

import copy
import itertools
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from html import escape
from math import floor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit
from tqdm.auto import tqdm

from rose_kit import __version__
from rose_kit.data import (
    Dataset,
    FolderDataset,
    Sample,
    atomic_write,
    default_encoder,
    image_array,
    open_dataset,
    sample_support,
    warn_absent,
)
from rose_kit.encoder import Encoder, Windows, find_device, load_encoder, preferred_windows
from rose_kit.fusion import Method, SupportExample
from rose_kit.fusion.method import predict_all
from rose_kit.memory import Prototypes, SupportMemory
from rose_kit.memory.prototypes import lost_classes, pool_prototypes
from rose_kit.metrics import class_counts, confusion_matrix, iou_of_counts, mean_interval, mean_iou_of_counts
from rose_kit.model import methods as registered
from rose_kit.pooling import patch_counts
from rose_kit.regions import Regions, make_regions
from rose_kit.registry import errors_as, load_plugin
from rose_kit.segmenter import EncodedImage, encode_queries, feature_maps, name_vocabulary, paint
from rose_kit.types import (
    IGNORE,
    FeatureMap,
    Prediction,
    Vocabulary,
    check_positive,
    check_share,
    to_array,
    unknown_name,
)

ABSENT = -1  # in targets, a pixel of no class of the vocabulary; 255 may be the index of a class
FEATURE_BUDGET = 2**29  # bytes of features that are cached; the rest is encoded again when needed
CPU = torch.device("cpu")
FEW_SEEDS = 3  # below this number an interval over seeds is as good as none
FEW_IMAGES = 30  # below this number the intervals of a leaderboard are called too narrow
MUCH_SHARED = 0.25  # of a draw's support images, that other draws hold too: above it, the same is said
Row = dict[str, Any]
EncodedQuery = tuple[EncodedImage, NDArray[np.int64]]  # an image and its (H, W) target
Draws = Mapping[tuple[int, int], Sequence[int]]  # (shots, seed) -> positions of the support images


# --- a cache ----------------------------------------------------------------------------------------------


class CachedEncoder:
    """An encoder that encodes each image once per windows; the rest is the encoder's own.

    Args:
        encoder: any encoder.
        max_bytes: of features in the cache; beyond that, the oldest go.
    """

    def __init__(self, encoder: Encoder, max_bytes: int = FEATURE_BUDGET) -> None:
        self.encoder, self.max_bytes = encoder, max_bytes
        self._maps: dict[str, FeatureMap] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__.get("encoder"), name)  # None while a copy is being made

    def encode_image(self, image: Any, windows: Windows | None = None) -> FeatureMap:
        """See `Encoder.encode_image`."""
        return self.encode_images([image], windows)[0]

    def encode_images(self, images: Sequence[Any], windows: Windows | None = None) -> list[FeatureMap]:
        """See `Encoder.encode_images`; those that are new are encoded together."""
        images = list(map(image_array, images))
        keys = [joblib.hash([np.asarray(image), windows]) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._maps}
        made = dict(zip(new, feature_maps(list(new.values()), self.encoder, windows), strict=True))
        self._maps.update(made)
        found = [made[key] if key in made else self._maps[key] for key in keys]
        while found and len(self._maps) * found[0].tensor.nbytes > self.max_bytes:
            self._maps.pop(next(iter(self._maps)))
        return found


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
        sums = {"visual + both": self.visual + self.both, "text + both": self.text + self.both}
        check_share(**asdict(self), **{name: round(share, 9) for name, share in sums.items()})

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
    return memory.subset(memory.ids[~memory.rows.of_classes(names)])


# --- support ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SupportExamples:
    """The labelled patches of some images, as `Method.fit` takes them; made anew on each pass.

    Args:
        positions: of the images in the dataset.
        dataset: where the images come from.
        encoder: makes the features; it should be cached, since several seeds draw the same image.
        windows: how the images are scaled and cut; None: whole.
        vocabulary: the classes; patches of others have no label.
        hidden: classes whose patches have no label either.
    """

    positions: Sequence[int]
    dataset: Dataset
    encoder: Encoder
    windows: Windows | None
    vocabulary: Vocabulary
    hidden: Sequence[str] = ()
    samples: dict[int, Sample] = field(default_factory=dict)  # those that were read, by position

    def __iter__(self) -> Iterator[SupportExample]:
        hidden = [self.vocabulary.index(name) for name in self.hidden]
        for i in self.positions:
            if i not in self.samples:
                self.samples[i] = self.dataset[i]
            sample = self.samples[i]
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
    table = np.full(int(sample.mask.max()) + 1, ABSENT)
    for value, name in sample.classes.items():
        if name in vocabulary.names and value < len(table) and value != IGNORE:
            table[value] = vocabulary.index(name)
    return table[sample.mask]


def add_dataset(
    memory: SupportMemory,
    dataset: Dataset,
    encoder: Encoder,
    windows: Windows | None = None,
    *,
    positions: Sequence[int] | None = None,
    classes: Collection[str] | None = None,
    thumbnails: bool = True,
    progress: bool | None = True,
) -> NDArray[np.int64]:
    """Add annotated images to a memory; joblib's workers encode them, and all are added at the end.

    Args:
        memory: gains one row per class and image.
        dataset: the images.
        encoder: makes the features.
        windows: how an image is scaled and cut; None: whole.
        positions: of the images in the dataset; None: all.
        classes: names that get rows; None: all.
        thumbnails: whether rows keep a small copy of their image.
        progress: show a progress bar; None: on terminals only.

    Returns:
        (R,) int64 ids of the new rows.

    Warns:
        UserWarning: the memory has rows of another file under the id of one of these images; or classes of an
            image have no pixel left once its mask is scaled to the encoded image.

    Raises:
        ValueError: the memory was made with another encoder, or has one of these classes for an image
            already; nothing is added then.
    """
    memory.check_encoder(encoder)

    def pool(i: int) -> tuple[Prototypes, list[str]]:
        sample = dataset[i]
        feature_map = encoder.encode_image(sample.image, windows)
        named = {v: name for v, name in sample.classes.items() if classes is None or name in classes}
        thumbnail = sample.image if thumbnails else None
        own = pool_prototypes(sample.image_id, feature_map, sample.mask, named, sample.source, thumbnail)
        return own, [f"{name} in {sample.image_id}" for name in lost_classes(own, sample.mask, named)]

    pooled = list(_each(pool, range(len(dataset)) if positions is None else positions, "support", progress))
    if not pooled:
        return np.zeros(0, dtype=np.int64)
    if lost := [where for _, own in pooled for where in own]:
        first = ", ".join(lost[:3]) + ", ..." * (len(lost) > 3)
        small = "less than a pixel at the encoder's scale"
        warnings.warn(f"not stored, {small}: {len(lost)} ({first})", stacklevel=2)
    rows, stored = Prototypes.concatenate([table for table, _ in pooled]), memory.rows
    known = dict(zip(stored.image_ids, stored.sources, strict=True))
    ids, pairs = memory.extend(rows), zip(rows.image_ids, rows.sources, strict=True)
    if others := sorted({i for i, source in pairs if known.get(i, source) != source}):
        first = f"{others[0]!r} is {known[others[0]]}"
        warnings.warn(f"{len(others)} image id(s) of the memory are of other files: {first}", stacklevel=2)
    return ids


def shared_support(draws: Draws, shots: int, seed: int) -> float:
    """The share of the images of a draw that one of another seed holds too, in the mean; 0 for a single seed.

    >>> shared_support({(1, 0): [1, 2], (1, 1): [2, 3], (1, 2): [4, 5]}, 1, 0)
    0.25
    """
    own = set(draws[shots, seed])
    others = [own.intersection(drawn) for (b, s), drawn in draws.items() if b == shots and s != seed]
    return float(np.mean([len(held) / len(own) for held in others])) if own and others else 0.0


def build_memories(
    draws: Draws, pool: SupportExamples, progress: bool
) -> dict[tuple[int, int], SupportMemory]:
    """One memory per draw; an image that several of them hold is encoded once.

    Args:
        draws: (shots, seed) -> positions of the images drawn.
        pool: all images that may be drawn; its vocabulary's classes get rows.
        progress: show a progress bar.
    """
    encoder, dataset = pool.encoder, pool.dataset
    whole = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    options = {"positions": sorted(set().union(*draws.values())), "classes": pool.vocabulary.names}
    add_dataset(whole, dataset, encoder, pool.windows, **options, thumbnails=False, progress=progress)
    ids = {draw: [dataset.ids[i] for i in positions] for draw, positions in draws.items()}
    return {draw: whole.subset(whole.ids[whole.rows.of_images(ids[draw])]) for draw in draws}


# --- counting ---------------------------------------------------------------------------------------------


def count_pixels(
    method: Method, memory: SupportMemory | None, vocabulary: Vocabulary, query_set: Iterable[EncodedQuery]
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
    scores = prediction.tensor if isinstance(prediction, Prediction) else np.asarray(prediction)
    labels = to_array(paint(scores, encoded.query, encoded.feature_map)[0])
    return confusion_matrix(labels, target, scores.shape[1], ignore_index=ABSENT)


# --- evaluating -------------------------------------------------------------------------------------------

COUNTS = ["target", "predicted", "intersection"]  # as `class_counts` orders them


@dataclass(frozen=True)
class Run:
    """One method with one draw of support images.

    Args:
        about: method (its name), seed, shots, shared, support_ids, without_visual and without_text, as in the
            rows of `evaluate`.
        method: fitted to the memory.
        memory: the prototypes of the draw.
        vocabulary: the classes to answer, with the texts that this draw leaves them.
    """

    about: Row
    method: Method
    memory: SupportMemory
    vocabulary: Vocabulary

    def row(self, query_ids: Sequence[str], counts: NDArray[np.int64]) -> Row:
        """The row of `evaluate`, from the (I, 3, C) counts of the query images."""
        total = counts.sum(0)  # (3, C)
        per_class = [None if np.isnan(value) else 100 * float(value) for value in iou_of_counts(total)]
        scores = {"miou": 100 * float(mean_iou_of_counts(total))}
        scores["per_class_iou"] = dict(zip(self.vocabulary.names, per_class, strict=True))
        return self.about | scores | {"query_ids": list(query_ids)}

    def image_rows(self, query_ids: Sequence[str], counts: NDArray[np.int64]) -> list[Row]:
        """The rows of `evaluate` with `per_image`, from the (I, 3, C) counts of the query images."""
        about = {key: self.about[key] for key in ("method", "seed", "shots", "shared")}
        about["support"] = joblib.hash(sorted(self.about["support_ids"]))
        about["classes"] = list(self.vocabulary.names)
        pairs = zip(query_ids, counts, strict=True)
        return [about | {"image_id": i} | dict(zip(COUNTS, own, strict=True)) for i, own in pairs]


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
    regions: Regions | str | None = None,
    classes: Sequence[str] | None = None,
    missing: MissingSupport = MissingSupport(),
    limit: int | None = None,
    progress: bool = True,
    per_image: bool = False,
    batch_size: int | None = None,
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
        support_windows: how support images are scaled and cut; None: whole.
        query_windows: how query images are scaled and cut; None: whole.
        regions: query image -> (H, W) region ids, or "slic" or "sam"; None answers per patch.
        classes: the vocabulary, "background|wall|sky" being one class with several texts; pixels of
            other classes are ignored. Default: all classes of `query`.
        missing: shares of the classes that have no visual support, no text or neither, drawn anew with
            each seed; what is left is the same for all methods, only an upper bound sees everything.
        limit: answer only that many query images, spread evenly over the set.
        progress: show a progress bar.
        per_image: return a row per query image as well, with counts that any score can be made from.
        batch_size: query images to answer together; None: 16 where the encoder runs on a GPU, else 1. It
            changes the time, not the answers.

    Returns:
        One row per method, shots and seed: {"method", "seed", "shots", "miou" (percent), "per_class_iou"
        (name -> percent, None for a class neither present nor predicted), "support_ids", "shared" (share of
        them that another seed draws too), "query_ids", "without_visual" and "without_text" (names of the
        classes that lack them)}.
        With `per_image`, one per method, shots, seed and query image: {"method", "seed", "shots", "shared",
        "image_id", "support" (text that names the draw), "classes" (C names), and "target", "predicted" and
        "intersection" ((C,) int64 pixels)}.

    Warns:
        UserWarning: names classes that no support image holds or, in a folder, no query image: the latter
            count as 0 where they are predicted, and else are left out of the mean. It also names a class that
            is there alone.

    Raises:
        ValueError: support and query share an image, a class is unknown, no class labels a query pixel, no
            method is left to run, `shots`, `seeds` or `limit` make no sense, or as `warn_absent`; the support
            has no class of these, or is another folder that lacks one.
    """
    check_positive(limit=limit, batch_size=batch_size)
    regions = make_regions(regions) if isinstance(regions, str) else regions
    shots = [shots] if isinstance(shots, int) else list(shots)
    for what, values in (("seeds", seeds), ("shots", shots)):
        if not len(values) or len(set(values)) < len(values):
            raise ValueError(f"{what} must be one or more, all different, got {list(values)}")
    # Neighbours in a dataset are often frames of one video: spread out rather than take the first.
    count = min(len(query), limit or len(query))
    positions = [i * len(query) // count for i in range(count)]
    reads = missing.visual + missing.both > 0 or any(getattr(m, "uses_text", True) for m in methods.values())
    text = reads and missing.text + missing.both < 1  # else no name is encoded, which may take minutes
    vocabulary = name_vocabulary(query.class_names if classes is None else classes, encoder, text)
    _check_data(support, query, positions, vocabulary.names)
    _, no_text = missing.draw(vocabulary.names, seed=0)  # as many as with any other seed
    has_text = bool(vocabulary.without_text(no_text).has_text.any())
    methods = _runnable(methods, encoder, has_text, regions is not None)
    drawable = [name for name in vocabulary.names if name in support.class_names]
    draws = {(b, s): sample_support(support, b, s, classes=drawable) for b in shots for s in seeds}
    pool = SupportExamples(range(len(support)), support, CachedEncoder(encoder), support_windows, vocabulary)
    runs = _fit(methods, draws, pool, missing, progress)

    def answer(batch: Sequence[int]) -> NDArray[np.int64]:
        """Positions of B query images -> (B, R, 3, C) counts of each run."""
        samples, counts = [query[i] for i in batch], []
        encoded = encode_queries([sample.image for sample in samples], encoder, query_windows, regions)
        targets = [relabel(sample, vocabulary) for sample in samples]
        asked = [own.query for own in encoded]
        for run in runs:
            answers = predict_all(run.method, asked, run.memory, run.vocabulary)
            counted = map(count_answer, answers, encoded, targets)
            counts.append(list(map(class_counts, counted)))
        return np.array(counts).swapaxes(0, 1)

    size = batch_size or (1 if getattr(encoder, "device", CPU).type == "cpu" else 16)
    batches = [positions[i : i + size] for i in range(0, count, size)]
    counts = np.concatenate(list(_each(answer, batches, "query", progress)))  # (I, R, 3, C)
    query_ids = [query.ids[i] for i in positions]
    if per_image:
        return [row for r, run in enumerate(runs) for row in run.image_rows(query_ids, counts[:, r])]
    return [run.row(query_ids, counts[:, r]) for r, run in enumerate(runs)]


def _check_data(support: Dataset, query: Dataset, positions: Sequence[int], names: Sequence[str]) -> None:
    """Refuse datasets that share an image, and classes that they do not hold."""
    if shared := sorted(set(support.ids) & set(query.ids)):
        raise ValueError(f"support and query share {len(shared)} image ids, such as {shared[0]!r}")
    if unknown := [name for name in names if name not in query.class_names]:
        raise unknown_name("class", unknown[0], query.class_names)
    unmatched = [name for name in names if name not in support.class_names]
    apart = getattr(support, "path", None) != getattr(query, "path", None)  # two folders
    if unmatched and (apart or len(unmatched) == len(names)):
        error = unknown_name("class of the support data:", unmatched[0], support.class_names)
        raise ValueError(f"{error}; classes match by name: rename them, or answer those of both alone")
    if not any(query.classes_of(i) & set(names) for i in positions):
        raise ValueError(f"no query image holds any of: {', '.join(names)}")
    present = names
    if isinstance(query, FolderDataset):  # the images of others are drawn as asked for
        present = sorted({*names}.difference(warn_absent(query, names, positions, "to answer")))
    if len(present) == 1:
        warnings.warn(f"{present[0]!r} is there alone: answered everywhere, it scores 100", stacklevel=3)


def _runnable(
    methods: Mapping[str, Method], encoder: Encoder, has_text: bool, has_regions: bool
) -> dict[str, Method]:
    """The methods that can answer; the others are named in a warning, with the reason."""
    obstacles = {}
    for name, method in methods.items():
        if not has_text and getattr(method, "needs_text", False):
            obstacles[name] = f"no class has text, with encoder {encoder.name!r}"
        elif getattr(method, "fingerprint", encoder.fingerprint) != encoder.fingerprint:
            obstacles[name] = f"trained on another encoder than {encoder.name!r}"
        elif has_regions and getattr(method, "needs_grid", False):
            obstacles[name] = "answers patches, not regions"
    left_out = ", ".join(f"{name} ({why})" for name, why in obstacles.items())
    if len(obstacles) == len(methods):
        raise ValueError(f"no method to evaluate: {left_out or 'none is given'}")
    if obstacles:
        warnings.warn(f"left out: {left_out}", stacklevel=3)
    return {name: method for name, method in methods.items() if name not in obstacles}


def _fit(
    methods: dict[str, Method], draws: Draws, pool: SupportExamples, missing: MissingSupport, progress: bool
) -> list[Run]:
    """A run per draw and method, each with a copy of the method fitted to the memory of the draw."""
    methods, runs, names = dict(methods), [], pool.vocabulary.names
    for name, method in methods.items():
        if getattr(method, "upper_bound", False):  # full supervision: fitted once, on everything
            examples = tqdm(pool, name, len(pool.positions), disable=not progress)
            methods[name] = copy.deepcopy(method).fit(None, pool.vocabulary, examples)
    for (shots, seed), memory in build_memories(draws, pool, progress).items():
        no_visual, no_text = missing.draw(names, seed)
        memory, vocabulary = without_classes(memory, no_visual), pool.vocabulary.without_text(no_text)
        examples = replace(pool, positions=draws[shots, seed], vocabulary=vocabulary, hidden=no_visual)
        about = {"seed": seed, "shots": shots, "shared": shared_support(draws, shots, seed)}
        about["support_ids"] = [pool.dataset.ids[i] for i in examples.positions]
        about["without_visual"] = [name for name in names if name not in memory.classes]
        about["without_text"] = [names[c] for c in np.flatnonzero(~vocabulary.has_text)]
        for name, method in methods.items():
            method = copy.deepcopy(method)  # what it learns belongs to this draw alone
            if hasattr(method, "fit"):
                method = method.fit(memory, vocabulary, examples)
            runs.append(Run({"method": name} | about, method, memory, vocabulary))
    return runs


def _each(function: Callable, items: Sequence[Any], desc: str, progress: bool | None) -> Iterator[Any]:
    """The function's results in order, by whatever workers joblib is configured for; serial by default."""
    results = Parallel(return_as="generator")(delayed(function)(item) for item in items)
    yield from tqdm(results, desc, len(items), disable=None if progress is None else not progress)


# --- tables -----------------------------------------------------------------------------------------------


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
    summaries = []
    for (method, shots), members in pd.DataFrame(rows).groupby(["method", "shots"], sort=False):
        mean, half_width = mean_interval(members["miou"], level)
        about = {"method": method, "shots": int(shots), "seeds": members["seed"].tolist()}
        summaries.append(about | {"miou": mean, "half_width": half_width})
    return summaries


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary of `rows` as text, for a terminal or a notebook.

    >>> print(table([{"method": "rns", "shots": 5, "seed": s, "miou": 50.0 + s} for s in (1, 2, 3)]))
    method  shots  seeds  mIoU
    rns         5      3  52.0 ± 2.5
    """
    width = max(len("method"), *(len(row["method"]) for row in rows))
    lines = [f"{'method':<{width}}  shots  seeds  mIoU"]
    for one in summarise(rows):
        score = f"{one['miou']:.1f} ± {one['half_width']:.1f}".removesuffix(" ± nan")
        lines.append(f"{one['method']:<{width}}  {one['shots']:>5}  {len(one['seeds']):>5}  {score}")
    shared = pd.DataFrame(rows).reindex(columns=["shots", "shared"]).groupby("shots").shared.mean()
    lines += [f"shots {b}: {note}" for b, share in shared.items() if (note := _shared_note(share))]
    return "\n".join(lines)


def flat_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of `evaluate` for spreadsheets: a column for the IoU of each class, none for lists."""
    single = ({key: value for key, value in row.items() if not isinstance(value, list)} for row in rows)
    return pd.json_normalize(list(single), sep=": ")


def write_json(path: str | Path, rows: Sequence[Mapping[str, Any]], **provenance: Any) -> None:
    """Write `{"rows": [...]}` in one step, and beside the rows whatever is passed on what they depend on.

    Raises:
        ValueError: the rows hold something JSON has no word for, such as NaN.
        OSError: the place cannot be written to.
    """
    text = json.dumps({**provenance, "rows": list(rows)}, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_write(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


# --- the leaderboard --------------------------------------------------------------------------------------

GROUP = ["dataset", "encoder", "shots"]  # methods are compared within one of these
DRAW = ["seed", "support"]  # what two methods must share to be compared
COLUMNS = [*GROUP, "method", "seeds", "images", "miou", "half_width"]
COLUMNS += ["difference", "low", "high", "p", "verdict"]


@dataclass
class Leaderboard:
    """Methods side by side.

    Args:
        table: a row per group and method, best first: dataset, encoder, shots, method, seeds, images, miou
            (percent, mean over seeds), half_width (of its Student t interval over seeds); difference to the
            baseline in points of mIoU, its interval low to high, p (that a difference as large comes by
            chance where there is none, corrected for the number of methods), verdict.
        notes: what was left out of a comparison, and why.
    """

    table: pd.DataFrame
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """A table per group as text; also valid Markdown, since the tables are fenced."""
        groups = self.table.groupby(GROUP, sort=False)
        texts = {_title(group): lines.drop(columns=GROUP).to_string(**PRINTED) for group, lines in groups}
        notes = "".join(f"- {note}\n" for note in self.notes)
        return "".join(f"{title}\n\n```\n{text}\n```\n\n" for title, text in texts.items()) + notes

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """One table, for notebooks."""
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"{self.table.to_html(**PRINTED)}<ul>{notes}</ul>"


def leaderboard(
    rows: pd.DataFrame, baseline: str | None = None, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Leaderboard:
    """Compare every method with a baseline, on what both answered with the same support.

    A difference is measured on the same images with the same support, so what makes an image hard for
    everybody cancels. Its interval covers both what was drawn, images and support: the variance over images
    drawn again with replacement (Efron 1979; one draw serves both methods and all seeds) and that over seeds
    add up, and Student's t has the degrees of freedom of Satterthwaite (1946). What an image and a seed do
    together counts twice, so that the interval is rather too wide. A verdict is about all methods of a group
    at once: p is corrected by Holm (1979), and may settle nothing where the interval alone would.

    Args:
        rows: of `evaluate` with `per_image`, with columns dataset and encoder.
        baseline: one of the methods; None: knn-clip, else the first by name.
        level: coverage of both intervals, and of all verdicts of a group together.
        draws: bootstrap draws of the images.
        seed: of the draws; the same rows and seed, the same leaderboard.

    Raises:
        ValueError: there is no such method; lists those there are.
    """
    known = sorted(set(rows["method"]))
    baseline = baseline or ("knn-clip" if "knn-clip" in known else known[0])
    if baseline not in known:
        raise unknown_name("baseline", baseline, known)
    notes: list[str] = []
    lines: list[Row] = []
    for group, members in rows.groupby(GROUP):
        first = len(lines)
        answers = {name: _answers(own) for name, own in members.groupby("method")}
        for name, own in answers.items():
            line = dict(zip(GROUP, group, strict=True)) | {"method": name} | _score(own, level)
            if name == baseline:
                lines.append(line | {"verdict": "baseline"})
                continue
            base = answers.get(baseline, own[:0])
            both = _shared(own, base)
            lines.append(line | _difference(both, level, draws, seed))
            if lost := max(own.count().sum(), base.count().sum()) - both.size // 2:
                reason = f"{name} and {baseline} do not share {lost} answers: left out of the difference"
                notes.append(f"{_title(group)}: {reason}")
        if (few := min(line["seeds"] for line in lines[-len(answers) :])) < FEW_SEEDS:
            notes.append(f"{_title(group)}: an interval over {few} seed(s) says little")
        if (few := min(map(len, answers.values()))) < FEW_IMAGES:
            notes.append(f"{_title(group)}: {few} images are few, and the intervals somewhat too narrow")
        if members["seed"].nunique() == 1:
            notes.append(f"{_title(group)}: one draw of support, so that the intervals cover images alone")
        elif "shared" in members and (note := _shared_note(members["shared"].mean())):
            notes.append(f"{_title(group)}: {note}")
        _settle(lines[first:], level)
    lines.sort(key=lambda line: (*(line[name] for name in GROUP), -line["miou"]))
    return Leaderboard(pd.DataFrame(lines, columns=COLUMNS), notes)


def _title(group: tuple) -> str:
    return "{}, {}, shots {}".format(*group)


def _answers(rows: pd.DataFrame) -> pd.DataFrame:
    """The (3, C) counts of one method: a row per image, a column per draw of support; NaN: no answer."""
    counts = np.stack([np.stack(rows[name].to_list()) for name in COUNTS], 1)  # (R, 3, C)
    rows = rows.assign(counts=list(counts)).drop_duplicates(["image_id", *DRAW])
    return rows.pivot(index="image_id", columns=DRAW, values="counts")


def _shared(own: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """The answers of two methods side by side: images that both answered with each draw that both have."""
    draws = own.columns.intersection(base.columns)
    return pd.concat([own[draws], base[draws]], axis=1, join="inner").dropna()


def _score(answers: pd.DataFrame, level: float) -> Row:
    """The mIoU of a method over its seeds, in percent."""
    by_seed = [np.sum(part.stack().dropna().to_list(), axis=0) for _, part in answers.T.groupby("seed")]
    mean, half_width = mean_interval(100 * mean_iou_of_counts(by_seed), level)
    return {"seeds": len(by_seed), "images": len(answers), "miou": mean, "half_width": half_width}


def _difference(both: pd.DataFrame, level: float, draws: int, seed: int) -> Row:
    """Points of mIoU that the first of a pair is ahead, with the interval over images and seeds, and its p.

    Args:
        both: from `_shared`.
        level, draws, seed: as for `leaderboard`.
    """
    if both.empty:
        return {"verdict": "not comparable"}
    counts = np.array(both.to_numpy().tolist())  # (I, 2 * S, 3, C), I images with S draws of support

    def ahead(sums: NDArray) -> NDArray[np.float64]:
        """(..., 2 * S, 3, C) counts -> (..., S) points of mIoU."""
        own, base = np.split(100 * mean_iou_of_counts(sums), 2, axis=-1)
        return own - base

    images, by_seed = len(counts), ahead(counts.sum(0))  # (S,)
    mean, seeds = float(by_seed.mean()), len(by_seed)
    if images == 1:
        return {"difference": mean, "low": -np.inf, "high": np.inf, "p": 1.0}
    times = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws)  # (B, I)
    again = ahead(np.tensordot(times.astype(float), counts, 1)).mean(-1)  # (B,)
    variances = np.array([again.var(ddof=1), by_seed.var(ddof=1) / seeds if seeds > 1 else 0.0])
    error = float(np.sqrt(variances.sum()))
    if error == 0:
        return {"difference": mean, "low": mean, "high": mean, "p": float(mean == 0)}
    freedom = error**4 / (variances**2 / [images - 1, max(seeds - 1, 1)]).sum()
    half, p = stdtrit(freedom, (1 + level) / 2) * error, 2 * stdtr(freedom, -abs(mean) / error)
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": float(p)}


def _settle(lines: Sequence[Row], level: float) -> None:
    """Correct the p of several comparisons by Holm's step-down rule, and say what follows from each."""
    compared, least = sorted((line for line in lines if "p" in line), key=lambda line: line["p"]), 0.0
    for i, line in enumerate(compared):
        line["p"] = least = max(least, min(1.0, (len(compared) - i) * line["p"]))
        ahead = "better" if line["difference"] > 0 else "worse"
        line["verdict"] = ahead if least < 1 - level else "not settled"


def _decimals(value: float) -> str:
    """One decimal, and two near zero, where an interval may end.

    >>> [_decimals(value) for value in (12.34, -0.04, -1.0)]
    ['12.3', '-0.04', '-1.0']
    """
    return f"{value:.2f}" if abs(value) < 0.995 else f"{value:.1f}"


PRINTED = {"index": False, "float_format": _decimals, "formatters": {"p": "{:.3f}".format}, "na_rep": ""}


def _shared_note(share: float) -> str:
    """What to say where the draws of several seeds share so much of their support images; "" if little."""
    note = f"draws of support share {share:.0%} of their images: intervals over seeds are too narrow"
    return note if share > MUCH_SHARED else ""


def compare(
    methods: Sequence[Method | str] | Mapping[str, Method],
    data: str | tuple[Dataset, Dataset] = "scenes",
    encoder: str | Encoder | None = None,
    baseline: str | None = None,
    **options: Any,
) -> Leaderboard:
    """Evaluate methods on the same images, and compare them: a board that a notebook shows as tables.

    Args:
        methods: methods, or names of registered ones; or the name that the board has for each -> method.
        data: as for `open_dataset`; or support images, and images to answer.
        encoder: or its name; None: the data's default.
        baseline: as for `leaderboard`.
        **options: of `evaluate`; images are cut into the encoder's preferred windows by default.

    Raises:
        ValueError: two methods are the same; or as `evaluate` and `leaderboard`.
    """
    if not isinstance(methods, Mapping):
        made = [registered.make(one) if isinstance(one, str) else one for one in methods]
        methods = {_label(method): method for method in made}
        if len(methods) < len(made):
            raise ValueError(f"two methods are the same; give names to others: {', '.join(methods)}")
    name = data if isinstance(data, str) else "data"
    if encoder is None or isinstance(encoder, str):
        encoder = load_encoder(encoder or default_encoder(name))
    rows = _image_rows(open_dataset(data) if isinstance(data, str) else data, encoder, methods, **options)
    return leaderboard(rows.assign(dataset=name, encoder=encoder.name), baseline)


def _label(method: Method) -> str:
    """The name that a method is registered by, or its class's, and the options that are not the defaults."""
    name = next((name for name, make in registered.items() if make is type(method)), type(method).__name__)
    own = [one for one in fields(method) if one.default is not MISSING] if is_dataclass(method) else ()
    changed = {one.name: getattr(method, one.name) for one in own if getattr(method, one.name) != one.default}
    return " ".join([name, *(f"{option}={value}" for option, value in changed.items())])


def _image_rows(
    pair: tuple[Dataset, Dataset], encoder: Encoder, methods: Mapping[str, Method], **options: Any
) -> pd.DataFrame:
    """The rows of `evaluate` with `per_image`, in the windows that the encoder prefers."""
    windows = dict.fromkeys(("support_windows", "query_windows"), preferred_windows(encoder) or Windows())
    return pd.DataFrame(evaluate(*pair, encoder, methods, **windows | options, per_image=True))


# --- grids of evaluations ---------------------------------------------------------------------------------

GRID = {"methods": None, "dataset": None, "encoder": None, "shots": 1, "seeds": [1, 2, 3], "limit": None}
NameAndOptions = tuple[str, Mapping[str, Any]]


def expand_grid(grid: Any, extra: Sequence[str] = ()) -> list[Row]:
    """What a YAML grid asks for: one evaluation per dataset, encoder and number of shots.

    Args:
        grid: keys of `GRID`, each a value or a list; lists are crossed. A method or dataset is a name or
            {name: {option: value}}, where an option may list several values. A list of such grids is done
            one after the other.
        extra: names of methods that join those of the grid: a plugin's own.

    Returns:
        One cell of the grid per evaluation: {"dataset" (its label, and its name or folder with options),
        "encoder", "shots", "limit", "methods" (label -> name and options; all of them), "seeds" (all)}.

    Raises:
        ValueError: not a mapping, an unknown key or method, an option of a method that it cannot take, or no
            whole number where one is needed.

    >>> [spec] = expand_grid({"methods": ["rns", {"rns": {"k": [4, 8]}}], "dataset": "photos"})
    >>> spec["methods"]
    {'rns': ('rns', {}), 'rns k=4': ('rns', {'k': 4}), 'rns k=8': ('rns', {'k': 8})}
    """
    specs = []
    for one in grid if isinstance(grid, list) else [grid]:
        if isinstance(one, Mapping):
            one = _grid_keys(one)
        if not isinstance(one, Mapping) or not {"methods", "dataset"} <= set(one) <= set(GRID):
            raise ValueError(f"a grid needs methods and dataset, of the keys {', '.join(GRID)}; got {one!r}")
        lists = {key: _as_list(value) for key, value in (GRID | one).items()}
        for key in ("shots", "seeds", "limit"):
            if not all(type(n) is int or (n is None and key == "limit") for n in lists[key]):
                raise ValueError(f"{key} takes whole numbers, got {one[key]!r}")
        methods = _name_entries([*lists["methods"], *extra])
        for name, options in methods.values():
            registered.make(name, **options)  # refuses what it cannot take, before any work
        if not methods or not lists["seeds"]:
            raise ValueError(f"a grid needs at least one method and one seed; got {one!r}")
        lists["dataset"] = list(_name_entries(lists["dataset"]).items())
        for spec in _crossed(lists | {"methods": [methods], "seeds": [lists["seeds"]]}):
            if spec["encoder"] is None:
                spec["encoder"] = default_encoder(spec["dataset"][1][0])
            specs.append(spec)
    if not specs:
        raise ValueError("the grid is empty")
    return specs


def _grid_keys(grid: Mapping[str, Any]) -> Row:
    """The grid with the keys of `GRID`, where it has the other number of one (`method`, `seed`)."""
    forms = {form: key for key in GRID for form in (key.removesuffix("s"), f"{key}s") if form not in GRID}
    for form in [key for key in grid if forms.get(key) not in (None, *grid)]:
        warnings.warn(f"the grid's key {form!r} is read as {forms[form]!r}", stacklevel=3)
        grid = {forms[form] if key == form else key: value for key, value in grid.items()}
    return dict(grid)


def _crossed(lists: Mapping[str, Sequence]) -> Iterator[Row]:
    """Each choice of one value from every list.

    Raises:
        ValueError: a list is empty.
    """
    if empty := [key for key, values in lists.items() if not values]:
        raise ValueError(f"the list of {empty[0]!r} is empty")
    return (dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values()))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name_entries(entries: Sequence[Any]) -> dict[str, NameAndOptions]:
    """Names, or {name: {option: value or list}} -> label -> name and options; lists are crossed."""
    named = {}
    for entry in entries:
        single = isinstance(entry, Mapping) and len(entry) == 1
        name, options = next(iter(entry.items())) if single else (entry, {})
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise ValueError(f"{entry!r} is neither a name nor {{name: {{option: value}}}}")
        for crossed in _crossed({key: _as_list(value) for key, value in options.items()}):
            named[" ".join([name, *(f"{key}={value}" for key, value in crossed.items())])] = name, crossed
    return named


def run_grid(
    specs: Sequence[Row],
    folder: str | Path,
    *,
    jobs: int = 1,
    plugin: str | Path | None = None,
    device: str = "auto",
) -> tuple[pd.DataFrame, int]:
    """Do each evaluation, and keep a table of it in a folder: its rows per image as parquet.

    A table that is there is not made again while its settings, the plugin and the kit's version are the
    same: a sweep that was killed goes on where it was. After a change of data or code, name another folder.

    Args:
        specs: from `expand_grid`.
        folder: of the tables.
        jobs: evaluations at a time, each in a process of its own where there are several.
        plugin: file that brings methods or encoders.
        device: where the encoders run, as for `load_encoder`.

    Returns:
        All rows, with columns dataset and encoder; how many tables were there already. `rows.attrs["failed"]`
        counts the evaluations that failed.

    Warns:
        UserWarning: an evaluation failed; it names it and says why. The others are done.

    Raises:
        ValueError: every evaluation failed.
    """
    folder = Path(folder)
    paths = [folder / f"{_table_name(spec, plugin)}.parquet" for spec in specs]
    missing = [(spec, path) for spec, path in zip(specs, paths, strict=True) if not path.exists()]
    with parallel_config("loky", n_jobs=jobs):
        find_device(device)  # a wrong name is said once, before any work
        make = partial(_write_table, plugin=plugin, device=device)
        failures = list(_each(lambda pair: make(*pair), missing, "evaluations", progress=None))
    if not (done := [path for path in paths if path.exists()]):
        raise ValueError(f"none of the {len(paths)} evaluations succeeded; the first: {failures[0]}")
    for failure in filter(None, failures):
        warnings.warn(failure, stacklevel=2)
    rows = pd.concat(map(_read_table, done), ignore_index=True)
    rows.attrs["failed"] = len(paths) - len(done)
    return rows, len(paths) - len(missing)


def _read_table(path: Path) -> pd.DataFrame:
    with errors_as(ValueError, f"{path} cannot be read; remove it, and it is made again"):
        return pd.read_parquet(path)


def _write_table(spec: Row, path: Path, plugin: str | Path | None, device: str) -> str | None:
    """Do one evaluation of a grid and write its table; says what failed and why, so that the others go on."""
    label, (name, given) = spec["dataset"]
    try:
        if plugin is not None:
            load_plugin(plugin)  # this may be a process of its own
        encoder = load_encoder(spec["encoder"], device)
        methods = {name: registered.make(kind, **own) for name, (kind, own) in spec["methods"].items()}
        options = {key: spec[key] for key in ("shots", "seeds", "limit")} | {"progress": False}
        rows = _image_rows(open_dataset(name, **given), encoder, methods, **options)
        with atomic_write(path) as beside:
            rows.assign(dataset=label, encoder=spec["encoder"]).to_parquet(beside, index=False)
    except Exception as error:
        return f"{label}, {spec['encoder']}, shots {spec['shots']}: {type(error).__name__}: {error}"


def _table_name(spec: Row, plugin: str | Path | None) -> str:
    """A file name that changes with the settings, the kit's version and the plugin's text."""
    code = None if plugin is None else Path(plugin).read_bytes()
    name = f"{Path(spec['dataset'][0]).name}-{spec['encoder']}-{spec['shots']}"
    return re.sub(r"[^\w.=-]+", "-", name)[:80] + f"-{joblib.hash([spec, __version__, code])[:12]}"
