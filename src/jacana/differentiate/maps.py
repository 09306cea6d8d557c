"""Composition through opaque linear maps: loops, and operations that only know products with their Jacobian.

Such an edge is one term whose factor is a matrix that is never formed. Where elimination composes it with other terms,
these are stored as one array (all rows, or all columns, at once), and the map multiplies it: a reverse or a forward
sweep through the operation. What the map works on in slots stays apart, so that a slot with no term is skipped.

A map may be a batch: a matrix for each of several instances. What a term says about instances then stays structure:
an axis of its rows that tells the instance is no further row to be pulled through each of them, so that Jacobians that
are block-diagonal are pushed and pulled block by block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..graph.build import constant_array, index_node, zeros
from ..graph.index import Affine, Index, axes_of, axis, bounds, evaluate, flatten, identity, rename, substitute
from ..graph.node import DType, Factor, Node, Shape, Term, new_input
from ..graph.ops.control import pack
from ..structure.formats import dense_node, transposed
from ..structure.terms import Terms, add_terms, compose_terms, normalise

LARGEST_MASK = 2**26  # entries of what comes out of a map up to which its zeros are looked for


def opaque_map(term: Term) -> Node | None:
    """The opaque linear map that a term is, if it is one."""
    for node, _ in term.factors:
        if node.op.matrix is not None and node.op.matrix.slots is not None:
            return node
    return None


def through_maps(outer: Terms, inner: Terms, to: Shape, node: Node, source: Node, dry: bool) -> list[Term]:
    """``outer`` (to <- node) composed with ``inner`` (node <- source), some terms of which are opaque maps.

    ``dry``: give something of the right shape without deriving the products. What a map says about its zeros is a mask.
    """
    result: list[Term] = []
    plain_outer = tuple(t for t in outer if opaque_map(t) is None)
    plain_inner = tuple(t for t in inner if opaque_map(t) is None)
    left = [t for t in outer if opaque_map(t) is not None]
    right = [t for t in inner if opaque_map(t) is not None]
    if left and right:
        # Two maps in a row: the inner one becomes an array, all of its columns at once.
        unit = Term(source.shape, identity(source.ndim), identity(source.ndim))
        plain_inner += tuple(t for m in right for t in pushed(m, (unit,), source.shape, dry))
        result.extend(t for m in right if plain_outer for t in pulled(m, plain_outer, to, dry))
        right = []
        result.extend(t for m in left for t in pushed(m, plain_inner, source.shape, dry))
        result.extend(compose_terms(plain_outer, tuple(t for t in inner if opaque_map(t) is None)))
        return result
    if plain_outer and plain_inner:
        result.extend(compose_terms(plain_outer, plain_inner))
    if plain_outer:
        result.extend(t for m in right for t in pulled(m, plain_outer, to, dry))
    if plain_inner:
        result.extend(t for m in left for t in pushed(m, plain_inner, source.shape, dry))
    return result


def pulled(edge: Term, outer: Sequence[Term], to: Shape, dry: bool = False) -> Terms:
    """``outer @ matrix``: as one dense term with rows over ``to``, or blocks of instances."""
    matrix = _matrix(edge)
    pieces = [(t, t.col, t.row) for t in outer]
    if (batch := _batch(matrix)) or (not dry and _by_pieces(matrix, pieces, to)):
        return _blocks(edge, batch, pieces, True, dry)
    split = _split(matrix)
    own, cols = matrix.shape[:split], matrix.shape[split:]
    if dry:
        value = new_input((*cols, *to), matrix.dtype)
    else:
        array = _gathered(transposed(outer), own, to, matrix.dtype, _slots(matrix, True))
        value = _product(matrix, array, True)
    axes = identity(value.ndim)
    return _normal(Term(value.shape, axes[len(cols) :], axes[: len(cols)], ((value, tuple(range(value.ndim))),)))


def pushed(edge: Term, inner: Sequence[Term], by: Shape, dry: bool = False) -> Terms:
    """``matrix @ inner``: as one dense term with columns over ``by``, or blocks of instances."""
    matrix = _matrix(edge)
    pieces = [(t, t.row, t.col) for t in inner]
    if (batch := _batch(matrix)) or (not dry and _by_pieces(matrix, pieces, by)):
        if edge.col[:batch] == identity(batch):
            return _blocks(edge, batch, pieces, False, dry)
        # What all instances share is the same tangent for each of them.
        matrix = _joint(matrix)
    split = _split(matrix)
    rows, own = matrix.shape[:split], matrix.shape[split:]
    if dry:
        value = new_input((*rows, *by), matrix.dtype)
    else:
        array = _gathered(inner, own, by, matrix.dtype, _slots(matrix, False))
        value = _product(matrix, array, False)
    axes = identity(value.ndim)
    return _normal(Term(value.shape, axes[: len(rows)], axes[len(rows) :], ((value, tuple(range(value.ndim))),)))


# --- batches ------------------------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """Rows (columns) that go through each instance side by side: those of all terms that are placed alike.

    ``domain``: the axes that the far side of the term or its instance mentions. ``far``, ``instance``: these as
    expressions over it. ``inner``: its axes that an instance does not tell, which are numbered within the instance.
    """

    domain: Shape
    far: tuple[Index, ...]
    instance: tuple[Index, ...]
    inner: tuple[int, ...]

    @property
    def width(self) -> int:
        return math.prod(self.domain[a] for a in self.inner)


_Piece = tuple[Term, tuple[Index, ...], tuple[Index, ...]]  # a term, its side that meets the map, and the far one


def _by_pieces(matrix: Node, pieces: Sequence[_Piece], far: Shape) -> bool:
    """Whether rows (columns) may go through as they come: a map that knows zeros, and no row twice."""
    assert matrix.op.matrix is not None
    width = sum({_block(t, (), side)[0]: math.prod(t.domain) for t, _, side in pieces}.values())
    return matrix.op.matrix.reach is not None and width <= math.prod(far)


def _blocks(edge: Term, batch: int, terms: Sequence[_Piece], pull: bool, dry: bool) -> Terms:
    """Terms multiplied by a map, instance by instance."""
    matrix = _matrix(edge)
    members: dict[_Block, list[tuple[Term, tuple[Index, ...], tuple[int, ...]]]] = {}
    for term, meeting, far in terms:
        block, kept = _block(term, meeting[:batch], far)
        members.setdefault(block, []).append((term, meeting, kept))
    offsets: dict[_Block, int] = {}
    width = 0
    for block in members:
        offsets[block] = width
        width += block.width
    rest: Shape = () if len(members) == 1 and not next(iter(members)).inner else (width,)
    common = pull and edge.col[:batch] != identity(batch)
    joint = common and all(set(_axes(b.far)).isdisjoint(_axes(b.instance)) for b in members)
    map_ = _joint(matrix) if joint else matrix
    split = _split(matrix)
    instances, kept_shape = matrix.shape[:batch], matrix.shape[split:] if pull else matrix.shape[batch:split]
    value: Node | None = None
    if not dry:
        placed: list[Term] = []
        for block, found in members.items():
            for term, meeting, kept in found:
                number = _number(block, [kept[a] for a in block.inner], offsets[block])
                placed.extend(_normal(term._replace(row=meeting, col=(number,) if rest else ())))
        own = (*instances, *(matrix.shape[batch:split] if pull else matrix.shape[split:]))
        array = _gathered(placed, own, rest, matrix.dtype, _slots(matrix, pull), batch)
        value = _product(map_, array, pull)
    result: list[Term] = []
    reach = None if dry or joint else _reach(matrix)
    for block, found in members.items():
        numbers = offsets[block] if rest else None
        instance = () if joint else block.instance
        masks: tuple[Factor, ...] = ()
        if reach is not None:
            mask = _mask(reach, block, [(t, meeting[batch], kept) for t, meeting, kept in found], kept_shape, pull)
            if mask is not None:
                masks = (mask,)
        result.extend(_result(block, instance, common, value, kept_shape, numbers, pull, matrix.dtype, masks))
    return add_terms(result)


def _mask(
    reach: Any, block: _Block, members: Sequence[tuple[Term, Index, tuple[int, ...]]], near: Shape, pull: bool
) -> Factor | None:
    """Where the entries of a block can be other than zero, over those of its axes that this depends on."""
    used = sorted({kept.index(a) for _, place, kept in members for a in axes_of(place) if a in kept})
    shape = tuple(block.domain[a] for a in used)
    every = np.arange(near[0], dtype=np.int64)
    found = np.zeros((math.prod(shape), near[0]), dtype=bool)
    for term, place, kept in members:
        axes = sorted({*axes_of(place), *(kept[a] for a in used)})
        sizes = [term.domain[a] for a in axes]
        if math.prod(sizes) * near[0] > LARGEST_MASK:
            return None
        names = {a: k for k, a in enumerate(axes)}
        at = flatten([axis(names[kept[a]]) for a in used], shape, sizes)
        target = np.broadcast_to(evaluate(at, sizes), sizes).ravel()
        places = np.broadcast_to(evaluate(rename(place, names), sizes), sizes).ravel()
        here = reach(places, every) if pull else reach(every, places).T
        if len(axes) == len(used):  # each row once
            found[target] |= here
        else:
            np.logical_or.at(found, target, here)
    if found.all():
        return None
    return constant_array(found.reshape(*shape, near[0])), (*used, len(block.domain))


def _result(
    block: _Block, instance: tuple[Index, ...], common: bool, value: Node | None, kept: Shape,
    offset: int | None, pull: bool, dtype: DType, masks: tuple[Factor, ...],
) -> Terms:  # fmt: skip
    """The entries of a block in what the map gave, whose rows (columns) begin at ``offset`` in each instance."""
    if common and not instance:
        # Summed over instances already: what is left are the far axes.
        names = {a: k for k, a in enumerate(sorted({*_axes(block.far), *block.inner}))}
        block = _Block(
            tuple(block.domain[a] for a in names), tuple(rename(e, names) for e in block.far), (),
            tuple(names[a] for a in block.inner),
        )  # fmt: skip
    first = len(block.domain)
    domain = (*block.domain, *kept)
    near = tuple(axis(first + k) for k in range(len(kept)))
    if value is None:
        coefficient = new_input(domain, dtype)
    else:
        places = () if offset is None else (_number(block, block.inner, offset),)
        coefficient = index_node(value, domain, (*instance, *near, *places))
    side = near if common else (*instance, *near)
    row, col = (block.far, side) if pull else (side, block.far)
    return _normal(Term(domain, row, col, ((coefficient, tuple(range(len(domain)))),), masks))


def _block(term: Term, instance: tuple[Index, ...], far: tuple[Index, ...]) -> tuple[_Block, tuple[int, ...]]:
    """The block of a term, and its axes that make up the block's domain."""
    kept = tuple(sorted(set(_axes((*far, *instance)))))
    told: set[int] = set()
    for e in instance:
        axes = axes_of(e)
        if len(axes) == 1 and axes[0] not in told and _one_to_one(e):
            told.add(axes[0])
    names = {a: k for k, a in enumerate(kept)}
    block = _Block(
        tuple(term.domain[a] for a in kept),
        tuple(rename(e, names) for e in far),
        tuple(rename(e, names) for e in instance),
        tuple(names[a] for a in kept if a not in told),
    )
    return block, kept


