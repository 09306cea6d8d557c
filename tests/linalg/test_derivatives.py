"""Every function of ``numpy.linalg`` and ``scipy.linalg`` with a derivative: values, first and second derivatives.

Values must be those of NumPy and SciPy themselves, signs and all. Second derivatives are taken in all four
combinations of modes, which must agree with each other and with differences of the gradient.
"""

from __future__ import annotations

import numpy as np
import pytest
from linalg_helpers import NUMPY, SCIPY, differences, flat
from support import close

import jacana as jc

CASES = [pytest.param(f, x, id=f"{where} {name}") for where, table in (("np", NUMPY), ("sp", SCIPY)) for name, (f, x)
         in table.items()]  # fmt: skip


@pytest.mark.parametrize(("function", "x"), CASES)
def test_value_and_jacobian(function, x):
    derived = jc.value_and_jacobian(lambda v: flat(function(v)))
    for point in (x, x * 1.01):  # the second time the recording is replayed
        value, jacobian = derived(point)
        expected = flat(function(point))
        close(value, expected, 1e-13)
        close(jacobian.reshape(expected.size, -1), differences(lambda v: flat(function(v)), point), 1e-8)


@pytest.mark.parametrize(("function", "x"), CASES)
def test_second_derivatives_in_all_combinations_of_modes(function, x):
    size = flat(function(x)).size
    weights = np.random.default_rng(size).uniform(0.5, 1.5, size=size)

    def scalar(v):
        return np.sum(weights * np.sin(0.3 * flat(function(v))))

    u, v = np.random.default_rng(1).normal(size=(2, *x.shape))
    gradient = jc.grad(scalar)
    (expected,) = differences(lambda t: np.sum(gradient(x + t * v) * u), np.zeros(1)).ravel()
    found = {
        "forward over forward": jc.jvp(lambda p: jc.jvp(scalar)(p, u)[1])(x, v)[1],
        "forward over reverse": np.sum(jc.jvp(lambda p: jc.grad(scalar)(p))(x, v)[1] * u),
        "reverse over forward": np.sum(jc.grad(lambda p: jc.jvp(scalar)(p, u)[1])(x) * v),
        "reverse over reverse": np.sum(jc.grad(lambda p: np.sum(jc.grad(scalar)(p) * u))(x) * v),
    }
    for mode, value in found.items():
        close(value, expected, 1e-7, mode)
        close(value, found["reverse over reverse"], 1e-10, mode)


@pytest.mark.parametrize("name", ["eigh", "svd tall", "qr", "pinv tall", "lstsq", "cholesky", "slogdet", "norm nuc"])
def test_float32_and_other_memory(name):
    function, x = NUMPY[name]
    derivative = jc.jacobian(lambda v: flat(function(v)))
    expected = derivative(x)
    single = derivative(x.astype(np.float32))
    assert single.dtype == np.float32
    close(single, expected, 2e-4)
    turned = np.asfortranarray(x)
    spread = np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)[::2, ::2]
    locked = x.copy()
    locked.flags.writeable = False
    for other in (turned, spread, locked):
        np.testing.assert_array_equal(derivative(other), expected)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: np.linalg.eigh(x)[1], (0, 0)),
        (np.linalg.eigvalsh, (0, 0)),
        (lambda x: np.linalg.svd(x, full_matrices=False)[1], (0, 3)),
        (lambda x: np.linalg.qr(x)[0], (3, 0)),
        (np.linalg.inv, (0, 0)),
        (np.linalg.pinv, (3, 0)),
        (lambda x: np.linalg.slogdet(x)[1], (0, 0)),
        (np.linalg.cholesky, (0, 2, 2)),
        (lambda x: np.linalg.eigh(x)[1], (0, 2, 2)),
        (lambda x: np.linalg.svd(x, full_matrices=False)[0], (0, 3, 2)),
        (lambda x: np.linalg.qr(x)[1], (0, 3, 2)),
        (np.linalg.pinv, (0, 3, 2)),
    ],
)
def test_empty(function, shape):
    x = np.zeros(shape)
    value, jacobian = jc.value_and_jacobian(function)(x)
    assert value.shape == function(x).shape
    assert jacobian.shape == value.shape + shape
