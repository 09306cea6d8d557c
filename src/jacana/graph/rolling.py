"""Loops over array elements, rolled up again: many scalar subgraphs of one shape become one vector node.

A Python loop that fills an array element by element is recorded unrolled: n copies of its body, whose scalars are read
at places of arrays and put into places of one ``assemble``. Where the copies are isomorphic (the same operations, down
to reads of the same arrays at whatever places, numbers of the same dtype, and anything else that all of them share),
they are the same program over an axis: reads become one gather, whose places are affine or a table, different numbers
one constant vector, and each operation one operation on vectors. Slices of one array that are put one after another
become one part as well. Everything after that (derivatives, planning, code) then deals with one node where there were
n. Lanes compute what the scalars computed, so the numbers stay the same. Copies over arrays are `graph/lanes.py`,
sums that are added up term by term `graph/sums.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .build import FrozenArray, assembled, broadcast_to, constant, index_node, movement_reshape
from .index import Affine, Index, axis, evaluate, from_table
from .lanes import FEWEST, Copies
from .node import LITERAL, Array, Node, Shape, topological
from .ops.movement import AssembleParams, assemble, index
from .sums import as_parts, long_sums

LONGEST_TURN = 64  # parts that a copy adds to one array
MORE_WORK = 2  # how many times the operations of the scalars a rolled program may have (shared work is repeated)


def roll(outputs: Sequence[Node]) -> list[Node]:
    """The program with parts of its assembled arrays and terms of its sums rolled up where they are copies."""
    order = topological(outputs)
    copies = Copies(order, FEWEST)
    sums = long_sums(order, outputs, copies)
    if not sums and not any(_rollable(node) for node in order):
        return list(outputs)
    signatures = _Signatures()
    new: dict[Node, Node] = {}
    for node in order:
        inputs = tuple(new[i] for i in node.inputs)
        same = node if inputs == node.inputs else node.op(*inputs, params=node.params)
        if _rollable(same):
            same = _in_lanes(_rolled(same, signatures) if same.params.disjoint else same, copies)
        elif node in sums:
            parts = as_parts([-new[term] if minus else new[term] for term, minus in sums[node]], node)
            joined = _in_lanes(parts, copies)
            same = same if joined is parts else joined
        new[node] = same
    return [new[node] for node in outputs]


def _rollable(node: Node) -> bool:
    return node.op is assemble and len(node.inputs) >= FEWEST


def _in_lanes(node: Node, copies: Copies) -> Node:
    """An assembled array whose parts are copies of one program, or of a few in turn, as that program in lanes.

    The parts are added in the order in which they were, so that the sums are the same to the last bit.
    """
    if not _rollable(node):
        return node
    kinds = [copies.of(part) for part in node.inputs]
    parts: dict[int, tuple[Node, tuple[Index, ...]]] = {}  # by the first of the parts that they replace
    gone: set[int] = set()
    for columns in _by_kind(kinds) if node.params.disjoint else _in_turns(kinds):
        joined = _joined(node, columns, copies)
        if joined is not None:
            parts[columns[0][0]] = joined
            gone.update(itertools.chain(*columns))
    return _with_parts(node, parts, gone)


def _by_kind(kinds: Sequence[int]) -> Iterator[Sequence[Sequence[int]]]:
    """Parts of one kind, wherever they are."""
    found: dict[int, list[int]] = {}
    for k, kind in enumerate(kinds):
        found.setdefault(kind, []).append(k)
    yield from ([members] for members in found.values() if len(members) >= FEWEST)


def _in_turns(kinds: Sequence[int]) -> Iterator[Sequence[Sequence[int]]]:
    """Runs of parts in which one kind or a few take turns: for each of them the parts of that kind."""
    after: dict[int, int] = {}
    following = [0] * len(kinds)  # where the same kind comes next
    for k in reversed(range(len(kinds))):
        following[k] = after.get(kinds[k], len(kinds))
        after[kinds[k]] = k
    start = 0
    while start < len(kinds):
        end = following[start]
        period = end - start
        while period <= LONGEST_TURN and end < len(kinds) and kinds[end] == kinds[end - period]:
            end += 1
        count = (end - start) // period
        if count >= FEWEST:
            end = start + period * count
            yield [range(k, end, period) for k in range(start, start + period)]
            start = end
        else:
            start += 1


def _joined(node: Node, columns: Sequence[Sequence[int]], copies: Copies) -> tuple[Node, tuple[Index, ...]] | None:
    """Parts as one part: the members of each column are copies, and those of one turn lie side by side."""
    joined: list[Node] = []
    places: list[list[Array]] = [[] for _ in range(node.ndim)]
    for members in columns:
        column = copies.together([node.inputs[k] for k in members])
        if column is None:
            return None
        count, shape = len(members), node.inputs[members[0]].shape
        joined.append(movement_reshape(column, (count, column.size // count)))
        for a in range(node.ndim):
            here = [np.broadcast_to(evaluate(node.params.rows[k][a], shape), shape).reshape(-1) for k in members]
            places[a].append(np.stack(here))
    rows = tuple(from_table(np.concatenate(p, axis=1), (0, 1)) for p in places)
    if len(joined) == 1:
        return joined[0], rows
    starts = np.cumsum([0, *(c.shape[1] for c in joined)])
    beside = [(c, (axis(0), Affine(int(s), ((1, 1),)))) for c, s in zip(joined, starts, strict=False)]
    return assembled(beside, (joined[0].shape[0], int(starts[-1])), node.dtype, disjoint=True), rows


def _with_parts(node: Node, parts: dict[int, tuple[Node, tuple[Index, ...]]], gone: set[int]) -> Node:
    """An assembled array with some of its parts replaced by others."""
    if not parts:
        return node
    params: AssembleParams = node.params
    every = {k: (part, params.rows[k]) for k, part in enumerate(node.inputs) if k not in gone} | parts
    kept = [every[k] for k in sorted(every)]
    return assemble(*(part for part, _ in kept), params=params._replace(rows=tuple(rows for _, rows in kept)))


def _rolled(node: Node, signatures: _Signatures) -> Node:
    groups: dict[int, list[int]] = {}
    for k, part in enumerate(node.inputs):
        if part.ndim == 0 and (part.op.family == "elementwise" or _reads_scalar(part)):
            groups.setdefault(signatures.of(part), []).append(k)
    parts: dict[int, tuple[Node, tuple[Index, ...]]] = {}  # by the first of the parts that they replace
    gone: set[int] = set()
    for members in groups.values():
        if len(members) < FEWEST:
            continue
        rows = np.array([[e.offset for e in node.params.rows[k]] for k in members], dtype=np.int64)
        ordered = np.lexsort(rows.T[::-1])
        rows, shape = rows[ordered], _grid(rows[ordered])
        vector = _Vectors(shape).of(tuple(node.inputs[members[k]] for k in ordered))
        if vector is not None:
            places = tuple(from_table(rows[:, a].reshape(shape), range(len(shape))) for a in range(node.ndim))
            parts[members[0]] = (vector, places)
            gone.update(members)
    for members, joined in _joined_slices(node):
        parts[members[0]] = joined
        gone.update(members)
    return _with_parts(node, parts, gone)


def _joined_slices(node: Node) -> Iterator[tuple[list[int], tuple[Node, tuple[Index, ...]]]]:
    """Slices of one array that are put, one after another, into places as far apart, as one part with an axis more."""
    groups: dict[Any, list[int]] = {}
    for k, (part, rows) in enumerate(zip(node.inputs, node.params.rows, strict=True)):
        if part.ndim and part.op is index:
            expressions = (*part.params.indices, *rows)
            if all(isinstance(e, Affine) for e in expressions):
                key = (part.inputs[0], part.shape, tuple(e.strides for e in expressions))
                groups.setdefault(key, []).append(k)
    for (source, shape, strides), members in groups.items():
        if len(members) < FEWEST:
            continue
        offsets = np.array(
            [[e.offset for e in (*node.inputs[k].params.indices, *node.params.rows[k])] for k in members], np.int64
        )
        first, steps = offsets[0], np.diff(offsets, axis=0)
        if np.any(steps != steps[0]):
            continue
        merged = tuple(
            Affine(int(start), (*(((0, int(by)),) if by else ()), *((a + 1, s) for a, s in along)))
            for start, by, along in zip(first, steps[0], strides, strict=True)
        )
        reads = merged[: source.ndim]
        yield members, (index_node(source, (len(members), *shape), reads), merged[source.ndim :])


def _grid(rows: Array) -> Shape:
    """The shape of the sorted points if they are all points of a grid, else a line."""
    counts = [len(np.unique(column)) for column in rows.T]
    return tuple(n for n in counts if n > 1) if math.prod(counts) == len(rows) else (len(rows),)


def _reads_scalar(node: Node) -> bool:
    """Whether the node is one element of an array at a known place."""
    return node.op is index and node.ndim == 0 and all(isinstance(e, Affine) and not e.strides for e in node.params[1])


class _Signatures:
    """Numbers for the shapes of scalar subgraphs: equal if they differ in places of reads and in numbers alone."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._of: dict[Node, int] = {}

    def of(self, node: Node) -> int:
        stack = [node]
        while stack:
            current = stack[-1]
            if current in self._of:
                stack.pop()
                continue
            key: Any
            if _reads_scalar(current):
                key = ("read", current.inputs[0])
            elif current.op is LITERAL:
                key = ("number", current.dtype)
            elif current.ndim == 0 and current.op.family == "elementwise":
                missing = [i for i in current.inputs if i not in self._of]
                if missing:
                    stack.extend(missing)
                    continue
                key = (current.op.name, current.params, *(self._of[i] for i in current.inputs))
            else:
                key = ("the same", current)
            self._of[current] = self._numbers.setdefault(key, len(self._numbers))
            stack.pop()
        return self._of[node]


