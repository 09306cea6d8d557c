"""Carlson's elliptic integrals with derivatives of every order: each derivative is an integral of the same kind.

All of them are ``factor * integral of t^m (t + x)^-p (t + y)^-q ... over t > 0``. With t = exp(w) the integrand is
analytic where the imaginary part of w is below pi, and decays like an exponential on both sides, so that the
trapezoidal rule finds the integral to rounding (L. N. Trefethen and J. A. C. Weideman, SIAM Review 56, 2014, part 5).

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, sections 19.16, 19.18 and 19.20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..node import Array, Node, Operation, Partial, register
from .elementwise import _edges, number, select, sqrt
from .shape_derivatives import _elementwise, _in_chunks
from .special import POSITIVE, special, special_name

_STEP = 0.4  # of which the error is exp(-2 pi^2 / step)
_DECAY = 38.0  # powers of e down to which the integrand counts
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

__all__ = ["integral"]
