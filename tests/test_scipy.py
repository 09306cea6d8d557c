"""SciPy's solvers with what ``jacana.scipy`` makes for them, and with plain transforms: every pair is run for real."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.integrate import odeint, solve_bvp, solve_ivp
from scipy.optimize import NonlinearConstraint, curve_fit, fsolve, least_squares, minimize, newton, root

import jacana as jc
from jacana import scipy as js

N = 120  # unknowns from which "dense or CSR" is CSR in the problems below


def residuals(x):
    """Rosenbrock's function of many variables as residuals."""
    return np.concatenate([10.0 * (x[1:] - x[:-1] ** 2), 1.0 - x[:-1]])


def chain(x):
    return 0.5 * np.sum(residuals(x) ** 2)


def bratu(u):
    """-u'' = exp(u), zero at both ends."""
    v = np.pad(u, 1)
    return (v[2:] - 2.0 * u + v[:-2]) * (len(u) + 1) ** 2 + np.exp(u)


def heat(t, u, k=2.0):
    v = np.pad(u, 1)
    return k * (v[2:] - 2.0 * u + v[:-2]) * 25.0 - u**3


def start(n):
    return 0.5 + 0.3 * np.cos(np.arange(n))


class Counted:
    """Counts the evaluations of the compiled program of a pair."""

    def __init__(self, monkeypatch):
        self.count = 0
        call = js._Matrix.__call__

        def counted(matrix, *args):
            self.count += 1
            return call(matrix, *args)

        monkeypatch.setattr(js._Matrix, "__call__", counted)


@pytest.fixture
def evaluations(monkeypatch):
    return Counted(monkeypatch)


# --- the table of solvers and formats, with plain transforms ----------------------------------------------------


@pytest.mark.parametrize("method", ["trf", "dogbox"])
@pytest.mark.parametrize("format", ["dense", "csr", "csc", "coo", "bsr", "dia", "operator"])
def test_least_squares_takes_every_format(method, format):
    fit = least_squares(residuals, start(9), jac=jc.jacobian(residuals, format=format), method=method)
    np.testing.assert_allclose(fit.x, np.ones(9), atol=1e-6)


def test_least_squares_lm_takes_dense():
    fit = least_squares(residuals, start(9), jac=jc.jacobian(residuals), method="lm")
    np.testing.assert_allclose(fit.x, np.ones(9), atol=1e-6)


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_root_takes_dense(method):
    found = root(bratu, np.zeros(6), jac=jc.jacobian(bratu), method=method)
    assert found.success
    np.testing.assert_allclose(bratu(found.x), 0.0, atol=1e-8)


@pytest.mark.parametrize("method", ["Radau", "BDF"])
@pytest.mark.parametrize("format", ["dense", "csr", "csc"])
def test_stiff_solvers_take_dense_and_sparse(method, format):
    reference = solve_ivp(heat, (0.0, 0.3), start(8), method=method, rtol=1e-7, atol=1e-9)
    found = solve_ivp(
        heat, (0.0, 0.3), start(8), method=method, rtol=1e-7, atol=1e-9, jac=jc.jacobian(heat, argnums=1, format=format)
    )
    assert found.success
    np.testing.assert_allclose(found.y[:, -1], reference.y[:, -1], rtol=1e-5)


def test_lsoda_takes_dense():
    found = solve_ivp(heat, (0.0, 0.3), start(8), method="LSODA", jac=jc.jacobian(heat, argnums=1))
    assert found.success


def test_boundary_values_by_a_batch_of_jacobians():
    # y'' = -exp(y), zero at both ends: y = 2 log(cosh(b/4) / cosh(b/2 (x - 1/2))), b = sqrt(2) cosh(b/4).
    def slope(y):
        return np.array([y[1], -np.exp(y[0])])

    def ends(a, b):
        return np.array([a[0], b[0]])

    found = solve_bvp(
        lambda x, y: np.stack([y[1], -np.exp(y[0])]),
        ends,
        np.linspace(0.0, 1.0, 11),
        np.zeros((2, 11)),
        fun_jac=lambda x, y: np.moveaxis(jc.vmap(jc.jacobian(slope))(y.T), 0, -1),
        bc_jac=jc.jacobian(ends, argnums=(0, 1)),
        tol=1e-8,
    )
    b = fsolve(
        lambda b: b - np.sqrt(2.0) * np.cosh(b / 4),
        1.5,
        fprime=jc.jacobian(lambda b: b - np.sqrt(2.0) * np.cosh(b / 4)),
    )
    assert found.success
    np.testing.assert_allclose(found.sol(0.5)[0], 2.0 * np.log(np.cosh(b[0] / 4)), atol=1e-7)


