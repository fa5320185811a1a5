"""The default solver against an independent one, and what early stopping promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from rose_kit import unit
from rose_kit.adapter.solvers import lbfgs


def problem(seed=0, size=60, dim=16, classes=5):
    """Overlapping classes around a common direction, of unequal weight; a third of the targets is soft."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=size)
    label[:classes] = np.arange(classes)
    centres = rng.normal(size=(classes, dim))
    x = unit(2 * rng.normal(size=dim) + centres[label] + 0.8 * rng.normal(size=(size, dim)))
    q = np.eye(classes, dtype=np.float32)[label]
    q[: size // 3] = 0.8 * q[: size // 3] + 0.2 * rng.dirichlet(np.ones(classes), size // 3)
    a = rng.uniform(0.2, 1, size).astype(np.float32)
    return x, q, a / a.sum()


def objective(head, x, q, a, mu):
    """J as one would write it."""
    loss = -(q * log_softmax(x @ head.weight.T + head.bias, 1)).sum(1)
    return (a * loss).sum() + mu / 2 * np.square(head.weight).sum()


@pytest.mark.parametrize("mu", [1e-1, 1e-2, 1e-3])
def test_the_optimum_is_that_of_scikit_learn(mu):
    """A soft target is the same as a sample of each class, weighted by its probability."""
    x, q, a = problem()
    again = np.repeat(x, q.shape[1], 0), np.tile(np.arange(q.shape[1]), len(x)), (a[:, None] * q).ravel()
    model = LogisticRegression(C=1 / mu, tol=1e-8, max_iter=5000)
    model.fit(again[0], again[1], sample_weight=again[2])
    head = lbfgs(x, q, a, None, mu=mu, tolerance=0)
    centred = model.intercept_ - model.intercept_.mean()  # J does not fix a constant added to the bias
    np.testing.assert_allclose(head.weight, model.coef_, atol=2e-3 * np.abs(model.coef_).max())
    np.testing.assert_allclose(head.bias - head.bias.mean(), centred, atol=2e-3 * np.abs(model.coef_).max())


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    mu=st.sampled_from([1e-1, 1e-3, 1e-4]),
    tolerance=st.sampled_from([1e-2, 3e-3, 1e-3]),
    dim=st.sampled_from([4, 16, 90]),
)
def test_stopping_early_stays_near_the_minimum(seed, mu, tolerance, dim):
    x, q, a = problem(seed, dim=dim)
    early, exact = (lbfgs(x, q, a, None, mu=mu, tolerance=t) for t in (tolerance, 0))
    reached, least = (objective(head, x, q, a, mu) for head in (early, exact))
    assert least * (1 - 1e-6) <= reached <= least * (1 + 5 * tolerance)


def test_a_class_without_samples_is_never_the_answer_and_costs_nothing():
    x, q, a = problem(classes=4)
    wider = np.insert(q, 2, 0, axis=1)  # (S, 5)
    head, without = (lbfgs(x, t, a, None, mu=1e-3, tolerance=1e-4) for t in (wider, q))
    np.testing.assert_allclose(np.delete(head.weight, 2, 0), without.weight, atol=1e-5)  # other sums
    assert not head.weight[2].any()
    p = np.exp(head.logits(x))
    assert (p[:, 2] / p.sum(1)).max() < 2e-6


@pytest.mark.filterwarnings("error")
def test_degenerate_samples_divide_nothing_by_zero():
    """One to three samples, often the same again, at the optimum from the start where targets are soft."""
    for seed in (*range(30), 11, 384, 1047, 2055, 3021, 3125, 3955):  # those by name once failed
        rng = np.random.default_rng(seed)
        size, dim, classes = int(rng.integers(1, 4)), int(rng.choice([1, 2, 16, 40])), int(rng.integers(1, 5))
        x = unit(rng.normal(size=(size, dim))).astype(np.float32)
        if rng.random() < 0.5:
            x = np.repeat(x[:1], size, 0)
        q = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=size)]
        if rng.random() < 0.4:
            q = rng.dirichlet(np.ones(classes), size).astype(np.float32)
        mu = float(rng.choice([1e-10, 1e-8, 1e-5, 1e-3, 1e-1, 1.0, 100.0]))
        head = lbfgs(x, q, np.full(size, 1 / size, np.float32), None, mu=mu, tolerance=0)
        assert np.isfinite(head.weight).all() and np.isfinite(head.bias).all(), seed
