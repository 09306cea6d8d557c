"""Elementwise operations. Inputs have equal shapes and, but for the condition of ``select``, equal dtypes.

Each record gives, in adjacent lines, the value (a NumPy ufunc), the partial derivatives given the inputs *and* the
result, the machine code, and what tests have to know: where to sample and what was chosen at the special points.
Broadcasting and conversion of dtypes are nodes of their own, inserted before these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import UnsupportedOperationError
from ..index import identity
from ..node import (
    UNIT,
    Array,
    DType,
    Edges,
    Masked,
    Node,
    Operation,
    Partial,
    Shape,
    Term,
    Unit,
    literal_value,
    register,
)
from .peel import peel

Interval = tuple[float, float]
Partials = Callable[..., Sequence[Partial]]

REAL: Interval = (-3.0, 3.0)
POSITIVE: Interval = (0.1, 3.0)
BOOL = np.dtype(bool)


def _edges(partials: Partials) -> Callable[[Node], Edges]:
    def edges(node: Node) -> Edges:
        rank = node.ndim
        diagonal = identity(rank)
        axes = tuple(range(rank))
        result: list[tuple[Term, ...] | None] = []
        for entry in partials(*node.inputs, node):
            masks: tuple[tuple[Node, tuple[int, ...]], ...] = ()
            partial: Node | Unit | None
            if isinstance(entry, Masked):
                masks, partial = (peel(entry.mask, axes),), entry.partial
            else:
                partial = entry
            if partial is None:
                result.append(None)
                continue
            factors = () if isinstance(partial, Unit) else (peel(partial, axes),)
            result.append((Term(node.shape, diagonal, diagonal, factors, masks),))
        return tuple(result)

    return edges


def _same(params: Any, *nodes: Node) -> tuple[Shape, DType]:
    first = nodes[0]
    shape, dtype = first.shape, first.dtype
    for node in nodes[1:]:
        assert node.shape == shape and (node.dtype is dtype or node.dtype == dtype), nodes
    return shape, dtype


def _boolean(params: Any, *nodes: Node) -> tuple[Shape, DType]:
    return _same(params, *nodes)[0], BOOL


def _record(
    name: str,
    ufunc: np.ufunc,
    partials: Partials,
    emit: Callable[..., Any] | None,
    domain: Sequence[Interval],
    *,
    infer: Callable[..., tuple[Shape, DType]] = _same,
    cost: float = 1.0,
    special: Sequence[tuple[tuple[float, ...], tuple[float | None, ...]]] = (),
    smooth: bool = True,
) -> Operation:
    return register(
        Operation(
            name=name,
            family="elementwise",
            evaluate=lambda params, *arrays: ufunc(*arrays),
            infer=infer,
            edges=_edges(partials),
            emit=emit,
            cost=cost,
            domain=tuple(domain),
            special=tuple(special),
            smooth=smooth,
            ufunc=ufunc,
        )
    )


def _none(*nodes: Node) -> Sequence[Partial]:
    return (None,) * (len(nodes) - 1)


# --- arithmetic -------------------------------------------------------------------------------------------------

negative = _record("negative", np.negative, lambda x, y: (number(-1.0, x),), lambda e, x: e.neg(x), [REAL])
add = _record("add", np.add, lambda a, b, y: (UNIT, UNIT), lambda e, a, b: e.add(a, b), [REAL, REAL])
subtract = _record(
    "subtract", np.subtract, lambda a, b, y: (UNIT, number(-1.0, b)), lambda e, a, b: e.sub(a, b), [REAL, REAL]
)
multiply = _record("multiply", np.multiply, lambda a, b, y: (b, a), lambda e, a, b: e.mul(a, b), [REAL, REAL])
divide = _record(
    "divide", np.divide, lambda a, b, y: (1.0 / b, -y / b), lambda e, a, b: e.div(a, b), [REAL, POSITIVE], cost=4
)
reciprocal = _record(
    "reciprocal", np.reciprocal, lambda x, y: (-(y * y),), lambda e, x: e.div(e.const(1.0, x), x), [POSITIVE], cost=4
)
square = _record("square", np.square, lambda x, y: (2.0 * x,), lambda e, x: e.mul(x, x), [REAL])
floor_divide = _record("floor_divide", np.floor_divide, _none, None, [REAL, POSITIVE], cost=8, smooth=False)
remainder = _record(
    "remainder",
    np.remainder,
    lambda a, b, y: (UNIT, -floor_divide(a, b)),
    None,
    [REAL, POSITIVE],
    cost=8,
    smooth=False,
)
fmod = _record(
    "fmod", np.fmod, lambda a, b, y: (UNIT, -trunc(a / b)), lambda e, a, b: e.call("fmod", a, b), [REAL, POSITIVE],
    cost=8, smooth=False,
)  # fmt: skip


def _power_partials(x: Node, p: Node, y: Node) -> Sequence[Partial]:
    # x**p at x = 0: p * x**(p-1) is right except for p = 0, where it would be 0 * inf instead of 0.
    # y * log(x) at x = 0 would be 0 * -inf; the limit for p > 0 is 0, and so is the choice.
    exponent = literal_value(p)
    if exponent is None:
        base = select(equal(p, number(0.0, p)), number(0.0, p), p * x ** (p - 1.0))
    elif exponent == 0:
        return (None, None)
    elif exponent == 1:
        return (UNIT, None)
    elif exponent == 2:
        base = 2.0 * x
    else:
        base = exponent * (square(x) if exponent == 3 else x ** (exponent - 1.0))
    zero = number(0.0, x)
    return base, select(logical_and(equal(x, zero), p >= zero), zero, y * log(x))


power = _record(
    "power",
    np.power,
    _power_partials,
    lambda e, x, p: e.power(x, p),
    [POSITIVE, REAL],
    cost=30,
    special=[
        ((0.0, 0.0), (0.0, 0.0)),
        ((0.0, 1.0), (1.0, 0.0)),
        ((0.0, 2.0), (0.0, 0.0)),
        ((-2.0, 3.0), (12.0, None)),
        ((-2.0, 2.0), (-4.0, None)),
    ],
)
absolute = _record(
    "absolute", np.absolute, lambda x, y: (sign(x),), lambda e, x: e.fabs(x), [REAL],
    special=[((0.0,), (0.0,)), ((-0.0,), (0.0,))], smooth=False,
)  # fmt: skip
sign: Operation = _record(
    "sign", np.sign, _none, lambda e, x: e.sign(x), [REAL], smooth=False, special=[((0.0,), (0.0,))]
)


def _choice(wins: Callable[[Node, Node], Node]) -> Partials:
    """The winner takes the derivative, a tie is shared in halves; the loser is structurally zero (a mask)."""

    def partials(a: Node, b: Node, y: Node) -> Sequence[Partial]:
        half = select(equal(a, b), number(0.5, a), number(1.0, a))
        return (
            Masked(logical_not(wins(b, a)), half),
            Masked(logical_not(wins(a, b)), half),
        )

    return partials


_TIE = [((1.0, 1.0), (0.5, 0.5)), ((0.0, 0.0), (0.5, 0.5)), ((2.0, 1.0), (1.0, 0.0))]
_TIE_MIN = [((1.0, 1.0), (0.5, 0.5)), ((0.0, 0.0), (0.5, 0.5)), ((2.0, 1.0), (0.0, 1.0))]
_greater = lambda a, b: a > b  # noqa: E731
_less = lambda a, b: a < b  # noqa: E731
maximum = _record(
    "maximum", np.maximum, _choice(_greater), lambda e, a, b: e.maximum(a, b), [REAL, REAL],
    special=_TIE, smooth=False,
)  # fmt: skip
minimum = _record(
    "minimum", np.minimum, _choice(_less), lambda e, a, b: e.minimum(a, b), [REAL, REAL],
    special=_TIE_MIN, smooth=False,
)  # fmt: skip
fmax = _record(
    "fmax", np.fmax, _choice(lambda a, b: logical_or(a > b, isnan(b))), None, [REAL, REAL], special=_TIE, smooth=False
)
fmin = _record(
    "fmin", np.fmin, _choice(lambda a, b: logical_or(a < b, isnan(b))), None, [REAL, REAL],
    special=_TIE_MIN, smooth=False,
)  # fmt: skip

# --- exponentials, logarithms, roots ----------------------------------------------------------------------------


def _function(
    name: str,
    ufunc: np.ufunc,
    partial: Callable[[Node, Node], Partial],
    domain: Interval = REAL,
    *,
    call: str | None = None,
    cost: float = 20.0,
    special: Sequence[tuple[tuple[float, ...], tuple[float | None, ...]]] = (),
) -> Operation:
    """A record of one smooth function that the C library knows by the name ``call``."""
    symbol = call or name
    return _record(
        name,
        ufunc,
        lambda x, y: (partial(x, y),),
        lambda e, x: e.call(symbol, x),
        [domain],
        cost=cost,
        special=special,
    )


exp = _function("exp", np.exp, lambda x, y: y)
exp2 = _function("exp2", np.exp2, lambda x, y: y * math.log(2.0))
expm1 = _function("expm1", np.expm1, lambda x, y: y + 1.0)
log = _function("log", np.log, lambda x, y: 1.0 / x, POSITIVE, special=[((0.0,), (math.inf,))])
log2 = _function("log2", np.log2, lambda x, y: 1.0 / (x * math.log(2.0)), POSITIVE)
log10 = _function("log10", np.log10, lambda x, y: 1.0 / (x * math.log(10.0)), POSITIVE)
log1p = _function("log1p", np.log1p, lambda x, y: 1.0 / (x + 1.0), (-0.9, 3.0))
sqrt = _record(
    "sqrt", np.sqrt, lambda x, y: (0.5 / y,), lambda e, x: e.sqrt(x), [POSITIVE], cost=6,
    special=[((0.0,), (math.inf,))],
)  # fmt: skip
cbrt = _function(
    "cbrt", np.cbrt, lambda x, y: 1.0 / (3.0 * y * y), POSITIVE,
    special=[((-8.0,), (1.0 / 12.0,)), ((0.0,), (math.inf,))],
)  # fmt: skip
hypot = _record(
    "hypot",
    np.hypot,
    lambda a, b, y: (_safe_ratio(a, y), _safe_ratio(b, y)),
    lambda e, a, b: e.call("hypot", a, b),
    [REAL, REAL],
    cost=20,
    special=[((0.0, 0.0), (0.0, 0.0)), ((3.0, 4.0), (0.6, 0.8))],
)


def _safe_ratio(a: Node, norm: Node) -> Node:
    """``a / norm``, zero where the norm is zero: the subgradient of least length."""
    zero = number(0.0, norm)
    return select(equal(norm, zero), zero, a / norm)


def _logaddexp_partials(a: Node, b: Node, y: Node) -> Sequence[Partial]:
    # Equal infinities would give inf - inf; where a == y a is the whole sum, or half of it if b is as large.
    share = select(equal(a, b), number(math.log(0.5), a), number(0.0, a))
    return exp(select(equal(a, y), share, a - y)), exp(select(equal(b, y), share, b - y))


logaddexp = _record(
    "logaddexp", np.logaddexp, _logaddexp_partials, lambda e, a, b: e.logaddexp(a, b), [REAL, REAL], cost=40
)

# --- trigonometry -----------------------------------------------------------------------------------------------

sin = _function("sin", np.sin, lambda x, y: cos(x))
cos: Operation = _function("cos", np.cos, lambda x, y: -sin(x))
tan = _function("tan", np.tan, lambda x, y: 1.0 + y * y, (-1.2, 1.2))
# 1 - x * x is written as a product, which keeps its digits where x is close to one.
arcsin = _function("arcsin", np.arcsin, lambda x, y: 1.0 / sqrt((1.0 - x) * (1.0 + x)), (-0.9, 0.9), call="asin")
arccos = _function("arccos", np.arccos, lambda x, y: -1.0 / sqrt((1.0 - x) * (1.0 + x)), (-0.9, 0.9), call="acos")
arctan = _function("arctan", np.arctan, lambda x, y: 1.0 / (1.0 + x * x), call="atan")
arctan2 = _record(
    "arctan2",
    np.arctan2,
    lambda a, b, y: (b / (a * a + b * b), -a / (a * a + b * b)),
    lambda e, a, b: e.call("atan2", a, b),
    [REAL, POSITIVE],
    cost=30,
    special=[((1.0, 0.0), (0.0, -1.0)), ((0.0, -2.0), (-0.5, 0.0))],
)
sinh = _function("sinh", np.sinh, lambda x, y: cosh(x))
cosh: Operation = _function("cosh", np.cosh, lambda x, y: sinh(x))
tanh = _function("tanh", np.tanh, lambda x, y: 1.0 - y * y)
arcsinh = _function("arcsinh", np.arcsinh, lambda x, y: 1.0 / sqrt(x * x + 1.0), call="asinh")
arccosh = _function("arccosh", np.arccosh, lambda x, y: 1.0 / (sqrt(x - 1.0) * sqrt(x + 1.0)), (1.1, 3.0), call="acosh")
arctanh = _function("arctanh", np.arctanh, lambda x, y: 1.0 / ((1.0 - x) * (1.0 + x)), (-0.9, 0.9), call="atanh")

# --- rounding: the derivative is zero wherever there is one ------------------------------------------------------

floor = _record("floor", np.floor, _none, lambda e, x: e.intrinsic("llvm.floor", x), [REAL], smooth=False)
ceil = _record("ceil", np.ceil, _none, lambda e, x: e.intrinsic("llvm.ceil", x), [REAL], smooth=False)
trunc: Operation = _record("trunc", np.trunc, _none, lambda e, x: e.intrinsic("llvm.trunc", x), [REAL], smooth=False)
rint = _record("rint", np.rint, _none, lambda e, x: e.intrinsic("llvm.rint", x), [REAL], smooth=False)

# --- comparisons and logic: no derivative -----------------------------------------------------------------------


def _comparison(name: str, ufunc: np.ufunc, symbol: str) -> Operation:
    return _record(name, ufunc, _none, lambda e, a, b: e.compare(symbol, a, b), [REAL, REAL], infer=_boolean)


less = _comparison("less", np.less, "<")
less_equal = _comparison("less_equal", np.less_equal, "<=")
greater = _comparison("greater", np.greater, ">")
greater_equal = _comparison("greater_equal", np.greater_equal, ">=")
equal = _comparison("equal", np.equal, "==")
not_equal = _comparison("not_equal", np.not_equal, "!=")
isnan: Operation = _record("isnan", np.isnan, _none, lambda e, x: e.isnan(x), [REAL], infer=_boolean)
isinf = _record(
    "isinf", np.isinf, _none, lambda e, x: e.compare("==", e.fabs(x), e.const(math.inf, x)), [REAL], infer=_boolean
)
isfinite = _record(
    "isfinite", np.isfinite, _none, lambda e, x: e.compare("<", e.fabs(x), e.const(math.inf, x)), [REAL], infer=_boolean
)
logical_and = _record("logical_and", np.logical_and, _none, lambda e, a, b: e.both(a, b), [REAL] * 2, infer=_boolean)
logical_or: Operation = _record(
    "logical_or", np.logical_or, _none, lambda e, a, b: e.either(a, b), [REAL] * 2, infer=_boolean
)
logical_xor = _record("logical_xor", np.logical_xor, _none, None, [REAL, REAL], infer=_boolean)
logical_not = _record("logical_not", np.logical_not, _none, lambda e, x: e.invert(x), [REAL], infer=_boolean)

# --- selection and conversion -----------------------------------------------------------------------------------


def _select_infer(params: Any, mask: Node, a: Node, b: Node) -> tuple[Shape, DType]:
    assert mask.dtype == BOOL and mask.shape == a.shape == b.shape and a.dtype == b.dtype, (mask, a, b)
    return a.shape, a.dtype


def _select_partials(mask: Node, a: Node, b: Node, y: Node) -> Sequence[Partial]:
    return None, Masked(mask, UNIT), Masked(logical_not(mask), UNIT)


select = register(
    Operation(
        name="select",
        family="elementwise",
        evaluate=lambda params, mask, a, b: np.where(mask, a, b),
        infer=_select_infer,
        edges=_edges(_select_partials),
        emit=lambda e, mask, a, b: e.select(mask, a, b),
        domain=(REAL, REAL, REAL),
        smooth=False,
    )
)


class CastParams(NamedTuple):
    """Conversion to another dtype."""

    dtype: DType


def _cast_partials(x: Node, y: Node) -> Sequence[Partial]:
    return (UNIT,) if x.dtype.kind == "f" and y.dtype.kind == "f" else (None,)


def _cast_infer(params: CastParams, x: Node) -> tuple[Shape, DType]:
    if params.dtype.kind == "c":  # the graph is real, and a silent cast would end the derivative
        raise UnsupportedOperationError(
            "a complex dtype was asked of a function of real numbers; convert its argument with x.astype(complex)"
        )
    return x.shape, params.dtype


def _cast_evaluate(params: CastParams, x: Array) -> Array:
    return np.asarray(x).astype(params.dtype)


cast = register(
    Operation(
        name="cast",
        family="elementwise",
        evaluate=_cast_evaluate,
        infer=_cast_infer,
        edges=_edges(_cast_partials),
        emit=lambda e, x: e.cast(x),
        domain=(REAL,),
    )
)


def number(value: float, like: Node) -> Node:
    """``value`` in the shape and dtype of ``like``, for rules that write constants."""
    from ..build import full

    return full(value, like.shape, like.dtype)
