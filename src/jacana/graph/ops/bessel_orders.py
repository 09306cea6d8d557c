"""Derivatives of Bessel functions by their order, of any order: their values by NumPy.

All of them are integrals of ``exp(x sinh t - v t)`` or ``exp(x cosh t - v t)`` over a path in the complex plane (DLMF
10.9, 10.32), so the n-th derivative by v is that of the same times ``(-t)^n``. The path goes through a saddle t0 of the
exponent, from where its real part falls on both sides (2.4(iv)). With t = t0 + d the exponent is

    phi0 + X (cosh d - 1) + v (sinh d - d),    X = sqrt(v^2 - x^2) or sqrt(v^2 + x^2),

which loses no digits where x and v are large. Nodes are those of Gauss and Legendre, spread from the saddle. At small x
the power series (10.2.2, 10.25.2) is differentiated; orders below zero follow by reflection (10.4.6, 10.27.2).

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, chapter 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special as sc

from ..node import Array
from .shape_derivatives import _elementwise, _expm1_less, _in_chunks, _nodes, _polygamma, bell

_DEPTH = 42.0  # of the integrand below its greatest value, in powers of e, where it is cut off
_POINTS, _WEIGHTS = _nodes(8, 20)
_SHORT = 2.0  # up to this x, J and Y are not taken from saddles
_LONG = 20.0  # up to this x all terms of the series of I are positive and not too many


def _spread(length: Array, width: Any = 1.0) -> tuple[Array, Array]:
    """Nodes and weights from 0 to each length, ever farther apart beyond the width."""
    scale = np.broadcast_to(width, length.shape)[:, None]
    end = np.arcsinh(length[:, None] / scale)
    return scale * np.sinh(end * _POINTS), scale * end * np.cosh(end * _POINTS) * _WEIGHTS


def _sinh_less(d: Array) -> Array:
    """``sinh(d) - d``."""
    small = np.abs(d) < 0.5
    near = np.where(small, d, 0.0)
    square = near * near
    total = np.full_like(near, 1.0 / math.factorial(15))
    for k in range(13, 1, -2):
        total = 1.0 / math.factorial(k) + square * total
    result: Array = np.where(small, near * square * total, np.sinh(d) - d)
    return result


def _exponent(X: Array, v: Array, d: Array) -> Array:
    result: Array = X[:, None] * (2.0 * np.sinh(0.5 * d) ** 2) + v[:, None] * _sinh_less(d)
    return result


def _fall(v: Array, gap: Array, d: Array) -> Array:
    """The same of real d, less than zero: with ``gap = X - v`` there is no difference of large powers of e."""
    result: Array = -(v[:, None] * _expm1_less(d) + gap[:, None] * (2.0 * np.sinh(0.5 * d) ** 2))
    return result


def _depth(exponent: Callable[[Array], Array], most: Array) -> Array:
    """Where a falling exponent is ``-_DEPTH``, at most at ``most``, by bisection."""
    low, high = np.zeros_like(most), most
    for _ in range(40):
        middle = 0.5 * (low + high)
        deep = exponent(middle[:, None])[:, 0].real < -_DEPTH
        low, high = np.where(deep, low, middle), np.where(deep, middle, high)
    return high


def _arccosh(v: Array, x: Array) -> Array:
    """Of v / x >= 1."""
    more = (v - x) / x
    result: Array = np.log1p(more + np.sqrt(more * (more + 2.0)))
    return result


def _modulus(v: Array, x: Array) -> Array:
    """``sqrt(abs(v**2 - x**2))``."""
    result: Array = np.sqrt(np.abs(v - x)) * np.sqrt(v + x)
    return result


# --- K --------------------------------------------------------------------------------------------------------------


def _k(n: int, v: Array, x: Array, shift: Array | float = 0.0) -> Array:
    """Of v >= 0, times ``exp(x + shift)``."""
    # Of t^n cosh(v t) exp(-x (cosh t - 1)), or sinh (10.32.9). It bends where x sinh t = max(v, 1).
    size = np.maximum(v, 1.0)
    bend, X = np.arcsinh(size / x), np.hypot(x, size)

    def exponent(s: Array) -> Array:
        result: Array = _fall(size, x / (X + size) * x, s) - (size - v)[:, None] * s
        return result

    total = np.zeros_like(v)
    for side, most in ((-1.0, bend), (1.0, np.full_like(v, 9.0))):
        length = _depth(lambda s, side=side: exponent(side * s), most)  # type: ignore[misc]
        s, steps = _spread(length)
        t = bend[:, None] + side * s
        fold = -2.0 * v[:, None] * t
        other = 1.0 + np.exp(fold) if n % 2 == 0 else -np.expm1(fold)
        total = total + np.sum(t**n * other * np.exp(exponent(side * s)) * steps, axis=1)
    return np.asarray(0.5 * total * np.exp(v * bend - size * (size / (X + x)) + shift))


# --- J, I and Y of an order above x: a saddle on the real axis -------------------------------------------------------


def _upward(n: int, v: Array, x: Array, X: Array, start: Array) -> Array:
    """The integral of ``(-t)^n exp(phi - phi0)`` from the saddle to infinity + i pi, where it is steepest.

    There cosh t (of J) or sinh t (of I) has the real part ``v/x angle/sin(angle)``, the angle being the imaginary part.
    """
    flat = 1e-3 * x > X  # no kink beside the saddle: the path for X = 0 does
    r, across = np.where(flat, 1.0, v / x)[:, None], np.where(flat, 0.0, X / x)[:, None]

    def bent(angle: Array) -> tuple[Array, Array]:
        sine = np.sin(angle)
        near = np.where(angle < 0.5, angle, 0.0)
        square = near * near
        series = np.full_like(near, 1.0 / math.factorial(15))
        for k in range(13, 1, -2):
            series = 1.0 / math.factorial(k) - square * series
        short = np.where(angle < 0.5, near * square * series, angle - sine)
        more = r * short * (angle + sine) / (sine * sine)
        other = np.sqrt(across * across + r * more)
        gap = np.arcsinh(more / (angle / sine * across + other))
        return gap + 1j * angle, r * (2.0 * angle * np.sin(0.5 * angle) ** 2 - short) / (sine * sine) / other + 1j

    if not v.size:
        return np.zeros(0, dtype=complex)
    length = _depth(lambda angle: _exponent(X, v, bent(angle)[0]), np.full_like(v, math.pi * (1.0 - 1e-13)))
    angle, steps = _spread(length, np.where(flat, 1.0, np.minimum(X / x, 1.0)))
    d, slope = bent(angle)
    result: Array = np.sum((-(start[:, None] + d)) ** n * slope * np.exp(_exponent(X, v, d)) * steps, axis=1)
    return result


def _above(n: int, v: Array, x: Array) -> tuple[Array, Array]:
    """J and Y of v >= x."""
    X, start = _modulus(v, x), _arccosh(v, x)
    low, gap = X - v * start, -x / (X + v) * x
    up = _upward(n, v, x, X, start)
    # From minus infinity to the saddle (10.9.7 up to there): around the other saddle, of opposite sign, and from 0 on.
    total = np.zeros_like(v)
    for side, most in ((-1.0, start), (1.0, np.full_like(v, 9.0))):
        length = _depth(lambda s, side=side: _fall(v, gap, side * s), most)  # type: ignore[misc]
        s, steps = _spread(length)
        total = total + np.sum((start[:, None] + side * s) ** n * np.exp(_fall(v, gap, side * s)) * steps, axis=1)
    length = _depth(lambda s: x[:, None] * np.sinh(s) - v[:, None] * s, start)
    s, steps = _spread(length)
    rest = np.sum((-s) ** n * np.exp(x[:, None] * np.sinh(s) - v[:, None] * s) * steps, axis=1)
    first, second = np.exp(low) / math.pi, np.exp(-low) / math.pi
    return first * up.imag, -(second * total + rest / math.pi + first * up.real)


def _below(n: int, v: Array, x: Array) -> tuple[Array, Array]:
    """J and Y of v < x: Hankel's function, by a path through the saddle i beta, cos(beta) = v/x."""
    size = _modulus(v, x)
    beta = np.arctan2(size, v)
    X = 1j * size
    total = np.zeros(v.shape, dtype=complex)
    # To the left it comes down to the real axis, not faster than where the cubic term of the exponent rules.
    left = np.maximum(beta, 0.5 * np.maximum(v, 1.0) ** (-1.0 / 3.0))
    for side, turn, width in ((-1.0, beta, left), (1.0, math.pi - beta, math.pi - beta)):

        def path(s: Array, side: float = side, turn: Array = turn[:, None], width: Array = width[:, None]) -> Array:
            return side * (s + 1j * turn * np.tanh(s / width))

        length = _depth(lambda s, path=path: _exponent(X, v, path(s)), np.full_like(v, 9.0))  # type: ignore[misc]
        s, steps = _spread(length, np.minimum(width, 1.0))
        d, slope = path(s), 1.0 + 1j * (turn / width)[:, None] / np.cosh(s / width[:, None]) ** 2
        total = total + np.sum((-(1j * beta[:, None] + d)) ** n * slope * np.exp(_exponent(X, v, d)) * steps, axis=1)
    found = total * np.exp(1j * (size - v * beta)) / (1j * math.pi)
    return found.real, found.imag


