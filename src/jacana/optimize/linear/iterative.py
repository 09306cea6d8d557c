"""Steps by iteration, for problems too large to factorise or whose Jacobian only multiplies vectors.

LSMR works on J itself, conjugate gradients on the normal equations, with a preconditioner made of the diagonal blocks
of ``J^T J`` (where the Jacobian is a matrix). Both stop where the linear residual is small relative to the gradient:
far from the solution, an inexact Gauss-Newton step is as good as an exact one.

Sources: D. C.-L. Fong and M. Saunders, "LSMR: an iterative algorithm for sparse least-squares problems", SIAM J. Sci.
Comput. 33(5), 2011; S. Agarwal, N. Snavely, S. M. Seitz and R. Szeliski, "Bundle Adjustment in the Large", ECCV 2010,
for block-Jacobi.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg, lsmr

from ..linearization import Linearization
from .elements import Element, PatternCache, elements_of
from .multifrontal import column_blocks
from .normal import NormalEquations, Solve

__all__ = ["LSMR", "ConjugateGradients"]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

_WIDEST = 64  # columns of a diagonal block; beyond that a block is cut into single columns


@dataclass(frozen=True)
class LSMR(NormalEquations):
    """LSMR on ``[J; sqrt(diagonal)]``, for matrices and operators.

    Attributes:
        tolerance: relative size of the linear residual at which a step is good enough.
        iterations: limit of products with J and J^T for one step; None for twice the number of parameters.

    >>> from scipy import sparse
    >>> point = Linearization.of(np.array([3.0, 4.0]), sparse.csr_array(np.diag([1.0, 2.0])))
    >>> LSMR().factorise(point, np.ones(2), point.norm).full.step.round(9)
    array([-3., -2.])
    """

    tolerance: float = 1e-10
    iterations: int | None = None

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        m, n = point.shape
        limit = self.iterations or max(2 * n, 100)

        def solver(diagonal: Float64Array) -> Solve:
            root = np.sqrt(diagonal)
            # Columns of length one: LSMR's convergence depends on their condition.
            sizes = np.sqrt(point.norms**2 + diagonal) if point.dense or point.sparse else np.ones(n)
            scale = 1.0 / np.where(sizes > 0.0, sizes, 1.0)
            operator = LinearOperator(
                (m + n, n),
                matvec=lambda v: np.concatenate((point.apply(scale * v.ravel()), root * scale * v.ravel())),
                rmatvec=lambda u: scale * (point.transposed(u.ravel()[:m]) + root * u.ravel()[m:]),
                dtype=np.dtype(np.float64),
            )

            def solve(right: Float64Array) -> Float64Array:
                if np.array_equal(right, -point.gradient):
                    target = np.concatenate((-point.residual, np.zeros(n)))
                    found = lsmr(operator, target, atol=self.tolerance, btol=self.tolerance, maxiter=limit)[0]
                    return np.asarray(scale * found)
                normal = LinearOperator(
                    (n, n), matvec=lambda v: operator.rmatvec(operator.matvec(v)), dtype=np.dtype(np.float64)
                )
                return np.asarray(scale * cg(normal, scale * right, rtol=self.tolerance, maxiter=limit)[0])

            return solve

        return solver


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The diagonal blocks of J^T J, those of one size together.

    Attributes:
        columns: for each size, the columns of its blocks, shape (count, size).
        sources: for each size, the elements that contribute, with which of their columns, in which blocks.
    """

    columns: tuple[IntArray, ...]
    sources: tuple[tuple[tuple[Element, IntArray, IntArray], ...], ...]


