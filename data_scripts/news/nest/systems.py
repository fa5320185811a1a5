"""What a system that answers NEST questions looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Result:
    """What a system returns for one question.

    Args:
        mask: (H, W) bool.
        answer: the name of what it took the question to ask for; empty where it looked nothing up.
        searched: whether it went to the web.
        reason: of the gate, in words.
    """

    mask: NDArray[np.bool_]
    answer: str = ""
    searched: bool = False
    reason: str = ""


System = Callable[[NDArray[np.uint8], str, date], Result]  # image (H, W, 3), question, day it is asked
