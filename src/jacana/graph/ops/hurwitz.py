"""The derivatives of the Hurwitz zeta function by its first argument, of any order: their values by NumPy.

The sum of Euler and Maclaurin (DLMF 25.11.5 with 25.11.28) is one of powers of q + k, whose derivatives are kept as
coefficients of powers of a small number that is added to the argument.

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, sections 25.2 and 25.11.
"""

from __future__ import annotations

import math

import numpy as np

from ..node import Array
from .shape_derivatives import _elementwise, _in_chunks

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
_TERMS = 24  # before the sum is continued as an integral


def _times(jet: list[Array], a: Array, b: float) -> list[Array]:
    """The product with ``a + b e`` of a polynomial of e, which ends where the jet does."""
    return [a * c + (b * jet[j - 1] if j else 0.0) for j, c in enumerate(jet)]


def _over(jet: list[Array], a: Array) -> list[Array]:
    """The quotient by ``a + e``."""
    found: list[Array] = []
    for c in jet:
        found.append((c - found[-1]) / a if found else c / a)
    return found


def zeta_by_order(n: int, s: Array, q: Array) -> Array:
    """The n-th derivative, n > 0, of ``scipy.special.zeta(s, q)`` by s; s > 1 and q > 0, elsewhere NaN."""

    def part(s: Array, q: Array) -> Array:
        total = np.zeros_like(s)
        for k in range(_TERMS):
            logarithm = np.log(q + k)
            total = total + (-logarithm) ** n * np.exp(-s * logarithm)
        end = q + _TERMS
        logarithm = np.log(end)
        power = [np.exp(-s * logarithm) * (-logarithm) ** j / math.factorial(j) for j in range(n + 1)]
        rest = _over(power, s - 1.0)[n] * end + 0.5 * power[n]
        jet = [c / end for c in _times(power, s, 1.0)]
        for k, number in enumerate(_BERNOULLI, start=1):
            rest = rest + number / math.factorial(2 * k) * jet[n]
            jet = [c / (end * end) for c in _times(_times(jet, s + (2 * k - 1), 1.0), s + 2 * k, 1.0)]
        return np.asarray(total + math.factorial(n) * rest)

    def rows(s: Array, q: Array) -> Array:
        out = np.full(s.shape, np.nan)
        _in_chunks(part, (s > 1.0) & (q > 0.0) & (s < np.inf) & (q < np.inf), out, s, q)
        return out

    return _elementwise(rows, s, q)
