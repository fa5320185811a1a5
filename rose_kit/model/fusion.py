"""What the fusions share: they decide how much each retrieved row counts; what they blend in is the row.

Blending rows as they are, and not through a learned projection, is what lets a class that came after
training take part: its rows and its prototype reach the decoder unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rose_kit.model.retriever import RetrievedBatch
from rose_kit.registry import fusions

FUSIONS = fusions  # name -> class of (dim: int); a new one in one file appears everywhere


class Fusion(nn.Module):
    """Query + gate * sum of weight * (row + its class's prototype).

    The gate sees how near the rows are, and how far they agree, never which class they are of.

    Args:
        dim: D, the width of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.log_inv_temperature = nn.Parameter(torch.tensor(3.0))
        self.gate = nn.Sequential(nn.Linear(3, 16), nn.GELU(), nn.Linear(16, 1))

    def relevance(self, z: Tensor, retrieved: RetrievedBatch) -> Tensor:
        """(B, N, K) logits of the rows; higher counts more."""
        return retrieved.scores * self.log_inv_temperature.exp()

    def weights(self, z: Tensor, retrieved: RetrievedBatch) -> Tensor:
        """(B, N, K) shares of the rows; they sum to one, or to zero where nothing was retrieved."""
        logits = self.relevance(z, retrieved).masked_fill(~retrieved.valid, -1e4)
        return logits.softmax(-1) * retrieved.valid

    def forward(self, z: Tensor, retrieved: RetrievedBatch) -> Tensor:
        """Enrich each query by what was retrieved for it.

        Args:
            z: (B, N, D) unit norm.
            retrieved: of the same queries.

        Returns:
            (B, N, D), not normalised; `z` itself where nothing was retrieved.
        """
        w = self.weights(z, retrieved)
        context = torch.einsum("bnk,bnkd->bnd", w, retrieved.values + retrieved.class_values)
        nearest, mean = retrieved.scores[..., 0], (w * retrieved.scores).sum(-1)  # (B, N)
        statistics = torch.stack([nearest, mean, (w * w).sum(-1)], -1)  # (B, N, 3)
        return z + 2 * self.gate(statistics).sigmoid() * context
