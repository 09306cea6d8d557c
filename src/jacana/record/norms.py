"""``numpy.linalg``: norms, condition numbers and ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.build import cast_to, movement_reshape
from ..graph.node import REGISTRY
from ..graph.ops.reduction import AxesParams
from .factorizations import svdvals
from .lift import axis_in, operand
from .linalg import inv
from .location import unsupported
from .reduction import axes_of
from .table import implements
from .variable import raw, tracked, wrap_constant, wrap_node


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms of any order and every matrix norm, with the subgradient of least length at zero."""
    if tracked(ord) is not None:
        raise unsupported("numpy.linalg.norm with an order that depends on the arguments")
    ord = raw(ord)
    value = np.linalg.norm(raw(x), ord, axis, keepdims)
    node = tracked(x)
    if node is None:
        return wrap_constant(value)
    rank = node.ndim
    axes = axes_of(axis, rank)
    whole = axis is None and ord is None
    if whole or (len(axes) == 1 and ord in (None, 2)) or (len(axes) == 2 and ord in (None, "fro", "f")):
        if rank:
            found = REGISTRY["norm"](cast_to(node, value.dtype), params=AxesParams(axes))
        else:
            found = REGISTRY["absolute"](cast_to(node, value.dtype))
        return wrap_node(movement_reshape(found, np.shape(value)), value)
    x = x.astype(value.dtype)
    if len(axes) == 2:
        first, second = (axis_in(k, rank) for k in (axis if axis is not None else (0, 1)))
        result = _matrix_norm(x, ord, first, second)
    else:
        result = _vector_norm(x, ord, axes[0])
    return wrap_node(movement_reshape(operand(result, np.shape(raw(result)), value.dtype), np.shape(value)), value)


def _vector_norm(x: Any, ord: Any, along: int) -> Any:
    if ord in (np.inf, -np.inf):
        return (np.max if ord > 0 else np.min)(np.abs(x), axis=along)
    if ord == 0:
        return np.sum((x != 0).astype(x.dtype), axis=along)
    if ord == 1:
        return np.sum(np.abs(x), axis=along)
    total = np.sum(np.abs(x) ** ord, axis=along)
    # At zero the root has no derivative; the norm takes the subgradient of least length, which is zero.
    zero = total == 0
    return np.where(zero, 0.0 if ord > 0 else np.inf, np.where(zero, 1.0, total) ** (1.0 / ord))


def _matrix_norm(x: Any, ord: Any, first: int, second: int) -> Any:
    if ord in (1, -1, np.inf, -np.inf):
        summed, rest = (first, second) if ord in (1, -1) else (second, first)
        sums = np.sum(np.abs(x), axis=summed, keepdims=True)
        return (np.max if ord in (1, np.inf) else np.min)(sums, axis=rest, keepdims=True)
    s = svdvals(np.moveaxis(x, (first, second), (-2, -1)))
    if ord == "nuc":
        # A singular value that is zero up to rounding is the tip of an absolute value.
        limit = np.finfo(s.dtype).eps * max(np.shape(raw(x))[first], np.shape(raw(x))[second])
        return np.sum(np.where(s <= limit * s[..., :1], 0.0, s), axis=-1)
    extreme = (np.max if ord == 2 else np.min)(s, axis=-1)
    return np.where(extreme == 0, 0.0, extreme)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The norm of the flattened array, or along axes."""
    value = np.linalg.vector_norm(raw(x), axis=axis, keepdims=keepdims, ord=raw(ord))
    if tracked(x) is None:
        return wrap_constant(value)
    rank = np.ndim(raw(x))
    axes = axes_of(axis, rank)
    rest = tuple(k for k in range(rank) if k not in axes)
    sizes = [np.shape(raw(x))[k] for k in rest]
    count = int(np.prod([np.shape(raw(x))[k] for k in axes], dtype=np.int64))
    lines = np.reshape(np.transpose(x, (*rest, *axes)), (*sizes, count))
    result = norm(lines, ord, axis=-1)
    return wrap_node(movement_reshape(result.node, np.shape(value)), value)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The norm of the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)


@implements(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    """The largest over the smallest singular value, or the norm times the norm of the inverse."""
    value = np.linalg.cond(raw(x), raw(p))
    if tracked(x) is None:
        return wrap_constant(value)
    if p is None or p in (2, -2):
        s = svdvals(x)
        result = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    else:
        result = norm(x, p, (-2, -1)) * norm(inv(x), p, (-2, -1))
    undefined = np.isnan(result) & np.logical_not(np.any(np.isnan(x), axis=(-2, -1)))
    known: Any = np.where(undefined, np.inf, result)
    return wrap_node(cast_to(known.node, value.dtype), value)


@implements(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """The number of singular values above a tolerance: an integer, without derivative, guarded where it is used."""
    value = np.linalg.matrix_rank(raw(A), raw(tol), hermitian, rtol=raw(rtol))
    if tracked(A) is None:
        return value
    if np.ndim(raw(A)) < 2:
        return int(bool(np.any(A != 0)))
    s = np.abs(np.linalg.eigvalsh(A)) if hermitian else svdvals(A)
    if tol is None:
        share = max(np.shape(raw(A))[-2:]) * np.finfo(s.dtype).eps if rtol is None else np.expand_dims(rtol, -1)
        tol = np.max(s, axis=-1, keepdims=True) * share if np.shape(raw(s))[-1] else 0.0
    else:
        tol = np.expand_dims(tol, -1)
    count = np.sum((s > tol).astype(np.int64), axis=-1)
    return wrap_node(cast_to(count.node, np.asarray(value).dtype), np.asarray(value)[()])
