"""Moving elements: every movement is ``index`` (read by index expressions) or ``assemble`` (write by them).

Slices, transposes, broadcasts, flips, gathers and reshapes that keep axes whole are ``index``: one source index
expression for each source axis, over the axes of the result. Concatenation, padding, scattering, assignment and the
final step of every Jacobian are ``assemble``: each part is written at its row expressions, over the part's own axes.
So both carry their derivative in their parameters: coefficient one, the same expressions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..index import Affine, Index, bounds, evaluate, flatten, identity
from ..node import Array, DType, Edges, Node, Operation, Shape, Term, register


class IndexParams(NamedTuple):
    """``result[d] = source[indices(d)]`` for every point d of ``shape``."""

    shape: Shape
    indices: tuple[Index, ...]


class AssembleParams(NamedTuple):
    """``result = 0; result[rows[k](d)] += part[k][d]`` for every part k and every point d of its shape.

    ``disjoint`` promises that no element is written twice, ``full`` that every element is written.
    """

    shape: Shape
    dtype: DType
    rows: tuple[tuple[Index, ...], ...]
    disjoint: bool
    full: bool


def strided(indices: Sequence[Index], sizes: Shape) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]] | None:
    """For affine indices: the origin, and for each axis of the domain its stride along each array axis."""
    if not all(isinstance(e, Affine) for e in indices):
        return None
    origin = tuple(e.offset for e in indices if isinstance(e, Affine))
    table = [[0] * len(indices) for _ in sizes]
    for k, e in enumerate(indices):
        if isinstance(e, Affine):
            for a, s in e.strides:
                table[a][k] = s
    return origin, tuple(tuple(row) for row in table)


def contiguous_view(
    origin: Sequence[int], table: Sequence[Sequence[int]], shape: Shape, itemsize: int
) -> tuple[int, tuple[int, ...]]:
    """What ``strided`` gave, as the offset and the strides in bytes of a view of a contiguous array of ``shape``."""
    strides = [itemsize * math.prod(shape[k + 1 :]) for k in range(len(shape))]
    start = sum(o * n for o, n in zip(origin, strides, strict=True))
    return start, tuple(sum(s * n for s, n in zip(row, strides, strict=True)) for row in table)


def view(array: Array, indices: Sequence[Index], sizes: Shape) -> Array | None:
    """The elements ``array[indices]`` as a view, if every index expression is affine."""
    plan = strided(indices, sizes)
    if plan is None:
        return None
    origin, table = plan
    if math.prod(sizes) == 0:
        return np.empty(sizes, dtype=array.dtype)
    steps = tuple(sum(s * n for s, n in zip(row, array.strides, strict=True)) for row in table)
    if array.flags.c_contiguous:  # ten times cheaper than as_strided
        start = sum(o * n for o, n in zip(origin, array.strides, strict=True))
        return np.ndarray(sizes, array.dtype, array, start, steps)
    anchor = array[tuple(slice(o, None) for o in origin)] if array.ndim else array
    return np.lib.stride_tricks.as_strided(anchor, sizes, steps)


def positions(indices: Sequence[Index], sizes: Shape) -> tuple[Array, ...]:
    """The index arrays of a fancy index, broadcast against one another."""
    return tuple(evaluate(e, sizes) for e in indices)


def _index_evaluate(params: IndexParams, source: Array) -> Array:
    found = view(source, params.indices, params.shape)
    if found is None:
        found = source[np.broadcast_arrays(*positions(params.indices, params.shape), np.empty(params.shape, bool))[:-1]]
    return found


def _index_edges(node: Node) -> Edges:
    return ((Term(node.shape, identity(node.ndim), node.params.indices),),)


index = register(
    Operation(
        name="index",
        family="movement",
        evaluate=_index_evaluate,
        infer=lambda params, source: (params.shape, source.dtype),
        edges=_index_edges,
        cost=0,
    )
)


def writer(params: AssembleParams, k: int, part_shape: Shape) -> Callable[[Array, Array], None]:
    """How part ``k`` is written: ``(result, part) -> None``, with every index computed once.

    The result is to be a contiguous array of the shape and dtype in ``params``.
    """
    rows = params.rows[k]
    if math.prod(part_shape) == 0:
        return lambda result, part: None
    plan = strided(rows, part_shape)
    # A view may only be added to at once if no two points of the domain fall on the same element.
    if plan is not None and (params.disjoint or injective(rows, part_shape)):
        origin, table = plan
        if not part_shape and params.disjoint:
            return lambda result, part: result.__setitem__(origin, part)
        start, steps = contiguous_view(origin, table, params.shape, params.dtype.itemsize)

        def write_view(result: Array, part: Array) -> None:
            target = np.ndarray(part_shape, params.dtype, result, start, steps)
            if params.disjoint:
                target[...] = part
            else:
                target += part

        return write_view
    flat = np.broadcast_to(evaluate(flatten(rows, params.shape, part_shape), part_shape), part_shape).ravel()
    if params.disjoint:

        def write_fancy(result: Array, part: Array) -> None:
            result.reshape(-1)[flat] = part.ravel()

        return write_fancy

    def write_add(result: Array, part: Array) -> None:
        np.add.at(result.reshape(-1), flat, part.ravel())

    return write_add


def injective(rows: Sequence[Index], sizes: Shape) -> bool:
    """Whether no two points fall on the same element (enough, not necessary).

    Each axis longer than one must be a digit of some affine row: alone in it, or beside others in a mixed radix.
    """
    told: set[int] = set()
    for e in rows:
        if isinstance(e, Affine):
            reach = 0
            digits = []
            for a, s in sorted(e.strides, key=lambda d: abs(d[1])):
                if abs(s) <= reach:
                    break
                reach += abs(s) * (sizes[a] - 1)
                digits.append(a)
            else:
                told.update(digits)
    return all(n <= 1 or a in told for a, n in enumerate(sizes))


def _assemble_evaluate(params: AssembleParams, *parts: Array) -> Array:
    empty = params.full and params.disjoint
    result: Array = (np.empty if empty else np.zeros)(params.shape, dtype=params.dtype)
    for k, part in enumerate(parts):
        part = np.asarray(part)
        writer(params, k, part.shape)(result, part)
    return result


def _assemble_edges(node: Node) -> Edges:
    return tuple(
        (Term(part.shape, rows, identity(part.ndim)),) for part, rows in zip(node.inputs, node.params.rows, strict=True)
    )


def _assemble_infer(params: AssembleParams, *parts: Node) -> tuple[Shape, DType]:
    for part, rows in zip(parts, params.rows, strict=True):
        assert part.dtype == params.dtype and len(rows) == len(params.shape), (part, params)
        if part.size:
            for e, n in zip(rows, params.shape, strict=True):
                low, high = bounds(e, part.shape)
                assert low >= 0 and high < n, (e, params.shape)
    return params.shape, params.dtype


assemble = register(
    Operation(
        name="assemble",
        family="movement",
        evaluate=_assemble_evaluate,
        infer=_assemble_infer,
        edges=_assemble_edges,
        cost=0,
    )
)
