"""``scipy.optimize`` inside recorded functions: derivatives of what it finds, or a refusal; never a constant."""

import numpy as np
import pytest
import scipy.optimize as so
from implicit_differences import central
from scipy.optimize import brentq

import jacana as jc

T = np.array([2.0, 1.5])


def equations(x, t):
    return np.array([x[0] ** 2 + x[1] - t[0], x[1] * np.exp(x[0]) - t[1]])


def exact(t):
    return jc.root(equations, [1.0, 1.0], args=(t,)).x


def cubic(x, t):
    return x**3 - t[0] * t[1]


def cube_root(t):
    return np.cbrt(t[0] * t[1])


def energy(x, t):
    return np.sum(np.cosh(x - t[0])) + 0.1 * np.sum(x**4) + 0.1 * x[0] * x[1] * t[1]


def least(t):
    return jc.minimize(energy, np.zeros(2), args=(t,)).x


def low(x, t):
    return np.cosh(x - t[0]) + 0.1 * x * t[1]


def lowest(t):
    return t[0] - np.arcsinh(0.1 * t[1])


TIMES = np.linspace(0.0, 3.0, 9)
DATA = 3.0 * np.exp(-0.5 * TIMES) + 0.1 * np.sin(7.0 * TIMES)


def misfit(x, t):
    return t[0] * x[0] * np.exp(-x[1] * TIMES * t[1]) - DATA


def fitted(**options):
    return lambda t: jc.least_squares(misfit, [1.0, 0.5], args=(t,), **options).x


TIGHT = {"xtol": 1e-13, "ftol": 1e-13, "gtol": 1e-13}
CASES = {
    "root": (lambda t: so.root(lambda x: equations(x, t), [1.0, 1.0], tol=1e-12).x, exact),
    "root lm": (lambda t: so.root(equations, [1.0, 1.0], (t,), "lm", tol=1e-12).x, exact),
    "root broyden1": (lambda t: so.root(equations, [1.3, 0.5], (t,), "broyden1", tol=1e-12).x, exact),
    "root jac=True": (
        lambda t: so.root(lambda x: (equations(x, t), np.eye(2)), [1.0, 1.0], jac=True, tol=1e-12).x,
        exact,
    ),
    "root of fun": (lambda t: so.root(lambda x: equations(x, t), [1.0, 1.0], tol=1e-13).fun + t, lambda t: t),
    "fsolve": (lambda t: so.fsolve(equations, [1.0, 1.0], args=(t,), xtol=1e-12), exact),
    "fixed_point": (
        lambda t: so.fixed_point(lambda x: np.cos(0.5 * x * t), np.array([1.0, 0.5]), xtol=1e-13),
        lambda t: jc.fixed_point(lambda x: np.cos(0.5 * x * t), np.array([1.0, 0.5])).x,
    ),
    "newton": (lambda t: so.newton(lambda x: cubic(x, t), 1.0, tol=1e-13), cube_root),
    "newton with fprime": (lambda t: so.newton(cubic, 1.0, lambda x, t: 3.0 * x**2, (t,), tol=1e-13), cube_root),
    "newton of an array": (lambda t: so.newton(lambda x: x**3 - t, np.ones(2), tol=1e-13), np.cbrt),
    "newton of an array with fprime": (
        lambda t: so.newton(lambda x: x**3 - t, np.ones(2), lambda x: 3.0 * x**2, tol=1e-13),
        np.cbrt,
    ),
    "root_scalar": (lambda t: so.root_scalar(lambda x: cubic(x, t), bracket=[0.0, 3.0], xtol=1e-13).root, cube_root),
    "root_scalar newton": (
        lambda t: so.root_scalar(lambda x: cubic(x, t), x0=1.0, fprime=lambda x: 3.0 * x**2, xtol=1e-13).root,
        cube_root,
    ),
    "root_scalar halley": (
        lambda t: (
            so.root_scalar(
                lambda x: cubic(x, t), x0=1.0, fprime=lambda x: 3 * x**2, fprime2=lambda x: 6 * x, method="halley"
            ).root
        ),
        cube_root,
    ),
    "root_scalar secant": (lambda t: so.root_scalar(cubic, (t,), x0=1.0, x1=2.0, xtol=1e-13).root, cube_root),
    "brentq by name": (lambda t: brentq(lambda x: cubic(x, t), 0.0, 3.0, xtol=1e-13), cube_root),
    "brentq between recorded ends": (
        lambda t: brentq(lambda x, b: x**3 - t[0] * b, t[0] - 2.0, t[1] + 3.0, args=(t[1],), xtol=1e-13),
        cube_root,
    ),
    "minimize jac": (
        lambda t: so.minimize(energy, np.zeros(2), (t,), jac=jc.grad(energy), tol=1e-10).x,
        least,
    ),
    "minimize Newton-CG": (
        lambda t: so.minimize(energy, np.zeros(2), (t,), "Newton-CG", jc.grad(energy)).x,
        least,
    ),
    "minimize within bounds": (
        lambda t: so.minimize(energy, np.zeros(2), (t,), bounds=[(None, 1.2), (None, None)], tol=1e-12).x,
        lambda t: jc.minimize(energy, np.zeros(2), args=(t,), bounds=(None, [1.2, np.inf])).x,
    ),
    "minimize of fun": (
        lambda t: so.minimize(energy, np.zeros(2), (t,), tol=1e-10).fun,
        lambda t: energy(least(t), t),
    ),
    "minimize_scalar": (lambda t: so.minimize_scalar(lambda x: low(x, t), tol=1e-12).x, lowest),
    "minimize_scalar bracket": (lambda t: so.minimize_scalar(low, (0.0, 1.0), args=(t,), tol=1e-12).x, lowest),
    "minimize_scalar bounds": (
        lambda t: so.minimize_scalar(low, bounds=(0.0, 5.0), args=(t,), options={"xatol": 1e-9}).x,
        lowest,
    ),
    "least_squares of cost": (
        lambda t: so.least_squares(misfit, [1.0, 0.5], args=(t,), loss="cauchy", f_scale=0.1, **TIGHT).cost,
        lambda t: jc.least_squares(misfit, [1.0, 0.5], args=(t,), loss="cauchy", loss_scale=0.1).cost,
    ),
}
for name in ("brentq", "brenth", "bisect", "ridder", "toms748"):
    CASES[name] = (lambda t, n=name: getattr(so, n)(lambda x: cubic(x, t), 0.0, 3.0, xtol=1e-13), cube_root)
