"""What trainings share: the learning rate step by step, and settings that must make sense."""

from __future__ import annotations

import numpy as np
from torch.optim import Optimizer


def half_cosine(done: float) -> float:
    """Falls from 1 to 0 as `done` goes from 0 to 1.

    >>> [round(half_cosine(d), 2) for d in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    """
    return float((1 + np.cos(np.pi * done)) / 2)


def warm_cosine(peak: float, step: int, steps: int, warmup: int) -> float:
    """Learning rate: linear warm-up to the peak, then half a cosine to 0 (Loshchilov & Hutter 2017).

    Args:
        peak: the highest rate.
        step: 0 to `steps` - 1.
        steps: of the whole training.
        warmup: steps until the peak; 0 for none.
    """
    return peak * min((step + 1) / max(warmup, 1), 1.0) * half_cosine(step / steps)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Let every group of parameters learn at a rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def check_positive(settings: object, *names: str) -> None:
    """Refuse settings that are not above 0, NaN included.

    Raises:
        ValueError: one is not; tells which and what it was.
    """
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")


def check_shares(settings: object, *names: str) -> None:
    """Refuse settings outside [0, 1].

    Raises:
        ValueError: one is; tells which and what it was.
    """
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {getattr(settings, name)}")
