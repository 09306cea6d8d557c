"""The functions of scipy.special: recorded under their ufuncs, derivatives against differences and mpmath."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import scipy.special as sc
from record_helpers import check

import jacana as jc
from jacana.graph.node import REGISTRY
from jacana.graph.ops import special_families, special_several
from jacana.graph.ops.special import SPECIAL, special_name

assert special_families and special_several
KNOWN = {known.ufunc.__name__: known for known in SPECIAL.values() if isinstance(known.ufunc, np.ufunc)}


def points(known, count=5, seed=0):
    rng = np.random.default_rng(seed)
    result = []
    for k, (low, high) in enumerate(known.operation.domain):
        value = rng.uniform(low, high, count)
        result.append(np.round(value).astype(int) if k in known.integers else value)
    return result


def free(known):
    return [k for k in range(known.ufunc.nin) if k not in known.fixed]


def differences(function, x, step=1e-3):
    """Of an elementwise function, to the sixth order."""
    total = sum(w * (function(x + k * step) - function(x - k * step)) for k, w in ((1, 45), (2, -9), (3, 1)))
    return total / (60 * step)


def test_there_are_many():
    assert len(KNOWN) >= 125


@pytest.mark.parametrize("name", KNOWN)
def test_value_and_replay(name):
    known = KNOWN[name]
    values = points(known)
    for k in free(known):
        # One operand recorded, the others numbers.
        function = lambda x, k=k: known.ufunc(*(x if j == k else v for j, v in enumerate(values)))  # noqa: E731
        check(function, values[k], others=[values[k] * 0.999 + 0.001 * np.mean(values[k])])


@pytest.mark.parametrize("name", KNOWN)
def test_derivatives(name):
    known = KNOWN[name]
    values = points(known)
    for k in free(known):
        function = lambda x, k=k: known.ufunc(*(x if j == k else v for j, v in enumerate(values)))  # noqa: E731
        if not known.operation.smooth:
            assert jc.jacobian(function, format="csr")(values[k]).nnz == 0
            continue
        if name == "huber":
            continue  # has a kink: see test_huber
        step = 1e-3 * min(1.0, known.operation.domain[k][1] - known.operation.domain[k][0])
        want = differences(function, values[k], step)
        scale = np.maximum(1.0, np.abs(want))
        J = jc.jacobian(function, format="csr")(values[k])
        assert J.nnz == 5
        np.testing.assert_allclose(J.diagonal() / scale, want / scale, atol=2e-9, err_msg=f"{name} by {k}")
        if name in ("hyp0f1", "hyp1f1", "hyp2f1") and k < known.ufunc.nin - 1:
            with pytest.raises(jc.UnsupportedOperationError, match=rf"{name}_by_parameter by its argument {k}"):
                jc.hessian(lambda x, function=function: np.sum(function(x)))(values[k])
            continue
        slope = lambda x, function=function: jc.grad(lambda x: np.sum(function(x)))(x)  # noqa: E731
        want = differences(slope, values[k], step)
        scale = np.maximum(1.0, np.abs(want))
        found = jc.hessian(lambda x, function=function: np.sum(function(x)))(values[k])
        np.testing.assert_allclose(np.diag(found) / scale, want / scale, atol=2e-8, err_msg=f"{name} twice by {k}")


AT = [(name, k) for name, known in KNOWN.items() for k in range(len(known.operation.special))]


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")
@pytest.mark.parametrize(("name", "row"), AT)
def test_special_points(name, row):
    known = KNOWN[name]
    at, partials = known.operation.special[row]
    for k, want in enumerate(partials):
        if want is None or k in known.fixed:
            continue
        function = lambda x, k=k: known.ufunc(*(x if j == k else np.full(2, v) for j, v in enumerate(at)))  # noqa: E731
        found = jc.jacobian(function)(np.full(2, at[k]))
        np.testing.assert_allclose(np.diag(found), [want] * 2, rtol=1e-14, atol=1e-15)


MPMATH = {
    "gamma": mp.gamma, "gammaln": mp.loggamma, "psi": mp.digamma, "rgamma": mp.rgamma, "erf": mp.erf, "erfc": mp.erfc,
    "erfinv": mp.erfinv, "erfi": mp.erfi, "ndtr": mp.ncdf, "expi": mp.ei, "exp1": mp.e1,
    "j0": lambda x: mp.besselj(0, x), "j1": lambda x: mp.besselj(1, x), "y0": lambda x: mp.bessely(0, x),
    "y1": lambda x: mp.bessely(1, x), "i0": lambda x: mp.besseli(0, x), "i1": lambda x: mp.besseli(1, x),
    "k0": lambda x: mp.besselk(0, x), "k1": lambda x: mp.besselk(1, x), "ellipk": mp.ellipk, "ellipe": mp.ellipe,
    "ber": lambda x: mp.ber(0, x), "bei": lambda x: mp.bei(0, x), "ker": lambda x: mp.ker(0, x),
    "kei": lambda x: mp.kei(0, x), "spence": lambda x: mp.polylog(2, 1 - x), "expit": lambda x: 1 / (1 + mp.exp(-x)),
    "exprel": lambda x: mp.expm1(x) / x,
}  # fmt: skip


@pytest.mark.parametrize("name", MPMATH)
def test_against_mpmath(name):
    (x,) = points(KNOWN[name], seed=4)
    with mp.workdps(40):
        want = [float(mp.re(mp.diff(MPMATH[name], mp.mpf(v)))) for v in x]
    np.testing.assert_allclose(jc.jacobian(KNOWN[name].ufunc, format="csr")(x).diagonal(), want, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("x", [0.0, 1e-12, 1e-5, 0.04, 0.06, -0.03, -1.0, 3.0])
def test_exprel_near_zero(x):
    with mp.workdps(60):
        want = float(mp.diff(lambda t: mp.nsum(lambda n: t**n / mp.factorial(n + 1), [0, 60]), mp.mpf(x)))
    np.testing.assert_allclose(jc.grad(sc.exprel)(x), want, rtol=2e-14)


def test_huber():
    delta, r = np.array([1.0, 1.0, 0.5]), np.array([0.3, -2.0, 0.9])
    np.testing.assert_array_equal(jc.jacobian(sc.huber, format="csr", argnums=1)(delta, r).diagonal(), [0.3, -1.0, 0.5])
    np.testing.assert_allclose(jc.jacobian(sc.huber)(delta, r).diagonal(), [0.0, 1.0, 0.4], rtol=1e-15)


def test_fixed_arguments_are_refused_rather_than_zero():
    for name, known in KNOWN.items():
        values = points(known)
        for k in set(known.fixed) - set(known.integers):

            def function(x, k=k, known=known, values=values):
                return known.ufunc(*(x if j == k else v for j, v in enumerate(values)))

            with pytest.raises(jc.UnsupportedOperationError, match=rf"scipy\.special\.{name} by its argument {k}"):
                jc.jacobian(function)(values[k])


def test_unknown_ufuncs_are_refused():
    with pytest.raises(jc.UnsupportedOperationError, match="mathieu_a"):
        jc.jacobian(lambda q: sc.mathieu_a(2, q))(np.array([1.0]))


def test_dtypes_and_broadcasting():
    x = np.array([[0.5], [1.5]], dtype=np.float32)
    check(sc.gammaln, x)
    check(lambda x: sc.beta(x, np.float32(2.0)), x)
    J = jc.jacobian(lambda a: sc.xlogy(a, np.array([1.0, 2.0, 3.0])))(np.array([[0.5], [1.5]]))
    np.testing.assert_allclose(J[:, :, :, 0], np.eye(2)[:, None, :] * np.log([1.0, 2.0, 3.0])[:, None])
    J = jc.jacobian(lambda z: sc.jn(2, z) + sc.eval_legendre(3, z) + sc.expn(2, z))(np.array([0.5]))
    assert J.shape == (1, 1)


def test_names_of_records():
    assert REGISTRY[special_name("gamma")] is SPECIAL[sc.gamma].operation
