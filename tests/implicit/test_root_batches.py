"""Roots of a whole batch: the same roots as one search for each sample, also where there are several."""

from __future__ import annotations

import numpy as np
import pytest

import jacana as jc
from jacana.implicit.recorded import Solver


def rng():
    return np.random.default_rng(8)


def cubic(p):
    """Up to three real roots; which one is found is a matter of the steps."""
    return jc.root(lambda x: x**3 - p[0] * x + p[1], p[2]).x


def two(p):
    return jc.root(lambda x: np.stack([x[0] ** 2 + x[1] ** 2 - 4.0 - p[0], np.exp(x[0]) + p[1] * x[1] - 1.0]), p[2:]).x


def searches(monkeypatch):
    """How many samples got a search of their own."""
    count = []
    run = Solver.run

    def noted(self, start, arguments):
        count.append(1)
        return run(self, start, arguments)

    monkeypatch.setattr(Solver, "run", noted)
    return count


def one_by_one(function, rows):
    found = []
    for row in rows:
        try:
            found.append(np.asarray(function(row)))
        except jc.ConvergenceError:
            found.append(None)
    return found


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (cubic, np.stack([np.linspace(-2, 5, 80), np.linspace(2, -2, 80), np.linspace(-4, 4, 80) + 0.03], axis=1)),
        (two, np.concatenate([np.zeros((60, 2)), np.random.default_rng(0).normal(size=(60, 2)) * 2], axis=1) + 0.3),
    ],
    ids=["cubic", "two equations"],
)
def test_the_same_roots_as_one_by_one(function, rows):
    want = one_by_one(lambda row: np.asarray(jc.vmap(function)(row[None]))[0], rows)
    kept = np.array([w is not None for w in want])
    assert kept.sum() > len(rows) // 2
    found = jc.vmap(function)(rows[kept])
    np.testing.assert_allclose(found, np.stack([w for w in want if w is not None]), rtol=1e-9, atol=1e-11)


def test_derivatives_of_all_and_few_searches_alone(monkeypatch):
    def kepler(p):
        return jc.root(lambda x: x - p[0] * np.sin(x) - p[1], 1.0).x

    p = np.stack([rng().uniform(0.1, 0.9, 300), rng().uniform(0.1, 3.0, 300)], axis=1)
    count = searches(monkeypatch)
    x = jc.vmap(kepler)(p)
    np.testing.assert_allclose(x - p[:, 0] * np.sin(x), p[:, 1], rtol=1e-14)
    assert len(count) < 10
    want = np.stack([np.sin(x), np.ones(300)], axis=1) / (1 - p[:, 0] * np.cos(x))[:, None]
    np.testing.assert_allclose(jc.grad(lambda p: jc.vmap(kepler)(p).sum())(p), want, rtol=1e-13)
    sparse = jc.jacobian(jc.vmap(kepler), format="csr")(p)
    assert sparse.nnz == 600
    np.testing.assert_allclose(sparse.data.reshape(300, 2), want, rtol=1e-13)


def test_hard_samples_get_a_search_of_their_own(monkeypatch):
    def f(p):  # at x = 0 the derivative is zero where p[1] is
        return jc.root(lambda x: x**3 + p[1] * x - p[0], 0.0).x

    p = np.array([[1.0, 1.0], [8.0, 1.0], [27.0, 2.0], [8.0, 0.5]])
    count = searches(monkeypatch)
    x = jc.vmap(f)(p)
    np.testing.assert_allclose(x**3 + p[:, 1] * x, p[:, 0], rtol=1e-13)
    before = len(count)
    flat = np.array([[1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(jc.vmap(f)(flat)[1], 0.0, atol=1e-12)
    assert before <= 4


def test_no_root_is_an_error_with_its_line():
    def f(p):
        return jc.root(lambda x: x**2 + p, 1.0).x  # no real root for p > 0

    np.testing.assert_allclose(jc.vmap(f)(np.array([-4.0, -9.0])), [2.0, 3.0], rtol=1e-14)
    with pytest.raises(jc.ConvergenceError, match="no real root"):
        jc.vmap(f)(np.array([-4.0, 1.0]))


@pytest.mark.parametrize("options", [{"method": "line-search"}, {"tol": 1e-6}, {"method": "krylov"}])
def test_other_searches(options):
    def f(p):
        return jc.root(lambda x: np.stack([x[0] + 0.1 * np.sin(x[1]) - p, x[1] - x[0] ** 2]), [1.0, 1.0], **options).x

    p = np.linspace(0.5, 2.0, 7)
    x = jc.vmap(f)(p)
    np.testing.assert_allclose(x[:, 0] + 0.1 * np.sin(x[:, 0] ** 2), p, atol=2e-6 if "tol" in options else 1e-12)
