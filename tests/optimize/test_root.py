"""root and fixed_point: systems with known roots, structure, what has no root, and what is refused."""

import pickle

import mpmath
import numpy as np
import pytest
import scipy.optimize
from scipy import sparse

import jacana as jc
from jacana.datasets import more_wild
from jacana.errors import InvalidInputError
from jacana.optimize import (
    GMRES,
    Dogleg,
    LevenbergMarquardt,
    Linearization,
    NaturalNewton,
    Newton,
    Outcome,
    Problem,
    Root,
    SquareLU,
)
from jacana.optimize.linear.square import SingularMatrix, square_factors
from jacana.optimize.natural import UndampedNewton

METHODS = ["newton", "trust-region", "line-search", "krylov"]


def broyden(x):
    padded = np.concatenate(([0.0], x, [0.0]))
    return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0


def equations(p):
    return p["x"] ** 2 + p["y"] ** 2 - 4.0, np.exp(p["x"]) + p["y"] - 1.0


# ---- square matrices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csc_array, sparse.coo_array])
@pytest.mark.parametrize(
    ("n", "below", "above", "expected"),
    [
        (1, 0, 0, "_Banded"),
        (2, 1, 1, "_Banded"),
        (7, 1, 1, "_Tridiagonal"),
        (7, 0, 1, "_Tridiagonal"),
        (7, 1, 0, "_Tridiagonal"),
        (7, 0, 0, "_Tridiagonal"),
        (30, 2, 3, "_Banded"),
        (30, 3, 0, "_Banded"),
        (30, 0, 4, "_Banded"),
        (50, 49, 49, "_SuperLU"),
    ],
)
def test_factorisations(n, below, above, expected, kind):
    rng = np.random.default_rng(n)
    i, j = np.indices((n, n))
    dense = np.where((i - j <= below) & (j - i <= above), rng.standard_normal((n, n)) + 3.0 * np.eye(n), 0.0)
    matrix = kind(dense)
    before = matrix.copy()
    factors = square_factors(matrix)
    assert type(factors).__name__ == (expected if sparse.issparse(matrix) else "_DenseLU")
    for right in (rng.standard_normal(n), rng.standard_normal((n, 2))):
        np.testing.assert_allclose(factors.solve(right), np.linalg.solve(dense, right), rtol=1e-9)
        transposed = np.linalg.solve(dense.T, right)
        np.testing.assert_allclose(factors.solve(right, transposed=True), transposed, rtol=1e-9)
    assert (before != matrix).sum() == 0


def test_a_band_with_rows_whose_columns_are_not_sorted():
    A = sparse.csr_array((np.array([2.0, 5.0, 1.0, 7.0, 3.0]), np.array([1, 0, 1, 2, 0]), np.array([0, 2, 3, 5])))
    x = np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(square_factors(A).solve(A @ x), x)
    twice = sparse.csr_array((np.array([1.0, 1.0, 4.0]), np.array([0, 0, 1]), np.array([0, 2, 3])))
    np.testing.assert_allclose(square_factors(twice).solve(np.array([2.0, 4.0])), 1.0)


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[1.0, 2.0], [2.0, 4.0]]),
        np.array([[1.0, 2.0], [2.0, 4.0 + 1e-15]]),
        sparse.csr_array(np.diag([1.0, 0.0, 2.0])),
        sparse.csr_array(np.tri(4, k=-1)),
        sparse.csr_array((60, 60)) + sparse.coo_array(([1.0], ([0], [59])), shape=(60, 60)),
    ],
)
def test_singular_matrices(matrix):
    with pytest.raises(SingularMatrix):
        square_factors(matrix)


def test_matrices_that_are_not_square_or_stored():
    with pytest.raises(InvalidInputError, match="not square"):
        square_factors(np.ones((2, 3)))
    with pytest.raises(InvalidInputError, match="not an operator"):
        square_factors(jc.jacobian(np.sin, format="operator")(np.ones(2)))
    with pytest.raises(InvalidInputError, match="not for 3 and 2"):
        SquareLU().factorise(Linearization.of(np.ones(3), np.ones((3, 2))), np.ones(2), 1.0)


