"""Elementary functions on vectors, in LLVM code: for machines without libmvec, and where they are faster than it.

Each function is a range reduction and a best polynomial (``tools/minimax.py``), straight-line code on all lanes, with
at most 4 units in the last place of error (``tests/run/test_mathematics.py`` against mpmath). Special values are those
of C (IEEE 754-2019, section 9.2.1). Arguments that straight-line code cannot serve (large angles; negative or special
bases of powers) go to the C library, lane by lane, in a branch that is as good as never taken.

Single precision is computed in double precision with shorter polynomials and rounded once.

Sources of the methods: Cody and Waite, Software Manual for the Elementary Functions (1980), for the reductions; Muller
and others, Handbook of Floating-Point Arithmetic (2nd edition, 2018), sections 4.3 and 10, for sums and products of
pairs of doubles by fused multiply and add.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from ...errors import InvalidInputError
from . import constants as c

F32, F64, I1, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(1), ir.IntType(32), ir.IntType(64)

INVERSE_LN2, INVERSE_HALF_PI, ERF_SMALL, ERF_LARGE = c.SCALARS
MAGIC = 1.5 * 2.0**52  # adding it rounds to a whole number, which is then in the low bits
LARGE_ANGLE = 2.0**19  # above, the multiple of pi/2 is no longer exact
TINY = 2.0**-1022  # the least normal number


class Vector:
    """A vector of doubles (or of their bits) with operators."""

    def __init__(self, code: Code, value: Any) -> None:
        self.code, self.value = code, value

    def _of(self, other: Vector | float) -> Any:
        return other.value if isinstance(other, Vector) else self.code.number(other).value

    def __add__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.b.fadd(self.value, self._of(other)))

    def __sub__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.b.fsub(self.value, self._of(other)))

    def __rsub__(self, other: float) -> Vector:
        return Vector(self.code, self.code.b.fsub(self._of(other), self.value))

    def __mul__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.b.fmul(self.value, self._of(other)))

    def __truediv__(self, other: Vector | float) -> Vector:
        return Vector(self.code, self.code.b.fdiv(self.value, self._of(other)))

    def __rtruediv__(self, other: float) -> Vector:
        return Vector(self.code, self.code.b.fdiv(self._of(other), self.value))

    def __neg__(self) -> Vector:
        return Vector(self.code, self.code.b.fneg(self.value))

    def compare(self, symbol: str, other: Vector | float) -> Any:
        """Lane by lane, false for NaN."""
        return self.code.b.fcmp_ordered(symbol, self.value, self._of(other))

    def bits(self) -> Any:
        """The same lanes as 64-bit integers."""
        return self.code.b.bitcast(self.value, self.code.integers)


Pair = tuple[Vector, Vector]


class Code:
    """What the functions are written with, in one LLVM function."""

    def __init__(self, builder: Any, lanes: int, single: bool) -> None:
        self.b, self.lanes, self.single = builder, lanes, single
        self.doubles, self.integers = ir.VectorType(F64, lanes), ir.VectorType(I64, lanes)

    def number(self, x: float) -> Vector:
        return Vector(self, ir.Constant(self.doubles, [x] * self.lanes))

    def integer(self, n: int) -> Any:
        return ir.Constant(self.integers, [n] * self.lanes)

    def floats(self, bits: Any) -> Vector:
        return Vector(self, self.b.bitcast(bits, self.doubles))

    def select(self, mask: Any, a: Vector | float, b: Vector | float) -> Vector:
        a, b = (x if isinstance(x, Vector) else self.number(x) for x in (a, b))
        return Vector(self, self.b.select(mask, a.value, b.value))

    def fma(self, a: Vector | float, b: Vector | float, d: Vector | float) -> Vector:
        """``a * b + d``, rounded once."""
        arguments = [x if isinstance(x, Vector) else self.number(x) for x in (a, b, d)]
        name = f"llvm.fma.v{self.lanes}f64"
        kind = ir.FunctionType(self.doubles, [self.doubles] * 3)
        found = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return Vector(self, self.b.call(found, [x.value for x in arguments]))

    def abs(self, x: Vector) -> Vector:
        return self.floats(self.b.and_(x.bits(), self.integer(2**63 - 1)))

    def sign_of(self, x: Vector) -> Any:
        return self.b.and_(x.bits(), self.integer(-(2**63)))

    def with_sign(self, x: Vector, sign: Any) -> Vector:
        return self.floats(self.b.or_(x.bits(), sign))

    def polynomial(self, x: Vector, double: Sequence[float], single: Sequence[float]) -> Vector:
        """By Horner's rule, in two halves of every second coefficient that do not wait for each other."""
        coefficients = single if self.single else double
        if len(coefficients) < 6:
            return self._horner(x, coefficients)
        square = x * x
        return self.fma(self._horner(square, coefficients[1::2]), x, self._horner(square, coefficients[0::2]))

    def _horner(self, x: Vector, coefficients: Sequence[float]) -> Vector:
        total = self.number(coefficients[-1])
        for a in reversed(coefficients[:-1]):
            total = self.fma(total, x, a)
        return total

    # --- pairs: unevaluated sums of a double and a much smaller one

    def two_product(self, a: Vector, b: Vector) -> Pair:
        high = a * b
        return high, self.fma(a, b, -high)

    def two_sum(self, a: Vector, b: Vector) -> Pair:
        """The exact sum; a is not the smaller one, or zero."""
        high = a + b
        return high, b - (high - a)

    # --- parts of doubles

    def rounded(self, x: Vector) -> tuple[Vector, Any]:
        """The nearest whole number, as a double and as an integer (of moderate size)."""
        moved = x + MAGIC
        return moved - MAGIC, self.b.sub(moved.bits(), self.integer(_bits(MAGIC)))

    def power_of_two(self, n: Any) -> Vector:
        """``2**n`` for n between -1022 and 1023."""
        return self.floats(self.b.shl(self.b.add(n, self.integer(1023)), self.integer(52)))

    def split(self, x: Vector) -> tuple[Vector, Vector]:
        """``x = 2**k * m`` with m between sqrt(1/2) and sqrt(2), for positive normal x; k as a double."""
        offset = self.b.sub(x.bits(), self.integer(_bits(math.sqrt(0.5))))
        k = self.b.ashr(offset, self.integer(52))
        m = self.floats(self.b.sub(x.bits(), self.b.shl(k, self.integer(52))))
        # An integer of at most 2**51, as a double: put it into the low bits of the magic number.
        whole = self.floats(self.b.add(k, self.integer(_bits(MAGIC)))) - MAGIC
        return whole, m


