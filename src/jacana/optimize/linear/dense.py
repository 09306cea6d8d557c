"""Dense Jacobians: one factorisation, any number of steps.

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
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from ...errors import InvalidInputError
from ..linearization import Linearization
from ..norms import euclidean_norm
from .base import Factors, LinearSolver, Step

__all__ = ["DenseFactors", "DenseQR", "factorise"]

Float64Array = NDArray[np.float64]

_RADIUS_TOLERANCE = 0.1  # Moré 1978, section 5: the step's length need only be within 10 % of the radius
_SECULAR_ITERATIONS = 25
_ALONE = 8000  # entries of a matrix up to which BLAS works in the calling thread on a reflection of it
_WIDE = 16  # columns from which that is worth while
_TALLER = 1.2  # times as high as wide must stacks of rows be to become fewer
_BY_ITERATION = range(26, 101)  # sizes of which divide and conquer asks BLAS for threads, to no avail
_QR_BLOCK = 32  # columns that LAPACK updates at once, where there is work space for them


@dataclass(frozen=True, eq=False)
class DenseFactors(Factors):
    """``J D^-1 = U S V^T`` without U, and ``u = U^T r``, for singular values that are not negligible.

    Attributes:
        singular_values: the k retained singular values of J D^-1 in falling order; k is the numerical rank.
        rows: the k right singular vectors as rows, shape (k, n).
        projected: u, shape (k,).
        scale: D, shape (n,).
        unit: slopes are relative to its square.
    """

    singular_values: Float64Array
    rows: Float64Array
    projected: Float64Array
    scale: Float64Array
    unit: float = 1.0

    @property
    def rank(self) -> int:
        return self.singular_values.size

    @cached_property
    def decrement(self) -> float:
        return euclidean_norm(self.projected)

    @property
    def gradient_norm(self) -> float:
        return euclidean_norm(self.singular_values * self.projected)

    @property
    def full_length(self) -> float:
        return euclidean_norm(self.projected / self.singular_values)

    def damped(self, damping: float) -> Step:
        s, u = self.singular_values, self.projected
        coordinates = -(s * u) / (s * s + damping) if damping > 0.0 else -u / s
        return self._step(coordinates, euclidean_norm(coordinates), damping)

    def answered(self, gradient: Float64Array, damping: float) -> Float64Array:
        square = self.singular_values**2 + damping
        coordinates = -(self.rows @ (gradient / self.scale)) / square
        return coordinates @ self.rows / self.scale

    def downhill(self) -> Step:
        coordinates = -(self.singular_values * self.projected)
        return self._step(coordinates, euclidean_norm(coordinates), math.inf)

    def evaluated(self, step: Float64Array) -> Step:
        coordinates = self.rows @ (self.scale * step)
        # What lies in the null space has a length but no image.
        trial = self._step(coordinates, euclidean_norm(self.scale * step), math.inf)
        return Step(step, self.scale * step, trial.image, trial.slope, math.inf, trial.length, trial.linear_norm)

    def within(self, radius: float) -> Step:
        s, u = self.singular_values, self.projected
        coordinates = -u / s
        length = euclidean_norm(coordinates)
        damping = 0.0
        if length > radius:
            damping, coordinates, length = self._damped(radius, coordinates, length)
        return self._step(coordinates, length, damping)

    def _step(self, coordinates: Float64Array, length: float, damping: float) -> Step:
        image = self.singular_values * coordinates
        slope = -float((self.projected / self.unit).dot(image / self.unit))
        step = coordinates @ self.rows / self.scale
        return Step(step, coordinates, image, slope, damping, length, euclidean_norm(image))

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


@dataclass(frozen=True)
class DenseQR(LinearSolver):
    """QR of the Jacobian with the residual beside it, then the singular values of the small triangle.

    The most accurate solver, the only one that sees the rank, and one whose damped steps cost next to nothing after
    the first. For ndarrays of up to a few hundred columns.

    >>> point = Linearization.of(np.array([3.0, 4.0]), np.diag([1.0, 2.0]))
    >>> DenseQR().factorise(point, np.ones(2), point.norm).full.step
    array([-3., -2.])
    """

    damps = False

    def factorise(
        self, point: Linearization, scale: Float64Array, unit: float, extra: Float64Array | None = None
    ) -> DenseFactors:
        jacobian, residual = point.jacobian, point.residual
        if not point.dense:
            if not point.sparse:
                raise InvalidInputError(
                    "a dense linear solver needs the Jacobian as a matrix, not as an operator; use linear_solver='lsmr'"
                )
            jacobian = jacobian.toarray()
        if extra is not None and extra.any():
            jacobian = np.concatenate((jacobian, np.diag(np.sqrt(extra))))
            residual = np.concatenate((residual, np.zeros(extra.size)))
        return factorise(jacobian, residual, scale, unit)


def factorise(jacobian: Float64Array, residual: Float64Array, scale: Float64Array, unit: float = 1.0) -> DenseFactors:
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
    height = _ALONE // (n + 1)
    if n >= _WIDE and m > height >= _TALLER * (n + 1):
        augmented = _shortened(augmented, height)
    # One QR of [J r] leaves a small triangle with U^T r beside it: the tall Q is never formed. LAPACK is called
    # directly, as NumPy's wrappers take longer than the arithmetic of a small fit.
    packed, _, _, status = lapack.dgeqrf(augmented, overwrite_a=True, lwork=_QR_BLOCK * (n + 1))
    k = min(packed.shape[0], n)
    triangle = np.where(_upper(k, n), packed[:k, :n], 0.0)
    if k in _BY_ITERATION:
        left, s, rows, svd_status = lapack.dgesvd(triangle, full_matrices=False, lwork=5 * max(k, n))
    else:
        left, s, rows, svd_status = lapack.dgesdd(triangle, full_matrices=False)
    if svd_status > 0:
        # Divide and conquer fails on a matrix in a million or so; the slower iteration does not.
        left, s, rows, svd_status = lapack.dgesvd(triangle, full_matrices=False)
    if status != 0 or svd_status != 0 or not np.isfinite(s[0]):
        raise np.linalg.LinAlgError("the Jacobian cannot be factorised; are all its entries finite?")
    projected = packed[:k, n] @ left
    threshold = max(m, n) * np.finfo(np.float64).eps * float(s[0])
    rank = k if s[-1] > threshold else int(np.count_nonzero(s > threshold))
    return DenseFactors(s[:rank], rows[:rank], projected[:rank], scale, unit)


def _shortened(matrix: Float64Array, height: int) -> Float64Array:
    """Fewer rows with the same ``matrix.T @ matrix``: the triangles of stacks of `height` rows.

    BLAS would share each product of a reflection with a tall matrix among its threads, and on busy cores they wait for
    one another far longer than they work (J. Demmel et al., "Communication-optimal parallel and sequential QR and LU
    factorizations", SIAM J. Sci. Comput. 34(1), 2012: the order of the tree does not matter for stability).
    """
    m, width = matrix.shape
    while m > height and (count := -(-m // height)) * width < m:
        stacks = np.zeros((count * height, width))
        stacks[:m] = matrix
        triangles: Float64Array = np.asarray(np.linalg.qr(stacks.reshape(count, height, width), mode="r"))
        matrix = triangles.reshape(-1, width)
        m = len(matrix)
    return np.asfortranarray(matrix)


@lru_cache(64)
def _upper(k: int, n: int) -> NDArray[np.bool_]:
    return np.tri(n, k, dtype=bool).T.copy()  # NumPy's triu makes it anew each time
