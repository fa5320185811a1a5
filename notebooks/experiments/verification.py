"""Verification and correction by reference images: thresholds from seen classes, a report on novel ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from data_scripts.scenes import CLASSES, NOVEL, SEEN_THINGS, draw_scene
from rose_kit.encoder import Encoder
from rose_kit.evaluation import CachedEncoder
from rose_kit.metrics import giou, mean_interval
from rose_kit.types import unit
from rose_kit.web.promptable import SegmenterAsPromptable
from rose_kit.web.types import Mask, ReferenceImage, Source
from rose_kit.web.vpe import ObjectDetector, Thresholds, VisualPromptEnhancer, foreground

# Scene seeds, apart from each other. The calibration's begin where the support scenes of `RoseBenchmark` do
# (7,000,000 to 7,000,119, of another cast): neither experiment uses what the other draws or chooses.
CALIBRATION, EVALUATION = 7_000_000, 7_500_000
APART, STEP = 10_000, 50  # between the scenes of two seeds, of two episodes
MOST = APART // 2 // STEP  # episodes of novel classes in a seed, before those of seen ones begin
PARTS = (0.2, 0.3, 0.4, 0.5, 0.6)  # tried for `part`
FALSE_CORRECTIONS = 0.05  # of images that do not show what the references show


@dataclass(frozen=True)
class Episode:
    """One thing to verify.

    Args:
        name: the class.
        image: (H, W, 3) uint8.
        target: (H, W) bool, all of the class; empty where the image does not show it.
        others: (H, W) bool each, masks of other things in sight.
        images: the references.
        wrong: positions among them of those that show something else.
    """

    name: str
    image: NDArray[np.uint8]
    target: NDArray[np.bool_]
    others: Sequence[NDArray[np.bool_]]
    pictures: Sequence[ReferenceImage]
    wrong: Sequence[int] = ()


def draw_episode(name: str, seed: int, rng: np.random.Generator, shown: bool = True) -> Episode:
    """A scene, 128 px, and 3 to 5 images of the class, each individual another, of which one is wrong."""
    while True:
        scene = draw_scene(
            seed, 128, cast=[(name, int(rng.integers(1_000_000)))] if shown else [], classes=_without(name)
        )
        if not shown or any(p.name == name and p.visible > 150 for p in scene.things):
            break
        seed += 1
    count = int(rng.integers(3, 6))
    wrong = int(rng.integers(count))
    pictures = []
    for i in range(count):
        shows = str(rng.choice(_without(name))) if i == wrong else name
        look = {"things": (1, 1), "scale": (0.6, 0.9), "cast": [(shows, int(rng.integers(1_000_000)))]}
        image = draw_scene(seed + 20 + i, 128, **look).image
        pictures.append(ReferenceImage(Source(f"scene:{seed + 20 + i}", shows), image, shows))
    things = {i + 1: p for i, p in enumerate(scene.things) if p.visible > 60 and p.name != name}
    others = [scene.instances == i for i in things]
    return Episode(name, scene.image, scene.mask == CLASSES.index(name), others, pictures, (wrong,))


def _without(name: str) -> tuple[str, ...]:
    return tuple(n for n in SEEN_THINGS if n != name)


def episodes(
    names: Sequence[str], count: int, first: int, shown: bool = True, progress: bool = False
) -> Iterator[Episode]:
    """`count` episodes, the classes in turn, from scene seed `first` on."""
    rng = np.random.default_rng(first)
    for i in tqdm(range(count), "episodes", disable=not progress):
        yield draw_episode(names[i % len(names)], first + STEP * i, rng, shown)


def calibrate(
    encoder: Encoder, shown: Iterable[Episode], absent: Iterable[Episode]
) -> tuple[Thresholds, list[dict[str, Any]]]:
    """Thresholds of `VisualPromptEnhancer` for an encoder, from annotated episodes of your own or drawn ones.

    `same`, `keep` and `whole` have the best balanced accuracy: of pairs of references, of right and wrong
    masks, of right masks and a quarter of each. `part` makes proposals overlap most with the target, and
    `correct` lets pass the best proposal in `FALSE_CORRECTIONS` of the images that do not show it.

    Args:
        encoder: whose features are compared.
        shown: episodes whose target is in the image.
        absent: episodes whose target is not.

    Returns:
        The thresholds; the points of the ROC curves, a row each.

    Raises:
        ValueError: there is no episode of a kind, or none with a right and a wrong example.
    """
    shown, vpe = (
        list(shown),
        VisualPromptEnhancer(CachedEncoder(encoder), Thresholds(1.0, 0.0, 0.0, 0.0, 0.0)),
    )
    same, pairs = _best(*_pairs(vpe, shown), "same")
    vpe.thresholds = Thresholds(-same, 0.0, 0.0, 0.0, 0.0)  # distances: the smaller, the more alike
    fitted = [(e, detector) for e in shown if (detector := _detector(vpe, e))]
    right = [v for e, detector in fitted for v in detector.similarity(e.target)]
    wrong = [v for e, detector in fitted for mask in e.others for v in detector.similarity(mask)]
    keep, masks = _best(right, wrong, "keep")
    overlap = {}
    for part in PARTS:
        vpe.thresholds = Thresholds(-same, keep, part, part, 0.0)
        overlap[part] = giou(
            [vpe.propose(e.image, detector)[0] for e, detector in fitted], [e.target for e, _ in fitted]
        )
    part = max(overlap, key=overlap.get)
    vpe.thresholds = Thresholds(-same, keep, part, part, 0.0)
    best = [vpe.propose(e.image, d)[1] for e in absent if (d := _detector(vpe, e))]
    if not best:
        raise ValueError("calibration needs episodes whose image does not show the target, got none")
    correct = max(part, float(np.quantile(np.nan_to_num(best, nan=-1), 1 - FALSE_CORRECTIONS)))
    shares = np.array([_shares(vpe, e, detector) for e, detector in fitted])  # (E, 2)
    whole, parts = _best(*shares.T.tolist(), "whole")
    values = (-same, keep, part, correct, max(whole, 0.0))
    return Thresholds(*(round(v, 3) for v in values)), pairs + masks + parts


def _shares(vpe: VisualPromptEnhancer, episode: Episode, detector: ObjectDetector) -> tuple[float, float]:
    """Of the evidence of the proposals, what the right mask holds, and what its leftmost quarter."""
    found, pixels = vpe.propose(episode.image, detector)[0], detector.pixels()
    columns = np.nonzero(episode.target)[1]
    quarter = episode.target & (np.arange(found.shape[1]) <= np.quantile(columns, 0.25))
    target, left, whole = ((pixels[m] - vpe.thresholds.part).sum() for m in (episode.target, quarter, found))
    return (float(target / whole), float(left / whole)) if whole > 0 else (1.0, 0.0)


def _pairs(vpe: VisualPromptEnhancer, episodes: Sequence[Episode]) -> tuple[list[float], list[float]]:
    """Minus the cosine distance of pairs of references that show the same, and that do not."""
    same, other = [], []
    for episode in episodes:
        views = [vpe.encoder.encode_image(p.image, windows=vpe.reference_windows) for p in episode.pictures]
        means = unit([view.flat()[foreground(view)].mean(0) for view in views])  # (n, D)
        for i in range(len(means)):
            for j in range(i):
                (other if {i, j} & set(episode.wrong) else same).append(float(means[i] @ means[j]) - 1)
    return same, other


def _detector(vpe: VisualPromptEnhancer, episode: Episode) -> ObjectDetector | None:
    return vpe.fit(episode.image, episode.pictures)[1]


def _best(right: Sequence[float], wrong: Sequence[float], what: str) -> tuple[float, list[dict[str, Any]]]:
    """The value between two scores that tells right from wrong best, and the curve, 21 points of it."""
    if not right or not wrong:
        raise ValueError(
            f"calibrating {what!r} needs right and wrong examples, got {len(right)}, {len(wrong)}"
        )
    right, wrong = np.sort(right), np.sort(wrong)
    values = np.unique(np.concatenate([right, wrong]))
    cuts = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    passed = 1 - np.searchsorted(right, cuts) / len(right)
    false = 1 - np.searchsorted(wrong, cuts) / len(wrong)
    at = int((passed - false).argmax())
    points = {round(i) for i in np.linspace(0, len(cuts) - 1, 21)} | {at}
    rows = [
        {
            "row": "roc",
            "what": what,
            "threshold": cuts[i],
            "true_pass": 100 * passed[i],
            "false_pass": 100 * false[i],
        }
        for i in sorted(points)
    ]
    return float(cuts[at]), rows


def measure(
    encoder: Encoder, thresholds: Thresholds, seeds: Sequence[int], count: int, progress: bool = False
) -> list[dict[str, Any]]:
    """Per seed, of novel and of seen classes: gIoU by text and after the enhancer, accuracy of verification.

    Args:
        encoder: as calibrated.
        thresholds: of the enhancer.
        seeds: each draws scenes, references and which of them is wrong.
        count: episodes of each kind per seed, at most 100: further ones would share scenes.
        progress: show progress bars.

    Returns:
        Rows in percent: `text` gIoU of "Segment the CLASS", `vpe` of what came of it, `gain`, `balanced`
        accuracy on right and wrong masks, `corrected`, `outliers` found, `false_corrections` (of right
        masks that came out with less than half of their IoU).

    Raises:
        ValueError: `count` is not from 1 to 100.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"count must be from 1 to {MOST}, or episodes would share scenes; got {count}")
    rows = []
    for seed in seeds:
        known = CachedEncoder(encoder)
        vpe, base = VisualPromptEnhancer(known, thresholds), SegmenterAsPromptable(known)
        for split, names in (("novel", NOVEL), ("seen", SEEN_THINGS[seed % 3 :: 3])):
            first = EVALUATION + APART * seed + (APART // 2 if split == "seen" else 0)
            answers = [_answer(vpe, base, e) for e in episodes(names, count, first, progress=progress)]
            rows.append(
                {"row": "seed", "classes": split, "seed": seed, "episodes": count, **_scores(answers)}
            )
    return rows + _means(rows)


def _answer(vpe: VisualPromptEnhancer, base: SegmenterAsPromptable, episode: Episode) -> dict[str, Any]:
    text = base.segment(episode.image, f"Segment the {episode.name}")
    after = vpe(episode.image, text, episode.pictures)
    right = vpe(episode.image, Mask(episode.target, 1.0), episode.pictures)
    detector = _detector(vpe, episode)
    others = episode.others if detector else ()  # without a usable reference, nothing can be compared
    wrong = [v < vpe.thresholds.keep for m in others for v in detector.similarity(m)]
    return {
        "masks": (text.mask, after.mask.mask, episode.target),
        "right": right.similarity >= vpe.thresholds.keep,
        "wrong": wrong,
        "corrected": after.action == "corrected",
        "outliers": any(all(episode.pictures[i] is not p for p in after.used) for i in episode.wrong),
        "false_corrections": giou([right.mask.mask], [episode.target]) < 0.5,
    }


def _scores(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    text, after, target = zip(*(a["masks"] for a in answers), strict=True)
    of = {
        key: 100 * float(np.mean([a[key] for a in answers]))
        for key in ("right", "corrected", "outliers", "false_corrections")
    }
    before, vpe = 100 * giou(text, target), 100 * giou(after, target)
    balanced = (of.pop("right") + 100 * np.mean([w for a in answers for w in a["wrong"]])) / 2
    return {"text": before, "vpe": vpe, "gain": vpe - before, "balanced": balanced, **of}


def _means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and half-width of the 95 % interval over seeds, of every column."""
    out = []
    for split in dict.fromkeys(row["classes"] for row in rows):
        own = [row for row in rows if row["classes"] == split]
        columns = [key for key in own[0] if key not in ("row", "classes", "seed", "episodes")]
        for i, name in enumerate(("mean", "half_width")):
            values = {key: mean_interval([row[key] for row in own])[i] for key in columns}
            out.append({"row": name, "classes": split, "episodes": len(own) * own[0]["episodes"], **values})
    return out


def verification_rows(
    encoder: Encoder,
    seeds: Sequence[int],
    count: int = 24,
    calibration: int = len(SEEN_THINGS),
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Calibrate on scenes of seen classes, then `measure` on scenes that no calibration used: all rows.

    Args:
        encoder: what is calibrated.
        seeds, count, progress: as for `measure`.
        calibration: episodes with, and as many without, the target.
    """
    drawn, absent = calibration, CALIBRATION + 100_000
    shown = episodes(SEEN_THINGS, drawn, CALIBRATION, progress=progress)
    absent = episodes(SEEN_THINGS, drawn, absent, shown=False, progress=progress)
    thresholds, roc = calibrate(encoder, shown, absent)
    tqdm.write(f"{encoder.name}: {thresholds}", file=sys.stderr)
    first = {"row": "thresholds", "encoder": encoder.name, **vars(thresholds)}
    return [first, *measure(encoder, thresholds, seeds, count, progress), *roc]
