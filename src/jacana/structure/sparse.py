"""Sparse matrices of terms: index arrays computed once, shared and read-only; values as a node of the program.

Each plan says where in the array of values every entry of every term goes, and how that array becomes a
``scipy.sparse.*_array``. Rows, columns or blocks come sorted, and no entry is stored twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import InvalidInputError
from ..graph.build import assembled, cast_to
from ..graph.index import Index, from_table
from ..graph.node import Array, DType, Node, Shape, Term
from .positions import entry_positions, repeats
from .support import restrict_to_masks
from .terms import coefficient, expand_small_axes

if TYPE_CHECKING:
    from scipy import sparse

Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
MAX_BLOCK = 12  # rows or columns up to which a block size is tried


@dataclass(frozen=True)
class SparsePlan:
    """A sparse Jacobian before its numbers: the node of the stored values, and what makes a matrix of them.

    ``rows`` and ``cols`` are the places of the structural entries, sorted by row and column.
    """

    format: str
    shape: tuple[int, int]
    rows: Array
    cols: Array
    data: Node
    make: Callable[[Array], Any]

    @property
    def nnz(self) -> int:
        """The number of structural entries (``bsr`` and ``dia`` may store more)."""
        return len(self.cols)

    @property
    def indices(self) -> Array:
        """The columns row by row, as CSR has them."""
        return self.cols

    @property
    def indptr(self) -> Array:
        """Where each row begins in ``indices``, as CSR has it."""
        return _frozen(np.searchsorted(self.rows, np.arange(self.shape[0] + 1)), (0, len(self.cols)))


def sparse_plan(terms: Sequence[Term], rows: Shape, cols: Shape, dtype: DType, format: str = "csr") -> SparsePlan:
    """The plan of ``csr``, ``csc``, ``coo``, ``bsr`` or ``dia`` for the matrix of shape (rows, cols), C order."""
    shape = (math.prod(rows), math.prod(cols))
    terms = [part for term in terms for part in restrict_to_masks(term)]
    keys = [entry_positions(term, rows, cols) for term in terms]
    every = np.concatenate([k.ravel() for k in keys]) if keys else np.empty(0, np.int64)
    if len(terms) > 1 and repeats(every):
        # Some entries come from several terms: merge what can be, so that each entry is written once.
        terms = expand_small_axes(terms)
        keys = [entry_positions(term, rows, cols) for term in terms]
        every = np.concatenate([k.ravel() for k in keys]) if keys else np.empty(0, np.int64)
    width = max(shape[1], 1)
    if format == "csc":
        row, col = np.divmod(every, width)
        every = col * max(shape[0], 1) + row
    unique, slots = _number(every)
    if format == "csc":
        col, row = np.divmod(unique, max(shape[0], 1))
    else:
        row, col = np.divmod(unique, width)
    place, storage, make = _LAYOUTS[format](row, col, shape)
    where = slots if place is None else place[slots]
    parts: list[tuple[Node, tuple[Index, ...]]] = []
    start = 0
    for term, key in zip(terms, keys, strict=True):
        here = where[start : start + key.size].reshape(key.shape)
        start += key.size
        axes = list(range(key.ndim))
        coordinates = np.unravel_index(here, storage) if len(storage) > 1 else (here,)
        parts.append((coefficient(term), tuple(from_table(c, axes) for c in coordinates)))
    data = assembled(parts, storage, dtype, disjoint=len(unique) == len(every))
    if format == "csc":
        order = np.lexsort((col, row))
        row, col = row[order], col[order]
    return SparsePlan(format, shape, _frozen(row, shape), _frozen(col, shape), cast_to(data, dtype), make)


def _number(keys: Positions) -> tuple[Positions, Positions]:
    """The sorted distinct keys, and for each key its place among them."""
    # Terms are sorted runs, which a stable sort (timsort) merges in one pass each.
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    slots = np.empty(len(ordered), dtype=np.int64)
    slots[order] = np.cumsum(first) - 1
    return ordered[first], slots


def _frozen(values: Array, shape: tuple[int, int]) -> Array:
    dtype = np.int32 if max(len(values), *shape) < 2**31 else np.int64
    result = np.asarray(values, dtype=dtype)
    if result is values:
        result = result.copy()
    result.flags.writeable = False
    return result


Layout: TypeAlias = tuple["Positions | None", Shape, Callable[[Array], Any]]


def _maker(template: sparse.sparray) -> Callable[[Array], Any]:
    """New matrices with the index arrays of ``template``.

    SciPy's constructors check the index arrays again at every call; a copy of the attributes of a checked one does not.
    """
    attributes = dict(template.__dict__)
    kind = type(template)

    def make(data: Array) -> Any:
        matrix = object.__new__(kind)
        matrix.__dict__.update(attributes)
        matrix.data = data
        return matrix

    return make


def _compressed(row: Positions, col: Positions, shape: tuple[int, int], format: str) -> Layout:
    from scipy import sparse  # importing it takes longer than importing jacana

    major, minor, lines = (row, col, shape[0]) if format == "csr" else (col, row, shape[1])
    pointers = _frozen(np.searchsorted(major, np.arange(lines + 1)), (shape[0], max(shape[1], len(row))))
    make = sparse.csr_array if format == "csr" else sparse.csc_array
    template = make((np.zeros(len(row)), _frozen(minor, shape).astype(pointers.dtype), pointers), shape=shape)
    template.has_canonical_format = True
    for part in (template.indices, template.indptr):
        part.flags.writeable = False
    return None, (len(row),), _maker(template)


def _coordinates(row: Positions, col: Positions, shape: tuple[int, int]) -> Layout:
    from scipy import sparse

    template = sparse.coo_array((np.zeros(len(row)), (_frozen(row, shape), _frozen(col, shape))), shape=shape)
    template.has_canonical_format = True
    for part in template.coords:
        part.flags.writeable = False
    return None, (len(row),), _maker(template)


def _block_rows(row: Positions, col: Positions, shape: tuple[int, int]) -> Layout:
    from scipy import sparse

    high, wide = _block_size(row, col, shape)
    across = shape[1] // wide
    block = (row // high) * across + col // wide
    unique, slots = _number(block)
    pointers = np.searchsorted(unique // max(across, 1), np.arange(shape[0] // high + 1))
    dtype = np.int32 if max(len(unique), *shape) < 2**31 else np.int64
    data = np.zeros((len(unique), high, wide))
    indices = (unique % max(across, 1)).astype(dtype)
    template = sparse.bsr_array((data, indices, pointers.astype(dtype)), shape=shape, blocksize=(high, wide))
    for part in (template.indices, template.indptr):
        part.flags.writeable = False
    place = (slots * high + row % high) * wide + col % wide
    return place, data.shape, _maker(template)


def _block_size(row: Positions, col: Positions, shape: tuple[int, int]) -> tuple[int, int]:
    """The size of block that stores least, counting an index as one value."""
    best, size = math.inf, (1, 1)
    for high in (k for k in range(1, MAX_BLOCK + 1) if shape[0] % k == 0):
        for wide in (k for k in range(1, MAX_BLOCK + 1) if shape[1] % k == 0):
            if len(row) * 1.0 > best * high * wide:
                continue
            blocks = len(np.unique((row // high) * (shape[1] // wide) + col // wide))
            cost = blocks * (high * wide + 1)
            if cost < best:
                best, size = cost, (high, wide)
    return size


def _diagonals(row: Positions, col: Positions, shape: tuple[int, int]) -> Layout:
    from scipy import sparse

    offsets, line = np.unique(col - row, return_inverse=True)
    stored = len(offsets) * shape[1]
    if stored > 2**20 and stored > 16 * len(row):
        raise InvalidInputError(
            f"format='dia' would store {len(offsets)} diagonals, {stored} values for {len(row)} entries; use 'csr'"
        )
    data = np.zeros((len(offsets), shape[1]))
    template = sparse.dia_array((data, offsets), shape=shape)
    template.offsets.flags.writeable = False
    return line * shape[1] + col, data.shape, _maker(template)


_LAYOUTS: dict[str, Callable[[Positions, Positions, tuple[int, int]], Layout]] = {
    "csr": lambda row, col, shape: _compressed(row, col, shape, "csr"),
    "csc": lambda row, col, shape: _compressed(row, col, shape, "csc"),
    "coo": _coordinates,
    "bsr": _block_rows,
    "dia": _diagonals,
}
SPARSE_FORMATS = tuple(_LAYOUTS)