@pytest.mark.parametrize("solver", [SquareLU(), GMRES(tolerance=1e-12)])
def test_steps_are_those_of_the_least_squares_solvers(solver):
    rng = np.random.default_rng(3)
    point = Linearization.of(rng.standard_normal(5), rng.standard_normal((5, 5)) + 2.0 * np.eye(5))
    from jacana.optimize import DenseQR

    scale = np.array([1.0, 2.0, 0.5, 3.0, 1.0])
    ours, theirs = (s.factorise(point, scale, point.norm) for s in (solver, DenseQR()))
    for name in ("full", "cauchy"):
        a, b = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_allclose(a.step, b.step, rtol=1e-8)
        assert a.slope == pytest.approx(b.slope, rel=1e-8)
        assert a.linear_norm == pytest.approx(b.linear_norm, rel=1e-8)
    np.testing.assert_allclose(ours.damped(0.3).step, theirs.damped(0.3).step, rtol=1e-8)
    np.testing.assert_allclose(ours.within(0.1).step, theirs.within(0.1).step, rtol=1e-8)
    np.testing.assert_allclose(ours.answered(scale, 0.3), theirs.answered(scale, 0.3), rtol=1e-8)
    assert ours.gradient_norm == pytest.approx(theirs.gradient_norm)
    assert ours.rank == 5


# ---- roots -----------------------------------------------------------------------------------------------------------

SOLVED = [p for p in more_wild.problems() if p.n == p.m]
ROOTLESS = {"BDQRTIC"}


@pytest.mark.parametrize("problem", SOLVED, ids=lambda p: f"{p.name}{p.n}{'far' if p.far else ''}")
def test_square_systems_of_more_and_wild(problem):
    """Every system that has a root is solved, and the others are not said to be."""
    found = jc.root(problem.residual, problem.start)
    largest = np.abs(found.fun).max()
    rootless = problem.name in ROOTLESS or (problem.name == "Chebyquad" and problem.n in (8, 10, 11))
    assert found.success == (not rootless), found.message
    assert (largest < 1e-10) == (not rootless)
    # At a root everything cancels, and executors round differently: to a few units in the last place of the terms.
    terms = np.abs(jc.jacobian(problem.residual)(found.x)) @ np.abs(found.x)
    wanted = problem.residual(found.x)
    assert (np.abs(found.fun - wanted) <= 1e-13 + 1e-9 * np.abs(wanted) + 4 * np.finfo(float).eps * terms).all()


@pytest.mark.parametrize("method", METHODS)
def test_structure_of_unknowns(method):
    found = jc.root(equations, {"x": 1.0, "y": -1.7}, method=method)
    assert found.success
    x, y = float(found.x["x"]), float(found.x["y"])
    assert x**2 + y**2 == pytest.approx(4.0, abs=1e-12) and np.exp(x) + y == pytest.approx(1.0, abs=1e-12)
    assert found.names == ("x['x']", "x['y']")
    assert found["success"] and "flat" in dict(found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [3, 50, 3000])
def test_broyden(n, method):
    found = jc.root(broyden, np.full(n, -1.0), method=method)
    assert found.success, found.message
    assert np.abs(found.fun).max() < 1e-13
    if method == "newton" and n == 3000:
        assert found.jac.format == "csr" and found.nfev <= 7
        expected = scipy.optimize.root(broyden, np.full(n, -1.0), method="krylov", tol=1e-10)
        np.testing.assert_allclose(found.x, expected.x, atol=1e-8)


def test_a_two_dimensional_problem_goes_through_superlu():
    """Bratu's problem on a 25 x 21 grid against SciPy's dense solver."""

    def bratu(u):
        padded = np.pad(u, 1)
        laplace = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4.0 * u
        return laplace + 0.005 * np.exp(u)

    found = jc.root(bratu, np.zeros((25, 21)))
    expected = scipy.optimize.root(lambda u: bratu(u.reshape(25, 21)).ravel(), np.zeros(525), tol=1e-13)
    assert found.success and found.x.shape == (25, 21)
    np.testing.assert_allclose(found.x.ravel(), expected.x, rtol=1e-10)
    right = np.cos(np.arange(525.0))
    np.testing.assert_allclose(found.jac @ found.solve(right), right, atol=1e-10)
    np.testing.assert_allclose(found.jac.T @ found.solve(right, transposed=True), right, atol=1e-10)
    assert found.condition == pytest.approx(
        np.linalg.cond(found.jac.toarray() / np.linalg.norm(found.jac.toarray(), axis=0))
    )


