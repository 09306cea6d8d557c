"""Recorded at one point and called at another, at which NumPy goes another way: values, Jacobians and errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import jacana as jc

NAN, INF = np.nan, np.inf
X = np.array([0.31, 0.72, 0.13, 0.88, 0.54])

# A call, and points whose values NumPy must agree with, recorded in this order by one and the same function.
CASES = {
    "partition of equal values": (lambda x: np.partition(x, 2), ([3, 1, 2, 1, 0], [0.31, 0.72, INF, 0.88, 0.54])),
    "argpartition of equal values": (lambda x: x[np.argpartition(x, 2)], ([1, 1, 0, 1, 2], [3, 2, 0, 5, 1])),
    "argpartition by axis": (
        lambda x: np.partition(np.outer(x[:2], x), 1, axis=1),
        ([1, 2, 1, 1, 3], [0.3, 0.2, 0.4, 0.5, 0.1]),
    ),
    "polymul with leading zeros": (
        lambda x: np.polymul(x[:3], x[1:]),
        ([0, 2, 1, 3, 1], [0, 0, 0, 1, 1], [1, 0, 2, 0, 1]),
    ),
    "searchsorted of NaN": (lambda x: np.searchsorted([0.1, 0.4, 0.6], x) * x[0], ([0.2, NAN, 0.5, 0.9, 0.1],)),
    "searchsorted from the right": (
        lambda x: np.searchsorted([0.1, 0.4, NAN], x, side="right") * x[0],
        ([0.2, NAN, 0.5, 0.9, 0.1],),
    ),
    "searchsorted in a table with NaN": (
        lambda x: np.searchsorted(np.concatenate((x[:2], [np.nan])), x[2:]) * x[0],
        ([0.2, 0.3, NAN, 0.9, 0.1], [0.2, 0.3, 0.25, 0.9, NAN]),
    ),
    "digitize of NaN": (lambda x: np.digitize(x, [0.1, 0.4, 0.6]) * x[0], ([0.2, NAN, 0.5, 0.9, 0.1],)),
    "digitize downwards": (lambda x: np.digitize(x, [0.6, 0.4, 0.1]) * x[0], ([0.2, NAN, 0.5, 0.9, 0.1],)),
    "geomspace of negative numbers": (lambda x: np.geomspace(x[0], x[1], 4), ([-0.5, -8.0, 0, 0, 0],)),
    "geomspace from minus to plus": (lambda x: np.geomspace(x[0], x[1], 4), ([-0.5, 8.0, 0, 0, 0],)),
    "geomspace without its end": (lambda x: np.geomspace(x[:2], x[3], 3, endpoint=False, axis=1), (-X,)),
    "geomspace of one": (lambda x: np.geomspace(x[0], x[1], 1), (-X,)),
    "nanstd without degrees of freedom": (
        lambda x: np.nanstd(np.where(x > 0.5, np.nan, x), ddof=1),
        ([0.9, 0.9, 0.9, 0.9, 0.2], [0.9, 0.9, 0.9, 0.9, 0.9]),
    ),
    "modf of infinities": (np.modf, ([1.5, INF, -INF, -2.5, 0.0],)),
    "cond of a singular matrix": (
        lambda x: np.linalg.cond(x[:4].reshape(2, 2)),
        ([0, 0, 0, 0, 0], [1, 2, 2, 4, 0]),
    ),
    "interp with two last points in one": (
        lambda x: np.interp(np.array([0.1, 0.5]), np.sort(x), x),
        ([0.5, -0.5, 0.5, 0.0, 0.2], [0.7, 0.1, 0.5, 0.3, 0.7]),
    ),
    "bincount by recorded groups": (
        lambda x: np.bincount((4 * x).astype(int), weights=x**2, minlength=6),
        ([0.9, 0.2, 1.3, 0.5, 0.4],),
    ),
    "bincount by a list of recorded groups": (
        lambda x: np.bincount([int(v > 0.5) for v in x], weights=x**2),
        ([0.9, 0.2, 0.3, 0.5, 0.4],),
    ),
}  # fmt: skip


def flat(result):
    return np.concatenate([np.ravel(r) for r in result]) if isinstance(result, tuple) else np.asarray(result)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("executor", ["numpy", "native"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_jacobians(name, executor):
    call, others = CASES[name]
    with jc.executor(executor):
        both = jc.value_and_jacobian(lambda x: jc_flat(call(x)))
        for point in (X, *(np.asarray(p, dtype=float) for p in others), X):
            value, jacobian = both(point)
            np.testing.assert_allclose(value, flat(call(point)), rtol=1e-12, atol=1e-14)
            fresh = jc.jacobian(lambda x: jc_flat(call(x)))(point)
            np.testing.assert_allclose(jacobian, fresh, rtol=1e-12, atol=1e-14)


def jc_flat(result):
    return np.concatenate([np.ravel(r) for r in result]) if isinstance(result, tuple) else result


ERRORS = {
    "histogram of NaN": (lambda x: np.histogram_bin_edges(x, 4), [0.1, NAN, 0.2, 0.3, 0.4], ValueError, "not finite"),
    "geomspace from zero": (lambda x: np.geomspace(x[0], x[1], 4), [0, 1, 1, 1, 1], ValueError, "cannot include zero"),
    "weights without a sum": (lambda x: np.average(x, weights=x), [1, -1, 2, -2, 0], ZeroDivisionError, "sum to zero"),
    "negative weights": (lambda x: np.cov(x, aweights=x), [1, -1, 2, 2, 0], ValueError, "cannot be negative"),
    "weights that are zero": (lambda x: np.cov(x, aweights=x), [0, 0, 0, 0, 0], ZeroDivisionError, "sum to zero"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_those_of_numpy(name):
    call, point, error, words = ERRORS[name]
    point = np.asarray(point, dtype=float)
    jacobian = jc.jacobian(call)
    jacobian(X)
    with pytest.raises(error):
        call(point)
    with pytest.raises(error, match=words):
        jacobian(point)


def test_ends_of_geomspace_have_their_own_derivatives():
    j = jc.jacobian(lambda x: np.geomspace(x[0], x[1], 3))
    for a, b in ((0.5, 8.0), (-0.5, -8.0)):
        middle = [0.5 * (b / a) ** 0.5, 0.5 * (a / b) ** 0.5]  # of the root of a b, with the sign of a
        np.testing.assert_allclose(j(np.array([a, b])), [[1, 0], middle, [0, 1]], rtol=1e-14)


@pytest.mark.parametrize("executor", ["numpy", "native"])
@pytest.mark.parametrize("format", ["dense", "csr"])
def test_what_is_above_the_triangle_of_a_running_sum_stays_zero(format, executor):
    # d sqrt(x) / dx is infinite at zero, and no element before it depends on it.
    x = np.array([4.0, 0.0, 1.0])
    with jc.executor(executor):
        j = jc.jacobian(lambda x: np.cumsum(np.sqrt(x)), format=format)(x)
        np.testing.assert_array_equal(
            j if format == "dense" else j.toarray(), [[0.25, 0, 0], [0.25, np.inf, 0], [0.25, np.inf, 0.5]]
        )
        j = jc.jacobian(lambda x: np.sqrt(np.cumsum(x)), format=format)(0 * x)
        np.testing.assert_array_equal(j if format == "dense" else j.toarray(), np.where(np.tri(3) > 0, np.inf, 0.0))
        j = jc.jacobian(np.cumprod, format=format)(np.array([2.0, np.nan, 3.0]))
        np.testing.assert_array_equal(
            j if format == "dense" else j.toarray(), [[1, 0, 0], [np.nan, 2, 0], [np.nan, 6, np.nan]]
        )


@pytest.mark.parametrize("line", [
    "import scipy.ndimage; return scipy.ndimage.gaussian_filter1d(x, 1.0)",
    "from scipy.signal import convolve; return convolve(x, x[:2])",
    "from scipy import linalg; return linalg.expm(x.reshape(2, 2)).ravel()",
])  # fmt: skip
def test_a_library_that_the_program_itself_imports(line):
    program = f"""
