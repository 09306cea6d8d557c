"""minimize: closed-form minima, structure, bounds, the problems of Hock and Schittkowski, and what is refused."""

import math
import pickle
from importlib.util import find_spec

import numpy as np
import pytest
import scipy.optimize
from scipy import sparse

import jacana as jc
from jacana.errors import InvalidInputError
from jacana.optimize import Constraint, Minimizer, Minimum, NewtonMinimum, Outcome
from jacana.optimize.descent import QuadraticModel
from jacana.optimize.linear.definite import definite_solver
from jacana.optimize.linear.normal import SolveFailed


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def symmetric(n, width, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    i, j = np.indices((n, n))
    matrix = np.where(abs(i - j) <= width, rng.standard_normal((n, n)), 0.0)
    return matrix + matrix.T + shift * np.eye(n)


# ---- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "width"), [(1, 0), (2, 1), (9, 0), (9, 1), (30, 3), (60, 59)])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_definite_solver(n, width, kind):
    dense = symmetric(n, width, shift=40.0)
    right = np.cos(np.arange(n))
    np.testing.assert_allclose(definite_solver(kind(dense))(right), np.linalg.solve(dense, right), rtol=1e-10)
    lowest = np.linalg.eigvalsh(dense)[0]
    for shift in (lowest * 1.001, 80.0):
        with pytest.raises(SolveFailed):
            definite_solver(kind(dense - shift * np.eye(n)))


def best_by_search(model, radius):
    """The trust-region minimum by its own conditions, with a brute-force search for the multiplier."""
    hessian = model.hessian if isinstance(model.hessian, np.ndarray) else model.hessian.toarray()
    scaled = hessian / model.scale / model.scale[:, None]
    g = model.gradient / model.scale
    values = np.linalg.eigvalsh(scaled)
    low = max(0.0, -values[0]) + 1e-12
    shift = scipy.optimize.brentq(
        lambda lam: np.linalg.norm(np.linalg.solve(scaled + lam * np.eye(g.size), g)) - radius, low, 1e6
    )
    return -np.linalg.solve(scaled + shift * np.eye(g.size), g) / model.scale


@pytest.mark.parametrize("shift", [-6.0, 0.0, 12.0])
@pytest.mark.parametrize("radius", [0.01, 0.3])
def test_small_models_are_minimised_exactly(shift, radius):
    n = 5
    scale = np.array([1.0, 2.0, 0.5, 1.5, 3.0])
    model = QuadraticModel(np.cos(np.arange(n) + 1.0), symmetric(n, 4, 1, shift), scale, np.ones(n, bool))
    step, full = model.within(radius)
    if full:
        assert np.linalg.norm(scale * step) <= radius
        np.testing.assert_allclose(model.hessian @ step, -model.gradient, rtol=1e-10)
        return
    expected = best_by_search(model, radius)
    assert np.linalg.norm(scale * step) <= radius * (1.0 + 1e-12)
    assert model.change(step) <= 0.9 * model.change(expected) < 0.0
    np.testing.assert_allclose(step, expected, atol=0.1 * radius)


def test_the_hard_case():
    """No gradient along the lowest eigenvector: the step has a part of it all the same."""
    model = QuadraticModel(np.array([0.0, 1.0]), np.diag([-2.0, 3.0]), np.ones(2), np.ones(2, bool))
    step, _ = model.within(1.0)
    assert np.linalg.norm(step) == pytest.approx(1.0)
    assert step[1] == pytest.approx(-1.0 / 5.0) and abs(step[0]) == pytest.approx(math.sqrt(24.0) / 5.0)
    saddle = QuadraticModel(np.zeros(2), np.diag([-2.0, 3.0]), np.ones(2), np.ones(2, bool))
    assert saddle.change(saddle.within(0.5)[0]) == pytest.approx(-0.25)


@pytest.mark.parametrize("shift", [-6.0, 0.0, 12.0])
def test_large_models_do_better_than_the_gradient(shift):
    n = 150
    dense = symmetric(n, 2, 2, shift)
    gradient = np.cos(np.arange(n) + 1.0)
    operator = scipy.sparse.linalg.aslinearoperator(dense)
    for hessian in (dense, sparse.csr_array(dense), operator):
        model = QuadraticModel(gradient, hessian, np.ones(n), np.ones(n, bool), accuracy=1e-10)
        for radius in (0.1, 2.0, 1e3):
            step, full = model.within(radius)
            assert np.linalg.norm(step) <= radius * (1.0 + 1e-12)
            curved = gradient @ dense @ gradient
            reach = radius / np.linalg.norm(gradient)
            if curved > 0.0:
                reach = min(reach, gradient @ gradient / curved)
            assert model.change(step) <= model.change(-reach * gradient) * (1.0 - 1e-12) < 0.0
            if shift == 12.0 and radius == 1e3:
                np.testing.assert_allclose(step, -np.linalg.solve(dense, gradient), rtol=1e-7)
                assert full == (hessian is not operator)


def test_free_variables_only():
    n = 6
    free = np.array([True, False, True, True, False, True])
    for hessian in (symmetric(n, 5, 3, 9.0), sparse.csr_array(symmetric(n, 1, 3, 9.0))):
        model = QuadraticModel(np.cos(np.arange(n)), hessian, np.arange(1.0, 7.0), free)
        step, full = model.within(1e3)
        dense = hessian if isinstance(hessian, np.ndarray) else hessian.toarray()
        expected = np.zeros(n)
        expected[free] = -np.linalg.solve(dense[np.ix_(free, free)], np.cos(np.arange(n))[free])
        np.testing.assert_allclose(step, expected, rtol=1e-10)
        assert full


# ---- unconstrained ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 10, 101, 1000])
def test_rosenbrock(n):
    found = jc.minimize(rosenbrock, np.zeros(n))
    assert found.success and found.fun < 1e-25
    np.testing.assert_allclose(found.x, 1.0, rtol=1e-12)
    if n == 1000:
        assert found.hess.format == "csr" and found.hess.nnz == 3 * n - 2
    expected = jc.hessian(rosenbrock)(found.x)
    np.testing.assert_allclose(found.hess if n <= 10 else found.hess.toarray(), expected, rtol=1e-9)


# Minima of J. J. More, B. S. Garbow and K. E. Hillstrom, ACM TOMS 7(1), 1981, section 3.


def beale(x):
    return sum((c - x[0] * (1.0 - x[1] ** k)) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625)))