def test_condition_of_large_systems_is_estimated():
    found = jc.root(broyden, np.full(1500, -1.0))
    dense = found.jac.toarray()
    dense /= np.linalg.norm(dense, axis=0)
    assert found.condition == pytest.approx(np.linalg.cond(dense, 1), rel=0.05)
    assert not found.warnings


def test_preconditioned_krylov():
    n = 400

    def poisson(u):
        padded = np.concatenate(([0.0], u, [0.0]))
        return (n + 1) ** 2 * (2.0 * u - padded[:-2] - padded[2:]) + u**3 - 1.0

    diagonal = sparse.diags_array([np.full(n - 1, -1.0), np.full(n, 2.0), np.full(n - 1, -1.0)], offsets=[-1, 0, 1])
    inverse = square_factors(sparse.csr_array((n + 1) ** 2 * diagonal))
    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=inverse.solve, dtype=float)
    for preconditioner in (operator, lambda jacobian: operator):
        found = jc.root(poisson, np.zeros(n), method="krylov", linear_solver=GMRES(preconditioner=preconditioner))
        assert found.success
        np.testing.assert_allclose(found.x, jc.root(poisson, np.zeros(n)).x, rtol=1e-8)


def test_numbers_lists_float32_and_args():
    assert jc.root(lambda x: x**2 - 2.0, 1.0).x == pytest.approx(np.sqrt(2.0), rel=1e-15)
    assert jc.root(lambda x, a: x**2 - a, [1.0, 2.0], args=([3.0, 5.0],)).x.tolist() == np.sqrt([3.0, 5.0]).tolist()
    single = jc.root(lambda x: x**3 - x - 1.0, np.array([1.5, 1.0], dtype=np.float32))
    assert single.success and single.x.dtype == np.float32
    np.testing.assert_allclose(single.x, 1.3247179572, rtol=3e-7)


def test_tolerance_ends_the_search_sooner():
    full, rough = (jc.root(broyden, np.full(20, -1.0), tol=tol) for tol in (0.0, 1e-3))
    assert rough.nit < full.nit
    assert rough.status == Outcome.COST and 1e-12 < np.abs(rough.fun).max() <= 1e-3
    exact = jc.root(lambda x: x, [0.0])
    assert exact.success and exact.nit == 0 and "exactly" in exact.message


def test_a_kept_recording():
    solve = Root(lambda x: x**2 - np.array([4.0, 9.0]))
    assert solve([1.0, 1.0]).x.tolist() == [2.0, 3.0]
    assert solve(np.array([-1.0, 1.0])).x.tolist() == [-2.0, 3.0]
    shapes = Root(lambda x: np.exp(x) - 2.0)
    np.testing.assert_allclose(shapes(1.0).x, np.log(2.0))
    np.testing.assert_allclose(shapes(np.ones((2, 3))).x, np.full((2, 3), np.log(2.0)))


def test_methods_of_ones_own():
    for method in (Newton(max_iterations=50), Dogleg(), LevenbergMarquardt()):
        found = jc.root(lambda x: x**2 - np.array([4.0, 9.0]), [1.0, 1.0], method=method)
        np.testing.assert_allclose(found.x, [2.0, 3.0], rtol=1e-12)
    solver = Newton()
    problem = Problem(broyden, jc.value_and_jacobian(broyden))
    state = solver.init(problem, np.full(4, -1.0))
    while (outcome := solver.terminate(state)) is None:
        state = solver.step(problem, state)
    assert outcome > 0


# ---- hard ones -------------------------------------------------------------------------------------------------------


def test_newtons_method_alone_would_diverge():
    """arctan from 10: the full step leads ever further away."""
    for method in METHODS:
        found = jc.root(np.arctan, [10.0], method=method)
        assert found.success and abs(found.x[0]) < 1e-15


def test_a_point_where_the_function_is_not_finite_is_refused():
    found = jc.root(lambda x: np.log(x - 1.0) + 1.0, [5.0])
    assert found.success and found.nrefused > 0
    np.testing.assert_allclose(found.x, 1.0 + np.exp(-1.0), rtol=1e-15)
    assert "not finite" in found.warnings[-1]


