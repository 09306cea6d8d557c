"""Derivatives of the incomplete gamma and beta functions by their parameters, of any order: their values by NumPy.

Both functions are probabilities, integrals of a density f up to x, and ``d^n f / da^n = f B_n``, where ``B_n`` is the
complete Bell polynomial of the derivatives of ``log f``. With the variable w = log t, or log t/(1 - t) of the beta
function, ``exp(h(w))`` is integrated, h concave, times a polynomial of logarithms. As the integral of the whole density
is one whatever its parameters are, that of each derivative is zero: it may be taken below x or, with the other sign,
above it. For the first derivative the integrand is of one sign on one of the sides, and that side is taken, so nothing
cancels, in the tails neither. Far from its mode ``exp(h)`` decays like an exponential or faster, and what it
does elsewhere it does near one point; Gauss and Legendre's nodes, spread from that point by a hyperbolic sine, find the
integral to rounding. Of the incomplete gamma function at small x it is the power series (DLMF 8.7.1) that is
differentiated.

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, sections 5.5, 5.11, 8.2, 8.7, 8.17; the
density near its mode: C. Loader, Fast and accurate computation of binomial probabilities, 2000. Others who computed
these: R. J. Moore, Algorithm AS 187: derivatives of the incomplete gamma integral, Applied Statistics 31, 1982; R. J.
Boik and J. F. Robison-Cox, Derivatives of the incomplete beta function, Journal of Statistical Software 3(1), 1998.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special as sc

from ..node import Array

_DEPTH = 42.0  # of the integrand below its greatest value, in powers of e, where it is cut off
_CHUNK = 2048  # numbers at a time: a few megabytes of nodes
_LARGE = 10.0  # from where on the series in 1/z are exact
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def bell(first: Any, others: Sequence[Any]) -> list[Any]:
    """The complete Bell polynomials of orders 0, 1, ..., of the numbers ``first, *others``."""
    numbers = [first, *others]
    result: list[Any] = [1.0]
    for n in range(len(numbers)):
        result.append(sum(math.comb(n, k) * numbers[k] * result[n - k] for k in range(n + 1)))
    return result


def bell_of_two(orders: tuple[int, int], number: Callable[[int, int], Any]) -> Any:
    """The same of mixed derivatives: ``number(i, j)`` is the derivative of the logarithm, of orders i and j."""
    m, n = orders
    found: dict[tuple[int, int], Any] = {(0, 0): 1.0}
    for i in range(m + 1):
        for j in range(n + 1):
            if i:
                found[i, j] = sum(
                    math.comb(i - 1, p) * math.comb(j, q) * number(p + 1, q) * found[i - 1 - p, j - q]
                    for p in range(i) for q in range(j + 1)
                )  # fmt: skip
            elif j:
                found[i, j] = sum(math.comb(j - 1, q) * number(0, q + 1) * found[0, j - 1 - q] for q in range(j))
    return found[m, n]


def _polygamma(n: int, x: Array) -> Array:
    result: Array = sc.psi(x) if n == 0 else (-1.0) ** (n + 1) * math.factorial(n) * sc.zeta(n + 1.0, x)
    return result


# --- differences of near numbers ------------------------------------------------------------------------------------


def _log_less(ratio: Array, e: Array, logarithm: Array | None = None) -> Array:
    """``log(ratio) - e`` of ``ratio = 1 + e``."""
    small = np.abs(e) < 0.4
    near = np.where(small, e, 0.0)
    r = near / (2.0 + near)  # log1p(e) = 2 artanh(r)
    square = r * r
    total = np.zeros_like(r)
    for k in range(31, 1, -2):
        total = 1.0 / k + square * total
    far = np.log(ratio) if logarithm is None else logarithm
    return np.where(small, 2.0 * r * square * total - r * near, far - e)


def _expm1_less(s: Array) -> Array:
    """``expm1(s) - s``."""
    small = np.abs(s) < 0.4
    near = np.where(small, s, 0.0)
    total = np.full_like(near, 1.0 / math.factorial(13))
    for k in range(12, 1, -1):
        total = 1.0 / math.factorial(k) + near * total
    return np.where(small, near * near * total, np.expm1(s) - s)


def _stirling(z: Array) -> Array:
    """The logarithm of ``gamma(z) / (sqrt(2 pi / z) (z/e)**z)``, of large z (DLMF 5.11.1)."""
    inverse = 1.0 / (z * z)
    return sum(b / (2 * k * (2 * k - 1)) * inverse ** (k - 1) for k, b in enumerate(_BERNOULLI, start=1)) / z


def _polygamma_difference(n: int, a: Array, b: Array) -> Array:
    """``polygamma(n, a + b) - polygamma(n, a)``, to all digits however small b is.

    Recurrence (DLMF 5.15.5) up to large arguments, and there the asymptotic series (5.15.8, 5.15.9), of which each term
    is a difference of powers of p and q, the reciprocals of both arguments, with the factor p - q.
    """

    def powers(p: Array, q: Array, m: int) -> Array:
        return np.asarray(b * p * q * sum(p**i * q ** (m - 1 - i) for i in range(m)))

    sign = (-1.0) ** n
    total = np.zeros(np.shape(a))
    for k in range(int(_LARGE)):
        total = total + sign * math.factorial(n) * powers(1.0 / (a + k), 1.0 / (a + b + k), n + 1)
    p, q = 1.0 / (a + _LARGE), 1.0 / (a + b + _LARGE)
    total = total + (sign * math.factorial(n - 1) * powers(p, q, n) if n else np.log1p(b * p))
    total = total + sign * 0.5 * math.factorial(n) * powers(p, q, n + 1)
    for k, number in enumerate(_BERNOULLI, start=1):
        factor = number * math.factorial(2 * k + n - 1) / math.factorial(2 * k)
        total = total + sign * factor * powers(p, q, 2 * k + n)
    return total


def _nodes(panels: int, count: int) -> tuple[Array, Array]:
    """Gauss and Legendre's nodes and weights in equal parts of the interval from 0 to 1."""
    x, w = np.polynomial.legendre.leggauss(count)
    starts = np.arange(panels)[:, None]
    return ((starts + 0.5 * (x + 1.0)) / panels).ravel(), np.tile(0.5 * w / panels, panels)


