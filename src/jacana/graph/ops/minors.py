"""The derivatives of a determinant of any order, exact for singular matrices: determinants of what is left of it.

``d^m det A / dA[i1, j1] ... dA[im, jm]`` is, up to its sign, the determinant of A without these rows and columns (the
expansion of Laplace), and zero where a row or a column is named twice. There are n^2m of them, so this is for small
matrices; for larger ones there is a linear map that multiplies (``cofactors.py``).
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from ..node import Array, DType, Edges, Node, Operation, Shape, register
from .labelled import labelled

LARGEST = 6  # rows; from here on the tensors are larger than what they are needed for


class MinorsParams(NamedTuple):
    """``order``: how many rows and columns are left out."""

    order: int

    def batched(self) -> MinorsParams:
        """Leading axes are a batch in any case."""
        return self


def _sign(order: tuple[int, ...]) -> int:
    return -1 if sum(a > b for a, b in itertools.combinations(order, 2)) % 2 else 1


def _evaluate(params: MinorsParams, a: Array) -> Array:
    n, m = a.shape[-1], params.order
    result = np.zeros((*a.shape[:-2], *(n,) * (2 * m)), dtype=a.dtype)
    turns = [(p, _sign(p)) for p in itertools.permutations(range(m))]
    for rows, columns in itertools.product(itertools.combinations(range(n), m), repeat=2):
        kept = np.delete(np.delete(a, rows, axis=-2), columns, axis=-1)
        minor = np.linalg.det(kept) * (-1) ** (sum(rows) + sum(columns))
        for (p, sign), (q, other) in itertools.product(turns, repeat=2):
            place: list[Any] = [
                k for pair in zip((rows[k] for k in p), (columns[k] for k in q), strict=True) for k in pair
            ]
            result[(..., *place)] = sign * other * minor
    return result


def _infer(params: MinorsParams, a: Node) -> tuple[Shape, DType]:
    n = a.shape[-1]
    assert a.ndim >= 2 and a.shape[-2] == n, a
    return (*a.shape[:-2], *(n,) * (2 * params.order)), a.dtype


def _edges(node: Node) -> Edges:
    (a,) = node.inputs
    if node.params.order >= a.shape[-1]:
        return (None,)
    return (minor_terms(a, node.params.order),)


def minor_terms(a: Node, order: int) -> Any:
    """The derivative by ``a`` of the minors of an order: those of the next one."""
    letters = "abcdefghijklmn"[: 2 * order + 2]
    further = minors(a, params=MinorsParams(order + 1))
    sizes = dict.fromkeys(letters, a.shape[-1])
    return (labelled(a.shape[:-2], sizes, letters[:-2], letters[-2:], (further, letters)),)


minors = register(
    Operation(name="minors", family="special", evaluate=_evaluate, infer=_infer, edges=_edges, cost=100.0)
)

__all__ = ["LARGEST", "MinorsParams", "minor_terms", "minors"]
