"""Bessel functions by their order: against mpmath, wherever the way in which they are computed changes."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import scipy.special as sc

import jacana as jc
from jacana.graph.ops import bessel_orders

FUNCTIONS = {
    "jv": mp.besselj,
    "yv": mp.bessely,
    "iv": mp.besseli,
    "kv": mp.besselk,
    "ive": lambda v, x: mp.exp(-x) * mp.besseli(v, x),
    "kve": lambda v, x: mp.exp(x) * mp.besselk(v, x),
}
ORDERS = [0.0, 1e-3, 0.3, 0.499, 0.5, 1.0, 1.99, 2.0, 2.01, 3.0, 7.5, 49.9999, 50.0, 50.1, 120.0]
AT = [1e-30, 1e-4, 0.3, 1.9999, 2.0001, 3.0, 3.0000001, 7.5, 19.99, 20.01, 50.0, 90.0, 700.0]


STEP = mp.mpf(10) ** -14


def slopes(function, v, n, step=STEP):
    if n == 2:
        outer = function(v + 2 * step) + function(v - 2 * step)
        inner = function(v + step) + function(v - step)
        return (16 * inner - outer - 30 * function(v)) / (12 * step**2)
    outer, inner = (function(v + k * step) - function(v - k * step) for k in (2, 1))
    return (8 * inner - outer) / (12 * step)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_by_order(name, n):
    v, x = (grid.ravel() for grid in np.meshgrid(ORDERS, AT))
    if n == 2 or name in ("ive", "kve"):
        v, x = v[::4], x[::4]
    found = getattr(bessel_orders, f"{name}_by_order")(n, v, x)
    seen = 0
    with mp.workdps(80):
        for order, at, value in zip(v, x, found, strict=True):
            wanted = slopes(lambda v, at=at: FUNCTIONS[name](v, mp.mpf(at)), mp.mpf(order), n)
            if not 1e-290 < abs(wanted) < 1e290:
                continue
            scale = abs(wanted)
            if name in ("jv", "yv") and order < at:  # they oscillate around each other
                other = FUNCTIONS["yv" if name == "jv" else "jv"]
                scale = mp.hypot(wanted, slopes(lambda v, at=at, other=other: other(v, mp.mpf(at)), mp.mpf(order), n))
            assert abs(value - wanted) < 3e-13 * scale, (order, at, value, float(wanted))
            seen += 1
    assert seen > 30


@pytest.mark.parametrize("name", FUNCTIONS)
def test_orders_below_zero(name):
    v, x = (grid.ravel() for grid in np.meshgrid([-1e-3, -0.4, -1.0, -2.5, -3.1, -20.0], [0.3, 2.5, 21.0]))
    found = getattr(bessel_orders, f"{name}_by_order")(1, v, x)
    with mp.workdps(80):
        wanted = [
            float(slopes(lambda v, at=at: FUNCTIONS[name](v, mp.mpf(at)), mp.mpf(o), 1))
            for o, at in zip(v, x, strict=True)
        ]
    np.testing.assert_allclose(found, wanted, rtol=1e-11)


def test_large_arguments_and_orders():
    v, x = np.array([900.0, 1e3, 1.02e3, 4.0]), np.array([1e3, 1e3, 1e3, 5e3])
    with mp.workdps(80):
        for name in ("jv", "yv", "ive"):
            found = getattr(bessel_orders, f"{name}_by_order")(1, v, x)
            wanted = [
                float(slopes(lambda v, at=at, name=name: FUNCTIONS[name](v, mp.mpf(at)), mp.mpf(o), 1))
                for o, at in zip(v, x, strict=True)
            ]
            np.testing.assert_allclose(found, wanted, rtol=1e-11)


def test_ends_and_what_is_no_number():
    v = np.array([1.0, 1.0, 1.0, np.nan, 1.0, 0.0])
    x = np.array([0.0, np.inf, -1.0, 1.0, np.nan, 0.0])
    for name, at_zero in (("jv", 0.0), ("iv", 0.0), ("ive", 0.0), ("kv", np.nan), ("yv", np.nan)):
        found = getattr(bessel_orders, f"{name}_by_order")(1, v, x)
        beyond = np.nan if name == "iv" else 0.0
        np.testing.assert_array_equal(found, [at_zero, beyond, np.nan, np.nan, np.nan, np.nan], err_msg=name)
    assert bessel_orders.jv_by_order(1, np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)
    assert bessel_orders.kv_by_order(1, np.float32(2.0), np.float32(3.0)).dtype == np.float32


@pytest.mark.parametrize("executor", ["numpy", "native"] if jc.native_available() else ["numpy"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_in_programs(name, executor):
    ufunc = getattr(sc, name)
    v, x = np.array([[0.3, 1.2], [2.5, 0.7], [4.0, 3.0]]), np.array([1.4, 6.0])
    with jc.executor(executor):
        found = jc.grad(lambda v, x: np.sum(ufunc(v, x)), argnums=(0, 1))(v, x)
        hessian = jc.hessian(lambda z: np.sum(ufunc(z[0], z[1]) * z[1]))(np.array([1.3, 2.2]))
        each = jc.vmap(jc.grad(lambda v: np.sum(ufunc(v, x))))(v)
    with mp.workdps(40):
        function = FUNCTIONS[name]
        wanted = [
            [float(mp.diff(lambda v, at=at: function(v, mp.mpf(at)), o)) for o, at in zip(row, x, strict=True)]
            for row in v
        ]
        curves = [
            [float(mp.diff(lambda v, x: function(v, x) * x, (mp.mpf(1.3), mp.mpf(2.2)), n)) for n in row]
            for row in (((2, 0), (1, 1)), ((1, 1), (0, 2)))
        ]
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12)
    np.testing.assert_allclose(each, wanted, rtol=1e-12)
    np.testing.assert_allclose(hessian, curves, rtol=1e-11)


def test_derivatives_by_the_argument():
    with mp.workdps(40):
        wanted = float(mp.diff(lambda v: mp.diff(lambda x: mp.besselj(v, x), mp.mpf(2.2)), mp.mpf(1.3)))
    np.testing.assert_allclose(jc.grad(lambda v: sc.jvp(v, 2.2))(1.3), wanted, rtol=1e-12)
