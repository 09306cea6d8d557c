"""Derivatives through `root`, `fixed_point` and `least_squares`, against closed forms, mpmath and differences."""

import numpy as np
import pytest
import scipy.optimize
from implicit_differences import central

import jacana as jc
from jacana.optimize import Constraint


def pair(theta):
    """Two equations, three parameters."""

    def equations(x):
        return np.array([x[0] ** 2 + x[1] - theta[0], x[1] * np.exp(x[0]) - theta[1] * theta[2]])

    return jc.root(equations, [1.0, 1.0]).x


THETA = np.array([2.2, 1.1, 1.65])


def test_value_is_the_one_outside():
    assert np.abs(jc.value_and_jacobian(pair)(THETA)[0] - pair(THETA)).max() < 1e-15


@pytest.mark.parametrize("order", ["auto", "forward", "reverse", "cost"])
def test_root_in_every_order(order):
    # dx = -F_x^-1 F_theta by hand.
    x = pair(THETA)
    by_x = np.array([[2 * x[0], 1.0], [x[1] * np.exp(x[0]), np.exp(x[0])]])
    by_theta = np.array([[-1.0, 0.0, 0.0], [0.0, -THETA[2], -THETA[1]]])
    found = jc.jacobian(pair, order=order)(THETA)
    assert np.abs(found + np.linalg.solve(by_x, by_theta)).max() < 1e-14


def test_replay_solves_again():
    jacobian = jc.jacobian(pair)
    jacobian(THETA)
    for factor in (0.9, 1.2):
        assert np.abs(jacobian(factor * THETA) - central(pair, factor * THETA)).max() < 1e-9


def test_second_and_third_derivatives_of_a_power():
    # x^3 = a b has x = (a b)^(1/3), whose derivatives are known to any order.
    def cube(p):
        return jc.root(lambda x: x**3 - p[0] * p[1], np.ones(1)).x[0]

    def closed(p):
        return (p[0] * p[1]) ** (1 / 3)

    p = np.array([2.0, 1.5])
    for derivative in (jc.grad, jc.hessian, lambda f: jc.jacobian(jc.hessian(f))):
        assert np.abs(derivative(cube)(p) - derivative(closed)(p)).max() < 1e-13


def test_against_mpmath():
    import mpmath

    # Kepler's equation, by eccentricity and mean anomaly.
    def anomaly(p):
        return jc.root(lambda x: x - p[0] * np.sin(x) - p[1], 1.0).x

    with mpmath.workdps(40):

        def exact(e, m):
            return mpmath.findroot(lambda x: x - e * mpmath.sin(x) - m, 1)

        wanted = [float(mpmath.diff(exact, (0.3, 0.8), n)) for n in ((1, 0), (0, 1))]
        mixed = float(mpmath.diff(exact, (0.3, 0.8), (1, 1)))
    p = np.array([0.3, 0.8])
    assert np.abs(jc.grad(anomaly)(p) - wanted).max() < 1e-13
    assert abs(jc.hessian(anomaly)(p)[0, 1] - mixed) < 1e-12


def test_structures_arguments_and_start():
    def solve(p, start):
        found = jc.root(lambda x, q: {"a": x["a"] * q - 1.0, "b": x["b"] - x["a"] * q**2}, start, args=(p,))
        return found.x["a"] + 10.0 * found.x["b"]

    start = {"a": np.ones(2), "b": np.zeros(2)}
    p = np.array([2.0, 4.0])
    found = jc.jacobian(solve)(p, start)
    assert np.abs(found - np.diag(-1 / p**2 + 10.0)).max() < 1e-13
    # Where the search begins has no influence; it does say which root is found.
    square = jc.value_and_jacobian(lambda s: jc.root(lambda x: x**2 - 4.0, s).x)
    for begin, root in ((1.2, 2.0), (-1.2, -2.0)):
        value, slope = square(np.array([begin]))
        assert value == root and slope == 0.0


def test_float32():
    def single(a):
        return jc.root(lambda x: x**2 - a, np.ones(2, dtype=np.float32)).x

    found = jc.jacobian(single)(np.array([4.0, 9.0], dtype=np.float32))
    assert found.dtype == np.float32
    assert np.abs(found - np.diag([0.25, 1 / 6])).max() < 1e-6


def test_define_by_run():
    a = jc.Variable(np.array([4.0, 9.0]))
    jc.root(lambda x: x**2 - a, np.ones(2)).x.backward(jacobian=True)
    assert np.abs(a.grad - np.diag([0.25, 1 / 6])).max() < 1e-15


