"""`root` and `fixed_point`: where plain NumPy equations hold, by Newton's method on exact Jacobians."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Never

import numpy as np

from ..errors import InvalidInputError
from ..implicit.recorded import depends_on_outside
from ..record.variable import raw_deep
from ..results import Format
from ..transforms import value_and_jacobian
from .checks import (
    as_args,
    check_jacobian,
    check_limits,
    check_residual,
    quick_executor,
    raveled,
    refuse_others,
    same_call,
    unknown_method,
    watching,
)
from .linear.base import LinearSolver
from .linear.square import GMRES, SquareLU
from .mixing import mixed
from .natural import NaturalNewton
from .newton import Newton, NewtonLineSearch
from .problem import FloatVector, Outcome, Problem
from .root_result import RootResult, make_root_result
from .root_stages import found_in_turn
from .search import Budget, History, Progress, resumed, searched
from .solutions import plain_start, recorded_fixed_point, recorded_root, refuse
from .space import Space, make_space
from .trust_region import State, TrustRegion

__all__ = ["Root", "fixed_point", "root"]

_METHODS: dict[str, type[Newton]] = {
    "newton": NaturalNewton,
    "trust-region": Newton,
    "line-search": NewtonLineSearch,
    "krylov": Newton,
}


def root(
    function: Callable[..., Any],
    x0: Any,
    *,
    args: Sequence[Any] = (),
    method: str | TrustRegion | None = None,
    linear_solver: str | LinearSolver | None = None,
    tol: float = 0.0,
    max_iterations: int = 1000,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    callback: Callable[[Progress], object] | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    **others: Never,
) -> RootResult:
    """Find x where every entry of ``function(x, *args)`` is zero, starting from x0.

    The method is Newton's on the exact Jacobian, which jacana derives from the function: damped so that Newton's steps
    get shorter (the norm of the equations need not, which in stiff systems is no measure of the distance); where that
    leads nowhere, from the start again in a trust region, then by up to 50 whole steps. The structure of the Jacobian
    decides how the linear systems are solved: LAPACK where it is dense, tridiagonal or banded LU where its entries lie
    near the diagonal, SuperLU where it is sparse otherwise.

    Args:
        function: plain NumPy code; gets x in the structure of x0 and returns as many numbers as x has, as an array of
            any shape or a structure (list, tuple, dictionary) of arrays.
        x0: start: an array, a number, a list of numbers, or any pytree of them. float32 if all of it is, else float64.
        args: further arguments of `function`.
        method: "newton" (the default): the above, see `jacana.optimize.NaturalNewton`; "trust-region": Powell's dogleg;
            "line-search": Newton's direction, shortened until the norm falls; "krylov": Newton-Krylov: steps by GMRES
            in a trust region, on a Jacobian that is never stored.
        linear_solver: "lu" (the default), "gmres", a `jacana.optimize.GMRES` with a preconditioner, or another
            `jacana.optimize.LinearSolver`.
        tol: stop where no entry is larger than this. The default 0 ends at working precision, which costs a step or two
            more, as each doubles the digits.
        max_iterations, max_evaluations, max_seconds: limits of trial steps, of evaluations, of time.
        callback, progress, checkpoint, resume: as for `jacana.least_squares`; the cost is half the sum of squares.

    Returns:
        A `RootResult`. ``success`` is true only at a root.

    Raises:
        InvalidInputError: x0 is not made of finite real numbers; the function does not return as many real numbers,
            or they or the Jacobian are not finite at x0; an option is unknown.

    A trial point where something is not finite is refused. A singular Jacobian on the way is no obstacle: the step is
    then the one of least squares; at the root it is said in ``warnings``.

    To solve the same equations many times, make a `Root` once.

    >>> def equations(p):
    ...     return p["x"] ** 2 + p["y"] ** 2 - 4.0, np.exp(p["x"]) + p["y"] - 1.0
    >>> found = root(equations, {"x": 1.0, "y": -1.7})
    >>> found.success
    True
    >>> float(found.x["x"].round(9)), float(found.x["y"].round(9))
    (1.004168738, -1.729637287)
    >>> n = 10_000  # Broyden's tridiagonal function
    >>> def broyden(x):
    ...     padded = np.concatenate(([0.0], x, [0.0]))
    ...     return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0
    >>> bool(np.abs(root(broyden, np.full(n, -1.0)).fun).max() < 1e-14)
    True
    """
    refuse_others("root", others)
    args = as_args(args)
    solver = Root(
        function,
        method=method,
        linear_solver=linear_solver,
        tol=tol,
        max_iterations=max_iterations,
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
    )
    return solver(x0, args=args, callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)


class Root:
    """Equations to be solved more than once: recorded for the first start, or for other `args`, and kept.

    Made with the settings of `root`, called with its x0, args, callback, progress, checkpoint and resume.

    >>> solve = Root(lambda x: x**2 - np.array([4.0, 9.0]))
    >>> solve([1.0, 1.0]).x.tolist(), solve([-1.0, 1.0]).x.tolist()
    ([2.0, 3.0], [-2.0, 3.0])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        method: str | TrustRegion | None = None,
        linear_solver: str | LinearSolver | None = None,
        tol: float = 0.0,
        max_iterations: int = 1000,
        max_evaluations: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self.function = function
        self.budget = Budget(max_evaluations, max_seconds)
        check_limits({"tol": tol}, max_iterations, self.budget)
        self.matrix_free = method == "krylov"
        self.method = _method(method, linear_solver, tol, max_iterations)
        self._recorded: tuple[Space, tuple[Any, ...], Problem] | None = None

    def __call__(
        self,
        x0: Any,
        *,
        args: Sequence[Any] = (),
        callback: Callable[[Progress], object] | None = None,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> RootResult:
        x0, start = plain_start(x0)
        space = make_space(x0)
        if space.curved:
            raise InvalidInputError("a root is searched for among plain numbers, not on manifolds")
        with np.errstate(all="ignore"):
            x = space.first
            first = self.function(space.unravel(x.copy()), *args)
            recorded = start is not None or depends_on_outside(first)
            size = check_residual(raw_deep(first), space, "function")
        if size != x.size:
            raise InvalidInputError(
                f"the function returns {size} numbers for {x.size} unknowns; a root needs as many equations as "
                f"unknowns (jacana.least_squares takes any number)"
            )
        if recorded:
            refuse("root", callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)
            found: RootResult = recorded_root(self, space, tuple(args), start)
            return found
        with quick_executor(2 * size):
            problem = self._problem(space, tuple(args))
            point = problem.linearise(x)
            check_jacobian(point[1], space, "function")
            state = self.method.init(problem, x, point)
            if resume is not None:
                state = resumed(resume, self.method, problem, state)
            begin = time.perf_counter()

            def search(method: TrustRegion, state: State) -> tuple[State, Outcome, History]:
                return searched(
                    method,
                    problem,
                    state,
                    space,
                    budget=self.budget,
                    callback=callback,
                    display=progress,
                    checkpoint=checkpoint,
                    begin=begin,
                )

            method = self.method
            if isinstance(method, NaturalNewton):
                method, state, outcome, history = found_in_turn(method, problem, state, search)
            else:
                state, outcome, history = search(method, state)
            if outcome is Outcome.WORKING_PRECISION and isinstance(method, Newton):
                state = method.sharpened(problem, state)
            return make_root_result(state, outcome, history, space, method)

    def searching(self, function: Callable[..., Any]) -> Root:
        """A search with the same settings for a root of another function."""
        other = Root.__new__(Root)
        other.__dict__.update(self.__dict__, function=function, _recorded=None)
        return other

    def _problem(self, space: Space, args: tuple[Any, ...]) -> Problem:
        known = self._recorded
        if known is not None and same_call(space, args, *known[:2]):
            return known[2]

        def flat(x: Any) -> Any:
            return raveled(self.function(space.unravel(x), *args))

        # Each point is handed over as a copy: a function that writes into its argument must not move the search.
        form: Format = "operator" if self.matrix_free else "auto"
        linearise = watching(value_and_jacobian(flat, format=form), self.function)
        problem = Problem(lambda x: np.asarray(flat(x.copy())), lambda x: _with_matrix(*linearise(x.copy())))
        if not self.matrix_free and isinstance(self.method.linear_solver, SquareLU):
            stored = watching(value_and_jacobian(flat, format="csr"), self.function)
            problem = Problem(problem.residual, _Stored(linearise, stored))
        self._recorded = (space, args, problem)
        return problem


class _Stored:
    """Value and Jacobian with entries: CSR where the format that suits best would be an operator."""

    def __init__(self, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> None:
        self._linearise, self._second = first, second

    def __call__(self, x: FloatVector) -> Any:
        value, jacobian = self._linearise(x.copy())
        if isinstance(jacobian, np.ndarray) or hasattr(jacobian, "tocsr"):
            return _with_matrix(value, jacobian)
        self._linearise = self._second
        return _with_matrix(*self._linearise(x.copy()))


def _with_matrix(value: Any, jacobian: Any) -> Any:
    return value, jacobian.reshape(value.size, -1) if isinstance(jacobian, np.ndarray) else jacobian


def _method(method: Any, linear_solver: Any, tol: float, max_iterations: int) -> TrustRegion:
    if isinstance(method, TrustRegion):
        return method
    name = "newton" if method is None else method
    if name not in _METHODS:
        raise unknown_method("root", method, _METHODS)
    solvers: dict[Any, Any] = {None: GMRES if name == "krylov" else SquareLU, "lu": SquareLU, "gmres": GMRES}
    if not isinstance(linear_solver, LinearSolver):
        if linear_solver not in solvers:
            raise InvalidInputError(f"there is no linear solver {linear_solver!r} for roots; there is lu, gmres")
        linear_solver = solvers[linear_solver]()
    if name == "krylov" and isinstance(linear_solver, SquareLU):
        raise InvalidInputError("the method 'krylov' never stores the Jacobian, so there is nothing to factorise")
    if name == "newton" and not isinstance(linear_solver, SquareLU):
        name = "trust-region"  # which needs no second solution with the same matrix
    return _METHODS[name](linear_solver=linear_solver, tol=tol, max_iterations=max_iterations)


def fixed_point(
    function: Callable[..., Any],
    x0: Any,
    *,
    args: Sequence[Any] = (),
    method: str = "newton",
    tol: float = 0.0,
    max_iterations: int = 1000,
    depth: int = 5,
    damping: float = 1.0,
    callback: Callable[[Any], object] | None = None,
) -> RootResult:
    """Find x with ``function(x, *args) == x``, starting from x0.

    Args:
        function: plain NumPy code; gets x in the structure of x0 and returns the same structure.
        x0: start: an array, a number, a list of numbers, or any pytree of them.
        args: further arguments of `function`.
        method: "newton" (the default), "line-search" or "krylov": `root` of ``function(x) - x``; "anderson": Anderson's
            mixing of the last iterates; "iteration": x, function(x), function(function(x)), .... The last two take no
            derivatives, so their function may be anything, and go where repeated application goes.
        tol: stop where no entry of ``function(x) - x`` is larger than this; 0 for working precision.
        max_iterations: limit of steps.
        depth: earlier iterates that "anderson" mixes.
        damping: share of the way to the next iterate that "anderson" and "iteration" go.
        callback: as for `root`; for "anderson" and "iteration" it gets the iterate in the structure of x0.

    Returns:
        A `RootResult` whose ``fun`` is ``function(x) - x``.

    Raises:
        InvalidInputError: as for `root`.

    Source: D. G. Anderson, "Iterative procedures for nonlinear integral equations", J. ACM 12(4), 1965; H. F. Walker
    and P. Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 49(4), 2011.

    >>> [float(fixed_point(np.cos, 1.0, method=name).x.round(12)) for name in ("newton", "anderson", "iteration")]
    [0.739085133215, 0.739085133215, 0.739085133215]
    """
    args = as_args(args)
    given, start = plain_start(x0)
    space = make_space(given)
    with np.errstate(all="ignore"):
        first = function(space.unravel(space.first), *args)
        recorded = start is not None or depends_on_outside(first)
        _check_shape(raw_deep(first), space)
    if isinstance(method, str) and method not in (*_METHODS, "anderson", "iteration"):
        raise unknown_method("fixed_point", method, (*_METHODS, "anderson", "iteration"))
    if method in ("anderson", "iteration"):
        check_limits({"tol": tol}, max_iterations, Budget())
        depth = depth if method == "anderson" else 0
        if not recorded:
            return mixed(function, x0, tuple(args), depth, damping, tol, max_iterations, callback)
        refuse("fixed_point", callback=callback)

        def search(at: Any) -> Any:
            return lambda x: mixed(lambda v: at(v) + v, x, (), depth, damping, tol, max_iterations, None)

        found: RootResult = recorded_fixed_point(function, space, tuple(args), start, search)
        return found

    def difference(x: Any, *rest: Any) -> Any:
        return raveled(function(x, *rest)) - raveled(x)

    if not recorded:
        return root(difference, x0, args=args, method=method, tol=tol, max_iterations=max_iterations, callback=callback)
    refuse("fixed_point", callback=callback)
    newton = Root(function, method=method, tol=tol, max_iterations=max_iterations)
    found = recorded_fixed_point(function, space, tuple(args), start, newton.searching)
    return found


def _check_shape(values: Any, space: Space) -> None:
    size = check_residual(values, space, "function")
    if size != space.start.size:
        raise InvalidInputError(
            f"the function returns {size} numbers for {space.start.size}; a fixed point needs as many"
        )
