"""LU, and the pivots of LU and QR: integers that the recorder guards, so that a recorded program has its rows in order.

LU: Walter and Lehmann, arXiv:1001.1654, section 3: ``A = L U``, ``T = L^-1 dA U^-1``, ``dL = L tril(T, -1)``,
``dU = triu(T) U``; ``L`` and ``U`` are packed into one matrix as LAPACK does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..node import Array, DType, Edges, Node, Shape
from .labelled import labelled, linalg, tangent
from .linalg import inverse_or_nan, square


class PivotParams(NamedTuple):
    """Whose pivots: ``lu`` (row exchanges, as LAPACK gives them) or ``qr`` (the columns in their new order)."""

    kind: str

    def batched(self) -> PivotParams:
        """The same of every matrix of a stack."""
        return self


def _pivots_evaluate(params: PivotParams, a: Array) -> Array:
    from scipy import linalg as scipy_linalg

    count = min(a.shape[-2:]) if params.kind == "lu" else a.shape[-1]
    out = np.empty((*a.shape[:-2], count), dtype=np.intp)
    for k in np.ndindex(a.shape[:-2]):  # one matrix after another: not every SciPy takes stacks
        if params.kind == "lu":
            out[k] = scipy_linalg.lu_factor(a[k], check_finite=False)[1]
        else:
            out[k] = scipy_linalg.qr(a[k], mode="r", pivoting=True, check_finite=False)[-1]
    return out


def _pivots_infer(params: PivotParams, a: Node) -> tuple[Shape, DType]:
    return (*a.shape[:-2], min(a.shape[-2:]) if params.kind == "lu" else a.shape[-1]), np.dtype(np.intp)


pivots = linalg("pivots", _pivots_evaluate, _pivots_infer, lambda node: (None,), smooth=False)


def _lu_evaluate(params: Any, a: Array, t: Array) -> Array:
    """Without exchanges: the rows are in their order already."""
    a = a.copy()
    for k in range(a.shape[-1] - 1):
        pivot = a[..., k, k, None]
        a[..., k + 1 :, k] /= np.where(pivot == 0, 1.0, pivot)  # of a column of zeros
        a[..., k + 1 :, k + 1 :] -= a[..., k + 1 :, k, None] * a[..., None, k, k + 1 :]
    return a


def _parts(node: Node) -> tuple[Node, Node]:
    """``L`` and ``U`` as whole matrices."""
    from ..build import broadcast_axes, constant_array, full
    from .elementwise import select

    rank, n = node.ndim, node.shape[-1]

    def spread(array: Array) -> Node:
        return broadcast_axes(constant_array(array), node.shape, (rank - 2, rank - 1))

    below = spread(np.tri(n, k=-1, dtype=bool))
    zero = full(0.0, node.shape, node.dtype)
    return select(below, node, spread(np.eye(n, dtype=node.dtype))), select(below, zero, node)


def _lu_edges(node: Node) -> Edges:
    from ..build import broadcast_axes, constant_array

    lead, n = node.shape[:-2], node.shape[-1]
    lower, upper = _parts(node)
    rank = node.ndim
    strict = constant_array(np.tri(n, k=-1, dtype=node.dtype))
    below = broadcast_axes(strict, node.shape, (rank - 2, rank - 1))
    above = broadcast_axes(constant_array(np.triu(np.ones((n, n), node.dtype))), node.shape, (rank - 2, rank - 1))
    sizes = dict.fromkeys("pij", n)
    # L tril(T, -1) has its entries below the diagonal, triu(T) U the others: the two do not meet.
    return None, (
        labelled(lead, sizes, "pj", "ij", (lower, "pi"), (below, "ij")),
        labelled(lead, sizes, "ip", "ij", (above, "ij"), (upper, "jp")),
    )


def _lu_tangent(node: Node) -> Edges:
    (a,) = node.inputs
    lower, upper = map(inverse_or_nan, _parts(lu(a)))
    sizes = dict.fromkeys("ijkl", a.shape[-1])
    return ((labelled(a.shape[:-2], sizes, "ij", "kl", (lower, "ik"), (upper, "lj")),),)


_lu = linalg("lu", _lu_evaluate, square, _lu_edges)
_lu_t = tangent("lu_tangent", lambda shape: shape, _lu_tangent)


def lu(a: Node) -> Node:
    """``L`` below the diagonal (its diagonal is one) and ``U``, of a square matrix that needs no exchanges."""
    return _lu(a, _lu_t(a))