def _at_small(n: int, v: Array, x: Array) -> tuple[Array, Array]:
    """J and Y of x and v up to _SHORT: the one by its series, the other along straight lines to 0, i pi and on."""
    bend = np.arcsinh(1.0 / x)
    total = np.zeros(v.shape, dtype=complex)
    for side, length in ((-1.0, bend), (1.0, np.full_like(v, 6.0))):
        s, steps = _spread(length)
        t = bend[:, None] + side * s
        sinks = x[:, None] * np.sinh(t)
        back = t + 1j * math.pi
        order = v[:, None]
        terms = t**n * np.exp(order * t - sinks) + (-back) ** n * np.exp(-order * back - sinks)
        total = total + np.sum(terms * steps, axis=1)
    angle, steps = math.pi * _POINTS, math.pi * _WEIGHTS
    waves = np.exp(1j * (x[:, None] * np.sin(angle) - v[:, None] * angle))
    total = total + 1j * np.sum((-1j * angle) ** n * waves * steps, axis=1)
    return _series(n, v, x, -1.0, 14), -total.real / math.pi


def _series(n: int, v: Array, x: Array, sign: float, count: int) -> Array:
    """The power series of J (of sign -1) and I."""
    half = 0.5 * x
    total, power, logarithm = np.zeros_like(x), half**v, np.log(half)
    for k in range(count):
        z = v + (k + 1.0)
        total = total + power * sc.rgamma(z) * bell(logarithm - sc.psi(z), [-_polygamma(j, z) for j in range(1, n)])[n]
        power = power * (sign * half * half / (k + 1.0))
    return total


