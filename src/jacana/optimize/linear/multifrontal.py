"""Sparse Cholesky factorisation of ``J^T J + diagonal`` by fronts: small dense matrices for LAPACK, one after another.

What depends on the pattern alone is planned once: an order of elimination, the columns that are eliminated together,
and for every entry of every product of two entries of a row where it will be added. A factorisation is then one
histogram and, for each front, a few dense products: by machine code that works through all fronts at once, or by
LAPACK, front after front.

Sources: I. S. Duff and J. K. Reid, "The multifrontal solution of indefinite sparse symmetric linear equations", ACM
TOMS 9(3), 1983; C. C. Ashcraft and R. G. Grimes, "The influence of relaxed supernode partitions on the multifrontal
method", ACM TOMS 15(4), 1989, for eliminating more columns together than the pattern asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import blas
from scipy.sparse.linalg import splu

from ...run import current_executor, native_available
from ...run.executors import compiles_in_background
from .elements import Element, elements_of
from .normal import Solve, SolveFailed
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
        panel: where the panel, count x (count + below.size) in C order, begins in the buffer of all panels: the upper
            half of the columns, and what is to the right of it.
        parent: the front that takes the update, -1 for none.
        into: where `below` stands among the columns of the parent's panel.
    """

    first: int
    count: int
    below: IntArray
    panel: int
    parent: int
    into: IntArray


@dataclass(frozen=True, eq=False)
class Multifrontal:
    """A plan for one pattern. Made by `plan_multifrontal`.

    Attributes:
        elements: the dense blocks of J.
        kept: for each element, which entries of its w x w products count, shape (count,).
        entries: for each element, which entry of ``J^T J`` these are added to.
        places: where the entries of ``J^T J`` go in the buffer of panels.
        fronts: in an order in which children come before parents.
        position: of each column of J in the order of elimination.
        diagonal: where the diagonal is in the buffer, in the order of J's columns.
        size: of the buffer.
    """

    elements: tuple[Element, ...]
    kept: tuple[IntArray, ...]
    entries: tuple[IntArray, ...]
    places: IntArray
    fronts: tuple[_Front, ...]
    position: IntArray
    diagonal: IntArray
    size: int

    def assembled(self, jacobian: Any) -> Float64Array:
        """Return the entries of ``J^T J`` for a Jacobian of this pattern, in the order of `places`."""
        total: Any = 0.0
        for element, kept, entries in zip(self.elements, self.kept, self.entries, strict=True):
            blocks = element.blocks(jacobian.data)
            products = (blocks.transpose(0, 2, 1) @ blocks).ravel().take(kept)
            total = total + np.bincount(entries, weights=products, minlength=self.places.size)
        return np.asarray(total)

    def factorised(self, gram: Float64Array, diagonal: Float64Array) -> Solve:
        """Return the solver of ``J^T J + diagonal``: by machine code where there is some, else front after front.

        Raises:
            SolveFailed: it is not positive definite.
        """
        panels = np.zeros(self.size)
        panels[self.places] = gram
        panels[self.diagonal] += diagonal
        code = _machine_code()
        solved = self._by_front(panels) if code is None else self._by_machine_code(code, panels)

        def solve(right: Float64Array) -> Float64Array:
            x = np.empty(right.size)
            x[self.position] = right
            solved(x)
            return np.asarray(x[self.position])

        return solve

    @cached_property
    def _tables(self) -> _Tables:
        return _Tables.of(self.fronts)

    def _by_machine_code(self, code: Any, panels: Float64Array) -> Callable[[Float64Array], None]:
        tables = self._tables
        work = np.empty(tables.work)
        places, fronts = [array.ctypes.data for array in (panels, tables.table)], len(self.fronts)
        lists = [array.ctypes.data for array in (tables.children, tables.lines)]
        if code.factorise(places[0], work.ctypes.data, places[1], *lists, fronts):
            raise SolveFailed

        def solve(x: Float64Array) -> None:
            work = np.empty(tables.widest)  # of this call's own: several threads may solve
            code.solve(panels.ctypes.data, places[1], tables.below.ctypes.data, x.ctypes.data, work.ctypes.data, fronts)

        return solve

    def _by_front(self, panels: Float64Array) -> Callable[[Float64Array], None]:
        updates: list[list[tuple[IntArray, Float64Array]]] = [[] for _ in self.fronts]
        factors: list[tuple[Float64Array, Float64Array]] = []
        for k, front in enumerate(self.fronts):
            count, size = front.count, front.count + front.below.size
            panel, rest = panels[front.panel : front.panel + count * size].reshape(count, size), None
            if updates[k]:
                whole = np.zeros((size, size))
                whole[:count] = panel
                for into, update in updates[k]:
                    whole[into[:, None], into] += update
                updates[k] = []
                panel, rest = whole[:count], whole[count:, count:]
            top = cholesky(panel[:, :count].T.copy()).T
            right = solved_below(top, panel[:, count:].T)
            factors.append((top, right))
            if front.parent >= 0:
                update = gram(right)
                np.negative(update, out=update) if rest is None else np.subtract(rest, update, out=update)
                updates[front.parent].append((front.into, update))
        return lambda x: self._solved(factors, x)

    def _solved(self, factors: list[tuple[Float64Array, Float64Array]], x: Float64Array) -> None:
        for front, (top, rest) in zip(self.fronts, factors, strict=True):
            here = slice(front.first, front.first + front.count)
            x[here] = y = blas.dtrsv(top, x[here], lower=0, trans=1)
            x[front.below] -= times(y, rest)
        for front, (top, rest) in zip(reversed(self.fronts), reversed(factors), strict=True):
            here = slice(front.first, front.first + front.count)
            x[here] = blas.dtrsv(top, x[here] - times(x[front.below], rest.T), lower=0)


