"""Sparse matrices of terms: index arrays computed once, shared and read-only; values as a node of the program.

Each plan says where in the array of values every entry of every term goes, and how that array becomes a
``scipy.sparse.*_array``. Rows, columns or blocks come sorted, and no entry is stored twice.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import InvalidInputError
from ..graph.build import assembled, cast_to
from ..graph.index import Index, from_table, unraveled
from ..graph.node import Array, DType, Node, Shape, Term
from .merging import add_outer_products, expand_small_axes, share_rows
from .positions import entry_positions, write_coordinates
from .support import restrict_to_masks
from .terms import coefficient

if TYPE_CHECKING:
    from scipy import sparse

Places: TypeAlias = "np.ndarray[Any, np.dtype[np.signedinteger[Any]]]"
MAX_BLOCK = 12  # rows or columns up to which a block size is tried
SAMPLE = 2**16  # entries that are looked at to choose a block size, and from which a part of them is looked at first
BEGINNING = 16  # places along an axis that are looked at first


@dataclass(frozen=True)
class SparsePlan:
    """A sparse Jacobian before its numbers: the node of the stored values, and what makes a matrix of them.

    ``indptr`` and ``indices`` are the structural entries as CSR has them, sorted by row and column.
    """

    format: str
    shape: tuple[int, int]
    indptr: Array
    indices: Array
    data: Node
    make: Callable[[Array], Any]

    @property
    def nnz(self) -> int:
        """The number of structural entries (``bsr`` and ``dia`` may store more)."""
        return len(self.indices)

    @property
    def rows(self) -> Array:
        """The row of every structural entry."""
        return _lines(self.indptr)

    @property
    def cols(self) -> Array:
        """The column of every structural entry."""
        return self.indices


def sparse_plan(terms: Sequence[Term], rows: Shape, cols: Shape, dtype: DType, format: str = "csr") -> SparsePlan:
    """The plan of ``csr``, ``csc``, ``coo``, ``bsr`` or ``dia`` for the matrix of shape (rows, cols), C order."""
    shape = (math.prod(rows), math.prod(cols))
    terms = add_outer_products(part for term in terms for part in restrict_to_masks(term))
    terms = share_rows(terms, rows)
    by_column = format == "csc"
    distinct = not _overlap(terms, rows, cols)
    if distinct:
        pointers, minor, slots = _sorted(terms, rows, cols, by_column)
        distinct = len(slots) == len(minor)
    if len(terms) > 1 and not distinct:
        # Some entries come from several terms: merge what can be, so that each entry is written once.
        terms = share_rows(expand_small_axes(terms), rows)
        pointers, minor, slots = _sorted(terms, rows, cols, by_column)
        distinct = len(slots) == len(minor)
    where, storage, make = _LAYOUTS[format](pointers, minor, slots, shape)
    parts: list[tuple[Node, tuple[Index, ...]]] = []
    start = 0
    for term in terms:
        here = where[start : start + math.prod(term.domain)].reshape(term.domain)
        start += here.size
        axes = list(range(here.ndim))
        coordinates = unraveled(here, storage)
        parts.append((coefficient(term), tuple(from_table(c, axes) for c in coordinates)))
    data = cast_to(assembled(parts, storage, dtype, disjoint=distinct), dtype)
    if by_column:
        by_row, minor, _ = _compress([minor, _lines(pointers)], shape[0])
        pointers = by_row
    return SparsePlan(format, shape, _frozen(pointers), _frozen(minor), data, make)


def _overlap(terms: Sequence[Term], rows: Shape, cols: Shape) -> bool:
    """Whether two terms share an entry for certain: large ones are looked at where their domains begin."""
    if len(terms) < 2 or sum(math.prod(t.domain) for t in terms) < SAMPLE:
        return False
    begun = [t._replace(domain=tuple(min(n, BEGINNING) for n in t.domain)) for t in terms]
    places = np.sort(np.concatenate([entry_positions(t, rows, cols).ravel() for t in begun]))
    return bool((places[1:] == places[:-1]).any())


def _sorted(terms: Sequence[Term], rows: Shape, cols: Shape, by_column: bool) -> tuple[Places, Places, Places]:
    """The entries of all terms in order of lines (rows, or columns): pointers, places in the lines, no entry twice.

    The third array says for every entry of every term where it is among them.
    """
    shape = (math.prod(rows), math.prod(cols))
    total = sum(math.prod(t.domain) for t in terms)
    kind = np.dtype(np.int32 if max(total, *shape) < 2**31 else np.int64)
    row: Places = np.empty(total, kind)
    col: Places = np.empty(total, kind)
    start = 0
    for term in terms:
        here = slice(start, start + math.prod(term.domain))
        write_coordinates(term, rows, cols, row[here], col[here])
        start = here.stop
    pair = [col, row] if by_column else [row, col]
    del row, col
    return _compress(pair, shape[1] if by_column else shape[0])


def _compress(pair: list[Places], lines: int) -> tuple[Places, Places, Places]:
    """Entries sorted by line and place, each once: pointers, places, and for each given entry where it is.

    ``pair``: lines and places as given; the list is emptied, so that their memory is free when the rest is made.
    """
    from scipy import sparse  # importing it takes longer than importing jacana

    minor, major = pair.pop(), pair.pop()
    # A counting sort: linear, and in the memory of the index arrays themselves.
    kind = major.dtype
    width = int(minor.max(initial=0)) + 1
    entries = sparse.coo_array((np.arange(len(major), dtype=kind), (major, minor)), shape=(lines, width))
    entries.has_canonical_format = True  # keep those that fall on one place apart
    matrix = entries.tocsr()
    del entries, major, minor
    matrix.sort_indices()
    pointers, places, order = matrix.indptr.astype(kind, copy=False), matrix.indices, matrix.data
    first = np.ones(len(places), dtype=bool)
    np.not_equal(places[1:], places[:-1], out=first[1:])
    starts = pointers[:-1]
    first[starts[starts < len(places)]] = True
    slots = np.empty(len(places), dtype=kind)
    if first.all():
        slots[order] = np.arange(len(places), dtype=kind)
        return pointers, places.astype(kind, copy=False), slots
    count = np.cumsum(first, dtype=kind)
    slots[order] = count - 1
    pointers = np.concatenate([np.zeros(1, kind), count])[pointers]
    return pointers, places[first].astype(kind, copy=False), slots


def _lines(pointers: Places) -> Places:
    """The line of every entry."""
    return np.repeat(np.arange(len(pointers) - 1, dtype=pointers.dtype), np.diff(pointers))


def _frozen(values: Array) -> Array:
    values.flags.writeable = False
    return values


# where every entry of every term goes in the array of values, the shape of that array, and what makes a matrix of it
Layout: TypeAlias = tuple[Places, Shape, Callable[[Array], Any]]


def _maker(template: sparse.sparray, *indices: Array) -> Callable[[Array], Any]:
    """New matrices with the index arrays of ``template``, which become read-only.

    SciPy's constructors check the index arrays again at every call; a copy of the attributes of a checked one does not.
    """
    for part in indices:
        part.flags.writeable = False
    attributes = dict(template.__dict__)
    attributes.pop("data")
    kind = type(template)

    def make(data: Array) -> Any:
        matrix = object.__new__(kind)
        matrix.__dict__.update(attributes)
        matrix.data = data
        return matrix

    return make


def _compressed(format: str, pointers: Places, minor: Places, slots: Places, shape: tuple[int, int]) -> Layout:
    from scipy import sparse

    make = sparse.csr_array if format == "csr" else sparse.csc_array
    template = make((np.zeros(len(minor), np.int8), minor, pointers), shape=shape)
    template.has_canonical_format = True
    return slots, (len(minor),), _maker(template, template.indices, template.indptr)


def _coordinates(pointers: Places, minor: Places, slots: Places, shape: tuple[int, int]) -> Layout:
    from scipy import sparse

    template = sparse.coo_array((np.zeros(len(minor), np.int8), (_lines(pointers), minor)), shape=shape)
    template.has_canonical_format = True
    return slots, (len(minor),), _maker(template, *template.coords)


def _block_rows(pointers: Places, minor: Places, slots: Places, shape: tuple[int, int]) -> Layout:
    from scipy import sparse

    row, col = _lines(pointers), minor
    high, wide = _block_size(row, col, shape)
    starts, blocks, place = _compress([row // high, col // wide], shape[0] // high)
    data = np.broadcast_to(np.int8(0), (len(blocks), high, wide))
    template = sparse.bsr_array((data, blocks, starts), shape=shape, blocksize=(high, wide))
    places = (place.astype(np.int64) * high + row % high) * wide + col % wide
    return places[slots], data.shape, _maker(template, template.indices, template.indptr)


def _block_size(row: Places, col: Places, shape: tuple[int, int]) -> tuple[int, int]:
    """The size of block that stores least, counting an index as one value; judged by a part of a large matrix."""
    if len(row) > SAMPLE:
        # Whole windows of rows, here and there.
        starts = np.linspace(0, len(row) - SAMPLE // 8, 8).astype(np.int64)
        chosen = np.concatenate([np.arange(s, s + SAMPLE // 8) for s in starts])
        row, col = row[chosen], col[chosen]
    row, col = row.astype(np.int64), col.astype(np.int64)
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


def _diagonals(pointers: Places, minor: Places, slots: Places, shape: tuple[int, int]) -> Layout:
    from scipy import sparse

    line = minor - _lines(pointers)
    line += shape[0] - 1
    present = np.zeros(max(sum(shape) - 1, 0), dtype=bool)
    present[line] = True
    offsets = np.flatnonzero(present) - (shape[0] - 1)
    stored = len(offsets) * shape[1]
    if stored > 2**20 and stored > 16 * len(minor):
        raise InvalidInputError(
            f"format='dia' would store {len(offsets)} diagonals, {stored} values for {len(minor)} entries; use 'csr'"
        )
    data = np.broadcast_to(np.int8(0), (len(offsets), shape[1]))
    template = sparse.dia_array((data, offsets), shape=shape)
    place = (np.cumsum(present) - 1)[line] * shape[1] + minor
    return place[slots], data.shape, _maker(template, template.offsets)


_LAYOUTS: dict[str, Callable[[Places, Places, Places, tuple[int, int]], Layout]] = {
    "csr": functools.partial(_compressed, "csr"),
    "csc": functools.partial(_compressed, "csc"),
    "coo": _coordinates,
    "bsr": _block_rows,
    "dia": _diagonals,
}
SPARSE_FORMATS = tuple(_LAYOUTS)
