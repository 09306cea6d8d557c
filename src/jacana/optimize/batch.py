"""Thousands of small fits of one model in one call, each converging on its own.

All fits advance together, in *lanes*: one program computes cost, gradient and ``J^T J`` of every lane, and a few vector
operations make every lane's Levenberg-Marquardt step. A lane whose fit has ended takes the next fit that waits, so that
no lane idles and the program, made for one number of lanes, is made once.

Source: the damping follows H. B. Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, 1999.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import trees
from ..errors import InvalidInputError
from ..run import current_executor, executor, native_available
from ..transforms import value_and_jacobian
from .linearization import Linearization
from .losses import Loss, as_loss

__all__ = ["BatchResult", "fit_batch"]

Float64Array = NDArray[np.float64]

_LANES = 256  # fits that advance together: enough to hide the cost of a call, few enough for the cache
_ROUNDING = 1e-14  # a relative change of the cost below this cannot be told from rounding
_STILL = 1e-14  # a step this short relative to the parameters changes nothing
_STUCK = 1e16  # damping at which no step is left to try
_WORTH_CODE = 20_000  # numbers in a batch of residuals from which machine code pays

_MESSAGES = {
    2: "converged: a full step promises a reduction of the cost below ftol",
    5: "converged to working precision",
    0: "not converged: max_iterations reached",
    -1: "not converged: no step reduces the cost",
    -5: "the residual or its Jacobian is not finite at the start",
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
        residuals: number of residuals in each fit, m.
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

    def message(self, k: int) -> str:
        """Return in words why fit k ended."""
        return _MESSAGES[int(self.status[k])]

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
        max_iterations: trial steps of each fit.
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
    starts = np.concatenate([a.reshape(count, -1) for a in arrays], axis=1)
    if starts.size == 0:
        raise InvalidInputError("x0 holds no numbers, so there is nothing to fit")

    lower, upper = _limits(bounds, structure, x0, shapes, starts)
    robust = as_loss(loss, loss_scale)

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
        if robust is not None:
            robust.check(first.shape[1])
        search = _Lanes(lane_residual, starts, data, width, max_iterations, ftol, lower, upper, robust)
        if first.size > _WORTH_CODE and current_executor() == "auto" and native_available():
            with executor("native"):
                search.run()
        else:
            search.run()
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
) -> tuple[Float64Array | None, Float64Array | None]:
    """The bounds of every parameter of every fit, shape (B, n), None for none; starts of fixed parameters are set."""
    if bounds is None:
        return None, None
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


def _spread(leaf: Any, count: int, size: int) -> Float64Array:
    array = np.asarray(leaf, dtype=np.float64)
    if array.ndim == 1 and size == 1 and array.size == count:
        array = array[:, None]
    return np.broadcast_to(array, (count, size))


class _Lanes:
    """The search. Arrays of all fits are in their order; arrays of lanes have the lane as their last axis."""

    def __init__(
        self,
        residual: Any,
        starts: Float64Array,
        data: list[Any],
        width: int,
        max_iterations: int,
        ftol: float,
        lower: Float64Array | None,
        upper: Float64Array | None,
        loss: Loss | None,
    ) -> None:
        self.linearise = value_and_jacobian(residual, format="blocks")
        self.starts, self.data, self.width = starts, data, width
        self.max_iterations, self.ftol = max_iterations, ftol
        self.lower, self.upper, self.loss = lower, upper, loss
        count, n = starts.shape
        self.x, self.cost = starts.copy(), np.full(count, np.nan)
        self.status, self.nit = np.zeros(count, dtype=np.int_), np.zeros(count, dtype=np.int_)
        self.gram = np.full((count, n, n), np.nan)

    def run(self) -> None:
        count, n = self.starts.shape
        width = self.width
        fit = np.arange(width)  # which fit each lane has
        waiting = width
        live = np.ones(width, dtype=bool)
        fresh = np.ones(width, dtype=bool)
        x = self.starts[:width].T.copy()
        trial = x.copy()
        square, gradient, gram = np.full(width, np.inf), np.zeros((n, width)), np.zeros((n, n, width))
        damping, growth = np.full(width, 1e-3), np.full(width, 2.0)
        steps = np.zeros(width, dtype=np.int_)
        predicted = np.full(width, np.inf)
        lane_data = [a[:width].copy() for a in self.data]
        while live.any():
            residual, jacobian = self.linearise(np.ascontiguousarray(trial.T), *lane_data)
            new_square, new_gradient, new_gram = self._normal(residual, jacobian)
            finite = np.isfinite(new_square) & np.isfinite(new_gradient).all(axis=0)
            finite &= np.isfinite(np.einsum("iib->ib", new_gram)).all(axis=0)
            gain = np.where(fresh, 1.0, (square - new_square) / predicted)
            # Below the rounding of the cost, a step is trusted if the model trusts it.
            unmeasurable = (predicted <= _ROUNDING * square) & (new_square <= square * (1.0 + 10.0 * _ROUNDING))
            accepted = live & finite & ((gain > 1e-4) | unmeasurable)
            refused = live & ~accepted & ~fresh
            gain = np.where(unmeasurable & ~fresh, 1.0, gain)
            x = np.where(accepted, trial, x)
            square = np.where(accepted, new_square, square)
            gradient = np.where(accepted, new_gradient, gradient)
            gram = np.where(accepted, new_gram, gram)
            cut = np.maximum(1.0 / 30.0, 1.0 - (2.0 * np.clip(gain, 0.0, 1.0) - 1.0) ** 3)
            easier = accepted & ~fresh
            damping = np.where(easier, np.maximum(damping * cut, 1e-12), damping)
            damping = np.where(refused, damping * growth, damping)
            growth = np.where(accepted, 2.0, np.where(refused, 2.0 * growth, growth))
            steps += live & ~fresh

            if self.lower is None:
                step, decrement, slope = _damped_steps(gram, gradient, damping)
            else:
                step, decrement, slope = self._bounded_steps(fit, x, gram, gradient, damping)
            status = np.full(width, 99)
            small = np.abs(step) <= _STILL * np.abs(x)
            status[accepted & (decrement <= self.ftol * square)] = 2
            status[accepted & (square == 0.0)] = 5
            status[accepted & small.all(axis=0) & (damping < 1.0)] = 5
            status[(status == 99) & (steps >= self.max_iterations)] = 0
            status[(status == 99) & (damping > _STUCK)] = -1
            status[fresh & ~finite] = -5
            ended = live & (status != 99)
            if ended.any():
                self._store(fit[ended], x[:, ended], square[ended], status[ended], steps[ended], gram[:, :, ended])
                taken = np.flatnonzero(ended)[: count - waiting]
                idle = np.flatnonzero(ended)[count - waiting :]
                live[idle] = False
                fit[taken] = np.arange(waiting, waiting + taken.size)
                waiting += taken.size
                x[:, taken] = self.starts[fit[taken]].T
                for lane_array, whole in zip(lane_data, self.data, strict=True):
                    lane_array[taken] = whole[fit[taken]]
                damping[taken], growth[taken], steps[taken] = 1e-3, 2.0, 0
                square[taken], step[:, ended] = np.inf, 0.0
                fresh = np.zeros(width, dtype=bool)
                fresh[taken] = True
            else:
                fresh = np.zeros(width, dtype=bool)
            trial = x + step
            predicted = np.where(fresh, np.inf, slope)

    def _normal(self, residual: Float64Array, jacobian: Float64Array) -> tuple[Any, Any, Any]:
        if self.loss is None:
            return _normal(residual, jacobian)
        lanes, m, n = jacobian.shape
        changed = self.loss.robustified(Linearization.of(residual.ravel(), jacobian.reshape(lanes * m, n)))
        _, gradient, gram = _normal(changed.residual.reshape(lanes, m), changed.jacobian.reshape(lanes, m, n))
        return 2.0 * self.loss.costs(residual.ravel()).reshape(lanes, -1).sum(axis=1), gradient, gram

    def _bounded_steps(
        self, fit: Any, x: Float64Array, gram: Float64Array, gradient: Float64Array, damping: Float64Array
    ) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Steps of the parameters that are not pressed against a bound, cut off at the bounds."""
        assert self.lower is not None and self.upper is not None
        lower, upper = self.lower[fit].T, self.upper[fit].T
        pressed = ((x <= lower) & (gradient > 0.0)) | ((x >= upper) & (gradient < 0.0)) | (lower == upper)
        free_gradient = np.where(pressed, 0.0, gradient)
        free_gram = np.where(pressed[:, None] | pressed, 0.0, gram)
        step, decrement, slope = _damped_steps(free_gram, free_gradient, damping)
        inside = np.clip(x + step, lower, upper) - x
        cut = (inside != step).any(axis=0)
        # What the model says of the step as it is cut.
        curved = np.einsum("il,ijl,jl->l", inside, free_gram, inside)
        promised = -2.0 * np.einsum("il,il->l", free_gradient, inside) - curved
        return np.where(cut, inside, step), decrement, np.where(cut, promised, slope)

    def active_mask(self) -> NDArray[np.int_]:
        """Which parameters rest on which bound, shape (B, n)."""
        if self.lower is None or self.upper is None:
            return np.zeros(self.x.shape, dtype=np.int_)
        return np.where(self.x <= self.lower, -1, np.where(self.x >= self.upper, 1, 0))

    def _store(self, fit: Any, x: Any, square: Any, status: Any, steps: Any, gram: Any) -> None:
        self.x[fit] = x.T
        self.cost[fit] = np.where(status == -5, np.nan, 0.5 * square)
        self.status[fit] = status
        self.nit[fit] = steps
        self.gram[fit] = np.where(status == -5, np.nan, gram).transpose(2, 0, 1)


