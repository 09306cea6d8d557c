"""Functions written in terms of others: NumPy's value, shape and dtype, a right replay, and a right derivative."""

import numpy as np
import pytest
from record_helpers import check

import jacana as jc

RNG = np.random.default_rng(5)
A = RNG.uniform(0.1, 0.9, (2, 5))
V = RNG.uniform(0.1, 0.9, 6)
HOLES = np.array([[0.3, np.nan, 0.7, 0.2, 0.55], [0.25, 0.9, np.nan, np.nan, 0.45]])
LATE = hasattr(np, "cumulative_prod")


def written(x, write):
    y = np.zeros(6)
    y[:] = x
    write(y)
    return y


CASES = {
    "cumprod": (A, lambda x: np.cumprod(x, axis=1)),
    "cumprod flat": (A, lambda x: np.cumprod(x)),
    "cumprod down": (A, lambda x: x.cumprod(axis=0)),
    "cumulative_prod": (V, lambda x: np.cumulative_prod(x) if LATE else np.cumprod(x)),
    "cumulative_sum with start": (A, lambda x: np.cumulative_sum(x, axis=1, include_initial=True) if LATE else x),
    "cumulative_prod with start": (A, lambda x: np.cumulative_prod(x, axis=0, include_initial=True) if LATE else x),
    "multiply.accumulate": (A, lambda x: np.multiply.accumulate(x, axis=1)),
    "maximum.accumulate": (A, lambda x: np.maximum.accumulate(x, axis=1)),
    "minimum.accumulate": (V, lambda x: np.minimum.accumulate(x)),
    "add.reduceat": (V, lambda x: np.add.reduceat(x, [0, 2, 2, 5])),
    "multiply.reduceat": (A, lambda x: np.multiply.reduceat(x, [0, 3, 1], axis=1)),
    "nanmean": (HOLES, lambda x: np.nanmean(x, axis=1)),
    "nanmean all": (HOLES, lambda x: np.nanmean(x)),
    "nanmean keepdims": (HOLES, lambda x: np.nanmean(x, axis=0, keepdims=True)),
    "nanvar": (HOLES, lambda x: np.nanvar(x, axis=1)),
    "nanvar ddof": (HOLES, lambda x: np.nanvar(x, ddof=1, keepdims=True)),
    "nanstd": (HOLES, lambda x: np.nanstd(x, axis=1)),
    "nanmax": (HOLES, lambda x: np.nanmax(x, axis=1)),
    "nanmin": (HOLES, lambda x: np.nanmin(x, axis=0)),
    "nansum": (HOLES, lambda x: np.nansum(x, axis=0)),
    "nanprod": (HOLES, lambda x: np.nanprod(x, axis=1)),
    "nancumsum": (HOLES, lambda x: np.nancumsum(x, axis=1)),
    "nancumprod": (HOLES, lambda x: np.nancumprod(x)),
    "nanargmax": (HOLES, lambda x: x[np.arange(2), np.nanargmax(x, axis=1)]),
    "nanargmin": (HOLES, lambda x: x.ravel()[np.nanargmin(x)]),
    "nanmedian": (HOLES, lambda x: np.nanmedian(x, axis=1)),
    "nanpercentile": (HOLES, lambda x: np.nanpercentile(x, [20, 70], axis=1)),
    "nanquantile": (HOLES, lambda x: np.nanquantile(x, 0.3)),
    "percentile": (A, lambda x: np.percentile(x, 30)),
    "percentile axis": (A, lambda x: np.percentile(x, [10, 50, 95], axis=1)),
    "percentile of NaN": (HOLES, lambda x: np.percentile(np.where(np.isnan(x), 0.5, x), 40, axis=0)),
    "quantile keepdims": (A, lambda x: np.quantile(x, [[0.1, 0.7]], axis=1, keepdims=True)),
    **{
        f"quantile {method}": (A, lambda x, method=method: np.quantile(x, [0.0, 0.33, 0.5, 1.0], axis=1, method=method))
        for method in (
            "inverted_cdf", "averaged_inverted_cdf", "closest_observation", "interpolated_inverted_cdf", "hazen",
            "weibull", "median_unbiased", "normal_unbiased", "lower", "higher", "midpoint", "nearest",
        )
    },
    "cov": (A, lambda x: np.cov(x)),
    "cov one": (V, lambda x: np.cov(x)),
    "cov two": (V, lambda x: np.cov(x, x**2)),
    "cov columns": (A, lambda x: np.cov(x, rowvar=False, bias=True)),
    "cov weights": (A, lambda x: np.cov(x, fweights=[1, 2, 1, 3, 1], aweights=[0.5, 0.2, 1.0, 0.7, 0.3])),
    "corrcoef": (A, lambda x: np.corrcoef(x)),
    "corrcoef two": (V, lambda x: np.corrcoef(x, np.sin(3 * x))),
    "interp x": (V, lambda x: np.interp(x, [0.0, 0.3, 0.5, 0.85], [1.0, 4.0, 2.0, 3.0])),
    "interp left right": (V, lambda x: np.interp(x, [0.3, 0.5], [1.0, 4.0], left=-x[0], right=7.0)),
    "interp table": (V, lambda x: np.interp([0.05, 0.4, 1.4, 2.9], [0.0, 1.0, 2.0], x[:3])),
    "interp knots": (V, lambda x: np.interp([0.5, 1.5], np.cumsum(x), np.cumsum(x) ** 2)),
    "interp period": (V, lambda x: np.interp(7 * x, [0.0, 1.0, 2.5], x[:3], period=3.0)),
    "unwrap": (V, lambda x: np.unwrap(np.cumsum(9 * x))),
    "unwrap period": (A, lambda x: np.unwrap(4 * x, axis=0, period=1.5)),
    "polyadd": (V, lambda x: np.polyadd(x[:2], x[2:])),
    "polysub": (V, lambda x: np.polysub(x[:4], x[4:])),
    "polymul": (V, lambda x: np.polymul(x[:2], x[2:])),
    "polyder": (V, lambda x: np.polyder(x, 2)),
    "polyint": (V, lambda x: np.polyint(x, 2, [x[0], 2.0])),
    "polyint plain": (V, lambda x: np.polyint(x)),
    "poly": (V, lambda x: np.poly(x[:3])),
    "polydiv": (V, lambda x: np.polydiv(x[:4], x[4:])),
    "vander": (V, lambda x: np.vander(x, 3)),
    "vander increasing": (V, lambda x: np.vander(x[:3], increasing=True)),
    "logspace": (V, lambda x: np.logspace(x[0], x[1], 4)),
    "geomspace": (V, lambda x: np.geomspace(x[0], x[1], 4)),
    "histogram weights": (V, lambda x: np.histogram([0.1, 0.5, 0.2, 1.0, 0.0, 3.0], 3, (0.0, 1.0), weights=x)[0]),
    "histogram edges": (V, lambda x: np.histogram(x, 4, weights=x)),
    "histogram density": (V, lambda x: np.histogram([0.1, 0.5, 0.2, 1.0, 0.0, 3.0], 3, weights=x, density=True)[0]),
    "apply_along_axis": (A, lambda x: np.apply_along_axis(lambda r: r.sum() * r[::-1], 1, x)),
    "apply_along_axis to numbers": (A, lambda x: np.apply_along_axis(np.prod, 0, x)),
    "apply_along_axis to matrices": (A, lambda x: np.apply_along_axis(lambda c: np.outer(c, c), 0, x)),
    "apply_over_axes": (A, lambda x: np.apply_over_axes(np.sum, x**2, [0, 1])),
    "piecewise": (V, lambda x: np.piecewise(x, [x < 0.4, x > 0.7], [lambda v: -v, lambda v: v**2, 0.25])),
    "piecewise argument": (V, lambda x: np.piecewise(x, x < 0.4, [lambda v, p: v * p, lambda v, p: v + p], x[0])),
    "vectorize": (A, lambda x: np.vectorize(lambda t, u: t * u + np.sin(t) if t > 0.5 else u)(x, x[0])),
    "vectorize tuple": (V, lambda x: np.vectorize(lambda t: (t * 2, t**2))(x)),
    "r_": (V, lambda x: np.r_[x[:4], 0.0, x[4:], 2:5]),
    "r_ matrices": (A, lambda x: np.r_["1,2,0", x[0], x[1]]),
    "r_ along": (A, lambda x: np.r_["-1", x, x[:, :2]]),
    "c_": (V, lambda x: np.c_[x[:3], x[3:], [1.0, 2.0, 3.0]]),
    "put": (V, lambda x: written(x, lambda y: np.put(y, [0, -2, 3], x[:2] * 2))),
    "place": (V, lambda x: written(x, lambda y: np.place(y, y > 0.5, x[:2] * 2))),
    "putmask": (V, lambda x: written(x, lambda y: np.putmask(y, y > 0.5, y[:4] * 2))),
    "put_along_axis": (A, lambda x: written(V, lambda y: np.put_along_axis(y, np.array([4, 1]), x[:, 0], 0))),
    "partition": (A, lambda x: np.partition(x, 2, axis=1)),
    "argpartition": (V, lambda x: x[np.argpartition(x, 3)]),
    "unique": (V, lambda x: np.unique(np.concatenate((x, x[:2])))),
    "unique counts": (V, lambda x: np.unique(x, return_counts=True, return_index=True, return_inverse=True)),
    "union1d": (V, lambda x: np.union1d(x[:4], x[2:])),
    "trim_zeros": (V, lambda x: np.trim_zeros(np.concatenate(([0.0], x, [0.0, 0.0])))),
    "resize": (A, lambda x: np.resize(x, (3, 4))),
    "sum where": (A, lambda x: np.sum(x, axis=1, where=[True, False, True, True, False])),
    "mean where": (A, lambda x: np.mean(x, axis=1, where=x > 0.3)),
    "var where": (A, lambda x: np.var(x, axis=1, where=[True, False, True, True, True], ddof=1)),
    "std where": (A, lambda x: np.std(x, where=[True, False, True, True, True])),
    "prod where": (A, lambda x: np.prod(x, axis=0, where=[[True, False, True, True, True], [True] * 5])),
    "max where": (A, lambda x: np.max(x, axis=1, where=[True, False, True, False, True], initial=0.05)),
    "min initial": (A, lambda x: np.min(x, axis=1, initial=0.2)),
    "prod initial": (A, lambda x: np.prod(x, axis=1, initial=2.0)),
    "ufunc where out": (V, lambda x: np.divide(1.0, x, out=np.copy(x), where=x > 0.5)),
}  # fmt: skip
# The formula rounds otherwise than NumPy's own loop does; the recorded number is NumPy's all the same.
SECOND = ("cumprod", "corrcoef", "polymul", "poly", "vander", "var where", "interp knots", "geomspace")


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_value_and_replay(name, dtype):
    value, function = CASES[name]
    if name == "polydiv" and dtype == np.float32:
        pytest.skip("rounding decides how many leading zeros of the remainder NumPy takes away")
    value = value.astype(dtype)
    exact = not name.startswith(("mean where", "var where", "std where", "vectorize"))
    check(function, value, others=[(value * 1.003).astype(dtype)], rtol=1e-5 if dtype == np.float32 else 1e-11,
          exact=exact)  # fmt: skip


