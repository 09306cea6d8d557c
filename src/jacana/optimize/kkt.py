"""Constrained minima to the last digit: Newton's method on the conditions of Karush, Kuhn and Tucker.

An interior-point method stops at some distance from the constraints that hold as equations at the minimum, and a
quasi-Newton one where its differences of values are lost in rounding. From there it is a matter of finding out which
inequalities are active, by the signs of their multipliers, and of solving equations.

Source: J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd edition, 2006, sections 12.3 and 18.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .linear.square import SingularMatrix, square_factors
from .minimum import Minimum

__all__ = ["KKTPoint", "Limits", "estimated", "lowest", "polished"]

Float64Array = NDArray[np.float64]

_CANDIDATE = 1e-2  # distance from its side, relative, at which an inequality may be active
_ROUNDS = 12  # changes of the active set
_STEPS = 30  # Newton steps for one set
_DENSE = 500  # unknowns and multipliers up to which dependent constraints are sorted out by least squares
_ARRIVED = 1e-13  # relative length of a step at which Newton's method has converged
_FEASIBLE = 1e-9  # violation, relative, at which an inequality is fulfilled
_CURVED = 1e-8  # negative curvature, relative to the largest entry of the Hessian, that may be rounding
_STRAY = 0.5  # a polished point further away than this, relative, is another minimum


@dataclass(frozen=True, eq=False)
class Limits:
    """All constraints and bounds as rows of one function: ``lower <= c(x) <= upper``, shape (m,), the bounds last.

    Attributes:
        parts: objects with ``fun``, ``jac`` and ``hess`` as SciPy's ``NonlinearConstraint`` has them.
        lower, upper: shape (m,).
        sizes: rows of each part.
        bounded: whether the last n rows are x itself.
    """

    parts: Sequence[Any]
    lower: Float64Array
    upper: Float64Array
    sizes: tuple[int, ...]
    bounded: bool

    def values(self, x: Float64Array) -> Float64Array:
        """Return c(x)."""
        found = [np.asarray(part.fun(x), dtype=np.float64) for part in self.parts]
        return np.concatenate([*found, x] if self.bounded else found)

    def jacobian(self, x: Float64Array) -> Any:
        """Return its Jacobian, CSR, shape (m, n)."""
        found = [sparse.csr_array(part.jac(x)) for part in self.parts]
        return sparse.csr_array(sparse.vstack([*found, sparse.eye_array(x.size)] if self.bounded else found))

    def split(self, multipliers: Float64Array) -> list[Float64Array]:
        """Return the multipliers of each part."""
        return np.split(multipliers[: sum(self.sizes)], np.cumsum(self.sizes)[:-1])


@dataclass(frozen=True, eq=False)
class KKTPoint:
    """A point with its multipliers.

    Attributes:
        x: shape (n,).
        multipliers: v, shape (m,): the gradient of ``f + v @ c`` vanishes; below 0 for a lower side that holds, above 0
            for an upper one.
        steps: Newton steps that it took.
    """

    x: Float64Array
    multipliers: Float64Array
    steps: int


def polished(problem: Minimum, limits: Limits, x: Float64Array) -> KKTPoint | None:
    """Return the constrained minimum near x, or None if it cannot be found from there."""
    gradient = problem.at(x)[1]
    values, jacobian = limits.values(x), limits.jacobian(x)
    equal = limits.lower == limits.upper
    side = _sides(limits, values)
    multipliers = _estimated(gradient, jacobian, side, equal)
    active = equal | (multipliers != 0.0)
    steps = 0
    for _ in range(_ROUNDS):
        found = _newton(problem, limits, x, multipliers, active, side)
        if found is None:
            return None
        here, v, count = found
        steps += count
        wrong = active & ~equal & (v * side < 0.0)
        inside = limits.values(here)
        size = 1.0 + np.abs(inside)
        violated = ~active & ((limits.lower - inside > _FEASIBLE * size) | (inside - limits.upper > _FEASIBLE * size))
        if not wrong.any() and not violated.any():
            far = np.abs(here - x).max() > _STRAY * (1.0 + np.abs(x).max())
            if far and not problem.at(here)[0] < problem.at(x)[0]:
                return None
            if not lowest(problem, limits, here, v, active):
                return None
            if limits.bounded:
                # What rests on a bound is on it exactly.
                last = slice(v.size - x.size, None)
                here = np.where(active[last], np.where(side > 0.0, limits.upper, limits.lower)[last], here)
            return KKTPoint(here, v, steps)
        side = np.where(violated, np.where(inside > limits.upper, 1.0, -1.0), side)
        # One wrong sign at a time: the others may be right without it.
        if wrong.any():
            worst = int(np.argmin(np.where(wrong, v * side, np.inf)))
            active = active.copy()
            active[worst] = False
        active = active | violated
    return None


def estimated(problem: Minimum, limits: Limits, x: Float64Array) -> tuple[Float64Array, float]:
    """Return the multipliers that suit x best, shape (m,), and the largest entry of the Lagrangian's gradient."""
    values, jacobian, gradient = limits.values(x), limits.jacobian(x), problem.at(x)[1]
    v = _estimated(gradient, jacobian, _sides(limits, values), limits.lower == limits.upper)
    return v, float(np.abs(gradient + jacobian.T @ v).max(initial=0.0))


