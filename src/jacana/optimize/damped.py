"""The linear half of a Levenberg-Marquardt step: one factorisation of a Jacobian, any number of damped steps.

For a Jacobian J, residual r and positive column scales D, everything a trust-region method asks for follows from
``J D^-1 = U S V^T`` and ``u = U^T r``. The scaled step of damping `lam` is ``q = -V (S u / (S^2 + lam))``, its length
is known without forming it, the limit lam -> 0 is the Gauss-Newton step of least length, and small singular values
are seen for what they are. J^T J is never formed: that would square the condition number.

Squares may overflow on the way to a result that does not; NumPy's floating-point warnings are for the caller to
silence.

Sources: J. J. Moré, "The Levenberg-Marquardt algorithm: implementation and theory", in Numerical Analysis (Dundee
1977), LNM 630, 1978, sections 4-6, for the scaling and for the iteration on lam; T. F. Chan, "An improved algorithm
for computing the singular value decomposition", ACM TOMS 8(1), 1982, for taking the QR factorisation first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

__all__ = ["DampedStep", "Factors", "column_norms", "euclidean_norm", "factorise"]

Float64Array = NDArray[np.float64]

_LARGE, _SMALL = 1e140, 1e-140  # squares of numbers between these neither overflow nor lose digits
_RADIUS_TOLERANCE = 0.1  # Moré 1978, section 5: the step's length need only be within 10 % of the radius
_SECULAR_ITERATIONS = 25
_QR_BLOCK = 32  # columns that LAPACK updates at once, where there is work space for them


@dataclass(frozen=True)
class DampedStep:
    """A step within the trust region.

    Attributes:
        step: change of the parameters, shape (n,).
        length: norm of the scaled step D step.
        damping: the Levenberg-Marquardt parameter that gives this length; 0 for a full Gauss-Newton step.
        linear_norm: norm of J step, how far the linear model moves the residual.
    """

    step: Float64Array
    length: float
    damping: float
    linear_norm: float


@dataclass(frozen=True)
class Factors:
    """``J D^-1 = U S V^T`` without U, and ``u = U^T r``, for singular values that are not negligible.

    Attributes:
        singular_values: the k retained singular values of J D^-1 in falling order; k is the numerical rank.
        rows: the k right singular vectors as rows, shape (k, n).
        projected: u, shape (k,).
        scale: D, shape (n,).
    """

    singular_values: Float64Array
    rows: Float64Array
    projected: Float64Array
    scale: Float64Array

    @property
    def rank(self) -> int:
        return self.singular_values.size

    @property
    def decrement(self) -> float:
        """Norm of the part of r that a Gauss-Newton step removes, 0 at a stationary point.

        Over the norm of r this is (up to the degrees of freedom) the relative offset of D. M. Bates and D. G. Watts,
        "A relative offset orthogonality convergence criterion for nonlinear least squares", Technometrics 23(2),
        1981. It depends neither on the units of the parameters nor on the damping.
        """
        return euclidean_norm(self.projected)

    @property
    def gradient_norm(self) -> float:
        """Norm of the scaled gradient D^-1 J^T r."""
        return euclidean_norm(self.singular_values * self.projected)

    @property
    def full_length(self) -> float:
        """Scaled length of the undamped Gauss-Newton step."""
        return euclidean_norm(self.projected / self.singular_values)

    def step_within(self, radius: float) -> DampedStep:
        """Return the minimiser of \\|r + J p\\| over the ellipsoid \\|D p\\| <= radius (to 10 % of the radius)."""
        s, u = self.singular_values, self.projected
        coordinates = -u / s
        length = euclidean_norm(coordinates)
        damping = 0.0
        if length > radius:
            damping, coordinates, length = self._damped(radius, coordinates, length)
        return DampedStep(coordinates @ self.rows / self.scale, length, damping, euclidean_norm(s * coordinates))

    def _damped(self, radius: float, full: Float64Array, full_length: float) -> tuple[float, Float64Array, float]:
        # Newton's method on the secular equation 1/radius - 1/length(lam) = 0, nearly linear in lam, kept between
        # bounds that it tightens as it goes (Moré 1978, section 5; Hebden 1973).
        s, u = self.singular_values, self.projected
        square = s * s
        gradient = s * u
        upper = euclidean_norm(gradient) / radius
        direction = full / s
        lower = (full_length - radius) / radius * (full_length / euclidean_norm(direction)) ** 2
        lower = lower if lower < upper else 0.0
        damping, coordinates, length = lower, full, full_length
        for _ in range(_SECULAR_ITERATIONS):
            if not lower <= damping <= upper or damping == 0.0:
                damping = max(1e-3 * upper, math.sqrt(lower * upper))
            denominator = square + damping
            coordinates = -gradient / denominator
            length = euclidean_norm(coordinates)
            excess = length - radius
            if abs(excess) <= _RADIUS_TOLERANCE * radius:
                break
            if excess > 0.0:
                lower = max(lower, damping)
            else:
                upper = min(upper, damping)
            unit = coordinates / length
            damping += (excess / length) / float(unit.dot(unit / denominator)) * (length / radius)
        return damping, coordinates, length


def factorise(jacobian: Float64Array, residual: Float64Array, scale: Float64Array) -> Factors:
    """Factorise ``jacobian / scale``, shape (m, n), together with `residual`, shape (m,); m may be less than n.

    Singular values below ``max(m, n) * eps`` times the largest are dropped with their directions: along those the
    residual tells nothing, and the step of least length has no part.

    Raises:
        LinAlgError: an entry is not finite.
    """
    m, n = jacobian.shape
    augmented = np.empty((m, n + 1), order="F")
    np.divide(jacobian, scale, out=augmented[:, :n])
    augmented[:, n] = residual
    # One QR of [J r] leaves a small triangle with U^T r beside it: the tall Q is never formed. LAPACK is called
    # directly, as NumPy's wrappers take longer than the arithmetic of a small fit.
    packed, _, _, status = lapack.dgeqrf(augmented, overwrite_a=True, lwork=_QR_BLOCK * (n + 1))
    k = min(m, n)
    left, s, rows, svd_status = lapack.dgesdd(np.triu(packed[:k, :n]), full_matrices=False)
    if svd_status > 0:
        # Divide and conquer fails on a matrix in a million or so; the slower iteration does not.
        left, s, rows, svd_status = lapack.dgesvd(np.triu(packed[:k, :n]), full_matrices=False)
    if status != 0 or svd_status != 0:
        raise np.linalg.LinAlgError("the Jacobian cannot be factorised; are all its entries finite?")
    projected = packed[:k, n] @ left
    threshold = max(m, n) * np.finfo(np.float64).eps * float(s[0])
    rank = k if s[-1] > threshold else int(np.count_nonzero(s > threshold))
    return Factors(s[:rank], rows[:rank], projected[:rank], scale)


def column_norms(matrix: Float64Array) -> Float64Array:
    """Return the Euclidean norms of the columns, shape (n,), for entries of any magnitude."""
    squares: Float64Array = np.einsum("ij,ij->j", matrix, matrix)
    if squares.max() < _LARGE**2 and squares.min() > _SMALL**2:
        return np.sqrt(squares)
    largest = np.abs(matrix).max(axis=0)
    divisor = np.where(largest > 0.0, largest, 1.0)
    norms: Float64Array = largest * np.sqrt(((matrix / divisor) ** 2).sum(axis=0))
    return norms


def euclidean_norm(vector: NDArray[Any]) -> float:
    """Return the Euclidean norm of a vector of any magnitude; NaN if it has a NaN."""
    square = float(vector @ vector)
    if _SMALL**2 < square < _LARGE**2:
        return math.sqrt(square)
    largest = float(np.abs(vector).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    scaled = vector / largest
    return largest * math.sqrt(float(scaled @ scaled))
