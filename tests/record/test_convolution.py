"""Convolutions of two recorded vectors that are long: values, derivatives of two orders, and exact patterns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal
from support import EXECUTORS, F8, close, execute, op

import jacana as jc
from jacana.differentiate import dense_jacobians, sparse_jacobian
from jacana.graph import build
from jacana.graph.index import Affine
from jacana.graph.node import Node, new_input, topological
from jacana.graph.ops.convolution import ConvolutionParams

rng = np.random.default_rng(5)
N, M = 18, 25
MODES = ("full", "same", "valid")
FUNCTIONS = {
    "numpy.convolve": np.convolve,
    "numpy.correlate": np.correlate,
    "signal.convolve": lambda a, v, mode: signal.convolve(a, v, mode),
    "signal.correlate": lambda a, v, mode: signal.correlate(a, v, mode),
    "signal.convolve, transforms": lambda a, v, mode: signal.convolve(a, v, mode, "fft"),
    "signal.fftconvolve": lambda a, v, mode: signal.fftconvolve(a, v, mode),
}


def columns(f, x):
    """The derivative of a function of degree four at most, which differences of this order give exactly."""
    steps = np.eye(x.size)
    parts = [sum(w * (f(x + k * e) - f(x - k * e)) for k, w in ((1, 45), (2, -9), (3, 1))) / 60 for e in steps]
    return np.stack(parts, axis=-1)


def check(f, x, nonzero=None):
    """Jacobian and Hessian of a weighted sum, in all formats and orders, with the entries that there are."""
    y = f(x)
    w = np.cos(np.arange(y.size))
    first = columns(f, x)
    nnz = np.count_nonzero(np.abs(first) > 1e-9) if nonzero is None else nonzero
    for order in ("auto", "forward", "reverse"):
        close(jc.jacobian(f, order=order)(x), first, 1e-11, order)
        J = jc.jacobian(f, format="csr", order=order)(x)
        close(J.toarray(), first, 1e-11, order)
        assert J.nnz == nnz
    close(jc.value_and_jacobian(f)(x)[0], y, 1e-12)
    operator = jc.jacobian(f, format="operator")(x)
    close(operator @ np.sin(np.arange(x.size)), first @ np.sin(np.arange(x.size)), 1e-11)
    close(operator.T @ w, w @ first, 1e-11)
    gradient = jc.grad(lambda z: np.sum(f(z) * w))
    close(gradient(x), w @ first, 1e-11)
    second = columns(gradient, x)
    close(jc.hessian(lambda z: np.sum(f(z) * w))(x), second, 1e-10)
    H = jc.hessian(lambda z: np.sum(f(z) * w), format="csr")(x)
    close(H.toarray(), second, 1e-10)
    assert H.nnz == np.count_nonzero(np.abs(second) > 1e-9)


@pytest.mark.parametrize("executor", ["numpy", "native"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_by_both(name, mode, executor):
    x = rng.normal(size=N + M)
    with jc.executor(executor):
        check(lambda z: FUNCTIONS[name](z[:N], z[N:], mode), x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_longer_first(name, mode):
    x = rng.normal(size=N + M)
    check(lambda z: FUNCTIONS[name](z[N:], z[:N], mode), x)


COMPOSED = {
    "of itself": (lambda z: np.convolve(z, z), 20),
    "every third": (lambda z: np.convolve(z[:N] ** 2, z[N:])[5:40:3], N + M),
    "differences": (lambda z: np.diff(np.convolve(z[:N], z[N:])), N + M),
    "of neighbours": (lambda z: np.convolve(z[1:N] * z[: N - 1], z[N:]), N + M),
    "backwards, every other": (lambda z: np.convolve(z[: 2 * N : 2][::-1], z[2 * N :]), 2 * N + M),
    "repeated": (lambda z: np.convolve(np.repeat(z[:5], 4), z[5:]), 5 + M),
    "sums of pairs": (lambda z: np.convolve(z[:40].reshape(20, 2).sum(axis=1), z[40:]), 40 + M),
    "between zeros": (lambda z: np.convolve(np.pad(z[:4], (6, 9)), np.pad(z[4:], (3, 12))), 9),
    "begins later": (lambda z: np.convolve(np.concatenate((z[0] * np.arange(1, 5), z[1:20])), z[20:])[:30], 20 + M),
    "in blocks": (lambda z: np.convolve(z[:N], z[N:])[:40].reshape(8, 5).sum(axis=1), N + M),
    "transposed": (lambda z: np.convolve(z[:24].reshape(4, 6).T.ravel(), z[24:]), 24 + M),
    "times a matrix": (
        lambda z: np.cos(np.arange(3.0 * (N + M - 1))).reshape(3, -1) @ np.convolve(z[:N], z[N:]),
        N + M,
    ),
    "of a convolution": (lambda z: np.convolve(np.convolve(z[:N], z[N : 2 * N])[:23], z[2 * N :]), 2 * N + 17),
    "of sums": (lambda z: np.convolve(z[0] + z[1:N], z[N] * z[N + 1 :]), N + M),
    "polymul": (lambda z: np.polymul(z[:N], z[N:]), N + M),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed(name):
    f, size = COMPOSED[name]
    check(f, rng.normal(size=size))


def test_entries_that_are_zero_by_chance_count():
    x = rng.normal(size=N + M)
    x[[3, N + 4]] = 0.0
    check(lambda z: np.convolve(z[:N], z[N:]), x, nonzero=2 * N * M)


KERNEL = np.exp(-(np.linspace(-2.0, 2.0, M) ** 2))
CONSTANT = {
    "numbers": (lambda z: np.convolve(z, KERNEL), 30),
    "numbers, the longer one": (lambda z: np.convolve(z, KERNEL, "same"), N),
    "with zeros at the ends": (lambda z: np.convolve(z, np.pad(KERNEL[4:11], (5, 9))), 30),
    "with zeros in between": (lambda z: np.correlate(z, KERNEL * (np.arange(M) % 3 != 1), "valid"), 30),
    "of scipy": (lambda z: signal.convolve(z, np.pad(KERNEL[4:11], (5, 9)), "same"), 30),
    "by transforms": (lambda z: signal.fftconvolve(KERNEL, z, "valid"), N),
    "of few": (lambda z: np.convolve(z[0] * np.arange(1.0, 31.0) + z[1], KERNEL)[3:41], 2),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_with_a_kernel_of_numbers(name):
    f, size = CONSTANT[name]
    x = rng.normal(size=size)
    check(f, x)
    check(lambda z: f(z * z), x)


def test_zeros_of_a_kernel_are_watched():
    kernel = KERNEL * (np.arange(M) != 3)
    J = jc.jacobian(lambda z: np.convolve(z, kernel), format="csr")
    x = rng.normal(size=30)
    for kernel[3], nnz in ((0.0, 30 * (M - 1)), (2.0, 30 * M)):
        assert J(x).nnz == nnz
        close(J(x) @ x, np.convolve(x, kernel), 1e-13)


@pytest.mark.parametrize("shape", [(3, 2), (2,)])
def test_a_batch(shape):
    def f(z):
        return np.convolve(z[:N], np.sin(z[N:]))

    x = rng.normal(size=(*shape, N + M))
    mapped, hessian = jc.jacobian(f), jc.hessian(lambda z: np.sum(f(z) ** 2))
    for _ in shape:
        mapped, hessian = jc.vmap(mapped), jc.vmap(hessian)
    first, second = mapped(x), hessian(x)
    for where in np.ndindex(shape):
        close(first[where], jc.jacobian(f)(x[where]), 1e-13)
        close(second[where], jc.hessian(lambda z: np.sum(f(z) ** 2))(x[where]), 1e-12)


def test_one_of_both_is_the_same_for_the_batch():
    kernel, lines = rng.normal(size=N), rng.normal(size=(3, M))

    def f(k, z):
        return np.sum(jc.vmap(lambda row: np.convolve(k, row))(z) ** 2)

    want = [2 * sum(np.correlate(np.convolve(kernel, row), row, "valid") for row in lines)]
    want.append(np.stack([2 * np.correlate(np.convolve(kernel, row), kernel, "valid") for row in lines]))
    for found, expected in zip(jc.grad(f, argnums=(0, 1))(kernel, lines), want, strict=True):
        close(found, expected, 1e-12)


def test_in_a_loop():
    def step(a, row):
        return np.convolve(a, row)[:N], a[0]

    def f(a, rows):
        return jc.scan(step, a, rows)[0]

    def plain(a, rows):
        for row in rows:
            a = np.convolve(a, row)[:N]
        return a

    a, rows = rng.normal(size=N), 0.3 * rng.normal(size=(3, M))
    close(f(a, rows), plain(a, rows), 1e-13)
    for k in (0, 1):
        close(jc.jacobian(f, argnums=k)(a, rows), jc.jacobian(plain, argnums=k)(a, rows), 1e-12)


def test_a_long_signal_and_a_shorter_kernel():
    # Longer than what is summed at once.
    n, m = 9_001, 40
    z = rng.normal(size=n + m)
    gradient = jc.grad(lambda z: np.sum(np.convolve(z[:n], z[n:]) ** 2))(z)
    spectrum = np.fft.rfft(np.convolve(z[:n], z[n:]), 2 * n)
    for k, size, other in ((0, n, z[n:]), (n, m, z[:n])):
        want = 2 * np.fft.irfft(spectrum * np.conj(np.fft.rfft(other, 2 * n)), 2 * n)[:size]
        close(gradient[k : k + size], want, 1e-11)


def test_single_precision_and_mixed():
    x = rng.normal(size=N + M).astype("f4")
    J = jc.jacobian(lambda z: np.convolve(z[:N], z[N:]))(x)
    assert J.dtype == np.float32
    np.testing.assert_allclose(J, columns(lambda z: np.convolve(z[:N], z[N:]), x.astype(float)), atol=1e-6)
    y, (by_a, by_b) = jc.value_and_jacobian(np.convolve, argnums=(0, 1))(x[:N], x[N:].astype(float))
    assert y.dtype == by_b.dtype == np.float64
    close(by_b, columns(lambda v: np.convolve(x[:N].astype(float), v), x[N:].astype(float)), 1e-12)
    np.testing.assert_allclose(by_a, columns(lambda a: np.convolve(a, x[N:]), x[:N].astype(float)), atol=1e-6)


def test_an_infinity_stays_where_it_is_multiplied():
    # What is outside of the band has no entry, so that no infinity is multiplied by its zeros.
    a, v = np.ones(N), np.ones(M)
    scale = np.ones(N + M - 1)
    scale[4] = np.inf
    for form in ("dense", "csr"):
        J = jc.jacobian(lambda v: scale * np.convolve(a * v[0] / v[0], v), format=form)(v)
        J = J if form == "dense" else J.toarray()
        assert np.isnan(J[4, 0])  # inf - inf: by v[0] twice
        assert (J[4, 1:5] == np.inf).all()
        assert (J[4, 5:] == 0.0).all()
        assert np.isfinite(np.delete(J, 4, axis=0)).all()
    a[2] = np.nan
    y, J = jc.value_and_jacobian(lambda a, v: np.convolve(a, v), argnums=(0, 1))(a, v)
    assert np.isnan(y).sum() == M
    assert np.isfinite(J[0]).all()
    assert (np.isnan(J[1]).sum(axis=1) == np.isnan(y)).all()


def lifetimes(t, shift, first, slow, second, fast, ground):
    """A fluorescence decay of two lifetimes, seen through the response of an instrument that is shifted in time."""
    response = np.exp(-0.5 * ((t - 1.5 - shift) / 0.12) ** 2)
    decay = first * np.exp(-t / slow) + second * np.exp(-t / fast)
    return np.convolve(response, decay)[: t.size] * (t[1] - t[0]) + ground


TRUE = np.array([0.1, 900.0, 2.8, 400.0, 0.6, 5.0])


def test_lifetimes_by_least_squares_and_by_likelihood():
    from scipy.optimize import curve_fit

    t = np.linspace(0.0, 12.5, 128)
    data = np.random.default_rng(0).poisson(lifetimes(t, *TRUE)).astype(float)
    start = [0.0, 700.0, 2.2, 300.0, 0.8, 3.0]
    found, covariance = jc.curve_fit(lifetimes, t, data, start)
    want, other = curve_fit(lifetimes, t, data, start, ftol=1e-12, xtol=1e-12)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    np.testing.assert_allclose(covariance, other, rtol=1e-3, atol=1e-6 * np.abs(other).max())

    def likelihood(p):
        rate = lifetimes(t, *p)
        return np.sum(rate - data * np.log(rate))

    minimum = jc.minimize(likelihood, start)
    assert minimum.success
    J, rate = jc.jacobian(lambda p: lifetimes(t, *p))(minimum.x), lifetimes(t, *minimum.x)
    scale = np.sqrt(np.diag((J / rate[:, None]).T @ J))
    assert (np.abs((1.0 - data / rate) @ J) < 1e-6 * scale).all()  # the score, in units of its standard deviation


def test_few_inputs_never_form_a_matrix():
    n, m = 40, 30
    theta = new_input((3,), F8)

    def wave(k: int, length: int) -> Node:
        part = build.index_node(theta, (length,), (Affine(k),))
        return op("exp", part * build.constant_array(np.linspace(-1.0, 0.5, length)))

    last = wave(2, n + m - 1)
    y = op("multiply", op("convolve", wave(0, n), wave(1, m), params=ConvolutionParams(False)), last)
    gradient = dense_jacobians([build.sum_axes(y * y, (0,))], [theta])[0][0]
    value = np.array([0.3, -0.7, 0.2])

    def reference(p):
        a, b, c = (np.exp(q * np.linspace(-1.0, 0.5, k)) for q, k in zip(p, (n, m, n + m - 1), strict=True))
        return np.convolve(a, b) * c

    step = 1e-30j * np.eye(3)
    first = np.stack([reference(value + e).imag / 1e-30 for e in step], axis=-1)
    slope = 2 * reference(value) @ first
    close(execute("numpy", [gradient], {theta: value})[0], slope, 1e-12)
    for order in ("auto", "forward", "reverse"):
        dense = dense_jacobians([y], [theta], order)[0][0]
        plan = sparse_jacobian(y, theta, order)
        hessian = dense_jacobians([gradient], [theta], order)[0][0]
        second = sparse_jacobian(gradient, theta, order)
        programs = [dense, plan.data, hessian, second.data]
        if order == "auto":
            assert max(node.size for node in topological(programs)) <= 3 * (n + m - 1)
            assert not any(node.op.matrix for node in topological(programs))
        for name in EXECUTORS if order == "auto" else ("numpy",):
            found = execute(name, programs, {theta: value})
            close(found[0], first, 1e-12)
            close(plan.make(found[1]).toarray(), first, 1e-12)
            close(second.make(found[3]).toarray(), found[2], 1e-11)
            close(found[2] @ value, _along(reference, value), 1e-8)


def _along(reference, value, h=1e-4):
    """The Hessian of the sum of squares times a vector, by differences of complex steps."""

    def slope(p):
        first = np.stack([reference(p + e).imag / 1e-30 for e in 1e-30j * np.eye(3)], axis=-1)
        return 2 * reference(p) @ first

    return (8 * (slope(value + h * value) - slope(value - h * value))
            - (slope(value + 2 * h * value) - slope(value - 2 * h * value))) / (12 * h)  # fmt: skip


def test_running_sums_of_few_inputs_are_never_formed():
    t = np.linspace(0.0, 3.0, 100_000)
    p = np.array([0.7, 1.3])
    J = jc.jacobian(lambda p: np.cumsum(p[1] * np.exp(-p[0] * t)), format="csr")(p)  # a triangle of 10^10 elements
    e = np.exp(-p[0] * t)
    want = np.stack([np.cumsum(-p[1] * t * e), np.cumsum(e)], axis=1)
    assert J.nnz == want.size
    close(J.toarray(), want, 1e-12)


def test_deconvolution_has_a_banded_hessian():
    n, m = 20, 120
    x = rng.normal(size=n + m)
    data = rng.normal(size=n + m - 1)
    H = jc.hessian(lambda z: np.sum((np.convolve(z[:n], z[n:]) - data) ** 2), format="csr")(x)
    # All by all of the kernel and the signal; of the signal those that a kernel can reach.
    assert H.nnz == n * n + 2 * n * m + sum(min(m, j + n) - max(0, j - n + 1) for j in range(m))
    dense = jc.hessian(lambda z: np.sum((np.convolve(z[:n], z[n:]) - data) ** 2))(x)
    close(H.toarray(), dense, 1e-11)
    T = np.stack([np.convolve(e, x[n:]) for e in np.eye(n)] + [np.convolve(x[:n], e) for e in np.eye(m)], axis=1)
    rest = np.convolve(x[:n], x[n:]) - data
    want = 2 * T.T @ T
    want[:n, n:] += 2 * np.lib.stride_tricks.sliding_window_view(rest, m)
    want[n:, :n] += 2 * np.lib.stride_tricks.sliding_window_view(rest, n)
    close(dense, want, 1e-11)
