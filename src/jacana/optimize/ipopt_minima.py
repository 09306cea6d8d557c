"""Ipopt, where the package cyipopt is installed: exact sparse derivatives of function and constraints handed over.

Source of the method: A. Wächter and L. T. Biegler, "On the implementation of an interior-point filter line-search
algorithm for large-scale nonlinear programming", Mathematical Programming 106(1), 2006.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .kkt import Limits
from .minimum import Minimum

__all__ = ["minimized_by_ipopt"]

Float64Array = NDArray[np.float64]
Entries = tuple[NDArray[np.intp], NDArray[np.intp], Float64Array]

_FREE = 2e19  # what Ipopt takes for no bound


def minimized_by_ipopt(
    fun: Callable[[Float64Array], float],
    problem: Minimum,
    limits: Limits | None,
    x: Float64Array,
    tolerance: float,
    max_iterations: int,
    step: Callable[[Float64Array], None],
) -> Any:
    """Return x, success, status, message and nit, as SciPy's results have them.

    Args:
        fun: the value, counted.
        step: called with x after each iteration; what it raises ends the search, and is raised here.

    Raises:
        InvalidInputError: cyipopt is not installed, or a Hessian has no entries that are stored.
    """
    try:
        cyipopt = importlib.import_module("cyipopt")
    except ImportError as error:
        raise InvalidInputError("the method 'ipopt' needs the package cyipopt, which is not installed") from error
    parts = () if limits is None else tuple(limits.parts)
    rows = 0 if limits is None else sum(limits.sizes)
    callbacks = _Callbacks(fun, problem, parts, () if limits is None else limits.sizes, x, step)
    free = np.full(x.size, _FREE)
    solver = cyipopt.Problem(
        n=x.size,
        m=rows,
        problem_obj=callbacks,
        lb=-free if problem.lower is None else np.maximum(problem.lower, -_FREE),
        ub=free if problem.upper is None else np.minimum(problem.upper, _FREE),
        cl=np.empty(0) if limits is None else np.maximum(limits.lower[:rows], -_FREE),
        cu=np.empty(0) if limits is None else np.minimum(limits.upper[:rows], _FREE),
    )
    callbacks.solver = solver
    for name, value in (("print_level", 0), ("sb", "yes"), ("tol", tolerance), ("max_iter", max_iterations)):
        solver.add_option(name, value)
    found, information = solver.solve(x)
    if callbacks.raised is not None:
        raise callbacks.raised
    status = int(information["status"])
    message = information["status_msg"]
    return SimpleNamespace(
        x=np.asarray(found),
        success=status in (0, 1),
        status=1 if status == -1 else status,  # the iteration limit, as most of SciPy's methods number it
        message=message.decode() if isinstance(message, bytes) else str(message),
        nit=callbacks.iterations,
        njev=callbacks.gradients,
        nhev=callbacks.hessians,
    )


class _Callbacks:
    """What cyipopt calls. Patterns are those of the first point: jacana's do not change."""

    def __init__(
        self,
        fun: Callable[[Float64Array], float],
        problem: Minimum,
        parts: Sequence[Any],
        sizes: tuple[int, ...],
        x: Float64Array,
        step: Callable[[Float64Array], None],
    ) -> None:
        self.fun, self.problem, self.parts, self.step = fun, problem, parts, step
        self.splits = np.cumsum(sizes)[:-1] if sizes else np.empty(0, dtype=np.intp)
        self.iterations = self.gradients = self.hessians = 0
        self.raised: Exception | None = None
        self.solver: Any = None
        rows, columns, first = [], [], 0
        for part, size in zip(parts, sizes, strict=True):
            row, column, _ = _entries(part.jac(x))
            rows.append(row + first)
            columns.append(column)
            first += size
        empty = np.empty(0, dtype=np.intp)
        self._jacobian = (np.concatenate([empty, *rows]), np.concatenate([empty, *columns]))
        everywhere = [
            _entries(problem.hessian(x)),
            *(_entries(p.hess(x, np.ones(s))) for p, s in zip(parts, sizes, strict=True)),
        ]
        keys = np.concatenate([row * x.size + column for row, column, _ in everywhere])
        keys = np.unique(keys)
        self._keys, self._n = keys[keys // x.size >= keys % x.size], x.size  # Ipopt takes the lower triangle

    def objective(self, x: Float64Array) -> float:
        value: float = self._guarded(lambda: self.fun(x), np.nan)
        return value

    def gradient(self, x: Float64Array) -> Float64Array:
        self.gradients += 1
        gradient: Float64Array = self._guarded(lambda: self.problem.at(x)[1], np.full(x.size, np.nan))
        return gradient

    def constraints(self, x: Float64Array) -> Float64Array:
        values = [np.asarray(part.fun(x), dtype=np.float64) for part in self.parts]
        return np.concatenate(values) if values else np.empty(0)

    def jacobianstructure(self) -> tuple[Any, Any]:
        return self._jacobian

    def jacobian(self, x: Float64Array) -> Float64Array:
        values = [_entries(part.jac(x))[2] for part in self.parts]
        return np.concatenate(values) if values else np.empty(0)

    def hessianstructure(self) -> tuple[Any, Any]:
        return self._keys // self._n, self._keys % self._n

    def hessian(self, x: Float64Array, multipliers: Float64Array, factor: float) -> Float64Array:
        self.hessians += 1
        values = np.zeros(self._keys.size)
        weights = np.split(multipliers, self.splits) if self.parts else []
        matrices = [(factor, self.problem.hessian(x))]
        matrices += [(1.0, part.hess(x, weight)) for part, weight in zip(self.parts, weights, strict=True)]
        for scale, matrix in matrices:
            row, column, data = _entries(matrix)
            lower = row >= column
            places = np.searchsorted(self._keys, row[lower] * self._n + column[lower])
            np.add.at(values, places, scale * data[lower])
        return values

    def intermediate(self, *progress: Any) -> bool:
        self.iterations = int(progress[1])
        current = self.solver.get_current_iterate()
        if current is not None and self.raised is None and self.iterations:
            self._guarded(lambda: self.step(np.array(current["x"])), None)
        return self.raised is None

    def _guarded(self, call: Callable[[], Any], otherwise: Any) -> Any:
        # An exception must not cross Ipopt's own code: it is kept, and the search asked to end.
        if self.raised is not None:
            return otherwise
        try:
            return call()
        except Exception as error:
            self.raised = error
            return otherwise


def _entries(matrix: Any) -> Entries:
    """Rows, columns and values of a matrix: all of them, or those that are stored."""
    if isinstance(matrix, np.ndarray):
        row, column = (index.ravel() for index in np.indices(matrix.shape))
        return row, column, matrix.ravel()
    if not hasattr(matrix, "tocoo"):
        raise InvalidInputError("Ipopt takes matrices with stored entries, and this Hessian only multiplies")
    stored = matrix.tocoo()
    return stored.row.astype(np.intp), stored.col.astype(np.intp), stored.data
