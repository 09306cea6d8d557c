"""What is to be solved, as a method sees it: functions of one flat vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .linearization import Linearization
from .losses import Loss
from .norms import euclidean_norm

__all__ = ["MESSAGES", "FloatVector", "Outcome", "Problem"]

FloatVector = NDArray[np.floating[Any]]


class Outcome(IntEnum):
    """Why a search ended. Positive values are successes; 1 to 3 have the meaning and numbers that SciPy gives them."""

    SLOW = -6
    UNBOUNDED = -5
    EVALUATION_LIMIT = -4
    TIME_LIMIT = -3
    STOPPED = -2
    NO_PROGRESS = -1
    ITERATION_LIMIT = 0
    GRADIENT = 1
    COST = 2
    STEP = 3
    WORKING_PRECISION = 5


MESSAGES: dict[Outcome, str] = {
    Outcome.GRADIENT: "Converged: the residual is zero, or orthogonal to every column of the Jacobian within gtol.",
    Outcome.COST: "Converged: a full Gauss-Newton step promises a reduction of the cost below ftol.",
    Outcome.STEP: "Converged: a full Gauss-Newton step is shorter than xtol allows.",
    Outcome.WORKING_PRECISION: "Converged to working precision: rounding leaves nothing to gain.",
    Outcome.ITERATION_LIMIT: "Not converged: max_iterations reached.",
    Outcome.SLOW: "Not converged: the steps hardly gain anything.",
    Outcome.UNBOUNDED: "Not converged: the value falls without end.",
    Outcome.TIME_LIMIT: "Not converged: max_seconds reached.",
    Outcome.EVALUATION_LIMIT: "Not converged: max_evaluations reached.",
    Outcome.STOPPED: "Stopped by the callback.",
    Outcome.NO_PROGRESS: (
        "Not converged: no step along the Jacobian reduces the cost, although its gradient is not zero. "
        "The residual may have a kink or a jump here, or its values may be less precise than its dtype."
    ),
}
"""What each outcome is called in `LeastSquaresResult.message`."""


@dataclass(frozen=True)
class Problem:
    """Functions of a flat vector x of shape (N,), moved by steps of shape (n,); n = N unless `retract` says otherwise.

    Attributes:
        residual: x -> r, shape (m,).
        linearise: x -> (r, J): J of shape (m, n) is the derivative by the step, an ndarray, a sparse matrix or a
            ``LinearOperator``.
        loss: a robust loss, or None for the sum of squares.
        retract: (x, step) -> x after the step; None for ``x + step``.
        magnitude: x -> the sizes of the parameters in the units of a step, shape (n,); None for ``abs(x)``.
        curvature: (x, step) -> second derivative of the residual along the step, shape (m,), for geodesic
            acceleration.
        lower, upper: bounds of x, shape (n,), for methods that know them; None for no bound.
        scale: D of the trust region, shape (n,), where it is not to follow the columns of the Jacobian.
    """

    residual: Callable[[FloatVector], NDArray[Any]]
    linearise: Callable[[FloatVector], tuple[NDArray[Any], Any]]
    loss: Loss | None = None
    retract: Callable[[FloatVector, FloatVector], FloatVector] | None = None
    magnitude: Callable[[FloatVector], FloatVector] | None = None
    curvature: Callable[[FloatVector, FloatVector], NDArray[Any]] | None = None
    lower: FloatVector | None = None
    upper: FloatVector | None = None
    scale: NDArray[np.float64] | None = None

    def at(self, x: FloatVector) -> Linearization:
        """Return the linearization at x, with the loss taken into account."""
        return self.modelled(*self.linearise(x))

    def modelled(self, residual: NDArray[Any], jacobian: Any) -> Linearization:
        """Return the linearization for a residual and Jacobian that are already known."""
        point = Linearization.of(residual, jacobian)
        if self.loss is None or not math.isfinite(point.norm) or not point.finite:
            return point
        return self.loss.robustified(point)

    def norm_at(self, x: FloatVector) -> float:
        """Return the square root of twice the cost at x; NaN or inf where it is not finite."""
        values = np.asarray(self.residual(x), dtype=np.float64)
        return euclidean_norm(values) if self.loss is None else math.sqrt(2.0 * self.loss.cost(values))

    def moved(self, x: FloatVector, step: FloatVector) -> FloatVector:
        """Return x after a step, in the dtype of x."""
        if self.retract is not None:
            return self.retract(x, step)
        return (x + step).astype(x.dtype, copy=False)

    def size(self, x: FloatVector) -> FloatVector:
        """Return the magnitudes of the parameters, shape (n,)."""
        return np.abs(x) if self.magnitude is None else self.magnitude(x)