def test_a_root_of_a_root():
    def inner(x, t):
        return jc.root(lambda z: z**3 - x * t, np.ones(2)).x

    def outer(t):
        return jc.root(lambda x: inner(x, t) * x - 2.0, np.ones(2)).x

    # (x t)^(1/3) x = 2, so x = (8 / t)^(1/4)
    t = np.array([1.0, 2.0])
    assert np.abs(jc.jacobian(outer)(t) - np.diag(-(8.0**0.25) / 4 * t**-1.25)).max() < 1e-13


def test_branches_are_those_at_the_solution():
    def branching(t):
        return jc.root(lambda x: x**2 - t if x[0] > 1.5 else x - t, np.array([1.0])).x

    derivative = jc.value_and_jacobian(branching)
    for t, value, slope in ((1.2, 1.2, 1.0), (9.0, 3.0, 1 / 6), (1.3, 1.3, 1.0)):
        found = derivative(np.array([t]))
        assert abs(found[0][0] - value) < 1e-15 and abs(found[1][0, 0] - slope) < 1e-15


def test_sparse_systems():
    n = 300

    def tridiagonal(t):
        def equations(x):
            padded = np.concatenate(([0.0], x, [0.0]))
            return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0 + t * np.sin(np.arange(n))

        return np.sum(jc.root(equations, np.full(n, -1.0)).x ** 2)

    gradient = jc.grad(tridiagonal)
    assert abs(gradient(0.1) - central(tridiagonal, np.array(0.1))) < 1e-7
    assert abs(jc.hessian(tridiagonal)(0.1) - central(gradient, np.array(0.1))) < 1e-7


@pytest.mark.parametrize("method", ["newton", "line-search", "krylov", "anderson", "iteration"])
def test_fixed_points(method):
    def fixed(t):
        return jc.fixed_point(lambda x: np.cos(x * t), np.array([1.0, 0.5]), method=method).x

    t = np.array([0.9, 0.7])
    x = fixed(t)
    slope = -np.sin(x * t)
    assert np.abs(jc.jacobian(fixed)(t) - np.diag(slope * x / (1.0 - slope * t))).max() < 1e-13


# --- least squares ----------------------------------------------------------------------------------------------------

rng = np.random.default_rng(7)
MATRIX, RIGHT = rng.normal(size=(7, 3)), rng.normal(size=7)
TIMES = np.linspace(0.0, 3.0, 9)
DATA = 3.0 * np.exp(-0.5 * TIMES) + 0.2 * rng.normal(size=9)


def test_ridge_regression():
    def ridge(p):
        def residual(w):
            return np.concatenate([MATRIX @ w - RIGHT - p[1] * MATRIX[:, 0] ** 2, np.sqrt(p[0]) * w])

        return jc.least_squares(residual, np.zeros(3)).x

    def closed(p):
        return np.linalg.solve(MATRIX.T @ MATRIX + p[0] * np.eye(3), MATRIX.T @ (RIGHT + p[1] * MATRIX[:, 0] ** 2))

    p = np.array([0.7, 0.3])
    assert np.abs(jc.jacobian(ridge)(p) - jc.jacobian(closed)(p)).max() < 1e-13

    def score(solve):
        return jc.hessian(lambda p: np.sum(np.sin(solve(p))))(p)

    assert np.abs(score(ridge) - score(closed)).max() < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "cauchy", "loss_scale": 0.3},
        {"loss": "huber", "loss_scale": 0.2},
        {"bounds": {"rate": (0.8, None)}},
        {"weights": np.arange(1.0, 10.0)},
        {"fixed": "height"},
        {"scale": {"height": 2.0, "rate": 0.5}},
        {"ties": {"rate": lambda p: p["height"] / 5.0}},
        {"method": "dogleg"},
    ],
    ids=lambda options: next(iter(options), "none"),  # a function's address would differ from worker to worker
)
def test_fits_of_a_curve(options):
    def solve(d):
        def residual(p):
            return p["height"] * np.exp(-p["rate"] * TIMES) - DATA * d

        fit = jc.least_squares(residual, {"height": 1.0, "rate": 1.0}, **options)
        return np.stack([fit.x["height"], fit.x["rate"], fit.cost])

    d = 1.0 + 0.1 * rng.normal(size=9)
    jacobian = jc.jacobian(solve)
    for factor in (1.0, 1.05):
        wanted = central(solve, factor * d)
        assert np.abs(jacobian(factor * d) - wanted).max() < 1e-7 * max(1.0, np.abs(wanted).max())
    assert np.abs(jc.jacobian(jacobian)(d) - central(jacobian, d)).max() < 1e-6
    if "bounds" in options:
        assert not jacobian(d)[1].any()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_no_solution_names_solver_and_line():
    def impossible(t):
        return jc.root(lambda x: x**2 - t, np.array([1.0])).x  # the line

    derivative = jc.jacobian(impossible)
    for _ in range(2):
        with pytest.raises(jc.ConvergenceError, match=r"jacana\.root found no solution(?s:.*)# the line"):
            derivative(np.array([-1.0]))
    derivative(np.array([1.0]))
    with pytest.raises(jc.ConvergenceError, match=r"jacana\.root found no solution(?s:.*)# the line"):
        derivative(np.array([-1.0]))


