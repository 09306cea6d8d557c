"""The pattern of a sparse Jacobian as a set of small dense blocks, found once and used at every point.

Residuals usually come in groups: the two coordinates of an image point, the six components of the error of a pose. The
rows of a group have the same columns. Rows with the same columns are one *element*, a dense block of g rows and w
columns; elements of one shape are stacked, so that whatever happens to them happens to all in one NumPy call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Element", "PatternCache", "elements_of"]

Float64Array = NDArray[np.float64]
IntArray = NDArray[np.intp]

Plan = TypeVar("Plan")


@dataclass(frozen=True, eq=False)
class Element:
    """All elements of one shape.

    Attributes:
        columns: the columns of each, rising, shape (count, w).
        rows: the rows of each, shape (count, g).
        places: where in the ``data`` of the matrix the entries are, shape (count, g, w); None where they are simply
            all entries in their order.
    """

    columns: IntArray
    rows: IntArray
    places: IntArray | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, g, w)."""
        return (*self.rows.shape, self.columns.shape[1])

    def blocks(self, data: Float64Array) -> Float64Array:
        """Return the entries, shape (count, g, w)."""
        return data.reshape(self.shape) if self.places is None else data[self.places]


def elements_of(jacobian: Any) -> tuple[Element, ...]:
    """Return the elements of a CSR matrix with sorted columns, those of more rows first.

    >>> from scipy import sparse
    >>> found = elements_of(sparse.csr_array(np.array([[1.0, 0, 2], [3, 0, 4], [0, 5, 0]])))
    >>> [(e.columns.tolist(), e.rows.tolist()) for e in found]
    [([[0, 2]], [[0, 1]]), ([[1]], [[2]])]
    """
    indptr, indices = jacobian.indptr, jacobian.indices
    m, n = jacobian.shape
    widths = np.diff(indptr)
    if (even := _even(indices, widths)) is not None:
        return (even,)
    marks = np.random.default_rng(0).integers(1, 2**62, size=n, dtype=np.uint64)
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(marks[indices], dtype=np.uint64)))
    hashes = total[indptr[1:]] - total[indptr[:-1]]
    order = np.argsort(hashes, kind="stable")
    first = np.ones(m, dtype=bool)
    first[1:] = hashes[order][1:] != hashes[order][:-1]
    group = np.cumsum(first) - 1
    heads = order[first]
    # The groups in the order in which the matrix has them, and the rows of each in theirs.
    rank = np.empty(heads.size, dtype=np.intp)
    rank[np.argsort(heads, kind="stable")] = np.arange(heads.size)
    order = order[np.argsort(rank[group], kind="stable")]
    heads = np.sort(heads)
    counts = np.bincount(rank[group], minlength=heads.size)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    shapes = np.stack((counts, widths[heads]), axis=1)
    result = []
    stride = int(widths.max(initial=0)) + 1
    for g, w in (divmod(int(key), stride) for key in np.unique(counts * stride + widths[heads])[::-1]):
        if w == 0:
            continue
        here = np.flatnonzero((shapes[:, 0] == g) & (shapes[:, 1] == w))
        rows = order[starts[here][:, None] + np.arange(g)]
        places = indptr[rows][:, :, None] + np.arange(w)
        columns = indices[places[:, 0]].astype(np.intp)
        if not (indices[places] == columns[:, None]).all():
            # Two different patterns with one hash, in a case out of 2**60: every row on its own, then.
            return _single_rows(indptr, indices, widths)
        contiguous = places.size == indices.size and np.array_equal(places.ravel(), np.arange(indices.size))
        result.append(Element(columns, rows, None if contiguous else places))
    return tuple(result)


def _even(indices: IntArray, widths: IntArray) -> Element | None:
    """The elements, where all rows are of one width and those with the same columns come in groups of one size."""
    m, w = widths.size, int(widths.max(initial=0))
    if w == 0 or (widths != w).any():
        return None
    rows = indices.reshape(m, w)
    begins = np.flatnonzero(np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1))))
    g = m // begins.size
    if g * begins.size != m or (begins != g * np.arange(begins.size)).any():
        return None
    # Groups that are apart and alike would be one element: rare, and of several sizes then, unless all of one.
    marks = np.random.default_rng(0).integers(1, 2**40, size=int(indices.max()) + 1)
    columns = rows[::g].astype(np.intp)
    sums = np.sort(marks[columns].sum(axis=1))
    if (sums[1:] == sums[:-1]).any():
        return None
    return Element(columns, np.arange(m, dtype=np.intp).reshape(-1, g), None)


def _single_rows(indptr: IntArray, indices: IntArray, widths: IntArray) -> tuple[Element, ...]:
    result = []
    for w in np.unique(widths[widths > 0]):
        rows = np.flatnonzero(widths == w)
        places = indptr[rows][:, None, None] + np.arange(w)
        result.append(Element(indices[places[:, 0]].astype(np.intp), rows[:, None], places))
    return tuple(result)


class PatternCache(Generic[Plan]):
    """The plans made for the last few patterns. Jacobians of one function share their index arrays."""

    def __init__(self, make: Callable[[Any], Plan], size: int = 4) -> None:
        self._make, self._size = make, size
        self._known: list[tuple[Any, Any, Plan]] = []

    def __call__(self, jacobian: Any) -> Plan:
        indptr, indices = jacobian.indptr, jacobian.indices
        for known in self._known:
            if (known[0] is indptr and known[1] is indices) or (
                known[1].shape == indices.shape
                and known[0].shape == indptr.shape
                and np.array_equal(known[0], indptr)
                and np.array_equal(known[1], indices)
            ):
                return known[2]
        plan = self._make(jacobian)
        self._known = [(indptr, indices, plan), *self._known[: self._size - 1]]
        return plan