def test_halleys_method_and_odeint_take_plain_transforms():
    def f(x):
        return np.cos(x) - x

    found, info = newton(f, 1.0, fprime=jc.grad(f), fprime2=jc.hessian(f), full_output=True)
    assert info.iterations <= 4
    assert abs(np.cos(found) - found) < 1e-14
    y = odeint(heat, start(6), [0.0, 0.1], Dfun=jc.jacobian(heat, argnums=1), tfirst=True, rtol=1e-9, atol=1e-11)[-1]
    np.testing.assert_allclose(
        y, solve_ivp(heat, (0.0, 0.1), start(6), "Radau", rtol=1e-9, atol=1e-11).y[:, -1], atol=1e-7
    )


@pytest.mark.parametrize("method", ["trust-constr", "Newton-CG"])
@pytest.mark.parametrize("format", ["dense", "csr", "operator"])
def test_minimize_takes_sparse_hessians(method, format):
    options = {"maxiter": 400}
    found = minimize(
        chain, start(6), jac=jc.grad(chain), hess=jc.hessian(chain, format=format), method=method, options=options
    )
    np.testing.assert_allclose(found.x, np.ones(6), atol=1e-3)


@pytest.mark.parametrize("method", ["trust-exact", "trust-krylov", "trust-ncg"])
def test_minimize_takes_dense_hessians(method):
    found = minimize(chain, start(6), jac=jc.grad(chain), hess=jc.hessian(chain), method=method)
    np.testing.assert_allclose(found.x, np.ones(6), atol=1e-4)


@pytest.mark.parametrize("method", ["trust-constr", "SLSQP"])
@pytest.mark.parametrize("format", ["dense", "csr"])
def test_constraints_take_dense_and_sparse(method, format):
    def products(x):
        return x[1:] * x[:-1]

    bound = NonlinearConstraint(products, 0.3, 0.5, jac=jc.jacobian(products, format=format))
    found = minimize(chain, start(5), jac=jc.grad(chain), constraints=bound, method=method)
    assert np.all(products(found.x) < 0.5 + 1e-6)


# --- least_squares ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["trf", "dogbox", "lm"])
@pytest.mark.parametrize("n", [5, N])
def test_least_squares_args(method, n, evaluations):
    args = js.least_squares_args(residuals, method)
    fit = least_squares(x0=start(n), **args)
    assert fit.success
    np.testing.assert_allclose(fit.x, np.ones(n), atol=1e-4)
    J = args["jac"](fit.x)
    assert isinstance(J, sp.csr_array if n == N and method != "lm" else np.ndarray)
    if method != "lm":
        # One evaluation for each value: no Jacobian cost one of its own (but ours, just now).
        assert evaluations.count - 1 == fit.nfev
        assert fit.njev > 2


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy"])
@pytest.mark.parametrize("n", [5, 20])
def test_robust_losses_write_into_the_jacobian_that_they_are_given(loss, n):
    options = {"loss": loss, "x_scale": 1.0, "max_nfev": 12}
    plain = least_squares(residuals, start(n), jac=jc.jacobian(residuals), **options)
    shared = least_squares(x0=start(n), **options, **js.least_squares_args(residuals, format="dense"))
    np.testing.assert_array_equal(plain.x, shared.x)


def test_least_squares_with_an_operator():
    fit = least_squares(x0=start(40), **js.least_squares_args(residuals, format="operator"))
    np.testing.assert_allclose(fit.x, np.ones(40), atol=1e-4)


