"""``scipy.integrate`` inside recorded functions, against closed forms and differences."""

import math

import numpy as np
import pytest
import scipy.integrate as si
from implicit_differences import central
from scipy.integrate import quad, solve_ivp

import jacana as jc
from jacana.run import native_available

T = np.array([1.3, 0.7])
EVAL = np.linspace(0.0, 2.0, 4)


def bell(x, t):
    return np.exp(-t[0] * x**2) * np.cos(t[1] * x)


def gauss(t):
    return np.sqrt(np.pi / t[0]) * np.exp(-(t[1] ** 2) / (4.0 * t[0]))


INTEGRALS = {
    "whole line": (lambda t: quad(lambda x: bell(x, t), -np.inf, np.inf)[0], gauss),
    "half line": (lambda t: quad(bell, 0, np.inf, args=(t,))[0], lambda t: 0.5 * gauss(t)),
    "limits": (lambda t: quad(np.exp, t[0] * t[1], t[0] + 2.0)[0], lambda t: np.exp(t[0] + 2.0) - np.exp(t[0] * t[1])),
    "both": (
        lambda t: quad(lambda x: np.sin(t[1] * x), 0.5, t[0])[0],
        lambda t: (np.cos(0.5 * t[1]) - np.cos(t[1] * t[0])) / t[1],
    ),
    "points": (
        lambda t: quad(lambda x: np.abs(x - 0.3) * t[0], 0.0, 1.0, points=[0.3])[0],
        lambda t: t[0] * (0.045 + 0.245),
    ),
    "nested": (
        lambda t: quad(lambda x: quad(lambda y: np.exp(t[0] * y) * x, 0.0, x)[0], 0.0, t[1])[0],
        lambda t: (
            (t[1] * np.exp(t[0] * t[1]) / t[0] - (np.exp(t[0] * t[1]) - 1) / t[0] ** 2) / t[0] - t[1] ** 2 / (2 * t[0])
        ),
    ),
    "trapezoid": (
        lambda t: si.trapezoid(t[0] * EVAL ** t[1], EVAL),
        lambda t: np.trapezoid(t[0] * EVAL ** t[1], EVAL),
    ),
}


@pytest.mark.parametrize("case", INTEGRALS)
def test_integrals(case):
    found, closed = INTEGRALS[case]
    derivative = jc.value_and_grad(found)
    for factor in (1.0, 1.1):
        value, gradient = derivative(factor * T)
        assert abs(value - closed(factor * T)) < 1e-10
        assert np.abs(gradient - jc.grad(closed)(factor * T)).max() < 1e-9
    assert np.abs(jc.hessian(found)(T) - jc.hessian(closed)(T)).max() < 1e-8


def test_the_estimate_of_the_error_is_renewed():
    found = jc.compile(lambda t: np.stack(quad(lambda x: np.exp(-t * x**2), 0.0, 2.0)))
    for t in (1.0, 3.0):
        wanted = quad(lambda x: np.exp(-t * x**2), 0.0, 2.0)  # noqa: B023 (called at once)
        assert np.abs(found(t) - wanted).max() < 1e-15


def predator(s, y, t):
    return np.array([t[0] * y[0] - y[0] * y[1], y[0] * y[1] * t[1] - 0.1 * y[1] * s])


TIGHT = {"rtol": 1e-10, "atol": 1e-11}
EQUATIONS = {
    "parameters": lambda t: solve_ivp(lambda s, y: predator(s, y, t), (0, 2), [1.0, 0.5], t_eval=EVAL, **TIGHT).y,
    "start": lambda t: solve_ivp(predator, (0, 2), t, t_eval=EVAL, args=(np.ones(2),), **TIGHT).y,
    "both": lambda t: solve_ivp(
        lambda s, y: [t[0] * y[0] - y[0] * y[1], y[0] * y[1] * t[1]], (0, 2), [t[0], t[0] * t[1]], t_eval=[2.0],
        rtol=1e-10, atol=[1e-11, 1e-12],
    ).y[:, -1],
    "Radau": lambda t: solve_ivp(predator, (0, 2), [1.0, 0.5], "Radau", EVAL, args=(t,), rtol=1e-9, atol=1e-10).y,
    "odeint": lambda t: si.odeint(lambda y, s: predator(s, y, t), [1.0, 0.5], EVAL, **TIGHT),
    "odeint tfirst": lambda t: si.odeint(predator, t, EVAL, args=(t,), tfirst=True, **TIGHT),
}  # fmt: skip


@pytest.mark.parametrize("case", EQUATIONS)
def test_differential_equations(case):
    jacobian = jc.jacobian(EQUATIONS[case])
    for factor in (1.0, 1.1):
        assert np.abs(jacobian(factor * T) - central(EQUATIONS[case], factor * T, 1e-2)).max() < 1e-6


