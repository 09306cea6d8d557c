"""Thousands of small fits of one model in one call, each converging on its own.

The search of one fit, its residual and Jacobian included, is a program with a loop, and machine code runs it for fit
after fit on all threads. Without machine code, or with a loss, fits advance together, in *lanes*: one program computes
cost, gradient and ``J^T J`` of every lane, and a few vector operations make every lane's step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import trees
from ..errors import InvalidInputError
from ..record.control import while_loop
from ..record.recording import record
from ..record.watch import Watches
from ..rows import Rows, recorded_rows
from ..run import current_executor, executor, native_available
from ..transforms import value_and_jacobian
from .batch_steps import (
    CAUTIOUS_DAMPING,
    FIRST_DAMPING,
    GOES_ON,
    BatchSearch,
    Normal,
    advanced,
    damped_step,
    started,
    within_bounds,
)
from .captured import taken_apart
from .linearization import Linearization
from .losses import Loss, as_loss

__all__ = ["BatchResult", "fit_batch"]

Float64Array = NDArray[np.float64]

_LANES = 256  # fits that advance together: enough to hide the cost of a call, few enough for the cache
_WRITTEN_OUT = 8  # parameters up to which the linear problem of a fit is machine code
_WORTH_CODE = 20_000  # numbers in a batch of residuals from which machine code of them pays
_KEPT = 8  # searches as machine code, with what they were recorded from
_WORTH_A_SEARCH = 200_000  # numbers in all residuals from which machine code of the whole search does

_ITERATIONS, _NO_PROGRESS = 0, -1
_MESSAGES = {
    2: "Converged: a full step promises a reduction of the cost below ftol.",
    5: "Converged to working precision.",
    _ITERATIONS: "Not converged: max_iterations reached.",
    _NO_PROGRESS: "Not converged: no step reduces the cost.",
    -5: "The residual or its Jacobian is not finite at the start.",
}


@dataclass(frozen=True, eq=False)
class BatchResult:
    """The outcome of `fit_batch`: arrays whose first axis, of length B, counts the fits.

    Attributes:
        x: fitted parameters in the structure of x0.
        flat: the same as an array of shape (B, n).
        cost: half the sum of squares, or what the loss makes of it, shape (B,).
        success: shape (B,), bool.
        status: why each fit ended, shape (B,): 2 and 5 are successes; `message` has the words.
        nit: trial steps of each, shape (B,).
        gram: ``J^T J`` at the end, shape (B, n, n); of the model of the loss, if there is one.
        active_mask: -1 where a parameter rests on its lower bound, 1 on its upper, 0 elsewhere, shape (B, n).
        residuals: number of residuals in each fit, m; 0 where there are no fits.
    """

    x: Any
    flat: Float64Array
    cost: Float64Array
    success: NDArray[np.bool_]
    status: NDArray[np.int_]
    nit: NDArray[np.int_]
    gram: Float64Array
    active_mask: NDArray[np.int_]
    residuals: int

    @property
    def message(self) -> NDArray[np.str_]:
        """Why each fit ended, in words, shape (B,)."""
        kinds, which = np.unique(self.status, return_inverse=True)
        return np.array([_MESSAGES[int(kind)] for kind in kinds], dtype=np.str_)[which]

    @property
    def residual_variance(self) -> Float64Array:
        """2 cost / (m - n) of each fit, shape (B,); NaN without degrees of freedom."""
        degrees = self.residuals - self.flat.shape[1]
        return 2.0 * self.cost / degrees if degrees > 0 else np.full(self.cost.shape, np.nan)

    @property
    def covariance(self) -> Float64Array:
        """Covariance of the parameters of each fit, shape (B, n, n); NaN where J^T J is singular or the fit failed."""
        scale = np.sqrt(np.einsum("bii->bi", self.gram))
        usable = np.isfinite(scale).all(axis=1) & (scale > 0.0).all(axis=1)
        result = np.full(self.gram.shape, np.nan)
        if usable.any():
            divisor = scale[usable, :, None] * scale[usable, None, :]
            scaled = self.gram[usable] / divisor
            conditioned = np.linalg.cond(scaled) < 1.0 / np.finfo(np.float64).eps
            inverse = np.full(scaled.shape, np.nan)
            inverse[conditioned] = np.linalg.inv(scaled[conditioned])
            with np.errstate(over="ignore"):  # a fit that ran away has parameters that do not matter
                result[usable] = inverse / divisor
        return result * self.residual_variance[:, None, None]

    @property
    def standard_errors(self) -> Float64Array:
        """Square roots of the variances, shape (B, n)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(np.einsum("bii->bi", self.covariance)))

    def __repr__(self) -> str:
        good = int(self.success.sum())
        return f"<BatchResult {good} of {self.success.size} fits converged, {self.flat.shape[1]} parameters each>"