def test_least_squares_with_arguments_and_bounds():
    def model(p, t, y):
        return p[0] * np.exp(-p[1] * t) - y

    t = np.linspace(0.0, 1.0, 30)
    fit = least_squares(
        x0=[1.0, 0.5],
        args=(t, 2.0 * np.exp(-3.0 * t)),
        bounds=([0.0, 0.0], [5.0, 5.0]),
        **js.least_squares_args(model),
    )
    np.testing.assert_allclose(fit.x, [2.0, 3.0], rtol=1e-6)


def test_residuals_of_several_axes_become_a_vector():
    fun, jac = js.fun_and_jac(lambda x: np.outer(x, x) - np.eye(3))
    assert fun(np.ones(3)).shape == (9,)
    assert jac(np.ones(3)).shape == (9, 3)
    assert least_squares(fun, [1.0, 0.5, 0.2], jac=jac).success


# --- sharing ----------------------------------------------------------------------------------------------------


def test_value_and_jacobian_come_from_one_evaluation(evaluations):
    fun, jac = js.fun_and_jac(residuals, format="csr")
    x = start(7)
    for k in range(1, 4):
        x[0] += 1.0  # the same array, another point
        np.testing.assert_array_equal(fun(x), residuals(x))
        np.testing.assert_array_equal(jac(x).toarray(), jc.jacobian(residuals)(x))
        assert evaluations.count == k
    jac(x)  # asked for again: computed again, so that nobody gets what somebody else may have written into
    assert evaluations.count == 4
    fun(x)
    jac(x + 1.0)
    jac(x)
    assert evaluations.count == 7


def test_zero_and_minus_zero_are_two_points():
    fun, jac = js.fun_and_jac(lambda x: np.arctan2(x, -1.0), format="dense")
    fun(np.array([0.0]))
    assert fun(np.array([-0.0])) == -np.pi
    assert fun(np.array([0.0])) == np.pi
    jac(np.array([-0.0]))


def test_data_that_change_between_runs_are_seen():
    data = np.ones(3)
    fun, jac = js.fun_and_jac(lambda x: x * data, format="dense")
    x = np.ones(3)
    fun(x), jac(x)
    data[:] = 5.0
    np.testing.assert_array_equal(jac(x), 5.0 * np.eye(3))
    np.testing.assert_array_equal(fun(x), [5.0, 5.0, 5.0])


def test_other_arguments_are_another_point(evaluations):
    fun, jac = js.fun_and_jac(lambda x, a: a * x**2, format="dense")
    x, a, b = np.ones(2), np.array(2.0), np.array(3.0)
    fun(x, a)
    np.testing.assert_array_equal(jac(x, b), 6.0 * np.eye(2))
    fun(x, a)
    np.testing.assert_array_equal(jac(x, a), 4.0 * np.eye(2))
    assert evaluations.count == 3


def test_threads_do_not_take_each_others_points():
    fun, jac = js.fun_and_jac(residuals, format="csr")
    plain = jc.jacobian(residuals, format="csr")
    ready = threading.Barrier(4)

    def work(k):
        ready.wait()
        for j in range(50):
            x = start(11) + 0.01 * (4 * j + k)
            np.testing.assert_array_equal(fun(x), residuals(x))
            np.testing.assert_array_equal(jac(x).data, plain(x).data)
        return k

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]


def test_what_a_solver_gets_is_its_own():
    fun, jac = js.fun_and_jac(residuals, format="csr")
    x = start(5)
    for _ in range(2):
        y, J = fun(x), jac(x)
        np.testing.assert_array_equal(y, residuals(x))
        np.testing.assert_array_equal(J.toarray(), jc.jacobian(residuals)(x))
        y *= 0.0
        J.data *= 0.0


# --- inputs -----------------------------------------------------------------------------------------------------


def test_read_only_and_strided_points():
    x = np.asfortranarray(np.stack([start(6), start(6)], axis=1))[:, 0]
    frozen = start(6)
    frozen.flags.writeable = False
    strided = np.repeat(start(6), 2)[::2]
    for point in (x, frozen, strided, list(start(6))):
        fun, jac = js.fun_and_jac(residuals)
        np.testing.assert_array_equal(fun(point), residuals(start(6)))
        np.testing.assert_array_equal(jac(point), jc.jacobian(residuals)(start(6)))
    fit = least_squares(x0=frozen, **js.least_squares_args(residuals))
    np.testing.assert_allclose(fit.x, np.ones(6), atol=1e-6)


