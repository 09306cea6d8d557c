"""Parts and products of a Jacobian, for when that is all that was asked: diagonal, trace, rows, columns, ``J.T @ J``.

None of them forms the Jacobian. The diagonal and ``J.T @ J`` are compositions of terms; chosen rows and columns are the
Jacobian of a smaller program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .differentiate import Order, dense_jacobians, eliminate
from .differentiate.derivatives import jacobian_dtype
from .errors import DifferentiationError, InvalidInputError
from .graph.build import assembled, index_node, movement_reshape
from .graph.index import Affine, axis, from_table
from .graph.node import Node, new_input, substitute_nodes
from .replay import Built, Traced
from .results import Format, checked_places, deliver_gram
from .structure import dense_node, diagonal_terms, selected_rows
from .transforms import Transformed, checked_format, checked_order

__all__ = ["diagonal", "gauss_newton", "jacobian_columns", "jacobian_rows", "trace"]


def _one_pair(traced: Traced, verb: str) -> tuple[Node, Node]:
    if len(traced.outputs) != 1 or len(traced.by) != 1:
        raise DifferentiationError(
            f"{verb} needs one array as argument and one as result, but {traced.name} has "
            f"{len(traced.by)} and {len(traced.outputs)}"
        )
    return traced.outputs[0], traced.by[0]


def _diagonal_node(traced: Traced, verb: str) -> Node:
    y, x = _one_pair(traced, verb)
    if y.shape != x.shape:
        raise DifferentiationError(
            f"{verb} needs a square Jacobian: {traced.name} takes shape {x.shape} and returns {y.shape}"
        )
    terms = eliminate([y], [x]).terms[0][0]
    return dense_node(diagonal_terms(terms, x.shape), (), x.shape, jacobian_dtype(y, x))


def _first(arrays: list[Any]) -> Any:
    return arrays[0]


def diagonal(function: Callable[..., Any], argnums: int = 0, *, compile: bool = False) -> Transformed:
    """The diagonal of a square Jacobian, without the Jacobian.

    Args:
        function: plain NumPy code; one array as argument, one of the same shape as result.
        argnums: the positional argument to differentiate by.
        compile: make machine code at the first call; see :func:`jacana.compile`.

    Returns:
        A function of the same arguments; its result has the shape of the argument: ``d y[i] / d x[i]``.

    Raises:
        DifferentiationError: result and argument have different shapes, or are several arrays.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.diagonal(lambda x: x**2 * np.sum(x))(np.array([1.0, 2.0, 3.0]))
    array([13., 28., 45.])
    """
    return Transformed(function, _build_diagonal, argnums, "diagonal", compile)


def _build_diagonal(traced: Traced) -> Built:
    return Built([_diagonal_node(traced, "diagonal")], _first)


def trace(function: Callable[..., Any], argnums: int = 0, *, compile: bool = False) -> Transformed:
    """The trace of a square Jacobian (the divergence of a vector field), without the Jacobian.

    Args, errors: see :func:`diagonal`. The result is a zero-dimensional array.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.trace(lambda x: x**2 * np.sum(x))(np.array([1.0, 2.0, 3.0]))
    array(86.)
    """
    return Transformed(function, _build_trace, argnums, "trace", compile)


def _build_trace(traced: Traced) -> Built:
    from .graph.build import sum_axes

    node = _diagonal_node(traced, "trace")
    return Built([sum_axes(node, tuple(range(node.ndim)))], _first)


def jacobian_rows(function: Callable[..., Any], rows: Any, argnums: int = 0, *, compile: bool = False) -> Transformed:
    """Chosen rows of a Jacobian: only what these elements of the result depend on is differentiated.

    Args:
        function: plain NumPy code; one array as argument and one as result.
        rows: 1-D integers (C-order positions in the result, negative ones from its end) or a boolean mask.
        argnums: the positional argument to differentiate by.
        compile: make machine code at the first call; see :func:`jacana.compile`.

    Returns:
        A function of the same arguments; its result has shape ``(len(rows), *x.shape)``.

    Raises:
        InvalidInputError: a row out of range.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.jacobian_rows(lambda x: x[1:] * x[:-1], [-1])(np.array([1.0, 2.0, 3.0]))
    array([[0., 3., 2.]])
    """
    return Transformed(function, functools.partial(_build_rows, rows), argnums, "jacobian_rows", compile)


def _build_rows(rows: Any, traced: Traced) -> Built:
    y, x = _one_pair(traced, "jacobian_rows")
    chosen = selected_rows(y, checked_places(rows, y.size, "rows"))
    return Built([dense_jacobians([chosen], [x])[0][0]], _first)


def jacobian_columns(
    function: Callable[..., Any], columns: Any, argnums: int = 0, *, compile: bool = False
) -> Transformed:
    """Chosen columns of a Jacobian: only what depends on these elements of the argument is differentiated.

    Args:
        function: plain NumPy code; one array as argument and one as result.
        columns: 1-D integers (C-order positions in the argument, negative ones from its end) or a boolean mask.
        argnums: the positional argument to differentiate by.
        compile: make machine code at the first call; see :func:`jacana.compile`.

    Returns:
        A function of the same arguments; its result has shape ``(*y.shape, len(columns))``.

    Raises:
        InvalidInputError: a column out of range, or given twice.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.jacobian_columns(lambda x: x[1:] * x[:-1], [1])(np.array([1.0, 2.0, 3.0]))
    array([[1.],
           [3.]])
    """
    return Transformed(function, functools.partial(_build_columns, columns), argnums, "jacobian_columns", compile)


def _build_columns(columns: Any, traced: Traced) -> Built:
    y, x = _one_pair(traced, "jacobian_columns")
    places = checked_places(columns, x.size, "columns")
    if len(np.unique(places)) != len(places):
        raise InvalidInputError("columns must be different from one another")
    # The argument becomes what is fixed plus what moves; only what moves is an input of the smaller program.
    rest = np.setdiff1d(np.arange(x.size), places)
    flat = movement_reshape(x, (x.size,))
    moving = new_input((len(places),), x.dtype)
    parts = []
    for piece, here in ((None, rest), (moving, places)):
        index = from_table(here, [0]) if here.size else Affine(0)
        parts.append((index_node(flat, here.shape, (index,)) if piece is None else piece, (index,)))
    whole = movement_reshape(assembled(parts, (x.size,), x.dtype, disjoint=True), x.shape)
    (shifted,) = substitute_nodes([y], {x: whole})
    (node,) = dense_jacobians([shifted], [moving])[0]
    picked = index_node(flat, places.shape, (from_table(places, [0]) if places.size else axis(0),))
    return Built(substitute_nodes([node], {moving: picked}), _first)


def gauss_newton(
    function: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    format: Format = "dense",
    order: Order = "auto",
    compile: bool = False,
) -> Transformed:
    """``J.T @ J`` of a residual function: the Gauss-Newton approximation of the Hessian of ``0.5 * sum(r**2)``.

    The product is a composition of the terms of J, so its own structure is found and J is not stored.

    Args:
        function: plain NumPy code; a residual of any shape as result, or a tree of residuals.
        argnums: the positional argument (or arguments) to differentiate by.
        format: as in :func:`jacana.hessian`; the matrix has shape ``(x.size, x.size)`` (dense: ``x.shape + x.shape``,
            of trees a tree of trees).
        order: order of elimination, as in :func:`jacana.jacobian`.
        compile: make machine code at the first call; see :func:`jacana.compile`.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.gauss_newton(lambda x: x[1:] * x[:-1], format="csr")(np.array([1.0, 2.0, 3.0])).toarray()
    array([[ 4.,  2.,  0.],
           [ 2., 10.,  6.],
           [ 0.,  6.,  4.]])
    """
    checked_format(format)
    build = functools.partial(_build_gauss_newton, format, checked_order(order))
    return Transformed(function, build, argnums, "gauss_newton", compile)


def _build_gauss_newton(format: str, order: Order, traced: Traced) -> Built:
    return deliver_gram(traced, order, format)
