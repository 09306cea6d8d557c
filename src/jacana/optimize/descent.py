"""Newton's method for minima: the quadratic model at a point, and the trust region around it.

The model's minimiser within the region comes from the eigenvalues of a small Hessian; from a Cholesky factorisation and
the dogleg, where a larger one (dense or sparse) is positive definite; and from conjugate gradients, where it is not or
only multiplies vectors.

Sources: J. J. Moré and D. C. Sorensen, "Computing a trust region step", SIAM J. Sci. Stat. Comput. 4(3), 1983, for the
exact minimiser; T. Steihaug, "The conjugate gradient method and trust regions in large scale optimization", SIAM J.
Numer. Anal. 20(3), 1983; C.-J. Lin and J. J. Moré, "Newton's method for large bound-constrained optimization problems",
SIAM J. Optim. 9(4), 1999, for bounds: steps are projected, and never worse than the projected gradient's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .linear.definite import definite_solver
from .linear.normal import SolveFailed
from .norms import dot, euclidean_norm

__all__ = ["QuadraticModel"]

Float64Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_EIGEN = 100  # unknowns up to which eigenvalues are worth their price
_RADIUS_TOLERANCE = 0.05  # an exact step on the boundary need only be this near to it
_SECULAR_ITERATIONS = 40
_FLAT = 1e-14  # eigenvalues this small, relative to the largest, are zero
_ENOUGH = 0.01  # part of the linear reduction that the projected gradient step must make (Lin and Moré 1999, (2.2))


@dataclass(frozen=True, eq=False)
class QuadraticModel:
    """``f + g @ p + 0.5 p @ H p`` around a point, for steps of the free variables.

    Attributes:
        gradient: g, shape (n,), float64.
        hessian: H, shape (n, n), symmetric: an ndarray, a CSR matrix, or an operator.
        scale: D, positive, shape (n,): lengths of steps are ``|D p|``.
        free: which variables may move, shape (n,).
        accuracy: relative size of the linear residual at which conjugate gradients stop.
    """

    gradient: Float64Array
    hessian: Any
    scale: Float64Array
    free: Mask
    accuracy: float = 1e-3

    def change(self, step: Float64Array) -> float:
        """Return the model's value at a step less that at the point."""
        return dot(self.gradient, step) + 0.5 * dot(step, np.asarray(self.hessian @ step).ravel())

    @cached_property
    def scaled_gradient(self) -> Float64Array:
        """``D^-1 g`` of the free variables."""
        scaled: Float64Array = (self.gradient / self.scale)[self.free]
        return scaled

    @cached_property
    def newton(self) -> Float64Array | None:
        """Newton's step in scaled free variables; None where H is not positive definite there, or an operator."""
        if self._eigen is not None:
            values, vectors = self._eigen
            if values.size and values[0] <= _FLAT * np.abs(values).max():
                return None
            step: Float64Array = -vectors @ ((self.scaled_gradient @ vectors) / values)
            return step
        if self._matrix is None:
            return None
        try:
            found = definite_solver(self._matrix)(-self.scaled_gradient)
        except SolveFailed:
            return None
        return found if np.isfinite(found).all() else None

    @property
    def promise(self) -> float:
        """By how much Newton's step would reduce the value; inf where there is none."""
        return math.inf if self.newton is None else -self.change(self._unscaled(self.newton))

    @property
    def positive(self) -> bool | None:
        """Whether H has no negative curvature among the free variables; None where that is not known."""
        if self._eigen is not None:
            values = self._eigen[0]
            return not values.size or bool(values[0] >= -1e3 * _FLAT * np.abs(values).max())
        return True if self.newton is not None else None

    def within(self, radius: float) -> tuple[Float64Array, bool]:
        """Return a step p of the free variables, shape (n,), that minimises the model over ``|D p| <= radius`` (to
        first order at least), and whether it is Newton's."""
        newton = self.newton
        full = newton is not None and euclidean_norm(newton) <= radius
        if newton is not None and full:
            scaled = newton
        elif self._eigen is not None:
            scaled = _exact(*self._eigen, self.scaled_gradient, radius)
        elif newton is not None:
            scaled = self._dogleg(newton, radius)
        else:
            scaled = self._steihaug(radius)
        return self._unscaled(scaled), full

    def projected_gradient(self, x: NDArray[Any], lower: Float64Array, upper: Float64Array, radius: float) -> Any:
        """Return the step along the projected gradient that makes the model small enough, shape (n,)."""
        direction = np.where(self.free, -self.gradient / self.scale**2, 0.0)
        length = euclidean_norm(self.scale * direction)
        if length == 0.0:
            return direction
        curved = dot(direction, np.asarray(self.hessian @ direction).ravel())
        reach = radius / length
        if curved > 0.0:
            reach = min(reach, -dot(self.gradient, direction) / curved)
        for _ in range(60):
            step = np.clip(x + reach * direction, lower, upper) - x
            if self.change(step) <= _ENOUGH * dot(self.gradient, step):
                break
            reach *= 0.5
        return step

    # ---- pieces ----

    @cached_property
    def _matrix(self) -> Any:
        """``D^-1 H D^-1`` of the free variables, None for an operator."""
        every = bool(self.free.all())
        if isinstance(self.hessian, np.ndarray):
            scaled = self.hessian / self.scale / self.scale[:, None]
            return scaled if every else scaled[np.ix_(self.free, self.free)]
        if not hasattr(self.hessian, "indptr"):
            return None
        rows = np.repeat(self.scale, np.diff(self.hessian.indptr))
        data = self.hessian.data / (rows * self.scale[self.hessian.indices])
        matrix = type(self.hessian)((data, self.hessian.indices, self.hessian.indptr), shape=self.hessian.shape)
        if every:
            return matrix
        kept = np.flatnonzero(self.free)
        return matrix[kept][:, kept]

    @cached_property
    def _eigen(self) -> tuple[Float64Array, Float64Array] | None:
        if self._matrix is None or self._matrix.shape[0] > _EIGEN:
            return None
        matrix = self._matrix if isinstance(self._matrix, np.ndarray) else self._matrix.toarray()
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
        return values, vectors

    def _product(self, scaled: Float64Array) -> Float64Array:
        if self._matrix is not None:
            return np.asarray(self._matrix @ scaled)
        return np.asarray((np.ravel(self.hessian @ self._unscaled(scaled)) / self.scale)[self.free])

    def _unscaled(self, scaled: Float64Array) -> Float64Array:
        step = np.zeros(self.free.size)
        step[self.free] = scaled / self.scale[self.free]
        return step

    def _dogleg(self, newton: Float64Array, radius: float) -> Float64Array:
        g = self.scaled_gradient
        square = dot(g, g)
        cauchy = -(square / dot(g, self._product(g))) * g
        length = euclidean_norm(cauchy)
        if length >= radius:
            return cauchy * (radius / length)
        return cauchy + _to_boundary(cauchy, newton - cauchy, radius) * (newton - cauchy)

    def _steihaug(self, radius: float) -> Float64Array:
        g = self.scaled_gradient
        step, rest = np.zeros(g.size), -g
        direction = rest
        square = dot(rest, rest)
        enough = (self.accuracy * euclidean_norm(g)) ** 2
        for _ in range(10 * g.size + 10):
            if square <= enough:
                break
            image = self._product(direction)
            curved = dot(direction, image)
            if curved <= 0.0:
                return step + _to_boundary(step, direction, radius) * direction
            stride = square / curved
            further = step + stride * direction
            if euclidean_norm(further) >= radius:
                return step + _to_boundary(step, direction, radius) * direction
            step, rest = further, rest - stride * image
            before, square = square, dot(rest, rest)
            direction = rest + (square / before) * direction
        return step


