"""The Jacobian as a ``scipy.sparse.linalg.LinearOperator`` whose terms are never multiplied out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .graph.node import Array
from .results import LinearizedProducts, Products


class JacobianOperator(LinearOperator):  # type: ignore[misc]
    """A Jacobian at one point that can be applied to vectors.

    Shape ``(y.size, x.size)``. ``@``, ``matvec``, ``rmatvec``, ``matmat``, ``rmatmat`` and ``.T`` as SciPy defines
    them; ``.toarray()`` multiplies it out.
    """

    def __init__(self, products: Products | LinearizedProducts, arrays: list[Array]) -> None:
        super().__init__(products.dtype, products.shape)
        self._products, self._arrays = products, arrays

    def _matmat(self, X: Array) -> Array:
        return self._products.apply(self._arrays, self._real(X), transpose=False)

    def _matvec(self, x: Array) -> Array:
        return self._matmat(np.reshape(x, (-1, 1))).reshape(-1)

    def _rmatmat(self, X: Array) -> Array:
        return self._products.apply(self._arrays, self._real(X), transpose=True)

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(np.reshape(x, (-1, 1))).reshape(-1)

    @staticmethod
    def _real(X: Any) -> Array:
        array = np.asarray(X)
        return array if array.dtype in (np.float64, np.float32) else array.astype(np.float64)

    def toarray(self) -> Array:
        """The dense matrix."""
        return self._matmat(np.eye(self.shape[1], dtype=self.dtype))


class ComplexOperator(LinearOperator):  # type: ignore[misc]
    """A complex matrix by the real operator that it is on stacked parts; ``rmatvec`` is the adjoint.

    ``rows`` and ``cols`` say where the parts of a complex vector are in the stack of all real leaves: two arrays of
    positions, of the real parts and of the imaginary parts (-1: there is none).
    """

    def __init__(self, real: JacobianOperator, rows: Array, cols: Array) -> None:
        super().__init__(np.result_type(real.dtype, np.complex64), (rows.shape[1], cols.shape[1]))
        self._real, self._rows, self._cols = real, rows, cols

    def _matmat(self, X: Array) -> Array:
        return _joined(self._real.matmat(_stacked(X, self._cols, self._real.shape[1])), self._rows)

    def _rmatmat(self, X: Array) -> Array:
        return _joined(self._real.rmatmat(_stacked(X, self._rows, self._real.shape[0])), self._cols)

    def _matvec(self, x: Array) -> Array:
        return self._matmat(np.reshape(x, (-1, 1))).reshape(-1)

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(np.reshape(x, (-1, 1))).reshape(-1)

    def toarray(self) -> Array:
        """The dense matrix."""
        return self._matmat(np.eye(self.shape[1], dtype=self.dtype))


def _stacked(X: Any, places: Array, size: int) -> Array:
    """The parts of complex vectors in one real array."""
    x = np.asarray(X)
    result = np.zeros((size, x.shape[1]), x.real.dtype)
    for part, where in zip((x.real, x.imag), places, strict=True):
        result[where[where >= 0]] = part[where >= 0]
    return result


def _joined(stacked: Array, places: Array) -> Array:
    """The complex vectors whose parts these are."""
    result = np.zeros((places.shape[1], stacked.shape[1]), np.result_type(stacked, np.complex64))
    for part, where in zip((result.real, result.imag), places, strict=True):
        part[where >= 0] = stacked[where[where >= 0]]
    return result
