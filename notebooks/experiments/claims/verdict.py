"""One rule for every claim: where the interval lies decides, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rose_kit.metrics import mean_interval

HOLDS, FAILS, UNCLEAR = "holds", "does not hold", "unclear"
MARGIN = 1.0  # mIoU points: what "costs nothing", "about equal" and "never below" may be off by


@dataclass(frozen=True)
class Expected:
    """The effects that agree with a claim: those strictly between two bounds.

    Args:
        low, high: in mIoU points unless the row says otherwise; infinite where there is no bound.

    >>> str(Expected(low=0)), str(Expected(-1, 1))
    ('> 0', '-1 to 1')
    """

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"> {self.low:g}"
        return f"< {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"


MORE = Expected(low=0.0)  # the first of two is better
LESS = Expected(high=0.0)
NO_WORSE = Expected(low=-MARGIN)
SMALL = Expected(high=MARGIN)
EQUAL = Expected(-MARGIN, MARGIN)


def verdict(mean: float, half_width: float, expected: Expected) -> str:
    """Where the interval mean ± half_width lies, seen from the claim.

    Returns:
        "holds" if the whole interval agrees with the claim, "does not hold" if none of it does, and
        "unclear" otherwise, which includes an interval that is not known (one seed, or NaN).

    >>> verdict(2.0, 1.5, MORE), verdict(2.0, 2.5, MORE), verdict(-2.0, 1.0, MORE)
    ('holds', 'unclear', 'does not hold')
    """
    low, high = mean - half_width, mean + half_width
    if expected.low < low and high < expected.high:
        return HOLDS
    return FAILS if high <= expected.low or low >= expected.high else UNCLEAR


def paired(effects: Sequence[float], expected: Expected) -> tuple[float, float, str]:
    """Effects of several seeds, each a difference within one seed -> mean, half-width, verdict.

    Args:
        effects: one per seed; a NaN makes the outcome unclear.
        expected: by the claim.

    Returns:
        mean; half-width of its 95 % Student t interval (NaN for one seed); the verdict.

    Raises:
        ValueError: there is no effect.
    """
    mean, half_width = mean_interval(effects)
    return mean, half_width, verdict(mean, half_width, expected)
