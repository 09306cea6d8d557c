"""Newton's method judged by Newton steps instead of residuals: damped, and invariant to how the equations are scaled.

The norm of the equations is a poor judge of a stiff system. A bar that turns by a small angle is stretched to second
order, and as it is a thousand times stiffer than the structure that turns it, that is most of the forces: Newton's step
leads nearly to the root, yet multiplies the norm. A search that must make the norm fall creeps along a curved valley.

What the equations at a trial point are worth is how far they move the root: the *simplified* Newton step, with the
Jacobian of the point before, which the factorisation there gives for one more solve. A trial is accepted if it is
shorter than the step that led there (the natural monotonicity test). Multiplying the equations by any matrix changes
nothing of that. Bars that have turned fail this test too, since the old Jacobian knows their old directions only; so a
whole step is also accepted if Newton's own step from its end is at most half as long, which is how fast steps fall
where the method converges.

The tests compare neighbouring points only, so they cannot promise to arrive; and where a singular Jacobian lies in the
way the damping falls without end. Then the search says so, and another method has to go on (see `jacana.root`).

Source: P. Deuflhard, "Newton Methods for Nonlinear Problems", Springer 2004, sections 3.3.1 to 3.3.3 (the algorithm
NLEQ-ERR). Dampings are kept as radii, scaled as in `TrustRegion`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .linear.base import Step
from .linear.square import SingularMatrix, SquareFactors
from .newton import NEAR, Newton
from .norms import euclidean_norm
from .problem import FloatVector, Outcome, Problem
from .trust_region import State

__all__ = ["NaturalNewton", "UndampedNewton"]

_LEAST_DAMPING = 1e-4  # share of Newton's step below which the search gives up (NLEQ1's for highly nonlinear problems)
LEAST_CUT = 0.1  # of the step, after a trial that fails the test
CONVERGING = 0.5  # of the length of a whole step: a next step no longer than this justifies it


@dataclass(frozen=True)
class NaturalNewton(Newton):
    """Newton's direction, as far as the simplified Newton step falls; see the module. For direct linear solvers.

    >>> problem = Problem(lambda x: np.arctan(x), lambda x: (np.arctan(x), np.diag(1.0 / (1.0 + x**2))))
    >>> state = NaturalNewton().init(problem, np.array([10.0]))
    >>> while (outcome := NaturalNewton().terminate(state)) is None:
    ...     state = NaturalNewton().step(problem, state)
    >>> outcome.name, state.x
    ('GRADIENT', array([0.]))
    """

    def init(self, problem: Problem, x: FloatVector, point: tuple[NDArray[Any], Any] | None = None) -> State:
        state = super().init(problem, x, point)
        # The start says how large the unknowns are; a start at 0 says nothing, and Newton's step is all that is known.
        return replace(state, trust=euclidean_norm(state.scale * state.size) or math.inf)

    def terminate(self, state: State) -> Outcome | None:
        outcome = super().terminate(state)
        given_up = state.trust < _LEAST_DAMPING * state.factors.full_length
        return Outcome.SLOW if outcome is None and given_up else outcome

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        full = state.factors.full
        return full.times(trust / full.length) if trust < full.length else full

    def step(self, problem: Problem, state: State) -> State:
        factors = state.factors
        if not isinstance(factors, SquareFactors):
            raise InvalidInputError("this method needs a linear solver for square systems, such as SquareLU")
        full, trial = factors.full, self.propose(problem, state, state.trust)
        x = problem.moved(state.x, trial.step)
        if np.array_equal(x, state.x):
            return self._refused(state, trial, LEAST_CUT, stuck=True)
        if not np.isfinite(x).all():
            return self._shortened(state, trial, LEAST_CUT, wild=True)
        # After a refusal another is likely: the residual comes first then, so that no Jacobian is wasted.
        point = problem.at(x) if state.accepted else None
        values = np.asarray(problem.residual(x), dtype=np.float64) if point is None else point.residual
        used: dict[str, Any] = {"residuals": 1, "jacobians": int(point is not None)}
        if not np.isfinite(values).all():
            return self._shortened(state, trial, LEAST_CUT, wild=True, **used)
        try:
            simplified = factors.newton(values)
        except SingularMatrix:
            return self._refused(state, trial, LEAST_CUT, stuck=True, **used)

        damping = trial.length / full.length
        passed = euclidean_norm(state.scale * simplified) < (1.0 - 0.25 * damping) * full.length
        if passed and point is None:
            point, used["jacobians"] = problem.at(x), 1
        if point is not None and not point.finite:
            return self._shortened(state, trial, LEAST_CUT, wild=True, **used)
        # Among rounding errors steps shrink by chance, if at all, and no part of one does better than the whole.
        rounded = trial.full and state.norm <= NEAR * state.rounding
        if point is not None and (passed or trial.full):
            after = self._accepted(problem, state, trial, x, point, math.inf, 1.0)
            newton = after.factors.full.step
            converging = euclidean_norm(state.scale * newton) <= CONVERGING * full.length
            if rounded and not converging and point.norm < state.norm:
                return replace(after, stuck=True)
            if passed and (converging or not rounded):
                # By how much Newton's step differs from the simplified one is how far the Jacobian has turned.
                turned = euclidean_norm(after.scale * (simplified - newton))
                length = euclidean_norm(after.scale * simplified)
                return replace(after, trust=trial.length * length / turned if turned > 0.0 else math.inf)
            if trial.full and converging:
                return after
        bent = euclidean_norm(state.scale * (simplified - (1.0 - damping) * full.step))
        cut = min(0.5, max(LEAST_CUT, 0.5 * damping * full.length / bent)) if math.isfinite(bent) else LEAST_CUT
        return self._shortened(state, trial, cut, stuck=rounded, **used)

    def _shortened(self, state: State, trial: Step, cut: float, **counted: Any) -> State:
        return replace(self._refused(state, trial, cut, **counted), trust=cut * trial.length)


@dataclass(frozen=True)
class UndampedNewton(Newton):
    """Whole steps of Newton's, whatever they do to the equations, until one is no better than rounding errors.

    Where it converges it may have come from anywhere, over singular Jacobians that hold other methods back.
    """

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        return state.factors.full

    def step(self, problem: Problem, state: State) -> State:
        trial = self.propose(problem, state, state.trust)
        x = problem.moved(state.x, trial.step)
        finite = bool(np.isfinite(x).all())
        if not finite or np.array_equal(x, state.x):
            return self._refused(state, trial, 0.0, stuck=True, wild=not finite)
        point = problem.at(x)
        if not point.finite or not math.isfinite(point.norm):
            return self._refused(state, trial, 0.0, residuals=1, jacobians=1, stuck=True, wild=True)
        if point.norm >= state.norm and self._near(state, euclidean_norm(state.scale * state.size)):
            return self._refused(state, trial, 0.0, residuals=1, jacobians=1, stuck=True)
        return self._accepted(problem, state, trial, x, point, math.inf, 1.0)
