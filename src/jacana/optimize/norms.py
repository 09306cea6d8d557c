"""Euclidean norms of vectors and columns whose squares may overflow or vanish."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["column_norms", "dot", "euclidean_norm"]

_LARGE, _SMALL = 1e140, 1e-140  # squares of numbers between these neither overflow nor lose digits
_LONG = 10_000  # numbers from which BLAS takes threads for an inner product


def column_norms(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean norms of the columns, shape (n,), for entries of any magnitude."""
    squares: NDArray[np.float64] = np.einsum("ij,ij->j", matrix, matrix)
    if squares.max(initial=1.0) < _LARGE**2 and squares.min(initial=1.0) > _SMALL**2:
        return np.sqrt(squares)
    largest = np.abs(matrix).max(axis=0, initial=0.0)
    divisor = np.where(largest > 0.0, largest, 1.0)
    norms: NDArray[np.float64] = largest * np.sqrt(((matrix / divisor) ** 2).sum(axis=0))
    return norms


def dot(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the inner product of two vectors.

    BLAS spreads long ones over threads, which takes longer to arrange than to compute, and many times longer where
    the cores are busy.
    """
    return float(one @ other) if one.size < _LONG else float(np.einsum("i,i->", one, other))


def euclidean_norm(vector: NDArray[Any]) -> float:
    """Return the Euclidean norm of a vector of any magnitude; NaN if it has a NaN."""
    square = dot(vector, vector)
    if _SMALL**2 < square < _LARGE**2:
        return math.sqrt(square)
    largest = float(np.abs(vector).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    scaled = vector / largest
    return largest * math.sqrt(dot(scaled, scaled))