def _in_chunks(function: Callable[..., Array], mask: Array, out: Array, *arrays: Array) -> None:
    """``out[mask] = function(*arrays[mask])``, a part at a time."""
    places = np.flatnonzero(mask)
    for start in range(0, places.size, _CHUNK):
        part = places[start : start + _CHUNK]
        out[part] = function(*(array[part] for array in arrays))


def _elementwise(function: Callable[..., Array], *arrays: Array) -> Array:
    """Of arrays of any equal shape and of any float type, by a function of rows of double precision."""
    dtype = np.result_type(*arrays)
    wide = np.broadcast_arrays(*(np.asarray(array, dtype=float) for array in arrays))
    with np.errstate(all="ignore"):
        found = function(*(array.ravel() for array in wide))
    return found.reshape(wide[0].shape).astype(dtype, copy=False)


# --- the incomplete gamma function ----------------------------------------------------------------------------------

_SERIES = 1.5  # up to this x
_GAMMA_NODES = _nodes(2, 24)


def _gamma_by_series(n: int, a: Array, x: Array) -> Array:
    # G (1 + a T) with G = x^a / gamma(a + 1) and T = sum over k > 0 of (-x)^k / (k! (a + k)).
    lead = bell(np.log(x) - sc.psi(a + 1.0), [-_polygamma(k, a + 1.0) for k in range(1, n)])
    sums = [np.zeros_like(x) for _ in range(n + 1)]
    power = np.ones_like(x)
    for k in range(1, 28):
        power = power * (-x / k)
        term = power / (a + k)
        for j in range(n + 1):
            sums[j] = sums[j] + term
            term = term * (-(j + 1.0) / (a + k))
    total = lead[n] + sum(
        math.comb(n, j) * lead[n - j] * (a * sums[j] + (j * sums[j - 1] if j else 0.0)) for j in range(n + 1)
    )
    return np.asarray(x**a * sc.rgamma(a + 1.0) * total)


def _either(mask: Array, yes: Callable[..., Array], no: Callable[..., Array], *arrays: Array) -> Array:
    """One or the other function, each where it is asked for."""
    if mask.all():
        return yes(*arrays)
    if not mask.any():
        return no(*arrays)
    result: Array = np.empty(mask.shape)
    result[mask] = yes(*(a[mask] for a in arrays))
    result[~mask] = no(*(a[~mask] for a in arrays))
    return result


