"""Elliptic integrals. Carlson's have derivatives of every order, each of which is an integral of the same kind.

Those of Legendre's by the parameter m are such integrals, too, and smooth wherever they are. All of Carlson's are
``factor * integral of t^m (t + x)^-p (t + y)^-q ... over t > 0``. With t = exp(w) the integrand is analytic where the
imaginary part of w is below pi, and decays like an exponential on both sides, so that the trapezoidal rule finds the
integral to rounding (L. N. Trefethen and J. A. C. Weideman, SIAM Review 56, 2014, section 5).

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, chapter 19.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..node import Array, Node, Operation, Partial, register
from .elementwise import _edges, cos, equal, floor, number, remainder, select, sin, sqrt
from .shape_derivatives import _elementwise, _in_chunks
from .special import POSITIVE, S, one, special, special_name

# --- Carlson's --------------------------------------------------------------------------------------------------------

_STEP = 0.4  # of which the error is exp(-2 pi^2 / step)
_DECAY = 38.0  # powers of e down to which the integrand counts
_AT_ONCE = 2**19  # nodes of all elements together: a few megabytes
_MOST = 6000  # nodes: enough for arguments from the smallest to the largest number


class IntegralParams(NamedTuple):
    """The power of t, and those by which is divided."""

    power: float
    powers: tuple[float, ...]

    def batched(self) -> IntegralParams:
        """The same for a batch: everything is element by element."""
        return self


def _value(params: IntegralParams, *arrays: Array) -> Array:
    m, powers = params

    def part(*columns: Array) -> Array:
        each = np.stack(columns)
        there = np.where(each > 0.0, each, np.nan)
        low, high = np.log(np.nanmin(there, axis=0)), np.log(np.nanmax(there, axis=0))
        at_zero = m + 1.0 - sum(p * (a == 0.0) for a, p in zip(each, powers, strict=True))
        start = low - _DECAY / np.maximum(at_zero, 1e-3)
        end = high + _DECAY / (sum(powers) - m - 1.0)
        count = int(min(np.nanmax((end - start) / _STEP, initial=1.0), _MOST)) + 2
        if count * start.size > _AT_ONCE and start.size > 1:
            half = start.size // 2
            return np.concatenate([part(*(c[:half] for c in columns)), part(*(c[half:] for c in columns))])
        step = (end - start) / (count - 1)
        w = start[:, None] + step[:, None] * np.arange(count)
        t = np.exp(w)
        logarithm = (m + 1.0) * w
        for a, p in zip(each, powers, strict=True):
            logarithm = logarithm - p * np.log(t + a[:, None])
        found = np.sum(np.exp(logarithm), axis=1) * step
        return np.where(at_zero > 0.0, found, np.inf)

    def rows(*columns: Array) -> Array:
        each = np.stack(columns)
        out = np.full(each.shape[1:], np.nan)
        _in_chunks(part, np.all((each >= 0.0) & (each < np.inf), axis=0) & np.any(each > 0.0, axis=0), out, *columns)
        return out

    return _elementwise(rows, *arrays)


def _partials(*nodes: Node) -> Sequence[Partial]:
    *inputs, y = nodes
    m, powers = y.params
    return tuple(
        integral(*inputs, params=IntegralParams(m, tuple(p + (j == k) for j, p in enumerate(powers)))) * -powers[k]
        for k in range(len(powers))
    )


integral: Operation = register(
    Operation(
        name=special_name("carlson_integral"),
        family="special",
        evaluate=_value,
        infer=lambda params, *nodes: (nodes[0].shape, nodes[0].dtype),
        edges=_edges(_partials),
        cost=5000.0,
    )
)


def _of(inputs: Sequence[Node], factor: float, powers: Sequence[float], m: float = 0.0) -> tuple[Node, ...]:
    """The partial derivatives of ``factor`` times an integral."""
    return tuple(
        integral(*inputs, params=IntegralParams(m, tuple(p + (j == k) for j, p in enumerate(powers)))) * (-factor * q)
        for k, q in enumerate(powers)
    )


def _of_two_equal(x: Node, y: Node, f: Node) -> Sequence[Partial]:
    # The principal value of y < 0 is elementary, and so are its derivatives (19.2.18, 19.2.20).
    zero = number(0.0, y)
    principal = y < zero
    first, second = select(principal, number(1.0, x), x), select(principal, number(1.0, y), y)
    by_x, by_y = _of((first, second), 0.5, (0.5, 1.0))
    apart = select(principal, x - y, number(1.0, x))
    below, root = select(principal, y, number(-1.0, y)), sqrt(x)
    moved = (root - x * f) / (2.0 * apart)
    other_x = (1.0 / root - f) / (2.0 * apart)
    return select(principal, other_x, by_x), select(principal, -(0.5 * f + moved) / below, by_y)


HALF = 0.5
special("elliprf", [POSITIVE] * 3, lambda x, y, z, f: _of((x, y, z), 0.5, (HALF, HALF, HALF)))
special("elliprc", [POSITIVE] * 2, _of_two_equal)
special("elliprd", [POSITIVE] * 3, lambda x, y, z, f: _of((x, y, z), 1.5, (HALF, HALF, 1.5)))
special("elliprj", [POSITIVE] * 4, lambda x, y, z, p, f: _of((x, y, z, p), 1.5, (HALF, HALF, HALF, 1.0)))


def _complete(x: Node, y: Node, z: Node, f: Node) -> Sequence[Partial]:
    # 19.16.3 differentiated: 1/8 of the integral of t (t + x)^-3/2 (t + y)^-1/2 (t + z)^-1/2 by x.
    powers = [tuple(1.5 if j == k else HALF for j in range(3)) for k in range(3)]
    return tuple(0.125 * integral(x, y, z, params=IntegralParams(1.0, p)) for p in powers)


special("elliprg", [POSITIVE] * 3, _complete)


# --- Legendre's, and the arithmetic-geometric mean --------------------------------------------------------------------


def _k_slope(rest: Node) -> Node:
    """The derivative by m of the complete integral of the first kind, of ``rest = 1 - m`` (19.25.1)."""
    return S("elliprd", number(0.0, rest), number(1.0, rest), rest) * (1.0 / 6.0)


def _e_slope(rest: Node) -> Node:
    """The same of the second kind."""
    return S("elliprd", number(0.0, rest), rest, number(1.0, rest)) * (-1.0 / 6.0)


def _by_parameter(phi: Node, m: Node, first: bool) -> Node:
    """The derivative by m of an incomplete integral (19.25.5, 19.25.9): of whole periods, and of what is left."""
    zero, unit = number(0.0, m), number(1.0, m)
    periods = floor(phi * (1.0 / math.pi) + 0.5)
    none = equal(periods, zero)
    sign = 1.0 - 2.0 * remainder(periods, number(2.0, m))
    s, c = sin(phi), cos(phi)
    rest = 1.0 - m * (s * s)
    part = S("elliprd", c * c, unit, rest) if first else -S("elliprd", c * c, rest, unit)
    whole = select(none, number(0.5, m), 1.0 - m)
    turns = select(none, zero, 2.0 * periods * (_k_slope(whole) if first else _e_slope(whole)))
    return turns + sign * (s * s * s) * part * (1.0 / 6.0)


def first_kind_by_parameter(phi: Node, m: Node) -> Node:
    """The derivative of ``scipy.special.ellipkinc(phi, m)`` by m."""
    return _by_parameter(phi, m, True)


def _incomplete(phi: Node, m: Node, first: bool) -> Sequence[Partial]:
    s = sin(phi)
    root = sqrt(1.0 - m * s * s)
    return 1.0 / root if first else root, _by_parameter(phi, m, first)


one("ellipk", (-0.9, 0.9), lambda m, y: _k_slope(1.0 - m), at=[((0.0,), (math.pi / 8,))])
one("ellipe", (-0.9, 0.9), lambda m, y: _e_slope(1.0 - m), at=[((0.0,), (-math.pi / 8,))])
one("ellipkm1", (0.1, 0.9), lambda p, y: -_k_slope(p))
special("ellipkinc", [(0.1, 1.4), (0.1, 0.9)], lambda phi, m, y: _incomplete(phi, m, True),
        at=[((1.0, 0.0), (1.0, (2 - math.sin(2)) / 8))])  # fmt: skip
special("ellipeinc", [(0.1, 1.4), (0.1, 0.9)], lambda phi, m, y: _incomplete(phi, m, False),
        at=[((1.0, 0.0), (1.0, -(2 - math.sin(2)) / 8))])  # fmt: skip


def _agm_partials(a: Node, b: Node, y: Node) -> Sequence[Partial]:
    # agm(a, b) = pi/4 (a + b) / K(m) with 1 - m = 4 a b / (a + b)^2 (19.8.5), which is smooth where a = b.
    total = a + b
    slope = 16.0 / math.pi * y * y * ((a - b) / total) * _k_slope(4.0 * (a / total) * (b / total))
    slope = slope / (total * total * total)
    return y / total - slope * b, y / total + slope * a


special("agm", [POSITIVE] * 2, _agm_partials)

__all__ = ["first_kind_by_parameter", "integral"]
