"""The search for a minimum: Newton steps in a trust region, accepted by what the function says and, in the last digits,
by what its gradient says.

As in least squares, a function's value has only half the digits of its minimiser. Where a step would change the value
by less than rounding does, it is accepted if it makes the gradient smaller, and the search ends when none does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .controls import Control, Radius
from .descent import QuadraticModel
from .linear.base import Step
from .norms import dot, euclidean_norm
from .problem import FloatVector, Outcome

__all__ = ["Minimum", "MinimumState", "NewtonMinimum"]

Float64Array = NDArray[np.float64]

_ACCEPT = 1e-4  # least gain ratio of an accepted step
_UNMEASURABLE = 64.0  # a change of the value by fewer roundings than this makes no gain ratio
_CLEARLY = 0.9  # by how much a step too small to measure must shrink the gradient
_BOTTOMLESS = -1e120  # a value below which there is no minimum


@dataclass(frozen=True)
class Minimum:
    """What is to be minimised, as functions of one flat vector x, shape (n,).

    Attributes:
        value_and_gradient: x -> (number, shape (n,)).
        hessian: x -> shape (n, n): an ndarray, a sparse matrix or an operator.
        lower, upper: bounds, shape (n,); None for none.
        scale: D of the trust region, shape (n,), where it is not to follow the diagonal of the Hessian.
    """

    value_and_gradient: Callable[[FloatVector], tuple[Any, Any]]
    hessian: Callable[[FloatVector], Any]
    lower: FloatVector | None = None
    upper: FloatVector | None = None
    scale: Float64Array | None = None

    def at(self, x: FloatVector) -> tuple[float, Float64Array]:
        """Return value and gradient at x, float64."""
        value, gradient = self.value_and_gradient(x)
        return float(np.asarray(value).reshape(())), np.asarray(gradient, dtype=np.float64)

    def limits(self, x: FloatVector) -> tuple[Any, Any]:
        """Return the bounds as numbers that NumPy can clip to."""
        return (-math.inf if self.lower is None else self.lower, math.inf if self.upper is None else self.upper)


@dataclass(frozen=True, eq=False)
class MinimumState:
    """Where a search stands after `iteration` trial steps.

    Attributes:
        x: best variables so far, shape (n,), in the dtype that the user's function sees.
        cost: value there.
        model: the quadratic model there.
        trust: radius of the region.
        eps: relative rounding of x.
        first: magnitude of the value at the start.
        iteration: trial steps so far.
        residual_evaluations, jacobian_evaluations: points at which value and gradient, and the Hessian, were evaluated.
        accepted: the last trial became x.
        refused_values: trials refused because something was not finite.
        step_length: scaled length of the last trial step.
        stuck: no further trial can be made.
    """

    x: FloatVector
    cost: float
    model: QuadraticModel
    trust: float
    eps: float
    first: float
    iteration: int = 0
    residual_evaluations: int = 1
    jacobian_evaluations: int = 1
    accepted: bool = True
    refused_values: int = 0
    step_length: float = math.inf
    stuck: bool = False

    @property
    def scale(self) -> Float64Array:
        """D, shape (n,)."""
        return self.model.scale

    @property
    def optimality(self) -> float:
        """Largest entry of the gradient by what may move."""
        return float(np.abs(self.model.gradient[self.model.free]).max(initial=0.0))

    @property
    def rounding(self) -> float:
        """How far rounding moves the value, about."""
        return self.eps * (abs(self.cost) + dot(np.abs(self.model.gradient), np.abs(self.x).astype(np.float64)))


@dataclass(frozen=True)
class NewtonMinimum:
    """The method.

    Attributes:
        max_iterations: trial steps, accepted or not.
        gtol: stop where no entry of the gradient (by what may move) is larger than this.
        xtol: stop where Newton's step is no longer than this fraction of x, both scaled.
        control: how far the model is trusted.

    >>> problem = Minimum(
    ...     lambda x: ((x[0] - 1.0) ** 2 + x[1] ** 4 + x[1], np.array([2.0 * (x[0] - 1.0), 4.0 * x[1] ** 3 + 1.0])),
    ...     lambda x: np.diag([2.0, 12.0 * x[1] ** 2]),
    ... )
    >>> method = NewtonMinimum()
    >>> state = method.init(problem, np.array([3.0, 1.0]))
    >>> while (outcome := method.terminate(state)) is None:
    ...     state = method.step(problem, state)
    >>> outcome > 0, state.x.round(9)
    (True, array([ 1.        , -0.62996052]))
    """

    max_iterations: int = 2000
    gtol: float = 0.0
    xtol: float = 0.0
    control: Control = field(default_factory=Radius)

    def init(
        self, problem: Minimum, x: FloatVector, point: tuple[float, Float64Array, Any] | None = None
    ) -> MinimumState:
        """Return the state at the start x, where value, gradient and Hessian must be finite.

        A caller that has computed them hands them over as `point`.
        """
        value, gradient, hessian = (*problem.at(x), problem.hessian(x)) if point is None else point
        scale = _scale(hessian, None, problem.scale, x.size)
        model = QuadraticModel(gradient, hessian, scale, _free(problem, x, gradient))
        eps = float(np.finfo(x.dtype).eps)
        state = MinimumState(x, value, model, 1.0, eps, abs(value))
        # The start says how large the variables are, the gradient (in units of the curvature) how far they are to go.
        extent = max(euclidean_norm(scale * x), euclidean_norm(model.scaled_gradient))
        newton = model.newton
        return replace(state, trust=min(extent or 1.0, (newton is not None and euclidean_norm(newton)) or math.inf))

    def step(self, problem: Minimum, state: MinimumState) -> MinimumState:
        """Make one trial step and return the state after it, at the new point or at the old one."""
        model = state.model
        # Near the end the radius is the work of rounding errors: try the full step there.
        polishing = state.accepted and model.promise <= _UNMEASURABLE * state.rounding
        step, full = model.within(math.inf if polishing else state.trust)
        lower, upper = problem.limits(state.x)
        x = np.clip(state.x + step, lower, upper).astype(state.x.dtype, copy=False)
        taken = x.astype(np.float64) - state.x
        predicted = -model.change(taken)
        clipped = problem.lower is not None and not np.array_equal(x, state.x + step)
        if clipped:
            other = model.projected_gradient(state.x, lower, upper, state.trust)
            if -model.change(other) > predicted:
                x, full = np.clip(state.x + other, lower, upper).astype(state.x.dtype, copy=False), False
                taken = x.astype(np.float64) - state.x
                predicted = -model.change(taken)
        scaled = model.scale * taken
        trial = Step(taken, scaled, scaled[:0], 0.0, 0.0 if full else math.inf, euclidean_norm(scaled), 0.0)
        if np.array_equal(x, state.x):
            return self._refused(state, trial, stuck=True)
        if not np.isfinite(x).all():
            return self._refused(state, trial, wild=True)
        value, gradient = problem.at(x)
        if not (math.isfinite(value) or value == -math.inf) or not np.isfinite(gradient).all():
            return self._refused(state, trial, evaluations=1, wild=True)
        measurable = predicted > _UNMEASURABLE * state.rounding
        gain = (state.cost - value) / predicted if measurable else 1.0
        free = _free(problem, x, gradient)
        if measurable:
            if gain < _ACCEPT:
                return self._refused(state, trial, evaluations=1)
        else:
            before = euclidean_norm(model.scaled_gradient)
            if not euclidean_norm((gradient / model.scale)[free]) < _CLEARLY * before:
                return self._refused(state, trial, evaluations=1, stuck=full or polishing)
        hessian = problem.hessian(x) if value > _BOTTOMLESS else model.hessian
        if not _finite(hessian):
            return self._refused(state, trial, evaluations=1, hessians=1, wild=True)
        scale = _scale(hessian, model.scale, problem.scale, x.size)
        return MinimumState(
            x,
            value,
            QuadraticModel(gradient, hessian, scale, free, model.accuracy),
            self.control.accepted(state.trust, trial, gain, 0.25),
            state.eps,
            state.first,
            iteration=state.iteration + 1,
            residual_evaluations=state.residual_evaluations + 1,
            jacobian_evaluations=state.jacobian_evaluations + 1,
            refused_values=state.refused_values,
            step_length=trial.length,
        )

    def terminate(self, state: MinimumState) -> Outcome | None:
        """Return why the search ends at `state`, or None if it goes on."""
        if state.cost <= _BOTTOMLESS:
            return Outcome.UNBOUNDED
        model = state.model
        if state.accepted and state.optimality <= self.gtol and model.positive is not False:
            return Outcome.GRADIENT
        extent = euclidean_norm(model.scale * state.x)
        newton = model.newton if state.accepted else None
        if newton is not None:
            length = euclidean_norm(newton)
            if self.xtol > 0.0 and length <= self.xtol * extent:
                return Outcome.STEP
            if length <= 0.5 * state.eps * extent:
                return Outcome.WORKING_PRECISION
        # Where the Hessian is singular at the minimum, the way there is long, and the smallest curvatures are lost.
        singular = state.accepted and newton is None and model.positive
        if singular and euclidean_norm(model.scaled_gradient) * extent <= state.eps**1.5 * state.first:
            return Outcome.WORKING_PRECISION
        if state.stuck or self.control.collapsed(state.trust, extent, state.eps):
            return Outcome.WORKING_PRECISION if self._near(state) else Outcome.NO_PROGRESS
        return Outcome.ITERATION_LIMIT if state.iteration >= self.max_iterations else None

    @staticmethod
    def _near(state: MinimumState) -> bool:
        """Whether a search that cannot go on is at a minimum as far as rounding lets it be known."""
        model = state.model
        if model.newton is not None:
            return model.promise <= 1e3 * _UNMEASURABLE * state.rounding
        # Without a Newton step the gradient has to do, in units of the curvature and the variables.
        square = euclidean_norm(model.scaled_gradient) ** 2
        return model.positive is not False and square <= 1e3 * _UNMEASURABLE * state.rounding

    def _refused(
        self,
        state: MinimumState,
        trial: Step,
        *,
        evaluations: int = 0,
        hessians: int = 0,
        stuck: bool = False,
        wild: bool = False,
    ) -> MinimumState:
        return replace(
            state,
            trust=self.control.refused(state.trust, trial, 0.1 if wild else 0.25, 1),
            iteration=state.iteration + 1,
            residual_evaluations=state.residual_evaluations + evaluations,
            jacobian_evaluations=state.jacobian_evaluations + hessians,
            accepted=False,
            refused_values=state.refused_values + wild,
            step_length=trial.length,
            stuck=stuck,
        )


def _free(problem: Minimum, x: FloatVector, gradient: Float64Array) -> NDArray[np.bool_]:
    """Which variables do not rest on a bound that the gradient presses them against."""
    free = np.ones(x.size, dtype=bool)
    if problem.lower is not None:
        free &= ~((x <= problem.lower) & (gradient >= 0.0))
    if problem.upper is not None:
        free &= ~((x >= problem.upper) & (gradient <= 0.0))
    return free


def _scale(hessian: Any, before: Float64Array | None, given: Float64Array | None, n: int) -> Float64Array:
    """Square roots of the largest curvatures seen, so that units of the variables make no difference."""
    if given is not None:
        return given
    if not (isinstance(hessian, np.ndarray) or hasattr(hessian, "diagonal")):
        return np.ones(n)
    curvature = np.sqrt(np.abs(np.asarray(hessian.diagonal(), dtype=np.float64)))
    if before is None:
        known = curvature[curvature > 0.0]
        return np.where(curvature > 0.0, curvature, known.mean() if known.size else 1.0)
    return np.maximum(before, curvature)


def _finite(hessian: Any) -> bool:
    stored = hessian.data if hasattr(hessian, "indptr") else hessian
    return not isinstance(stored, np.ndarray) or bool(np.isfinite(stored).all())
