"""Products and factors of small matrices, in pieces that BLAS does not hand out to threads.

OpenBLAS shares a product of more than 2^18 multiplications among all its threads. Where the matrices are small and
many, as in a Schur complement, waiting for one another takes longer than the work; on a machine that has other things
to do, a hundred times longer.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from .normal import SolveFailed

__all__ = ["cholesky", "gram", "solved_below", "times"]

Float64Array = NDArray[np.float64]

_ALONE = 2**18  # multiplications up to which OpenBLAS works in the calling thread
_VECTOR_ALONE = 9000  # the same for the product of a matrix with a vector
_WIDTH = 64  # columns of a piece
_LARGE = 512  # columns from which threads are worth their price


def gram(rows: Float64Array) -> Float64Array:
    """Return ``rows.T @ rows`` for rows of shape (m, n).

    >>> gram(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[10., 14.],
           [14., 20.]])
    """
    n = rows.shape[1]
    if n > _LARGE:
        return np.asarray(rows.T @ rows)
    pieces = -(-n // _WIDTH)
    edges = [n * k // pieces for k in range(pieces + 1)]
    result = np.empty((n, n))
    for i in range(pieces):
        left = slice(edges[i], edges[i + 1])
        for j in range(i + 1):
            right = slice(edges[j], edges[j + 1])
            result[left, right] = piece = _product(rows[:, left], rows[:, right])
            if i != j:
                result[right, left] = piece.T
    return result


def _product(left: Float64Array, right: Float64Array) -> Float64Array:
    """``left.T @ right``, as a sum over stacks of rows."""
    m, a, b = len(left), left.shape[1], right.shape[1]
    step = max(1, _ALONE // (a * b))
    whole = m // step * step
    total: Float64Array = left[whole:].T @ right[whole:]
    if whole:
        stacks = left[:whole].reshape(-1, step, a).transpose(0, 2, 1) @ right[:whole].reshape(-1, step, b)
        total += stacks.sum(axis=0)
    return total


def cholesky(matrix: Float64Array) -> Float64Array:
    """Return the lower Cholesky factor of a symmetric matrix, of which only the lower triangle is read; it is
    overwritten. What is above the diagonal of the factor is left as it was.

    Raises:
        SolveFailed: the matrix is not positive definite.
    """
    n = len(matrix)
    if n > _LARGE:
        return _factor(matrix)
    for begin in range(0, n, _WIDTH):
        end = min(begin + _WIDTH, n)
        root = _factor(matrix[begin:end, begin:end])
        matrix[begin:end, begin:end] = root
        if end < n:
            # Rows below a factor L of 64 columns are A L^-T; LAPACK's own solver for them would be threaded.
            inverse = _upper(lapack.dtrtri(root, lower=True)[0].T)
            for row in range(end, n, _WIDTH):
                below = slice(row, min(row + _WIDTH, n))
                matrix[below, begin:end] = matrix[below, begin:end] @ inverse
            matrix[end:, end:] -= gram(np.ascontiguousarray(matrix[end:, begin:end].T))
    return matrix


def solved_below(upper: Float64Array, below: Float64Array) -> Float64Array:
    """Return ``inverse(upper).T @ below.T``, shape (n, m), for a triangle of shape (n, n) and rows of shape (m, n)."""
    n, m = len(upper), len(below)
    result = np.empty((n, m))
    for begin in range(0, n, _WIDTH):
        here = slice(begin, begin + _WIDTH)
        inverse = _upper(lapack.dtrtri(upper[here, here], lower=False)[0]).T
        for row in range(0, m, _WIDTH):
            rows = slice(row, row + _WIDTH)
            right = below[rows, here].T
            if begin:
                right = right - _product(upper[:begin, here], result[:begin, rows])
            result[here, rows] = inverse @ right
    return result


def times(vector: Float64Array, matrix: Float64Array) -> Float64Array:
    """Return ``vector @ matrix``."""
    if _VECTOR_ALONE < matrix.size < _ALONE:
        return np.asarray(np.einsum("i,ij->j", vector, matrix))
    return np.asarray(vector @ matrix)


def _upper(matrix: Float64Array) -> Float64Array:
    return np.where(_above(len(matrix)), matrix, 0.0)


@lru_cache(_LARGE)
def _above(n: int) -> NDArray[np.bool_]:
    return np.tri(n, k=0, dtype=bool).T  # NumPy's own triu makes it each time, which takes longer than all the rest


def _factor(matrix: Float64Array) -> Float64Array:
    factor, status = lapack.dpotrf(matrix, lower=True, clean=False)
    if status != 0:
        raise SolveFailed
    return np.asarray(factor)
