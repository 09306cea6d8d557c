"""Derivatives of loops, which are loops again: tangents in the direction of the steps, cotangents against it.

A tangent loop carries the tangents of the carries; a step applies the derivative of the body, derived from the body's
own graph by elimination, to them. A cotangent loop does the transpose from the last step to the first. Both read what
the primal loop stored: the carries before each step, and those inner values of a step that cost more to compute than to
store. All columns (rows) of a Jacobian go through together, as a last axis.

The cotangent of a constant is a sum over steps. Where a step's share is a product of smaller factors (the outer product
that a matrix-vector product leaves), the factors are stored and multiplied after the loop, in one contraction: that
is a matrix product instead of as many rank-one updates as there are steps.

Loops that run side by side (``LoopParams.instances``) are derived as the one loop whose body they have: what a step
makes of tangents or cotangents is that of one instance, and the derived loop has the same instances.

Source of the method: Griewank and Walther, "Evaluating Derivatives", 2nd edition (2008), sections 3.1, 3.2 and 12.2.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..graph.batching import batched_along
from ..graph.build import broadcast_to, cast_to, contract_labels, movement_reshape, sum_axes, transpose, zeros
from ..graph.index import identity, shift_axes
from ..graph.node import DType, Node, Shape, Term, literal, new_input, substitute_nodes, topological
from ..graph.ops.control import (
    INT,
    Body,
    EdgeParams,
    Loop,
    LoopParams,
    Slot,
    filled,
    loop,
    loop_nodes,
    loop_results,
    make_body,
    pack,
    result_slots,
    source_groups,
    source_slots,
    total,
    unpack,
    worth_storing,
)
from ..structure.formats import dense_node, transposed
from ..structure.terms import Terms, normalise
from .eliminate import DENSE_LIMIT, eliminate

T = TypeVar("T")
Mask = tuple[bool, ...]
_Source = int | Node | tuple[str, int]

_derived: weakref.WeakKeyDictionary[Node, dict[Any, Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _remembered(node: Node, key: Any, make: Callable[[], T]) -> T:
    """What was derived from a loop before: bodies do not depend on how the loop is used, only on what is asked."""
    with _lock:
        known = _derived.setdefault(node, {})
    if key not in known:
        known[key] = make()
    found: T = known[key]
    return found


# --- the arguments and results of the primal loop ---------------------------------------------------------------


@dataclass(frozen=True)
class _Primal:
    params: LoopParams
    stacks: list[Node]
    consts: list[Node]
    results: Loop

    @property
    def body(self) -> Body:
        return self.params.body

    @property
    def lead(self) -> int:
        """How many axes of instances are in front of what belongs to each of them."""
        return len(self.params.instances)

    def blank(self, shape: Shape) -> Node:
        """Zeros of a shape for each instance."""
        return zeros((*self.params.instances, *shape), self.params.dtype)


def _primal(matrix: Node) -> _Primal:
    params: LoopParams = matrix.params.loop
    *sources, result = matrix.inputs
    body = params.body
    given: dict[tuple[str, int], Node] = {}
    found: dict[tuple[str, int], Node] = {}
    for group, source in zip(source_groups(params), sources, strict=True):
        given.update({(s.kind, s.place): unpack(source, s, len(group.lead)) for s in group.slots})
    for kind in (True, False):
        these = params._replace(floats=kind)
        slots = result_slots(these)
        if slots:
            node = result if kind else loop(*sources, params=these)
            found.update({(s.kind, s.place): unpack(node, s, len(params.instances)) for s in slots})
    stacks = [given["stack", k] for k in range(len(body.stacks))]
    consts = [given["const", k] for k in range(len(body.consts))]
    return _Primal(params, stacks, consts, loop_results(body, found))


def _window(primal: _Primal) -> list[Node]:
    """First and last-but-one step of a derived loop, if only a run can tell."""
    body = primal.body
    if body.window is not None:
        return [primal.consts[k] for k in body.window]
    if body.go is None:
        return []
    assert body.counter is not None
    return [literal(0, INT), cast_to(primal.results.finals[body.counter], INT)]


@dataclass(frozen=True)
class _Derived:
    """A derived body, and which arrays of the primal loop it reads after its own stacks and constants."""

    body: Body
    carries: tuple[int, ...]  # carries before the step, as stacks
    stacks: tuple[int, ...]
    saved: tuple[int, ...]  # outputs, as stacks
    consts: tuple[int, ...]

    def run(self, primal: _Primal, reverse: bool, inits: list[Node], stacks: list[Node], consts: list[Node]) -> Loop:
        """The derived loop."""
        all_stacks = [
            *stacks,
            *(primal.results.befores[k] for k in self.carries),
            *(primal.stacks[k] for k in self.stacks),
            *(primal.results.outputs[k] for k in self.saved),
        ]
        all_consts = [*consts, *_window(primal), *(primal.consts[k] for k in self.consts)]
        params = primal.params
        return loop_nodes(self.body, params.length, reverse, inits, all_stacks, all_consts, params.instances)


def _close(
    body: Body,
    carries: Sequence[Node],
    stacks: Sequence[Node],
    consts: Sequence[Node],
    carried: Sequence[Node],
    outputs: Sequence[Node],
) -> _Derived:
    """A derived body from a program over new inputs and those of the primal body."""
    saved = {o: new_input(o.shape, o.dtype) for o in body.outputs if o.op.family != "leaf"}
    # What the new program computes from stored values is read; the substitution stops there.
    ends = _cut([*carried, *outputs], saved)
    used = set(topological(ends))
    which = [tuple(k for k, n in enumerate(group) if n in used) for group in (body.carries, body.stacks, body.consts)]
    outs = {saved[o]: k for k, o in reversed(list(enumerate(body.outputs))) if o in saved}
    reads = tuple(sorted(k for node, k in outs.items() if node in used))
    window = [new_input((), INT) for _ in range(2 * body.dynamic)]
    varying = {body.step, *body.carries, *body.stacks, *carries, *stacks, *saved.values()}
    dtype = next((n.dtype for n in (*carries, *stacks, *ends) if n.dtype.kind == "f"), np.dtype("f8"))
    extra = worth_storing(ends, varying, dtype)
    closed = make_body(
        body.step,
        carries,
        [
            *stacks,
            *(body.carries[k] for k in which[0]),
            *(body.stacks[k] for k in which[1]),
            *(saved[body.outputs[k]] for k in reads),
        ],
        [*consts, *window, *(body.consts[k] for k in which[2])],
        ends[: len(carried)],
        [*ends[len(carried) :], *extra],
        window=(len(consts), len(consts) + 1) if window else None,
    )
    return _Derived(closed, which[0], which[1], reads, which[2])


def _cut(outputs: Sequence[Node], replacement: dict[Node, Node]) -> list[Node]:
    return substitute_nodes(outputs, replacement)


def _reach(roots: Sequence[Node]) -> set[Node]:
    """What the roots can have a derivative by: everything on paths of floating-point nodes."""
    seen: set[Node] = set()
    stack = [node for node in roots if node.dtype.kind == "f"]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(i for i in node.inputs if i.dtype.kind == "f")
    return seen


def _spread(shape: Shape, rest: Shape) -> Shape:
    return (*shape, *_flat(rest))


def _flat(rest: Shape) -> Shape:
    """All columns as one axis; no axis if there is just one vector."""
    return (math.prod(rest),) if rest else ()


def _taken(vector: Node, slots: Sequence[Slot], lead: int) -> dict[tuple[str, int], Node]:
    """The arrays in the slots of a tangent or cotangent vector, those that are not structurally zero.

    ``lead``: axes of instances in front of the packed one.
    """
    flat = vector
    if vector.ndim > lead + 2:
        joined = (*vector.shape[: lead + 1], math.prod(vector.shape[lead + 1 :]))
        part_by_part = not lead and vector.op.name == "assemble"
        flat = _flattened(vector) if part_by_part else movement_reshape(vector, joined)
    return {(s.kind, s.place): node for s in slots if (node := filled(flat, s, lead)) is not None}


def _flattened(vector: Node) -> Node:
    """A packed vector with the axes behind the first made one, part by part."""
    rest = vector.shape[1:]
    parts = []
    for part, rows in zip(vector.inputs, vector.params.rows, strict=True):
        if (
            rows[1:] != identity(part.ndim)[1:]
            or part.shape[1:] != rest
            or getattr(rows[0], "strides", ())
            not in (
                ((0, 1),),
                (),
            )
        ):
            return movement_reshape(vector, _spread(vector.shape[:1], rest))
        parts.append((rows[0].offset, part))
    return pack(
        [(o, movement_reshape(p, (p.shape[0], math.prod(rest)))) for o, p in parts],
        vector.shape[0],
        (math.prod(rest),),
        vector.dtype,
    )


# --- forward ----------------------------------------------------------------------------------------------------


def push(matrix: Node, array: Node) -> Node:
    """The derivative of a loop times tangents of its packed arguments: one loop over the tangents."""
    edge: EdgeParams = matrix.params
    primal = _primal(matrix)
    params, body = primal.params, primal.body
    lead = 0 if edge.shared else primal.lead
    rest = array.shape[lead + 1 :]
    given = _taken(array, source_slots(params, edge.shared), lead)

    def given_of(kind: str, nodes: Sequence[Node]) -> Mask:
        return tuple((kind, k) in given for k in range(len(nodes)))

    masks = given_of("carry", body.carries), given_of("stack", body.stacks), given_of("const", body.consts)
    key = ("tangent", masks, _flat(rest))
    derived, active, outputs = _remembered(matrix.inputs[-1], key, lambda: _tangent_body(body, masks, _flat(rest)))
    inits = [given.get(("carry", k), primal.blank(_spread(body.carries[k].shape, rest))) for k in active]
    stacks = [given["stack", k] for k, on in enumerate(masks[1]) if on]
    consts = [given["const", k] for k, on in enumerate(masks[2]) if on]
    found = derived.run(primal, params.reverse, inits, stacks, consts)
    pieces = {("final", k): found.finals[j] for j, k in enumerate(active)}
    pieces.update({("before", k): found.befores[j] for j, k in enumerate(active)})
    pieces.update({("output", k): found.outputs[j] for j, k in enumerate(outputs)})
    return _packed(pieces, result_slots(params), params.instances, rest, params.dtype)


def _packed(pieces: dict[tuple[str, int], Node], slots: Sequence[Slot], lead: Shape, rest: Shape, dtype: DType) -> Node:
    parts = [
        (s.offset, movement_reshape(pieces[s.kind, s.place], (*lead, s.size, *rest)))
        for s in slots
        if (s.kind, s.place) in pieces
    ]
    return pack(parts, total(slots), rest, dtype, lead)


def _tangent_body(
    body: Body, masks: tuple[Mask, Mask, Mask], rest: Shape
) -> tuple[_Derived, tuple[int, ...], tuple[int, ...]]:
    """One step of a tangent loop, which carries have a tangent, and which outputs."""
    reach = [_reach([node]) for node in body.results]
    count = len(body.carries)
    active = {k for k, on in enumerate(masks[0]) if on}
    moving = {
        node
        for nodes, mask in ((body.stacks, masks[1]), (body.consts, masks[2]))
        for node, on in zip(nodes, mask, strict=True)
        if on
    }
    while True:
        here = moving | {body.carries[k] for k in active}
        more = {k for k in range(count) if not here.isdisjoint(reach[k])} | active
        if more == active:
            break
        active = more
    order = tuple(sorted(active))
    tangent: dict[Node, Node] = {}
    new: list[list[Node]] = []
    for nodes in (
        [body.carries[k] for k in order],
        [n for n, on in zip(body.stacks, masks[1], strict=True) if on],
        [n for n, on in zip(body.consts, masks[2], strict=True) if on],
    ):
        new.append([tangent.setdefault(n, new_input(_spread(n.shape, rest), n.dtype)) for n in nodes])
    dtype = next((n.dtype for n in tangent), np.dtype("f8"))
    outputs = [k for k, r in enumerate(reach[count:]) if not here.isdisjoint(r)]
    ends = [*(body.carried[k] for k in order), *(body.outputs[k] for k in outputs)]
    moved = tangents(ends, tangent, rest, dtype)
    carried = [m if m is not None else zeros(_spread(e.shape, rest), dtype) for m, e in zip(moved, ends, strict=True)]
    derived = _close(body, new[0], new[1], new[2], carried[: len(order)], carried[len(order) :])
    return derived, order, tuple(outputs)


def tangents(ends: Sequence[Node], tangent: dict[Node, Node], rest: Shape, dtype: DType) -> list[Node | None]:
    """Tangents of the ends of a program, given those of some of its inputs; None: structurally zero."""
    step = new_input(rest, dtype)
    moved = {}
    for x, t in tangent.items():
        labels = tuple(range(x.ndim))
        far = tuple(range(x.ndim, x.ndim + len(rest)))
        shift = contract_labels([(t, (*labels, *far)), (step, far)], t.shape, labels) if rest else None
        moved[x] = x + (t * broadcast_to(step, x.shape) if shift is None else shift)
    shifted = substitute_nodes(list(ends), dict(moved))
    found = eliminate(shifted, [step], "auto", unrestricted=DENSE_LIMIT, whole_maps=True)
    nodes = [
        dense_node(found.terms[i][0], y.shape, rest, dtype) if found.terms[i][0] else None for i, y in enumerate(ends)
    ]
    back = {m: x for x, m in moved.items()}
    there = iter(substitute_nodes([n for n in nodes if n is not None], back))
    return [None if n is None else next(there) for n in nodes]


# --- reverse ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reverse:
    """One step of a cotangent loop, and where what it makes belongs."""

    derived: _Derived
    active: tuple[int, ...]  # primal carries that have a cotangent
    stacks: tuple[int, ...]  # primal stacks whose cotangents are outputs, in this order
    sums: tuple[int, ...]  # primal constants whose cotangents are carries, after the active ones
    later: tuple[tuple[int, tuple[_Later, ...]], ...]  # primal constants with terms to contract after the loop


@dataclass(frozen=True)
class _Later:
    """A term summed over steps after the loop.

    A factor is an output of the loop (its number), what the primal loop stored or was given, or a program over the
    constants.
    """

    term: Term
    factors: tuple[_Source, ...]


def pull(matrix: Node, array: Node) -> Node:
    """Cotangents of the packed results of a loop times its derivative: one loop from the last step to the first.

    Of what instances share, each has a cotangent of its own, or they are added up (``joint``).
    """
    edge: EdgeParams = matrix.params
    primal = _primal(matrix)
    params, body = primal.params, primal.body
    rest = array.shape[primal.lead + 1 :]
    flat = _flat(rest)
    given = _taken(array, result_slots(params), primal.lead)
    masks = tuple(
        tuple((kind, k) in given for k in range(len(nodes)))
        for kind, nodes in (("final", body.carries), ("before", body.carries), ("output", body.outputs))
    )
    key = ("cotangent", masks, flat)
    plan = _remembered(matrix.inputs[-1], key, lambda: _reverse_body(body, masks, flat, params.dtype))
    inits = [given.get(("final", k), primal.blank(_spread(body.carries[k].shape, rest))) for k in plan.active]
    inits += [primal.blank(_spread(body.consts[k].shape, rest)) for k in plan.sums]
    stacks = [given["output", k] for k, on in enumerate(masks[2]) if on]
    stacks += [given["before", k] for k, on in enumerate(masks[1]) if on]
    found = plan.derived.run(primal, not params.reverse, inits, stacks, [])
    pieces = {("carry", k): found.finals[j] for j, k in enumerate(plan.active)}
    pieces.update({("stack", k): found.outputs[j] for j, k in enumerate(plan.stacks)})
    pieces.update({("const", k): found.finals[len(plan.active) + j] for j, k in enumerate(plan.sums)})
    if edge.joint:
        pieces = {name: sum_axes(piece, range(primal.lead)) for name, piece in pieces.items()}
    extra = found.outputs[len(plan.stacks) :]
    slots = source_slots(params, edge.shared)
    for k, terms in plan.later:
        if ("const", k) not in {(s.kind, s.place) for s in slots}:
            continue
        node = _sum_later(terms, extra, primal, body.consts[k].shape, flat, edge.joint)
        if node is not None:
            pieces["const", k] = pieces["const", k] + node if ("const", k) in pieces else node
    return _packed(pieces, slots, () if edge.joint else params.instances, rest, params.dtype)


def _sum_later(
    terms: Sequence[_Later], extra: Sequence[Node], primal: _Primal, shape: Shape, flat: Shape, joint: bool
) -> Node | None:
    # Steps before instances, as they are stored: sums over both are one product of matrices.
    lead = primal.lead
    instances, every = primal.params.instances, tuple(range(1, lead + 1))
    result: list[Term] = []
    for later in terms:
        term = later.term
        factors = []
        for what, (node, axes) in zip(later.factors, term.factors, strict=True):
            moved = tuple(a + lead + 1 for a in axes)
            if isinstance(what, Node):
                found, each = _outside(what, primal)
                factors.append((found, (*(every if each else ()), *moved)))
                continue
            if isinstance(what, int):
                found = extra[what]
            else:
                stored = {"before": primal.results.befores, "stack": primal.stacks, "output": primal.results.outputs}
                found = stored[what[0]][what[1]]
            if found.ndim > node.ndim + 1:
                found = transpose(found, (lead, *range(lead), *range(lead + 1, found.ndim)))
                factors.append((found, (0, *every, *moved)))
            else:
                factors.append((found, (0, *moved)))
        col = tuple(shift_axes(e, lead + 1) for e in term.col)
        whole = normalise(
            Term(
                (primal.params.length, *instances, *term.domain),
                tuple(shift_axes(e, lead + 1) for e in term.row),
                col if joint else (*identity(lead + 1)[1:], *col),
                tuple(factors),
            )
        )
        if whole is not None:
            result.append(whole)
    own = shape if joint else (*instances, *shape)
    return dense_node(transposed(result), own, flat, primal.params.dtype) if result else None


def _outside(node: Node, primal: _Primal) -> tuple[Node, bool]:
    """A program over the constants of the body, where these are around the loop; whether each instance has its own."""
    outer = dict(zip(primal.body.consts, primal.consts, strict=True))
    return batched_along([node], outer, primal.params.instances)[0]


def _reverse_body(body: Body, masks: tuple[Mask, ...], rest: Shape, dtype: DType) -> _Reverse:
    final, before, output = masks
    reach = [_reach([node]) for node in body.results]
    count = len(body.carries)
    active = {k for k in range(count) if final[k] or before[k]}
    while True:
        roots = [*(reach[k] for k in active), *(reach[count + j] for j, on in enumerate(output) if on)]
        more = {k for k in range(count) if any(body.carries[k] in r for r in roots)} | active
        if more == active:
            break
        active = more
    order = tuple(sorted(active))

    def fresh(node: Node) -> Node:
        return new_input(_spread(node.shape, rest), dtype)

    carry = {k: fresh(body.carries[k]) for k in order}
    outs = {k: fresh(body.outputs[k]) for k, on in enumerate(output) if on}
    befores = {k: fresh(body.carries[k]) for k, on in enumerate(before) if on}
    ends = [*((body.carried[k], c) for k, c in carry.items()), *((body.outputs[k], c) for k, c in outs.items())]
    inputs = [n for n in (*body.carries, *body.stacks, *body.consts) if n.dtype.kind == "f"]
    terms = dict(zip(inputs, cotangent_terms(ends, inputs, rest, dtype), strict=True))

    def dense(node: Node) -> Node:
        return dense_node(transposed(terms[node]), node.shape, rest, dtype)

    carried = [dense(body.carries[k]) for k in order]
    carried = [c + befores[k] if k in befores else c for k, c in zip(order, carried, strict=True)]
    stacks = [k for k, n in enumerate(body.stacks) if terms.get(n)]
    outputs = [dense(body.stacks[k]) for k in stacks]
    varying = {body.step, *body.carries, *body.stacks, *carry.values(), *outs.values(), *befores.values()}
    stored: dict[Node, tuple[str, int]] = {}
    if not body.dynamic:
        for kind, nodes in (("output", body.outputs), ("stack", body.stacks), ("before", body.carries)):
            stored.update({n: (kind, k) for k, n in enumerate(nodes)})
    first = len(outputs)
    sums: list[int] = []
    accumulated: list[Node] = []
    later: list[tuple[int, tuple[_Later, ...]]] = []
    for k, w in enumerate(body.consts):
        now: list[Term] = []
        after: list[_Later] = []
        for term in terms.get(w, ()):
            if not _factors_are_smaller(term):
                now.append(term)
                continue
            places: list[_Source] = []
            for node, _ in term.factors:
                if varying.isdisjoint(topological([node])):
                    places.append(node)
                elif node in stored:
                    places.append(stored[node])
                else:
                    node = cast_to(node, dtype)
                    if node not in outputs[first:]:
                        outputs.append(node)
                    places.append(outputs.index(node, first) - first)
            after.append(_Later(term, tuple(places)))
        if now:
            sums.append(k)
            acc = fresh(w)
            accumulated.append(acc)
            carried.append(acc + dense_node(transposed(now), w.shape, rest, dtype))
        if after:
            later.append((k, tuple(after)))
    derived = _close(body, [*carry.values(), *accumulated], [*outs.values(), *befores.values()], [], carried, outputs)
    return _Reverse(derived, order, tuple(stacks), tuple(sums), tuple(later))


def _factors_are_smaller(term: Term) -> bool:
    """Whether storing the factors of a step's share takes less than half of what adding the share up touches."""
    if term.masks or len(term.factors) < 2:
        return False
    return 2 * sum(node.size for node, _ in term.factors) <= math.prod(term.domain)


def cotangent_terms(
    ends: Sequence[tuple[Node, Node]], inputs: Sequence[Node], rest: Shape, dtype: DType
) -> tuple[Terms, ...]:
    """For each input the terms of ``sum of cotangent * end``, rows over ``rest``."""
    pieces = []
    for node, cotangent in ends:
        labels = tuple(range(node.ndim))
        far = tuple(range(node.ndim, node.ndim + len(rest)))
        pieces.append(contract_labels([(node, labels), (cotangent, (*labels, *far))], cotangent.shape, far))
    if not pieces:
        return tuple(() for _ in inputs)
    weighed = pieces[0]
    for piece in pieces[1:]:
        weighed = weighed + piece
    found = eliminate([weighed], list(inputs), "auto", unrestricted=DENSE_LIMIT, whole_maps=True, join_rows=True)
    return found.terms[0]


__all__ = ["cotangent_terms", "pull", "push", "tangents"]
