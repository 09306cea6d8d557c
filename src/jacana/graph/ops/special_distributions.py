"""Incomplete gamma and beta functions of ``scipy.special``, distributions that are made of them, and their inverses.

They have derivatives by every parameter that is a real number. Those of an inverse function follow from its function:
if ``F(a, y) = p``, then ``dy/da = -F_a / F_y``. Values of the derivatives by shape: ``shape_derivatives``. Formulas:
NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, sections 8.2, 8.17 and 8.18.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..build import cast_to
from ..node import Node, Operation, Partial, register
from . import shape_derivatives as values
from .elementwise import _edges, equal, floor, logical_or, number, select, sign
from .special import POSITIVE, REAL, UNIT_INTERVAL, S, special, special_name

Partials = Callable[..., Sequence[Partial]]


class ShapeParams(NamedTuple):
    """How many times it is differentiated by each of the parameters."""

    orders: tuple[int, ...]

    def batched(self) -> ShapeParams:
        """The same for a batch: everything is element by element."""
        return self


def _record(name: str, value: Callable[..., Any], partials: Callable[..., Sequence[Partial]]) -> Operation:
    return register(
        Operation(
            name=special_name(name),
            family="special",
            evaluate=lambda params, *arrays: value(*(params.orders if params else ()), *arrays),
            infer=lambda params, *nodes: (nodes[0].shape, nodes[0].dtype),
            edges=_edges(partials),
            cost=2000.0,
        )
    )


def _gamma_density_partials(a: Node, x: Node, y: Node) -> Sequence[Partial]:
    (n,) = y.params.orders
    start = equal(x, number(0.0, x))
    z = select(start, number(1.0, x), x)
    inside = ((a - 1.0) / z - 1.0) * y
    if n:
        inside = inside + gamma_density(a, x, n - 1) * (float(n) / z)
    at_start = gamma_density(a - 1.0, select(start, x, number(0.0, x)), n) - y
    return gamma_density(a, x, n + 1), select(start, at_start, inside)


def _beta_density_partials(a: Node, b: Node, x: Node, rest: Node, y: Node) -> Sequence[Partial]:
    m, n = y.params.orders
    zero = number(0.0, x)
    end = logical_or(equal(x, zero), equal(rest, zero))
    left, right = (select(end, number(0.5, x), z) for z in (x, rest))
    inside = ((a - 1.0) / left - (b - 1.0) / right) * y
    if m:
        inside = inside + beta_density(a, b, x, rest, m - 1, n) * (float(m) / left)
    if n:
        inside = inside - beta_density(a, b, x, rest, m, n - 1) * (float(n) / right)
    # At both ends: (a + b - 1) (f_{a-1,b} - f_{a,b-1}), and its derivatives by a and b.
    x_end, rest_end = select(end, x, zero), select(end, rest, number(1.0, x))

    def difference(m: int, n: int) -> Node:
        first, second = ((a - 1.0, b), (a, b - 1.0))
        return beta_density(*first, x_end, rest_end, m, n) - beta_density(*second, x_end, rest_end, m, n)

    at_end = (a + b - 1.0) * difference(m, n)
    if m:
        at_end = at_end + float(m) * difference(m - 1, n)
    if n:
        at_end = at_end + float(n) * difference(m, n - 1)
    by_a, by_b = beta_density(a, b, x, rest, m + 1, n), beta_density(a, b, x, rest, m, n + 1)
    return by_a, by_b, select(end, at_end, inside), None


def _gamma_partials(a: Node, x: Node, y: Node) -> Sequence[Partial]:
    (n,) = y.params.orders
    return gamma_by_shape(a, x, n + 1), gamma_density(a, x, n)


def _beta_partials(a: Node, b: Node, x: Node, rest: Node, y: Node) -> Sequence[Partial]:
    m, n = y.params.orders
    by_a, by_b = beta_by_shapes(a, b, x, rest, m + 1, n), beta_by_shapes(a, b, x, rest, m, n + 1)
    return by_a, by_b, beta_density(a, b, x, rest, m, n), None


_gamma_density = _record("gamma_density", values.gamma_density, _gamma_density_partials)
_gamma_by_shape = _record("gammainc_by_shape", values.gammainc_by_shape, _gamma_partials)
_beta_density = _record("beta_density", values.beta_density, _beta_density_partials)
_beta_by_shapes = _record("betainc_by_shapes", values.betainc_by_shapes, _beta_partials)


def gamma_density(a: Node, x: Node, n: int = 0) -> Node:
    """The density of the gamma distribution, n times differentiated by its shape."""
    return _gamma_density(a, x, params=ShapeParams((n,)))


def gamma_by_shape(a: Node, x: Node, n: int = 1) -> Node:
    """The incomplete gamma function of SciPy, n > 0 times differentiated by a."""
    return _gamma_by_shape(a, x, params=ShapeParams((n,)))


def beta_density(a: Node, b: Node, x: Node, rest: Node | None = None, m: int = 0, n: int = 0) -> Node:
    """The density of the beta distribution, differentiated by its shapes.

    ``rest`` is 1 - x, given for the digits that x has not. The derivative by x is the whole derivative.
    """
    return _beta_density(a, b, x, 1.0 - x if rest is None else rest, params=ShapeParams((m, n)))


def beta_by_shapes(a: Node, b: Node, x: Node, rest: Node | None = None, m: int = 0, n: int = 0) -> Node:
    """The incomplete beta function of SciPy, differentiated by its shapes m + n > 0 times; ``rest`` is 1 - x."""
    return _beta_by_shapes(a, b, x, 1.0 - x if rest is None else rest, params=ShapeParams((m, n)))


def _negated(partials: Partials) -> Partials:
    return lambda *nodes: tuple(None if p is None else -p for p in partials(*nodes))  # type: ignore[operator]


def _inverse(partials: Partials, place: int) -> Partials:
    """Of the function that gives the argument at ``place`` of another; at its place stands that one's value."""

    def found(*nodes: Node) -> Sequence[Partial]:
        *inputs, y = nodes
        arguments = [y if k == place else node for k, node in enumerate(inputs)]
        slopes = partials(*arguments, inputs[place])
        slope = slopes[place]
        assert isinstance(slope, Node)
        still = equal(y, number(0.0, y))  # the end of the support, or the centre: it stays where it is
        result: list[Partial] = []
        for k, other in enumerate(slopes):
            if k == place:
                result.append(1.0 / slope)
            else:
                result.append(select(still, number(0.0, y), -other / slope) if isinstance(other, Node) else None)
        return result

    return found


