"""Do the default settings of RNS travel? Drawn problems of several kinds, against the published settings.

Features have 512 dimensions: a mean for each class, what a class has of its own in an image and a patch of
its own, nuisance directions that all classes share, and texts off the visual means by a modality gap.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from experiments.solvers import SIZES, Row, one_thread
from rose_kit.adapter import RNS
from rose_kit.adapter.rns import Samples, class_relevance
from rose_kit.evaluation import mean_interval
from rose_kit.fusion import retrieve
from rose_kit.fusion.zero_shot import class_cosines
from rose_kit.memory import SupportMemory
from rose_kit.types import Query, Vocabulary, unit, unknown_name

DIM, PATCHES, REPEATS = 512, 1024, 4
RANDOM = "random"  # every seed has a kind of its own


@dataclass(frozen=True)
class Kind:
    """How the features of a problem are drawn; lengths are in units of a class mean's.

    Args:
        rank: dimensions in which the classes' means differ.
        groups: of classes whose means lie close together; 0: none.
        common: length of the direction that all visual features share; texts share another, as long.
        spread: length of what a patch has of its own, in all dimensions.
        decay: how fast the variance of that falls from dimension to dimension; 0 is isotropic.
        offset: length of what a class has of its own in an image.
        nuisance: length of what has nothing to do with classes; half of its variance is the image's,
            half the patch's.
        directions: how many dimensions the nuisance has.
        text: share of the class's mean in its text; the rest points anywhere among the classes' means.
        crowded: whether the query image holds all classes, not as many as a support image.
    """

    rank: int = 24
    groups: int = 0
    common: float = 2.0
    spread: float = 4.0
    decay: float = 0.0
    offset: float = 1.0
    nuisance: float = 1.0
    directions: int = 8
    text: float = 0.5
    crowded: bool = False


KINDS = {
    "plain": Kind(),
    "crowded": Kind(crowded=True),
    "strong nuisance": Kind(nuisance=3.0, directions=4, crowded=True),
    "many nuisances": Kind(nuisance=3.0, directions=64),
    "narrow cone": Kind(common=6.0, decay=0.5),
    "no cone": Kind(common=0.3, decay=0.5, crowded=True),
    "similar classes": Kind(groups=6, spread=2.5),
    "poor text": Kind(text=0.2, decay=0.5),
    "good text": Kind(text=0.8, offset=2.0, spread=4.5, crowded=True),
    "steep spectrum": Kind(decay=1.0, spread=2.0),
}


def kind_of(name: str, seed: int) -> Kind:
    """One of `KINDS`, or a random one that depends on the seed.

    Raises:
        ValueError: there is no kind of that name; lists those there are.
    """
    if name != RANDOM:
        if name not in KINDS:
            raise unknown_name("kind", name, [*KINDS, RANDOM])
        return KINDS[name]
    rng = np.random.default_rng([seed, 1])
    decay = rng.uniform(0, 1)
    return Kind(
        rank=int(rng.integers(16, 49)),
        groups=int(rng.choice([0, 0, 6])),
        common=rng.uniform(0.5, 5),
        spread=rng.uniform(2, 5) * (1 - decay / 2),  # falling variance hurts more at the same length
        decay=decay,
        offset=rng.uniform(0.5, 2),
        nuisance=rng.uniform(0.5, 3),
        directions=int(rng.choice([2, 4, 8, 16, 64])),
        text=rng.uniform(0.2, 0.8),
        crowded=bool(rng.integers(2)),
    )


def drawn_problem(kind: Kind, size: str, seed: int) -> tuple[Query, SupportMemory, Vocabulary, NDArray]:
    """A query, a memory, a vocabulary, and the (N,) class indices of the query's patches."""
    classes, images, per_image, _ = SIZES[size]
    rng = np.random.default_rng(seed)
    deviation = (1.0 + np.arange(DIM)) ** (-kind.decay / 2)
    deviation /= np.linalg.norm(deviation)
    ways = unit(rng.normal(size=(kind.directions, DIM))) / np.sqrt(2 * kind.directions)
    vision, language = kind.common * unit(rng.normal(size=(2, DIM)))

    def own(n: int, length: float) -> NDArray:
        return length * deviation * rng.normal(size=(n, DIM))

    def nuisance(n: int) -> NDArray:
        return kind.nuisance * rng.normal(size=(n, kind.directions)) @ ways

    def among_classes(n: int) -> NDArray:
        return np.pad(unit(rng.normal(size=(n, kind.rank))), ((0, 0), (0, DIM - kind.rank)))

    means = among_classes(classes)
    if kind.groups:
        means = 0.6 * means + 0.8 * among_classes(kind.groups)[rng.integers(kind.groups, size=classes)]
    text = language + kind.text * means + (1 - kind.text) * among_classes(classes)

    share = (1 + np.arange(classes)) ** -0.7  # a long tail
    shown = [rng.choice(classes, per_image, replace=False, p=share / share.sum()) for _ in range(images)]
    labels, image = np.concatenate(shown), np.repeat(np.arange(images), per_image)
    vectors = vision + means[labels] + own(len(labels), kind.offset) + nuisance(images)[image]
    averaged = rng.integers(4, 200, size=(len(labels), 1))  # patches that a prototype is the mean of
    vectors += (own(len(labels), kind.spread) + nuisance(len(labels))) / np.sqrt(averaged)

    present = np.arange(classes) if kind.crowded else rng.choice(np.unique(labels), per_image, replace=False)
    seen = rng.choice(present, PATCHES)
    features = vision + means[seen] + own(classes, kind.offset)[seen] + nuisance(1)
    features += own(PATCHES, kind.spread) + nuisance(PATCHES)

    # Turned, since AdamW would be worse where what tells classes apart lies along a few axes.
    rotation = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    vectors, text, features = (unit(rows @ rotation) for rows in (vectors, text, features))
    names = [f"class {c}" for c in range(classes)]
    memory = SupportMemory.from_prototypes(vectors, [names[c] for c in labels], image.astype(str))
    return Query(features), memory, Vocabulary(names, text), seen