def fit_batch(
    residual: Callable[..., Any],
    x0: Any,
    *,
    args: Sequence[Any] = (),
    shared: Sequence[Any] = (),
    bounds: Any = None,
    loss: Any = None,
    loss_scale: float = 1.0,
    max_iterations: int = 100,
    ftol: float = 1e-16,
    lanes: int = _LANES,
) -> BatchResult:
    """Fit one model to many data sets; every fit is an independent least-squares problem of the same shape.

    Args:
        residual: ``residual(p, *args, *shared)``, plain NumPy code for all fits at once, returns shape (B, m).
            Each parameter arrives as a column of shape (B, 1), so that ordinary elementwise code
            (``p[0] * np.exp(-p[1] * t) - y``) serves as it is.
        x0: the starts: an array of shape (B, n), p[k] being the k-th parameter; or a dictionary or other pytree of
            arrays of shape (B,), or (B, k) for k parameters under one name.
        args: arrays whose first axis counts the fits, such as data of shape (B, m).
        shared: arrays that all fits share, such as times of shape (m,).
        bounds: a pair (lower, upper), each None, a number, an array that broadcasts to (B, n), or in the structure of
            x0; or ``{name: (lower, upper)}`` where x0 is a dictionary. Equal bounds fix a parameter.
        loss, loss_scale: as for `jacana.least_squares`.
        max_iterations: trial steps of each fit. One that has not converged then is tried once more from its start, with
            as many steps that are shorter at first.
        ftol: a fit ends where a full step promises to reduce its cost by no more than this fraction. The default puts
            parameters within about 1e-8 of their standard errors.
        lanes: how many fits advance together.

    Returns:
        A `BatchResult`. A fit that fails says so in its `status`; it is no error and does not disturb the others.

    Raises:
        InvalidInputError: shapes do not fit together, a fit depends on the data of another, bounds are crossed or a
            start lies outside.

    The steps come from normal equations, which is right for models whose parameters are not nearly dependent (condition
    up to about 1e6 with columns scaled); `jacana.least_squares` takes the others.

    >>> t = np.linspace(0.0, 2.0, 9)
    >>> rates = np.array([[0.5], [1.0], [2.0]])
    >>> data = 3.0 * np.exp(-rates * t)
    >>> fits = fit_batch(lambda p, y, t: p[0] * np.exp(-p[1] * t) - y, np.ones((3, 2)), args=(data,), shared=(t,))
    >>> fits.x.round(9) + 0.0
    array([[3. , 0.5],
           [3. , 1. ],
           [3. , 2. ]])
    """
    leaves, structure = trees.flatten(x0)
    arrays = [np.asarray(leaf, dtype=np.float64) for leaf in leaves]
    if not arrays or any(a.ndim not in (1, 2) for a in arrays) or len({len(a) for a in arrays}) != 1:
        raise InvalidInputError("x0 must be made of arrays of shape (B,) or (B, k) with one and the same B")
    count = len(arrays[0])
    data = [np.ascontiguousarray(a) for a in args]
    for k, array in enumerate(data):
        if array.ndim == 0 or len(array) != count:
            raise InvalidInputError(
                f"args[{k}] has shape {array.shape}, but its first axis must count the {count} fits; what all fits "
                f"share goes into shared"
            )
    if not (math.isfinite(ftol) and ftol >= 0.0) or max_iterations < 0 or lanes < 1:
        raise InvalidInputError("ftol and max_iterations must be 0 or more, lanes 1 or more")
    shapes = [a.shape[1:] for a in arrays]
    starts = np.concatenate([a.reshape(count, a.shape[1] if a.ndim == 2 else 1) for a in arrays], axis=1)
    if starts.shape[1] == 0:
        raise InvalidInputError("x0 holds no numbers, so there is nothing to fit")

    limits = _limits(bounds, structure, x0, shapes, starts)
    robust = as_loss(loss, loss_scale)
    if count == 0:
        # How many residuals a fit would have only the residual could say, which need not be fit for no fits at all.
        n = starts.shape[1]
        return BatchResult(
            x=trees.unflatten(structure, [a.copy() for a in arrays]),
            flat=starts,
            cost=np.zeros(0),
            success=np.zeros(0, dtype=bool),
            status=np.zeros(0, dtype=np.int_),
            nit=np.zeros(0, dtype=np.int_),
            gram=np.zeros((0, n, n)),
            active_mask=np.zeros((0, n), dtype=np.int_),
            residuals=0,
        )

    def columns(flat: Any) -> Any:
        parts, first = [], 0
        for shape in shapes:
            if shape:
                parts.append(flat[:, first : first + shape[0]].T[:, :, None])
                first += shape[0]
            else:
                parts.append(flat[:, first : first + 1])
                first += 1
        return trees.unflatten(structure, parts)

    def lane_residual(flat: Any, *rest: Any) -> Any:
        return residual(columns(flat), *rest, *shared)

    width = min(lanes, count)
    with np.errstate(all="ignore"):
        first = np.asarray(lane_residual(starts[:width], *(a[:width] for a in data)))
        if first.ndim != 2 or len(first) != width:
            raise InvalidInputError(
                f"the residual has shape {first.shape} for {width} fits; it must be ({width}, m), one row for each fit"
            )
        _check_apart(lane_residual, starts[:width], [a[:width] for a in data], first)
        if robust is not None:
            robust.check(first.shape[1])
        search = _Fits(lane_residual, starts, data, limits, robust, max_iterations, ftol)
        layout = (structure, tuple(shapes))
        auto = current_executor() == "auto"
        native = current_executor() != "numpy" and native_available()
        large = first.size // width * count > _WORTH_A_SEARCH
        if not (native and large and search.one_by_one(residual, tuple(shared), layout)):
            with executor("native") if native and auto and first.size > _WORTH_CODE else nullcontext():
                search.side_by_side(width)
        search.once_more(lanes)
    x, begin = [], 0
    for shape in shapes:
        size = shape[0] if shape else 1
        part = search.x[:, begin : begin + size]
        x.append(part if shape else part[:, 0])
        begin += size
    return BatchResult(
        trees.unflatten(structure, x),
        search.x,
        search.cost,
        search.status > 0,
        search.status,
        search.nit,
        search.gram,
        search.active_mask(),
        first.shape[1],
    )