def _gamma_weight(a: Array, x: Array) -> Array:
    """``x^a exp(-x) / gamma(a + 1)``."""

    def far(a: Array, x: Array) -> Array:
        result: Array = np.exp(a * _log_less(x / a, (x - a) / a) - _stirling(a)) / np.sqrt(2.0 * math.pi * a)
        return result

    def near(a: Array, x: Array) -> Array:
        return np.asarray(np.exp(-x) * x**a * sc.rgamma(a + 1.0))

    return _either(a >= _LARGE, far, near, a, x)


def _log_over_mean(a: Array, x: Array) -> Array:
    """``log(x) - psi(a + 1)``."""
    large = a >= _LARGE
    z = np.where(large, a, _LARGE)
    inverse = 1.0 / (z * z)
    rest = 0.5 / z - sum(b / (2 * k) * inverse**k for k, b in enumerate(_BERNOULLI, start=1))
    away = (x - z) / z
    logarithm = np.where(np.abs(away) < 0.5, np.log1p(away), np.log(x / z))
    return np.where(large, logarithm - rest, np.log(x) - sc.psi(a + 1.0))


def _gamma_by_integral(n: int, a: Array, x: Array) -> Array:
    # t = x exp(-s) below x, and x exp(s) above it; a B_n + n B_{n-1} of 1/gamma(a) = a / gamma(a + 1).
    at = _log_over_mean(a, x)
    below = a * at + 1.0 <= 0.0
    side = np.where(below, -1.0, 1.0)
    slope = np.maximum(side * (x - a), 0.0)
    with_bound = np.where(below, 2.0 * slope - _DEPTH, slope)
    length = np.where(
        below,
        4.0 * _DEPTH / (with_bound + np.sqrt(with_bound**2 + 8.0 * _DEPTH * (slope + x))),
        2.0 * _DEPTH / (slope + np.sqrt(slope**2 + 2.0 * _DEPTH * x)),
    )
    for _ in range(4):  # Newton's method for a convex function, from the right
        bent = side * length
        length = length - (slope * length + x * _expm1_less(bent) - _DEPTH) / (slope + side * x * np.expm1(bent))
    points, weights = _GAMMA_NODES
    s = (side * length)[:, None] * points
    powers = np.exp((a - x)[:, None] * s - x[:, None] * _expm1_less(s))
    polynomials = bell(at[:, None] + s, [-_polygamma(k, a + 1.0)[:, None] for k in range(1, n)])
    integral = (powers * (a[:, None] * polynomials[n] + n * polynomials[n - 1])) @ weights
    return np.asarray(-side * length * integral * _gamma_weight(a, x))


