"""``numpy.linalg``: eigenvalues, singular values, Cholesky, QR, pseudo-inverse, least squares.

Values are NumPy's, so signs and order are LAPACK's. What LAPACK leaves open (a basis of what is beside the range of a
matrix that is not square) is a value without derivative: using it is an error that says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.build import broadcast_to, cast_to, constant_array, index_node
from ..graph.index import Affine, axis
from ..graph.node import REGISTRY, Array, DType, Node
from ..graph.ops import factors, spectral
from ..graph.ops.labelled import row_of, rows_of, turned
from ..graph.ops.linalg import cholesky as cholesky_node
from .lift import any_tracked, operand, plain_operand
from .linalg import float_node
from .location import unsupported, user_line
from .recording import guard
from .table import implements
from .variable import raw, tracked, wrap_constant, wrap_node

_numpy: Any = np.linalg  # one function gives arrays or tuples of arrays


def constants(value: Any) -> Any:
    """A tuple of results that depend on no argument."""
    parts = [wrap_constant(v) for v in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def mirrored(node: Node, upper: bool) -> Node:
    """The matrix whose two triangles are the one that LAPACK reads."""
    n = node.shape[-1]
    lower = np.tri(n, dtype=bool)
    mask = broadcast_to(constant_array(lower.T if upper else lower), node.shape)
    return REGISTRY["select"](mask, node, turned(node))


def _is_upper(uplo: str) -> bool:
    return str(uplo).upper() == "U"


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The triangular factor. NumPy reads one triangle only, so that triangle is mirrored before the record."""
    value = _numpy.cholesky(raw(a), upper=upper)
    node = tracked(a)
    if node is None:
        return wrap_constant(value)
    factor = cholesky_node(mirrored(cast_to(node, value.dtype), upper))
    return wrap_node(turned(factor) if upper else factor, value)


# --- eigenvalues --------------------------------------------------------------------------------------------------


