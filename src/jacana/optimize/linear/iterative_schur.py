"""Conjugate gradients on a Schur complement that is never formed.

With ``A`` the columns that are kept, ``B`` those eliminated and ``V = B^T B + diagonal``, a product with the complement
is ``S v = A^T (A v - B V^-1 B^T A v) + diagonal v``: products with the entries of the Jacobian and small triangular
solves. The preconditioner is the block diagonal of S, which is formed: one block for the columns that the same
residuals touch, such as a camera. It is applied from both sides, so that the size of what is left is measured in its
norm, whatever the units of the parameters.

Source: S. Agarwal, N. Snavely, S. M. Seitz and R. Szeliski, "Bundle Adjustment in the Large", ECCV 2010, sections 3 and
4 (implicit Schur complement and its block-Jacobi preconditioner).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg

from ...errors import InvalidInputError
from ..linearization import Linearization
from .elements import PatternCache
from .elimination import Elimination, backward, find_elimination, forward, in_order, inner_products, lower_roots
from .normal import NormalEquations, Solve, SolveFailed
from .schur import cross_products
from .small import gram

__all__ = ["IterativeSchur"]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

_WIDEST = 64  # columns of a diagonal block; beyond that a block is cut into single columns


@dataclass(frozen=True, eq=False)
class _Entries:
    """Where some columns of a CSR matrix are in its data, by rows and by columns.

    Attributes:
        shape: of these columns alone.
        by_rows, by_columns: places in the data of the whole matrix.
        rows, columns: (indices, indptr) of either order.
    """

    shape: tuple[int, int]
    by_rows: IntArray
    by_columns: IntArray
    rows: tuple[NDArray[Any], NDArray[Any]]
    columns: tuple[NDArray[Any], NDArray[Any]]

    @classmethod
    def of(cls, jacobian: Any, chosen: IntArray) -> _Entries:
        m, n = jacobian.shape
        place = np.full(n, -1, dtype=np.intp)
        place[chosen] = np.arange(chosen.size)
        by_rows = np.flatnonzero(place[jacobian.indices] >= 0)
        column = place[jacobian.indices[by_rows]].astype(np.int32)
        row = np.repeat(np.arange(m, dtype=np.int32), np.diff(jacobian.indptr))[by_rows]
        order = np.argsort(column, kind="stable")
        counts = [np.bincount(numbers, minlength=size) for numbers, size in ((row, m), (column, chosen.size))]
        indptr = [np.concatenate(([0], np.cumsum(count))).astype(np.int32) for count in counts]
        return cls(
            (m, chosen.size),
            by_rows,
            by_rows[order],
            (column, indptr[0]),
            (np.ascontiguousarray(row[order]), indptr[1]),
        )

    def matrices(self, data: Float64Array) -> tuple[Any, Any]:
        """Return the columns as a CSR matrix, and their transpose as another."""
        m, n = self.shape
        return (
            sparse.csr_array((data[self.by_rows], *self.rows), shape=(m, n)),
            sparse.csr_array((data[self.by_columns], *self.columns), shape=(n, m)),
        )


@dataclass(frozen=True, eq=False)
class _Diagonal:
    """The diagonal blocks of one size.

    Attributes:
        columns: in the reduced system, shape (blocks, w).
        sources: for each part the elements that have a column of these blocks, and which, shapes (count,), (count, w).
        order: all of them together by diagonal block and eliminated block.
        starts: where the next pair of those two begins in that order; None where every pair occurs once.
        ends: where the next diagonal block begins, counted in pairs, shape (blocks + 1,).
        owner: the eliminated block of each pair.
    """

    columns: IntArray
    sources: tuple[tuple[IntArray, IntArray], ...]
    order: IntArray
    starts: IntArray | None
    ends: IntArray
    owner: IntArray


@dataclass(frozen=True, eq=False)
class _Plan:
    elimination: Elimination
    kept: _Entries
    gone: _Entries
    diagonals: tuple[_Diagonal, ...]


@dataclass(frozen=True)
class IterativeSchur(NormalEquations):
    """See the module. For sparse Jacobians with blocks to eliminate whose complement is too large to be factorised.

    Attributes:
        tolerance: relative size of what is left of the reduced system at which a step is good enough, in the norm of
            the inverse of the preconditioner. Inexact steps far from the solution are as good as exact ones; the search
            takes some more of them in the end.
        iterations: limit for one step; None for as many as the reduced system has parameters.

    >>> jacobian = sparse.csr_array(np.array([[1.0, 0, 2], [3, 0, 4], [0, 5, 6], [0, 7, 8]]))
    >>> point = Linearization.of(np.array([1.0, 2.0, 3.0, 5.0]), jacobian)
    >>> step = IterativeSchur().factorise(point, np.ones(3), 1.0).full.step
    >>> bool(np.allclose(step, np.linalg.lstsq(jacobian.toarray(), -point.residual)[0]))
    True
    """

    tolerance: float = 1e-2
    iterations: int | None = None
    _plans: PatternCache[_Plan | None] = field(default_factory=lambda: PatternCache(_plan), compare=False, repr=False)

    def suits(self, point: Linearization) -> bool:
        """Whether most parameters of a Jacobian fall into small blocks that no residual connects."""
        return point.sparse and point.jacobian.nnz > 0 and self._plans(in_order(point.jacobian)) is not None

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        if not self.suits(point):
            raise InvalidInputError(
                "the Jacobian has no blocks of parameters to eliminate (or is not sparse); use linear_solver='cg'"
            )
        jacobian = in_order(point.jacobian)
        plan = self._plans(jacobian)
        assert plan is not None
        known = _Products(plan, jacobian.data)
        return lambda diagonal: self._solver(plan, known, diagonal)

    def _solver(self, plan: _Plan, known: _Products, diagonal: Float64Array) -> Solve:
        gone = plan.elimination
        kept = gone.kept.size
        inner, outer = diagonal[gone.eliminated], diagonal[gone.kept]
        root = lower_roots(known.inner, inner)
        inverse = _InverseRoot(plan, known, root, outer)

        def eliminated(u: Float64Array) -> Float64Array:
            """V^-1 B^T u."""
            return _solved(root, known.gone_transposed @ u)

        def product(v: Any) -> Float64Array:
            v = inverse.transposed(v.ravel())
            u = known.kept @ v
            u -= known.gone @ eliminated(u)
            return inverse(known.kept_transposed @ u + outer * v)

        operator = LinearOperator((kept, kept), matvec=product, dtype=np.dtype(np.float64))
        limit = self.iterations or max(kept, 100)

        def solve(right: Float64Array) -> Float64Array:
            first = _solved(root, right[gone.eliminated].ravel())
            reduced = inverse(right[gone.kept] - known.kept_transposed @ (known.gone @ first))
            found = inverse.transposed(cg(operator, reduced, rtol=self.tolerance, maxiter=limit)[0])
            step = np.empty_like(right)
            step[gone.kept] = found
            step[gone.eliminated] = (first - eliminated(known.kept @ found)).reshape(gone.eliminated.shape)
            return step

        return solve


class _Products:
    """What no damping changes: A and B, either transposed, and the products that the preconditioner is made of."""

    def __init__(self, plan: _Plan, data: Float64Array) -> None:
        self._plan = plan
        self.kept, self.kept_transposed = plan.kept.matrices(data)
        self.gone, self.gone_transposed = plan.gone.matrices(data)
        parts = plan.elimination.parts
        self._turned = [part.turned(data) for part in parts]
        self.inner = inner_products(plan.elimination, self._turned)

    @cached_property
    def diagonals(self) -> list[tuple[Float64Array, Float64Array]]:
        """For each size w the blocks of A^T A, shape (blocks, w, w), and those of B^T A, shape (s, pairs, w)."""
        mixed = [
            cross_products(entries[:, part.eliminated], entries[:, part.kept])
            for part, entries in zip(self._plan.elimination.parts, self._turned, strict=True)
        ]
        indptr, data = self.kept_transposed.indptr, self.kept_transposed.data
        result = []
        for blocks in self._plan.diagonals:
            w = blocks.columns.shape[1]
            # The columns of a block have entries in the same rows.
            rows = (np.array([data[indptr[c] : indptr[c + 1]] for c in here]).T for here in blocks.columns)
            grams = np.array([gram(r) for r in rows]).reshape(-1, w, w)
            found = [m[:, slots.T, which] for m, (which, slots) in zip(mixed, blocks.sources, strict=True)]
            pairs = np.concatenate(found, axis=2)[:, :, blocks.order].transpose(0, 2, 1)
            if blocks.starts is not None:
                pairs = np.add.reduceat(pairs, blocks.starts, axis=1)
            result.append((grams, np.ascontiguousarray(pairs)))
        return result


class _InverseRoot:
    """The inverse of a root C of the block diagonal of S, which is ``C C^T``: ``C^-1 v`` and ``C^-T v``."""

    def __init__(self, plan: _Plan, known: _Products, root: Float64Array, diagonal: Float64Array) -> None:
        self._parts = []
        for blocks, (grams, pairs) in zip(plan.diagonals, known.diagonals, strict=True):
            # Y = L^-1 B^T A by forward substitution, for all pairs at once.
            half = np.empty_like(pairs)
            for i in range(len(pairs)):
                half[i] = pairs[i]
                for j in range(i):
                    half[i] -= root[i, j][blocks.owner][:, None] * half[j]
                half[i] /= root[i, i][blocks.owner][:, None]
            count, w = blocks.columns.shape
            matrices = grams.copy()
            matrices[:, np.arange(w), np.arange(w)] += diagonal[blocks.columns]
            for number in range(count):
                rows = half[:, blocks.ends[number] : blocks.ends[number + 1]].reshape(-1, w)
                matrices[number] -= gram(rows)
            try:
                inverse = np.linalg.inv(np.linalg.cholesky(matrices))
            except np.linalg.LinAlgError:
                raise SolveFailed from None
            self._parts.append((blocks.columns, inverse))

    def __call__(self, v: Float64Array) -> Float64Array:
        result = np.empty(v.size)
        for columns, inverse in self._parts:
            result[columns] = np.einsum("bij,bj->bi", inverse, v[columns])
        return result

    def transposed(self, v: Float64Array) -> Float64Array:
        """Return ``C^-T v``."""
        result = np.empty(v.size)
        for columns, inverse in self._parts:
            result[columns] = np.einsum("bij,bi->bj", inverse, v[columns])
        return result


def _solved(root: Float64Array, right: Float64Array) -> Float64Array:
    """V^-1 of a vector of all eliminated parameters, shape (s * blocks,)."""
    return backward(root, forward(root, right.reshape(len(root), -1))).ravel()


# ---- planning --------------------------------------------------------------------------------------------------------


def _plan(jacobian: Any) -> _Plan | None:
    gone = find_elimination(jacobian)
    if gone is None:
        return None
    block = gone.block[gone.kept]
    single = int(block.max(initial=0)) + 1 + np.arange(block.size)
    block = np.where(np.bincount(block)[block] > _WIDEST, single, block)
    block = np.unique(block, return_inverse=True)[1]
    kept, eliminated = _Entries.of(jacobian, gone.kept), _Entries.of(jacobian, gone.eliminated.ravel())
    sizes = np.bincount(block)
    return _Plan(gone, kept, eliminated, tuple(_diagonal(gone, block, sizes, int(size)) for size in np.unique(sizes)))


def _diagonal(gone: Elimination, block: IntArray, sizes: IntArray, size: int) -> _Diagonal:
    """The plan for the diagonal blocks of one size, where `block` numbers the blocks of the reduced system."""
    chosen = np.flatnonzero(sizes == size)
    number = np.full(sizes.size, -1, dtype=np.intp)
    number[chosen] = np.arange(chosen.size)
    columns = np.argsort(block, kind="stable")
    columns = columns[np.concatenate(([0], np.cumsum(sizes)[:-1]))[chosen][:, None] + np.arange(size)]
    sources, diagonal, owner = [], [], []
    for part in gone.parts:
        of = number[block[part.columns]].T
        # The columns of a block are together in every element that touches it, in rising order.
        which, first = np.nonzero((of >= 0) & (columns[of, 0] == part.columns.T))
        here = of[which, first]
        slots = np.nonzero(of[which] == here[:, None])[1].reshape(-1, size)
        sources.append((which, slots))
        diagonal.append(here)
        owner.append(part.block[which])
    of_pair, by_pair = np.concatenate(diagonal), np.concatenate(owner)
    order = np.lexsort((by_pair, of_pair))
    of_pair, by_pair = of_pair[order], by_pair[order]
    new = np.ones(order.size, dtype=bool)
    new[1:] = (of_pair[1:] != of_pair[:-1]) | (by_pair[1:] != by_pair[:-1])
    starts = None if new.all() else np.flatnonzero(new)
    ends = np.searchsorted(of_pair[new], np.arange(chosen.size + 1))
    return _Diagonal(columns, tuple(sources), order, starts, ends, by_pair[new])
