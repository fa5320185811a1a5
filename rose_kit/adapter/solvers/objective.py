"""The regularised objective, and steps along a direction: what all its solvers share.

J = sum of weight * loss + mu / 2 * |W|^2 is convex, and its bias is free. Hence

- samples may be centred, and the bias and the classes counted in any unit, without changing the minimum:
  that takes away directions that are far steeper than the others;
- logits are linear in the head, so a line search needs no pass over the samples;
- a class that no sample stands for is left out: its best bias is minus infinity.
"""

from __future__ import annotations

import math

import torch

from rose_kit.adapter.solvers.head import Head

BIAS_UNIT = 0.3  # about what centred features spread along their main direction
CLASS_POWER = 0.25  # a class of share s is counted in units of s ** -0.25: rare ones take longer steps
LEAST_SHARE = 1e-6  # of the samples' weight, below which a class is left out
NOISE = 1e-6  # share of the logits' mean squared change below which their variance is rounding
MAX_TRIALS = 30  # in a line search; nearly always one


class RegularisedObjective:
    """J at the current point: a (K, D + 1) head on centred samples, in units, its bias in the last column.

    Logits and all that belongs to them are (K, S), since products in this layout are the quicker ones.

    Args:
        features, target, weight, start, mu: as for a solver.
    """

    def __init__(self, features, target, weight, start, mu) -> None:
        features, target = torch.from_numpy(features), torch.from_numpy(target)
        self.a, self.size, self.mu = torch.from_numpy(weight), target.shape[1], mu
        mass = self.a @ target  # (C,)
        self.active = torch.nonzero(mass > LEAST_SHARE * mass.sum())[:, 0]  # (K,)
        share = mass[self.active] / mass.sum()
        self.class_scale = share[:, None] ** -CLASS_POWER  # (K, 1)
        self.ridge = mu * self.class_scale.square()  # (K, 1) regulariser in these units
        self.mean = self.a @ features / mass.sum()  # (D,)
        self.x = torch.empty(len(features), features.shape[1] + 1)  # (S, D + 1)
        torch.sub(features, self.mean, out=self.x[:, :-1])
        self.x[:, -1] = BIAS_UNIT
        self.xt = self.x.T.contiguous()  # (D + 1, S): products with a copy are the quicker ones
        self.aq = (target.T[self.active] * self.a).contiguous()  # (K, S)
        self.point = torch.zeros(len(self.active), self.x.shape[1])
        self.point[:, -1:] = share.log()[:, None] / BIAS_UNIT / self.class_scale
        if start is not None:
            self.point[:, :-1] = torch.from_numpy(start)[self.active] / self.class_scale
        self._set_logits(self.logits_of(self.point))
        size = float((self.ridge * self.point[:, :-1].square()).sum())
        self.linear_part = size / 2 - _dot(self.aq, self.logits)  # J without its logarithms
        self.value = self.linear_part + float(self.a @ self.lse)

    def logits_of(self, point):
        """(K, D + 1), in units -> (K, S)."""
        return (self.class_scale * point) @ self.xt  # (K, D + 1) @ (D + 1, S) -> (K, S)

    def _set_logits(self, logits) -> None:
        """Take these logits, their softmax over classes, and its normaliser."""
        top = logits.amax(0)  # (S,)
        p = (logits - top).exp_()  # (K, S)
        total = p.sum(0)  # (S,)
        self.logits, self.p, self.lse = logits, p.div_(total), total.log_().add_(top)

    def gradient(self):
        """(K, D + 1); but for the regulariser it is a combination of samples, `residual` (K, S)."""
        self.residual = (self.a * self.p).sub_(self.aq).mul_(self.class_scale)
        gradient = self.residual @ self.x  # (K, S) @ (S, D + 1) -> (K, D + 1)
        gradient[:, :-1].addcmul_(self.ridge, self.point[:, :-1])
        return gradient

    def move(self, direction) -> float:
        """One step of Newton's method along the direction, halved until J falls; its length."""
        slope = self.logits_of(direction)  # (K, S) change of the logits
        weighted = self.p * slope
        mean = weighted.sum(0)  # (S,)
        curve = self.ridge * direction[:, :-1]
        across = _dot(self.point[:, :-1], curve) - _dot(self.aq, slope)
        square = _dot(direction[:, :-1], curve)
        rise = across + float(self.a @ mean)  # dJ/dstep where we are
        if not rise < 0:  # float32 can say no more
            return 0.0
        squares = weighted.mul_(slope).sum(0)  # (S,)
        curvature = square + float(self.a @ (squares - mean.square_()))
        if not curvature > NOISE * float(self.a @ squares):  # all classes move alike: J is flat there
            return 0.0
        step = -rise / curvature
        origin = self.logits
        for _ in range(MAX_TRIALS):
            self._set_logits(torch.add(origin, slope, alpha=step))
            linear_part = self.linear_part + step * (across + step / 2 * square)
            value = linear_part + float(self.a @ self.lse)
            if value <= self.value + 1e-4 * step * rise:
                break
            step /= 2
        else:
            self._set_logits(origin)
            return 0.0
        if torch.equal(self.logits, origin):  # a gain on paper alone, since float32 rounds the step away
            return 0.0
        self.point = torch.add(self.point, direction, alpha=step)
        self.linear_part, self.value = linear_part, value
        return step

    def head(self, coefficients=None) -> Head:
        """The head for samples that are not centred, and for all C classes.

        Args:
            coefficients: (K, S) such that the weight, in units, is their product with the centred samples.
        """
        weight, bias = torch.zeros(self.size, len(self.mean)), torch.empty(self.size)
        point = self.class_scale * self.point
        bias[:] = self.lse.min() + math.log(LEAST_SHARE)  # left out: below that share of every sample
        weight[self.active] = point[:, :-1]
        bias[self.active] = BIAS_UNIT * point[:, -1] - point[:, :-1] @ self.mean
        if coefficients is None:
            return Head(weight.numpy(), bias.numpy())
        spread = torch.zeros(self.size, len(self.a))
        coefficients = self.class_scale * coefficients
        # W = A (X - 1 mean') with mean = X' a / sum(a), so W = (A - A 1 a' / sum(a)) X.
        spread[self.active] = coefficients - coefficients.sum(1, keepdim=True) * (self.a / self.a.sum())
        return Head(weight.numpy(), bias.numpy(), spread.numpy())


def _dot(left, right) -> float:
    return float(torch.dot(left.reshape(-1), right.reshape(-1)))
