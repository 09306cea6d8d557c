"""Factors of complex matrices: eigenvectors, singular vectors, QR, Cholesky; complex spectra of real matrices.

Each is declared (``declared.Operation``): the value is LAPACK's, the derivative a linear map of the displacement of the
matrix, written in NumPy with the factors themselves, so that it is recorded in its turn and every order exists.

An eigenvector may be multiplied by a number of modulus one. LAPACK chooses it so that one component is real: for
Hermitian matrices the first (the last if the upper triangle is read), because the reduction to tridiagonal form leaves
that coordinate alone (for the same reason the first components of V, or of U if the matrix is wide, in a singular value
decomposition); for general ones the largest ("xGEEV", LAPACK Users' Guide); the diagonal of R is real. The
derivative keeps to that, so it is the derivative of what NumPy returns. Where the chosen component is 0, no choice is
smooth, and the vector moves without turning; results that do not depend on the choice are right all the same.

Formulas: Magnus, "On differentiating eigenvalues and eigenvectors" (1985); Giles, "Collected matrix derivative results
for forward and reverse mode algorithmic differentiation" (2008); the adjoints are by the inner product Re tr(C^H D).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.build import index_node
from ..graph.index import Affine
from ..graph.node import REGISTRY, Node
from .complex import compose, depends, joined, part_of, plain, wrap_complex
from .complex_functions import _valued, of_complex
from .composed import as_numpy
from .declared import Operation
from .lift import plain_operand
from .location import unsupported
from .recording import guard
from .variable import raw, raw_deep, wrap_constant

Arrays = tuple[Any, ...]
_numpy: Any = np.linalg


def _adjoint(a: Any) -> Any:
    return np.conjugate(np.swapaxes(a, -1, -2))


def _diagonal(a: Any) -> Any:
    return np.diagonal(a, 0, -2, -1)


def _on_diagonal(v: Any) -> Any:
    return np.expand_dims(v, -1) * np.eye(np.shape(raw_deep(v))[-1])


def _pair(z: Any) -> Arrays:
    """The parts of a complex array."""
    return part_of(z, 0), part_of(z, 1)


class _Factors:
    """A factorisation: its value, and its derivative and the adjoint of that, given the factors.

    Arguments:
        value: of a complex matrix (a real one if ``real``): a tuple of complex arrays.
        push: ``(factors, displacement of the matrix)``: the displacements of the factors.
        pull: ``(factors, their cotangents)``: the cotangent of the matrix.
    """

    def __init__(
        self, name: str, value: Callable[..., Arrays], push: Callable[..., Arrays], pull: Callable[..., Any],
        real: bool = False,
    ) -> None:  # fmt: skip
        self.function, self.push, self.pull, self.real = value, push, pull, real
        self.operation = Operation(self._value, None, self._jvp, self._vjp, "dense", True, name)

    def _whole(self, parts: Any) -> Any:
        return parts[0] if self.real else joined(*parts)

    def _value(self, *parts: Any) -> Arrays:
        a = parts[0] if self.real else compose(*parts)
        return tuple(part for z in self.function(a) for part in (z.real.copy(), z.imag.copy()))

    def _of(self, arrays: Arrays) -> Arrays:
        return _wholes(self.operation(*arrays))

    def _jvp(self, arrays: Arrays, tangents: Arrays) -> Arrays:
        moved = self.push(self._of(arrays), self._whole(tangents))
        return tuple(part for z in moved for part in _pair(z))

    def _vjp(self, arrays: Arrays, cotangents: Arrays) -> Arrays:
        found = self.pull(self._of(arrays), _wholes(cotangents))
        return (part_of(found, 0),) if self.real else _pair(found)

    def __call__(self, a: Any) -> Arrays:
        """The complex factors of a recorded matrix."""
        return _wholes(self.operation(a) if self.real else self.operation(*_pair(a)))


def _wholes(parts: Any) -> Arrays:
    return tuple(joined(re, im) for re, im in zip(parts[::2], parts[1::2], strict=True))


# --- eigenvectors -----------------------------------------------------------------------------------------------------


def _gaps(w: Any) -> Any:
    """``F[j, i] = 1 / (w[i] - w[j])``: zero on the diagonal, NaN where a gap is no more than rounding."""
    n = np.shape(raw_deep(w))[-1]
    gap = np.expand_dims(w, -2) - np.expand_dims(w, -1)
    size = np.abs(w)
    limit = np.max(size, axis=-1) * (8.0 * n * np.finfo(raw_deep(size).dtype).eps)
    close = np.abs(gap) <= np.expand_dims(limit, (-1, -2))
    eye = np.eye(n, dtype=bool)
    return np.where(eye, 0.0, np.where(close, np.nan, 1.0) / np.where(eye, 1.0, gap))


def _turn(v: Any, chosen: Any) -> Any:
    """``1 / v`` at the component of each column that LAPACK makes real, 0 elsewhere, and where it is 0."""
    kept = np.real(np.where(chosen, v, 0.0))
    return np.where(kept == 0, 0.0, 1.0 / np.where(kept == 0, 1.0, kept))


def _largest(v: Any) -> Any:
    """Where each column has its largest component."""
    size = np.real(v) ** 2 + np.imag(v) ** 2
    n = np.shape(raw_deep(v))[-2]
    return np.equal(np.expand_dims(np.arange(n), -1), np.expand_dims(np.argmax(size, axis=-2), -2))


def _place(row: int) -> Callable[[Any], Any]:
    def chosen(v: Any) -> Any:
        rows = np.zeros(np.shape(raw_deep(v))[-2:], bool)
        rows[row] = True
        return rows

    return chosen


def _moved_vectors(v: Any, t: Any, w: Any, chosen: Any, unit: bool) -> Any:
    """The displacement of eigenvectors: ``V (F * T)`` and, of each column, what keeps its length and its phase."""
    moved = np.matmul(v, _gaps(w) * t)
    phase = -np.sum(np.imag(moved) * _turn(v, chosen), axis=-2)
    length = 0.0 * phase if unit else -np.sum(np.real(np.conjugate(v) * moved), axis=-2)
    return moved + v * np.expand_dims(length + 1j * phase, -2)


def _pulled_vectors(v: Any, c: Any, w: Any, chosen: Any, unit: bool) -> Any:
    """The adjoint: the cotangent of T."""
    overlap = np.sum(np.conjugate(v) * c, axis=-2)
    c = c - 1j * _turn(v, chosen) * np.expand_dims(np.imag(overlap), -2)
    if not unit:
        c = c - v * np.expand_dims(np.real(overlap), -2)
    return np.conjugate(_gaps(w)) * np.matmul(_adjoint(v), c)


def _hermitian(uplo: str) -> _Factors:
    chosen = _place(-1 if uplo == "U" else 0)

    def push(factors: Arrays, da: Any) -> Arrays:
        w, v = np.real(factors[0]), factors[1]
        t = np.matmul(np.matmul(_adjoint(v), da), v)
        return np.real(_diagonal(t)) + 0j, _moved_vectors(v, t, w, chosen(v), True)

    def pull(factors: Arrays, cotangents: Arrays) -> Any:
        w, v = np.real(factors[0]), factors[1]
        t = _pulled_vectors(v, cotangents[1], w, chosen(v), True) + _on_diagonal(np.real(cotangents[0]))
        return np.matmul(np.matmul(v, t), _adjoint(v))

    return _Factors("numpy.linalg.eigh", lambda a: tuple(z + 0j for z in _numpy.eigh(a, uplo)), push, pull)


_HERMITIAN = {uplo: _hermitian(uplo) for uplo in "LU"}


def _general(real: bool) -> _Factors:
    def push(factors: Arrays, da: Any) -> Arrays:
        w, v = factors
        t = np.matmul(np.matmul(np.linalg.inv(v), da), v)
        return _diagonal(t), _moved_vectors(v, t, w, _largest(v), False)

    def pull(factors: Arrays, cotangents: Arrays) -> Any:
        w, v = factors
        t = _pulled_vectors(v, cotangents[1], w, _largest(v), False) + _on_diagonal(cotangents[0])
        return np.matmul(np.matmul(_adjoint(np.linalg.inv(v)), t), _adjoint(v))

    return _Factors("numpy.linalg.eig", lambda a: tuple(z + 0j for z in _numpy.eig(a)), push, pull, real)


_GENERAL = {real: _general(real) for real in (False, True)}


@of_complex(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues and eigenvectors of a Hermitian matrix, of which one triangle is read."""
    a = plain_operand(a)
    value = _numpy.eigh(plain(a), UPLO)
    if not depends(a):
        return type(value)(*map(wrap_constant, value))
    w, v = _HERMITIAN[UPLO.upper()](mirrored(a, UPLO.upper() == "U"))
    return type(value)(as_numpy(value[0], np.real(w)), _valued(value[1], v))


