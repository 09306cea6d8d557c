"""First derivatives of hypergeometric functions by their parameters: by their series, term by term.

Where terms of both signs cancel to fewer than ten digits, or a thousand times more terms would be needed, the result is
NaN: it is never a number that is wrong. Arguments below zero are moved above it by the transformations of Kummer (DLMF
13.2.39) and Pfaff (15.8.1), where all terms have one sign more often.

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, sections 13.2, 15.2, 15.8 and 16.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..node import Array
from .shape_derivatives import _elementwise, _in_chunks

_TERMS = 4000
_DIGITS = 1e-10


def _series(upper: Sequence[Array], lower: Sequence[Array], z: Array) -> list[Array]:
    """The sum of ``(a)_k ... / (b)_k ... z^k / k!`` and its derivatives by each of ``a ..., b ...``."""
    given = [*upper, *lower]
    term = np.ones_like(z)
    slopes = [np.zeros_like(z) for _ in given]
    sums = [np.ones_like(z), *(np.zeros_like(z) for _ in given)]
    greatest = [np.abs(part) for part in sums]
    small = np.zeros(z.shape, dtype=int)
    for k in range(_TERMS):
        # d/da of (a + k) is one; of 1/(b + k) it is -1/(b + k) times it. A factor may be zero: no logarithms.
        ratio = z / (k + 1.0)
        for b in lower:
            ratio = ratio / (b + k)
        whole = ratio
        for a in upper:
            whole = whole * (a + k)
        following = []
        for place, (p, slope) in enumerate(zip(given, slopes, strict=True)):
            if place < len(upper):
                without = ratio
                for other, a in enumerate(upper):
                    if other != place:
                        without = without * (a + k)
                following.append(slope * whole + term * without)
            else:
                following.append((slope - term / (p + k)) * whole)
        term, slopes = term * whole, following
        parts = [term, *slopes]
        quiet = np.ones(z.shape, dtype=bool)
        for place, part in enumerate(parts):
            sums[place] = sums[place] + part
            greatest[place] = np.maximum(greatest[place], np.abs(sums[place]))
            quiet &= np.abs(part) <= 1e-17 * np.abs(greatest[place])
        small = np.where(quiet, small + 1, 0)
        if np.all((small > 3) | ~np.isfinite(term)):
            break
    error = 2.0**-50
    sound = small > 3
    scale = np.abs(sums[0])
    return [
        np.where(sound & (error * most <= _DIGITS * np.maximum(np.abs(part), scale)), part, np.nan)
        for part, most in zip(sums, greatest, strict=True)
    ]


def hyp0f1_by_parameter(place: int, v: Array, z: Array) -> Array:
    """The derivative of ``scipy.special.hyp0f1(v, z)`` by v (place 0)."""

    def rows(v: Array, z: Array) -> Array:
        out = np.full(v.shape, np.nan)
        _in_chunks(lambda v, z: _series([], [v], z)[1], np.isfinite(v) & np.isfinite(z), out, v, z)
        return out

    return _elementwise(rows, v, z)


def hyp1f1_by_parameter(place: int, a: Array, b: Array, z: Array) -> Array:
    """The derivative of ``scipy.special.hyp1f1(a, b, z)`` by a (place 0) or b (place 1)."""

    def part(a: Array, b: Array, z: Array) -> Array:
        below = z < 0.0
        _, by_first, by_second = _series([np.where(below, b - a, a)], [b], np.abs(z))
        turned = np.exp(z) * (-by_first if place == 0 else by_first + by_second)
        return np.where(below, turned, by_first if place == 0 else by_second)

    def rows(a: Array, b: Array, z: Array) -> Array:
        out = np.full(a.shape, np.nan)
        _in_chunks(part, np.isfinite(a) & np.isfinite(b) & np.isfinite(z), out, a, b, z)
        return out

    return _elementwise(rows, a, b, z)


def hyp2f1_by_parameter(place: int, a: Array, b: Array, c: Array, z: Array) -> Array:
    """The derivative of ``scipy.special.hyp2f1(a, b, c, z)`` by a, b or c (place 0, 1 or 2); z < 1."""

    def part(a: Array, b: Array, c: Array, z: Array) -> Array:
        below = z < 0.0
        moved = np.where(below, z / (z - 1.0), z)
        value, *slopes = _series([a, np.where(below, c - b, b)], [c], moved)
        factor, logarithm = (1.0 - z) ** -a, -np.log1p(-z)
        turned = [logarithm * value + slopes[0], -slopes[1], slopes[1] + slopes[2]][place]
        return np.where(below, factor * turned, slopes[place])

    def rows(a: Array, b: Array, c: Array, z: Array) -> Array:
        out = np.full(a.shape, np.nan)
        _in_chunks(part, np.isfinite(a + b + c + z) & (z < 1.0), out, a, b, c, z)
        return out

    return _elementwise(rows, a, b, c, z)