def _to_boundary(start: Float64Array, direction: Float64Array, radius: float) -> float:
    """The t >= 0 with ``|start + t direction| = radius``."""
    a, b = dot(direction, direction), dot(start, direction)
    c = max(radius * radius - dot(start, start), 0.0)
    root = math.sqrt(b * b + a * c)
    # Whichever of the two forms does not cancel.
    return c / (b + root) if b > 0.0 else (root - b) / a


def _exact(values: Float64Array, vectors: Float64Array, gradient: Float64Array, radius: float) -> Float64Array:
    """The minimiser on the boundary, from the eigenvalues in rising order: ``-(H + lam)^-1 g`` for the lam that makes
    its length the radius, and some of the lowest eigenvector where no lam does (the hard case)."""
    c = gradient @ vectors
    size = max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    low = max(0.0, -float(values[0]))
    norm = euclidean_norm(c)
    regular = values + low > _FLAT * size
    inner = np.where(regular, -c / np.where(regular, values + low, 1.0), 0.0)
    length = euclidean_norm(inner)
    if length <= radius and euclidean_norm(c[~regular]) <= _FLAT * max(norm, size * radius):
        # The gradient has no part along the lowest eigenvectors: go down there as far as the region allows.
        if not regular[0] and (values[0] < -_FLAT * size or c[0] != 0.0):
            inner[0] = math.copysign(math.sqrt(max(radius**2 - length**2, 0.0)), -c[0])
        return np.asarray(vectors @ inner)
    high = max(norm / radius - float(values[0]), low)
    shift = max(1e-3 * (high - low), 0.0) + low
    step = inner
    for _ in range(_SECULAR_ITERATIONS):
        denominator = values + shift
        step = -c / denominator
        length = euclidean_norm(step)
        if abs(length - radius) <= _RADIUS_TOLERANCE * radius:
            break
        low, high = (max(low, shift), high) if length > radius else (low, min(high, shift))
        slope = float(np.sum(step * step / denominator)) / length**2
        shift += (length - radius) / radius / slope
        if not low < shift < high:
            shift = max(1e-3 * high, math.sqrt(low * high)) if low > 0.0 or high > 0.0 else high
            if not low < shift < high:
                shift = 0.5 * (low + high)
    return np.asarray(vectors @ step) * min(1.0, radius / length)
