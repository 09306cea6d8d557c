"""Eigenvalues, eigenvectors, singular values and vectors.

Values and vectors come from one LAPACK call, packed into one array: the values are a row, the vectors the rows after
it. With T the displacement of the matrix in the coordinates of its own vectors (the ``..._tangent`` vertex), the
derivatives are products of two matrices: ``dw = diag T``, ``dV = V (F * T)`` with ``F[j,i] = 1 / (w[i] - w[j])`` beside
the diagonal. F is NaN where two values are equal up to rounding: vectors have no derivative there, and none is made
up. (``spectral_functions.py`` has what is smooth all the same.)

Formulas: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation" (2008),
section 3.1; Townsend, "Differentiating the singular value decomposition" (2016); Magnus, "On differentiating
eigenvalues and eigenvectors" (1985).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..node import REGISTRY, Array, DType, Edges, Node, Shape
from .labelled import contracted, labelled, linalg, row_of, rows_of, spread, tangent, turned
from .linalg import inverse_or_nan


class SymmetricParams(NamedTuple):
    """Which triangle LAPACK reads, and whose LAPACK: the signs of eigenvectors may depend on both.

    ``pairs``: the matrix stands for a complex one of half the size; each eigenvalue is there twice, and no change of
    the matrix parts the two or turns one's vector to the other's.
    """

    uplo: str
    scipy: bool = False
    pairs: bool = False

    def batched(self) -> SymmetricParams:
        """The same for one more leading axis."""
        return self


class ThinParams(NamedTuple):
    """Whether full matrices were asked for, and of whom: LAPACK may take another way to the same vectors."""

    full: bool
    scipy: bool = False

    def batched(self) -> ThinParams:
        """The same for one more leading axis."""
        return self


def _packed(params: Any, a: Node, *others: Node) -> tuple[Shape, DType]:
    n = a.shape[-1]
    return (*a.shape[:-2], n + 1, n), a.dtype


def _pack(w: Array, v: Array) -> Array:
    return np.concatenate([w[..., None, :], v], axis=-2)


def values_of(packed: Node) -> Node:
    """The eigenvalues in a packed result."""
    return row_of(packed, 0)


def vectors_of(packed: Node) -> Node:
    """The eigenvectors in a packed result, as columns."""
    return rows_of(packed, 1, packed.shape[-1])


def unresolved(gap: Node, values: Node) -> Node:
    """Where the difference of two of the ``values`` is no more than rounding: LAPACK cannot tell them apart."""
    from ..build import broadcast_axes
    from .reduction import AxesParams

    magnitude = REGISTRY["absolute"]
    largest = REGISTRY["max"](magnitude(values), params=AxesParams((values.ndim - 1,)))
    limit = largest * (8.0 * values.shape[-1] * float(np.finfo(values.dtype).eps))
    return magnitude(gap) <= broadcast_axes(limit, gap.shape, tuple(range(largest.ndim)))


def _reciprocal(gap: Node, values: Node, weight: Node | None = None, pairs: bool = False) -> Node:
    """``1 / (gap * weight)`` of square matrices, zero on the diagonal, NaN where a gap is no more than rounding.

    One over a gap that is only rounding would be a large number that means nothing.
    """
    from ..build import broadcast_axes, constant_array, full

    n, rank = gap.shape[-1], gap.ndim
    same = np.arange(n) // 2 if pairs else np.arange(n)
    diagonal = broadcast_axes(constant_array(same[:, None] == same), gap.shape, (rank - 2, rank - 1))
    select = REGISTRY["select"]
    one = full(1.0, gap.shape, gap.dtype)
    scale = select(unresolved(gap, values), full(np.nan, gap.shape, gap.dtype), one)
    product = gap if weight is None else gap * weight
    return select(diagonal, full(0.0, gap.shape, gap.dtype), scale / select(diagonal, one, product))


def _gaps(w: Node, pairs: bool = False) -> Node:
    """``F[j, i] = 1 / (w[i] - w[j])``, zero on the diagonal."""
    n = w.shape[-1]
    return _reciprocal(spread(w, n, True) - spread(w, n, False), w, pairs=pairs)


# --- symmetric ----------------------------------------------------------------------------------------------------


def _eigh_edges(node: Node) -> Edges:
    lead, n = node.shape[:-2], node.shape[-1]
    v, gaps = vectors_of(node), _gaps(values_of(node), node.params.pairs)
    return None, (
        labelled(lead, {"i": n}, (0, "i"), "ii"),
        labelled(lead, dict.fromkeys("pji", n), (("p", 1), "i"), "ji", (v, "pj"), (gaps, "ji")),
    )


def _eigh_tangent(node: Node) -> Edges:
    # T = V^T dA V
    (a,) = node.inputs
    v = vectors_of(eigh(a, *node.params))
    return ((labelled(a.shape[:-2], dict.fromkeys("ijkl", a.shape[-1]), "ij", "kl", (v, "ki"), (v, "lj")),),)


def _eigvalsh_edges(node: Node) -> Edges:
    (a,) = node.inputs
    v = vectors_of(eigh(a, *node.params))
    return ((labelled(a.shape[:-2], dict.fromkeys("ikl", a.shape[-1]), "i", "kl", (v, "ki"), (v, "li")),),)


def _each(function: Callable[..., Any], shape: Shape, a: Array, *others: Array) -> Array:
    """A function of SciPy, which takes one matrix at a time in older versions, for every matrix of a batch."""
    result = np.empty(shape, dtype=a.dtype)
    for where in np.ndindex(*a.shape[:-2]):
        result[where] = function(a[where], *(b[where] for b in others))
    return result


def _eigh_evaluate(params: SymmetricParams, a: Array, t: Array) -> Array:
    if not params.scipy:
        return _pack(*np.linalg.eigh(a, "U" if params.uplo == "U" else "L"))
    from scipy import linalg as scipy_linalg

    n = a.shape[-1]
    lower = params.uplo == "L"
    return _each(lambda m: _pack(*scipy_linalg.eigh(m, lower=lower)), (*a.shape[:-2], n + 1, n), a)


_eigh = linalg("eigh", _eigh_evaluate, _packed, _eigh_edges)
_eigh_t = tangent("eigh_tangent", lambda shape: shape, _eigh_tangent)
_eigvalsh = linalg(
    "eigvalsh",
    lambda params, a: np.linalg.eigvalsh(a, "U" if params.uplo == "U" else "L"),
    lambda params, a: (a.shape[:-1], a.dtype),
    _eigvalsh_edges,
)


_used = False


def in_use() -> bool:
    """Whether any program has eigenvectors of symmetric matrices."""
    return _used


def eigh(a: Node, uplo: str = "L", scipy: bool = False, pairs: bool = False) -> Node:
    """Eigenvalues and, below them, eigenvectors of a matrix with equal triangles: ``(..., n + 1, n)``."""
    global _used
    _used = True
    params = SymmetricParams(uplo, scipy, pairs)
    return _eigh(a, _eigh_t(a, params=params), params=params)


def eigvalsh(a: Node, uplo: str = "L", pairs: bool = False) -> Node:
    """Eigenvalues alone of a symmetric matrix; ``pairs``: each is there twice, and both move alike."""
    return _eigvalsh(a, params=SymmetricParams(uplo, pairs=pairs))


# --- symmetric, two matrices: A v = w B v -------------------------------------------------------------------------


def _pencil_evaluate(params: SymmetricParams, a: Array, b: Array, *tangents: Array) -> Array:
    from scipy import linalg as scipy_linalg

    n = a.shape[-1]
    lower = params.uplo == "L"
    return _each(lambda m, k: _pack(*scipy_linalg.eigh(m, k, lower=lower)), (*a.shape[:-2], n + 1, n), a, b)


def _pencil_edges(node: Node) -> Edges:
    # With T = V^T dA V, M = V^T dB V and V^T B V = I: dw = diag T - w diag M, dV = V (F * (T - M w)) - V diag(M) / 2.
    lead, n = node.shape[:-2], node.shape[-1]
    v, w = vectors_of(node), values_of(node)
    gaps = _gaps(w)
    sizes = dict.fromkeys("pji", n)
    row = (("p", 1), "i")
    weighted = -(gaps * spread(w, n, True))
    return (
        None,
        None,
        (
            labelled(lead, {"i": n}, (0, "i"), "ii"),
            labelled(lead, sizes, row, "ji", (v, "pj"), (gaps, "ji")),
        ),
        (
            labelled(lead, {"i": n}, (0, "i"), "ii", (-w, "i")),
            labelled(lead, sizes, row, "ji", (v, "pj"), (weighted, "ji")),
            labelled(lead, {"p": n, "i": n}, row, "ii", (v * -0.5, "pi")),
        ),
    )


def _pencil_tangent(node: Node) -> Edges:
    a, b = node.inputs[:2]
    v = vectors_of(pencil(a, b, node.params.uplo))
    term = labelled(a.shape[:-2], dict.fromkeys("ijkl", a.shape[-1]), "ij", "kl", (v, "ki"), (v, "lj"))
    return ((term,), None) if node.op is _pencil_a else (None, (term,))


_pencil = linalg("eigh_pencil", _pencil_evaluate, _packed, _pencil_edges)
_pencil_a = tangent("eigh_pencil_tangent", lambda shape: shape, _pencil_tangent)
_pencil_b = tangent("eigh_pencil_other_tangent", lambda shape: shape, _pencil_tangent)


def pencil(a: Node, b: Node, uplo: str = "L") -> Node:
    """Eigenvalues and, below them, eigenvectors of ``a v = w b v``, by SciPy, with ``v^T b v = 1``."""
    params = SymmetricParams(uplo, True)
    return _pencil(a, b, _pencil_a(a, b, params=params), _pencil_b(a, b, params=params), params=params)


# --- general ------------------------------------------------------------------------------------------------------


def _eig_evaluate(params: Any, a: Array, t: Array) -> Array:
    """NaN where a spectrum is complex: the recorder guards against it."""
    w, v = np.linalg.eig(a)
    if w.dtype.kind == "c":
        return np.full((*a.shape[:-2], a.shape[-1] + 1, a.shape[-1]), np.nan, dtype=a.dtype)
    return _pack(w, v)


def _eigvals_evaluate(params: Any, a: Array) -> Array:
    w = np.linalg.eigvals(a)
    return np.full(a.shape[:-1], np.nan, dtype=a.dtype) if w.dtype.kind == "c" else w


def _eig_edges(node: Node) -> Edges:
    # The columns keep the length one: dv_i has no part along v_i.
    lead, n = node.shape[:-2], node.shape[-1]
    v, gaps = vectors_of(node), _gaps(values_of(node))
    sizes = dict.fromkeys("pji", n)
    overlap = contracted(lead, sizes, "ji", (v, "pi"), (v, "pj"))
    return None, (
        labelled(lead, {"i": n}, (0, "i"), "ii"),
        labelled(lead, sizes, (("p", 1), "i"), "ji", (v, "pj"), (gaps, "ji")),
        labelled(lead, sizes, (("p", 1), "i"), "ji", (-v, "pi"), (overlap * gaps, "ji")),
    )


def _eig_tangent(node: Node) -> Edges:
    # T = V^-1 dA V
    (a,) = node.inputs
    v = vectors_of(eig(a))
    y = inverse_or_nan(v)
    return ((labelled(a.shape[:-2], dict.fromkeys("ijkl", a.shape[-1]), "ij", "kl", (y, "ik"), (v, "lj")),),)


def _eigvals_edges(node: Node) -> Edges:
    (a,) = node.inputs
    v = vectors_of(eig(a))
    y = inverse_or_nan(v)
    return ((labelled(a.shape[:-2], dict.fromkeys("ikl", a.shape[-1]), "i", "kl", (y, "ik"), (v, "li")),),)


_eig = linalg("eig", _eig_evaluate, _packed, _eig_edges)
_eig_t = tangent("eig_tangent", lambda shape: shape, _eig_tangent)
eigvals = linalg("eigvals", _eigvals_evaluate, lambda params, a: (a.shape[:-1], a.dtype), _eigvals_edges)


def eig(a: Node) -> Node:
    """Eigenvalues and, below them, right eigenvectors of a matrix whose spectrum is real: ``(..., n + 1, n)``."""
    return _eig(a, _eig_t(a))


# --- singular values ----------------------------------------------------------------------------------------------


def _svd_shape(shape: Shape) -> Shape:
    m, n = shape[-2:]
    return (*shape[:-2], m + 1 + n, min(m, n))


def _svd_evaluate(params: ThinParams, a: Array, *tangents: Array) -> Array:
    if not params.scipy:
        return _pack_svd(*np.linalg.svd(a, full_matrices=params.full))
    from scipy import linalg as scipy_linalg

    return _each(lambda m: _pack_svd(*scipy_linalg.svd(m, full_matrices=params.full)), _svd_shape(a.shape), a)


def _pack_svd(u: Array, s: Array, vt: Array) -> Array:
    k = s.shape[-1]
    return np.concatenate([u[..., :k], s[..., None, :], np.swapaxes(vt[..., :k, :], -1, -2)], axis=-2)


def _svd_parts(node: Node) -> tuple[Node, Node, Node]:
    m, n = node.inputs[0].shape[-2:]
    return rows_of(node, 0, m), row_of(node, m), rows_of(node, m + 1, n)


def svd_parts(node: Node) -> tuple[Node, Node, Node]:
    """``U``, ``s`` and ``V^T`` of a packed result."""
    u, s, v = _svd_parts(node)
    return u, s, turned(v)


def _svd_edges(node: Node) -> Edges:
    # With T = U^T dA V and F[i,j] = 1 / (s[j]^2 - s[i]^2): U moves by F * (T S + S T^T) in its own coordinates, V by
    # F * (S T + T^T S); what is outside of them moves by dA V S^-1 and dA^T U S^-1, which are vertices of their own.
    lead = node.shape[:-2]
    a = node.inputs[0]
    m, n = a.shape[-2:]
    k = node.shape[-1]
    u, s, v = _svd_parts(node)
    first, second = spread(s, k, False), spread(s, k, True)  # s[i], s[j]
    gaps = _reciprocal(second - first, s, second + first)
    near, far = gaps * second, gaps * first
    inner = [labelled(lead, {"i": k}, (m, "i"), "ii")]
    result = []
    for vectors, count, start, along in ((u, m, 0, "ij"), (v, n, m + 1, "ji")):
        sizes = {"p": count, "i": k, "j": k}
        row = (("p", start), "j")
        inside = near
        if count > k:
            # The vertex holds all of dA V S^-1; its part within U is taken out again.
            inside = near - spread(1.0 / s, k, True)
            result.append((labelled(lead, {"p": count, "j": k}, row, "pj"),))
        inner.append(labelled(lead, sizes, row, along, (vectors, "pi"), (inside, "ij")))
        inner.append(labelled(lead, sizes, row, along[::-1], (vectors, "pi"), (far, "ij")))
    return None, tuple(inner), *result


def _svd_tangent(node: Node) -> Edges:
    # T = U^T dA V
    (a,) = node.inputs
    m, n = a.shape[-2:]
    k = min(m, n)
    u, _, v = _svd_parts(svd(a, *node.params))
    return ((labelled(a.shape[:-2], {"i": k, "j": k, "k": m, "l": n}, "ij", "kl", (u, "ki"), (v, "lj")),),)


def _svd_outside(node: Node) -> Edges:
    # dA V S^-1 for a tall matrix, dA^T U S^-1 for a wide one
    (a,) = node.inputs
    m, n = a.shape[-2:]
    k = min(m, n)
    u, s, v = _svd_parts(svd(a, *node.params))
    vectors, col = (v, "pl") if m > n else (u, "lp")
    scaled = vectors / spread(s, vectors.shape[-2], True)
    sizes = {"p": max(m, n), "j": k, "l": k}
    return ((labelled(a.shape[:-2], sizes, "pj", col, (scaled, "lj")),),)


_svd = linalg("svd", _svd_evaluate, lambda params, a, *others: (_svd_shape(a.shape), a.dtype), _svd_edges)
_svd_t = tangent("svd_tangent", lambda shape: (*shape[:-2], min(shape[-2:]), min(shape[-2:])), _svd_tangent)
_svd_o = tangent("svd_outside", lambda shape: (*shape[:-2], max(shape[-2:]), min(shape[-2:])), _svd_outside)


def svd(a: Node, full: bool = False, scipy: bool = False) -> Node:
    """The thin ``U``, ``s`` and ``V`` (not transposed), one below the other: ``(..., m + 1 + n, min(m, n))``."""
    params = ThinParams(full, scipy)
    outside = () if a.shape[-1] == a.shape[-2] else (_svd_o(a, params=params),)
    return _svd(a, _svd_t(a, params=params), *outside, params=params)


def _svdvals_edges(node: Node) -> Edges:
    (a,) = node.inputs
    m, n = a.shape[-2:]
    u, _, v = _svd_parts(svd(a))
    sizes = {"i": min(m, n), "k": m, "l": n}
    return ((labelled(a.shape[:-2], sizes, "i", "kl", (u, "ki"), (v, "li")),),)


svdvals = linalg(
    "svdvals",
    lambda params, a: np.linalg.svd(a, compute_uv=False),
    lambda params, a: ((*a.shape[:-2], min(a.shape[-2:])), a.dtype),
    _svdvals_edges,
)