def test_no_root():
    found = jc.root(lambda x: x**2 + 1.0, [1.5])
    assert not found.success and found.status == Outcome.NO_PROGRESS
    assert "no root" in found.message and found.warnings[0] == found.message
    kink = jc.root(lambda x: np.abs(x) + 1.0, [1.5])
    assert not kink.success
    flat = jc.root(lambda x: 0.0 * x + 1.0, [1.5])
    assert not flat.success
    jump = jc.root(lambda x: x - 1.0 + np.where(x < 1.0, -1e-4, 1e-4), [3.0])
    assert not jump.success


def test_double_root_is_found_and_said():
    found = jc.root(lambda x: x**2 - 2.0 * x + 1.0, [3.0])
    assert found.success
    assert found.x[0] == pytest.approx(1.0, abs=3e-8)
    exact = jc.root(lambda x: np.stack([(x[0] - 1.0) ** 2, x[1] - 2.0]), [1.0, 0.0])
    assert exact.success and exact.rank == 1 and exact.condition == np.inf
    assert exact.warnings == ("The Jacobian at x is singular: rank 1 of 2, a multiple root, or one of many of x[0].",)
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        exact.solve(np.ones(2))


@pytest.mark.parametrize("size", [2, 6, 400])
def test_a_singular_jacobian_on_the_way(size):
    """At the start the Jacobian is singular: sparse and dense, small and large."""

    def function(x):
        return np.concatenate(([x[0] ** 3 + x[0] ** 2 * x[1] - 2.0], x[1:] - 1.0))

    found = jc.root(function, np.concatenate(([0.0], np.full(size - 1, 0.5))))
    assert found.status in (Outcome.NO_PROGRESS, Outcome.GRADIENT, Outcome.WORKING_PRECISION)
    moved = jc.root(function, np.concatenate(([1e-9], np.full(size - 1, 0.5))))
    assert moved.success
    np.testing.assert_allclose(moved.x, 1.0, rtol=1e-12)


def test_budgets_callback_and_checkpoint(tmp_path):
    start = np.full(30, -1.0)
    assert jc.root(broyden, start, max_iterations=1).status == Outcome.ITERATION_LIMIT
    assert jc.root(broyden, start, max_evaluations=2).status == Outcome.EVALUATION_LIMIT
    assert jc.root(broyden, start, max_seconds=0.0).status == Outcome.TIME_LIMIT
    seen = []
    stopped = jc.root(broyden, start, callback=lambda p: seen.append(p.cost) or len(seen) == 2)
    assert stopped.status == Outcome.STOPPED and len(seen) == 2
    assert seen[1] < seen[0] < stopped.history.cost[0]
    path = tmp_path / "run.npz"
    jc.root(broyden, start, max_iterations=2, checkpoint=path)
    assert jc.root(broyden, start, resume=path).nit <= 6


def test_results_are_readable_and_picklable():
    found = jc.root(equations, {"x": 1.0, "y": -1.7})
    assert "x['x']" in str(found) and repr(found).startswith("<RootResult converged: 2 unknowns")
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.flat, found.flat)
    assert "and 50 more" in str(jc.root(broyden, np.full(100, -1.0)))


