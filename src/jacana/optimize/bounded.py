"""Trust-region reflective: least squares within bounds.

Far from its bounds a parameter is free. Near one, the region is narrowed in its direction and the model gets the term
that its approach to the bound will contribute, so that steps bend along the bounds and do not run into them. A
parameter that reaches its bound rests there for as long as the cost presses it against it; the rest of the problem is
then one without that parameter, solved to the last digit.

Source: M. A. Branch, T. F. Coleman and Y. Li, "A subspace, interior, and conjugate gradient method for large-scale
bound-constrained minimization problems", SIAM J. Sci. Comput. 21(1), 1999. Two things are different. Distances to
bounds are taken relative to a tenth of the size of parameter and bound and capped at 1, so that bounds that are far
away change nothing (without the tenth, a bound of a parameter's own sign is never far away). And parameters may lie on
their bounds, where the paper keeps them inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .linear.base import Factors, Step
from .linearization import Linearization
from .problem import FloatVector, Problem
from .trust_region import State, TrustRegion

__all__ = ["Reflective", "pressed"]

Float64Array = NDArray[np.float64]

_NEARBY = 0.1  # of the size of parameter and bound: what is further from a bound than that does not feel it
_HELD = 1e30  # the squared scale of a parameter at rest, relative to its own


@dataclass(frozen=True)
class Reflective(TrustRegion):
    """See the module. Without bounds it is Levenberg-Marquardt.

    >>> problem = Problem(
    ...     residual=lambda x: np.array([x[0] - 3.0, x[0] + x[1]]),
    ...     linearise=lambda x: (np.array([x[0] - 3.0, x[0] + x[1]]), np.array([[1.0, 0.0], [1.0, 1.0]])),
    ...     lower=np.array([0.0, -1.0]),
    ...     upper=np.array([2.0, 5.0]),
    ... )
    >>> state = Reflective().init(problem, np.zeros(2))
    >>> while (outcome := Reflective().terminate(state)) is None:
    ...     state = Reflective().step(problem, state)
    >>> state.x
    array([ 2., -1.])
    """

    def model(
        self, problem: Problem, point: Linearization, x: FloatVector, scale: Float64Array
    ) -> tuple[Factors, NDArray[np.bool_] | None]:
        if problem.lower is None or problem.upper is None:
            return super().model(problem, point, x, scale)
        gradient = point.gradient
        bound = np.where(gradient > 0.0, problem.lower, problem.upper)
        distance = np.where(gradient == 0.0, math.inf, np.abs(x - bound))
        reference = np.maximum(np.abs(x), np.where(np.isfinite(bound), np.abs(bound), 0.0))
        reference = _NEARBY * np.where(reference > 0.0, reference, 1.0)
        share = np.minimum(1.0, distance / reference)
        active = share == 0.0
        if (share == 1.0).all():
            return super().model(problem, point, x, scale)
        narrowed = scale / np.sqrt(np.where(active, 1.0 / _HELD, share))
        pull = np.where(share < 1.0, np.abs(gradient) / np.where(active, 1.0, distance), 0.0)
        extra = np.where(active, _HELD * scale**2, pull)
        factors = self.linear_solver.factorise(point, narrowed, point.norm or 1.0, extra)
        return factors, active if active.any() else None

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        step = self.control.step(state.factors, trust)
        if problem.lower is None or problem.upper is None:
            return step
        room = _Room(state.x, problem.lower, problem.upper, state.active)
        reach = room.reach(step.step)
        if reach >= 1.0:
            return step
        factors = state.factors
        candidates = [
            step.times(reach),
            _within(factors.evaluated(room.clipped(step.step)), trust, self),
        ]
        reflected = _reflected(factors, step, reach, room, trust, self)
        if reflected is not None:
            candidates.append(reflected)
        cauchy = factors.cauchy
        shortest = min(1.0, room.reach(cauchy.step), _limit(cauchy, trust, self))
        candidates.append(cauchy.times(shortest))
        return max(candidates, key=lambda trial: _promised(trial, factors.unit))

    def moved(self, problem: Problem, state: State, trial: Step) -> tuple[FloatVector, Step]:
        x = problem.moved(state.x, trial.step)
        if problem.lower is None or problem.upper is None:
            return x, trial
        room = _Room(state.x, problem.lower, problem.upper, state.active)
        return room.settled(x, trial.step), trial


@dataclass(frozen=True, eq=False)
class _Room:
    """How far one may go from x within the bounds; parameters at rest do not move."""

    x: FloatVector
    lower: FloatVector
    upper: FloatVector
    active: NDArray[np.bool_] | None

    def reach(self, step: Float64Array) -> float:
        """The largest factor up to which `step` stays inside; inf if it never leaves."""
        return float(self._reaches(step).min(initial=math.inf))

    def _reaches(self, step: Float64Array) -> Float64Array:
        ahead = np.where(step > 0.0, self.upper - self.x, self.lower - self.x)
        moving = step != 0.0
        if self.active is not None:
            moving = moving & ~self.active
        reaches: Float64Array = np.where(moving, ahead / np.where(moving, step, 1.0), math.inf)
        return reaches

    def clipped(self, step: Float64Array) -> Float64Array:
        """The step to the nearest point inside."""
        inside: Float64Array = np.clip(self.x + step, self.lower, self.upper) - self.x
        return inside if self.active is None else np.where(self.active, 0.0, inside)

    def settled(self, x: FloatVector, step: Float64Array) -> FloatVector:
        """x as reached by `step`, exactly on the bounds that it touches."""
        reaches = self._reaches(step)
        touched = reaches <= 1.0 + 1e-12
        bound = np.where(step > 0.0, self.upper, self.lower)
        if self.active is not None:
            x = np.where(self.active, self.x, x)
        return np.clip(np.where(touched, bound, x), self.lower, self.upper).astype(self.x.dtype, copy=False)


def _reflected(
    factors: Factors, step: Step, reach: float, room: _Room, trust: float, method: TrustRegion
) -> Step | None:
    """The best point along the ray that leaves the first bound met as light would."""
    hit = room._reaches(step.step) <= reach
    at_bound = step.times(reach)
    ray = factors.evaluated(np.where(hit, -step.step, step.step))
    if at_bound.scaled.size != ray.scaled.size:  # a step of a deficient rank has fewer coordinates
        at_bound = factors.evaluated(at_bound.step)
    there = _Room(np.clip(room.x + at_bound.step, room.lower, room.upper), room.lower, room.upper, room.active)
    limit = there.reach(ray.step)
    curved = (ray.linear_norm / factors.unit) ** 2
    crossed = float((at_bound.image / factors.unit) @ (ray.image / factors.unit))
    best = (ray.slope - crossed) / curved if curved > 0.0 else 0.0
    if best <= 0.0 or limit <= 0.0:
        return None
    return _within(at_bound.plus(ray, min(best, limit)), trust, method)


def _limit(trial: Step, trust: float, method: TrustRegion) -> float:
    # A damping says nothing of lengths: there the step itself was made short enough.
    return trust / trial.length if not method.linear_solver.damps and trial.length > trust else 1.0


def _within(trial: Step, trust: float, method: TrustRegion) -> Step:
    return trial.times(_limit(trial, trust, method))


def _promised(trial: Step, unit: float) -> float:
    moved = trial.linear_norm / unit
    return 2.0 * trial.slope - moved * moved


def pressed(x: FloatVector, gradient: Float64Array, lower: FloatVector, upper: FloatVector) -> NDArray[np.int_]:
    """Return -1 where x is on its lower bound and the cost presses it there, 1 for the upper one, 0 elsewhere."""
    below = (x <= lower) & (gradient > 0.0)
    above = (x >= upper) & (gradient < 0.0)
    return above.astype(np.int_) - below.astype(np.int_)