class _Vectors:
    """Vectors of isomorphic scalars. Keyed by the scalars themselves: what a copy shares, its vector shares."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.count = math.prod(shape)

    def of(self, roots: tuple[Node, ...]) -> Node | None:
        """The vector of ``roots``; None if it would repeat too much of what they share."""
        made: dict[tuple[Node, ...], Node] = {}
        stack = [roots]
        scalars: set[Node] = set()
        work = 0
        while stack:
            key = stack[-1]
            if key in made:
                stack.pop()
                continue
            leaf = self._leaf(key)
            if leaf is not None:
                made[key] = leaf
                stack.pop()
                continue
            inputs = list(zip(*(node.inputs for node in key), strict=True))
            missing = [i for i in inputs if i not in made]
            if missing:
                stack.extend(missing)
                continue
            scalars.update(key)
            work += self.count
            if work > MORE_WORK * len(scalars) + MORE_WORK * self.count:
                return None
            first = key[0]
            made[key] = first.op(*(made[i] for i in inputs), params=first.params)
            stack.pop()
        return made[roots]

    def _leaf(self, key: tuple[Node, ...]) -> Node | None:
        first = key[0]
        if all(node is first for node in key):
            return broadcast_to(first, self.shape)
        if first.op is LITERAL:
            data = np.frombuffer(b"".join([node.params.data for node in key]), first.dtype).reshape(self.shape)
            # As numbers of the program they were not looked at for zeros, and they are not now.
            return constant(FrozenArray(data, structural=False), self.shape, first.dtype)
        if not _reads_scalar(first):
            return None
        places = np.array([[e.offset for e in node.params.indices] for node in key], dtype=np.int64)
        axes = range(len(self.shape))
        source = first.inputs[0]
        indices = [from_table(places[:, a].reshape(self.shape), axes) for a in range(source.ndim)]
        return index_node(source, self.shape, indices)