def test_solutions_that_are_not_isolated():
    def line(t):
        return jc.root(lambda x: np.array([x[0] + x[1] - t[0], 2 * x[0] + 2 * x[1] - 2 * t[0]]), np.ones(2)).x

    assert line(np.ones(1)).sum() == 1.0
    with pytest.raises(jc.DifferentiationError, match="not isolated"):
        jc.jacobian(line)(np.ones(1))
    n = 80

    def ring(t):
        return jc.root(lambda x: x - np.roll(x, 1) + 0.0 * t, np.ones(n)).x

    with pytest.raises(jc.DifferentiationError, match="not isolated"):
        jc.jacobian(ring)(1.0)


def test_units_do_not_make_a_system_singular():
    scale = np.array([1e-30, 1e25])

    def solve(t):
        return jc.root(lambda x: scale * (x - t * np.array([1.0, 2.0])), np.zeros(2)).x

    assert np.abs(jc.jacobian(solve)(3.0) - [1.0, 2.0]).max() < 1e-15


def test_numbers_that_would_be_frozen_are_refused():
    with pytest.raises(jc.RecordingError, match="'nfev'"):
        jc.jacobian(lambda t: jc.root(lambda x: x**2 - t, np.ones(1)).nfev * t)(np.ones(1))
    with pytest.raises(jc.InvalidInputError, match="callback"):
        jc.jacobian(lambda t: jc.root(lambda x: x**2 - t, np.ones(1), callback=print).x)(np.ones(1))


def test_a_problem_of_plain_numbers_is_what_it_was():
    found = []

    def f(t):
        found.append(jc.root(lambda x: x**2 - 2.0, np.ones(1)))
        return t * found[-1].x

    assert np.abs(jc.jacobian(f)(np.ones(1)) - np.sqrt(2.0)).max() < 1e-15
    assert type(found[0]) is jc.optimize.RootResult


# --- minima -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"bounds": (0.5, None)}, {"fixed": [1]}, {"scale": np.array([1.0, 2.0, 3.0])}, {"bounds": (None, 0.0)}],
    ids=str,
)
def test_minima(options):
    def energy(x, t):
        return np.sum(np.cosh(x - t)) + 0.1 * np.sum(x**4) + x[0] * x[1] * t[2]

    start = np.full(3, 0.7 if options.get("bounds") == (0.5, None) else 0.0)

    def solve(t):
        found = jc.minimize(lambda x: energy(x, t), start, **options)
        return np.append(found.x, found.fun)

    t = np.array([0.3, 1.2, -0.4])
    jacobian = jc.jacobian(solve)
    for factor in (1.0, 1.05):
        assert np.abs(jacobian(factor * t) - central(solve, factor * t)).max() < 1e-9
    assert np.abs(jc.jacobian(jacobian)(t) - central(jacobian, t)).max() < 1e-8


def _on_the_circle(t):
    """An equation; by hand: -t / |t|."""
    return jc.minimize(lambda x: x @ t, [1.0, 0.3], constraints=Constraint(lambda x: x @ x, 1.0, 1.0)).x


def _in_a_disc(t):
    """Only the constraints read t; one of them holds."""
    disc, line = Constraint(lambda x: x @ x - t[0], -np.inf, 0.0), Constraint(lambda x: t[1] * x[0] + x[1], -5.0, 9.0)
    found = jc.minimize(lambda x: x[0] + 2.0 * x[1] + 0.1 * x @ x, [0.5, 0.1], constraints=[disc, line])
    return np.concatenate([found.x, found.multipliers[0], found.multipliers[1], [found.fun]])


def _in_the_simplex(t):
    """An equation and bounds."""
    whole = Constraint(np.sum, 1.0, 1.0)
    return jc.minimize(lambda x: np.sum((x - t) ** 2), [0.1, 0.2, 0.3], bounds=(0, 1), constraints=whole).x


def _in_a_structure(t):
    start = {"a": np.ones(2), "b": 1.0}
    plane = Constraint(lambda x: x["a"].sum() - x["b"] * t[0], 1.0, 1.0)
    found = jc.minimize(lambda x: np.sum((x["a"] - t) ** 2) + x["b"] ** 2, start, constraints=plane, method="slsqp")
    return np.append(found.x["a"], found.x["b"])


def _in_scipys_words(t):
    linear = scipy.optimize.LinearConstraint([[1.0, 2.0], [1.0, -1.0]], [1.0, -np.inf], [1.0, 5.0])
    above = {"type": "ineq", "fun": lambda x: x[0] - 0.4 * t[1]}
    return jc.minimize(lambda x: np.sum((x - t) ** 4 + x**2), [1.0, 0.3], constraints=[linear, above]).x


