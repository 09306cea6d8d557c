"""Linear algebra whose derivative is a product of its own results.

Each edge is a term whose factors stay apart (``-Y[i,k] * Y[l,j]`` for the inverse), so that what follows contracts
them in the cheapest order instead of building the array of four axes first. Leading axes are a batch: an axis of both
row and column. Formulas: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008), sections 2.2 and 2.3; Cholesky: Murray, arXiv:1602.07527, equation (8).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..index import identity
from ..node import Array, DType, Edges, Node, Operation, Shape, Term, register


def _square(params: Any, a: Node) -> tuple[Shape, DType]:
    assert a.ndim >= 2 and a.shape[-1] == a.shape[-2], a
    return a.shape, a.dtype


def _inverse_edges(node: Node) -> Edges:
    # dY = -Y dA Y: domain (batch, i, j, k, l), row (batch, i, j), column (batch, k, l).
    batch = node.ndim - 2
    n = node.shape[-1]
    every = identity(batch + 4)
    lead = tuple(range(batch))
    i, j, k, l = range(batch, batch + 4)  # noqa: E741
    return (
        (
            Term(
                (*node.shape[:batch], n, n, n, n),
                (*every[:batch], every[i], every[j]),
                (*every[:batch], every[k], every[l]),
                ((-node, (*lead, i, k)), (node, (*lead, l, j))),
            ),
        ),
    )


def _solve_infer(params: Any, a: Node, b: Node) -> tuple[Shape, DType]:
    assert a.ndim == b.ndim and a.shape[:-1] == b.shape[:-1] and a.dtype == b.dtype, (a, b)
    return b.shape, b.dtype


def _solve_edges(node: Node) -> Edges:
    # X = A^-1 B, dX = A^-1 (dB - dA X), with the inverse as a node that the program computes once.
    a, _ = node.inputs
    batch = node.ndim - 2
    n, m = node.shape[-2:]
    y = inverse(a)
    lead = tuple(range(batch))
    every = identity(batch + 4)
    i, j, k, l = range(batch, batch + 4)  # noqa: E741
    sizes = (*node.shape[:batch], n, m, n, n)
    row = (*every[:batch], every[i], every[j])
    by_matrix = Term(sizes, row, (*every[:batch], every[k], every[l]), ((-y, (*lead, i, k)), (node, (*lead, l, j))))
    by_right = Term(sizes[:-1], row, (*every[:batch], every[k], every[j]), ((y, (*lead, i, k)),))
    return (by_matrix,), (by_right,)


def _det_edges(node: Node) -> Edges:
    # d det A / dA[k, l] = cofactor[k, l].
    (a,) = node.inputs
    batch = node.ndim
    every = identity(batch + 2)
    return ((Term(a.shape, every[:batch], every, ((cofactor(a), tuple(range(batch + 2))),)),),)


def _cofactor_edges(node: Node) -> Edges:
    # C = det(A) A^-T: dC[i,j]/dA[k,l] = C[k,l] Y[j,i] - C[k,j]... written with Y = A^-1 and d = det A:
    # d * (Y[l,k] Y[j,i] - Y[j,k] Y[l,i]).
    from ..build import broadcast_axes

    (a,) = node.inputs
    batch = node.ndim - 2
    n = node.shape[-1]
    y = inverse(a)
    scaled = broadcast_axes(determinant(a), a.shape, tuple(range(batch))) * y
    lead = tuple(range(batch))
    every = identity(batch + 4)
    i, j, k, l = range(batch, batch + 4)  # noqa: E741
    sizes = (*node.shape[:batch], n, n, n, n)
    row, col = (*every[:batch], every[i], every[j]), (*every[:batch], every[k], every[l])
    return (
        (
            Term(sizes, row, col, ((scaled, (*lead, l, k)), (y, (*lead, j, i)))),
            Term(sizes, row, col, ((-scaled, (*lead, j, k)), (y, (*lead, l, i)))),
        ),
    )


def _cofactor_evaluate(params: Any, a: Array) -> Array:
    """The matrix of cofactors, right for singular matrices too: from A = U S V^T, det(U V) U cof(S) V^T."""
    u, s, vt = np.linalg.svd(a)
    n = s.shape[-1]
    others = np.where(np.eye(n, dtype=bool), 1.0, s[..., None, :])
    cofactors = np.prod(others, axis=-1, dtype=a.dtype)
    orientation = np.linalg.det(u) * np.linalg.det(vt)
    return np.asarray((u * cofactors[..., None, :]) @ vt * orientation[..., None, None], dtype=a.dtype)


def _cholesky_edges(node: Node) -> Edges:
    # A = L L^T: dL = L Phi(L^-1 dA L^-T), Phi = lower triangle with half of the diagonal. The input is symmetric
    # (the recorder mirrors the lower triangle, which is all that NumPy reads).
    from ..build import constant_array, contract_labels

    batch = node.ndim - 2
    n = node.shape[-1]
    lead = tuple(range(batch))
    inverse_l = inverse(node)
    phi = constant_array(np.tril(np.ones((n, n)), -1).astype(node.dtype) + 0.5 * np.eye(n, dtype=node.dtype))
    i, j, k, l, p = range(batch, batch + 5)  # noqa: E741
    sizes = (*node.shape[:batch], n, n, n, n, n)
    left = contract_labels([(node, (*lead, i, p)), (phi, (p, j)), (inverse_l, (*lead, p, k))], sizes, (*lead, i, j, k))
    every = identity(batch + 4)
    return (
        (
            Term(
                sizes[:-1],
                (*every[:batch], every[i], every[j]),
                (*every[:batch], every[k], every[l]),
                ((left, (*lead, i, j, k)), (inverse_l, (*lead, j, l))),
            ),
        ),
    )


def _linalg(name: str, evaluate: Any, infer: Any, edges: Any) -> Operation:
    return register(Operation(name=name, family="linalg", evaluate=evaluate, infer=infer, edges=edges, cost=100.0))


inverse = _linalg("inv", lambda params, a: np.linalg.inv(a), _square, _inverse_edges)
solve = _linalg("solve", lambda params, a, b: np.linalg.solve(a, b), _solve_infer, _solve_edges)
determinant = _linalg(
    "det", lambda params, a: np.asarray(np.linalg.det(a)), lambda params, a: (a.shape[:-2], a.dtype), _det_edges
)
cofactor = _linalg("cofactor", _cofactor_evaluate, _square, _cofactor_edges)
cholesky = _linalg("cholesky", lambda params, a: np.linalg.cholesky(a), _square, _cholesky_edges)
