"""scipy.interpolate at recorded points and through recorded values; rotations; looks at single numbers."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import scipy.interpolate as si
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

import jacana as jc

T = np.linspace(0.0, 3.0, 7)
Y = np.sin(T)
X = np.array([0.3, 1.2, 2.9])
BOTH = np.stack([Y, Y**2], axis=1)

SPLINES = {
    "cubic": si.CubicSpline(T, Y),
    "natural": si.CubicSpline(T, Y, bc_type="natural"),
    "pchip": si.PchipInterpolator(T, Y),
    "akima": si.Akima1DInterpolator(T, Y),
    "b-spline": si.make_interp_spline(T, Y, k=5),
    "two at once": si.CubicSpline(T, BOTH),
    "two in rows": si.CubicSpline(T, BOTH.T, axis=1),
    "bernstein": si.BPoly.from_power_basis(si.CubicSpline(T, Y)),
    "fitpack": si.InterpolatedUnivariateSpline(T, Y),
}


@pytest.mark.parametrize("executor", ["numpy", "native"] if jc.native_available() else ["numpy"])
@pytest.mark.parametrize("name", SPLINES)
def test_constant_splines(name, executor):
    s = SPLINES[name]
    with jc.executor(executor):
        assert jc.check(lambda x: s(x), X)
        assert jc.check(lambda x: s(x.reshape(3, 1)) * x[0], X)
        assert jc.check(lambda x: s(x[0], 1), X, tolerance=1e-5)
        expected = 2 * (s(X, 1) ** 2 + s(X) * s(X, 2))
        hessian = jc.hessian(lambda x: np.sum(s(x) ** 2))(X)
        summed = expected.sum(axis=0 if name == "two in rows" else 1) if expected.ndim > 1 else expected
        np.testing.assert_allclose(np.diag(hessian), summed, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(jc.vmap(jc.grad(lambda v: np.sum(s(v))))(X), jc.grad(lambda x: np.sum(s(x)))(X))


def test_the_structure_is_diagonal_and_no_interval_is_guarded():
    s = SPLINES["cubic"]
    jacobian = jc.jacobian(lambda x: s(x), format="csr")
    assert jacobian(X).nnz == 3
    for x in (X, X + 0.9, X * 0.0, X - 4.0):
        np.testing.assert_allclose(jacobian(x).diagonal(), s(x, 1), rtol=1e-14)
    outside = jc.jacobian(lambda x: s(x, extrapolate=False))(np.array([1.0, 4.0]))
    assert np.isfinite(outside[0]).all() and np.isnan(outside[1, 1]) and outside[1, 0] == 0.0


def test_coefficients_that_change_are_seen():
    s = si.CubicSpline(T, Y)
    jacobian = jc.jacobian(lambda x: s(x))
    before = jacobian(X)
    s.c *= 2
    np.testing.assert_allclose(jacobian(X), 2 * before, rtol=1e-15)


def test_splines_through_recorded_values():
    assert jc.check(lambda y: CubicSpline(T, y)(X), Y)
    assert jc.check(lambda y, x: si.CubicSpline(T, y, bc_type="natural")(x, 1), Y, X)
    assert jc.check(lambda y, x: si.make_interp_spline(T, y, k=3)(x) + CubicSpline(T, y).integrate(0.1, x[0]), Y, X)
    assert jc.check(lambda y: CubicSpline(T, y).derivative()(X) + CubicSpline(T, y).antiderivative()(X), BOTH)
    np.testing.assert_allclose(jc.jacobian(lambda y: CubicSpline(T, y)(X))(Y) @ Y, CubicSpline(T, Y)(X), rtol=1e-14)


def test_integrals_and_fitpack():
    assert jc.check(lambda x: si.CubicSpline(T, Y).integrate(x[0], x[1]), X)
    assert jc.check(lambda x: SPLINES["b-spline"].integrate(0.0, x[2]) * x, X)
    assert jc.check(lambda x: si.splev(x, si.splrep(T, Y)), X)


def test_classes_are_what_they_were():
    def f(x):
        assert isinstance(SPLINES["cubic"], si.CubicSpline)
        assert issubclass(si.CubicSpline, si.PPoly)
        return si.CubicSpline(T, Y)(x)

    before = (si.CubicSpline, CubicSpline, vars(si.BSpline)["__call__"])
    jc.jacobian(f)(X)
    assert (si.CubicSpline, CubicSpline, vars(si.BSpline)["__call__"]) == before


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda y: si.PchipInterpolator(T, y)(X), "no linear function"),
        (lambda y: si.interp1d(T, y)(X), "CubicSpline"),
        (lambda y: si.CubicSpline(y, T)(X), "Only the values"),
        (lambda y: si.CubicSpline(T, y, bc_type="periodic")(X), "bc_type"),
        (lambda y: si.CubicSpline(T, y).roots(), "roots"),
        (lambda y: si.RegularGridInterpolator((T,), y)(X[:, None]), "CubicSpline"),
        (lambda y: si.RegularGridInterpolator((T,), Y)(y[:, None] / 4, "pchip"), "method='linear'"),
        (lambda y: si.interp1d(T, Y, kind="nearest")(y / 4), "nearest"),
        (lambda y: si.RBFInterpolator(T[:, None], Y)(y[:, None]), r"of scipy\.interpolate takes plain numbers"),
    ],
)
def test_refused_splines(function, words):
    with pytest.raises(jc.RecordingError, match=words):
        jc.jacobian(function)(Y + T)


TABLES = {
    "linear": (si.interp1d(T, Y), X),
    "cubic": (si.interp1d(T, Y, kind="cubic"), X.reshape(3, 1)),
    "outside by numbers": (si.interp1d(T, Y, bounds_error=False, fill_value=(3.0, 4.0)), np.array([-0.2, 1.2, 3.4])),
    "extrapolated": (si.interp1d(T, Y, fill_value="extrapolate"), np.array([-0.2, 1.2, 3.4])),
    "rows": (si.interp1d(T, BOTH.T, bounds_error=False, fill_value=0.5), np.array([[0.3, 3.4]])),
    "first axis": (si.interp1d(T, BOTH, axis=0, kind="quadratic"), X),
    "grid": (
        si.RegularGridInterpolator((T, np.arange(4.0)), np.outer(Y, [1.0, 3.0, 2.0, 5.0])),
        np.array([[0.3, 2.5], [2.9, 0.2]]),
    ),
    "grid, outside": (
        si.RegularGridInterpolator((T,), BOTH, bounds_error=False, fill_value=7.0),
        np.array([[0.3], [3.5]]),
    ),
    "grid, on and on": (
        si.RegularGridInterpolator(
            (-T, T, T), Y[:, None, None] * BOTH[None] @ np.ones((2, 7)), bounds_error=False, fill_value=None
        ),
        np.array([-0.3, 3.5, 1.2]),
    ),
}


@pytest.mark.parametrize("executor", ["numpy", "native"] if jc.native_available() else ["numpy"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_at_recorded_points(name, executor):
    table, points = TABLES[name]
    with jc.executor(executor):
        both = jc.value_and_jacobian(lambda x: table(x))
        for x in (points, points * 0.9 + 0.01, points[::-1].copy() if points.ndim > 1 else points * 0.5, points):
            value, jacobian = both(x)
            np.testing.assert_allclose(value, table(x), rtol=1e-13, atol=1e-14)
            steps = [1e-6 * np.eye(x.size)[k].reshape(x.shape) for k in range(x.size)]
            slopes = np.stack([(table(x + e) - table(x - e)) / 2e-6 for e in steps], axis=-1)
            np.testing.assert_allclose(jacobian.reshape(slopes.shape), slopes, rtol=1e-7, atol=1e-7)


def test_tables_are_followed_when_they_change_and_keep_their_bounds():
    line, grid = si.interp1d(T, Y.copy()), si.RegularGridInterpolator((T,), Y.copy())
    for table, numbers, point in ((line, line._y, np.array([0.3])), (grid, grid.values, np.array([[0.3]]))):
        jacobian = jc.jacobian(lambda x, table=table: table(x))
        before = jacobian(point)
        numbers *= 2.0
        np.testing.assert_allclose(jacobian(point), 2.0 * before, rtol=1e-14)
        with pytest.raises(ValueError, match=r"out of bounds|above the interpolation range"):
            jacobian(point + 3.0)


# --- rotations --------------------------------------------------------------------------------------------------------


def test_constant_rotations_of_recorded_vectors():
    one, many = Rotation.from_rotvec([0.1, 0.2, 0.3]), Rotation.from_rotvec(np.eye(3)[:2])
    if not isinstance(vars(Rotation).get("apply"), type(lambda: 0)):
        pytest.skip("this version of SciPy has a compiled class")
    np.testing.assert_allclose(jc.jacobian(lambda x: one.apply(x))(X), one.as_matrix(), rtol=1e-15)
    np.testing.assert_allclose(jc.jacobian(lambda x: one.apply(x, inverse=True))(X), one.as_matrix().T, rtol=1e-15)
    assert jc.check(lambda x: one.apply(x), np.stack([X, X**2]))
    assert jc.check(lambda x: many.apply(x), np.stack([X, X**2]))
    assert jc.check(lambda x: many.apply(x), X)


def test_recorded_rotations_are_refused_where_the_class_is_compiled():
    if isinstance(vars(Rotation).get("apply"), type(lambda: 0)):
        pytest.skip("this version of SciPy has a class in Python: see test_rotations")
    for make in (Rotation.from_rotvec, Rotation.from_quat, lambda v: Rotation.from_euler("xyz", v)):
        with pytest.raises(jc.RecordingError):
            jc.jacobian(lambda v, make=make: make(v).as_matrix())(
                np.append(X, 1.0)[: 4 if make is Rotation.from_quat else 3]
            )


# --- single numbers ------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: math.sin(x[0]) * x, lambda x: float(x[0]) * x, lambda x: x[0].item() * x,
        lambda x: np.float64(x[0]) * x, lambda x: np.float32(x[0]) * x, lambda x: complex(x[0]) * x,
        lambda x: cmath.exp(x[0]) * x,
        lambda x: math.hypot(*x) * x, lambda x: math.fsum(x) * x, lambda x: x.tolist()[0] * x,
        lambda x: np.asarray(list(map(math.exp, x))),
        lambda x: np.vectorize(math.sin)(x), lambda x: np.fromiter(map(math.sin, x), float),
    ],
)  # fmt: skip
def test_single_numbers_are_never_silent_constants(function):
    with pytest.raises(jc.RecordingError, match=r"lose its derivative"):
        jc.jacobian(function)(X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: round(x[0]) * x, lambda x: math.floor(3 * x[0]) * x, lambda x: int(9 * x[0]) * x,
        lambda x: max(x) * x,
        lambda x: sum(x) * x, lambda x: math.prod(x) * x, lambda x: sorted(x)[1] * x, lambda x: abs(x[0]) * x,
        lambda x: divmod(x[0], 0.2)[1] * x, lambda x: pow(x[0], 2) * x, lambda x: x[0].data * x if x[0] > 9 else x,
        lambda x: x if bool(x[0]) else -x,
    ],
)  # fmt: skip
def test_single_numbers_that_work(function):
    derivative = jc.jacobian(function)
    for x in (X, X + 1.05, X + 0.11):  # where a guard fails, the function is recorded anew
        step = 1e-6
        plain = [(function(x + step * e) - function(x - step * e)) / (2 * step) for e in np.eye(3)]
        np.testing.assert_allclose(derivative(x), np.stack(plain, axis=-1), rtol=1e-7, atol=1e-8)
