"""Recorded bodies of loops: what they take from outside, their dtypes, their values, and blocks of long loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import trees
from ..graph.build import apply, assembled, cast_to, index_node, movement_reshape
from ..graph.independence import separate
from ..graph.index import Affine, identity
from ..graph.node import (
    CONSTANT,
    INPUT,
    LITERAL,
    Array,
    DType,
    Node,
    Shape,
    literal,
    new_input,
    substitute_nodes,
    topological,
)
from ..graph.ops.control import INT, Body, Loop, loop_nodes, make_body, worth_storing
from .constructors import patched_constructors
from .leaves import leaf_value
from .location import recording_error
from .reach import watch_function
from .recording import Recording, _current
from .variable import Variable, wrap_constant, wrap_node

STORED_BYTES = 2**28  # what a loop may store for its derivative before it is cut into blocks that are run again


class BodyRecording(Recording):
    """The recording of a body: what it looks at must not change from step to step."""

    bodies = True

    def varies(self, node: Node) -> bool:
        if not set(self.inputs).isdisjoint(topological([node])):
            return True
        return self.outer is not None and self.outer.varies(node)

    def guard(self, node: Node, value: Any) -> None:
        if not set(self.inputs).isdisjoint(topological([node])):
            raise recording_error(
                "the body of a loop or branch looked at a value that is not the same in every step (an if, a while, "
                "int(), an index into a plain array). Write np.where, jc.cond or jc.while_loop, and "
                "np.array(a)[i] for a[i]."
            )
        if self.outer is not None:
            self.outer.guard(node, value)


@contextmanager
def body_recording(samples: Sequence[Array], functions: Sequence[Callable[..., Any]]) -> Iterator[list[Variable]]:
    """Variables for the arguments of a body, in a recording of its own."""
    recording = BodyRecording(outer=_current.get())
    variables = []
    for value in samples:
        array = np.array(value)
        variables.append(wrap_node(new_input(array.shape, array.dtype), array))
    recording.inputs = tuple(v.node for v in variables)
    recording.values = {v.node: np.array(v._value) for v in variables}
    token = _current.set(recording)
    try:
        with patched_constructors():
            yield variables
    finally:
        _current.reset(token)
    for function in functions:
        watch_function(recording.watches, function, recording.captures)
    if recording.outer is not None:
        recording.outer.watches.include(recording.watches)


class ClosedBody:
    """A recorded body with everything that it takes from outside as constants, in the dtypes of a loop."""

    def __init__(
        self,
        inputs: list[Node],
        carries: int,
        carried: list[Node],
        outputs: list[Node],
        go: Node | None,
        operands: dict[Node, Node] | None = None,
        run: Node | None = None,
    ) -> None:
        ends = [*carried, *outputs, *(() if go is None else (go,))]
        own = {*inputs, *(operands or {})}
        self.outer = _outside(ends, own)
        inner = {node: new_input(node.shape, node.dtype) for node in self.outer}
        ends = substitute_nodes(ends, dict(inner))
        self.outer_nodes = [*self.outer, *(operands or {}).values()]
        consts = [*inner.values(), *(operands or {})]
        every = [*inputs, *consts, *carried, *outputs]
        floats = [node.dtype for node in every if node.dtype.kind == "f"]
        self.dtype: DType = np.result_type(*floats) if floats else np.dtype("f8")
        self.kinds = [node.dtype for node in (*carried, *outputs)]
        wide = {node: new_input(node.shape, self._wide(node.dtype)) for node in (*inputs, *consts)}
        ends = substitute_nodes(ends, {node: cast_to(w, node.dtype) for node, w in wide.items()})
        results = [cast_to(end, self._wide(end.dtype)) for end in ends[: len(carried) + len(outputs)]]
        every_input = [wide[node] for node in inputs]
        self.carry_count, self.output_count = carries, len(outputs)
        body_carries, body_carried = every_input[1 : 1 + carries], results[:carries]
        self.window: list[Node] = []
        extra: list[Node] = []
        self.counted = go is not None
        if go is not None:
            counter = new_input((), self.dtype)
            body_carries = [*body_carries, counter]
            body_carried = [*body_carried, cast_to(every_input[0], self.dtype) + 1.0]
        if run is not None:
            extra = [new_input((), INT), new_input((), INT)]
            self.window = [literal(0, INT), run]
        stacks = every_input[1 + carries :]
        stored = worth_storing(results, {*every_input, *body_carries}, self.dtype)
        self.body: Body = make_body(
            every_input[0],
            body_carries,
            stacks,
            [*(wide[n] for n in consts), *extra],
            body_carried,
            [*results[carries:], *stored],
            ends[-1] if go is not None else None,
            (len(consts), len(consts) + 1) if run is not None else None,
            carries if go is not None else None,
        )
        self.steps_run: Node | None = None

    def _wide(self, dtype: DType) -> DType:
        return self.dtype if dtype.kind == "f" else INT

    def tracked(self, given: Sequence[Any]) -> bool:
        """Whether the loop depends on any argument."""
        if any(isinstance(leaf, Variable) and leaf._tracked() is not None for leaf in given):
            return True
        return any(node.op is INPUT for node in topological(self.outer_nodes))

    def nodes(
        self, steps: int, reverse: bool, inits: Sequence[Node], stacks: Sequence[Node]
    ) -> tuple[list[Node], list[Node]]:
        """The last carries and the stacked outputs, in the dtypes of the user."""
        consts = [cast_to(n, self._wide(n.dtype)) for n in self.outer_nodes] + self.window
        start = [cast_to(n, self._wide(n.dtype)) for n in inits]
        if self.counted:
            start.append(literal(0.0, self.dtype))
        wide = [cast_to(n, self._wide(n.dtype)) for n in stacks]
        finals, ys = _in_blocks(self.body, steps, reverse, start, wide, consts)
        if self.counted:
            self.steps_run = finals[self.carry_count]
        finals = [cast_to(n, k) for n, k in zip(finals, self.kinds[: self.carry_count], strict=False)]
        ys = [cast_to(n, k) for n, k in zip(ys, self.kinds[self.carry_count :], strict=False)]
        return finals[: self.carry_count], ys[: self.output_count]


def _outside(ends: Sequence[Node], own: set[Node]) -> list[Node]:
    """The largest parts of a body that do not depend on the step but on something outside, without broadcasts."""
    order = topological(ends)
    inside: set[Node] = set()
    outer: set[Node] = set()  # depends on arguments of what is around the body
    for node in order:
        if node in own or any(i in inside for i in node.inputs):
            inside.add(node)
        elif node.op is INPUT or any(i in outer for i in node.inputs):
            outer.add(node)
    found: dict[Node, None] = {}
    for node in order:
        users = node.inputs if node in inside and node not in own else ()
        for i in (*users, *((node,) if node in ends else ())):
            if i in inside or i.op is LITERAL:
                continue
            if i not in outer and i.op.name in ("constant", "index", "cast", "assemble"):
                continue
            while i.op.name == "index" and i.inputs[0].size <= i.size:
                i = i.inputs[0]
            if i.op is not LITERAL and i.op is not CONSTANT:
                found[i] = None
    return list(found)


def _in_blocks(
    body: Body, steps: int, reverse: bool, inits: list[Node], stacks: list[Node], consts: list[Node]
) -> tuple[list[Node], list[Node]]:
    """The loop, cut into blocks of blocks where its derivative would store more than ``STORED_BYTES``.

    A block is one step of an outer loop, whose derivative runs the block again: what is stored is the carries before
    each block and everything of one block (Griewank and Walther, "Evaluating Derivatives", section 12.2).
    """
    apart = separate(body, inits, stacks, consts)
    body, instances = apart.body, apart.instances
    inits, stacks, consts = apart.inits, apart.stacks, apart.consts
    results = [n for n in (*body.carries, *body.outputs) if n.dtype.kind == "f"]
    stored = math.prod(instances) * steps * sum(n.size * n.dtype.itemsize for n in results)
    if stored <= STORED_BYTES or body.dynamic or steps < 4:
        found = apart.joined(loop_nodes(body, steps, reverse, inits, stacks, consts, instances))
        return list(found.finals), list(found.outputs)
    size = math.isqrt(steps)
    whole = steps // size
    step = new_input((), INT)
    carries = [new_input(n.shape, n.dtype) for n in body.carries]
    slices = [new_input((size, *n.shape), n.dtype) for n in body.stacks]
    given = [new_input(n.shape, n.dtype) for n in body.consts]
    block, number = _shifted(body)
    base = apply("multiply", step, literal(size, INT))
    inner = loop_nodes(block, size, reverse, carries, slices, [*given, *([base] if number else [])])
    outer = make_body(step, carries, slices, given, inner.finals, inner.outputs)

    def rows(node: Node, own: Node, first: int, count: int, shape: Shape) -> Node:
        """Some steps of a stack, in another shape."""
        lead = node.ndim - own.ndim - 1
        axes = identity(node.ndim)
        part = index_node(node, (*node.shape[:lead], count, *own.shape), (
            *axes[:lead], Affine(first, ((lead, 1),)), *axes[lead + 1 :],
        ))  # fmt: skip
        return movement_reshape(part, (*node.shape[:lead], *shape, *own.shape))

    tail = steps - whole * size
    pairs = list(zip(stacks, body.stacks, strict=True))
    blocked = [rows(n, own, 0, whole * size, (whole, size)) for n, own in pairs]
    rest = [rows(n, own, whole * size, tail, (tail,)) for n, own in pairs]
    offset = [literal(whole * size, INT)] if number else []

    def run_tail(start: Sequence[Node]) -> Loop:
        return loop_nodes(block, tail, reverse, start, rest, [*consts, *offset], instances)

    if reverse:
        last = run_tail(inits)
        found = loop_nodes(outer, whole, True, last.finals, blocked, consts, instances)
        finals = found.finals
    else:
        found = loop_nodes(outer, whole, False, inits, blocked, consts, instances)
        last = run_tail(found.finals)
        finals = last.finals
    lead = len(instances)
    outputs = tuple(
        _joined(movement_reshape(a, (*instances, whole * size, *a.shape[lead + 2 :])), b, lead)
        for a, b in zip(found.outputs, last.outputs, strict=True)
    )
    result = apart.joined(Loop(tuple(finals), (), outputs))
    return list(result.finals), list(result.outputs)


def _joined(a: Node, b: Node, lead: int) -> Node:
    """The steps of ``b`` after those of ``a``."""
    every = identity(a.ndim)
    later = (*every[:lead], Affine(a.shape[lead], ((lead, 1),)), *every[lead + 1 :])
    shape = (*a.shape[:lead], a.shape[lead] + b.shape[lead], *a.shape[lead + 1 :])
    return assembled([(a, every), (b, later)], shape, a.dtype, disjoint=True)


def _shifted(body: Body) -> tuple[Body, bool]:
    """The body with the number of its first step as a last constant, if it looks at the number at all."""
    ends = [*body.carried, *body.outputs]
    if body.step not in topological(ends):
        return body, False
    step, base = new_input((), INT), new_input((), INT)
    moved = substitute_nodes(ends, {body.step: apply("add", step, base)})
    count = len(body.carried)
    shifted = make_body(
        step, body.carries, body.stacks, [*body.consts, base], moved[:count], moved[count:], None, None, None
    )
    return shifted, True


# --- values -----------------------------------------------------------------------------------------------------


def evaluate(nodes: Sequence[Node], known: dict[Node, Array]) -> list[Array]:
    """The values of nodes, from those that are known and from the leaves beneath."""
    from ..run import Program, compile_recorded

    stop = {node: new_input(node.shape, node.dtype) for node in known}
    ends = substitute_nodes(list(nodes), dict(stop))
    reached = topological(ends)
    used = [node for node, given in stop.items() if given in reached]
    inputs = {stop[node]: known[node] for node in used}
    inputs.update({node: leaf_value(node) for node in reached if node.op is INPUT and node not in inputs})
    run = compile_recorded(Program(tuple(inputs), tuple(ends)))
    return [
        value[()] if value.ndim == 0 else value for value in run([np.asarray(v, order="C") for v in inputs.values()])
    ]


def wrapped_values(nodes: Sequence[Node], tracked: bool, known: dict[Node, Array]) -> list[Any]:
    values = evaluate(nodes, known)
    if tracked:
        return [wrap_node(node, value) for node, value in zip(nodes, values, strict=True)]
    return [wrap_constant(value) for value in values]


def known_values(given: Sequence[Any], functions: Sequence[Callable[..., Any]]) -> dict[Node, Array]:
    """Numbers that are at hand: of the arguments of the loop, and of Variables that the body closes over."""
    known: dict[Node, Array] = {}

    def note(value: Any) -> None:
        if isinstance(value, Variable):
            node = value._tracked()
            if node is not None and node.op is not INPUT:
                known[node] = np.asarray(value._value)

    for value in given:
        note(value)
    for function in functions:
        held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _is_filled(cell)]
        for value in (*held, *(getattr(function, "__defaults__", None) or ())):
            if not callable(value):
                for leaf in trees.flatten(value)[0]:
                    note(leaf)
    return known


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


__all__ = ["BodyRecording", "ClosedBody", "body_recording", "evaluate", "known_values", "wrapped_values"]
