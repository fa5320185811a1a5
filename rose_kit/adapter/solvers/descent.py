"""The regularised objective, and how one moves along it: what all its solvers share.

J = sum of weight * loss + mu / 2 * |W|^2 is convex, and its bias is free. Hence

- samples may be centred, and the bias counted in any unit, without changing the minimum: both take away
  directions that are far steeper than the others;
- logits are linear in the head, so a line search needs no pass over the samples;
- a class that no sample stands for is left out: its best bias is minus infinity.
"""

from __future__ import annotations

import math

import torch

from rose_kit.adapter.solvers.head import Head

BIAS_UNIT = 0.3  # about what centred features spread along their main direction
LEAST_SHARE = 1e-6  # of the samples' weight, below which a class is left out
MAX_TRIALS = 8  # in a line search; nearly always one


class Descent:
    """J at the current point: a (K, D + 1) head on centred samples, its bias in the last column.

    Logits and all that belongs to them are (K, S), since products in this layout are the quicker ones.

    Args:
        features, target, weight, start, mu: as for a solver.
    """

    def __init__(self, features, target, weight, start, mu) -> None:
        features, target = torch.from_numpy(features), torch.from_numpy(target)
        self.a, self.mu = torch.from_numpy(weight), mu
        self.size, total = target.shape[1], self.a.sum()
        mass = self.a @ target  # (C,)
        self.kept = torch.nonzero(mass > LEAST_SHARE * total)[:, 0]  # (K,)
        target = target[:, self.kept]  # (S, K)
        self.mean = self.a @ features / total  # (D,)
        self.x = torch.empty(len(features), features.shape[1] + 1)  # (S, D + 1)
        torch.sub(features, self.mean, out=self.x[:, :-1])
        self.x[:, -1] = BIAS_UNIT
        self.aq = (target.T * self.a).contiguous()  # (K, S)
        prior = (mass[self.kept] / total).log()
        self.point = torch.zeros(len(self.kept), self.x.shape[1])
        self.point[:, -1] = prior / BIAS_UNIT
        self.logits = prior[:, None].expand(-1, len(features)).contiguous()  # (K, S)
        if start is not None:
            self.point[:, :-1] = torch.from_numpy(start)[self.kept]
            self.logits = self.point @ self.x.T  # (K, D + 1) @ (D + 1, S) -> (K, S)
        self.p = self._softmax(self.logits)
        self._measure()

    def _softmax(self, logits):
        self.lse = torch.logsumexp(logits, 0)  # (S,)
        return torch.exp(logits - self.lse)

    def _measure(self) -> None:
        loss = self.a @ self.lse - torch.dot(self.aq.view(-1), self.logits.view(-1))
        self.value = float(loss + self.mu / 2 * self.point[:, :-1].square().sum())

    def gradient(self):
        """(K, D + 1); `pull` is dJ/dlogits."""
        self.pull = self.a * self.p - self.aq  # (K, S)
        gradient = self.pull @ self.x  # (K, S) @ (S, D + 1) -> (K, D + 1)
        gradient[:, :-1].add_(self.point[:, :-1], alpha=self.mu)
        return gradient

    def move(self, direction) -> float:
        """Newton's method along the direction, held in the bracket that convexity gives; the step."""
        slope = direction @ self.x.T  # (K, S) change of the logits
        w, d = self.point[:, :-1], direction[:, :-1]
        pull = float(torch.dot(self.aq.view(-1), slope.view(-1)))
        wd, dd = self.mu * float((w * d).sum()), self.mu * float(d.square().sum())
        step, low, high, first, p, logits = 0.0, 0.0, math.inf, None, self.p, self.logits
        for _ in range(MAX_TRIALS):
            weighted = p * slope  # (K, S)
            mean = weighted.sum(0)  # (S,)
            rise = float(self.a @ mean) - pull + wd + step * dd  # dJ/dstep
            if first is None:
                first = rise
                if not first < 0:  # float32 can say no more
                    return 0.0
            elif abs(rise) <= 0.3 * -first:
                break
            low, high = (step, high) if rise < 0 else (low, step)
            curvature = float(self.a @ ((weighted * slope).sum(0) - mean.square())) + dd
            step -= rise / curvature
            if not low < step < high:
                step = (low + high) / 2 if high < math.inf else 2 * low
            logits = self.logits + step * slope
            p = self._softmax(logits)
        self.point, self.logits, self.p = self.point + step * direction, logits, p
        self._measure()
        return step

    def head(self, coefficients=None) -> Head:
        """The head for samples that are not centred, and for all C classes.

        Args:
            coefficients: (K, S) such that the weight is their product with the centred samples.
        """
        weight, bias = torch.zeros(self.size, len(self.mean)), torch.empty(self.size)
        bias[:] = self.lse.min() + math.log(LEAST_SHARE)  # left out: below that share of every sample
        weight[self.kept] = self.point[:, :-1]
        bias[self.kept] = BIAS_UNIT * self.point[:, -1] - self.point[:, :-1] @ self.mean
        if coefficients is None:
            return Head(weight.numpy(), bias.numpy())
        spread = torch.zeros(self.size, len(self.a))
        # W = A (X - 1 mean') with mean = X' a / sum(a), so W = (A - A 1 a' / sum(a)) X.
        spread[self.kept] = coefficients - coefficients.sum(1, keepdim=True) * (self.a / self.a.sum())
        return Head(weight.numpy(), bias.numpy(), spread.numpy())
