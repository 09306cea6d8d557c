"""The determinant of complex matrices, by their parts: its derivative is the matrix of cofactors.

Inverses and solutions need no records: ``[[A, -B], [B, A]]`` acts on stacked parts as ``A + iB`` does, but its
determinant is ``|det|**2``, without the phase. Formulas as in ``linalg``; nothing is conjugated, since the determinant
is holomorphic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..index import Affine, Index, identity
from ..node import Array, DType, Edges, Factor, Node, Operation, Shape, Term, register
from .complex import Pair, pair
from .fourier import combined, parted
from .linalg import inverse

Entries = list[tuple[Factor, ...]]


def _edges(domain: Shape, row: tuple[Index, ...], col: tuple[Index, ...], p: Entries, q: Entries) -> Edges:
    """The edges to both parts of a matrix, of a derivative ``p + i q`` that is a sum of products of factors."""

    def terms(k: int, entries: Entries) -> tuple[Term, ...]:
        return tuple(Term(domain, (*row, Affine(k)), col, factors) for factors in entries)

    negated = [((-factors[0][0], factors[0][1]), *factors[1:]) for factors in q]
    return ((*terms(0, p), *terms(1, q)), (*terms(0, negated), *terms(1, p)))


def _det_edges(node: Node) -> Edges:
    re, im = node.inputs
    c = pair(cofactor(re, im))
    axes = tuple(range(re.ndim))
    every = identity(re.ndim)
    return _edges(re.shape, every[:-2], every, [((c.re, axes),)], [((c.im, axes),)])


def _inverse(re: Node, im: Node) -> Pair:
    from ..build import assembled, index_node

    *batch, n, _ = re.shape
    rank = re.ndim
    every = identity(rank)
    places = [
        (part, (*every[:-2], Affine(r, ((rank - 2, 1),)), Affine(c, ((rank - 1, 1),))))
        for part, r, c in ((re, 0, 0), (-im, 0, n), (im, n, 0), (re, n, n))
    ]
    whole = inverse(assembled(places, (*batch, 2 * n, 2 * n), re.dtype, disjoint=True))
    rows = (every, (*every[:-2], Affine(n, ((rank - 2, 1),)), every[-1]))
    return Pair(*(index_node(whole, re.shape, row) for row in rows))


def _cofactor_edges(node: Node) -> Edges:
    # dC[i,j]/dA[k,l] = d (Y[l,k] Y[j,i] - Y[j,k] Y[l,i]) with Y = A^-1 and d = det A.
    from ..build import broadcast_axes

    re, im = node.inputs
    batch = re.ndim - 2
    y = _inverse(re, im)
    d = pair(determinant(re, im))
    s = Pair(*(broadcast_axes(x, re.shape, tuple(range(batch))) for x in d)) * y
    lead = tuple(range(batch))
    every = identity(batch + 4)
    i, j, k, l = range(batch, batch + 4)  # noqa: E741
    n = re.shape[-1]
    p: Entries = []
    q: Entries = []
    for sign, first, second in ((1, (l, k), (j, i)), (-1, (j, k), (l, i))):
        for a, b, into, turn in ((s.re, y.re, p, 1), (s.im, y.im, p, -1), (s.re, y.im, q, 1), (s.im, y.re, q, 1)):
            left = a if sign * turn == 1 else -a
            into.append(((left, (*lead, *first)), (b, (*lead, *second))))
    domain = (*re.shape[:-2], n, n, n, n)
    return _edges(domain, (*every[:batch], every[i], every[j]), (*every[:batch], every[k], every[l]), p, q)


def _cofactor_evaluate(params: Any, re: Array, im: Array) -> Array:
    """The matrix of cofactors, of singular matrices too: from A = U S V^H."""
    u, s, vh = np.linalg.svd(combined(re, im))
    others = np.where(np.eye(s.shape[-1], dtype=bool), s.dtype.type(1.0), s[..., None, :])
    cofactors = np.prod(others, axis=-1)
    phase = np.linalg.det(u) * np.linalg.det(vh)
    return parted((np.conj(u) * cofactors[..., None, :]) @ np.conj(vh) * phase[..., None, None])


def _record(name: str, evaluate: Any, shape: Any, edges: Any) -> Operation:
    def infer(params: Any, re: Node, im: Node) -> tuple[Shape, DType]:
        assert re.shape == im.shape and re.dtype == im.dtype and re.shape[-1] == re.shape[-2], (re, im)
        return (*shape(re), 2), re.dtype

    return register(Operation(name=name, family="complex", evaluate=evaluate, infer=infer, edges=edges, cost=100.0))


determinant: Operation = _record(
    "complex_det",
    lambda params, re, im: parted(np.linalg.det(combined(re, im))),
    lambda re: re.shape[:-2],
    _det_edges,
)
cofactor: Operation = _record("complex_cofactor", _cofactor_evaluate, lambda re: re.shape, _cofactor_edges)