def wood(x):
    first = 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2 + 90.0 * (x[3] - x[2] ** 2) ** 2 + (1.0 - x[2]) ** 2
    return first + 10.0 * (x[1] + x[3] - 2.0) ** 2 + 0.1 * (x[1] - x[3]) ** 2


def powell_singular(x):
    first = (x[0] + 10.0 * x[1]) ** 2 + 5.0 * (x[2] - x[3]) ** 2
    return first + (x[1] - 2.0 * x[2]) ** 4 + 10.0 * (x[0] - x[3]) ** 4


def brown_badly_scaled(x):
    return (x[0] - 1e6) ** 2 + (x[1] - 2e-6) ** 2 + (x[0] * x[1] - 2.0) ** 2


def freudenstein_roth(x):
    first = -13.0 + x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1]
    return first**2 + (-29.0 + x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1]) ** 2


@pytest.mark.parametrize(
    ("function", "start", "least", "where"),
    [
        (beale, [1.0, 1.0], 0.0, [3.0, 0.5]),
        (wood, [-3.0, -1.0, -3.0, -1.0], 0.0, [1.0, 1.0, 1.0, 1.0]),
        (brown_badly_scaled, [1.0, 1.0], 0.0, [1e6, 2e-6]),
        (freudenstein_roth, [0.5, -2.0], 48.98425367924, [11.41277900, -0.89680525]),
        (lambda x: np.sum((x - 3.0) ** 4) + 7.0, [0.0, 9.0], 7.0, [3.0, 3.0]),
        (
            lambda x: np.sum(np.exp(x) - 2.0 * x),
            [-3.0, 5.0, 0.0],
            3.0 * (2.0 - 2.0 * math.log(2.0)),
            [math.log(2.0)] * 3,
        ),
    ],
)
@pytest.mark.parametrize(
    "method", ["newton", "bfgs", "l-bfgs", "trust-exact", "newton-cg", "trust-krylov", "cg", "tnc"]
)
def test_closed_forms(function, start, least, where, method):
    newton = method == "newton"
    if function is brown_badly_scaled and not newton:
        pytest.skip("beyond the reach of methods that are not invariant to scale")
    found = jc.minimize(function, start, method=method)
    assert found.fun == pytest.approx(least, rel=1e-9, abs=1e-9)
    if newton:
        assert found.success, found.message
        flat = found.eigenvalues[0] < 1e-6 * found.eigenvalues[-1]
        np.testing.assert_allclose(found.x, where, rtol=1e-4 if flat and least else 1e-8)
    else:
        np.testing.assert_allclose(found.x, where, atol=3e-2 if least == 7.0 else 1e-3)


