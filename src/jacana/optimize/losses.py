"""Robust losses: what counts instead of the square of a residual, so that outliers count less.

The cost is ``0.5 * sum(rho(s))`` with ``s`` the squared residual (of one entry, or of `block` entries together, such as
the two coordinates of one image point). A loss is its function rho alone; jacana derives both derivatives.

Where a residual is turned into ``rho``, the quadratic model needs the curvature of rho too: with
``kappa = 1 + 2 s rho''/rho'`` the residual is multiplied by ``sqrt(rho' / kappa)`` and the Jacobian by
``sqrt(rho' kappa)`` along the residual and ``sqrt(rho')`` across it. The gradient of the model is then exact, and so is
the part of the Hessian that first derivatives of the residual make.

Source: B. Triggs, P. McLauchlan, R. Hartley, A. Fitzgibbon, "Bundle Adjustment: A Modern Synthesis", 2000, section
4.3. Where kappa is small or negative (far outliers) it is kept at 0.1, so that the model stays convex.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..selections import diagonal
from .linearization import Linearization

__all__ = ["LOSSES", "Loss", "as_loss"]

Float64Array = NDArray[np.float64]

_LEAST_CURVATURE = 0.1


def _huber(z: Any) -> Any:
    return np.where(z <= 1.0, z, 2.0 * np.sqrt(z) - 1.0)


def _soft_l1(z: Any) -> Any:
    return 2.0 * (np.sqrt(1.0 + z) - 1.0)


def _cauchy(z: Any) -> Any:
    return np.log1p(z)


def _arctan(z: Any) -> Any:
    return np.arctan(z)


def _tukey(z: Any) -> Any:
    return np.where(z <= 1.0, (1.0 - (1.0 - z) ** 3) / 3.0, 1.0 / 3.0)


LOSSES: dict[str, Callable[[Any], Any]] = {
    "huber": _huber,
    "soft_l1": _soft_l1,
    "cauchy": _cauchy,
    "arctan": _arctan,
    "tukey": _tukey,
}
"""rho by name, each with rho(z) ~ z for small z. Tukey's is flat beyond 1: such residuals do not count at all."""


@dataclass(frozen=True)
class Loss:
    """A loss with its scale.

    Attributes:
        function: rho of z >= 0, elementwise plain NumPy, with rho(0) = 0 and slope 1 there.
        scale: residuals of about this size begin to count less: the cost is ``0.5 * sum(scale**2 * rho(s /
            scale**2))``.
        block: how many consecutive residuals (raveled) are one; s is the sum of their squares.

    >>> Loss(LOSSES["huber"], scale=2.0).cost(np.array([1.0, 10.0]))
    18.5
    """

    function: Callable[[Any], Any]
    scale: float = 1.0
    block: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0.0):
            raise InvalidInputError(f"the scale of a loss must be a finite number above 0; got {self.scale!r}")
        if self.block < 1:
            raise InvalidInputError(f"the block of a loss must be 1 or more; got {self.block!r}")

    def cost(self, residual: Float64Array) -> float:
        """Return the cost of residuals of shape (m,); NaN or inf where one of them is."""
        if not np.isfinite(residual).all():
            return math.nan
        return float(np.sum(self.costs(residual)))

    def costs(self, residual: Any) -> Any:
        """Return what each block of residuals of shape (m,) contributes, shape (m / block,); recordable."""
        return 0.5 * self.scale**2 * self.function(self._squares(residual))

    def weights(self, residual: Float64Array) -> Float64Array:
        """Return rho' of each block, shape (m / block,): 1 for small residuals, towards 0 for outliers."""
        return np.asarray(_derivatives(self.function)[0](self._squares(residual)))

    def robustified(self, point: Linearization) -> Linearization:
        """Return the linearization whose plain sum of squares models the robust cost of `point`."""
        residual, jacobian = point.residual, point.jacobian
        z = self._squares(residual)
        first, second = (np.asarray(derivative(z)) for derivative in _derivatives(self.function))
        usable = first > 0.0
        kappa = np.where(usable, 1.0 + 2.0 * z * second / np.where(usable, first, 1.0), 1.0)
        kappa = np.maximum(kappa, _LEAST_CURVATURE)
        across = np.sqrt(np.maximum(first, 0.0))
        scaled = residual * self._spread(across / np.sqrt(kappa))
        if self.block == 1:
            changed = _rows_scaled(jacobian, across * np.sqrt(kappa))
        else:
            # J - (1 - sqrt(kappa)) r r^T J / |r|^2: the part of J along the residual of its block shrinks.
            blocks = residual.reshape(-1, self.block)
            sizes = np.sum(blocks * blocks, axis=1, keepdims=True)
            share = (1.0 - np.sqrt(kappa))[:, None] / np.where(sizes > 0.0, sizes, 1.0)
            changed = _blocks_projected(jacobian, blocks, share * blocks)
            changed = _rows_scaled(changed, self._spread(across))
        cost = 0.5 * self.scale**2 * float(np.sum(self.function(z)))
        return Linearization(scaled, changed, math.sqrt(max(2.0 * cost, 0.0)))

    def check(self, m: int) -> None:
        """Refuse a number of residuals that is no multiple of the block.

        Raises:
            InvalidInputError: it is not.
        """
        if m % self.block:
            raise InvalidInputError(f"the loss takes residuals in blocks of {self.block}, but there are {m}")

    def _squares(self, residual: Any) -> Any:
        scaled = residual / self.scale
        if self.block == 1:
            return scaled * scaled
        return np.sum(scaled.reshape(-1, self.block) ** 2, axis=1)

    def _spread(self, values: Float64Array) -> Float64Array:
        return values if self.block == 1 else np.repeat(values, self.block)


