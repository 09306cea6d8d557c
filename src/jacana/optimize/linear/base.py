"""What a method asks of the linear algebra: steps of one quadratic model, at any damping.

The model at a point is ``0.5 |r + J p|^2 + 0.5 p^T E p`` with a diagonal ``E >= 0`` that is zero unless bounds put
something there. A `LinearSolver` turns a `Linearization` into `Factors`; `Factors` give steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..linearization import Linearization
from ..norms import dot, euclidean_norm

__all__ = ["Factors", "LinearSolver", "Step"]

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Step:
    """A trial step p and what the model says of it. Steps of one model can be scaled and added.

    Attributes:
        step: p, shape (n,).
        scaled: D p in some orthonormal coordinates; its norm is `length`.
        image: J p in some orthonormal coordinates (with the square root of E p behind it); its norm is `linear_norm`.
        slope: ``-gradient @ p`` over the squared unit of the model, above 0 for a descent direction.
        damping: the Levenberg-Marquardt parameter; 0 for a full Gauss-Newton step.
        length, linear_norm: see above.
    """

    step: Float64Array
    scaled: Float64Array
    image: Float64Array
    slope: float
    damping: float
    length: float
    linear_norm: float

    @property
    def full(self) -> bool:
        """Whether this is the Gauss-Newton step."""
        return self.damping == 0.0

    def times(self, factor: float) -> Step:
        """Return ``factor * p``."""
        size = abs(factor)
        return Step(
            factor * self.step,
            factor * self.scaled,
            factor * self.image,
            factor * self.slope,
            self.damping if factor == 1.0 else math.inf,
            size * self.length,
            size * self.linear_norm,
        )

    def plus(self, other: Step, factor: float = 1.0) -> Step:
        """Return ``p + factor * other``."""
        scaled = self.scaled + factor * other.scaled
        image = self.image + factor * other.image
        return Step(
            self.step + factor * other.step,
            scaled,
            image,
            self.slope + factor * other.slope,
            math.inf,
            euclidean_norm(scaled),
            euclidean_norm(image),
        )


class Factors(ABC):
    """One linearization, scaled and made ready for steps.

    Attributes:
        scale: D, positive, shape (n,): lengths of steps are ``|D p|``.
        unit: what residuals are measured in: slopes are relative to its square.
        rank: numerical rank of J, or n where the solver does not tell.
    """

    scale: Float64Array
    unit: float

    @property
    @abstractmethod
    def rank(self) -> int: ...

    @property
    @abstractmethod
    def gradient_norm(self) -> float:
        """Norm of the scaled gradient ``D^-1 J^T r``."""

    @abstractmethod
    def damped(self, damping: float) -> Step:
        """Return the minimiser of the model with ``0.5 damping |D p|^2`` added."""

    @abstractmethod
    def answered(self, gradient: Float64Array, damping: float) -> Float64Array:
        """Return the step that the same damped model takes against another gradient, shape (n,)."""

    @abstractmethod
    def downhill(self) -> Step:
        """Return the direction of steepest descent in scaled parameters, of any length."""

    @abstractmethod
    def evaluated(self, step: Float64Array) -> Step:
        """Return any change of the parameters, shape (n,), with what the model says of it."""

    @abstractmethod
    def within(self, radius: float) -> Step:
        """Return the minimiser of the model over ``|D p| <= radius`` (to 10 % of the radius)."""

    @cached_property
    def full(self) -> Step:
        """The Gauss-Newton step (of least length, where the rank is below n)."""
        return self.damped(0.0)

    @property
    def decrement(self) -> float:
        """Norm of the part of r that a Gauss-Newton step removes, 0 at a stationary point.

        Over the norm of r this is (up to the degrees of freedom) the relative offset of D. M. Bates and D. G. Watts,
        "A relative offset orthogonality convergence criterion for nonlinear least squares", Technometrics 23(2),
        1981. It depends neither on the units of the parameters nor on the damping.
        """
        return self.full.linear_norm

    @property
    def full_length(self) -> float:
        """Scaled length of the Gauss-Newton step."""
        return self.full.length

    @cached_property
    def cauchy(self) -> Step:
        """The minimiser of the model along the direction of steepest descent."""
        direction = self.downhill()
        curved = (direction.linear_norm / self.unit) ** 2
        return direction.times(direction.slope / curved) if curved > 0.0 else direction.times(0.0)


class LinearSolver(ABC):
    """A way to solve the linear problems of a method. Small, frozen, shared by any number of searches.

    Attributes:
        damps: whether each damping costs a factorisation of its own, so that methods had better choose the damping
            and not the length of a step.
    """

    damps: bool = True

    @abstractmethod
    def factorise(
        self, point: Linearization, scale: Float64Array, unit: float, extra: Float64Array | None = None
    ) -> Factors:
        """Return the factors of the model at `point`.

        Args:
            point: residual (m,) and Jacobian (m, n).
            scale: D, positive, shape (n,).
            unit: positive; slopes are relative to its square.
            extra: the diagonal E, shape (n,), or None for zero.

        Raises:
            InvalidInputError: this solver cannot take a Jacobian of this format.
            LinAlgError: an entry is not finite.
        """


def evaluate_step(
    point: Linearization, scale: Float64Array, unit: float, extra: Float64Array | None, step: Any, damping: float
) -> Step:
    """Return a step with its products, computed from the Jacobian itself."""
    image = point.apply(step)
    # Not by the gradient, which overflows where the residual and the Jacobian are both large.
    slope = -dot(image / unit, point.residual / unit)
    if extra is not None:
        image = np.concatenate((image, np.sqrt(extra) * step))
    scaled = scale * step
    return Step(step, scaled, image, slope, damping, euclidean_norm(scaled), euclidean_norm(image))