X = np.array([0.0, 0.3, 0.5, 0.9, 1.4, 1.6])
Y = np.exp(0.3 * np.arange(1.0, 13.0) - 0.1 * np.arange(12.0) ** 1.3).reshape(2, 6)
SAMPLES = {
    "trapezoid": lambda y: si.trapezoid(y, X),
    "cumulative": lambda y: si.cumulative_trapezoid(y, dx=0.1),
    "cumulative at x": lambda y: si.cumulative_trapezoid(y, X, initial=0),
    "cumulative by the axis": lambda y: si.cumulative_trapezoid(y.T, X, axis=0),
    "cumulative at recorded x": lambda y: si.cumulative_trapezoid(X, y[0] + X),
    "cumulative at x of several axes": lambda y: si.cumulative_trapezoid(y**2, y, axis=1),
    "simpson of an even number": lambda y: si.simpson(y**2, dx=0.2),
    "simpson at x": lambda y: si.simpson(y[:, :5], x=X[:5]),
    "simpson by the axis": lambda y: si.simpson(y.T, x=X, axis=0),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_rules_for_samples(case):
    f = SAMPLES[case]
    value, J = jc.value_and_jacobian(f)(Y)
    np.testing.assert_allclose(value, f(Y), rtol=1e-14)
    np.testing.assert_allclose(
        J.reshape(-1, 12), central(lambda y: np.ravel(f(y.reshape(2, 6))), Y.ravel(), 1e-3), atol=1e-7
    )


def test_running_integrals_are_triangular():
    assert jc.jacobian(si.cumulative_trapezoid, format="csr")(Y[0]).nnz == 2 + 3 + 4 + 5 + 6


def test_a_decay_to_the_second_order():
    # y' = -a y, y(0) = b has y = b exp(-a t).
    def decay(p):
        return solve_ivp(lambda s, y: -p[0] * y, (0.0, 1.5), p[1:], t_eval=[1.5], rtol=1e-11, atol=1e-12).y[0, 0]

    def closed(p):
        return p[1] * np.exp(-1.5 * p[0])

    p = np.array([0.8, 2.0])
    assert abs(decay(p) - closed(p)) < 1e-9
    assert np.abs(jc.grad(decay)(p) - jc.grad(closed)(p)).max() < 1e-9
    assert np.abs(jc.hessian(decay)(p) - jc.hessian(closed)(p)).max() < 1e-8


REFUSED = {
    "quad branches": lambda t: quad(lambda x: x * t[0] if x < 0.5 else t[1], 0, 1)[0],
    "quad of math": lambda t: quad(lambda x: math.sin(x) * t[0], 0, 1)[0],
    "quad weight": lambda t: quad(lambda x: x * t[0], 0, 1, weight="cos", wvar=2.0)[0],
    "dblquad": lambda t: si.dblquad(lambda x, y: x * t[0], 0, 1, 0, 1)[0],
    "nquad": lambda t: si.nquad(lambda x, y: x * t[0], [(0, 1), (0, 1)])[0],
    "quad_vec": lambda t: si.quad_vec(lambda x: x * t, 0, 1)[0],
    "simpson at recorded x": lambda t: si.simpson(EVAL, x=t[0] * EVAL),
    "romb": lambda t: si.romb(t[0] * np.linspace(0, 1, 5)),
    "own times": lambda t: solve_ivp(lambda s, y: -y * t, (0, 2), [1.0, 0.5]).y[:, -1],
    "recorded times": lambda t: solve_ivp(lambda s, y: -y, (0, t[0]), [1.0], t_eval=[1.0]).y[:, -1],
    "state branches": lambda t: solve_ivp(lambda s, y: -y * t if y[0] > 0.5 else t, (0, 2), T, t_eval=EVAL).y,
    "events": lambda t: solve_ivp(lambda s, y: -y * t, (0, 2), T, t_eval=EVAL, events=lambda s, y: y[0]).y,
    "dense_output": lambda t: solve_ivp(lambda s, y: -y * t, (0, 2), T, t_eval=EVAL, dense_output=True).y,
    "a frozen number": lambda t: solve_ivp(lambda s, y: -y * t, (0, 2), T, t_eval=EVAL).nfev * t,
    "odeint full_output": lambda t: si.odeint(lambda y, s: -y * t, T, EVAL, full_output=True)[0],
    "RK45": lambda t: si.RK45(lambda s, y: -y * t, 0, T, 1).y,
    "ode": lambda t: si.ode(lambda s, y: -y * t).set_initial_value(T).integrate(1.0),
    "solve_bvp": lambda t: si.solve_bvp(
        lambda s, y: np.stack([y[1], -y[0] * t[0]]), lambda a, b: np.array([a[0], b[0] - 1]), np.linspace(0, 1, 5),
        np.zeros((2, 5)),
    ).y[0],
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_never_constant(case):
    with pytest.raises(jc.JacanaError, match=r"test_scipy_integrate\.py"):
        jc.jacobian(REFUSED[case])(T)


def test_an_integration_that_breaks_off():
    def explosion(t):
        return solve_ivp(lambda s, y: t[0] * y**2, (0.0, 3.0), [1.0], t_eval=[3.0]).y[0, 0]

    with pytest.raises(jc.ConvergenceError, match=r"not solved to the end(?s:.*)test_scipy_integrate\.py"):
        jc.grad(explosion)(T)


def test_plain_problems_are_solved_by_scipy_itself():
    def plain(t):
        y = solve_ivp(lambda s, y: -y, (0, 2), [1.0]).y[0, -1]
        return t * quad(math.sin, 0, 1)[0] * y * si.odeint(lambda y, s: -y, [1.0], EVAL)[-1]

    wanted = (1 - math.cos(1)) * math.exp(-4)
    assert np.abs(jc.jacobian(plain)(T) - wanted * np.eye(2)).max() < 1e-4


@pytest.mark.parametrize("long", [2, 20])
def test_sensitivities_by_several_inputs_at_once(long):
    # The start, two numbers, and a vector that is long enough (20) to be integrated for by itself.
    def path(a, b, w, start):
        def slope(t, y):
            return np.stack([a * y[1], -b * y[0] + 0.1 * np.sum(w) * np.sin(t)])

        return solve_ivp(slope, (0.0, 2.0), start, t_eval=[0.5, 2.0], rtol=1e-11, atol=1e-12).y

    given = (np.array(0.7), np.array(1.3), np.linspace(0.1, 0.4, long), np.array([1.0, -0.5]))
    found = jc.jacobian(path, argnums=(0, 1, 2, 3))(*given)
    for k, value in enumerate(given):

        def along(x, k=k):
            return path(*given[:k], x, *given[k + 1 :])

        np.testing.assert_allclose(found[k], central(along, value), rtol=0, atol=1e-7)
    second = jc.hessian(lambda a, b: np.sum(path(a, b, *given[2:]) ** 2), argnums=(0, 1))(*given[:2])
    mixed = central(lambda b: jc.grad(lambda a: np.sum(path(a, b, *given[2:]) ** 2))(given[0]), given[1])
    np.testing.assert_allclose(second[0][1], mixed, rtol=0, atol=1e-6)
    np.testing.assert_allclose(second[0][1], second[1][0], rtol=1e-6)


def epidemic(p):
    s, e, i = p[3], 1e-2, 2e-2

    def change(t, y, beta, sigma, gamma):
        return [-beta * y[0] * y[2], beta * y[0] * y[2] - sigma * y[1], sigma * y[1] - gamma * y[2]]

    return solve_ivp(change, (0.0, 9.0), [s, e, i], t_eval=EVAL * 4.0, args=tuple(p[:3]), rtol=1e-10, atol=1e-12).y[2]


def test_sensitivities_by_few_parameters_share_one_solution(monkeypatch):
    J, p, calls = jc.jacobian(epidemic), np.array([1.5, 0.7, 0.3, 0.9]), []
    np.testing.assert_allclose(J(p), central(epidemic, p), rtol=1e-6, atol=1e-9)
    original = si.solve_ivp
    monkeypatch.setattr(si, "solve_ivp", lambda *a, **k: calls.append(1) or original(*a, **k))
    J(1.01 * p)
    assert len(calls) == 1  # for all four


def test_sensitivities_by_many_numbers_beside_few():
    rng = np.random.default_rng(3)

    def network(weights, rate):
        def change(t, y):
            return rate * (np.tanh(weights[:, :2] @ y + weights[:, 2])[:2] - y)

        return solve_ivp(change, (0.0, 2.0), [0.4, -0.2], t_eval=[1.0, 2.0], rtol=1e-10, atol=1e-12).y

    weights = rng.normal(size=(7, 3))
    by_weights, by_rate = jc.jacobian(network, argnums=(0, 1))(weights, 0.8)
    np.testing.assert_allclose(by_weights, central(lambda w: network(w, 0.8), weights), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(by_rate, central(lambda r: network(weights, r), np.array(0.8)), rtol=1e-6, atol=1e-8)


@pytest.mark.skipif(not native_available(), reason="needs llvmlite")
def test_slopes_are_machine_code_and_take_arrays_with_gaps():
    def path(m):
        return solve_ivp(lambda t, y: m[::2, 1] * y, (0.0, 1.0), m[1], t_eval=[1.0], rtol=1e-10, atol=1e-12).y[:, 0]

    m = np.arange(1.0, 9.0).reshape(4, 2) / 8.0
    exact = m[1] * np.exp(m[::2, 1])
    with jc.executor("native"):
        np.testing.assert_allclose(path(m), exact, rtol=1e-8)
        np.testing.assert_allclose(jc.jacobian(path)(m), central(path, m), rtol=1e-6, atol=1e-8)
