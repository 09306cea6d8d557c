"""Loops taken apart for running: only what is read is computed and stored, and nothing is packed.

In the graph a loop is one vector of everything that its steps make. Here each loop whose results are read becomes a
``loop_run`` of a smaller body (without the carries, outputs and arguments that nobody needs), whose arguments are the
arrays that had been packed and whose results are arrays of their own. The float and the integer results of one loop
come out of the same run. Loops that run side by side become one loop over arrays of all instances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..graph.build import assembled, index_node
from ..graph.index import Affine, Index, bounds, evaluate, flatten, from_table, identity, substitute
from ..graph.instances import side_by_side
from ..graph.node import Node, Shape, topological
from ..graph.ops.control import (
    Body,
    LoopParams,
    PartParams,
    RunParams,
    Slot,
    loop,
    loop_part,
    loop_run,
    make_body,
    result_slots,
    source_groups,
    unpack,
)
from ..graph.ops.movement import index

Wanted = tuple[str, int]


def lowered(outputs: Sequence[Node]) -> list[Node]:
    """The same program with every loop as a ``loop_run``."""
    order = topological(outputs)
    if not any(node.op is loop for node in order):
        return list(outputs)
    return _Lowering(order).run(outputs)


@dataclass
class _Group:
    """The nodes of one loop, what is read of it, and then what is run."""

    params: LoopParams
    inputs: tuple[Node, ...]
    wanted: set[tuple[bool, int]] = field(default_factory=set)  # (floats, position among the slots)
    sources: tuple[Node, ...] = ()
    run: RunParams | None = None
    parts: dict[tuple[bool, int], int] = field(default_factory=dict)
    common: set[tuple[bool, int]] = field(default_factory=set)  # results that are the same for all instances


class _Lowering:
    def __init__(self, order: list[Node]) -> None:
        self.order = order
        self.groups: dict[Any, _Group] = {}
        self.members: dict[Any, list[Node]] = {}
        for node in order:
            if node.op is loop:
                self._group(node)
        self.new: dict[Node, Node] = {}

    def _group(self, node: Node) -> _Group:
        key = (node.inputs, node.params._replace(floats=True))
        if key not in self.groups:
            self.groups[key] = _Group(key[1], node.inputs)
        members = self.members.setdefault(key, [])
        if node not in members:
            members.append(node)
        return self.groups[key]

    def run(self, outputs: Sequence[Node]) -> list[Node]:
        self._find_wanted(outputs)
        return [self._build(node) for node in outputs]

    # --- what is read

    def _find_wanted(self, outputs: Sequence[Node]) -> None:
        """From the results back: a loop is settled when everything that may read it has been seen."""
        rank = {node: k for k, node in enumerate(self.order)}
        settle_at: dict[Node, _Group] = {}
        for key, group in self.groups.items():
            settle_at[min(self.members[key], key=lambda n: rank[n])] = group
        live: set[Node] = set()
        for node in outputs:
            self._read(node, live, rank)
        for node in reversed(self.order):
            if node in settle_at:
                group = settle_at[node]
                if group.wanted:
                    self._settle(group)
                    for source in group.sources:
                        self._read(source, live, rank)
            elif node in live and node.op is not loop and not _reads_loop(node):
                for i in node.inputs:
                    self._read(i, live, rank)

    def _read(self, node: Node, live: set[Node], rank: dict[Node, int]) -> None:
        """Note that a node is read; nodes that are not in the order (made just now) hand it on."""
        stack = [node]
        while stack:
            current = stack.pop()
            if current in live:
                continue
            live.add(current)
            if current.op is loop:
                slots = range(len(result_slots(current.params)))
                self._group(current).wanted.update((current.params.floats, k) for k in slots)
            elif _reads_loop(current):
                source = current.inputs[0]
                self._group(source).wanted.update((source.params.floats, k) for k in _touched(current))
            elif current not in rank:
                stack.extend(current.inputs)

    def _settle(self, group: _Group) -> None:
        params = group.params
        wanted: set[Wanted] = set()
        for floats, k in group.wanted:
            slot = result_slots(params._replace(floats=floats))[k]
            wanted.add((slot.kind, slot.place))
        body, carries, stacks, consts = _trimmed(params.body, wanted)
        finals = tuple(j for j, k in enumerate(carries) if ("final", k) in wanted)
        befores = tuple(j for j, k in enumerate(carries) if ("before", k) in wanted)
        outputs = [k for k in range(len(params.body.outputs)) if ("output", k) in wanted]
        kept = {"carry": carries, "stack": stacks, "const": consts}
        given: dict[Wanted, Node] = {}
        for sources, source in zip(source_groups(params), group.inputs, strict=True):
            for slot in sources.slots:
                if slot.place in kept[slot.kind]:
                    given[slot.kind, slot.place] = unpack(source, slot, len(sources.lead))
        inits, stacked, constant = ([given[kind, k] for k in keep] for kind, keep in kept.items())
        common: set[Wanted] = set()
        if params.instances:
            wide = side_by_side(body, params.instances, inits, stacked, constant)
            body, inits, stacked, constant = wide.body, wide.inits, wide.stacks, wide.consts
            common = {(kind, carries[k]) for k, each in enumerate(wide.carries) if not each for kind in _OF_CARRIES}
            common |= {("output", outputs[k]) for k, each in enumerate(wide.outputs) if not each}
        group.run = RunParams(body, params.length, params.reverse, finals, befores)
        group.sources = (*inits, *stacked, *constant)
        names: list[Wanted] = [("final", carries[j]) for j in finals]
        names += [("before", carries[j]) for j in befores]
        names += [("output", k) for k in outputs]
        for floats, k in group.wanted:
            slot = result_slots(params._replace(floats=floats))[k]
            group.parts[floats, k] = names.index((slot.kind, slot.place))
            if (slot.kind, slot.place) in common:
                group.common.add((floats, k))

    # --- the new program

    def _build(self, wanted: Node) -> Node:
        stack = [wanted]
        while stack:
            node = stack[-1]
            if node in self.new:
                stack.pop()
                continue
            needs = self._needs(node)
            missing = [n for n in needs if n not in self.new]
            if missing:
                stack.extend(missing)
                continue
            self.new[node] = self._made(node)
            stack.pop()
        return self.new[wanted]

    def _needs(self, node: Node) -> tuple[Node, ...]:
        if node.op is loop:
            return self._group(node).sources
        return self._group(node.inputs[0]).sources if _reads_loop(node) else node.inputs

    def _made(self, node: Node) -> Node:
        if node.op is loop:
            return self._whole(node)
        if _reads_loop(node):
            return self._reader(node)
        inputs = tuple(self.new[i] for i in node.inputs)
        return node if inputs == node.inputs else node.op(*inputs, params=node.params)

    def _read_slot(self, node: Node, k: int, shape: Shape, indices: Sequence[Index]) -> Node:
        """What is read of one slot, at places of the instances and then of the packed axis within the slot."""
        group = self._group(node)
        assert group.run is not None
        sources = tuple(self.new[s] for s in group.sources)
        params: LoopParams = node.params
        slot = result_slots(params)[k]
        *instance, place = indices
        size = slot.size
        if params.instances and (params.floats, k) not in group.common:
            size *= math.prod(params.instances)
            steps = 1 if slot.kind == "final" else params.length
            step, inner = _divided(place, slot.size // steps, shape)
            whole = (steps, *params.instances, slot.size // steps)
            place = flatten((step, *instance, inner), whole, shape)
        run = loop_run(*sources, params=group.run)
        part = loop_part(run, params=PartParams(group.parts[params.floats, k], size, node.dtype))
        return index_node(part, shape, (place,))

    def _whole(self, node: Node, slots: Sequence[int] | None = None) -> Node:
        every: tuple[Slot, ...] = result_slots(node.params)
        lead: Shape = node.params.instances
        first = len(lead)
        parts = []
        for k in range(len(every)) if slots is None else slots:
            if every[k].size:
                shape = (*lead, every[k].size)
                rows = (*identity(first), Affine(every[k].offset, ((first, 1),)))
                parts.append((self._read_slot(node, k, shape, identity(first + 1)), rows))
        return assembled(parts, node.shape, node.dtype, disjoint=True)

    def _reader(self, node: Node) -> Node:
        source = node.inputs[0]
        touched = _touched(node)
        if len(touched) == 1:
            slot = result_slots(source.params)[touched[0]]
            *instance, place = node.params.indices
            moved = substitute(Affine(-slot.offset, ((0, 1),)), [place], node.shape)
            return self._read_slot(source, touched[0], node.shape, (*instance, moved))
        return index_node(self._whole(source, touched), node.shape, node.params.indices)


_OF_CARRIES = ("final", "before")


def _divided(place: Index, size: int, shape: Shape) -> tuple[Index, Index]:
    """Quotient and remainder of a place by the size of a step."""
    if size == 1:
        return place, Affine(0)
    if isinstance(place, Affine):
        step, offset = divmod(place.offset, size)
        steps = tuple((a, s // size) for a, s in place.strides if s % size == 0)
        inner = Affine(offset, tuple((a, s) for a, s in place.strides if s % size))
        low, high = bounds(inner, shape)
        if low >= 0 and high < size:
            return Affine(step, steps), inner
    quotient, remainder = np.divmod(evaluate(place, shape), size)
    axes = range(len(shape))
    return from_table(quotient, axes), from_table(remainder, axes)


def _reads_loop(node: Node) -> bool:
    return node.op is index and node.inputs[0].op is loop


def _touched(node: Node) -> list[int]:
    """The slots of a loop that an index reads."""
    if node.size == 0:
        return []
    low, high = bounds(node.params.indices[-1], node.shape)
    slots = result_slots(node.inputs[0].params)
    return [k for k, s in enumerate(slots) if s.size and s.offset <= high and low < s.offset + s.size]


def _trimmed(body: Body, wanted: set[Wanted]) -> tuple[Body, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The body without what the wanted results do not need; the carries, stacks and constants that stay."""
    outputs = [node for k, node in enumerate(body.outputs) if ("output", k) in wanted]
    live = {k for kind, k in wanted if kind in ("final", "before")}
    always = [*outputs, *(() if body.go is None else (body.go,))]
    while True:
        used = set(topological([*always, *(body.carried[k] for k in live)]))
        more = {k for k, node in enumerate(body.carries) if node in used} | live
        if more == live:
            break
        live = more
    if body.window is not None:
        used.update(body.consts[k] for k in body.window)
    carries = tuple(sorted(live))
    stacks = tuple(k for k, node in enumerate(body.stacks) if node in used)
    consts = tuple(k for k, node in enumerate(body.consts) if node in used)
    smaller = make_body(
        body.step,
        [body.carries[k] for k in carries],
        [body.stacks[k] for k in stacks],
        [body.consts[k] for k in consts],
        [body.carried[k] for k in carries],
        outputs,
        body.go,
        None if body.window is None else (consts.index(body.window[0]), consts.index(body.window[1])),
    )
    return smaller, carries, stacks, consts


__all__ = ["lowered"]
