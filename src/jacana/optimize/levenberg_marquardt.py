"""Levenberg-Marquardt with a scaled trust region: the solver as a small frozen object, its state as a separate value.

    >>> import numpy as np
    >>> def linearise(x):                       # residual and Jacobian of Rosenbrock's function
    ...     return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]), np.array([[-20 * x[0], 10.0], [-1.0, 0.0]])
    >>> problem = Problem(residual=lambda x: linearise(x)[0], linearise=linearise)
    >>> solver = LevenbergMarquardt()
    >>> state = solver.init(problem, np.array([-1.2, 1.0]))
    >>> while (outcome := solver.terminate(state)) is None:
    ...     state = solver.step(problem, state)
    >>> outcome > 0, state.x.round(12)
    (True, array([1., 1.]))

`jacana.least_squares` is this loop with the Jacobian, the checks and the result around it.

Sources: J. J. Moré, "The Levenberg-Marquardt algorithm: implementation and theory", LNM 630, 1978 (scaling by the
largest column norms seen, radius update, step acceptance). Three things are different from MINPACK's `lmder`, which
follows the same paper:

* *The first radius* is the scaled length of the start, not 100 times that. Measured on the 54 NIST runs with each
  start perturbed by 5 % six ways, 16 of 324 runs miss the certified minimum with factor 100 and 4 with factor 1.
* *Convergence is judged by the undamped Gauss-Newton step*, never by the step taken. A step is short near the
  solution, but also where the region has shrunk; the Gauss-Newton step and the decrease it promises are small only
  near a stationary point.
* *The last digits.* The cost has only half the digits of the parameters: a step that would still gain eight digits in
  x changes the cost by less than its rounding error, and no gain ratio can be formed. From there on a step is
  accepted if it makes the decrement smaller (the part of the residual that a Gauss-Newton step would remove), which
  exact Jacobians give to full precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .damped import DampedStep, Factors, column_norms, euclidean_norm, factorise
from .parameters import FloatVector

__all__ = ["LevenbergMarquardt", "LevenbergMarquardtState", "Outcome", "Problem"]

Float64Array = NDArray[np.float64]

_ACCEPT = 1e-4  # least gain ratio of an accepted step (Moré 1978, section 6, as MINPACK has it)
_POOR, _GOOD = 0.25, 0.75  # gain ratios below and above which the region shrinks or grows
_UNMEASURABLE = 512.0  # a relative cost change of fewer roundings than this makes no gain ratio
_NEAR_ROUNDING = 32.0  # the same for the change of the residual, in units of the rounding of the parameters
_STALE_SCALE = 1e-3  # a column this much smaller than its scale may be dropped for its scale alone
_FLAT = 1e-6  # relative decrement below which a search that cannot go on has arrived all the same
_NEARLY_FLAT = 1e-4  # optimality above which a search is nowhere near a stationary point
_ZERO = 1e-290  # a residual this small has no digits left to improve


class Outcome(IntEnum):
    """Why a search ended. Positive values are successes; 1 to 3 have the meaning and numbers that SciPy gives them."""

    NO_PROGRESS = -1
    STOPPED = -2
    ITERATION_LIMIT = 0
    GRADIENT = 1
    COST = 2
    STEP = 3
    WORKING_PRECISION = 5


@dataclass(frozen=True)
class Problem:
    """What is to be solved: two functions of a flat parameter vector of shape (n,).

    Attributes:
        residual: x -> r, shape (m,).
        linearise: x -> (r, J), shapes (m,) and (m, n).
    """

    residual: Callable[[FloatVector], NDArray[Any]]
    linearise: Callable[[FloatVector], tuple[NDArray[Any], NDArray[Any]]]


@dataclass(frozen=True)
class LevenbergMarquardtState:
    """Where a search stands after `iteration` trial steps.

    Attributes:
        x: best parameters so far, shape (n,), in the dtype that the user's function sees.
        residual, jacobian: at x, shapes (m,) and (m, n), float64.
        norm: Euclidean norm of the residual (the cost is half its square).
        norms: of the columns of the Jacobian, shape (n,).
        scale: the largest column norms seen, shape (n,): the shape of the trust region.
        radius: of the trust region.
        factors: of the scaled Jacobian.
        eps: the coarser of the relative roundings of x and the residual.
        iteration: trial steps so far.
        residual_evaluations, jacobian_evaluations: points at which either was computed.
        accepted: the last trial became x.
        step_length: scaled length of the last trial step.
        stuck: no further trial can be made.
    """

    x: FloatVector
    residual: Float64Array
    jacobian: Float64Array
    norm: float
    norms: Float64Array
    scale: Float64Array
    radius: float
    factors: Factors
    eps: float
    iteration: int = 0
    residual_evaluations: int = 1
    jacobian_evaluations: int = 1
    accepted: bool = True
    step_length: float = math.inf
    stuck: bool = False

    @property
    def cost(self) -> float:
        """Half the sum of squares of the residual."""
        return 0.5 * self.norm * self.norm

    @property
    def rounding(self) -> float:
        """How far rounding the parameters alone moves the residual, about."""
        return self.eps * (float(self.norms @ np.abs(self.x)) + self.norm)

    @property
    def gradient(self) -> Float64Array:
        """Gradient of the cost, J^T r, shape (n,)."""
        return self.residual @ self.jacobian

    @property
    def optimality(self) -> float:
        """Largest cosine of the angle between the residual and a column of the Jacobian, 0 at a stationary point."""
        if self.norm == 0.0:
            return 0.0
        cosines = np.abs((self.residual / self.norm) @ self.jacobian) / np.where(self.norms > 0.0, self.norms, 1.0)
        return float(cosines.max())


@dataclass(frozen=True)
class LevenbergMarquardt:
    """The method and its settings.

    Attributes:
        max_iterations: trial steps, accepted or not.
        ftol: stop where a full Gauss-Newton step promises to reduce the cost by no more than this fraction.
        xtol: stop where that step is no longer than this fraction of the parameters, both scaled.
        gtol: stop where the cosine of the angle between the residual and every column of the Jacobian is no more than
            this.
        growth: factor by which the region outgrows a step that did as well as predicted.

    A tolerance of 0 switches its test off. Whatever the tolerances, the search ends where the Gauss-Newton step moves
    the residual by no more than rounding the parameters does: nothing can be gained beyond.
    """

    max_iterations: int = 2000
    ftol: float = 0.0
    xtol: float = 0.0
    gtol: float = 0.0
    growth: float = 2.0

    def init(
        self, problem: Problem, x: FloatVector, point: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> LevenbergMarquardtState:
        """Return the state at the start x, shape (n,). The residual and Jacobian there must be finite.

        A caller that has computed both already, perhaps to check them, hands them over as `point`.
        """
        values, jacobian = problem.linearise(x) if point is None else point
        residual, jacobian = _as_float64(values), _as_float64(jacobian)
        norms = column_norms(jacobian)
        scale = np.where(norms > 0.0, norms, 1.0)
        norm = euclidean_norm(residual)
        factors = factorise(jacobian, residual, scale)
        # The first Gauss-Newton step may be wild; the start itself says how large the parameters are. A start at 0 says
        # nothing, and there the scaled parameters' own unit, that of the residual, has to do.
        radius = euclidean_norm(scale * x) or norm or 1.0
        return LevenbergMarquardtState(
            x=x,
            residual=residual,
            jacobian=jacobian,
            norm=norm,
            norms=norms,
            scale=scale,
            radius=min(radius, factors.full_length or radius),
            factors=factors,
            eps=max(_eps(x.dtype), _eps(np.asarray(values).dtype)),
        )

    def step(self, problem: Problem, state: LevenbergMarquardtState) -> LevenbergMarquardtState:
        """Make one trial step from `state` and return the state after it, at the new point or at the old one."""
        # Near the end the radius is the work of rounding errors as much as of the model: try the full step first there.
        trial = state.factors.step_within(math.inf if state.accepted and _polishing(state) else state.radius)
        x: FloatVector = (state.x + trial.step).astype(state.x.dtype)
        if not np.isfinite(x).all():
            return _stayed(state, trial, 0.1)
        if np.array_equal(x, state.x):
            return _stayed(state, trial, 0.1, stuck=True)

        # Relative changes of the squared norm, as the linear model has them (Moré 1978, section 6).
        moved, damped = trial.linear_norm / state.norm, trial.length / state.norm
        slope = moved * moved + trial.damping * damped * damped
        predicted = slope + trial.damping * damped * damped
        measurable = _measurable(state, predicted, trial.linear_norm)
        # A damped step may be too short to measure because the region collapsed, far from any stationary point.
        measurable = measurable or (trial.damping > 0.0 and state.optimality > _NEARLY_FLAT)

        # After a refusal another is likely: the residual comes first then, so that no Jacobian is wasted.
        residual: NDArray[Any]
        jacobian: NDArray[Any] | None = None
        if state.accepted or not measurable:
            residual, jacobian = problem.linearise(x)
        else:
            residual = problem.residual(x)
        norm = euclidean_norm(_as_float64(residual))
        if not math.isfinite(norm):
            return _stayed(state, trial, 0.1, residuals=1, jacobians=jacobian is not None)
        actual = 1.0 - (norm / state.norm) * (norm / state.norm)
        gain = actual / predicted if measurable else 1.0
        if gain < _ACCEPT:
            shrinkage = _shrinkage(slope, actual)
            return _stayed(state, trial, shrinkage, residuals=1, jacobians=jacobian is not None)

        if jacobian is None:
            residual, jacobian = problem.linearise(x)
        if not np.isfinite(jacobian).all():
            return _stayed(state, trial, 0.1, residuals=1, jacobians=1)
        radius = state.radius
        if gain <= _POOR:
            radius = _shrinkage(slope, actual) * min(radius, 10.0 * trial.length)
        elif gain >= _GOOD or trial.damping == 0.0:
            radius = self.growth * trial.length
        after = _moved(state, trial, x, _as_float64(residual), _as_float64(jacobian), radius)
        if not measurable and not _nearer(state, after, trial):
            if trial.length > 2.0 * state.radius:
                return _stayed(state, trial, 1.0, residuals=1, jacobians=1)
            # If even a full step does not help, this is as near as the arithmetic allows.
            return _stayed(state, trial, 0.1, residuals=1, jacobians=1, stuck=trial.damping == 0.0)
        return after

    def terminate(self, state: LevenbergMarquardtState) -> Outcome | None:
        """Return why the search ends at `state`, or None if it goes on."""
        arrived = self._converged(state) if state.accepted else None
        if arrived is not None:
            return arrived
        if state.stuck or state.radius <= state.eps * euclidean_norm(state.scale * state.x):
            near = state.factors.decrement <= max(_FLAT * state.norm, 1e3 * state.rounding) or state.optimality <= _FLAT
            return Outcome.WORKING_PRECISION if near else Outcome.NO_PROGRESS
        return Outcome.ITERATION_LIMIT if state.iteration >= self.max_iterations else None

    def _converged(self, state: LevenbergMarquardtState) -> Outcome | None:
        if state.norm <= _ZERO:
            return Outcome.GRADIENT
        decrement = state.factors.decrement
        if self.gtol > 0.0 and state.optimality <= self.gtol:
            return Outcome.GRADIENT
        if self.ftol > 0.0 and (decrement / state.norm) * (decrement / state.norm) <= self.ftol:
            return Outcome.COST
        if self.xtol > 0.0 and state.factors.full_length <= self.xtol * euclidean_norm(state.scale * state.x):
            return Outcome.STEP
        return Outcome.WORKING_PRECISION if decrement <= state.rounding else None


def _moved(
    state: LevenbergMarquardtState,
    trial: DampedStep,
    x: FloatVector,
    residual: Float64Array,
    jacobian: Float64Array,
    radius: float,
) -> LevenbergMarquardtState:
    """Return the state after a trial that was accepted."""
    norms = column_norms(jacobian)
    scale = np.maximum(state.scale, norms)
    factors = factorise(jacobian, residual, scale)
    if factors.rank < norms.size and ((norms > 0.0) & (norms < _STALE_SCALE * scale)).any():
        # A direction may look void only because its scale dates from far away, where its column was huge.
        scale = np.where(norms > 0.0, norms, scale)
        factors = factorise(jacobian, residual, scale)
        radius = min(radius, euclidean_norm(scale * x) or radius)
    return LevenbergMarquardtState(
        x=x,
        residual=residual,
        jacobian=jacobian,
        norm=euclidean_norm(residual),
        norms=norms,
        scale=scale,
        radius=radius,
        factors=factors,
        eps=state.eps,
        iteration=state.iteration + 1,
        residual_evaluations=state.residual_evaluations + 1,
        jacobian_evaluations=state.jacobian_evaluations + 1,
        step_length=trial.length,
    )


def _stayed(
    state: LevenbergMarquardtState,
    trial: DampedStep,
    shrinkage: float,
    *,
    residuals: int = 0,
    jacobians: int = 0,
    stuck: bool = False,
) -> LevenbergMarquardtState:
    """Return the state after a trial that was refused: the old point in a smaller region."""
    return replace(
        state,
        radius=shrinkage * min(state.radius, 10.0 * trial.length),
        iteration=state.iteration + 1,
        residual_evaluations=state.residual_evaluations + residuals,
        jacobian_evaluations=state.jacobian_evaluations + jacobians,
        accepted=False,
        step_length=trial.length,
        stuck=stuck,
    )


def _measurable(state: LevenbergMarquardtState, predicted: float, linear_norm: float) -> bool:
    """Whether a relative change of the squared norm, and a change of the residual, stand out from rounding errors."""
    return predicted > _UNMEASURABLE * state.eps and linear_norm > _NEAR_ROUNDING * state.rounding


def _polishing(state: LevenbergMarquardtState) -> bool:
    """Whether even a full Gauss-Newton step would change the cost by too little to measure."""
    relative = state.factors.decrement / state.norm
    return not _measurable(state, relative * relative, state.factors.decrement)


def _nearer(state: LevenbergMarquardtState, after: LevenbergMarquardtState, trial: DampedStep) -> bool:
    """Whether `after` is nearer to a stationary point where the cost is too coarse to tell.

    A full step is judged by the decrement, which no units of the parameters can distort. A damped one, which says
    that the linear model holds over short distances only, is judged by the gradient: the decrement of a nearly
    singular Jacobian stays large all the way to the minimum.
    """
    if trial.damping == 0.0:
        return after.factors.decrement < state.factors.decrement
    return after.factors.gradient_norm < state.factors.gradient_norm


def _shrinkage(slope: float, actual: float) -> float:
    """Return the factor by which the region shrinks: to the minimum of the parabola through what is known of the cost
    along the step (its start, its slope there and its end), within [0.1, 0.5]. Moré 1978, section 6."""
    if actual >= 0.0:
        return 0.5
    return min(0.5, max(0.1, 0.5 * slope / (slope - 0.5 * actual)))


def _as_float64(values: NDArray[Any]) -> Float64Array:
    return np.asarray(values, dtype=np.float64)


def _eps(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else float(np.finfo(np.float64).eps)
