"""Heads learned per image: RNS and its solvers."""

from rose_kit.adapter.rns import RNS
from rose_kit.adapter.samples import Samples
from rose_kit.adapter.solvers import SOLVERS, Head

__all__ = ["RNS", "SOLVERS", "Head", "Samples"]
