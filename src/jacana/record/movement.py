"""Functions that move elements: every one ends as ``index`` or ``assemble`` nodes with coefficient one."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import build
from ..graph.index import Affine, Index, axis, from_table
from ..graph.node import Node, Shape
from . import buffer
from .bound import refuse_solvers
from .lift import axis_in, operand
from .table import implements
from .variable import Variable, raw, tracked, wrap_constant


def movement(x: Any, value: Any, make: Callable[[Node], Node]) -> Any:
    """The result ``value`` of moving the elements of ``x``; ``make`` builds the node. A view where NumPy made one."""
    if type(x) is not Variable:
        return wrap_constant(value)
    node = tracked(x)
    return buffer.make_view(x, value, None if node is None else make(node), None)


@implements(np.reshape)
def reshape(
    x: Any, /, *args: Any, shape: Any = None, order: str = "C", copy: bool | None = None, **options: Any
) -> Any:
    """C or F order."""
    if "newshape" in options:
        shape = options.pop("newshape")
    if args:
        shape = args[0] if len(args) == 1 else args
        if len(args) == 2 and isinstance(args[1], str):
            shape, order = args
    shape = tuple(int(n) for n in shape) if isinstance(shape, (list, tuple, np.ndarray)) else int(shape)
    extra = {} if copy is None else {"copy": copy}  # NumPy 2.0 does not know the option
    value = np.reshape(raw(x), shape, order=order, **extra)  # type: ignore[call-overload]
    fortran = order == "F" or (order == "A" and raw(x).flags.f_contiguous and not raw(x).flags.c_contiguous)
    if not fortran:
        return movement(x, value, lambda node: build.movement_reshape(node, value.shape))

    def by_columns(node: Node) -> Node:
        turned = build.transpose(node, tuple(reversed(range(node.ndim))))
        filled = build.movement_reshape(turned, tuple(reversed(value.shape)))
        return build.transpose(filled, tuple(reversed(range(len(value.shape)))))

    return movement(x, value, by_columns)


@implements(np.ravel)
def ravel(x: Any, order: str = "C") -> Any:
    """A view where the memory allows it."""
    if order == "K":
        # As the axes lie in memory, largest steps first.
        order, strides = "C", [abs(s) if n > 1 else 0 for s, n in zip(raw(x).strides, np.shape(raw(x)), strict=True)]
        there = [k for k, n in enumerate(np.shape(raw(x))) if n > 1]
        turned = sorted(there, key=lambda k: -strides[k])
        if turned != there:
            x = np.transpose(x, (*(k for k in range(len(strides)) if k not in there), *turned))
    if order == "C":
        value = np.ravel(raw(x))
        return movement(x, value, lambda node: build.movement_reshape(node, value.shape))
    return reshape(x, -1, order=order)


def flatten(x: Any, order: str = "C") -> Any:
    """A copy in one axis."""
    return np.copy(ravel(x, order))


@implements(np.transpose)
def transpose(x: Any, *axes: Any) -> Any:
    """Axes reversed, or in the order given."""
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (list, tuple))):
        axes = tuple(axes[0]) if axes[0] is not None else ()
    rank = np.ndim(raw(x))
    value = np.transpose(raw(x), axes or None)
    order = [axis_in(a, rank) for a in axes] if axes else list(reversed(range(rank)))
    return movement(x, value, lambda node: build.transpose(node, order))


def _by_axes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Functions that only permute, add or drop axes: NumPy says which, applied to an array of no memory."""

    def handler(x: Any, *args: Any, **kwargs: Any) -> Any:
        value = function(raw(x), *args, **kwargs)
        # Strides that name the axes: the result's strides then say which axis each one was.
        shape = np.shape(raw(x))
        probe = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), shape, range(1, len(shape) + 1), writeable=False)
        moved = function(probe, *args, **kwargs)
        place = {s - 1: k for k, (s, n) in enumerate(zip(moved.strides, moved.shape, strict=True)) if n != 1}

        def make(node: Node) -> Node:
            indices: list[Index] = [axis(place[k]) if n != 1 and value.size else Affine(0) for k, n in enumerate(shape)]
            return build.index_node(node, value.shape, indices)

        return movement(x, value, make)

    return handler


