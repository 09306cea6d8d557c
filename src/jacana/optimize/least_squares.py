"""`least_squares`: fit the parameters of a plain NumPy function, with exact Jacobians that nobody has to write."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import trees
from ..errors import InvalidInputError
from ..implicit.recorded import depends_on_outside
from ..record.variable import raw_deep
from ..transforms import jvp, value_and_jacobian
from .checks import check_jacobian, check_limits, check_residual, quick_executor, raveled
from .linear.base import LinearSolver
from .losses import as_loss
from .problem import FloatVector, Problem
from .result import LeastSquaresResult, make_result
from .search import Budget, Progress, resumed, searched
from .solutions import plain_start, recorded_least_squares, refuse
from .solvers import SPARSE_FTOL, choose_linear_solver, choose_method
from .space import Space, make_space
from .trust_region import TrustRegion

__all__ = ["LeastSquares", "least_squares"]


def least_squares(
    residual: Callable[..., Any],
    x0: Any,
    *,
    args: Sequence[Any] = (),
    bounds: Any = None,
    fixed: Any = None,
    ties: Mapping[Any, Callable[[Any], Any]] | None = None,
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
        method: "lm" (the default), "lm-geodesic", "dogleg", "subspace-dogleg", "gauss-newton", "trf" (the default,
            and the only one, with bounds), or a `jacana.optimize.TrustRegion` of your own.
        linear_solver: "qr" (the default for dense Jacobians of up to 400 columns), "cholesky", "sparse", "schur",
            "lsmr", "cg", "matrix-free" (LSMR on a Jacobian that is never stored), or a
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
    problem = LeastSquares(
        residual,
        bounds=bounds,
        fixed=fixed,
        ties=ties,
        loss=loss,
        loss_scale=loss_scale,
        weights=weights,
        noise=noise,
        absolute_noise=absolute_noise,
        method=method,
        linear_solver=linear_solver,
        scale=scale,
        max_iterations=max_iterations,
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
    )
    return problem(x0, args=args, callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)


class LeastSquares:
    """A residual to be fitted more than once: from many starts, or again after its data changed in place.

    `least_squares` records the residual and derives its Jacobian anew in each call, which takes longer than a small
    fit itself. This object does so once and keeps the recording for as long as x0 has the same structure and shapes
    and `args` are the same objects. Made with the settings of `least_squares`, called with its x0, args, callback,
    progress, checkpoint and resume; same results, same errors.

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
        self.bounds, self.fixed, self.ties = bounds, fixed, ties
        self.loss = as_loss(loss, loss_scale)
        self.weights, self.noise, self.absolute_noise = weights, noise, absolute_noise
        self.method, self.linear_solver, self.scale = method, linear_solver, scale
        self.max_iterations, self.ftol, self.xtol, self.gtol = max_iterations, ftol, xtol, gtol
        self.budget = Budget(max_evaluations, max_seconds)
        _check_settings(self)
        self._recorded: _Recorded | None = None

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
        x0, start = plain_start(x0)
        space = make_space(x0, fixed=self.fixed, bounds=self.bounds, ties=self.ties)
        with np.errstate(all="ignore"):
            x = space.first
            first = self.residual(space.unravel(x.copy()), *args)
            recorded_values = start is not None or depends_on_outside(first)
            size = check_residual(raw_deep(first), space)
        if recorded_values:
            refuse("least_squares", callback=callback, progress=progress, checkpoint=checkpoint, resume=resume)
            whiten = _whitening(self.weights, self.noise, size)
            if self.loss is not None:
                self.loss.check(size)
            found: LeastSquaresResult = recorded_least_squares(self, space, whiten, tuple(args), start)
            return found
        with quick_executor(size + space.size):
            recorded = self._recorded
            if recorded is None or not recorded.serves(space, args):
                recorded = self._recorded = _record(self, space, tuple(args), size)
            problem = recorded.problem(space)
            point = problem.linearise(x)
            check_jacobian(point[1], space)
            model = problem.modelled(*point)
            if recorded.method is None:
                recorded.method = self._method(model, space.lower is not None)
            state = recorded.method.init(problem, x, point)
            if resume is not None:
                state = resumed(resume, recorded.method, problem, state)
            state, outcome, history = searched(
                recorded.method,
                problem,
                state,
                space,
                budget=self.budget,
                callback=callback,
                display=progress,
                checkpoint=checkpoint,
            )
            again = self._again(args)
            return make_result(state, outcome, history, problem, space, recorded.method, again, self.absolute_noise)

    def searching(self, residual: Callable[..., Any], space: Space) -> LeastSquares:
        """The same search for another residual, of what is free in `space`, flat; whitened already."""
        other = LeastSquares.__new__(LeastSquares)
        other.__dict__.update(self.__dict__)
        other.residual, other.fixed, other.ties, other.weights, other.noise = residual, None, None, None, None
        other.bounds = None if space.lower is None else (space.lower, space.upper)
        sizes = _scale(self.scale, space)
        other.scale, other._recorded = None if sizes is None else 1.0 / sizes, None
        return other

    def _method(self, model: Any, bounded: bool) -> TrustRegion:
        solver = choose_linear_solver(self.linear_solver, model)
        ftol = self.ftol if self.ftol is not None else (SPARSE_FTOL if solver.damps else 0.0)
        settings = {"max_iterations": self.max_iterations, "ftol": ftol, "xtol": self.xtol, "gtol": self.gtol}
        return choose_method(self.method, solver, bounded, settings)

    def _again(self, args: Sequence[Any]) -> Callable[[Any, Any], LeastSquaresResult]:
        """The same fit from another start, with more parameters fixed; for profiles."""

        def again(x0: Any, fixed: Any) -> LeastSquaresResult:
            other = LeastSquares.__new__(LeastSquares)
            other.__dict__.update(self.__dict__)
            other.fixed, other._recorded = fixed, None
            return other(x0, args=args)

        return again


