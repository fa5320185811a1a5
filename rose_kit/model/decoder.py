"""Two scales of patches, and the decoder that makes one vector per patch of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pyramid(x: Tensor) -> Tensor:
    """Perception, z: the patches of an image, and after them the means of two by two patches.

    A prototype is a mean as well, and a larger piece of a thing is more like it than a patch is.

    Args:
        x: (h, w, D) features.

    Returns:
        (N, D) unit norm, each scale in row-major order; the last row or column of an odd grid
        makes smaller squares.
    """
    planes = x.permute(2, 0, 1)  # (D, h, w)
    means = F.avg_pool2d(planes, 2, ceil_mode=True)  # (D, ceil(h / 2), ceil(w / 2))
    return F.normalize(torch.cat([planes.flatten(1), means.flatten(1)], 1).T, dim=-1)


class MultiScale(nn.Module):
    """Multi-scale feature fusion: the patches, plus a learned share of the squares, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(1))  # before the sigmoid

    def forward(self, f: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, D) of both scales as `pyramid` orders them, (h, w) -> (h * w, D)."""
        h, w = grid
        squares = f.T[:, h * w :].unflatten(1, ((h + 1) // 2, (w + 1) // 2))  # (D, ceil(h / 2), ceil(w / 2))
        large = F.interpolate(squares[None], scale_factor=2, mode="bilinear")[0, :, :h, :w]  # (D, h, w)
        return f[: h * w] + self.share.sigmoid() * large.flatten(1).T


class Block(nn.Module):
    """Attention among patches that are near each other and similar.

    Only which patch attends to which is learned. With a learned correction of the features (the MLP of a
    transformer), the classes of the training attract every class that was not in it.

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
        """(n, D) patches, (n, n) squared distances between them -> (n, D)."""
        qk = self.to_qk(self.norm(f)).unflatten(1, (2, self.heads, self.width))  # (n, 2, heads, width)
        q, k = qk.permute(1, 2, 0, 3)  # (heads, n, width) each
        near = -squared / (2 * (2 * self.log_sigma).exp()[:, None, None])  # (heads, n, n)
        attention = (q @ k.transpose(1, 2) / self.width**0.5 + near).softmax(-1)  # (heads, n, n)
        mixed = torch.einsum("h,hnm->nm", self.head_weight, attention)
        return f + mixed @ f  # (n, n) @ (n, D): of the features alone, nothing that training made of a class


class Decoder(nn.Module):
    """y = D(f): fuses the scales, lets patches attend to each other, and emits one vector per patch.

    No parameter belongs to a class: which class a vector means is decided by its cosines to the anchors of
    whatever vocabulary is given.

    Args:
        dim: D, the width of the features.
        blocks: rounds of attention.
    """

    def __init__(self, dim: int, blocks: int = 2) -> None:
        super().__init__()
        self.multi_scale = MultiScale()
        self.blocks = nn.ModuleList(Block(dim) for _ in range(blocks))

    def forward(self, f: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, D) of both scales, (h, w) -> (h, w, D) unit norm."""
        f = self.multi_scale(f, grid)  # (h * w, D)
        centres = f.new_ones(grid).nonzero().to(f.dtype)  # (h * w, 2) row and column of each patch
        squared = (centres[:, None] - centres).square().sum(-1)  # (h * w, h * w)
        for block in self.blocks:
            f = block(f, squared)
        return F.normalize(f, dim=-1).unflatten(0, grid)
