"""Rewriting the final terms so that each entry is stored once, and many by one loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from ..graph.index import Affine, Index, axes_of, axis, flatten
from ..graph.node import Term
from .terms import Terms, add_terms, at_points, spread_product


def add_outer_products(terms: Iterable[Term]) -> Terms:
    """The same sum, with terms of equal domain, row and column made one though that multiplies their factors out.

    Each entry is stored by itself in the end, so that nothing is lost by it, and there is less to expand, sort and add.
    """
    groups: dict[tuple[object, ...], list[Term]] = {}
    for term in terms:
        groups.setdefault((term.domain, term.row, term.col), []).append(term)
    result: list[Term] = []
    for group in groups.values():
        if len(group) > 1:
            axes = tuple(range(len(group[0].domain)))
            spread = [t._replace(factors=((spread_product(t.factors, axes, t.domain), axes),)) for t in group]
            result.extend(add_terms(spread))
        else:
            result.extend(group)
    return tuple(result)


LONG = 16  # points from which an axis of a grid is long
BOX = 2**15  # points from which a term over several long axes is cut


def expand_small_axes(terms: Iterable[Term], limit: int = 16) -> Terms:
    """The same sum with every short axis of a longer domain written out, one term for each of its places.

    Terms that fall on the same entries but say so with different axes then have equal structure and are added.
    """
    result: list[Term] = []
    for term in terms:
        small = [a for a, n in enumerate(term.domain) if n <= limit]
        count = math.prod(term.domain[a] for a in small)
        if not small or len(small) == len(term.domain) or count > limit**2:
            result.append(term)
            continue
        for place in itertools.product(*(range(term.domain[a]) for a in small)):
            names = {a: k for k, a in enumerate(x for x in range(len(term.domain)) if x not in small)}
            at = dict(zip(small, place, strict=True))
            replacement = [Affine(at[a]) if a in at else axis(names[a]) for a in range(len(term.domain))]
            result.extend(at_points(term, replacement, tuple(term.domain[a] for a in names)))
    return add_terms(result)


def share_rows(terms: Sequence[Term], shape: Sequence[int], longest: int = 8, least: int = 64) -> Terms:
    """The same sum, with long terms that run over nearly the same rows cut to the rows they have in common.

    A tridiagonal Jacobian has diagonals of n - 1, n and n - 1 entries, and its corners may be hit twice. With the ends
    (at most ``longest`` points of a term) written out one by one, the rest is one loop that stores whole rows.
    """
    terms = _share_boxes(terms, shape, longest)
    groups: dict[tuple[int, int], list[tuple[int, int, Term]]] = {}
    result = []
    for term in terms:
        row = flatten(term.row, shape, term.domain) if len(term.domain) == 1 and shape else None
        if (
            term.domain
            and term.domain[0] >= least
            and isinstance(row, Affine)
            and row.strides
            and row.strides[0][1] > 0
        ):
            stride = row.strides[0][1]
            last = row.offset + stride * (term.domain[0] - 1)
            groups.setdefault((stride, row.offset % stride), []).append((row.offset, last, term))
        else:
            result.append(term)
    for (stride, _), group in groups.items():
        low, high = max(g[0] for g in group), min(g[1] for g in group)
        if max((low - first + last - high) // stride for first, last, _ in group) > longest:
            result.extend(term for _, _, term in group)
            continue
        for first, _, term in group:
            front, size = (low - first) // stride, (high - low) // stride + 1
            ends = [*range(front), *range(front + size, term.domain[0])]
            for point in ends:
                result.extend(at_points(term, [Affine(point)], ()))
            result.extend(at_points(term, [Affine(front, ((0, 1),))], (size,)) if ends else (term,))
    return add_terms(result)


def _share_boxes(terms: Sequence[Term], shape: Sequence[int], longest: int) -> Sequence[Term]:
    """The same for terms over two or more long axes: every one is cut, axis by axis, to the common rows of all.

    A stencil on a grid, periodic or not, becomes one box of interior rows that all its terms share, and sides, edges
    and corners that have loops over one axis less. Rows may be those of a flattened grid.
    """
    if not any(sum(n >= LONG for n in t.domain) > 1 and math.prod(t.domain) >= BOX for t in terms):
        return terms
    for k, length in enumerate(shape):
        for step, count in _radices([t.row[k] for t in terms], length):
            spans = [_span(term, k, step, count) for term in terms]
            long = [(low, high) for _, low, high in filter(None, spans) if high - low >= LONG]
            if count < LONG or not long:
                continue
            low, high = max(s[0] for s in long), min(s[1] for s in long)
            if max(low - first + last - high for first, last in long) > longest:
                continue
            result: list[Term] = []
            for term, span in zip(terms, spans, strict=True):
                if span is None or span[1:] == (low, high):
                    result.append(term)
                    continue
                axis_, first, last = span
                if last - first >= LONG:
                    result.extend(_slices(term, axis_, low - first, high - low + 1))
                elif last - first < longest:
                    result.extend(_slices(term, axis_, 0, 0))
                else:
                    result.append(term)
            terms = result
    return add_terms(terms)


def _radices(rows: Sequence[Index], length: int) -> list[tuple[int, int]]:
    """How an axis of rows counts the points of a grid: for each digit, the step from one to the next and how many.

    An axis is one digit unless the rows run along it in steps that divide one another: ``n_x n_y`` points one after
    another are counted by ``n_y`` and by 1.
    """
    steps = sorted({s for e in rows if isinstance(e, Affine) for _, s in e.strides})
    if not steps or steps[0] < 1:
        return [(1, length)]
    steps = [1, *(s for s in steps if s > 1), length]
    if any(b % a for a, b in itertools.pairwise(steps)):
        return [(1, length)]
    return [(a, b // a) for a, b in itertools.pairwise(steps)][::-1]


def _span(term: Term, k: int, step: int, count: int) -> tuple[int, int, int] | None:
    """The axis of the domain that runs over consecutive values of a digit of row axis ``k``, its first and last value.

    None also where the rows of the term, counted on, would carry into the next digit.
    """
    row = term.row[k]
    if not isinstance(row, Affine):
        return None
    along = [a for a, s in row.strides if s == step]
    lower = row.offset % step + sum(s * (term.domain[a] - 1) for a, s in row.strides if 0 < s < step)
    if len(along) != 1 or lower >= step or any(s < 0 for _, s in row.strides):
        return None
    (a,) = along
    if any(a in axes_of(e) for j, e in enumerate(term.row) if j != k):
        return None
    first = row.offset // step % count
    last = first + term.domain[a] - 1
    return (a, first, last) if last < count else None


def _slices(term: Term, a: int, front: int, size: int) -> Terms:
    """A term without axis ``a`` for each point of it outside a middle part, and the middle part with it."""
    rank = len(term.domain)
    result: list[Term] = []
    names = {x: k for k, x in enumerate(x for x in range(rank) if x != a)}
    rest = tuple(term.domain[x] for x in names)
    for point in (*range(front), *range(front + size, term.domain[a])):
        replacement = [Affine(point) if x == a else axis(names[x]) for x in range(rank)]
        result.extend(at_points(term, replacement, rest))
    if size:
        replacement = [Affine(front, ((a, 1),)) if x == a else axis(x) for x in range(rank)]
        sizes = tuple(size if x == a else n for x, n in enumerate(term.domain))
        result.extend(at_points(term, replacement, sizes))
    return tuple(result)
