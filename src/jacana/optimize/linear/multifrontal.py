"""Sparse Cholesky factorisation of ``J^T J + diagonal`` by fronts: small dense matrices for LAPACK, one after another.

What depends on the pattern alone is planned once: an order of elimination, the columns that are eliminated together,
and for every entry of every product of two entries of a row where it will be added. A factorisation is then one
histogram and a few calls for each front, or for each stack of fronts: most of them are small, alike, and do not
depend on one another.

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

_STACKED_COLUMNS = 64  # of fronts that are worked on together, and
_STACKED_WORK = 2**18  # multiplications: LAPACK and BLAS share larger ones among threads, see `small`
_SMALL_FRONT = 24  # columns up to which two fronts are joined whatever zeros that stores
_ZEROS = 0.25  # share of stored zeros up to which larger ones are


@dataclass(frozen=True, eq=False)
class _Stack:
    """Fronts of one shape, none above another: what happens to them happens to all in one NumPy call.

    Fronts of nearly the same shape are filled up. A column that fills up has a 1 on the diagonal and belongs to no
    unknown, and neither does a row that does; their place among the unknowns is one beyond the last.

    Attributes:
        columns: which are eliminated, in permuted numbers, shape (fronts, count).
        below: rows beneath them, shape (fronts, rows).
        panel: where the panels, (count + rows) x count in C order, begin in the buffer.
        rest: where the sums of updates to what is below begin, rows x rows each; -1 where there are none.
        lower: places of the lower triangle of an update, rows x rows.
        into: where each of these goes in the buffer, to panels and sums of the parents, front after front.
        filled: where the diagonals of columns that fill up are in the buffer.
    """

    columns: IntArray
    below: IntArray
    panel: int
    rest: int
    lower: IntArray
    into: IntArray
    filled: IntArray


@dataclass(frozen=True, eq=False)
class Multifrontal:
    """A plan for one pattern. Made by `plan_multifrontal`.

    Attributes:
        elements: the dense blocks of J.
        kept: for each element, which entries of its w x w products count, shape (count,).
        entries: for each element, which entry of ``J^T J`` these are added to.
        places: where the entries of ``J^T J`` go in the buffer of panels.
        stacks: in an order in which children come before parents.
        position: of each column of J in the order of elimination.
        diagonal: where the diagonal is in the buffer, in the order of J's columns.
        size: of the buffer; its last place takes what is of no use.
        fronts: how many there are.
    """

    elements: tuple[Element, ...]
    kept: tuple[IntArray, ...]
    entries: tuple[IntArray, ...]
    places: IntArray
    stacks: tuple[_Stack, ...]
    position: IntArray
    diagonal: IntArray
    size: int
    fronts: int

    def assembled(self, jacobian: Any) -> Float64Array:
        """Return the entries of ``J^T J`` for a Jacobian of this pattern, in the order of `places`."""
        total: Any = 0.0
        for element, kept, entries in zip(self.elements, self.kept, self.entries, strict=True):
            blocks = element.blocks(jacobian.data)
            products = (blocks.transpose(0, 2, 1) @ blocks).ravel().take(kept)
            total = total + np.bincount(entries, weights=products, minlength=self.places.size)
        return np.asarray(total)

    def factorised(self, gram: Float64Array, diagonal: Float64Array) -> Solve:
        """Return the solver of ``J^T J + diagonal``.

        Raises:
            SolveFailed: it is not positive definite.
        """
        buffer = np.zeros(self.size)
        buffer[self.places] = gram
        buffer[self.diagonal] += diagonal
        factors = []
        for stack in self.stacks:
            fronts, count = stack.columns.shape
            rows = stack.below.shape[1]
            buffer[stack.filled] = 1.0
            end = stack.panel + fronts * (count + rows) * count
            panels = buffer[stack.panel : end].reshape(fronts, count + rows, count)
            factor = _Single.of(panels[0]) if fronts == 1 else _Many.of(panels)
            factors.append(factor)
            if not rows:
                continue
            update = factor.update()
            if stack.rest >= 0:
                update -= buffer[stack.rest : stack.rest + update.size].reshape(update.shape)
            np.subtract.at(buffer, stack.into, update.reshape(fronts, -1).take(stack.lower, axis=1).ravel())
        return lambda right: self._solved(factors, right)

    def _solved(self, factors: list[_Single | _Many], right: Float64Array) -> Float64Array:
        x = np.zeros(right.size + 1)
        x[self.position] = right
        for stack, factor in zip(self.stacks, factors, strict=True):
            x[stack.columns], change = factor.forward(x[stack.columns])
            if stack.below.size:
                np.subtract.at(x, stack.below, change)
        for stack, factor in zip(reversed(self.stacks), reversed(factors), strict=True):
            x[stack.columns] = factor.backward(x[stack.columns], x[stack.below])
        solution: Float64Array = x[self.position]
        return solution


@dataclass(frozen=True, eq=False)
class _Single:
    """The factor of one front: R with ``R^T R`` the top of the panel, and ``R^-T`` times the transposed rest."""

    top: Float64Array
    lower: Float64Array

    @classmethod
    def of(cls, panel: Float64Array) -> _Single:
        count = panel.shape[1]
        top = cholesky(panel[:count].copy()).T
        return cls(top, solved_below(top, panel[count:]))

    def update(self) -> Float64Array:
        return gram(self.lower)[None]

    def forward(self, right: Float64Array) -> tuple[Float64Array, Float64Array]:
        y = blas.dtrsv(self.top, right[0], lower=0, trans=1)
        return y, times(y, self.lower)

    def backward(self, right: Float64Array, below: Float64Array) -> Float64Array:
        return np.asarray(blas.dtrsv(self.top, right[0] - times(below[0], self.lower.T), lower=0))


@dataclass(frozen=True, eq=False)
class _Many:
    """The factors of a stack of fronts: ``L^-1`` of the tops, and ``L^-1`` times the transposed rests."""

    inverse: Float64Array
    lower: Float64Array

    @classmethod
    def of(cls, panels: Float64Array) -> _Many:
        count = panels.shape[2]
        tops = panels[:, :count]
        squares = np.diagonal(tops, axis1=1, axis2=2)
        if not (squares > 0.0).all():
            raise SolveFailed
        # Unknowns may differ in their units by any factor, which the inverse must not see.
        size = np.sqrt(squares)
        try:
            roots = np.linalg.cholesky(tops / (size[:, :, None] * size[:, None, :]))
        except np.linalg.LinAlgError:
            raise SolveFailed from None
        inverse = np.linalg.inv(roots) / size[:, None, :]
        return cls(inverse, inverse @ panels[:, count:].transpose(0, 2, 1))

    def update(self) -> Float64Array:
        return np.asarray(self.lower.transpose(0, 2, 1) @ self.lower)

    def forward(self, right: Float64Array) -> tuple[Float64Array, Float64Array]:
        y = self.inverse @ right[:, :, None]
        return y[:, :, 0], (y.transpose(0, 2, 1) @ self.lower)[:, 0]

    def backward(self, right: Float64Array, below: Float64Array) -> Float64Array:
        y = right[:, :, None] - self.lower @ below[:, :, None]
        return np.asarray((y.transpose(0, 2, 1) @ self.inverse)[:, 0])


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
    fronts = []
    for first, last, below_blocks in supernodes:
        spans = [np.arange(starts[b], starts[b + 1]) for b in below_blocks]
        below = np.concatenate(spans) if spans else np.empty(0, dtype=np.intp)
        parent = int(owner[below_blocks[0]]) if len(below_blocks) else -1
        fronts.append(_Front(int(starts[first]), int(starts[last + 1] - starts[first]), below, parent))
    layout = _Layout(fronts, n)

    sources, targets = [], []
    for element in elements:
        columns = position[element.columns]
        row, column = columns[:, :, None], columns[:, None, :]
        kept = (row >= column).ravel()
        sources.append(np.flatnonzero(kept))
        row, column = (np.broadcast_to(side, (*columns.shape, columns.shape[1])).ravel() for side in (row, column))
        targets.append(layout.places(row[kept], column[kept]))
    together = np.concatenate(targets) if targets else np.empty(0, dtype=np.intp)
    places, entries = np.unique(together, return_inverse=True)
    ends = np.cumsum([target.size for target in targets])[:-1]
    diagonal = layout.places(position, position)
    return Multifrontal(
        elements,
        tuple(sources),
        tuple(np.split(entries, ends)) if targets else (),
        places,
        layout.stacks(),
        position,
        diagonal,
        layout.size,
        len(fronts),
    )


@dataclass(frozen=True, eq=False)
class _Front:
    """Columns that are eliminated together, in permuted numbers: first .. first + count - 1.

    Attributes:
        below: rows beneath them, rising.
        parent: the front that takes the update, -1 for none.
    """

    first: int
    count: int
    below: IntArray
    parent: int


class _Layout:
    """Where the fronts of a plan are in its buffer, stack by stack."""

    def __init__(self, fronts: list[_Front], n: int) -> None:
        self._fronts, self._n = fronts, n
        total = len(fronts)
        heights = [0] * total
        for k, front in enumerate(fronts):
            if front.parent >= 0:
                heights[front.parent] = max(heights[front.parent], heights[k] + 1)
        groups: dict[Any, list[int]] = {}
        for k, front in enumerate(fronts):
            rows = front.below.size
            large = front.count > _STACKED_COLUMNS or front.count * max(rows, front.count) ** 2 > _STACKED_WORK
            groups.setdefault((heights[k], k if large else -1, _step(front.count), _step(rows)), []).append(k)
        self._members = [np.array(groups[key]) for key in sorted(groups)]
        # Per front: columns and rows after filling up, and where panel and sums of updates are.
        self._counts, self._rows, self._panels, self._rests = np.zeros((4, total), dtype=np.intp)
        offset = 0
        for members in self._members:
            count = max(fronts[k].count for k in members)
            rows = max(fronts[k].below.size for k in members)
            self._counts[members], self._rows[members] = count, rows
            each = (count + rows) * count
            self._panels[members] = offset + each * np.arange(members.size)
            offset += each * members.size
            self._rests[members] = -1
            if heights[members[0]] and rows:
                self._rests[members] = offset + rows * rows * np.arange(members.size)
                offset += rows * rows * members.size
        self.size = offset + 1
        own = np.array([front.count for front in fronts])
        self._firsts = np.array([front.first for front in fronts])
        self._front_of = np.repeat(np.arange(total), own)
        self._keys = np.concatenate([k * n + front.below for k, front in enumerate(fronts)])
        self._begins = np.concatenate(([0], np.cumsum([front.below.size for front in fronts])))

    def places(self, rows: IntArray, columns: IntArray) -> IntArray:
        """Where entries of the lower triangle are in the panels."""
        front = self._front_of[columns]
        return self._in_panel(front, self._lines(front, rows), columns - self._firsts[front])

    def _lines(self, front: IntArray, rows: IntArray) -> IntArray:
        """Which line of a front's panel a row of the matrix is."""
        here = self._front_of[rows] == front
        below = self._counts[front] + np.searchsorted(self._keys, front * self._n + rows) - self._begins[front]
        return np.where(here, rows - self._firsts[front], below)

    def _in_panel(self, front: IntArray, line: IntArray, column: IntArray) -> IntArray:
        return np.asarray(self._panels[front] + line * self._counts[front] + column)

    def stacks(self) -> tuple[_Stack, ...]:
        return tuple([self._stack(members) for members in self._members])

    def _stack(self, members: IntArray) -> _Stack:
        n, fronts = self._n, self._fronts
        head = members[0]
        count, rows = int(self._counts[head]), int(self._rows[head])
        own = np.array([fronts[k].count for k in members])[:, None]
        columns = np.where(np.arange(count) < own, self._firsts[members][:, None] + np.arange(count), n)
        below = np.full((members.size, rows), n)
        for line, k in zip(below, members, strict=True):
            line[: fronts[k].below.size] = fronts[k].below
        which, place = np.nonzero(columns == n)
        filled = self._in_panel(members[which], place, place)
        i, j = np.tril_indices(rows)
        into = np.full((members.size, i.size), self.size - 1)
        parent = np.array([fronts[k].parent for k in members])
        used = below < n
        lines = np.zeros_like(below)
        lines[used] = self._lines(np.broadcast_to(parent[:, None], below.shape)[used], below[used])
        kept = used[:, i]  # j <= i, so that j is used too
        front = np.broadcast_to(parent[:, None], kept.shape)[kept]
        line, column = lines[:, i][kept], lines[:, j][kept]
        width = self._counts[front]
        within = self._rests[front] + (line - width) * self._rows[front] + column - width
        into[kept] = np.where(column < width, self._in_panel(front, line, column), within)
        return _Stack(columns, below, int(self._panels[head]), int(self._rests[head]), i * rows + j, into.ravel(), filled)


def _step(size: int) -> int:
    """The size up to which fronts are filled up: four steps for each doubling."""
    unit = 1 << max(0, size.bit_length() - 3)
    return -(-size // unit) * unit


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
