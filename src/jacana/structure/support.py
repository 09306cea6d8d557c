"""Where a coefficient can be other than zero: structure that arrays have, besides the one that operations have.

``np.diag(v) @ x`` multiplies by a matrix whose other elements are structural zeros, and so does ``D @ x`` with a banded
matrix of numbers; ``np.where(inside, f(x), x)`` with a mask that depends on no argument chooses once for all.
Nothing here looks at a number that can change while the recording holds: a captured array is looked at only if the
recording watches its content (its owner is ``structural``), and the values of the program are computed as written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ..graph.index import Affine, Index, evaluate, from_table, identity, substitute
from ..graph.node import CONSTANT, INPUT, LITERAL, Array, Factor, Node, Term, literal_value
from ..graph.ops.movement import assemble, index
from .terms import Terms, compose, known_array, normalise

DEPTH = 5  # operations that are looked through from a mask to arrays that are known
PARTS = 16  # pieces into which a term is cut at most
UNION = 2**16  # elements up to which the places of a sum, a product and an inverse are enumerated
ASSEMBLED = 2**20  # the same for an array that is filled piece by piece, such as the matrix of finite elements

Known: TypeAlias = (
    "dict[Node, Terms | None]"  # what has been found: the same coefficients are asked for again and again
)

_LOGIC = frozenset({"logical_not", "logical_and", "logical_or", "logical_xor", "cast", "index", "any"})


def restrict_to_factors(term: Term, known: Known) -> Terms:
    """The term over those places only where its factors can be other than zero.

    ``known``: what has been found about nodes; it is added to.
    """
    found = [(axes, places) for node, axes in term.factors if (places := _places_of(node, known)) is not None]
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
        possible = _possible(node, DEPTH) if known is None else known
        if possible is not None and not possible.all():
            found.append((axes, _nonzero(possible)))
        if known is None:
            masks.append((node, axes))
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


def _places_of(node: Node, known: Known) -> Terms | None:
    """Terms whose rows are the places, each once, where ``node`` can be other than zero; None: that may be anywhere.

    No recursion: a matrix that a loop fills is as many operations deep as the loop has steps.
    """
    stack = [node]
    while stack:
        node = stack[-1]
        if node in known:
            stack.pop()
            continue
        sources = [i for i in _looked_through(node) if i not in known]
        stack += sources
        if not sources:
            known[node] = _places(node, known)
    return known[node]


def _looked_through(node: Node) -> Sequence[Node]:
    """The inputs of which the places must be known."""
    if node.op is assemble:
        return [part for part in node.inputs if part.ndim or part.op is index]
    if node.op is index:
        return node.inputs
    if node.op.matrix is not None and node.op.matrix.copies is not None:
        return node.inputs[:1]
    match node.op.name:
        case "negative" | "cast" | "multiply" | "inv" | "inv_or_nan":
            return node.inputs
        case "divide":
            return node.inputs[:1]
        case "add" | "subtract" if node.size <= UNION:
            return node.inputs
        case "contract" if math.prod(node.params.sizes) <= UNION:
            return node.inputs
    return ()


def _places(node: Node, known: Known) -> Terms | None:
    """``_places_of`` where the inputs that are looked through are known."""
    if node.op is CONSTANT or node.op is INPUT:
        array = _known(node, 0)
        return None if array is None or array.all() else _nonzero(array)
    if node.op.matrix is not None and node.op.matrix.copies is not None:
        return _copied(node, known)
    if node.op.matrix is not None:
        return None if node.op.matrix.support is None else _normal(node.op.matrix.support(node))
    if node.op is assemble:
        return _written(node, known)
    if node.op is index:
        sources = known[node.inputs[0]]
        if sources is None:
            return None
        reading = Term(node.shape, identity(node.ndim), node.params.indices)
        return tuple(found for place in sources if (found := compose(reading, place)) is not None)
    match node.op.name:
        case "select":
            mask = _known(node.inputs[0], DEPTH)
            if mask is None or literal_value(node.inputs[2]) != 0:
                return None
            return None if mask.all() else _nonzero(mask)
        case "exp":
            return _finite(node.inputs[0])
        case "negative" | "cast" | "divide":
            return known[node.inputs[0]]
        case "multiply":
            options = [p for i in node.inputs if (p := known[i]) is not None]
            return min(options, key=_count, default=None)
        case "inv" | "inv_or_nan" if node.size <= UNION:
            return _inverse_places(node, known)
        case "add" | "subtract" if node.size <= UNION:
            a, b = (known[i] for i in node.inputs)
            return None if a is None or b is None else _covered(node, [*a, *b])
        case "contract" if math.prod(node.params.sizes) <= UNION and any([known[i] is not None for i in node.inputs]):
            patterns = [_pattern(i, known).astype(np.float32) for i in node.inputs]
            mask = node.op.evaluate(node.params, *patterns) > 0  # where elements meet that can all be other than zero
            return None if mask.all() else _nonzero(mask)
    return None


def _copied(matrix: Node, known: Known) -> Terms | None:
    """The places of a matrix that is made of copies: where they are of elements that can be other than zero."""
    assert matrix.op.matrix is not None and matrix.op.matrix.copies is not None
    copies, sources = matrix.op.matrix.copies(matrix), known[matrix.inputs[0]]
    if sources is None:
        return None if math.prod(copies.domain) == matrix.size else _normal([copies._replace(col=())])
    return tuple(found for place in sources if (found := compose(copies, place)) is not None)


def zeros_of_copies(matrix: Node, known: Known) -> Array | None:
    """Where a matrix that is made of copies can be other than zero; None if what it is made of has no zeros."""
    if matrix.size > ASSEMBLED or not matrix.inputs or _places_of(matrix.inputs[0], known) is None:
        return None
    _places_of(matrix, known)
    return _pattern(matrix, known)


def _pattern(node: Node, known: Known) -> Array:
    """Where an array can be other than zero, element by element."""
    places = known[node]
    pattern = np.full(node.shape, places is None)
    for place in places or ():
        pattern[tuple(evaluate(e, place.domain) for e in place.row)] = True
    return pattern


def _covered(node: Node, places: Sequence[Term]) -> Terms | None:
    """Places that may overlap, each once; None if they are everywhere."""
    mask = np.zeros(node.shape, dtype=bool)
    for place in places:
        mask[tuple(evaluate(e, place.domain) for e in place.row)] = True
    return None if mask.all() else _nonzero(mask)


def _count(places: Terms) -> int:
    return sum(math.prod(p.domain) for p in places)


def _finite(node: Node) -> Terms | None:
    """Where a masked array is not minus infinity, so that ``exp`` is not zero (``exp(where(mask, x, -inf) - max)``)."""
    while node.op.name in ("add", "subtract", "cast"):
        node = node.inputs[0]
    if node.op.name != "select" or literal_value(node.inputs[2]) != -math.inf:
        return None
    mask = _known(node.inputs[0], DEPTH)
    return None if mask is None or mask.all() else _nonzero(mask)


def _inverse_places(node: Node, known: Known) -> Terms | None:
    """Where an inverse can be other than zero: it is a polynomial of the matrix, so along paths of its entries only."""
    (source,) = node.inputs
    if known[source] is None:
        return None
    pattern = _pattern(source, known) | np.eye(source.shape[-1], dtype=bool)
    reached = 1
    while reached < source.shape[-1]:  # squared, a matrix has the paths of twice the length
        pattern = np.matmul(pattern.astype(np.float32), pattern.astype(np.float32)) > 0
        reached *= 2
    return None if pattern.all() else _nonzero(pattern)


def _written(node: Node, known: Known) -> Terms | None:
    """The places that the parts of an assembled array fill."""
    params = node.params
    parts = [(p, rows, known.get(p)) for p, rows in zip(node.inputs, params.rows, strict=True) if literal_value(p) != 0]
    if params.full and len(parts) == len(node.inputs) and all(places is None for _, _, places in parts):
        return None
    result: list[Term] = []
    scalars = []
    for part, rows, places in parts:
        if part.ndim == 0:
            if places != ():
                scalars.append([e.offset for e in rows])
            continue
        everywhere = (Term(part.shape, identity(part.ndim), ()),)
        for place in everywhere if places is None else places:
            result.append(place._replace(row=tuple(substitute(e, place.row, place.domain) for e in rows)))
    if scalars:
        table = np.array(scalars, dtype=np.int64)
        result.append(Term((len(table),), tuple(from_table(column, (0,)) for column in table.T), ()))
    if params.disjoint and len(result) <= PARTS:
        return _normal(result)
    return _covered(node, result) if node.size <= ASSEMBLED else None


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
        least = int(offset.min())
        present = np.flatnonzero(np.bincount(offset - least)) + least  # np.unique imports numpy.ma
        lines = [(places[0][offset == k], k) for k in present[: PARTS // 2 + 1].tolist()]
        if len(lines) <= PARTS // 2 and all(r[-1] - r[0] + 1 == len(r) for r, _ in lines):
            return _normal(
                [
                    Term((len(r),), (Affine(int(r[0]), ((0, 1),)), Affine(int(r[0]) + k, ((0, 1),))), ())
                    for r, k in lines
                ]
            )
    rows: tuple[Index, ...] = tuple(from_table(p, (0,)) for p in places)
    return _normal([Term((count,), rows, ())])


def _possible(node: Node, depth: int) -> Array | None:
    """Where a mask can hold, as far as that depends on nothing but watched arrays; None: that may be anywhere."""
    known = _known(node, depth)
    if known is not None or depth == 0:
        return known
    name = node.op.name
    if name == "index" or name == "any":
        source = _possible(node.inputs[0], depth - 1)
        return None if source is None else np.asarray(node.op.evaluate(node.params, source))
    if name not in ("logical_and", "logical_or"):
        return None
    a, b = (_possible(i, depth - 1) for i in node.inputs)
    if a is None or b is None:
        return None if name == "logical_or" else (b if a is None else a)
    return a & b if name == "logical_and" else a | b


def _known(node: Node, depth: int) -> Array | None:
    """The value of a node that depends on nothing but watched arrays."""
    if node.op is LITERAL or node.op is CONSTANT or node.op is INPUT:
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


__all__ = ["known_mask", "restrict_to_factors", "restrict_to_masks", "zeros_of_copies"]
