"""Square systems: as many equations as unknowns, solved with the Jacobian itself instead of its normal equations.

`square_factors` factorises a matrix by what it is: LAPACK's LU for an ndarray, tridiagonal or banded LU where the
entries of a sparse matrix lie near its diagonal, SuperLU for any other. `SquareLU` makes Newton steps of it and
`GMRES` for operators. A step that leaves the way of Newton (because the matrix is singular, or a method asks for a
damped one) comes from the least-squares solvers.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csc_array
from scipy.sparse.linalg import LinearOperator, gmres, splu

from ...errors import InvalidInputError
from ..linearization import Linearization
from ..norms import euclidean_norm
from .base import Factors, LinearSolver, Step, evaluate_step
from .elements import PatternCache

__all__ = ["GMRES", "Band", "SingularMatrix", "SquareFactors", "SquareLU", "SquareSolver", "band_of", "square_factors"]

Float64Array = NDArray[np.float64]

_WIDEST_BAND = 40  # diagonals up to which a band is solved as one
_SMALL = 200  # unknowns up to which a singular system is left to the singular values


class SingularMatrix(Exception):
    """The matrix has no inverse, as far as the arithmetic can tell."""


# ---- factorisations --------------------------------------------------------------------------------------------------


class SquareSolver(ABC):
    """A factorised square matrix A."""

    @abstractmethod
    def solve(self, right: Float64Array, *, transposed: bool = False) -> Float64Array:
        """Return the solution of ``A x = right``, or of ``A.T x = right``; `right` of shape (n,) or (n, k)."""


class _DenseLU(SquareSolver):
    def __init__(self, matrix: Float64Array) -> None:
        norm = float(np.abs(matrix).sum(axis=0).max(initial=0.0))
        self._lu, self._pivots, status = lapack.dgetrf(matrix)
        if status == 0:
            reciprocal, status = lapack.dgecon(self._lu, norm)
        if status != 0 or not reciprocal > np.finfo(np.float64).eps:
            raise SingularMatrix

    def solve(self, right: Float64Array, *, transposed: bool = False) -> Float64Array:
        return np.asarray(lapack.dgetrs(self._lu, self._pivots, right, trans=int(transposed))[0])


class _Tridiagonal(SquareSolver):
    def __init__(self, lower: Float64Array, diagonal: Float64Array, upper: Float64Array) -> None:
        *self._parts, status = lapack.dgttrf(lower, diagonal, upper, True, True, True)
        if status != 0:
            raise SingularMatrix

    def solve(self, right: Float64Array, *, transposed: bool = False) -> Float64Array:
        return np.asarray(lapack.dgttrs(*self._parts, right, trans="T" if transposed else "N")[0])


class _Banded(SquareSolver):
    def __init__(self, stored: Float64Array, below: int, above: int) -> None:
        self._below, self._above = below, above
        self._lu, self._pivots, status = lapack.dgbtrf(stored, below, above, overwrite_ab=True)
        if status != 0:
            raise SingularMatrix

    def solve(self, right: Float64Array, *, transposed: bool = False) -> Float64Array:
        answer, _ = lapack.dgbtrs(self._lu, self._below, self._above, right, self._pivots, trans=int(transposed))
        return np.asarray(answer)


class _SuperLU(SquareSolver):
    def __init__(self, matrix: Any) -> None:
        try:
            self._factor = splu(matrix)
        except RuntimeError as error:  # exactly singular
            raise SingularMatrix from error

    def solve(self, right: Float64Array, *, transposed: bool = False) -> Float64Array:
        return np.asarray(self._factor.solve(right, trans="T" if transposed else "N"))


@dataclass(frozen=True, eq=False)
class Band:
    """Where the entries of a sparse matrix are in LAPACK's band storage.

    Attributes:
        below, above: diagonals on either side.
        rows, columns: of each entry in the storage, whose rows are diagonals, the uppermost first.
    """

    below: int
    above: int
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def solver(self, data: Float64Array, n: int) -> SquareSolver:
        tridiagonal = self.below <= 1 and self.above <= 1 and n > 2
        room = 0 if tridiagonal else self.below  # where LU puts what pivoting fills in
        stored = np.zeros((room + self.above + 1 + self.below, n), order="C" if tridiagonal else "F")
        stored[self.rows + room, self.columns] = data
        if not tridiagonal:
            return _Banded(stored, self.below, self.above)
        above = stored[0, 1:] if self.above else np.zeros(n - 1)
        below = stored[-1, :-1] if self.below else np.zeros(n - 1)
        return _Tridiagonal(below, stored[self.above], above)


def _band(matrix: Any) -> Band | None:
    """The band of a CSR matrix, or None where it is too wide to be one."""
    n = matrix.shape[0]
    row = np.repeat(np.arange(n), np.diff(matrix.indptr))
    column = matrix.indices.astype(np.intp)
    offset = column - row
    below, above = max(0, -int(offset.min(initial=0))), max(0, int(offset.max(initial=0)))
    if below + above > min(_WIDEST_BAND, n // 2 + 2):
        return None
    return Band(below, above, above - offset, column)


_bands: PatternCache[Band | None] = PatternCache(_band)


def band_of(matrix: Any) -> Band | None:
    """Return where the entries of a square CSR matrix lie in a band, None where that would be too wide."""
    # Entries that are there twice would be stored once in a band.
    return _bands(matrix) if matrix.has_canonical_format else None


def square_factors(matrix: Any) -> SquareSolver:
    """Factorise a square matrix, by what it is.

    Args:
        matrix: shape (n, n), float64: an ndarray, or a sparse matrix. Not modified.

    Raises:
        InvalidInputError: it is not square, or an operator.
        SingularMatrix: it has no inverse. Only an ndarray is found out when it merely nearly has none.

    >>> from scipy.sparse import csr_array
    >>> A = csr_array(np.array([[2.0, 1.0, 0.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]]))
    >>> square_factors(A).solve(np.array([3.0, 5.0, 1.0])), square_factors(A).solve(np.ones(3), transposed=True)
    (array([1., 1., 1.]), array([0.5  , 0.125, 0.875]))
    """
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InvalidInputError(f"a matrix of shape {matrix.shape} is not square")
    if isinstance(matrix, np.ndarray):
        return _DenseLU(matrix)
    if not hasattr(matrix, "tocsr"):
        raise InvalidInputError("a factorisation needs the matrix itself, not an operator; use linear_solver='gmres'")
    rows = matrix.tocsr()
    band = band_of(rows)
    return _SuperLU(csc_array(rows)) if band is None else band.solver(rows.data, rows.shape[0])


# ---- as linear solvers of a search -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SquareFactors(Factors):
    """A square linearization whose full step is Newton's.

    Attributes:
        newton: returns Newton's step against a residual, shape (n,), or raises `SingularMatrix`.
    """

    point: Linearization
    scale: Float64Array
    unit: float
    extra: Float64Array | None
    newton: Callable[[Float64Array], Float64Array]

    @cached_property
    def least_squares(self) -> Factors:
        """What makes the other steps."""
        solver: LinearSolver
        if not (self.point.dense or self.point.sparse):
            from .iterative import LSMR

            solver = LSMR()
        elif self.scale.size <= _SMALL:
            from .dense import DenseQR

            solver = DenseQR()
        elif self.point.dense:
            from .normal import DenseCholesky

            solver = DenseCholesky()
        else:
            from .sparse import SparseCholesky

            solver = SparseCholesky("superlu")
        return solver.factorise(self.point, self.scale, self.unit, self.extra)

    @cached_property
    def full(self) -> Step:
        """Newton's step; the Gauss-Newton step of least length where the matrix is singular."""
        try:
            step = self.newton(self.point.residual)
        except SingularMatrix:
            step = np.full(self.scale.size, np.nan)
        if not np.isfinite(step).all():
            # In the coordinates of all other steps, so that they can be added.
            step = self.least_squares.damped(0.0).step
        return evaluate_step(self.point, self.scale, self.unit, self.extra, step, 0.0)

    @property
    def rank(self) -> int:
        return self.scale.size

    @property
    def gradient_norm(self) -> float:
        return euclidean_norm(self.point.gradient / self.scale)

    def damped(self, damping: float) -> Step:
        return self.full if damping == 0.0 else self.least_squares.damped(damping)

    def answered(self, gradient: Float64Array, damping: float) -> Float64Array:
        return self.least_squares.answered(gradient, damping)

    def downhill(self) -> Step:
        return self.evaluated(-self.point.transposed(self.point.residual / self.unit) / self.scale / self.scale)

    def evaluated(self, step: Float64Array) -> Step:
        return evaluate_step(self.point, self.scale, self.unit, self.extra, step, np.inf)

    def within(self, radius: float) -> Step:
        return self.full if self.full.length <= radius else self.least_squares.within(radius)