for method in ("BFGS", "CG", "L-BFGS-B", "trust-exact", "TNC"):
    slope = jc.grad(energy) if method in ("trust-exact",) else None
    curve = jc.hessian(energy) if method == "trust-exact" else None
    CASES[f"minimize {method}"] = (
        lambda t, m=method, j=slope, h=curve: so.minimize(energy, np.zeros(2), (t,), m, j, h, tol=1e-6).x,
        least,
    )
for options in (
    {},
    {"method": "lm"},
    {"method": "dogbox"},
    {"loss": "cauchy", "f_scale": 0.1},
    {"loss": "huber", "f_scale": 0.1},
    {"bounds": (0.0, [1.2, np.inf])},
    {"bounds": (0.0, [1.2, np.inf]), "method": "dogbox"},
):
    ours = {"loss_scale" if k == "f_scale" else k: v for k, v in options.items() if k != "method"}
    CASES[f"least_squares {options}"] = (
        lambda t, o=options: so.least_squares(misfit, [1.0, 0.5], args=(t,), **o, **TIGHT).x,
        fitted(**ours),
    )


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives(case):
    found, wanted = CASES[case]
    derivative = jc.value_and_jacobian(found)
    reference = jc.jacobian(wanted)
    for factor in (1.0, 1.05):
        value, jacobian = derivative(factor * T)
        assert np.abs(value - wanted(factor * T)).max() < 2e-6
        assert np.abs(jacobian - reference(factor * T)).max() < 2e-5


def test_references_against_differences():
    for wanted in (exact, least):
        assert np.abs(jc.jacobian(wanted)(T) - central(wanted, T)).max() < 1e-8


