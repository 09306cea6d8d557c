"""Composition through opaque linear maps: loops, and operations that only know products with their Jacobian.

Such an edge is one term whose factor is a matrix that is never formed. Where elimination composes it with other terms,
these are stored as one array (all rows, or all columns, at once), and the map multiplies it: a reverse or a forward
sweep through the operation. What the map works on in slots stays apart, so that a slot with no term is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.build import zeros
from ..graph.index import Affine, bounds, identity, substitute
from ..graph.node import DType, Node, Shape, Term, new_input
from ..graph.ops.control import pack
from ..structure.formats import dense_node, transposed
from ..structure.terms import Terms, compose_terms, normalise


def opaque_map(term: Term) -> Node | None:
    """The opaque linear map that a term is, if it is one."""
    for node, _ in term.factors:
        if node.op.matrix is not None and node.op.matrix.slots is not None:
            return node
    return None


def through_maps(outer: Terms, inner: Terms, to: Shape, node: Node, source: Node, dry: bool) -> list[Term]:
    """``outer`` (to <- node) composed with ``inner`` (node <- source), some terms of which are opaque maps.

    ``dry``: give something of the right shape without deriving the products.
    """
    result: list[Term] = []
    plain_outer = tuple(t for t in outer if opaque_map(t) is None)
    plain_inner = tuple(t for t in inner if opaque_map(t) is None)
    left = [m for t in outer if (m := opaque_map(t)) is not None]
    right = [m for t in inner if (m := opaque_map(t)) is not None]
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


def pulled(matrix: Node, outer: Sequence[Term], to: Shape, dry: bool = False) -> Terms:
    """``outer @ matrix`` as one dense term: rows over ``to``."""
    split = _split(matrix)
    own, cols = matrix.shape[:split], matrix.shape[split:]
    if dry:
        value = new_input((*cols, *to), matrix.dtype)
    else:
        array = _gathered(transposed(outer), own, to, matrix.dtype, _slots(matrix, True))
        value = _product(matrix, array, True)
    axes = identity(value.ndim)
    return _normal(Term(value.shape, axes[len(cols) :], axes[: len(cols)], ((value, tuple(range(value.ndim))),)))


def pushed(matrix: Node, inner: Sequence[Term], by: Shape, dry: bool = False) -> Terms:
    """``matrix @ inner`` as one dense term: columns over ``by``."""
    split = _split(matrix)
    rows, own = matrix.shape[:split], matrix.shape[split:]
    if dry:
        value = new_input((*rows, *by), matrix.dtype)
    else:
        array = _gathered(inner, own, by, matrix.dtype, _slots(matrix, False))
        value = _product(matrix, array, False)
    axes = identity(value.ndim)
    return _normal(Term(value.shape, axes[: len(rows)], axes[len(rows) :], ((value, tuple(range(value.ndim))),)))


def _split(matrix: Node) -> int:
    assert matrix.op.matrix is not None
    return matrix.op.matrix.rows(matrix)


def _slots(matrix: Node, is_transposed: bool) -> tuple[tuple[int, int], ...]:
    assert matrix.op.matrix is not None and matrix.op.matrix.slots is not None
    return matrix.op.matrix.slots(matrix, is_transposed)


def _product(matrix: Node, array: Node, is_transposed: bool) -> Node:
    assert matrix.op.matrix is not None
    if array.op.name == "assemble" and not array.inputs:
        split = _split(matrix)
        kept, own = (matrix.shape[split:], split) if is_transposed else (matrix.shape[:split], matrix.ndim - split)
        return zeros((*kept, *array.shape[own:]), matrix.dtype)
    return matrix.op.matrix.product(matrix, array, is_transposed)


def _normal(term: Term) -> Terms:
    found = normalise(term)
    return () if found is None else (found,)


def _gathered(terms: Sequence[Term], own: Shape, rest: Shape, dtype: DType, slots: Sequence[tuple[int, int]]) -> Node:
    """Terms with rows over ``own`` as one array of shape ``own + rest``, stored slot by slot where there are slots."""
    if len(own) != 1 or not slots:
        return dense_node(terms, own, rest, dtype)
    inside: dict[tuple[int, int], list[Term]] = {}
    for term in terms:
        low, high = bounds(term.row[0], term.domain)
        slot = next((s for s in slots if s[0] <= low and high < s[0] + s[1]), None)
        if slot is None:
            return dense_node(terms, own, rest, dtype)
        moved = substitute(Affine(-slot[0], ((0, 1),)), [term.row[0]], term.domain)
        inside.setdefault(slot, []).append(term._replace(row=(moved,)))
    parts = [(slot[0], dense_node(found, (slot[1],), rest, dtype)) for slot, found in inside.items()]
    return pack(parts, own[0], rest, dtype)


__all__ = ["opaque_map", "pulled", "pushed", "through_maps"]
