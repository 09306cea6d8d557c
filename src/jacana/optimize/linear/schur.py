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

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from ...errors import InvalidInputError
from ..linearization import Linearization
from .elements import Element, PatternCache, elements_of
from .multifrontal import column_blocks
from .normal import NormalEquations, Solve, SolveFailed
from .small import cholesky, gram

__all__ = ["Schur"]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

_LEAST_SHARE = 0.5  # part of the parameters that must go for elimination to be worth its while
_MOST_KEPT = 6000  # parameters that may be left, in a dense system
_WIDEST = 16  # parameters in a block that is eliminated
_BLOCKS = 256  # eliminated blocks whose Y is held as a dense matrix at once: few enough for the cache, and
_CHUNK = 2**19  # no more than so many numbers


@dataclass(frozen=True, eq=False)
class _Part:
    """One shape of elements, seen from the elimination: each has s eliminated columns of one block, and k kept ones.

    Attributes:
        element: the elements as the matrix has them.
        order: the elements in the order of their blocks; a slice where they are in it already.
        eliminated, kept: which of the w columns are which, shapes (s,) and (k,).
        block: the number of each element's block, rising, shape (count,).
        starts: where each run of one block begins.
        columns: the kept columns in the reduced system, shape (k, count).
        distinct: no kept column occurs in two elements of one block, so that entries can be stored without adding.
        gram: how the products of the kept columns are summed.
    """

    element: Element
    order: IntArray | slice
    eliminated: IntArray
    kept: IntArray
    block: IntArray
    starts: IntArray
    columns: IntArray
    distinct: bool
    gram: _Gram


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
        size: parameters in each eliminated block.
        eliminated: their columns, shape (size, blocks). Blocks that meet the same kept columns are side by side.
        kept: the other columns, rising.
        parts: elements that touch an eliminated block.
        rest: elements that do not, with how their products are summed.
        chunks: of the eliminated blocks.
    """

    size: int
    eliminated: IntArray
    kept: IntArray
    parts: tuple[_Part, ...]
    rest: tuple[tuple[Element, _Gram], ...]
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
        """Whether most parameters of a Jacobian fall into small blocks that no residual connects."""
        return point.sparse and point.jacobian.nnz > 0 and self._plans(_in_order(point.jacobian)) is not None

    def prepared(self, point: Linearization) -> Callable[[Float64Array], Solve]:
        jacobian = _in_order(point.jacobian) if point.sparse else point.jacobian
        plan = self._plans(jacobian) if point.sparse else None
        if plan is None:
            raise InvalidInputError(
                "the Jacobian has no blocks of parameters to eliminate (or is not sparse); use linear_solver='sparse'"
            )
        products = functools.cache(functools.partial(_Products, plan, jacobian.data))
        return lambda diagonal: _solver(plan, products(), diagonal)


def _in_order(jacobian: Any) -> Any:
    """The matrix with the columns of each row rising."""
    return jacobian if jacobian.has_sorted_indices else jacobian.sorted_indices()


class _Products:
    """B^T B, B^T A and A^T A of one Jacobian, which no damping changes. Blocks and elements come last, so that all is
    done by long vector operations."""

    def __init__(self, plan: _Plan, data: Float64Array) -> None:
        s, count = plan.eliminated.shape
        self.inner = np.zeros((s, s, count))
        self.outer = np.zeros((plan.kept.size, plan.kept.size))
        self.mixed: list[Float64Array] = []
        for part in plan.parts:
            blocks = part.element.blocks(data)
            ordered = blocks if isinstance(part.order, slice) else np.take(blocks, part.order, axis=0)
            turned = np.ascontiguousarray(ordered.transpose(1, 2, 0))
            b, a = turned[:, part.eliminated], turned[:, part.kept]
            present = part.block[part.starts]
            for i in range(s):
                for j in range(i + 1):
                    self.inner[i, j, present] += np.add.reduceat(_dots(b[:, i], b[:, j]), part.starts)
            self.mixed.append(_cross(b, a))
            part.gram.add(blocks, self.outer)
        for element, products in plan.rest:
            products.add(element.blocks(data), self.outer)


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
    s, kept = plan.size, plan.kept.size
    root = _lower_roots(known.inner, diagonal[plan.eliminated])
    # Y = L^-1 B^T A by forward substitution, for all elements at once.
    halves = []
    for part, mixed in zip(plan.parts, known.mixed, strict=True):
        half = np.empty_like(mixed)
        for i in range(s):
            half[i] = mixed[i]
            for j in range(i):
                half[i] -= root[i, j][part.block] * half[j]
            half[i] /= root[i, i][part.block]
        halves.append(half)
    reduced = known.outer.copy()
    reduced.flat[:: kept + 1] += diagonal[plan.kept]
    _subtract_square(plan, halves, reduced)
    factor = np.asfortranarray(cholesky(reduced))

    def solve(right: Float64Array) -> Float64Array:
        # L^-1 of the eliminated right-hand sides, the reduced system, then back.
        inner_right = _forward(root, right[plan.eliminated])
        kept_right = right[plan.kept]
        for part, half in zip(plan.parts, halves, strict=True):
            taken = np.einsum("skn,sn->kn", half, inner_right[:, part.block])
            kept_right -= np.bincount(part.columns.ravel(), weights=taken.ravel(), minlength=kept)
        kept_step = lapack.dpotrs(factor, kept_right, lower=True)[0]
        for part, half in zip(plan.parts, halves, strict=True):
            taken = np.einsum("skn,kn->sn", half, kept_step[part.columns])
            inner_right[:, part.block[part.starts]] -= np.add.reduceat(taken, part.starts, axis=1)
        step = np.empty_like(right)
        step[plan.kept] = kept_step
        step[plan.eliminated] = _backward(root, inner_right)
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
            if not plan.parts[k].distinct:
                np.add.at(flat, places, values)
            elif number:
                flat[places] += values
            else:
                flat[places] = values
        rows = flat.reshape(chunk.rows, chunk.columns.size)
        reduced[chunk.columns[:, None], chunk.columns] -= gram(rows)


def _lower_roots(blocks: Float64Array, diagonal: Float64Array) -> Float64Array:
    """The lower Cholesky factors of many small matrices (their lower triangles), shape (s, s, count)."""
    root = blocks.copy()
    for j in range(len(root)):
        pivot = root[j, j]
        pivot += diagonal[j]
        for k in range(j):
            pivot -= root[j, k] * root[j, k]
        if not (pivot > 0.0).all():
            raise SolveFailed
        np.sqrt(pivot, out=pivot)
        for i in range(j + 1, len(root)):
            for k in range(j):
                root[i, j] -= root[i, k] * root[j, k]
            root[i, j] /= pivot
    return root


def _forward(root: Float64Array, right: Float64Array) -> Float64Array:
    result = right.copy()
    for i in range(len(right)):
        for j in range(i):
            result[i] -= root[i, j] * result[j]
        result[i] /= root[i, i]
    return result


def _backward(root: Float64Array, right: Float64Array) -> Float64Array:
    result = right.copy()
    for i in reversed(range(len(right))):
        for j in range(i + 1, len(right)):
            result[i] -= root[j, i] * result[j]
        result[i] /= root[i, i]
    return result


# ---- finding the blocks ----------------------------------------------------------------------------------------------


def _plan(jacobian: Any) -> _Plan | None:
    """The plan for a pattern with rising columns, or None where not enough can be eliminated."""
    n = jacobian.shape[1]
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
    kept = np.flatnonzero(~np.isin(block, chosen))
    chosen = chosen[_alike(elements, block, chosen, kept)]
    number = np.full(sizes.size, -1, dtype=np.intp)
    number[chosen] = np.arange(chosen.size)
    of_column = number[block]
    gone = np.flatnonzero(of_column >= 0)
    eliminated = gone[np.argsort(of_column[gone], kind="stable")].reshape(chosen.size, size)
    place = np.full(n, -1, dtype=np.intp)
    place[kept] = np.arange(kept.size)
    parts, rest = [], []
    for element in elements:
        for piece in _by_layout(element, of_column >= 0):
            touched = of_column[piece.columns[0]] >= 0
            columns = place[piece.columns[:, ~touched]]
            gram = _Gram.of(columns, np.flatnonzero(~touched), kept.size)
            if not touched.any():
                rest.append((piece, gram))
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
                    np.ascontiguousarray(columns[order].T),
                    _distinct(owner, columns[order], kept.size),
                    gram,
                )
            )
    chunks = tuple(
        chunk
        for begin in range(0, chosen.size, _BLOCKS)
        for chunk in _chunks(parts, size, kept.size, begin, min(begin + _BLOCKS, chosen.size))
    )
    return _Plan(size, np.ascontiguousarray(eliminated.T), kept, tuple(parts), tuple(rest), chunks)


def _met(element: Element, block: IntArray) -> IntArray:
    """The blocks that each element meets, shape (count, at most w): neighbours that are one block stand for it once."""
    blocks = block[element.columns]
    changes = (blocks[:, 1:] != blocks[:, :-1]).any(axis=0)
    return np.asarray(blocks[:, np.concatenate(([True], changes))])


def _alike(elements: tuple[Element, ...], block: IntArray, chosen: IntArray, kept: IntArray) -> IntArray:
    """An order of the chosen blocks in which those that meet the same kept columns are side by side, or nearly so."""
    groups = np.unique(block[kept])
    bit = np.zeros(int(block.max()) + 1, dtype=np.int64)
    bit[groups] = 1 << (np.arange(groups.size) * min(62, groups.size) // max(1, groups.size))
    number = np.full(bit.size, -1, dtype=np.intp)
    number[chosen] = np.arange(chosen.size)
    masks = np.zeros(chosen.size, dtype=np.int64)
    for element in elements:
        blocks = _met(element, block)
        met = np.bitwise_or.reduce(bit[blocks], axis=1)
        owner = number[blocks].max(axis=1)
        order = np.argsort(owner, kind="stable")
        order = order[np.searchsorted(owner[order], 0) :]
        if order.size:
            starts = np.flatnonzero(np.concatenate(([True], np.diff(owner[order]) > 0)))
            masks[owner[order[starts]]] |= np.bitwise_or.reduceat(met[order], starts)
    return np.argsort(masks, kind="stable")


def _chunks(parts: list[_Part], size: int, kept: int, begin: int, end: int) -> list[_Chunk]:
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
        blocks = np.sort(_met(element, block), axis=1)
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
