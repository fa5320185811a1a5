"""NEST in miniature: questions whose answers were not known when the encoder was trained."""

from rose_kit.bench.nest.engine import NEST_SHARE, Nest, build_nest
from rose_kit.bench.nest.folder import load_nest, save_nest
from rose_kit.bench.nest.run import measure, run_nest
from rose_kit.bench.nest.sample import NestSample, same_answer
from rose_kit.bench.nest.systems import Result, System
from rose_kit.bench.nest.table import markdown, summarise_nest, write_tables

__all__ = [
    "NEST_SHARE",
    "Nest",
    "NestSample",
    "Result",
    "System",
    "build_nest",
    "load_nest",
    "markdown",
    "measure",
    "run_nest",
    "same_answer",
    "save_nest",
    "summarise_nest",
    "write_tables",
]
