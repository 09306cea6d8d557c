"""Sparse Jacobians: Cholesky factorisation of the normal equations.

Three ways, in one interface. *Fronts* (`multifrontal`) is jacana's own, NumPy and LAPACK only, good wherever rows come
in groups (poses, elements, blocks) and for fill that makes dense work. *SuperLU* is SciPy's ``splu`` with the settings
for symmetric matrices, good for very sparse problems such as chains and grids. A third is any package for sparse
Cholesky that happens to be installed, by name. By default the pattern decides between the first two.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from ...errors import InvalidInputError
from ..linearization import Linearization
from .elements import PatternCache
from .multifrontal import Multifrontal, plan_multifrontal
from .normal import NormalEquations, Solve, SolveFailed

__all__ = ["SparseCholesky"]

Float64Array = NDArray[np.float64]

_MANY_COLUMNS = 60_000  # beyond this, planning fronts in Python takes longer than SuperLU takes
_THIN_FRONT = 6.0  # columns of an average front below which LAPACK has nothing to do


@dataclass(frozen=True)
class SparseCholesky(NormalEquations):
    """See the module.

    Attributes:
        backend: "auto", "fronts", "superlu", or an installed package: "qdldl", "pardiso" (pypardiso), "cholmod"
            (scikit-sparse).

    >>> point = Linearization.of(np.array([3.0, 4.0]), sparse.csr_array(np.diag([1.0, 2.0])))
    >>> SparseCholesky().factorise(point, np.ones(2), point.norm).full.step
    array([-3., -2.])
    """

    backend: str = "auto"
    _plans: PatternCache[Multifrontal | None] = field(
        default_factory=lambda: PatternCache(_plan), compare=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "fronts", "superlu", *_PACKAGES):
            names = ", ".join(("auto", "fronts", "superlu", *_PACKAGES))
            raise InvalidInputError(f"there is no backend {self.backend!r}; there is {names}")

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        jacobian = point.jacobian
        if not point.sparse:
            if not point.dense:
                raise InvalidInputError(
                    "a factorisation needs the Jacobian as a matrix, not as an operator; use linear_solver='lsmr'"
                )
            jacobian = sparse.csr_array(jacobian)
        if not jacobian.has_sorted_indices:
            jacobian = jacobian.sorted_indices()
        if self.backend == "fronts" or self.backend == "auto":
            plan = self._plans(jacobian) if self.backend == "auto" else plan_multifrontal(jacobian)
            if plan is not None:
                fronts, entries = plan, plan.assembled(jacobian)
                return lambda diagonal: fronts.factorised(entries, diagonal)
        gram = sparse.csc_array(jacobian.T @ jacobian)
        solver = _superlu if self.backend in ("auto", "superlu") else _PACKAGES[self.backend]
        return lambda diagonal: solver(sparse.csc_array(gram + sparse.diags_array(diagonal)))


def _plan(jacobian: Any) -> Multifrontal | None:
    """The plan by fronts, or None where SuperLU is likely to be faster."""
    n = jacobian.shape[1]
    widest = int(np.diff(jacobian.indptr).max(initial=0))
    # A row with many columns makes a front of its own, which is fine; the products of its entries must fit in memory.
    if n > _MANY_COLUMNS or widest > 2000:
        return None
    plan = plan_multifrontal(jacobian)
    return plan if n / len(plan.fronts) >= _THIN_FRONT else None


def _superlu(matrix: Any) -> Solve:
    try:
        factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError as error:  # exactly singular
        raise SolveFailed from error
    return lambda right: np.asarray(factor.solve(right))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidInputError(
            f"this backend needs the package that provides {name!r}, which is not installed"
        ) from error


def _qdldl(matrix: Any) -> Solve:
    factor = _package("qdldl").Solver(sparse.csc_matrix(matrix))
    return lambda right: np.asarray(factor.solve(right))


def _pardiso(matrix: Any) -> Solve:
    package = _package("pypardiso")
    rows = sparse.csr_matrix(matrix)
    return lambda right: np.asarray(package.spsolve(rows, right))


def _cholmod(matrix: Any) -> Solve:
    package = _package("sksparse.cholmod")
    try:
        factor = package.cholesky(sparse.csc_matrix(matrix))
    except package.CholmodNotPositiveDefiniteError as error:
        raise SolveFailed from error
    return lambda right: np.asarray(factor(right))


_PACKAGES: dict[str, Callable[[Any], Solve]] = {"qdldl": _qdldl, "pardiso": _pardiso, "cholmod": _cholmod}
