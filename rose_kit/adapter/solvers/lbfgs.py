"""The default solver: L-BFGS on the regularised objective, in as few passes over the samples as will do.

A pass is two matrix products and costs what a step of AdamW costs; between passes, all inner products of
the recursion come from one product of the remembered rows with the new ones. Each gradient is a
combination of samples, so the head is one too, and its coefficients cost next to nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rose_kit.adapter.solvers.head import Head
from rose_kit.adapter.solvers.objective import RegularisedObjective

PAIRS = 4  # (step, change of gradient) remembered; more bring nothing here
MAX_STEPS = 200
PRECISION = 2e-8  # of J in float32; what is below is noise


def lbfgs(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """Minimise J = sum of weight * loss + mu / 2 * |W|^2, until a step lowers it too little.

    Without `start` the head lies in the span of its samples, and its coefficients are exact however
    early the solver stops.

    Args:
        features: (S, D) float32 samples.
        target: (S, C) float32 distributions.
        weight: (S,) float32, adding up to about 1.
        start: (C, D) initial weight; None starts at 0. The bias starts at the classes' frequencies.
        mu: strength of the regulariser; other solvers' settings are ignored.
        tolerance: stop when a step lowers J by less than this share of it; J is then about that near
            to its minimum. 0 goes on to the precision of float32.
    """
    objective = RegularisedObjective(features, target, weight, start, mu)
    history = _History(objective.point.shape, objective.ridge)
    for _ in range(MAX_STEPS):
        before = objective.value
        direction = history.direction(objective.gradient(), objective.residual)
        history.record_step(objective.move(direction))
        if not before - objective.value > max(tolerance, PRECISION) * objective.value:
            break
    return objective.head(history.coefficients())


class _History:
    """What L-BFGS remembers, as rows of one matrix: PAIRS steps, PAIRS changes of the gradient, the gradient.

    The two-loop recursion only ever combines these rows, so it runs on their inner products and ends in
    one product with the matrix. `shares` says the same of each row's weight part (not its bias): how it
    is combined, class by class, of the products residual_j X of all steps so far.
    """

    def __init__(self, shape: tuple[int, int], ridge) -> None:
        self.shape, self.ridge = shape, ridge.numpy()[:, 0]
        self.rows = torch.zeros(2 * PAIRS + 1, shape[0] * shape[1])
        self.inner = np.zeros((2 * PAIRS + 1, 2 * PAIRS + 1))
        self.shares = np.zeros((2 * PAIRS + 1, MAX_STEPS, shape[0]))
        self.point_share = np.zeros((MAX_STEPS, shape[0]))
        self.residuals, self.slots = [], []
        self.last = None

    def direction(self, gradient, residual):
        """Where to go next: minus (estimate of the inverse Hessian) times (gradient)."""
        share = self.ridge * self.point_share  # (steps, K)
        share[len(self.residuals)] += 1
        self.residuals.append(residual)
        self._store(gradient.view(-1), share)
        mix = self._two_loops()  # (2 * PAIRS + 1,)
        so_far = len(self.residuals)
        share = np.zeros_like(share)
        share[:so_far] = np.tensordot(mix, self.shares[:, :so_far], 1)
        self.last = torch.from_numpy(mix.astype(np.float32)) @ self.rows, share
        return self.last[0].view(self.shape)

    def record_step(self, step: float) -> None:
        """The step that was taken along the last direction."""
        self.last = step * self.last[0], step * self.last[1]
        self.point_share += self.last[1]

    def coefficients(self):
        """(K, S) such that the weight is their product with the centred samples."""
        total = torch.zeros_like(self.residuals[0])
        for share, residual in zip(self.point_share, self.residuals, strict=False):
            total.addcmul_(torch.from_numpy(share)[:, None], residual)
        return total

    def _store(self, gradient, share) -> None:
        new = [-1]
        if self.last is not None:
            slot = (len(self.residuals) - 2) % PAIRS
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
        mix, alpha = np.zeros(len(self.inner)), {}
        mix[-1] = -1
        # Without curvature, as where a step moved nothing, a pair would be divided by zero.
        usable = [s for s in self.slots if min(self.inner[[s, PAIRS + s], PAIRS + s]) > 0]
        for s in reversed(usable):
            alpha[s] = self.inner[s] @ mix / self.inner[s, PAIRS + s]
            mix[PAIRS + s] -= alpha[s]
        if usable:
            s = usable[-1]
            mix *= self.inner[s, PAIRS + s] / self.inner[PAIRS + s, PAIRS + s]
        for s in usable:
            mix[s] += alpha[s] - self.inner[PAIRS + s] @ mix / self.inner[s, PAIRS + s]
        return mix
