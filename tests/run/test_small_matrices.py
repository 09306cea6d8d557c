"""Functions of small matrices in machine code: in the steps of loops, and in programs that are one function."""

import mpmath
import numpy as np
import pytest

import jacana as jc
from jacana.graph.build import transpose
from jacana.graph.node import new_input
from jacana.plan.native_loops import LARGEST_MATRIX, plan_body
from jacana.run import executor, native_available
from tests.support import execute, op

native_loops = pytest.importorskip("jacana.run.native.loop_calls")
pytestmark = pytest.mark.skipif(not native_available(), reason="needs llvmlite")

NAMES = ["inv", "det", "slogdet", "cofactor"]
NUMPY = {
    "inv": np.linalg.inv,
    "det": np.linalg.det,
    "slogdet": lambda a: np.stack(np.linalg.slogdet(a), axis=-1),
    "cofactor": lambda a: np.linalg.det(a)[..., None, None] * np.linalg.inv(a).swapaxes(-1, -2),
}


def in_machine_code(node, known):
    assert plan_body([node]) is not None, "a step of it needs NumPy"
    return execute("native", [node], known)[0]


def matrices(n, lead=(), dtype=float, seed=0):
    """Matrices whose pivots are not on the diagonal."""
    a = np.random.default_rng(seed + n).normal(size=(*lead, n, n))
    return (a + 2.0 * np.roll(np.eye(n), 1, axis=0)).astype(dtype)


def cofactors(a):
    """By minors in forty digits."""
    n = a.shape[-1]
    result = np.empty(a.shape)
    with mpmath.workdps(40):
        for where in np.ndindex(*a.shape[:-2]):
            for i, j in np.ndindex(n, n):
                rest = np.delete(np.delete(a[where], i, axis=0), j, axis=1)
                minor = mpmath.det(mpmath.matrix(rest.tolist())) if n > 1 else mpmath.mpf(1)
                result[where][i, j] = float((-1) ** (i + j) * minor)
    return result


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 17, LARGEST_MATRIX])
@pytest.mark.parametrize("name", NAMES)
def test_functions_of_one_matrix(name, n, lead, dtype):
    a = matrices(n, lead, dtype)
    node = new_input(a.shape, a.dtype)
    reference = cofactors if name == "cofactor" and n <= 7 else NUMPY[name]
    expected = reference(a.astype(np.float64))
    found = in_machine_code(op(name, node), {node: a})
    worst = float(np.max(np.linalg.cond(a.astype(np.float64))))
    size = max(1.0, float(np.max(np.abs(expected))))  # a small element is as far off as a large one
    rounding = worst * np.finfo(dtype).eps
    np.testing.assert_allclose(found, expected, rtol=4.0 * n * rounding, atol=size * rounding)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 1), (3, 5), (4, 9), (7, 1), (20, 3)])
def test_solve(n, m, lead, dtype):
    a, b = matrices(n, lead, dtype), np.random.default_rng(m).normal(size=(*lead, n, m)).astype(dtype)
    left, right = new_input(a.shape, a.dtype), new_input(b.shape, b.dtype)
    found = in_machine_code(op("solve", left, right), {left: a, right: b})
    assert np.max(np.abs(a.astype(float) @ found - b)) < 30 * n * np.finfo(dtype).eps * np.max(np.abs(found))