def _limits(
    bounds: Any, structure: Any, x0: Any, shapes: list[tuple[int, ...]], starts: Float64Array
) -> tuple[Float64Array, Float64Array] | None:
    """The bounds of every parameter of every fit, shape (B, n), or None; starts of fixed parameters are set."""
    if bounds is None:
        return None
    sizes = [shape[0] if shape else 1 for shape in shapes]
    if isinstance(bounds, Mapping):
        if not isinstance(x0, Mapping) or not set(bounds) <= set(x0):
            raise InvalidInputError(
                f"bounds by name are for starts by name; got bounds of {', '.join(map(str, bounds))}"
            )
        sides_by_name: list[dict[Any, Any]] = []
        for k, empty in ((0, -math.inf), (1, math.inf)):
            side = {}
            for name, part in x0.items():
                given = bounds[name][k] if name in bounds else None
                given = empty if given is None else given
                # A list of numbers is a row of bounds, not a structure.
                side[name] = given if isinstance(part, dict | list | tuple) else np.asarray(given, dtype=np.float64)
            sides_by_name.append(side)
        bounds = tuple(sides_by_name)
    try:
        least, most = bounds
    except (TypeError, ValueError):
        raise InvalidInputError("bounds must be a pair (lower, upper) or a dictionary of pairs by name") from None
    sides = []
    for side, empty in ((least, -math.inf), (most, math.inf)):
        given = empty if side is None else side
        leaves, shape = trees.flatten(given)
        count = len(starts)
        try:
            if shape == structure and not structure.is_leaf():
                parts = [_spread(leaf, count, size) for leaf, size in zip(leaves, sizes, strict=True)]
                sides.append(np.concatenate(parts, axis=1))
            else:
                sides.append(np.broadcast_to(np.asarray(given, dtype=np.float64), starts.shape))
        except (TypeError, ValueError):
            raise InvalidInputError(f"bounds do not fit starts of shape {starts.shape}") from None
    lower, upper = sides
    if not (lower <= upper).all():
        raise InvalidInputError("bounds are crossed")
    equal = lower == upper
    starts[equal] = lower[equal]
    outside = np.argwhere((starts < lower) | (starts > upper))
    if len(outside):
        k, i = outside[0].tolist()
        raise InvalidInputError(
            f"fit {k} starts with parameter {i} at {starts[k, i]}, outside its bounds [{lower[k, i]}, {upper[k, i]}]"
        )
    return lower, upper


