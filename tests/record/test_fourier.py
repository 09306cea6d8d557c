"""Every transform of numpy.fft and scipy.fft: values, derivatives, lengths, axes, norms, and what is never formed."""

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.fft
from complex_cases import complex_array
from complex_helpers import check, check_derivative, same

import jacana as jc
from jacana.errors import UnsupportedOperationError
from jacana.graph.node import topological
from jacana.record import Variable, as_node

RNG = np.random.default_rng(5)
ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
SEVERAL = ["fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn"]
REAL_ONLY = {"rfft", "ihfft", "rfft2", "rfftn"}
NORMS = [None, "ortho", "forward"]
OPTIONS = [{}, {"n": 3}, {"n": 8}, {"axis": 0}, {"n": 2, "axis": 0}, {"n": 1}]
SHAPES = [
    {}, {"s": (2, 6), "axes": (0, 1)}, {"s": (4, 3), "axes": (1, 0)}, {"axes": (0, 1)}, {"axes": (1,)},
    {"axes": (-1, 0)},
]  # fmt: skip


def arguments(name, *shape):
    """Real and complex, of even and odd lengths."""
    real = RNG.normal(size=shape)
    return [real] if name in REAL_ONLY else [complex_array(*shape), real]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ONE)
def test_one_axis(name, norm):
    for module in (np.fft, scipy.fft):
        transform = getattr(module, name)
        for a in (*arguments(name, 3, 4), *arguments(name, 2, 5)):
            for options in OPTIONS:
                if np.shape(a)[options.get("axis", -1)] < 2 and name in ("irfft", "hfft") and "n" not in options:
                    continue
                check(lambda z, f=transform, o=options: f(z, norm=norm, **o), a)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", SEVERAL)
def test_several_axes(name, norm):
    for module in (np.fft, scipy.fft):
        transform = getattr(module, name)
        for a in (*arguments(name, 3, 4), *arguments(name, 2, 5)):
            for options in SHAPES:
                check(lambda z, f=transform, o=options: f(z, norm=norm, **o), a)
    if name.endswith("n"):
        check(lambda z: getattr(scipy.fft, name)(z, (4,)), arguments(name, 3, 4)[0])  # the last axes
        check(lambda z: getattr(scipy.fft, name)(z, s=4, axes=0), arguments(name, 3, 4)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        check(lambda z: getattr(np.fft, name)(z[0]), arguments(name, 2, 3, 4)[0])


@pytest.mark.parametrize("name", ONE + SEVERAL)
def test_derivatives(name):
    transform = getattr(np.fft, name)
    for norm in NORMS:
        for a in arguments(name, 3, 4):
            check_derivative(lambda z, n=norm: transform(z, norm=n), a)
    for options in OPTIONS[1:] if name in ONE else SHAPES[1:3]:
        for a in arguments(name, 2, 3):
            check_derivative(lambda z, o=options: transform(z, **o), a)


def test_transforms_of_scipy_alone():
    for norm in NORMS:
        for transform in (scipy.fft.hfft2, scipy.fft.hfftn):
            check(lambda z, f=transform, n=norm: f(z, norm=n), complex_array(3, 4))
        for transform in (scipy.fft.ihfft2, scipy.fft.ihfftn):
            check(lambda x, f=transform, n=norm: f(x, norm=n), RNG.normal(size=(3, 4)))
    check_derivative(scipy.fft.hfft2, complex_array(2, 3))
    check(scipy.fft.fftshift, complex_array(2, 3))
    check(lambda x: scipy.fft.fft(x, workers=2, overwrite_x=True), RNG.normal(size=5))


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["dct", "idct", "dst", "idst"])
def test_cosine_and_sine_transforms(name, kind):
    transform = getattr(scipy.fft, name)
    x = RNG.normal(size=(3, 5))
    for norm in NORMS:
        for orthogonalize in (None, True, False):
            for n, axis in ((None, -1), (3, 0), (7, 1)):
                check(lambda v, a=(kind, n, axis, norm), o=orthogonalize: transform(v, *a, orthogonalize=o), x)
        check_derivative(lambda v, n=norm: transform(v, kind, norm=n), x)
    check(lambda v: transform(v, kind, n=4, axis=1), x.astype(np.float32))
    check(lambda z: transform(z, kind), complex_array(2, 4))
    check_derivative(lambda z: transform(z, kind, norm="ortho"), complex_array(2, 3))
    several = getattr(scipy.fft, f"{name}n")
    check(lambda v: several(v, kind), x)
    check(lambda v: several(v, kind, s=(4,), axes=(0,), norm="ortho"), x)
    check_derivative(lambda v: several(v, kind, norm="ortho"), x)


