"""Experiments: one protocol for every method, encoder and dataset."""

from rose_kit.bench.evaluate import evaluate
from rose_kit.bench.keep import KeptFeatures, KeptSamples
from rose_kit.bench.parallel import parallel_map
from rose_kit.bench.partial import Gaps
from rose_kit.bench.presets import PRESETS, Preset
from rose_kit.bench.remember import remember
from rose_kit.bench.report import summarise, table, write_json

__all__ = [
    "PRESETS",
    "Gaps",
    "KeptFeatures",
    "KeptSamples",
    "Preset",
    "evaluate",
    "parallel_map",
    "remember",
    "summarise",
    "table",
    "write_json",
]
