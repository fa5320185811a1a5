"""The two solvers that train a linear head: AdamW, as published, and L-BFGS, the default. NumPy at the door.

The loss of a sample is the cross-entropy of its target q with p = softmax(W x + b); its gradient is
(p - q) x, so automatic differentiation is not needed. AdamW, the reference that others are measured by, takes
700 steps on the mean of weight * loss. L-BFGS minimises J = sum of weight * loss + mu / 2 * |W|^2 in few
passes over the samples; a pass is two matrix products and costs what a step of AdamW costs.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]
PAIRS = 4  # (step, change of gradient) remembered; more bring nothing here
MAX_STEPS = 200
PRECISION = 2e-8  # of J in float32; smaller changes are noise
BIAS_UNIT = 0.3  # about the spread of centred features along their main direction
CLASS_POWER = 0.25  # a class of share s is counted in units of s ** -0.25: rare ones take longer steps
LEAST_SHARE = 1e-6  # of the samples' weight, below which a class is left out
NOISE = 1e-6  # share of the logits' mean squared change below which their variance is rounding
MAX_TRIALS = 30  # in a line search; nearly always one


@dataclass(frozen=True)
class Head:
    """A linear classifier, which every solver returns: logits = features @ weight.T + bias.

    Args:
        weight: (C, D) float32.
        bias: (C,) float32.
    """

    weight: Array
    bias: Array

    def logits(self, features: Array) -> Array:
        """(N, D) -> (N, C)."""
        return features @ self.weight.T + self.bias


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
    head = torch.from_numpy(np.c_[start, np.zeros(len(start))].astype(np.float32))  # (C, D + 1)
    optimizer = torch.optim.AdamW([head], lr, weight_decay=weight_decay)
    for _ in range(steps):
        p = torch.softmax(x @ head.T, 1)  # (S, D + 1) @ (D + 1, C) -> (S, C)
        head.grad = ((p - q) * scale).T @ x  # (C, S) @ (S, D + 1) -> (C, D + 1)
        optimizer.step()
    return Head(head[:, :-1].numpy().copy(), head[:, -1].numpy().copy())


def kaiming_uniform(size: int, dim: int, seed: int) -> Array:
    """(size, dim) uniform in +-sqrt(6 / dim), from its own generator: no global state is touched."""
    generator = torch.Generator().manual_seed(seed)
    return ((2 * torch.rand(size, dim, generator=generator) - 1) * math.sqrt(6 / dim)).numpy()


def lbfgs(
    features: Array, target: Array, weight: Array, start: Array | None, mu: float, tolerance: float, **_: Any
) -> Head:
    """Minimise J until a step lowers it too little.

    Args:
        features: (S, D) samples.
        target: (S, C) class distributions.
        weight: (S,), adding up to about 1.
        start: (C, D) initial weight; None starts at 0. The bias starts at the classes' frequencies.
        mu: strength of the regulariser; settings of other solvers are ignored.
        tolerance: stop when a step lowers J by less than this share of it; J is then about that near
            to its minimum. 0 goes on to the precision of float32.
    """
    objective = RegularisedObjective(features, target, weight, start, mu)
    gradient, pairs = objective.gradient(), deque(maxlen=PAIRS)
    for _ in range(MAX_STEPS):
        before, direction = objective.value, newton_direction(gradient, pairs)
        step = objective.move(direction)
        if not before - objective.value > max(tolerance, PRECISION) * objective.value:
            break
        previous, gradient = gradient, objective.gradient()
        s, y = step * direction, gradient - previous
        if min(_dot(s, y), _dot(y, y)) > 0:  # without curvature, it would be divided by zero
            pairs.append((s, y))
    return objective.head()


class RegularisedObjective:
    """J at the current point: a (K, D + 1) head on centred samples, in units, its bias in the last column.

    J is convex, and its bias is free. Hence

    - samples may be centred, and the bias and the classes counted in any unit, without changing the minimum:
      that takes away directions that are far steeper than the others;
    - logits are linear in the head, so a line search needs no pass over the samples;
    - a class that no sample stands for is left out: its best bias is minus infinity.

    Logits and all that belongs to them are (K, S), since products in this layout are faster.

    Args:
        features, target, weight, start, mu: as for `lbfgs`.
    """

    def __init__(self, features: Array, target: Array, weight: Array, start: Array | None, mu: float) -> None:
        features, target = torch.from_numpy(features), torch.from_numpy(target)
        self.a, self.size, self.mu = torch.from_numpy(weight), target.shape[1], mu
        mass = self.a @ target  # (C,)
        self.active = torch.nonzero(mass > LEAST_SHARE * mass.sum())[:, 0]  # (K,)
        share = mass[self.active] / mass.sum()
        self.class_scale = share[:, None] ** -CLASS_POWER  # (K, 1)
        self.ridge = mu * self.class_scale.square()  # (K, 1) regulariser in these units
        self.mean = self.a @ features / mass.sum()  # (D,)
        bias = torch.full((len(features), 1), BIAS_UNIT)
        self.x = torch.cat([features - self.mean, bias], 1)  # (S, D + 1)
        self.xt = self.x.T.contiguous()  # (D + 1, S): products with a copy are faster
        self.aq = (target.T[self.active] * self.a).contiguous()  # (K, S)
        self.point = torch.zeros(len(self.active), self.x.shape[1])
        self.point[:, -1:] = share.log()[:, None] / BIAS_UNIT / self.class_scale
        if start is not None:
            self.point[:, :-1] = torch.from_numpy(start)[self.active] / self.class_scale
        self._set(self.point, self.logits_of(self.point))

    def logits_of(self, point: Tensor) -> Tensor:
        """(K, D + 1), in units -> (K, S)."""
        return (self.class_scale * point) @ self.xt  # (K, D + 1) @ (D + 1, S) -> (K, S)

    def _set(self, point: Tensor, logits: Tensor) -> None:
        """Go to a (K, D + 1) point, whose (K, S) logits are known: their softmax over classes, and J."""
        top = logits.amax(0)  # (S,)
        p = (logits - top).exp_()  # (K, S)
        total = p.sum(0)  # (S,)
        self.point, self.logits, self.p, self.lse = point, logits, p.div_(total), total.log_().add_(top)
        square = float((self.ridge * point[:, :-1].square()).sum())
        self.value = square / 2 + float(self.a @ self.lse) - _dot(self.aq, logits)

    def gradient(self) -> Tensor:
        """(K, D + 1) of J at the current point."""
        residual = (self.a * self.p).sub_(self.aq).mul_(self.class_scale)  # (K, S)
        gradient = residual @ self.x  # (K, S) @ (S, D + 1) -> (K, D + 1)
        gradient[:, :-1].addcmul_(self.ridge, self.point[:, :-1])
        return gradient

    def curvature(self, along: Tensor) -> Tensor:
        """(K, D + 1) second derivative of J at the current point times a (K, D + 1) direction."""
        curved = self.p * self.logits_of(along)  # (K, S)
        curved = (curved - self.p * curved.sum(0)).mul_(self.a).mul_(self.class_scale)
        product = curved @ self.x  # (K, S) @ (S, D + 1) -> (K, D + 1)
        product[:, :-1].addcmul_(self.ridge, along[:, :-1])
        return product

    def newton_step(self, gradient: Tensor, left: float, most: int) -> Tensor:
        """(K, D + 1) minus (inverse Hessian) times (gradient), by conjugate gradients, a pass each.

        Args:
            gradient: (K, D + 1) of J at the current point.
            left: share of the gradient that the step may leave over in the quadratic model.
            most: passes, at most.
        """
        step, residual = torch.zeros_like(gradient), -gradient
        along, square = residual, _dot(residual, residual)
        enough = left**2 * square
        for _ in range(most):
            if square <= enough:
                break
            curved = self.curvature(along)
            length = square / _dot(along, curved)
            step, residual = step + length * along, residual - length * curved
            square, before = _dot(residual, residual), square
            along = residual + square / before * along
        return step

    def go_to(self, head: Head) -> None:
        """Go to the point that `head` makes this head of."""
        weight, bias = (torch.from_numpy(part)[self.active] for part in (head.weight, head.bias))
        point = torch.cat([weight, (bias + weight @ self.mean)[:, None] / BIAS_UNIT], 1) / self.class_scale
        self._set(point, self.logits_of(point))

    def add(self, step: Tensor) -> None:
        """Go one (K, D + 1) step, whether or not it lowers J."""
        self._set(self.point + step, self.logits + self.logits_of(step))

    def move(self, direction: Tensor) -> float:
        """One step of Newton's method along a (K, D + 1) direction, halved until J falls.

        Returns:
            the length of the step; 0 where no step lowers J in float32.
        """
        slope = self.logits_of(direction)  # (K, S) change of the logits
        weighted = self.p * slope
        mean = weighted.sum(0)  # (S,)
        curve = self.ridge * direction[:, :-1]
        # First and second derivative of J by the length of the step.
        rise = _dot(self.point[:, :-1], curve) - _dot(self.aq, slope) + float(self.a @ mean)
        squares = weighted.mul_(slope).sum(0)  # (S,)
        curvature = _dot(direction[:, :-1], curve) + float(self.a @ (squares - mean.square_()))
        # J is flat along a direction in which the logits of all classes change alike.
        if not (rise < 0 and curvature > NOISE * float(self.a @ squares)):
            return 0.0
        step, point, logits, value = -rise / curvature, self.point, self.logits, self.value
        for _ in range(MAX_TRIALS):
            self._set(torch.add(point, direction, alpha=step), torch.add(logits, slope, alpha=step))
            if self.value <= value + 1e-4 * step * rise and not torch.equal(self.logits, logits):
                return step
            step /= 2
        self._set(point, logits)
        return 0.0

    def head(self) -> Head:
        """The head at the current point, for samples that are not centred and for all C classes."""
        weight, bias = torch.zeros(self.size, len(self.mean)), torch.empty(self.size)
        point = self.class_scale * self.point
        bias[:] = self.lse.min() + math.log(LEAST_SHARE)  # left out: below that share of every sample
        weight[self.active] = point[:, :-1]
        bias[self.active] = BIAS_UNIT * point[:, -1] - point[:, :-1] @ self.mean
        return Head(weight.numpy(), bias.numpy())


def newton_direction(gradient: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(K, D + 1): minus (estimate of the inverse Hessian) times (gradient).

    The two-loop recursion (Nocedal and Wright, algorithm 7.4).

    Args:
        gradient: (K, D + 1).
        pairs: the latest steps s and changes of the gradient y, oldest first.
    """
    direction, alphas = -gradient, []
    for s, y in reversed(pairs):
        alphas.append(_dot(s, direction) / _dot(s, y))
        direction = torch.add(direction, y, alpha=-alphas[-1])
    if pairs:
        direction *= _dot(*pairs[-1]) / _dot(pairs[-1][1], pairs[-1][1])
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        direction = torch.add(direction, s, alpha=alpha - _dot(y, direction) / _dot(s, y))
    return direction


def _dot(left: Tensor, right: Tensor) -> float:
    return float(torch.dot(left.reshape(-1), right.reshape(-1)))
