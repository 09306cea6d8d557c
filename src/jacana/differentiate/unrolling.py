"""Short loops written out, where the exact structure of a Jacobian is asked for.

A linear map that is pushed or pulled through whole leaves full blocks. Written out, the steps of a loop are ordinary
nodes, and block-bidiagonal or triangular structure comes out entry by entry, as for a Python loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.build import assembled, broadcast_axes, index_node, remade
from ..graph.index import Affine, Index, identity
from ..graph.instances import side_by_side
from ..graph.node import Node, Shape, literal, topological
from ..graph.ops.control import INT, LoopParams, loop, pack, result_slots, source_groups, total, unpack

UNROLLED_NODES = 1000  # operations, of all steps together, up to which a loop is written out


def unrolled(outputs: Sequence[Node], stop: Sequence[Node]) -> list[Node]:
    """The program with its short loops written out, as far as it lies above the nodes ``stop``."""
    current = list(outputs)
    while any(_is_short(node) for node in topological(current)):
        new: dict[Node, Node] = {node: node for node in stop}
        for node in topological(current):
            if node in new:
                continue
            inputs = tuple(new[i] for i in node.inputs)
            if _is_short(node):
                new[node] = _written_out(node.params, *inputs)
            else:
                new[node] = remade(node, inputs)
        current = [new[node] for node in current]
    return current


def _is_short(node: Node) -> bool:
    if node.op is not loop or node.params.body.dynamic:
        return False
    size = sum(1 for n in topological(node.params.body.results) if n.op.family != "leaf")
    return bool(node.params.length * max(size, 1) <= UNROLLED_NODES)


def _written_out(params: LoopParams, *packed: Node) -> Node:
    body, length, instances = params.body, params.length, params.instances
    given = {}
    for group, source in zip(source_groups(params), packed, strict=True):
        given.update({(s.kind, s.place): unpack(source, s, len(group.lead)) for s in group.slots})
    carries = [given["carry", k] for k in range(len(body.carries))]
    stacks = [given["stack", k] for k in range(len(body.stacks))]
    consts = [given["const", k] for k in range(len(body.consts))]
    if instances:
        wide = side_by_side(body, instances, carries, stacks, consts)
        body, carries, stacks, consts = wide.body, wide.inits, wide.stacks, wide.consts
    befores: list[list[Node]] = [[] for _ in body.carries]
    outputs: list[list[Node]] = [[] for _ in body.outputs]
    steps = range(length)[:: -1 if params.reverse else 1]
    for t in steps:
        slices = [
            index_node(stack, node.shape, _at_first(t, node.ndim))
            for stack, node in zip(stacks, body.stacks, strict=True)
        ]
        for rows, carry in zip(befores, carries, strict=True):
            rows.append(carry)
        values = dict(zip(body.inputs, (literal(t, INT), *carries, *slices, *consts), strict=True))
        results = _rebuilt(body.results, values)
        carries = results[: len(carries)]
        for rows, value in zip(outputs, results[len(carries) :], strict=True):
            rows.append(value)
    slots = result_slots(params)
    shapes = {(s.kind, s.place): s.shape for s in slots}
    found = {
        ("final", k): _spread(carry, (*instances, *shapes["final", k]))
        for k, carry in enumerate(carries)
        if ("final", k) in shapes
    }
    for kind, columns in (("before", befores), ("output", outputs)):
        for k, rows in enumerate(columns):
            if rows and (kind, k) in shapes:
                each = (*instances, *shapes[kind, k][1:])
                spread = [_spread(row, each) for row in (rows[::-1] if params.reverse else rows)]
                found[kind, k] = _stacked(spread, len(instances))
    parts = [(s.offset, found[s.kind, s.place]) for s in slots if (s.kind, s.place) in found]
    return pack(parts, total(slots), (), params.dtype if params.floats else INT, instances)


def _spread(node: Node, shape: Shape) -> Node:
    """``node`` for each instance, if all have the same."""
    first = len(shape) - node.ndim
    return node if not first else broadcast_axes(node, shape, range(first, len(shape)))


def _rebuilt(outputs: Sequence[Node], values: dict[Node, Node]) -> list[Node]:
    new = dict(values)
    for node in topological(outputs):
        if node not in new:
            inputs = tuple(new[i] for i in node.inputs)
            new[node] = remade(node, inputs)
    return [new[node] for node in outputs]


def _at_first(t: int, rank: int) -> tuple[Index, ...]:
    """Place ``t`` of the first axis, and all of ``rank`` others."""
    return Affine(t), *identity(rank)


def _stacked(rows: Sequence[Node], lead: int) -> Node:
    """The steps along a new axis after the first ``lead``."""
    shape = (*rows[0].shape[:lead], len(rows), *rows[0].shape[lead:])
    axes = identity(rows[0].ndim)
    parts = [(row, (*axes[:lead], Affine(t), *axes[lead:])) for t, row in enumerate(rows)]
    return assembled(parts, shape, rows[0].dtype, disjoint=True)


__all__ = ["unrolled"]
