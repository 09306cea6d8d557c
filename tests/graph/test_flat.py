"""Bits of integers and parts of floats: right on every executor and on a batch, without a derivative by accident."""

from __future__ import annotations

import numpy as np
import pytest
from support import EXECUTORS, F8, close, execute

import jacana as jc
from jacana.graph.node import new_input
from jacana.graph.ops.flat import FLAT, ldexp

RNG = np.random.default_rng(4)
INTEGERS = [RNG.integers(1, 60, (2, 3)), RNG.integers(0, 5, (2, 3))]
X = np.array([[0.3, -0.0, 5.0], [-7.25, np.inf, 1e-310]])


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", FLAT)
def test_values(name, executor):
    if name in ("signbit", "spacing", "exponent", "nextafter"):
        values = [X, np.zeros_like(X)][: 2 if name == "nextafter" else 1]
    elif name == "ldexp":
        values = [X, INTEGERS[1]]
    else:
        values = INTEGERS[: getattr(np, name).nin]
    inputs = [new_input(v.shape, v.dtype) for v in values]
    node = FLAT[name](*inputs)
    with np.errstate(all="ignore"):
        expected = np.frexp(*values)[1] if name == "exponent" else getattr(np, name)(*values)
        (found,) = execute(executor, [node], dict(zip(inputs, values, strict=True)))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("executor", ["numpy", pytest.param("native", marks=pytest.mark.skipif("not NATIVE"))])
def test_derivatives_and_batches(executor):
    def f(x):
        mantissa, power = np.frexp(x)
        turned = np.copysign(mantissa, -x) * np.ldexp(1.0, power)
        return turned + np.nextafter(x, 9.0) + ((9 * x).astype(int) & 6) + np.spacing(x)

    x = np.array([0.3, 2.7, 5.1])
    with jc.executor(executor):
        value, jacobian = jc.value_and_jacobian(f)(x)
        close(value, f(x), 1e-15)
        # mantissa * 2**power is x, here with the other sign; the next number moves with x.
        close(jacobian, np.zeros((3, 3)), 1e-15)
        close(jc.hessian(lambda x: np.sum(np.frexp(x)[0] ** 2))(x), np.diag(2.0 / 4.0 ** np.frexp(x)[1]), 1e-15)
        close(jc.vmap(jc.jacobian(lambda x: np.frexp(x)[0]))(x[:, None])[:, 0, 0], 0.5 ** np.frexp(x)[1], 1e-15)


def test_ldexp_needs_no_finite_power_of_two():
    x = new_input((1,), F8)
    k = new_input((1,), np.dtype(np.int64))
    (found,) = execute("numpy", [ldexp(x, k)], {x: np.array([1e-310]), k: np.array([1050])})
    assert found[0] == np.ldexp(1e-310, 1050)


NATIVE = jc.native_available()