def test_matrices_that_are_views():
    a, b = matrices(3, (2,)), np.random.default_rng(1).normal(size=(2, 4, 3))
    left, right = new_input(a.shape, a.dtype), new_input(b.shape, b.dtype)
    node = op("solve", transpose(left, (0, 2, 1)), transpose(right, (0, 2, 1)))
    found = in_machine_code(node, {left: a, right: b})
    np.testing.assert_allclose(found, np.linalg.solve(a.swapaxes(1, 2), b.swapaxes(1, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_cholesky(n, dtype):
    half = matrices(n, (3,), dtype)
    a = half @ half.swapaxes(-1, -2) + np.eye(n, dtype=dtype)
    node = new_input(a.shape, a.dtype)
    factor = op("cholesky", node, op("cholesky_tangent", node))
    found = in_machine_code(factor, {node: a})
    np.testing.assert_allclose(found, np.linalg.cholesky(a), rtol=300 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
    assert not np.any(np.triu(found, 1))


def test_determinants_at_the_ends_of_the_range():
    a = np.array(
        [
            np.diag([1e200, 1e200, 1e-200, 1e-200]),  # the product of the first two is infinite
            np.diag([1e-200, 1e-200, 1e200, -1e200]),
            np.ones((4, 4)),  # singular: a pivot is exactly zero
            np.full((4, 4), np.nan),
        ]
    )
    node = new_input(a.shape, a.dtype)
    np.testing.assert_allclose(in_machine_code(op("det", node), {node: a}), [1.0, -1.0, 0.0, np.nan], rtol=1e-12)
    found = in_machine_code(op("slogdet", node), {node: a})
    np.testing.assert_allclose(found[:, 0], [1.0, -1.0, 0.0, 1.0])
    np.testing.assert_allclose(found[:, 1], [0.0, 0.0, -np.inf, np.nan], atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_cofactors_of_singular_matrices(n, missing):
    rank = max(n - missing, 0)
    rng = np.random.default_rng(n)
    rounded = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, n))
    exact = rng.integers(-3, 4, size=(n, rank)) @ rng.integers(-3, 4, size=(rank, n)).astype(float)
    for a in (rounded, exact, np.zeros((n, n))):
        node = new_input(a.shape, a.dtype)
        found = in_machine_code(op("cofactor", node), {node: a})
        size = max(1.0, float(np.max(np.abs(a)))) ** (n - 1)
        np.testing.assert_allclose(found, cofactors(a), atol=1e-13 * size)


def test_what_is_not_finite_goes_on():
    a, b = matrices(3), np.ones((3, 2))
    a[1, 0] = np.nan
    left, right = new_input(a.shape, a.dtype), new_input(b.shape, b.dtype)
    assert np.isnan(in_machine_code(op("solve", left, right), {left: a, right: b})).all()


# --- programs ------------------------------------------------------------------------------------------------------

ROTATION = np.array([[0.9, -0.2], [0.3, 0.8]])


def implicit(p):
    """Implicit steps of a linear system."""
    x = np.array([1.0, 0.5])
    for k in range(60):
        x = np.linalg.solve(np.eye(2) + 0.05 * p[0] * ROTATION, x + 0.01 * p[1] * k)
    return x


def filtered(p):
    """The likelihood of a Kalman filter with two measurements."""
    x, cov, total = np.zeros(3), np.eye(3), 0.0
    move, see = np.eye(3) + 0.05 * np.roll(np.eye(3), 1, axis=0), np.array([[1.0, 0.5, 0.0], [0.0, 0.3, 1.0]])
    for k in range(50):
        x, cov = move @ x * p[0], move @ cov @ move.T + np.exp(p[1]) * np.eye(3)
        s = see @ cov @ see.T + np.eye(2)
        v = np.array([np.sin(0.3 * k), np.cos(0.2 * k)]) - see @ x
        gain = cov @ see.T @ np.linalg.inv(s)
        x, cov = x + gain @ v, cov - gain @ s @ gain.T
        total = total + v @ np.linalg.solve(s, v) + np.log(np.linalg.det(s)) + np.linalg.slogdet(s)[1]
        total = total + 2.0 * np.sum(np.log(np.diag(np.linalg.cholesky(s))))
    return total


def dynamics(p):
    """No loop: the accelerations of an arm."""
    mass = np.diag([3.0, 2.0, 1.5]) + np.outer(np.cos(p), np.cos(p))
    return np.linalg.solve(mass, np.sin(p))


CASES = [(implicit, [1.1, 0.4]), (filtered, [0.9, -0.5]), (dynamics, [0.3, -0.8, 1.1])]


@pytest.mark.parametrize(("function", "point"), CASES)
def test_programs(function, point, monkeypatch):
    x = np.array(point)
    steps = 1e-6 * np.eye(len(x))
    expected = np.stack([(np.asarray(function(x + h)) - function(x - h)) / 2e-6 for h in steps], axis=-1)
    with executor("numpy"):
        reference = jc.jacobian(function)(x)

    def left_to_python(*_):
        raise AssertionError("a loop was left to Python")

    monkeypatch.setattr(native_loops, "run_loop", left_to_python)
    with executor("native"):
        found = jc.jacobian(function)(x)
    np.testing.assert_allclose(found, reference, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["numpy", "native"])
def test_errors_are_those_of_numpy(name):
    def singular(p):
        x = p
        for _ in range(60):
            x = np.linalg.solve(np.array([[1.0, 1.0], [1.0, 1.0]]) * (p[0] - 1.0) + np.eye(2), x)
        return x

    def indefinite(p):
        return np.linalg.cholesky(np.outer(p, p) + np.diag([1.0, -1.0]))

    with executor(name):
        compiled = jc.compile(singular)
        np.testing.assert_allclose(compiled(np.array([1.0, 2.0])), [1.0, 2.0])
        with pytest.raises(np.linalg.LinAlgError, match="Singular matrix"):
            compiled(np.array([0.5, 2.0]))
        factor = jc.compile(indefinite)
        np.testing.assert_allclose(factor(np.array([0.0, 2.0])), np.diag([1.0, np.sqrt(3.0)]))
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            factor(np.array([2.0, 0.5]))


def test_large_matrices_are_left_to_lapack():
    n = LARGEST_MATRIX + 1
    node = new_input((n, n), np.dtype(float))
    assert plan_body([op("inv", node)]) is None
    a = matrices(n)
    found = execute("native", [op("inv", node)], {node: a})[0]
    np.testing.assert_allclose(found @ a, np.eye(n), atol=1e-11)
