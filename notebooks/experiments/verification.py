"""Verification and correction by reference images: thresholds from seen classes, a report on novel ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve
from tqdm.auto import tqdm

from data_scripts.scenes import CLASSES, NOVEL, SEEN_NAMES, SEEN_THINGS, draw_scene
from rose_kit.encoder import Encoder
from rose_kit.evaluation import CachedEncoder
from rose_kit.metrics import giou, mean_interval
from rose_kit.web.calibration import Episode, Scores, fit_thresholds
from rose_kit.web.promptable import SegmenterAsPromptable
from rose_kit.web.types import Mask, ReferenceImage, Source
from rose_kit.web.vpe import Thresholds, VisualPromptEnhancer

# Scene seeds, apart from each other. The calibration's begin where the support scenes of `RoseBenchmark` do
# (7,000,000 to 7,000,119, of another cast): neither experiment uses what the other draws or chooses.
CALIBRATION, EVALUATION = 7_000_000, 7_500_000
APART, STEP = 10_000, 50  # between the scenes of two seeds, of two episodes
MOST = APART // 2 // STEP  # episodes of novel classes in a seed, before those of seen ones begin


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
    references = []
    for i in range(count):
        shows = str(rng.choice(_without(name))) if i == wrong else name
        look = {"things": (1, 1), "scale": (0.6, 0.9), "cast": [(shows, int(rng.integers(1_000_000)))]}
        image = draw_scene(seed + 20 + i, 128, **look).image
        references.append(ReferenceImage(Source(f"scene:{seed + 20 + i}", shows), image, shows))
    things = {i + 1: p for i, p in enumerate(scene.things) if p.visible > 60 and p.name != name}
    others = [scene.instances == i for i in things]
    return Episode(name, scene.image, scene.mask == CLASSES.index(name), others, references, (wrong,))


def _without(name: str) -> tuple[str, ...]:
    return tuple(n for n in SEEN_THINGS if n != name)


def episodes(
    names: Sequence[str], count: int, first: int, shown: bool = True, progress: bool = False
) -> Iterator[Episode]:
    """`count` episodes, the classes in turn, from scene seed `first` on."""
    rng = np.random.default_rng(first)
    for i in tqdm(range(count), "episodes", disable=not progress):
        yield draw_episode(names[i % len(names)], first + STEP * i, rng, shown)


def roc_rows(scores: Scores) -> list[dict[str, Any]]:
    """The ROC curves of the scores that `fit_thresholds` chose by: 21 points and the chosen one."""
    rows = []
    for what, (right, wrong) in scores.items():
        false, passed, cuts = roc_curve([1] * len(right) + [0] * len(wrong), [*right, *wrong])
        points = {round(i) for i in np.linspace(1, len(cuts) - 1, 21)} | {int((passed - false).argmax())}
        rows += [
            {"row": "roc", "what": what, "threshold": cuts[i], "true_pass": 100 * passed[i],
             "false_pass": 100 * false[i]}
            for i in sorted(points)
        ]  # fmt: skip
    return rows


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
        cached = CachedEncoder(encoder)
        vpe, base = VisualPromptEnhancer(cached, thresholds), SegmenterAsPromptable(cached, SEEN_NAMES)
        for split, names in (("novel", NOVEL), ("seen", SEEN_THINGS[seed % 3 :: 3])):
            first = EVALUATION + APART * seed + (APART // 2 if split == "seen" else 0)
            answers = [_answer(vpe, base, e) for e in episodes(names, count, first, progress=progress)]
            rows.append(
                {"row": "seed", "classes": split, "seed": seed, "episodes": count, **_scores(answers)}
            )
    return rows + _means(rows)


def _answer(vpe: VisualPromptEnhancer, base: SegmenterAsPromptable, episode: Episode) -> dict[str, Any]:
    text = base.segment(episode.image, f"Segment the {episode.name}")
    after = vpe(episode.image, text, episode.references)
    right = vpe(episode.image, Mask(episode.target, 1.0), episode.references)
    fitted = vpe.match(episode.image, {"": episode.references})[""].discriminant
    others = episode.others if fitted else ()  # without a usable reference, nothing can be compared
    wrong = [v < vpe.thresholds.keep for m in others for v in fitted.similarity(m)]
    return {
        "masks": (text.mask, after.mask.mask, episode.target),
        "right": right.similarity >= vpe.thresholds.keep,
        "wrong": wrong,
        "corrected": after.action == "corrected",
        "outliers": any(all(episode.references[i] is not p for p in after.used) for i in episode.wrong),
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
    thresholds, scores = fit_thresholds(encoder, list(shown), list(absent))
    tqdm.write(f"{encoder.name}: {thresholds}", file=sys.stderr)
    first = {"row": "thresholds", "encoder": encoder.name, **vars(thresholds)}
    return [first, *measure(encoder, thresholds, seeds, count, progress), *roc_rows(scores)]
