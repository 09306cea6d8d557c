"""QR, the pseudo-inverse, least squares.

QR: Walter and Lehmann, "Algorithmic differentiation of linear algebra functions with application in optimum
experimental design" (arXiv:1001.1654), section 3. Pseudo-inverse and least squares: Golub and Pereyra, "The
differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate" (SIAM J. Numer. Anal.
10, 1973), equation (4.12): right where the rank is constant around the matrix. No array is larger than the largest
operand: the ``m x m`` projector of a tall matrix is never formed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...errors import DifferentiationError
from ..node import Array, DType, Edges, Node, Shape
from .labelled import contracted, labelled, linalg, rows_of, tangent, turned
from .linalg import inverse_or_nan

# --- QR of tall and square matrices -------------------------------------------------------------------------------


def _qr_infer(params: Any, a: Node, *others: Node) -> tuple[Shape, DType]:
    m, n = a.shape[-2:]
    assert m >= n, a
    return (*a.shape[:-2], m + n, n), a.dtype


def _qr_parts(node: Node) -> tuple[Node, Node]:
    m, n = node.inputs[0].shape[-2:]
    return rows_of(node, 0, m), rows_of(node, m, n)


def _triangle(like: Node, n: int, k: int) -> Node:
    """Ones above the diagonal (from diagonal ``k`` on), for each matrix of a batch."""
    from ..build import broadcast_axes, constant_array

    lead = like.shape[:-2]
    ones = constant_array(np.triu(np.ones((n, n), dtype=like.dtype), k))
    return broadcast_axes(ones, (*lead, n, n), (len(lead), len(lead) + 1))


def _qr_edges(node: Node) -> Edges:
    # With T = dA R^-1 and C = Q^T T: S = triu(C) + tril(C, -1)^T, dQ = T - Q S, dR = S R.
    lead = node.shape[:-2]
    m, n = node.inputs[0].shape[-2:]
    q, r = _qr_parts(node)
    return (
        None,
        (labelled(lead, {"p": m, "j": n}, "pj", "pj"),),
        (
            labelled(lead, {"p": m, "i": n, "j": n}, "pj", "ij", (-q, "pi")),
            labelled(lead, {"i": n, "j": n, "l": n}, (("i", m), "l"), "ij", (r, "jl")),
        ),
    )


def _qr_columns(node: Node) -> Edges:
    (a,) = node.inputs
    m, n = a.shape[-2:]
    _, r = _qr_parts(qr(a))
    return ((labelled(a.shape[:-2], {"p": m, "j": n, "l": n}, "pj", "pl", (inverse_or_nan(r), "lj")),),)


def _qr_symmetric(node: Node) -> Edges:
    (columns,) = node.inputs
    (a,) = columns.inputs
    m, n = a.shape[-2:]
    q, _ = _qr_parts(qr(a))
    sizes = {"i": n, "j": n, "q": m}
    upper, strict = _triangle(a, n, 0), _triangle(a, n, 1)
    return (
        (
            labelled(a.shape[:-2], sizes, "ij", "qj", (upper, "ij"), (q, "qi")),
            labelled(a.shape[:-2], sizes, "ij", "qi", (strict, "ij"), (q, "qj")),
        ),
    )


_qr = linalg(
    "qr", lambda params, a, *tangents: np.concatenate(np.linalg.qr(a), axis=-2), _qr_infer, _qr_edges
)  # fmt: skip
_qr_c = tangent("qr_columns", lambda shape: shape, _qr_columns)
_qr_s = tangent("qr_symmetric", lambda shape: (*shape[:-2], shape[-1], shape[-1]), _qr_symmetric)


def qr(a: Node) -> Node:
    """``Q`` and, below it, ``R`` of a matrix with at least as many rows as columns: ``(..., m + n, n)``."""
    columns = _qr_c(a)
    return _qr(a, columns, _qr_s(columns))


def qr_parts(node: Node) -> tuple[Node, Node]:
    """``Q`` and ``R`` of a packed result."""
    return _qr_parts(node)


# --- what completes a thin factor ---------------------------------------------------------------------------------


class BasisParams(NamedTuple):
    """Of which factorisation, and what to say when a derivative is asked for.

    ``kind``: ``qr``, ``svd left``, ``svd right``, ``scipy svd left``, ``scipy svd right``.
    """

    kind: str
    message: str

    def batched(self) -> BasisParams:
        """The same for one more leading axis."""
        return self


def _basis_evaluate(params: BasisParams, a: Array) -> Array:
    k = min(a.shape[-2:])
    if params.kind == "qr":
        return np.linalg.qr(a, "complete").Q[..., k:]
    if params.kind.startswith("scipy"):
        from scipy.linalg import svd

        u, _, vt = svd(a)
    else:
        u, _, vt = np.linalg.svd(a)
    return np.asarray(u[..., k:] if params.kind.endswith("left") else np.swapaxes(vt, -1, -2)[..., k:])


def _basis_infer(params: BasisParams, a: Node) -> tuple[Shape, DType]:
    m, n = sorted(a.shape[-2:])
    return (*a.shape[:-2], n, n - m), a.dtype


def _basis_edges(node: Node) -> Edges:
    raise DifferentiationError(node.params.message)


basis = linalg("basis", _basis_evaluate, _basis_infer, _basis_edges)


# --- pseudo-inverse -----------------------------------------------------------------------------------------------


def _gram(a: Node) -> Node:
    """``A A^T``."""
    n, m = a.shape[-2:]
    return contracted(a.shape[:-2], {"i": n, "j": n, "k": m}, "ij", (a, "ik"), (a, "jk"))


def _beside(x: Node, a: Node) -> Node:
    """``I - X A``."""
    from ..build import broadcast_axes, constant_array

    n, m = x.shape[-2:]
    lead = x.shape[:-2]
    product = contracted(lead, {"i": n, "j": n, "k": m}, "ij", (x, "ik"), (a, "kj"))
    eye = broadcast_axes(constant_array(np.eye(n, dtype=x.dtype)), product.shape, (len(lead), len(lead) + 1))
    return eye - product


def _pinv_infer(params: Any, a: Node, *others: Node) -> tuple[Shape, DType]:
    return (*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype


def _pinv_edges(node: Node) -> Edges:
    # dX = X X^T dA^T + H X, where H = -X dA - X X^T dA^T A + (I - X A) dA^T X^T is small for a tall matrix.
    n, m = node.shape[-2:]
    lead = node.shape[:-2]
    return (
        (labelled(lead, {"i": n, "j": m, "l": n}, "ij", "jl", (_gram(node), "il")),),
        None,
        (labelled(lead, {"i": n, "j": m, "p": n}, "ij", "ip", (node, "pj")),),
    )


def _pinv_tangent(node: Node) -> Edges:
    a, cutoff = node.inputs
    m, n = a.shape[-2:]
    lead = a.shape[:-2]
    x = pinv(a, cutoff)
    sizes = {"i": n, "p": n, "k": m}
    return (
        (
            labelled(lead, sizes, "ip", "kp", (-x, "ik")),
            labelled(lead, {**sizes, "l": n}, "ip", "kl", (-_gram(x), "il"), (a, "kp")),
            labelled(lead, {**sizes, "l": n}, "ip", "kl", (_beside(x, a), "il"), (x, "pk")),
        ),
        None,
    )


_pinv = linalg("pinv", lambda params, a, cutoff, t: np.linalg.pinv(a, cutoff), _pinv_infer, _pinv_edges)
_pinv_t = tangent("pinv_tangent", lambda shape: (*shape[:-2], shape[-1], shape[-1]), _pinv_tangent)


def pinv(a: Node, cutoff: Node) -> Node:
    """The pseudo-inverse; singular values below ``cutoff`` (one for each matrix) times the largest count as zero."""
    if a.shape[-2] < a.shape[-1]:
        return turned(pinv(turned(a), cutoff))
    return _pinv(a, cutoff, _pinv_t(a, cutoff))


# --- least squares ------------------------------------------------------------------------------------------------


def _lstsq_evaluate(params: Any, a: Array, b: Array, cutoff: Array) -> Array:
    """The solution and, below it, a row of ranks."""
    n, k = a.shape[-1], b.shape[-1]
    result = np.empty((*a.shape[:-2], n + 1, k), dtype=a.dtype)
    for where in np.ndindex(*a.shape[:-2]):
        x, _, rank, _ = np.linalg.lstsq(a[where], b[where], float(cutoff[where]))
        result[where] = np.concatenate([x, np.full((1, k), rank, dtype=a.dtype)])
    return result


def _lstsq_infer(params: Any, a: Node, b: Node, cutoff: Node) -> tuple[Shape, DType]:
    assert a.ndim == b.ndim and a.shape[:-1] == b.shape[:-1] and a.dtype == b.dtype, (a, b)
    return (*a.shape[:-2], a.shape[-1] + 1, b.shape[-1]), a.dtype


def _lstsq_edges(node: Node) -> Edges:
    # x = X b with the pseudo-inverse X and r = b - A x:
    # dx = X db - X dA x + X X^T dA^T r + (I - X A) dA^T X^T x.
    a, b, cutoff = node.inputs
    lead, (m, n), k = a.shape[:-2], a.shape[-2:], node.shape[-1]
    x, solution = pinv(a, cutoff), rows_of(node, 0, n)
    residual = b - contracted(lead, {"i": m, "j": k, "p": n}, "ij", (a, "ip"), (solution, "pj"))
    back = contracted(lead, {"k": m, "j": k, "i": n}, "kj", (x, "ik"), (solution, "ij"))
    sizes = {"i": n, "j": k, "k": m, "l": n}
    return (
        (
            labelled(lead, sizes, "ij", "kl", (-x, "ik"), (solution, "lj")),
            labelled(lead, sizes, "ij", "kl", (_gram(x), "il"), (residual, "kj")),
            labelled(lead, sizes, "ij", "kl", (_beside(x, a), "il"), (back, "kj")),
        ),
        (labelled(lead, {"i": n, "j": k, "k": m}, "ij", "kj", (x, "ik")),),
        None,
    )


lstsq = linalg("lstsq", _lstsq_evaluate, _lstsq_infer, _lstsq_edges)