# --- incomplete gamma and beta functions ----------------------------------------------------------------------------


def _lower(a: Node, x: Node, y: Node) -> Sequence[Partial]:
    return gamma_by_shape(a, x), gamma_density(a, x)


def _below(a: Node, b: Node, x: Node, y: Node) -> Sequence[Partial]:
    rest = 1.0 - x
    return beta_by_shapes(a, b, x, rest, 1, 0), beta_by_shapes(a, b, x, rest, 0, 1), beta_density(a, b, x, rest)


def _last_first(partials: Partials) -> Partials:
    """Of the private functions by which ``scipy.stats`` has what is here, with its shapes after the point."""

    def found(x: Node, a: Node, b: Node, y: Node) -> Sequence[Partial]:
        by_a, by_b, by_x = partials(a, b, x, y)
        return by_x, by_a, by_b

    return found


def _beta_density_and_shapes(a: Node, b: Node, x: Node, y: Node) -> Sequence[Partial]:
    return _beta_density_partials(a, b, x, 1.0 - x, beta_density(a, b, x))[:3]


_upper, _above = _negated(_lower), _negated(_below)
_TWO, _THREE = [POSITIVE, POSITIVE], [POSITIVE, POSITIVE, UNIT_INTERVAL]
special("gammainc", _TWO, _lower)
special("gammaincc", _TWO, _upper)
special("gammaincinv", _THREE[1:], _inverse(_lower, 1))
special("gammainccinv", _THREE[1:], _inverse(_upper, 1))
special("betainc", _THREE, _below)
special("betaincc", _THREE, _above)
special("betaincinv", _THREE, _inverse(_below, 2))
special("betainccinv", _THREE, _inverse(_above, 2))
special("_beta_ppf", [UNIT_INTERVAL, POSITIVE, POSITIVE], _last_first(_inverse(_below, 2)))
special("_beta_pdf", [UNIT_INTERVAL, POSITIVE, POSITIVE], _last_first(_beta_density_and_shapes))
special("btdtria", [UNIT_INTERVAL, POSITIVE, UNIT_INTERVAL], _inverse(_below, 0))
special("btdtrib", [POSITIVE, UNIT_INTERVAL, UNIT_INTERVAL], _inverse(_below, 1))

