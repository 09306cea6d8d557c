"""Every row of docs/hard-points.md, on both executors, in both orders, dense and sparse."""

from __future__ import annotations

import hard_page as page
import hard_points as points
import numpy as np
import pytest

import jacana as jc

EXECUTORS = ["numpy", "native"] if jc.native_available() else ["numpy"]


def function_of(row):
    space = {"np": np}
    exec(points.SETUP, space)
    exec(f"def call(x):\n    return {row.program}", space)
    return space["call"]


def name(row):
    return f"{row.program} at {row.point}"


def same(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("row", points.EACH, ids=name)
def test_elementwise(row, executor):
    function, x, n = function_of(row), np.array(row.point, dtype=float), len(row.point)
    with np.errstate(all="ignore"), jc.executor(executor):
        for order in ("forward", "reverse"):
            jacobian = jc.jacobian(function, order=order)(x)
            same(np.diag(jacobian), row.first)
            assert not jacobian[~np.eye(n, dtype=bool)].any(), "a structural zero is not zero"
        sparse = jc.jacobian(function, format="csr")(x)
        same(sparse.toarray(), jacobian)
        same(jc.grad(lambda x: np.sum(function(x)))(x), row.first)
        if row.second is not None:
            hessian = jc.hessian(lambda x: np.sum(function(x)))(x)
            same(np.diag(hessian), row.second)
            assert not hessian[~np.eye(n, dtype=bool)].any()


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("row", points.WHOLE, ids=name)
def test_whole(row, executor):
    function, x = function_of(row), np.array(row.point, dtype=float)
    with np.errstate(all="ignore"), jc.executor(executor):
        for order in ("forward", "reverse"):
            same(jc.jacobian(function, order=order)(x), row.first)
        same(jc.jacobian(function, format="csr")(x).toarray(), np.atleast_2d(row.first))
        if row.second is not None:
            same(jc.hessian(function)(x), row.second)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_errors_stay_numpys(executor):
    with jc.executor(executor):
        picked = jc.jacobian(lambda x, k: x[k])
        assert picked(np.ones(3), 2)[2] == 1.0
        with pytest.raises(IndexError):
            picked(np.ones(3), 3)
        solved = jc.jacobian(lambda a: np.linalg.solve(a, np.ones(2)))
        assert np.isfinite(solved(np.eye(2))).all()
        with pytest.raises(np.linalg.LinAlgError):
            solved(np.ones((2, 2)))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_derivatives_of_determinants_at_every_rank(rank, executor):
    rng = np.random.default_rng(rank)
    a = rng.normal(size=(4, rank)) @ rng.normal(size=(rank, 4))
    b = rng.normal(size=(4, 4))
    # det(a + t b) is a polynomial in t: five values say what it is.
    t = np.linspace(-1.0, 1.0, 5)
    series = np.polynomial.Polynomial.fit(t, [np.linalg.det(a + s * b) for s in t], 4).convert().coef
    along = lambda t: np.linalg.det(a + t * b)  # noqa: E731
    with jc.executor(executor):
        first = jc.grad(along)
        np.testing.assert_allclose(first(0.0), series[1], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(jc.hessian(along)(0.0), 2 * series[2], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(jc.hessian(first)(0.0), 6 * series[3], rtol=1e-9, atol=1e-11)
        batch = np.stack([a, a + b])
        both = jc.vmap(jc.hessian(np.linalg.det))(batch)
        np.testing.assert_allclose(both[1], jc.hessian(np.linalg.det)(a + b), rtol=1e-12, atol=1e-12)


def test_larger_determinants_keep_factors():
    a = np.random.default_rng(0).normal(size=(8, 8))
    gradient = jc.grad(np.linalg.det)
    step = 1e-5
    e = np.zeros((8, 8))
    e[2, 3] = step
    slope = (gradient(a + e) - gradient(a - e)) / (2 * step)
    np.testing.assert_allclose(jc.hessian(np.linalg.det)(a)[:, :, 2, 3], slope, rtol=1e-7, atol=1e-7)


def test_squares_of_lengths_keep_their_value():
    x = np.array([[3.0, 4.0], [1.0, 2.0]])
    value, slope = jc.value_and_jacobian(lambda x: np.linalg.norm(x, axis=1, keepdims=True) ** 2)(x)
    np.testing.assert_allclose(value, np.linalg.norm(x, axis=1, keepdims=True) ** 2, rtol=1e-15)
    np.testing.assert_allclose(slope[1, 0], [[0, 0], [2, 4]], rtol=1e-15)


def test_the_page_is_fresh():
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "run python tests/hard/hard_page.py"
