"""Linear algebra whose derivative is a product of its own results.

Each edge is a term whose factors stay apart (``-Y[i,k] * Y[l,j]`` for the inverse), so that what follows contracts
them in the cheapest order instead of building the array of four axes first. Leading axes are a batch: an axis of both
row and column. Formulas: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008), sections 2.2 and 2.3; Cholesky: Murray, arXiv:1602.07527, equation (8).
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ..node import Array, DType, Edges, Node, Shape
from .labelled import labelled, linalg, tangent
from .minors import LARGEST, minor_terms


def square(params: Any, a: Node, *others: Node) -> tuple[Shape, DType]:
    """The result is a matrix like the first input."""
    assert a.ndim >= 2 and a.shape[-1] == a.shape[-2], a
    return a.shape, a.dtype


def _axes(n: int, letters: str) -> dict[str, int]:
    return dict.fromkeys(letters, n)


def _inverse_edges(node: Node) -> Edges:
    # dY = -Y dA Y
    lead, n = node.shape[:-2], node.shape[-1]
    return ((labelled(lead, _axes(n, "ijkl"), "ij", "kl", (-node, "ik"), (node, "lj")),),)


def _inverse_or_nan(params: Any, a: Array) -> Array:
    """The inverse that a derivative needs: NaN for a singular matrix, whose own function has a value there."""
    try:
        return np.linalg.inv(a)
    except np.linalg.LinAlgError:
        pass
    result = np.full_like(a, np.nan)
    for k in np.ndindex(a.shape[:-2]):
        with contextlib.suppress(np.linalg.LinAlgError):
            result[k] = np.linalg.inv(a[k])
    return result


def _solve_infer(params: Any, a: Node, b: Node) -> tuple[Shape, DType]:
    assert a.ndim == b.ndim and a.shape[:-1] == b.shape[:-1] and a.dtype == b.dtype, (a, b)
    return b.shape, b.dtype


def _solve_edges(node: Node) -> Edges:
    # X = A^-1 B, dX = A^-1 (dB - dA X), with the inverse as a node that the program computes once.
    a, _ = node.inputs
    lead, (n, m) = node.shape[:-2], node.shape[-2:]
    y = inverse(a)
    sizes = {"i": n, "j": m, "k": n}
    return (
        (labelled(lead, {**sizes, "l": n}, "ij", "kl", (-y, "ik"), (node, "lj")),),
        (labelled(lead, sizes, "ij", "kj", (y, "ik")),),
    )


def _det_edges(node: Node) -> Edges:
    # d det A / dA[k, l] = cofactor[k, l].
    (a,) = node.inputs
    return ((labelled(node.shape, _axes(a.shape[-1], "kl"), "", "kl", (cofactor(a), "kl")),),)


def _cofactor_edges(node: Node) -> Edges:
    # The Hessian of the determinant: minors where they are few, else a linear map that multiplies.
    from .cofactors import cofactor_terms

    (a,) = node.inputs
    n = node.shape[-1]
    if n <= LARGEST:
        return (minor_terms(a, 1) if n > 1 else None,)
    return (cofactor_terms(a),)


def svd_of_finite(a: Array) -> tuple[Array, Array, Array]:
    """The singular value decomposition; NaN where a matrix is not finite, as its determinant is, and LAPACK raises."""
    finite = np.asarray(np.isfinite(a).all(axis=(-2, -1)))
    if finite.all():
        u, s, vt = np.linalg.svd(a)
        return u, s, vt
    u, s, vt = np.linalg.svd(np.where(finite[..., None, None], a, 0.0))
    return u, np.where(finite[..., None], s, np.nan).astype(a.dtype), vt


def _cofactor_evaluate(params: Any, a: Array) -> Array:
    """The matrix of cofactors, right for singular matrices too: from A = U S V^T, det(U V) U cof(S) V^T."""
    u, s, vt = svd_of_finite(a)
    n = s.shape[-1]
    others = np.where(np.eye(n, dtype=bool), 1.0, s[..., None, :])
    cofactors = np.prod(others, axis=-1, dtype=a.dtype)
    orientation = np.linalg.det(u) * np.linalg.det(vt)
    return np.asarray((u * cofactors[..., None, :]) @ vt * orientation[..., None, None], dtype=a.dtype)


def _slogdet_evaluate(params: Any, a: Array) -> Array:
    return np.stack(np.linalg.slogdet(a), axis=-1)


def _slogdet_edges(node: Node) -> Edges:
    # The sign is constant wherever there is a derivative; d log|det A| / dA[k, l] = Y[l, k].
    (a,) = node.inputs
    return ((labelled(node.shape[:-1], _axes(a.shape[-1], "kl"), (1,), "kl", (inverse_or_nan(a), "lk")),),)


def _cholesky_edges(node: Node) -> Edges:
    # A = L L^T: dL = L Phi(T), T = L^-1 dA L^-T, Phi = lower triangle with half of the diagonal. The input is symmetric
    # (the recorder mirrors the lower triangle, which is all that NumPy reads).
    from ..build import broadcast_axes, constant_array

    lead, n = node.shape[:-2], node.shape[-1]
    phi = constant_array(np.tril(np.ones((n, n)), -1).astype(node.dtype) + 0.5 * np.eye(n, dtype=node.dtype))
    weights = broadcast_axes(phi, node.shape, (len(lead), len(lead) + 1))
    return None, (labelled(lead, _axes(n, "pij"), "pj", "ij", (node, "pi"), (weights, "ij")),)


def _cholesky_displacement(node: Node) -> Edges:
    (a,) = node.inputs
    y = inverse(cholesky(a))
    return ((labelled(node.shape[:-2], _axes(node.shape[-1], "ijkl"), "ij", "kl", (y, "ik"), (y, "jl")),),)


inverse = linalg("inv", lambda params, a: np.linalg.inv(a), square, _inverse_edges)
inverse_or_nan = linalg("inv_or_nan", _inverse_or_nan, square, _inverse_edges)
solve = linalg("solve", lambda params, a, b: np.linalg.solve(a, b), _solve_infer, _solve_edges)
determinant = linalg(
    "det", lambda params, a: np.asarray(np.linalg.det(a)), lambda params, a: (a.shape[:-2], a.dtype), _det_edges
)
cofactor = linalg("cofactor", _cofactor_evaluate, square, _cofactor_edges)
slogdet = linalg("slogdet", _slogdet_evaluate, lambda params, a: ((*a.shape[:-2], 2), a.dtype), _slogdet_edges)
cholesky_factor = linalg("cholesky", lambda params, a, t: np.linalg.cholesky(a), square, _cholesky_edges)
cholesky_tangent = tangent("cholesky_tangent", lambda shape: shape, _cholesky_displacement)


def cholesky(a: Node) -> Node:
    """The lower triangular factor of a symmetric matrix."""
    return cholesky_factor(a, cholesky_tangent(a))
