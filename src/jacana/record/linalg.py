"""``numpy.linalg``: products, systems of equations, determinants."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.build import broadcast_to, index_node, movement_reshape
from ..graph.index import Affine
from ..graph.index import axis as axis_
from ..graph.node import REGISTRY, Node
from .contraction import contraction
from .lift import any_tracked, call_on_constants, operand, plain_operand
from .table import implements
from .variable import raw, tracked, wrap_constant, wrap_node


def float_node(x: Any, dtype: Any) -> Node:
    """The node of an operand of linear algebra, in the dtype in which NumPy computes."""
    return operand(x, np.shape(raw(x)), dtype)


@implements(np.linalg.inv)
def inv(a: Any) -> Any:
    """The inverse of the last two axes."""
    value = np.linalg.inv(raw(a))
    if tracked(a) is None:
        return wrap_constant(value)
    return wrap_node(REGISTRY["inv"](float_node(a, value.dtype)), value)


@implements(np.linalg.det)
def det(a: Any) -> Any:
    """The determinant of the last two axes."""
    value = np.linalg.det(raw(a))
    if tracked(a) is None:
        return wrap_constant(value)
    return wrap_node(REGISTRY["det"](float_node(a, value.dtype)), value)


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """``a x = b``: ``b`` is one vector if it has one axis, else a stack of matrices."""
    a, b = plain_operand(a), plain_operand(b)
    value = np.linalg.solve(raw(a), raw(b))
    if not any_tracked((a, b)):
        return wrap_constant(value)
    vector = np.ndim(raw(b)) == 1
    node_a, node_b = float_node(a, value.dtype), float_node(b, value.dtype)
    if vector:
        node_b = movement_reshape(node_b, (*node_b.shape, 1))
    batch = np.broadcast_shapes(node_a.shape[:-2], node_b.shape[:-2])
    node_a = broadcast_to(node_a, (*batch, *node_a.shape[-2:]))
    node_b = broadcast_to(node_b, (*batch, *node_b.shape[-2:]))
    return wrap_node(movement_reshape(REGISTRY["solve"](node_a, node_b), value.shape), value)


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """The sign, which has no derivative, and the logarithm of the absolute determinant."""
    value = np.linalg.slogdet(raw(a))
    if tracked(a) is None:
        return type(value)(*map(wrap_constant, value))
    packed = REGISTRY["slogdet"](float_node(a, value.logabsdet.dtype))
    lead = [axis_(k) for k in range(packed.ndim - 1)]
    parts = [index_node(packed, packed.shape[:-1], [*lead, Affine(k)]) for k in (0, 1)]
    return type(value)(*map(wrap_node, parts, value))


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    """``solve`` with several axes on each side."""
    a, b = plain_operand(a), plain_operand(b)
    value = np.linalg.tensorsolve(raw(a), raw(b), axes)
    if not any_tracked((a, b)):
        return wrap_constant(value)
    order = list(range(np.ndim(raw(a))))
    for k in axes or ():
        order.remove(k)
        order.insert(len(order) + 1, k)
    matrix = np.reshape(np.transpose(a, order), (value.size, value.size))
    return np.reshape(solve(matrix, np.ravel(b)), value.shape)


@implements(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    """The inverse with several axes on each side."""
    value = np.linalg.tensorinv(raw(a), ind)
    if tracked(a) is None:
        return wrap_constant(value)
    side = int(np.prod(value.shape[: value.ndim - ind], dtype=np.int64))
    return np.reshape(inv(np.reshape(a, (side, side))), value.shape)


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """The sum of a diagonal."""
    return np.sum(np.diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@implements(np.linalg.trace)
def matrix_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sum of a diagonal of the last two axes."""
    return trace(x, offset, -2, -1, dtype)


@implements(np.linalg.diagonal)
def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """The diagonal of the last two axes."""
    return np.diagonal(x, offset, -2, -1)


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """Repeated products."""
    if tracked(a) is None:
        return call_on_constants(np.linalg.matrix_power, (a, n), {})
    np.linalg.matrix_power(raw(a), n)  # for what it raises
    if n < 0:
        return matrix_power(inv(a), -n)
    if n == 0:
        return np.linalg.matrix_power(raw(a), 0)
    result = None
    while n:
        if n & 1:
            result = a if result is None else np.matmul(result, a)
        n >>= 1
        if n:
            a = np.matmul(a, a)
    return result


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    """A chain of products in the cheapest order (the contraction planner's)."""
    parts = [plain_operand(a) for a in arrays]
    value = np.linalg.multi_dot([raw(p) for p in parts])
    if not any_tracked(parts):
        return wrap_constant(value)
    operands = []
    for k, part in enumerate(parts):
        operands.append((part, (k, k + 1) if np.ndim(raw(part)) == 2 else (k or 1,)))
    out_labels = tuple(x for x in (0, len(parts)) if any(x in labels for _, labels in operands))
    return contraction(value, operands, out_labels)


for _name, _function in (("matmul", np.matmul), ("tensordot", np.tensordot)):
    implements(getattr(np.linalg, _name))(lambda *args, _f=_function, **kwargs: _f(*args, **kwargs))


@implements(np.linalg.outer)
def outer(x1: Any, x2: Any, /) -> Any:
    """All products of two vectors."""
    np.linalg.outer(raw(plain_operand(x1)), raw(plain_operand(x2)))  # NumPy's own errors: only vectors are taken
    return np.outer(x1, x2)


@implements(np.linalg.cross)
def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Vectors of three components."""
    np.linalg.cross(raw(plain_operand(x1)), raw(plain_operand(x2)), axis=axis)
    return np.cross(x1, x2, axis=axis)


@implements(np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """The last two axes exchanged."""
    np.linalg.matrix_transpose(raw(x))
    return np.swapaxes(x, -1, -2)


@implements(np.vecdot, np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Products summed along one axis of each operand."""
    x1, x2 = plain_operand(x1), plain_operand(x2)
    evaluate: Any = np.vecdot
    value = evaluate(raw(x1), raw(x2), axis=axis)
    result = np.sum(np.multiply(np.moveaxis(x1, axis, -1), np.moveaxis(x2, axis, -1)), axis=-1)
    node = tracked(result)
    return wrap_constant(value) if node is None else wrap_node(node, value)
