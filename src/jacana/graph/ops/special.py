"""The functions of ``scipy.special``: value by SciPy, partial derivatives in terms of one another.

This module and ``special_families`` are imported when a recording first meets a ufunc of SciPy, because importing
``scipy.special`` takes longer than jacana. A parameter without a useful derivative formula is ``fixed``: recording
refuses it if it depends on an argument, so it is never a silent zero.

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, chapters 5 to 8, 25.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.special as sc
from scipy.special import _ufuncs

from ..node import REGISTRY, DType, Node, Operation, Partial, Shape, register
from .elementwise import (
    _edges,
    _power_partials,
    absolute,
    cos,
    equal,
    exp,
    expm1,
    floor,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    number,
    remainder,
    select,
    sign,
    sin,
    sqrt,
)
from .hurwitz import zeta_by_order

Interval = tuple[float, float]
REAL: Interval = (-2.0, 2.0)
POSITIVE: Interval = (0.3, 3.0)
UNIT_INTERVAL: Interval = (0.1, 0.9)
ROOT_PI = math.sqrt(math.pi)
ROOT_TWO_PI = math.sqrt(2.0 * math.pi)


@dataclass(frozen=True)
class Special:
    """What recording and tests need to know of a function: its ufunc, and which operands have no derivative."""

    operation: Operation
    ufunc: Any
    fixed: tuple[int, ...] = ()
    integers: tuple[int, ...] = ()  # operands that stay integers, as SciPy has a better loop for these


SPECIAL: dict[Any, Special] = {}


def special_name(name: str) -> str:
    """How a function is called in printed programs."""
    return f"special_{name}"


def S(name: str, *inputs: Node) -> Node:
    """A special function of nodes."""
    return REGISTRY[special_name(name)](*inputs)


def special(
    name: str,
    domain: Sequence[Interval],
    partials: Callable[..., Sequence[Partial]],
    *,
    fixed: tuple[int, ...] = (),
    integers: tuple[int, ...] = (),
    at: Sequence[tuple[tuple[float, ...], tuple[float | None, ...]]] = (),
    smooth: bool = True,
) -> None:
    """Enter a function under the ufunc of its name, if this version of SciPy has it as one."""
    ufunc = getattr(sc, name, None) or getattr(_ufuncs, name, None)
    if ufunc is None:
        return

    def infer(params: Any, *nodes: Node) -> tuple[Shape, DType]:
        assert all(node.shape == nodes[0].shape for node in nodes), nodes
        kinds = [node.dtype for node in nodes]
        if integers and isinstance(ufunc, np.ufunc):  # whole numbers beside float32 are none that make it float64
            return nodes[0].shape, np.result_type(*(kind for k, kind in enumerate(kinds) if k not in integers))
        if isinstance(ufunc, np.ufunc):
            return nodes[0].shape, ufunc.resolve_dtypes((*kinds, None))[-1]
        return nodes[0].shape, np.result_type(*kinds)

    def evaluate(params: Any, *arrays: Any) -> Any:
        if not integers:
            return ufunc(*arrays)
        return np.asarray(ufunc(*arrays)).astype(arrays[-1].dtype, copy=False)

    operation = register(
        Operation(
            name=special_name(name),
            family="special",
            evaluate=evaluate,
            infer=infer,
            edges=_edges(partials),
            cost=50.0,
            domain=tuple(domain),
            special=tuple(at),
            smooth=smooth,
            fixed=fixed,
            ufunc=ufunc if isinstance(ufunc, np.ufunc) else None,
        )
    )
    SPECIAL[ufunc] = Special(operation, ufunc, fixed, integers)


def one(name: str, domain: Interval, partial: Callable[[Node, Node], Partial], **options: Any) -> None:
    """A function of one variable: the partial from the variable and the result."""
    special(name, [domain], lambda x, y: (partial(x, y),), **options)


def safe_where(mask: Node, regular: Callable[[Node], Node], x: Node, stand_in: float, otherwise: Node) -> Node:
    """``otherwise`` where the mask holds, and elsewhere a formula that is never evaluated at the masked points."""
    inside = select(mask, number(stand_in, x), x)
    return select(mask, otherwise, regular(inside))


def by_series(x: Node, size: float, formula: Callable[[Node], Node], series: Callable[[Node], Node]) -> Node:
    """``series(x)`` where x is smaller than ``size``, where the formula is 0 / 0 or loses digits."""
    near = absolute(x) < number(size, x)
    return safe_where(near, formula, x, 1.0, series(select(near, x, number(0.0, x))))


def polynomial(x: Node, coefficients: Sequence[float]) -> Node:
    """The sum of ``coefficients[k] * x**k``."""
    *others, highest = coefficients
    total = number(highest, x)
    for coefficient in reversed(others):
        total = coefficient + x * total
    return total


# --- gamma and relatives ----------------------------------------------------------------------------------------


class TimesParams(NamedTuple):
    """How many times it is differentiated."""

    times: int

    def batched(self) -> TimesParams:
        """The same for a batch: everything is element by element."""
        return self


def _zeta_slopes(x: Node, q: Node, n: int) -> Sequence[Partial]:
    def of(x: Node, n: int) -> Node:
        return _zeta_by_order(x, q, params=TimesParams(n)) if n else S("zeta", x, q)

    by_q = -x * of(x + 1.0, n)  # and its derivatives by x
    return of(x, n + 1), by_q - float(n) * of(x + 1.0, n - 1) if n else by_q


_zeta_by_order = register(
    Operation(
        name=special_name("zeta_by_order"),
        family="special",
        evaluate=lambda params, x, q: zeta_by_order(params.times, x, q),
        infer=lambda params, x, q: (x.shape, x.dtype),
        edges=_edges(lambda x, q, y: _zeta_slopes(x, q, y.params.times)),
        cost=1000.0,
    )
)
special("zeta", [(1.5, 4.0), POSITIVE], lambda x, q, y: _zeta_slopes(x, q, 0))
one("zetac", (1.5, 4.0), lambda x, y: _zeta_slopes(x, number(1.0, x), 0)[0])
for _psi in ("psi", "digamma"):
    if getattr(sc, _psi) not in SPECIAL:
        one(_psi, POSITIVE, lambda x, y: S("zeta", number(2.0, x), x))
one("gamma", POSITIVE, lambda x, y: y * S("psi", x))
one("gammaln", POSITIVE, lambda x, y: S("psi", x))
one("loggamma", POSITIVE, lambda x, y: S("psi", x))


def _rgamma_slope(x: Node, y: Node) -> Node:
    # Below 1/2 by reflection (DLMF 5.5.3): psi is infinite where the function is zero.
    below = x < 0.5
    z = select(below, x, number(0.0, x))
    whole = floor(z + 0.5)
    angle = (z - whole) * math.pi
    turned = cos(angle) - sin(angle) * (S("psi", 1.0 - z) * (1.0 / math.pi))
    return select(
        below, S("gamma", 1.0 - z) * ((1.0 - 2.0 * remainder(whole, number(2.0, x))) * turned), -y * S("psi", x)
    )


one("rgamma", REAL, _rgamma_slope, at=[((0.0,), (1.0,)), ((-1.0,), (-1.0,)), ((-2.0,), (2.0,))])
_LARGE = 150.0  # beyond, the gamma function overflows before its quotients do


def _rising_partials(a: Node, m: Node, y: Node) -> Sequence[Partial]:
    # gamma(a + m) / gamma(a): zero where a is a whole number below one, which psi does not see; where both gamma
    # functions are infinite psi is reflected, whose poles cancel if m is a whole number.
    end = a + m
    plain = y * (S("psi", end) - S("psi", a))
    product = S("gamma", end) * (S("psi", end) * S("rgamma", a) + _rgamma_slope(a, S("rgamma", a)))
    reflected = y * (S("psi", 1.0 - end) - S("psi", 1.0 - a))
    zero = number(0.0, a)
    crosses = logical_and(a < 0.5, logical_and(end > zero, end < number(_LARGE, a)))
    both = logical_and(end <= zero, equal(m, floor(m)))
    return select(crosses, product, select(both, reflected, plain)), y * S("psi", end)


special(
    "poch", [POSITIVE, POSITIVE], _rising_partials,
    at=[((0.0, 2.0), (1.0, 0.0)), ((-1.0, 3.0), (-1.0, 0.0)), ((-3.0, 2.0), (-5.0, None))],
)  # fmt: skip


def _psi_gap(a: Node, total: Node) -> Node:
    """``psi(a) - psi(total)``, reflected (DLMF 5.5.4) where both are whole numbers below one: the poles cancel."""
    zero = number(0.0, a)
    at_poles = [logical_and(z <= zero, equal(z, floor(z))) for z in (a, total)]
    both = logical_and(*at_poles)
    first, second = (select(both, 1.0 - z, z) for z in (a, total))
    return S("psi", first) - S("psi", second)


def _beta_partials(a: Node, b: Node, y: Node) -> Sequence[Partial]:
    # Where it is zero, a + b is a pole of psi.
    total = a + b
    none = equal(y, number(0.0, y))
    crossing = S("gamma", a) * S("gamma", b) * _rgamma_slope(total, S("rgamma", total))
    return tuple(select(none, crossing, y * _psi_gap(z, total)) for z in (a, b))


special(
    "beta", [POSITIVE, POSITIVE], _beta_partials,
    at=[((-3.0, 2.0), (5.0 / 36.0, None)), ((2.0, -2.0), (None, 0.75)),
        ((-0.5, -0.5), (-4.0 * math.pi, -4.0 * math.pi))],
)  # fmt: skip
special(
    "betaln", [POSITIVE, POSITIVE], lambda a, b, y: tuple(_psi_gap(z, a + b) for z in (a, b)),
    at=[((-3.0, 2.0), (5.0 / 6.0, None))],
)  # fmt: skip


def _binomial_partials(n: Node, k: Node, y: Node) -> Sequence[Partial]:
    top, chosen, rest = n + 1.0, k + 1.0, n - k + 1.0
    by_n = y * (S("psi", top) - S("psi", rest))
    by_k = y * (S("psi", rest) - S("psi", chosen))
    # Outside the triangle of Pascal one of two factors is zero, or near it, at whole numbers.
    first, second = S("rgamma", chosen), S("rgamma", rest)
    first_slope, second_slope = _rgamma_slope(chosen, first), _rgamma_slope(rest, second)
    half = number(0.5, n)
    zero = number(0.0, n)
    pole = logical_and(top <= zero, equal(top, floor(top)))
    near = logical_and(absolute(n) < number(_LARGE, n), logical_not(pole))
    outside = logical_and(logical_or(chosen < half, rest < half), near)
    whole = S("gamma", top)
    return (
        select(outside, y * S("psi", top) + whole * first * second_slope, by_n),
        select(outside, whole * (first_slope * second - first * second_slope), by_k),
    )


special(
    "binom", [(3.2, 6.0), (0.3, 2.8)], _binomial_partials,
    at=[((1.0, 2.0), (0.5, -0.5)), ((0.0, 2.0), (-0.5, 0.5))],
)  # fmt: skip


# --- error function and normal distribution ---------------------------------------------------------------------


BEYOND = 50.0  # from here on exp(-x * x / 2) is zero, and so are its derivatives, at infinity too


def _gauss(x: Node, power: float, y: Node | None = None) -> Node:
    """``exp(-power * x * x)``, or ``exp(-power * x * x - y)``; its derivatives are no product of infinity and zero."""
    inside = select(absolute(x) > number(BEYOND, x), number(BEYOND, x), x)
    exponent = -power * (inside * inside)
    return exp(exponent if y is None else exponent - y)


def _bell(x: Node) -> Node:
    """The density of the standard normal distribution."""
    return _gauss(x, 0.5) * (1.0 / ROOT_TWO_PI)


one("erf", REAL, lambda x, y: _gauss(x, 1.0) * (2.0 / ROOT_PI))
one("erfc", REAL, lambda x, y: _gauss(x, 1.0) * (-2.0 / ROOT_PI))
one("erfi", REAL, lambda x, y: exp(x * x) * (2.0 / ROOT_PI))
one("erfinv", (-0.9, 0.9), lambda x, y: exp(y * y) * (0.5 * ROOT_PI))
one("erfcinv", (0.1, 1.9), lambda x, y: exp(y * y) * (-0.5 * ROOT_PI))
one("ndtr", REAL, lambda x, y: _bell(x))


def _log_normal_slope(x: Node, y: Node) -> Node:
    """By the scaled complementary error function below zero, where the other quotient is one of nothings."""
    below = x < 0.0
    inner = select(below, x, number(0.0, x))
    scaled = math.sqrt(2.0 / math.pi) / S("erfcx", inner * -math.sqrt(0.5))
    return select(below, scaled, _gauss(x, 0.5, y) * (1.0 / ROOT_TWO_PI))


one("log_ndtr", REAL, _log_normal_slope)
one("ndtri", UNIT_INTERVAL, lambda p, y: 1.0 / _bell(y))
one("ndtri_exp", (-3.0, -0.1), lambda p, y: exp(p + 0.5 * (y * y)) * ROOT_TWO_PI)
special(
    "owens_t",
    [REAL, REAL],
    lambda h, a, y: (
        exp(-0.5 * (h * h)) * S("erf", a * h * math.sqrt(0.5)) * (-0.5 / ROOT_TWO_PI),
        exp(-0.5 * (h * h) * (1.0 + a * a)) / (2.0 * math.pi * (1.0 + a * a)),
    ),
)

# --- logistic, entropy, losses ----------------------------------------------------------------------------------

one("expit", REAL, lambda x, y: y * S("expit", -x))
one("log_expit", REAL, lambda x, y: S("expit", -x))
one("logit", UNIT_INTERVAL, lambda p, y: 1.0 / (p * (1.0 - p)))


def _share(x: Node, v: Node) -> Node:
    """``x / v``, and zero for ``0 / 0``: ``x`` times something infinite is taken for zero at ``x = 0``."""
    zero = number(0.0, x)
    return select(logical_and(equal(x, zero), equal(v, zero)), zero, x / v)


special(
    "xlogy",
    [REAL, POSITIVE],
    lambda x, v, y: (log(v), _share(x, v)),
    at=[((0.0, 0.0), (-math.inf, 0.0)), ((0.0, 2.0), (math.log(2.0), 0.0))],
)
special(
    "xlog1py",
    [REAL, (-0.7, 2.0)],
    lambda x, v, y: (log1p(v), _share(x, 1.0 + v)),
    at=[((0.0, -1.0), (-math.inf, 0.0))],
)
one("entr", POSITIVE, lambda x, y: -log(x) - 1.0, at=[((0.0,), (math.inf,))])
special("rel_entr", [POSITIVE, POSITIVE], lambda x, v, y: (log(x) - log(v) + 1.0, -(x / v)))
special("kl_div", [POSITIVE, POSITIVE], lambda x, v, y: (log(x) - log(v), 1.0 - x / v))


def _huber_partials(delta: Node, r: Node, y: Node) -> Sequence[Partial]:
    inside = absolute(r) <= delta
    by_delta = select(inside, number(0.0, r), absolute(r) - delta)
    return by_delta, select(inside, r, delta * sign(r))


def _pseudo_huber_partials(delta: Node, r: Node, y: Node) -> Sequence[Partial]:
    ratio = r / delta
    root = sqrt(1.0 + ratio * ratio)
    square = ratio * ratio / (root + 1.0)  # root - 1, without the difference of near numbers
    return delta * square * square / root, r / root


special("huber", [POSITIVE, REAL], _huber_partials, at=[((1.0, 1.0), (0.0, 1.0)), ((1.0, -3.0), (2.0, -1.0))])
special("pseudo_huber", [POSITIVE, REAL], _pseudo_huber_partials)

# --- powers, exponentials, angles in degrees --------------------------------------------------------------------


def _exprel_slope(x: Node, y: Node) -> Node:
    # (exp(x) - y) / x, by its series, the sum of n x^(n-1) / (n+1)!, where that would cancel.
    terms = [n / math.factorial(n + 1) for n in range(1, 12)]
    series = terms[-1] * x + terms[-2]
    for coefficient in reversed(terms[:-2]):
        series = coefficient + x * series
    near = absolute(x) < 0.15
    return safe_where(near, lambda z: (exp(z) - expm1(z) / z) / z, x, 1.0, series)


one("exprel", REAL, _exprel_slope, at=[((0.0,), (0.5,))])
one("exp2", REAL, lambda x, y: y * math.log(2.0))
one("expm1", REAL, lambda x, y: y + 1.0)
one("log1p", (-0.7, 2.0), lambda x, y: 1.0 / (1.0 + x))
one("cbrt", POSITIVE, lambda x, y: 1.0 / (3.0 * y * y))
one("exp10", (-1.0, 1.0), lambda x, y: y * math.log(10.0))
one("cosm1", REAL, lambda x, y: -sin(x))
special("powm1", [POSITIVE, REAL], lambda x, p, y: _power_partials(x, p, y + 1.0))
_DEGREE = math.pi / 180.0
one("sindg", (-90.0, 90.0), lambda x, y: S("cosdg", x) * _DEGREE)
one("cosdg", (-90.0, 90.0), lambda x, y: S("sindg", x) * -_DEGREE)
one("tandg", (-60.0, 60.0), lambda x, y: (1.0 + y * y) * _DEGREE)
one("cotdg", (20.0, 160.0), lambda x, y: (1.0 + y * y) * -_DEGREE)
special(
    "radian",
    [REAL, REAL, REAL],
    lambda d, m, s, y: (number(_DEGREE, d), number(_DEGREE / 60.0, m), number(_DEGREE / 3600.0, s)),
)
one("round", REAL, lambda x, y: None, smooth=False)
one("gammasgn", POSITIVE, lambda x, y: None, smooth=False)


def _boxcox_by_power(base: Node, logarithm: Callable[[Node], Node], power: Node, end: float) -> Node:
    # d/dp (exp(p l) - 1)/p = l^2 * exprel'(p l), and of -1/p where the logarithm l is infinite.
    def formula(base: Node) -> Node:
        scaled = power * logarithm(base)
        return logarithm(base) * logarithm(base) * _exprel_slope(scaled, scaled)

    at_end = logical_and(equal(base, number(end, base)), power > number(0.0, power))
    return safe_where(at_end, formula, base, 1.0, 1.0 / (power * power))


special("boxcox", [POSITIVE, REAL], lambda x, p, y: (x ** (p - 1.0), _boxcox_by_power(x, log, p, 0.0)),
        at=[((2.0, 0.0), (0.5, 0.5 * math.log(2.0) ** 2))])  # fmt: skip
special(
    "boxcox1p", [(-0.5, 2.0), REAL], lambda x, p, y: ((1.0 + x) ** (p - 1.0), _boxcox_by_power(x, log1p, p, -1.0)),
    at=[((1.0, 0.0), (0.5, 0.5 * math.log(2.0) ** 2))],
)  # fmt: skip


def _inverse_boxcox(x: Node, p: Node, power: Node) -> Sequence[Partial]:
    # d/dp log1p(p x)/p = x^2 (t/(1 + t) - log1p(t))/t^2 with t = p x.
    scaled = p * x
    by_power = by_series(
        scaled, 0.06, lambda t: (t / (1.0 + t) - log1p(t)) / (t * t),
        lambda t: polynomial(t, [(-1) ** (k + 1) * (k + 1) / (k + 2) for k in range(14)]),
    )  # fmt: skip
    return power / (1.0 + scaled), power * (x * x) * by_power


special("inv_boxcox", [(-0.3, 1.0), (0.3, 1.5)], lambda x, p, y: _inverse_boxcox(x, p, y),
        at=[((0.5, 0.0), (math.exp(0.5), -0.125 * math.exp(0.5)))])  # fmt: skip
special("inv_boxcox1p", [(-0.3, 1.0), (0.3, 1.5)], lambda x, p, y: _inverse_boxcox(x, p, y + 1.0))

__all__ = ["SPECIAL", "S", "Special", "one", "special", "special_name"]
