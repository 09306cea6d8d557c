"""Where a coefficient can be other than zero: structure that arrays have, besides the one that operations have.

``np.diag(v) @ x`` multiplies by a matrix whose other elements are structural zeros, and so does ``D @ x`` with a banded
matrix of numbers; ``np.where(inside, f(x), x)`` with a mask that depends on no argument chooses once for all.
Nothing here looks at a number that can change while the recording holds: a captured array is looked at only if the
recording watches its content (its owner is ``structural``), and the values of the program are computed as written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..graph.index import Affine, Index, evaluate, from_table, identity, substitute
from ..graph.node import CONSTANT, LITERAL, Array, Factor, Node, Term, literal_value
from ..graph.ops.movement import assemble, index
from .terms import Terms, compose, known_array, normalise

DEPTH = 5  # operations that are looked through from a coefficient to an array of known places
PARTS = 16  # pieces into which a term is cut at most
UNION = 2**16  # elements up to which the places of a sum are enumerated
_LOGIC = frozenset({"logical_not", "logical_and", "logical_or", "logical_xor", "cast", "index", "any"})


def restrict_to_factors(term: Term) -> Terms:
    """The term over those places only where its factors can be other than zero."""
    found = [(axes, places) for node, axes in term.factors if (places := _places_of(node, DEPTH)) is not None]
    return _restrict(term, found) if found else (term,)


def known_mask(term: Term) -> Array | None:
    """Where the masks of a term hold, over its whole domain, if that does not depend on any argument."""
    if not term.masks:
        return None
    result = np.ones(term.domain, dtype=bool)
    for node, axes in term.masks:
        known = _known(node, DEPTH)
        if known is None:
            return None
        order = sorted(range(len(axes)), key=lambda k: axes[k])
        shape = [n if a in axes else 1 for a, n in enumerate(term.domain)]
        result &= known.transpose(order).reshape(shape)
    return result


def restrict_to_masks(term: Term) -> Terms:
    """The term over those places only where no mask is false whatever the arguments are."""
    found: list[tuple[Sequence[int], Terms]] = []
    masks: list[Factor] = []
    for node, axes in term.masks:
        known = _known(node, DEPTH)
        if known is not None:
            if not known.all():
                found.append((axes, _nonzero(known)))
            continue
        masks.append((node, axes))
        if node.op.name == "logical_and":
            for part in node.inputs:
                known = _known(part, DEPTH)
                if known is not None and not known.all():
                    found.append((axes, _nonzero(known)))
    if len(masks) < len(term.masks):
        term = term._replace(masks=tuple(masks))
    return _restrict(term, found) if found else (term,)


def _restrict(term: Term, found: Sequence[tuple[Sequence[int], Terms]]) -> Terms:
    """The points of the domain at which some axes are at one of some places, for each pair of axes and places."""
    rank, first = len(term.domain), len(term.row) + len(term.col)
    # The axes themselves go along as rows, so that later pairs can be said in terms of the axes that there are then.
    pieces = [term._replace(row=(*term.row, *term.col, *identity(rank)), col=())]
    for axes, places in found:
        if len(pieces) * len(places) > PARTS:
            continue
        outers = [p._replace(col=tuple(p.row[first + a] for a in axes)) for p in pieces]
        pieces = [p for o in outers for place in places if (p := compose(o, place)) is not None]
    cut = len(term.row)
    results = (normalise(p._replace(row=p.row[:cut], col=p.row[cut:first])) for p in pieces)
    return tuple(p for p in results if p is not None)


def _places_of(node: Node, depth: int) -> Terms | None:
    """Terms whose rows are the places, each once, where ``node`` can be other than zero; None: that may be anywhere."""
    if node.op is CONSTANT:
        array = _known(node, depth)
        return None if array is None or array.all() else _nonzero(array)
    if node.op.matrix is not None:
        return None if node.op.matrix.support is None else _normal(node.op.matrix.support(node))
    if depth == 0:
        return None
    if node.op is assemble:
        return _written(node, depth)
    if node.op is index:
        sources = _places_of(node.inputs[0], depth - 1)
        if sources is None:
            return None
        reading = Term(node.shape, identity(node.ndim), node.params.indices)
        return tuple(found for place in sources if (found := compose(reading, place)) is not None)
    match node.op.name:
        case "select":
            known = _known(node.inputs[0], depth - 1)
            if known is None or literal_value(node.inputs[2]) != 0:
                return None
            return None if known.all() else _nonzero(known)
        case "negative" | "cast" | "divide":
            return _places_of(node.inputs[0], depth - 1)
        case "multiply":
            options = [p for i in node.inputs if (p := _places_of(i, depth - 1)) is not None]
            return min(options, key=_count, default=None)
        case "add" | "subtract" if node.size <= UNION:
            return _union(node, depth)
    return None


def _union(node: Node, depth: int) -> Terms | None:
    """Where at least one of two arrays can be other than zero."""
    mask = np.zeros(node.shape, dtype=bool)
    for source in node.inputs:
        places = _places_of(source, depth - 1)
        if places is None:
            return None
        for place in places:
            mask[tuple(evaluate(e, place.domain) for e in place.row)] = True
    return _nonzero(mask)


def _count(places: Terms) -> int:
    return sum(math.prod(p.domain) for p in places)


def _written(node: Node, depth: int) -> Terms | None:
    """The places that the parts of an assembled array fill."""
    params = node.params
    known = [None if part.ndim == 0 else _places_of(part, depth - 1) for part in node.inputs]
    if not params.disjoint or (params.full and all(places is None for places in known)):
        return None
    result: list[Term] = []
    scalars = []
    for part, rows, places in zip(node.inputs, params.rows, known, strict=True):
        if part.ndim == 0:
            scalars.append([e.offset for e in rows])
            continue
        everywhere = (Term(part.shape, identity(part.ndim), ()),)
        for place in everywhere if places is None else places:
            result.append(place._replace(row=tuple(substitute(e, place.row, place.domain) for e in rows)))
    if scalars:
        table = np.array(scalars, dtype=np.int64)
        result.append(Term((len(table),), tuple(from_table(column, (0,)) for column in table.T), ()))
    return _normal(result) if len(result) <= PARTS else None


def _normal(places: Sequence[Term]) -> Terms:
    return tuple(p for place in places if (p := normalise(place)) is not None)


def _nonzero(array: Array) -> Terms:
    """The places of the nonzero elements: affine where they form a box or a few whole diagonals, else a table."""
    if not array.any():
        return ()
    places = np.nonzero(array)
    count = len(places[0])
    low = [int(p.min()) for p in places]
    sizes = tuple(int(p.max()) - start + 1 for p, start in zip(places, low, strict=True))
    if math.prod(sizes) == count:
        return _normal([Term(sizes, tuple(Affine(start, ((k, 1),)) for k, start in enumerate(low)), ())])
    if len(places) == 2:
        offset = places[1] - places[0]
        lines = [(places[0][offset == k], k) for k in np.unique(offset)[: PARTS // 2 + 1].tolist()]
        if len(lines) <= PARTS // 2 and all(r[-1] - r[0] + 1 == len(r) for r, _ in lines):
            return _normal(
                [
                    Term((len(r),), (Affine(int(r[0]), ((0, 1),)), Affine(int(r[0]) + k, ((0, 1),))), ())
                    for r, k in lines
                ]
            )
    rows: tuple[Index, ...] = tuple(from_table(p, (0,)) for p in places)
    return _normal([Term((count,), rows, ())])


def _known(node: Node, depth: int) -> Array | None:
    """The value of a node that depends on nothing but watched arrays."""
    if node.op is LITERAL or node.op is CONSTANT:
        return known_array(node)
    if depth == 0:
        return None
    if node.op.name == "not_equal" and literal_value(node.inputs[1]) == 0:
        value = known_array(node.inputs[0])  # whether it is zero is all that is known of an array of numbers
        return None if value is None else np.asarray(value != 0)
    if node.op.name not in _LOGIC:
        return None
    values = []
    for i in node.inputs:
        value = _known(i, depth - 1)
        if value is None:
            return None
        values.append(value)
    return np.asarray(node.op.evaluate(node.params, *values))


__all__ = ["known_mask", "restrict_to_factors", "restrict_to_masks"]
