"""Fixed points without derivatives: plain iteration, and Anderson's mixing of the last iterates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .checks import check_residual, raveled
from .newton import ROOT_MESSAGES
from .norms import euclidean_norm
from .problem import Outcome
from .root_result import RootResult
from .search import History
from .space import make_space

__all__ = ["mixed"]

Float64Array = NDArray[np.float64]

_PATIENCE = 20  # steps without a better iterate after which rounding, or a cycle, is at work
_CLOSE = 1e-10  # relative size of the last difference at which it was rounding


def mixed(
    function: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...],
    depth: int,
    damping: float,
    tol: float,
    max_iterations: int,
    callback: Callable[[Any], object] | None,
) -> RootResult:
    """See `jacana.optimize.fixed_point`; `depth` 0 is plain iteration."""
    if depth < 0 or not 0.0 < damping <= 1.0:
        raise InvalidInputError("depth must be 0 or more, and damping above 0 and at most 1")
    space = make_space(x0)
    if space.curved:
        raise InvalidInputError("a fixed point is searched for among plain numbers, not on manifolds")
    x = space.start.copy()
    eps = float(np.finfo(x.dtype).eps)

    def difference(at: Any) -> Any:
        return np.asarray(raveled(function(space.unravel(at.copy()), *args)), dtype=x.dtype) - at

    with np.errstate(all="ignore"):
        size = check_residual(function(space.unravel(x.copy()), *args), space, "function")
        if size != x.size:
            raise InvalidInputError(f"the function returns {size} numbers for {x.size}; a fixed point needs as many")
        f = difference(x)
        # The last steps of x, and the changes of f that went with them.
        steps: deque[Any] = deque(maxlen=depth)
        changes: deque[Any] = deque(maxlen=depth)
        best, best_x, best_f, idle, evaluations = euclidean_norm(f), x, f, 0, 1
        lengths, norms = [0.0], [best]
        outcome: Outcome | None = None
        while outcome is None:
            outcome = _judged(f, x, tol, eps)
            if outcome is None and len(norms) > max_iterations:
                outcome = Outcome.ITERATION_LIMIT
            if outcome is not None:
                break
            step = damping * f
            if changes:
                matrix = np.stack(changes, axis=1)
                weights = np.linalg.lstsq(matrix, f, rcond=100.0 * eps)[0]
                step = damping * (f - matrix @ weights) - np.stack(steps, axis=1) @ weights
            moved = (x + step).astype(x.dtype, copy=False)
            new = difference(moved)
            evaluations += 1
            if not np.isfinite(new).all():
                outcome = Outcome.NO_PROGRESS
                break
            steps.append(moved - x)
            changes.append(new - f)
            lengths.append(euclidean_norm(moved - x))
            x, f = moved, new
            norms.append(euclidean_norm(f))
            idle = 0 if norms[-1] < best else idle + 1
            if norms[-1] < best:
                best, best_x, best_f = norms[-1], x, f
            if idle > _PATIENCE and best <= _CLOSE * euclidean_norm(best_x):
                outcome = Outcome.WORKING_PRECISION
            if callback is not None and _stops(callback, space.unravel(x.copy())):
                outcome = Outcome.STOPPED
    if outcome not in (Outcome.GRADIENT, Outcome.COST):
        x, f = best_x, best_f
    with np.errstate(over="ignore"):
        cost = 0.5 * np.square(np.array(norms))
    return RootResult(
        x=space.parameters.unravel(x),
        fun=np.asarray(f, dtype=np.float64),
        jac=None,
        success=outcome > 0,
        status=int(outcome),
        message=_MESSAGES.get(outcome, ROOT_MESSAGES[outcome]),
        nfev=evaluations,
        njev=0,
        nit=len(norms) - 1,
        nrefused=0,
        flat=x,
        history=History(cost, np.array(lengths), np.array(lengths), np.ones(len(norms), dtype=bool)),
        space=space,
        method="anderson" if depth else "iteration",
    )


_MESSAGES = {Outcome.NO_PROGRESS: "Not converged: the iteration led to a point where the function is not finite."}


def _judged(f: Any, x: Any, tol: float, eps: float) -> Outcome | None:
    largest = float(np.abs(f).max())
    if largest == 0.0:
        return Outcome.GRADIENT
    if tol > 0.0 and largest <= tol:
        return Outcome.COST
    return Outcome.WORKING_PRECISION if bool((np.abs(f) <= eps * np.abs(x)).all()) else None


def _stops(callback: Callable[[Any], object], x: Any) -> bool:
    try:
        return callback(x) is True
    except StopIteration:
        return True
