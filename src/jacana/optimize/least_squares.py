"""`least_squares`: fit the parameters of a plain NumPy function, with exact Jacobians that nobody has to write."""

from __future__ import annotations

import copy
import functools
import operator
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from .. import trees
from ..errors import InvalidInputError
from ..implicit.recorded import depends_on_outside
from ..record.variable import raw_deep
from ..transforms import hessian, jvp, value_and_grad, value_and_jacobian
from .checks import (
    agrees,
    as_args,
    check_jacobian,
    check_limits,
    check_residual,
    quick_executor,
    raveled,
    refuse_others,
    same_call,
    watching,
)
from .linear.base import LinearSolver
from .losses import as_loss
from .minimum import Minimum
from .problem import FloatVector, Outcome, Problem
from .repeats import OwnArguments, Repeats
from .result import LeastSquaresResult, make_result
from .search import Budget, Progress, resumed, searched
from .second_derivatives import by_second_derivatives
from .separable import project, with_counts
from .small_fits import SmallFits
from .solutions import plain_settings, plain_start, recorded_least_squares, refuse
from .solvers import SPARSE_FTOL, choose_linear_solver, choose_method
from .space import Space, make_space
from .trust_region import TrustRegion
from .whitening import whitening

__all__ = ["LeastSquares", "least_squares"]

_SECOND = 100  # parameters up to which second derivatives of the residual are cheap enough
_FLAT = 1e-6  # optimality above which a minimum is one by the second derivatives only
_beyond_plain = operator.itemgetter(
    "fixed", "ties", "linear", "loss", "weights", "noise", "method", "linear_solver", "scale", "max_evaluations",
    "max_seconds", "ftol",
)  # fmt: skip # settings that small fits do without
_PATIENCE = 6  # slow steps in a row after which they are worth their price


