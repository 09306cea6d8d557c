"""Which results of a loop can depend on which of its arguments: the pattern of a step, and steps upon steps.

The Jacobian of one step has a pattern, found by elimination as any other. What a carry can come to depend on after some
steps is its reflexive and transitive closure; the result of a step depends on the slices of that step and of those
before it, never on later ones. An opaque map has no entries of its own, so where structure is asked for this pattern is
put on what it gives as a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..graph.index import IntArray
from ..graph.node import Array, Node
from ..graph.ops.control import Body, EdgeParams, Slot, result_slots, source_slots
from ..structure.sparse import sparse_plan
from .eliminate import eliminate

LARGEST_CARRY = 512  # numbers up to which the closure of a step's pattern is formed
LARGEST_STEP = 2**20  # entries of a step's Jacobian up to which its pattern is looked at


@dataclass(frozen=True)
class _Pattern:
    """Of numbers of one step. Rows: last carries, carries before a step, outputs; columns: carries, slices, constants.

    ``earlier``: by way of the carries (of constants and carries: in any way). ``same``: by the slices of that step; of
    the last carries that is the last step, unless only a run can tell which that is.
    """

    earlier: Array
    same: Array


@lru_cache(maxsize=64)
def _pattern(body: Body, length: int) -> _Pattern | None:
    carries, stacks, consts, carried, outputs = (
        [n for n in nodes if n.dtype.kind == "f"]
        for nodes in (body.carries, body.stacks, body.consts, body.carried, body.outputs)
    )
    n, o = _count(carries), _count(outputs)
    if n > LARGEST_CARRY or (n + o) * (n + _count(stacks) + _count(consts)) > LARGEST_STEP:
        return None
    inputs = [*carries, *stacks, *consts]
    step = _table([*carried, *outputs], inputs)
    to_carry, to_output = step[:n], step[n:]
    through, taken = to_carry[:, :n], to_carry[:, n:]
    closure = _closure(through)
    came = _times(closure, taken)  # what a carry can have taken in
    last = closure if body.dynamic else _power(through, length)
    earlier = np.concatenate(
        [
            np.concatenate([last, came], axis=1),
            np.concatenate([closure, came], axis=1),
            _times(to_output[:, :n], np.concatenate([closure, came], axis=1)),
        ]
    )
    first = n + _count(stacks)
    same = np.zeros_like(earlier)
    same[2 * n :, n:] = to_output[:, n:]
    if not body.dynamic:
        earlier[:n, n:first] = _times(through, came[:, : first - n])
        same[:n, n:] = taken
    earlier[:, first:] |= same[:, first:]  # constants are there in every step
    return _Pattern(earlier, same)


def _count(nodes: Sequence[Node]) -> int:
    return sum(node.size for node in nodes)


def _table(results: Sequence[Node], inputs: Sequence[Node]) -> Array:
    found = eliminate(results, inputs).terms if results and inputs else ()
    table = np.zeros((_count(results), _count(inputs)), dtype=bool)
    start = 0
    for y, row in zip(results, found, strict=False):
        at = 0
        for x, terms in zip(inputs, row, strict=True):
            if terms and y.size and x.size:
                plan = sparse_plan(terms, y.shape, x.shape, y.dtype)
                table[start + plan.rows, at + plan.cols] = True
            at += x.size
        start += y.size
    return table


def _times(a: Array, b: Array) -> Array:
    found: Array = (a.astype(np.float32) @ b.astype(np.float32)) > 0
    return found


def _closure(step: Array) -> Array:
    """What can be reached in any number of steps, none included."""
    found = step | np.eye(len(step), dtype=bool)
    while not np.array_equal(more := _times(found, found), found):
        found = more
    return found


def _power(step: Array, count: int) -> Array:
    """What can be reached in exactly ``count`` steps."""
    found = np.eye(len(step), dtype=bool)
    while count:
        if count & 1:
            found = _times(found, step)
        step, count = _times(step, step), count >> 1
    return found


@dataclass(frozen=True)
class _Places:
    """Places in a packed vector: of which kind of slot they are, of which step, and which number of a step."""

    kind: Array
    step: IntArray
    number: IntArray

    @classmethod
    def of(cls, places: IntArray, slots: Sequence[Slot], numbers: dict[tuple[str, int], int]) -> _Places:
        slots = [s for s in slots if s.size]
        which = np.searchsorted([s.offset for s in slots], places, "right") - 1
        steps = [s.shape[0] if s.kind in ("before", "output", "stack") else 1 for s in slots]
        each = np.array([s.size // n for s, n in zip(slots, steps, strict=True)], dtype=np.int64)
        within = places - np.array([s.offset for s in slots])[which]
        step, number = np.divmod(within, each[which])
        first = np.array([numbers[s.kind, s.place] for s in slots], dtype=np.int64)
        return cls(np.array([s.kind for s in slots])[which], step, number + first[which])


def reach(matrix: Node) -> Any:
    """``(rows, columns) -> booleans``: where the derivative of a loop, of one instance, can be other than zero.

    None where the steps are too large to tell.
    """
    edge: EdgeParams = matrix.params
    params = edge.loop
    body = params.body
    pattern = _pattern(body, params.length)
    if pattern is None:
        return None
    rows = _numbers([("final", body.carries), ("before", body.carries), ("output", body.outputs)])
    cols = _numbers([("carry", body.carries), ("stack", body.stacks), ("const", body.consts)])

    def found(row_places: IntArray, col_places: IntArray) -> Array:
        row = _Places.of(row_places, result_slots(params), rows)
        col = _Places.of(col_places, source_slots(params, edge.shared), cols)
        at = np.ix_(row.number, col.number)
        result: Array = pattern.earlier[at]
        timed = (body.dynamic <= (row.kind != "final"))[:, None] & (col.kind == "stack")
        if timed.any():
            last = 0 if params.reverse else params.length - 1
            step = np.where(row.kind == "final", last, row.step)[:, None]
            before, after = (step, col.step) if params.reverse else (col.step, step)
            same = pattern.same[at] & (step == col.step)
            result = np.where(timed, (result & (before < after)) | same, result)
        return result

    return found


def _numbers(groups: Sequence[tuple[str, Sequence[Node]]]) -> dict[tuple[str, int], int]:
    """Where the numbers of each array begin among those of a step."""
    result = {}
    start = 0
    for kind, nodes in groups:
        for k, node in enumerate(nodes):
            if node.dtype.kind == "f":
                result[kind, k] = start
                start += math.prod(node.shape)
    return result


__all__ = ["reach"]