def test_powell_singular_is_said_to_be_singular():
    found = jc.minimize(powell_singular, [3.0, -1.0, 0.0, 1.0])
    assert found.success
    np.testing.assert_allclose(found.x, 0.0, atol=1e-6)


def test_least_squares_and_minimize_agree():
    t = np.linspace(0.0, 3.0, 13)
    y = 3.0 * np.exp(-0.7 * t) + 0.5 + 0.05 * np.sin(17.0 * np.arange(13))

    def residual(p):
        return p["a"] * np.exp(-p["b"] * t) + p["c"] - y

    start = {"a": 1.0, "b": 1.0, "c": 0.0}
    found = jc.minimize(lambda p: 0.5 * np.sum(residual(p) ** 2), start)
    fit = jc.least_squares(residual, start)
    for name in start:
        assert float(found.x[name]) == pytest.approx(float(fit.x[name]), rel=1e-10)
    assert found.fun == pytest.approx(fit.cost, rel=1e-13)
    assert found.names == ("x['a']", "x['b']", "x['c']")


def test_the_last_digits_are_those_of_the_gradient():
    """Beside a value of 1e8 the value alone would give four digits of x."""
    found = jc.minimize(lambda x: np.sum(np.exp(x) - 2.0 * x) + 1e8, np.array([-3.0, 1.0]))
    assert found.success
    np.testing.assert_allclose(found.x, math.log(2.0), rtol=1e-14)


def test_a_saddle_point_is_no_end():
    def function(x):
        return x[0] ** 2 - x[1] ** 2 + 0.25 * x[1] ** 4

    found = jc.minimize(function, [1.0, 0.0])
    assert found.success and found.fun == pytest.approx(-1.0)
    np.testing.assert_allclose(np.abs(found.x), [0.0, math.sqrt(2.0)], atol=1e-12)
    exact = jc.minimize(function, [0.0, 0.0])
    assert exact.fun == pytest.approx(-1.0)


def test_no_minimum():
    for function in (lambda x: np.sum(x), lambda x: -np.sum(x**2), lambda x: x[0] ** 3):
        found = jc.minimize(function, [-1.0, -2.0])
        assert not found.success and found.status == Outcome.UNBOUNDED
        assert "without end" in found.message
    kink = jc.minimize(lambda x: np.sum(np.abs(x - 1.0)), [0.0, 3.0])
    np.testing.assert_allclose(kink.x, 1.0, atol=1e-6)
    assert not kink.success


def test_points_where_the_function_is_not_finite_are_refused():
    found = jc.minimize(lambda x: np.sum(x - np.log(x)), [9.0, 0.01])
    assert found.success
    np.testing.assert_allclose(found.x, 1.0, rtol=1e-12)
    wild = jc.minimize(lambda x: np.sum(np.log(x) ** 2), [3.0, 4.0])
    assert wild.success and wild.nrefused > 0 and "not finite" in wild.warnings[-1]


def test_numbers_float32_arrays_args():
    single = jc.minimize(lambda x: np.sum((x - 0.3) ** 4 + x**2), np.array([1.0, 2.0], dtype=np.float32))
    assert single.x.dtype == np.float32 and single.success
    double = jc.minimize(lambda x: np.sum((x - 0.3) ** 4 + x**2), np.array([1.0, 2.0]))
    np.testing.assert_allclose(single.x, double.x, rtol=3e-6)
    assert jc.minimize(lambda x, a: (x - a) ** 2, 0.0, args=(2.5,)).x == 2.5
    block = jc.minimize(lambda x: np.sum((x - np.arange(6.0).reshape(2, 3)) ** 2), np.zeros((2, 3)))
    np.testing.assert_array_equal(block.x, np.arange(6.0).reshape(2, 3))


