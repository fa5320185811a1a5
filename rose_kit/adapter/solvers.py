"""Solvers: training samples -> a linear head. NumPy at the door, torch inside.

The loss of a sample is the cross-entropy of its target q with p = softmax(W x + b); for a hard label
this is the usual one, for a soft one it is KL(q || p) up to the entropy of q, which no head changes.
Its gradient is (p - q) x, so no solver here needs autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # AdamW's usual


@dataclass(frozen=True)
class Head:
    """A linear classifier: logits = features @ weight.T + bias.

    Args:
        weight: (C, D) float32.
        bias: (C,) float32.
        coefficients: (C, S) such that weight is close to coefficients @ samples, from a solver that
            knows them (representer theorem); else None.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    coefficients: NDArray[np.float32] | None = None

    def logits(self, features: NDArray) -> NDArray[np.float32]:
        """(N, D) -> (N, C)."""
        return features @ self.weight.T + self.bias


def adamw(features, target, weight, start, *, seed, steps, lr, weight_decay, **_) -> Head:
    """The reference: full-batch AdamW on the mean over samples of weight * loss (RNS, section 3).

    Args:
        features: (S, D) float32 samples.
        target: (S, C) float32 distributions.
        weight: (S,) float32.
        start: (C, D) initial weight; None draws Kaiming-uniform from `seed`. The bias starts at 0.
        seed, steps, lr, weight_decay: the settings; other solvers' settings are ignored.
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


def lbfgs(features, target, weight, start, *, mu, **_) -> Head:
    """Minimise J = sum of weight * loss + mu / 2 * |W|^2 to its optimum by L-BFGS.

    J is convex and the bias is free, so the start does not matter. At the optimum W = A X with
    A = -(dJ/dlogits) / mu: the head lies in the span of its samples, and A says what each gives.

    Args:
        features: (S, D) float32 samples.
        target: (S, C) float32 distributions.
        weight: (S,) float32, adding up to about 1.
        start: (C, D) initial weight; None starts at 0.
        mu: strength of the regulariser; other solvers' settings are ignored.
    """
    x, q = torch.from_numpy(features), torch.from_numpy(target)
    a = torch.from_numpy(weight)[:, None]  # (S, 1)
    size, dim = q.shape[1], x.shape[1]

    def split(flat: NDArray) -> tuple[torch.Tensor, torch.Tensor]:
        head = torch.from_numpy(flat.astype(np.float32)).view(size, dim + 1)
        return head[:, :-1], head[:, -1]

    def objective(flat: NDArray) -> tuple[float, NDArray]:
        w, b = split(flat)
        log_p = torch.log_softmax(torch.addmm(b, x, w.T), 1)  # (S, C)
        value = -(a * q * log_p).sum() + mu / 2 * w.square().sum()
        pull = a * (log_p.exp() - q)  # (S, C) dJ/dlogits
        gradient = torch.cat([pull.T @ x + mu * w, pull.sum(0)[:, None]], 1)  # (C, D + 1)
        return float(value), gradient.double().numpy().ravel()

    start = np.zeros((size, dim)) if start is None else start
    flat = np.c_[start, np.zeros(size)].ravel()
    options = {"maxiter": 1000, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-6}
    w, b = split(minimize(objective, flat, jac=True, method="L-BFGS-B", options=options).x)
    pull = a * (torch.softmax(torch.addmm(b, x, w.T), 1) - q)
    return Head(w.numpy().copy(), b.numpy().copy(), (-pull.T / mu).contiguous().numpy())


def kaiming_uniform(size: int, dim: int, seed: int) -> NDArray[np.float32]:
    """(size, dim) uniform in +-sqrt(6 / dim), from its own generator: no global state is touched."""
    generator = torch.Generator().manual_seed(seed)
    return ((2 * torch.rand(size, dim, generator=generator) - 1) * math.sqrt(6 / dim)).numpy()


# Called as solver(features, target, weight, start, **settings) with all settings of `RNS`.
SOLVERS: dict[str, Callable[..., Head]] = {"adamw": adamw, "lbfgs": lbfgs}