def _sides(limits: Limits, values: Float64Array) -> Float64Array:
    """-1 where the lower side may be active, 1 where the upper, 0 where neither is near; 1 for equations."""
    size = 1.0 + np.abs(values)
    below = np.where(np.isfinite(limits.lower), values - limits.lower, np.inf)
    above = np.where(np.isfinite(limits.upper), limits.upper - values, np.inf)
    side = np.where(below <= above, -1.0, 1.0)
    near = np.minimum(below, above) <= _CANDIDATE * size
    return np.where(limits.lower == limits.upper, 1.0, np.where(near, side, 0.0))


def _estimated(gradient: Float64Array, jacobian: Any, side: Float64Array, equal: NDArray[np.bool_]) -> Float64Array:
    """The multipliers of the right signs that leave least of the gradient."""
    from scipy.optimize import lsq_linear

    rows = np.flatnonzero(side)
    result = np.zeros(side.size)
    if rows.size:
        low = np.where(equal[rows] | (side[rows] < 0.0), -np.inf, 0.0)
        high = np.where(equal[rows] | (side[rows] > 0.0), np.inf, 0.0)
        matrix = jacobian[rows].T
        matrix = matrix.toarray() if max(matrix.shape) <= _DENSE else sparse.csr_array(matrix)
        found = lsq_linear(matrix, -gradient, bounds=(low, high)).x
        found[np.abs(found) <= 1e-8 * np.abs(found).max(initial=0.0)] = 0.0
        result[rows] = found
    return result


def _newton(
    problem: Minimum,
    limits: Limits,
    x: Float64Array,
    multipliers: Float64Array,
    active: NDArray[np.bool_],
    side: Float64Array,
) -> tuple[Float64Array, Float64Array, int] | None:
    """Solve ``grad f + v @ grad c = 0`` and ``c = side`` for the active rows, with v = 0 for the others."""
    rows = np.flatnonzero(active)
    target = np.where(side > 0.0, limits.upper, limits.lower)[rows]
    v = np.where(active, multipliers, 0.0)
    for count in range(_STEPS):
        gradient = problem.at(x)[1]
        jacobian = limits.jacobian(x)[rows]
        hessian = _lagrangian(problem, limits, x, v)
        right = -np.concatenate((gradient + jacobian.T @ v[rows], limits.values(x)[rows] - target))
        step = _solved(sparse.block_array([[hessian, jacobian.T], [jacobian, None]], format="csr"), right)
        if step is None or not np.isfinite(step).all():
            return None
        x = x + step[: x.size]
        v[rows] += step[x.size :]
        moved = float(np.abs(step[: x.size]).max(initial=0.0))
        if moved <= _ARRIVED * (1.0 + float(np.abs(x).max())):
            return x, v, count + 1
    return None


def _lagrangian(problem: Minimum, limits: Limits, x: Float64Array, v: Float64Array) -> Any:
    """The Hessian of ``f + v @ c``, CSR."""
    hessian = sparse.csr_array(_matrix(problem.hessian(x)))
    for part, weights in zip(limits.parts, limits.split(v), strict=True):
        if weights.any():
            hessian = hessian + sparse.csr_array(_matrix(part.hess(x, weights)))
    return hessian


def lowest(problem: Minimum, limits: Limits, x: Float64Array, v: Float64Array, active: NDArray[np.bool_]) -> bool:
    """Whether the Lagrangian has no negative curvature along the active constraints, where that can be afforded.

    Without it, x may be a saddle point or even a maximum.
    """
    if x.size > _DENSE:
        return True
    from scipy.linalg import null_space

    hessian = _lagrangian(problem, limits, x, v).toarray()
    rows = limits.jacobian(x)[np.flatnonzero(active)].toarray()
    along = null_space(rows) if rows.size else np.eye(x.size)
    values = np.linalg.eigvalsh(along.T @ hessian @ along)
    return not values.size or bool(values[0] >= -_CURVED * max(float(np.abs(hessian).max()), 1e-300))


def _matrix(hessian: Any) -> Any:
    if isinstance(hessian, np.ndarray) or hasattr(hessian, "tocsr"):
        return hessian
    return hessian @ np.eye(hessian.shape[1])


def _solved(matrix: Any, right: Float64Array) -> Float64Array | None:
    if right.size <= _DENSE:
        # Constraints that depend on one another have many multipliers: the shortest will do.
        return np.asarray(np.linalg.lstsq(matrix.toarray(), right, rcond=None)[0])
    try:
        return square_factors(matrix).solve(right)
    except SingularMatrix:
        return None