def test_float32_points():
    x = start(6).astype(np.float32)
    fun, jac = js.fun_and_jac(residuals)
    assert fun(x).dtype == jac(x).dtype == np.float32
    for args in (js.least_squares_args(residuals), js.least_squares_args(residuals, "lm")):
        np.testing.assert_allclose(least_squares(x0=x, **args).x, np.ones(6), atol=1e-4)
    assert root(x0=np.zeros(4, np.float32), **js.root_args(bratu)).success
    jac = js.jac_for_ivp(heat)
    assert solve_ivp(heat, (0.0, 0.1), x, method="Radau", jac=jac).success


def test_integer_points_become_floats():
    fun, jac = js.fun_and_jac(lambda x: x**2)
    np.testing.assert_array_equal(jac([1, 2, 3]), np.diag([2.0, 4.0, 6.0]))
    assert fun([1, 2, 3]).dtype == np.float64


def test_dense_jacobians_are_c_ordered():
    _, jac = js.fun_and_jac(lambda x: np.outer(x, x[:2]).T, format="dense")
    J = jac(start(4))
    assert J.flags.c_contiguous
    assert J.flags.writeable


# --- root, minimize ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_root_args(method):
    found = root(x0=np.zeros(7), **js.root_args(bratu, method))
    assert found.success
    np.testing.assert_allclose(bratu(found.x), 0.0, atol=1e-8)


SHARED = ["trust-constr", "trust-exact", "dogleg", "BFGS", "L-BFGS-B", "SLSQP", "TNC"]  # ask for each point in turn
METHODS = ["trust-constr", "Newton-CG", "trust-ncg", "trust-krylov", "trust-exact", "dogleg"]


@pytest.mark.parametrize("method", [*METHODS, "BFGS", "CG", "L-BFGS-B", "TNC", "SLSQP"])
def test_minimize_args(method, monkeypatch):
    def bowl(x, a):
        return np.sum(np.cosh(x - a)) + 0.1 * np.sum((x[1:] - x[:-1]) ** 2)

    count = [0]
    call = jc.transforms.Transformed.__call__

    def counted(transformed, *args):
        count[0] += transformed._replay.verb == "value_and_grad"
        return call(transformed, *args)

    monkeypatch.setattr(jc.transforms.Transformed, "__call__", counted)
    args = js.minimize_args(bowl, method)
    assert ("hess" in args) == (method in METHODS)
    found = minimize(x0=start(6), args=(np.linspace(0.0, 1.0, 6),), **args)
    assert found.success, found.message
    np.testing.assert_allclose(jc.grad(bowl)(found.x, np.linspace(0.0, 1.0, 6)), 0.0, atol=1e-3)
    # Gradients cost nothing beside the values, except at points to which a line search goes back.
    assert count[0] <= found.nfev + (0 if method in SHARED else found.get("njev", 0))


@pytest.mark.parametrize(("method", "kind"), [("trust-constr", sp.csr_array), ("trust-exact", np.ndarray)])
def test_the_format_of_a_hessian_is_the_one_that_the_method_takes(method, kind):
    args = js.minimize_args(chain, method)
    H = args["hess"](start(N))
    assert isinstance(H, kind)
    H = H.toarray() if sp.issparse(H) else H
    np.testing.assert_allclose(H, jc.hessian(chain)(start(N)))
    assert isinstance(args["fun"](start(N)), float)


def test_a_low_rank_jacobian_is_a_matrix_all_the_same(monkeypatch):
    """Where ``format="auto"`` would keep factors apart, which solvers that factorise do not take."""
    monkeypatch.setattr(jc.results, "AUTO_OPERATOR", 1000)

    def f(t, y):
        return -y + 1e-3 * np.sum(y**2) * np.ones(100)

    assert not hasattr(jc.jacobian(f, argnums=1, format="auto")(0.0, np.ones(100)), "tocsr")
    jac = js.jac_for_ivp(f)
    for _ in range(2):
        assert isinstance(jac(0.0, np.ones(100)), sp.csr_array)
    np.testing.assert_allclose(jac(0.0, np.ones(100)).toarray(), 2e-3 * np.ones((100, 100)) - np.eye(100))


