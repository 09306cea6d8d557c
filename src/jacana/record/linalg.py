"""``numpy.linalg``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.build import broadcast_to, cast_to, constant_array, index_node, movement_reshape
from ..graph.index import axis as axis_
from ..graph.node import REGISTRY, Node
from ..graph.ops.reduction import AxesParams
from .contraction import contraction
from .lift import any_tracked, call_on_constants, operand, plain_operand
from .location import unsupported
from .reduction import axes_of
from .table import implements
from .variable import raw, tracked, wrap_constant, wrap_node


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms of any order and the Frobenius norm, with the subgradient of least length at zero."""
    if tracked(ord) is not None:
        raise unsupported("numpy.linalg.norm with an order that depends on the arguments")
    value = np.linalg.norm(raw(x), ord, axis, keepdims)
    node = tracked(x)
    if node is None:
        return wrap_constant(value)
    rank = node.ndim
    axes = axes_of(axis, rank)
    whole = axis is None and ord is None
    if whole or (len(axes) == 1 and ord in (None, 2)) or (len(axes) == 2 and ord in (None, "fro")):
        if rank:
            found = REGISTRY["norm"](cast_to(node, value.dtype), params=AxesParams(axes))
        else:
            found = REGISTRY["absolute"](node)
        return wrap_node(movement_reshape(found, np.shape(value)), value)
    if len(axes) == 2:
        first, second = (int(k) % rank for k in (axis if axis is not None else (0, 1)))
        if ord in (1, -1, np.inf, -np.inf):
            summed = first if ord in (1, -1) else second
            rest = second if ord in (1, -1) else first
            sums = np.sum(np.abs(x), axis=summed, keepdims=True)
            result = (np.max if ord in (1, np.inf) else np.min)(sums, axis=rest, keepdims=True)
            return wrap_node(movement_reshape(result.node, np.shape(value)), value)
        raise unsupported(f"numpy.linalg.norm(matrix, ord={ord!r})")
    along = axes[0]
    if ord == np.inf:
        result = np.max(np.abs(x), axis=along, keepdims=keepdims)
    elif ord == -np.inf:
        result = np.min(np.abs(x), axis=along, keepdims=keepdims)
    elif ord == 1:
        result = np.sum(np.abs(x), axis=along, keepdims=keepdims)
    elif ord == 0:
        result = np.sum((x != 0).astype(raw(x).dtype), axis=along, keepdims=keepdims)
    else:
        result = np.sum(np.abs(x) ** ord, axis=along, keepdims=keepdims) ** (1.0 / ord)
    return wrap_node(operand(result, np.shape(value), value.dtype), value)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The norm of the flattened array, or along axes."""
    rank = np.ndim(raw(x))
    if axis is None:
        result = norm(np.ravel(x), ord)
        return np.reshape(result, (1,) * rank) if keepdims else result
    if isinstance(axis, tuple) and len(axis) > 1:
        raise unsupported("numpy.linalg.vector_norm over several axes")
    return norm(x, ord, axis[0] if isinstance(axis, tuple) else axis, keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The norm of the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)


def _float_node(x: Any, dtype: Any) -> Node:
    return operand(x, np.shape(raw(x)), dtype)


@implements(np.linalg.inv)
def inv(a: Any) -> Any:
    """The inverse of the last two axes."""
    value = np.linalg.inv(raw(a))
    if tracked(a) is None:
        return wrap_constant(value)
    return wrap_node(REGISTRY["inv"](_float_node(a, value.dtype)), value)


@implements(np.linalg.det)
def det(a: Any) -> Any:
    """The determinant of the last two axes."""
    value = np.linalg.det(raw(a))
    if tracked(a) is None:
        return wrap_constant(value)
    return wrap_node(REGISTRY["det"](_float_node(a, value.dtype)), value)


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """``a x = b``: ``b`` is one vector if it has one axis, else a stack of matrices."""
    a, b = plain_operand(a), plain_operand(b)
    value = np.linalg.solve(raw(a), raw(b))
    if not any_tracked((a, b)):
        return wrap_constant(value)
    vector = np.ndim(raw(b)) == 1
    node_a, node_b = _float_node(a, value.dtype), _float_node(b, value.dtype)
    if vector:
        node_b = movement_reshape(node_b, (*node_b.shape, 1))
    batch = np.broadcast_shapes(node_a.shape[:-2], node_b.shape[:-2])
    node_a = broadcast_to(node_a, (*batch, *node_a.shape[-2:]))
    node_b = broadcast_to(node_b, (*batch, *node_b.shape[-2:]))
    return wrap_node(movement_reshape(REGISTRY["solve"](node_a, node_b), value.shape), value)


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The triangular factor. NumPy reads one triangle only, so that triangle is mirrored before the record."""
    value = np.linalg.cholesky(raw(a), upper=upper)
    node = tracked(a)
    if node is None:
        return wrap_constant(value)
    node = _mirrored(cast_to(node, value.dtype), upper)
    factor = REGISTRY["cholesky"](node)
    if upper:
        factor = _turned(factor)
    return wrap_node(factor, value)


def _turned(node: Node) -> Node:
    rank = node.ndim
    indices = [*(axis_(k) for k in range(rank - 2)), axis_(rank - 1), axis_(rank - 2)]
    return index_node(node, (*node.shape[:-2], node.shape[-1], node.shape[-2]), indices)


def _mirrored(node: Node, upper: bool) -> Node:
    n = node.shape[-1]
    lower = np.tri(n, dtype=bool)
    mask = broadcast_to(constant_array(lower.T if upper else lower), node.shape)
    return REGISTRY["select"](mask, node, _turned(node))


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


for _name, _function in (("outer", np.outer), ("cross", np.cross), ("matmul", np.matmul), ("tensordot", np.tensordot)):
    implements(getattr(np.linalg, _name))(lambda *args, _f=_function, **kwargs: _f(*args, **kwargs))
implements(np.linalg.matrix_transpose)(lambda x, /: np.swapaxes(x, -1, -2))


@implements(np.vecdot, np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Products summed along one axis."""
    evaluate: Any = np.vecdot
    value = evaluate(raw(x1), raw(x2), axis=axis)
    result = np.sum(np.multiply(x1, x2), axis=axis)
    node = tracked(result)
    return wrap_constant(value) if node is None else wrap_node(node, value)
