"""Residuals made independent and of variance 1, from weights and from what is known of their noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError

__all__ = ["inverse_root", "whitening"]

_SYMMETRIC = 1e-6  # difference of entries across the diagonal, relative to standard deviations, that is rounding


def whitening(weights: Any, noise: Any, size: int) -> Callable[[Any], Any]:
    """Return the function that turns residuals into independent ones of variance 1."""
    if weights is None and noise is None:
        return lambda values: values
    factor = np.ones(size)
    if weights is not None:
        given = np.asarray(weights, dtype=np.float64)
        if given.size not in (1, size) or not np.isfinite(given).all() or (given < 0.0).any():
            raise InvalidInputError(
                f"weights must be finite and not negative, one number or one for each of the {size} residuals"
            )
        factor = factor * np.sqrt(given.ravel())
    if noise is not None:
        given = np.asarray(noise, dtype=np.float64)
        if given.shape == (size, size) and size > 1:
            whitener = inverse_root(given)
            # With both, weights count after the correlations have been removed.
            return lambda values: factor * (whitener @ values)
        if given.size not in (1, size) or not np.isfinite(given).all() or (given <= 0.0).any():
            raise InvalidInputError(
                f"noise must be standard deviations above 0, one or one for each of the {size} residuals, or a "
                f"covariance matrix of shape ({size}, {size}); got shape {given.shape}"
            )
        factor = factor / given.ravel()
    return lambda values: factor * values


def inverse_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of the lower Cholesky factor: it makes residuals of that covariance independent.

    Raises:
        InvalidInputError: the matrix is not symmetric, or not positive definite.
    """
    from scipy.linalg import solve_triangular

    sizes = np.sqrt(np.abs(np.diagonal(covariance)))
    apart = np.abs(covariance - covariance.T) > _SYMMETRIC * np.outer(sizes, sizes)
    if apart.any():
        i, j = np.argwhere(apart)[0].tolist()
        raise InvalidInputError(
            f"the covariance matrix of the noise is not symmetric: entry [{i}, {j}] is {covariance[i, j]}, entry "
            f"[{j}, {i}] is {covariance[j, i]}"
        )
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise InvalidInputError("the covariance matrix of the noise is not positive definite") from None
    return np.asarray(solve_triangular(root, np.eye(len(root)), lower=True))