# --- solve_ivp --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Radau", "BDF", "LSODA"])
@pytest.mark.parametrize("n", [6, N])
def test_jac_for_ivp(method, n):
    jac = js.jac_for_ivp(heat, method)
    y = start(n)
    J = jac(0.0, y)
    assert isinstance(J, sp.csr_array if n == N and method != "LSODA" else np.ndarray)
    found = solve_ivp(heat, (0.0, 0.2), y, method=method, jac=jac, rtol=1e-8, atol=1e-10)
    reference = solve_ivp(heat, (0.0, 0.2), y, method="RK45", rtol=1e-9, atol=1e-11)
    assert found.success
    np.testing.assert_allclose(found.y[:, -1], reference.y[:, -1], atol=1e-6)


def test_jac_for_ivp_with_arguments():
    jac = js.jac_for_ivp(heat)
    found = solve_ivp(heat, (0.0, 0.2), start(6), method="Radau", jac=jac, args=(0.5,))
    assert found.success
    np.testing.assert_allclose(jac(0.0, start(6), 0.5)[0, 1], 0.5 * 25.0)


# --- curve_fit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lm", "trf", "dogbox"])
def test_curve_fit(method):
    def model(t, a, b, c):
        return a * np.exp(-b * t) + c

    t = np.linspace(0.0, 2.0, 40)
    y = model(t, 2.0, 3.0, 0.5) + 1e-3 * np.cos(7.0 * np.arange(40))
    jac = js.curve_fit_jac(model)
    assert jac(t, 2.0, 3.0, 0.5).shape == (40, 3)
    reference, spread = curve_fit(model, t, y, p0=[1.0, 1.0, 0.0], sigma=np.full(40, 1e-3), absolute_sigma=True)
    found, covariance = curve_fit(
        model, t, y, p0=[1.0, 1.0, 0.0], sigma=np.full(40, 1e-3), absolute_sigma=True, jac=jac, method=method
    )
    np.testing.assert_allclose(found, reference, rtol=1e-6)
    np.testing.assert_allclose(covariance, spread, rtol=1e-4)


def test_curve_fit_of_several_variables_follows_what_the_model_reads():
    scale = np.array([1.0, 2.0])

    def model(xy, a, b):
        return scale[0] * a * xy[0] + scale[1] * b * xy[1] ** 2

    xy = np.stack([start(9), np.linspace(0.0, 1.0, 9)])
    jac = js.curve_fit_jac(model)
    for _ in range(2):
        np.testing.assert_allclose(jac(xy, 1.0, 1.0), np.stack([scale[0] * xy[0], scale[1] * xy[1] ** 2], axis=1))
        found = curve_fit(model, xy, model(xy, 3.0, -1.0), p0=[0.0, 0.0], jac=jac)[0]
        np.testing.assert_allclose(found, [3.0, -1.0], rtol=1e-8)
        scale[0] = 4.0


# --- constraints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["trust-constr", "SLSQP"])
@pytest.mark.parametrize("format", [None, "dense", "csr"])
def test_constraint(method, format):
    bound = js.constraint(lambda x: x[1:] * x[:-1], 0.3, 0.5, method, format=format)
    assert isinstance(bound, NonlinearConstraint)
    found = minimize(x0=start(5), constraints=bound, **js.minimize_args(chain, method))
    reference = minimize(chain, start(5), constraints=NonlinearConstraint(bound.fun, 0.3, 0.5), method="SLSQP")
    np.testing.assert_allclose(found.fun, reference.fun, rtol=1e-4)
    assert np.all(bound.fun(found.x) < 0.5 + 1e-6)