def test_an_operator_as_hessian():
    """Diagonal plus rank one in 5,000 variables, given to the method as products only."""
    n = 5000
    diagonal = np.linspace(1.0, 3.0, n)

    def function(x):
        return np.sum(diagonal * x**2 - x) + np.sum(x) ** 2

    problem = Minimum(jc.value_and_grad(function), jc.hessian(function, format="operator"))
    method = NewtonMinimum(gtol=1e-9)
    state = method.init(problem, np.zeros(n))
    while (outcome := method.terminate(state)) is None:
        state = method.step(problem, state)
    assert outcome > 0
    s = np.sum(0.5 / diagonal) / (1.0 + np.sum(1.0 / diagonal))
    np.testing.assert_allclose(state.x, (0.5 - s) / diagonal, atol=1e-9)


# ---- bounds, fixed, ties ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["newton", "l-bfgs", "tnc", "trust-constr", "slsqp"])
def test_bounds(method):
    found = jc.minimize(rosenbrock, [0.0, 0.0], bounds=([-2.0, -2.0], [0.5, 2.0]), method=method)
    tolerance = 1e-14 if method == "newton" else 1e-4
    np.testing.assert_allclose(found.x, [0.5, 0.25], atol=tolerance)
    if method == "newton":
        assert found.active_mask.tolist() == [1, 0] and found.x[0] == 0.5
        assert found.warnings == ("On their bounds: x[0].",)


def test_many_bounds():
    n = 300
    lower, upper = np.full(n, -0.2), np.full(n, 0.5)
    found = jc.minimize(rosenbrock, np.zeros(n), bounds=(lower, upper))
    expected = scipy.optimize.minimize(
        rosenbrock,
        np.zeros(n),
        jac=jc.grad(rosenbrock),
        bounds=list(zip(lower, upper, strict=True)),
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000},
    )
    assert found.success
    assert found.fun <= expected.fun * (1.0 + 1e-12)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-5)
    gradient = jc.grad(rosenbrock)(found.x)
    free = (found.x > lower) & (found.x < upper)
    assert np.abs(gradient[free]).max() < 1e-10
    assert (gradient[found.x == lower] >= 0.0).all() and (gradient[found.x == upper] <= 0.0).all()
    np.testing.assert_array_equal(found.active_mask != 0, ~free)


def test_a_quadratic_within_a_box_against_an_exhaustive_search():
    """Every combination of free, lower and upper, n = 4; the least of those that are feasible."""
    matrix = symmetric(4, 3, 5, 8.0)
    linear = np.array([-9.0, 4.0, 0.5, -2.0])
    best = math.inf
    for code in np.ndindex(3, 3, 3, 3):
        at = np.array([[0.0, -0.5, 0.5][c] for c in code])
        free = np.array([c == 0 for c in code])
        if free.any():
            right = -(linear[free] + matrix[np.ix_(free, ~free)] @ at[~free])
            at[free] = np.linalg.solve(matrix[np.ix_(free, free)], right)
        if (np.abs(at) <= 0.5).all():
            best = min(best, linear @ at + 0.5 * at @ matrix @ at)
    found = jc.minimize(lambda x: linear @ x + 0.5 * x @ (matrix @ x), np.zeros(4), bounds=(-0.5, 0.5))
    assert found.success and found.fun == pytest.approx(best, rel=1e-13)


def test_names_fixed_and_ties():
    def function(p):
        return (p["a"] - 3.0) ** 2 + (p["b"] - 1.0) ** 2 + (p["c"] + p["a"]) ** 2

    start = {"a": 0.0, "b": 0.5, "c": 2.0}
    found = jc.minimize(function, start, fixed="c")
    assert float(found.x["a"]) == pytest.approx(0.5) and float(found.x["c"]) == 2.0
    tied = jc.minimize(function, start, ties={"c": lambda p: 2.0 * p["b"]})
    a, b = np.linalg.solve([[4.0, 4.0], [4.0, 10.0]], [6.0, 2.0])
    assert float(tied.x["a"]) == pytest.approx(a) and float(tied.x["c"]) == pytest.approx(2.0 * b)
    bounded = jc.minimize(function, {**start, "a": -2.0}, bounds={"a": (None, -1.0), "b": (0.7, 0.7)})
    assert float(bounded.x["a"]) == -1.0 and float(bounded.x["b"]) == 0.7


