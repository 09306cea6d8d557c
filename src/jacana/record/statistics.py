"""Covariance, correlation, interpolation, phase unwrapping, polynomials: compositions of other functions."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .composed import as_numpy, composed
from .indexing import plain_key
from .lift import any_tracked, axis_in, call_on_constants, plain_operand
from .location import called_by
from .table import implements
from .variable import raw, raw_deep


@composed(np.cov)
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None, fweights: Any = None,
    aweights: Any = None, *, dtype: Any = None,
) -> Any:  # fmt: skip
    """The covariance of variables in rows, as NumPy defines its weights and degrees of freedom."""
    return covariance(m, y, rowvar, bias, ddof, fweights, aweights)


def covariance(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None, fweights: Any = None,
    aweights: Any = None,
) -> Any:  # fmt: skip
    """The formula, of real and complex variables."""
    x = np.atleast_2d(plain_operand(m))
    if not rowvar and np.ndim(raw_deep(m)) != 1:
        x = np.transpose(x)
    if y is not None:
        second = np.atleast_2d(plain_operand(y))
        if not rowvar and np.shape(raw_deep(second))[0] != 1:
            second = np.transpose(second)
        x = np.concatenate((x, second), axis=0)
    ddof = (0 if bias else 1) if ddof is None else ddof
    weights: Any = np.ones(np.shape(raw_deep(x))[1])
    if fweights is not None:
        weights = weights * np.asarray(plain_key(plain_operand(fweights)), dtype=float)
    if aweights is not None:
        aweights = plain_operand(aweights)
        if np.any(aweights < 0):
            raise ValueError("aweights cannot be negative")
        weights = weights * aweights
    total = np.sum(weights)
    if aweights is not None and total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    scale = total - ddof if aweights is None else total - ddof * np.sum(weights * aweights) / total
    centred = x - np.sum(x * weights, axis=1, keepdims=True) / total
    return np.squeeze((centred * weights) @ np.conjugate(np.transpose(centred)) / np.maximum(scale, 0.0))


@composed(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None, **_: Any) -> Any:
    """The covariance over the standard deviations, kept within [-1, 1]."""
    c = cov(x, y, rowvar)
    if np.ndim(raw_deep(c)) == 0:
        return c / c
    deviation = np.sqrt(np.diagonal(c))
    return np.clip(c / deviation[:, None] / deviation[None, :], -1.0, 1.0)


@composed(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """Linear between the points of a table. Which interval it is is guarded; at a point the right one counts."""
    x, xp, fp = plain_operand(x), plain_operand(xp), plain_operand(fp)
    if period is not None:
        period = abs(period)
        x, xp = np.remainder(x, period), np.remainder(xp, period)
        order = np.argsort(xp)
        xp, fp = xp[order], fp[order]
        xp = np.concatenate((xp[-1:] - period, xp, xp[:1] + period))
        fp = np.concatenate((fp[-1:], fp, fp[:1]))
        left = right = None
    count = np.shape(raw(xp))[0]
    if count == 1:
        inside = fp[0] + 0.0 * x
    else:
        k = np.clip(np.searchsorted(xp, x, side="right") - 1, 0, count - 2)
        low, high, width = fp[k], fp[k + 1], xp[k + 1] - xp[k]
        inside = low + (high - low) / width * (x - xp[k])
        if np.any(width == 0):  # the last two points are one, and only that one lies between them
            inside = np.where(width == 0, high, inside)
    result = np.where(x < xp[0], fp[0] if left is None else left, inside)
    return np.where(x > xp[-1], fp[-1] if right is None else right, result)


@composed(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * np.pi) -> Any:
    """Jumps are taken out by multiples of the period, which are constant between jumps."""
    step = np.diff(p, axis=axis)
    discont = period / 2 if discont is None else discont
    half = period / 2
    remainder = np.remainder(step + half, period) - half
    remainder = np.where((remainder == -half) & (step > 0), half, remainder)
    turns = np.rint((remainder - step) / period)
    shift = np.where(np.abs(step) < discont, 0.0, turns * period)
    rank = np.ndim(raw(p))
    width = [(1, 0) if k == axis_in(axis, rank) else (0, 0) for k in range(rank)]
    return p + np.pad(np.cumsum(shift, axis=axis), width)


# --- polynomials, highest power first ---------------------------------------------------------------------------


def _coefficients(p: Any) -> Any:
    return np.atleast_1d(plain_operand(p))


def _padded(p: Any, length: int) -> Any:
    return np.concatenate((np.zeros(length - np.shape(raw(p))[0]), p))


def _aligned(a1: Any, a2: Any) -> tuple[Any, Any]:
    a, b = _coefficients(a1), _coefficients(a2)
    length = max(np.shape(raw(a))[0], np.shape(raw(b))[0])
    return _padded(a, length), _padded(b, length)


@composed(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Any:
    """The sum."""
    return operator.add(*_aligned(a1, a2))


@composed(np.polysub)
def polysub(a1: Any, a2: Any) -> Any:
    """The difference."""
    return operator.sub(*_aligned(a1, a2))


@implements(np.polymul)
def polymul(a1: Any, a2: Any) -> Any:
    """The product: a convolution of the coefficients, of which leading zeros are left out; which are is guarded.

    The class ``poly1d`` keeps those that depend on the arguments: they may be zero now, and have derivatives.
    """
    if not any_tracked((a1, a2)):
        return call_on_constants(np.polymul, (a1, a2), {})
    if called_by("poly1d"):
        return np.convolve(_coefficients(a1), _coefficients(a2))
    first, second = _coefficients(a1), _coefficients(a2)
    for factor in (first, second):
        np.trim_zeros(factor, "f")  # looks at them, and guards what it sees
    value = np.polymul(raw_deep(a1), raw_deep(a2))
    return as_numpy(value, np.convolve(first, second)[-len(value) :])


@composed(np.polyder)
def polyder(p: Any, m: int = 1) -> Any:
    """The derivative by the variable of the polynomial."""
    p = _coefficients(p)
    for _ in range(m):
        degree = np.shape(raw(p))[0] - 1
        p = p[:-1] * np.arange(degree, 0, -1)
    return p


@composed(np.polyint)
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """The integral, with its constants."""
    p = _coefficients(p)
    constants: Any = [0.0] * m if k is None else (np.atleast_1d(plain_operand(k)))
    if k is not None and m > 1 and np.shape(raw_deep(constants))[0] == 1:
        constants = [constants[0]] * m
    for j in range(m):
        degree = np.shape(raw(p))[0]
        p = np.concatenate((p / np.arange(degree, 0, -1), np.reshape(constants[j], (1,))))
    return p


@composed(np.poly)
def poly(seq_of_zeros: Any) -> Any:
    """The polynomial with given real roots, or the characteristic polynomial of a matrix.

    That is found from powers of the matrix, by the method of Faddeev and LeVerrier: eigenvalues may be equal.
    """
    roots = _coefficients(seq_of_zeros)
    if np.ndim(raw(roots)) == 2:
        n = np.shape(raw(roots))[0]
        coefficients: list[Any] = [1.0]
        product: Any = roots
        for k in range(1, n + 1):
            coefficients.append(np.trace(product) / -k)
            product = roots @ (product + coefficients[-1] * np.eye(n))
        return np.stack([np.asarray(coefficients[0]), *coefficients[1:]])
    result: Any = np.ones(1)
    for k in range(np.shape(raw(roots))[0]):
        result = np.concatenate((result, np.zeros(1))) - np.concatenate((np.zeros(1), roots[k] * result))
    return result


@composed(np.polyfit)
def polyfit(
    x: Any, y: Any, deg: Any, rcond: Any = None, full: bool = False, w: Any = None, cov: Any = False
) -> Any:  # fmt: skip
    """Least squares with the columns of a Vandermonde matrix, scaled as NumPy scales them."""
    x, y, count = plain_operand(x) + 0.0, plain_operand(y) + 0.0, int(deg) + 1
    rcond = len(x) * np.finfo(raw(x).dtype).eps if rcond is None else rcond
    left, right = np.vander(x, count), y
    if w is not None:
        w = plain_operand(w) + 0.0
        left, right = left * w[:, None], right * (w[:, None] if np.ndim(raw(y)) == 2 else w)
    scale = np.sqrt(np.sum(left * left, axis=0))
    left = left / scale
    found, residuals, rank, singular = np.linalg.lstsq(left, right, rcond)
    found = np.transpose(np.transpose(found) / scale)
    if full:
        return found, residuals, rank, singular, rcond
    if not cov:
        return found
    base = np.linalg.inv(np.transpose(left) @ left) / np.outer(scale, scale)
    factor = 1.0 if isinstance(cov, str) else residuals / (len(x) - count)
    return found, base * factor if np.ndim(raw(y)) == 1 else base[:, :, None] * factor


@implements(np.roots)
def roots(p: Any) -> Any:
    """The eigenvalues of the companion matrix; which outer coefficients are zero is guarded."""
    p = _coefficients(p)
    if np.ndim(raw(p)) != 1:
        raise ValueError("Input must be a rank-1 array.")
    (there,) = np.nonzero(p)
    if len(there) == 0:
        return np.array([])
    behind = np.shape(raw(p))[0] - int(there[-1]) - 1
    p = p[int(there[0]) : int(there[-1]) + 1]
    count = np.shape(raw(p))[0] - 1
    if count == 0:
        return np.zeros(behind)
    found = np.linalg.eigvals(np.concatenate(((-p[1:] / p[0])[None], np.eye(count)[:-1])))
    return np.concatenate((found, np.zeros(behind))) if behind else found


@composed(np.vander)
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    """Columns of powers."""
    x = plain_operand(x)
    count = np.shape(raw(x))[0] if N is None else N
    powers = range(count) if increasing else range(count - 1, -1, -1)
    return np.stack([np.power(x, k) for k in powers], axis=1) if count else np.zeros((np.shape(raw(x))[0], 0))


@implements(np.polydiv)
def polydiv(u: Any, v: Any) -> Any:
    """Quotient and remainder by long division; which leading coefficients of the remainder vanish is guarded."""
    if not any_tracked((u, v)):
        return call_on_constants(np.polydiv, (u, v), {})
    value = np.polydiv(raw_deep(u), raw_deep(v))
    rest, divisor = _coefficients(u) + 0.0, _coefficients(v) + 0.0
    m, n = np.shape(raw(rest))[0] - 1, np.shape(raw(divisor))[0] - 1
    scale = 1.0 / divisor[0]
    quotient = []
    for k in range(m - n + 1):
        factor = scale * rest[k]
        quotient.append(factor)
        rest = rest - np.pad(factor * divisor, (k, m - n - k))
    while np.allclose(rest[0], 0, rtol=1e-14) and np.shape(raw(rest))[0] > 1:
        rest = rest[1:]
    return as_numpy(value, (np.stack(quotient) if quotient else np.zeros(1), rest))


@composed(np.i0)
def i0(x: Any) -> Any:
    """The modified Bessel function, by SciPy's."""
    import scipy.special

    return scipy.special.i0(x)


# --- spaced numbers ---------------------------------------------------------------------------------------------


@composed(np.logspace)
def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Any:
    """Powers of the base at even steps."""
    return np.power(base, np.linspace(start, stop, num, endpoint=endpoint, axis=axis))


@composed(np.geomspace)
def geomspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0
) -> Any:  # fmt: skip
    """Even steps of the logarithm, of numbers of the sign of the first; the ends are what was given."""
    start, stop = np.broadcast_arrays(plain_operand(start), plain_operand(stop))
    if np.any(start == 0) or np.any(stop == 0):
        raise ValueError("Geometric sequence cannot include zero")
    sign = np.sign(start)
    found = sign * np.exp(np.linspace(np.log(start * sign), np.log(stop * sign), num, endpoint=endpoint))
    parts = [start[None], found[1:-1], stop[None]] if endpoint and num > 1 else [start[None][:num], found[1:]]
    return np.moveaxis(np.concatenate(parts), 0, axis)
