"""``numpy.linalg`` of complex matrices by the real matrix ``[[A, -B], [B, A]]`` of twice the size.

It acts on stacked parts as ``A + iB`` does on complex numbers, so where ``A + iB`` is Hermitian its eigenvalues are
those of ``A + iB``, each twice (Horn and Johnson, "Matrix Analysis", 2nd edition, 1.3.P20). A perturbation of
``A + iB`` moves both of a pair alike, so their mean has the derivative of either, and turns neither vector towards the
other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.ops import spectral
from . import norms
from .complex import depends, joined, part_of, plain, real_dtype
from .complex_functions import _embedded, _valued, of_complex
from .composed import as_numpy
from .lift import plain_operand
from .linalg import float_node
from .location import unsupported
from .variable import raw, raw_deep, wrap_constant, wrap_node


def _eigenvalues(re: Any, im: Any, dtype: Any) -> Any:
    """Of ``re + i im``, whose parts are symmetric and antisymmetric: the mean of each pair of neighbours."""
    rows = [np.concatenate([re, np.negative(im)], axis=-1), np.concatenate([im, re], axis=-1)]
    whole = np.concatenate(rows, axis=-2)
    found = spectral.eigvalsh(float_node(whole, dtype), pairs=True)
    values = wrap_node(found, np.linalg.eigvalsh(raw(whole).astype(dtype)))
    shape = np.shape(raw(values))
    return np.mean(np.reshape(values, (*shape[:-1], shape[-1] // 2, 2)), axis=-1)


def singular_values(a: Any) -> Any:
    """Of a complex matrix A, or a stack of them, largest first: the positive eigenvalues of [[0, A], [A*, 0]]."""
    m, n = a.shape[-2:]
    corners = [(np.zeros((*a.shape[:-2], k, k)), part_of(a, j)) for j, k in ((0, m), (1, m))]
    below = [np.zeros((*a.shape[:-2], n, n))] * 2
    parts = []
    for (corner, part), rest, sign in zip(corners, below, (1.0, -1.0), strict=True):
        rows = [
            np.concatenate([corner, part], axis=-1),
            np.concatenate([sign * np.swapaxes(part, -1, -2), rest], axis=-1),
        ]
        parts.append(np.concatenate(rows, axis=-2))
    return _eigenvalues(parts[0], parts[1], real_dtype(a.dtype))[..., ::-1][..., : min(m, n)]


@of_complex(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """The singular values, and vectors if asked for."""
    a = plain_operand(a)
    if compute_uv:
        if depends(a):
            if hermitian or (full_matrices and a.shape[-2] != a.shape[-1]):
                raise unsupported(
                    "numpy.linalg.svd of complex numbers with hermitian=True, or full matrices that are not square",
                    "Give full_matrices=False.",
                )
            from .complex_factors import singular_vectors

            return singular_vectors(a, np.linalg.svd(plain(a), full_matrices))
        return tuple(map(wrap_constant, np.linalg.svd(plain(a), full_matrices, True, hermitian)))
    value = np.linalg.svd(plain(a), full_matrices, False, hermitian)
    return as_numpy(value, singular_values(a)) if depends(a) else wrap_constant(value)


@of_complex(*filter(None, [getattr(np.linalg, "svdvals", None)]))
def complex_svdvals(x: Any, /) -> Any:
    """The singular values."""
    return svd(x, compute_uv=False)


@of_complex(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    """The eigenvalues of a Hermitian matrix, of which one triangle is read."""
    a = plain_operand(a)
    value = np.linalg.eigvalsh(plain(a), UPLO)  # type: ignore[call-overload]
    if not depends(a):
        return wrap_constant(value)
    re, im = part_of(a, 0), part_of(a, 1)
    if UPLO.upper() == "U":
        re, im = np.swapaxes(re, -1, -2), np.negative(np.swapaxes(im, -1, -2))
    below_re, below_im = np.tril(re, -1), np.tril(im, -1)
    re = np.tril(re) + np.swapaxes(below_re, -1, -2)
    im = below_im - np.swapaxes(below_im, -1, -2)
    return as_numpy(value, _eigenvalues(re, im, real_dtype(a.dtype)))


@of_complex(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, **options: Any) -> Any:
    """The pseudo-inverse of the real matrix is the real matrix of the pseudo-inverse."""
    a = plain_operand(a)
    if hermitian:
        raise unsupported("numpy.linalg.pinv of complex numbers with hermitian=True", "Leave hermitian away.")
    value = np.linalg.pinv(plain(a), rcond, **options)
    if not depends(a):
        return wrap_constant(value)
    m, n = np.shape(plain(a))[-2:]
    if rcond is None and "rtol" not in options:
        rcond = 1e-15
    whole = np.linalg.pinv(_embedded(a), rcond, **options)
    return _valued(value, joined(whole[..., :n, :m], whole[..., n:, :m]))


@of_complex(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """The phase of the determinant, and half the logarithm of the real matrix's determinant."""
    a = plain_operand(a)
    value = np.linalg.slogdet(plain(a))
    if not depends(a):
        return type(value)(*map(wrap_constant, value))
    size = as_numpy(value.logabsdet, 0.5 * np.linalg.slogdet(_embedded(a))[1])
    # By the scaled matrix, whose determinant neither overflows nor vanishes; the phase is the same.
    scale = np.exp(-raw_deep(value.logabsdet) / max(np.shape(plain(a))[-1], 1))
    whole = np.linalg.det(a * np.asarray(scale)[..., None, None])
    return type(value)(_valued(value.sign, whole / np.abs(whole)), size)


@of_complex(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """That of the real matrix is twice as large; the tolerance of NumPy goes by the size of this one."""
    A = plain_operand(A)
    value = np.linalg.matrix_rank(plain(A), tol, hermitian, rtol=rtol)
    if not depends(A) or A.ndim < 2:
        return value
    if tol is None and rtol is None:
        rtol = max(A.shape[-2:]) * np.finfo(plain(A).dtype).eps
    return norms.matrix_rank(_embedded(A), tol, rtol=rtol) // 2


@of_complex(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    """The largest over the smallest singular value, or the norm times the norm of the inverse."""
    x = plain_operand(x)
    value = np.linalg.cond(plain(x), p)
    if not depends(x):
        return wrap_constant(value)
    if p in (None, 2, -2):
        s = singular_values(x)
        return as_numpy(value, s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1])
    # The oldest NumPy gives it a complex dtype.
    return as_numpy(np.real(value), np.linalg.norm(x, p, (-2, -1)) * np.linalg.norm(np.linalg.inv(x), p, (-2, -1)))


__all__ = ["singular_values"]