# --- gamma and chi-square -------------------------------------------------------------------------------------------


def _gamma_distribution(a: Node, b: Node, x: Node, y: Node) -> Sequence[Partial]:
    density = gamma_density(b, a * x)
    return x * density, gamma_by_shape(b, a * x), a * density


def chi_square_density(v: Node, x: Node) -> Node:
    """The density of the chi-square distribution."""
    return 0.5 * gamma_density(0.5 * v, 0.5 * x)


def _chi_square(v: Node, x: Node, y: Node) -> Sequence[Partial]:
    return 0.5 * gamma_by_shape(0.5 * v, 0.5 * x), chi_square_density(v, x)


_FREEDOM = (1.0, 5.0)
special("gdtr", [POSITIVE] * 3, _gamma_distribution)
special("gdtrc", [POSITIVE] * 3, _negated(_gamma_distribution))
special("gdtria", [UNIT_INTERVAL, POSITIVE, POSITIVE], _inverse(_gamma_distribution, 0))
special("gdtrib", [POSITIVE, UNIT_INTERVAL, POSITIVE], _inverse(_gamma_distribution, 1))
special("gdtrix", _THREE, _inverse(_gamma_distribution, 2))
special("chdtr", [_FREEDOM, POSITIVE], _chi_square)
special("chdtrc", [_FREEDOM, POSITIVE], _negated(_chi_square))
special("chdtri", [_FREEDOM, UNIT_INTERVAL], _inverse(_negated(_chi_square), 1))
special("chdtriv", [UNIT_INTERVAL, POSITIVE], _inverse(_chi_square, 0))

# --- F and t --------------------------------------------------------------------------------------------------------


def _f_distribution(n: Node, d: Node, x: Node, y: Node) -> Sequence[Partial]:
    total = n * x + d
    z, rest = n * x / total, d / total
    half, other = 0.5 * n, 0.5 * d
    density = beta_density(half, other, z, rest) / (total * total)
    return (
        0.5 * beta_by_shapes(half, other, z, rest, 1, 0) + density * x * d,
        0.5 * beta_by_shapes(half, other, z, rest, 0, 1) - density * n * x,
        density * n * d,
    )


def _t_density_partials(v: Node, t: Node, y: Node) -> Sequence[Partial]:
    return t_density_by_freedom(v, t), -y * (v + 1.0) * t / (v + t * t)


def _t_density_slope_partials(v: Node, t: Node, y: Node) -> Sequence[Partial]:
    # Of f g, g the derivative of log f by v: f (g^2 + dg/dv) and f (g dlog(f)/dt + dg/dt).
    total, square, half = v + t * t, t * t, 0.5 * v
    density = t_density(v, t)
    nothing = equal(density, number(0.0, v))
    slope = y / select(nothing, number(1.0, v), density)
    two = number(2.0, v)
    bend = 0.25 * (S("zeta", two, half + 0.5) - S("zeta", two, half)) + 0.5 * (
        1.0 / (v * v) - square / (v * total) * ((v + 1.0) / total + 1.0 / v - 1.0)
    )
    across = t * (1.0 - square) / (total * total)
    return y * slope + density * bend, density * across - y * (v + 1.0) * t / total


def _t_slope_partials(v: Node, t: Node, y: Node) -> Sequence[Partial]:
    # Of sign(t)/4 I_b(1/2, v/2, z) - t f / (2 v), z = t^2 / (v + t^2); dz/dv = -z / (v + t^2).
    zero = number(0.0, t)
    centre = equal(t, zero)
    away = select(centre, number(1.0, t), t)
    total, half, first = v + away * away, 0.5 * v, number(0.5, v)
    z, rest = away * away / total, v / total
    moved = beta_density(first, half, z, rest, 0, 1) * (z / total)
    curve = 0.5 * beta_by_shapes(first, half, z, rest, 0, 2) - moved
    slope = t_density_by_freedom(v, t)
    twice = 0.25 * sign(t) * curve - 0.5 * t * (slope - t_density(v, t) / v) / v
    return select(centre, zero, twice), slope