def test_an_argument_that_is_written_into_does_not_move_the_search():
    def function(x):
        y = x**2 - 4.0
        if isinstance(x, np.ndarray):
            x[:] = np.nan
        return y

    np.testing.assert_allclose(jc.root(function, [1.0]).x, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jc.root(lambda x: x[:2], np.ones(3)), "returns 2 numbers for 3 unknowns"),
        (lambda: jc.root(lambda x: x, [np.nan]), r"x0\[0\] is nan"),
        (lambda: jc.root(np.log, [1.0, -1.0]), r"function\[1\] is nan at the start.*x0\[0\] = 1, x0\[1\] = -1"),
        (lambda: jc.root(np.sqrt, [0.0]), "derivative of function entry 0.*inf at the start"),
        (lambda: jc.root(lambda x: x + 1j, [0.0]), "the function is complex"),
        (lambda: jc.root(lambda x: "a", [0.0]), "must return real numbers"),
        (lambda: jc.root(lambda x: x, []), "holds no numbers"),
        (lambda: jc.root(lambda x: x, [1.0], method="hybr"), "there is no method 'hybr'; there is newton"),
        (lambda: jc.root(lambda x: x, [1.0], linear_solver="qr"), "there is lu, gmres"),
        (lambda: jc.root(lambda x: x, [1.0], method="krylov", linear_solver="lu"), "nothing to factorise"),
        (lambda: jc.root(lambda x: x, [1.0], tol=-1.0), "tol must be"),
        (lambda: jc.root(lambda x: x, [1.0], max_iterations=-1), "max_iterations must be"),
        (lambda: jc.root(lambda x: x, jc.optimize.Positive(1.0)), "not on manifolds"),
        (lambda: jc.fixed_point(lambda x: x[:1], [1.0, 2.0]), "a fixed point needs as many"),
        (lambda: jc.fixed_point(lambda x: x[:1], [1.0, 2.0], method="anderson"), "a fixed point needs as many"),
        (lambda: jc.fixed_point(np.cos, 1.0, method="anderson", damping=0.0), "damping"),
        (lambda: jc.fixed_point(np.log, -1.0, method="iteration"), "nan at the start"),
        (lambda: jc.root(broyden, np.ones(5), method="krylov").solve(np.ones(5)), "not an operator"),
        (lambda: jc.fixed_point(np.cos, 1.0, method="iteration").solve(1.0), "no Jacobian"),
        (lambda: jc.root(broyden, np.full(1001, -1.0)).rank, "up to 1000 unknowns"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


# ---- fixed points ----------------------------------------------------------------------------------------------------

MATRIX = np.array([[0.5, 0.2, -0.1], [0.1, 0.4, 0.3], [-0.2, 0.1, 0.6]])


@pytest.mark.parametrize("method", [*METHODS, "anderson", "iteration"])
def test_fixed_points(method):
    found = jc.fixed_point(
        lambda p: {"a": np.tanh(MATRIX @ p["a"]) + 0.5, "b": np.cos(p["b"])}, {"a": np.ones(3), "b": 1.0}, method=method
    )
    assert found.success, found.message
    np.testing.assert_allclose(np.tanh(MATRIX @ found.x["a"]) + 0.5, found.x["a"], rtol=1e-13)
    assert float(found.x["b"]) == pytest.approx(0.7390851332151607, rel=1e-14)
    assert np.abs(found.fun).max() < 1e-13


def test_newton_finds_what_iteration_runs_away_from():
    def repelling(x):
        return 3.0 * x - 2.0 + 0.1 * x**2

    found = jc.fixed_point(repelling, 1.5)
    assert found.success and repelling(found.x) == pytest.approx(found.x, rel=1e-12)
    lost = jc.fixed_point(repelling, 1.5, method="iteration", max_iterations=5000)
    assert not lost.success and "not finite" in lost.message


def test_anderson_takes_fewer_steps():
    def slow(x):
        return 0.97 * MATRIX / np.abs(np.linalg.eigvals(MATRIX)).max() @ x + 1.0

    plain, fast = (jc.fixed_point(slow, np.zeros(3), method=m, max_iterations=3000) for m in ("iteration", "anderson"))
    assert plain.success and fast.success
    np.testing.assert_allclose(fast.x, plain.x, rtol=1e-9)
    assert fast.nit < 15 < 300 < plain.nit
    one = jc.fixed_point(slow, np.zeros(3), method="anderson", depth=1, max_iterations=3000)
    np.testing.assert_allclose(one.x, plain.x, rtol=1e-9)
    damped = jc.fixed_point(slow, np.zeros(3), method="anderson", damping=0.5)
    np.testing.assert_allclose(damped.x, plain.x, rtol=1e-9)


def test_anderson_needs_no_derivatives():
    import math

    found = jc.fixed_point(lambda x: math.cos(float(x)), 1.0, method="anderson", tol=1e-8)
    assert found.status == Outcome.COST and found.jac is None
    assert float(found.x) == pytest.approx(0.7390851332, abs=1e-7)
    seen = []
    stopped = jc.fixed_point(
        np.cos, 1.0, method="iteration", callback=lambda x: seen.append(float(x)) or len(seen) == 3
    )
    assert stopped.status == Outcome.STOPPED and seen[:2] == [np.cos(1.0), np.cos(np.cos(1.0))]
    limited = jc.fixed_point(np.cos, 1.0, method="iteration", max_iterations=4)
    assert limited.status == Outcome.ITERATION_LIMIT and limited.nit == 4


@pytest.mark.parametrize("start", [[1e-3, 1e-11, 1e-3, 0.1], [1e-7, 1e-7, 0.05, 0.05], [1.0, 1.0, 1.0, 1.0]])
def test_equations_of_very_different_sizes(start):
    """A weak acid in water: the product of the ions is 1e-14, the concentrations are 0.1."""

    def equations(c):
        h, oh, a, ha = c
        return np.stack([h * oh - 1e-14, h * a - 1.8e-5 * ha, a + ha - 0.1, h - oh - a])

    found = jc.root(equations, start)
    assert found.success
    # h (h - 1e-14 / h) = 1.8e-5 (0.1 - h + 1e-14 / h), a cubic in h, in exact numbers.
    with mpmath.workdps(40):
        water, acid, total = mpmath.mpf("1e-14"), mpmath.mpf("1.8e-5"), mpmath.mpf("0.1")
        h = mpmath.findroot(lambda h: h**3 + acid * h**2 - (acid * total + water) * h - acid * water, 1.3e-3)
        expected = [h, water / h, h - water / h, total - h + water / h]
    np.testing.assert_allclose(found.x, np.array(expected, dtype=float), rtol=1e-13)


# ---- stiff systems, whose residuals are a poor judge -----------------------------------------------------------------


def cantilever(cells, load, strain="engineering"):
    """Energy and forces of a plane truss of `cells` braced squares, clamped on the left, loaded at the far end."""
    points = np.stack(np.meshgrid(np.arange(cells + 1.0), [0.0, 1.0], indexing="ij"), axis=-1).reshape(-1, 2)
    k = 2 * np.arange(cells)
    pairs = [(k, k + 2), (k + 1, k + 3), (k, k + 3), (k + 1, k + 2), (k + 2, k + 3)]
    start, end = np.concatenate([np.stack(pair) for pair in pairs], axis=1)
    length = np.linalg.norm(points[end] - points[start], axis=1)

    def moved(u):
        return points + np.concatenate((np.zeros((2, 2)), u.reshape(-1, 2)))

    def energy(u):
        bars = moved(u)[end] - moved(u)[start]
        square = np.sum(bars**2, axis=1)
        ratio = square / length**2
        stretch = 0.5 * (ratio - 1.0) if strain == "Green" else np.sqrt(ratio) - 1.0
        return 0.5e4 * np.sum(length * stretch**2) + load * u[-1]

    def forces(u):
        bars = moved(u)[end] - moved(u)[start]
        now = np.sqrt(np.sum(bars**2, axis=1))
        pull = (1e4 * (now / length - 1.0) / now)[:, None] * bars
        out = np.zeros(points.shape)
        np.add.at(out, end, pull)
        np.add.at(out, start, -pull)
        return out[2:].ravel() + np.concatenate((np.zeros(4 * cells - 1), [load]))

    return energy, forces, np.zeros(4 * cells)


def by_plain_newton(function, x, steps=60):
    linearise = jc.value_and_jacobian(function)
    for count in range(1, steps + 1):
        residual, jacobian = linearise(x)
        step = np.linalg.solve(jacobian, -residual)
        x = x + step
        if np.abs(step).max() <= 1e-12 * np.abs(x).max():
            return x, count
    raise AssertionError("diverged")


@pytest.mark.parametrize(("cells", "load"), [(5, 1.0), (10, 50.0), (20, 1.0), (20, 10.0), (40, 1.0)])
def test_a_truss_takes_no_more_steps_than_newtons_method_alone(cells, load):
    energy, forces, x0 = cantilever(cells, load)
    expected, steps = by_plain_newton(forces, x0)
    for function in (forces, jc.grad(energy)):
        found = jc.root(function, x0)
        assert found.success and found.nit <= steps + 1, found
        np.testing.assert_allclose(found.x, expected, rtol=0.0, atol=1e-9 * np.abs(expected).max())
    assert jc.root(forces, x0).method == "NaturalNewton"
    stretched = jc.grad(cantilever(cells, load, "Green")[0])
    np.testing.assert_allclose(stretched(jc.root(stretched, x0).x), 0.0, atol=1e-7)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_shallow_frame_below_its_limit_does_not_snap(share):
    """Two bars that meet at a low apex: the root on the way up the path of loads, from its closed form."""
    height, stiffness = 0.2, 1e5
    whole = np.hypot(1.0, height)

    def lift(y):
        return 2.0 * stiffness * (whole / np.sqrt(1.0 + y**2) - 1.0) * y / whole

    limit = np.sqrt(whole ** (2.0 / 3.0) - 1.0)  # height of the apex where the force is largest
    load = share * lift(limit)
    found = jc.root(lambda y: lift(y) - load, [height])
    expected = scipy.optimize.brentq(lambda y: lift(y) - load, limit, height, xtol=1e-15)
    assert found.success and found.nit <= 15
    assert found.x[0] == pytest.approx(expected, rel=1e-10)


def test_multiplying_the_equations_by_a_matrix_changes_no_step():
    rng = np.random.default_rng(4)
    mixed = rng.standard_normal((8, 8)) * 10.0 ** rng.uniform(-4.0, 4.0, (8, 1))
    scale = np.ones(8)

    def path(function):
        problem = Problem(function, jc.value_and_jacobian(function), scale=scale)
        method, points = NaturalNewton(), []
        state = method.init(problem, np.full(8, -3.0))
        while method.terminate(state) is None and state.iteration < 4:
            state = method.step(problem, state)
            points.append(state.x)
        return np.array(points)

    np.testing.assert_allclose(path(broyden), path(lambda x: mixed @ broyden(x)), rtol=1e-6)


def test_equations_that_are_lost_beside_huge_ones_are_no_root():
    """Newton's first step leads to 1e9, where the second equation is less than a rounding error of the first."""

    def function(x):
        return np.stack([x[0] ** 3 + x[0] ** 2 * x[1] - 2.0, x[1] - 1.0])

    problem = Problem(function, jc.value_and_jacobian(function))
    method = UndampedNewton()
    state = method.init(problem, np.array([1e-9, 0.5]))
    while (outcome := method.terminate(state)) is None:
        state = method.step(problem, state)
    assert outcome == Outcome.WORKING_PRECISION and not method.precise(state)
    np.testing.assert_allclose(jc.root(function, [1e-9, 0.5]).x, 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        jc.vmap(lambda t: jc.root(function, [t, 0.5]).x)(np.array([1e-9, 1.0, 2.0])), 1.0, rtol=1e-9
    )


def test_what_one_method_does_not_find_another_does():
    def freudenstein_roth(x):
        return np.stack(
            [
                x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1] - 13.0,
                x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1] - 29.0,
            ]
        )

    found = jc.root(freudenstein_roth, [0.5, -2.0])
    np.testing.assert_allclose(found.x, [5.0, 4.0], rtol=1e-12)
    assert found.method == "UndampedNewton" and found.history.cost.size == found.nit + 1
    alone = jc.root(freudenstein_roth, [0.5, -2.0], method="trust-region")
    assert not alone.success and alone.method == "Newton"
    few = jc.root(freudenstein_roth, [0.5, -2.0], max_iterations=10)
    assert few.nit == 10 and few.status == Outcome.ITERATION_LIMIT
    assert jc.root(freudenstein_roth, [0.5, -2.0], max_evaluations=40).status == Outcome.EVALUATION_LIMIT
    stopped = jc.root(freudenstein_roth, [0.5, -2.0], callback=lambda progress: progress.iteration == 30)
    assert stopped.nit == 30 and stopped.status == Outcome.STOPPED


def test_a_singular_jacobian_in_a_trust_region():
    """Its step of least length is added to steps of other kinds."""

    def function(x):  # rank 2 of 3 wherever x[1] == x[2]
        return np.stack([np.exp(x[0]) - 20.0, x[1] * x[2] - 4.0, (x[1] + x[2]) ** 3 - 64.0])

    found = jc.root(function, [0.0, 5.0, 5.0], method="trust-region")
    assert found.nit > 0 and np.abs(found.fun).max() < 1e-6
