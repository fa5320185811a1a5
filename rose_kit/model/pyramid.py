"""Several scales at once: what the encoder sees, and how the scales become one again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rose_kit.encoder import Encoder
from rose_kit.types import FeatureMap

Grid = tuple[int, int]


def pyramid(values: Tensor, scales: Sequence[int] = (1, 2)) -> Tensor:
    """Patches, and the means of ever larger squares of them: prototypes are means, too.

    Args:
        values: (B, h, w, D).
        scales: sides of the squares in patches; the first must be 1.

    Returns:
        (B, N, D) unit norm, the scales one after the other, each in row-major order.
    """
    x = values.permute(0, 3, 1, 2)  # (B, D, h, w)
    levels = [F.avg_pool2d(x, s, ceil_mode=True, count_include_pad=False).flatten(2) for s in scales]
    return F.normalize(torch.cat(levels, 2).transpose(1, 2), dim=-1)


def level_grids(grid: Grid, scales: Sequence[int]) -> list[Grid]:
    """(h, w) of each scale: the last square may stand over the edge."""
    return [(-(-grid[0] // s), -(-grid[1] // s)) for s in scales]


class FrozenEncoder:
    """An encoder of the kit as the model's first stage: images -> (B, N, D) and the patch grid.

    Args:
        encoder: any; it is never trained.
        scales: see `pyramid`.

    Raises:
        ValueError: the first scale is not 1, or a scale is not positive.
    """

    def __init__(self, encoder: Encoder, scales: Sequence[int] = (1, 2)) -> None:
        if not scales or scales[0] != 1 or min(scales) < 1:
            raise ValueError(f"scales must be positive and begin with 1, got {tuple(scales)}")
        self.encoder, self.scales = encoder, tuple(scales)
        self.windows = getattr(encoder, "preferred_windows", None)

    def features(self, image: Any) -> FeatureMap:
        """One image's features, as both training and memory want them."""
        return self.encoder.encode_image(image, self.windows)

    def __call__(self, images: Sequence[Any] | Sequence[FeatureMap]) -> tuple[Tensor, Grid]:
        """Encode images of one size, or take features that are there already.

        Args:
            images: B images as `Encoder.encode_image` takes them, or their `FeatureMap`s.

        Returns:
            (B, N, D) unit norm, all scales; (h, w).

        Raises:
            ValueError: no image, or images of several sizes.
        """
        maps = [m if isinstance(m, FeatureMap) else self.features(m) for m in images]
        grids = {m.grid for m in maps}
        if len(grids) != 1:
            raise ValueError(f"a batch holds images of one size, got grids {sorted(grids)}")
        values = torch.from_numpy(np.stack([m.values for m in maps]))  # (B, h, w, D)
        return pyramid(values, self.scales), maps[0].grid


class MultiScale(nn.Module):
    """Fuses the scales: the finest, plus a learned share of each coarser one, enlarged.

    Args:
        scales: as the encoder's.
    """

    def __init__(self, scales: Sequence[int] = (1, 2)) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.share = nn.Parameter(torch.zeros(len(self.scales) - 1))

    def forward(self, f: Tensor, grid: Grid) -> Tensor:
        """(B, N, D) of all scales -> (B, h * w, D)."""
        grids = level_grids(grid, self.scales)
        levels = f.transpose(1, 2).split([h * w for h, w in grids], dim=2)  # (B, D, h_s * w_s) each
        total = levels[0]
        for i, share in enumerate(self.share.sigmoid(), start=1):
            coarse = levels[i].unflatten(2, grids[i])
            large = F.interpolate(coarse, scale_factor=self.scales[i], mode="bilinear")
            total = total + share * large[..., : grid[0], : grid[1]].flatten(2)
        return total.transpose(1, 2)
