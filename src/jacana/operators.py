"""The Jacobian as a ``scipy.sparse.linalg.LinearOperator`` whose terms are never multiplied out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .graph.node import Array
from .results import Products


class JacobianOperator(LinearOperator):  # type: ignore[misc]
    """A Jacobian at one point that can be applied to vectors.

    Shape ``(y.size, x.size)``. ``@``, ``matvec``, ``rmatvec``, ``matmat``, ``rmatmat`` and ``.T`` as SciPy defines
    them; ``.toarray()`` multiplies it out.
    """

    def __init__(self, products: Products, arrays: list[Array]) -> None:
        super().__init__(products.stacked.dtype, products.shape)
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