# --- all orders -----------------------------------------------------------------------------------------------------


def _rows(
    value: Callable[[Array, Array], Array], v: Array, x: Array, at_zero: float = math.nan, beyond: float = math.nan
) -> Array:
    """Of 0 < x < infinity; above zero they are ``at_zero`` at zero, and any is ``beyond`` at infinity."""

    def rows(v: Array, x: Array) -> Array:
        out = np.where((x == 0.0) & (v > 0.0), at_zero, np.where(x == np.inf, beyond, math.nan) + 0.0 * v)
        _in_chunks(value, (x > 0.0) & (x < np.inf) & np.isfinite(v), out, v, x)
        return out

    return _elementwise(rows, v, x)


def _split(parts: list[tuple[Array, Callable[[Array, Array], Any]]], v: Array, x: Array, count: int) -> Array:
    out = np.full((count, v.size), math.nan)
    for mask, function in parts:
        if mask.any():
            out[:, mask] = function(v[mask], x[mask])
    return out


def _j_and_y(n: int, v: Array, x: Array) -> Array:
    """Of v >= 0."""
    if n == 0:
        return np.stack([sc.jv(v, x), sc.yv(v, x)])
    short, high = x <= _SHORT, v >= x
    near = short & (v <= _SHORT)
    out = _split(
        [
            (near, lambda v, x: _at_small(n, v, x)),
            (high & ~near, lambda v, x: _above(n, v, x)),
            (~high & ~near, lambda v, x: _below(n, v, x)),
        ],
        v, x, 2,
    )  # fmt: skip
    series = short & ~near
    out[0, series] = _series(n, v[series], x[series], -1.0, 14)
    return out


def _turns(n: int, v: Array) -> tuple[Array, Array]:
    """The n-th derivatives of cos(pi v) and sin(pi v)."""
    whole = np.round(v)
    sign = 1.0 - 2.0 * (whole % 2.0)
    sine, cosine = sign * sc.sindg(180.0 * (v - whole)), sign * sc.cosdg(180.0 * (v - whole))
    pairs = [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)]
    first, second = pairs[n % 4]
    return math.pi**n * first, math.pi**n * second


