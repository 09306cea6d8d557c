"""The final terms as arrays: the dense Jacobian, per-sample blocks, the diagonal.

Storing is one more ``assemble`` of the same program, so an executor writes the entries directly where they belong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InvalidInputError
from ..graph.build import assembled, index_node, movement_reshape
from ..graph.index import Index, IntArray, evaluate, from_table, identity
from ..graph.node import DType, Node, Shape, Term
from .merging import expand_small_axes
from .positions import entry_positions
from .terms import Terms, add_terms, coefficient, compose_terms


def dense_node(terms: Sequence[Term], rows: Shape, cols: Shape, dtype: DType) -> Node:
    """The Jacobian as an array node of shape ``rows + cols``."""
    disjoint = len(terms) > 1 and _disjoint(terms, rows, cols)
    if len(terms) > 1 and not disjoint:
        terms = expand_small_axes(terms)
        disjoint = len(terms) > 1 and _disjoint(terms, rows, cols)
    parts: list[tuple[Node, tuple[Index, ...]]] = [(coefficient(t), (*t.row, *t.col)) for t in terms]
    return assembled(parts, (*rows, *cols), dtype, disjoint=disjoint)


def _disjoint(terms: Sequence[Term], rows: Shape, cols: Shape) -> bool:
    """Whether no two points of the terms fall on the same entry."""
    size = math.prod(rows) * math.prod(cols)
    if size > 2**28:
        return False
    taken = np.zeros(size, dtype=bool)
    total = 0
    for term in terms:
        taken[entry_positions(term, rows, cols).ravel()] = True
        total += math.prod(term.domain)
    return int(np.count_nonzero(taken)) == total


def blocks_node(terms: Sequence[Term], rows: Shape, cols: Shape, dtype: DType) -> Node:
    """Per-sample Jacobians, shape ``(batch, *rows[1:], *cols[1:])``.

    Raises:
        InvalidInputError: result and argument have no common first axis, or some sample depends on another.
    """
    if not rows or not cols or rows[0] != cols[0]:
        raise InvalidInputError(
            f"format='blocks' needs a batch: the same first axis in result and argument, not shapes {rows} and {cols}"
        )
    parts: list[tuple[Node, tuple[Index, ...]]] = []
    for term in terms:
        if term.row[0] != term.col[0]:
            row, col = np.broadcast_arrays(evaluate(term.row[0], term.domain), evaluate(term.col[0], term.domain))
            different = np.flatnonzero(row != col)
            if different.size:
                i, j = int(row.flat[different[0]]), int(col.flat[different[0]])
                raise InvalidInputError(
                    f"format='blocks' needs a program that is block-diagonal, but sample {i} of the result depends on "
                    f"sample {j} of the argument; use format='csr' or 'dense'"
                )
        parts.append((coefficient(term), (*term.row, *term.col[1:])))
    shape = (*rows, *cols[1:])
    places = [Term(t.domain, t.row, t.col[1:]) for t in terms]
    return assembled(parts, shape, dtype, disjoint=len(parts) > 1 and _disjoint(places, rows, cols[1:]))


def transposed(terms: Sequence[Term]) -> Terms:
    """The transpose: rows and columns change places."""
    return tuple(term._replace(row=term.col, col=term.row) for term in terms)


def diagonal_terms(terms: Sequence[Term], shape: Shape) -> Terms:
    """The diagonal of a square Jacobian as the terms of a column: row ``()``, column over ``shape``.

    An entry is on the diagonal where its row meets its column, which is a composition like any other.
    """
    rank = len(shape)
    both = Term(shape, (*identity(rank), *identity(rank)), identity(rank))
    return add_terms(compose_terms(tuple(t._replace(row=(), col=(*t.row, *t.col)) for t in terms), (both,)))


def gram_terms(jacobian: Sequence[Sequence[Terms]]) -> tuple[tuple[Terms, ...], ...]:
    """``J.T @ J`` by composition, for every pair of arguments; ``jacobian[output][argument]`` is never stored."""
    columns = list(zip(*jacobian, strict=True))
    return tuple(
        tuple(
            add_terms(t for a, b in zip(left, right, strict=True) for t in compose_terms(transposed(a), b))
            for right in columns
        )
        for left in columns
    )


def selected_rows(node: Node, places: IntArray) -> Node:
    """The elements of ``node`` at the C-order ``places``: differentiating them alone gives those rows alone."""
    flat = movement_reshape(node, (node.size,))
    return index_node(flat, places.shape, (from_table(places, list(range(places.ndim))),))


__all__ = [
    "blocks_node",
    "dense_node",
    "diagonal_terms",
    "gram_terms",
    "selected_rows",
    "transposed",
]
