"""Ufuncs: each elementwise record of the graph is entered under its ufunc; a few more are written with these.

The number comes from NumPy applied to the raw operands, so value, shape and dtype are NumPy's own by construction.
The node needs equal shapes and dtypes: NumPy's own choice of loop says to which dtype each operand is converted.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..graph.build import assembled, broadcast_to, cast_to, full, index_node, sum_axes
from ..graph.index import Index, from_table
from ..graph.node import REGISTRY, Array, DType, Node, Operation
from ..graph.ops.elementwise import BOOL
from ..graph.ops.flat import FLAT, exponent, ldexp
from .lift import acceptable, as_dtype, operand, plain_operand, with_zeros
from .table import UFUNCS, Handler, implements, otherwise
from .variable import Variable, raw, tracked, wrap_constant, wrap_node

SCATTERED = 4096  # powers up to which those by zero are left out: a choice takes longer than the power of an integer
_LOGICAL = (np.logical_and, np.logical_or, np.logical_xor, np.logical_not)
_loops: dict[tuple[Any, ...], tuple[DType, ...]] = {}


def loop_dtypes(ufunc: np.ufunc, *values: Any) -> tuple[DType, ...]:
    """The dtypes to which NumPy converts the operands of ``ufunc``; Python numbers are weak (NEP 50)."""
    kinds = tuple(type(v) if type(v) in (int, float, complex) else _dtype(v) for v in values)
    key = (ufunc, kinds)
    found = _loops.get(key)
    if found is None:
        if ufunc in _LOGICAL:
            found = (BOOL,) * len(kinds)
        else:
            found = ufunc.resolve_dtypes((*kinds, *(None,) * ufunc.nout))[: len(kinds)]
        _loops[key] = found
    return found


def _dtype(value: Any) -> DType:
    dtype: DType = value.dtype if isinstance(value, (np.ndarray, np.generic)) else np.asarray(value).dtype
    return dtype


def _unary(operation: Operation, ufunc: np.ufunc) -> Handler:
    """The handler of a ufunc of one operand."""

    def handler(x: Any) -> Any:
        if type(x) is not Variable:
            if not acceptable(x):
                return otherwise(ufunc, x)
            x = plain_operand(x)
        node = tracked(x)
        value = raw(x)
        if node is None:
            return wrap_constant(ufunc(value))
        value = ufunc(value)
        if node.dtype.kind != "f" or logical:
            node = cast_to(node, loop_dtypes(ufunc, raw(x))[0])
        return wrap_node(operation(node), value)

    logical = ufunc in _LOGICAL
    return handler


def _binary(operation: Operation, ufunc: np.ufunc) -> Handler:
    """The handler of a ufunc of two operands; ``evaluate`` is the Python operator where that was written."""

    def handler(a: Any, b: Any, evaluate: Any = ufunc) -> Any:
        if type(a) is Variable:
            na = a._node if a._alias is None and a._writes is None else a._tracked()
            va = a._value
        else:
            if not acceptable(a):
                return otherwise(ufunc, a, b)
            va, na = plain_operand(a), None
            if type(va) is Variable:
                return handler(va, b, evaluate)
        if type(b) is Variable:
            nb = b._node if b._alias is None and b._writes is None else b._tracked()
            vb = b._value
        else:
            if not acceptable(b):
                return otherwise(ufunc, a, b)
            vb, nb = plain_operand(b), None
            if type(vb) is Variable:
                return handler(a, vb, evaluate)
        value = evaluate(va, vb)
        if na is not None and nb is not None:
            if na.dtype == nb.dtype and na.shape == nb.shape and na.dtype.kind == "f" and not logical:
                if na is nb and ufunc is np.multiply and _is_length(na):
                    return wrap_node(_square(na), value)
                return wrap_node(operation(na, nb), value)
        elif na is None and nb is None:
            return wrap_constant(value)
        left, right = loop_dtypes(ufunc, va, vb)
        shape = value.shape
        left_node = operand(a, shape, left)
        node = operation(left_node, operand(b, shape, right))
        # A Python operator may take a shorter way than the ufunc (powers by a number), with a dtype of its own.
        return wrap_node(node if node.dtype == value.dtype else cast_to(node, value.dtype), value)

    logical = ufunc in _LOGICAL
    return handler


for _operation in list(REGISTRY.values()):
    if _operation.family == "elementwise" and _operation.ufunc is not None:
        _make = _unary if _operation.ufunc.nin == 1 else _binary
        UFUNCS[_operation.ufunc] = _make(_operation, _operation.ufunc)

_power = UFUNCS[np.power]


def _square(node: Node) -> Node:
    """The square; of a length the sum of squares, whose second derivative is right where the length is zero."""
    match node.op.name:
        case "index":
            return index_node(_square(node.inputs[0]), node.shape, node.params.indices)
        case "absolute":
            return REGISTRY["square"](node.inputs[0])
        case "hypot":
            return REGISTRY["add"](*(REGISTRY["square"](i) for i in node.inputs))
        case "norm":
            (x,) = node.inputs
            return sum_axes(REGISTRY["square"](x), node.params.axes)
    return REGISTRY["square"](node)


_LENGTHS = frozenset({"absolute", "hypot", "norm"})


def _is_length(node: Node) -> bool:
    return node.op.name in _LENGTHS or (node.op.name == "index" and node.inputs[0].op.name in _LENGTHS)


_square_of = UFUNCS[np.square]


@implements(np.square)
def square(x: Any) -> Any:
    """``x * x``."""
    node = tracked(x)
    if node is None or not _is_length(node):
        return _square_of(x)
    return wrap_node(_square(node), np.square(raw(x)))


@implements(np.power)
def power(x: Any, p: Any, evaluate: Any = np.power) -> Any:
    """``x ** 2`` is its own operation: exact derivative, and the native code is one multiplication."""
    node = tracked(x)
    if node is not None and type(p) in (int, float) and p == 2 and node.dtype.kind == "f":
        return wrap_node(_square(node), evaluate(raw(x), p))
    if node is not None and type(p) not in (int, float) and tracked(p) is None:
        value = evaluate(raw(x), raw(p))
        exponents = with_zeros(p) if np.size(value) <= SCATTERED else p
        if exponents is not p:
            return _power_with_zeros(x, exponents, value)
    return _power(x, p, evaluate)


def _power_with_zeros(x: Any, p: Variable, value: Array) -> Any:
    """Exponents that are zero are structure: the orders of reactions in which a substance takes no part."""
    if np.shape(raw(p)) != value.shape:
        # The same exponents for several numbers (a Vandermonde matrix): a choice, which needs no table of places.
        part = broadcast_to(cast_to(as_dtype(p, raw(p).dtype), BOOL), value.shape)
        chosen = operand(_power(x, p), value.shape, value.dtype), full(1.0, value.shape, value.dtype)
        return wrap_node(REGISTRY["select"](part, *chosen), value)
    exponents: Any = np.broadcast_to(p, value.shape)
    base: Any = np.broadcast_to(x, value.shape)
    parts: list[tuple[Node, tuple[Index, ...]]] = []
    for places in (np.nonzero(raw(exponents)), np.nonzero(raw(exponents) == 0)):
        count = len(places[0])
        rows = tuple(from_table(place, (0,)) for place in places)
        if parts:
            parts.append((full(1.0, (count,), value.dtype), rows))
        else:
            powers = _power(base[places], exponents[places])
            parts.append((operand(powers, (count,), value.dtype), rows))
    return wrap_node(assembled(parts, value.shape, value.dtype, disjoint=True), value)


@implements(np.float_power)
def float_power(x: Any, p: Any) -> Any:
    """Power in at least double precision."""
    return with_value(np.float_power(raw(x), raw(p)), power(_as(x, np.float64), _as(p, np.float64)))


@implements(np.positive, np.conjugate)
def positive(x: Any) -> Any:
    """A copy."""
    node = tracked(x)
    value = +raw(x)
    return wrap_constant(value) if node is None else wrap_node(node, value)


@implements(np.fabs)
def fabs(x: Any) -> Any:
    """The absolute value as a floating-point number."""
    return with_value(np.fabs(raw(x)), UFUNCS[np.absolute](_as_float(x, np.fabs)))


def _of_integers(ufunc: np.ufunc, logical: np.ufunc | None = None) -> None:
    """A ufunc whose result has no derivative; of booleans it may be a logical one."""

    def handler(*operands: Any) -> Any:
        operands = tuple(plain_operand(o) for o in operands[: ufunc.nin])
        values = [raw(o) for o in operands]
        value = ufunc(*values)
        if all(tracked(o) is None for o in operands):
            return wrap_constant(value)
        if logical is not None and value.dtype == BOOL:
            return with_value(value, UFUNCS[logical](*operands))
        kinds = loop_dtypes(ufunc, *values)
        nodes = [operand(o, value.shape, kind) for o, kind in zip(operands, kinds, strict=True)]
        return wrap_node(FLAT[ufunc.__name__](*nodes), value)

    UFUNCS[ufunc] = handler


for _name in FLAT:
    if hasattr(np, _name):
        _of_integers(getattr(np, _name))
_of_integers(np.bitwise_and, np.logical_and)
_of_integers(np.bitwise_or, np.logical_or)
_of_integers(np.bitwise_xor, np.logical_xor)
_of_integers(np.invert, np.logical_not)


def _scaled(ufunc: np.ufunc, factor: float) -> None:
    def handler(x: Any) -> Any:
        return with_value(ufunc(raw(x)), UFUNCS[np.multiply](_as_float(x, ufunc), factor, operator.mul))

    UFUNCS[ufunc] = handler


for _u in (np.deg2rad, np.radians):
    _scaled(_u, math.pi / 180.0)
for _v in (np.rad2deg, np.degrees):
    _scaled(_v, 180.0 / math.pi)


@implements(np.divmod)
def divmod_(a: Any, b: Any) -> Any:
    """Quotient and remainder."""
    return UFUNCS[np.floor_divide](a, b), UFUNCS[np.remainder](a, b)


@implements(np.modf)
def modf(x: Any) -> Any:
    """Fractional and whole part; of an infinity, the fraction is zero."""
    whole = UFUNCS[np.trunc](x)
    fraction, part = np.modf(raw(x))
    rest = np.where(np.isinf(x), np.zeros((), fraction.dtype), UFUNCS[np.subtract](x, whole))
    return with_value(fraction, rest), with_value(part, whole)


@implements(np.heaviside)
def heaviside(x: Any, at_zero: Any) -> Any:
    """A step; the derivative is zero wherever there is one, and at the step itself that of ``at_zero``."""
    value = np.heaviside(raw(x), raw(at_zero))
    x = _as(x, value.dtype)
    return with_value(value, np.where(x == 0, at_zero, np.where(x < 0, 0.0, np.where(x > 0, 1.0, np.sign(x)))))


@implements(np.logaddexp2)
def logaddexp2(a: Any, b: Any) -> Any:
    """``log2(2**a + 2**b)``, by the natural one."""
    value = np.logaddexp2(raw(a), raw(b))
    log2 = math.log(2.0)
    natural = UFUNCS[np.logaddexp](_as(a, value.dtype) * log2, _as(b, value.dtype) * log2)
    return with_value(value, natural / log2)


@implements(np.copysign)
def copysign(x: Any, sign: Any) -> Any:
    """``|x|`` with the sign of ``sign``, which tells the zeros apart and has no derivative."""
    value = np.copysign(raw(plain_operand(x)), raw(plain_operand(sign)))
    direction = np.where(np.signbit(sign), -1.0, 1.0)
    return with_value(value, UFUNCS[np.absolute](_as(plain_operand(x), value.dtype)) * _as(direction, value.dtype))


@implements(np.frexp)
def frexp(x: Any) -> Any:
    """Mantissa and exponent; only the mantissa has a derivative."""
    values = np.frexp(raw(x))
    node = tracked(x)
    if node is None:
        return tuple(wrap_constant(v) for v in values)
    node = cast_to(node, loop_dtypes(np.frexp, raw(x))[0])
    power = exponent(node)
    return wrap_node(ldexp(node, UFUNCS[np.negative](wrap_node(power, values[1])).node), values[0]), wrap_node(
        power, values[1]
    )


@implements(np.isneginf)
def isneginf(x: Any, out: Any = None) -> Any:
    """Which elements are minus infinity."""
    return UFUNCS[np.equal](x, -np.inf)


@implements(np.isposinf)
def isposinf(x: Any, out: Any = None) -> Any:
    """Which elements are infinity."""
    return UFUNCS[np.equal](x, np.inf)


def with_value(value: Any, computed: Any) -> Any:
    """``computed`` with the number that NumPy itself gave for the whole function, which may differ in the last bit."""
    node = tracked(computed)
    return wrap_constant(value) if node is None else wrap_node(node, value)


def _as(x: Any, dtype: Any) -> Any:
    """A Variable converted to ``dtype``; other operands as they are."""
    node = tracked(x)
    return x if node is None else wrap_node(cast_to(node, np.dtype(dtype)), raw(x).astype(dtype))


def _as_float(x: Any, ufunc: np.ufunc) -> Any:
    return _as(x, loop_dtypes(ufunc, raw(x))[0])