def _damped_steps(
    gram: Float64Array, gradient: Float64Array, damping: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Solve ``(G + damping diag(G)) p = -g`` in every lane by Cholesky, written out over the lanes.

    Returns:
        The steps, shape (n, lanes); the squared length of L^-1 g, which is what the model promises to take from the sum
        of squares, for the damped system; and the reduction predicted for the step itself, both of shape (lanes,).
    """
    n = len(gradient)
    diagonal = np.einsum("iib->ib", gram)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    factor: list[list[Any]] = []
    half: list[Any] = []
    for i in range(n):
        row: list[Any] = []
        for j in range(i):
            entry = gram[i, j] * scale[i] * scale[j]
            for k in range(j):
                entry = entry - row[k] * factor[j][k]
            row.append(entry / factor[j][j])
        pivot = np.where(diagonal[i] > 0.0, 1.0, 0.0) + damping
        for k in range(i):
            pivot = pivot - row[k] * row[k]
        # A pivot lost to rounding is one of a direction that the residual does not tell: no step along it.
        row.append(np.sqrt(np.where(pivot > 1e-15, pivot, np.inf)))
        factor.append(row)
        entry = gradient[i] * scale[i]
        for k in range(i):
            entry = entry - row[k] * half[k]
        half.append(entry / row[i])
    decrement = sum(h * h for h in half)
    step: list[Any] = [None] * n
    for i in reversed(range(n)):
        entry = half[i]
        for k in range(i + 1, n):
            entry = entry - factor[k][i] * step[k]
        step[i] = entry / factor[i][i]
    length = sum(s * s for s in step)
    moved = np.stack([-s * scale[i] for i, s in enumerate(step)])
    # |r|^2 - |r + J p|^2 = decrement + damping |D p|^2 for a damped step.
    return moved, np.asarray(decrement), np.asarray(decrement + damping * length)


def _normal(residual: Float64Array, jacobian: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
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
    return np.einsum("ml,ml->l", residual, residual), gradient, gram