@implements(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues and eigenvectors of a symmetric matrix, of which NumPy reads one triangle."""
    value = _numpy.eigh(raw(a), UPLO)
    if tracked(a) is None:
        return constants(value)
    node = mirrored(float_node(a, value.eigenvectors.dtype), _is_upper(UPLO))
    packed = spectral.eigh(node, UPLO.upper())
    parts = spectral.values_of(packed), spectral.vectors_of(packed)
    return type(value)(*map(wrap_node, parts, value))


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues of a symmetric matrix, of which NumPy reads one triangle."""
    value = _numpy.eigvalsh(raw(a), UPLO)
    if tracked(a) is None:
        return wrap_constant(value)
    node = mirrored(float_node(a, value.dtype), _is_upper(UPLO))
    return wrap_node(spectral.eigvalsh(node, UPLO.upper()), value)


def guard_real(node: Node, value: Array) -> None:
    """The recording holds while the result is real: records give NaN where it is not."""
    if value.size:
        first = index_node(node, (), [Affine(0)] * node.ndim)
        guard(REGISTRY["isnan"](first), np.isnan(value.ravel()[0]))


def _of_complex_spectrum(a: Any, packed: Node, value: Any) -> Any:
    from .complex_factors import of_real  # it needs complex numbers, which come after real ones

    return of_real(a, packed, value)


@implements(np.linalg.eig)
def eig(a: Any) -> Any:
    """Eigenvalues and right eigenvectors; whether the spectrum is real is guarded."""
    value = _numpy.eig(raw(a))
    if tracked(a) is None:
        return constants(value)
    packed = spectral.eig(float_node(a, raw(a).dtype if raw(a).dtype.kind == "f" else np.dtype("f8")))
    if value.eigenvalues.dtype.kind == "c":
        return _of_complex_spectrum(a, packed, value)
    guard_real(packed, value.eigenvalues)
    parts = spectral.values_of(packed), spectral.vectors_of(packed)
    return type(value)(*map(wrap_node, parts, value))


@implements(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    """Eigenvalues; whether all are real is guarded."""
    value = _numpy.eigvals(raw(a))
    if tracked(a) is None:
        return wrap_constant(value)
    node = spectral.eigvals(float_node(a, raw(a).dtype if raw(a).dtype.kind == "f" else np.dtype("f8")))
    if value.dtype.kind == "c":
        return _of_complex_spectrum(a, node, value)
    guard_real(node, value)
    return wrap_node(node, value)


# --- singular values ----------------------------------------------------------------------------------------------


def singular_values(a: Any, dtype: DType) -> Node:
    """The node of the singular values of an operand."""
    return spectral.svdvals(float_node(a, dtype))


@implements(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    """Singular values, largest first."""
    value = _numpy.svdvals(raw(x))
    return wrap_constant(value) if tracked(x) is None else wrap_node(singular_values(x, value.dtype), value)


@implements(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """Singular values and vectors; further columns of full matrices have no derivative."""
    value = _numpy.svd(raw(a), full_matrices, compute_uv, hermitian)
    if tracked(a) is None:
        return constants(value) if compute_uv else wrap_constant(value)
    if hermitian:
        return _svd_of_symmetric(a, compute_uv, value)
    if not compute_uv:
        return wrap_node(singular_values(a, value.dtype), value)
    node = float_node(a, value.S.dtype)
    return type(value)(*map(wrap_node, svd_nodes(node, bool(full_matrices), False), value))


def svd_nodes(a: Node, full_matrices: bool, scipy: bool) -> tuple[Node, Node, Node]:
    """``U``, ``s``, ``V^T``, as NumPy or SciPy gives them."""
    u, s, vt = spectral.svd_parts(spectral.svd(a, full_matrices, scipy))
    m, n = a.shape[-2:]
    if not full_matrices or m == n:
        return u, s, vt
    kind, what = ("scipy svd", "scipy.linalg.svd") if scipy else ("svd", "numpy.linalg.svd")
    what = f"{what}(full_matrices=True)"
    if m > n:
        return with_basis(u, a, f"{kind} left", what, "full_matrices=False"), s, vt
    return u, s, turned(with_basis(turned(vt), a, f"{kind} right", what, "full_matrices=False"))


def _svd_of_symmetric(a: Any, compute_uv: bool, value: Any) -> Any:
    """From eigenvalues, as NumPy does it."""
    if not compute_uv:
        s = np.abs(eigvalsh(a))
        ordered: Any = np.sort(s)[..., ::-1]
        return wrap_node(ordered.node, value)
    w, v = eigh(a)
    order = np.flip(np.argsort(np.abs(w)), axis=-1)
    w = np.take_along_axis(w, order, axis=-1)
    u = np.take_along_axis(v, np.expand_dims(order, -2), axis=-1)
    s = np.abs(w)
    vt = np.swapaxes(u * np.expand_dims(np.where(w < 0, -1.0, 1.0), -2), -1, -2)
    parts: Any = zip((u, s, vt), value, strict=True)
    return type(value)(*(wrap_node(part.node, number) for part, number in parts))


def with_basis(thin: Node, a: Node, kind: str, what: str, remedy: str) -> Node:
    """The columns of ``thin`` and, after them, the ones that LAPACK completes them with."""
    from ..graph.build import assembled

    message = (
        f"the columns that {what} adds to those of the thin factor are an arbitrary basis of what is beside the range "
        f"of the matrix: they have no derivative. Use {remedy}; the projector onto that space is I - Q @ Q.T with the "
        f"thin factor Q.{user_line()}"
    )
    rest = factors.basis(a, params=factors.BasisParams(kind, message))
    lead = [axis(k) for k in range(thin.ndim - 1)]
    k = thin.shape[-1]
    shape = (*thin.shape[:-1], thin.shape[-2])
    parts = [(thin, (*lead, axis(thin.ndim - 1))), (rest, (*lead, Affine(k, ((thin.ndim - 1, 1),))))]
    return assembled(parts, shape, thin.dtype, disjoint=True)


# --- QR -----------------------------------------------------------------------------------------------------------


@implements(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    """``Q`` and ``R``; ``mode='complete'`` adds columns without derivative, ``mode='raw'`` is refused."""
    if tracked(a) is None:
        value = _numpy.qr(raw(a), mode)
        return constants(value) if isinstance(value, tuple) else wrap_constant(value)
    if mode not in ("reduced", "complete", "r"):
        _numpy.qr(raw(a), mode)
        raise unsupported(f"numpy.linalg.qr(mode={mode!r})", "Use mode='reduced'.")
    value = _numpy.qr(raw(a), mode)
    q, r = qr_nodes(float_node(a, (value if mode == "r" else value.R).dtype))
    if mode == "r":
        return wrap_node(r, value)
    m, n = raw(a).shape[-2:]
    if mode == "complete" and m > n:
        node = float_node(a, value.R.dtype)
        q = with_basis(q, node, "qr", "numpy.linalg.qr(mode='complete')", "mode='reduced'")
        r = zeros_below(r, m)
    return type(value)(wrap_node(q, value.Q), wrap_node(r, value.R))


def zeros_below(r: Node, m: int) -> Node:
    """``R`` with rows of zeros until there are ``m``."""
    from ..graph.build import assembled

    return assembled([(r, tuple(map(axis, range(r.ndim))))], (*r.shape[:-2], m, r.shape[-1]), r.dtype, disjoint=True)


def qr_nodes(a: Node) -> tuple[Node, Node]:
    """The thin ``Q`` and ``R``."""
    from ..graph.build import assembled, contract_labels

    m, n = a.shape[-2:]
    if m >= n:
        return factors.qr_parts(factors.qr(a))
    # A wide matrix: Householder's reflections come from its first columns, and turn the others.
    batch = a.ndim - 2
    lead = tuple(map(axis, range(batch + 1)))
    first = index_node(a, (*a.shape[:-1], m), (*lead, axis(batch + 1)))
    later = index_node(a, (*a.shape[:-1], n - m), (*lead, Affine(m, ((batch + 1, 1),))))
    q, r = factors.qr_parts(factors.qr(first))
    labels = tuple(range(batch))
    i, j, k = batch, batch + 1, batch + 2
    rest = contract_labels(
        [(q, (*labels, k, i)), (later, (*labels, k, j))], (*a.shape[:-2], m, n - m, m), (*labels, i, j)
    )
    parts = [(r, (*lead, axis(batch + 1))), (rest, (*lead, Affine(m, ((batch + 1, 1),))))]
    return q, assembled(parts, a.shape, a.dtype, disjoint=True)


# --- pseudo-inverse and least squares -----------------------------------------------------------------------------


@implements(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = np._NoValue) -> Any:
    """The pseudo-inverse; its derivative is that of matrices of the same rank."""
    options = {} if rtol is np._NoValue else {"rtol": raw(rtol)}
    value = _numpy.pinv(raw(a), raw(rcond), hermitian, **options)
    if tracked(a) is None:
        return wrap_constant(value)
    cutoff = rcond if rcond is not None else 1e-15 if rtol is np._NoValue else rtol
    if cutoff is None:
        cutoff = max(raw(a).shape[-2:]) * np.finfo(value.dtype).eps
    if tracked(cutoff) is not None:
        raise unsupported("numpy.linalg.pinv with a cutoff that depends on the arguments")
    if not value.size:
        return wrap_constant(value)
    node = float_node(a, value.dtype)
    if hermitian:
        node = mirrored(node, False)
    return wrap_node(factors.pinv(node, operand(cutoff, node.shape[:-2], np.dtype("f8"))), value)


@implements(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    """The least-squares solution of least length, the squared residuals, the rank (an integer), singular values."""
    a, b = plain_operand(a), plain_operand(b)
    value = _numpy.lstsq(raw(a), raw(b), raw(rcond))
    if not any_tracked((a, b)):
        return constants(value)
    solution, squares, rank, s = value
    if tracked(rcond) is not None:
        raise unsupported("numpy.linalg.lstsq with a cutoff that depends on the arguments")
    m, n = raw(a).shape
    cutoff = max(m, n) * float(np.finfo(np.float64).eps) if rcond is None else float(raw(rcond))
    return least_squares(a, b, cutoff, solution, squares, rank, s)


def least_squares(a: Any, b: Any, cutoff: float, solution: Any, squares: Any, rank: Any, s: Any) -> Any:
    """The nodes of a least-squares problem whose results are known."""
    node_a, node_b = float_node(a, solution.dtype), float_node(b, solution.dtype)
    vector = node_b.ndim == 1
    if vector:
        node_b = index_node(node_b, (*node_b.shape, 1), [axis(0)])
    n, k = node_a.shape[1], node_b.shape[1]
    if not k or not node_a.size:
        return wrap_constant(solution), wrap_constant(squares), rank, wrap_constant(s)
    packed = factors.lstsq(node_a, node_b, operand(cutoff, (), np.dtype("f8")))
    x = rows_of(packed, 0, n)
    if vector:
        x = index_node(x, (n,), [axis(0), Affine(0)])
    ranks = index_node(row_of(packed, n), (), [Affine(0)])
    count = cast_to(ranks, np.asarray(rank).dtype)
    found = wrap_node(x, solution)
    if node_a.shape[0] > n:
        guard(count, np.asarray(rank))  # whether there are residuals at all depends on it
    residuals = wrap_constant(squares)
    if squares.size:
        total = np.sum(np.square(b - np.matmul(a, found)), axis=0)
        residuals = wrap_node(operand(total, squares.shape, solution.dtype), squares)
    values = None if s is None else wrap_node(singular_values(a, s.dtype), s)
    return found, residuals, wrap_node(count, np.asarray(rank)[()]), values
