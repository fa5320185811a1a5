"""Thresholds of the visual prompt enhancer for an encoder, from annotated images of any classes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from sklearn.metrics import roc_curve

from rose_kit.data import Sample
from rose_kit.encoder import Encoder
from rose_kit.evaluation import CachedEncoder
from rose_kit.metrics import giou
from rose_kit.types import IGNORE, unit
from rose_kit.web.types import ReferenceImage, Source
from rose_kit.web.vpe import Discriminant, ImageView, Thresholds, VisualPromptEnhancer

PARTS = (0.2, 0.3, 0.4, 0.5, 0.6)  # tried for `part`
FALSE_CORRECTIONS = 0.05  # of images that do not show what the references show
OBJECT_SIZE = 0.05, 0.5  # least and largest share of an image that an object fills
MARGIN = 0.5  # of an object's longer side, around it in a reference image
MAX_IMAGES, MAX_EPISODES = 120, 32  # to calibrate on; so many episodes with the target, and without
UNSET = Thresholds(1.0, 0.0, 0.0, 0.0, 0.0)

Scores = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # threshold -> of right and of wrong examples


@dataclass(frozen=True)
class Episode:
    """One thing to verify.

    Args:
        name: the class.
        image: (H, W, 3) uint8.
        target: (H, W) bool, all of the class; empty where the image does not show it.
        others: (H, W) bool each, masks of other things in sight.
        references: images of the class.
        wrong: positions among them of those that show something else.
    """

    name: str
    image: NDArray[np.uint8]
    target: NDArray[np.bool_]
    others: Sequence[NDArray[np.bool_]]
    references: Sequence[ReferenceImage]
    wrong: Sequence[int] = ()


def calibrate(encoder: Encoder, samples: Iterable[Sample]) -> Thresholds:
    """Thresholds of `VisualPromptEnhancer` for an encoder, with its fingerprint.

    It draws episodes and fits thresholds to them, as the two functions below do for any number of them.

    Args:
        encoder: whose features are compared.
        samples: annotated images, such as a `FolderDataset`; some classes must be in several of them. Of more
            than `MAX_IMAGES`, the first are used: each of them, and what is cut out of it, is encoded once.

    Raises:
        ValueError: the images give no episode of a kind, or none with a right and a wrong example.
    """
    return fit_thresholds(encoder, *draw_episodes(list(islice(samples, MAX_IMAGES)), MAX_EPISODES))[0]


def draw_episodes(samples: Sequence[Sample], count: int, seed: int = 0) -> tuple[list[Episode], ...]:
    """Episodes whose image shows the target, and others whose image does not, at most `count` of each.

    The references are cut out of other images, at most four of the class and one of another.
    """
    rng, shown, absent = np.random.default_rng(seed), [], []
    cuts: dict[str, dict[int, ReferenceImage]] = defaultdict(dict)  # class -> image -> its largest object
    for i, sample in enumerate(samples):
        for name, cut in _cut_objects(sample):
            cuts[name][i] = cut
    for name, own in cuts.items():
        for i, sample in enumerate(samples):
            target = np.isin(sample.mask, [c for c, other in sample.classes.items() if other == name])
            elsewhere = [cut for j, cut in own.items() if j != i]
            strangers = [c for other, of in cuts.items() if other != name for j, c in of.items() if j != i]
            if len(elsewhere) < 2 or not strangers or (target.any() and i not in own):
                continue  # too few references, or the class is there, but not as an object
            chosen = [elsewhere[k] for k in rng.permutation(len(elsewhere))[:4]]
            wrong = int(rng.integers(len(chosen) + 1))
            chosen.insert(wrong, strangers[rng.integers(len(strangers))])
            others = [sample.mask == c for c in np.unique(sample.mask[~target]) if c != IGNORE]
            others = [m for m in others if m.mean() >= OBJECT_SIZE[0]]
            episode = Episode(name, sample.image, target, others, chosen, (wrong,))
            (shown if target.any() else absent).append(episode)
    return tuple([kind[k] for k in rng.permutation(len(kind))[:count]] for kind in (shown, absent))


def _cut_objects(sample: Sample) -> Iterator[tuple[str, ReferenceImage]]:
    """(class, an image of its largest object) for the classes of a sample that have one.

    An object is a connected part that ends inside the image, but perhaps at one border.
    """
    height, width = sample.mask.shape
    for c, name in sample.classes.items():
        parts = sorted(regionprops(label(sample.mask == c)), key=lambda part: -part.area)
        if not parts or not OBJECT_SIZE[0] <= parts[0].area / sample.mask.size <= OBJECT_SIZE[1]:
            continue
        y0, x0, y1, x1 = parts[0].bbox
        if (y0 == 0) + (x0 == 0) + (y1 == height) + (x1 == width) > 1:
            continue
        around = int(MARGIN * max(y1 - y0, x1 - x0)) + 1
        crop = sample.image[max(0, y0 - around) : y1 + around, max(0, x0 - around) : x1 + around]
        yield name, ReferenceImage(Source(sample.source or sample.image_id, name), crop, name)


def fit_thresholds(
    encoder: Encoder, shown: Sequence[Episode], absent: Sequence[Episode]
) -> tuple[Thresholds, Scores]:
    """Thresholds from episodes whose target is in the image (`shown`), or is not (`absent`).

    `same`, `keep` and `whole` have the best balanced accuracy: of pairs of references, of right and wrong
    masks, of right masks and a quarter of each. `part` makes proposals overlap most with the target, and
    `correct` lets pass the best proposal in `FALSE_CORRECTIONS` of the images that do not show it.

    Returns:
        The thresholds; the scores of right and of wrong examples that these three were chosen by, where a
        high score speaks for a right one (for `same`, it is minus the distance).

    Raises:
        ValueError: there is no episode of a kind, or none with a right and a wrong example.
    """
    if not (shown and absent):
        expected = "two images of an object of one class, a third image without it, and another class"
        raise ValueError(
            f"calibration found {len(shown)} episodes with and {len(absent)} without their "
            f"target; it needs at least {expected}"
        )
    vpe = VisualPromptEnhancer(CachedEncoder(encoder), UNSET)
    scores = {"same": _pairs(vpe, shown)}
    limits = vpe.thresholds = replace(UNSET, same=-best_cut(*scores["same"], "same"))
    shown, absent = _fit(vpe, shown), _fit(vpe, absent)
    right = [v for e, _, fitted in shown for v in fitted.similarity(e.target)]
    wrong = [v for e, _, fitted in shown for mask in e.others for v in fitted.similarity(mask)]
    scores["keep"] = right, wrong
    keep, overlap = best_cut(right, wrong, "keep"), {}
    for part in PARTS:
        vpe.thresholds = replace(limits, part=part, correct=part)
        proposals = [vpe.propose(view, fitted)[0] for _, view, fitted in shown]
        overlap[part] = giou(proposals, [e.target for e, _, _ in shown])
    part = max(overlap, key=overlap.get)
    limits = vpe.thresholds = replace(limits, keep=keep, part=part, correct=part)
    best = [vpe.propose(view, fitted)[1] for _, view, fitted in absent] or [part]
    correct = max(part, float(np.quantile(best, 1 - FALSE_CORRECTIONS)))
    shares = np.array([_shares(vpe, *fit) for fit in shown])  # (E, 2)
    scores["whole"] = shares[:, 0].tolist(), shares[:, 1].tolist()
    whole = max(best_cut(*scores["whole"], "whole"), 0.0)
    values = (limits.same, keep, part, correct, whole)
    return Thresholds(*(round(float(v), 3) for v in values), encoder.fingerprint), scores


def _fit(
    vpe: VisualPromptEnhancer, episodes: Sequence[Episode]
) -> list[tuple[Episode, ImageView, Discriminant]]:
    """What is needed to propose masks, of each episode that has a usable reference."""
    fits = [(e, view := vpe.look(e.image), vpe.fit(view, e.references)[1]) for e in episodes]
    return [fit for fit in fits if fit[2]]


def _shares(
    vpe: VisualPromptEnhancer, episode: Episode, view: ImageView, fitted: Discriminant
) -> tuple[float, float]:
    """Of the evidence of the proposals, what the right mask holds, and what its leftmost quarter."""
    found, pixels = vpe.propose(view, fitted)[0], fitted.pixels()
    columns = np.nonzero(episode.target)[1]
    quarter = episode.target & (np.arange(found.shape[1]) <= np.quantile(columns, 0.25))
    target, left, whole = ((pixels[m] - vpe.thresholds.part).sum() for m in (episode.target, quarter, found))
    return (float(target / whole), float(left / whole)) if whole > 0 else (1.0, 0.0)


def _pairs(vpe: VisualPromptEnhancer, episodes: Sequence[Episode]) -> tuple[list[float], list[float]]:
    """Minus the cosine distance of pairs of references that show the same, and that do not."""
    same, other = [], []
    for episode in episodes:
        shown = vpe.encode_references(episode.references)
        means = [(i, unit(objects.mean(0))) for i, objects, _ in shown]  # (D,) each
        for (i, one), (j, another) in combinations(means, 2):
            (other if {i, j} & set(episode.wrong) else same).append(float(one @ another) - 1)
    return same, other


def best_cut(right: Sequence[float], wrong: Sequence[float], what: str) -> float:
    """The value between two scores that tells right from wrong best, by balanced accuracy.

    Raises:
        ValueError: there are no right or no wrong scores; `what` names them.

    >>> best_cut([3, 4, 5], [1, 2, 3.5], "keep")
    2.5
    """
    if not (right and wrong):
        raise ValueError(f"{what!r} needs right and wrong examples, got {len(right)} and {len(wrong)}")
    false, passed, cuts = roc_curve([1] * len(right) + [0] * len(wrong), [*right, *wrong])
    best = 1 + int((passed - false)[1:].argmax())  # the first cut lets nothing pass
    below = [value for value in (*right, *wrong) if value < cuts[best]]
    return float((cuts[best] + max(below, default=cuts[best])) / 2)