@functools.lru_cache(maxsize=64)
def _derivatives(function: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    first = diagonal(function)
    return first, diagonal(first)


def as_loss(loss: Any, scale: float = 1.0) -> Loss | None:
    """Return what a user gave as `loss`: None or "linear", a name, a function rho, or a `Loss`.

    Raises:
        InvalidInputError: it is none of these.

    >>> as_loss("cauchy", 0.5).scale
    0.5
    """
    if loss is None or loss == "linear":
        return None
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise InvalidInputError(f"there is no loss called {loss!r}; there is linear, {', '.join(LOSSES)}")
        return Loss(LOSSES[loss], scale)
    if callable(loss):
        return Loss(loss, scale)
    raise InvalidInputError(f"loss must be a name, a function or a Loss, not {type(loss).__name__}")


def _rows_scaled(jacobian: Any, factors: Float64Array) -> Any:
    if isinstance(jacobian, np.ndarray):
        return jacobian * factors[:, None]
    if hasattr(jacobian, "indptr"):
        widths = np.diff(jacobian.indptr)
        return _with_data(jacobian, jacobian.data * np.repeat(factors, widths))
    from scipy.sparse.linalg import LinearOperator

    return LinearOperator(
        jacobian.shape,
        matvec=lambda v: factors * (jacobian @ v.ravel()),
        rmatvec=lambda v: jacobian.T @ (factors * v.ravel()),
        dtype=np.dtype(np.float64),
    )


def _blocks_projected(jacobian: Any, rows: Float64Array, shares: Float64Array) -> Any:
    """Return J less, in each block of rows, ``outer(share, row) @ J_block``."""
    count, size = rows.shape
    if isinstance(jacobian, np.ndarray):
        blocks = jacobian.reshape(count, size, -1)
        along = np.einsum("bi,bij->bj", rows, blocks)
        return (blocks - shares[:, :, None] * along[:, None, :]).reshape(jacobian.shape)
    from scipy import sparse

    if hasattr(jacobian, "indptr"):
        widths = np.diff(jacobian.indptr)
        if (widths == widths[0]).all():
            indices = jacobian.indices.reshape(count, size, -1)
            if (indices == indices[:, :1]).all():
                blocks = jacobian.data.reshape(count, size, -1)
                along = np.einsum("bi,bij->bj", rows, blocks)
                return _with_data(jacobian, (blocks - shares[:, :, None] * along[:, None, :]).ravel())
    outer = shares[:, :, None] * rows[:, None, :]
    mixing = sparse.bsr_array((outer, np.arange(count), np.arange(count + 1)), shape=(count * size, count * size))
    if hasattr(jacobian, "indptr"):
        return (jacobian - mixing @ jacobian).tocsr()
    from scipy.sparse.linalg import LinearOperator

    return LinearOperator(
        jacobian.shape,
        matvec=lambda v: jacobian @ v.ravel() - mixing @ (jacobian @ v.ravel()),
        rmatvec=lambda v: jacobian.T @ (v.ravel() - mixing.T @ v.ravel()),
        dtype=np.dtype(np.float64),
    )


def _with_data(matrix: Any, data: Float64Array) -> Any:
    from scipy import sparse

    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