import sys, numpy as np, jacana as jc
def f(x):
    {line}
assert not {{"scipy.ndimage", "scipy.signal", "scipy.linalg"}} & set(sys.modules)
x = np.array([0.1, 0.4, 0.2, 0.3])
J = jc.jacobian(f)(x)
d = np.stack([(f(x + e) - f(x - e)) / 2e-6 for e in 1e-6 * np.eye(4)], axis=1)
np.testing.assert_allclose(J, d, rtol=1e-7, atol=1e-8)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_characteristic_polynomial():
    j = jc.jacobian(np.poly)
    for a in (np.array([[1.0, 2.0], [3.0, 4.0]]), np.eye(2)):  # of equal eigenvalues, too
        np.testing.assert_allclose(j(a)[1:], [-np.eye(2), [[a[1, 1], -a[1, 0]], [-a[0, 1], a[0, 0]]]], atol=1e-14)


def test_lists_of_variables():
    x = jc.Variable(X.copy())
    functions = jc.functions
    np.testing.assert_array_equal(functions.array([x[0], 1.0]).array, [0.31, 1.0])
    np.testing.assert_allclose(functions.sin([x[0], x[1]]).jacobian(x)[:, :2], np.diag(np.cos(X[:2])))
    np.testing.assert_array_equal(functions.maximum([x[0], x[1]], [x[2], x[3]]).array, [0.31, 0.88])
    with pytest.raises(jc.RecordingError, match=r"np\.sin\(jacana\.functions\.array"):
        np.sin([x[0], x[1]])
    with pytest.raises(jc.RecordingError, match=r"np\.sin\(np\.array"):
        jc.jacobian(lambda x: np.sin([x[0], x[1]]))(X)
    with pytest.raises(IndexError, match="astype"):
        x[x]


