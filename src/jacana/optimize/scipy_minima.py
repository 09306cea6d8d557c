"""SciPy's minimisers and Ipopt, with exact derivatives of the function and the constraints handed over."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..scipy import constraint, minimize_args
from .constraints import FlatConstraint
from .ipopt_minima import minimized_by_ipopt
from .kkt import Limits, estimated, lowest, polished
from .minimum import Minimum
from .minimum_result import MINIMUM_MESSAGES, MinimizeResult
from .problem import Outcome
from .search import History, Progress
from .space import Space

if TYPE_CHECKING:
    from .minima import Minimizer

__all__ = ["minimized_by_scipy"]

_TOLERANCE = 1e-8  # of the gradient, where the user says nothing
_STATIONARY = 1e-3  # gradient of the Lagrangian, relative to that of the function, from which it is not zero
_VIOLATION = 1e-6  # of a constraint, relative to its bounds, from which it counts as violated


class _Stopped(Exception):
    """A budget is spent, or the callback has asked to stop."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Watched:
    """The function as SciPy calls it: counted, within the budget, its last values kept for the history."""

    def __init__(self, settings: Minimizer, fun: Callable[[Any], float]) -> None:
        self.budget, self.fun = settings.budget, fun
        self.begin = time.perf_counter()
        self.count = 0
        self.last: dict[bytes, float] = {}
        self.costs: list[float] = []
        self.x: Any = None  # of the last step

    def __call__(self, x: NDArray[Any]) -> float:
        if self.budget.evaluations is not None and self.count >= self.budget.evaluations:
            raise _Stopped(Outcome.EVALUATION_LIMIT)
        if self.budget.seconds is not None and time.perf_counter() - self.begin >= self.budget.seconds:
            raise _Stopped(Outcome.TIME_LIMIT)
        self.count += 1
        value = self.fun(x)
        if len(self.last) > 8:
            self.last.clear()
        self.last[x.tobytes()] = value
        return value

    def at(self, x: NDArray[Any]) -> float:
        """The value at a step, which SciPy has just asked for."""
        known = self.last.get(x.tobytes())
        return self.fun(x) if known is None else known


def minimized_by_scipy(
    settings: Minimizer,
    problem: Minimum,
    space: Space,
    args: tuple[Any, ...],
    callback: Callable[[Progress], object] | None,
) -> MinimizeResult:
    """Return the result of one of SciPy's methods, or of Ipopt, in the form of jacana's own."""
    from scipy.optimize import Bounds, minimize

    method = str(settings.method)

    def flat(x: Any) -> Any:
        value = settings.function(space.unravel(x), *args)
        return value if np.ndim(value) == 0 else np.reshape(value, ())

    flattened = [one.flattened(space) for one in settings.constraints]
    limits = _limits(flattened, space, space.size) if flattened else None
    arguments = minimize_args(flat, "BFGS" if method == "ipopt" else method)
    watched = _Watched(settings, arguments.pop("fun"))
    bounds = None if space.lower is None else Bounds(space.lower, space.upper)

    def step(xk: Any, *_: Any) -> None:
        watched.x = np.array(xk)
        watched.costs.append(watched.at(watched.x))
        if callback is not None and _asks_to_stop(callback, watched, space):
            raise _Stopped(Outcome.STOPPED)

    watched.x = x = space.first.astype(np.float64)
    found: Any = None
    try:
        watched.costs.append(watched(x))
        with warnings.catch_warnings():
            # Constraints that depend on one another are taken apart by singular values, which SciPy finds worth saying.
            warnings.filterwarnings("ignore", "Singular Jacobian matrix", UserWarning)
            if method == "ipopt":
                tolerance = settings.gtol or _TOLERANCE
                found = minimized_by_ipopt(watched, problem, limits, x, tolerance, settings.max_iterations, step)
            else:
                found = minimize(
                    watched,
                    x,
                    bounds=bounds,
                    constraints=[constraint(one.function, one.lower, one.upper, method) for one in flattened],
                    callback=step,
                    options=_options(settings, method),
                    **arguments,
                )
        x, outcome = np.asarray(found.x), _outcome(found, method)
    except _Stopped as stopped:
        x, outcome = watched.x, stopped.outcome
    x = x if problem.lower is None else np.clip(x, problem.lower, problem.upper)
    exact, multipliers, steps, optimality, highest = None, None, 0, 0.0, False
    if limits is not None:
        exact = polished(problem, limits, x) if found is not None else None
        if exact is not None:
            x, steps, outcome = exact.x, exact.steps, Outcome.WORKING_PRECISION
        v, optimality = estimated(problem, limits, x)
        highest = exact is None and not lowest(problem, limits, x, v, (v != 0.0) | (limits.lower == limits.upper))
        multipliers = tuple(limits.split(v if exact is None else exact.multipliers))
    value, gradient = problem.at(x)
    mask = np.zeros(x.size, dtype=np.int_)
    if space.lower is not None and space.upper is not None:
        mask = np.where(x <= space.lower, -1, np.where(x >= space.upper, 1, 0))
    if not flattened:
        optimality = float(np.abs(gradient[mask == 0]).max(initial=0.0))
    message = MINIMUM_MESSAGES[outcome]
    solver = "Ipopt" if method == "ipopt" else f"SciPy's {method}"
    if found is not None and exact is None:
        verdict = "Converged" if outcome > 0 else "Not converged"
        message = f"{verdict} ({solver}): {str(found.message).rstrip('.')}."
    violation = max((one.violation(np.asarray(one.function(x))) / _size(one) for one in flattened), default=0.0)
    # What the solver calls a success is one only if the first-order conditions say so too.
    if outcome > 0 and violation > _VIOLATION:
        outcome = Outcome.NO_PROGRESS
        message = f"Not converged: the constraints are violated by up to {violation:.1e}; perhaps nothing fulfils them."
    elif outcome > 0 and highest:
        outcome = Outcome.NO_PROGRESS
        message = f"Not converged: {solver} stopped at a stationary point that is no minimum; start elsewhere."
    elif outcome > 0 and flattened and optimality > _STATIONARY * (1.0 + float(np.abs(gradient).max())):
        outcome = Outcome.NO_PROGRESS
        message = (
            f"Not converged: {solver} stopped where the gradient of the Lagrangian is {optimality:.1e}; start "
            f"elsewhere, or try another method."
        )
    costs = np.array(watched.costs)
    whole = np.asarray(space.full(x)).astype(space.start.dtype, copy=False)
    return MinimizeResult(
        x=space.parameters.unravel(whole),
        fun=value,
        jac=gradient,
        hess=None,
        success=outcome > 0,
        status=int(outcome),
        message=message,
        nfev=watched.count,
        njev=int(getattr(found, "njev", 0) or 0),
        nhev=int(getattr(found, "nhev", 0) or 0),
        nit=int(getattr(found, "nit", len(costs) - 1)) + steps,
        nrefused=0,
        optimality=optimality,
        active_mask=mask,
        constraint_violation=violation,
        multipliers=multipliers,
        flat=whole,
        history=History(costs, np.full(costs.size, math.nan), np.full(costs.size, math.nan), costs == costs),
        space=space,
        hessian_at=problem.hessian,
        method=method,
    )


