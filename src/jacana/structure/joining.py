"""Where two terms meet: the structure of a composition, found by solving index expressions and remembered.

Nothing here looks at a coefficient. A program repeats itself (steps of a loop, layers, residuals of one kind), and so
do the joins of its terms, whose answers depend on index expressions alone: each is solved once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from ..graph.index import (
    Affine,
    Index,
    IntArray,
    Lookup,
    Memory,
    axes_of,
    axis,
    bounds,
    evaluate,
    from_table,
    identity,
    plain_axis,
    rename,
    shift_axes,
    substitute,
    tabulated,
    unraveled,
)
from ..graph.node import Term

Indices: TypeAlias = tuple[Index, ...]
Sizes: TypeAlias = tuple[int, ...]


class Arrangement(NamedTuple):
    """Row and column of a term in normal form, and what became of the axes it was made from.

    ``domain`` has the ``kept`` axes, which occur in row or column and are numbered as they occur, then those to be
    summed. ``outer`` and ``inner`` give every axis of the term (of the two terms) over this domain; None: all axes
    are what they were.
    """

    domain: Sizes
    row: Indices
    col: Indices
    kept: int
    outer: Indices | None
    inner: Indices | None


def arrange(term: Term) -> Arrangement | None:
    """The normal order of a term's axes; None for an empty domain."""
    domain, row, col = term.domain, term.row, term.col
    count = len(domain)
    if row[:count] == identity(count) and 1 not in domain:
        return None if 0 in domain else Arrangement(domain, row, col, count, None, None)
    return _arranged(domain, row, col, None, None)


class _Meeting:
    """Where ``b <- u`` and ``u <- a`` meet: the joint domain, and every axis of either term over it.

    That depends on what they say about u alone. Terms that meet in the same way differ in the rows of b and the columns
    of a, each of which is moved to the joint domain once. A side in ``still`` has that domain from the beginning.
    """

    __slots__ = ("_moved", "answers", "domain", "places", "still")

    def __init__(self, domain: Sizes, outer: Indices, inner: Indices, still: int | None = None) -> None:
        self.domain, self.places, self.still = domain, (outer, inner), still
        self.answers: dict[tuple[Indices, Indices], Arrangement | None] = {}
        self._moved: tuple[dict[Indices, Indices], dict[Indices, Indices]] = ({}, {})

    def moved(self, side: int, indices: Indices) -> Indices:
        """Indices over the domain of one of the terms, as indices over the joint domain."""
        if side == self.still:
            return indices
        known = self._moved[side]
        found = known.get(indices)
        if found is None:
            places, domain = self.places[side], self.domain
            found = tuple([substitute(e, places, domain) for e in indices])
            if _meetings.takes(_weight(indices) + _weight(found)):
                known[indices] = found
        return found

    def arranged(self, row: Indices, col: Indices) -> Arrangement | None:
        """The normal form of the composition, with ``row`` of the one term and ``col`` of the other."""
        return _arranged(self.domain, self.moved(0, row), self.moved(1, col), *self.places)


def join(outer: Term, inner: Term) -> Arrangement | None:
    """The structure of ``b <- a`` from ``b <- u`` and ``u <- a``; None where they never meet."""
    key = (outer.domain, outer.col, inner.domain, inner.row)
    meeting = _meetings.get(key)
    if meeting is None:
        meeting = _meet(*key)
        _meetings.put(key, meeting, _weight((*key[1], *key[3], *meeting.places[0], *meeting.places[1])))
    if meeting is _APART:
        return None
    ends = (outer.row, inner.col)
    try:
        return meeting.answers[ends]
    except KeyError:
        pass
    found = meeting.arranged(*ends)
    if found is not None:
        domain, row, col, kept, of_outer, of_inner = found
        of_outer, of_inner = _changed(of_outer, outer.domain, domain), _changed(of_inner, inner.domain, domain)
        found = Arrangement(domain, row, col, kept, of_outer, of_inner)
    if _meetings.takes(0 if found is None else _weight(ends[0]) + _weight(ends[1])):
        meeting.answers[ends] = found
    return found


def forget() -> None:
    """Solve every join anew: for measurements."""
    _meetings.clear()
    tabulated.clear()