@pytest.mark.parametrize("n", [5, N])
def test_the_hessian_of_a_constraint_is_weighted(n):
    def f(x):
        return np.sin(x[1:]) * x[:-1] ** 2

    bound = js.constraint(f, 0.0, np.inf, keep_feasible=True)
    x, v = start(n), np.linspace(-1.0, 2.0, n - 1)
    H = bound.hess(x, v)
    assert isinstance(H, sp.csr_array if n == N else np.ndarray)
    expected = np.einsum("k,kij->ij", v, jc.jacobian(jc.jacobian(f))(x))
    np.testing.assert_allclose(H.toarray() if n == N else H, expected, atol=1e-12)
    if n == N:
        assert H.nnz == 3 * n - 2
        assert bound.jac(x).nnz == 2 * (n - 1)
    assert bound.keep_feasible


def test_a_scalar_constraint():
    ball = js.constraint(lambda x: x @ x, -np.inf, 1.0)
    assert ball.jac(start(3)).shape == (1, 3)
    np.testing.assert_allclose(ball.hess(start(3), np.array([2.0])), 4.0 * np.eye(3))
    for method in ("trust-constr", "SLSQP"):
        ball = js.constraint(lambda x: x @ x, -np.inf, 1.0, method)
        found = minimize(x0=np.full(3, 0.1), constraints=ball, **js.minimize_args(lambda x: np.sum(x), method))
        np.testing.assert_allclose(found.x, np.full(3, -(3**-0.5)), atol=1e-3)


def test_a_constraint_follows_what_the_function_reads():
    scale = np.array([1.0, 1.0])
    bound = js.constraint(lambda x: scale * x**2, 0.0, 1.0)
    x, v = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    np.testing.assert_allclose(bound.hess(x, v), np.diag([2.0, 2.0]))
    scale[1] = 5.0
    np.testing.assert_allclose(bound.hess(x, v), np.diag([2.0, 10.0]))
    np.testing.assert_allclose(bound.jac(x), np.diag([2.0, 20.0]))


# --- refusals ---------------------------------------------------------------------------------------------------


def test_what_a_solver_does_not_take_is_refused_beforehand():
    with pytest.raises(jc.InvalidInputError, match="dense Jacobians only"):
        js.least_squares_args(residuals, "lm", format="csr")
    with pytest.raises(jc.InvalidInputError, match="dense Jacobians only"):
        js.jac_for_ivp(heat, "LSODA", format="csr")
    with pytest.raises(jc.InvalidInputError, match="Radau, BDF, LSODA, not 'RK45'"):
        js.jac_for_ivp(heat, "RK45")
    with pytest.raises(jc.InvalidInputError, match="hybr, lm, not 'krylov'"):
        js.root_args(bratu, "krylov")
    with pytest.raises(jc.InvalidInputError, match="not 'Nelder-Mead'"):
        js.minimize_args(chain, "Nelder-Mead")
    with pytest.raises(jc.InvalidInputError, match="trust-constr, SLSQP, not 'COBYLA'"):
        js.constraint(residuals, 0.0, 1.0, "COBYLA")
    with pytest.raises(jc.InvalidInputError, match="format must be one of"):
        js.fun_and_jac(residuals, format="lil")
    assert js.minimize_args(chain, "l-bfgs-b")["method"] == "L-BFGS-B"


def test_importing_jacana_does_not_import_scipys_solvers():
    code = "import sys, jacana; assert 'scipy.optimize' not in sys.modules; jacana.scipy.fun_and_jac; print('lazy')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "lazy\n"


def test_first_calls_import_only_what_they_use():
    # Looking at everything that NumPy and SciPy have imports their lazy submodules, which takes longer than most plans.
    code = (
        "import sys, numpy as np, jacana as jc; f = lambda x: x[1:] * x[:-1]; jc.jacobian(f)(np.ones(4));"
        "print([m for m in ('numpy.f2py', 'numpy.testing', 'scipy.sparse', 'llvmlite') if m in sys.modules]);"
        "import scipy.sparse; known = set(sys.modules); jc.jacobian(f, format='csr')(np.ones(4));"
        "print([m for m in set(sys.modules) - known if not m.startswith('jacana.')])"
    )
    chosen = {**os.environ, "JACANA_EXECUTOR": "auto"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=chosen)
    assert found.stdout == "[]\n[]\n"
