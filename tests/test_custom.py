"""Custom operations: every kind of declaration, order and format, and what the checker finds."""

from __future__ import annotations

import numpy as np
import pytest
from support import EXECUTORS

import jacana as jc


@pytest.fixture(params=EXECUTORS, autouse=True)
def executor(request):
    with jc.executor(request.param):
        yield request.param


X = np.array([0.3, 1.2, 2.0])
M = np.array([[3.0, 1, 0], [0.5, 4, 1], [0, 1, 5]])


def close(found, want):
    found, want = np.asarray(found), np.asarray(want)
    assert found.shape == want.shape
    np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-12)


def _solve_back(arrays, cotangent):
    m, b = arrays
    w = np.linalg.solve(m.T, cotangent)
    return -np.outer(w, np.linalg.solve(m, b)), w


def _solve_forth(arrays, tangents):
    m, b = arrays
    return np.linalg.solve(m, tangents[1] - tangents[0] @ np.linalg.solve(m, b))


SOLVES = {
    "vjp": {"vjp": _solve_back},
    "jvp": {"jvp": _solve_forth},
    "both": {"jvp": _solve_forth, "vjp": _solve_back},
}


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
@pytest.mark.parametrize("kind", SOLVES)
def test_products(kind, order):
    solve = jc.custom_operation(lambda m, b: np.linalg.solve(m, b), name="solve", **SOLVES[kind])

    def f(b, m, function):
        return function(m * np.sum(b), np.sin(b))[::2]

    for k in (0, 1):
        found = jc.jacobian(lambda b, m: f(b, m, solve), argnums=k, order=order)(X, M)
        close(found, jc.jacobian(lambda b, m: f(b, m, np.linalg.solve), argnums=k)(X, M))
    loss = [lambda b, g=g: np.sum(f(b, M, g) ** 2) for g in (solve, np.linalg.solve)]
    close(jc.grad(loss[0])(X), jc.grad(loss[1])(X))
    assert jc.check_operation(solve, M, X) < 1e-9


CUBES = {
    "partials": {"partials": lambda x: 3 * x**2, "structure": "elementwise"},
    "vjp": {"vjp": lambda arrays, c: 3 * arrays[0] ** 2 * c},
    "jvp": {"jvp": lambda arrays, t: 3 * arrays[0] ** 2 * t[0]},
}


@pytest.mark.parametrize("kind", CUBES)
def test_orders(kind):
    def energy(cube):
        return lambda x: np.sum(cube(x) * x)

    once = jc.custom_operation(lambda x: x**3, name="cube", **CUBES[kind])
    close(jc.grad(energy(once))(X), 4 * X**3)
    with pytest.raises(jc.DifferentiationError, match="cube declares first derivatives only"):
        jc.hessian(energy(once))(X)
    ever = jc.custom_operation(lambda x: x**3, traceable=True, **CUBES[kind])
    close(jc.hessian(energy(ever))(X), np.diag(12 * X**2))
    close(jc.jacobian(lambda x: jc.hessian(energy(ever))(x)[0, 0])(X), [24 * X[0], 0, 0])
    if kind == "partials":
        assert jc.hessian(energy(ever), format="csr")(X).nnz == 3


def test_nothing_declared():
    table = jc.custom_operation(lambda x: np.interp(x, [0.0, 3.0], [1.0, 2.0]), name="table")
    close(table(X), 1 + X / 3)
    with pytest.raises(jc.DifferentiationError, match="table declares no derivative"):
        jc.jacobian(table)(X)


def test_structure():
    product = jc.custom_operation(lambda a, b: a * b, partials=lambda a, b: (b, a), structure="elementwise")
    f = jc.jacobian(lambda x: product(x, x[::-1]), format="csr")
    close(f(X).toarray(), jc.jacobian(lambda x: x * x[::-1])(X))
    assert f(X).nnz == 5
    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 3))

    def by_matrix(w, v):
        return np.einsum("ik,bj->bikj", np.eye(2), v)

    apply = jc.custom_operation(
        lambda w, v: np.einsum("bij,bj->bi", w, v), partials=lambda w, v: (by_matrix(w, v), w), structure=1
    )
    for k in (0, 1):
        close(jc.jacobian(apply, argnums=k)(w, v), jc.jacobian(lambda w, v: np.einsum("bij,bj->bi", w, v), k)(w, v))
    assert jc.jacobian(lambda v: apply(w, v), format="csr")(v).nnz == 24
    close(jc.jacobian(lambda v: apply(w, v), format="blocks")(v), w)
    mixed = jc.custom_operation(
        lambda x, s, n: x * s * n, partials=lambda x, s, n: (np.full(3, s * n), x * n, None),
        structure=["elementwise", 0, 0],
    )  # fmt: skip
    close(jc.jacobian(lambda s: mixed(X, s, 2))(5.0), 2 * X)
    close(jc.jacobian(lambda x: mixed(x, 5.0, np.int64(2)))(X), 10 * np.eye(3))