@dataclass(frozen=True)
class ConjugateGradients(NormalEquations):
    """Conjugate gradients on the normal equations, preconditioned by the diagonal blocks of ``J^T J``.

    Blocks are columns that the same residuals touch: one camera, one pose, one point. An operator has no blocks, and
    no preconditioner.

    Attributes:
        tolerance: relative size of the linear residual at which a step is good enough.
        iterations: limit for one step; None for as many as there are parameters.

    >>> from scipy import sparse
    >>> point = Linearization.of(np.array([3.0, 4.0]), sparse.csr_array(np.diag([1.0, 2.0])))
    >>> ConjugateGradients().factorise(point, np.ones(2), point.norm).full.step.round(9)
    array([-3., -2.])
    """

    tolerance: float = 1e-8
    iterations: int | None = None
    _plans: PatternCache[_Blocks] = field(default_factory=lambda: PatternCache(_blocks), compare=False, repr=False)

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        n = point.shape[1]
        plan = self._plans(point.jacobian) if point.sparse else None
        grams = _block_grams(plan, point.jacobian.data) if plan is not None else []

        def solver(diagonal: Float64Array) -> Solve:
            operator = LinearOperator(
                (n, n),
                matvec=lambda v: point.transposed(point.apply(v.ravel())) + diagonal * v.ravel(),
                dtype=np.dtype(np.float64),
            )
            inverse = _block_inverse(plan, grams, diagonal) if plan is not None else None

            def solve(right: Float64Array) -> Float64Array:
                limit = self.iterations or max(n, 100)
                return np.asarray(cg(operator, right, rtol=self.tolerance, maxiter=limit, M=inverse)[0])

            return solve

        return solver


def _blocks(jacobian: Any) -> _Blocks:
    n = jacobian.shape[1]
    elements = elements_of(jacobian)
    block = column_blocks(elements, n)
    sizes = np.bincount(block)
    wide = sizes[block] > _WIDEST
    block = np.unique(np.where(wide, sizes.size + np.arange(n), block), return_inverse=True)[1].ravel()
    sizes = np.bincount(block)
    by_block = np.argsort(block, kind="stable")
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    columns, sources = [], []
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        number = np.full(sizes.size, -1, dtype=np.intp)
        number[chosen] = np.arange(chosen.size)
        columns.append(by_block[starts[chosen][:, None] + np.arange(size)])
        found = []
        for element in elements:
            of = number[block[element.columns]]
            line, slot = np.nonzero((of >= 0) & (by_block[starts[block[element.columns]]] == element.columns))
            if not line.size:
                continue
            # The columns of a block are together in every element that touches it, in rising order.
            own = np.nonzero(block[element.columns[line]] == block[element.columns[line, slot]][:, None])[1]
            found.append((element, np.column_stack((line, own.reshape(-1, size))), of[line, slot]))
        sources.append(tuple(found))
    return _Blocks(tuple(columns), tuple(sources))


def _block_grams(plan: _Blocks, data: Float64Array) -> list[Float64Array]:
    grams = []
    for columns, sources in zip(plan.columns, plan.sources, strict=True):
        count, size = columns.shape
        total = np.zeros((count, size, size))
        for element, places, owner in sources:
            lines, slots = places[:, 0], places[:, 1:]
            part = element.blocks(data)[lines[:, None, None], np.arange(element.rows.shape[1])[:, None], slots[:, None]]
            products = part.transpose(0, 2, 1) @ part
            for i in range(size):
                for j in range(size):
                    total[:, i, j] += np.bincount(owner, weights=products[:, i, j], minlength=count)
        grams.append(total)
    return grams


def _block_inverse(plan: _Blocks, grams: list[Float64Array], diagonal: Float64Array) -> LinearOperator:
    inverses = []
    for columns, gram in zip(plan.columns, grams, strict=True):
        size = columns.shape[1]
        block = gram.copy()
        here = diagonal[columns]
        # A block of a column that nothing touches, undamped, is left as it is.
        here = np.where(block[:, np.arange(size), np.arange(size)] + here > 0.0, here, 1.0)
        block[:, np.arange(size), np.arange(size)] += here
        try:
            inverses.append(np.linalg.inv(block))
        except np.linalg.LinAlgError:
            inverses.append(np.linalg.pinv(block, hermitian=True))

    def apply(vector: Float64Array) -> Float64Array:
        result = np.empty(diagonal.size)
        flat = vector.ravel()
        for columns, inverse in zip(plan.columns, inverses, strict=True):
            result[columns] = np.einsum("bij,bj->bi", inverse, flat[columns])
        return result

    return LinearOperator((diagonal.size, diagonal.size), matvec=apply, dtype=np.dtype(np.float64))