# ---- constraints: W. Hock and K. Schittkowski, Test Examples for Nonlinear Programming Codes, LNEMS 187, 1981 --------


def hs43(x):
    return x[0] ** 2 + x[1] ** 2 + 2 * x[2] ** 2 + x[3] ** 2 - 5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3]


def hs43_constraints(x):
    first = 8 - x[0] ** 2 - x[1] ** 2 - x[2] ** 2 - x[3] ** 2 - x[0] + x[1] - x[2] + x[3]
    second = 10 - x[0] ** 2 - 2 * x[1] ** 2 - x[2] ** 2 - 2 * x[3] ** 2 + x[0] + x[3]
    return np.stack([first, second, 5 - 2 * x[0] ** 2 - x[1] ** 2 - x[2] ** 2 - 2 * x[0] + x[1] + x[3]])


def hs76(x):
    first = x[0] ** 2 + 0.5 * x[1] ** 2 + x[2] ** 2 + 0.5 * x[3] ** 2
    return first - x[0] * x[2] + x[2] * x[3] - x[0] - 3 * x[1] + x[2] - x[3]


def hs100(x):
    first = (x[0] - 10) ** 2 + 5 * (x[1] - 12) ** 2 + x[2] ** 4 + 3 * (x[3] - 11) ** 2 + 10 * x[4] ** 6
    return first + 7 * x[5] ** 2 + x[6] ** 4 - 4 * x[5] * x[6] - 10 * x[5] - 8 * x[6]


def hs100_constraints(x):
    return np.stack(
        [
            127 - 2 * x[0] ** 2 - 3 * x[1] ** 4 - x[2] - 4 * x[3] ** 2 - 5 * x[4],
            282 - 7 * x[0] - 3 * x[1] - 10 * x[2] ** 2 - x[3] + x[4],
            196 - 23 * x[0] - x[1] ** 2 - 6 * x[5] ** 2 + 8 * x[6],
            -4 * x[0] ** 2 - x[1] ** 2 + 3 * x[0] * x[1] - 2 * x[2] ** 2 - 5 * x[5] + 11 * x[6],
        ]
    )


HOCK_SCHITTKOWSKI = {
    "6": (lambda x: (1 - x[0]) ** 2, [-1.2, 1], Constraint(lambda x: 10 * (x[1] - x[0] ** 2), 0, 0), None, 0.0),
    "7": (
        lambda x: np.log(1 + x[0] ** 2) - x[1],
        [2, 2],
        Constraint(lambda x: (1 + x[0] ** 2) ** 2 + x[1] ** 2 - 4, 0, 0),
        None,
        -math.sqrt(3.0),
    ),
    "10": (
        lambda x: x[0] - x[1],
        [-10, 10],
        Constraint(lambda x: -3 * x[0] ** 2 + 2 * x[0] * x[1] - x[1] ** 2 + 1),
        None,
        -1.0,
    ),
    "28": (
        lambda x: (x[0] + x[1]) ** 2 + (x[1] + x[2]) ** 2,
        [-4, 1, 1],
        Constraint(lambda x: x[0] + 2 * x[1] + 3 * x[2], 1, 1),
        None,
        0.0,
    ),
    "35": (
        lambda x: (
            9 - 8 * x[0] - 6 * x[1] - 4 * x[2] + 2 * x[0] ** 2 + 2 * x[1] ** 2 + x[2] ** 2 + 2 * x[0] * (x[1] + x[2])
        ),
        [0.5, 0.5, 0.5],
        Constraint(lambda x: 3 - x[0] - x[1] - 2 * x[2]),
        (0.0, None),
        1.0 / 9.0,
    ),
    "39": (
        lambda x: -x[0],
        [2, 2, 2, 2],
        [
            Constraint(lambda x: x[1] - x[0] ** 3 - x[2] ** 2, 0, 0),
            {"type": "eq", "fun": lambda x: x[0] ** 2 - x[1] - x[3] ** 2},
        ],
        None,
        -1.0,
    ),
    "43": (hs43, [0, 0, 0, 0], Constraint(hs43_constraints), None, -44.0),
    "71": (
        lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        [1, 5, 5, 1],
        [
            scipy.optimize.NonlinearConstraint(lambda x: x[0] * x[1] * x[2] * x[3], 25.0, np.inf),
            Constraint(lambda x: np.sum(x**2), 40, 40),
        ],
        (1.0, 5.0),
        17.0140172891,
    ),
    "76": (
        hs76,
        [0.5, 0.5, 0.5, 0.5],
        scipy.optimize.LinearConstraint(
            [[1, 2, 1, 1], [3, 1, 2, -1], [0, 1, 4, 0]], [-np.inf, -np.inf, 1.5], [5, 4, np.inf]
        ),
        (0.0, None),
        -4.681818181818182,
    ),
    "100": (hs100, [1, 2, 0, 4, 0, 1, 1], Constraint(hs100_constraints), None, 680.6300573744),
}


