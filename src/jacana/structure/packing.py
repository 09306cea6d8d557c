"""Many terms as one: a sum of terms whose structure would multiply with every further composition.

A hundred steps of ``x = f(x, np.roll(x, 1))`` have a hundred diagonals, each cut into pieces where it wraps around, and
the next step doubles what meets. The sum of all of them is one matrix whose entries are known by position. Packed, it
is one term with one coefficient array, which the next step scales and shifts as a whole:

* every entry present: the domain is rows times columns, all expressions are plain axes;
* every row (or column) with equally many entries: the domain is rows times places in the row, columns are a table;
* otherwise one axis runs over the entries, rows and columns are tables.

The pattern stays exact, entry by entry. Places within a row, and entries, are numbered in the order in which the terms
mention them, the largest term first, so that most parts of the sum are written by slices and not by tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..graph.build import assembled, full
from ..graph.index import Index, IntArray, from_table, identity, shift_axes
from ..graph.node import Node, Shape, Term
from .positions import entry_positions
from .terms import Terms, coefficient, conjunction, normalise

GRID = 2**22  # places of a matrix up to which entries are found in a table of all of them, however few there are


def pack_terms(
    terms: Sequence[Term], rows: Shape, cols: Shape, by_column: bool = False, structure_only: bool = False
) -> Terms:
    """The same sum with all terms of one coefficient as one term; products kept apart stay as they are.

    ``by_column``: whether what will be composed next meets the columns (a sweep from the outputs).
    ``structure_only``: the terms have no coefficients, and none is made.
    """
    packable = [t for t in terms if len(t.factors) < 2 and not any(node.op.matrix for node, _ in t.factors)]
    if len(packable) < 2:
        return tuple(terms)
    rest = [t for t in terms if all(t is not p for p in packable)]
    packable.sort(key=lambda t: -math.prod(t.domain))
    height, width = math.prod(rows), math.prod(cols)
    positions = [entry_positions(t, rows, cols) for t in packable]
    first, which = _distinct(np.concatenate([p.ravel() for p in positions]), height * width)
    if len(first) == height * width:
        domain: Shape = (*rows, *cols)
        row, col = identity(len(rows)), tuple(shift_axes(e, len(rows)) for e in identity(len(cols)))
        places = [(*t.row, *t.col) for t in packable]
    else:
        domain, row, col, slots = _layout(first, rows, cols, by_column)
        places = []
        start = 0
        for t in packable:
            here = slots[which[start : start + math.prod(t.domain)]].reshape(t.domain)
            start += here.size
            axes = list(range(here.ndim))
            places.append(tuple(from_table(c, axes) for c in np.unravel_index(here, domain)))
    if structure_only:
        bare = normalise(Term(domain, row, col))
        return () if bare is None else (bare,)
    disjoint = len(first) == len(which)
    values = [coefficient(t) for t in packable]
    dtype = np.result_type(*(v.dtype for v in values))
    data = assembled(list(zip(values, places, strict=True)), domain, dtype, disjoint=disjoint)
    every = tuple(range(len(domain)))
    masks: tuple[tuple[Node, tuple[int, ...]], ...] = ()
    if any(t.masks for t in packable):
        present = [(_mask(t), where) for t, where in zip(packable, places, strict=True)]
        masks = ((assembled(present, domain, np.dtype(bool), disjoint=disjoint), every),)
    packed = normalise(Term(domain, row, col, ((data, every),), masks))
    return (*rest, packed) if packed is not None else tuple(rest)


def _mask(term: Term) -> Node:
    if not term.masks:
        return full(True, term.domain, np.dtype(bool))
    return conjunction(term.masks, tuple(range(len(term.domain))), term.domain)


def _distinct(positions: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """The positions, each once, in the order in which they occur first, and for each given one where it is there."""
    count = len(positions)
    if size <= max(GRID, 8 * count):
        grid = np.empty(size, np.int64)
        grid[positions[::-1]] = np.arange(count - 1, -1, -1)  # the first one is written last
        origin = grid[positions]
        new = origin == np.arange(count)
        return positions[new], (np.cumsum(new) - 1)[origin]
    _, begin, inverse = np.unique(positions, return_index=True, return_inverse=True)
    order = np.argsort(begin)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return positions[begin[order]], rank[inverse]


def _layout(
    first: IntArray, rows: Shape, cols: Shape, by_column: bool
) -> tuple[Shape, tuple[Index, ...], tuple[Index, ...], IntArray]:
    """Domain, row and column of distinct entries, and for each the C-order place in the domain."""
    row, col = np.divmod(first, math.prod(cols))
    line, minor = (col, row) if by_column else (row, col)
    lines, counts = np.unique(line, return_counts=True)
    each = int(counts[0])
    domain: Shape = (len(first),)
    slots = np.arange(len(first))
    if len(lines) > 1 and each > 1 and np.all(counts == each):
        order = np.argsort(line, kind="stable")
        slots = np.empty(len(first), np.int64)
        slots[order] = np.arange(len(first))
        domain = (len(lines), each)
        line, minor = lines[:, None], minor[order].reshape(domain)
    row, col = (minor, line) if by_column else (line, minor)
    return domain, _expressions(row, rows), _expressions(col, cols), slots


def _expressions(positions: IntArray, shape: Shape) -> tuple[Index, ...]:
    axes = list(range(positions.ndim))
    return tuple(from_table(c, axes) for c in np.unravel_index(positions, shape)) if shape else ()


__all__ = ["pack_terms"]
