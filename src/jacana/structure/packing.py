"""Many terms as one: a sum of terms whose structure would multiply with every further composition.

A hundred steps of ``x = f(x, np.roll(x, 1))`` have a hundred diagonals, each cut into pieces where it wraps around, and
the next step doubles what meets. The sum of all of them is one matrix whose entries are known by position. Packed, it
is one term with one coefficient array, which the next step scales and shifts as a whole:

* every entry present: the domain is rows times columns, all expressions are plain axes;
* every row (or column) with equally many entries: the domain is rows times places in the row, columns are a table;
* at least one entry in eight present: rows times columns, and a constant mask says which of them are entries;
* otherwise one axis runs over the entries, rows and columns are tables.

The pattern stays exact, entry by entry. Places within a row, and entries, are numbered in the order in which the terms
mention them, the largest term first, so that most parts of the sum are written by slices and not by tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..graph.build import assembled, constant_array, full
from ..graph.index import Index, IntArray, from_table, identity, shift_axes, unraveled
from ..graph.node import Array, Factor, Node, Shape, Term
from .positions import entry_positions
from .support import known_mask, restrict_to_masks
from .terms import Terms, coefficient, conjunction, normalise

GRID = 2**22  # places of a matrix up to which entries are found in a table of all of them, however few there are
LONG = 1024  # elements from which the first axis of a term is long, for a search by columns
SAMPLED = 512  # points of a term that are looked at first: most terms name no entry twice
BOXED = 8  # places for each entry up to which a matrix with gaps is kept whole
Places = Sequence[tuple[Index, ...]]


def pack_terms(
    terms: Sequence[Term],
    rows: Shape,
    cols: Shape,
    by_column: bool = False,
    structure_only: bool = False,
    overlapping: bool = False,
) -> Terms:
    """The same sum with all terms as one, but for linear maps and for outer products that are better kept apart.

    ``by_column``: whether what will be composed next meets the columns (a sweep from the outputs).
    ``structure_only``: the terms have no coefficients, and none is made.
    ``overlapping``: they name entries several times, so that even one alone, or outer products, become smaller.
    """
    packable = _formed(terms) if overlapping else _packable(terms)
    if len(packable) < (1 if overlapping else 2):
        return tuple(terms)
    rest = [t for t in terms if all(t is not p for p in packable)]
    packable.sort(key=lambda t: -math.prod(t.domain))
    known = [known_mask(t) for t in packable]
    chosen = any(bool(t.masks) and mask is None for t, mask in zip(packable, known, strict=True))
    positions = [entry_positions(t, rows, cols) for t in packable]
    taken = np.concatenate([(p if k is None else p[k]).ravel() for p, k in zip(positions, known, strict=True)])
    size = math.prod(rows) * math.prod(cols)
    everything = (*rows, *cols)
    row, col = identity(len(rows)), tuple(shift_axes(e, len(rows)) for e in identity(len(cols)))
    mask: Array | None = None
    if any(k is not None for k in known):
        present = _present(taken, size) if size <= BOXED * len(taken) and not chosen else None
        if present is None or size > BOXED * np.count_nonzero(present):
            parts = [part for t in packable for part in restrict_to_masks(t)]
            return (*rest, *pack_terms(parts, rows, cols, by_column, structure_only, overlapping))
        whole, disjoint = True, False
        mask = None if present.all() else present.reshape(everything)
    else:
        first, which = _distinct_slots(positions, size) if len(taken) > GRID // 64 else _distinct(taken, size)
        disjoint = len(first) == len(which)
        whole = len(first) == size
        if not whole:
            domain, new_row, new_col, slots = _layout(first, rows, cols, by_column)
            if len(domain) == 1 and size <= BOXED * len(first) and not chosen:
                whole, mask = True, _present(taken, size).reshape(everything)
    places: Places = [(*t.row, *t.col) for t in packable]
    if whole:
        domain = everything
    else:
        row, col = new_row, new_col
        places = _tabulated(packable, slots[which], domain)
    every = tuple(range(len(domain)))
    masks: tuple[Factor, ...] = ()
    if mask is not None:
        masks = ((constant_array(mask), every),)
    elif chosen:
        given = [(_mask(t), where) for t, where in zip(packable, places, strict=True)]
        masks = ((assembled(given, domain, np.dtype(bool), disjoint=disjoint), every),)
    factors: tuple[Factor, ...] = ()
    if not structure_only:
        values = [coefficient(t) for t in packable]
        dtype = np.result_type(*(v.dtype for v in values))
        summed = assembled(list(zip(values, places, strict=True)), domain, dtype, disjoint=disjoint)
        factors = ((summed, every),)
    packed = normalise(Term(domain, row, col, factors, masks))
    return tuple(rest) if packed is None else (*rest, packed)


def overlaps(term: Term, rows: Shape, cols: Shape) -> bool:
    """Whether a term names its entries twice on average, or more often: by paths through a graph that meet again."""
    count = math.prod(term.domain)
    if count < 2 or not _formed([term]):
        return False
    if count >= 2 * math.prod(rows) * math.prod(cols):
        return True
    first, *others = term.domain
    begun = term._replace(domain=(min(first, max(SAMPLED // math.prod(others), 2)), *others))
    return all(_twice(entry_positions(t, rows, cols).ravel()) for t in (begun, term))


def _twice(positions: IntArray) -> bool:
    ordered = np.sort(positions)
    return 2 * int(1 + np.count_nonzero(ordered[1:] != ordered[:-1])) <= len(ordered)


def _formed(terms: Sequence[Term]) -> list[Term]:
    return [t for t in terms if not any(node.op.matrix for node, _ in t.factors)]


def _packable(terms: Sequence[Term]) -> list[Term]:
    """Terms of one coefficient, and outer products where multiplying them out does not take more memory."""
    formed = _formed(terms)
    single = [t for t in formed if len(t.factors) < 2]
    outer = [t for t in formed if len(t.factors) > 1]
    kept = sum(math.prod(t.domain) for t in single) + sum(node.size for t in outer for node, _ in t.factors)
    return single + [t for t in outer if math.prod(t.domain) <= kept]


def _tabulated(terms: Sequence[Term], slots: IntArray, domain: Shape) -> Places:
    """Where every entry of every term goes in the domain."""
    places = []
    start = 0
    for t in terms:
        here = slots[start : start + math.prod(t.domain)].reshape(t.domain)
        start += here.size
        axes = list(range(here.ndim))
        places.append(tuple(from_table(c, axes) for c in unraveled(here, domain)))
    return places


def _present(positions: IntArray, size: int) -> Array:
    present = np.zeros(size, dtype=bool)
    present[positions] = True
    return present


def _mask(term: Term) -> Node:
    if not term.masks:
        return full(True, term.domain, np.dtype(bool))
    return conjunction(term.masks, tuple(range(len(term.domain))), term.domain)


def _distinct_slots(positions: Sequence[IntArray], size: int) -> tuple[IntArray, IntArray]:
    """``_distinct`` of all arrays, one after another, with less to sort.

    Pieces of one residual read the same arguments over and over. A column of an array (one place of its short axes,
    all along the first) that equals one before is looked at once.
    """
    blocks = [p.reshape(len(p), -1) if p.ndim and len(p) >= LONG else p.reshape(1, -1) for p in positions]
    seen: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
    fresh: list[list[int]] = [[] for _ in blocks]
    copies: list[tuple[int, int, int, int]] = []  # array and column, and the ones that they equal
    for k, block in enumerate(blocks):
        height, width = block.shape
        if height == 1:
            fresh[k] = list(range(width))
            continue
        for j in range(width):
            column = block[:, j]
            bucket = seen.setdefault((height, int(column[0]), int(column[height // 2]), int(column[-1])), [])
            known = [(a, b) for a, b in bucket if np.array_equal(column, blocks[a][:, b])]
            if known:
                copies.append((k, j, *known[0]))
            else:
                bucket.append((k, j))
                fresh[k].append(j)
    some = [b if len(f) == b.shape[1] else b[:, f] for b, f in zip(blocks, fresh, strict=True)]
    first, ranks = _distinct(np.concatenate([b.ravel() for b in some]), size)
    if not copies:
        return first, ranks
    which = [np.empty(b.shape, np.int64) for b in blocks]
    start = 0
    for target, part, columns in zip(which, some, fresh, strict=True):
        target[:, columns] = ranks[start : start + part.size].reshape(part.shape)
        start += part.size
    for k, j, a, b in copies:
        which[k][:, j] = which[a][:, b]
    return first, np.concatenate([w.ravel() for w in which])


def _distinct(positions: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """The positions, each once, in the order in which they occur first, and for each given one where it is there."""
    count = len(positions)
    if size <= max(GRID, 8 * count):
        grid = np.empty(size, np.int64)
        grid[positions[::-1]] = np.arange(count - 1, -1, -1)  # the first one is written last
        origin = grid[positions]
        new = origin == np.arange(count)
        return positions[new], (np.cumsum(new) - 1)[origin]
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    starts = np.ones(count, dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    begin = order[starts]  # the first of equal ones, as the order is stable
    if len(begin) == count:
        return positions, np.arange(count)
    new = np.zeros(count, dtype=bool)
    new[begin] = True
    kind = np.int32 if count < 2**31 else np.int64  # half the memory
    rank = (np.cumsum(new, dtype=kind) - 1)[begin]
    which = np.empty(count, np.int64)
    which[order] = rank[np.cumsum(starts, dtype=kind) - 1]
    return positions[new], which


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
    return tuple(from_table(c, axes) for c in unraveled(positions, shape))


__all__ = ["overlaps", "pack_terms"]
