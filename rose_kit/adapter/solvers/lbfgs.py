"""The default solver: L-BFGS on the regularised objective, in as few passes over the samples as will do.

A pass is two matrix products and costs what a step of AdamW costs. What makes few passes enough:

- the bias is free, so centred samples have the same minimum, and the bias may be counted in any unit:
  both take away directions that are far steeper than the others;
- logits are linear in the head, so a line search needs no pass;
- a class that no sample stands for is left out: its best bias is minus infinity;
- all inner products of the recursion come from one matrix product a step.

Each gradient is a combination of samples, so the head is one too, and its coefficients cost nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rose_kit.adapter.solvers.head import Head

BIAS_UNIT = 0.3  # about what centred features spread along their main direction
PAIRS = 6  # (step, change of gradient) remembered; more bring nothing here
LEAST_SHARE = 1e-6  # of the samples' weight, below which a class is left out
MAX_STEPS = 200
MAX_TRIALS = 8  # in a line search; nearly always one


def lbfgs(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """Minimise J = sum of weight * loss + mu / 2 * |W|^2, until a step lowers it too little.

    J is convex and the bias is free. Without `start` the head lies in the span of its samples, and its
    coefficients are exact however early the solver stops.

    Args:
        features: (S, D) float32 samples.
        target: (S, C) float32 distributions.
        weight: (S,) float32, adding up to about 1.
        start: (C, D) initial weight; None starts at 0. The bias starts at the classes' frequencies.
        mu: strength of the regulariser; other solvers' settings are ignored.
        tolerance: stop when a step lowers J by less than this share of it; J is then about that near
            to its minimum. 0 goes on to the precision of float32.
    """
    a, q = torch.from_numpy(weight), torch.from_numpy(target)
    mass = a @ q  # (C,)
    kept = torch.nonzero(mass > LEAST_SHARE * mass.sum())[:, 0]  # (K,)
    start = None if start is None else torch.from_numpy(start)[kept]
    descent = _Descent(torch.from_numpy(features), q[:, kept], a, mu, start)
    history = _History(descent.point.shape, mu)
    for _ in range(MAX_STEPS):
        before = descent.value
        direction = history.direction(descent.gradient(), descent.pull)
        step = descent.move(direction)
        history.moved(step)
        if not before - descent.value > tolerance * descent.value:
            break
    return descent.head(history.coefficients(), kept, len(mass))


class _Descent:
    """J at the current point: a (K, D + 1) head on centred samples, its bias in the last column.

    Logits and all that belongs to them are (K, S), since products in this layout are the quicker ones.
    """

    def __init__(self, features, target, a, mu, start) -> None:
        self.a, self.mu, total = a, mu, a.sum()
        self.mean = a @ features / total  # (D,)
        self.x = torch.empty(len(features), features.shape[1] + 1)  # (S, D + 1)
        self.x[:, :-1] = features - self.mean
        self.x[:, -1] = BIAS_UNIT
        self.aq = (target.T * a).contiguous()  # (K, S)
        self.point = torch.zeros(target.shape[1], self.x.shape[1])
        if start is not None:
            self.point[:, :-1] = start
        self.point[:, -1] = (self.aq.sum(1) / total).log() / BIAS_UNIT
        self.logits = self.point @ self.x.T  # (K, D + 1) @ (D + 1, S) -> (K, S)
        self.p, self.value = self._softmax(self.logits), None
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
        step, low, high, first, p, logits = 0.0, 0.0, np.inf, None, self.p, self.logits
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
                step = (low + high) / 2 if high < np.inf else 2 * low
            logits = self.logits + step * slope
            p = self._softmax(logits)
        self.point, self.logits, self.p = self.point + step * direction, logits, p
        self._measure()
        return step

    def head(self, coefficients, kept, size: int) -> Head:
        """Back to samples that are not centred, and to all `size` classes."""
        weight, bias = torch.zeros(size, len(self.mean)), torch.empty(size)
        bias[:] = self.lse.min() + np.log(LEAST_SHARE)  # left out: below that share of every sample
        weight[kept] = self.point[:, :-1]
        bias[kept] = BIAS_UNIT * self.point[:, -1] - self.point[:, :-1] @ self.mean
        spread = torch.zeros(size, len(self.a))
        # W = A (X - 1 mean') with mean = X' a / sum(a), so W = (A - A 1 a' / sum(a)) X.
        spread[kept] = coefficients - coefficients.sum(1, keepdim=True) * (self.a / self.a.sum())
        return Head(weight.numpy(), bias.numpy(), spread.numpy())


class _History:
    """What L-BFGS remembers, as rows of one matrix: PAIRS steps, PAIRS changes of the gradient, the gradient.

    The two-loop recursion only ever combines these rows, so it runs on their inner products and ends in
    one product with the matrix. `shares` says the same of each row's weight part (not its bias): how it
    is combined of the products pull_j X of all steps so far.
    """

    def __init__(self, shape: tuple[int, int], mu: float) -> None:
        self.shape, self.mu = shape, mu
        self.rows = torch.zeros(2 * PAIRS + 1, shape[0] * shape[1])
        self.inner = np.zeros((2 * PAIRS + 1, 2 * PAIRS + 1))
        self.shares = np.zeros((2 * PAIRS + 1, MAX_STEPS))
        self.point_share = np.zeros(MAX_STEPS)
        self.pulls, self.slots = [], []
        self.last = None

    def direction(self, gradient, pull):
        """Where to go next: minus (estimate of the inverse Hessian) times (gradient)."""
        share = self.mu * self.point_share
        share[len(self.pulls)] += 1
        self.pulls.append(pull)
        self._remember(gradient.view(-1), share)
        mix = self._two_loops()  # (2 * PAIRS + 1,)
        self.last = torch.from_numpy(mix.astype(np.float32)) @ self.rows, mix @ self.shares
        return self.last[0].view(self.shape)

    def moved(self, step: float) -> None:
        """The step that was taken along the last direction."""
        self.last = step * self.last[0], step * self.last[1]
        self.point_share += self.last[1]

    def coefficients(self):
        """(K, S) such that the weight is their product with the centred samples."""
        total = torch.zeros_like(self.pulls[0])
        for share, pull in zip(self.point_share, self.pulls, strict=False):
            total.add_(pull, alpha=share)
        return total

    def _remember(self, gradient, share) -> None:
        new = [-1]
        if self.last is not None:
            slot = (len(self.pulls) - 2) % PAIRS
            new += [slot, PAIRS + slot]
            self.slots = [s for s in self.slots if s != slot] + [slot]
            self.rows[slot], self.shares[slot] = self.last
            torch.sub(gradient, self.rows[-1], out=self.rows[PAIRS + slot])
            self.shares[PAIRS + slot] = share - self.shares[-1]
        self.rows[-1], self.shares[-1] = gradient, share
        self.inner[new] = (self.rows[new] @ self.rows.T).numpy()
        self.inner[:, new] = self.inner[new].T

    def _two_loops(self) -> NDArray[np.float64]:
        """The direction as a mixture of the rows (Nocedal and Wright, algorithm 7.4)."""
        mix, taken = np.zeros(len(self.inner)), {}
        mix[-1] = -1
        usable = [s for s in self.slots if self.inner[s, PAIRS + s] > 0]
        for s in reversed(usable):
            taken[s] = self.inner[s] @ mix / self.inner[s, PAIRS + s]
            mix[PAIRS + s] -= taken[s]
        if usable:
            s = usable[-1]
            mix *= self.inner[s, PAIRS + s] / self.inner[PAIRS + s, PAIRS + s]
        for s in usable:
            mix[s] += taken[s] - self.inner[PAIRS + s] @ mix / self.inner[s, PAIRS + s]
        return mix
