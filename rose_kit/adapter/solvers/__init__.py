"""Solvers: training samples -> a linear head, one file each. NumPy at the door, torch inside.

The loss of a sample is the cross-entropy of its target q with p = softmax(W x + b); for a hard label
this is the usual one, for a soft one it is KL(q || p) up to the entropy of q, which no head changes.
Its gradient is (p - q) x, so no solver here needs autograd.
"""

from collections.abc import Callable

from rose_kit.adapter.solvers.adamw import adamw, kaiming_uniform
from rose_kit.adapter.solvers.head import Head
from rose_kit.adapter.solvers.lbfgs import lbfgs

# Called as solver(features, target, weight, start, **settings) with all settings of `RNS`.
SOLVERS: dict[str, Callable[..., Head]] = {"adamw": adamw, "lbfgs": lbfgs}

__all__ = ["SOLVERS", "Head", "adamw", "kaiming_uniform", "lbfgs"]