def floats(function):
    def stacked(x):
        result = function(x)
        parts = result if isinstance(result, tuple) else (result,)
        return np.concatenate([np.ravel(p) for p in parts if p.dtype.kind == "f"])

    return stacked


def differences(function, x, step):
    columns = []
    for k in np.ndindex(*x.shape):
        e = np.zeros_like(x)
        e[k] = step
        a, b, c, d = function(x + e), function(x - e), function(x + 2 * e), function(x - 2 * e)
        columns.append((8 * (a - b) - (c - d)) / (12 * step))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_derivative(name):
    value, function = CASES[name]
    function = floats(function)
    dense = jc.jacobian(function)(value).reshape(-1, value.size)
    want = differences(function, value, 1e-4)
    there = ~np.isnan(value).ravel()
    np.testing.assert_allclose(dense[:, there], want[:, there], rtol=1e-8, atol=1e-8)
    assert not np.nan_to_num(dense[:, ~there], nan=1.0).any()  # what is missing has no part in anything
    # Another program, which may add the same numbers in another order.
    sparse = jc.jacobian(function, format="csr")(value).toarray()
    np.testing.assert_allclose(sparse, dense, rtol=1e-13, atol=1e-15 * max(1.0, np.abs(dense).max(initial=0.0)))
    weights = np.linspace(0.5, 1.5, len(dense))
    np.testing.assert_allclose(
        jc.grad(lambda x: np.sum(weights * function(x)))(value).ravel(), weights @ dense, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("name", SECOND)
def test_second_derivative(name):
    value, function = CASES[name]
    function = floats(function)
    weights = np.linspace(0.5, 1.5, len(function(value)))
    gradient = jc.grad(lambda x: np.sum(weights * function(x) ** 2))
    want = differences(gradient, value, 1e-4)
    found = jc.hessian(lambda x: np.sum(weights * function(x) ** 2))(value)
    np.testing.assert_allclose(found.reshape(want.shape), want, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("zeros", [(), (1,), (0,), (1, 3), (0, 1, 2, 3)])
def test_cumprod_with_zeros(zeros):
    x = np.array([0.5, 2.0, -1.5, 3.0])
    x[list(zeros)] = 0.0
    want = np.array([[np.prod(np.delete(x[: i + 1], j)) if j <= i else 0.0 for j in range(4)] for i in range(4)])
    np.testing.assert_allclose(jc.jacobian(np.cumprod)(x), want, rtol=1e-15)
    assert jc.jacobian(np.cumprod, format="csr")(x).nnz == 10
    np.testing.assert_allclose(jc.grad(lambda x: np.sum(np.cumprod(x)))(x), want.sum(axis=0), rtol=1e-14)


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 0)])
def test_cumprod_of_little(shape):
    assert jc.jacobian(lambda x: np.cumprod(x, axis=-1))(np.ones(shape)).shape == shape + shape


