"""Cross-attention over retrieved embeddings: what makes a row relevant is learned."""

import torch
from torch import Tensor, nn

from rose_kit.model.fusion import Fusion, Neighbours
from rose_kit.registry import register_fusion


@register_fusion("cross-attention")
class CrossAttention(Fusion):
    """Relevance = cosine / temperature + query . key, both projected by learned matrices.

    A key is made of the row and the prototype of its class.

    Args:
        dim: D, the width of the features.
        width: of queries and keys.
    """

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__(dim)
        self.query, self.key = nn.Linear(dim, width), nn.Linear(2 * dim, width)

    def relevance(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """(N, K) logits of the rows."""
        keys = self.key(torch.cat([retrieved.values, retrieved.class_values], -1))  # (N, K, width)
        learned = torch.einsum("nw,nkw->nk", self.query(z), keys) / keys.shape[-1] ** 0.5
        return super().relevance(z, retrieved) + learned
