"""Heads learned per image: RNS and its solvers. Importing it registers every method of the kit."""

from rose_kit.adapter.rns import RNS
from rose_kit.adapter.samples import Samples
from rose_kit.adapter.solvers import SOLVERS, Head
from rose_kit.registry import methods

__all__ = ["RNS", "SOLVERS", "Head", "Samples", "methods"]
