"""Filters of scipy.ndimage and convolutions of scipy.signal: values, derivatives and exact patterns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, signal
from scipy.ndimage import laplace as imported

import jacana as jc
from jacana.errors import RecordingError

rng = np.random.default_rng(11)
LINE, IMAGE, VOLUME = rng.normal(size=9), rng.normal(size=(5, 7)), rng.normal(size=(4, 5, 3))
ODD, EVEN = rng.normal(size=3), rng.normal(size=4)
KERNEL, WIDE = rng.normal(size=(3, 2)), rng.normal(size=(2, 5))
CROSS = np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
MODES = ("reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant")

CASES = {
    **{f"correlate1d {m}": (lambda x, m=m: ndimage.correlate1d(x, EVEN, mode=m, cval=0.7), LINE) for m in MODES},
    **{f"convolve1d {m}": (lambda x, m=m: ndimage.convolve1d(x, EVEN, 0, mode=m, cval=0.7), IMAGE) for m in MODES},
    **{f"correlate {m}": (lambda x, m=m: ndimage.correlate(x, KERNEL, mode=m, cval=0.7), IMAGE) for m in MODES},
    **{f"convolve {m}": (lambda x, m=m: ndimage.convolve(x, KERNEL, mode=m), IMAGE) for m in MODES},
    "correlate1d, origin": (lambda x: ndimage.correlate1d(x, ODD, origin=-1), LINE),
    "convolve1d, origin": (lambda x: ndimage.convolve1d(x, EVEN, origin=1), LINE),
    "convolve, origins": (lambda x: ndimage.convolve(x, KERNEL, origin=(1, -1)), IMAGE),
    "correlate, volume": (lambda x: ndimage.correlate(x, np.ones((2, 3, 2))), VOLUME),
    "correlate, long": (lambda x: ndimage.correlate1d(x, np.linspace(1.0, 2.0, 81)), rng.normal(size=90)),
    "gaussian_filter1d": (lambda x: ndimage.gaussian_filter1d(x, 0.6), LINE),
    "gaussian_filter1d, slope": (lambda x: ndimage.gaussian_filter1d(x, 0.6, 0, 1, radius=2), IMAGE),
    "gaussian_filter": (lambda x: ndimage.gaussian_filter(x, (0.5, 0.4), order=(0, 2), mode="wrap"), IMAGE),
    "uniform_filter1d": (lambda x: ndimage.uniform_filter1d(x, 3, origin=1), LINE),
    "uniform_filter": (lambda x: ndimage.uniform_filter(x, (2, 3), mode=["wrap", "nearest"]), IMAGE),
    "laplace": (lambda x: ndimage.laplace(x, mode="constant", cval=1.0), IMAGE),
    "laplace, by name": (lambda x: imported(x), VOLUME),
    "gaussian_laplace": (lambda x: ndimage.gaussian_laplace(x, 0.6, radius=1), IMAGE),
    "gaussian_gradient_magnitude": (
        lambda x: ndimage.gaussian_gradient_magnitude(x, 0.6, mode="wrap", radius=1),
        IMAGE,
    ),
    "sobel": (lambda x: ndimage.sobel(x, 0), IMAGE),
    "prewitt": (lambda x: ndimage.prewitt(x, mode="wrap"), IMAGE),
    **{f"signal.convolve {m}": (lambda x, m=m: signal.convolve(x, EVEN, m), LINE) for m in ("full", "same", "valid")},
    **{f"signal.correlate {m}": (lambda x, m=m: signal.correlate(x, EVEN, m), LINE) for m in ("full", "same", "valid")},
    "valid, arrays exchanged": (lambda x: signal.convolve(EVEN, x, "valid"), LINE),
    "correlate valid, arrays exchanged": (lambda x: signal.correlate(EVEN, x, "valid"), LINE),
    "signal.convolve, same, smaller first": (lambda x: signal.convolve(EVEN, x, "same"), LINE),
    "by the kernel": (lambda k: signal.convolve(LINE, k, "same"), EVEN),
    "by both": (lambda x: signal.convolve(x[:6], x[6:]), LINE),
    "fftconvolve": (lambda x: signal.fftconvolve(x, KERNEL), IMAGE),
    "oaconvolve": (lambda x: signal.oaconvolve(x, KERNEL, mode="same"), IMAGE),
    **{
        f"convolve2d {m} {b}": (lambda x, m=m, b=b: signal.convolve2d(x, WIDE, m, b, 0.5), IMAGE)
        for m in ("full", "same", "valid")
        for b in ("fill", "wrap", "symm")
    },
    "correlate2d": (lambda x: signal.correlate2d(x, WIDE, "same", "symm"), IMAGE),
    "correlate2d, full": (lambda x: signal.correlate2d(x, WIDE), IMAGE),
    "correlate2d, valid, arrays exchanged": (lambda x: signal.correlate2d(WIDE[:, :3], x, "valid"), IMAGE),
    "convolve2d by the kernel": (lambda k: signal.convolve2d(IMAGE, k, "same"), KERNEL),
    "ndimage.convolve by the kernel": (lambda k: ndimage.convolve(IMAGE, k.reshape(1, 3)), ODD),
}


def slopes(function, x):
    columns = []
    for e in np.eye(x.size).reshape(-1, *x.shape) * 1e-3:
        total = sum(w * (function(x + k * e) - function(x - k * e)) for k, w in ((1, 45), (2, -9), (3, 1)))
        columns.append(np.ravel(total) / 0.06)
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_value_derivative_and_pattern(name):
    function, x = CASES[name]
    both = jc.value_and_jacobian(function, format="csr")
    both(x)
    other = x + 0.3 * np.cos(np.arange(x.size)).reshape(x.shape)
    y, J = both(other)  # of the program, not of the recording
    np.testing.assert_allclose(y, function(other), rtol=1e-12, atol=1e-13)
    numeric = slopes(function, other)
    np.testing.assert_allclose(J.toarray(), numeric, atol=1e-9)
    assert J.nnz == np.count_nonzero(np.abs(numeric) > 1e-9)


def test_a_five_point_stencil_has_five_entries():
    J = jc.jacobian(lambda u: ndimage.convolve(u, CROSS, mode="wrap"), format="csr")(IMAGE)
    assert J.nnz == 5 * IMAGE.size
    J = jc.jacobian(lambda u: signal.convolve2d(u, CROSS, mode="valid"), format="csr")(IMAGE)
    assert J.nnz == 5 * 3 * 5


def test_weights_that_change_are_seen():
    weights = np.array([1.0, 0.0, -1.0])
    both = jc.value_and_jacobian(lambda u: ndimage.correlate1d(u, weights, mode="wrap"), format="csr")
    for middle, nnz in ((0.0, 18), (2.0, 27), (0.0, 18)):
        weights[1] = middle
        y, J = both(LINE)
        np.testing.assert_allclose(y, ndimage.correlate1d(LINE, weights, mode="wrap"), rtol=1e-14)
        np.testing.assert_allclose(J @ LINE, y, rtol=1e-12)
        assert J.nnz == nnz


def test_numpy_kernels_with_zeros_keep_them_as_structure():
    taps = np.array([1.0, 0.0, -1.0])
    J = jc.jacobian(lambda u: np.convolve(u, taps, "valid"), format="csr")
    assert J(LINE).nnz == 14
    taps[1] = 3.0
    assert J(LINE).nnz == 21
    np.testing.assert_allclose(J(LINE) @ LINE, np.convolve(LINE, taps, "valid"))
    assert jc.jacobian(lambda u: np.correlate(u, [0.0, 1.0, 0.0, 2.0]), format="csr")(LINE).nnz == 12


def test_single_precision_stays():
    x = IMAGE.astype("f4")
    assert jc.jacobian(lambda u: ndimage.gaussian_filter(u, 0.5))(x).dtype == np.float32


def test_what_has_no_rule_is_refused_by_name():
    with pytest.raises(RecordingError, match=r"scipy.ndimage.median_filter"):
        jc.jacobian(lambda u: ndimage.median_filter(u, 3))(IMAGE)
    with pytest.raises(RecordingError, match=r"(?s)scipy.signal.lfilter.*jc.scan"):
        jc.jacobian(lambda u: signal.lfilter([1.0], [1.0, u[0]], LINE))(LINE)
    with pytest.raises(RecordingError, match="by its width"):
        jc.jacobian(lambda s: ndimage.gaussian_filter1d(LINE, s[0]))(np.ones(1))