def _weight(indices: Indices) -> int:
    """The elements of all tables."""
    total = 0
    for e in indices:
        if type(e) is Lookup:
            total += e.table.values.size
    return total


def _changed(places: Indices | None, before: Sizes, after: Sizes) -> Indices | None:
    """What became of the axes; None if nothing did."""
    count = len(before)
    return None if places == identity(count) and after[:count] == before else places


_Key: TypeAlias = tuple[Sizes, Indices, Sizes, Indices]
_APART = _Meeting((), (), ())  # of terms that never meet
_meetings: Memory[_Key, _Meeting] = Memory()


def _arranged(
    domain: Sizes, row: Indices, col: Indices, outer: Indices | None, inner: Indices | None
) -> Arrangement | None:
    """Axes in the order in which row and column mention them, axes of length one gone, the rest last."""
    if 0 in domain:
        return None
    if len(domain) == 1 and domain[0] > 1:  # vectors, as many programs have them alone
        mentioned = any([bool(axes_of(e)) for e in (*row, *col)])
        return Arrangement(domain, row, col, int(mentioned), outer, inner)
    kept: list[int] = []
    for e in (*row, *col):
        for a in axes_of(e):
            if a not in kept and domain[a] > 1:
                kept.append(a)
    order = [*kept, *(a for a, n in enumerate(domain) if n > 1 and a not in kept)]
    if order == list(range(len(domain))):
        return Arrangement(domain, row, col, len(kept), outer, inner)
    names = {a: k for k, a in enumerate(order)}
    places = tuple(axis(names[a]) if a in names else Affine(0) for a in range(len(domain)))
    sizes = tuple(domain[a] for a in order)

    def placed(indices: Indices) -> Indices:
        return tuple(substitute(e, places, sizes) for e in indices)

    return Arrangement(
        sizes,
        placed(row),
        placed(col),
        len(kept),
        places if outer is None else placed(outer),
        None if inner is None else placed(inner),
    )


def _meet(outer_domain: Sizes, outer_col: Indices, inner_domain: Sizes, inner_row: Indices) -> _Meeting:
    # Most edges are elementwise: one side is the identity, and the other side's expressions take its place.
    if inner_row == identity(len(inner_domain)) and _within(outer_col, outer_domain, inner_domain):
        return _Meeting(outer_domain, identity(len(outer_domain)), outer_col, still=0)
    if outer_col == identity(len(outer_domain)) and _within(inner_row, inner_domain, outer_domain):
        return _Meeting(inner_domain, inner_row, identity(len(inner_domain)), still=1)
    met = _plain_meeting(outer_domain, outer_col, inner_domain, inner_row)
    if met is None:
        met = _Join(outer_domain, outer_col, inner_domain, inner_row).solution()
    if met is NEVER:
        return _APART
    domain, places = met
    first = len(outer_domain)
    return _Meeting(domain, places[:first], places[first:])


_Met: TypeAlias = tuple[Sizes, Indices]  # the joint domain, and every axis of both terms over it
NEVER: _Met = ((), ())


def _plain_meeting(outer_domain: Sizes, outer_col: Indices, inner_domain: Sizes, inner_row: Indices) -> _Met | None:
    """What `_Join` would find, where both sides say nothing but plain axes and constants; None where they say more.

    Nearly all joins are of this kind: rows of matrices, elements of vectors.
    """
    first = len(outer_domain)
    sizes = [*outer_domain, *inner_domain]
    meaning = list(range(len(sizes)))  # of each axis: the axis that it is, or the complement of a constant
    for left, right in zip(outer_col, inner_row, strict=True):
        one, other = _plain(left), _plain(right)
        if one is None or other is None:
            return None
        if one >= 0:
            one = meaning[one]
        if other >= 0:
            other = meaning[other + first]
        if one == other:
            continue
        if one < 0 and other < 0:
            return NEVER
        gone, by = (other, one) if other >= 0 else (one, other)
        if by >= 0:
            sizes[by] = min(sizes[by], sizes[gone])
        elif ~by >= sizes[gone]:
            return NEVER
        meaning = [by if m == gone else m for m in meaning]
    living = sorted({m for m in meaning if m >= 0})
    domain = tuple([sizes[a] for a in living])
    if 0 in domain:
        return NEVER
    names = {a: axis(k) for k, a in enumerate(living)}
    return domain, tuple([names[m] if m >= 0 else Affine(~m) for m in meaning])