class PerClass(RNS):
    """RNS as it was before: a constant regulariser for each class, chosen on drawn scenes."""

    def ridge(self, samples: Samples) -> float:
        """See `RNS.ridge`."""
        return 0.01 / len(np.unique(samples.label))


METHODS = {"published": RNS.published(), "default": RNS(), "per class": PerClass(beta_fused=1.5)}


def problem_rows(
    kinds: Sequence[str], sizes: Sequence[str], seeds: Sequence[int], progress: bool = True
) -> list[Row]:
    """One row per problem: accuracy on patches in percent, and seconds of the processor to train a head."""
    problems = [(size, kind, seed) for size in sizes for kind in kinds for seed in seeds]
    with one_thread():
        return [problem_row(*problem) for problem in tqdm(problems, "problems", disable=not progress)]


def problem_row(size: str, kind: str, seed: int) -> Row:
    """Every method on the same retrieved prototypes; a solver's quickest run counts (AdamW: its one run)."""
    query, memory, vocabulary, seen = drawn_problem(kind_of(kind, seed), size, seed)
    zero_shot = class_cosines(query.features, vocabulary).argmax(1)
    row: Row = {"data": size, "kind": kind, "seed": seed, "zero-shot": 100 * np.mean(zero_shot == seen)}
    for name, method in METHODS.items():
        retrieved = retrieve(query.features, memory, vocabulary, method.k)
        prototypes = memory.class_prototypes(vocabulary.names)
        samples = method.samples(query, retrieved, prototypes, vocabulary)
        weight = samples.weight(class_relevance(query.image_feature, vocabulary, method.tau, method.spreads))
        seconds = []
        for _ in range(1 if name == "published" else REPEATS):
            clock = time.process_time()
            head = method.solve(samples, weight)
            seconds.append(time.process_time() - clock)
        row |= {name: 100 * np.mean(head.logits(query.features).argmax(1) == seen)}
        row |= {f"{name}_s": min(seconds), "samples": len(samples)}
    row |= {"gain": row["default"] - row["published"], "gain per class": row["per class"] - row["published"]}
    return row | {"speedup": row["published_s"] / row["default_s"]}


def summary(rows: Sequence[Row]) -> pd.DataFrame:
    """Per size and kind: mean accuracy, gain over the published settings, and the least speed-up."""
    groups = pd.DataFrame(rows).groupby(["data", "kind"], sort=False)
    columns = ["zero-shot", "published", "per class", "default", "gain per class", "gain"]
    table = groups[columns].mean()
    table["half_width"] = groups.gain.agg(lambda gains: mean_interval(gains.tolist())[1])
    table["problems"], table["least speedup"] = groups.size(), groups.speedup.min()
    return table.round(1).reset_index()
