"""Steps from the normal equations ``(J^T J + E + damping D^2) p = -J^T r``, for solvers of symmetric systems.

The condition number of these equations is that of J squared. Their solutions are steps of an iteration that corrects
itself: what is lost are a few digits of a step, not of the answer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from ..linearization import Linearization
from ..norms import euclidean_norm
from .base import Factors, LinearSolver, Step, evaluate_step

__all__ = ["DenseCholesky", "NormalEquations", "NormalFactors", "SolveFailed"]

Float64Array = NDArray[np.float64]
Solve = Callable[[Float64Array], Float64Array]

_RIDGE = 1e-13  # damping in place of 0 where the undamped equations are singular, relative to the scaled columns
_SECULAR_ITERATIONS = 12


class SolveFailed(Exception):
    """A system that should be positive definite is not, as far as the arithmetic can tell."""


class NormalEquations(LinearSolver, ABC):
    """A solver that can prepare ``J^T J`` once for a point and then factorise it with any diagonal added."""

    @abstractmethod
    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        """Return a function: diagonal of shape (n,) -> (right-hand side -> solution).

        The function it returns raises `SolveFailed` where the matrix is not positive definite.
        """

    def factorise(
        self, point: Linearization, scale: Float64Array, unit: float, extra: Float64Array | None = None
    ) -> NormalFactors:
        if not point.finite:
            raise np.linalg.LinAlgError("the Jacobian cannot be factorised; are all its entries finite?")
        return NormalFactors(point, scale, unit, extra, self.prepared(point))


@dataclass(frozen=True, eq=False)
class NormalFactors(Factors):
    """See `Factors`; `solver` makes a solver of the equations for a diagonal. The last steps are remembered."""

    point: Linearization
    scale: Float64Array
    unit: float
    extra: Float64Array | None
    solver: Callable[[Float64Array], Solve]
    _steps: dict[float, Step] = field(default_factory=dict, repr=False)

    @property
    def rank(self) -> int:
        return self.scale.size

    @property
    def gradient_norm(self) -> float:
        return euclidean_norm(self.point.gradient / self.scale)

    def damped(self, damping: float) -> Step:
        known = self._steps.get(damping)
        if known is None:
            self._steps.clear()
            known = self._steps[damping] = self._solved(damping)[0]
        return known

    def answered(self, gradient: Float64Array, damping: float) -> Float64Array:
        return self._solved(damping)[1](-gradient)

    def _solved(self, damping: float) -> tuple[Step, Solve]:
        used = damping
        while True:
            diagonal = used * self.scale**2
            if self.extra is not None:
                diagonal = diagonal + self.extra
            try:
                solve = self.solver(diagonal)
                step = solve(-self.point.gradient)
                if np.isfinite(step).all():
                    return self._evaluated(step, damping), solve
            except SolveFailed:
                pass
            used = max(100.0 * used, _RIDGE)
            if used > 1e8:
                raise np.linalg.LinAlgError("the normal equations cannot be solved at any damping")

    def downhill(self) -> Step:
        return self._evaluated(-self.point.gradient / self.scale**2, math.inf)

    def evaluated(self, step: Float64Array) -> Step:
        return self._evaluated(step, math.inf)

    def _evaluated(self, step: Float64Array, damping: float) -> Step:
        return evaluate_step(self.point, self.scale, self.unit, self.extra, step, damping)

    def within(self, radius: float) -> Step:
        trial = self.full
        if trial.length <= radius:
            return trial
        # The same iteration as for dense factors, at a factorisation and two solves a turn.
        lower, upper = 0.0, self.gradient_norm / radius
        damping = 1e-3 * upper
        for _ in range(_SECULAR_ITERATIONS):
            trial, solve = self._solved(damping)
            excess = trial.length - radius
            if abs(excess) <= 0.1 * radius:
                break
            lower, upper = (max(lower, damping), upper) if excess > 0.0 else (lower, min(upper, damping))
            scaled = self.scale * trial.step / trial.length
            fall = float(scaled @ (self.scale * solve(self.scale * scaled)))
            damping += excess / trial.length / fall * (trial.length / radius)
            if not lower < damping < upper:
                damping = max(1e-3 * upper, math.sqrt(lower * upper))
        return trial


@dataclass(frozen=True)
class DenseCholesky(NormalEquations):
    """Cholesky factorisation of a dense ``J^T J``: for ndarrays with many columns, where singular values cost too much.

    >>> point = Linearization.of(np.array([3.0, 4.0]), np.diag([1.0, 2.0]))
    >>> DenseCholesky().factorise(point, np.ones(2), point.norm).full.step
    array([-3., -2.])
    """

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        gram: Any = point.gram()
        gram = gram if isinstance(gram, np.ndarray) else gram.toarray()

        def factorised(diagonal: Float64Array) -> Solve:
            matrix = gram.copy()
            matrix.flat[:: diagonal.size + 1] += diagonal
            return dense_solver(matrix)

        return factorised


def dense_solver(matrix: Float64Array) -> Solve:
    """Return the solver of a symmetric positive definite matrix, which is overwritten.

    Raises:
        SolveFailed: it is not positive definite.
    """
    factor, status = lapack.dpotrf(matrix, lower=True, overwrite_a=True, clean=False)
    if status != 0:
        raise SolveFailed

    def solve(right: Float64Array) -> Float64Array:
        solution: Float64Array = lapack.dpotrs(factor, right, lower=True)[0]
        return solution

    return solve
