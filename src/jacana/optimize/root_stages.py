"""Which methods `root` tries one after another, and when what one of them has found counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

from .natural import NaturalNewton, UndampedNewton
from .newton import Newton
from .problem import Outcome, Problem
from .search import History, counted
from .trust_region import State

__all__ = ["found_in_turn"]

_NOWHERE = (Outcome.SLOW, Outcome.NO_PROGRESS, Outcome.ITERATION_LIMIT)  # ends that another method may avoid
_MOST_STEPS = 200  # of the first method
_PATIENCE = 20  # slow steps in a row after which the trust region lets another method try
_MOST_LEAPS = 50
FALLEN = 1e-6  # of the norm at the start: what has become so small has not grown with the unknowns

Search = Callable[[Newton, State], "tuple[State, Outcome, History]"]


def found_in_turn(
    method: NaturalNewton, problem: Problem, first: State, search: Search
) -> tuple[Newton, State, Outcome, History]:
    """Search from `first` along Newton's direction; if that leads nowhere, in a trust region, then by whole steps.

    Each begins at the start. The trust region makes the norm fall, past singular Jacobians, and may end at a minimum
    that is no root, often after very many steps. Whole steps may jump out of such a valley, or be lost; the trust
    region then has the rest.

    Returns:
        The last method, its last state, why it ended there, and all steps.
    """
    limit, parts = method.max_iterations, list[History]()

    def go(method: Newton, state: State, steps: int) -> tuple[State, Outcome]:
        method = replace(method, max_iterations=min(limit, state.iteration + steps))
        state, outcome, part = search(method, state)
        parts.append(part)
        return state, outcome

    def restart(method: Newton, before: State) -> State:
        point = first.point.residual, first.point.jacobian
        begun: State = counted(method.init(problem, first.x, point), before)
        return begun

    def ended(state: State, outcome: Outcome) -> bool:
        return outcome not in _NOWHERE or state.iteration >= limit

    state, outcome = go(method, first, _MOST_STEPS)
    state, outcome = _believed(method, problem, first, state, outcome)
    if ended(state, outcome):
        return method, state, outcome, reduce(History.followed_by, parts)
    region = Newton(linear_solver=method.linear_solver, tol=method.tol)
    leaps = UndampedNewton(linear_solver=method.linear_solver, tol=method.tol)
    state, outcome = go(replace(region, patience=_PATIENCE), restart(region, state), limit)
    if ended(state, outcome):
        return region, state, outcome, reduce(History.followed_by, parts)
    leapt, end = go(leaps, restart(leaps, state), _MOST_LEAPS)
    leapt, end = _believed(leaps, problem, first, leapt, end)
    if ended(leapt, end) and end > 0:
        return leaps, leapt, end, reduce(History.followed_by, parts)
    state = counted(state, leapt)
    if ended(leapt, end):
        return region, state, end, reduce(History.followed_by, parts)
    if outcome is Outcome.SLOW:
        state, outcome = go(region, state, limit)
    return region, state, outcome, reduce(History.followed_by, parts)


def _believed(method: Newton, problem: Problem, first: State, state: State, outcome: Outcome) -> tuple[State, Outcome]:
    """The end of a search that need not have made the norm fall, NO_PROGRESS where it has only outgrown it.

    Far away, where the terms of one equation are huge, any value of the others is less than their rounding errors. So
    every equation has to hold by its own terms, or the norm has to be small beside that of the start.
    """
    if outcome is not Outcome.WORKING_PRECISION:
        return state, outcome
    state = method.sharpened(problem, state)
    believed = state.norm <= FALLEN * first.norm or method.precise(state)
    return state, outcome if believed else Outcome.NO_PROGRESS
