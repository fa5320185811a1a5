"""Prediction: the decoder that makes one vector per patch, and the anchors that these are compared with.

Perception stands here too, as the decoder puts together again the two scales of patches that it makes.
"""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rose_kit.fusion.method import no_support_error
from rose_kit.memory import SupportMemory
from rose_kit.types import Vocabulary

MAX_ROWS = 32  # rows of a class that become anchors; of more, as many are taken at even distances


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


class Anchors(nn.Module):
    """The vectors that stand for the classes of a vocabulary, made of text and memory at test time.

    Text, prototype and row of a class are mixed by three learned shares, the same for all classes.

    A class has an anchor for each pair of its texts and rows: a class of several looks is badly described
    by one mean. What a class lacks is a vector of zeros; anchors have unit norm, so the others count alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor([-1.0, 0.0, 0.0]))  # before the softmax: text says less

    def forward(self, vocabulary: Vocabulary, memory: SupportMemory) -> tuple[Tensor, Tensor]:
        """The anchors of a vocabulary.

        Args:
            vocabulary: C classes.
            memory: it may be empty.

        Returns:
            (A, D) float32 anchors of unit norm; (A,) int64 the class index of each. A class with neither
            text nor row has none.

        Raises:
            ValueError: no class has an anchor, or the text is not as wide as the memory.
        """
        text = np.empty((0, memory.dim), np.float32) if vocabulary.text is None else vocabulary.text  # (T, D)
        if text.shape[1] != memory.dim:
            raise ValueError(f"the text is {text.shape[1]} wide, the memory {memory.dim}")
        prototypes = np.nan_to_num(memory.class_prototypes(vocabulary.names))  # (C, D)
        nothing = np.zeros((1, memory.dim), np.float32)
        parts, owner = [], []
        for c, name in enumerate(vocabulary.names):
            positions = np.flatnonzero(memory.rows.of_classes([name]))
            even = np.linspace(0, len(positions) - 1, min(len(positions), MAX_ROWS)).astype(int)
            rows = memory.vectors[positions[even]]
            texts = text[(vocabulary.owner == c) & ~np.isnan(text).any(1)]
            if len(texts) or len(rows):
                pairs = list(product(texts if len(texts) else nothing, rows if len(rows) else nothing))
                parts += [(text_vector, prototypes[c], row) for text_vector, row in pairs]
                owner += [c] * len(pairs)
        if not owner:
            raise no_support_error(vocabulary)
        stacked = torch.as_tensor(np.array(parts), device=self.share.device)  # (A, 3, D)
        mixed = (self.share.softmax(0)[:, None] * stacked).sum(1)  # (A, D)
        return F.normalize(mixed, dim=-1), torch.as_tensor(owner, device=mixed.device)
