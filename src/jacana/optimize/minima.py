"""`minimize`: the least value of a plain NumPy function, by exact derivatives, within bounds and constraints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Never

import numpy as np

from ..errors import InvalidInputError
from ..implicit.recorded import depends_on_outside
from ..record import current_recording
from ..record.variable import raw_deep
from ..transforms import hessian, value_and_grad
from .checks import (
    as_args,
    check_jacobian,
    check_limits,
    listed,
    quick_executor,
    refuse_others,
    same_call,
    unknown_method,
    watching,
)
from .constraints import Constraint, as_constraints
from .minimum import Minimum, NewtonMinimum
from .minimum_result import MinimizeResult, make_minimum_result
from .search import Budget, Progress, load_checkpoint, searched, with_saved_counts
from .solutions import plain_settings, plain_start, recorded_minimum, refuse
from .space import Space, make_space, sides_of

__all__ = ["Minimizer", "minimize"]

_CONSTRAINED = ("trust-constr", "SLSQP", "ipopt")
_BOUNDED = ("L-BFGS-B", "TNC", *_CONSTRAINED)
_SCIPY = {
    name.lower(): name
    for name in (*_BOUNDED, "BFGS", "CG", "Newton-CG", "dogleg", "trust-ncg", "trust-krylov", "trust-exact")
}
_SCIPY["l-bfgs"] = "L-BFGS-B"


def minimize(
    function: Callable[..., Any],
    x0: Any,
    *,
    args: Sequence[Any] = (),
    bounds: Any = None,
    fixed: Any = None,
    ties: Mapping[Any, Callable[[Any], Any]] | None = None,
    constraints: Any = (),
    method: str | NewtonMinimum | None = None,
    scale: Any = None,
    gtol: float = 0.0,
    xtol: float = 0.0,
    max_iterations: int = 2000,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    callback: Callable[[Progress], object] | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    **others: Never,
) -> MinimizeResult:
    """Find x where ``function(x, *args)`` has its least value nearby, starting from x0.

    The method is Newton's in a trust region, on the exact gradient and Hessian, which jacana derives from the function.
    The Hessian is dense, sparse, or an operator that only multiplies, as its structure suggests. Directions of negative
    curvature are followed, so that a saddle point is no end. With constraints, SciPy's "trust-constr" is called with
    exact sparse derivatives of everything.

    Args:
        function: plain NumPy code; gets x in the structure of x0 and returns one number.
        x0: start: an array, a number, a list of numbers, or any pytree of them. float32 if all of it is, else float64.
        args: further arguments of `function`.
        bounds, fixed, ties: as for `jacana.least_squares`. A list of tuples (lower, upper), one for each parameter, is
            taken as SciPy takes it.
        constraints: a `jacana.optimize.Constraint` (``lower <= function(x) <= upper``, equal where the two are), a
            constraint as SciPy takes it (``NonlinearConstraint``, ``LinearConstraint``, or a dictionary of "type" and
            "fun"; derivatives that come with it are not used), or a sequence of them. Their functions get x in the
            structure of x0.
        method: "newton" (the default without constraints), "trust-constr" (the default with them), or another of
            SciPy's: "slsqp" (constraints), "l-bfgs", "tnc" (bounds), "bfgs", "cg", "newton-cg", "trust-exact",
            "trust-krylov", "trust-ncg", "dogleg"; "ipopt" (constraints), where the package cyipopt is installed; or a
            `jacana.optimize.NewtonMinimum`.
        scale: typical sizes of the variables, a number or an array (for "newton"). By default the diagonal of the
            Hessian says what matters, and units of the variables make no difference.
        gtol: stop where no entry of the gradient (by what may move) is larger than this. By default "newton" ends at
            working precision, and SciPy's methods at 1e-8.
        xtol: stop where Newton's step is no longer than this fraction of x.
        max_iterations, max_evaluations, max_seconds: limits of trial steps, of points at which the function is
            evaluated, and of time.
        callback: called with a `Progress` after each step; the search stops if it returns True.
        progress, checkpoint, resume: as for `jacana.least_squares`, for "newton".

    Returns:
        A `MinimizeResult`. ``success`` is true only where the gradient (of the Lagrangian) vanishes and the constraints
        hold.

    Raises:
        InvalidInputError: x0 is not made of finite real numbers; the function does not return one real number, or it,
            its gradient or its Hessian are not finite at x0; bounds are crossed; an option is unknown, or the method
            does not know bounds or constraints.

    Sources: see `jacana.optimize.descent`; for "trust-constr" R. H. Byrd, M. E. Hribar and J. Nocedal, "An interior
    point algorithm for large-scale nonlinear programming", SIAM J. Optim. 9(4), 1999.

    >>> def rosenbrock(x):
    ...     return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    >>> minimize(rosenbrock, np.zeros(5)).x
    array([1., 1., 1., 1., 1.])
    >>> minimize(rosenbrock, [0.0, 0.0], bounds=(None, [0.5, 2.0])).x
    array([0.5 , 0.25])
    >>> circle = Constraint(lambda x: x @ x, 1.0, 1.0)
    >>> minimize(lambda x: x[0] + 2.0 * x[1], [1.0, 0.0], constraints=circle).x.round(7)
    array([-0.4472136, -0.8944272])
    """
    refuse_others("minimize", others)
    args = as_args(args)
    search = Minimizer(
        function,
        bounds=bounds,
        fixed=fixed,
        ties=ties,
        constraints=constraints,
        method=method,
        scale=scale,
        gtol=gtol,
        xtol=xtol,
        max_iterations=max_iterations,
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
    )
    return search(x0, args=args, callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)


class Minimizer:
    """A function to be minimised more than once: recorded for the first start, or for other `args`, and kept.

    Made with the settings of `minimize`, called with its x0, args, callback, progress, checkpoint and resume.

    >>> search = Minimizer(lambda x: np.sum(np.cos(x)))
    >>> search([3.0]).x.round(6), search([9.0]).x.round(6)
    (array([3.141593]), array([9.424778]))
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        bounds: Any = None,
        fixed: Any = None,
        ties: Mapping[Any, Callable[[Any], Any]] | None = None,
        constraints: Any = (),
        method: str | NewtonMinimum | None = None,
        scale: Any = None,
        gtol: float = 0.0,
        xtol: float = 0.0,
        max_iterations: int = 2000,
        max_evaluations: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self.function = function
        self.bounds, self.fixed, self.ties, self.scale = sides_of(bounds), fixed, ties, scale
        plain_settings("minimize", self, "bounds", "scale")
        self.constraints: tuple[Constraint, ...] = as_constraints(constraints)
        self.gtol, self.xtol, self.max_iterations = gtol, xtol, max_iterations
        self.budget = Budget(max_evaluations, max_seconds)
        check_limits({"gtol": gtol, "xtol": xtol}, max_iterations, self.budget)
        self.method = self._method(method)
        self._recorded: tuple[Space, tuple[Any, ...], Minimum] | None = None

    def __call__(
        self,
        x0: Any,
        *,
        args: Sequence[Any] = (),
        callback: Callable[[Progress], object] | None = None,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> MinimizeResult:
        x0, start = plain_start(x0)
        space = make_space(x0, fixed=self.fixed, bounds=self.bounds, ties=self.ties)
        if space.curved:
            raise InvalidInputError("minimize is for plain numbers; jacana.least_squares knows manifolds")
        if space.lower is not None and isinstance(self.method, str) and self.method not in _BOUNDED:
            raise InvalidInputError(f"the method {self.method!r} does not know bounds; use 'newton' (the default)")
        with np.errstate(all="ignore"):
            x = space.first
            first = self.function(space.unravel(x.copy()), *args)
            recorded = start is not None or depends_on_outside(first) or self._constraints_depend(space)
            _check_value(raw_deep(first), space)
        if recorded:
            refuse("minimize", callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)
            found: MinimizeResult = recorded_minimum(self, space, tuple(args), start)
            return found
        with quick_executor(space.start.size):
            problem = self._problem(space, tuple(args))
            if isinstance(self.method, str):
                from .scipy_minima import minimized_by_scipy

                return minimized_by_scipy(self, problem, space, tuple(args), callback)
            value, gradient = problem.at(x)
            check_jacobian(gradient[None, :], space, "function")
            second = problem.hessian(x)
            check_jacobian(second, space, "gradient")
            state = self.method.init(problem, x, (value, gradient, second))
            if resume is not None:
                x, scale, trust, counts = load_checkpoint(resume, state)
                state = self.method.init(problem, x.astype(state.x.dtype))
                model = replace(state.model, scale=np.maximum(scale, state.scale))
                state = with_saved_counts(replace(state, model=model, trust=trust), counts)
            state, outcome, history = searched(
                self.method,
                problem,
                state,
                space,
                budget=self.budget,
                callback=callback,
                display=progress,
                checkpoint=checkpoint,
            )
            return make_minimum_result(state, outcome, history, problem, space)

    def searching(self, function: Callable[..., Any], space: Space) -> Minimizer:
        """The same search for another function, of what is free in `space`, flat."""
        other = Minimizer.__new__(Minimizer)
        other.__dict__.update(self.__dict__, function=function, fixed=None, ties=None, _recorded=None)
        other.bounds = None if space.lower is None else (space.lower, space.upper)
        sizes = _scale(self.scale, space)
        other.scale = None if sizes is None else 1.0 / sizes
        return other

    def _constraints_depend(self, space: Space) -> bool:
        return current_recording() is not None and any(depends_on_outside(c.at(space)) for c in self.constraints)

    def _method(self, method: Any) -> str | NewtonMinimum:
        if isinstance(method, NewtonMinimum):
            chosen: str | NewtonMinimum = method
        elif method == "newton" or (method is None and not self.constraints):
            chosen = NewtonMinimum(self.max_iterations, self.gtol, self.xtol)
        elif method is None:
            chosen = "trust-constr"
        elif isinstance(method, str) and method.lower() in _SCIPY:
            chosen = _SCIPY[method.lower()]
        else:
            raise unknown_method("minimize", method, ("newton", *_SCIPY))
        if self.constraints and chosen not in _CONSTRAINED:
            raise InvalidInputError(
                f"the method {method!r} does not know constraints; use 'trust-constr' (the default with them), 'slsqp'"
            )
        return chosen

    def _problem(self, space: Space, args: tuple[Any, ...]) -> Minimum:
        known = self._recorded
        if known is not None and space.plain and known[0].plain and same_call(space, args, *known[:2]):
            return replace(known[2], lower=space.lower, upper=space.upper)

        def flat(x: Any) -> Any:
            return _scalar(self.function(space.unravel(x), *args))

        reads = (self.function, *(self.ties or {}).values())
        first, second = watching(value_and_grad(flat), *reads), watching(hessian(flat, format="auto"), *reads)
        # Each point is handed over as a copy: a function that writes into its argument must not move the search.
        problem = Minimum(
            lambda x: first(x.copy()),
            lambda x: second(x.copy()),
            space.lower,
            space.upper,
            _scale(self.scale, space),
        )
        self._recorded = (space, args, problem)
        return problem


def _scalar(value: Any) -> Any:
    return value if np.ndim(value) == 0 else np.reshape(value, ())


def _scale(scale: Any, space: Space) -> Any:
    if scale is None:
        return None
    given = np.asarray(scale, dtype=np.float64)
    if given.size not in (1, space.start.size) or not (np.isfinite(given) & (given > 0.0)).all():
        raise InvalidInputError(
            f"scale must be finite and above 0, one number or one for each of {space.start.size} variables"
        )
    return 1.0 / np.broadcast_to(given.ravel(), (space.start.size,))[space.free]


def _check_value(value: Any, space: Space) -> None:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf" or array.size != 1:
        kind = f"shape {array.shape}" if array.dtype.kind in "biufc" and array.size != 1 else type(value).__name__
        kind = "a complex number" if array.dtype.kind == "c" and array.size == 1 else kind
        raise InvalidInputError(
            f"the function must return one real number, but returns {kind}; for a vector take its sum, or "
            f"jacana.least_squares for a sum of squares"
        )
    if not np.isfinite(array).all():
        raise InvalidInputError(
            f"the function is {array.item()} at the start, with {listed(space)}; start where it is finite"
        )