def _ordinary(n: int, v: Array, x: Array, which: int) -> Array:
    size = np.abs(v)
    found = _j_and_y(n, size, x)
    turned = np.flatnonzero(v < 0.0)
    result: Array = found[which]
    if turned.size:  # J cos - Y sin, and J sin + Y cos, of the order -v
        total = np.zeros(turned.size)
        for k in range(n + 1):
            cosine, sine = _turns(k, size[turned])
            j, y = _j_and_y(n - k, size[turned], x[turned])
            total = total + math.comb(n, k) * (cosine * j - sine * y if which == 0 else sine * j + cosine * y)
        result[turned] = (-1.0) ** n * total
    return result


def _i(n: int, v: Array, x: Array, shift: Array) -> Array:
    """Of v >= 0, times ``exp(shift - x)``."""
    if n == 0:
        return np.asarray(sc.ive(v, x) * np.exp(shift))

    result = np.empty_like(x)
    low = (v < 0.5) & (x > _SHORT)
    long = (x > _LONG) & ~low
    short = ~low & ~long
    result[low] = _i_of_low_order(n, v[low], x[low], shift[low])
    result[short] = np.exp((shift - x)[short]) * _series(n, v[short], x[short], 1.0, 50)
    a, z = v[long], x[long]
    X, start = np.hypot(a, z), np.arcsinh(a / z)
    size = np.exp(a * (a / (X + z)) - a * start + shift[long]) / math.pi
    result[long] = size * _upward(n, a, z, X, start).imag
    return result


def _i_of_low_order(n: int, v: Array, x: Array, shift: Array) -> Array:
    """Along straight lines to 0, i pi and on (10.32.4): at v = 0 the second is all that there is."""
    length = _depth(lambda angle: x[:, None] * (np.cos(angle) - 1.0), np.full_like(v, math.pi))
    angle, steps = _spread(length)
    waves = ((-1j * angle) ** n * np.exp(-1j * v[:, None] * angle)).real
    along = np.sum(waves * np.exp(-2.0 * x[:, None] * np.sin(0.5 * angle) ** 2) * steps, axis=1)
    t, steps = _spread(np.arccosh(1.0 + _DEPTH / x))
    back = t + 1j * math.pi
    terms = ((-back) ** n * np.exp(-v[:, None] * back)).imag
    beside = np.sum(terms * np.exp(-2.0 * x[:, None] * np.sinh(0.5 * t) ** 2) * steps, axis=1)
    return np.asarray(np.exp(shift) / math.pi * (along + np.exp(-2.0 * x) * beside))


def _modified(n: int, v: Array, x: Array, shift: Array) -> Array:
    size = np.abs(v)
    result: Array = _i(n, size, x, shift)
    turned = np.flatnonzero(v < 0.0)
    if turned.size:  # I + 2/pi sin(pi v) K, of the order -v
        a, z, more = size[turned], x[turned], (shift - 2.0 * x)[turned]
        total = np.zeros(turned.size)
        for k in range(n + 1):
            other = _k(n - k, a, z, more) if n > k else sc.kve(a, z) * np.exp(more)
            total = total + math.comb(n, k) * _turns(k, a)[1] * other
        result[turned] = (-1.0) ** n * (result[turned] + 2.0 / math.pi * total)
    return result


def jv_by_order(n: int, v: Array, x: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.jv(v, x)`` by v; NaN at x < 0, where it is not real."""
    return _rows(lambda v, x: _ordinary(n, v, x, 0), v, x, 0.0, 0.0)


def yv_by_order(n: int, v: Array, x: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.yv(v, x)`` by v."""
    return _rows(lambda v, x: _ordinary(n, v, x, 1), v, x, math.nan, 0.0)


def ive_by_order(n: int, v: Array, x: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.ive(v, x)`` by v; NaN at x < 0."""
    return _rows(lambda v, x: _modified(n, v, x, np.zeros_like(x)), v, x, 0.0, 0.0)


def iv_by_order(n: int, v: Array, x: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.iv(v, x)`` by v; NaN at x < 0."""
    return _rows(lambda v, x: _modified(n, v, x, x), v, x, 0.0)


def kve_by_order(n: int, v: Array, x: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.kve(v, x)`` by v."""
    return _rows(lambda v, x: np.sign(v) ** (n % 2) * _k(n, np.abs(v), x), v, x, math.nan, 0.0)


def kv_by_order(n: int, v: Array, x: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.kv(v, x)`` by v."""
    return _rows(lambda v, x: np.sign(v) ** (n % 2) * _k(n, np.abs(v), x, -x), v, x, math.nan, 0.0)