def _check_square(point: Linearization) -> None:
    m, n = point.shape
    if m != n:
        raise InvalidInputError(f"this linear solver is for as many equations as unknowns, not for {m} and {n}")


@dataclass(frozen=True)
class SquareLU(LinearSolver):
    """LU factorisation of a square Jacobian, dense or sparse; see `square_factors`.

    >>> point = Linearization.of(np.array([3.0, 4.0]), np.diag([1.0, 2.0]))
    >>> SquareLU().factorise(point, np.ones(2), point.norm).full.step
    array([-3., -2.])
    """

    damps = False

    def factorise(
        self, point: Linearization, scale: Float64Array, unit: float, extra: Float64Array | None = None
    ) -> SquareFactors:
        _check_square(point)
        if not point.finite:
            raise np.linalg.LinAlgError("the Jacobian cannot be factorised; are all its entries finite?")
        factors = functools.cache(lambda: square_factors(point.jacobian))
        return SquareFactors(point, scale, unit, extra, lambda residual: factors().solve(-residual))


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Newton steps by restarted GMRES, for Jacobians that only multiply vectors (Newton-Krylov) and large sparse ones.

    Attributes:
        tolerance: relative size of the linear residual at which a step is good enough: what one step leaves of the
            residual, where the linear model holds.
        restart: vectors that are kept.
        iterations: limit of products with the Jacobian for one step; None for ten times the number of unknowns.
        preconditioner: x-independent approximate inverse of the Jacobian, a matrix or ``LinearOperator`` of shape
            (n, n), or a function that makes one from the Jacobian at a point.

    Source: Y. Saad and M. H. Schultz, "GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear
    systems", SIAM J. Sci. Stat. Comput. 7(3), 1986; P. N. Brown and Y. Saad, "Hybrid Krylov methods for nonlinear
    systems of equations", SIAM J. Sci. Stat. Comput. 11(3), 1990, for the trust region around it.

    >>> point = Linearization.of(np.array([3.0, 4.0]), np.diag([1.0, 2.0]))
    >>> GMRES().factorise(point, np.ones(2), point.norm).full.step.round(9)
    array([-3., -2.])
    """

    damps = False
    tolerance: float = 1e-4
    restart: int = 40
    iterations: int | None = None
    preconditioner: Any = field(default=None, compare=False)

    def factorise(
        self, point: Linearization, scale: Float64Array, unit: float, extra: Float64Array | None = None
    ) -> SquareFactors:
        _check_square(point)
        n = scale.size

        def newton(residual: Float64Array) -> Float64Array:
            norm = euclidean_norm(residual)
            if norm == 0.0:
                return np.zeros(n)
            restart = min(self.restart, n)
            turns = -(-(self.iterations or max(10 * n, 100)) // restart)
            inverse = self.preconditioner
            if callable(inverse) and not isinstance(inverse, LinearOperator):
                inverse = inverse(point.jacobian)
            # The right-hand side is brought to size 1, so that neither it nor its squares underflow.
            step, _ = gmres(
                point.jacobian,
                -residual / norm,
                rtol=self.tolerance,
                atol=0.0,
                restart=restart,
                maxiter=turns,
                M=inverse,
            )
            return np.asarray(step * norm)

        return SquareFactors(point, scale, unit, extra, newton)