def test_second_derivatives():
    def root(t):
        return so.brentq(lambda x: cubic(x, t), 0.0, 3.0, xtol=1e-14)

    assert np.abs(jc.hessian(root)(T) - jc.hessian(cube_root)(T)).max() < 1e-12


REFUSED = {
    "constraints": lambda t: (
        so.minimize(energy, np.zeros(2), (t,), constraints={"type": "eq", "fun": lambda x: x[0] - 1.0}).x
    ),
    "what constraints read": lambda t: (
        so.minimize(energy, np.zeros(2), (T,), constraints={"type": "eq", "fun": lambda x: x[0] - t[0]}).x * t
    ),
    "trust-constr with bounds": lambda t: so.minimize(energy, np.zeros(2), (t,), "trust-constr", bounds=[(0, 1)] * 2).x,
    "callback": lambda t: so.minimize(energy, np.zeros(2), (t,), callback=print).x,
    "full_output": lambda t: so.brentq(lambda x: cubic(x, t), 0.0, 3.0, full_output=True)[0],
    "fsolve full_output": lambda t: so.fsolve(equations, [1.0, 1.0], (t,), full_output=True)[0],
    "fmin": lambda t: so.fmin(lambda x: energy(x, t), np.zeros(2)),
    "fmin_bfgs": lambda t: so.fmin_bfgs(lambda x: energy(x, t), np.zeros(2)),
    "basinhopping": lambda t: so.basinhopping(lambda x: energy(x, t), np.zeros(2)).x,
    "leastsq": lambda t: so.leastsq(lambda x: misfit(x, t), [1.0, 1.0])[0],
    "curve_fit of data": lambda t: so.curve_fit(lambda x, a: a * x, TIMES, DATA * t[0])[0],
    "curve_fit of a model": lambda t: so.curve_fit(lambda x, a: a * x * t[0], TIMES, DATA)[0],
    "nnls": lambda t: so.nnls(np.eye(2), t)[0],
    "linprog": lambda t: so.linprog(t, bounds=(0, 1)).x,
    "broyden1": lambda t: so.broyden1(lambda x: equations(x, t), [1.0, 1.0]),
    "approx_fprime": lambda t: so.approx_fprime(t, lambda x: energy(x, T)),
    "a frozen number": lambda t: so.root(equations, [1.0, 1.0], (t,)).nfev * t,
    "a frozen number of root_scalar": lambda t: so.root_scalar(cubic, (t,), bracket=[0.0, 3.0]).iterations * t,
    "bounds": lambda t: so.minimize(energy, np.zeros(2), (T,), bounds=[(0, t[0])] * 2).x * t,
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_never_constant(case):
    with pytest.raises(jc.JacanaError, match=r"test_scipy_optimize\.py"):
        jc.jacobian(REFUSED[case])(T)


def test_a_minimum_at_a_bound_of_a_search_that_cannot_tell():
    with pytest.raises(jc.ConvergenceError, match="ended at a bound"):
        jc.jacobian(lambda t: so.minimize_scalar(low, bounds=(3.0, 5.0), args=(t,)).x)(T)


def test_no_convergence():
    with pytest.raises(jc.ConvergenceError, match=r"scipy\.optimize\.root"):
        jc.jacobian(lambda t: so.root(lambda x: x**2 + t[0], [1.0]).x)(T)


def test_plain_problems_are_solved_by_scipy_itself():
    def plain(t):
        numbers = [
            so.brentq(lambda x: x**2 - 1, 0, 2), so.minimize(lambda x: np.sum((x - 1) ** 2), [0.0]).x[0],
            so.root(lambda x: x - 1, [0.0]).x[0], so.least_squares(lambda x: x - 1, [0.0]).x[0],
            so.minimize_scalar(lambda x: (x - 1) ** 2).x, so.fsolve(lambda x: x - 1, [0.0])[0],
            so.newton(lambda x: x - 1, 0.0), so.root_scalar(lambda x: x - 1, bracket=(0, 3)).root,
            so.fmin_bfgs(lambda x: np.sum((x - 1) ** 2), [0.0], disp=False)[0],
        ]  # fmt: skip
        return t * np.prod(numbers)

    assert np.abs(jc.jacobian(plain)(T) - np.eye(2)).max() < 1e-6
