"""Loops that run side by side, as one loop over arrays of all of them.

In the graph such loops have the body of one instance (``LoopParams.instances``), and so have their derivatives: that is
where structure comes from. To be run, or written out, the body is widened: what an instance changes gets the axes of
the instances in front, and what is the same for all stays as it is.

Where instances run different steps (a ``while_loop`` ends in some before it ends in others, a branch is taken in some),
all run every step that any of them runs, and each keeps what it had where it takes no part. That is a selection by a
mask, after everything has been derived, so no infinity or NaN of a step that an instance does not take gets anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .batching import batched_along
from .build import apply, broadcast_axes, broadcast_to, full, index_node, sum_axes, transpose, zeros
from .index import axes_of, shift_axes
from .node import REGISTRY, Node, Shape, new_input, topological
from .ops.control import Body, make_body
from .ops.movement import index
from .ops.reduction import AxesParams


class Wide(NamedTuple):
    """A loop over arrays of all instances, and which of its carries and outputs have an axis for them."""

    body: Body
    inits: list[Node]
    stacks: list[Node]
    consts: list[Node]
    carries: tuple[bool, ...]
    outputs: tuple[bool, ...]


def side_by_side(
    body: Body, instances: Shape, inits: Sequence[Node], stacks: Sequence[Node], consts: Sequence[Node]
) -> Wide:
    """One loop for the instances of a loop.

    Args:
        body: a step of one instance.
        inits: the first carries, with the axes of the instances in front.
        stacks, consts: the other arguments, with these axes in front, or without where all instances share them.
    """
    lead = len(instances)
    alike = [_replicated(node, lead) for node in inits]
    of_stacks = [node.ndim == own.ndim + 1 + lead for node, own in zip(stacks, body.stacks, strict=True)]
    of_consts = [node.ndim == own.ndim + lead for node, own in zip(consts, body.consts, strict=True)]
    fixed = {n for n, each in zip(body.stacks, of_stacks, strict=True) if each}
    fixed |= {n for n, each in zip(body.consts, of_consts, strict=True) if each}
    of_carries = _varying(body, fixed, [node is None for node in alike])
    many = fixed | {n for n, each in zip(body.carries, of_carries, strict=True) if each}
    wide = {n: new_input((*instances, *n.shape) if n in many else n.shape, n.dtype) for n in body.inputs}
    ends = [*body.results, *(() if body.go is None else (body.go,))]
    found = batched_along(ends, wide, instances)

    def spread(node: Node, has_axes: bool) -> Node:
        axes = range(lead, lead + node.ndim)
        return node if has_axes else broadcast_axes(node, (*instances, *node.shape), axes)

    count = len(body.carries)
    carried = [spread(*f) if each else f[0] for f, each in zip(found[:count], of_carries, strict=True)]
    outputs = [node for node, _ in found[count : count + len(body.outputs)]]
    of_outputs = [each for _, each in found[count : count + len(body.outputs)]]
    go = None if body.go is None else found[-1][0]
    new_consts = [wide[n] for n in body.consts]
    given_consts = list(consts)
    window = body.window
    active: Node | None = None
    if window is not None and any(of_consts[k] for k in window):
        bounds = [spread(wide[body.consts[k]], of_consts[k]) for k in window]
        step = broadcast_to(wide[body.step], instances)
        active = apply("logical_and", bounds[0] <= step, step < bounds[1])
        places = []
        for k, name in zip(window, ("min", "max"), strict=True):
            if of_consts[k]:
                # From the first step that any instance runs to the last.
                given_consts.append(REGISTRY[name](consts[k], params=AxesParams(tuple(range(lead)))))
                new_consts.append(new_input((), body.consts[k].dtype))
                places.append(len(new_consts) - 1)
            else:
                places.append(k)
        window = (places[0], places[1])
    if go is not None and found[-1][1]:
        active = go
        dtype = next((n.dtype for n in body.carries if n.dtype.kind == "f"), np.dtype("f8"))
        ones, none = (full(v, instances, dtype) for v in (1.0, 0.0))
        total = sum_axes(apply("select", active, ones, none), range(lead))
        go = total > full(0.0, (), total.dtype)
    if active is not None:
        old = [wide[n] for n in body.carries]
        carried = [_where(active, new, was) for new, was in zip(carried, old, strict=True)]
        outputs = [spread(*f) for f in zip(outputs, of_outputs, strict=True)]
        outputs = [_where(active, new, full(0, new.shape, new.dtype)) for new in outputs]
        of_outputs = [True] * len(outputs)
    first = [node if each else same for node, same, each in zip(inits, alike, of_carries, strict=True)]
    return Wide(
        make_body(
            wide[body.step], [wide[n] for n in body.carries], [wide[n] for n in body.stacks], new_consts,
            carried, outputs, go, window,
        ),
        [node for node in first if node is not None],
        [_steps_first(n, lead) if each else n for n, each in zip(stacks, of_stacks, strict=True)],
        given_consts,
        tuple(of_carries),
        tuple(of_outputs),
    )  # fmt: skip


def _replicated(node: Node, lead: int) -> Node | None:
    """What an array is for each place of its first axes, if that is the same everywhere."""
    rest = node.shape[lead:]
    if node.op.name == "assemble" and not node.inputs:
        return zeros(rest, node.dtype)
    if node.op is not index or any(a < lead for e in node.params.indices for a in axes_of(e)):
        return None
    return index_node(node.inputs[0], rest, [shift_axes(e, -lead) for e in node.params.indices])


def _varying(body: Body, fixed: set[Node], first: Sequence[bool]) -> list[bool]:
    """Which carries differ between instances: those that begin so, or come to take something that does."""
    flags = list(first)
    while True:
        varies = fixed | {n for n, each in zip(body.carries, flags, strict=True) if each}
        ends = [*body.carried, *(() if body.go is None else (body.go,))]
        for node in topological(ends):
            if not varies.isdisjoint(node.inputs):
                varies.add(node)
        apart = (body.go is not None and body.go in varies) or (
            body.window is not None and any(body.consts[k] in fixed for k in body.window)
        )
        more = [each or apart or end in varies for each, end in zip(flags, body.carried, strict=True)]
        if more == flags:
            return flags
        flags = more


def _where(active: Node, new: Node, old: Node) -> Node:
    return apply("select", broadcast_axes(active, new.shape, range(active.ndim)), new, old)


def _steps_first(node: Node, lead: int) -> Node:
    """A stack of each instance as slices of all instances."""
    return transpose(node, (lead, *range(lead), *range(lead + 1, node.ndim)))


__all__ = ["Wide", "side_by_side"]