IPOPT = pytest.param("ipopt", marks=pytest.mark.skipif(find_spec("cyipopt") is None, reason="needs cyipopt"))


@pytest.mark.parametrize("method", [None, "slsqp", IPOPT])
@pytest.mark.parametrize("name", HOCK_SCHITTKOWSKI)
def test_hock_and_schittkowski(name, method):
    function, start, constraints, bounds, least = HOCK_SCHITTKOWSKI[name]
    found = jc.minimize(function, np.array(start, dtype=float), constraints=constraints, bounds=bounds, method=method)
    assert found.success, found.message
    assert found.fun == pytest.approx(least, rel=1e-10, abs=1e-10)
    assert found.constraint_violation < 1e-12
    assert found.optimality < 1e-8
    assert found.fun == pytest.approx(float(function(found.x)), rel=1e-14, abs=1e-30)


def test_multipliers_are_sensitivities():
    """The minimum falls by the multiplier for each unit by which an upper side is raised."""

    def least(level):
        circle = Constraint(lambda x: x @ x, -np.inf, level)
        return jc.minimize(lambda x: x[0] + 2.0 * x[1], [1.0, 0.5], constraints=circle)

    found = least(1.0)
    np.testing.assert_allclose(found.x, [-1.0 / math.sqrt(5.0), -2.0 / math.sqrt(5.0)], rtol=1e-12)
    (multiplier,) = found.multipliers
    slope = (least(1.0 + 1e-5).fun - least(1.0 - 1e-5).fun) / 2e-5
    assert multiplier[0] == pytest.approx(-slope, rel=1e-6)
    loose = least(1e3)
    assert loose.multipliers[0][0] > 0.0


def test_ipopt_where_it_is_and_where_it_is_not():
    if find_spec("cyipopt") is None:
        with pytest.raises(InvalidInputError, match="needs the package cyipopt"):
            jc.minimize(rosenbrock, [0.0, 0.0], method="ipopt")
        return
    found = jc.minimize(rosenbrock, np.zeros(50), method="ipopt")
    assert found.success and "Ipopt" in found.message
    np.testing.assert_allclose(found.x, 1.0, atol=1e-6)
    bounded = jc.minimize(rosenbrock, [0.0, 0.0], bounds=(-2.0, 0.5), method="ipopt")
    np.testing.assert_allclose(bounded.x, [0.5, 0.25], atol=1e-6)
    assert jc.minimize(rosenbrock, np.zeros(50), method="ipopt", max_iterations=2).status == Outcome.ITERATION_LIMIT
    assert jc.minimize(rosenbrock, np.zeros(50), method="ipopt", max_evaluations=3).status == Outcome.EVALUATION_LIMIT
    seen = []
    stopped = jc.minimize(rosenbrock, np.zeros(50), method="ipopt", callback=lambda p: seen.append(p) or len(seen) == 2)
    assert stopped.status == Outcome.STOPPED and len(seen) == 2


