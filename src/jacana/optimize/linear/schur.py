"""Schur complement: many small blocks of parameters that never meet in a residual are eliminated first, in batches.

In bundle adjustment every residual sees one camera and one point, never two points. With the points eliminated, a small
dense system for the cameras is left. Nobody has to say what the points are: columns that the same residuals touch are
one block, and blocks are taken, those with the fewest residuals first, as long as no residual sees two of them.

With ``A`` the columns that are kept, ``B`` those eliminated, ``V = B^T B + diagonal`` (small blocks ``V = L L^T``) and
``Y = L^-1 B^T A``, the system for the kept ones is ``(A^T A + diagonal - Y^T Y) p = ...``.

Source: D. C. Brown, "A solution to the general problem of multiple station analytical stereotriangulation", RCA-MTP
Data Reduction Technical Report 43, 1958; B. Triggs, P. McLauchlan, R. Hartley, A. Fitzgibbon, "Bundle Adjustment: A
Modern Synthesis", 2000, section 6.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInputError
from ..linearization import Linearization
from .elements import Element, PatternCache, elements_of
from .multifrontal import column_blocks
from .normal import NormalEquations, Solve, SolveFailed, dense_solver

__all__ = ["Schur"]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

_LEAST_SHARE = 0.5  # part of the parameters that must go for elimination to be worth its while
_MOST_KEPT = 6000  # parameters that may be left, in a dense system
_WIDEST = 16  # parameters in a block that is eliminated
_CHUNK = 2**17  # numbers of Y that are held as a dense matrix at once, few enough for the cache


@dataclass(frozen=True, eq=False)
class _Part:
    """One shape of elements, seen from the elimination: each has s eliminated columns of one block, and k kept ones.

    Attributes:
        element: the elements, in the order of their blocks.
        eliminated, kept: which of the w columns are which, shapes (s,) and (k,).
        block: the number of each element's block among those of its size, rising, shape (count,).
        starts: where each run of one block begins.
        columns: the kept columns in the reduced system, shape (count, k).
        distinct: no kept column occurs in two elements of one block, so that entries can be stored without adding.
    """

    blocks_of: Element
    order: IntArray | slice
    eliminated: IntArray
    kept: IntArray
    block: IntArray
    starts: IntArray
    columns: IntArray
    distinct: bool


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is known from the pattern.

    Attributes:
        size: parameters in each eliminated block.
        eliminated: their columns, shape (blocks, size).
        kept: the other columns, rising.
        parts: elements that touch an eliminated block.
        rest: elements that do not, with their columns in the reduced system.
    """

    size: int
    eliminated: IntArray
    kept: IntArray
    parts: tuple[_Part, ...]
    rest: tuple[tuple[Element, IntArray], ...]


@dataclass(frozen=True)
class Schur(NormalEquations):
    """See the module. For sparse Jacobians; where nothing can be eliminated it is an error to ask for it.

    >>> from scipy import sparse
    >>> jacobian = sparse.csr_array(np.array([[1.0, 0, 2], [3, 0, 4], [0, 5, 6], [0, 7, 8]]))
    >>> point = Linearization.of(np.array([1.0, 2.0, 3.0, 5.0]), jacobian)
    >>> step = Schur().factorise(point, np.ones(3), 1.0).full.step
    >>> bool(np.allclose(step, np.linalg.lstsq(jacobian.toarray(), -point.residual)[0]))
    True
    """

    _plans: PatternCache[_Plan | None] = field(default_factory=lambda: PatternCache(_plan), compare=False, repr=False)

    def suits(self, point: Linearization) -> bool:
        """Whether most parameters of a Jacobian fall into small blocks that no residual connects."""
        return point.sparse and point.jacobian.nnz > 0 and self._plans(point.jacobian) is not None

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        plan = self._plans(point.jacobian) if point.sparse else None
        if plan is None:
            raise InvalidInputError(
                "the Jacobian has no blocks of parameters to eliminate (or is not sparse); use linear_solver='sparse'"
            )
        known = _Products(plan, point.jacobian.data)
        return lambda diagonal: _solver(plan, known, diagonal)


