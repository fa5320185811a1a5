"""Experiments: one protocol for every method, encoder and dataset."""

from rose_kit.evaluation.cache import CachedDataset, CachedEncoder
from rose_kit.evaluation.evaluate import evaluate
from rose_kit.evaluation.parallel import parallel_map
from rose_kit.evaluation.partial import Gaps
from rose_kit.evaluation.presets import Preset, known_presets, read_preset
from rose_kit.evaluation.remember import remember
from rose_kit.evaluation.report import summarise, table, write_json

__all__ = [
    "CachedDataset",
    "CachedEncoder",
    "Gaps",
    "Preset",
    "evaluate",
    "known_presets",
    "parallel_map",
    "read_preset",
    "remember",
    "summarise",
    "table",
    "write_json",
]
