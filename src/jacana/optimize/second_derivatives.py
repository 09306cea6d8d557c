"""Least squares by second derivatives of the cost, where the method of Gauss and Newton does badly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import JacanaError
from .minimum import Minimum, NewtonMinimum
from .problem import FloatVector, Outcome, Problem
from .search import History, counted
from .trust_region import State, TrustRegion

__all__ = ["by_second_derivatives"]

_SECOND_STEPS = 60  # steps with them before the search goes on without
_NOWHERE = (Outcome.NO_PROGRESS, Outcome.ITERATION_LIMIT, Outcome.UNBOUNDED)  # ends that another method may avoid
_FINISHING = 10  # steps without them after a minimum has been found
_LOWER = 1e-6  # relative difference of costs from which another minimum is a lower one


def by_second_derivatives(
    method: TrustRegion,
    problem: Problem,
    minimum: Minimum,
    first: FloatVector,
    state: State,
    history: History,
    search: Callable[..., Any],
) -> tuple[State, Outcome, History]:
    """Go on with Newton's method where that of Gauss and Newton does badly: the residual is large, and curved.

    A minimum that it finds is finished by the first method, which is the more accurate one. If it finds none, the first
    method goes on from the better point; if that ends nowhere, from its own; and if that does too, Newton's method has
    a try from the start.
    """

    def go(method: Any, problem: Any, state: Any) -> Any:
        nonlocal history
        state, outcome, further = search(method, problem, state)
        history = history.followed_by(further)
        return state, outcome

    def by_newton(x: FloatVector, before: State, least: float) -> tuple[State, Outcome]:
        """The state at what Newton's method finds from x if that is below `least`, else `before`."""
        point = _twice_differentiated(minimum, x)
        if point is None:
            return before, Outcome.NO_PROGRESS
        newton = NewtonMinimum(max_iterations=min(method.max_iterations, before.iteration + _SECOND_STEPS))
        found, outcome = go(newton, minimum, counted(newton.init(minimum, x, point), before))
        if found.cost > least:
            return counted(before, found), Outcome.NO_PROGRESS
        there = counted(method.init(problem, found.x), found, 1)
        if outcome <= 0 or found.model.newton is None:
            return there, Outcome.NO_PROGRESS if outcome > 0 or outcome in _NOWHERE else outcome
        steps = min(method.max_iterations, found.iteration + _FINISHING)
        there, end = go(replace(patient, max_iterations=steps), problem, there)
        return there, outcome if end in (*_NOWHERE, Outcome.ITERATION_LIMIT) else end

    patient = replace(method, patience=0)
    after, end = by_newton(state.x, state, state.cost)
    if end == Outcome.NO_PROGRESS:
        moved = after.x is not state.x
        after, end = go(patient, problem, after)
        if end in _NOWHERE and moved:
            own, last = go(patient, problem, counted(state, after))
            # It may have had no steps left: what was found on the other way counts then.
            after, end = (own, last) if own.cost <= after.cost else (counted(after, own), end)
        if end in _NOWHERE:
            last, lower = by_newton(first, after, (1.0 - _LOWER) * after.cost)
            if lower > 0:
                after, end = last, lower
    return after, end, history


def _twice_differentiated(minimum: Minimum, x: FloatVector) -> tuple[float, Any, Any] | None:
    """Value, gradient and Hessian at x; None where there is no second derivative, or it is not finite."""
    try:
        value, gradient = minimum.at(x)
        second = minimum.hessian(x)
    except (JacanaError, NotImplementedError, np.linalg.LinAlgError):
        return None
    finite = math.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(second).all()
    return (value, gradient, second) if finite else None