def least_squares(
    residual: Callable[..., Any],
    x0: Any,
    *,
    args: Sequence[Any] = (),
    bounds: Any = None,
    fixed: Any = None,
    ties: Mapping[Any, Callable[[Any], Any]] | None = None,
    linear: Any = None,
    loss: Any = None,
    loss_scale: float = 1.0,
    weights: Any = None,
    noise: Any = None,
    absolute_noise: bool = False,
    method: str | TrustRegion | None = None,
    linear_solver: str | LinearSolver | None = None,
    scale: Any = None,
    max_iterations: int = 2000,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    ftol: float | None = None,
    xtol: float = 0.0,
    gtol: float = 0.0,
    callback: Callable[[Progress], object] | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    **others: Never,
) -> LeastSquaresResult:
    """Minimise half the sum of squares of ``residual(x, *args)`` over x, starting from x0.

    The method is Levenberg-Marquardt with a scaled trust region on the exact Jacobian, which jacana derives from the
    residual itself, dense or sparse as it finds it. By default the search in a dense problem goes on until rounding
    leaves nothing to gain, which costs an iteration or two where the residual is small at the solution; where it is
    large and a residual is expensive, ``ftol=1e-12`` or so ends it sooner.

    Args:
        residual: plain NumPy code; gets x in the structure of x0 and returns an array of any shape, or a structure
            (list, tuple, dictionary) of them. All entries together are the m residuals.
        x0: start: an array of any shape, a number, a list or tuple of numbers (taken as a vector), or any pytree of
            arrays, numbers and manifolds (`jacana.optimize.SO3` and others). float32 if all of it is, else float64.
            Not modified. m < n is allowed.
        args: further arguments of `residual`.
        bounds: a pair (lower, upper), each None, a number or in the structure of x0 (or SciPy's ``Bounds``), or a
            dictionary ``{name: (lower, upper)}``. A parameter whose bounds are equal is fixed there.
        fixed: names of parameters that keep their values, or a boolean array of the shape of x0. A name is a key of
            the outermost container of x0, a tuple of keys and indices that leads further in, or an index into an
            array.
        ties: ``{name: function}``: the parameter is not searched for but is what the function says of x, for example
            ``{"b": lambda x: 1.0 - x["a"]}``. The function may look at free and fixed parameters and earlier ties.
        linear: a name, or a list of names, of parameters in which the residual is linear (heights of peaks). The search
            is then one among the others alone, each time with the best linear ones (variable projection): their start
            does not matter, and fewer steps are needed.
        loss: None for the sum of squares; "huber", "soft_l1", "cauchy", "arctan", "tukey"; a function rho of the
            squared residual (elementwise plain NumPy; jacana derives what else is needed); or a
            `jacana.optimize.Loss`, which can take several residuals as one.
        loss_scale: residuals (after weights and noise) of about this size begin to count less.
        weights: factors of the squared residuals, a number or in the shape of the residual.
        noise: standard deviations of the residuals, a number or in the shape of the residual, or their covariance
            matrix, shape (m, m): residuals are measured in it, and correlations taken into account.
        absolute_noise: `noise` (or one over the root of `weights`) is the true size of the errors. Covariance and
            errors then follow from it alone; otherwise only ratios count, and the residuals at the end say how large
            the noise is.
        method: "lm", "lm-geodesic", "dogleg", "subspace-dogleg", "gauss-newton", "trf" (the only one with bounds), or a
            `jacana.optimize.TrustRegion` of your own. The default is "lm", or "trf" with bounds, and in dense problems
            of up to 100 parameters Newton's method, with second derivatives of the residual, where the steps of the
            first gain little: where a residual is large and curved they would converge slowly, or not at all.
        linear_solver: "qr" (the default for dense Jacobians of up to 400 columns), "cholesky", "sparse", "schur",
            "schur-cg", "lsmr", "cg", "matrix-free" (LSMR on a Jacobian that is never stored), or a
            `jacana.optimize.LinearSolver`. By default the structure of the Jacobian decides.
        scale: typical sizes of the parameters, a number or in the structure of x0. By default the columns of the
            Jacobian say what matters, and units of the parameters make no difference.
        max_iterations, max_evaluations, max_seconds: limits of trial steps, of points at which the residual is
            evaluated, and of time.
        ftol: stop where a full Gauss-Newton step promises to reduce the cost by no more than this fraction. Default 0
            for dense problems, 1e-10 where each step costs a factorisation of its own.
        xtol: stop where that step is no longer than this fraction of x, both scaled by the columns of the Jacobian.
        gtol: stop where the cosine of the angle between the residual and every column of the Jacobian is no more than
            this.
        callback: called with a `Progress` after each trial step; the search stops if it returns True or raises
            StopIteration.
        progress: show a line in the terminal when the search takes longer than a second.
        checkpoint: a file (.npz) to which the search is saved every ten seconds and at its end.
        resume: such a file, to go on from. `x0` gives the structure only.

    Returns:
        A `LeastSquaresResult`: x in the structure of x0, cost, residual, Jacobian, covariance and standard errors,
        and why the search ended. ``success`` is true only at a stationary point.

    Raises:
        InvalidInputError: x0 is not made of finite real numbers; the residual is empty, not real, or not finite at
            x0, or its Jacobian is not finite there; bounds are crossed or x0 is outside; a name is unknown; a shape
            does not fit; a tolerance or limit makes no sense.

    A trial point where the residual or its Jacobian is not finite is refused and the region made smaller. NumPy's
    floating-point warnings are silenced during the search, since wild trial points are part of it.

    Where the Jacobian has a rank below n, steps of least length (in the scaled norm) are taken, and the message names
    the parameters that the residual does not determine.

    To fit the same residual many times, make a `LeastSquares` once; for thousands of data sets see `fit_batch`.

    Sources: J. J. Moré, "The Levenberg-Marquardt algorithm: implementation and theory", LNM 630, 1978; see
    `jacana.optimize.trust_region` for what differs, and the modules of the other methods.

    >>> t = np.array([0.0, 1.0, 2.0, 3.0])
    >>> y = 3.0 * np.exp(-0.5 * t)
    >>> def misfit(p, t, y):
    ...     return p["height"] * np.exp(-p["rate"] * t) - y
    >>> fit = least_squares(misfit, {"height": 1.0, "rate": 1.0}, args=(t, y))
    >>> fit.success, float(fit.x["height"].round(12)), float(fit.x["rate"].round(12))
    (True, 3.0, 0.5)
    >>> fit = least_squares(misfit, {"height": 1.0, "rate": 1.0}, args=(t, y), bounds={"rate": (0.6, None)})
    >>> float(fit.x["rate"])
    0.6
    """
    refuse_others("least_squares", others)
    args = as_args(args)
    settings = {
        "bounds": bounds, "fixed": fixed, "ties": ties, "linear": linear, "loss": loss, "loss_scale": loss_scale,
        "weights": weights, "noise": noise, "absolute_noise": absolute_noise, "method": method,
        "linear_solver": linear_solver, "scale": scale, "max_iterations": max_iterations,
        "max_evaluations": max_evaluations, "max_seconds": max_seconds, "ftol": ftol, "xtol": xtol, "gtol": gtol,
    }  # fmt: skip
    if not (callback or progress or checkpoint or resume) and not any(map(_is_given, _beyond_plain(settings))):
        limits = (absolute_noise, max_iterations, xtol, gtol)
        found = _repeats.fitted(residual, x0, args, bounds, limits, lambda function: LeastSquares(function, **settings))
        if found is not None:
            return found
    problem = LeastSquares(residual, **settings)
    return problem(x0, args=args, callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)


