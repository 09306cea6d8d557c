"""Functions of ``scipy.special`` at complex numbers: value by SciPy, derivatives in terms of one another.

Imported with ``special``, when a recording first meets a ufunc of SciPy. How a complex number is kept, and what its
derivative is, ``complex`` tells. Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov,
chapters 5 to 7; the Hurwitz zeta function by the sum of Euler and Maclaurin (25.11.5), as SciPy has none for complex
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special as sc

from ..node import Array, Edges, Operation, register
from .complex import Pair, exp, holomorphic_edges, infer_parts, operation_of, pair, reciprocal
from .fourier import combined, parted

ROOT_PI = math.sqrt(math.pi)
ROOT_TWO_PI = math.sqrt(2.0 * math.pi)


def _exp(z: Pair) -> Pair:
    return pair(exp(*z))


def _gauss(z: Pair, sign: float, scale: float = 1.0) -> Pair:
    return _exp(z * z * (sign * scale))


def _function(name: str, ufunc: Any, derivative: Callable[[Pair, Pair], Pair]) -> Operation:
    return operation_of(name, ufunc, lambda z, w: (derivative(z, w),), family="special")


class OrderParams(NamedTuple):
    """The first argument of the Hurwitz zeta function, a whole number."""

    order: int


_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_FAR = 16.0  # from where on the terms of the asymptotic series are below rounding
_STEPS = 10_000  # so far to the left of zero a number may be; further, it is NaN


def _zeta(s: int, z: Array) -> Array:
    """``sum over k >= 0 of (z + k)**-s``, s >= 2: terms until z is far from zero, then the integral and so on."""
    z = np.array(z, dtype=complex)
    total = np.zeros_like(z)
    for _ in range(_STEPS):
        near = (z.real < _FAR) & ((z.real > -_STEPS) & (np.abs(z.imag) < _FAR))
        if not near.any():
            break
        total[near] += z[near] ** -s
        z[near] += 1.0
    rest = z ** (1 - s) / (s - 1) + z**-s / 2
    factor = s * z ** (-s - 1) / 2
    for j, number in enumerate(_BERNOULLI, start=1):
        rest = rest + number * factor
        factor = factor * (s + 2 * j - 1) * (s + 2 * j) / ((2 * j + 1) * (2 * j + 2)) / (z * z)
    return np.where((z.real < _FAR) & (np.abs(z.imag) < _FAR), complex(np.nan, np.nan), total + rest)


def _zeta_value(params: OrderParams, re: Array, im: Array) -> Array:
    with np.errstate(all="ignore"):
        return parted(np.asarray(_zeta(params.order, combined(re, im)), np.result_type(re, np.complex64)))


def _zeta_edges(node: Any) -> Edges:
    z = Pair(*node.inputs)
    order = node.params.order
    return tuple(holomorphic_edges(pair(zeta(*z, params=OrderParams(order + 1))) * float(-order)))


zeta: Operation = register(
    Operation(
        name="complex_zeta", family="special", evaluate=_zeta_value, infer=infer_parts, edges=_zeta_edges, cost=300.0
    )
)

psi = _function("psi", sc.psi, lambda z, w: pair(zeta(*z, params=OrderParams(2))))
gamma = _function("gamma", sc.gamma, lambda z, w: w * pair(psi(*z)))
rgamma = _function("rgamma", sc.rgamma, lambda z, w: -(w * pair(psi(*z))))
loggamma = _function("loggamma", sc.loggamma, lambda z, w: pair(psi(*z)))
erf = _function("erf", sc.erf, lambda z, w: _gauss(z, -1.0) * (2.0 / ROOT_PI))
erfc = _function("erfc", sc.erfc, lambda z, w: _gauss(z, -1.0) * (-2.0 / ROOT_PI))
erfi = _function("erfi", sc.erfi, lambda z, w: _gauss(z, 1.0) * (2.0 / ROOT_PI))
erfcx = _function("erfcx", sc.erfcx, lambda z, w: z * w * 2.0 - 2.0 / ROOT_PI)
dawsn = _function("dawsn", sc.dawsn, lambda z, w: -(z * w * 2.0) + 1.0)
wofz = _function("wofz", sc.wofz, lambda z, w: _plus_i(-(z * w * 2.0), 2.0 / ROOT_PI))
ndtr = _function("ndtr", sc.ndtr, lambda z, w: _gauss(z, -1.0, 0.5) * (1.0 / ROOT_TWO_PI))
log_ndtr = _function("log_ndtr", sc.log_ndtr, lambda z, w: _exp(-(z * z * 0.5) - w) * (1.0 / ROOT_TWO_PI))
exp1 = _function("exp1", sc.exp1, lambda z, w: -(_exp(-z) * pair(reciprocal(*z))))
expm1 = _function("special_expm1", sc.expm1, lambda z, w: w + 1.0)
log1p = _function("special_log1p", sc.log1p, lambda z, w: pair(reciprocal(*(z + 1.0))))
expi = _function("expi", sc.expi, lambda z, w: _exp(z) * pair(reciprocal(*z)))


def _plus_i(z: Pair, number: float) -> Pair:
    return Pair(z.re, z.im + number)


# The record of each ufunc.
RECORDS: dict[Any, Operation] = {
    sc.psi: psi, sc.gamma: gamma, sc.rgamma: rgamma, sc.loggamma: loggamma, sc.erf: erf, sc.erfc: erfc, sc.erfi: erfi,
    sc.erfcx: erfcx, sc.dawsn: dawsn, sc.wofz: wofz, sc.ndtr: ndtr, sc.log_ndtr: log_ndtr, sc.exp1: exp1,
    sc.expi: expi, sc.expm1: expm1, sc.log1p: log1p,
}  # fmt: skip
