"""The loop that all methods share: propose a step, try it, accept or refuse it, and know when to stop.

A method is a small frozen object with `init`, `step` and `terminate`; where the search stands is a separate value, a
`State`. What distinguishes one method from another is mainly `propose`: which step to try.

Three things are different from MINPACK's `lmder`, which follows the same paper:

* *The first radius* is the scaled length of the start, not 100 times that. Measured on the 54 NIST runs with each
  start perturbed by 5 % six ways, 16 of 324 runs miss the certified minimum with factor 100 and 4 with factor 1.
* *Convergence is judged by the undamped Gauss-Newton step*, never by the step taken. A step is short near the
  solution, but also where the region has shrunk; the Gauss-Newton step and the decrease it promises are small only
  near a stationary point.
* *The last digits.* The cost has only half the digits of the parameters: a step that would still gain eight digits in
  x changes the cost by less than its rounding error, and no gain ratio can be formed. From there on a step is
  accepted if it makes the decrement smaller (the part of the residual that a Gauss-Newton step would remove), which
  exact Jacobians give to full precision.

Source: J. J. Moré, "The Levenberg-Marquardt algorithm: implementation and theory", LNM 630, 1978 (scaling by the
largest column norms seen, step acceptance, interpolation after a refusal).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .controls import Control, Radius
from .linear.base import Factors, LinearSolver, Step
from .linear.dense import DenseQR
from .linearization import Linearization
from .norms import euclidean_norm
from .problem import FloatVector, Outcome, Problem

__all__ = ["State", "TrustRegion"]

Float64Array = NDArray[np.float64]

_ACCEPT = 1e-4  # least gain ratio of an accepted step (Moré 1978, section 6, as MINPACK has it)
_UNMEASURABLE = 512.0  # a relative cost change of fewer roundings than this makes no gain ratio
_NEAR_ROUNDING = 32.0  # the same for the change of the residual, in units of the rounding of the parameters
SUSPECT = 1e-13  # relative size of a column that may be nothing but rounding errors
_FURTHER = 1e-8  # relative distance to a point where it would be another then
_STALE_SCALE = 1e-3  # a column this much smaller than its scale may be dropped for its scale alone
_LEAST_SCALE = 1e-6  # what is left of the scale then: a column may be small by chance, where the parameter passes 0
_FLAT = 1e-6  # relative decrement below which a search that cannot go on has arrived all the same
_NEARLY_FLAT = 1e-4  # optimality above which a search is nowhere near a stationary point
_LITTLE = 0.1  # relative fall of the cost below which a step is slow, if
_HARDLY = 0.3  # what a full step promises has not become smaller than by this factor
_ZERO = 1e-290  # a residual this small has no digits left to improve
_AS_PREDICTED = 0.1  # how far from 1 the gain ratio of a step may be that says what the next one will be
_FALLING = 0.1  # rate of convergence of the residual's changes from which on steps are foreseen
_MARGIN = 3.0  # by which a foreseen step is taken to be longer
_RESTRAINED = 0.1  # a damping that takes up more of the model than this hides what a full step would do


@dataclass(frozen=True, eq=False)
class State:
    """Where a search stands after `iteration` trial steps.

    Attributes:
        x: best parameters so far, shape (N,), in the dtype that the user's function sees.
        point: residual and Jacobian there.
        scale: the largest column norms seen, shape (n,): the shape of the trust region.
        trust: what the method's `Control` controls: the radius of the region, or one over the damping.
        factors: of the model at x.
        size: magnitudes of the parameters, shape (n,).
        eps: the coarser of the relative roundings of x and the residual.
        active: which parameters rest on a bound that they press against, shape (n,), or None.
        iteration: trial steps so far.
        residual_evaluations, jacobian_evaluations: points at which either was computed.
        accepted: the last trial became x.
        refusals: trials refused since x.
        refused_values: trials refused because something was not finite, in the whole search.
        step_length: scaled length of the last trial step.
        stuck: no further trial can be made.
        full_norm: how far the accepted step that led here moved the residual, if it was nearly a Gauss-Newton step.
        foreseen: how far the next full step would move the residual and its scaled length, where the last two show that
            it is too short to be worth a factorisation.
        slow: accepted steps in a row that gained little, in the cost and towards a stationary point.
    """

    x: FloatVector
    point: Linearization
    scale: Float64Array
    trust: float
    factors: Factors
    size: FloatVector
    eps: float
    active: NDArray[np.bool_] | None = None
    iteration: int = 0
    residual_evaluations: int = 1
    jacobian_evaluations: int = 1
    accepted: bool = True
    refusals: int = 0
    refused_values: int = 0
    step_length: float = math.inf
    stuck: bool = False
    slow: int = 0
    full_norm: float | None = None
    foreseen: tuple[float, float] | None = None

    @property
    def norm(self) -> float:
        """Square root of twice the cost."""
        return self.point.norm

    @property
    def cost(self) -> float:
        """Half the sum of squares of the residual, or what the loss makes of it."""
        return self.point.cost

    @property
    def rounding(self) -> float:
        """How far rounding the parameters alone moves the residual, about."""
        norms = self.point.norms
        # Every parameter moves every residual in a dense problem, and few of them in a sparse one.
        moved = float(norms @ self.size) if self.point.dense else euclidean_norm(norms * self.size)
        return self.eps * (moved + self.norm)

    @property
    def gradient(self) -> Float64Array:
        """Gradient of the cost, shape (n,)."""
        return self.point.gradient

    @property
    def optimality(self) -> float:
        """Largest cosine of the angle between the residual and a column of the Jacobian, 0 at a stationary point.

        Columns of parameters that press against a bound do not count.
        """
        if self.norm == 0.0:
            return 0.0
        norms = self.point.norms
        gradient = self.point.transposed(self.point.residual / self.norm)
        cosines = np.abs(gradient) / np.where(norms > 0.0, norms, 1.0)
        if self.active is not None:
            cosines = cosines[~self.active]
        return float(cosines.max(initial=0.0))


@dataclass(frozen=True)
class TrustRegion(ABC):
    """What the methods have in common. A method of its own is a subclass with `propose`, thirty lines with its words.

    Attributes:
        max_iterations: trial steps, accepted or not.
        ftol: stop where a full Gauss-Newton step promises to reduce the cost by no more than this fraction.
        xtol: stop where that step is no longer than this fraction of the parameters, both scaled.
        gtol: stop where the cosine of the angle between the residual and every column of the Jacobian is no more than
            this.
        linear_solver: what solves the linear problems.
        control: how far the model is trusted.
        patience: slow steps in a row after which the search gives up, for a method that does better; 0 for any number.

    A tolerance of 0 switches its test off. Whatever the tolerances, the search ends where the Gauss-Newton step moves
    the residual by no more than rounding the parameters does: nothing can be gained beyond.
    """

    max_iterations: int = 2000
    ftol: float = 0.0
    xtol: float = 0.0
    gtol: float = 0.0
    linear_solver: LinearSolver = field(default_factory=DenseQR)
    control: Control = field(default_factory=Radius)
    patience: int = 0

    @abstractmethod
    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        """Return the step to try from `state`, trusted as far as `trust` says."""

    # ---- what a method may do in its own way ----

    def model(
        self, problem: Problem, point: Linearization, x: FloatVector, scale: Float64Array
    ) -> tuple[Factors, NDArray[np.bool_] | None]:
        """Return the factors of the model at x, and which parameters rest on their bounds."""
        return self.linear_solver.factorise(point, scale, point.norm or 1.0), None

    def moved(self, problem: Problem, state: State, trial: Step) -> tuple[FloatVector, Step]:
        """Return where a trial leads, and the trial itself if that is another step than was proposed."""
        return problem.moved(state.x, trial.step), trial

    # ---- the three steps of a search ----

    def init(self, problem: Problem, x: FloatVector, point: tuple[NDArray[Any], Any] | None = None) -> State:
        """Return the state at the start x, shape (N,). The residual and Jacobian there must be finite.

        A caller that has computed both already, perhaps to check them, hands them over as `point`.
        """
        values, jacobian = problem.linearise(x) if point is None else point
        model = problem.modelled(values, jacobian)
        scale, probes = problem.scale, 0
        size = problem.size(x)
        if scale is None:
            empty, probes = _empty_columns(problem, x, model, size)
            scale = np.where(empty, 1.0, model.norms)
        factors, active = self.model(problem, model, x, scale)
        # The first Gauss-Newton step may be wild; the start itself says how large the parameters are. A start at 0 says
        # nothing, and there the scaled parameters' own unit, that of the residual, has to do.
        extent = euclidean_norm(scale * size) or model.norm or 1.0
        eps = max(_eps(x.dtype), _eps(np.asarray(values).dtype))
        first = self.control.first(factors, extent)
        state = State(x, model, scale, first, factors, size, eps, active)
        return replace(state, residual_evaluations=2, jacobian_evaluations=2) if probes else state

    def step(self, problem: Problem, state: State) -> State:
        """Make one trial step from `state` and return the state after it, at the new point or at the old one."""
        # Near the end the radius is the work of rounding errors as much as of the model: try the full step first there.
        polishing = state.accepted and self._polishing(state)
        trial = self.propose(problem, state, math.inf if polishing else state.trust)
        x, trial = self.moved(problem, state, trial)
        if not np.isfinite(x).all():
            return self._refused(state, trial, 0.1, wild=True)
        if np.array_equal(x, state.x):
            return self._refused(state, trial, 0.1, stuck=True)

        # Relative changes of the squared norm, as the linear model has them (Moré 1978, section 6).
        moved = trial.linear_norm / state.norm
        predicted = 2.0 * trial.slope - moved * moved
        measurable = _measurable(state, predicted, trial.linear_norm)
        # A damped step may be too short to measure because the region collapsed, far from any stationary point.
        measurable = measurable or (not trial.full and state.optimality > _NEARLY_FLAT)

        # After a refusal another is likely: the residual comes first then, so that no Jacobian is wasted.
        point = problem.at(x) if state.accepted or not measurable else None
        norm = problem.norm_at(x) if point is None else point.norm
        if not math.isfinite(norm):
            return self._refused(state, trial, 0.1, residuals=1, jacobians=point is not None, wild=True)
        actual = 1.0 - (norm / state.norm) * (norm / state.norm)
        gain = actual / predicted if measurable else 1.0
        shrinkage = _shrinkage(trial.slope, actual)
        if gain < _ACCEPT:
            return self._refused(state, trial, shrinkage, residuals=1, jacobians=point is not None)

        if point is None:
            point = problem.at(x)
        if not point.finite:
            return self._refused(state, trial, 0.1, residuals=1, jacobians=1, wild=True)
        trust = self.control.accepted(state.trust, trial, gain, shrinkage)
        after = self._accepted(problem, state, trial, x, point, trust, gain)
        if not measurable and not _nearer(state, after, trial):
            if trial.length > 2.0 * state.trust:
                return self._refused(state, trial, 1.0, residuals=1, jacobians=1)
            # If even a full step does not help, this is as near as the arithmetic allows.
            return self._refused(state, trial, 0.1, residuals=1, jacobians=1, stuck=self._unrestrained(trial))
        return after

    def terminate(self, state: State) -> Outcome | None:
        """Return why the search ends at `state`, or None if it goes on."""
        arrived = self._converged(state) if state.accepted else None
        if arrived is not None:
            return arrived
        extent = euclidean_norm(state.scale * state.size)
        if state.stuck or self.control.collapsed(state.trust, extent, state.eps):
            decrement = self._promise(state)[0]
            near = decrement <= max(_FLAT * state.norm, 1e3 * state.rounding) or state.optimality <= _FLAT
            return Outcome.WORKING_PRECISION if near else Outcome.NO_PROGRESS
        if self.patience and state.slow >= self.patience:
            return Outcome.SLOW
        return Outcome.ITERATION_LIMIT if state.iteration >= self.max_iterations else None

    # ---- pieces ----

    def _converged(self, state: State) -> Outcome | None:
        if state.norm <= _ZERO:
            return Outcome.GRADIENT
        if self.gtol > 0.0 and state.optimality <= self.gtol:
            return Outcome.GRADIENT
        decrement, length = self._promise(state)
        if self.ftol > 0.0 and (decrement / state.norm) * (decrement / state.norm) <= self.ftol:
            return Outcome.COST
        if self.xtol > 0.0 and length <= self.xtol * euclidean_norm(state.scale * state.size):
            return Outcome.STEP
        return Outcome.WORKING_PRECISION if decrement <= state.rounding else None

    def _promise(self, state: State) -> tuple[float, float]:
        """How far a full Gauss-Newton step would move the residual, and its scaled length; inf where unknown."""
        if not self.linear_solver.damps:
            return state.factors.decrement, state.factors.full_length
        if state.foreseen is not None:
            return state.foreseen
        # A full step would cost a factorisation. The next trial tells as much, if its damping hardly matters.
        trial = self.control.step(state.factors, state.trust)
        if self._unrestrained(trial):
            return trial.linear_norm, trial.length
        return math.inf, math.inf

    def _foreseen(self, state: State, trial: Step, gain: float) -> tuple[float, float] | None:
        """What `_promise` will say after `trial` of the step to come, where that would stop the search; else None.

        Each step of Gauss and Newton is shorter than the one before by a factor that does not rise near a minimum:
        the factor between the last two bounds the one to come, which need not be computed to find that it is short.
        """
        before = state.full_norm
        if before is None or state.active is not None or abs(gain - 1.0) > _AS_PREDICTED:
            return None
        rate = trial.linear_norm / before
        if rate > _FALLING or not self._unrestrained(trial):
            return None
        decrement, length = _MARGIN * rate * trial.linear_norm, _MARGIN * rate * trial.length
        if self.ftol > 0.0 and (decrement / state.norm) ** 2 <= self.ftol:
            return decrement, length
        return None

    def _unrestrained(self, trial: Step) -> bool:
        if trial.full or trial.length == 0.0:
            return True
        held = math.sqrt(trial.damping) * trial.length
        return math.isfinite(trial.damping) and held <= math.sqrt(_RESTRAINED) * trial.linear_norm

    def _polishing(self, state: State) -> bool:
        """Whether even a full Gauss-Newton step would change the cost by too little to measure."""
        if self.linear_solver.damps:
            return False
        relative = state.factors.decrement / state.norm
        return not _measurable(state, relative * relative, state.factors.decrement)

    def _accepted(
        self,
        problem: Problem,
        state: State,
        trial: Step,
        x: FloatVector,
        point: Linearization,
        trust: float,
        gain: float,
    ) -> State:
        """Return the state after a trial that was accepted."""
        norms = point.norms
        scale = np.maximum(state.scale, norms) if problem.scale is None else problem.scale
        factors, active = self.model(problem, point, x, scale)
        size = problem.size(x)
        if (
            problem.scale is None
            and factors.rank < norms.size
            and ((norms > 0.0) & (norms < _STALE_SCALE * scale)).any()
        ):
            # A direction may look void only because its scale dates from far away, where its column was huge.
            scale = np.where(norms > 0.0, np.maximum(norms, _LEAST_SCALE * scale), scale)
            factors, active = self.model(problem, point, x, scale)
            trust = min(trust, euclidean_norm(scale * size) or trust)
        return State(
            x,
            point,
            scale,
            trust,
            factors,
            size,
            state.eps,
            active,
            iteration=state.iteration + 1,
            residual_evaluations=state.residual_evaluations + 1,
            jacobian_evaluations=state.jacobian_evaluations + 1,
            refused_values=state.refused_values,
            step_length=trial.length,
            slow=state.slow + 1 if self.patience and _slow(state, point, factors) else 0,
            full_norm=trial.linear_norm if self.linear_solver.damps and self._unrestrained(trial) else None,
            foreseen=self._foreseen(state, trial, gain),
        )

    def _refused(
        self,
        state: State,
        trial: Step,
        shrinkage: float,
        *,
        residuals: int = 0,
        jacobians: int = 0,
        stuck: bool = False,
        wild: bool = False,
    ) -> State:
        """Return the state after a trial that was refused: the old point, trusted less."""
        times = state.refusals + 1
        return replace(
            state,
            trust=self.control.refused(state.trust, trial, shrinkage, times),
            iteration=state.iteration + 1,
            residual_evaluations=state.residual_evaluations + residuals,
            jacobian_evaluations=state.jacobian_evaluations + jacobians,
            accepted=False,
            refusals=times,
            refused_values=state.refused_values + wild,
            step_length=trial.length,
            stuck=stuck,
        )


def _empty_columns(
    problem: Problem, x: FloatVector, model: Linearization, size: FloatVector
) -> tuple[NDArray[np.bool_], int]:
    """Which columns are zero, or nothing but rounding errors, and how many points it took to find out.

    Where an angle turns about a point that is at 0, its column should be 0 and is 1e-17. As a scale that would make the
    angle the most important parameter. A column may be as small as that for its units alone, though; but then it is
    about the same a little further on.
    """
    norms = model.norms
    empty = norms == 0.0
    suspect = ~empty & (norms < SUSPECT * norms.max(initial=0.0)) & (norms * size <= SUSPECT * model.norm)
    if not suspect.any() or not (model.dense or model.sparse):
        return empty, 0
    further = problem.moved(x, _FURTHER * np.where(size > 0.0, size, 1.0))
    if problem.lower is not None and problem.upper is not None:
        further = np.clip(further, problem.lower, problem.upper)
    there = problem.at(further)
    if not there.finite:
        return empty, 1
    return empty | (suspect & (np.abs(there.norms - norms) > 0.5 * norms)), 1


def _measurable(state: State, predicted: float, linear_norm: float) -> bool:
    """Whether a relative change of the squared norm, and a change of the residual, stand out from rounding errors."""
    return predicted > _UNMEASURABLE * state.eps and linear_norm > _NEAR_ROUNDING * state.rounding


def _slow(state: State, point: Linearization, factors: Factors) -> bool:
    """Whether a step has gained little: the cost hardly fell, and a full step promises about as much as before.

    Where the residual is large and curved, Gauss-Newton steps converge linearly, at a rate that may be close to one.
    """
    fall = 1.0 - (point.norm / state.norm) * (point.norm / state.norm)
    return fall < _LITTLE and factors.decrement > _HARDLY * state.factors.decrement


def _nearer(state: State, after: State, trial: Step) -> bool:
    """Whether `after` is nearer to a stationary point where the cost is too coarse to tell.

    A full step is judged by the decrement, which no units of the parameters can distort. A damped one, which says
    that the linear model holds over short distances only, is judged by the gradient: the decrement of a nearly
    singular Jacobian stays large all the way to the minimum.
    """
    if trial.full:
        return after.factors.decrement < state.factors.decrement
    return after.factors.gradient_norm < state.factors.gradient_norm


def _shrinkage(slope: float, actual: float) -> float:
    """Return the factor by which the region shrinks: to the minimum of the parabola through what is known of the cost
    along the step (its start, its slope there and its end), within [0.1, 0.5]. Moré 1978, section 6."""
    if actual >= 0.0:
        return 0.5
    return min(0.5, max(0.1, 0.5 * slope / (slope - 0.5 * actual)))


def _eps(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else float(np.finfo(np.float64).eps)
