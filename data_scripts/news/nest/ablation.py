"""The paper's ablation in miniature: which module of the framework carries which part of NEST."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_scripts.news.nest.engine import NEST_SHARE, build_nest
from data_scripts.news.nest.run import Row, measure, run_nest
from data_scripts.news.nest.systems import Result, System
from data_scripts.news.nest.table import MEASURES, summarise_nest, write_tables
from data_scripts.news.world import NewsWorld
from rose_kit.encoder import load_encoder
from rose_kit.evaluation import CachedEncoder
from rose_kit.metrics import mean_interval
from rose_kit.web.framework import RoseFramework
from rose_kit.web.irag import RetrievalResult
from rose_kit.web.promptable import SegmenterAsPromptable
from rose_kit.web.types import Mask, Promptable, Provider
from rose_kit.web.websense import WebSense

BASE, TEXT, IRAG, TPE = "base", "text-only search", "+ IRAG", "+ IRAG + TPE"
VPE, ALL, GATED = "+ IRAG + VPE", "all", "all, with WebSense"


def make_systems(provider: Provider, encoder: Any) -> dict[str, System]:
    """Every line of the table, on one miniature web; look-ups and masks are shared where they are the same.

    Args:
        provider: the web that is searched.
        encoder: an image and text encoder, such as `CachedEncoder(load_encoder("bundled"))`.
    """
    full = RoseFramework(SegmenterAsPromptable(encoder), provider, encoder)
    irag, segmenter = cached_by_image(full.irag), CachedSegmenter(full.segmenter)

    def text_only(image: NDArray[np.uint8], question: str, day: date) -> RetrievalResult:
        found = irag(image, question, day)
        return replace(found, answer=next(iter(found.candidates), None), references=())

    without_gate = full.replace(segmenter=segmenter, websense=None, irag=irag)
    chosen = {
        BASE: without_gate.replace(irag=None),
        TEXT: without_gate.replace(irag=text_only, tpe=None, vpe=None),
        IRAG: without_gate.replace(tpe=None, vpe=None),
        TPE: without_gate.replace(vpe=None),
        VPE: without_gate.replace(tpe=None),
        ALL: without_gate,
        GATED: without_gate.replace(websense=full.websense),
    }
    return {name: system(framework) for name, framework in chosen.items()}


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

    `known`: the words that the segmenter understands.
    """
    gate, rows = WebSense(known=known), []

    def decide(image: NDArray[np.uint8], question: str, day: date) -> Result:
        decision = gate(question, day)
        return Result(np.zeros(image.shape[:2], bool), "", decision.retrieve, decision.reason)

    for world in worlds:
        nest = build_nest(world, count, nest_share=NEST_SHARE, size=64, progress=progress)
        rows += run_nest(nest, {"WebSense": decide}, progress)
    return rows


def goals(rows: Sequence[Row], gate: Sequence[Row]) -> pd.DataFrame:
    """The goals that were set before anything was measured, and what came of them.

    Args:
        rows: of `make_systems`; gate: of `gate_rows`.

    Returns:
        goal, wanted, effect (points or percent, mean over seeds), half_width of its 95 % interval, met (by
        the mean).
    """
    frame, gates = pd.DataFrame(rows), pd.DataFrame(gate)
    nest, both, novel, emerging = (
        ("novel", "emerging"),
        ("novel", "emerging", "static"),
        ("novel",),
        ("emerging",),
    )

    def gain(more: str, less: str, kinds: Sequence[str]) -> list[float]:
        part = frame[frame["kind"].isin(kinds)]
        means = 100 * part.pivot_table(index="seed", columns="system", values="iou", aggfunc="mean")
        return (means[more] - means[less]).tolist()

    def rate(name: str) -> list[float]:
        return [100 * MEASURES[name](group) for _, group in gates.groupby("seed")]

    lines = [
        ("all over text-only search, gIoU of NEST", ">= 19.2", gain(ALL, TEXT, nest)),
        ("all with WebSense over text-only search, gIoU of NEST+", ">= 19.2", gain(GATED, TEXT, both)),
        ("novel: what VPE adds to IRAG, over what TPE adds", "> 0", gain(VPE, TPE, novel)),
        ("emerging: what TPE adds to IRAG, over what VPE adds", "> 0", gain(TPE, VPE, emerging)),
        ("WebSense: needless look-ups skipped", ">= 90", rate("skipped_of_needless")),
        ("WebSense: needed look-ups skipped", "<= 5", rate("false_skips")),
        ("WebSense: what it costs, gIoU of NEST", "<= 2", gain(ALL, GATED, nest)),
    ]
    table = []
    for goal, wanted, values in lines:
        (mean, half_width), (sign, bound) = mean_interval(values), wanted.split()
        met = {">=": mean >= float(bound), ">": mean > float(bound), "<=": mean <= float(bound)}[sign]
        table.append((goal, wanted, round(mean, 2), round(half_width, 2), bool(met)))
    return pd.DataFrame(table, columns=["goal", "wanted", "effect", "half_width", "met"])


def ablate(
    worlds: Sequence[NewsWorld],
    out: str | Path,
    count: int = 60,
    gate_count: int = 300,
    progress: bool = True,
    encoder: str = "bundled/clear",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build NEST+ of every world, ask every system, and write the tables.

    Args:
        worlds: one a seed.
        out: folder for nest_samples.csv, nest.csv, nest.md, nest_gate.csv and nest_goals.csv.
        count: samples a world, seven in ten of which need a look-up.
        gate_count: questions a world for the gate alone, in the same mix.
        progress: show progress bars.
        encoder: name of one that reads text.

    Returns:
        The summary, and what came of the goals.
    """
    clip = CachedEncoder(load_encoder(encoder))
    gate = gate_rows(worlds, gate_count, SegmenterAsPromptable(clip).known, progress)
    nests = [build_nest(world, count, nest_share=NEST_SHARE, progress=progress) for world in worlds]
    rows = measure(nests, lambda archive: make_systems(archive, clip), progress)
    summary, reached = write_tables(rows, out), goals(rows, gate)
    kept = ["part", "seeds", "samples", "gate_accuracy", "false_skips", "skipped_of_needless", "calls_saved"]
    table = summarise_nest(gate)[[name for k in kept for name in (k, f"{k}_pm") if name in summary]]
    table.to_csv(Path(out) / "nest_gate.csv", index=False, float_format="%.2f")
    reached.to_csv(Path(out) / "nest_goals.csv", index=False)
    return summary, reached