@pytest.mark.parametrize("name", ONE + SEVERAL)
def test_single_precision(name):
    for a in arguments(name, 3, 4):
        single = a.astype(np.complex64 if np.iscomplexobj(a) else np.float32)
        check(getattr(np.fft, name), single)
        gradient = jc.grad(lambda z: np.sum(np.abs(getattr(np.fft, name)(z)) ** 2))(single)
        assert gradient.dtype == single.dtype
        same(gradient, jc.grad(lambda z: np.sum(np.abs(getattr(np.fft, name)(z)) ** 2))(a).astype(single.dtype), 50)


def test_lengths_and_memory_orders():
    for shape in ((1,), (1, 1), (0, 3), (2, 1, 4)):
        check(np.fft.fft, complex_array(*shape))
        check(np.fft.rfft, RNG.normal(size=shape))
        check_derivative(np.fft.ifft, complex_array(*shape))
    base = complex_array(4, 6)
    for a in (base.T, base[::2, ::-1], np.asfortranarray(base)):
        check(np.fft.fft, a)
        check(lambda z: np.fft.fft2(z.T), a)
    check(np.fft.fft, np.arange(4))
    with pytest.raises(ValueError, match="data points"):
        jc.grad(lambda x: np.sum(np.fft.fft(x, 0).real))(np.ones(3))
    with pytest.raises(ValueError, match="norm"):
        jc.grad(lambda x: np.sum(np.fft.fft(x, norm="other").real))(np.ones(3))
    with pytest.raises(TypeError):
        jc.jacobian(np.fft.rfft)(base[0])
    with pytest.raises(UnsupportedOperationError, match="fht"):
        jc.jacobian(lambda x: scipy.fft.fht(np.ones(4), x[0], 0.5))(np.ones(4))


def test_helpers_are_constants_and_movement():
    x = RNG.normal(size=6)
    same(jc.jacobian(lambda x: np.fft.fftfreq(6, 0.5) * x)(x), np.diag(np.fft.fftfreq(6, 0.5)))
    assert jc.jacobian(np.fft.fftshift, format="csr")(x).nnz == 6
    assert jc.jacobian(lambda x: np.fft.fftshift(x * 1j), format="csr")(x).nnz == 6