class LeastSquares:
    """A residual to be fitted more than once: from many starts, or again after its data changed in place.

    `least_squares` records the residual and derives its Jacobian anew in each call, which takes longer than a small
    fit itself. This object does so once and keeps the recording for as long as x0 and the arrays in `args` have the
    same structure, shapes and dtypes, and everything else is the same. Made with the settings of `least_squares`,
    called with its x0, args, callback, progress, checkpoint and resume; same results, same errors.

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
        bounds: Any = None,
        fixed: Any = None,
        ties: Mapping[Any, Callable[[Any], Any]] | None = None,
        linear: Any = None,
        loss: Any = None,
        loss_scale: float = 1.0,
        weights: Any = None,
        noise: Any = None,
        absolute_noise: bool = False,
        method: str | TrustRegion | None = None,
        linear_solver: str | LinearSolver | None = None,
        scale: Any = None,
        max_iterations: int = 2000,
        max_evaluations: int | None = None,
        max_seconds: float | None = None,
        ftol: float | None = None,
        xtol: float = 0.0,
        gtol: float = 0.0,
    ) -> None:
        self.residual = residual
        self.lent: tuple[NDArray[Any], ...] = ()  # arrays that `residual` captures, and whose content others change
        self.watched = residual  # whose outside state matters: that of another function where `residual` wraps one
        self.bounds, self.fixed, self.ties, self.linear = bounds, fixed, ties, linear
        self.loss = as_loss(loss, loss_scale)
        self.weights, self.noise, self.absolute_noise = weights, noise, absolute_noise
        self.method, self.linear_solver, self.scale = method, linear_solver, scale
        self.max_iterations, self.ftol, self.xtol, self.gtol = max_iterations, ftol, xtol, gtol
        self.budget = Budget(max_evaluations, max_seconds)
        _check_settings(self)
        self.bounds = copy.deepcopy(self.bounds)  # what they are made of may be changed by its owner
        self._recorded: _Recorded | None = None
        self._arguments = OwnArguments()
        self.small: SmallFits | None = None

    def __call__(
        self,
        x0: Any,
        *,
        args: Sequence[Any] = (),
        callback: Callable[[Progress], object] | None = None,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> LeastSquaresResult:
        options = (callback, progress, checkpoint, resume)
        if not args or self._arguments.as_given(args):
            return self._fitted(x0, args, args, *options)
        with self._arguments.holding(args) as own:
            return self._fitted(x0, own, args, *options)

    def _fitted(
        self,
        x0: Any,
        args: Sequence[Any],
        given: Sequence[Any],
        callback: Callable[[Progress], object] | None,
        progress: bool,
        checkpoint: str | os.PathLike[str] | None,
        resume: str | os.PathLike[str] | None,
    ) -> LeastSquaresResult:
        """Fit with arguments that may be our own; what outlives the call refers to those that were given."""
        if self.small is not None and not (callback or progress or checkpoint or resume):
            quick = self.small(x0, args, given)
            if quick is not None:
                return quick
        x0, start = plain_start(x0)
        space = make_space(x0, fixed=self.fixed, bounds=self.bounds, ties=self.ties)
        with np.errstate(all="ignore"):
            x = space.first
            first = self.residual(space.unravel(x.copy()), *args)
            recorded_values = start is not None or depends_on_outside(first)
            size = check_residual(raw_deep(first), space)
        if recorded_values:
            refuse("least_squares", callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)
            whiten = whitening(self.weights, self.noise, size)
            if self.loss is not None:
                self.loss.check(size)
            found: LeastSquaresResult = recorded_least_squares(self, space, whiten, tuple(given), start)
            return found
        begun = None
        if self.linear is not None and resume is None:
            whiten = whitening(self.weights, self.noise, size)
            x, begun = project(self, space, tuple(args), whiten, {"callback": callback, "progress": progress})
        with quick_executor(size + space.size):
            recorded = self._recorded
            if recorded is None or not recorded.serves(space, args):
                recorded = self._recorded = _record(self, space, tuple(args), size)
                self.small = recorded.small_fits(size)
            problem = recorded.problem(space)
            point = problem.linearise(x)
            if args and recorded.used and not agrees(problem.residual(x), *point, x):
                recorded = self._recorded = _record(self, space, tuple(args), size)
                self.small = recorded.small_fits(size)
                problem = recorded.problem(space)
                point = problem.linearise(x)
            recorded.used = True
            check_jacobian(point[1], space)
            model = problem.modelled(*point)
            if recorded.method is None:
                recorded.method = self._method(model, space.lower is not None, recorded.cost is not None)
            state = recorded.method.init(problem, x, point)
            if resume is not None:
                state = resumed(resume, recorded.method, problem, state)

            begin = time.perf_counter()

            def search(method: Any, problem: Any, state: Any) -> Any:
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

            state, outcome, history = search(recorded.method, problem, state)
            twice = bool(recorded.method.patience) and outcome in (Outcome.SLOW, Outcome.NO_PROGRESS)
            if twice:
                minimum = recorded.minimum(problem)
                state, outcome, history = by_second_derivatives(
                    recorded.method, problem, minimum, x, state, history, search
                )
            if self.small is not None and outcome > 0 and not twice:
                self.small.noted(recorded.method.patience)
            again = self._again(given)
            result = make_result(state, outcome, history, problem, space, recorded.method, again, self.absolute_noise)
            result = result if begun is None else with_counts(result, begun)
            if result.success and twice and result.optimality > _FLAT:
                # A column that vanishes at the minimum has no direction; the curvature of the cost has to do.
                curved = np.sqrt(np.abs(np.diagonal(recorded.minimum(problem).hessian(state.x)))) * state.norm
                free = (result.active_mask == 0) & (curved > 0.0)
                return replace(result, optimality=float((np.abs(result.grad) / curved)[free].max(initial=0.0)))
            return result

    def __getstate__(self) -> dict[str, Any]:
        # A copy records for itself.
        return {**self.__dict__, "_recorded": None, "_arguments": None, "small": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _arguments=OwnArguments())

    def searching(self, residual: Callable[..., Any], space: Space) -> LeastSquares:
        """The same search for another residual, of what is free in `space`, flat; whitened already."""
        other = LeastSquares.__new__(LeastSquares)
        other.__dict__.update(self.__dict__)
        other.residual, other.weights, other.noise = residual, None, None
        other.fixed, other.ties, other.linear = None, None, None
        other.bounds = None if space.lower is None else (space.lower, space.upper)
        sizes = _scale(self.scale, space)
        other.scale = None if sizes is None else 1.0 / sizes
        return other._afresh()

    def _afresh(self) -> LeastSquares:
        self._recorded, self._arguments, self.small = None, OwnArguments(), None
        return self

    def among(self, residual: Callable[..., Any], space: Space, places: NDArray[np.intp]) -> LeastSquares:
        """The same search for another residual of some of what is free in `space`; whitened already."""
        other = self.searching(residual, space)
        if other.bounds is not None:
            other.bounds = (other.bounds[0][places], other.bounds[1][places])
        if other.scale is not None:
            other.scale = other.scale[places]
        return other

    def _method(self, model: Any, bounded: bool, twice: bool) -> TrustRegion:
        solver = choose_linear_solver(self.linear_solver, model)
        ftol = self.ftol if self.ftol is not None else (SPARSE_FTOL if solver.damps else 0.0)
        settings = {"max_iterations": self.max_iterations, "ftol": ftol, "xtol": self.xtol, "gtol": self.gtol}
        if self.method is None and not solver.damps and twice and model.shape[1] <= _SECOND:
            settings["patience"] = _PATIENCE
        return choose_method(self.method, solver, bounded, settings)

    def _again(
        self, args: Sequence[Any], residual: Callable[..., Any] | None = None
    ) -> Callable[[Any, Any], LeastSquaresResult]:
        """The same fit from another start, with more parameters fixed; for profiles. Of another residual, if given."""

        def again(x0: Any, fixed: Any) -> LeastSquaresResult:
            other = LeastSquares.__new__(LeastSquares)
            other.__dict__.update(self.__dict__)
            other.fixed = fixed
            if residual is not None:
                other.residual, other.watched, other.lent = residual, residual, ()
            return other._afresh()(x0, args=args)

        return again


def _is_given(setting: Any) -> bool:
    return setting is not None


_repeats = Repeats()


class _Recorded:
    """A residual as functions of what a search moves, for one structure of x and one set of further arguments."""

    def __init__(
        self,
        settings: LeastSquares,
        space: Space,
        arguments: tuple[Any, ...],
        build: Any,
        cost: Callable[[Any], Any] | None = None,
        flat: Callable[[Any], Any] | None = None,
    ) -> None:
        self.settings, self.space, self.arguments, self.build = settings, space, arguments, build
        self.cost, self.flat = cost, flat
        self.reads = _reads(settings)
        self._minimum: Minimum | None = None
        self.method: TrustRegion | None = None
        self.used = False  # by a search before
        self._problem: Problem | None = None

    def serves(self, space: Space, args: Sequence[Any]) -> bool:
        if not same_call(space, args, self.space, self.arguments):
            return False
        if space.plain and self.space.plain and not space.tied:
            return True
        fixed = np.ones(space.start.size, dtype=bool)
        fixed[space.free] = False
        return (
            np.array_equal(space.free, self.space.free)
            and space.manifolds == self.space.manifolds
            and np.array_equal(space.start[fixed], self.space.start[fixed])
        )

    def problem(self, space: Space) -> Problem:
        if self._problem is None or not space.plain:
            self._problem = self.build(space if space.curved else self.space)
        problem = self._problem
        if space.lower is None and self.settings.scale is None:
            return problem
        return replace(problem, lower=space.lower, upper=space.upper, scale=_scale(self.settings.scale, space))

    def small_fits(self, size: int) -> SmallFits | None:
        """The same for machine code that makes whole searches, if this is small and plain."""
        if self.flat is None or not SmallFits.serves(self.settings, self.space, size * self.space.size):
            return None
        linearise = watching(value_and_jacobian(self.flat), *self.reads)
        return SmallFits(self.settings, self.space, self.arguments, size, linearise, self.flat)

    def minimum(self, problem: Problem) -> Minimum:
        """The same as a function to be minimised, with second derivatives of the residual."""
        if self._minimum is None or not self.space.plain:
            assert self.cost is not None
            first, second = watching(value_and_grad(self.cost), *self.reads), watching(hessian(self.cost), *self.reads)
            self._minimum = Minimum(lambda x: first(x.copy()), lambda x: second(x.copy()))
        return replace(self._minimum, lower=problem.lower, upper=problem.upper)


def _reads(settings: LeastSquares) -> tuple[Any, ...]:
    """The user's functions that a recorded residual is made of."""
    loss = None if settings.loss is None else settings.loss.function
    return (settings.watched, *(settings.ties or {}).values(), loss)


