"""``scipy.linalg``: matrices made from a few numbers, and systems with such matrices. All of it is movement."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.build import index_node
from ..graph.index import Affine
from .lift import plain_operand
from .location import unsupported
from .movement import movement
from .scipy_calls import of_scipy, valued
from .variable import raw

__all__ = ["circulant", "hankel", "toeplitz"]


def _vector(x: Any) -> Any:
    return np.ravel(plain_operand(x))


def _length(x: Any) -> int:
    return int(np.shape(raw(x))[0])


def _strided(values: Any, shape: tuple[int, int], start: int, step: int) -> Any:
    """``result[i, j] = values[start + step * i + j]``."""
    number = raw(values)[start + step * np.arange(shape[0])[:, None] + np.arange(shape[1])]
    return movement(values, number, lambda node: index_node(node, shape, [Affine(start, ((0, step), (1, 1)))]))


@of_scipy("toeplitz")
def toeplitz(value: Any, c: Any, r: Any = None) -> Any:
    """Constant diagonals."""
    if np.ndim(value) != 2:
        raise unsupported("scipy.linalg.toeplitz of several matrices", "Make them one by one.")
    c = _vector(c)
    r = np.conj(c) if r is None else _vector(r)
    values = np.concatenate([c[::-1], r[1:]])
    return valued(_strided(values, np.shape(value), _length(c) - 1, -1), value)


@of_scipy("hankel")
def hankel(value: Any, c: Any, r: Any = None) -> Any:
    """Constant antidiagonals."""
    c = _vector(c)
    r = np.zeros(_length(c)) if r is None else _vector(r)
    values = np.concatenate([c, r[1:]])
    return valued(_strided(values, np.shape(value), 0, 1), value)


@of_scipy("circulant")
def circulant(value: Any, c: Any) -> Any:
    """Each column is the one before, moved by one."""
    c = np.atleast_1d(plain_operand(c))
    n = np.shape(value)[-1]
    return valued(c[..., (np.arange(n)[:, None] - np.arange(n)) % n], value)


@of_scipy("companion")
def companion(value: Any, a: Any) -> Any:
    """Coefficients in the first row, ones below the diagonal."""
    a = np.atleast_1d(plain_operand(a))
    first = -a[..., 1:] / a[..., :1]
    n = np.shape(value)[-1]
    rest = np.broadcast_to(np.eye(n)[:-1], (*np.shape(value)[:-2], n - 1, n))
    return valued(np.concatenate([np.expand_dims(first, -2), rest], axis=-2), value)


@of_scipy("leslie")
def leslie(value: Any, f: Any, s: Any) -> Any:
    """Fecundities in the first row, survivals below the diagonal."""
    f, s = np.atleast_1d(plain_operand(f)), np.atleast_1d(plain_operand(s))
    n = np.shape(value)[-1]
    rest = np.where(np.eye(n)[:-1] == 1, np.expand_dims(s, -1), 0.0)
    return valued(np.concatenate([np.expand_dims(f, -2), rest], axis=-2), value)


@of_scipy("fiedler")
def fiedler(value: Any, a: Any) -> Any:
    """Absolute differences."""
    a = np.atleast_1d(plain_operand(a))
    return valued(np.abs(np.expand_dims(a, -1) - np.expand_dims(a, -2)), value)


@of_scipy("convolution_matrix")
def convolution_matrix(value: Any, a: Any, n: int, mode: str = "full") -> Any:
    """The matrix whose product with a vector is a convolution."""
    a = plain_operand(a)
    m = np.shape(raw(a))[-1]
    rows, _ = np.shape(value)[-2:]
    # As in SciPy: 'valid' and 'same' are rows of 'full'.
    skipped = {"full": 0, "same": (min(m, n) - 1) // 2, "valid": min(m, n) - 1}[mode]
    places = np.arange(rows)[:, None] + skipped - np.arange(n)
    inside = (places >= 0) & (places < m)
    return valued(np.where(inside, a[..., np.clip(places, 0, m - 1)], 0.0), value)


@of_scipy("khatri_rao")
def khatri_rao(value: Any, a: Any, b: Any) -> Any:
    """Kronecker products, column by column."""
    a, b = plain_operand(a), plain_operand(b)
    return valued(np.reshape(np.expand_dims(a, -2) * np.expand_dims(b, -3), np.shape(value)), value)


@of_scipy("block_diag")
def block_diag(value: Any, arrs: Any) -> Any:
    """Blocks along the diagonal."""
    blocks = [np.atleast_2d(plain_operand(block)) for block in arrs]
    if value.ndim > 2:
        blocks = [np.broadcast_to(block, (*value.shape[:-2], *np.shape(raw(block))[-2:])) for block in blocks]
    rows = []
    left = 0
    for block in blocks:
        height, width = np.shape(raw(block))[-2:]
        edge = [(0, 0)] * (value.ndim - 1)
        rows.append(np.pad(block, [*edge, (left, value.shape[-1] - left - width)]))
        left += width
        assert height == np.shape(raw(rows[-1]))[-2]
    return valued(np.concatenate(rows, axis=-2), value)


@of_scipy("matmul_toeplitz")
def matmul_toeplitz(value: Any, c_or_cr: Any, x: Any, workers: Any = None) -> Any:
    """A product with constant diagonals."""
    return valued(np.matmul(_toeplitz_of(c_or_cr), plain_operand(x)), value)


def _toeplitz_of(c_or_cr: Any) -> Any:
    from scipy import linalg

    pair = c_or_cr if isinstance(c_or_cr, tuple) else (c_or_cr, c_or_cr)
    c, r = map(_vector, pair)
    values = np.concatenate([c[::-1], r[1:]])
    return _strided(values, linalg.toeplitz(raw(c), raw(r)).shape, _length(c) - 1, -1)


@of_scipy("solve_toeplitz")
def solve_toeplitz(value: Any, c_or_cr: Any, b: Any) -> Any:
    """As a dense system."""
    return valued(np.linalg.solve(_toeplitz_of(c_or_cr), plain_operand(b)), value)


@of_scipy("solve_circulant")
def solve_circulant(
    value: Any,
    c: Any,
    b: Any,
    singular: str = "raise",
    tol: Any = None,
    caxis: int = -1,
    baxis: int = 0,
    outaxis: int = 0,
) -> Any:
    """As a dense system."""
    c, b = plain_operand(c), plain_operand(b)
    if np.ndim(raw(c)) != 1 or (baxis, outaxis) != (0, 0) or np.ndim(raw(b)) > 2 or singular != "raise":
        raise unsupported("scipy.linalg.solve_circulant with several matrices or axes", "Solve them one by one.")
    n = _length(c)
    return valued(np.linalg.solve(c[(np.arange(n)[:, None] - np.arange(n)) % n], b), value)


def _banded(ab: Any, upper: int) -> Any:
    """The matrix whose diagonals are the rows of ``ab``: ``a[i, j] = ab[upper + i - j, j]``."""
    count, n = np.shape(raw(ab))[-2:]
    rows = upper + np.arange(n)[:, None] - np.arange(n)
    inside = (rows >= 0) & (rows < count)
    columns = np.broadcast_to(np.arange(n), (n, n))
    return np.where(inside, ab[..., np.clip(rows, 0, count - 1), columns], 0.0)


@of_scipy("solve_banded")
def solve_banded(value: Any, l_and_u: Any, ab: Any, b: Any) -> Any:
    """As a dense system."""
    return valued(np.linalg.solve(_banded(plain_operand(ab), int(l_and_u[1])), plain_operand(b)), value)


def _symmetric_band(ab: Any, lower: bool) -> Any:
    n_diagonals = np.shape(raw(ab))[-2]
    half = _banded(ab, 0 if lower else n_diagonals - 1)
    n = np.shape(raw(half))[-1]
    return np.where(np.eye(n, dtype=bool), half, half + np.swapaxes(half, -1, -2))


@of_scipy("solveh_banded")
def solveh_banded(value: Any, ab: Any, b: Any, lower: bool = False) -> Any:
    """As a dense system."""
    return valued(np.linalg.solve(_symmetric_band(plain_operand(ab), lower), plain_operand(b)), value)


@of_scipy("eigvals_banded")
def eigvals_banded(
    value: Any, a_band: Any, lower: bool = False, select: Any = "a", select_range: Any = None, max_ev: Any = 0
) -> Any:
    """As a dense matrix."""
    if select not in ("a", "all", 0):
        raise unsupported("scipy.linalg.eigvals_banded(select=...)", "Compute all and take a slice.")
    return valued(np.linalg.eigvalsh(_symmetric_band(plain_operand(a_band), lower)), value)


@of_scipy("eigvalsh_tridiagonal")
def eigvalsh_tridiagonal(
    value: Any, d: Any, e: Any, select: Any = "a", select_range: Any = None, tol: float = 0.0,
    lapack_driver: str = "auto",
) -> Any:  # fmt: skip
    """As a dense matrix."""
    if select not in ("a", "all", 0):
        raise unsupported("scipy.linalg.eigvalsh_tridiagonal(select=...)", "Compute all and take a slice.")
    d, e = plain_operand(d), plain_operand(e)
    return valued(np.linalg.eigvalsh(np.diag(d) + np.diag(e, 1) + np.diag(e, -1)), value)