def test_matrices_in_every_format():
    n = 6
    x = RNG.normal(size=n)
    dft = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    same(jc.jacobian(np.fft.fft)(x), dft, 50)
    same(jc.jacobian(np.fft.fft)(x + 1j), dft, 50)
    same(jc.jacobian(np.fft.rfft)(x), dft[: n // 2 + 1], 50)
    for format in ("csr", "csc", "coo", "bsr", "dia"):
        J = jc.jacobian(np.fft.fft, format=format)(x)
        assert J.format == format
        same(J.toarray(), dft, 50)
    operator = jc.jacobian(np.fft.fft, format="operator")(x + 1j)
    v = complex_array(n)
    same(operator @ v, np.fft.fft(v), 50)
    same(operator.rmatvec(v), dft.conj().T @ v, 50)
    same(operator @ np.stack([v, 2j * v], 1), dft @ np.stack([v, 2j * v], 1), 50)
    same(operator.toarray(), dft, 50)
    batch = RNG.normal(size=(2, n))
    blocks = jc.jacobian(lambda x: np.fft.rfft(x).real, format="blocks")(batch)
    same(blocks, np.stack([dft[: n // 2 + 1].real] * 2), 50)
    assert jc.jacobian(lambda x: np.fft.irfft(np.fft.rfft(x)) * x, format="csr")(x).nnz == n * n


@pytest.mark.parametrize("format", ["dense", "csr", "operator", "auto"])
def test_a_plan_used_again_takes_the_numbers_of_now(format):
    u = np.arange(1.0, 5.0)
    for c in (2.0, -3.0):
        k = np.array([0.0, c, 0.0, 1.0])  # few numbers: its zeros are structure
        for function in (lambda u, k=k: np.fft.ifft(k * np.fft.fft(u)).real, lambda u, k=k: k * np.cumsum(k * u)):
            exact = np.stack([function(e) for e in np.eye(4)], axis=1)
            J = jc.jacobian(function, format=format)(u)
            same(np.asarray(J @ np.eye(4)), exact, 50)
            z = np.stack([np.fft.ifft(k * np.fft.fft(e)) for e in np.eye(4)], axis=1)
            whole = jc.jacobian(lambda u, k=k: np.fft.ifft(k * np.fft.fft(u)), format=format)(u + 1j)
            same(np.asarray(whole @ np.eye(4)), z, 50)


def test_second_derivatives():
    x = RNG.normal(size=5)
    n = len(x)
    k = np.exp(-((np.arange(n) - 2.0) ** 2))

    def energy(x):
        return np.sum(np.abs(k * np.fft.fft(x**2)) ** 2)

    inverse = np.fft.ifft(k[:, None] ** 2 * np.fft.fft(np.eye(n), axis=0), axis=0).real * n  # F^H K F
    exact = 4 * np.diag(inverse @ x**2) + 8 * np.diag(x) @ inverse @ np.diag(x)
    np.testing.assert_allclose(jc.hessian(energy)(x), exact, rtol=1e-12, atol=1e-12)
    H = jc.hessian(energy, format="operator")(x)
    np.testing.assert_allclose(H @ x, exact @ x, rtol=1e-12)


def test_convolution_by_transform():
    x, kernel = RNG.normal(size=12), RNG.normal(size=5)

    def convolved(x, kernel):
        n = len(x) + len(kernel) - 1
        return np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(kernel, n), n)

    toeplitz = np.stack([np.convolve(e, kernel) for e in np.eye(12)], axis=1)
    same(jc.jacobian(convolved)(x, kernel), toeplitz, 100)
    other = np.stack([np.convolve(x, e) for e in np.eye(5)], axis=1)
    same(jc.jacobian(convolved, argnums=1)(x, kernel), other, 100)
    operator = jc.jacobian(convolved, format="operator")(x, kernel)
    same(operator @ x, toeplitz @ x, 100)
    same(operator.T @ np.arange(16.0), toeplitz.T @ np.arange(16.0), 200)


def test_spectral_derivative_of_a_trigonometric_polynomial():
    n = 16
    t = 2 * np.pi * np.arange(n) / n
    k = 1j * np.fft.fftfreq(n, 1 / n)
    k[n // 2] = 0

    def slope(u):
        return np.fft.ifft(k * np.fft.fft(u)).real

    u = np.sin(3 * t) + 0.5 * np.cos(t)
    same(slope(u), 3 * np.cos(3 * t) - 0.5 * np.sin(t), 200)
    # The differentiation matrix of periodic functions: Trefethen, "Spectral Methods in MATLAB" (2000), equation (3.10).
    j = np.arange(n)[:, None] - np.arange(n)
    with np.errstate(divide="ignore"):
        matrix = np.where(j == 0, 0.0, 0.5 * (-1.0) ** j / np.tan(j * np.pi / n))
    same(jc.jacobian(slope)(u), matrix, 200)


def test_parseval_and_power_spectrum():
    x = RNG.normal(size=9)
    gradient = jc.grad(lambda x: np.sum(np.abs(np.fft.fft(x)) ** 2))(x)
    same(gradient, 2 * 9 * x, 100)

    def spectrum(x):
        return np.abs(np.fft.rfft(x)) ** 2

    X = np.fft.rfft(x)
    dft = np.fft.rfft(np.eye(9), axis=1).T
    same(jc.jacobian(spectrum)(x), 2 * np.real(np.conj(X)[:, None] * dft), 200)


def test_batches():
    rows = RNG.normal(size=(4, 6))
    same(jc.vmap(np.fft.rfft)(rows), np.fft.rfft(rows))
    same(jc.vmap(np.fft.ifft)(rows * 1j), np.fft.ifft(rows * 1j))
    loss = lambda x: np.sum(np.abs(np.fft.fft(x)) ** 3)  # noqa: E731
    same(jc.vmap(jc.grad(loss))(rows), np.stack([jc.grad(loss)(row) for row in rows]), 50)
    same(jc.vmap(scipy.fft.dct)(rows), scipy.fft.dct(rows))


N = 100_000


def test_long_transforms_are_never_formed():
    t = 2 * np.pi * np.arange(N) / N
    k = 1j * np.fft.fftfreq(N, 1 / N)
    k[N // 2] = 0

    def smooth(u):
        return np.fft.ifft(k * np.fft.fft(u)).real * u

    def loss(u):
        return np.sum(smooth(u)[10:-10] ** 2) / N + np.sum(np.abs(np.fft.rfft(u)[3:900:2]) ** 2) / N**2

    u = np.exp(np.sin(t))
    slope = np.fft.ifft(k * np.fft.fft(u)).real
    np.testing.assert_allclose(slope, np.cos(t) * u, rtol=0, atol=1e-9)
    tracemalloc.start()
    gradient = jc.grad(loss)(u)
    value, moved = jc.jvp(loss)(u, u)
    operator = jc.jacobian(smooth, format="operator")(u)
    applied, back = operator @ np.sin(t), operator.T @ np.sin(t)
    automatic = jc.jacobian(smooth, format="auto")(u) @ np.sin(t)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 8 * N  # the matrix is 100,000 times as large as a vector
    np.testing.assert_allclose(applied, np.cos(t) * u + slope * np.sin(t), rtol=0, atol=1e-9)
    turned = -np.fft.ifft(k * np.fft.fft(u * np.sin(t))).real + slope * np.sin(t)
    np.testing.assert_allclose(back, turned, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(automatic, applied)
    inner = np.zeros(N)
    inner[10:-10] = (slope * u)[10:-10]
    spectrum = np.zeros(N // 2 + 1, complex)
    spectrum[3:900:2] = np.fft.rfft(u)[3:900:2]
    spectrum[1:-1] /= 2
    by_power = 2 * np.fft.irfft(spectrum, N) * N / N**2
    exact = 2 / N * (inner * slope - np.fft.ifft(k * np.fft.fft(inner * u)).real) + by_power
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-13)
    np.testing.assert_allclose(moved, gradient @ u, rtol=1e-10)
    assert np.isfinite(value)


def test_long_cosine_transforms_are_never_formed():
    x = np.cos(np.linspace(0, 3, N))
    gradient = jc.grad(lambda x: np.sum(scipy.fft.dct(x, norm="ortho")[:50] ** 2))(x)
    kept = np.zeros(N)
    kept[:50] = scipy.fft.dct(x, norm="ortho")[:50]
    np.testing.assert_allclose(gradient, 2 * scipy.fft.idct(kept, norm="ortho"), rtol=0, atol=1e-12)


def test_a_graph_says_which_transform_it_is():
    y = np.fft.fft(Variable(np.ones(4)))
    assert [node.op.name for node in topological([as_node(y.real)])] == ["input", "fft", "index"]