def _record(settings: LeastSquares, space: Space, arguments: tuple[Any, ...], size: int) -> _Recorded:
    whiten = whitening(settings.weights, settings.noise, size)
    if settings.loss is not None:
        settings.loss.check(size)
    matrix_free = settings.linear_solver == "matrix-free"
    form: Any = "operator" if matrix_free else "auto"

    def flat_residual(x: Any) -> Any:
        return whiten(raveled(settings.residual(space.unravel(x), *arguments)))

    def value(x: FloatVector) -> NDArray[Any]:
        # Each point is handed over as a copy: a residual that writes into its argument must not move the search.
        return np.asarray(flat_residual(x.copy()))

    if not space.curved:
        linearise = watching(value_and_jacobian(flat_residual, format=form), *_reads(settings))

        def along(x: Any, v: Any) -> Any:
            return jvp(flat_residual)(x, v)[1]

        second = jvp(functools.update_wrapper(along, settings.watched))

        def build_flat(_: Space) -> Problem:
            return Problem(
                value,
                lambda x: linearise(x.copy()),
                loss=settings.loss,
                curvature=lambda x, v: second(x.copy(), v, v)[1],
            )

        def cost(x: Any) -> Any:
            values = flat_residual(x)
            return 0.5 * np.sum(values**2) if settings.loss is None else np.sum(settings.loss.costs(values))

        return _Recorded(settings, space, arguments, build_flat, cost, flat_residual)

    def moved_residual(step: Any, x: Any, frames: Any) -> Any:
        structure = space.parameters.unravel(space.along(step, x, *frames))
        return whiten(raveled(settings.residual(structure, *arguments)))

    linearise_moved = watching(value_and_jacobian(moved_residual, format=form), *_reads(settings))

    def build_curved(here: Space) -> Problem:
        zero = np.zeros(here.size)
        return Problem(
            lambda x: np.asarray(whiten(raveled(settings.residual(here.parameters.unravel(x.copy()), *arguments)))),
            lambda x: linearise_moved(zero, x.copy(), here.frames(x)),
            loss=settings.loss,
            retract=here.moved,
            magnitude=here.magnitude,
        )

    return _Recorded(settings, space, arguments, build_curved)


def _scale(scale: Any, space: Space) -> NDArray[np.float64] | None:
    if scale is None:
        return None
    leaves, structure = trees.flatten(scale)
    if structure == space.parameters.structure and not structure.is_leaf():
        shapes = space.parameters.shapes
        parts = [np.broadcast_to(np.asarray(v, dtype=float), s) for v, s in zip(leaves, shapes, strict=True)]
        sizes = np.concatenate([part.ravel() for part in parts])
    else:
        given = np.asarray(scale, dtype=np.float64)
        if given.size not in (1, space.start.size):
            raise InvalidInputError(f"scale has shape {given.shape}, but there are {space.start.size} parameters")
        sizes = np.broadcast_to(given.ravel(), (space.start.size,))
    if not (np.isfinite(sizes) & (sizes > 0.0)).all():
        raise InvalidInputError("scale must be finite and above 0")
    return np.concatenate((1.0 / sizes[space.free], np.ones(space.size - space.free.size)))


def _check_settings(settings: LeastSquares) -> None:
    plain_settings("least_squares", settings, "bounds", "weights", "noise", "scale")
    tolerances = {name: getattr(settings, name) for name in ("ftol", "xtol", "gtol")}
    check_limits(tolerances, settings.max_iterations, settings.budget)