def test_shapes_that_do_not_fit():
    wrong = jc.custom_operation(lambda x: x[:2], partials=lambda x: x, structure="elementwise", name="head")
    with pytest.raises(jc.InvalidInputError, match="head: structure 'elementwise' of argument 0"):
        jc.jacobian(wrong)(X)
    wrong = jc.custom_operation(lambda x: x * 2, partials=lambda x: np.ones(2), structure="elementwise", name="twice")
    with pytest.raises(jc.InvalidInputError, match=r"twice: partial by argument 0 has shape \(2,\), but \(3,\)"):
        jc.jacobian(wrong)(X)
    wrong = jc.custom_operation(lambda x, y: x * y, vjp=lambda arrays, c: c, name="times")
    with pytest.raises(jc.InvalidInputError, match="times: vjp returned 1 cotangents for 2 arguments"):
        jc.jacobian(lambda x: wrong(x, x))(X)
    with pytest.raises(jc.InvalidInputError, match="not both"):
        jc.custom_operation(np.sin, partials=np.cos, vjp=lambda a, c: c)
    with pytest.raises(jc.InvalidInputError, match="only floats can be results"):
        jc.jacobian(jc.custom_operation(lambda x: np.argsort(x), vjp=lambda a, c: c))(X)


class Both(jc.Function):
    """The product and the sum."""

    traceable = True

    def forward(self, a, b):
        return a * b, a + b

    def backward(self, arrays, cotangents):
        a, b = arrays
        p, q = cotangents
        return p * b + q, p * a + q


def test_function():
    def f(x, function):
        p, s = function(x, x**2)
        return np.sum(np.sin(p)) + np.sum(s**2)

    def plain(a, b):
        return a * b, a + b

    close(jc.grad(lambda x: f(x, Both()))(X), jc.grad(lambda x: f(x, plain))(X))
    close(jc.hessian(lambda x: f(x, Both()))(X), jc.hessian(lambda x: f(x, plain))(X))
    x = jc.Variable(X)
    close(Both()(x, 2 * x)[0].jacobian(x), np.diag(4 * X))
    assert jc.check_operation(Both(), X, X + 1) < 1e-9

    class Bare(jc.Function):
        def forward(self, x):
            return np.asarray(x) * 2.0

    with pytest.raises(jc.DifferentiationError, match="Bare declares no derivative"):
        jc.jacobian(Bare())(X)
    with pytest.raises(NotImplementedError, match="Function must define forward"):
        jc.Function()(X)


def test_in_loops():
    cube = jc.custom_operation(lambda x: x**3, traceable=True, **CUBES["vjp"])

    def f(cube):
        return lambda x: jc.scan(lambda c, v: (0.1 * cube(c) + v, c), 0.5, x)[0]

    close(jc.grad(f(cube))(X), jc.grad(f(lambda x: x**3))(X))
    close(jc.hessian(f(cube))(X), jc.hessian(f(lambda x: x**3))(X))


def test_float32():
    double = jc.custom_operation(lambda x: x * np.float32(2), vjp=lambda arrays, c: 2 * c)
    found = jc.jacobian(double)(X.astype("f4"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 2 * np.eye(3))


def test_the_checker():
    def wrong_vjp(arrays, c):
        return c * np.array([1.0, 2.0, 1.0])

    with pytest.raises(jc.InvalidInputError, match=r"same: the derivative by argument 0 is wrong at entry \(1, 1\)"):
        jc.check_operation(jc.custom_operation(lambda x: x * 1.0, vjp=wrong_vjp, name="same"), X)
    state = [0.0]

    def counting(x):
        state[0] += 1
        return x + state[0]

    with pytest.raises(jc.InvalidInputError, match="two results"):
        jc.check_operation(jc.custom_operation(counting, vjp=lambda a, c: c), X)

    def writing(x):
        x[0] = 7.0
        return x * 1.0

    with pytest.raises(jc.InvalidInputError, match="changes its arguments"):
        jc.check_operation(jc.custom_operation(writing, vjp=lambda a, c: c), X)
    nan = jc.custom_operation(lambda x: x * 1.0, vjp=lambda a, c: c * np.nan, name="nan")
    with pytest.raises(jc.InvalidInputError, match="nan: the derivative"):
        jc.check_operation(nan, X)