t_density = _record("t_density", values.t_density, _t_density_partials)
t_density_by_freedom = _record("t_density_by_freedom", values.t_density_by_freedom, _t_density_slope_partials)
_stdtr_by_freedom = _record("stdtr_by_freedom", values.stdtr_by_freedom, _t_slope_partials)


def _t_distribution(v: Node, t: Node, y: Node) -> Sequence[Partial]:
    return _stdtr_by_freedom(v, t), t_density(v, t)


_F = [_FREEDOM, _FREEDOM, POSITIVE]
special("fdtr", _F, _f_distribution)
special("fdtrc", _F, _negated(_f_distribution))
special("fdtri", [*_F[:2], UNIT_INTERVAL], _inverse(_f_distribution, 2))
special("fdtridfd", [(2.0, 2.3), (0.55, 0.6), (1.2, 1.3)], _inverse(_f_distribution, 1))
special("stdtr", [_FREEDOM, REAL], _t_distribution)
special("stdtrit", [_FREEDOM, UNIT_INTERVAL], _inverse(_t_distribution, 1))
special("stdtridf", [(0.85, 0.9), (1.5, 2.5)], _inverse(_t_distribution, 0))

# --- distributions of whole numbers ---------------------------------------------------------------------------------
# Sums up to floor(k): by k they have no derivative but zero and infinity. Their inverses take them for the integrals
# that they are at whole numbers, and those have derivatives.


def _poisson(k: Node, m: Node, y: Node) -> Sequence[Partial]:
    return -gamma_by_shape(k + 1.0, m), -gamma_density(k + 1.0, m)


def _binomial(k: Node, n: Node, p: Node, y: Node) -> Sequence[Partial]:
    first, second, rest = k + 1.0, n - k, 1.0 - p
    by_second = beta_by_shapes(first, second, p, rest, 0, 1)
    by_first = beta_by_shapes(first, second, p, rest, 1, 0)
    return by_second - by_first, -by_second, -beta_density(first, second, p, rest)


def _negative_binomial(k: Node, n: Node, p: Node, y: Node) -> Sequence[Partial]:
    by_n, by_k, by_p = _below(n, k + 1.0, p, y)
    return by_k, by_n, by_p


def _of_whole(partials: Partials) -> Partials:
    """The derivative by the last argument; the others are whole numbers."""

    def found(*nodes: Node) -> Sequence[Partial]:
        *counts, x, y = nodes
        slopes = partials(floor(cast_to(counts[0], x.dtype)), *(cast_to(n, x.dtype) for n in counts[1:]), x, y)
        return (*(None for _ in counts), slopes[-1])

    return found


_COUNTS = [(2.0, 2.0), (6.0, 6.0)]
for _name, _partials in (("bdtr", _binomial), ("nbdtr", _negative_binomial)):
    for _ending, _which in (("", _partials), ("c", _negated(_partials))):
        special(_name + _ending, [*_COUNTS, UNIT_INTERVAL], _of_whole(_which), fixed=(0, 1), integers=(0, 1))
    special(f"{_name}i", [*_COUNTS, UNIT_INTERVAL], _of_whole(_inverse(_partials, 2)), fixed=(0, 1), integers=(0, 1))
special("bdtrik", [UNIT_INTERVAL, (5.5, 6.5), (0.4, 0.6)], _inverse(_binomial, 0))
special("bdtrin", [(2.2, 2.8), UNIT_INTERVAL, (0.4, 0.6)], _inverse(_binomial, 1))
special("nbdtrik", [(0.4, 0.8), (2.2, 2.8), (0.4, 0.6)], _inverse(_negative_binomial, 0))
special("nbdtrin", [(2.2, 2.8), (0.4, 0.8), (0.4, 0.6)], _inverse(_negative_binomial, 1))
special("pdtr", [(1.2, 4.8), POSITIVE], _of_whole(_poisson), fixed=(0,))
special("pdtrc", [(1.2, 4.8), POSITIVE], _of_whole(_negated(_poisson)), fixed=(0,))
special("pdtri", [(2.0, 2.0), UNIT_INTERVAL], _of_whole(_inverse(_poisson, 1)), fixed=(0,), integers=(0,))
special("pdtrik", [(0.2, 0.6), (2.5, 4.0)], _inverse(_poisson, 0))

__all__ = ["beta_by_shapes", "beta_density", "chi_square_density", "gamma_by_shape", "gamma_density"]