def _plain(index: Index) -> int | None:
    """The axis that an expression is, or the complement of the constant that it is."""
    if isinstance(index, Lookup):
        return None
    offset, strides = index
    if not strides:
        return ~offset
    return strides[0][0] if offset == 0 and len(strides) == 1 and strides[0][1] == 1 else None


def _within(indices: Sequence[Index], sizes: Sequence[int], limits: Sequence[int]) -> bool:
    """Whether every index stays below its limit over the whole domain."""
    for e, n in zip(indices, limits, strict=True):
        plain = plain_axis(e)
        if (bounds(e, sizes)[1] if plain is None else sizes[plain] - 1) >= n:
            return False
    return True


class _Join:
    """Solves ``outer_col == inner_row`` for axes of the joint domain; every axis ends as an expression in the rest."""

    def __init__(self, outer_domain: Sizes, outer_col: Indices, inner_domain: Sizes, inner_row: Indices) -> None:
        self.first = len(outer_domain)
        self.left = outer_col
        self.right = [shift_axes(e, self.first) for e in inner_row]
        self.sizes = [*outer_domain, *inner_domain]
        self.count = len(self.sizes)
        self.meaning: list[Index] = list(identity(len(self.sizes)))
        self.alive = [True] * len(self.sizes)
        self.changed: set[int] = set()

    def solve(self) -> bool:
        pending = []
        for left, right in zip(self.left, self.right, strict=True):
            state = self._equation(left, right)
            if state is False:
                return False
            if state is None:
                pending.append((left, right))
        if pending and not self._tabulate(pending):
            return False
        return all([n > 0 for n, alive in zip(self.sizes, self.alive, strict=True) if alive])

    def _resolve(self, e: Index) -> Index:
        return e if self.changed.isdisjoint(axes_of(e)) else substitute(e, self.meaning, self.sizes)

    def _replace(self, a: int, by: Index, alive: bool = False) -> None:
        change: list[Index] = list(identity(len(self.sizes)))
        change[a] = by
        for k, e in enumerate(self.meaning):
            if a in axes_of(e):
                self.meaning[k] = substitute(e, change, self.sizes)
                self.changed.add(k)
        self.alive[a] = alive

    def _equation(self, left: Index, right: Index) -> bool | None:
        """True: solved. False: never equal. None: only a table can tell."""
        left, right = self._resolve(left), self._resolve(right)
        if left == right:
            return True
        if not axes_of(left) and not axes_of(right):
            return False
        for one, other in ((right, left), (left, right)):
            if not isinstance(one, Affine) or len(one.strides) != 1:
                continue
            (a, stride) = one.strides[0]
            if a in axes_of(other):
                continue
            if isinstance(other, Affine) and not other.strides:
                point, rest = divmod(other.offset - one.offset, stride)
                if rest or not 0 <= point < self.sizes[a]:
                    return False
                self._replace(a, Affine(point))
                return True
            if stride != 1:
                continue
            target = substitute(Affine(-one.offset, ((0, 1),)), [other], self.sizes)
            low, high = bounds(target, self.sizes)
            if low < 0 or high >= self.sizes[a]:
                if high < 0 or low >= self.sizes[a]:
                    return False
                if not isinstance(target, Affine) or len(target.strides) != 1:
                    continue
                cropped = self._crop(target, self.sizes[a])
                if cropped is None:
                    return False
                target = cropped
            self._replace(a, target)
            return True
        return self._digits(left, right)

    def _digits(self, left: Index, right: Index) -> bool | None:
        """Two positions written in the same mixed radix (a reshape met by a reshape) agree digit by digit."""
        if not isinstance(left, Affine) or not isinstance(right, Affine) or left.offset != right.offset:
            return None
        pairs = []
        for e in (left, right):
            digits = sorted(e.strides, key=lambda d: d[1])
            reach = 0
            for a, s in digits:
                if s <= reach:
                    return None
                reach += s * (self.sizes[a] - 1)
            pairs.append(digits)
        if [s for _, s in pairs[0]] != [s for _, s in pairs[1]]:
            return None
        shared = {a for a, _ in pairs[0]} & {b for b, _ in pairs[1]}
        if any(a != b and (a in shared or b in shared) for (a, _), (b, _) in zip(*pairs, strict=True)):
            return None  # one axis is two different digits
        for (a, _), (b, _) in zip(*pairs, strict=True):
            if a != b:
                if self.sizes[b] < self.sizes[a]:
                    self.sizes[a] = self.sizes[b]
                    self.changed.add(a)
                self._replace(b, axis(a))
        return True

    def _crop(self, target: Affine, size: int) -> Affine | None:
        """Shorten the one axis of ``target`` so that it stays within ``[0, size)``; returns the new expression."""
        b, s = target.strides[0]
        # 0 <= offset + s * b < size
        if s > 0:
            low = max(0, -(target.offset // s))
            high = min(self.sizes[b], (size - 1 - target.offset) // s + 1)
        else:
            low = max(0, -((size - 1 - target.offset) // -s))
            high = min(self.sizes[b], target.offset // -s + 1)
        if high <= low:
            return None
        self.sizes[b] = high - low
        self._replace(b, Affine(low, ((b, 1),)), alive=True)
        return Affine(target.offset + s * low, ((b, s),))

    def _tabulate(self, pending: Sequence[tuple[Index, Index]]) -> bool:
        """Join the remaining equations by sorting: one new axis that runs over the pairs that agree."""
        lefts = [self._resolve(left) for left, _ in pending]
        rights = [self._resolve(right) for _, right in pending]
        left_axes = sorted({a for e in lefts for a in axes_of(e)})
        right_axes = sorted({a for e in rights for a in axes_of(e)})
        for a in left_axes:
            if a in right_axes:  # solved to the same axis before: it must agree as well
                lefts.append(axis(a))
                rights.append(axis(a))
        span = [max(bounds(x, self.sizes)[1], bounds(y, self.sizes)[1]) + 1 for x, y in zip(lefts, rights, strict=True)]
        left_keys = self._keys(lefts, left_axes, span)
        right_keys = self._keys(rights, right_axes, span)
        order = np.argsort(right_keys, kind="stable")
        ordered = right_keys[order]
        begin = np.searchsorted(ordered, left_keys, side="left")
        count = np.searchsorted(ordered, left_keys, side="right") - begin
        total = int(count.sum())
        if total == 0:
            return False
        left_points = np.repeat(np.arange(left_keys.size), count)
        within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
        right_points = order[np.repeat(begin, count) + within]
        pair = len(self.sizes)
        self.sizes.append(total)
        self.meaning.append(axis(pair))
        self.alive.append(True)
        points = dict(zip(right_axes, self._unravel(right_points, right_axes), strict=True))
        points.update(zip(left_axes, self._unravel(left_points, left_axes), strict=True))
        for a, values in points.items():
            self._replace(a, from_table(values, [pair]))
        return True

    def _unravel(self, points: IntArray, axes: Sequence[int]) -> tuple[IntArray, ...]:
        return unraveled(points, [self.sizes[a] for a in axes])

    def _keys(self, indices: Sequence[Index], axes: Sequence[int], span: Sequence[int]) -> IntArray:
        compact = {a: k for k, a in enumerate(axes)}
        sizes = [self.sizes[a] for a in axes]
        key = np.zeros((1,) * len(sizes), dtype=np.int64)
        for e, n in zip(indices, span, strict=True):
            key = key * n + evaluate(rename(e, compact), sizes)
        return np.asarray(np.broadcast_to(key, sizes).ravel())

    def solution(self) -> _Met:
        """The joint domain, of the axes that are left, and every axis of both terms over it."""
        if not self.solve():
            return NEVER
        living = [a for a, alive in enumerate(self.alive) if alive]
        domain = tuple(self.sizes[a] for a in living)
        names: list[Index] = list(identity(len(self.sizes)))
        for k, a in enumerate(living):
            names[a] = axis(k)
        # Substituted, not renamed: a table whose axis has been cropped is cropped with it.
        return domain, tuple([substitute(e, names, domain) for e in self.meaning[: self.count]])


__all__ = ["Arrangement", "arrange", "join"]
