"""Transformer conditioning: the query and its rows read each other before rows are weighed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rose_kit.model.fusion import FUSIONS, Fusion
from rose_kit.model.retriever import RetrievedBatch


@FUSIONS.register("transformer")
class TransformerConditioning(Fusion):
    """A transformer over [query, rows]; each row's relevance depends on what else was retrieved.

    Args:
        dim: D, the width of the features.
        width: of the tokens inside.
        heads, layers: of the transformer.
    """

    def __init__(self, dim: int, width: int = 48, heads: int = 4, layers: int = 1) -> None:
        super().__init__(dim)
        self.query, self.row = nn.Linear(dim, width), nn.Linear(2 * dim + 1, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.score = nn.Linear(width, 1)

    def relevance(self, z: Tensor, retrieved: RetrievedBatch) -> Tensor:
        """(B, N, K) logits of the rows."""
        parts = [retrieved.values, retrieved.class_values, retrieved.scores[..., None]]
        tokens = torch.cat([self.query(z)[:, :, None], self.row(torch.cat(parts, -1))], 2).flatten(0, 1)
        absent = torch.cat([torch.zeros_like(retrieved.valid[..., :1]), ~retrieved.valid], -1).flatten(0, 1)
        read = self.layers(tokens, src_key_padding_mask=absent)[:, 1:]  # (B * N, K, width)
        learned = self.score(read).squeeze(-1).unflatten(0, z.shape[:2])  # (B, N, K)
        return super().relevance(z, retrieved) + learned
