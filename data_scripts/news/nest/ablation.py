"""The paper's ablation in miniature: which module of the framework carries which part of NEST."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_scripts.news.archive import THRESHOLDS
from data_scripts.news.nest.engine import NEST_SHARE, build_nest
from data_scripts.news.nest.run import Row, measure, run_nest
from data_scripts.news.nest.systems import Result, System
from data_scripts.news.nest.table import MEASURES, PARTS, summarise_nest, write_tables
from data_scripts.news.world import NewsWorld
from data_scripts.scenes import SEEN_NAMES
from rose_kit.encoder import load_encoder
from rose_kit.evaluation import CachedEncoder
from rose_kit.metrics import mean_interval
from rose_kit.web.framework import RoseFramework, Search
from rose_kit.web.language import word_pattern
from rose_kit.web.promptable import SegmenterAsPromptable
from rose_kit.web.types import Mask, Promptable, Provider
from rose_kit.web.vpe import Thresholds
from rose_kit.web.websense import WebSense

BASE, TEXT, IRAG, TPE = "base", "text-only search", "+ IRAG", "+ IRAG + TPE"
VPE, ALL, GATED = "+ IRAG + VPE", "all", "all, with WebSense"
RULES, SCRIPTED = "WebSense by rules", "WebSense with a scripted model"
GATE_MEASURES = ("gate_accuracy", "false_skips", "skipped_of_needless", "calls_saved")


def make_systems(provider: Provider, encoder: Any) -> dict[str, System]:
    """Every line of the table, on one web; look-ups and masks are shared where they are the same.

    Args:
        provider: the web that is searched.
        encoder: an image and text encoder, such as `CachedEncoder(load_encoder("bundled"))`.

    Raises:
        ValueError: the vision tower is not that of the bundled encoders, for which `THRESHOLDS` are.
    """
    base = SegmenterAsPromptable(encoder, SEEN_NAMES)
    limits = Thresholds.load(THRESHOLDS)
    full = RoseFramework(base, provider, encoder, known=SEEN_NAMES, thresholds=limits)
    irag, segmenter = cached_by_image(full.irag), CachedSegmenter(base)
    without_gate = full.replace(segmenter=segmenter, websense=None, irag=irag)
    chosen = {
        BASE: without_gate.replace(irag=None),
        IRAG: without_gate.replace(tpe=None, vpe=None),
        TPE: without_gate.replace(vpe=None),
        VPE: without_gate.replace(tpe=None),
        ALL: without_gate,
        GATED: without_gate.replace(websense=full.websense),
    }
    systems = {name: system(framework) for name, framework in chosen.items()}
    text_only = text_only_search(irag, segmenter, SEEN_NAMES)
    return {BASE: systems.pop(BASE), TEXT: text_only, **systems}


def text_only_search(irag: Search, segmenter: Promptable, known: Collection[str]) -> System:
    """The baseline of the paper's kind: search by words alone, then "Please segment ANSWER".

    The segmenter never gets a name that means nothing to it: where the answer holds none of the `known`
    words, or the question itself holds one, the prompt is the question, as of the segmenter alone.
    """
    pattern = word_pattern(known)

    def ask(image: NDArray[np.uint8], question: str, day: date) -> Result:
        answer = next((c.text for c in irag(image, question, day).candidates), "")
        helps = re.search(pattern, answer.lower()) and not re.search(pattern, question.lower())
        mask = segmenter.segment(image, f"Please segment {answer}" if helps else question)
        return Result(mask.mask, answer, True, "looks everything up")

    return ask


def cached_by_image(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of an image and more that answers the same question about the same image once."""
    answers: dict[Hashable, Any] = {}

    def cached(image: NDArray[np.uint8], *rest: Hashable) -> Any:
        key = hashlib.sha256(image.tobytes()).digest(), image.shape, rest
        if key not in answers:
            answers[key] = function(image, *rest)
        return answers[key]

    return cached


class CachedSegmenter:
    """A promptable segmenter that answers the same prompt about the same image once."""

    def __init__(self, segmenter: Promptable) -> None:
        self.segment: Callable[[NDArray[np.uint8], str], Mask] = cached_by_image(segmenter.segment)


def system(framework: RoseFramework) -> System:
    """A framework as `run_nest` asks it; a failure of the web is an error here, not a warning."""

    def ask(image: NDArray[np.uint8], question: str, day: date) -> Result:
        found = framework.ask(image, question, day)
        if found.failure:
            raise OSError(found.failure)
        answer = found.answer.text if found.answer else ""
        return Result(found.mask.mask, answer, found.retrieval is not None, found.decision.reason)

    return ask


def gate_rows(
    worlds: Sequence[NewsWorld], count: int, known: Collection[str], progress: bool = True
) -> list[Row]:
    """The gate alone, on more questions than there is time to look up: rows as of `run_nest`, masks empty.

    The gate by rules is one system. The other has a scripted model, which tells the truth wherever the rules
    ask it: the most that a language model could add there, and no evidence of what one would.

    Args:
        worlds: one a seed.
        count: questions of each.
        known: the words that the segmenter understands.
    """
    script = {"reply": ""}
    gates = {RULES: WebSense(known=known), SCRIPTED: WebSense(lambda prompt: script["reply"], known)}
    rows: list[Row] = []

    def gate(name: str) -> System:
        def decide(image: NDArray[np.uint8], question: str, day: date) -> Result:
            script["reply"] = "YES" if truth[question, day] else "NO"
            decision = gates[name](question, day)
            return Result(np.zeros(image.shape[:2], bool), "", decision.retrieve, decision.reason)

        return decide

    for world in worlds:
        nest = build_nest(world, count, nest_share=NEST_SHARE, size=64, progress=progress)
        truth = {(sample.question, sample.day): sample.needs_web for sample in nest}
        rows += run_nest(nest, {name: gate(name) for name in gates}, progress)
    return rows


