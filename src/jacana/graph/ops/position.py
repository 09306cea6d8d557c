"""Reading and writing at positions that a program computes: ``x[i]`` with the number of a loop's step.

``index`` and ``assemble`` know their positions when a program is recorded; here some axes are entered at an integer
that is known when it runs. The two are each other's transpose, as those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..index import Index, axis, identity, shift_axes
from ..node import Array, DType, Edges, Matrix, Node, Operation, Shape, Term, register
from .movement import AssembleParams, IndexParams, assemble, index


class AtParams(NamedTuple):
    """``result[d] = source[indices(d)]``, with the k-th start added to the index along axis ``axes[k]``.

    The index expression along each of ``axes`` is zero. ``source`` is the shape of the array that is read or written.
    """

    shape: Shape
    source: Shape
    indices: tuple[Index, ...]
    axes: tuple[int, ...]

    def batched(self, count: int) -> AtParams:
        """The same of each of ``count`` samples, with their axis in front and the starts in common."""
        indices = (axis(0), *(shift_axes(e, 1) for e in self.indices))
        return AtParams((count, *self.shape), (count, *self.source), indices, tuple(a + 1 for a in self.axes))


class SelectionParams(NamedTuple):
    """The matrix of a ``read_at`` (of a ``write_at``, if ``written``) for arrays of this dtype."""

    at: AtParams
    dtype: DType
    written: bool

    @property
    def row_shape(self) -> Shape:
        return self.at.source if self.written else self.at.shape

    @property
    def col_shape(self) -> Shape:
        return self.at.shape if self.written else self.at.source


def _window(params: AtParams, starts: Sequence[Any], rest: int) -> tuple[slice, ...]:
    """The part of the source in which the starts fix an axis to length one."""
    where = [slice(None)] * (len(params.source) + rest)
    for a, start in zip(params.axes, starts, strict=True):
        n = params.source[a]
        k = int(start)
        if not -n <= k < n:
            raise IndexError(f"index {k} is out of bounds for axis {a} with size {n}")
        k %= n
        where[a] = slice(k, k + 1)
    return tuple(where)


def _inner(params: AtParams) -> Shape:
    return tuple(1 if a in params.axes else n for a, n in enumerate(params.source))


def _read_evaluate(params: AtParams, x: Array, *starts: Array) -> Array:
    part = x[_window(params, starts, 0)]
    return np.array(index.evaluate(IndexParams(params.shape, params.indices), part))


def _write_evaluate(params: AtParams, part: Array, *starts: Array) -> Array:
    result = np.zeros(params.source, dtype=part.dtype)
    inner = AssembleParams(_inner(params), part.dtype, (params.indices,), False, False)
    result[_window(params, starts, 0)] = assemble.evaluate(inner, part)
    return result


def _with_rest(params: AtParams, rest: Shape) -> AtParams:
    """The same for an array with further axes behind its own."""
    lead = len(params.shape)
    more = identity(lead + len(rest))[lead:]
    return AtParams((*params.shape, *rest), (*params.source, *rest), (*params.indices, *more), params.axes)


def _product(matrix: Node, array: Node, transposed: bool) -> Node:
    params: AtParams = matrix.params.at
    if transposed != matrix.params.written:
        return write_at(array, *matrix.inputs, params=_with_rest(params, array.shape[len(params.shape) :]))
    return read_at(array, *matrix.inputs, params=_with_rest(params, array.shape[len(params.source) :]))


def _matrix_evaluate(params: SelectionParams, *starts: Array) -> Array:
    size = int(np.prod(params.at.source))
    eye = np.eye(size, dtype=params.dtype).reshape(*params.at.source, size)
    read = _read_evaluate(_with_rest(params.at, (size,)), eye, *starts).reshape(-1, size)
    return (read.T if params.written else read).reshape(*params.row_shape, *params.col_shape)


selection = register(
    Operation(
        name="selection",
        family="matrix",
        evaluate=_matrix_evaluate,
        infer=lambda params, *starts: ((*params.row_shape, *params.col_shape), params.dtype),
        edges=lambda node: tuple(None for _ in node.inputs),
        matrix=Matrix(lambda matrix: len(matrix.params.row_shape), _product, slots=lambda matrix, transposed: ()),
    )
)


def _edges(node: Node, written: bool) -> Edges:
    params = SelectionParams(node.params, node.dtype, written)
    matrix = selection(*node.inputs[1:], params=params)
    every = identity(matrix.ndim)
    split = len(params.row_shape)
    term = Term(matrix.shape, every[:split], every[split:], ((matrix, tuple(range(matrix.ndim))),))
    return ((term,), *(None for _ in node.inputs[1:]))


read_at = register(
    Operation(
        name="read_at",
        family="control",
        evaluate=_read_evaluate,
        infer=lambda params, x, *starts: (params.shape, x.dtype),
        edges=lambda node: _edges(node, False),
        cost=1.0,
    )
)
write_at = register(
    Operation(
        name="write_at",
        family="control",
        evaluate=_write_evaluate,
        infer=lambda params, part, *starts: (params.source, part.dtype),
        edges=lambda node: _edges(node, True),
        cost=1.0,
    )
)
__all__ = ["AtParams", "SelectionParams", "read_at", "selection", "write_at"]
