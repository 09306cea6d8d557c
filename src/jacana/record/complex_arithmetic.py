"""Ufuncs of complex numbers, part by part as NumPy computes them.

Where NumPy converts a real operand to a complex one, its imaginary part is a zero that counts: it makes -0.0 to 0.0,
which decides on which side of a branch cut ``sqrt(-1.0 * z)`` lies, and it makes a NaN of an infinity. So these zeros
are computed with. They have no derivative: ``nought(x)`` is ``0 * x`` in value and in nothing else.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..graph.build import full
from ..graph.node import REGISTRY, DType, Node, Shape, literal_value
from ..graph.ops import complex as records
from ..graph.ops.elementwise import BOOL
from .complex import depends, part_nodes, plain, real_dtype, wrap_parts
from .elementwise import loop_dtypes
from .lift import acceptable, plain_operand
from .table import COMPLEX_UFUNCS, is_complex
from .variable import wrap_constant, wrap_node


class Operand(NamedTuple):
    """The parts of an operand as nodes of one shape and dtype; a real operand has no imaginary part."""

    re: Node
    im: Node | None

    def whole(self) -> tuple[Node, Node]:
        """Both parts: zeros for the imaginary part of a real operand."""
        return self.re, full(0.0, self.re.shape, self.re.dtype) if self.im is None else self.im


# --- arithmetic of parts, exact in the sign of zero ---------------------------------------------------------------


def _zero(like: Node) -> Node:
    return full(0.0, like.shape, like.dtype)


def _literal(node: Node) -> float | None:
    value = literal_value(node)
    return None if value is None else float(value)


def _known(value: Any, like: Node) -> Node:
    return full(like.dtype.type(value), like.shape, like.dtype)


def _is_zero(x: float | None, sign: float) -> bool:
    return x == 0 and math.copysign(1.0, x) == sign


def plus(p: Node, q: Node) -> Node:
    """The sum; adding -0.0 is left out, and adding 0.0 once more."""
    a, b = _literal(p), _literal(q)
    if a is not None and b is not None:
        return _known(p.dtype.type(a) + p.dtype.type(b), p)
    for x, other, node in ((a, q, p), (b, p, q)):
        if _is_zero(x, -1.0) or (_is_zero(x, 1.0) and other.op.name == "add" and node in other.inputs):
            return other
    return REGISTRY["add"](p, q)


def minus(p: Node, q: Node) -> Node:
    """The difference; taking away 0.0 is left out."""
    a, b = _literal(p), _literal(q)
    if a is not None and b is not None:
        return _known(p.dtype.type(a) - p.dtype.type(b), p)
    return p if _is_zero(b, 1.0) else REGISTRY["subtract"](p, q)


def nought(x: Node, sign: float = 1.0) -> Node:
    """Zero times ``x``: zeros with the sign of ``x`` (or the other), NaN where it is not finite, and no derivative."""
    value = _literal(x)
    if value is not None:
        return _known(math.copysign(0.0, sign) * value, x)
    # What is rounded has no derivative, and the product with zero is that of x itself.
    return _known(math.copysign(0.0, sign), x) * REGISTRY["rint"](x)


def times(p: Node | None, q: Node | None) -> Node:
    """The product; None is the zero imaginary part of a real operand."""
    if p is None or q is None:
        other = q if p is None else p
        assert other is not None
        return nought(other)
    a, b = _literal(p), _literal(q)
    if a is not None and b is not None:
        return _known(p.dtype.type(a) * p.dtype.type(b), p)
    for x, other in ((a, q), (b, p)):
        if x == 0:
            return nought(other, math.copysign(1.0, x))
        if x == 1:
            return other
    return REGISTRY["multiply"](p, q)


# --- rules ----------------------------------------------------------------------------------------------------------


def _add(a: Operand, b: Operand) -> tuple[Node, Node]:
    (ar, ai), (br, bi) = a.whole(), b.whole()
    return plus(ar, br), plus(ai, bi)


def _subtract(a: Operand, b: Operand) -> tuple[Node, Node]:
    (ar, ai), (br, bi) = a.whole(), b.whole()
    return minus(ar, br), minus(ai, bi)


def _multiply(a: Operand, b: Operand) -> tuple[Node, Node]:
    if a is b or a == b:
        return _square(a)
    return minus(times(a.re, b.re), times(a.im, b.im)), plus(times(a.re, b.im), times(a.im, b.re))


def _square(a: Operand) -> tuple[Node, Node]:
    re, im = a.whole()
    return minus(REGISTRY["square"](re), REGISTRY["square"](im)), times(re, im) * 2.0


def _divide(a: Operand, b: Operand) -> tuple[Node, Node]:
    if b.im is None:
        return _divide_by_real(*a.whole(), b.re)
    return _parts(records.divide(*a.whole(), *b.whole()))


def _divide_by_real(re: Node, im: Node, divisor: Node) -> tuple[Node, Node]:
    # NumPy multiplies by the reciprocal of the larger part, after adding what the smaller one gives: here zeros.
    known = _literal(divisor)
    if known is not None and known != 0:
        with np.errstate(all="ignore"):
            scale = _known(divisor.dtype.type(1.0) / divisor.dtype.type(known), divisor)
        sign = math.copysign(1.0, known)
        across, back = nought(im, sign), nought(re, sign)
    else:
        scale = REGISTRY["reciprocal"](plus(divisor, _zero(divisor)))
        side = REGISTRY["sign"](divisor)
        across, back = nought(im * side), nought(re * side)
    return times(plus(re, across), scale), times(minus(im, back), scale)


def _power(a: Operand, b: Operand) -> tuple[Node, Node]:
    match _literal(b.re) if b.im is None or _literal(b.im) == 0 else None:
        case 1:
            return a.whole()
        case 2:
            return _square(a)
    return _parts(records.power(*a.whole(), *b.whole()))


def _parts(node: Node) -> tuple[Node, Node]:
    return records.part(node, 0), records.part(node, 1)


def _conjugate(a: Operand) -> tuple[Node, Node]:
    re, im = a.whole()
    return re, -im


def _sign(a: Operand) -> tuple[Node, Node]:
    # z / |z|, and zero, without derivative, at zero.
    re, im = a.whole()
    length, zero = REGISTRY["hypot"](re, im), _zero(re)
    nowhere = REGISTRY["equal"](length, zero)
    safe = REGISTRY["select"](nowhere, full(1.0, re.shape, re.dtype), length)
    select = REGISTRY["select"]
    return select(nowhere, zero, re / safe), select(nowhere, zero, im / safe)


def _each(name: str) -> Callable[[Operand], tuple[Node, Node]]:
    operation = REGISTRY[name]
    return lambda a: (operation(a.re), operation(a.whole()[1]))


def _recorded(operation: Any) -> Callable[[Operand], tuple[Node, Node]]:
    return lambda a: _parts(operation(*a.whole()))


def _either(name: str, join: str) -> Callable[[Operand], Node]:
    return lambda a: REGISTRY[join](*(REGISTRY[name](x) for x in a.whole()))


def _equal(a: Operand, b: Operand) -> Node:
    (ar, ai), (br, bi) = a.whole(), b.whole()
    return REGISTRY["logical_and"](REGISTRY["equal"](ar, br), REGISTRY["equal"](ai, bi))


def _ordered(first: str, second: str) -> Callable[[Operand, Operand], Node]:
    """By the real part, then by the imaginary part; a NaN in the latter is never in order."""

    def rule(a: Operand, b: Operand) -> Node:
        (ar, ai), (br, bi) = a.whole(), b.whole()
        both, either = REGISTRY["logical_and"], REGISTRY["logical_or"]
        known = both(*(REGISTRY["logical_not"](REGISTRY["isnan"](x)) for x in (ai, bi)))
        return either(both(REGISTRY[first](ar, br), known), both(REGISTRY["equal"](ar, br), REGISTRY[second](ai, bi)))

    return rule


# --- handlers ---------------------------------------------------------------------------------------------------------


def _numeric(value: Any) -> bool:
    return is_complex(value) or acceptable(value)


def _lifted(value: Any, shape: Shape, dtype: DType) -> Operand:
    return Operand(*part_nodes(value, shape, dtype))


def _enter(ufunc: np.ufunc, rule: Callable[..., Any]) -> None:
    """Enter a ufunc whose result is complex (``rule`` gives two nodes) or real (one node)."""

    def handler(*operands: Any, evaluate: Any = ufunc, **options: Any) -> Any:
        if not all(map(_numeric, operands)):
            return NotImplemented
        operands = tuple(map(plain_operand, operands))
        numbers = [plain(x) for x in operands]
        value = evaluate(*numbers)
        if not depends(*operands):
            return wrap_constant(value)
        shape = value.shape
        dtypes = loop_dtypes(ufunc, *numbers)
        found = rule(*(_lifted(x, shape, real_dtype(d)) for x, d in zip(operands, dtypes, strict=True)))
        if isinstance(found, tuple):
            return wrap_parts(value, *found)
        return wrap_node(found, value)

    COMPLEX_UFUNCS[ufunc] = handler


_RULES: tuple[tuple[np.ufunc, Callable[..., Any]], ...] = (
    (np.add, _add), (np.subtract, _subtract), (np.multiply, _multiply), (np.divide, _divide), (np.power, _power),
    (np.negative, _each("negative")), (np.positive, lambda a: a.whole()), (np.conjugate, _conjugate),
    (np.square, _square), (np.sign, _sign), (np.rint, _each("rint")),
    (np.absolute, lambda a: REGISTRY["hypot"](*a.whole())),
    (np.isfinite, _either("isfinite", "logical_and")), (np.isnan, _either("isnan", "logical_or")),
    (np.isinf, _either("isinf", "logical_or")), (np.equal, _equal),
    (np.not_equal, lambda a, b: REGISTRY["logical_not"](_equal(a, b))),
    (np.less, _ordered("less", "less")), (np.less_equal, _ordered("less", "less_equal")),
    (np.greater, _ordered("greater", "greater")), (np.greater_equal, _ordered("greater", "greater_equal")),
)  # fmt: skip
for _ufunc, _rule in _RULES:
    _enter(_ufunc, _rule)


def enter_record(ufunc: np.ufunc, operation: Any) -> Callable[..., Any]:
    """Enter a ufunc of one operand by its record; the handler."""
    _enter(ufunc, _recorded(operation))
    return COMPLEX_UFUNCS[ufunc]


for _ufunc, _operation in records.RECORDS.items():
    if _ufunc not in COMPLEX_UFUNCS:
        enter_record(_ufunc, _operation)


_power_of_any = COMPLEX_UFUNCS[np.power]
_SHORT_POWERS: dict[float, np.ufunc] = {0.5: np.sqrt, -1.0: np.reciprocal}


def _power_by(x: Any, p: Any, evaluate: Any = np.power, **options: Any) -> Any:
    """The operator takes a shorter way for arrays to the power of some numbers, as NumPy's does."""
    short = _SHORT_POWERS.get(p) if type(p) in (int, float) and evaluate is operator.pow else None
    if short is not None and isinstance(plain(x), np.ndarray):
        return COMPLEX_UFUNCS[short](x, evaluate=lambda number: evaluate(number, p))
    return _power_of_any(x, p, evaluate=evaluate)


COMPLEX_UFUNCS[np.power] = _power_by


def _logical(ufunc: np.ufunc) -> None:
    def handler(*operands: Any, **options: Any) -> Any:
        return ufunc(*(x if getattr(x, "dtype", None) == BOOL else x != 0 for x in map(plain_operand, operands)))

    COMPLEX_UFUNCS[ufunc] = handler


for _logic in (np.logical_and, np.logical_or, np.logical_xor, np.logical_not):
    _logical(_logic)


def _float_power(x: Any, p: Any, **options: Any) -> Any:
    """Power in at least double precision."""
    dtype = np.result_type(plain(x), plain(p), np.complex128)
    return np.power(*(np.astype(v, dtype) if hasattr(v, "dtype") else v for v in map(plain_operand, (x, p))))


COMPLEX_UFUNCS[np.float_power] = _float_power
