"""The final terms as something a user takes: a dense array, or CSR with indices computed once.

Both are nodes of the same program: storing is one more ``assemble``, so an executor writes the entries directly where
they belong. Only positions are computed here, on the host, when the program is planned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.build import assembled, cast_to
from ..graph.index import Index, evaluate, flatten, from_table
from ..graph.node import DType, Node, Shape, Term
from .terms import coefficient, expand_small_axes


def entry_positions(term: Term, rows: Shape, cols: Shape) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The C-order position in the (rows, cols) matrix of every point of the term's domain."""
    sizes = term.domain
    if math.prod(rows) * math.prod(cols) >= 2**63:
        raise OverflowError("the Jacobian has more than 2**63 entries: its positions cannot be numbered")
    row = evaluate(flatten(term.row, rows, sizes), sizes) if rows else np.zeros((1,) * len(sizes), np.int64)
    col = evaluate(flatten(term.col, cols, sizes), sizes) if cols else np.zeros((1,) * len(sizes), np.int64)
    return np.broadcast_to(row * math.prod(cols) + col, sizes)


def dense_node(terms: Sequence[Term], rows: Shape, cols: Shape, dtype: DType) -> Node:
    """The Jacobian as an array node of shape ``rows + cols``."""
    if len(terms) > 1 and not _disjoint(terms, rows, cols):
        terms = expand_small_axes(terms)
    parts: list[tuple[Node, tuple[Index, ...]]] = [(coefficient(t), (*t.row, *t.col)) for t in terms]
    return assembled(parts, (*rows, *cols), dtype, disjoint=len(parts) > 1 and _disjoint(terms, rows, cols))


def _disjoint(terms: Sequence[Term], rows: Shape, cols: Shape) -> bool:
    """Whether no two points of the terms fall on the same entry."""
    size = math.prod(rows) * math.prod(cols)
    if size > 2**28:
        return False
    taken = np.zeros(size, dtype=bool)
    total = 0
    for term in terms:
        taken[entry_positions(term, rows, cols).ravel()] = True
        total += math.prod(term.domain)
    return int(np.count_nonzero(taken)) == total


def _repeats(keys: np.ndarray[Any, np.dtype[np.int64]]) -> bool:
    ordered = np.sort(keys, kind="stable")
    return bool((ordered[1:] == ordered[:-1]).any())


@dataclass(frozen=True)
class SparsePlan:
    """The pattern of a sparse Jacobian and the node of its values, in CSR order."""

    shape: tuple[int, int]
    indptr: np.ndarray[Any, Any]
    indices: np.ndarray[Any, Any]
    data: Node

    @property
    def nnz(self) -> int:
        return len(self.indices)


def sparse_plan(terms: Sequence[Term], rows: Shape, cols: Shape, dtype: DType, *, expanded: bool = False) -> SparsePlan:
    """Canonical CSR: rows in order, columns sorted, no entry twice. The index arrays are read-only and shared."""
    shape = (math.prod(rows), math.prod(cols))
    keys = [entry_positions(term, rows, cols) for term in terms]
    every = np.concatenate([k.ravel() for k in keys]) if keys else np.empty(0, np.int64)
    if not expanded and len(terms) > 1 and _repeats(every):
        # Some entries come from several terms: merge what can be, so that each entry is written once.
        return sparse_plan(expand_small_axes(terms), rows, cols, dtype, expanded=True)
    # Terms are sorted runs, which a stable sort (timsort) merges in one pass each.
    order = np.argsort(every, kind="stable")
    ordered = every[order]
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    slot_in_order = np.cumsum(first) - 1
    slots = np.empty(len(ordered), dtype=np.int64)
    slots[order] = slot_in_order
    unique = ordered[first]
    nnz = len(unique)
    index_dtype = np.int32 if max(nnz, *shape) < 2**31 else np.int64
    width = max(shape[1], 1)
    indices = (unique % width).astype(index_dtype)
    indptr = np.searchsorted(unique, np.arange(shape[0] + 1, dtype=np.int64) * width).astype(index_dtype)
    indices.flags.writeable = False
    indptr.flags.writeable = False
    parts: list[tuple[Node, tuple[Index, ...]]] = []
    start = 0
    for term, key in zip(terms, keys, strict=True):
        place = slots[start : start + key.size].reshape(key.shape)
        start += key.size
        parts.append((coefficient(term), (from_table(place, list(range(place.ndim))),)))
    data = assembled(parts, (nnz,), dtype, disjoint=nnz == len(every))
    return SparsePlan(shape, indptr, indices, cast_to(data, dtype))
