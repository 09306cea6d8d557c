"""`least_squares`: fit the parameters of a plain NumPy function, with exact Jacobians that nobody has to write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..transforms import value_and_jacobian
from .levenberg_marquardt import LevenbergMarquardt, LevenbergMarquardtState, Outcome, Problem
from .parameters import FloatVector, Parameters, flatten_parameters
from .result import MESSAGES, LeastSquaresResult

__all__ = ["LeastSquares", "Progress", "least_squares"]

_MAX_NAMED = 6  # parameters that a message lists


@dataclass(frozen=True)
class Progress:
    """What a callback gets after each trial step.

    Attributes:
        iteration: trial steps so far.
        cost: half the sum of squares at the best point so far.
        step_length: length of the last trial step, in the scaled norm of the trust region.
        radius: of the trust region for the next step.
        accepted: whether the last trial step became the best point.
        nfev, njev: points at which the residual and its Jacobian were evaluated so far.
        flat: the best parameters so far as one vector, shape (n,), read-only.
        parameters: how `flat` maps to the structure of x0.
    """

    iteration: int
    cost: float
    step_length: float
    radius: float
    accepted: bool
    nfev: int
    njev: int
    flat: FloatVector
    parameters: Parameters

    @property
    def x(self) -> Any:
        """The best parameters so far in the structure of x0."""
        return self.parameters.unravel(self.flat)


def least_squares(
    residual: Callable[..., Any],
    x0: Any,
    *,
    args: Sequence[Any] = (),
    max_iterations: int = 2000,
    ftol: float = 0.0,
    xtol: float = 0.0,
    gtol: float = 0.0,
    callback: Callable[[Progress], object] | None = None,
) -> LeastSquaresResult:
    """Minimise half the sum of squares of ``residual(x, *args)`` over x, starting from x0.

    The method is Levenberg-Marquardt with a scaled trust region on the exact Jacobian, which jacana derives from the
    residual itself. By default the search goes on until rounding leaves nothing to gain, which costs an iteration or
    two where the residual is small at the solution; where it is large and a residual is expensive, ``ftol=1e-12`` or
    so ends it sooner.

    Args:
        residual: plain NumPy code; gets x in the structure of x0 and returns an array of any shape, or a structure
            (list, tuple, dictionary) of them. All entries together are the m residuals.
        x0: start: an array of any shape, a number, a list or tuple of numbers (taken as a vector), or any pytree of
            arrays and numbers. n entries together, float32 if all of them are, else float64. Not modified. m < n is
            allowed.
        args: further arguments of `residual`.
        max_iterations: limit of trial steps.
        ftol: stop where a full Gauss-Newton step promises to reduce the cost by no more than this fraction.
        xtol: stop where that step is no longer than this fraction of x, both scaled by the columns of the Jacobian.
        gtol: stop where the cosine of the angle between the residual and every column of the Jacobian is no more than
            this.
        callback: called with a `Progress` after each trial step; the search stops if it returns True or raises
            StopIteration.

    Returns:
        A `LeastSquaresResult`: x in the structure of x0, cost, residual, Jacobian, covariance and standard errors,
        and why the search ended. ``success`` is true only at a stationary point.

    Raises:
        InvalidInputError: x0 is not made of finite real numbers; the residual is empty, not real, or not finite at
            x0, or its Jacobian is not finite there; a tolerance or the limit makes no sense.

    A trial point where the residual or its Jacobian is not finite is refused and the region made smaller. NumPy's
    floating-point warnings are silenced during the search, since wild trial points are part of it.

    Where the Jacobian has a rank below n, steps of least length (in the scaled norm) are taken, and the message names
    the parameters that the residual does not determine.

    To fit the same residual many times, make a `LeastSquares` once.

    Sources: J. J. Moré, "The Levenberg-Marquardt algorithm: implementation and theory", LNM 630, 1978; see
    `jacana.optimize.levenberg_marquardt` for what differs.

    >>> t = np.array([0.0, 1.0, 2.0, 3.0])
    >>> y = 3.0 * np.exp(-0.5 * t)
    >>> def misfit(p, t, y):
    ...     return p["height"] * np.exp(-p["rate"] * t) - y
    >>> fit = least_squares(misfit, {"height": 1.0, "rate": 1.0}, args=(t, y))
    >>> fit.success, float(fit.x["height"].round(12)), float(fit.x["rate"].round(12))
    (True, 3.0, 0.5)
    """
    problem = LeastSquares(residual, max_iterations=max_iterations, ftol=ftol, xtol=xtol, gtol=gtol)
    return problem(x0, args=args, callback=callback)


class LeastSquares:
    """A residual to be fitted more than once: from many starts, or again after its data changed in place.

    `least_squares` records the residual and derives its Jacobian anew in each call, which takes longer than a small
    fit itself. This object does so once and keeps the recording for as long as x0 has the same structure and shapes
    and `args` are the same objects. Made with the settings of `least_squares`, called with its x0, args and callback;
    same results, same errors.

    >>> data = np.array([1.0, 4.0])
    >>> fit = LeastSquares(lambda x: x**2 - data)
    >>> [fit(start).x.round(9).tolist() for start in ([3.0, 3.0], [-3.0, 3.0])]
    [[1.0, 2.0], [-1.0, 2.0]]
    >>> data[:] = [9.0, 16.0]
    >>> fit([3.0, 3.0]).x.round(9).tolist()
    [3.0, 4.0]
    """

    def __init__(
        self,
        residual: Callable[..., Any],
        *,
        max_iterations: int = 2000,
        ftol: float = 0.0,
        xtol: float = 0.0,
        gtol: float = 0.0,
    ) -> None:
        self.residual = residual
        self.solver = _solver(max_iterations, ftol, xtol, gtol)
        self._recorded: _Recorded | None = None

    def __call__(
        self, x0: Any, *, args: Sequence[Any] = (), callback: Callable[[Progress], object] | None = None
    ) -> LeastSquaresResult:
        parameters, start = flatten_parameters(x0)
        recorded = self._recorded
        if recorded is None or not recorded.serves(parameters, args):
            recorded = self._recorded = _record(self.residual, parameters, tuple(args))
        with np.errstate(all="ignore"):
            values = self.residual(parameters.unravel(start.copy()), *recorded.arguments)
            _check_residual(values, parameters, start)
            point = recorded.problem.linearise(start)
            _check_jacobian(point[1], parameters, start)
            return _searched(self.solver, recorded.problem, parameters, start, point, callback)


def _searched(
    solver: LevenbergMarquardt,
    problem: Problem,
    parameters: Parameters,
    start: FloatVector,
    point: tuple[NDArray[Any], NDArray[Any]],
    callback: Callable[[Progress], object] | None,
) -> LeastSquaresResult:
    state = solver.init(problem, start, point)
    outcome = solver.terminate(state)
    while outcome is None:
        state = solver.step(problem, state)
        outcome = solver.terminate(state)
        if callback is not None and _asks_to_stop(callback, state, parameters):
            outcome = Outcome.STOPPED if outcome is None else outcome
    return _result(state, outcome, parameters)


@dataclass(frozen=True)
class _Recorded:
    """A residual as functions of a flat vector, for one structure of x and one set of further arguments."""

    problem: Problem
    parameters: Parameters
    arguments: tuple[Any, ...]

    def serves(self, parameters: Parameters, args: Sequence[Any]) -> bool:
        same = len(args) == len(self.arguments) and all(a is b for a, b in zip(args, self.arguments, strict=True))
        return same and parameters == self.parameters


def _record(residual: Callable[..., Any], parameters: Parameters, arguments: tuple[Any, ...]) -> _Recorded:
    def flat_residual(x: Any) -> Any:
        return _raveled(residual(parameters.unravel(x), *arguments))

    linearise = value_and_jacobian(flat_residual)
    # Each point is handed over as a copy: a residual that writes into its argument must not move the search.
    problem = Problem(lambda x: np.asarray(flat_residual(x.copy())), lambda x: linearise(x.copy()))
    return _Recorded(problem, parameters, arguments)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _solver(max_iterations: int, ftol: float, xtol: float, gtol: float) -> LevenbergMarquardt:
    for name, value in (("ftol", ftol), ("xtol", xtol), ("gtol", gtol)):
        if not (math.isfinite(value) and value >= 0.0):
            raise InvalidInputError(f"{name} must be a finite number, 0 or more; got {value!r}")
    if max_iterations < 0:
        raise InvalidInputError(f"max_iterations must be 0 or more; got {max_iterations!r}")
    return LevenbergMarquardt(max_iterations=max_iterations, ftol=ftol, xtol=xtol, gtol=gtol)


def _check_residual(values: Any, parameters: Parameters, start: FloatVector) -> None:
    accessors, leaves, _ = optree.tree_flatten_with_accessor(values)
    arrays = [np.asarray(leaf) for leaf in leaves]
    if not arrays or all(array.size == 0 for array in arrays):
        raise InvalidInputError("the residual is empty: it must return at least one number")
    for accessor, leaf, array in zip(accessors, leaves, arrays, strict=True):
        if array.dtype.kind == "c":
            raise InvalidInputError("the residual is complex; return its real and imaginary parts as two residuals")
        if array.dtype.kind not in "biuf":
            kind = type(leaf).__name__
            raise InvalidInputError(f"the residual must return real numbers or arrays of them, not {kind}")
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):  # not bad.size, which is 0 for a bad number without axes
            where = ", ".join(map(str, bad[0].tolist()))
            entry = accessor.codify("residual") + (f"[{where}]" if where else "")
            more = f" (and {len(bad) - 1} more entries are not finite)" if len(bad) > 1 else ""
            raise InvalidInputError(
                f"{entry} is {array[tuple(bad[0])]} at the start{more}, with {_listed(parameters, start)}; "
                f"start where the residual is finite"
            )


def _check_jacobian(jacobian: NDArray[Any], parameters: Parameters, start: FloatVector) -> None:
    bad = np.argwhere(~np.isfinite(jacobian))
    if bad.size:
        row, column = bad[0].tolist()
        raise InvalidInputError(
            f"the derivative of residual entry {row} (raveled) with respect to {parameters.name(column)} is "
            f"{jacobian[row, column]} at the start ({len(bad)} of {jacobian.size} entries of the Jacobian are not "
            f"finite), with {_listed(parameters, start)}; start where the residual is differentiable"
        )


def _listed(parameters: Parameters, start: FloatVector) -> str:
    shown = [f"{parameters.name(k)} = {start[k]:.6g}" for k in range(min(_MAX_NAMED, start.size))]
    return ", ".join(shown) + (", ..." if start.size > _MAX_NAMED else "")


# ---- pieces ----------------------------------------------------------------------------------------------------------


def _raveled(values: Any) -> Any:
    """Return whatever a residual returned as one vector, by functions that a recording can follow."""
    if isinstance(values, list | tuple | dict):
        leaves: list[Any] = optree.tree_leaves(values)  # type: ignore[arg-type]
        return np.concatenate([np.ravel(leaf) for leaf in leaves])
    return np.ravel(values)


def _asks_to_stop(
    callback: Callable[[Progress], object], state: LevenbergMarquardtState, parameters: Parameters
) -> bool:
    flat = state.x.view()
    flat.setflags(write=False)
    progress = Progress(
        iteration=state.iteration,
        cost=state.cost,
        step_length=state.step_length,
        radius=state.radius,
        accepted=state.accepted,
        nfev=state.residual_evaluations,
        njev=state.jacobian_evaluations,
        flat=flat,
        parameters=parameters,
    )
    try:
        return callback(progress) is True
    except StopIteration:
        return True


def _result(state: LevenbergMarquardtState, outcome: Outcome, parameters: Parameters) -> LeastSquaresResult:
    def made(message: str) -> LeastSquaresResult:
        return LeastSquaresResult(
            x=parameters.unravel(state.x),
            fun=state.residual,
            jac=state.jacobian,
            cost=state.cost,
            grad=state.gradient,
            optimality=state.optimality,
            success=outcome > 0,
            status=int(outcome),
            message=message,
            nfev=state.residual_evaluations,
            njev=state.jacobian_evaluations,
            nit=state.iteration,
            flat=state.x,
            parameters=parameters,
        )

    result = made(MESSAGES[outcome])
    if result.rank == state.x.size:
        return result
    names = result.undetermined
    shown = ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
    rank = f"The Jacobian there has rank {result.rank} of {state.x.size}"
    return made(f"{MESSAGES[outcome]} {rank}: the residual does not determine {shown}.")