def _one_to_one(index: Index) -> bool:
    return isinstance(index, Affine) or len(np.unique(index.table.values)) == index.table.values.size


def _axes(indices: Sequence[Index]) -> list[int]:
    return [a for e in indices for a in axes_of(e)]


def _number(block: _Block, axes: Sequence[int], offset: int) -> Index:
    """The number of a row within its instance, over the axes that stand for the inner ones of a block."""
    found = flatten([axis(a) for a in axes], [block.domain[a] for a in block.inner], ())
    assert isinstance(found, Affine)
    return Affine(offset + found.offset, found.strides)


# --- products -----------------------------------------------------------------------------------------------------


def _matrix(edge: Term) -> Node:
    found = opaque_map(edge)
    assert found is not None
    return found


def _joint(matrix: Node) -> Node:
    assert matrix.op.matrix is not None and matrix.op.matrix.joint is not None
    return matrix.op.matrix.joint(matrix)


def _batch(matrix: Node) -> int:
    assert matrix.op.matrix is not None
    return matrix.op.matrix.batch(matrix)


def _reach(matrix: Node) -> Any:
    assert matrix.op.matrix is not None
    return None if matrix.op.matrix.reach is None else matrix.op.matrix.reach(matrix)


def _split(matrix: Node) -> int:
    assert matrix.op.matrix is not None
    return _batch(matrix) + matrix.op.matrix.rows(matrix)


