"""Functions of scipy.special beyond ufuncs of one result: second derivatives, hard points, refusals."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.special as sc
from scipy.special import logsumexp as imported
from support import close

import jacana as jc

X = np.array([0.35, 0.8, 1.4])
INF = np.inf

TWICE = {
    "airy": lambda x: sum(sc.airy(x)),
    "airye": lambda x: sum(sc.airye(x)),
    "sici": lambda x: sc.sici(x)[0] + sc.sici(x)[1],
    "shichi": lambda x: sc.shichi(x)[0] * sc.shichi(x)[1],
    "fresnel": lambda x: sc.fresnel(x)[0] * sc.fresnel(x)[1],
    "itairy": lambda x: sum(sc.itairy(x)),
    "it2j0y0": lambda x: sum(sc.it2j0y0(x)),
    "it2i0k0": lambda x: sum(sc.it2i0k0(x)),
    "ellipj by u": lambda x: sum(sc.ellipj(x, 0.4)),
    "ellipj by m": lambda x: sum(sc.ellipj(0.9, x / 2)),
    "pbdv": lambda x: sum(sc.pbdv(1.5, x)),
    "mathieu_cem": lambda x: sum(sc.mathieu_cem(2, 1.5, 30 * x)),
    "mathieu_modsem1": lambda x: sum(sc.mathieu_modsem1(2, 1.5, x)),
    "spherical_jn": lambda x: sc.spherical_jn(2, x) + sc.spherical_jn(0, x, True),
    "spherical_kn": lambda x: sc.spherical_kn(1, x),
    "voigt_profile": lambda x: sc.voigt_profile(x[0], x[1], x[2]) * x,
    "lambertw": lambda x: sc.lambertw(x).real,
    "logsumexp": lambda x: sc.logsumexp(x * x) * x,
    "logsumexp of signs": lambda x: sc.logsumexp(x, b=[1.0, -3.0, 0.5], return_sign=True)[0] * x,
    "softmax": lambda x: sc.softmax(x)[0] * x,
    "log_softmax": lambda x: sc.log_softmax(x)[1] * x,
    "multigammaln": lambda x: sc.multigammaln(x + 2, 3),
    "polygamma": lambda x: sc.polygamma([[0], [2]], x)[1],
    "jvp": lambda x: sc.jvp(2, x, 2),
    "eval_sh_jacobi": lambda x: sc.eval_sh_jacobi(4, 2.5, 1.5, x / 2),
    "eval_chebys": lambda x: sc.eval_chebys(4, x),
}


def slopes(function, x):
    columns = []
    for e in np.eye(x.size) * 1e-3:
        total = sum(w * (function(x + k * e) - function(x - k * e)) for k, w in ((1, 45), (2, -9), (3, 1)))
        columns.append(total / 0.06)
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("executor", ["numpy", "native"] if jc.native_available() else ["numpy"])
@pytest.mark.parametrize("name", TWICE)
def test_first_and_second_derivative(name, executor):
    function = TWICE[name]
    gradient = jc.grad(lambda x: np.sum(function(x)))
    with jc.executor(executor):
        # SciPy computes the integrals of Airy functions themselves to eight digits.
        close(jc.jacobian(function)(X), slopes(function, X), 2e-7 if name == "itairy" else 2e-10)
        close(jc.hessian(lambda x: np.sum(function(x)))(X), slopes(gradient, X), 2e-9)


def test_logsumexp_with_infinities():
    x = np.array([[-INF, 0.0, 1.0], [-INF, -INF, -INF], [700.0, 710.0, -800.0]])
    value, jacobian = jc.value_and_jacobian(lambda x: sc.logsumexp(x, axis=1))(x)
    np.testing.assert_array_equal(value, sc.logsumexp(x, axis=1))
    close(jacobian[0, 0], np.array([0.0, 1.0, np.e]) / (1.0 + np.e), 1e-15)
    np.testing.assert_array_equal(jacobian[1, 1], np.full(3, 1.0 / 3.0))  # equal parts
    close(jacobian[2, 2], sc.softmax(x[2]), 1e-15)
    assert np.all(np.isfinite(jacobian))


def test_an_imported_name_and_options():
    weights = np.array([1.0, 2.0, 0.0])
    f = lambda x: imported(x, b=weights, keepdims=True)  # noqa: E731
    close(jc.jacobian(f)(X)[0], weights * np.exp(X) / np.sum(weights * np.exp(X)), 1e-15)
    close(jc.grad(lambda b: imported(X, b=b))(np.ones(3)), np.exp(X) / np.exp(X).sum(), 1e-14)


def test_functions_of_integers_stay_what_they_are():
    close(jc.jacobian(lambda x: sc.comb(5, 2, exact=True) * x * sc.factorial(3))(X), 60.0 * np.eye(3), 1e-15)
    nodes, weights = sc.roots_legendre(4)
    close(jc.grad(lambda x: np.sum(weights * np.cos(x[0] * nodes)))(X)[1:], np.zeros(2), 0.0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: sc.lambertw(x - 3), "where it is not real"),
        (lambda x: sc.lambertw(x, 1), "other branches"),
        (lambda x: sc.comb(x[0], 2, exact=True), "leave exact away"),
        (lambda x: sc.polygamma(x, 1.0), "by its order"),
        (lambda x: sc.spherical_jn(x, 1.0), "by its order"),
        (lambda x: sc.pbdv(x, 1.0)[0], "by its argument 0"),
        (lambda x: sc.zeta(x), "numbers up to 1"),
        (lambda x: sc.roots_jacobi(3, x[0], 1.0), "weight"),
    ],
)
def test_refusals(function, words):
    with pytest.raises(jc.RecordingError, match=words):
        jc.jacobian(function)(X)


@pytest.mark.parametrize("m", [0.0, 1e-12, 1e-6, 0.1, 0.2499, 0.2501, 0.9, -0.3, -5.0])
@pytest.mark.parametrize("name", ["ellipk", "ellipe"])
def test_complete_elliptic_integrals_near_zero(name, m):
    reference, function = getattr(mpmath, name), getattr(sc, name)
    with mpmath.workdps(40):
        first, second = (float(mpmath.diff(reference, m, n)) for n in (1, 2))
    np.testing.assert_allclose(jc.grad(function)(m), first, rtol=1e-14)
    np.testing.assert_allclose(jc.hessian(function)(m), second, rtol=2e-14)


@pytest.mark.parametrize("point", [(0.31, 0.72), (0.72, 0.31), (0.6, 0.6), (0.6, 0.6000001), (2.0, 0.1)])
def test_second_derivatives_of_agm(point):
    with mpmath.workdps(40):
        expected = [
            [float(mpmath.diff(mpmath.agm, point, n)) for n in row] for row in (((2, 0), (1, 1)), ((1, 1), (0, 2)))
        ]
    found = jc.hessian(lambda v: sc.agm(v[0], v[1]))(np.array(point))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_second_derivatives_where_a_factor_is_zero():
    at = np.array([0.0, 2.0])
    np.testing.assert_allclose(jc.hessian(lambda v: sc.xlogy(v[0], v[1]))(at), [[0.0, 0.5], [0.5, 0.0]])
    np.testing.assert_allclose(jc.hessian(lambda v: sc.xlog1py(v[0], v[1]))(at), [[0.0, 1 / 3], [1 / 3, 0.0]])


CARLSON = {
    "elliprf": (sc.elliprf, mpmath.elliprf, 3),
    "elliprc": (sc.elliprc, mpmath.elliprc, 2),
    "elliprd": (sc.elliprd, mpmath.elliprd, 3),
    "elliprg": (sc.elliprg, mpmath.elliprg, 3),
    "elliprj": (sc.elliprj, mpmath.elliprj, 4),
}


@pytest.mark.parametrize(
    "point", [(0.5, 1.2, 0.7, 0.9), (1.0, 1.0, 1.0, 1.0), (1e-6, 3.0, 4e4, 0.2), (2.0, 2.0, 0.1, 5.0)]
)
@pytest.mark.parametrize("name", CARLSON)
def test_elliptic_integrals_of_carlson(name, point):
    function, reference, count = CARLSON[name]
    at = np.array(point[:count])
    slopes = jc.grad(lambda v: function(*v))(at)
    curves = jc.hessian(lambda v: function(*v))(at)
    with mpmath.workdps(60):
        places = tuple(map(mpmath.mpf, at))
        options = {"h": min(places) * mpmath.mpf(10) ** -15}
        for i, row in enumerate(np.eye(count, dtype=int)):
            wanted = float(mpmath.re(mpmath.diff(reference, places, tuple(map(int, row)), **options)))
            np.testing.assert_allclose(slopes[i], wanted, rtol=1e-13)
            for j, other in enumerate(np.eye(count, dtype=int)):
                wanted = float(mpmath.re(mpmath.diff(reference, places, tuple(map(int, row + other)), **options)))
                np.testing.assert_allclose(curves[i, j], wanted, rtol=1e-11)


@pytest.mark.parametrize("point", [(0.5, -1.2), (3.0, -0.01)])
def test_principal_value_of_the_elementary_integral(point):
    found = jc.grad(lambda v: sc.elliprc(v[0], v[1]))(np.array(point))
    with mpmath.workdps(30):
        exact = lambda x, y: mpmath.re(mpmath.elliprc(x, y))  # noqa: E731
        wanted = [float(mpmath.diff(exact, point, n)) for n in ((1, 0), (0, 1))]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    # R_C(x, y) with y < 0 is sqrt(x / (x - y)) R_C(x - y, -y)
    other = lambda v: np.sqrt(v[0] / (v[0] - v[1])) * sc.elliprc(v[0] - v[1], -v[1])  # noqa: E731
    curves = (jc.hessian(f)(np.array(point)) for f in (lambda v: sc.elliprc(v[0], v[1]), other))
    np.testing.assert_allclose(*curves, rtol=1e-11)


def test_elliptic_integrals_where_an_argument_is_zero():
    slopes = jc.grad(lambda v: sc.elliprf(v[0], v[1], v[2]))(np.array([0.0, 1.0, 2.0]))
    assert slopes[0] == -np.inf
    with mpmath.workdps(40):
        wanted = [float(mpmath.diff(lambda y, z: mpmath.elliprf(0, y, z), (1, 2), n)) for n in ((1, 0), (0, 1))]
    np.testing.assert_allclose(slopes[1:], wanted, rtol=1e-14)
    scales = np.array([1e-200, 1e150, 3.0])
    found = jc.grad(lambda v: sc.elliprf(v[0], v[1], v[2]))(scales)
    with mpmath.workdps(40):
        wanted = [float(-mpmath.elliprd(*np.roll(scales, -k - 1)) / 6) for k in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert np.all(np.isnan(jc.grad(lambda v: sc.elliprj(1.0, 2.0, 3.0, v))(np.array(-0.5))))


@pytest.mark.parametrize("df", [1.5, 2.0, 5.0])
@pytest.mark.parametrize("centre", [0.0, 0.7])
def test_non_central_chi_square_of_few_degrees_of_freedom(df, centre):
    def density(x):
        weights = [mpmath.exp(-centre / 2) * (mpmath.mpf(centre) / 2) ** j / mpmath.factorial(j) for j in range(40)]
        return sum(
            w * x ** (df / 2 + j - 1) * mpmath.exp(-x / 2) / 2 ** (df / 2 + j) / mpmath.gamma(df / 2 + j)
            for j, w in enumerate(weights)
        )

    for x in (0.3, 2.5):
        found = jc.grad(lambda x: sc.chndtr(x, df, centre))(x)
        np.testing.assert_allclose(found, float(density(mpmath.mpf(x))), rtol=1e-12)


@pytest.mark.parametrize("m", [-3.0, -0.0199, 0.0, 1e-12, 1e-6, 0.0199, 0.0201, 0.4])
@pytest.mark.parametrize("phi", [-0.4, 0.7, 4.0])
@pytest.mark.parametrize(("function", "reference"), [(sc.ellipkinc, "ellipf"), (sc.ellipeinc, "ellipe")])
def test_incomplete_elliptic_integrals_near_zero(function, reference, phi, m):
    integral = getattr(mpmath, reference)
    with mpmath.workdps(40):
        slopes = [float(mpmath.diff(integral, (phi, m), n)) for n in ((1, 0), (0, 1))]
        curves = [
            [float(mpmath.diff(integral, (phi, m), n)) for n in row] for row in (((2, 0), (1, 1)), ((1, 1), (0, 2)))
        ]

    def f(v):
        return function(v[0], v[1])

    np.testing.assert_allclose(jc.grad(f)(np.array([phi, m])), slopes, rtol=1e-12)
    np.testing.assert_allclose(jc.hessian(f)(np.array([phi, m])), curves, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("u", [0.0, 1e-12, -1e-9, 1e-4, 0.0099, 0.0101, 0.5])
def test_second_derivative_of_the_dilogarithm_near_one(u):
    with mpmath.workdps(40):
        expected = [float(mpmath.diff(lambda u: mpmath.polylog(2, -u), u, n)) for n in (1, 2)]
    np.testing.assert_allclose(jc.grad(sc.spence)(1.0 + u), expected[0], rtol=1e-14)
    np.testing.assert_allclose(jc.hessian(sc.spence)(1.0 + u), expected[1], rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_diric_near_multiples_of_a_turn(n):
    x = np.array([1e-7, 1e-3, 0.4, 2 * np.pi - 1e-4, 0.0])
    with mpmath.workdps(40):

        def exact(v):
            return mpmath.sin(n * v / 2) / (n * mpmath.sin(v / 2))

        slopes = [float(mpmath.diff(exact, mpmath.mpf(v))) for v in x[:-1]]
    value, jacobian = jc.value_and_jacobian(lambda x: sc.diric(x, n))(x)
    np.testing.assert_allclose(value, sc.diric(x, n), rtol=1e-10)
    np.testing.assert_allclose(np.diag(jacobian), [*slopes, 0.0], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("q", [1e-3, 0.6, 1.0, 7.5, 1e4])
def test_zeta_by_its_first_argument(q):
    for s in (1.0001, 1.5, 2.0, 7.3, 40.0, 90.0):
        if s * np.log10(q) < -200:
            continue
        with mpmath.workdps(110):
            h, at = mpmath.mpf(10) ** -14, mpmath.mpf(s)
            values = [mpmath.zeta(at + k * h, mpmath.mpf(q)) for k in (-2, -1, 0, 1, 2)]
            first = (8 * (values[3] - values[1]) - (values[4] - values[0])) / (12 * h)
            second = (16 * (values[1] + values[3]) - values[0] - values[4] - 30 * values[2]) / (12 * h**2)
            mixed = -sum(w * (at + k * h) * mpmath.zeta(at + k * h + 1, q) for k, w in ((1, 1), (-1, -1))) / (2 * h)
        curves = jc.hessian(lambda v: sc.zeta(v[0], v[1]))(np.array([s, q]))
        np.testing.assert_allclose(jc.grad(lambda s: sc.zeta(s, q))(s), float(first), rtol=1e-12)
        np.testing.assert_allclose(curves[0], [float(second), float(mixed)], rtol=1e-11)


def test_zeta_of_riemann():
    with mpmath.workdps(30):
        wanted = [float(mpmath.zeta(v, derivative=1)) for v in (1.2, 3.0)]
    np.testing.assert_allclose(np.diag(jc.jacobian(sc.zeta)(np.array([1.2, 3.0]))), wanted, rtol=1e-13)
    np.testing.assert_allclose(np.diag(jc.jacobian(sc.zetac)(np.array([1.2, 3.0]))), wanted, rtol=1e-13)


HYPERGEOMETRIC = [
    (sc.hyp0f1, mpmath.hyp0f1, (0.3, -20.0)),
    (sc.hyp0f1, mpmath.hyp0f1, (7.5, 150.0)),
    (sc.hyp1f1, mpmath.hyp1f1, (0.4, 1.7, -30.0)),
    (sc.hyp1f1, mpmath.hyp1f1, (-2.0, 0.3, 5.0)),
    (sc.hyp1f1, mpmath.hyp1f1, (2.5, 9.0, 200.0)),
    (sc.hyp2f1, mpmath.hyp2f1, (0.4, 1.2, 2.3, 0.95)),
    (sc.hyp2f1, mpmath.hyp2f1, (0.4, 1.2, 2.3, -40.0)),
    (sc.hyp2f1, mpmath.hyp2f1, (-3.0, 1.2, 0.7, 0.5)),
    (sc.hyp2f1, mpmath.hyp2f1, (0.0, 1.2, 0.7, -0.5)),
]


@pytest.mark.parametrize(("function", "reference", "point"), HYPERGEOMETRIC)
def test_hypergeometric_functions_by_their_parameters(function, reference, point):
    at, last = np.array(point), len(point) - 1
    slopes = jc.grad(lambda v: function(*v))(at)
    mixed = jc.grad(lambda v: jc.grad(lambda z: function(*v[:-1], z))(v[-1]))
    with mpmath.workdps(40):
        for k, row in enumerate(np.eye(last + 1, dtype=int)):
            wanted = float(mpmath.diff(reference, point, tuple(map(int, row))))
            np.testing.assert_allclose(slopes[k], wanted, rtol=1e-11)
            order = row.copy()
            order[last] += 1
            wanted = float(mpmath.diff(reference, point, tuple(map(int, order))))
            np.testing.assert_allclose(mixed(at)[k], wanted, rtol=1e-10, atol=1e-14)


def test_hypergeometric_functions_where_digits_are_lost():
    assert np.isnan(jc.grad(sc.hyp0f1)(0.3, -900.0))
    assert np.isnan(jc.grad(sc.hyp2f1)(0.3, 0.4, 1.5, 0.9999999))
    assert np.isfinite(jc.grad(sc.hyp2f1, argnums=3)(0.3, 0.4, 1.5, 0.9999999))