class _Products:
    """B^T B, B^T A and A^T A of one Jacobian, which no damping changes."""

    def __init__(self, plan: _Plan, data: Float64Array) -> None:
        count, s = plan.eliminated.shape
        kept = plan.kept.size
        self.inner = np.zeros((count, s, s))
        self.outer = np.zeros(kept * kept)
        self.mixed: list[Float64Array] = []
        for part in plan.parts:
            blocks = part.blocks_of.blocks(data)[part.order]
            # Residuals last: every product below is then one long vector operation.
            turned = np.ascontiguousarray(blocks.transpose(1, 2, 0))
            b, a = turned[:, part.eliminated], turned[:, part.kept]
            present = part.block[part.starts]
            for i in range(s):
                for j in range(i + 1):
                    summed = np.add.reduceat(_dots(b[:, i], b[:, j]), part.starts)
                    self.inner[present, i, j] += summed
            self.mixed.append(_cross(b, a))
            products = blocks[:, :, part.kept]
            self.outer += _gram(products, part.columns, kept)
        for element, columns in plan.rest:
            self.outer += _gram(element.blocks(data), columns, kept)
        above = np.triu_indices(s, 1)
        self.inner[:, above[0], above[1]] = self.inner[:, above[1], above[0]]


def _dots(a: Float64Array, b: Float64Array) -> Float64Array:
    total: Float64Array = a[0] * b[0]
    for k in range(1, len(a)):
        total += a[k] * b[k]
    return total


def _cross(b: Float64Array, a: Float64Array) -> Float64Array:
    """B^T A of each element, shape (s, k, count)."""
    result = np.empty((b.shape[1], a.shape[1], a.shape[2]))
    for i in range(b.shape[1]):
        np.multiply(b[0, i], a[0], out=result[i])
        for g in range(1, len(a)):
            result[i] += b[g, i] * a[g]
    return result


