"""Transformer-based contextual conditioning: the patch and its rows attend to each other first."""

import torch
from torch import Tensor, nn

from rose_kit.model.fusion import Fusion, Neighbours
from rose_kit.registry import register_fusion


@register_fusion("transformer")
class TransformerConditioning(Fusion):
    """A transformer over [query, rows]: the relevance of a row depends on what else was retrieved.

    Args:
        dim: D, the width of the features.
        width: of the tokens.
        heads, layers: of the transformer.
    """

    def __init__(self, dim: int, width: int = 48, heads: int = 4, layers: int = 1) -> None:
        super().__init__(dim)
        self.query, self.row = nn.Linear(dim, width), nn.Linear(2 * dim + 1, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.score = nn.Linear(width, 1)

    def relevance(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """(N, K) logits of the rows."""
        rows = torch.cat([retrieved.values, retrieved.class_values, retrieved.scores[..., None]], -1)
        tokens = torch.cat([self.query(z)[:, None], self.row(rows)], 1)  # (N, 1 + K, width)
        absent = nn.functional.pad(~retrieved.valid, (1, 0))  # (N, 1 + K); the query is always there
        context = self.layers(tokens, src_key_padding_mask=absent)[:, 1:]  # (N, K, width)
        return super().relevance(z, retrieved) + self.score(context).squeeze(-1)