def gammainc_by_shape(n: int, a: Array, x: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.gammainc(a, x)`` by a; NaN where that function is not defined."""

    def rows(a: Array, x: Array) -> Array:
        out = np.full(a.shape, np.nan)
        inside = (a >= 0.0) & (x > 0.0) & (x < np.inf) & (a < np.inf)
        out[(a > 0.0) & ((x == 0.0) | (x == np.inf) | ((a == np.inf) & (x >= 0.0)))] = 0.0
        _in_chunks(lambda a, x: _gamma_by_series(n, a, x), inside & (x <= _SERIES), out, a, x)
        _in_chunks(lambda a, x: _gamma_by_integral(n, a, x), inside & (x > _SERIES), out, a, x)
        return out

    return _elementwise(rows, a, x)


# --- the incomplete beta function -----------------------------------------------------------------------------------

_WIDTH = 2.0  # of what exp(h) does near its bend, whose nearest singularities are at a distance of pi
_TAIL_NODES = _nodes(6, 20)
_MIDDLE_NODES = _nodes(4, 20)


def _logarithms(x: Array, y: Array) -> tuple[Array, Array]:
    """Of x and of y = 1 - x, from the smaller of the two."""
    return np.where(x > 0.5, np.log1p(-y), np.log(x)), np.where(y > 0.5, np.log1p(-x), np.log(y))


def _log_beta(a: Array, b: Array) -> Array:
    """``log(beta(a, b))`` where not both are large: by differences of Stirling's formula if one is."""

    def one_is(a: Array, b: Array) -> Array:
        low, z = np.minimum(a, b), np.maximum(a, b)
        ratio = (z - 0.5) * np.log1p(low / z) + low * (np.log(z + low) - 1.0) + _stirling(z + low) - _stirling(z)
        return np.asarray(sc.gammaln(low) - ratio)

    return _either(np.maximum(a, b) >= _LARGE, one_is, lambda a, b: np.asarray(sc.betaln(a, b)), a, b)


def _beta_log_weight(a: Array, b: Array, x: Array, y: Array, log_x: Array, log_y: Array) -> Array:
    """The logarithm of ``x^a y^b / beta(a, b)``."""

    def far(a: Array, b: Array, x: Array, y: Array, log_x: Array, log_y: Array) -> Array:
        away = b * x - a * y
        found = a * _log_less((a + b) * x / a, away / a) + b * _log_less((a + b) * y / b, -away / b)
        found = found + 0.5 * np.log(a / (a + b) * b / (2.0 * math.pi))
        return np.asarray(found + _stirling(a + b) - _stirling(a) - _stirling(b))

    def near(a: Array, b: Array, x: Array, y: Array, log_x: Array, log_y: Array) -> Array:
        return np.asarray(a * log_x + b * log_y - _log_beta(a, b))

    return _either((a >= _LARGE) & (b >= _LARGE), far, near, a, b, x, y, log_x, log_y)


def _spread(length: Array, nodes: tuple[Array, Array]) -> tuple[Array, Array]:
    """Nodes and weights from 0 to each length, ever farther apart."""
    end = np.arcsinh(length / _WIDTH)[:, None]
    return _WIDTH * np.sinh(end * nodes[0]), _WIDTH * end * np.cosh(end * nodes[0]) * nodes[1]


def _shifted_logarithms(x: Array, y: Array, s: Array) -> tuple[Array, Array]:
    """What log t and log(1 - t) differ by from those of x where log t/(1 - t) is less by s."""
    far = -np.log(y + x * np.exp(-s))
    by_x = np.where(s < 700.0, -np.log1p(y * np.expm1(np.minimum(s, 700.0))), far - s)
    return by_x, np.where((s < 1.0) | (x < 0.5), -np.log1p(x * np.expm1(-s)), far)


def _tail_length(a: Array, b: Array, x: Array, y: Array) -> Array:
    """How far below log(x / y) the integrand is negligible, by Newton's method for a convex function from the right."""
    length = (_DEPTH - (a + b) * np.log(y)) / a
    for _ in range(8):
        by_x, by_y = _shifted_logarithms(x, y, length)
        moved = x * np.exp(-length)
        slope = a - (a + b) * moved / (y + moved)
        length = np.where(slope > 0.0, np.maximum(length + (a * by_x + b * by_y + _DEPTH) / slope, 0.0), length)
    return length


def _beta_integral(
    factor: Callable[..., Array], below: Array, a: Array, b: Array, x: Array, y: Array, *others: Array
) -> Array:
    """The integral over density times ``factor(log t, log(1 - t), *others)`` from 0 to x, or less that from x to 1."""
    a, b = np.where(below, a, b), np.where(below, b, a)
    x, y = np.where(below, x, y), np.where(below, y, x)
    log_x, log_y = _logarithms(x, y)
    at = log_x - log_y
    bend = np.log(np.maximum(a, 1.0)) - np.log(np.maximum(b, 1.0))
    start = np.minimum(at, bend)
    length = _tail_length(a, b, np.where(at <= bend, x, sc.expit(start)), np.where(at <= bend, y, sc.expit(-start)))
    weight = _beta_log_weight(a, b, x, y, log_x, log_y)

    def part(places: Any, s: Array, steps: Array) -> Array:
        def column(array: Array) -> Array:
            result: Array = array[places][:, None]
            return result

        by_x, by_y = _shifted_logarithms(column(x), column(y), s)
        powers = np.exp(column(weight) + column(a) * by_x + column(b) * by_y)
        first, second = column(log_x) + by_x, column(log_y) + by_y
        straight = column(below)
        factors = factor(np.where(straight, first, second), np.where(straight, second, first), *map(column, others))
        return np.asarray(np.sum(powers * factors * steps, axis=1))

    distance, steps = _spread(length, _TAIL_NODES)
    total = part(slice(None), (at - start)[:, None] + distance, steps)
    places = np.flatnonzero(at > start)
    if places.size:
        distance, steps = _spread((at - start)[places], _MIDDLE_NODES)
        total[places] += part(places, (at - start)[places][:, None] - distance, steps)
    return np.where(below, total, -total)


def _beta_numbers(m: int, n: int, u: Array, v: Array, a: Array, b: Array) -> Array:
    """The polynomial of u and v, the derivatives of the logarithm of the density by a and by b."""

    def number(i: int, j: int) -> Array:
        if i and j:
            return _polygamma(i + j - 1, a + b)
        if i + j == 1:
            return u if i else v
        return _polygamma_difference(i + j - 1, *((a, b) if i else (b, a)))

    return np.asarray(bell_of_two((m, n), number))


def betainc_by_shapes(m: int, n: int, a: Array, b: Array, x: Array, y: Array) -> Array:
    """The derivative of ``scipy.special.betainc(a, b, x)``, m times by a and n times by b, with ``y = 1 - x``."""

    def rows(a: Array, b: Array, x: Array, y: Array) -> Array:
        out = np.full(a.shape, np.nan)
        sound = (a > 0.0) & (b > 0.0) & (a < np.inf) & (b < np.inf)
        out[sound & ((x == 0.0) | (y == 0.0))] = 0.0
        inside = sound & (x > 0.0) & (y > 0.0) & (x < 1.0 + 1e-15) & (y < 1.0 + 1e-15)
        by_a, by_b = _polygamma_difference(0, a, b), _polygamma_difference(0, b, a)
        # Of which side: that on which the integrand of the first derivative has one sign.
        log_x, log_y = _logarithms(x, y)
        of_one = log_x + by_a <= 0.0 if m else log_y + by_b >= 0.0
        below = x * b <= y * a if m and n else of_one

        def factor(log_t: Array, log_rest: Array, by_a: Array, by_b: Array, a: Array, b: Array) -> Array:
            return _beta_numbers(m, n, log_t + by_a, log_rest + by_b, a, b)

        def integral(below: Array, a: Array, b: Array, x: Array, y: Array, by_a: Array, by_b: Array) -> Array:
            return _beta_integral(factor, below, a, b, x, y, by_a, by_b, a, b)

        _in_chunks(integral, inside, out, below, a, b, x, y, by_a, by_b)
        return out

    return _elementwise(rows, a, b, x, y)


# --- Student's t ----------------------------------------------------------------------------------------------------


def t_density(v: Array, t: Array) -> Array:
    """The density of Student's distribution; without end of v that of the normal one."""

    def rows(v: Array, t: Array) -> Array:
        half = 0.5 * v
        found = np.exp(-(half + 0.5) * np.log1p(t / v * t) - _log_beta(np.full_like(v, 0.5), half)) / np.sqrt(v)
        return np.where(v == np.inf, np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi), np.where(v > 0.0, found, np.nan))

    return _elementwise(rows, v, t)


