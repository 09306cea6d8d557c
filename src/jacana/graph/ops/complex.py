"""Functions of complex numbers. The graph is real: an argument is two arrays, a result has its parts in its last axis.

Sums, products and conjugates of complex numbers are written with the elementwise records, part by part. What is here
has a reason not to be: NumPy scales, takes branches, or meets special values in a way that only NumPy's own function
repeats. So that function is the value, and the derivative is that of a holomorphic function: with ``f' = p + i q``, the
result ``u + i v`` of ``x + i y`` has ``u_x = v_y = p`` and ``v_x = -u_y = q``. Derivatives of inverse functions are
written as products of square roots that have the branch cuts of the function itself: Kahan, "Branch cuts for complex
elementary functions" (1987).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..index import Affine, identity
from ..node import Array, DType, Edges, Factor, Node, Operation, Shape, Term, literal_value, register
from .elementwise import equal, logical_and, number, select
from .fourier import combined, parted
from .peel import peel


class Pair(NamedTuple):
    """A complex array of the program, for derivative rules: its real part and its imaginary part."""

    re: Node
    im: Node

    def __add__(self, other: Pair | float) -> Pair:  # type: ignore[override]
        return (
            Pair(self.re + other.re, self.im + other.im) if isinstance(other, Pair) else Pair(self.re + other, self.im)
        )

    def __sub__(self, other: Pair | float) -> Pair:
        return (
            Pair(self.re - other.re, self.im - other.im) if isinstance(other, Pair) else Pair(self.re - other, self.im)
        )

    def __neg__(self) -> Pair:
        return Pair(-self.re, -self.im)

    def __mul__(self, other: Pair | float) -> Pair:  # type: ignore[override]
        if isinstance(other, Pair):
            return Pair(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)
        return Pair(self.re * other, self.im * other)

    def turned(self) -> Pair:
        """Times i."""
        return Pair(-self.im, self.re)


def pair(node: Node) -> Pair:
    """The parts of a result."""
    return Pair(part(node, 0), part(node, 1))


def part(node: Node, k: int) -> Node:
    """One part of a result: the real part is 0, the imaginary part 1."""
    from ..build import index_node

    return index_node(node, node.shape[:-1], (*identity(node.ndim - 1), Affine(k)))


def infer_parts(params: Any, *parts: Node) -> tuple[Shape, DType]:
    """The shape and dtype of a result whose parts are in its last axis."""
    first = parts[0]
    assert all(x.shape == first.shape and x.dtype == first.dtype for x in parts), parts
    return (*first.shape, 2), first.dtype


def holomorphic_edges(derivative: Pair | None) -> list[tuple[Term, ...] | None]:
    """The edges to the real and the imaginary part of one argument; None: it has no derivative."""
    if derivative is None:
        return [None, None]
    shape = derivative.re.shape
    every = identity(len(shape))
    axes = tuple(range(len(shape)))

    def term(k: int, coefficient: Node) -> Term:
        one = literal_value(coefficient)
        factors: tuple[Factor, ...] = () if one == 1 else (peel(coefficient, axes),)
        return Term(shape, (*every, Affine(k)), every, factors)

    p, q = derivative
    if literal_value(q) == 0:
        return [(term(0, p),), (term(1, p),)]
    return [(term(0, p), term(1, q)), (term(0, -q), term(1, p))]


Derivatives = Callable[..., Sequence["Pair | None"]]


def operation_of(name: str, ufunc: np.ufunc, derivatives: Derivatives, family: str = "complex") -> Operation:
    """Register the record of a ufunc; ``derivatives(*operands, result)`` has one for each operand."""

    def evaluate(params: Any, *parts: Array) -> Array:
        operands = [combined(parts[k], parts[k + 1]) for k in range(0, len(parts), 2)]
        return parted(ufunc(*operands))

    def edges(node: Node) -> Edges:
        operands = [Pair(*node.inputs[k : k + 2]) for k in range(0, len(node.inputs), 2)]
        found = derivatives(*operands, pair(node))
        return tuple(terms for derivative in found for terms in holomorphic_edges(derivative))

    return register(
        Operation(
            name=f"complex_{name}",
            family=family,
            evaluate=evaluate,
            infer=infer_parts,
            edges=edges,
            cost=60.0,
        )
    )


def _function(name: str, ufunc: np.ufunc, derivative: Callable[[Pair, Pair], Pair]) -> Operation:
    return operation_of(name, ufunc, lambda z, w: (derivative(z, w),))


def _reciprocal(z: Pair) -> Pair:
    return pair(reciprocal(*z))


def _sqrt(z: Pair) -> Pair:
    return pair(sqrt(*z))


def _arcsine(z: Pair) -> Pair:
    # 1 / (sqrt(1 - z) sqrt(1 + z)), which jumps where arcsin does.
    return _reciprocal(_sqrt(-z + 1.0) * _sqrt(z + 1.0))


def _quotient(a: Pair, b: Pair, w: Pair) -> Sequence[Pair]:
    inverse = _reciprocal(b)
    return inverse, -(w * inverse)


def _power(z: Pair, p: Pair, w: Pair) -> Sequence[Pair | None]:
    exponent = literal_value(p.re) if literal_value(p.im) == 0 else None
    zero = logical_and(equal(z.re, number(0.0, z.re)), equal(z.im, number(0.0, z.im)))
    none = number(0.0, z.re)
    if exponent is None:
        base = p * pair(power(*z, *(p - 1.0)))
        # p z**(p - 1) would be 0 * inf where both are zero.
        still = logical_and(equal(p.re, none), equal(p.im, none))
        by_base: Pair | None = Pair(select(still, none, base.re), select(still, none, base.im))
    elif exponent == 0:
        by_base = None
    elif exponent == 1:
        by_base = Pair(number(1.0, z.re), none)
    elif exponent == 2:
        by_base = z * 2.0
    else:
        by_base = pair(power(*z, *(p - 1.0))) * exponent
    # z**p log z would be 0 * inf at zero, where the limit for exponents to the right of zero is 0.
    logarithm = w * pair(log(*z))
    return by_base, Pair(select(zero, none, logarithm.re), select(zero, none, logarithm.im))


divide = operation_of("divide", np.divide, _quotient)
reciprocal: Operation = _function("reciprocal", np.reciprocal, lambda z, w: -(w * w))
power: Operation = operation_of("power", np.power, _power)
sqrt: Operation = _function("sqrt", np.sqrt, lambda z, w: _reciprocal(w) * 0.5)
exp = _function("exp", np.exp, lambda z, w: w)
exp2 = _function("exp2", np.exp2, lambda z, w: w * math.log(2.0))
expm1 = _function("expm1", np.expm1, lambda z, w: w + 1.0)
log: Operation = _function("log", np.log, lambda z, w: _reciprocal(z))
log2 = _function("log2", np.log2, lambda z, w: _reciprocal(z) * (1.0 / math.log(2.0)))
log10 = _function("log10", np.log10, lambda z, w: _reciprocal(z) * (1.0 / math.log(10.0)))
log1p = _function("log1p", np.log1p, lambda z, w: _reciprocal(z + 1.0))
sin = _function("sin", np.sin, lambda z, w: pair(cos(*z)))
cos: Operation = _function("cos", np.cos, lambda z, w: -pair(sin(*z)))
tan = _function("tan", np.tan, lambda z, w: w * w + 1.0)
sinh = _function("sinh", np.sinh, lambda z, w: pair(cosh(*z)))
cosh: Operation = _function("cosh", np.cosh, lambda z, w: pair(sinh(*z)))
tanh = _function("tanh", np.tanh, lambda z, w: -(w * w) + 1.0)
arcsin = _function("arcsin", np.arcsin, lambda z, w: _arcsine(z))
arccos = _function("arccos", np.arccos, lambda z, w: -_arcsine(z))
arctan = _function("arctan", np.arctan, lambda z, w: _reciprocal((-z.turned() + 1.0) * (z.turned() + 1.0)))
arcsinh = _function("arcsinh", np.arcsinh, lambda z, w: _arcsine(z.turned()))
arccosh = _function("arccosh", np.arccosh, lambda z, w: _reciprocal(_sqrt(z - 1.0) * _sqrt(z + 1.0)))
arctanh = _function("arctanh", np.arctanh, lambda z, w: _reciprocal((-z + 1.0) * (z + 1.0)))

# The record of each ufunc.
RECORDS: dict[np.ufunc, Operation] = {
    np.divide: divide, np.reciprocal: reciprocal, np.power: power, np.sqrt: sqrt, np.exp: exp, np.exp2: exp2,
    np.expm1: expm1, np.log: log, np.log2: log2, np.log10: log10, np.log1p: log1p, np.sin: sin, np.cos: cos,
    np.tan: tan, np.sinh: sinh, np.cosh: cosh, np.tanh: tanh, np.arcsin: arcsin, np.arccos: arccos,
    np.arctan: arctan, np.arcsinh: arcsinh, np.arccosh: arccosh, np.arctanh: arctanh,
}  # fmt: skip
