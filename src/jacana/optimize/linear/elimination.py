"""Which parameters can be eliminated from the normal equations: many small blocks that never meet in a residual.

In bundle adjustment every residual sees one camera and one point, never two points. Nobody has to say what the points
are: columns that the same residuals touch are one block, and blocks are taken, those with the fewest residuals first,
as long as no residual sees two of them.

With ``B`` the columns that are eliminated, ``V = B^T B + diagonal`` consists of small blocks ``L L^T`` then. The
functions here factorise all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .elements import Element, elements_of
from .multifrontal import column_blocks
from .normal import SolveFailed

__all__ = [
    "Elimination",
    "Part",
    "backward",
    "find_elimination",
    "forward",
    "in_order",
    "inner_products",
    "lower_roots",
]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

_LEAST_SHARE = 0.5  # part of the parameters that must go for elimination to be worth its while
_WIDEST = 16  # parameters in a block that is eliminated


@dataclass(frozen=True, eq=False)
class Part:
    """One shape of elements, seen from the elimination: each has s eliminated columns of one block, and k kept ones.

    Attributes:
        element: the elements as the matrix has them.
        order: the elements in the order of their blocks; a slice where they are in it already.
        eliminated, kept: which of the w columns are which, shapes (s,) and (k,).
        block: the number of each element's block, rising, shape (count,).
        starts: where each run of one block begins.
        columns: the kept columns in the reduced system, shape (k, count).
    """

    element: Element
    order: IntArray | slice
    eliminated: IntArray
    kept: IntArray
    block: IntArray
    starts: IntArray
    columns: IntArray

    def turned(self, data: Float64Array) -> Float64Array:
        """Return the entries of the elements, in their order, shape (g, w, count)."""
        blocks = self.element.blocks(data)
        ordered = blocks if isinstance(self.order, slice) else np.take(blocks, self.order, axis=0)
        return np.ascontiguousarray(ordered.transpose(1, 2, 0))


@dataclass(frozen=True, eq=False)
class Elimination:
    """What a pattern says of it. Made by `find_elimination`.

    Attributes:
        size: parameters in each eliminated block.
        eliminated: their columns, shape (size, blocks). Blocks that meet the same kept columns are side by side.
        kept: the other columns, rising.
        parts: elements that touch an eliminated block.
        rest: elements that do not, with their columns in the reduced system, shape (count, w).
        block: of each column of the matrix, the number of the columns that the same residuals touch, shape (n,).
    """

    size: int
    eliminated: IntArray
    kept: IntArray
    parts: tuple[Part, ...]
    rest: tuple[tuple[Element, IntArray], ...]
    block: IntArray

    def filled(self) -> float:
        """Entries that the reduced system has at most, as a share of all of them; 1 or more where they may be all."""
        met = np.zeros(self.eliminated.shape[1])
        for part in self.parts:
            met += np.bincount(part.block, minlength=met.size) * part.kept.size
        others = sum(columns.size * columns.shape[1] for _, columns in self.rest)
        return float(met @ met + others) / max(1, self.kept.size) ** 2


def in_order(jacobian: Any) -> Any:
    """Return the matrix with the columns of each row rising."""
    return jacobian if jacobian.has_sorted_indices else jacobian.sorted_indices()


def inner_products(plan: Elimination, turned: list[Float64Array]) -> Float64Array:
    """Return the lower triangles of all blocks of ``B^T B``, shape (s, s, blocks).

    Args:
        turned: the entries of each part; see `Part.turned`.
    """
    s, count = plan.eliminated.shape
    inner = np.zeros((s, s, count))
    for part, entries in zip(plan.parts, turned, strict=True):
        b = entries[:, part.eliminated]
        present = part.block[part.starts]
        for i in range(s):
            for j in range(i + 1):
                inner[i, j, present] += np.add.reduceat(_dots(b[:, i], b[:, j]), part.starts)
    return inner


def _dots(a: Float64Array, b: Float64Array) -> Float64Array:
    total: Float64Array = a[0] * b[0]
    for k in range(1, len(a)):
        total += a[k] * b[k]
    return total


def lower_roots(blocks: Float64Array, diagonal: Float64Array) -> Float64Array:
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


def forward(root: Float64Array, right: Float64Array) -> Float64Array:
    result = right.copy()
    for i in range(len(right)):
        for j in range(i):
            result[i] -= root[i, j] * result[j]
        result[i] /= root[i, i]
    return result


def backward(root: Float64Array, right: Float64Array) -> Float64Array:
    result = right.copy()
    for i in reversed(range(len(right))):
        for j in range(i + 1, len(right)):
            result[i] -= root[j, i] * result[j]
        result[i] /= root[i, i]
    return result


# ---- finding the blocks ----------------------------------------------------------------------------------------------


def find_elimination(jacobian: Any) -> Elimination | None:
    """Return what can be eliminated, for a CSR matrix with rising columns; None where that is less than half."""
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
    if size * chosen.size < _LEAST_SHARE * n:
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
            if not touched.any():
                rest.append((piece, columns))
                continue
            owner = of_column[piece.columns[:, np.argmax(touched)]]
            order = np.argsort(owner, kind="stable")
            owner = owner[order]
            starts = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
            parts.append(
                Part(
                    piece,
                    slice(None) if np.array_equal(order, np.arange(order.size)) else order,
                    np.flatnonzero(touched),
                    np.flatnonzero(~touched),
                    owner,
                    starts,
                    np.ascontiguousarray(columns[order].T),
                )
            )
    return Elimination(size, np.ascontiguousarray(eliminated.T), kept, tuple(parts), tuple(rest), block)


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
