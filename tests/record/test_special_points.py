"""scipy.special where formulas for derivatives divide by zero or lose digits: up to the third, against mpmath."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import scipy.special as sc

import jacana as jc

AROUND_ZERO = [0.0, 1e-8, 0.3, -0.3, 0.99, 1.01, 2.0]
LOW = [0.0, -1.0, -2.0, -2.5, -3.1, -7.0, 0.3, 0.5, 0.6, 2.0, 1e-8]
CASES = {
    "ber": (sc.ber, lambda x: mp.ber(0, x), AROUND_ZERO),
    "bei": (sc.bei, lambda x: mp.bei(0, x), AROUND_ZERO),
    "berp": (sc.berp, lambda x: mp.diff(lambda t: mp.ber(0, t), x), [0.5, 1.5]),
    "rgamma": (sc.rgamma, mp.rgamma, LOW),
    "struve 0": (lambda x: sc.struve(0, x), lambda x: mp.struveh(0, x), [0.0, 0.3, -0.3, 0.99, 1.01, 2.0]),
    "struve 1": (lambda x: sc.struve(1, x), lambda x: mp.struveh(1, x), AROUND_ZERO),
    "struve 5/2": (lambda x: sc.struve(2.5, x), lambda x: mp.struveh(2.5, x), [0.3, 0.99, 1.01, 20.0]),
    "modstruve 0": (lambda x: sc.modstruve(0, x), lambda x: mp.struvel(0, x), [0.0, 0.3, 0.99, 1.01]),
    "modstruve 1": (lambda x: sc.modstruve(1, x), lambda x: mp.struvel(1, x), AROUND_ZERO),
    "poch by a": (lambda x: sc.poch(x, 3), lambda x: x * (x + 1) * (x + 2), [*LOW, -1.5]),
    "binom by n": (lambda x: sc.binom(x, 2), lambda x: x * (x - 1) / 2, [0.0, 1.0, 2.0, 3.0, 1e-8, 7.5]),
    "binom by k": (lambda x: sc.binom(5, x), lambda k: mp.binomial(5, k), [0.5, 1.0, 4.0, 5.0, 5.5, 6.0, 6.5]),
    "inv_boxcox": (lambda p: sc.inv_boxcox(0.35, p), lambda p: (1 + p * mp.mpf(0.35)) ** (1 / p), [0.1, 0.2, -0.1]),
    "sici": (lambda x: sc.sici(x)[0], mp.si, AROUND_ZERO),
    "shichi": (lambda x: sc.shichi(x)[0], mp.shi, AROUND_ZERO),
    "expn 0": (lambda x: sc.expn(0, x), lambda x: mp.exp(-x) / x, [0.5, 3.0]),
    "expn 1": (lambda x: sc.expn(1, x), mp.e1, [0.5, 3.0]),
    "expn 3": (lambda x: sc.expn(3, x), lambda x: mp.expint(3, x), [0.5, 3.0]),
    "hermite 0": (lambda x: sc.eval_hermite(0, x), lambda x: 1 + 0 * x, [0.0, 0.5]),
    "hermite 1": (lambda x: sc.eval_hermite(1, x), lambda x: 2 * x, [0.0, 0.5]),
    "hermitenorm 2": (lambda x: sc.eval_hermitenorm(2, x), lambda x: x * x - 1, [0.0, 0.5]),
    "legendre 1": (lambda x: sc.eval_legendre(1, x), lambda x: x, [-1.0, 0.5]),
    "jacobi 1": (lambda x: sc.eval_jacobi(1, 0.5, 1.5, x), lambda x: mp.jacobi(1, 0.5, 1.5, x), [-1.0, 0.5]),
    "genlaguerre 2": (lambda x: sc.eval_genlaguerre(2, 0.5, x), lambda x: mp.laguerre(2, 0.5, x), [0.0, 1.5]),
    "gegenbauer 1": (lambda x: sc.eval_gegenbauer(1, 0.5, x), lambda x: x, [-1.0, 0.5]),
}


def derivatives(function, x, count=3):
    found = [float(function(x))]
    for _ in range(count):
        function = jc.grad(function)
        found.append(float(function(x)))
    return found


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", CASES)
def test_derivatives_at_special_points(name):
    function, exact, points = CASES[name]
    with mp.workdps(40):
        for x in points:
            wanted = [float(d) for d in mp.diffs(exact, mp.mpf(x), 3)]
            np.testing.assert_allclose(derivatives(function, x), wanted, rtol=1e-9, atol=1e-10, err_msg=f"at {x}")


def test_integrals_of_bessel_functions_at_zero():
    # (1 - J0(t))/t = t/4 - t^3/64 + ..., (I0(t) - 1)/t = t/4 + t^3/64 + ..., H0(t)/t = 2/pi (1 - t^2/9 + ...)
    third = [0.0, 0.0, 0.25, 0.0, -6 / 64]
    np.testing.assert_allclose(derivatives(lambda x: sc.it2j0y0(x)[0], 0.0, 4), third, rtol=1e-14)
    np.testing.assert_allclose(derivatives(lambda x: sc.it2i0k0(x)[0], 0.0, 4), np.abs(third), rtol=1e-14)
    slopes = derivatives(sc.it2struve0, 0.0, 3)[1:]
    np.testing.assert_allclose(slopes, np.array([-2.0, 0.0, 4 / 9]) / np.pi, rtol=1e-14)


def test_transformations_of_powers_at_their_limits():
    # log1p(p x)/p = x - p x^2/2 + p^2 x^3/3 - p^3 x^4/4 + ...
    x = 0.5
    logarithm = [-(x**2) / 2, 2 * x**3 / 3, -6 * x**4 / 4]
    a, b, c = logarithm
    wanted = np.exp(x) * np.array([1, a, b + a**2, c + 3 * a * b + a**3])
    for p in (0.0, 1e-9):
        np.testing.assert_allclose(derivatives(lambda p: sc.inv_boxcox(x, p), p), wanted, rtol=1e-7)
    np.testing.assert_array_equal(derivatives(lambda p: sc.boxcox(0.0, p), 2.0), [-0.5, 0.25, -0.25, 0.375])
    np.testing.assert_array_equal(derivatives(lambda x: sc.powm1(x, 0.0), 0.0, 1), [0.0, 0.0])


def test_the_density_of_voigt_of_no_width():
    jacobian = jc.jacobian(lambda v: sc.voigt_profile(v[0], v[1], v[2]))(np.array([0.5, 0.0, 0.7]))
    x, g = 0.5, 0.7
    size = x * x + g * g
    np.testing.assert_allclose(jacobian, np.array([-2 * x * g, 0.0, x * x - g * g]) / (np.pi * size**2), rtol=1e-14)
    curvature = jc.hessian(lambda s: sc.voigt_profile(x, s, g))(0.0)
    np.testing.assert_allclose(curvature, float(mp.diff(lambda t: g / (mp.pi * (t * t + g * g)), x, 2)), rtol=1e-12)


def test_scaled_airy_functions_below_zero():
    x = -2.0  # where only Bi is real, and not scaled
    slopes = derivatives(lambda x: sc.airye(x)[2], x, 2)[1:]
    np.testing.assert_allclose(slopes, [float(mp.airybi(x, derivative=k)) for k in (1, 2)], rtol=1e-12)


def test_far_quantiles_of_logarithms():
    # ndtr(y) ~ exp(-y^2/2) / (-y sqrt(2 pi)): the slope of its logarithm by y, and so of y by the logarithm
    y = sc.ndtri_exp(-1000.0)
    with mp.workdps(30):
        slope = float(mp.diff(lambda t: mp.log(mp.ncdf(t)), mp.mpf(y)))
    np.testing.assert_allclose(jc.grad(sc.ndtri_exp)(-1000.0), 1 / slope, rtol=1e-10)


def fn(kind, m):
    return mp.ellipfun(kind, mp.mpf(1.2), m=m)


def huber(d):
    return d * d * (mp.sqrt(1 + (mp.mpf(1e-3) / d) ** 2) - 1)


def voigt(x, s, g):
    z = (x + 1j * mp.mpf(g)) / (s * mp.sqrt(2))
    return mp.re(mp.exp(-z * z) * mp.erfc(-1j * z)) / (s * mp.sqrt(2 * mp.pi))


# Where differences of near numbers, or 0 / 0, would come of plainer formulas: function, exact one, points.
DIFFERENCES = {
    "erfcx": (sc.erfcx, lambda x: mp.exp(x * x) * mp.erfc(x), [-2.0, 0.0, 7.9, 9.5, 50.0, 1e4]),
    "dawsn": (sc.dawsn, lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x), [0.3, 8.5, -9.5, 50.0, 200.0]),
    "log_ndtr": (sc.log_ndtr, lambda x: mp.log(mp.erfc(-x / mp.sqrt(2)) / 2), [-1e3, -40.0, -1e-3, 1e-3, 5.0]),
    "ellipkm1": (sc.ellipkm1, lambda p: mp.ellipk(1 - p), [1e-12, 1e-3, 0.999, 1.0, 3.0]),
    "ellipk": (sc.ellipk, mp.ellipk, [-1e6, 1e-10, 0.9999]),
    "ellipkinc by m": (lambda m: sc.ellipkinc(1.2, m), lambda m: mp.ellipf(mp.mpf(1.2), m), [-1e3, 0.0, 0.9999, 1.0]),
    "ellipeinc by m": (lambda m: sc.ellipeinc(-1.2, m), lambda m: mp.ellipe(-mp.mpf(1.2), m), [-1e3, 0.0, 0.9999, 1.0]),
    "ellipkinc by m, periods": (lambda m: sc.ellipkinc(8.3, m), lambda m: mp.ellipf(mp.mpf(8.3), m), [-2.0, 0.0, 0.99]),
    "ellipkinc by phi": (lambda p: sc.ellipkinc(p, 0.7), lambda p: mp.ellipf(p, mp.mpf(0.7)), [0.0, 1.57, 3.2, -7.0]),
    "sn by m": (lambda m: sc.ellipj(1.2, m)[0], lambda m: fn("sn", m), [0.0, 1e-9, 1e-3, 0.5, 0.9999]),
    "cn by m": (lambda m: sc.ellipj(1.2, m)[1], lambda m: fn("cn", m), [0.0, 1e-9, 1e-3, 0.5, 0.9999]),
    "dn by m": (lambda m: sc.ellipj(1.2, m)[2], lambda m: fn("dn", m), [0.0, 1e-9, 1e-3, 0.5, 0.9999]),
    "agm": (lambda a: sc.agm(a, 1.0), lambda a: mp.agm(a, 1), [1e-10, 1.0, 1.0 + 1e-9, 1e8]),
    "pseudo_huber by delta": (lambda d: sc.pseudo_huber(d, 1e-3), huber, [1e-4, 1.0, 1e3]),
    "voigt by width": (lambda s: sc.voigt_profile(0.3, s, 0.5), lambda s: voigt(mp.mpf(0.3), s, 0.5), [1e-4, 0.05, 2]),
    "voigt by x": (lambda x: sc.voigt_profile(x, 0.01, 0.02), lambda x: voigt(x, mp.mpf(0.01), 0.02), [-0.3, 0.01, 5]),
    "binom": (lambda n: sc.binom(n, 2.5), lambda n: mp.binomial(n, mp.mpf(2.5)), [-0.5, 0.3, 2.5, -3.3]),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_without_differences_of_near_numbers(name):
    function, exact, points = DIFFERENCES[name]
    with mp.workdps(110):
        for x in points:
            step = mp.mpf(10) ** -15 * (abs(mp.mpf(x)) or 1)
            values = [mp.re(exact(mp.mpf(x) + k * step)) for k in (-2, -1, 0, 1, 2)]
            first = (8 * (values[3] - values[1]) - (values[4] - values[0])) / (12 * step)
            second = (16 * (values[1] + values[3]) - values[0] - values[4] - 30 * values[2]) / (12 * step**2)
            found = derivatives(function, float(x), 2)[1:]
            scale = max(abs(float(first)) * 1e-13, 1e-300)
            np.testing.assert_allclose(found[0], float(first), rtol=1e-11, atol=scale, err_msg=f"at {x}")
            np.testing.assert_allclose(found[1], float(second), rtol=1e-9, atol=scale, err_msg=f"twice at {x}")


@pytest.mark.parametrize("function", [sc.erf, sc.erfc, sc.ndtr], ids=lambda f: f.__name__)
@pytest.mark.parametrize("x", [np.inf, -np.inf, 60.0, -1e200])
def test_what_has_saturated_has_no_slope(function, x):
    # Thresholds of ordered models are infinite at both ends; the Hessian was NaN there.
    for dtype in (np.float64, np.float32):
        slope = jc.grad(function)
        for derivative in (slope, jc.grad(slope), jc.grad(jc.grad(slope))):
            with np.errstate(over="ignore"):
                assert derivative(np.array(x, dtype)) == 0.0


@pytest.mark.parametrize("x", [np.inf, 60.0])
def test_the_logarithm_of_certainty_has_no_slope(x):
    slope = jc.grad(sc.log_ndtr)
    assert [d(np.array(x)) for d in (slope, jc.grad(slope), jc.grad(jc.grad(slope)))] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("x", [0.0, -0.4, 5.5, -26.0, 37.5])
def test_slopes_of_normal_probabilities_far_out(x):
    bell = mp.exp(-(mp.mpf(x) ** 2) / 2) / mp.sqrt(2 * mp.pi)
    expected = [bell, -x * bell, (mp.mpf(x) ** 2 - 1) * bell]
    slope = jc.grad(sc.ndtr)
    for derivative, wanted in zip((slope, jc.grad(slope), jc.grad(jc.grad(slope))), expected, strict=True):
        np.testing.assert_allclose(derivative(np.array(x)), float(wanted), rtol=1e-13, atol=0.0)