def test_other_paths_are_other_recordings():
    f = jc.jacobian(lambda x: np.percentile(x, 50) * np.interp(x[0], [0.0, 1.0, 2.0], [0.0, 5.0, 6.0]))
    np.testing.assert_allclose(f(np.array([0.5, 2.0, 3.0])), [10.0, 2.5, 0.0])
    np.testing.assert_allclose(f(np.array([1.5, 1.0, 0.0])), [1.0, 5.5, 0.0])


def test_numpy_is_left_as_it_was():
    before = (np.vectorize.__call__, type(np.r_).__getitem__)
    jc.jacobian(lambda x: np.r_[x, np.vectorize(np.sin)(x)])(V)
    assert (np.vectorize.__call__, type(np.r_).__getitem__) == before
    np.testing.assert_array_equal(np.r_[V, 1.0][:-1], V)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: np.unique(x[None], axis=0), r"unique\(\.\.\., axis="),
        (lambda x: np.histogram(x, "auto"), "bins='name'"),
        (lambda x: np.divide(1.0, x, where=x > 0.5), "without out"),
    ],
)
def test_refused(function, message):
    with pytest.raises(jc.UnsupportedOperationError, match=message):
        jc.jacobian(function)(V)


def test_numpys_own_errors():
    with pytest.raises(IndexError, match="out of bounds"):
        jc.jacobian(lambda x: written(x, lambda y: np.put(y, [7], x[:1])))(V)
    with pytest.raises(IndexError, match="out-of-bounds"):
        jc.jacobian(lambda x: np.add.reduceat(x, [0, 9]))(V)
    with pytest.raises(ValueError, match="initial"):
        jc.jacobian(lambda x: np.max(x, where=x > 0.5))(V)
    with pytest.raises(ValueError, match="functions are expected"):
        jc.jacobian(lambda x: np.piecewise(x, [x > 0.5], [1, 2, 3]))(V)
    with pytest.raises(jc.RecordingError, match="cannot write a Variable into a plain ndarray"):
        jc.jacobian(lambda x: np.put(V.copy(), [0], x[:1]))(V)