_BY_AXES: tuple[Callable[..., Any], ...] = (np.swapaxes, np.moveaxis, np.rollaxis, np.expand_dims, np.squeeze)
for _function in _BY_AXES:
    implements(_function)(_by_axes(_function))


def _at_least(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(*arrays: Any) -> Any:
        refuse_solvers(*arrays)
        results = []
        for x in arrays:
            value = function(raw(x))
            same = np.shape(raw(x)) == value.shape
            results.append(x if same else reshape(x, value.shape))
        return results[0] if len(results) == 1 else tuple(results)

    return handler


for _expand in (np.atleast_1d, np.atleast_2d, np.atleast_3d):
    implements(_expand)(_at_least(_expand))


@implements(np.broadcast_to)
def broadcast_to(x: Any, shape: Any, subok: bool = False) -> Any:
    """A view that cannot be written to."""
    value = np.broadcast_to(raw(x), shape)
    return movement(x, value, lambda node: build.broadcast_to(node, value.shape))


@implements(np.broadcast_arrays)
def broadcast_arrays(*arrays: Any, subok: bool = False) -> tuple[Any, ...]:
    """All of them in their common shape."""
    shape = np.broadcast_shapes(*(np.shape(raw(a)) for a in arrays))
    return tuple(broadcast_to(a, shape) for a in arrays)


def join(parts: Sequence[tuple[Any, Sequence[Index]]], value: Any) -> Any:
    """One array from parts that cover disjoint places; ``value`` is the number of the whole."""
    if all(tracked(part) is None for part, _ in parts):
        return wrap_constant(value)
    from .variable import wrap_node

    nodes = [(operand(part, np.shape(raw(part)), value.dtype), tuple(rows)) for part, rows in parts]
    return wrap_node(build.assembled(nodes, value.shape, value.dtype, disjoint=True), value)


def shifted(rank: int, along: int, by: int) -> tuple[Index, ...]:
    """Every axis as it is, but one moved by an offset."""
    return tuple(Affine(by, ((k, 1),)) if k == along and by else axis(k) for k in range(rank))


def runs(table: Any) -> list[tuple[int, int, int]]:
    """A list of positions as pieces ``(first, step, length)`` of constant step, longest first from the left."""
    table = np.asarray(table, dtype=np.int64)
    steps = np.diff(table)
    changes = (np.flatnonzero(np.diff(steps)) + 1).tolist()  # steps that differ from the one before
    pieces = []
    k = 0
    while k < len(table):
        later = bisect.bisect_right(changes, k)
        end = changes[later] if later < len(changes) else len(steps)
        length = max(end - k, 0) + 1
        pieces.append((int(table[k]), int(steps[k]) if length > 1 else 1, length))
        k += length
    return pieces


def along_axis(node: Node, along: int, table: Any) -> Node:
    """``np.take(node, table, axis=along)``: a few affine pieces where possible, so that structure stays affine."""
    table = np.asarray(table, dtype=np.int64)
    rank = node.ndim
    shape = tuple(len(table) if k == along else n for k, n in enumerate(node.shape))
    single = from_table(table, (along,))
    if isinstance(single, Affine) or table.size == 0 or node.size == 0:
        return build.index_node(node, shape, [single if k == along else axis(k) for k in range(rank)])
    pieces = runs(table) if table.size <= 64 or _run_count(table) <= 8 else []
    if not pieces or len(pieces) > 8:
        return build.index_node(node, shape, [single if k == along else axis(k) for k in range(rank)])
    parts = []
    start = 0
    for first, step, length in pieces:
        piece_shape = tuple(length if k == along else n for k, n in enumerate(node.shape))
        expression: Index = Affine(first, ((along, step),)) if length > 1 and step else Affine(first)
        piece = build.index_node(node, piece_shape, [expression if k == along else axis(k) for k in range(rank)])
        parts.append((piece, shifted(rank, along, start)))
        start += length
    return build.assembled(parts, shape, node.dtype, disjoint=True)


def _run_count(table: Any) -> int:
    return int(np.count_nonzero(np.diff(np.diff(table)))) + 1


def result_shape(value: Any) -> Shape:
    """The shape of a number or an array."""
    shape: Shape = np.shape(value)
    return shape


@implements(np.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """The last two axes swapped."""
    return np.swapaxes(x, -1, -2)
