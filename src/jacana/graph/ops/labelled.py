"""Terms written as one writes them on paper, with a letter for each axis, and what linear algebra's records share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..index import Affine, Index, axis
from ..node import DType, Edges, Node, Operation, Shape, Term, register

Place: TypeAlias = "str | int | tuple[str, int]"  # an axis, a fixed place, or an axis with an offset


def labelled(
    lead: Shape, sizes: Mapping[str, int], row: Sequence[Place], col: Sequence[Place], *factors: tuple[Node, str]
) -> Term:
    """``J[row, col] += product of factors``, with the axes ``lead`` in front of everything.

    ``labelled((), dict(i=2, j=3), "i", "j", (W, "ij"))`` is the derivative of ``W @ x`` by ``x``. A place of ``row`` or
    ``col`` is a letter, a number, or a letter and an offset.
    """
    batch = len(lead)
    names = {letter: batch + k for k, letter in enumerate(sizes)}
    front = tuple(axis(k) for k in range(batch))

    def index(place: Place) -> Index:
        if isinstance(place, str):
            return axis(names[place])
        return Affine(place) if isinstance(place, int) else Affine(place[1], ((names[place[0]], 1),))

    return Term(
        (*lead, *sizes.values()),
        (*front, *map(index, row)),
        (*front, *map(index, col)),
        tuple((node, (*range(batch), *(names[x] for x in letters))) for node, letters in factors),
    )


def contracted(lead: Shape, sizes: Mapping[str, int], out: str, *factors: tuple[Node, str]) -> Node:
    """The sum of the product of ``factors`` over the letters not in ``out``, with the axes ``lead`` in front."""
    from ..build import contract_labels

    term = labelled(lead, sizes, "", "", *factors)
    letters = list(sizes)
    kept = (*range(len(lead)), *(len(lead) + letters.index(x) for x in out))
    return contract_labels(term.factors, term.domain, kept)


def rows_of(packed: Node, start: int, count: int) -> Node:
    """``packed[..., start : start + count, :]``: one of the results that share a call."""
    from ..build import index_node

    rank = packed.ndim
    indices = [*(axis(k) for k in range(rank - 2)), Affine(start, ((rank - 2, 1),)), axis(rank - 1)]
    return index_node(packed, (*packed.shape[:-2], count, packed.shape[-1]), indices)


def row_of(packed: Node, place: int) -> Node:
    """``packed[..., place, :]``."""
    from ..build import index_node

    lead = packed.ndim - 2
    indices = [*(axis(k) for k in range(lead)), Affine(place), axis(lead)]
    return index_node(packed, (*packed.shape[:-2], packed.shape[-1]), indices)


def turned(node: Node) -> Node:
    """The last two axes exchanged."""
    from ..build import transpose

    rank = node.ndim
    return transpose(node, (*range(rank - 2), rank - 1, rank - 2))


def spread(vector: Node, count: int, last: bool) -> Node:
    """``vector[..., i]`` as a matrix over ``(i, j)`` (``last``: over ``(j, i)``), with ``count`` places of ``j``."""
    from ..build import broadcast_axes

    lead = vector.ndim - 1
    n = vector.shape[-1]
    shape = (*vector.shape[:-1], count, n) if last else (*vector.shape, count)
    return broadcast_axes(vector, shape, (*range(lead), lead + 1 if last else lead))


def linalg(
    name: str,
    evaluate: Callable[..., Any],
    infer: Callable[..., tuple[Shape, DType]],
    edges: Callable[[Node], Edges],
    smooth: bool = True,
) -> Operation:
    """Enter an operation of linear algebra."""
    return register(
        Operation(
            name=name, family="linalg", evaluate=evaluate, infer=infer, edges=edges, cost=100.0, smooth=smooth
        )
    )  # fmt: skip


def tangent(name: str, shape: Callable[[Shape], Shape], edges: Callable[[Node], Edges]) -> Operation:
    """Enter a vertex that stands for a displacement only: its value is zero, its derivative a factor of another's.

    The derivative of a factorisation is a product of linear maps: into the coordinates of its own vectors, through a
    small matrix, and back. As one edge that is an array of three or four axes; with a vertex between the maps, whoever
    eliminates it multiplies two matrices. The result takes the vertex as an input and does not read it.
    See ``docs/decisions/0018-linear-algebra.md``.
    """
    return linalg(
        name,
        lambda params, a, *others: np.zeros(shape(a.shape), dtype=a.dtype),
        lambda params, a, *others: (shape(a.shape), a.dtype),
        edges,
    )