def test_structures_in_constraints():
    found = jc.minimize(
        lambda p: np.sum(p["a"] ** 2) + p["b"] ** 2,
        {"a": np.ones(2), "b": 1.0},
        constraints=Constraint(
            lambda p: {"sum": np.sum(p["a"]) + p["b"], "gap": p["a"][0] - p["a"][1]}, [0.5, 3.0], [0.5, 3.0]
        ),
    )
    # The dictionary's keys are sorted: gap first.
    np.testing.assert_allclose(found.x["a"], [1.25, 0.75], rtol=1e-12)
    assert float(found.x["b"]) == pytest.approx(1.0, rel=1e-12)


def test_sparse_constraints():
    """The discretised minimal-energy chain: n unknowns, n / 2 equations, all matrices sparse."""
    n = 200

    def energy(x):
        return np.sum((x[1:] - x[:-1]) ** 2) + 0.01 * np.sum(x**4)

    pinned = Constraint(lambda x: x[::2] ** 3, 0.001, 0.001)
    found = jc.minimize(energy, np.full(n, 0.2), constraints=pinned)
    assert found.success
    np.testing.assert_allclose(found.x[::2], 0.1, rtol=1e-10)
    assert found.optimality < 1e-10


def test_impossible_constraints_are_no_success():
    both = [Constraint(lambda x: x[0] + x[1], 1.0, np.inf), Constraint(lambda x: x[0] + x[1], -np.inf, 0.0)]
    for method in ("trust-constr", "slsqp"):
        found = jc.minimize(lambda x: np.sum(x**2), [0.0, 0.0], constraints=both, method=method, max_iterations=200)
        assert not found.success and found.constraint_violation > 0.1


def test_dependent_constraints():
    twice = [Constraint(lambda x: x[0] + x[1], 1.0, 1.0), Constraint(lambda x: 2.0 * x[0] + 2.0 * x[1], 2.0, 2.0)]
    found = jc.minimize(lambda x: np.sum(x**2), [3.0, -1.0], constraints=twice)
    assert found.success
    np.testing.assert_allclose(found.x, 0.5, rtol=1e-12)


# ---- around ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["newton", "l-bfgs"])
def test_budgets_and_callback(method):
    start = np.zeros(20)
    assert jc.minimize(rosenbrock, start, method=method, max_iterations=2).status == Outcome.ITERATION_LIMIT
    assert jc.minimize(rosenbrock, start, method=method, max_evaluations=3).status == Outcome.EVALUATION_LIMIT
    assert jc.minimize(rosenbrock, start, method=method, max_seconds=0.0).status == Outcome.TIME_LIMIT
    seen = []

    def callback(progress):
        seen.append((progress.cost, progress.x.copy()))
        return len(seen) == 3

    stopped = jc.minimize(rosenbrock, start, method=method, callback=callback)
    assert stopped.status == Outcome.STOPPED and len(seen) == 3
    assert stopped.fun == pytest.approx(seen[-1][0])
    for cost, x in seen:
        assert rosenbrock(x) == pytest.approx(cost)


def test_checkpoint_and_resume(tmp_path):
    path = tmp_path / "run.npz"
    first = jc.minimize(rosenbrock, np.zeros(20), max_iterations=5, checkpoint=path)
    rest = jc.minimize(rosenbrock, np.zeros(20), resume=path)
    whole = jc.minimize(rosenbrock, np.zeros(20))
    assert not first.success and rest.success
    assert rest.nit == whole.nit
    np.testing.assert_allclose(rest.x, whole.x, rtol=1e-13)
    with pytest.raises(InvalidInputError, match="holds 20 parameters"):
        jc.minimize(rosenbrock, np.zeros(3), resume=path)


def test_a_kept_recording():
    search = Minimizer(lambda x, a: np.sum(np.cos(x) + a * x), bounds=(0.0, 12.0))
    for start in (3.0, 9.0):
        assert search([start], args=(0.0,)).x[0] == pytest.approx(math.pi * round(start / math.pi), rel=1e-12)
    moved = search([3.0], args=(0.3,))
    assert math.sin(moved.x[0]) == pytest.approx(0.3, rel=1e-12)