def _slots(matrix: Node, is_transposed: bool) -> tuple[tuple[int, int], ...]:
    assert matrix.op.matrix is not None and matrix.op.matrix.slots is not None
    return matrix.op.matrix.slots(matrix, is_transposed)


def _product(matrix: Node, array: Node, is_transposed: bool) -> Node:
    assert matrix.op.matrix is not None
    if array.op.name == "assemble" and not array.inputs:
        first, split = _batch(matrix), _split(matrix)
        rows, cols = matrix.shape[first:split], matrix.shape[split:]
        kept, own = (cols, rows) if is_transposed else (rows, cols)
        return zeros((*matrix.shape[:first], *kept, *array.shape[first + len(own) :]), matrix.dtype)
    return matrix.op.matrix.product(matrix, array, is_transposed)


def _normal(term: Term) -> Terms:
    found = normalise(term)
    return () if found is None else (found,)


def _gathered(
    terms: Sequence[Term], own: Shape, rest: Shape, dtype: DType, slots: Sequence[tuple[int, int]], batch: int = 0
) -> Node:
    """Terms with rows over ``own`` as one array of shape ``own + rest``, stored slot by slot where there are slots."""
    if len(own) != batch + 1 or not slots:
        return dense_node(terms, own, rest, dtype)
    inside: dict[tuple[int, int], list[Term]] = {}
    for term in terms:
        low, high = bounds(term.row[batch], term.domain)
        slot = next((s for s in slots if s[0] <= low and high < s[0] + s[1]), None)
        if slot is None:
            return dense_node(terms, own, rest, dtype)
        moved = substitute(Affine(-slot[0], ((0, 1),)), [term.row[batch]], term.domain)
        row = (*term.row[:batch], moved)
        inside.setdefault(slot, []).append(term._replace(row=row))
    lead = own[:batch]
    parts = [(slot[0], dense_node(found, (*lead, slot[1]), rest, dtype)) for slot, found in inside.items()]
    return pack(parts, own[batch], rest, dtype, lead)


__all__ = ["opaque_map", "pulled", "pushed", "through_maps"]
