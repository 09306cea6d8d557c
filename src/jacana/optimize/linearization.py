"""The residual and its Jacobian at one point, whatever the format of the Jacobian.

A method asks a `Linearization` for what it needs (a gradient, a product, norms of columns) and never looks at the
format; only the linear solvers do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .norms import column_norms, euclidean_norm

__all__ = ["Linearization"]

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Linearization:
    """``r(x + p) ~ residual + jacobian @ p`` around one point.

    Attributes:
        residual: shape (m,), float64.
        jacobian: shape (m, n), float64: an ndarray, a ``scipy.sparse.csr_array`` or a ``LinearOperator``.
        norm: square root of twice the cost: the Euclidean norm of the residual, unless a robust loss has changed the
            residual so that ``jacobian.T @ residual`` is the gradient of another cost.

    >>> point = Linearization.of(np.array([3.0, 4.0]), np.array([[1.0], [2.0]]))
    >>> point.cost, point.gradient
    (12.5, array([11.]))
    """

    residual: Float64Array
    jacobian: Any
    norm: float

    @classmethod
    def of(cls, residual: Any, jacobian: Any) -> Linearization:
        """Return the linearization of a plain sum of squares; other dtypes than float64 are converted."""
        values = np.asarray(residual, dtype=np.float64)
        if not (isinstance(jacobian, np.ndarray) and jacobian.dtype == np.float64):
            jacobian = _as_float64(jacobian)
        return cls(values, jacobian, euclidean_norm(values))

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        m, n = self.jacobian.shape
        return int(m), int(n)

    @property
    def cost(self) -> float:
        """Half the squared norm."""
        return 0.5 * self.norm * self.norm

    @property
    def dense(self) -> bool:
        """Whether the Jacobian is an ndarray."""
        return isinstance(self.jacobian, np.ndarray)

    @property
    def sparse(self) -> bool:
        """Whether the Jacobian is a sparse matrix with stored entries."""
        return hasattr(self.jacobian, "indptr")

    @cached_property
    def gradient(self) -> Float64Array:
        """Gradient of the cost, shape (n,)."""
        return self.transposed(self.residual)

    @cached_property
    def norms(self) -> Float64Array:
        """Euclidean norms of the columns, shape (n,); an estimate of their root mean square for all where the Jacobian
        is an operator that only multiplies."""
        if self.dense:
            return column_norms(self.jacobian)
        n = self.shape[1]
        if not self.sparse:
            # The mean square of J v over random signs v is the square of the Frobenius norm (M. F. Hutchinson, 1990).
            signs = np.random.default_rng(0).choice((-1.0, 1.0), size=n)
            mean = euclidean_norm(self.apply(signs)) / math.sqrt(n)
            return np.full(n, mean if math.isfinite(mean) else 1.0)
        data = self.jacobian.data
        # Entries whose square overflows or vanishes are brought to the size of one first.
        largest = float(np.abs(data).max(initial=0.0))
        unit = largest if 0.0 < largest < math.inf else 1.0
        squares = np.bincount(self.jacobian.indices, weights=(data / unit) ** 2, minlength=n)
        return np.sqrt(squares) * unit

    @property
    def finite(self) -> bool:
        """Whether all stored entries of the Jacobian are finite; an operator shows none and is trusted."""
        if self.dense:
            return bool(np.isfinite(self.jacobian).all())
        return not self.sparse or bool(np.isfinite(self.jacobian.data).all())

    def apply(self, vector: Float64Array) -> Float64Array:
        """Return ``jacobian @ vector``, shape (m,)."""
        return np.asarray(self.jacobian @ vector)

    def transposed(self, vector: Float64Array) -> Float64Array:
        """Return ``jacobian.T @ vector``, shape (n,)."""
        if self.dense:
            return np.asarray(vector @ self.jacobian)
        return np.asarray(self.jacobian.T @ vector)

    def gram(self) -> Any:
        """Return ``jacobian.T @ jacobian``, shape (n, n): an ndarray, or a sparse array where the Jacobian is one."""
        if self.dense or self.sparse:
            return self.jacobian.T @ self.jacobian
        return self.jacobian.T @ (self.jacobian @ np.eye(self.shape[1]))


def _as_float64(jacobian: Any) -> Any:
    if hasattr(jacobian, "indptr"):
        matrix = jacobian if jacobian.format == "csr" else jacobian.tocsr()
        return matrix if matrix.dtype == np.float64 else matrix.astype(np.float64)
    if hasattr(jacobian, "matvec"):
        return jacobian
    if hasattr(jacobian, "tocsr"):
        return _as_float64(jacobian.tocsr())
    return np.asarray(jacobian, dtype=np.float64)
