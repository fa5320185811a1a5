"""The published solver: 700 full-batch steps of AdamW. Kept as the reference that others are measured by."""

import math
from typing import Any

import numpy as np
import torch

from rose_kit.adapter.lbfgs import Array, Head

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # AdamW's usual


def adamw(
    features: Array,
    target: Array,
    weight: Array,
    start: Array | None,
    *,
    seed: int,
    steps: int,
    lr: float,
    weight_decay: float,
    **_: Any,
) -> Head:
    """Full-batch AdamW on the mean over samples of weight * cross-entropy (RNS, section 3).

    Args:
        features: (S, D) samples.
        target: (S, C) class distributions.
        weight: (S,).
        start: (C, D) initial weight; None draws Kaiming-uniform from `seed`. The bias starts at 0.
        seed, steps, lr, weight_decay: as for `RNS`; settings of other solvers are ignored.
    """
    x = torch.from_numpy(np.c_[features, np.ones(len(features), np.float32)])  # (S, D + 1): bias last
    q = torch.from_numpy(target)
    scale = torch.from_numpy(weight / len(features))[:, None]  # (S, 1)
    start = kaiming_uniform(q.shape[1], features.shape[1], seed) if start is None else start
    head = torch.from_numpy(np.c_[start, np.zeros(len(start), np.float32)])  # (C, D + 1)
    # Written out, since importing torch.optim takes longer than the 700 steps.
    mean, square = torch.zeros_like(head), torch.zeros_like(head)  # running moments of the gradient
    for step in range(1, steps + 1):
        p = torch.softmax(x @ head.T, 1)  # (S, D + 1) @ (D + 1, C) -> (S, C)
        gradient = ((p - q) * scale).T @ x  # (C, S) @ (S, D + 1) -> (C, D + 1)
        mean.lerp_(gradient, 1 - BETA1)
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = (square / (1 - BETA2**step)).sqrt_().add_(EPSILON)
        head.mul_(1 - lr * weight_decay).addcdiv_(mean, root, value=-lr / (1 - BETA1**step))
    return Head(head[:, :-1].numpy().copy(), head[:, -1].numpy().copy())


def kaiming_uniform(size: int, dim: int, seed: int) -> Array:
    """(size, dim) uniform in +-sqrt(6 / dim), from its own generator: no global state is touched."""
    generator = torch.Generator().manual_seed(seed)
    return ((2 * torch.rand(size, dim, generator=generator) - 1) * math.sqrt(6 / dim)).numpy()
