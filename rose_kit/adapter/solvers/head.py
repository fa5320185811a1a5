"""What a solver returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias.

    Args:
        weight: (C, D) float32.
        bias: (C,) float32.
        coefficients: (C, S) such that weight = coefficients @ samples, but for what a given start put
            there; None from a solver that does not know them.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    coefficients: NDArray[np.float32] | None = None

    def logits(self, features: NDArray) -> NDArray[np.float32]:
        """(N, D) -> (N, C)."""
        return features @ self.weight.T + self.bias