def _gram(blocks: Float64Array, columns: IntArray, size: int) -> Float64Array:
    """The sum of the elements' A^T A, a flat size x size matrix. Elements with the same columns are summed by BLAS."""
    total = np.zeros(size * size)
    if columns.size == 0:
        return total
    order = np.lexsort(columns.T[::-1])
    sorted_columns = columns[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (sorted_columns[1:] != sorted_columns[:-1]).any(axis=1)
    begins = np.flatnonzero(new)
    if begins.size > len(order) // 8:
        products = blocks.transpose(0, 2, 1) @ blocks
        places = columns[:, :, None] * size + columns[:, None, :]
        return np.asarray(
            np.bincount(places.ravel(), weights=products.ravel(), minlength=size * size), dtype=np.float64
        )
    for begin, end in zip(begins, [*begins[1:], len(order)], strict=True):
        rows = blocks[order[begin:end]].reshape(-1, columns.shape[1])
        here = sorted_columns[begin]
        total[(here[:, None] * size + here).ravel()] += (rows.T @ rows).ravel()
    return total


def _solver(plan: _Plan, known: _Products, diagonal: Float64Array) -> Solve:
    s, kept = plan.size, plan.kept.size
    inner = known.inner.copy()
    inner[:, np.arange(s), np.arange(s)] += diagonal[plan.eliminated]
    root = _lower_roots(inner)
    reduced = known.outer.reshape(kept, kept).copy()
    reduced.flat[:: kept + 1] += diagonal[plan.kept]
    # Y = L^-1 B^T A by forward substitution, for all elements at once.
    halves = []
    for part, mixed in zip(plan.parts, known.mixed, strict=True):
        at = root[part.block]
        half = np.empty_like(mixed)
        for i in range(s):
            row = mixed[i].copy()
            for j in range(i):
                row -= at[:, i, j] * half[j]
            half[i] = row / at[:, i, i]
        halves.append(half)
    _subtract_square(plan, halves, reduced)
    solve_reduced = dense_solver(reduced.T)

    def solve(right: Float64Array) -> Float64Array:
        # L^-1 of the eliminated right-hand sides, the reduced system, then back.
        inner_right = _forward(root, right[plan.eliminated])
        kept_right = right[plan.kept].copy()
        for part, half in zip(plan.parts, halves, strict=True):
            there = inner_right[part.block].T
            taken = _dots(half, there[:, None, :])
            kept_right -= np.bincount(part.columns.T.ravel(), weights=taken.ravel(), minlength=kept)
        kept_step = solve_reduced(kept_right)
        for part, half in zip(plan.parts, halves, strict=True):
            moved = kept_step[part.columns].T
            for i in range(s):
                taken = np.add.reduceat(_dots(half[i], moved), part.starts)
                inner_right[part.block[part.starts], i] -= taken
        step = np.empty_like(right)
        step[plan.kept] = kept_step
        step[plan.eliminated] = _backward(root, inner_right)
        return step

    return solve


def _subtract_square(plan: _Plan, halves: list[Float64Array], reduced: Float64Array) -> None:
    """Take Y^T Y from the reduced matrix, with as many blocks at once as fit into a dense piece of Y."""
    s, kept = plan.size, plan.kept.size
    count = len(plan.eliminated)
    chunk = max(1, _CHUNK // max(1, s * kept))
    for begin in range(0, count, chunk):
        end = min(count, begin + chunk)
        dense = np.zeros((end - begin, s, kept))
        for part, half in zip(plan.parts, halves, strict=True):
            first, last = np.searchsorted(part.block, (begin, end))
            if first == last:
                continue
            places = (part.block[first:last] - begin) * (s * kept) + part.columns[first:last].T
            flat = dense.reshape(-1)
            for i in range(s):
                values = half[i][:, first:last].ravel()
                where = (places + i * kept).ravel()
                if part.distinct:
                    flat[where] += values
                else:
                    np.add.at(flat, where, values)
        rows = dense.reshape(-1, kept)
        reduced -= rows.T @ rows


def _lower_roots(blocks: Float64Array) -> Float64Array:
    try:
        return np.asarray(np.linalg.cholesky(blocks), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise SolveFailed from error


def _forward(root: Float64Array, right: Float64Array) -> Float64Array:
    result = right.copy()
    for i in range(right.shape[1]):
        for j in range(i):
            result[:, i] -= root[:, i, j] * result[:, j]
        result[:, i] /= root[:, i, i]
    return result


def _backward(root: Float64Array, right: Float64Array) -> Float64Array:
    result = right.copy()
    for i in reversed(range(right.shape[1])):
        for j in range(i + 1, right.shape[1]):
            result[:, i] -= root[:, j, i] * result[:, j]
        result[:, i] /= root[:, i, i]
    return result


# ---- finding the blocks ----------------------------------------------------------------------------------------------


def _plan(jacobian: Any) -> _Plan | None:
    """The plan for a pattern, or None where not enough can be eliminated."""
    n = jacobian.shape[1]
    if not jacobian.has_sorted_indices:
        return None
    elements = elements_of(jacobian)
    block = column_blocks(elements, n)
    sizes = np.bincount(block)
    chosen = _independent_blocks(elements, block, sizes)
    if chosen is None:
        return None
    widths = sizes[chosen]
    size = int(np.bincount(widths, weights=widths).argmax())
    chosen = chosen[widths == size]
    if size * chosen.size < _LEAST_SHARE * n or n - size * chosen.size > _MOST_KEPT:
        return None
    number = np.full(sizes.size, -1, dtype=np.intp)
    number[chosen] = np.arange(chosen.size)
    of_column = number[block]
    gone = np.flatnonzero(of_column >= 0)
    eliminated = gone[np.argsort(of_column[gone], kind="stable")].reshape(chosen.size, size)
    kept = np.flatnonzero(of_column < 0)
    place = np.full(n, -1, dtype=np.intp)
    place[kept] = np.arange(kept.size)
    parts, rest = [], []
    for element in elements:
        for piece in _by_layout(element, of_column >= 0):
            touched = of_column[piece.columns[0]] >= 0
            columns = place[piece.columns[:, ~touched]]
            if not touched.any():
                rest.append((piece, columns))
                continue
            owner = of_column[piece.columns[:, np.argmax(touched)]]
            order = np.argsort(owner, kind="stable")
            owner = owner[order]
            starts = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
            in_order = np.array_equal(order, np.arange(order.size))
            parts.append(
                _Part(
                    piece,
                    slice(None) if in_order else order,
                    np.flatnonzero(touched),
                    np.flatnonzero(~touched),
                    owner,
                    starts,
                    columns[order],
                    _distinct(owner, columns[order], kept.size),
                )
            )
    return _Plan(size, eliminated, kept, tuple(parts), tuple(rest))


def _distinct(block: IntArray, columns: IntArray, kept: int) -> bool:
    keys = (block[:, None] * kept + columns).ravel()
    if keys.size == 0:
        return True
    if int(keys.max()) < 20 * keys.size:
        return int(np.bincount(keys).max()) == 1
    return np.unique(keys).size == keys.size


def _by_layout(element: Element, gone: NDArray[np.bool_]) -> list[Element]:
    """Split elements of one shape by which of their columns are eliminated."""
    layouts = gone[element.columns]
    if (layouts == layouts[0]).all():
        return [element]
    kinds, which = np.unique(layouts, axis=0, return_inverse=True)
    which = which.ravel()
    places = element.places
    if places is None:
        places = np.arange(element.rows.size * element.columns.shape[1]).reshape(element.shape)
    return [
        Element(element.columns[which == k], element.rows[which == k], places[which == k]) for k in range(len(kinds))
    ]


def _independent_blocks(elements: tuple[Element, ...], block: IntArray, sizes: IntArray) -> IntArray | None:
    """Blocks no two of which meet in a residual, those with the fewest residuals first."""
    residuals = np.zeros(sizes.size, dtype=np.intp)
    touched = []
    for element in elements:
        blocks = np.sort(block[element.columns], axis=1)
        first = np.ones(blocks.shape, dtype=bool)
        first[:, 1:] = blocks[:, 1:] != blocks[:, :-1]
        rows = element.rows.shape[1]
        residuals += rows * np.bincount(blocks[first], minlength=sizes.size)
        touched.append(np.where(first, blocks, -1))
    # A total order: few residuals first, then by number.
    order = np.lexsort((np.arange(sizes.size), residuals))
    rank = np.empty(sizes.size + 1, dtype=np.intp)
    rank[order] = np.arange(sizes.size)
    far = sizes.size
    rank[-1] = far
    state = np.where((sizes <= _WIDEST) & (residuals > 0), 0, -1)  # 0 open, 1 chosen, -1 not
    for _ in range(8):
        if not (state == 0).any():
            break
        best = np.ones(sizes.size, dtype=bool)
        for blocks in touched:
            ranks = np.where((blocks >= 0) & (np.append(state, -1)[blocks] == 0), rank[blocks], far)
            least = ranks.min(axis=1, keepdims=True)
            loser = (ranks > least) & (ranks < far)
            best[blocks[loser]] = False
        winners = (state == 0) & best
        state[winners] = 1
        for blocks in touched:
            held = (np.append(state, -1)[blocks] == 1).any(axis=1)
            out = blocks[held]
            out = out[out >= 0]
            state[out[state[out] == 0]] = -1
    chosen = np.flatnonzero(state == 1)
    return chosen if chosen.size else None