def _t_shift(v: Array) -> Array:
    """``psi((v + 1)/2) - psi(v/2) - 1/v``, small beside the first two where v is large (DLMF 5.5.8, 5.11.2)."""
    half = np.maximum(0.5 * v, _LARGE)
    series = 2.0 * sum(
        number / (2 * k) * (1.0 - 0.25**k) * half ** (-2 * k) for k, number in enumerate(_BERNOULLI, start=1)
    )
    return np.where(v < 2.0 * _LARGE, _polygamma_difference(0, 0.5 * v, np.full_like(v, 0.5)) - 1.0 / v, series)


def _t_slope(v: Array, shift: Array, log_share: Array, log_rest: Array) -> Array:
    """The derivative by v of the logarithm of the density at t, of which ``t**2 / (v + t**2)`` is a share."""
    share = np.exp(log_share)
    return 0.5 * (shift + share / v + _log_less(np.exp(log_rest), -share, log_rest))


def t_density_by_freedom(v: Array, t: Array) -> Array:
    """The derivative by v of ``t_density(v, t)``."""

    def rows(v: Array, t: Array) -> Array:
        ratio = t / v * t
        rest = -np.log1p(ratio)
        share = np.where(ratio < 1.0, np.log(ratio) + rest, -np.log1p(1.0 / ratio))
        return np.where(v == np.inf, 0.0, t_density(v, t) * _t_slope(v, _t_shift(v), share, rest))

    return _elementwise(rows, v, t)


