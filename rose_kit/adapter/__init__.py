"""Heads learned per image (RNS and its solvers) or offline. Registers every method but "rose"."""

from rose_kit.adapter.offline import OfflineLinear, OfflinePixels, Supervised
from rose_kit.adapter.rns import RNS, SOLVERS, Samples
from rose_kit.adapter.solvers import Head
from rose_kit.registry import methods

__all__ = ["RNS", "SOLVERS", "Head", "OfflineLinear", "OfflinePixels", "Samples", "Supervised", "methods"]