def _bits(x: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", x))[0])


# --- exponentials -----------------------------------------------------------------------------------------------


def _reduced(e: Code, x: Vector) -> tuple[Vector, Any]:
    """``x = n ln 2 + r``."""
    whole, n = e.rounded(x * INVERSE_LN2)
    return e.fma(-whole, c.LN2[1], e.fma(-whole, c.LN2[0], x)), n


def _scaled(e: Code, x: Vector, n: Any) -> Vector:
    """``x * 2**n`` in two steps, so that results may be subnormal or overflow."""
    half = e.b.ashr(n, e.integer(1))
    return x * e.power_of_two(half) * e.power_of_two(e.b.sub(n, half))


def _clamped(e: Code, x: Vector, low: float, high: float) -> Vector:
    """Within bounds beyond which the result does not change any more; NaN stays."""
    x = e.select(x.compare("<", low), low, x)
    return e.select(x.compare(">", high), high, x)


def exp(e: Code, x: Vector) -> Vector:
    """``2**n * (1 + r + r**2 q(r))``."""
    r, n = _reduced(e, _clamped(e, x, -760.0, 720.0))
    q = e.polynomial(r, c.EXP_DOUBLE, c.EXP_SINGLE)
    return _scaled(e, e.fma(r * r, q, r) + 1.0, n)


def _expm1_of(e: Code, x: Vector) -> Vector:
    """For arguments that are not large: ``2 (s expm1(r) + (s - 1/2))``, s = 2**(n - 1)."""
    r, n = _reduced(e, _clamped(e, x, -60.0, 720.0))
    small = e.fma(r * r, e.polynomial(r, c.EXPM1_DOUBLE, c.EXPM1_SINGLE), r)
    # 2**1024 is no double, so one step of the scaling is kept for the end.
    s = e.power_of_two(e.b.sub(n, e.integer(1)))
    rest = e.fma(s, small, s - 0.5)
    return rest * 2.0


def expm1(e: Code, x: Vector) -> Vector:
    return e.select(x.compare("==", 0.0), x, _overflowing(e, x, _expm1_of(e, x)))


def _overflowing(e: Code, x: Vector, y: Vector) -> Vector:
    return e.select(x.compare(">", 709.782712893384), math.inf, y)


def tanh(e: Code, x: Vector) -> Vector:
    """``t / (t + 2)`` with t = expm1(2 |x|), and the sign of x."""
    size = e.abs(x)
    t = _expm1_of(e, _clamped(e, size + size, 0.0, 80.0))
    y = t / (t + 2.0)
    y = e.select(size.compare("<", 2.0**-30), size, y)
    return e.with_sign(y, e.sign_of(x))


# --- logarithms -------------------------------------------------------------------------------------------------


def _log_of(e: Code, k: Vector, f: Vector, low: Vector | float) -> Vector:
    """``k ln 2 + log(1 + f) + low``: with s = f / (2 + f), log(1 + f) = 2 s + s**3 p(s**2), f minus two corrections."""
    s = f / (f + 2.0)
    z = s * s
    rest = z * e.polynomial(z, c.LOG_DOUBLE, c.LOG_SINGLE)
    half = f * f * 0.5
    inner = e.fma(s, half + rest, e.fma(k, c.LN2[1], low))
    return e.fma(k, c.LN2[0], f - (half - inner))


def _edges_of_log(e: Code, x: Vector, y: Vector, pole: float) -> Vector:
    y = e.select(x.compare("==", math.inf), x, y)
    y = e.select(x.compare("==", pole), -math.inf, y)
    return e.select(e.b.fcmp_unordered("<", x.value, e.number(pole).value), math.nan, y)


def log(e: Code, x: Vector) -> Vector:
    tiny = x.compare("<", TINY)
    k, m = e.split(e.select(tiny, x * 2.0**54, x))
    k = e.select(tiny, k - 54.0, k)
    return _edges_of_log(e, x, _log_of(e, k, m - 1.0, 0.0), 0.0)


def log1p(e: Code, x: Vector) -> Vector:
    """The logarithm of 1 + x, corrected by what the sum lost."""
    u = x + 1.0
    k, m = e.split(u)
    near = k.compare("==", 0.0)
    lost = e.select(u.compare(">=", 2.0), 1.0 - (u - x), x - (u - 1.0)) / u
    y = _log_of(e, k, e.select(near, x, m - 1.0), e.select(near, 0.0, lost))
    return e.select(x.compare("==", 0.0), x, _edges_of_log(e, x, y, -1.0))


# --- angles -----------------------------------------------------------------------------------------------------


def _octants(e: Code, x: Vector) -> tuple[Vector, Any]:
    """``x = n pi/2 + r``. The first difference is exact, the second rounds what is left once."""
    whole, n = e.rounded(x * INVERSE_HALF_PI)
    r = e.fma(-whole, c.HALF_PI[0], x)
    r = e.fma(-whole, c.HALF_PI[1], r)
    return (r if e.single else e.fma(-whole, c.HALF_PI[2], r)), n


def _sine(e: Code, r: Vector, z: Vector) -> Vector:
    return r * e.fma(z, e.polynomial(z, c.SIN_DOUBLE, c.SIN_SINGLE), 1.0)


def _cosine(e: Code, z: Vector) -> Vector:
    half = z * 0.5
    first = 1.0 - half
    rest = (1.0 - first) - half
    return first + e.fma(z * z, e.polynomial(z, c.COS_DOUBLE, c.COS_SINGLE), rest)


def _odd(e: Code, n: Any) -> Any:
    return e.b.icmp_unsigned("!=", e.b.and_(n, e.integer(1)), e.integer(0))


def _circular(e: Code, x: Vector, shift: int) -> Vector:
    r, n = _octants(e, x)
    z = r * r
    n = e.b.add(n, e.integer(shift)) if shift else n
    y = e.select(_odd(e, n), _cosine(e, z), _sine(e, r, z))
    sign = e.b.shl(e.b.and_(n, e.integer(2)), e.integer(62))
    return e.floats(e.b.xor(y.bits(), sign))


def sin(e: Code, x: Vector) -> Vector:
    return _circular(e, x, 0)


def cos(e: Code, x: Vector) -> Vector:
    return _circular(e, x, 1)


def tan(e: Code, x: Vector) -> Vector:
    r, n = _octants(e, x)
    z = r * r
    a, b = _sine(e, r, z), _cosine(e, z)
    odd = _odd(e, n)
    return e.select(odd, -b, a) / e.select(odd, a, b)


# --- the error function -----------------------------------------------------------------------------------------


def erf(e: Code, x: Vector) -> Vector:
    """A polynomial next to zero; ``1 - exp(-x**2) erfcx(x)`` beyond, erfcx as a polynomial in (x - 2)/(x + 2)."""
    size = e.abs(x)
    small = size.compare("<", ERF_SMALL)
    z = size * size
    near = e.fma(size, e.polynomial(z, c.ERF_DOUBLE, c.ERF_SINGLE), size)
    far = e.select(size.compare(">", ERF_LARGE), ERF_LARGE, size)
    scaled = e.polynomial((far - 2.0) / (far + 2.0), c.ERFC_DOUBLE, c.ERFC_SINGLE)
    y = e.select(small, near, 1.0 - exp(e, -(far * far)) * scaled)
    return e.with_sign(y, e.sign_of(x))


# --- powers -----------------------------------------------------------------------------------------------------


def pow(e: Code, x: Vector, p: Vector) -> Vector:
    """``exp(p log x)`` for positive finite x and finite p, with the logarithm as a pair of doubles.

    The error of the logarithm is multiplied by up to 745, so it needs ten bits more than a double has.
    """
    if e.single:
        # Twice the precision of the result is enough for all of this.
        wide = Code(e.b, e.lanes, False)
        return exp(e, p * log(wide, Vector(wide, x.value)))
    tiny = x.compare("<", TINY)
    k, m = e.split(e.select(tiny, x * 2.0**54, x))
    k = e.select(tiny, k - 54.0, k)
    # s = (m - 1) / (m + 1) as a pair.
    f, d = m - 1.0, m + 1.0
    lost = m - (d - 1.0)
    s = f / d
    s_low = (e.fma(-s, d, f) - s * lost) / d
    # log m = 2 s (1 + z (1/3 + z q)) with z = s**2
    z, z_low = e.two_product(s, s)
    z_low = e.fma(s + s, s_low, z_low)
    q = e.polynomial(z, c.POW_DOUBLE, c.POW_DOUBLE)
    u, u_low = e.two_sum(e.number(c.TWO_THIRDS[0]), e.fma(z, q, c.TWO_THIRDS[1]))
    t, t_low = e.two_product(z, u)
    t_low = t_low + e.fma(z, u_low, z_low * u)
    t, extra = e.two_sum(e.number(2.0), t)
    t_low = t_low + extra
    high, low = e.two_product(s, t)
    low = low + e.fma(s, t_low, s_low * t)
    total, rest = e.two_sum(k * c.LN2[0], high)
    rest = rest + e.fma(k, c.LN2[1], low)
    total, rest = e.two_sum(total, rest)
    # p log x, and its exponential with the low part as a small step.
    y, y_low = e.two_product(p, total)
    y_low = e.fma(p, rest, y_low)
    outside = e.abs(y).compare(">=", 760.0)
    y_low = e.select(outside, 0.0, y_low)
    r, n = _reduced(e, _clamped(e, y, -760.0, 720.0))
    r = r + y_low
    return _scaled(e, e.fma(r * r, e.polynomial(r, c.EXP_DOUBLE, c.EXP_SINGLE), r) + 1.0, n)


# --- functions of a module --------------------------------------------------------------------------------------


def _large(e: Code, x: Vector) -> Any:
    return e.b.fcmp_unordered(">", e.abs(x).value, e.number(LARGE_ANGLE).value)


def _unusual_power(e: Code, x: Vector, p: Vector) -> Any:
    ordinary = e.b.and_(x.compare(">", 0.0), x.compare("<", math.inf))
    return e.b.not_(e.b.and_(ordinary, e.abs(p).compare("<", 1e300)))


Function = Callable[..., Vector]
FUNCTIONS: dict[str, tuple[Function, Callable[..., Any] | None]] = {
    "exp": (exp, None),
    "expm1": (expm1, None),
    "log": (log, None),
    "log1p": (log1p, None),
    "sin": (sin, _large),
    "cos": (cos, _large),
    "tan": (tan, _large),
    "tanh": (tanh, None),
    "erf": (erf, None),
    "pow": (pow, _unusual_power),
}


# What is taken from here where libmvec is there too. Nanoseconds for each number, ours and libmvec's (EPYC Zen 4, glibc
# 2.36, 8 lanes, 32,768 numbers): exp 0.8 and 0.9, expm1 0.8 and 1.0, tanh 1.0 and 1.9, pow 3.5 and 3.8, log and tan
# equal; but log1p 1.9 and 1.1, sin 1.0 and 0.8, erf 2.0 and 1.6, cos equal (it goes with sin). In single precision only
# expm1 (0.7 and 0.8) and pow (2.6 and 3.2) are faster here: the price of computing in double precision.
FASTER = {64: {"exp", "expm1", "log", "tan", "tanh", "pow"}, 32: {"expm1", "pow"}}


def source_of(name: str, bits: int, libmvec: bool, fma: bool) -> str:
    """Who computes a function on vectors: ``"portable"``, ``"libmvec"`` or ``"libm"`` (lane by lane).

    ``JACANA_VECTOR_MATH`` chooses one of them wherever it is there. Without a fused multiply and add in the processor
    the functions here would be slow, and are not used.
    """
    wanted = os.environ.get("JACANA_VECTOR_MATH", "auto") or "auto"
    if wanted not in ("auto", "portable", "libmvec", "libm"):
        raise InvalidInputError(f"JACANA_VECTOR_MATH must be auto, portable, libmvec or libm, not {wanted!r}")
    portable = fma and name in FUNCTIONS
    if wanted == "libm" or not (portable or libmvec):
        return "libm"
    if portable and libmvec:
        return ("portable" if name in FASTER[bits] else "libmvec") if wanted == "auto" else wanted
    return "portable" if portable else "libmvec"


def vector_function(module: ir.Module, name: str, lanes: int, bits: int) -> tuple[Any, set[str]]:
    """The function of a module that computes ``name`` on vectors, and the symbols of the C library that it needs."""
    body, unusual = FUNCTIONS[name]
    scalar = name if bits == 64 else f"{name}f"
    symbols = {scalar} if unusual is not None else set()
    title = f"vector_{name}_{lanes}_{bits}"
    found = module.globals.get(title)
    if found is not None:
        return found, symbols
    kind = F64 if bits == 64 else F32
    vector = ir.VectorType(kind, lanes)
    count = 2 if name == "pow" else 1
    function = ir.Function(module, ir.FunctionType(vector, [vector] * count), title)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    b: Any = ir.IRBuilder(function.append_basic_block("entry"))
    e = Code(b, lanes, bits == 32)
    arguments = [Vector(e, a if bits == 64 else b.fpext(a, e.doubles)) for a in function.args]
    if unusual is not None:
        # In one lane at least: that lane, and for simplicity all, by the C library.
        lane_mask = b.bitcast(unusual(e, *arguments), ir.IntType(lanes))
        with b.if_then(b.icmp_unsigned("!=", lane_mask, ir.Constant(ir.IntType(lanes), 0)), likely=False):
            external = module.globals.get(scalar) or ir.Function(module, ir.FunctionType(kind, [kind] * count), scalar)
            result: Any = ir.Constant(vector, ir.Undefined)
            for k in range(lanes):
                place = ir.Constant(I32, k)
                value = b.call(external, [b.extract_element(a, place) for a in function.args])
                result = b.insert_element(result, value, place)
            b.ret(result)
    y = body(e, *arguments).value
    b.ret(y if bits == 64 else b.fptrunc(y, vector))
    return function, symbols