def test_results_are_readable_and_picklable():
    found = jc.minimize(rosenbrock, [0.0, 0.0])
    assert found["fun"] == found.fun and "multipliers" in dict(found)
    assert repr(found).startswith("<MinimizeResult converged") and "x[0]" in str(found)
    np.testing.assert_allclose(found.hessian @ found.solve([1.0, 2.0]), [1.0, 2.0], rtol=1e-9)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.flat, found.flat)
    np.testing.assert_allclose(again.eigenvalues, np.linalg.eigvalsh(found.hess))
    quasi = jc.minimize(rosenbrock, [0.0, 0.0], method="bfgs")
    assert quasi.hess is None and quasi.hessian.shape == (2, 2)
    with pytest.raises(InvalidInputError, match="pickled"):
        pickle.loads(pickle.dumps(jc.minimize(rosenbrock, [0.0, 0.0], method="bfgs"))).hessian  # noqa: B018
    flat = jc.minimize(lambda x: (x[0] + x[1]) ** 2, [1.0, 2.0])
    assert flat.success and "singular" in flat.warnings[0]
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        flat.solve([1.0, 0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jc.minimize(lambda x: x, [1.0, 2.0]), r"one real number, but returns shape \(2,\)"),
        (lambda: jc.minimize(lambda x: None, [1.0]), "but returns NoneType"),
        (lambda: jc.minimize(lambda x: x[0] + 1j, [1.0]), "complex"),
        (lambda: jc.minimize(lambda x: np.log(x[0]), [-1.0]), r"the function is nan at the start, with x0\[0\] = -1"),
        (lambda: jc.minimize(lambda x: np.sqrt(x[0]), [0.0]), "derivative of function entry 0.*inf at the start"),
        (lambda: jc.minimize(lambda x: x[0] ** 1.5, [0.0]), "derivative of gradient entry 0.*inf at the start"),
        (lambda: jc.minimize(rosenbrock, [np.inf, 1.0]), r"x0\[0\] is inf"),
        (lambda: jc.minimize(rosenbrock, []), "holds no numbers"),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], method="simplex"), "no method 'simplex'; there is newton"),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], method="bfgs", bounds=(0.0, 1.0)), "does not know bounds"),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], bounds=(1.0, 0.0)), "crossed"),
        (lambda: jc.minimize(rosenbrock, [3.0, 0.0], bounds=(0.0, 1.0)), "outside its bounds"),
        (
            lambda: jc.minimize(rosenbrock, [0.0, 0.0], method="newton", constraints=Constraint(lambda x: x)),
            "does not know constraints",
        ),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], constraints="x > 0"), "is no constraint"),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], constraints={"type": "le"}), "'eq' or 'ineq'"),
        (
            lambda: jc.minimize(rosenbrock, [0.0, 0.0], constraints=Constraint(lambda x: x, 2.0, 1.0)),
            "between 2.0 and 1.0",
        ),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], constraints=Constraint(lambda x: x, np.zeros(3))), "lower side"),
        (
            lambda: jc.minimize(rosenbrock, [0.0, 0.0], constraints=Constraint(lambda x: np.log(x - 1.0))),
            "constraint.*nan",
        ),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], gtol=-1.0), "gtol must be"),
        (lambda: jc.minimize(rosenbrock, [0.0, 0.0], scale=[1.0, 0.0]), "scale must be"),
        (lambda: jc.minimize(lambda r: np.sum(r), jc.optimize.SO3(np.eye(3))), "knows manifolds"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_likelihood_of_a_gaussian_process():
    """Few parameters behind a Cholesky factorisation: the small Hessian is planned as a dense one is."""
    x = np.linspace(0.0, 5.0, 12)
    y = np.sin(x) + 0.2 * np.random.default_rng(0).standard_normal(12)
    square = (x[:, None] - x) ** 2

    def misfit(p):
        length, size, noise = np.exp(p)
        root = np.linalg.cholesky(size**2 * np.exp(-0.5 * square / length**2) + noise**2 * np.eye(12))
        white = np.linalg.solve(root, y)
        return 0.5 * white @ white + np.sum(np.log(np.diag(root)))

    start = np.array([0.0, 0.0, -1.0])
    by_hessian = [jc.hessian(misfit, format=form)(start) for form in ("auto", "dense")]
    np.testing.assert_array_equal(*by_hessian)
    found, expected = jc.minimize(misfit, start), scipy.optimize.minimize(misfit, start, tol=1e-9)
    assert found.success
    assert found.fun <= expected.fun + 1e-10
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
