"""Newton's method for square systems: the least-squares loop with steps of the Jacobian itself, and its own judgement.

A root is where every equation holds, not where the gradient of the sum of squares is zero: a search that ends at a
minimum that is no root has failed, however stationary it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .controls import Control
from .linear.base import LinearSolver, Step
from .linear.square import SquareLU
from .methods import Dogleg, LineSearch
from .norms import euclidean_norm
from .problem import Outcome, Problem
from .trust_region import State

__all__ = ["ROOT_MESSAGES", "Newton", "NewtonLineSearch"]

_ZERO = 1e-290  # residuals this small have no digits left to improve
NEAR = 1e3  # roundings within which the residual of a search that cannot go on is zero
_SOLVED = 0.99  # part of the residual that a step of a regular linear system removes
_PRECISE = 1e3  # roundings of its own terms by which an equation may be off
CREDIBLE = 1e6  # roundings of its own terms by which no equation may be off at a root
_SHARPENINGS = 3
_STATIONARY = 1e-10  # cosine between residual and every column at which no direction leads on

ROOT_MESSAGES: dict[Outcome, str] = {
    Outcome.GRADIENT: "Converged: every equation holds exactly.",
    Outcome.COST: "Converged: no equation is off by more than tol.",
    Outcome.WORKING_PRECISION: "Converged to working precision: rounding leaves nothing to gain.",
    Outcome.ITERATION_LIMIT: "Not converged: max_iterations reached.",
    Outcome.TIME_LIMIT: "Not converged: max_seconds reached.",
    Outcome.EVALUATION_LIMIT: "Not converged: max_evaluations reached.",
    Outcome.STOPPED: "Stopped by the callback.",
    Outcome.NO_PROGRESS: (
        "Not converged: no step brings the equations nearer to zero. This may be a minimum of their norm that is no "
        "root, or a kink or a jump; start elsewhere."
    ),
}
"""What each outcome is called in `RootResult.message`."""


@dataclass(frozen=True)
class Newton(Dogleg):
    """Newton's step where the region lets it, Powell's dogleg where not.

    Attributes:
        tol: stop where no equation is off by more than this; 0 for working precision.

    Source: M. J. D. Powell, "A hybrid method for nonlinear equations", in Numerical Methods for Nonlinear Algebraic
    Equations, 1970.
    """

    tol: float = 0.0
    linear_solver: LinearSolver = field(default_factory=SquareLU)

    def terminate(self, state: State) -> Outcome | None:
        if state.norm <= _ZERO:
            return Outcome.GRADIENT
        if self.tol > 0.0 and float(np.abs(state.point.residual).max()) <= self.tol:
            return Outcome.COST
        if state.accepted and state.norm <= state.rounding:
            return Outcome.WORKING_PRECISION
        extent = euclidean_norm(state.scale * state.size)
        held = state.stuck or self.control.collapsed(state.trust, extent, state.eps)
        if held or state.refusals > 1:
            if self._near(state, extent):
                return Outcome.WORKING_PRECISION
            if held or state.optimality <= _STATIONARY:
                return Outcome.NO_PROGRESS
        if self.patience and state.slow >= self.patience:
            return Outcome.SLOW
        return Outcome.ITERATION_LIMIT if state.iteration >= self.max_iterations else None

    def _near(self, state: State, extent: float) -> bool:
        """Whether a search that cannot go on has arrived all the same.

        The equations may be less precise than an estimate from their derivatives says. Then Newton's step, if it does
        solve the linear equations, is as short as half of the digits of x, which is what a double root has.
        """
        if state.norm <= NEAR * state.rounding:
            return True
        full = state.factors.full
        return full.linear_norm > _SOLVED * state.norm and full.length <= state.eps**0.5 * extent

    def sharpened(self, problem: Problem, state: State) -> State:
        """The state after a few full steps more, where an equation holds less precisely than its own terms allow.

        The norm that a search judges by is that of all equations: those whose terms are small (``x[0] * x[1] - 1e-14``)
        drown in the rounding errors of the others. Newton's step does not mind how equations are scaled, so it is
        taken as long as it makes the worst of them, each in its own roundings, twice as good.
        """
        worst = _roundings(state)
        for _ in range(_SHARPENINGS):
            if worst <= _PRECISE:
                return state
            x, _ = self.moved(problem, state, state.factors.full)
            point = problem.at(x) if np.isfinite(x).all() else None
            if point is None or not point.finite:
                return state
            residuals, jacobians = state.residual_evaluations + 1, state.jacobian_evaluations + 1
            state = replace(state, residual_evaluations=residuals, jacobian_evaluations=jacobians)
            factors, _ = self.model(problem, point, x, state.scale)
            after = replace(state, x=x, point=point, factors=factors, size=problem.size(x))
            before, worst = worst, _roundings(after)
            if not worst <= 0.5 * before:
                return state
            state = after
        return state

    def precise(self, state: State) -> bool:
        """Whether no equation is off by more than many roundings of its own terms."""
        if not state.point.dense and not state.point.sparse:
            return True
        return bool((np.abs(state.point.residual) <= CREDIBLE * _terms(state)).all())


def _roundings(state: State) -> float:
    """By how many roundings of its terms, ``eps |J| |x|``, the worst equation is off; 0 where there is no matrix."""
    off = np.abs(state.point.residual)
    if not state.point.dense and not state.point.sparse:
        return 0.0
    terms = _terms(state)
    known = (terms > 0.0) & (off > 0.0)
    return float((off[known] / terms[known]).max(initial=0.0))


def _terms(state: State) -> NDArray[np.float64]:
    """Rounding errors of the terms of each equation, shape (n,)."""
    rounding: NDArray[np.float64] = state.eps * (abs(state.point.jacobian) @ state.size)
    return rounding


@dataclass(frozen=True)
class NewtonLineSearch(Newton):
    """Newton's direction, shortened by interpolation until the equations come near enough to zero (damped Newton).

    Source: J. E. Dennis and R. B. Schnabel, "Numerical Methods for Unconstrained Optimization and Nonlinear Equations",
    1983, section 6.3.
    """

    control: Control = field(default_factory=LineSearch)

    def propose(self, problem: Problem, state: State, trust: float) -> Step:
        return state.factors.full.times(min(trust, 1.0))
