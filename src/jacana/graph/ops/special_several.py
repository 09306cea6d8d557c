"""Functions of ``scipy.special`` with several results, inverse distributions, and functions that are no ufuncs.

Each result of a function with several is a record of its own. Formulas: NIST Digital Library of Mathematical Functions,
https://dlmf.nist.gov, sections 4.13, 6.2, 7.2, 7.4, 9.2, 10.51, 12.2, 14.10, 18.9, 22.13 and 28.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sc

from ..build import cast_to, full
from ..node import REGISTRY, Node, Operation, Partial, register
from .elementwise import _edges, cos, cosh, equal, exp, log, maximum, number, select, sin, sinh, sqrt
from .special import (
    POSITIVE,
    REAL,
    ROOT_PI,
    UNIT_INTERVAL,
    S,
    TimesParams,
    _bell,
    by_series,
    one,
    polynomial,
    safe_where,
    special,
)
from .special import special_name as named
from .special_distributions import chi_square_density
from .special_elliptic import first_kind_by_parameter


@dataclass(frozen=True)
class Several:
    """A ufunc with several results: the record of each, and the operands without derivative."""

    operations: tuple[Operation, ...]
    fixed: tuple[int, ...] = ()


SEVERAL: dict[np.ufunc, Several] = {}
_Partials = Callable[..., Sequence[Partial]]


def _same(params: Any, *nodes: Node) -> Any:
    return nodes[-1].shape, nodes[-1].dtype


def _record(name: str, evaluate: Callable[..., Any], partials: _Partials, fixed: tuple[int, ...] = ()) -> Operation:
    return register(
        Operation(
            name=named(name),
            family="special",
            evaluate=lambda params, *arrays: np.asarray(evaluate(*arrays)).astype(arrays[-1].dtype, copy=False),
            infer=_same,
            edges=_edges(partials),
            cost=80.0,
            fixed=fixed,
        )
    )


def _several(name: str, results: dict[str, _Partials], fixed: tuple[int, ...] = ()) -> None:
    ufunc = getattr(sc, name)
    made = [
        _record(f"{name}_{part}", lambda *arrays, k=k: ufunc(*arrays)[k], partials, fixed)
        for k, (part, partials) in enumerate(results.items())
    ]
    SEVERAL[ufunc] = Several(tuple(made), fixed)


def _of_one(partial: Callable[[Node, Node], Partial]) -> _Partials:
    return lambda x, y: (partial(x, y),)


def _pair(name: str, first: Callable[[Node], Node], second: Callable[[Node], Node]) -> None:
    _several(name, {"first": _of_one(lambda x, y: first(x)), "second": _of_one(lambda x, y: second(x))})


def _over(function: Callable[[Node], Node], coefficients: Sequence[float], odd: bool = False) -> Callable[[Node], Node]:
    """``function(x) / x``, and where x is small its series in ``x**2`` (times x if it is odd)."""

    def series(x: Node) -> Node:
        total = polynomial(x * x, coefficients)
        return x * total if odd else total

    return lambda x: by_series(x, 1.0, lambda z: function(z) / z, series)


# --- integrals of elementary functions and of Bessel functions ----------------------------------------------------

_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(10)]
_BESSEL = [(-1) ** k / (4 ** (k + 1) * math.factorial(k + 1) ** 2) for k in range(9)]
_pair("sici", _over(sin, _SINE), lambda x: cos(x) / x)
_pair("shichi", _over(sinh, [abs(c) for c in _SINE]), lambda x: cosh(x) / x)
_pair("fresnel", lambda x: sin(x * x * (0.5 * math.pi)), lambda x: cos(x * x * (0.5 * math.pi)))
_pair("itj0y0", lambda x: S("j0", x), lambda x: S("y0", x))
_pair("iti0k0", lambda x: S("i0", x), lambda x: S("k0", x))
_pair("it2j0y0", _over(lambda x: 1.0 - S("j0", x), _BESSEL, odd=True), lambda x: -S("y0", x) / x)
_pair("it2i0k0", _over(lambda x: S("i0", x) - 1.0, [abs(c) for c in _BESSEL], odd=True), lambda x: -S("k0", x) / x)

# --- Airy functions (9.2) ------------------------------------------------------------------------------------------


def _airy(part: str, x: Node, scaled: str = "") -> Node:
    return REGISTRY[named(f"airy{scaled}_{part}")](x)


_several(
    "airy",
    {
        "ai": _of_one(lambda x, y: _airy("aip", x)),
        "aip": _of_one(lambda x, y: x * _airy("ai", x)),
        "bi": _of_one(lambda x, y: _airy("bip", x)),
        "bip": _of_one(lambda x, y: x * _airy("bi", x)),
    },
)


def _scale_slope(x: Node) -> Node:
    """Of the logarithm of what ``airye`` multiplies by: nothing below zero, where only ``bi`` is real."""
    zero = number(0.0, x)
    return safe_where(x < zero, sqrt, x, 1.0, zero)


_several(
    "airye",
    {
        "ai": _of_one(lambda x, y: _airy("aip", x, "e") + _scale_slope(x) * y),
        "aip": _of_one(lambda x, y: x * _airy("ai", x, "e") + _scale_slope(x) * y),
        "bi": _of_one(lambda x, y: _airy("bip", x, "e") - _scale_slope(x) * y),
        "bip": _of_one(lambda x, y: x * _airy("bi", x, "e") - _scale_slope(x) * y),
    },
)
_several(
    "itairy",
    {
        "ai": _of_one(lambda x, y: _airy("ai", x)),
        "bi": _of_one(lambda x, y: _airy("bi", x)),
        "ai_minus": _of_one(lambda x, y: _airy("ai", -x)),
        "bi_minus": _of_one(lambda x, y: _airy("bi", -x)),
    },
)

# --- elliptic functions (22.13); the derivative by m: of 22.16.11 -----------------------------------------------------


def _jacobi(part: str, u: Node, m: Node) -> Node:
    return REGISTRY[named(f"ellipj_{part}")](u, m)


def _amplitude_by_m(u: Node, m: Node) -> Node:
    # u is the integral of the first kind up to the amplitude: it stays.
    return -_jacobi("dn", u, m) * first_kind_by_parameter(_jacobi("ph", u, m), m)


_several(
    "ellipj",
    {
        "sn": lambda u, m, y: (
            _jacobi("cn", u, m) * _jacobi("dn", u, m), _jacobi("cn", u, m) * _amplitude_by_m(u, m)
        ),
        "cn": lambda u, m, y: (
            -_jacobi("sn", u, m) * _jacobi("dn", u, m), -_jacobi("sn", u, m) * _amplitude_by_m(u, m)
        ),
        "dn": lambda u, m, y: (
            -m * _jacobi("sn", u, m) * _jacobi("cn", u, m),
            -_jacobi("sn", u, m) * (0.5 * _jacobi("sn", u, m) + m * _jacobi("cn", u, m) * _amplitude_by_m(u, m)) / y,
        ),
        "ph": lambda u, m, y: (_jacobi("dn", u, m), _amplitude_by_m(u, m)),
    },
)  # fmt: skip

# --- solutions of differential equations of second order: parabolic cylinders (12.2), Mathieu (28.2) ------------------


def _solution(name: str, curvature: Callable[..., Node], fixed: tuple[int, ...], scale: float = 1.0) -> None:
    """Value and slope (by ``x * scale``) of ``y'' = curvature(*parameters, x) * y``."""

    def value(*nodes: Node) -> Sequence[Partial]:
        *given, _ = nodes
        return (*(None for _ in fixed), REGISTRY[named(f"{name}_slope")](*given) * scale)

    def slope(*nodes: Node) -> Sequence[Partial]:
        *given, _ = nodes
        return (*(None for _ in fixed), curvature(*given) * REGISTRY[named(f"{name}_value")](*given) * scale)

    _several(name, {"value": value, "slope": slope}, fixed)


_solution("pbdv", lambda v, x: 0.25 * (x * x) - v - 0.5, (0,))
_solution("pbvv", lambda v, x: 0.25 * (x * x) - v - 0.5, (0,))
_solution("pbwa", lambda a, x: a - 0.25 * (x * x), (0,))
_DEGREE = math.pi / 180.0
_mathieu_a = _record("mathieu_a", sc.mathieu_a, lambda m, q, y: (None, None), (0, 1))
_mathieu_b = _record("mathieu_b", sc.mathieu_b, lambda m, q, y: (None, None), (0, 1))
for _name, _value in (("mathieu_cem", _mathieu_a), ("mathieu_sem", _mathieu_b)):
    _solution(_name, lambda m, q, x, a=_value: 2.0 * q * cos(2.0 * _DEGREE * x) - a(m, q), (0, 1), _DEGREE)
for _name, _value in (
    ("mathieu_modcem1", _mathieu_a), ("mathieu_modcem2", _mathieu_a),
    ("mathieu_modsem1", _mathieu_b), ("mathieu_modsem2", _mathieu_b),
):  # fmt: skip
    _solution(_name, lambda m, q, x, a=_value: a(m, q) - 2.0 * q * cosh(2.0 * x), (0, 1))

# --- inverse distributions -------------------------------------------------------------------------------------------


special("nrdtrimn", [UNIT_INTERVAL, POSITIVE, REAL], lambda p, s, x, y: (
    -s / _bell(S("ndtri", p)), -S("ndtri", p), number(1.0, x)))  # fmt: skip
special("nrdtrisd", [REAL, (0.6, 0.9), (2.5, 4.0)], lambda mean, p, x, y: (
    -1.0 / S("ndtri", p), -y / (_bell(S("ndtri", p)) * S("ndtri", p)), 1.0 / S("ndtri", p)))  # fmt: skip


def _non_central_density(x: Node, v: Node, c: Node) -> Node:
    # DLMF 10.25 for the sum over Poisson weights; without a centre it is the density of chi-square.
    def formula(c: Node) -> Node:
        gap = sqrt(x) - sqrt(c)
        return 0.5 * exp(-0.5 * gap * gap + 0.25 * (v - 2.0) * log(x / c)) * S("ive", 0.5 * v - 1.0, sqrt(c * x))

    return safe_where(equal(c, number(0.0, c)), formula, c, 1.0, chi_square_density(v, x))


special("chndtr", [POSITIVE, (1.5, 4.0), POSITIVE], lambda x, v, c, y: (
    _non_central_density(x, v, c), None, 0.5 * (S("chndtr", x, v + 2.0, c) - y)), fixed=(1,))  # fmt: skip

# --- others ---------------------------------------------------------------------------------------------------------

special("wright_bessel", [POSITIVE, POSITIVE, POSITIVE], lambda a, b, x, y: (
    None, None, S("wright_bessel", a, a + b, x)), fixed=(0, 1))  # fmt: skip
if hasattr(sc, "log_wright_bessel"):
    special("log_wright_bessel", [POSITIVE, POSITIVE, POSITIVE], lambda a, b, x, y: (
        None, None, exp(S("log_wright_bessel", a, a + b, x) - y)), fixed=(0, 1))  # fmt: skip
special("eval_chebyc", [(3.0, 3.0), REAL], lambda n, x, y: (
    None, cast_to(n, x.dtype) * S("eval_chebyu", n - number(1, n), 0.5 * x)), fixed=(0,), integers=(0,))  # fmt: skip
special("eval_chebys", [(3.0, 3.0), REAL], lambda n, x, y: (
    None, S("eval_gegenbauer", n - number(1, n), number(2.0, x), 0.5 * x)), fixed=(0,), integers=(0,))  # fmt: skip


def _shifted_jacobi(n: Node, p: Node, q: Node, x: Node, y: Node) -> Sequence[Partial]:
    order = cast_to(n, x.dtype)
    slope = (order + p) * S("eval_jacobi", n - number(1, n), p - q + 1.0, q, 2.0 * x - 1.0)
    return None, None, None, slope / S("binom", 2.0 * order + p - 1.0, order)


special("eval_sh_jacobi", [(3.0, 3.0), (2.5, 2.5), (1.5, 1.5), UNIT_INTERVAL], _shifted_jacobi, fixed=(0, 1, 2),
        integers=(0,))  # fmt: skip
special("lpmv", [(1.0, 1.0), (2.0, 2.0), (-0.9, 0.9)], lambda m, v, x, y: (
    None, None, (v * x * y - (v + m) * S("lpmv", m, v - 1.0, x)) / (x * x - 1.0)), fixed=(0, 1))  # fmt: skip


_FAR = 6.5  # from where on the asymptotic series of w is exact, of its derivatives a bit farther
_TERMS = 34


def _faddeeva(n: int, x: Any, y: Any) -> Any:
    """The n-th derivative of w(x + iy): by recurrence (7.10.2), and by its asymptotic series (7.12.1) far from zero.

    There the recurrence is a difference of near numbers.
    """
    z = np.asarray(x, dtype=float) + 1j * np.asarray(y, dtype=float)
    before: Any = np.zeros_like(z)
    found: Any = sc.wofz(z)
    for k in range(n):
        following = -2.0 * z * found - 2.0 * k * before + (2j / ROOT_PI if k == 0 else 0.0)
        before, found = found, following
    far = (np.abs(z) > _FAR + 0.25 * n) & (z.imag >= 0.0) & np.isfinite(z)
    if far.any():
        inverse = 1.0 / z[far]
        square = 0.5 * inverse * inverse
        total: Any = np.zeros_like(inverse)
        for k in range(_TERMS, -1, -1):  # of (2k - 1)!! / (2 z^2)^k / z, whose n-th derivatives have these factors
            factor = (-1.0) ** n * math.prod(range(2 * k + 1, 2 * k + n + 1))
            total = factor + (2 * k + 1) * square * (total if k < _TERMS else 0.0)
        found = np.array(found)
        found[far] = 1j / ROOT_PI * inverse ** (n + 1) * total
    return found


def _of_faddeeva(imaginary: bool) -> Operation:
    def evaluate(params: TimesParams, x: Any, y: Any) -> Any:
        with np.errstate(all="ignore"):
            found = _faddeeva(params.times, x, y)
        return (found.imag if imaginary else found.real).astype(x.dtype)

    def partials(x: Node, y: Node, result: Node) -> Sequence[Partial]:
        n = result.params.times + 1
        re, im = faddeeva(x, y, n)
        return (im, re) if imaginary else (re, -im)

    return register(
        Operation(
            name=named("faddeeva_imag" if imaginary else "faddeeva_real"),
            family="special",
            evaluate=evaluate,
            infer=_same,
            edges=_edges(partials),
            cost=200.0,
        )
    )


_faddeeva_real, _faddeeva_imag = _of_faddeeva(False), _of_faddeeva(True)


def faddeeva(x: Node, y: Node, n: int) -> tuple[Node, Node]:
    """The real and the imaginary part of the n-th derivative of w(x + iy)."""
    params = TimesParams(n)
    return _faddeeva_real(x, y, params=params), _faddeeva_imag(x, y, params=params)


def _voigt_partials(x: Node, s: Node, g: Node, y: Node) -> Sequence[Partial]:
    # Of no width s it is the density of Cauchy; by s**2/2 its derivative is the second one by x.
    cauchy = equal(s, number(0.0, s))
    size = x * x + g * g
    density = 1.0 / (math.pi * size * size)
    limits = (-2.0 * x * g * density, s * g * (6.0 * (x * x) - 2.0 * (g * g)) * density / size,
              (x * x - g * g) * density)  # fmt: skip
    width = select(cauchy, number(1.0, s), s)
    scale = 1.0 / (width * math.sqrt(2.0))
    first_real, first_imag = faddeeva(x * scale, g * scale, 1)
    second, _ = faddeeva(x * scale, g * scale, 2)
    factor = scale * scale * (1.0 / ROOT_PI)
    others = (first_real * factor, second * factor * (scale * width), -first_imag * factor)
    return tuple(select(cauchy, a, b) for a, b in zip(limits, others, strict=True))


special("voigt_profile", [REAL, POSITIVE, POSITIVE], _voigt_partials)
one("erfcx", REAL, lambda x, y: -faddeeva(number(0.0, x), x, 1)[1])
one("dawsn", REAL, lambda x, y: faddeeva(x, number(0.0, x), 1)[1] * (0.5 * ROOT_PI))


_SIGNS = {"spherical_jn": (1, -1), "spherical_yn": (1, -1), "spherical_in": (1, 1), "spherical_kn": (-1, -1)}


def spherical_slope(name: str, n: Node, z: Node) -> Node:
    """10.51.1 and 10.51.4: by the functions of the orders next to it, which is right at zero, too."""
    order, unit = cast_to(n, z.dtype), number(1, n)
    lower = SPHERICAL[name](maximum(n - unit, number(0, n)), z)
    lower = select(equal(n, number(0, n)), number(0.0, z), order * lower)
    upper = (order + 1.0) * SPHERICAL[name](n + unit, z)
    below, above = _SIGNS[name]
    return (lower * float(below) + upper * float(above)) / (2.0 * order + 1.0)


SPHERICAL = {
    name: _record(name, getattr(sc, name), lambda n, z, y, name=name: (None, spherical_slope(name, n, z)), (0,))
    for name in _SIGNS
}


def _sinc_slope(x: Node, y: Node) -> Partial:
    """``sin(t) / t`` is a spherical Bessel function, whose derivatives are right at zero and near it."""
    return SPHERICAL["spherical_jn"](full(1, x.shape, np.dtype(np.int64)), x * math.pi) * -math.pi


sinc = _record("sinc", np.sinc, _of_one(_sinc_slope))

lambertw = tuple(
    _record(f"lambertw_{k}", lambda x, k=k: sc.lambertw(x, k).real.astype(x.dtype), lambda x, y: (1.0 / (x + exp(y)),))
    for k in (0, -1)
)

__all__ = ["SEVERAL", "SPHERICAL", "Several", "lambertw", "sinc", "spherical_slope"]