def mirrored(a: Any, upper: bool) -> Any:
    """The Hermitian matrix of the triangle that LAPACK reads."""
    re, im = _pair(a)
    if upper:
        re, im = np.swapaxes(re, -1, -2), np.negative(np.swapaxes(im, -1, -2))
    below_re, below_im = np.tril(re, -1), np.tril(im, -1)
    return joined(np.tril(re) + np.swapaxes(below_re, -1, -2), below_im - np.swapaxes(below_im, -1, -2))


@of_complex(np.linalg.eig)
def eig(a: Any) -> Any:
    """Eigenvalues and eigenvectors."""
    a = plain_operand(a)
    value = _numpy.eig(plain(a))
    if not depends(a):
        return type(value)(*map(wrap_constant, value))
    return type(value)(*map(_valued, value, _GENERAL[False](a)))


@of_complex(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    """Eigenvalues."""
    a = plain_operand(a)
    value = _numpy.eigvals(plain(a))
    return _valued(value, _GENERAL[False](a)[0]) if depends(a) else wrap_complex(value)


def of_real(a: Any, packed: Node, value: Any) -> Any:
    """Eigenvalues and eigenvectors of a real matrix whose spectrum is complex, while that is so.

    ``packed``: a node that is NaN where the spectrum is complex.
    """
    first = index_node(packed, (), [Affine(0)] * packed.ndim)
    guard(REGISTRY["isnan"](first), np.True_)
    w, v = _GENERAL[True](a.astype(raw(a).dtype if raw(a).dtype.kind == "f" else np.float64))
    if isinstance(value, tuple):
        return type(value)(_valued(value[0], w), _valued(value[1], v))  # type: ignore[call-arg]
    return _valued(value, w)


# --- singular vectors -------------------------------------------------------------------------------------------------


def _scaled(a: Any, s: Any) -> Any:
    """The columns of ``a`` times the numbers ``s``."""
    return a * np.expand_dims(s, -2)


def _beside(u: Any, b: Any) -> Any:
    """What of ``b`` is outside of the range of ``u``."""
    return b - np.matmul(u, np.matmul(_adjoint(u), b))


def _mixing(s: Any) -> Any:
    """``F[i, j] = 1 / (s[j]**2 - s[i]**2)``: zero on the diagonal, NaN where the gap is no more than rounding."""
    return _gaps(s) / (np.expand_dims(s, -2) + np.expand_dims(s, -1))


def _svd_push(factors: Arrays, da: Any) -> Arrays:
    # With P = U^H dA V and A = U S V^H: P = W_u S + dS - S W_v, where W_u = U^H dU and W_v = V^H dV are antihermitian.
    s, u, v = np.real(factors[0]), factors[1], factors[2]
    p = np.matmul(np.matmul(_adjoint(u), da), v)
    left, right = _scaled(p, s), _adjoint(_scaled(_adjoint(p), s))
    mixing = _mixing(s)
    moved_u = np.matmul(u, mixing * (left + _adjoint(left))) + _beside(u, _scaled(np.matmul(da, v), 1.0 / s))
    moved_v = np.matmul(v, mixing * (right + _adjoint(right))) + _beside(
        v, _scaled(np.matmul(_adjoint(da), u), 1.0 / s)
    )
    apart = np.imag(_diagonal(p)) / s
    if _is_wide(u, v):
        phase_u = -np.sum(np.imag(moved_u) * _turn(u, _place(0)(u)), axis=-2)
        phase_v = phase_u - apart
    else:
        phase_v = -np.sum(np.imag(moved_v) * _turn(v, _place(0)(v)), axis=-2)
        phase_u = phase_v + apart
    return np.real(_diagonal(p)) + 0j, moved_u + _scaled(u, 1j * phase_u), moved_v + _scaled(v, 1j * phase_v)


def _svd_pull(factors: Arrays, cotangents: Arrays) -> Any:
    s, u, v = np.real(factors[0]), factors[1], factors[2]
    cu, cv = cotangents[1], cotangents[2]
    turned_u, turned_v = (np.imag(np.sum(np.conjugate(x) * c, axis=-2)) for x, c in ((u, cu), (v, cv)))
    both = np.expand_dims(turned_u + turned_v, -2)
    if _is_wide(u, v):
        cu = cu - 1j * _turn(u, _place(0)(u)) * both
        apart = -turned_v / s
    else:
        cv = cv - 1j * _turn(v, _place(0)(v)) * both
        apart = turned_u / s
    mixing = _mixing(s)
    left, right = mixing * np.matmul(_adjoint(u), cu), mixing * np.matmul(_adjoint(v), cv)
    cp = _scaled(left + _adjoint(left), s) + _adjoint(_scaled(right + _adjoint(right), s))
    cp = cp + _on_diagonal(np.real(cotangents[0]) + 1j * apart)
    beside_u, beside_v = _scaled(_beside(u, cu), 1.0 / s), _scaled(_beside(v, cv), 1.0 / s)
    inside = np.matmul(np.matmul(u, cp), _adjoint(v))
    return inside + np.matmul(beside_u, _adjoint(v)) + np.matmul(u, _adjoint(beside_v))


def _is_wide(u: Any, v: Any) -> bool:
    """Whether the matrix has more columns than rows: then the first components of U are real, else those of V."""
    return bool(np.shape(raw_deep(u))[-2] < np.shape(raw_deep(v))[-2])


def _svd_value(a: Any) -> Arrays:
    u, s, vh = _numpy.svd(a, full_matrices=False)
    return s + 0j, u + 0j, np.conjugate(np.swapaxes(vh, -1, -2))


_SVD = _Factors("numpy.linalg.svd", _svd_value, _svd_push, _svd_pull)


def singular_vectors(a: Any, value: Any) -> Any:
    """``U``, ``s`` and ``V^H`` of a thin decomposition whose value is known."""
    s, u, v = _SVD(a)
    return type(value)(_valued(value[0], u), as_numpy(value[1], np.real(s)), _valued(value[2], _adjoint(v)))


# --- triangular factors -----------------------------------------------------------------------------------------------


def _qr_push(factors: Arrays, da: Any) -> Arrays:
    # With B = dA R^-1 and M = Q^H B: dR = U R, dQ = B - Q U, where U is the part of M that keeps R triangular.
    q, r = factors
    b = np.matmul(da, np.linalg.inv(r))
    m = np.matmul(_adjoint(q), b)
    u = np.triu(m, 1) + _adjoint(np.tril(m, -1)) + _on_diagonal(np.real(_diagonal(m)))
    return b - np.matmul(q, u), np.matmul(u, r)


def _qr_pull(factors: Arrays, cotangents: Arrays) -> Any:
    (q, r), (cq, cr) = factors, cotangents
    u = np.matmul(cr, _adjoint(r)) - np.matmul(_adjoint(q), cq)
    above = np.triu(u, 1)
    m = above + _adjoint(above) + _on_diagonal(np.real(_diagonal(u)))
    return np.matmul(cq + np.matmul(q, m), _adjoint(np.linalg.inv(r)))


_QR = _Factors("numpy.linalg.qr", lambda a: tuple(z + 0j for z in _numpy.qr(a)), _qr_push, _qr_pull)


@of_complex(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    """``Q`` and ``R``, whose diagonal is real."""
    a = plain_operand(a)
    value = _numpy.qr(plain(a), mode)
    if not depends(a):
        return tuple(map(wrap_constant, value)) if isinstance(value, tuple) else wrap_constant(value)
    m, n = a.shape[-2:]
    if mode == "raw" or (mode == "complete" and m > n):
        raise unsupported(f"numpy.linalg.qr(mode={mode!r}) of complex numbers", "Use mode='reduced'.")
    q, r = _QR(a[..., :m])
    if n > m:
        r = np.concatenate([r, np.matmul(_adjoint(q), a[..., m:])], axis=-1)
    return _valued(value, r) if mode == "r" else type(value)(_valued(value[0], q), _valued(value[1], r))


def _lower_half(p: Any) -> Any:
    return np.tril(p, -1) + _on_diagonal(0.5 * np.real(_diagonal(p)))


def _cholesky_push(factors: Arrays, da: Any) -> Arrays:
    (factor,) = factors
    inverse = np.linalg.inv(factor)
    return (np.matmul(factor, _lower_half(np.matmul(np.matmul(inverse, da), _adjoint(inverse)))),)


def _cholesky_pull(factors: Arrays, cotangents: Arrays) -> Any:
    (factor,), (c,) = factors, cotangents
    inverse = np.linalg.inv(factor)
    return np.matmul(np.matmul(_adjoint(inverse), _lower_half(np.matmul(_adjoint(factor), c))), inverse)


_CHOLESKY = _Factors("numpy.linalg.cholesky", lambda a: (_numpy.cholesky(a),), _cholesky_push, _cholesky_pull)


@of_complex(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The triangular factor of a Hermitian matrix, of which one triangle is read; its diagonal is real."""
    a = plain_operand(a)
    value = _numpy.cholesky(plain(a), upper=upper)
    if not depends(a):
        return wrap_constant(value)
    (factor,) = _CHOLESKY(mirrored(a, upper))
    return _valued(value, _adjoint(factor) if upper else factor)


__all__ = ["mirrored", "of_real", "singular_vectors"]
