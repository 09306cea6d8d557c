"""The algebra of terms: normal form, composition, addition. With ``differentiate/eliminate.py`` this is the idea.

A Jacobian is a list of terms (``graph.node.Term``): for every point d of a domain of named axes,
``J[row(d), col(d)] += product of factors(d)`` where no mask says otherwise. Composing two lists joins every pair of
terms on the index of the array between them; an axis left in neither row nor column is summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from ..graph.build import (
    broadcast_axes,
    cast_to,
    constant_array,
    contract_labels,
    full,
    index_node,
    linear_map,
    product,
    sum_axes,
)
from ..graph.index import (
    Index,
    axes_of,
    identity,
    plain_axis,
    rename,
    substitute,
)
from ..graph.node import CONSTANT, INPUT, LITERAL, Array, Factor, Node, Term, literal, literal_array
from ..graph.ops.elementwise import add, logical_and, logical_not, logical_or, not_equal, select
from ..graph.ops.movement import index
from ..graph.ops.reduction import AxesParams, reduce_any
from .bands import off_band, parts_of_maps
from .joining import Arrangement, arrange, join

Terms = tuple[Term, ...]
# Factors and masks of a sum, and its structure -> masks over the axes that are kept
Met: TypeAlias = Callable[[Sequence[Factor], Sequence[Factor], Arrangement], tuple[Factor, ...]]

FOLDED = 2**22  # elements up to which a mask that is known is computed at once
ENLARGED = 4  # times the largest factor of a masked sum that the product of all may be

# --- normal form ------------------------------------------------------------------------------------------------


def normalise(term: Term) -> Term | None:
    """Sum the axes that are in neither row nor column, multiply factors where that makes none larger, order the axes.

    Returns None for an empty domain. Terms with equal structure end with equal ``domain``, ``row`` and ``col``.
    """
    domain = term.domain
    if (
        len(term.factors) < 2
        and len(term.masks) < 2
        and term.row[: len(domain)] == identity(len(domain))
        and 0 not in domain
        and 1 not in domain
    ):
        return term
    found = arrange(term)
    return None if found is None else _filled(found, _at_all(term.factors, found), _at_all(term.masks, found))


def _at_all(factors: tuple[Factor, ...], found: Arrangement) -> tuple[Factor, ...]:
    places = found.outer
    return factors if places is None else tuple([at_places(f, places, found.domain) for f in factors])


def _folded(masks: tuple[Factor, ...]) -> tuple[Factor, ...]:
    return tuple([(folded(node), axes) for node, axes in masks]) if masks else masks


def _filled(found: Arrangement, factors: tuple[Factor, ...], masks: tuple[Factor, ...], met: Met | None = None) -> Term:
    """The term of a structure and what multiplies it: axes at the end of the domain are summed.

    ``met``: says by masks where there is nothing to sum.
    """
    masks = _folded(masks)
    if found.kept < len(found.domain):
        term = _sum_axes(found, factors, masks)
        nothing = met(factors, masks, found) if met is not None and factors else ()
        return _multiply_out(term._replace(masks=(*term.masks, *nothing)) if nothing else term)
    term = Term(found.domain, found.row, found.col, factors, masks)
    return term if len(factors) < 2 and len(masks) < 2 else _multiply_out(term)


def _sum_axes(found: Arrangement, factors: Sequence[Factor], masks: Sequence[Factor]) -> Term:
    domain = found.domain
    summed = set(range(found.kept, len(domain)))
    touching = [f for f in factors if not summed.isdisjoint(f[1])]
    factors = [f for f in factors if summed.isdisjoint(f[1])]
    masks_touching = [m for m in masks if not summed.isdisjoint(m[1])]
    masks = [m for m in masks if summed.isdisjoint(m[1])]
    present = {a for _, axes in (*touching, *masks_touching) for a in axes}
    out = tuple(sorted(a for a in present if a not in summed))
    apart = _selected_apart(touching, masks_touching, summed, domain) if masks_touching else None
    if apart is not None:
        chosen_factors, mask, used = apart
        factors.append((contract_labels(chosen_factors, domain, out), out))
        places = tuple(k for k, a in enumerate(used) if a in summed)
        masks.append((folded(reduce_any(mask, params=AxesParams(places))), tuple(a for a in used if a not in summed)))
    elif masks_touching:
        # The mask must select before the sum, and what remains is structure only where some summed point was.
        axes = tuple(sorted(present))
        shape = tuple(domain[a] for a in axes)
        places = tuple(k for k, a in enumerate(axes) if a in summed)
        mask = conjunction(masks_touching, axes, domain)
        values = spread_product(touching, axes, domain)
        chosen = select(mask, values, full(0.0, shape, values.dtype))
        factors.append((sum_axes(chosen, places), out))
        masks.append((folded(reduce_any(mask, params=AxesParams(places))), out))
    elif touching:
        factors.append((contract_labels(touching, domain, out), out))
    count = math.prod(domain[a] for a in summed if a not in present)
    if count > 1:
        factors.append((literal(count, np.dtype("f4" if count < 2**24 else "f8")), ()))
    return Term(domain[: found.kept], found.row, found.col, tuple(factors), tuple(masks))


def _selected_apart(
    touching: Sequence[Factor], masks: Sequence[Factor], summed: set[int], domain: Sequence[int]
) -> tuple[list[Factor], Node, tuple[int, ...]] | None:
    """Factors that have been selected from one by one, and can be contracted pair by pair; their mask and its axes.

    The product over all axes, of which the mask would select, may be much larger than each factor. Zero takes the
    place of the entries of a factor that only masked points read. What is left is read by some other point of the same
    sum (each factor has the axes that mask and result share), so that an infinity makes no sum NaN that is finite.
    None where that cannot be said, or is not worth it.
    """
    used = tuple(sorted({a for _, axes in masks for a in axes}))
    shared = {a for a in used if a not in summed}
    largest = max((math.prod(domain[a] for a in axes) for _, axes in touching), default=0)
    points = math.prod(domain[a] for a in {a for _, axes in (*touching, *masks) for a in axes})
    arrays = [factor for factor in touching if linear_map(factor[0]) is None]
    if len(arrays) == 1 < len(touching) and set(used) <= set(arrays[0][1]):
        # One array that the mask is all about, times linear maps, which stay unformed.
        node, axes = arrays[0]
        mask = conjunction(masks, used, domain)
        selected = select(align(mask, used, axes, domain), node, full(0.0, node.shape, node.dtype)), axes
        return [selected if factor is arrays[0] else factor for factor in touching], mask, used
    if (
        len(touching) < 2
        or points < ENLARGED * largest
        or math.prod(domain[a] for a in used) > largest
        or any(not shared.issubset(axes) or linear_map(node) for node, axes in touching)
    ):
        return None
    mask = conjunction(masks, used, domain)
    chosen, carried = [], False
    for node, axes in touching:
        here = tuple(a for a in used if a in axes)
        absent = tuple(k for k, a in enumerate(used) if a not in axes)
        carried = carried or not absent
        allowed = folded(reduce_any(mask, params=AxesParams(absent))) if absent and here else mask
        known = known_array(allowed)
        if here and (known is None or not known.all()):
            node = select(align(allowed, here, axes, domain), node, full(0.0, node.shape, node.dtype))
        chosen.append((node, axes))
    if not carried:
        dtype = touching[0][0].dtype
        shape = tuple(domain[a] for a in used)
        chosen.append((select(mask, full(1.0, shape, dtype), full(0.0, shape, dtype)), used))
    return chosen, mask, used


def _multiply_out(term: Term) -> Term:
    """Multiply every factor into one that has all its axes already; outer products and linear maps stay apart."""
    if len(term.factors) == 2 and term.factors[0][1] == term.factors[1][1]:
        (one, axes), (other, _) = term.factors
        if not (one.op.matrix or other.op.matrix):
            term = Term(term.domain, term.row, term.col, ((product(one, other), axes),), term.masks)
    elif len(term.factors) > 1:
        merged: list[Factor] = []
        for node, axes in sorted(term.factors, key=lambda f: -len(f[1])):
            for k, (other, others) in enumerate(merged):
                if set(axes) <= set(others) and not (linear_map(node) or linear_map(other)):
                    merged[k] = (product(other, align(node, axes, others, term.domain)), others)
                    break
            else:
                merged.append((node, axes))
        term = term._replace(factors=tuple(merged))
    if len(term.masks) > 1:
        used = tuple(sorted({a for _, axes in term.masks for a in axes}))
        term = term._replace(masks=((conjunction(term.masks, used, term.domain), used),))
    return term


def known_array(node: Node) -> Array | None:
    """The value of a leaf that cannot change while a recording holds: a number, or an array whose zeros are watched."""
    if node.op is LITERAL:
        return literal_array(node.params)
    if node.op is CONSTANT and getattr(node.params.owner, "structural", False):
        return np.asarray(node.params.owner.value())
    if node.op is INPUT and node.params.zeros is not None:
        return np.asarray(node.params.zeros.value())
    return None


def folded(mask: Node) -> Node:
    """A mask made of masks that are known, as a constant: so that those that are combined ever again stay known."""
    if mask.size > FOLDED or not mask.inputs:
        return mask
    # Of an array of numbers only the zeros are watched, so that what is computed from its numbers is not known.
    values = [known_array(i) if i.dtype == np.bool_ else None for i in mask.inputs]
    if any([v is None for v in values]):
        return mask
    return constant_array(np.asarray(mask.op.evaluate(mask.params, *values)))


def align(node: Node, axes: Sequence[int], wanted: Sequence[int], sizes: Sequence[int]) -> Node:
    """``node``, whose array axes stand for ``axes``, replicated to the axes ``wanted`` in that order."""
    if tuple(axes) == tuple(wanted):
        return node
    return broadcast_axes(node, tuple(sizes[a] for a in wanted), [wanted.index(a) for a in axes])


def conjunction(masks: Iterable[Factor], axes: tuple[int, ...], sizes: Sequence[int]) -> Node:
    """The masks, all of them, over ``axes``."""
    nodes = [align(node, have, axes, sizes) for node, have in masks]
    result = folded(nodes[0])
    for node in nodes[1:]:
        result = folded(logical_and(result, folded(node)))
    return result


def spread_product(factors: Sequence[Factor], axes: tuple[int, ...], sizes: Sequence[int]) -> Node:
    """The product of the factors over ``axes`` (all of them): the coefficient as one array; one if there is none."""
    shape = tuple(sizes[a] for a in axes)
    if not factors:
        return full(1.0, shape, np.dtype("f4"))
    if len(factors) == 1:
        return align(*factors[0], axes, sizes)
    have = {a for _, f in factors for a in f}
    present = tuple(a for a in axes if a in have)
    return align(contract_labels(factors, sizes, present), present, axes, sizes)


def coefficient(term: Term) -> Node:
    """Every entry of the term over its whole domain, with the mask applied: what is stored in the end."""
    axes = tuple(range(len(term.domain)))
    values = spread_product(term.factors, axes, term.domain)
    masks = (*term.masks, *_places_of_maps(term.factors, term.domain))
    if masks:
        mask = conjunction(masks, axes, term.domain)
        values = select(mask, values, full(0.0, term.domain, values.dtype))
    return values


def _places_of_maps(factors: Sequence[Factor], domain: Sequence[int]) -> tuple[Factor, ...]:
    """Where linear maps of known places can be other than zero, where their other elements meet another factor.

    They are no numbers that an infinity in the other factor could turn into NaN, but places without an entry.
    """
    if len(factors) < 2:
        return ()
    maps = [(node, axes) for node, axes in factors if node.op.matrix is not None and node.op.matrix.support is not None]
    masks = tuple((not_equal(node, full(0.0, node.shape, node.dtype)), axes) for node, axes in maps)
    return (*masks, *(mask for part in parts_of_maps(factors) if (mask := off_band(part, domain)) is not None))


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
    maps = tuple(f for f in a.factors if linear_map(f[0]))
    if maps:
        # The same linear map with two coefficients: the coefficients are added, and the map stays unformed.
        if maps != tuple(f for f in b.factors if linear_map(f[0])):
            return None
        rest = (t._replace(factors=tuple(f for f in t.factors if f not in maps)) for t in (a, b))
        total = _add_pair(*rest)
        return None if total is None else total._replace(factors=(*total.factors, *maps))
    if len(a.factors) > 1 or len(b.factors) > 1:
        return None  # outer products stay apart
    if not a.masks and not b.masks and a.factors and b.factors:
        (one, axes), (other, axes_b) = a.factors[0], b.factors[0]
        if axes == axes_b:
            if one.dtype != other.dtype:
                dtype = np.result_type(one.dtype, other.dtype)
                one, other = cast_to(one, dtype), cast_to(other, dtype)
            return a._replace(factors=((add(one, other), axes),))
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
    if a.masks == b.masks:  # none, or the same: whoever applies it chooses between the sum and nothing
        same = a.masks if len(masks) <= 2 else ((conjunction(a.masks, axes, sizes), axes),)
        return Term(a.domain, a.row, a.col, ((add(left, right), axes),), same)
    mask_a = conjunction(a.masks, axes, sizes) if a.masks else None
    mask_b = conjunction(b.masks, axes, sizes) if b.masks else None
    split = None if mask_a is None or mask_b is None else _either(mask_a, mask_b)
    if split is not None:  # the two branches of a choice
        chosen, common = split
        left_over = () if common is None else ((common, axes),)
        return Term(a.domain, a.row, a.col, ((select(chosen, left, right), axes),), left_over)
    zero = full(0.0, left.shape, dtype)
    if mask_a is not None:
        left = select(mask_a, left, zero)
    if mask_b is not None:
        right = select(mask_b, right, zero)
    joint = () if mask_a is None or mask_b is None else ((folded(logical_or(mask_a, mask_b)), axes),)
    return Term(a.domain, a.row, a.col, ((add(left, right), axes),), joint)


def _either(a: Node, b: Node) -> tuple[Node, Node | None] | None:
    """For masks of which at most one holds: a mask that says which, and one for where either does (None: everywhere).

    That is told of a condition and its negation, alone or within the same other condition.
    """
    if _opposite(a, b):
        return a, None
    if a.op is logical_and and b.op is logical_and:
        for one, common in (a.inputs, a.inputs[::-1]):
            for other, also in (b.inputs, b.inputs[::-1]):
                if common is also and _opposite(one, other):
                    return one, common
    return None


def _opposite(a: Node, b: Node) -> bool:
    """Whether one mask is the negation of the other."""
    while a.op is index and b.op is index and a.params == b.params:
        a, b = a.inputs[0], b.inputs[0]
    return (a.op is logical_not and a.inputs[0] is b) or (b.op is logical_not and b.inputs[0] is a)


def at_places(factor: Factor, replacement: Sequence[Index], domain: Sequence[int]) -> Factor:
    """A factor with its axes replaced by expressions over a new domain, labelled with the axes that remain."""
    node, axes = factor
    if not axes:
        return factor
    indices = [replacement[a] for a in axes]
    plain = tuple([p for e in indices if (p := plain_axis(e)) is not None])
    if len(plain) == len(axes) == len(set(plain)) and node.shape == tuple([domain[p] for p in plain]):
        return node, plain
    used = sorted({b for e in indices for b in axes_of(e)})
    compact = {b: k for k, b in enumerate(used)}
    return index_node(node, tuple([domain[b] for b in used]), [rename(e, compact) for e in indices]), tuple(used)


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


# --- composition ----------------------------------------------------------------------------------------------------


def compose(outer: Term, inner: Term, met: Met | None = None) -> Term | None:
    """The term of ``b <- a`` from one of ``b <- u`` and one of ``u <- a``; None where they never meet.

    ``met``: what says by masks where there is nothing to sum, if that is to be structure.
    """
    if not outer.domain and not inner.domain:
        if outer.col != inner.row:
            return None
        factors, masks = outer.factors + inner.factors, outer.masks + inner.masks
        term = Term((), outer.row, inner.col, factors, masks)
        return term if len(factors) < 2 and len(masks) < 2 else _multiply_out(term)
    row = inner.row
    if _is_diagonal(outer) and row == outer.col and outer.domain == inner.domain:
        # A diagonal scales the rows of what follows it: by far the most frequent of all.
        factors, masks = outer.factors + inner.factors, outer.masks + inner.masks
        term = Term(inner.domain, row, inner.col, factors, masks)
        return term if len(factors) < 2 and len(masks) < 2 else _multiply_out(term)
    found = join(outer, inner)
    if found is None:
        return None
    return _filled(
        found,
        _both(outer.factors, inner.factors, found),
        _both(outer.masks, inner.masks, found) if outer.masks or inner.masks else (),
        met,
    )


def _is_diagonal(term: Term) -> bool:
    """Row and column are the axes themselves, all of them, none of length one or none."""
    domain = term.domain
    return term.row == term.col == identity(len(domain)) and 0 not in domain and 1 not in domain


def _both(outer: tuple[Factor, ...], inner: tuple[Factor, ...], found: Arrangement) -> tuple[Factor, ...]:
    if found.outer is not None:
        outer = tuple([at_places(f, found.outer, found.domain) for f in outer])
    if found.inner is not None:
        inner = tuple([at_places(f, found.inner, found.domain) for f in inner])
    return outer + inner


def compose_structure(outer: Term, inner: Term) -> Term | None:
    """``compose`` without the coefficients."""
    found = join(outer, inner)
    return None if found is None else Term(found.domain[: found.kept], found.row, found.col)


def compose_terms(outer: Terms, inner: Terms, met: Met | None = None) -> list[Term]:
    """Every pair that meets, in normal form, not yet added up."""
    found = (compose(a, b, met) for a in outer for b in inner)
    return [term for term in found if term is not None]


__all__ = [
    "Terms",
    "add_terms",
    "align",
    "at_points",
    "coefficient",
    "compose",
    "compose_structure",
    "compose_terms",
    "conjunction",
    "normalise",
    "spread_product",
]