SHAPES = {
    "fft2 of a vector": lambda x: np.fft.fft2(x).real,
    "apply_along_axis": lambda x: np.apply_along_axis(np.sum, 1, x),
    "apply_over_axes": lambda x: np.apply_over_axes(np.sum, x, [0, 1]),
    "take_along_axis": lambda x: np.take_along_axis(x, np.array([1, 0]), 1),
    "sort": lambda x: np.sort(x[0], axis=-1),
    "diff": lambda x: np.diff(x[0]),
    "cumulative_sum": lambda x: np.cumulative_sum(x, axis=2),
    "out of another shape": lambda x: np.sum(np.outer(x, x), axis=0, out=np.zeros((5, 5))),
}


@pytest.mark.parametrize("name", SHAPES)
def test_axes_that_there_are_not(name):
    call = SHAPES[name]
    with pytest.raises((ValueError, IndexError)) as expected:  # AxisError is both
        call(X)
    with pytest.raises((ValueError, IndexError)) as found:
        jc.jacobian(call)(X)
    if expected.type is np.exceptions.AxisError:
        assert str(found.value) == str(expected.value)


EMPTY = {
    "expand_dims": lambda x: np.expand_dims(x.reshape(0, 3), 1),
    "std": lambda x: np.array([np.std(x), 1.0]),
    "median": lambda x: np.array([np.median(x), 1.0]),
    "nanquantile": lambda x: np.append(np.nanquantile(x, [0.2, 0.7]), x),
    "var": lambda x: np.array([np.var(x), 1.0]),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", EMPTY)
def test_of_nothing(name):
    value, jacobian = jc.value_and_jacobian(EMPTY[name])(np.zeros(0))
    wanted = EMPTY[name](np.zeros(0))
    np.testing.assert_array_equal(value, wanted)
    assert value.shape == wanted.shape
    assert jacobian.shape == (*wanted.shape, 0)


POWERS = np.polynomial.Polynomial
POLYNOMIALS = {
    "value": (lambda c: np.poly1d(c)(np.array([2.0, 3.0])), [[4, 2, 1], [9, 3, 1]]),
    "sum": (lambda c: (np.poly1d(c) + np.poly1d([1.0, 0.0]))(2.0), [4, 2, 1]),
    "product": (lambda c: (np.poly1d(c) * np.poly1d([1.0, 2.0]))(2.0), [16, 8, 4]),
    "slope of a product": (lambda c: (np.poly1d(c) * np.poly1d([1.0, 2.0])).deriv()(2.0), [20, 6, 1]),
    "integral": (lambda c: np.poly1d(c).integ()(3.0), [9, 4.5, 3]),
    "product, lowest first": (lambda c: (POWERS(c) * POWERS([1.0, 2.0]))(2.0), [5, 10, 20]),
    "sum, lowest first": (lambda c: (POWERS(c) - POWERS(3.0 * c) + POWERS([1.0]))(2.0), [-2, -4, -8]),
    "composition": (lambda c: POWERS(c)(POWERS([1.0, 2.0]))(2.0), [1, 5, 25]),
    "other basis": (lambda c: np.polynomial.Chebyshev(c).convert(kind=POWERS)(0.5), [1, 0.5, -0.5]),
    "functions": (lambda c: np.polynomial.polynomial.polymul(c, [1.0, 2.0])[:3], [[1, 0, 0], [2, 1, 0], [0, 2, 1]]),
}


@pytest.mark.parametrize("first", [0.0, 1.5])
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_leading_coefficients_that_are_zero_now(name, first):
    call, slopes = POLYNOMIALS[name]
    jacobian = jc.jacobian(call)
    for c in ([first, 0.0, 2.0], [0.0, 0.0, 0.0], [1.0, -1.0, 0.0]):
        np.testing.assert_allclose(jacobian(np.array(c)), slopes, rtol=1e-14)


def _by_degrees(function, c):
    """A function of polynomials by differences in each coefficient, evaluated and so of no certain degree."""
    columns = []
    for e in np.eye(len(c)) * 1e-3:
        total = sum(w * (function(c + k * e) - function(c - k * e)) for k, w in ((1, 45), (2, -9), (3, 1)))
        columns.append(total / 0.06)
    return np.stack(columns, -1)


DIVISOR = np.array([1.0, 2.0, 0.5])
KINDS = ("Polynomial", "Chebyshev", "Legendre", "Laguerre", "Hermite", "HermiteE")
QUOTIENTS = {
    "//": lambda kind, c: (kind(c) // kind(DIVISOR))(1.3),
    "%": lambda kind, c: (kind(c) % kind(DIVISOR))(1.3),
    "divmod": lambda kind, c: sum(k * p(1.3) for k, p in enumerate(divmod(kind(c), kind(DIVISOR)), 2)),
    "by a number": lambda kind, c: (kind(c) // c[0])(1.3),
    "divisor": lambda kind, c: (kind([1.0, 2.0, -1.0, 3.0]) % kind(c[:3]))(1.3),
}


@pytest.mark.parametrize("name", QUOTIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_division_of_polynomials_whose_coefficients_are_zero_now(kind, name):
    function = lambda c: QUOTIENTS[name](getattr(np.polynomial, kind), c)  # noqa: E731
    differentiated = jc.value_and_jacobian(function)
    with_remainder = (np.polynomial.Polynomial(DIVISOR) * [1.0, 1.0] + 3.0).coef
    for c in ([1.0, 2.0, 3.0, 0.0], with_remainder, [0.3, 2.0, 0.5, 1.0], [1.0, 2.0, 0.5, 0.0]):
        value, slope = differentiated(np.array(c))
        np.testing.assert_allclose(value, function(np.array(c)), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(slope, _by_degrees(function, np.array(c)), rtol=1e-8, atol=1e-9)


def test_products_of_highest_coefficients_that_are_zero_now():
    slope = jc.jacobian(lambda c: np.polymul(c, DIVISOR))(np.array([0.0, 1.0, 2.0]))
    # (c0 z^2 + c1 z + c2) (z^2 + 2 z + 1/2), without the power of z that NumPy leaves out
    np.testing.assert_array_equal(slope, [[2, 1, 0], [0.5, 2, 1], [0, 0.5, 2], [0, 0, 0.5]])


def test_shares_out_of_range():
    jacobian = jc.jacobian(lambda x: np.quantile(x[1:], x[0]))
    jacobian(X)
    with pytest.raises(ValueError, match=r"range|between"):
        jacobian(X + 1.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (3, 2)])
def test_cross_products_in_the_plane(sizes):
    n, m = sizes

    def call(x):
        return np.cross(x[:, :n], x[::-1, 3 : 3 + m] ** 2)

    x = np.linspace(0.2, 1.7, 12).reshape(2, 6)
    value, jacobian = jc.value_and_jacobian(call)(x)
    np.testing.assert_array_equal(value, call(x))
    for k in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[k] = 1e-3  # of the second degree: these differences are exact
        np.testing.assert_allclose(jacobian[(..., *k)], (call(x + e) - call(x - e)) / 2e-3, atol=1e-11)
