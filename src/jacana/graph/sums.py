"""Sums that a Python loop adds up term by term (``e += energy(x[element])``).

The chain of additions becomes one array with many parts, each added at the same place, of which copies of one program
are put together as in any other (`graph/rolling.py`). A term is taken as it is: what it is computed from is not torn
apart, however many additions are in it. So the sum stays the same to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .index import identity
from .lanes import FEWEST, Copies
from .node import LITERAL, Node
from .ops.elementwise import add, subtract
from .ops.movement import AssembleParams, assemble

LARGEST = 64  # elements of a term up to which that pays


Added = tuple[Node, bool]  # a term of a sum, and whether it is subtracted


def long_sums(order: Sequence[Node], outputs: Sequence[Node], copies: Copies) -> dict[Node, list[Added]]:
    """The sums of a program that have many terms: for the last addition of each all of its terms, first to last."""
    links = [node for node in order if _adds(node)]
    depth: dict[Node, int] = {}
    for node in links:
        depth[node] = 1 + max(depth.get(i, 0) for i in node.inputs)
    if max(depth.values(), default=0) < FEWEST:
        return {}
    uses = Counter(i for node in order for i in node.inputs)
    uses.update(outputs)
    kinds = Counter(copies.of(node) for node in order if node.size <= LARGEST)
    inside: set[Node] = set()
    sums: dict[Node, list[Added]] = {}
    for last in reversed(links):
        if last in inside or kinds[copies.of(last)] >= FEWEST:
            continue
        terms: list[Added] = []
        total: Node | None = last
        while total is not None:
            left, right = total.inputs
            minus = total.op is subtract
            frequent = [i.op is not LITERAL and kinds[copies.of(i)] >= FEWEST for i in total.inputs]
            before = right if frequent == [True, False] and not minus else left
            term = (left, False) if before is right else (right, minus)
            terms.append(term)
            total = None
            if any(frequent) and _adds(before) and uses[before] == 1 and kinds[copies.of(before)] < FEWEST:
                inside.add(before)
                total = before
            else:
                terms.append((before, False))
        if len(terms) > FEWEST:
            sums[last] = terms[::-1]
    return sums


def as_parts(terms: Sequence[Node], like: Node) -> Node:
    """The sum of terms as an array in which each of them is added to the same elements, in their order."""
    params = AssembleParams(like.shape, like.dtype, (identity(like.ndim),) * len(terms), False, False)
    return assemble(*terms, params=params)


def _adds(node: Node) -> bool:
    return (node.op is add or node.op is subtract) and node.size <= LARGEST and node.dtype.kind == "f"


__all__ = ["as_parts", "long_sums"]
