"""Linear filters, distances and distributions of SciPy beyond the table of calls; complex numbers among them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg as la
import scipy.ndimage as ndi
import scipy.signal as sg
import scipy.spatial.distance as sd
import scipy.special as sc
import scipy.stats as st

import jacana as jc

X = np.array([0.3, 0.7, 1.1, 0.2])


def differences(function, x, step=1e-3):
    columns = []
    for e in np.eye(len(x)) * step:
        total = sum(w * (function(x + k * e) - function(x - k * e)) for k, w in ((1, 45), (2, -9), (3, 1)))
        columns.append(total / (60 * step))
    return np.stack(columns, -1)


def test_coefficients_that_change_are_seen():
    b = np.array([1.0, 0.5])
    filtered = jc.value_and_jacobian(lambda x: sg.lfilter(b, [1.0, -0.3], x))
    for factor in (1.0, 2.0):
        b[0] = factor
        value, slope = filtered(X)
        np.testing.assert_allclose(value, sg.lfilter(b, [1.0, -0.3], X), rtol=1e-14)
        np.testing.assert_allclose(slope @ X, value, rtol=1e-13)


def test_filters_are_sparse_and_have_no_second_derivative():
    smooth = lambda x: sg.savgol_filter(x, 5, 2, mode="constant", cval=2.0)  # noqa: E731
    x = np.linspace(0.0, 1.0, 30) ** 2
    assert jc.jacobian(smooth, format="csr")(x).nnz < 5 * 30
    assert jc.hessian(lambda x: np.sum(smooth(x)))(x).any() is np.False_
    energy = lambda x: np.sum(smooth(x) ** 3)  # noqa: E731
    np.testing.assert_allclose(jc.hessian(energy)(x), differences(jc.grad(energy), x), atol=1e-8)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: sg.lfilter(x, [1.0, 0.2], np.ones(4)),
        lambda x: sg.lfilter([1.0], [1.0, 0.2], x, zi=np.zeros(1)),
        lambda x: sg.hilbert(x * 1j),
        lambda x: ndi.shift(x, x[0]),
        lambda x: sd.euclidean(x * 1j, x),
        lambda x: la.cho_factor(np.eye(2) + 1j * x[0]),
        lambda x: st.norm.ppf(x),  # 1.1 is no share
    ],
)
def test_refused_with_the_line(call):
    with pytest.raises(jc.RecordingError, match=r"test_filters_and_distributions\.py"):
        jc.jacobian(call)(X)


def test_points_where_distances_have_a_kink():
    zero = np.zeros(3)
    np.testing.assert_array_equal(jc.jacobian(lambda x: sd.euclidean(x, zero))(zero), zero)
    np.testing.assert_array_equal(jc.jacobian(lambda x: sd.canberra(x, zero))(zero), zero)
    points = X.reshape(2, 2)
    slope = jc.jacobian(lambda p: sd.cdist(p, p))(points)
    assert np.isfinite(slope).all()
    assert not slope[0, 0].any()


@pytest.mark.parametrize("point", [-0.5, 0.5, 1.5])
def test_on_both_sides_of_the_support(point):
    density = jc.value_and_jacobian(lambda x: st.uniform.pdf(x) + st.beta.pdf(x, 2.0, 3.0) + st.beta.cdf(x, 2.0, 3.0))
    at = lambda x: st.uniform.pdf(x) + st.beta.pdf(x, 2.0, 3.0) + st.beta.cdf(x, 2.0, 3.0)  # noqa: E731
    density(np.array(0.3))  # recorded inside
    value, slope = density(np.array(point))
    np.testing.assert_allclose(value, at(point), rtol=1e-14)
    np.testing.assert_allclose(slope, (at(point + 1e-5) - at(point - 1e-5)) / 2e-5, rtol=1e-7, atol=1e-9)


def test_a_likelihood():
    data = np.array([0.5, 1.2, 0.3, 2.2])

    def loss(p):
        return -np.sum(st.norm.logpdf(data, p[0], p[1])) - np.sum(st.gamma(p[2], scale=p[1]).logpdf(data))

    p = np.array([0.4, 1.3, 2.1])
    np.testing.assert_allclose(jc.grad(loss)(p), differences(loss, p), rtol=1e-9)
    np.testing.assert_allclose(jc.hessian(loss)(p), differences(jc.grad(loss), p), rtol=1e-8)


def test_a_function_that_imports_scipy_stats_itself():
    def density(x):
        import scipy.stats as stats

        return stats.norm.pdf(x)

    np.testing.assert_allclose(np.diag(jc.jacobian(density)(X)), -X * st.norm.pdf(X), rtol=1e-14)


COMPLEX = {
    "solve": lambda x: la.solve(np.eye(2) + 1j * x[:2, None] * x[2:], x[:2]),
    "det": lambda x: la.det(np.eye(2) + 1j * x[:2, None] * x[2:]),
    "inv": lambda x: la.inv(np.eye(2) + 1j * x[:2, None] * x[2:]),
    "toeplitz": lambda x: la.toeplitz(x * 1j),
    "block_diag": lambda x: la.block_diag(x[:2] * 1j, x[2:]),
    "norm": lambda x: la.norm(x + 1j),
    "logsumexp": lambda x: sc.logsumexp([x, x[::-1] + np.pi * 1j], axis=0),
    "logsumexp, weighted": lambda x: sc.logsumexp(x * 1j, b=[1.0, 2.0, 3.0, 0.5]),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_in_functions_of_scipy(name):
    parts = lambda x: (lambda z: np.concatenate([np.ravel(np.real(z)), np.ravel(np.imag(z))]))(COMPLEX[name](x))  # noqa: E731
    value, slope = jc.value_and_jacobian(parts)(X)
    np.testing.assert_allclose(value, parts(X), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(slope, differences(parts, X), rtol=1e-9, atol=1e-10)


DENSITY, OTHER_DENSITY = st.norm.pdf, st.t(5.0).logpdf  # bound before anything is recorded


def test_methods_that_were_bound_before_are_recorded():
    def both(x):
        return DENSITY(x) * OTHER_DENSITY(x)

    x, h = np.array(0.3), 1e-6
    np.testing.assert_allclose(jc.grad(st.norm.pdf)(x), -0.3 * st.norm.pdf(0.3), rtol=1e-14)
    np.testing.assert_allclose(jc.grad(both)(x), (both(x + h) - both(x - h)) / (2 * h), rtol=1e-8)
    assert vars(st.rv_continuous)["pdf"] is DENSITY.__func__  # everything is as it was
