"""Symmetric systems: Cholesky factorisation by what the matrix is, which is also the test of definiteness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

from .normal import SolveFailed, dense_solver
from .square import Band, band_of

__all__ = ["definite_solver"]

Float64Array = NDArray[np.float64]


def definite_solver(matrix: Any) -> Callable[[Float64Array], Float64Array]:
    """Return the solver of a symmetric positive definite matrix.

    Args:
        matrix: shape (n, n), float64, symmetric: an ndarray or a CSR matrix. Not modified.

    Raises:
        SolveFailed: it is not positive definite, as far as the arithmetic can tell.

    >>> definite_solver(np.array([[2.0, 1.0], [1.0, 2.0]]))(np.array([3.0, 3.0]))
    array([1., 1.])
    """
    if isinstance(matrix, np.ndarray):
        return dense_solver(np.array(matrix, order="F"))
    band = band_of(matrix)
    if band is None:
        return _superlu(matrix)
    return _banded(band, matrix.data, matrix.shape[0])


def _banded(band: Band, data: Float64Array, n: int) -> Callable[[Float64Array], Float64Array]:
    below = max(band.below, band.above)
    stored = np.zeros((below + 1, n), order="F")
    lower = band.rows >= band.above
    stored[band.rows[lower] - band.above, band.columns[lower]] = data[lower]
    if below <= 1 and n > 1:
        diagonal, under, status = lapack.dpttrf(stored[0], stored[1, :-1] if below else np.zeros(n - 1))
        if status != 0:
            raise SolveFailed
        return lambda right: np.asarray(lapack.dpttrs(diagonal, under, right)[0])
    factor, status = lapack.dpbtrf(stored, lower=True)
    if status != 0:
        raise SolveFailed
    return lambda right: np.asarray(lapack.dpbtrs(factor, right, lower=True)[0])


def _superlu(matrix: Any) -> Callable[[Float64Array], Float64Array]:
    columns = sparse.csc_array(matrix)
    if not (columns.diagonal() > 0.0).all():
        raise SolveFailed
    try:
        factor = splu(columns, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError as error:
        raise SolveFailed from error
    # Without row exchanges this is L D L^T, and the signs of the pivots are those of the eigenvalues (Sylvester).
    if not np.array_equal(factor.perm_r, factor.perm_c) or not (factor.U.diagonal() > 0.0).all():
        raise SolveFailed
    return lambda right: np.asarray(factor.solve(right))
