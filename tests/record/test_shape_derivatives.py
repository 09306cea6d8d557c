"""Incomplete gamma and beta functions by their parameters, and what is made of them, against mpmath and differences."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import scipy
import scipy.special as sc
from scipy import stats

import jacana as jc
from jacana.graph.ops.shape_derivatives import beta_density, betainc_by_shapes, gamma_density, gammainc_by_shape

SHAPES = [1e-3, 0.04, 0.7, 1.0, 3.3, 30.0, 700.0, 1e4]


def differences(function, x, orders, digits=18):
    """Central differences of a function that mpmath knows to many digits."""
    steps = [mp.mpf(10) ** -digits * v for v in x]
    weights = {0: {0: 1}, 1: {1: mp.mpf(1) / 2, -1: -mp.mpf(1) / 2}, 2: {1: 1, 0: -2, -1: 1}}
    total = mp.mpf(0)
    for i, u in weights[orders[0]].items():
        for j, v in (weights[orders[1]] if len(x) > 1 else {0: 1}).items():
            at = [x[0] + i * steps[0], *([x[1] + j * steps[1]] if len(x) > 1 else [])]
            total += u * v * function(*at)
    return total / mp.fprod(h**n for h, n in zip(steps, orders, strict=True))


def gamma_reference(n, a, x):
    a, x = mp.mpf(a), mp.mpf(x)
    if x < a:
        return differences(lambda a: mp.gammainc(a, 0, x, regularized=True), [a], [n])
    return -differences(lambda a: mp.gammainc(a, x, mp.inf, regularized=True), [a], [n])


def beta_reference(orders, a, b, x):
    a, b, x = mp.mpf(a), mp.mpf(b), mp.mpf(x)
    below = x * b < a * (1 - x)

    def share(a, b):  # of the side where it is small (DLMF 8.17.7 and 15.8.1)
        lead = x**a * (1 - x) ** b / mp.beta(a, b)
        if below:
            return lead * mp.hyp2f1(a + b, 1, a + 1, x) / a
        return -lead * mp.hyp2f1(a + b, 1, b + 1, 1 - x) / b

    return differences(share, [a, b], orders, 14)


def gamma_points(a):
    around = [a + k * np.sqrt(a) for k in (-6, -2, -0.1, 0.4, 2, 8)]
    points = np.array([1e-7, 1e-3, 0.3, 1.4999, 1.5001, 4.0, *(x for x in around if x > 0), 2.0 * a + 30.0])
    return points[a * np.log(points) - points - sc.gammaln(a + 1) > -600]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("a", SHAPES)
def test_incomplete_gamma_by_its_shape(a, order):
    x = gamma_points(a)
    found = gammainc_by_shape(order, np.full_like(x, a), x)
    with mp.workdps(60):
        wanted = [gamma_reference(order, a, v) for v in x]
        worst = max(abs(v - w) / abs(w) for v, w in zip(found, wanted, strict=True) if abs(w) > 1e-290)
    # The second one crosses zero: relative to what it is beside that.
    assert worst < (2e-13 if order == 1 else 1e-11)


@pytest.mark.parametrize("orders", [(1, 0), (0, 1), (1, 1), (2, 0), (0, 2)])
@pytest.mark.parametrize("a", SHAPES[::2])
def test_incomplete_beta_by_its_shapes(a, orders):
    rng = np.random.default_rng(7)
    b = np.repeat([0.05, 1.3, 30.0, 1e4], 6)
    mean, count = a / (a + b), a + b
    wide = np.sqrt(mean * (1 - mean) / (count + 1)) * rng.normal(size=b.size) * 2
    x = np.where(np.arange(b.size) % 3 == 0, sc.expit(rng.uniform(-25, 25, b.size)), mean + wide)
    x = np.clip(x, 1e-11, 1 - 1e-11)
    found = betainc_by_shapes(*orders, np.full_like(b, a), b, x, 1 - x)
    with mp.workdps(50):
        wanted = np.array([float(beta_reference(orders, a, *v)) for v in zip(b, x, strict=True)])
    seen = np.abs(wanted) > 1e-250
    assert np.sum(seen) > 12
    np.testing.assert_allclose(found[seen], wanted[seen], rtol=5e-13 if sum(orders) == 1 else 2e-10)


def of_gamma(a, x):
    return mp.exp((a - 1) * mp.log(x) - x - mp.loggamma(a))


def of_beta(a, b, x):
    return x ** (a - 1) * (1 - x) ** (b - 1) / mp.beta(a, b)


@pytest.mark.parametrize("a", SHAPES)
def test_densities(a):
    x = gamma_points(a)
    with mp.workdps(40):
        for n in (0, 1, 2):
            wanted = np.array([float(mp.diff(lambda a, v=v: of_gamma(a, mp.mpf(v)), mp.mpf(a), n)) for v in x])
            seen = np.abs(wanted) > 1e-290
            found = gamma_density(n, np.full_like(x, a), x)
            scale = np.abs(wanted) + (n > 0) * gamma_density(0, np.full_like(x, a), x) * a ** (-n / 2)
            assert np.max(np.abs(found - wanted)[seen] / scale[seen]) < 1e-12
        x = sc.expit(np.array([-9.0, -1.0, 0.2, 3.0]))
        for m, n in ((0, 0), (1, 0), (0, 1), (1, 1)):
            at = (mp.mpf(a), mp.mpf(2.5))
            wanted = [float(mp.diff(lambda a, b, v=v: of_beta(a, b, mp.mpf(v)), at, (m, n))) for v in x]
            found = beta_density(m, n, np.full_like(x, a), np.full_like(x, 2.5), x, 1 - x)
            np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-280)


def test_ends_and_what_is_no_number():
    inf, nan = np.inf, np.nan
    a = np.array([0.0, 2.0, 2.0, inf, -1.0, nan, 2.0, 0.0, 0.0])
    x = np.array([3.0, 0.0, inf, 3.0, 1.0, 1.0, nan, 0.0, 1.2])
    wanted = [-mp.e1(3), 0.0, 0.0, 0.0, nan, nan, nan, nan, -mp.e1(1.2)]
    np.testing.assert_allclose(gammainc_by_shape(1, a, x), np.array(wanted, dtype=float), rtol=1e-14)
    one = np.ones(4)
    x = np.array([0.0, 1.0, nan, 1.5])
    np.testing.assert_array_equal(betainc_by_shapes(1, 0, 2 * one, 3 * one, x, 1 - x), [0.0, 0.0, nan, nan])
    assert gammainc_by_shape(1, np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    assert gammainc_by_shape(1, np.float32(2.0), np.float32(3.0)).dtype == np.float32
    assert betainc_by_shapes(1, 0, *np.full((4, 2, 5), 0.5)[:, :, ::2]).shape == (2, 3)


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")
@pytest.mark.parametrize("executor", ["numpy", "native"] if jc.native_available() else ["numpy"])
def test_at_the_ends_of_the_support(executor):
    inf = np.inf
    with jc.executor(executor):
        both = jc.grad(lambda v: sc.gammainc(v[0], v[1]))
        np.testing.assert_array_equal(both(np.array([2.5, 0.0])), [0.0, 0.0])
        np.testing.assert_array_equal(both(np.array([1.0, 0.0])), [0.0, 1.0])
        np.testing.assert_array_equal(both(np.array([0.5, 0.0])), [0.0, inf])
        np.testing.assert_array_equal(jc.hessian(lambda x: sc.gammainc(2.5, x))(0.0), 0.0)
        np.testing.assert_array_equal(jc.hessian(lambda x: sc.gammainc(2.0, x))(0.0), 1.0)
        np.testing.assert_array_equal(jc.hessian(lambda x: sc.gammainc(1.5, x))(0.0), inf)
        np.testing.assert_array_equal(jc.hessian(lambda x: sc.gammainc(1.0, x))(0.0), -1.0)
        np.testing.assert_array_equal(jc.hessian(lambda x: sc.gammainc(0.5, x))(0.0), -inf)
        np.testing.assert_array_equal(jc.hessian(lambda v: sc.gammainc(v[0], v[1]))(np.array([2.5, 0.0])), 0.0)
        curves = jc.hessian(lambda x: sc.betainc(x[0], x[1], x[2]))
        np.testing.assert_array_equal(curves(np.array([2.5, 3.5, 0.0])), 0.0)
        np.testing.assert_array_equal(curves(np.array([2.5, 3.5, 1.0])), 0.0)
        slopes = [[0.0, 0.0, -inf], [0.0, 0.0, 1.0], [-inf, 1.0, -6.0]]  # of x near zero it is 1 - (1 - x)^3
        np.testing.assert_array_equal(curves(np.array([1.0, 3.0, 0.0])), slopes)
        np.testing.assert_array_equal(jc.hessian(lambda x: sc.betainc(2.0, 3.0, x))(0.0), 12.0)
        np.testing.assert_array_equal(jc.hessian(lambda x: sc.betainc(3.0, 2.0, x))(1.0), -12.0)
        for function in (sc.gammaincinv, lambda a, p: sc.betaincinv(a, 2.0, p), sc.chdtri):
            assert jc.grad(function)(3.0, 0.0 if function is not sc.chdtri else 1.0) == 0.0


def test_third_derivatives():
    f = lambda v: sc.betainc(v[0], v[1], v[2]) * sc.gammainc(v[1], v[0] + v[2])  # noqa: E731
    at = np.array([1.3, 2.2, 0.4])
    step = 1e-3
    rows = [
        sum(w * (jc.hessian(f)(at + k * step * e) - jc.hessian(f)(at - k * step * e)) for k, w in ((1, 8), (2, -1)))
        / (12 * step)
        for e in np.eye(3)
    ]
    third = jc.jacobian(jc.hessian(f))(at)
    np.testing.assert_allclose(np.moveaxis(third, -1, 0), rows, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(third, third.transpose(2, 0, 1), rtol=1e-11, atol=1e-13)


def test_batches_and_dtypes():
    a = np.array([[0.5, 1.5, 2.5], [3.0, 8.0, 0.1]])
    x = np.array([0.3, 1.0, 2.0])
    slopes = jc.jacobian(lambda a: sc.gammainc(a, x))(a)
    np.testing.assert_allclose(np.einsum("ijij->ij", slopes), gammainc_by_shape(1, a, np.broadcast_to(x, a.shape)))
    each = jc.vmap(jc.grad(lambda row: np.sum(sc.gammainc(row, x))))(a)
    np.testing.assert_array_equal(each, np.einsum("ijij->ij", slopes))
    narrow = jc.grad(lambda a: sc.betainc(a, np.float32(2.0), np.float32(0.3)))(np.float32(1.5))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, jc.grad(lambda a: sc.betainc(a, 2.0, np.float32(0.3)))(1.5), rtol=1e-6)


OLD_SCIPY = tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 17)
DISTRIBUTIONS = {
    "gamma": (stats.gamma, (2.3,)),
    "chi2": (stats.chi2, (3.4,)),
    "beta": (stats.beta, (2.3, 0.8)),
    "t": (stats.t, (3.3,)),
    "f": (stats.f, (3.3, 5.2)),
    "invgamma": (stats.invgamma, (2.3,)),
    "gengamma": (stats.gengamma, (2.3, 1.4)),
    "chi": (stats.chi, (2.4,)),
    "betaprime": (stats.betaprime, (2.3, 3.8)),
    "nakagami": (stats.nakagami, (1.6,)),
    "maxwell": (stats.maxwell, ()),
}


@pytest.mark.parametrize("method", ["cdf", "sf", "logcdf", "logsf", "ppf", "isf"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_by_their_shapes(name, method):
    distribution, shapes = DISTRIBUTIONS[name]
    if name == "betaprime" and method not in ("ppf", "isf") and OLD_SCIPY:
        pytest.skip("betaprime takes plain numbers in this version of SciPy")
    points = np.array([0.2, 0.55, 0.9])

    def function(v):
        return getattr(distribution, method)(points, *v[2:], loc=v[0], scale=v[1])

    v = np.array([0.05, 1.1, *shapes])
    found = jc.jacobian(function)(v)
    for k, e in enumerate(np.eye(v.size) * 1e-3):
        total = sum(w * (function(v + j * e) - function(v - j * e)) for j, w in ((1, 45), (2, -9), (3, 1)))
        np.testing.assert_allclose(found[:, k], total / 0.06, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("v", [0.3, 1.0, 7.0, 19.9, 60.0, 900.0, 1e4])
def test_student_by_degrees_of_freedom(v):
    t = np.array([-30.0, -2.0, -1e-3, 0.0, 1e-6, 0.4, 3.0, 12.0])
    with mp.workdps(50):

        def below(v, t):
            half = mp.betainc(v / 2, 0.5, 0, v / (v + t * t), regularized=True) / 2
            return half if t < 0 else -half

        wanted = [float(differences(lambda v, t=t: below(v, mp.mpf(t)), [mp.mpf(v)], [1])) for t in t]
    found = np.array([jc.grad(sc.stdtr)(v, float(t)) for t in t])
    seen = np.abs(wanted) > 1e-280
    np.testing.assert_allclose(found[seen], np.array(wanted)[seen], rtol=1e-12)
    assert found[3] == 0.0


@pytest.mark.parametrize("v", [0.3, 7.0, 900.0])
def test_student_twice(v):
    curves = jc.hessian(lambda z: sc.stdtr(z[0], z[1]))
    slopes = jc.grad(lambda z: sc.stdtr(z[0], z[1]))
    for t in (-1.7, 0.0, 0.3, 4.0):
        at = np.array([v, t])
        rows = [
            sum(w * (slopes(at + k * e) - slopes(at - k * e)) for k, w in ((1, 45), (2, -9), (3, 1))) / (60 * h)
            for h, e in zip((1e-3 * v, 1e-3), np.diag([1e-3 * v, 1e-3]), strict=True)
        ]
        scale = np.outer([1 / v, 1], [1 / v, 1])
        np.testing.assert_allclose(curves(at) / scale, np.array(rows) / scale, rtol=1e-8, atol=1e-10)
        third = jc.grad(lambda x: jc.grad(lambda x: jc.grad(lambda v, t=t: sc.stdtr(v, t))(x))(x))(v)  # noqa: B023
        step = 1e-3 * v
        aside = np.array([step, 0.0])
        ahead = sum(w * (curves(at + k * aside) - curves(at - k * aside)) for k, w in ((1, 8), (2, -1)))
        np.testing.assert_allclose(third, ahead[0, 0] / (12 * step), rtol=1e-6, atol=1e-9 / v**3)


def test_density_of_student_with_many_degrees_of_freedom():
    for v in (30.0, 1e4, 2e6, 1e12):
        with mp.workdps(50):
            wanted = mp.exp(mp.loggamma((v + 1) / mp.mpf(2)) - mp.loggamma(v / mp.mpf(2))) / mp.sqrt(v * mp.pi)
            wanted *= (1 + mp.mpf(1.7) ** 2 / v) ** (-(v + 1) / mp.mpf(2))
        np.testing.assert_allclose(jc.grad(sc.stdtr, argnums=1)(v, 1.7), float(wanted), rtol=1e-14)
