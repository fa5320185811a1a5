"""The losses that the bundled CLIP was trained with, and the cutting that keeps patches honest."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (CLIP, Radford et al. 2021, figure 3); (B, D) and (B, D)."""
    logits = scale * image @ text.T  # (B, B)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def presence_loss(log_p: Tensor, listed: Tensor, power: float) -> Tensor:
    """A listed phrase should win patches of its image, and win more there than elsewhere.

    Args:
        log_p: (B, N, K) log probability of each phrase at each patch.
        listed: (B, K) whether image b's captions list phrase k.
        power: of the mean over patches. 1 counts area, and so asks every phrase to grow; a larger
            one is content with a few patches that are sure.

    Returns:
        Mean over listed pairs of -log m(b, k) - log(m(b, k) / sum over b' of m(b', k)), where
        m(b, k) = (mean over patches of p^power)^(1 / power).
    """
    m = ((power * log_p).logsumexp(1) - np.log(log_p.shape[1])) / power  # (B, N, K) -> (B, K), log
    return -(m + m.log_softmax(0))[listed].mean()


def inside_loss(log_p: Tensor, listed: Tensor) -> Tensor:
    """Every patch should fall to one of the phrases its image lists, whichever: -log of their sum.

    Args:
        log_p: (B, N, K).
        listed: (B, K).
    """
    return -log_p.masked_fill(~listed[:, None], -torch.inf).logsumexp(-1).mean()


def cut(images: Tensor, n: int) -> Tensor:
    """(B, 3, S, S) -> (B n^2, 3, S / n, S / n): each image in n x n pieces, so that context stops helping.

    Captions say nothing about where things are, so a patch that sees the whole image pleases the
    loss by naming what is elsewhere in it. A patch of a piece has little else to look at.
    """
    b, c, side, _ = images.shape
    grid = images.view(b, c, n, side // n, n, side // n)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b * n * n, c, side // n, side // n)