def stdtr_by_freedom(v: Array, t: Array) -> Array:
    """The derivative of ``scipy.special.stdtr(v, t)`` by v: the integral of that of the density from 0 to t.

    With the share ``t**2 / (v + t**2)`` for the variable that density is one of the beta distribution.
    """

    def rows(v: Array, t: Array) -> Array:
        out = np.where((v > 0.0) & ~np.isnan(t), 0.0, np.nan)
        total = v + t * t
        x, y = t * t / total, v / total
        inside = (v > 0.0) & (v < np.inf) & (x > 0.0) & (y > 0.0)
        shift = _t_shift(v)
        log_x, log_y = _logarithms(x, y)
        below = _t_slope(v, shift, log_x, log_y) >= 0.0  # it falls as t grows

        def factor(log_t: Array, log_rest: Array, v: Array, shift: Array) -> Array:
            return _t_slope(v, shift, log_t, log_rest)

        def integral(below: Array, v: Array, x: Array, y: Array, shift: Array) -> Array:
            return _beta_integral(factor, below, np.full_like(v, 0.5), 0.5 * v, x, y, v, shift)

        _in_chunks(integral, inside, out, below, v, x, y, shift)
        return 0.5 * np.sign(t) * out

    return _elementwise(rows, v, t)


# --- their densities ------------------------------------------------------------------------------------------------


def gamma_density(n: int, a: Array, x: Array) -> Array:
    """The n-th derivative by a of ``x**(a - 1) exp(-x) / gamma(a)``."""

    def rows(a: Array, x: Array) -> Array:
        found = _gamma_weight(a, x) / x
        if n:
            polynomials = bell(_log_over_mean(a, x), [-_polygamma(k, a + 1.0) for k in range(1, n)])
            found = found * (a * polynomials[n] + n * polynomials[n - 1])
        else:
            found = found * a
        found = np.where((a < 0.0) | (x < 0.0), np.nan, np.where((x == np.inf) & (a < np.inf), 0.0, found))
        # At zero it is a power of zero, over gamma(a): that of 0 is infinite.
        infinite = np.where(a < 0.0, -np.inf, np.inf) * (-1.0) ** n
        limit = np.where((a > 1.0) | ((a == 0.0) & (n == 0)), 0.0, np.where((a == 1.0) & (n == 0), 1.0, infinite))
        return np.where(x == 0.0, limit, found)

    return _elementwise(rows, a, x)


def beta_density(m: int, n: int, a: Array, b: Array, x: Array, y: Array) -> Array:
    """The derivative, m times by a and n times by b, of ``x**(a - 1) y**(b - 1) / beta(a, b)``, y = 1 - x."""

    def rows(a: Array, b: Array, x: Array, y: Array) -> Array:
        log_x, log_y = _logarithms(x, y)

        found = np.exp(_beta_log_weight(a, b, x, y, log_x, log_y)) / (x * y)
        if m or n:
            u, v = log_x + _polygamma_difference(0, a, b), log_y + _polygamma_difference(0, b, a)
            found = found * _beta_numbers(m, n, u, v, a, b)
        found = np.where((a > 0.0) & (b > 0.0) & (x >= 0.0) & (y >= 0.0), found, np.nan)
        left, right = _beta_density_at_end(m, n, a, b), _beta_density_at_end(n, m, b, a)
        return np.where(x == 0.0, left, np.where(y == 0.0, right, found))

    return _elementwise(rows, a, b, x, y)


def _beta_density_at_end(m: int, n: int, a: Array, b: Array) -> Array:
    """At x = 0 it is a power of zero, or b if a = 1."""
    plain = {0: b, 1: np.ones_like(b)}.get(n, np.zeros_like(b)) if m == 0 else np.full_like(b, (-1.0) ** m * np.inf)
    infinite = np.where(a < 0.0, -np.inf, np.inf) * (-1.0) ** m
    return np.where((a > 1.0) | ((a == 0.0) & (m == 0)), 0.0, np.where(a == 1.0, plain, infinite))
