"""Products of a Jacobian with vectors, without forming it: every term stays a product of its factors.

``diag(d) + a b^T`` with n = 10^6 is two terms; a product with a vector costs 3 n multiplications, because the sum over
the axis that only ``b`` and the vector have is taken first (``contract_labels`` orders it so).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..graph.build import FrozenArray, assembled, cast_to, contract_labels, full, index_node, linear_map
from ..graph.index import Index, axes_of, axis, rename
from ..graph.node import CONSTANT, LITERAL, DType, Factor, Node, Shape, Term
from ..graph.ops.elementwise import add, select
from ..graph.ops.movement import index
from .terms import align, conjunction, spread_product

LARGE = 2**15  # elements from which a factor's memory counts
CHEAP = 2  # cost of an operation up to which doing it again is cheaper than reading its result
OPERATIONS = 4  # for each element of a factor


def factor_nodes(terms: Sequence[Term]) -> list[Node]:
    """What has to be computed once at a point before products are taken there: the factors, masks applied.

    The matrix of a linear map is not formed: what it is made of takes its place.
    """
    nodes: list[Node] = []
    for term in terms:
        for node, _ in unmasked(term).factors:
            part = linear_map(node)
            if part is None:
                nodes.append(node)
            else:
                assert part.matrix.op.matrix is not None
                nodes.extend(part.matrix.op.matrix.needs(part.matrix))
    return list(dict.fromkeys(nodes))


def stored_nodes(factors: Sequence[Node]) -> list[Node]:
    """What to keep at a point so that the factors can be had: they themselves, or what a few operations make them from.

    Large products wait for memory. ``x^2 * sum(x)`` has the factors ``2 x sum(x)`` and ``x^2``; to read ``x`` and the
    sum, and to multiply again, is half the traffic.
    """
    large = [node for node in factors if node.size >= LARGE]
    roots: list[Node] = []
    for node in large:
        found = _roots(node)
        if found is None:
            return list(factors)
        roots += found
    kept = list(dict.fromkeys([*roots, *(node for node in factors if node.size < LARGE)]))
    return kept if sum(node.size for node in kept) < sum(node.size for node in factors) else list(factors)


def _roots(node: Node) -> list[Node] | None:
    """What a factor is made from by a few cheap operations on each element; None if there would be more of them."""
    found: list[Node] = []
    stack, operations = [node], 0
    while stack:
        current = stack.pop()
        if current.op is LITERAL:
            continue
        spread = current.op is index and current.size > current.inputs[0].size
        cheap = current.op.family == "elementwise" and current.op.cost <= CHEAP and current.size == node.size
        if not (spread or cheap):
            found.append(current)
            continue
        operations += cheap
        if operations > OPERATIONS:
            return None
        stack.extend(current.inputs)
    return found


def unmasked(term: Term) -> Term:
    """The term with its mask selected into its coefficient."""
    if not term.masks:
        return term
    axes = tuple(sorted({a for _, have in (*term.factors, *term.masks) for a in have}))
    values = spread_product(term.factors, axes, term.domain)
    mask = conjunction(term.masks, axes, term.domain)
    chosen = select(mask, values, full(0.0, values.shape, values.dtype))
    return term._replace(factors=((chosen, axes),), masks=())


def product_node(terms: Sequence[Term], vectors: Node, rows: Shape, dtype: DType) -> Node:
    """``J @ vectors`` as a node of shape ``(*rows, count)``; ``vectors`` has shape ``(*cols, count)``."""
    count = vectors.shape[-1]
    parts: dict[tuple[Shape, tuple[Index, ...]], Node] = {}
    for term in (unmasked(t) for t in terms):
        last = len(term.domain)
        sizes = (*term.domain, count)
        used = sorted({a for e in term.col for a in axes_of(e)})
        compact = {a: k for k, a in enumerate(used)}
        places = [rename(e, compact) for e in term.col]
        shape = (*(term.domain[a] for a in used), count)
        picked: Factor = (index_node(vectors, shape, (*places, axis(len(used)))), (*used, last))
        left = sorted({a for e in term.row for a in axes_of(e)})
        factors = [*term.factors, picked]
        have = {a for _, axes in factors for a in axes}
        present = (*(a for a in left if a in have), last)
        value = align(contract_labels(factors, sizes, present), present, (*left, last), sizes)
        names = {a: k for k, a in enumerate(left)}
        value, place = cast_to(value, dtype), (*(rename(e, names) for e in term.row), axis(len(left)))
        # What falls on the same rows is added up in one pass, not into memory part after part.
        same = parts.get((value.shape, place))
        parts[value.shape, place] = value if same is None else add(same, value)
    return assembled([(value, place) for (_, place), value in parts.items()], (*rows, count), dtype, disjoint=False)


def entry_count(terms: Sequence[Term]) -> int:
    """The entries that storing every term would take, as far as masks that are known now leave them."""
    return int(sum(np.prod(term.domain, dtype=np.float64) * _left(term) for term in terms))


def _left(term: Term) -> float:
    """The share of a term's domain that its constant masks leave, as if each left it independently of the others."""
    owners = [node.params.owner for node, _ in term.masks if node.op is CONSTANT]
    known = [owner.array for owner in owners if isinstance(owner, FrozenArray)]
    return math.prod(np.count_nonzero(array) / array.size for array in known if array.size)
