"""Schur complement: many small blocks of parameters that never meet in a residual are eliminated first, in batches.

In bundle adjustment every residual sees one camera and one point, never two points. With the points eliminated, a small
dense system for the cameras is left. Nobody has to say what the points are: `elimination` finds them.

With ``A`` the columns that are kept, ``B`` those eliminated, ``V = B^T B + diagonal`` (small blocks ``V = L L^T``) and
``Y = L^-1 B^T A``, the system for the kept ones is ``(A^T A + diagonal - Y^T Y) p = ...``.

Source: D. C. Brown, "A solution to the general problem of multiple station analytical stereotriangulation", RCA-MTP
Data Reduction Technical Report 43, 1958; B. Triggs, P. McLauchlan, R. Hartley, A. Fitzgibbon, "Bundle Adjustment: A
Modern Synthesis", 2000, section 6.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from ...errors import InvalidInputError
from ..linearization import Linearization
from .elements import PatternCache
from .elimination import (
    Elimination,
    Part,
    backward,
    find_elimination,
    forward,
    in_order,
    inner_products,
    lower_roots,
)
from .normal import NormalEquations, Solve
from .small import cholesky, gram

__all__ = ["Schur", "cross_products"]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

_MOST_KEPT = 6000  # parameters that may be left, in a dense system
_FEW_KEPT = 300  # up to which a dense system costs nothing
_ENTANGLED = 0.05  # share of its entries from which a sparse factorisation would fill most of it
_BLOCKS = 256  # eliminated blocks whose Y is held as a dense matrix at once: few enough for the cache, and
_CHUNK = 2**19  # no more than so many numbers


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Some eliminated blocks in a row, whose Y is one dense matrix: the blocks by the kept columns that they meet.

    Attributes:
        rows: s times the number of blocks.
        columns: those kept columns in the reduced system, rising.
        pieces: for every part its elements of these blocks, and where their entries go, shape (s, k, elements).
    """

    rows: int
    columns: IntArray
    pieces: tuple[tuple[int, slice, IntArray], ...]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is known from the pattern.

    Attributes:
        elimination: which blocks go.
        grams: for each part, and then for each of the rest, how the products of its kept columns are summed.
        distinct: for each part whether no kept column occurs in two elements of one block, so that entries can be
            stored without adding.
        chunks: of the eliminated blocks.
    """

    elimination: Elimination
    grams: tuple[_Gram, ...]
    distinct: tuple[bool, ...]
    chunks: tuple[_Chunk, ...]


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
        """Whether most parameters of a Jacobian fall into small blocks that no residual connects, and what is left is
        few or so entangled that nothing is lost by taking it for dense."""
        if not point.sparse or point.jacobian.nnz == 0:
            return False
        plan = self._plans(in_order(point.jacobian))
        if plan is None:
            return False
        return plan.elimination.kept.size <= _FEW_KEPT or plan.elimination.filled() >= _ENTANGLED

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        jacobian = in_order(point.jacobian) if point.sparse else point.jacobian
        plan = self._plans(jacobian) if point.sparse else None
        if plan is None:
            raise InvalidInputError(
                "the Jacobian has no blocks of parameters to eliminate (or is not sparse); use linear_solver='sparse'"
            )
        products = functools.cache(functools.partial(_Products, plan, jacobian.data))
        return lambda diagonal: _solver(plan, products(), diagonal)


class _Products:
    """B^T B, B^T A and A^T A of one Jacobian, which no damping changes. Blocks and elements come last, so that all is
    done by long vector operations."""

    def __init__(self, plan: _Plan, data: Float64Array) -> None:
        gone = plan.elimination
        turned = [part.turned(data) for part in gone.parts]
        self.inner = inner_products(gone, turned)
        self.outer = np.zeros((gone.kept.size, gone.kept.size))
        self.mixed = [
            cross_products(entries[:, part.eliminated], entries[:, part.kept])
            for part, entries in zip(gone.parts, turned, strict=True)
        ]
        elements = [part.element for part in gone.parts] + [element for element, _ in gone.rest]
        for element, products in zip(elements, plan.grams, strict=True):
            products.add(element.blocks(data), self.outer)


def cross_products(b: Float64Array, a: Float64Array) -> Float64Array:
    """B^T A of each element, shape (s, k, count)."""
    result = np.empty((b.shape[1], a.shape[1], a.shape[2]))
    for i in range(b.shape[1]):
        np.multiply(b[0, i], a[0], out=result[i])
        for g in range(1, len(a)):
            result[i] += b[g, i] * a[g]
    return result


@dataclass(frozen=True, eq=False)
class _Gram:
    """The sum of A^T A over elements of one shape, planned.

    Attributes:
        among: which of an element's columns are kept, shape (k,).
        order: the elements, those with the same columns side by side; None where few have the same.
        runs: for each such group where it ends in that order, and the flat places of its k x k products.
        places: without groups the flat places of all products, shape (count, k, k).
    """

    among: IntArray
    order: IntArray | None
    runs: tuple[tuple[int, IntArray], ...]
    places: IntArray | None

    @classmethod
    def of(cls, columns: IntArray, among: IntArray, size: int) -> _Gram:
        """The plan for elements with these kept columns, shape (count, k), of a reduced system of `size` columns."""
        if columns.size == 0:
            return cls(among, None, (), None)
        marks = np.random.default_rng(0).integers(1, 2**40, size=size)
        order = np.argsort(marks[columns].sum(axis=1), kind="stable")
        ordered = columns[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        begins = np.flatnonzero(new)
        if begins.size > len(order) // 8:
            return cls(among, None, (), columns[:, :, None] * size + columns[:, None, :])
        places = (here[:, None] * size + here for here in ordered[begins])
        return cls(among, order, tuple(zip([*begins[1:].tolist(), len(order)], places, strict=True)), None)

    def add(self, blocks: Float64Array, total: Float64Array) -> None:
        """Add the sum for blocks of shape (count, g, w) to the matrix `total`."""
        flat = total.reshape(-1)
        if self.places is not None:
            kept = blocks[:, :, self.among]
            products = kept.transpose(0, 2, 1) @ kept
            flat += np.bincount(self.places.ravel(), weights=products.ravel(), minlength=flat.size)
        elif self.order is not None:
            # Elements with the same columns are summed by BLAS, with all columns: to leave some out would take a copy.
            ordered = np.take(blocks, self.order, axis=0)
            begin = 0
            for end, places in self.runs:
                rows = ordered[begin:end].reshape(-1, blocks.shape[2])
                flat[places] += (rows.T @ rows)[self.among[:, None], self.among]
                begin = end


def _solver(plan: _Plan, known: _Products, diagonal: Float64Array) -> Solve:
    gone = plan.elimination
    s, kept = gone.size, gone.kept.size
    root = lower_roots(known.inner, diagonal[gone.eliminated])
    # Y = L^-1 B^T A by forward substitution, for all elements at once.
    halves = []
    for part, mixed in zip(gone.parts, known.mixed, strict=True):
        half = np.empty_like(mixed)
        for i in range(s):
            half[i] = mixed[i]
            for j in range(i):
                half[i] -= root[i, j][part.block] * half[j]
            half[i] /= root[i, i][part.block]
        halves.append(half)
    reduced = known.outer.copy()
    reduced.flat[:: kept + 1] += diagonal[gone.kept]
    _subtract_square(plan, halves, reduced)
    factor = np.asfortranarray(cholesky(reduced))

    def solve(right: Float64Array) -> Float64Array:
        # L^-1 of the eliminated right-hand sides, the reduced system, then back.
        inner_right = forward(root, right[gone.eliminated])
        kept_right = right[gone.kept]
        for part, half in zip(gone.parts, halves, strict=True):
            taken = np.einsum("skn,sn->kn", half, inner_right[:, part.block])
            kept_right -= np.bincount(part.columns.ravel(), weights=taken.ravel(), minlength=kept)
        # LAPACK takes no matrix without rows, which is what is left where no two blocks have anything in common.
        kept_step = lapack.dpotrs(factor, kept_right, lower=True)[0] if kept else kept_right
        for part, half in zip(gone.parts, halves, strict=True):
            taken = np.einsum("skn,kn->sn", half, kept_step[part.columns])
            inner_right[:, part.block[part.starts]] -= np.add.reduceat(taken, part.starts, axis=1)
        step = np.empty_like(right)
        step[gone.kept] = kept_step
        step[gone.eliminated] = backward(root, inner_right)
        return step

    return solve


def _subtract_square(plan: _Plan, halves: list[Float64Array], reduced: Float64Array) -> None:
    """Take Y^T Y from the reduced matrix, a chunk of blocks after another, each among the columns that it meets."""
    room = np.empty(max((chunk.rows * chunk.columns.size for chunk in plan.chunks), default=0))
    for chunk in plan.chunks:
        flat = room[: chunk.rows * chunk.columns.size]
        flat.fill(0.0)
        for number, (k, elements, places) in enumerate(chunk.pieces):
            values = halves[k][:, :, elements]
            if not plan.distinct[k]:
                np.add.at(flat, places, values)
            elif number:
                flat[places] += values
            else:
                flat[places] = values
        rows = flat.reshape(chunk.rows, chunk.columns.size)
        reduced[chunk.columns[:, None], chunk.columns] -= gram(rows)


# ---- planning --------------------------------------------------------------------------------------------------------


def _plan(jacobian: Any) -> _Plan | None:
    """The plan for a pattern with rising columns, or None where not enough can be eliminated."""
    gone = find_elimination(jacobian)
    if gone is None or gone.kept.size > _MOST_KEPT:
        return None
    size, kept, count = gone.size, gone.kept.size, gone.eliminated.shape[1]
    grams = []
    for part in gone.parts:
        columns = np.empty_like(part.columns.T)
        columns[part.order] = part.columns.T
        grams.append(_Gram.of(columns, part.kept, kept))
    grams += [_Gram.of(columns, np.arange(columns.shape[1]), kept) for _, columns in gone.rest]
    distinct = tuple(_distinct(part.block, part.columns.T, kept) for part in gone.parts)
    chunks = tuple(
        chunk
        for begin in range(0, count, _BLOCKS)
        for chunk in _chunks(gone.parts, size, kept, begin, min(begin + _BLOCKS, count))
    )
    return _Plan(gone, tuple(grams), distinct, chunks)


def _chunks(parts: Sequence[Part], size: int, kept: int, begin: int, end: int) -> list[_Chunk]:
    """The blocks from `begin` to `end` as one chunk, or as several if that would be too large."""
    ranges = [slice(*np.searchsorted(part.block, (begin, end)).tolist()) for part in parts]
    met = np.zeros(kept, dtype=bool)
    for part, r in zip(parts, ranges, strict=True):
        met[part.columns[:, r]] = True
    columns = np.flatnonzero(met)
    place = np.cumsum(met) - 1
    rows = size * (end - begin)
    if rows * columns.size > _CHUNK and end - begin > 1:
        middle = (begin + end) // 2
        return _chunks(parts, size, kept, begin, middle) + _chunks(parts, size, kept, middle, end)
    pieces = []
    for k, (part, r) in enumerate(zip(parts, ranges, strict=True)):
        if r.start < r.stop and part.kept.size:
            row = size * (part.block[r] - begin) + np.arange(size)[:, None, None]
            pieces.append((k, r, row * columns.size + place[part.columns[:, r]]))
    return [_Chunk(rows, columns, tuple(pieces))] if pieces else []


def _distinct(block: IntArray, columns: IntArray, kept: int) -> bool:
    keys = (block[:, None] * kept + columns).ravel()
    if keys.size == 0:
        return True
    if int(keys.max()) < 20 * keys.size:
        return int(np.bincount(keys).max()) == 1
    return np.unique(keys).size == keys.size