def _check_apart(residual: Any, starts: Float64Array, data: list[Any], together: Any) -> None:
    """Refuse residuals that are others when a fit is by itself."""
    for k in {0, len(starts) - 1}:
        alone = np.asarray(residual(starts[k : k + 1], *(a[k : k + 1] for a in data)))
        if alone.shape != (1, together.shape[1]) or not np.allclose(alone[0], together[k], rtol=1e-6, equal_nan=True):
            raise InvalidInputError(
                f"the residual of fit {k} is another one when the fit is evaluated by itself; each sample of the "
                f"residual may depend on its own parameters and data only, and what all fits share goes into shared"
            )


def _spread(leaf: Any, count: int, size: int) -> Float64Array:
    array = np.asarray(leaf, dtype=np.float64)
    if array.ndim == 1 and size == 1 and array.size == count:
        array = array[:, None]
    return np.broadcast_to(array, (count, size))


class _Fits:
    """All fits, in their order: data, and what is found."""

    def __init__(
        self,
        residual: Callable[..., Any],
        starts: Float64Array,
        data: list[Any],
        limits: tuple[Float64Array, Float64Array] | None,
        loss: Loss | None,
        max_iterations: int,
        ftol: float,
    ) -> None:
        self.residual, self.starts, self.data, self.limits, self.loss = residual, starts, data, limits, loss
        self.max_iterations, self.ftol = max_iterations, ftol
        count, n = starts.shape
        self.x, self.cost = starts.copy(), np.full(count, np.nan)
        self.status, self.nit = np.zeros(count, dtype=np.int_), np.zeros(count, dtype=np.int_)
        self.gram = np.full((count, n, n), np.nan)

    def one_by_one(self, residual: Callable[..., Any], shared: tuple[Any, ...], layout: Any) -> bool:
        """Run the whole search of each fit as machine code; False where that cannot be made.

        Args:
            residual, shared, layout: what `self.residual` was made of; searches are kept by it.
        """
        if self.loss is not None or self.starts.shape[1] > _WRITTEN_OUT:
            return False
        fits = (self.starts, *self.data, *(self.limits or ()))
        settings = (layout, self.limits is not None, self.ftol, self.max_iterations)
        kinds = tuple([(array.shape[1:], array.dtype) for array in fits])
        captured = taken_apart((residual, shared))
        key = None if captured is None else (captured.key, settings, kinds)
        run = None if captured is None else _searches.found(key, captured.arrays)
        if run is None:
            pair = [array[:2] for array in (self.starts, *self.data)]
            # A Jacobian of two fits in blocks is refused where one depends on the parameters of the other.
            value_and_jacobian(self.residual, format="blocks")(*pair)
            search = _recorded_fit(self.residual, self.ftol, self.max_iterations, self.limits is not None)
            recorded = recorded_rows(search, [array[0] for array in fits])
            run = None if recorded is None else recorded.compiled()
            if run is None:
                return False
            if captured is not None:
                # What the user's function reads is seen where it is recorded by itself.
                watches = record(residual, pair, lambda _, *variables: self.residual(*variables)).watches
                _searches.keep(_Search(key, captured.arrays, run, watches))
        x, square, gram, status, steps = run(*map(np.ascontiguousarray, fits))
        self._store(slice(None), x, square, status.astype(np.int_), steps.astype(np.int_), gram)
        return True

    def once_more(self, lanes: int) -> None:
        """Try the fits that did not converge from their starts again, with shorter first steps: from some starts a step
        of Gauss and Newton leads so far away that no way leads back."""
        left = np.flatnonzero((self.status == _ITERATIONS) | (self.status == _NO_PROGRESS))
        if left.size == 0 or self.max_iterations == 0:
            return
        limits = None if self.limits is None else (self.limits[0][left], self.limits[1][left])
        data = [array[left] for array in self.data]
        other = _Fits(self.residual, self.starts[left], data, limits, self.loss, self.max_iterations, self.ftol)
        other.side_by_side(min(lanes, left.size), CAUTIOUS_DAMPING)
        self.nit[left] += other.nit
        better = (other.status > 0) | (other.cost < self.cost[left])
        for name in ("x", "cost", "status", "gram"):
            getattr(self, name)[left[better]] = getattr(other, name)[better]

    def side_by_side(self, width: int, damping: float = FIRST_DAMPING) -> None:
        """Advance as many fits as there are lanes together; a lane whose fit has ended takes the next that waits."""
        linearise = value_and_jacobian(self.residual, format="blocks")
        count = len(self.starts)
        fit = np.arange(width)  # which fit each lane has
        waiting = width
        live = np.ones(width, dtype=bool)
        search = started(self.starts[:width].T.copy(), damping)
        lane_data = [a[:width].copy() for a in self.data]
        while live.any():
            residual, jacobian = linearise(np.ascontiguousarray(search.trial.T), *lane_data)
            new = self._normal(residual, jacobian)
            limits = None if self.limits is None else (self.limits[0][fit].T, self.limits[1][fit].T)
            propose = damped_step if limits is None else within_bounds(*limits)
            search = advanced(search, new, propose, limits, self.ftol, self.max_iterations)
            ended = live & (search.status != GOES_ON)
            if ended.any():
                found = (search.x.T, search.square, search.status, search.steps, search.gram.transpose(2, 0, 1))
                x, square, status, steps, gram = (part[ended] for part in found)
                self._store(fit[ended], x, square, status.astype(np.int_), steps.astype(np.int_), gram)
                taken = np.flatnonzero(ended)[: count - waiting]
                live[np.flatnonzero(ended)[count - waiting :]] = False
                fit[taken] = np.arange(waiting, waiting + taken.size)
                waiting += taken.size
                for lane_array, whole in zip(lane_data, self.data, strict=True):
                    lane_array[taken] = whole[fit[taken]]
                for now, fresh in zip(search, started(self.starts[fit[taken]].T, damping), strict=True):
                    now[..., taken] = fresh

    def _normal(self, residual: Float64Array, jacobian: Float64Array) -> Normal:
        if self.loss is None:
            return _normal(residual, jacobian)
        lanes, m, n = jacobian.shape
        changed = self.loss.robustified(Linearization.of(residual.ravel(), jacobian.reshape(lanes * m, n)))
        normal = _normal(changed.residual.reshape(lanes, m), changed.jacobian.reshape(lanes, m, n))
        return normal._replace(square=2.0 * self.loss.costs(residual.ravel()).reshape(lanes, -1).sum(axis=1))

    def active_mask(self) -> NDArray[np.int_]:
        """Which parameters rest on which bound, shape (B, n)."""
        if self.limits is None:
            return np.zeros(self.x.shape, dtype=np.int_)
        lower, upper = self.limits
        return np.where(self.x <= lower, -1, np.where(self.x >= upper, 1, 0))

    def _store(self, fit: Any, x: Any, square: Any, status: Any, steps: Any, gram: Any) -> None:
        nowhere = status == -5
        self.x[fit] = x
        self.cost[fit] = np.where(nowhere, np.nan, 0.5 * square)
        self.status[fit] = status
        self.nit[fit] = steps
        self.gram[fit] = np.where(nowhere[:, None, None], np.nan, gram)