class _Recorded:
    """A residual as functions of what a search moves, for one structure of x and one set of further arguments."""

    def __init__(self, settings: LeastSquares, space: Space, arguments: tuple[Any, ...], build: Any) -> None:
        self.settings, self.space, self.arguments, self.build = settings, space, arguments, build
        self.method: TrustRegion | None = None
        self._problem: Problem | None = None

    def serves(self, space: Space, args: Sequence[Any]) -> bool:
        same = len(args) == len(self.arguments) and all(a is b for a, b in zip(args, self.arguments, strict=True))
        if not same or space.parameters != self.space.parameters or space.start.dtype != self.space.start.dtype:
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


def _record(settings: LeastSquares, space: Space, arguments: tuple[Any, ...], size: int) -> _Recorded:
    whiten = _whitening(settings.weights, settings.noise, size)
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
        linearise = value_and_jacobian(flat_residual, format=form)
        second = jvp(lambda x, v: jvp(flat_residual)(x, v)[1])

        def build_flat(_: Space) -> Problem:
            return Problem(
                value,
                lambda x: linearise(x.copy()),
                loss=settings.loss,
                curvature=lambda x, v: second(x.copy(), v, v)[1],
            )

        return _Recorded(settings, space, arguments, build_flat)

    def moved_residual(step: Any, x: Any, frames: Any) -> Any:
        structure = space.parameters.unravel(space.along(step, x, *frames))
        return whiten(raveled(settings.residual(structure, *arguments)))

    linearise_moved = value_and_jacobian(moved_residual, format=form)

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


def _whitening(weights: Any, noise: Any, size: int) -> Callable[[Any], Any]:
    """Return the function that turns residuals into independent ones of variance 1."""
    if weights is None and noise is None:
        return lambda values: values
    factor = np.ones(size)
    if weights is not None:
        given = np.asarray(weights, dtype=np.float64)
        if given.size not in (1, size) or not np.isfinite(given).all() or (given < 0.0).any():
            raise InvalidInputError(
                f"weights must be finite and not negative, one number or one for each of the {size} residuals"
            )
        factor = factor * np.sqrt(given.ravel())
    if noise is not None:
        given = np.asarray(noise, dtype=np.float64)
        if given.shape == (size, size) and size > 1:
            whitener = inverse_root(given)
            # With both, weights count after the correlations have been removed.
            return lambda values: factor * (whitener @ values)
        if given.size not in (1, size) or not np.isfinite(given).all() or (given <= 0.0).any():
            raise InvalidInputError(
                f"noise must be standard deviations above 0, one or one for each of the {size} residuals, or a "
                f"covariance matrix of shape ({size}, {size}); got shape {given.shape}"
            )
        factor = factor / given.ravel()
    return lambda values: factor * values


def inverse_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of the lower Cholesky factor: it makes residuals of that covariance independent.

    Raises:
        InvalidInputError: the matrix is not positive definite.
    """
    from scipy.linalg import solve_triangular

    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise InvalidInputError("the covariance matrix of the noise is not positive definite") from None
    return np.asarray(solve_triangular(root, np.eye(len(root)), lower=True))


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
    check_limits(
        {name: getattr(settings, name) for name in ("ftol", "xtol", "gtol")},
        settings.max_iterations,
        settings.budget,
    )
