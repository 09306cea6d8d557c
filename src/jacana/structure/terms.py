"""The algebra of terms: normal form, composition, addition. With ``differentiate/eliminate.py`` this is the idea.

A Jacobian is a list of terms (``graph.node.Term``): for every point d of a domain of named axes,
``J[row(d), col(d)] += product of factors(d)`` where no mask says otherwise. Composing two lists joins every pair of
terms on the index of the array between them; an axis left in neither row nor column is summed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..graph.build import broadcast_axes, cast_to, contract_labels, full, index_node, product, sum_axes
from ..graph.index import (
    Affine,
    Index,
    IntArray,
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
)
from ..graph.node import Factor, Node, Term, literal
from ..graph.ops.elementwise import add, logical_and, logical_or, select
from ..graph.ops.reduction import AxesParams, reduce_any

Terms = tuple[Term, ...]

# --- normal form ------------------------------------------------------------------------------------------------


def normalise(term: Term) -> Term | None:
    """Sum the axes that are in neither row nor column, multiply factors where that makes none larger, order the axes.

    Returns None for an empty domain. Terms with equal structure end with equal ``domain``, ``row`` and ``col``.
    """
    if not term.domain:
        return term if len(term.factors) < 2 and len(term.masks) < 2 else _multiply_out(term)
    if 0 in term.domain:
        return None
    kept: list[int] = []
    for e in (*term.row, *term.col):
        for a in axes_of(e):
            if a not in kept and term.domain[a] > 1:
                kept.append(a)
    if len(kept) < len(term.domain):
        term = _sum_axes(_drop_unit_axes(term, kept), kept)
    if kept != list(range(len(term.domain))):
        names = {a: k for k, a in enumerate(kept)}
        term = Term(
            tuple(term.domain[a] for a in kept),
            tuple(rename(e, names) for e in term.row),
            tuple(rename(e, names) for e in term.col),
            tuple((node, tuple(names[a] for a in axes)) for node, axes in term.factors),
            tuple((node, tuple(names[a] for a in axes)) for node, axes in term.masks),
        )
    return _multiply_out(term)


def _drop_unit_axes(term: Term, kept: Sequence[int]) -> Term:
    """Axes of length one are taken out of every expression and factor."""
    unit = {a for a, n in enumerate(term.domain) if n == 1}
    if not unit:
        return term
    zero: list[Index] = [Affine(0) if a in unit else axis(a) for a in range(len(term.domain))]

    def squeeze(factor: Factor) -> Factor:
        node, axes = factor
        if not unit.intersection(axes):
            return factor
        left = tuple(a for a in axes if a not in unit)
        place = {a: k for k, a in enumerate(left)}
        indices = [Affine(0) if a in unit else axis(place[a]) for a in axes]
        return index_node(node, tuple(term.domain[a] for a in left), indices), left

    return Term(
        term.domain,
        tuple(substitute(e, zero, term.domain) for e in term.row),
        tuple(substitute(e, zero, term.domain) for e in term.col),
        tuple(squeeze(f) for f in term.factors),
        tuple(squeeze(f) for f in term.masks),
    )


def _sum_axes(term: Term, kept: Sequence[int]) -> Term:
    summed = [a for a, n in enumerate(term.domain) if n > 1 and a not in kept]
    if not summed:
        return term
    touching = [f for f in term.factors if not set(summed).isdisjoint(f[1])]
    factors = [f for f in term.factors if f not in touching]
    masks_touching = [m for m in term.masks if not set(summed).isdisjoint(m[1])]
    masks = [m for m in term.masks if m not in masks_touching]
    present = {a for _, axes in (*touching, *masks_touching) for a in axes}
    out = tuple(sorted(a for a in present if a not in summed))
    if masks_touching:
        # The mask must select before the sum, and what remains is structure only where some summed point was.
        axes = tuple(sorted(present))
        shape = tuple(term.domain[a] for a in axes)
        places = tuple(k for k, a in enumerate(axes) if a in summed)
        mask = conjunction(masks_touching, axes, term.domain)
        values = spread_product(touching, axes, term.domain)
        chosen = select(mask, values, full(0.0, shape, values.dtype))
        factors.append((sum_axes(chosen, places), out))
        masks.append((reduce_any(mask, params=AxesParams(places)), out))
    elif touching:
        factors.append((contract_labels(touching, term.domain, out), out))
    count = math.prod(term.domain[a] for a in summed if a not in present)
    if count > 1:
        factors.append((literal(count, np.dtype("f4" if count < 2**24 else "f8")), ()))
    return term._replace(factors=tuple(factors), masks=tuple(masks))


def _multiply_out(term: Term) -> Term:
    """Multiply every factor into one that has all its axes already; outer products stay apart."""
    if len(term.factors) == 2 and not term.factors[0][1] and not term.factors[1][1] and len(term.masks) < 2:
        (one, _), (other, _) = term.factors  # programs of thousands of scalars are made of these
        return Term(term.domain, term.row, term.col, ((product(one, other), ()),), term.masks)
    if len(term.factors) > 1:
        merged: list[Factor] = []
        for node, axes in sorted(term.factors, key=lambda f: -len(f[1])):
            for k, (other, others) in enumerate(merged):
                if set(axes) <= set(others):
                    merged[k] = (product(other, align(node, axes, others, term.domain)), others)
                    break
            else:
                merged.append((node, axes))
        term = term._replace(factors=tuple(merged))
    if len(term.masks) > 1:
        used = tuple(sorted({a for _, axes in term.masks for a in axes}))
        term = term._replace(masks=((conjunction(term.masks, used, term.domain), used),))
    return term


def align(node: Node, axes: Sequence[int], wanted: Sequence[int], sizes: Sequence[int]) -> Node:
    """``node``, whose array axes stand for ``axes``, replicated to the axes ``wanted`` in that order."""
    if tuple(axes) == tuple(wanted):
        return node
    return broadcast_axes(node, tuple(sizes[a] for a in wanted), [wanted.index(a) for a in axes])


def conjunction(masks: Iterable[Factor], axes: tuple[int, ...], sizes: Sequence[int]) -> Node:
    """The masks, all of them, over ``axes``."""
    nodes = [align(node, have, axes, sizes) for node, have in masks]
    result = nodes[0]
    for node in nodes[1:]:
        result = logical_and(result, node)
    return result


def spread_product(factors: Sequence[Factor], axes: tuple[int, ...], sizes: Sequence[int]) -> Node:
    """The product of the factors over ``axes`` (all of them): the coefficient as one array; one if there is none."""
    shape = tuple(sizes[a] for a in axes)
    if not factors:
        return full(1.0, shape, np.dtype("f4"))
    if len(factors) == 1 and factors[0][1] == axes:
        return factors[0][0]
    have = {a for _, f in factors for a in f}
    present = tuple(a for a in axes if a in have)
    return align(contract_labels(factors, sizes, present), present, axes, sizes)


def coefficient(term: Term) -> Node:
    """Every entry of the term over its whole domain, with the mask applied: what is stored in the end."""
    axes = tuple(range(len(term.domain)))
    values = spread_product(term.factors, axes, term.domain)
    if term.masks:
        mask = conjunction(term.masks, axes, term.domain)
        values = select(mask, values, full(0.0, term.domain, values.dtype))
    return values


# --- addition ---------------------------------------------------------------------------------------------------


def add_terms(terms: Iterable[Term]) -> Terms:
    """The sum of terms in normal form: terms of equal structure become one where that makes no factor larger."""
    terms = tuple(terms)
    if len(terms) < 2:
        return terms
    table: dict[tuple[object, ...], list[Term]] = {}
    for term in terms:
        bucket = table.setdefault((term.domain, term.row, term.col), [])
        for k, other in enumerate(bucket):
            total = _add_pair(other, term)
            if total is not None:
                bucket[k] = total
                break
        else:
            bucket.append(term)
    return tuple(term for bucket in table.values() for term in bucket)


def _add_pair(a: Term, b: Term) -> Term | None:
    if len(a.factors) > 1 or len(b.factors) > 1:
        return None  # outer products stay apart
    axes_a = a.factors[0][1] if a.factors else ()
    axes_b = b.factors[0][1] if b.factors else ()
    axes = axes_a if set(axes_a) >= set(axes_b) else axes_b
    if not set(axes) >= {*axes_a, *axes_b}:
        return None
    masks = [*a.masks, *b.masks]
    if masks:
        axes = tuple(sorted({*axes, *(x for _, have in masks for x in have)}))
    sizes = a.domain
    left, right = spread_product(a.factors, axes, sizes), spread_product(b.factors, axes, sizes)
    dtype = left.dtype if left.dtype == right.dtype else np.result_type(left.dtype, right.dtype)
    left, right = cast_to(left, dtype), cast_to(right, dtype)
    if not masks:
        return Term(a.domain, a.row, a.col, ((add(left, right), axes),))
    mask_a = conjunction(a.masks, axes, sizes) if a.masks else None
    mask_b = conjunction(b.masks, axes, sizes) if b.masks else None
    zero = full(0.0, left.shape, dtype)
    if mask_a is not None:
        left = select(mask_a, left, zero)
    if mask_b is not None:
        right = select(mask_b, right, zero)
    joint = () if mask_a is None or mask_b is None else ((logical_or(mask_a, mask_b), axes),)
    return Term(a.domain, a.row, a.col, ((add(left, right), axes),), joint)


def at_places(factor: Factor, replacement: Sequence[Index], domain: Sequence[int]) -> Factor:
    """A factor with its axes replaced by expressions over a new domain, labelled with the axes that remain."""
    node, axes = factor
    indices = [replacement[a] for a in axes]
    plain = [plain_axis(e) for e in indices]
    distinct = tuple(p for p in plain if p is not None)
    if len(distinct) == len(plain) == len(set(distinct)) and all(
        node.shape[k] == domain[p] for k, p in enumerate(distinct)
    ):
        return node, distinct
    used = sorted({b for e in indices for b in axes_of(e)})
    compact = {b: k for k, b in enumerate(used)}
    return index_node(node, tuple(domain[b] for b in used), [rename(e, compact) for e in indices]), tuple(used)


def at_points(term: Term, replacement: Sequence[Index], domain: tuple[int, ...]) -> Terms:
    """Some points of a term: its axes replaced by expressions over a new domain."""
    found = normalise(
        Term(
            domain,
            tuple(substitute(e, replacement, domain) for e in term.row),
            tuple(substitute(e, replacement, domain) for e in term.col),
            tuple(at_places(f, replacement, domain) for f in term.factors),
            tuple(at_places(f, replacement, domain) for f in term.masks),
        )
    )
    return () if found is None else (found,)


# --- composition ------------------------------------------------------------------------------------------------


def compose(outer: Term, inner: Term) -> Term | None:
    """The term of ``b <- a`` from one of ``b <- u`` and one of ``u <- a``; None where they never meet."""
    if not outer.domain and not inner.domain:
        if outer.col != inner.row:
            return None
        return _multiply_out(Term((), outer.row, inner.col, outer.factors + inner.factors, outer.masks + inner.masks))
    # Most edges are elementwise: one side is the identity, and the other side's expressions take its place.
    if inner.row == identity(len(inner.domain)) and _within(outer.col, outer.domain, inner.domain):
        return normalise(
            Term(
                outer.domain,
                outer.row,
                tuple(substitute(e, outer.col, outer.domain) for e in inner.col),
                (*outer.factors, *(at_places(f, outer.col, outer.domain) for f in inner.factors)),
                (*outer.masks, *(at_places(m, outer.col, outer.domain) for m in inner.masks)),
            )
        )
    if outer.col == identity(len(outer.domain)) and _within(inner.row, inner.domain, outer.domain):
        return normalise(
            Term(
                inner.domain,
                tuple(substitute(e, inner.row, inner.domain) for e in outer.row),
                inner.col,
                (*(at_places(f, inner.row, inner.domain) for f in outer.factors), *inner.factors),
                (*(at_places(m, inner.row, inner.domain) for m in outer.masks), *inner.masks),
            )
        )
    join = _Join(outer, inner)
    if not join.solve():
        return None
    return join.result()


def _within(indices: Sequence[Index], sizes: Sequence[int], limits: Sequence[int]) -> bool:
    """Whether every index stays below its limit over the whole domain."""
    return all(_high(e, sizes) < n for e, n in zip(indices, limits, strict=True))


def _high(e: Index, sizes: Sequence[int]) -> int:
    plain = plain_axis(e)
    return bounds(e, sizes)[1] if plain is None else sizes[plain] - 1


class _Join:
    """Solves ``outer.col == inner.row`` for axes of the joint domain; every axis ends as an expression in the rest."""

    def __init__(self, outer: Term, inner: Term) -> None:
        self.outer, self.inner = outer, inner
        self.first = len(outer.domain)
        self.sizes = [*outer.domain, *inner.domain]
        self.meaning: list[Index] = list(identity(len(self.sizes)))
        self.alive = [True] * len(self.sizes)

    def solve(self) -> bool:
        pending = []
        for left, right in zip(self.outer.col, self.inner.row, strict=True):
            state = self._equation(left, shift_axes(right, self.first))
            if state is False:
                return False
            if state is None:
                pending.append((left, shift_axes(right, self.first)))
        if pending and not self._tabulate(pending):
            return False
        return all(n > 0 for n, alive in zip(self.sizes, self.alive, strict=True) if alive)

    def _resolve(self, e: Index) -> Index:
        return substitute(e, self.meaning, self.sizes)

    def _replace(self, a: int, by: Index, alive: bool = False) -> None:
        change: list[Index] = list(identity(len(self.sizes)))
        change[a] = by
        self.meaning = [substitute(e, change, self.sizes) for e in self.meaning]
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
                self.sizes[a] = min(self.sizes[a], self.sizes[b])
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
        return np.unravel_index(points, [self.sizes[a] for a in axes]) if axes else ()

    def _keys(self, indices: Sequence[Index], axes: Sequence[int], span: Sequence[int]) -> IntArray:
        compact = {a: k for k, a in enumerate(axes)}
        sizes = [self.sizes[a] for a in axes]
        key = np.zeros((1,) * len(sizes), dtype=np.int64)
        for e, n in zip(indices, span, strict=True):
            key = key * n + evaluate(rename(e, compact), sizes)
        return np.asarray(np.broadcast_to(key, sizes).ravel())

    def result(self) -> Term | None:
        sizes = self.sizes
        living = [a for a, alive in enumerate(self.alive) if alive]
        names = {a: k for k, a in enumerate(living)}
        domain = tuple(sizes[a] for a in living)
        shifted = [(node, tuple(a + self.first for a in axes)) for node, axes in self.inner.factors]
        shifted_masks = [(node, tuple(a + self.first for a in axes)) for node, axes in self.inner.masks]
        replacement = [rename(e, names) for e in self.meaning]

        return normalise(
            Term(
                domain,
                tuple(substitute(e, replacement, domain) for e in self.outer.row),
                tuple(substitute(shift_axes(e, self.first), replacement, domain) for e in self.inner.col),
                tuple(at_places(f, replacement, domain) for f in (*self.outer.factors, *shifted)),
                tuple(at_places(m, replacement, domain) for m in (*self.outer.masks, *shifted_masks)),
            )
        )


def compose_terms(outer: Terms, inner: Terms) -> list[Term]:
    """Every pair that meets, in normal form, not yet added up."""
    found = (compose(a, b) for a in outer for b in inner)
    return [term for term in found if term is not None]


__all__ = [
    "Terms",
    "add_terms",
    "align",
    "at_points",
    "coefficient",
    "compose",
    "compose_terms",
    "conjunction",
    "normalise",
    "spread_product",
]
