"""Other ways to the same minimum, which the default solver is compared with and beats.

All minimise the objective of `lbfgs` and stop by the same rule; called as every solver is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize

from rose_kit.adapter import Head
from rose_kit.adapter.solvers import RegularisedObjective

MAX_STEPS = 400


def scipy_lbfgs(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """SciPy's L-BFGS on samples as they are: neither centred nor with the bias in a unit of its own."""
    x, q, a = torch.from_numpy(features), torch.from_numpy(target), torch.from_numpy(weight)[:, None]
    size, dim = q.shape[1], x.shape[1]

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
    return Head(w.numpy().copy(), b.numpy().copy())


def newton_cg(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """Newton's method; each of its linear systems is solved by a few conjugate gradients, a pass each."""

    def direction(objective: RegularisedObjective, gradient):
        x, residual = torch.zeros_like(gradient), -gradient
        along, norm = residual, residual.square().sum()
        enough = 0.1 * norm  # squared: a third of the gradient is left
        for _ in range(20):
            curved = _hessian(objective, along)
            step = norm / (along * curved).sum()
            x, residual = x + step * along, residual - step * curved
            norm, before = residual.square().sum(), norm
            if norm < enough:
                break
            along = residual + norm / before * along
        return x

    return _descend(direction, features, target, weight, start, mu, tolerance)


def _hessian(objective: RegularisedObjective, along):
    """(K, D + 1): second derivative of J times a direction."""
    curved = objective.p * objective.logits_of(along)  # (K, S)
    curved = objective.a * (curved - objective.p * curved.sum(0))
    out = (objective.class_scale * curved) @ objective.x  # (K, S) @ (S, D + 1)
    return out.addcmul_(objective.ridge, torch.cat([along[:, :-1], torch.zeros(len(along), 1)], 1))


def fixed_hessian(features, target, weight, start, *, mu, tolerance, **_) -> Head:
    """One bound on every Hessian, factored once (Boehning 1992), with a line search."""
    factor = []

    def direction(objective: RegularisedObjective, gradient):
        if not factor:
            bound = objective.x.T @ (objective.a[:, None] * objective.x) / 2  # (D + 1, D + 1)
            factor.append(torch.linalg.cholesky(bound + objective.mu * torch.eye(len(bound))))
        return (
            -torch.cholesky_solve((gradient / objective.class_scale).T, factor[0]).T / objective.class_scale
        )

    return _descend(direction, features, target, weight, start, mu, tolerance)


def _descend(direction: Callable, features, target, weight, start, mu, tolerance) -> Head:
    objective = RegularisedObjective(features, target, weight, start, mu)
    for _ in range(MAX_STEPS):
        before = objective.value
        objective.move(direction(objective, objective.gradient()))
        if not before - objective.value > tolerance * objective.value:
            break
    return objective.head()


BASELINE_SOLVERS = {"scipy-lbfgs": scipy_lbfgs, "newton-cg": newton_cg, "fixed-hessian": fixed_hessian}