class _Search(NamedTuple):
    key: Any
    arrays: tuple[Any, ...]
    run: Rows
    watches: Watches


class _Searches:
    """The last few searches that were made machine code. They serve again for the same function with the same shared
    arrays, and as long as nothing that was read while they were recorded has changed."""

    def __init__(self) -> None:
        self._known: tuple[_Search, ...] = ()

    def found(self, key: Any, arrays: tuple[Any, ...]) -> Rows | None:
        for known in self._known:
            if known.key == key and all(one is other for one, other in zip(known.arrays, arrays, strict=True)):
                return known.run if known.watches.unchanged() else None
        return None

    def keep(self, search: _Search) -> None:
        others = [
            known
            for known in self._known
            if known.key != search.key or any(a is not b for a, b in zip(known.arrays, search.arrays, strict=True))
        ]
        self._known = (search, *others[: _KEPT - 1])


_searches = _Searches()


def _recorded_fit(residual: Callable[..., Any], ftol: float, most: int, bounded: bool) -> Callable[..., Any]:
    """The search of one fit, from its start, data and bounds, as a function to be recorded."""

    def fit(x0: Any, *rest: Any) -> Any:
        data = rest[:-2] if bounded else rest
        limits = (rest[-2], rest[-1]) if bounded else None
        propose = damped_step if limits is None else within_bounds(*limits)

        linearise = value_and_jacobian(lambda x: residual(x[None], *(row[None] for row in data))[0])

        def step(search: BatchSearch) -> BatchSearch:
            values, jacobian = linearise(search.trial)
            # Sums one by one: they are one loop then, and J is never stored.
            columns = [jacobian[:, k] for k in range(len(search.trial))]
            below = [[columns[i] @ columns[j] for j in range(i + 1)] for i in range(len(columns))]
            gram = [[below[max(i, j)][min(i, j)] for j in range(len(columns))] for i in range(len(columns))]
            gradient = np.stack([values @ column for column in columns])
            new = Normal(values @ values, gradient, np.stack([np.stack(row) for row in gram]))
            return advanced(search, new, propose, limits, ftol, most)

        last = while_loop(lambda search: search.status == GOES_ON, step, started(x0), max_steps=most + 2)
        return last.x, last.square, last.gram, last.status, last.steps

    return fit


def _normal(residual: Float64Array, jacobian: Float64Array) -> Normal:
    """Sum of squares, J^T r and J^T J of every lane, lanes last, from r of shape (lanes, m) and J (lanes, m, n)."""
    lanes, _, n = jacobian.shape
    # With the lanes last as well, every sum over the residuals is a sum of vectors.
    residual = np.ascontiguousarray(residual.T)
    jacobian = np.ascontiguousarray(jacobian.transpose(2, 1, 0))
    gradient, gram = np.empty((n, lanes)), np.empty((n, n, lanes))
    for i in range(n):
        np.einsum("ml,ml->l", jacobian[i], residual, out=gradient[i])
        for j in range(i + 1):
            np.einsum("ml,ml->l", jacobian[i], jacobian[j], out=gram[i, j])
            gram[j, i] = gram[i, j]
    return Normal(np.einsum("ml,ml->l", residual, residual), gradient, gram)
