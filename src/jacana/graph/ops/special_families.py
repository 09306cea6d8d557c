"""Bessel, Struve, Kelvin, hypergeometric functions and orthogonal polynomials of ``scipy.special``.

Formulas: NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, chapters 6, 10, 11, 13, 15 and 18.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import scipy.special as sc

from ..build import cast_to
from ..node import Node, Operation, Partial, register
from . import bessel_orders as orders
from . import hypergeometric as series
from .elementwise import _edges, absolute, equal, exp, log, maximum, number, select, sign
from .special import (
    POSITIVE,
    REAL,
    SPECIAL,
    S,
    TimesParams,
    by_series,
    one,
    polynomial,
    safe_where,
    special,
    special_name,
)

# --- Bessel functions (DLMF 10.6, 10.29) ------------------------------------------------------------------------

_ORDER = (0.2, 3.5)


def _bessel(name: str, value: Callable[..., Any], below: float, above: float, itself: Callable[..., Any]) -> None:
    """A function with the slope ``below * f(v - 1) + above * f(v + 1) + itself(z) * f(v)``, and so all that come of it.

    The derivatives by the order have the same slopes as the function.
    """

    def slope(v: Node, z: Node, y: Node, count: int) -> Node:
        found = below * at(v - 1.0, z, count) + above * at(v + 1.0, z, count)
        factor = itself(z)
        return found if factor is None else found + factor * y

    def at(v: Node, z: Node, count: int) -> Node:
        return by_order(v, z, params=TimesParams(count)) if count else S(name, v, z)

    def partials(v: Node, z: Node, y: Node) -> Sequence[Partial]:
        count = y.params.times if y.op is by_order else 0
        return at(v, z, count + 1), slope(v, z, y, count)

    by_order = register(
        Operation(
            name=special_name(f"{name}_by_order"),
            family="special",
            evaluate=lambda params, *arrays: value(params.times, *arrays),
            infer=lambda params, v, z: (v.shape, v.dtype),
            edges=_edges(partials),
            cost=5000.0,
        )
    )
    special(name, [_ORDER, POSITIVE], partials)


for _name, _value in (
    ("jv", orders.jv_by_order), ("jve", orders.jv_by_order), ("yv", orders.yv_by_order), ("yve", orders.yv_by_order),
):  # fmt: skip
    _bessel(_name, _value, 0.5, -0.5, lambda z: None)  # of real arguments the scaled ones have scale one
_bessel("iv", orders.iv_by_order, 0.5, 0.5, lambda z: None)
_bessel("kv", orders.kv_by_order, -0.5, -0.5, lambda z: None)
_bessel("ive", orders.ive_by_order, 0.5, 0.5, lambda z: -sign(z))
_bessel("kve", orders.kve_by_order, -0.5, -0.5, lambda z: number(1.0, z))
for _name, _general in (("jn", "jv"), ("kn", "kv"), ("yn", "yv")):
    if getattr(sc, _name) not in SPECIAL:
        _sign = -0.5 if _name == "kn" else 0.5
        special(
            _name,
            [(2.0, 2.0), POSITIVE],
            lambda n, z, y, general=_general, by=_sign: (
                None,
                by * (S(general, cast_to(n, z.dtype) - 1.0, z) + math.copysign(1.0, -by) * S(
                    general, cast_to(n, z.dtype) + 1.0, z)),
            ),
            fixed=(0,),
            integers=(0,),
        )  # fmt: skip


def _order(value: float, z: Node) -> Node:
    return number(value, z)


one("j0", REAL, lambda x, y: -S("j1", x))
one("j1", REAL, lambda x, y: 0.5 * (S("j0", x) - S("jv", _order(2.0, x), x)), at=[((0.0,), (0.5,))])
one("y0", POSITIVE, lambda x, y: -S("y1", x))
one("y1", POSITIVE, lambda x, y: S("y0", x) - y / x)
one("i0", REAL, lambda x, y: S("i1", x))
one("i0e", REAL, lambda x, y: S("i1e", x) - sign(x) * y, at=[((0.0,), (0.0,))])
one("i1", REAL, lambda x, y: 0.5 * (S("i0", x) + S("iv", _order(2.0, x), x)), at=[((0.0,), (0.5,))])
one("i1e", REAL, lambda x, y: 0.5 * (S("i0e", x) + S("ive", _order(2.0, x), x)) - sign(x) * y, at=[((0.0,), (0.5,))])
one("k0", POSITIVE, lambda x, y: -S("k1", x))
one("k0e", POSITIVE, lambda x, y: y - S("k1e", x))
one("k1", POSITIVE, lambda x, y: -S("k0", x) - y / x)
one("k1e", POSITIVE, lambda x, y: y - S("k0e", x) - y / x)

# --- Struve and Kelvin functions (DLMF 11.4, 10.61) -------------------------------------------------------------


def _struve(name: str, turn: float) -> None:
    """Near zero by the functions of the orders next to it (11.4.25, 11.4.29): there is no division by x in that."""

    def slope(v: Node, x: Node, y: Node) -> Sequence[Partial]:
        near = absolute(x) < number(1.0, x)
        inner = select(near, x, number(0.0, x))
        first = (0.5 * inner) ** v * S("rgamma", v + 1.5) * (1.0 / math.sqrt(math.pi))
        beside = 0.5 * (S(name, v - 1.0, inner) + turn * S(name, v + 1.0, inner) + first)
        formula = safe_where(near, lambda z: S(name, v - 1.0, z) - v * S(name, v, z) / z, x, 1.0, beside)
        of_zero = 2.0 / math.pi + turn * S(name, number(1.0, x), x)
        return None, select(equal(v, number(0.0, v)), of_zero, formula)

    special(name, [_ORDER, POSITIVE], slope, fixed=(0,), at=[((0.0, 0.0), (None, 2.0 / math.pi))])


_struve("struve", -1.0)
_struve("modstruve", 1.0)
one("itstruve0", POSITIVE, lambda x, y: S("struve", _order(0.0, x), x))
one("itmodstruve0", POSITIVE, lambda x, y: S("modstruve", _order(0.0, x), x))
one(
    "it2struve0", POSITIVE, lambda x, y: by_series(
        x, 1.0, lambda z: -S("struve", _order(0.0, z), z) / z,
        lambda z: polynomial(z * z, [(-1) ** (k + 1) * 2 / (math.pi * math.prod(range(1, 2 * k + 2, 2)) ** 2)
                                     for k in range(10)]),
    ), at=[((0.0,), (-2.0 / math.pi,))],
)  # fmt: skip
one("ber", POSITIVE, lambda x, y: S("berp", x))
one("bei", POSITIVE, lambda x, y: S("beip", x))
one("ker", POSITIVE, lambda x, y: S("kerp", x))
one("kei", POSITIVE, lambda x, y: S("keip", x))


def _over_x(name: str, order: int) -> Callable[[Node], Node]:
    """``ber'(x) / x`` and ``bei'(x) / x``, with the series of their quotients by x (10.65.1)."""
    terms = [(-1) ** k * 4 * (2 * k + order) / (4 ** (2 * k + order) * math.factorial(2 * k + order) ** 2) / 2
             for k in range(5)]  # fmt: skip

    def quotient(x: Node) -> Node:
        def series(z: Node) -> Node:
            square = z * z
            total = polynomial(square * square, terms[1 - order :])
            return total if order else square * total

        return by_series(x, 1.0, lambda z: S(name, z) / z, series)

    return quotient


_berp_over_x, _beip_over_x = _over_x("berp", 0), _over_x("beip", 1)
one("berp", POSITIVE, lambda x, y: -S("bei", x) - _berp_over_x(x), at=[((0.0,), (0.0,))])
one("beip", POSITIVE, lambda x, y: S("ber", x) - _beip_over_x(x), at=[((0.0,), (0.5,))])
one("kerp", POSITIVE, lambda x, y: -S("kei", x) - y / x)
one("keip", POSITIVE, lambda x, y: S("ker", x) - y / x)

# --- exponential integrals and the dilogarithm (DLMF 6.2, 8.19, 25.12) ------------------------------------------

one("exp1", POSITIVE, lambda x, y: -exp(-x) / x)
one("expi", POSITIVE, lambda x, y: exp(x) / x)


def _expn_partials(n: Node, x: Node, y: Node) -> Sequence[Partial]:
    # Those of the orders 0 and -1 are elementary, and SciPy knows none below 0.
    first = exp(-x) / x
    second = select(equal(n, number(1, n)), first, first * (1.0 + 1.0 / x))
    return None, -select(n <= number(1, n), second, S("expn", maximum(n - number(1, n), number(0, n)), x))


special("expn", [(2.0, 2.0), POSITIVE], _expn_partials, fixed=(0,), integers=(0,),
        at=[((1.0, 1.0), (None, -math.exp(-1.0))), ((0.0, 1.0), (None, -2.0 * math.exp(-1.0)))])  # fmt: skip


def _spence_slope(x: Node, y: Node) -> Node:
    # -log(1 + u) / u with u = x - 1, and its series where that cancels in the next derivative.
    near = absolute(x - 1.0) < number(0.01, x)
    u = select(near, x - 1.0, number(0.0, x))
    series = number(-0.1, x)
    for k in range(9, 0, -1):
        series = -(1.0 / k) - u * series
    return safe_where(near, lambda z: log(z) / (1.0 - z), x, 2.0, series)


one("spence", POSITIVE, _spence_slope, at=[((1.0,), (-1.0,))])
one("wrightomega", REAL, lambda x, y: y / (1.0 + y))

# --- hypergeometric functions (DLMF 13.3, 15.5) -----------------------------------------------------------------


class ParameterParams(NamedTuple):
    """By which of its parameters it is differentiated."""

    place: int

    def batched(self) -> ParameterParams:
        """The same for a batch: everything is element by element."""
        return self


def _hypergeometric(name: str, value: Callable[..., Any], upper: int, domain: Sequence[tuple[float, float]]) -> None:
    """By z it is ``a .../b ...`` times itself with parameters one greater (16.3.1); by a parameter only once."""
    count = len(domain) - 1

    def step(given: Sequence[Node]) -> tuple[Node, list[Node]]:
        *parameters, z = given
        factor = number(1.0, z)
        for k, p in enumerate(parameters):
            factor = factor * p if k < upper else factor / p
        return factor, [*(p + 1.0 for p in parameters), z]

    def by(given: Sequence[Node], place: int) -> Node:
        return by_parameter(*given, params=ParameterParams(place))

    def partials(*nodes: Node) -> Sequence[Partial]:
        *given, _ = nodes
        factor, moved = step(given)
        return (*(by(given, k) for k in range(count)), factor * S(name, *moved))

    def again(*nodes: Node) -> Sequence[Partial]:
        *given, y = nodes
        place = y.params.place
        factor, moved = step(given)
        parameter = given[place]
        if place < upper:  # of the factor, without a division by it
            inner, _ = step([number(1.0, parameter) if k == place else p for k, p in enumerate(given)])
        else:
            inner = -factor / parameter
        return (*(None for _ in range(count)), inner * S(name, *moved) + factor * by(moved, place))

    by_parameter = register(
        Operation(
            name=special_name(f"{name}_by_parameter"),
            family="special",
            evaluate=lambda params, *arrays: value(params.place, *arrays),
            infer=lambda params, *nodes: (nodes[0].shape, nodes[0].dtype),
            edges=_edges(again),
            cost=5000.0,
            fixed=tuple(range(count)),
        )
    )
    special(name, domain, partials)


_hypergeometric("hyp0f1", series.hyp0f1_by_parameter, 0, [POSITIVE, REAL])
_hypergeometric("hyp1f1", series.hyp1f1_by_parameter, 1, [REAL, POSITIVE, REAL])
_hypergeometric("hyp2f1", series.hyp2f1_by_parameter, 2, [REAL, REAL, POSITIVE, (-0.8, 0.8)])
special(
    "hyperu", [POSITIVE, POSITIVE, POSITIVE], lambda a, b, z, y: (None, None, -a * S("hyperu", a + 1.0, b + 1.0, z)),
    fixed=(0, 1),
)  # fmt: skip

# --- orthogonal polynomials (DLMF 18.9) -------------------------------------------------------------------------

_DEGREE = (3.0, 3.0)
_INSIDE = (-0.9, 0.9)


def _real(n: Node, x: Node) -> Node:
    return cast_to(n, x.dtype)


def _unless_constant(n: Node, x: Node, slope: Node) -> Node:
    """The slope, and that of a polynomial of degree 0, which has none below it."""
    return select(equal(n, number(0, n)), number(0.0, x), slope)


def _polynomial(name: str, derivative: object, domain: tuple[float, float] = _INSIDE) -> None:
    special(
        name,
        [_DEGREE, domain],
        lambda n, x, y: (None, _unless_constant(n, x, derivative(n, n - number(1, n), x))),  # type: ignore[operator]
        fixed=(0,),
        integers=(0,),
    )


_polynomial(
    "eval_legendre",
    lambda n, less, x: 0.5 * (_real(n, x) + 1.0) * S("eval_jacobi", less, number(1.0, x), number(1.0, x), x),
)
_polynomial("eval_chebyt", lambda n, less, x: _real(n, x) * S("eval_chebyu", less, x))
_polynomial("eval_chebyu", lambda n, less, x: 2.0 * S("eval_gegenbauer", less, number(2.0, x), x))
_polynomial("eval_laguerre", lambda n, less, x: -S("eval_genlaguerre", less, number(1.0, x), x), POSITIVE)
_polynomial("eval_hermite", lambda n, less, x: 2.0 * _real(n, x) * S("eval_hermite", less, x))
_polynomial("eval_hermitenorm", lambda n, less, x: _real(n, x) * S("eval_hermitenorm", less, x))
_polynomial(
    "eval_sh_legendre",
    lambda n, less, x: (_real(n, x) + 1.0)
    * S("eval_jacobi", less, number(1.0, x), number(1.0, x), 2.0 * x - 1.0),
    (0.1, 0.9),
)  # fmt: skip
_polynomial("eval_sh_chebyt", lambda n, less, x: 2.0 * _real(n, x) * S("eval_chebyu", less, 2.0 * x - 1.0), (0.1, 0.9))
_polynomial(
    "eval_sh_chebyu",
    lambda n, less, x: 4.0 * S("eval_gegenbauer", less, number(2.0, x), 2.0 * x - 1.0),
    (0.1, 0.9),
)  # fmt: skip
special(
    "eval_gegenbauer",
    [_DEGREE, POSITIVE, _INSIDE],
    lambda n, a, x, y: (
        None,
        None,
        _unless_constant(n, x, 2.0 * a * S("eval_gegenbauer", n - number(1, n), a + 1.0, x)),
    ),
    fixed=(0, 1),
    integers=(0,),
)
special(
    "eval_genlaguerre",
    [_DEGREE, POSITIVE, POSITIVE],
    lambda n, a, x, y: (None, None, _unless_constant(n, x, -S("eval_genlaguerre", n - number(1, n), a + 1.0, x))),
    fixed=(0, 1),
    integers=(0,),
)
special(
    "eval_jacobi",
    [_DEGREE, POSITIVE, POSITIVE, _INSIDE],
    lambda n, a, b, x, y: (
        None,
        None,
        None,
        _unless_constant(
            n, x, 0.5 * (_real(n, x) + a + b + 1.0) * S("eval_jacobi", n - number(1, n), a + 1.0, b + 1.0, x)
        ),
    ),
    fixed=(0, 1, 2),
    integers=(0,),
)
