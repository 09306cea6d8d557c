"""Sparse Cholesky factorisation of ``J^T J + diagonal`` by fronts: small dense matrices for LAPACK, one after another.

What depends on the pattern alone is planned once: an order of elimination, the columns that are eliminated together,
and for every entry of every product of two entries of a row where it will be added. A factorisation is then one
histogram and a few LAPACK calls for each front.

Sources: I. S. Duff and J. K. Reid, "The multifrontal solution of indefinite sparse symmetric linear equations", ACM
TOMS 9(3), 1983; C. C. Ashcraft and R. G. Grimes, "The influence of relaxed supernode partitions on the multifrontal
method", ACM TOMS 15(4), 1989, for eliminating more columns together than the pattern asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import blas
from scipy.sparse.linalg import splu

from .elements import Element, elements_of
from .normal import Solve
from .small import cholesky, gram, solved_below, times

__all__ = ["Multifrontal", "column_blocks", "plan_multifrontal"]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

_SMALL_FRONT = 24  # columns up to which two fronts are joined whatever zeros that stores
_ZEROS = 0.25  # share of stored zeros up to which larger ones are


@dataclass(frozen=True, eq=False)
class _Front:
    """Columns that are eliminated together, in permuted numbers.

    Attributes:
        first, count: the columns are first .. first + count - 1.
        below: rows beneath them, rising.
        offset: where the panel, (count + below.size) x count in C order, begins in the buffer of all panels.
        parent: the front that takes the update, -1 for none.
        into: where `below` stands among the rows of the parent: an array, or a slice where it is contiguous.
    """

    first: int
    count: int
    below: IntArray
    offset: int
    parent: int
    into: Any


@dataclass(frozen=True, eq=False)
class Multifrontal:
    """A plan for one pattern. Made by `plan_multifrontal`.

    Attributes:
        elements: the dense blocks of J.
        targets: for each element, where each entry of its w x w product goes in the buffer of panels.
        fronts: in an order in which children come before parents.
        position: of each column of J in the order of elimination.
        diagonal: where the diagonal is in the buffer, in the order of J's columns.
        size: of the buffer; one more place takes what belongs above the diagonal.
    """

    elements: tuple[Element, ...]
    targets: tuple[IntArray, ...]
    fronts: tuple[_Front, ...]
    position: IntArray
    diagonal: IntArray
    size: int

    def assembled(self, jacobian: Any) -> Float64Array:
        """Return the panels of ``J^T J`` for a Jacobian of this pattern."""
        total: Float64Array = np.zeros(self.size + 1)
        for element, target in zip(self.elements, self.targets, strict=True):
            blocks = element.blocks(jacobian.data)
            products = blocks.transpose(0, 2, 1) @ blocks
            total += np.bincount(target.ravel(), weights=products.ravel(), minlength=self.size + 1)
        return total

    def factorised(self, panels: Float64Array, diagonal: Float64Array) -> Solve:
        """Return the solver of ``J^T J + diagonal``.

        Raises:
            SolveFailed: it is not positive definite.
        """
        buffer = panels.copy()
        buffer[self.diagonal] += diagonal
        updates: list[list[tuple[Any, Float64Array]]] = [[] for _ in self.fronts]
        factors: list[tuple[Float64Array, Float64Array | None]] = []
        for k, front in enumerate(self.fronts):
            count, below = front.count, front.below.size
            size = count + below
            panel = buffer[front.offset : front.offset + size * count].reshape(size, count)
            if updates[k]:
                whole = np.zeros((size, size))
                whole[:, :count] = panel
                for into, update in updates[k]:
                    if isinstance(into, slice):
                        whole[into, into] += update
                    else:
                        whole[into[:, None], into] += update
                updates[k] = []
                panel, rest = whole[:, :count], whole[count:, count:]
            else:
                rest = None
            top = cholesky(panel[:count].copy()).T
            if not below:
                factors.append((top, None))
                continue
            lower = solved_below(top, panel[count:])
            factors.append((top, lower))
            update = gram(lower)
            np.negative(update, out=update) if rest is None else np.subtract(rest, update, out=update)
            updates[front.parent].append((front.into, update))
        return lambda right: self._solved(factors, right)

    def _solved(self, factors: list[tuple[Float64Array, Float64Array | None]], right: Float64Array) -> Float64Array:
        x = np.empty_like(right)
        x[self.position] = right
        for front, (top, lower) in zip(self.fronts, factors, strict=True):
            here = slice(front.first, front.first + front.count)
            y = blas.dtrsv(top, x[here], lower=0, trans=1)
            x[here] = y
            if lower is not None:
                x[front.below] -= times(y, lower)
        for front, (top, lower) in zip(reversed(self.fronts), reversed(factors), strict=True):
            here = slice(front.first, front.first + front.count)
            y = x[here]
            if lower is not None:
                y = y - times(x[front.below], lower.T)
            x[here] = blas.dtrsv(top, y, lower=0)
        solution: Float64Array = x[self.position]
        return solution


def plan_multifrontal(jacobian: Any) -> Multifrontal:
    """Return the plan for the pattern of a CSR matrix with sorted columns."""
    n = jacobian.shape[1]
    elements = elements_of(jacobian)
    block = column_blocks(elements, n)
    graph = _block_graph(elements, block)
    order = _elimination_order(graph)
    widths = np.bincount(block)[order]
    structures, parents = _symbolic(graph, order)
    supernodes = _supernodes(structures, parents, widths)
    starts = np.concatenate(([0], np.cumsum(widths)))
    place_of_block = np.empty(order.size, dtype=np.intp)
    place_of_block[order] = np.arange(order.size)
    by_place = np.argsort(place_of_block[block], kind="stable")
    position = np.empty(n, dtype=np.intp)
    position[by_place] = np.arange(n)

    # From blocks to columns.
    owner = np.empty(order.size, dtype=np.intp)
    for k, (first, last, _) in enumerate(supernodes):
        owner[first : last + 1] = k
    fronts, offset = [], 0
    all_rows = []
    for first, last, below_blocks in supernodes:
        count = int(starts[last + 1] - starts[first])
        spans = [np.arange(starts[b], starts[b + 1]) for b in below_blocks]
        below = np.concatenate(spans) if spans else np.empty(0, dtype=np.intp)
        parent = int(owner[below_blocks[0]]) if len(below_blocks) else -1
        fronts.append((int(starts[first]), count, below, offset, parent))
        all_rows.append(np.concatenate((np.arange(starts[first], starts[last + 1]), below)))
        offset += (count + below.size) * count
    finished = []
    for first, count, below, start, parent in fronts:
        into: Any = np.searchsorted(all_rows[parent], below) if parent >= 0 else None
        if into is not None and into[-1] - into[0] + 1 == into.size:
            into = slice(int(into[0]), int(into[-1]) + 1)
        finished.append(_Front(first, count, below, start, parent, into))

    counts = np.array([front.count for front in finished])
    offsets = np.array([front.offset for front in finished])
    firsts = np.array([front.first for front in finished])
    front_of_column = np.repeat(np.arange(len(finished)), counts)
    keys = np.concatenate([k * n + rows for k, rows in enumerate(all_rows)])
    begins = np.concatenate(([0], np.cumsum([rows.size for rows in all_rows])))

    def places(rows: IntArray, columns: IntArray) -> IntArray:
        front = front_of_column[columns]
        line = np.searchsorted(keys, front * n + rows) - begins[front]
        return np.asarray(offsets[front] + line * counts[front] + columns - firsts[front])

    targets = []
    for element in elements:
        columns = position[element.columns]
        row, column = columns[:, :, None], columns[:, None, :]
        kept = row >= column
        target = np.full(kept.shape, offset, dtype=np.intp)
        target[kept] = places(np.broadcast_to(row, kept.shape)[kept], np.broadcast_to(column, kept.shape)[kept])
        targets.append(target)
    diagonal = places(position, position)
    return Multifrontal(elements, tuple(targets), tuple(finished), position, diagonal, offset)


def column_blocks(elements: tuple[Element, ...], n: int) -> IntArray:
    """The block of each column: columns that the same elements touch belong together."""
    marks = np.zeros(n, dtype=np.uint64)
    rng = np.random.default_rng(0)
    for element in elements:
        count, w = element.columns.shape
        own = rng.integers(1, 2**62, size=count, dtype=np.uint64)
        np.add.at(marks, element.columns.ravel(), np.repeat(own, w))
    _, first, block = np.unique(marks, return_index=True, return_inverse=True)
    # Numbered in the order of the columns, which is often a good order of elimination to begin with.
    rank = np.empty(first.size, dtype=np.intp)
    rank[np.argsort(first)] = np.arange(first.size)
    numbered: IntArray = rank[block.ravel()]
    # Columns without any entry are alike but have nothing to do with one another.
    lonely = marks == 0
    numbered[lonely] = numbered.max(initial=-1) + 1 + np.arange(int(lonely.sum()))
    return np.unique(numbered, return_inverse=True)[1].ravel()


def _block_graph(elements: tuple[Element, ...], block: IntArray) -> Any:
    """Which blocks meet in an element: a symmetric pattern with its diagonal."""
    size = int(block.max()) + 1
    total = sparse.csr_array(sparse.eye_array(size))
    for element in elements:
        count, w = element.columns.shape
        touched = (np.ones(count * w), block[element.columns].ravel(), np.arange(0, count * w + 1, w))
        incidence = sparse.csr_array(touched, shape=(count, size))
        total = total + incidence.T @ incidence
    return sparse.csc_array(total)


def _elimination_order(graph: Any) -> IntArray:
    """Minimum degree, as SuperLU has it, then renumbered so that children come right before their parents."""
    size = graph.shape[0]
    matrix = graph.copy()
    matrix.data[:] = -1.0
    matrix = sparse.csc_array(matrix + sparse.diags_array(np.diff(graph.indptr) + 1.0))
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    order = np.empty(size, dtype=np.intp)
    order[factor.perm_c] = np.arange(size)
    parents = _elimination_tree(graph, order)
    children: list[list[int]] = [[] for _ in range(size)]
    roots: list[int] = []
    for k, parent in enumerate(parents):
        (children[parent] if parent >= 0 else roots).append(k)
    sizes = np.ones(size, dtype=np.intp)
    for k, parent in enumerate(parents):
        if parent >= 0:
            sizes[parent] += sizes[k]
    post = []
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node >= 0:
            # The largest child last, so that it is the one that may be joined to its parent.
            stack.append(~node)
            stack.extend(sorted(children[node], key=lambda c: -sizes[c]))
        else:
            post.append(~node)
    return order[np.array(post, dtype=np.intp)]


def _elimination_tree(graph: Any, order: IntArray) -> list[int]:
    """The parent of each place of the order, -1 for roots (J. W. H. Liu, SIAM J. Matrix Anal. Appl. 11(1), 1990)."""
    size = order.size
    place = np.empty(size, dtype=np.intp)
    place[order] = np.arange(size)
    parents, ancestors = [-1] * size, [-1] * size
    indptr, indices = graph.indptr, place[graph.indices]
    for k in range(size):
        node = order[k]
        for j in indices[indptr[node] : indptr[node + 1]].tolist():
            while j != -1 and j < k:
                following = ancestors[j]
                ancestors[j] = k
                if following == -1:
                    parents[j] = k
                j = following
    return parents


def _symbolic(graph: Any, order: IntArray) -> tuple[list[set[int]], list[int]]:
    """The places below the diagonal of each column of the factor, and the elimination tree."""
    size = order.size
    place = np.empty(size, dtype=np.intp)
    place[order] = np.arange(size)
    indptr, indices = graph.indptr, place[graph.indices]
    structures: list[set[int]] = []
    parents = [-1] * size
    pending: list[list[int]] = [[] for _ in range(size)]
    for k in range(size):
        node = order[k]
        found = {j for j in indices[indptr[node] : indptr[node + 1]].tolist() if j > k}
        found.update(*(structures[c] for c in pending[k]))
        found.discard(k)
        structures.append(found)
        if found:
            parents[k] = min(found)
            pending[parents[k]].append(k)
    return structures, parents


def _supernodes(structures: list[set[int]], parents: list[int], widths: IntArray) -> list[tuple[int, int, list[int]]]:
    """Runs of places that are eliminated together: (first, last, places below)."""
    width = widths.tolist()
    below_width = [sum(width[j] for j in found) for found in structures]
    runs: list[list[int]] = []  # first place, last place, columns, stored entries that are zero
    for k in range(len(parents)):
        run = [k, k, width[k], 0]
        # The run that ends just before k is a child of k, or unrelated.
        while runs and parents[runs[-1][1]] == run[0]:
            child = runs[-1]
            rows = below_width[child[1]]
            after = run[2] + below_width[run[1]]
            zeros = child[3] + run[3] + child[2] * (after - rows)
            columns = child[2] + run[2]
            stored = columns * (columns + 1) // 2 + columns * below_width[run[1]]
            if zeros > 0 and columns > _SMALL_FRONT and zeros > _ZEROS * stored:
                break
            if zeros > 0.6 * stored:
                break
            runs.pop()
            run = [child[0], run[1], columns, zeros]
        runs.append(run)
    return [(first, last, sorted(structures[last])) for first, last, _, _ in runs]
