"""Other ways to the same minimum, which the default solver is compared with and beats.

All minimise the objective of `lbfgs` and stop by the same rule; called as every solver is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn.functional import normalize

from rose_kit.adapter import Head
from rose_kit.adapter.solvers import RegularisedObjective
from rose_kit.types import numpy_door

MAX_STEPS = 400


@numpy_door
def scipy_lbfgs(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """SciPy's L-BFGS on samples as they are: neither centred nor with the bias in a unit of its own."""
    x, q, a = features, target, weight[:, None]
    mu, (size, dim) = float(mu), (q.shape[1], x.shape[1])

    def split(flat):
        head = torch.from_numpy(flat.astype(np.float32)).view(size, dim + 1)
        return head[:, :-1], head[:, -1]

    def objective(flat):
        w, b = split(flat)
        log_p = torch.log_softmax(torch.addmm(b, x, w.T), 1)  # (S, C)
        value = -(a * q * log_p).sum() + mu / 2 * w.square().sum()
        pull = a * (log_p.exp() - q)  # (S, C)
        gradient = torch.cat([pull.T @ x + mu * w, pull.sum(0)[:, None]], 1)  # (C, D + 1)
        return float(value), gradient.double().numpy().ravel()

    flat = np.c_[np.zeros((size, dim)) if start is None else start, np.zeros(size)].ravel()
    options = {"maxiter": MAX_STEPS, "ftol": tolerance, "gtol": 0}
    w, b = split(minimize(objective, flat, jac=True, method="L-BFGS-B", options=options).x)
    return Head(w.clone(), b.clone())


def newton_cg(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """Newton's method; each of its linear systems is solved by a few conjugate gradients, a pass each."""

    def direction(objective: RegularisedObjective, gradient):
        return newton_step(objective, gradient, left=0.1**0.5, most=20)

    return _descend(direction, features, target, weight, start, mu, tolerance)


def newton_step(objective: RegularisedObjective, gradient, left: float, most: int):
    """(K, D + 1) minus (inverse Hessian) times (gradient), by conjugate gradients, a pass each.

    Args:
        gradient: (K, D + 1) of the objective at its current point.
        left: share of the gradient that the step may leave over in the quadratic model.
        most: passes, at most.
    """
    step, residual = torch.zeros_like(gradient), -gradient
    # The objective is flat along one constant for all biases: rounding there would be divided by nothing.
    flat = normalize(1 / objective.class_scale, dim=-2)  # (K, 1)
    residual[..., -1:] -= flat * (flat * residual[..., -1:]).sum()
    along, square = residual, residual.square().sum()
    enough = left**2 * square
    for _ in range(most):
        if square <= enough:
            break
        curved = curvature(objective, along)
        length = square / (along * curved).sum()
        step, residual = step + length * along, residual - length * curved
        square, before = residual.square().sum(), square
        along = residual + square / before * along
    return step


def curvature(objective: RegularisedObjective, along):
    """(K, D + 1) second derivative of the objective at its current point times a (K, D + 1) direction."""
    curved = objective.p * objective.logits_of(along)  # (K, S)
    curved = (curved - objective.p * curved.sum(-2, keepdim=True)) * objective.a * objective.class_scale
    product = curved @ objective.x  # (K, S) @ (S, D + 1) -> (K, D + 1)
    product[..., :-1] += objective.ridge * along[..., :-1]
    return product


def fixed_hessian(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """One bound on every Hessian, factored once (Boehning 1992), with a line search."""
    factor = []

    def direction(objective: RegularisedObjective, gradient):
        if not factor:
            bound = objective.x.T @ (objective.a.T * objective.x) / 2  # (D + 1, D + 1)
            factor.append(torch.linalg.cholesky(bound + objective.mu * torch.eye(len(bound))))
        return (
            -torch.cholesky_solve((gradient / objective.class_scale).T, factor[0]).T / objective.class_scale
        )

    return _descend(direction, features, target, weight, start, mu, tolerance)


@numpy_door
def _descend(direction: Callable, features, target, weight, start, mu, tolerance) -> Head:
    objective = RegularisedObjective(features, target, weight, start, mu)
    for _ in range(MAX_STEPS):
        before = objective.value
        objective.move(direction(objective, objective.gradient()))
        if not before - objective.value > tolerance * objective.value:
            break
    return objective.head()


BASELINE_SOLVERS = {"scipy-lbfgs": scipy_lbfgs, "newton-cg": newton_cg, "fixed-hessian": fixed_hessian}