CONSTRAINED = {
    "equation": (_on_the_circle, [0.7, -1.2]),
    "inequalities": (_in_a_disc, [1.2, 0.7]),
    "with bounds": (_in_the_simplex, [0.9, 0.6, -1.3]),
    "inside the bounds": (_in_the_simplex, [0.2, 0.5, 0.4]),
    "structure": (_in_a_structure, [1.0, 2.0]),
    "scipy": (_in_scipys_words, [0.6, 1.5]),
    "scipy, another side": (_in_scipys_words, [0.9, 0.1]),
}


@pytest.mark.parametrize("name", CONSTRAINED)
def test_minima_within_constraints(name):
    function, t = CONSTRAINED[name]
    t = np.array(t)
    jacobian = jc.jacobian(function)
    for factor in (1.0, 1.03):  # the second is a replay
        assert np.abs(jacobian(factor * t) - central(function, factor * t)).max() < 1e-8
        gradient = jc.grad(lambda v: np.sum(np.sin(function(v))))(factor * t)
        assert np.abs(gradient - np.cos(function(factor * t)) @ jacobian(factor * t)).max() < 1e-12
    assert np.abs(jc.jacobian(jacobian)(t) - central(jacobian, t)).max() < 1e-7


def test_a_constrained_minimum_by_hand():
    t = np.array([0.7, -1.2])
    size = np.linalg.norm(t)
    assert np.abs(_on_the_circle(t) + t / size).max() < 1e-14
    assert np.abs(jc.jacobian(_on_the_circle)(t) + (np.eye(2) - np.outer(t, t) / size**2) / size).max() < 1e-13


def test_replays_of_constrained_minima_change_sides():
    jacobian = jc.jacobian(_in_the_simplex)
    for t in ([0.9, 0.6, -1.3], [0.2, 0.5, 0.4], [3.0, 0.1, 0.0], [-1.0, 0.6, 0.9]):
        free = _in_the_simplex(np.array(t)) > 0.0
        free &= _in_the_simplex(np.array(t)) < 1.0
        by_hand = np.diag(free * 1.0) - np.outer(free, free) / max(free.sum(), 1)
        if free.sum() != 0:
            assert np.abs(jacobian(np.array(t)) - by_hand).max() < 1e-13


def test_constrained_minima_without_derivatives():
    twice = [Constraint(lambda x: x[0] + x[1], 1.0, 1.0)] * 2
    with pytest.raises(jc.DifferentiationError, match="singular"):
        jc.jacobian(lambda t: jc.minimize(lambda x: np.sum((x - t) ** 2), [3.0, -1.0], constraints=twice).x)(np.ones(2))
    for name in ("lower", "upper"):

        def between(t, name=name):
            limited = Constraint(lambda x: x, **{name: t})
            return jc.minimize(lambda x: np.sum((x - t) ** 2), [0.0], constraints=limited).x

        with pytest.raises(jc.RecordingError, match=rf"(?s){name} side.*test_solutions\.py"):
            jc.jacobian(between)(np.ones(1))


def test_minima_that_are_refused():
    with pytest.raises(jc.InvalidInputError, match="trust-constr"):
        jc.jacobian(lambda t: jc.minimize(lambda x: x @ t, [0.5], bounds=(0, 1), method="trust-constr").x)(np.ones(1))


def test_threads():
    from concurrent.futures import ThreadPoolExecutor

    def solve(t):
        return jc.root(lambda x: x**3 + x - t, np.ones(2)).x

    jacobian = jc.jacobian(solve)
    points = [np.array([k, 2.0 * k]) for k in np.linspace(1.0, 9.0, 40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(jacobian, points))
    for t, slope in zip(points, found, strict=True):
        assert np.abs(slope - np.diag(1.0 / (3.0 * solve(t) ** 2 + 1.0))).max() < 1e-14


def test_the_state_of_earlier_searches_has_no_influence():
    jacobian = jc.value_and_jacobian(lambda t: jc.root(lambda x: np.sin(x) - 0.1 * t, np.ones(2)).x)
    first = jacobian(np.array([1.0, 2.0]))
    jacobian(np.array([9.0, 9.5]))
    again = jacobian(np.array([1.0, 2.0]))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])


def test_data_changed_in_place_is_seen():
    data = np.array([4.0, 9.0])
    jacobian = jc.jacobian(lambda t: jc.root(lambda x: x**2 - t * data, np.ones(2)).x)
    assert np.abs(jacobian(1.0) - [1.0, 1.5]).max() < 1e-15
    data[:] = 16.0, 25.0
    assert np.abs(jacobian(1.0) - [2.0, 2.5]).max() < 1e-15
