"""Where the entries of a term are, as numbers."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from ..errors import InvalidInputError
from ..graph.index import flat_positions
from ..graph.node import Shape, Term

IntegerArray: TypeAlias = "np.ndarray[Any, np.dtype[np.signedinteger[Any]]]"


def entry_positions(term: Term, rows: Shape, cols: Shape) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The C-order position in the (rows, cols) matrix of every point of the term's domain."""
    sizes = term.domain
    if math.prod(rows) * math.prod(cols) >= 2**63:
        raise InvalidInputError("the Jacobian has more than 2**63 entries, whose positions 64 bits cannot number")
    positions = flat_positions((*term.row, *term.col), (*rows, *cols), sizes)
    return positions if positions.shape == sizes else np.broadcast_to(positions, sizes)


def write_coordinates(term: Term, rows: Shape, cols: Shape, row: IntegerArray, col: IntegerArray) -> None:
    """Write the C-order row and column of every point of the term's domain, in order, into two arrays."""
    sizes = term.domain
    for indices, shape, target in ((term.row, rows, row), (term.col, cols, col)):
        target.reshape(sizes)[...] = flat_positions(indices, shape, sizes)