def _options(settings: Minimizer, method: str) -> dict[str, Any]:
    gtol = settings.gtol or _TOLERANCE
    limit = {"maxfun" if method == "TNC" else "maxiter": settings.max_iterations}
    match method:
        case "trust-constr":
            return {**limit, "gtol": gtol, "xtol": settings.xtol or 1e-12, "barrier_tol": min(gtol, 1e-8)}
        case "SLSQP":
            return {**limit, "ftol": 1e-10}
        case "L-BFGS-B":
            return {**limit, "gtol": gtol, "ftol": 1e-15, "maxfun": 20 * settings.max_iterations, "maxcor": 20}
        case "TNC":
            return {**limit, "gtol": gtol, "xtol": 0.0, "ftol": 0.0}
        case "Newton-CG":
            return {**limit, "xtol": settings.xtol or 1e-10}
        case _:
            return {**limit, "gtol": gtol}


def _outcome(found: Any, method: str) -> Outcome:
    if found.success:
        return Outcome.GRADIENT
    limit = {"trust-constr": (0,), "SLSQP": (9,), "TNC": (3,)}.get(method, (1,))
    return Outcome.ITERATION_LIMIT if found.status in limit else Outcome.NO_PROGRESS


def _limits(flattened: list[FlatConstraint], space: Space, n: int) -> Limits:
    parts = [constraint(one.function, one.lower, one.upper) for one in flattened]
    lower, upper = [one.lower for one in flattened], [one.upper for one in flattened]
    bounded = space.lower is not None and space.upper is not None
    if space.lower is not None and space.upper is not None:
        lower.append(space.lower.astype(np.float64))
        upper.append(space.upper.astype(np.float64))
    sizes = tuple(one.lower.size for one in flattened)
    return Limits(parts, np.concatenate(lower), np.concatenate(upper), sizes, bounded)


def _size(one: Any) -> float:
    finite = [np.abs(side[np.isfinite(side)]).max(initial=0.0) for side in (one.lower, one.upper)]
    return max(1.0, *map(float, finite))


def _asks_to_stop(callback: Callable[[Progress], object], watched: _Watched, space: Space) -> bool:
    flat = np.asarray(space.full(watched.x)).view()
    flat.setflags(write=False)
    told = Progress(
        iteration=len(watched.costs) - 1,
        cost=watched.costs[-1],
        step_length=math.nan,
        radius=math.nan,
        accepted=True,
        nfev=watched.count,
        njev=watched.count,
        seconds=time.perf_counter() - watched.begin,
        flat=flat,
        space=space,
    )
    try:
        return callback(told) is True
    except StopIteration:
        return True