def goals(rows: Sequence[Row], gate: Sequence[Row]) -> pd.DataFrame:
    """The goals that were set before anything was measured, each judged by its interval over worlds.

    Args:
        rows: of `make_systems`; gate: of `gate_rows`.

    Returns:
        goal, wanted, effect (points or percent, mean over worlds), half_width of its 95 % interval, verdict:
        "met" or "missed" where the whole interval is, else "unclear"; so is everything with a single world.
    """
    frame, gates = pd.DataFrame(rows), pd.DataFrame(gate)
    gates = gates[gates["system"] == RULES]

    def gain(more: str, less: str, part: str) -> list[float]:
        chosen = frame[PARTS[part](frame)]
        means = 100 * chosen.pivot_table(index="seed", columns="system", values="iou", aggfunc="mean")
        return (means[more] - means[less]).tolist()

    def rate(name: str) -> list[float]:
        return [100 * MEASURES[name](group) for _, group in gates.groupby("seed")]

    lines = [
        ("text-only search over base, gIoU of NEST+", ">= 0", gain(TEXT, BASE, "overall")),
        ("all over text-only search, gIoU of NEST", ">= 19.2", gain(ALL, TEXT, "nest")),
        ("all with WebSense over text-only search, gIoU of NEST+", ">= 19.2", gain(GATED, TEXT, "overall")),
        ("novel: what VPE adds to IRAG, over what TPE adds", "> 0", gain(VPE, TPE, "novel")),
        ("emerging: what TPE adds to IRAG, over what VPE adds", "> 0", gain(TPE, VPE, "emerging")),
        ("WebSense: needless look-ups skipped", ">= 75", rate("skipped_of_needless")),
        ("WebSense: needed look-ups skipped", "<= 5", rate("false_skips")),
        ("WebSense: what it costs, gIoU of NEST", "<= 2", gain(ALL, GATED, "nest")),
    ]
    table = []
    for goal, wanted, values in lines:
        mean, half_width = mean_interval(values)
        table.append((goal, wanted, round(mean, 2), round(half_width, 2), verdict(mean, half_width, wanted)))
    return pd.DataFrame(table, columns=["goal", "wanted", "effect", "half_width", "verdict"])


def verdict(mean: float, half_width: float, wanted: str) -> str:
    """Whether an interval is as wanted.

    >>> verdict(21.0, 1.5, ">= 19.2"), verdict(21.0, 2.5, ">= 19.2"), verdict(3.0, 0.5, "<= 2")
    ('met', 'unclear', 'missed')
    """
    sign, bound = wanted.split()
    is_met = {">=": operator.ge, ">": operator.gt, "<=": operator.le}[sign]
    ends = {is_met(mean + k * half_width, float(bound)) for k in (-1, 1)}
    return "unclear" if len(ends) > 1 or np.isnan(half_width) else "met" if ends == {True} else "missed"


def ablate(
    worlds: Sequence[NewsWorld],
    out: str | Path,
    count: int = 60,
    gate_count: int = 300,
    progress: bool = True,
    encoder: str = "bundled/clear",
    resume: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build NEST+ of every world, ask every system, and write the tables.

    Args:
        worlds: one a seed.
        out: folder for nest_samples.csv, nest.csv, nest.md, nest_gate.csv and nest_goals.csv; the first three
            are written after every world.
        count: samples a world, seven in ten of which need a look-up.
        gate_count: questions a world for the gate alone, in the same mix.
        progress: show progress bars.
        encoder: name of one that reads text.
        resume: worlds whose rows are in `out` are not asked again; it is for you to know that they were asked
            with the same settings.

    Returns:
        The summary, and what came of the goals.

    Raises:
        ValueError: two worlds of one seed, or as for `build_nest`.
    """
    clip, path = CachedEncoder(load_encoder(encoder)), Path(out) / "nest_samples.csv"
    rows = pd.read_csv(path).to_dict("records") if resume and path.is_file() else []
    seeds = [world.seed for world in worlds]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"intervals are over seeds; these worlds have the seeds {seeds}")
    for world in worlds:
        if world.seed not in {row["seed"] for row in rows}:
            nest = build_nest(world, count, nest_share=NEST_SHARE, progress=progress)
            rows += measure([nest], lambda archive: make_systems(archive, clip), progress)
            write_tables(rows, out)
    gate = gate_rows(worlds, gate_count, SEEN_NAMES, progress)
    summary, reached = write_tables(rows, out), goals(rows, gate)
    kept = ["system", "part", "seeds", "samples"]
    kept += [f"{name}{end}" for name in GATE_MEASURES for end in ("", "_pm")]
    summarise_nest(gate)[kept].to_csv(Path(out) / "nest_gate.csv", index=False, float_format="%.2f")
    reached.to_csv(Path(out) / "nest_goals.csv", index=False)
    return summary, reached
