"""The decoder: retrieval-enhanced features in, one vector per patch out, for any vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rose_kit.model.pyramid import Grid, MultiScale


class Block(nn.Module):
    """Attention among patches that are near each other and alike.

    Only which patch attends to which is learned. With a learned correction of the features (an MLP, as
    transformers have) the classes of the training attract every class that was not in it.

    Args:
        dim: D, the width of the features.
        heads: of the attention.
        width: of a head's queries and keys.
    """

    def __init__(self, dim: int, heads: int = 4, width: int = 16) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.norm, self.to_qk = nn.LayerNorm(dim), nn.Linear(dim, 2 * heads * width)
        self.log_sigma = nn.Parameter(torch.linspace(0.5, 1.5, heads))  # sigma in patches
        self.head_weight = nn.Parameter(torch.full((heads,), 1 / heads))

    def forward(self, f: Tensor, squared: Tensor) -> Tensor:
        """Args: f (B, n, D); squared (n, n) distances between patches. Returns: (B, n, D)."""
        q, k = self.to_qk(self.norm(f)).unflatten(2, (2, self.heads, self.width)).permute(2, 0, 3, 1, 4)
        near = -squared / (2 * (2 * self.log_sigma).exp()[:, None, None])  # (heads, n, n)
        around = (q @ k.transpose(-1, -2) / self.width**0.5 + near).softmax(-1)  # (B, heads, n, n)
        mixed = torch.einsum("h,bhnm->bnm", self.head_weight, around)
        return f + mixed @ f  # the features themselves, and nothing that training made of a class


class Decoder(nn.Module):
    """Fuses the scales, lets patches attend to each other, and emits one unit vector per patch.

    No parameter is indexed by class: which class a vector means is decided outside, by its cosines to
    the anchors of whatever vocabulary is given.

    Args:
        dim: D, the width of the features.
        scales: as the encoder's.
        blocks: rounds of attention.
    """

    def __init__(self, dim: int, scales: Sequence[int] = (1, 2), blocks: int = 2) -> None:
        super().__init__()
        self.dim = dim
        self.multi_scale = MultiScale(scales)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(blocks))

    def forward(self, f: Tensor, grid: Grid) -> Tensor:
        """(B, N, D) of all scales, (h, w) -> (B, h, w, D) unit norm."""
        f = self.multi_scale(f, grid)  # (B, h * w, D)
        h, w = grid
        at = torch.cartesian_prod(torch.arange(h), torch.arange(w)).float().to(f.device)  # (h * w, 2)
        squared = (at[:, None] - at).square().sum(-1)
        for block in self.blocks:
            f = block(f, squared)
        return F.normalize(f, dim=-1).unflatten(1, grid)