@dataclass(frozen=True, eq=False)
class _Tables:
    """Fronts as machine code reads them: see `run.native.fronts`.

    Attributes:
        table: one row for each front, int64.
        children: of all fronts, one after another.
        lines, below: `_Front.into` and `_Front.below` of all fronts.
        work: numbers that are needed for updates, and
        widest: for one line of the widest panel.
    """

    table: IntArray
    children: IntArray
    lines: IntArray
    below: IntArray
    work: int
    widest: int

    @classmethod
    def of(cls, fronts: Sequence[_Front]) -> _Tables:
        children: list[list[int]] = [[] for _ in fronts]
        for k, front in enumerate(fronts):
            if front.parent >= 0:
                children[front.parent].append(k)
        rows: list[tuple[int, ...]] = []
        updates: list[tuple[int, int]] = []
        listed = lines = work = 0
        for front, own in zip(fronts, children, strict=True):
            # A stack: the updates of the children are on top, and the one of their parent takes their place.
            size = front.below.size
            update = updates[len(updates) - len(own)][0] if own else sum(updates[-1]) if updates else 0
            top = sum(updates[-1]) if updates else 0
            del updates[len(updates) - len(own) :]
            updates.append((update, size * size))
            work = max(work, top + size * size)
            ends = (listed, listed + len(own))
            rows.append((front.count, size, front.panel, top, update, *ends, lines, front.first))
            listed, lines = listed + len(own), lines + size
        together = np.concatenate([np.array(own, dtype=np.int64) for own in children])
        into, below = (np.concatenate([getattr(front, name) for front in fronts]) for name in ("into", "below"))
        widest = max(row[0] + row[1] for row in rows)
        table = np.array(rows, dtype=np.int64)
        return cls(table, together, into.astype(np.int64), below.astype(np.int64), max(work, 1), widest)


def _machine_code() -> Any:
    """What makes a factorisation of panels; None where there is no machine code, or not yet."""
    executor = current_executor()
    if executor == "numpy" or not native_available():
        return None
    from ...run.native.fronts import fronts_code

    return fronts_code(wait=executor == "native" or not compiles_in_background())


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
    fronts: list[tuple[int, int, IntArray, int, int]] = []
    size, columns = 0, []
    for first, last, below_blocks in supernodes:
        count = int(starts[last + 1] - starts[first])
        spans = [np.arange(starts[b], starts[b + 1]) for b in below_blocks]
        below = np.concatenate(spans) if spans else np.empty(0, dtype=np.intp)
        parent = int(owner[below_blocks[0]]) if len(below_blocks) else -1
        fronts.append((int(starts[first]), count, below, size, parent))
        columns.append(np.concatenate((np.arange(starts[first], starts[last + 1]), below)))
        size += (count + below.size) * count
    finished = []
    for first, count, below, panel, parent in fronts:
        into = np.searchsorted(columns[parent], below) if parent >= 0 else np.empty(0, dtype=np.intp)
        finished.append(_Front(first, count, below, panel, parent, into))

    panels = np.array([front.panel for front in finished])
    firsts = np.array([front.first for front in finished])
    front_of = np.repeat(np.arange(len(finished)), [front.count for front in finished])
    keys = np.concatenate([k * n + own for k, own in enumerate(columns)])
    ends = np.cumsum([own.size for own in columns])
    strides = np.array([own.size for own in columns])

    def places(rows: IntArray, columns: IntArray) -> IntArray:
        front = front_of[rows]
        place = np.searchsorted(keys, front * n + columns) - (ends - strides)[front]
        return np.asarray(panels[front] + (rows - firsts[front]) * strides[front] + place)

    sources, targets = [], []
    for element in elements:
        column = position[element.columns]
        shape = (*column.shape, column.shape[1])
        row, column = (np.broadcast_to(side, shape).ravel() for side in (column[:, :, None], column[:, None, :]))
        kept = np.flatnonzero(row <= column)
        sources.append(kept)
        targets.append(places(row[kept], column[kept]))
    used = np.zeros(size, dtype=bool)
    for target in targets:
        used[target] = True
    rank = np.cumsum(used) - 1
    entries = tuple([rank[target] for target in targets])
    diagonal = places(position, position)
    return Multifrontal(
        elements, tuple(sources), entries, np.flatnonzero(used), tuple(finished), position, diagonal, size
    )


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
