"""Axes along which the steps of a loop are independent: trajectories side by side, a recurrence of each element.

If no number of a step at one place of such an axis takes anything from another place, the loop is as many loops side by
side. It is then made of the body of one of them (``LoopParams.instances``), and whatever is derived from it is
block-diagonal along the axis, because every matrix in it is that of one instance.

The axis is found by following it from a carry through the body: each operation says at which axis of its operands the
axis of its result is, or that it mixes places. This only ever looks at index expressions and labels, so what is found
holds for all numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .build import assembled, broadcast_axes, contract_labels, index_node, transpose
from .index import Affine, Index, axes_of, plain_axis, rename
from .node import LITERAL, Node, Shape, new_input, topological
from .ops.contraction import contract
from .ops.control import Body, Loop, loop, loop_nodes, make_body, packed_sources, source_groups, unpack
from .ops.movement import assemble, index
from .ops.position import read_at, write_at
from .ops.reduction import AxesParams, AxisParams

FEW_BESIDES = 8  # numbers in common that never keep an axis from being one of instances


class _MixedError(Exception):
    """Places along the axis depend on one another, or an operation does not say whether they do."""


@dataclass(frozen=True)
class Separate:
    """A loop as instances side by side.

    Attributes:
        body: a step of one instance.
        instances: how many there are, along each axis that was found.
        inits, stacks, consts: the arguments with the axes of the instances in front; stacks and constants without them
            are the same for all.
        carries, outputs: for each axis that was found the place that it had in each carry and output; None: nowhere.
    """

    body: Body
    instances: Shape
    inits: list[Node]
    stacks: list[Node]
    consts: list[Node]
    carries: tuple[tuple[int | None, ...], ...] = ()
    outputs: tuple[tuple[int | None, ...], ...] = ()

    def joined(self, found: Loop) -> Loop:
        """The results with the axes where they were."""
        return Loop(
            tuple(self._restored(n, self.carries, k, 0) for k, n in enumerate(found.finals)),
            tuple(self._restored(n, self.carries, k, 1) for k, n in enumerate(found.befores)),
            tuple(self._restored(n, self.outputs, k, 1) for k, n in enumerate(found.outputs)),
        )

    def _restored(self, node: Node, places: tuple[tuple[int | None, ...], ...], k: int, steps: int) -> Node:
        for lead in reversed(range(len(places))):
            a = places[lead][k]
            if a is None:  # all instances have the same
                indices = [Affine(0, ((b if b < lead else b - 1, 1),)) for b in range(node.ndim)]
                indices[lead] = Affine(0)
                node = index_node(node, (*node.shape[:lead], *node.shape[lead + 1 :]), indices)
                continue
            order = [b for b in range(node.ndim) if b != lead]
            order.insert(lead + steps + a, lead)
            node = transpose(node, order)
        return node


def separate(body: Body, inits: Sequence[Node], stacks: Sequence[Node], consts: Sequence[Node]) -> Separate:
    """The loop with every axis along which its steps are independent as an axis of instances."""
    found = Separate(body, (), list(inits), list(stacks), list(consts))
    while (more := _separated(found)) is not None:
        found = more
    return found


def separate_loop_nodes(
    body: Body, length: int, reverse: bool, inits: Sequence[Node], stacks: Sequence[Node], consts: Sequence[Node]
) -> Loop:
    """``loop_nodes`` of a loop whose independent axes are instances."""
    apart = separate(body, inits, stacks, consts)
    found = loop_nodes(apart.body, length, reverse, apart.inits, apart.stacks, apart.consts, apart.instances)
    return apart.joined(found)


def _separated(known: Separate) -> Separate | None:
    body = known.body
    # Steps that carry nothing are independent of one another in any case.
    seeds = [n for n in body.carries if n.dtype.kind == "f" and n.size > 1]
    users: dict[Node, list[Node]] = {}
    for node in topological([*body.results, *(() if body.go is None else (body.go,))]) if seeds else ():
        for source in dict.fromkeys(node.inputs):
            users.setdefault(source, []).append(node)
    for node in seeds:
        for a, size in enumerate(node.shape):
            if size < 2:
                continue
            try:
                axes = _Axes(body, users, node, a)
            except _MixedError:
                continue
            if axes.worth_while():
                return _along(known, axes, size)
    return None


def _along(known: Separate, axes: _Axes, size: int) -> Separate:
    body, lead = known.body, len(known.instances)
    instances = (*known.instances, size)
    narrow = _Narrow(body, axes)

    def given(node: Node, own: Node, steps: int, always: bool) -> Node:
        """An argument with one more axis of instances, if it differs between them."""
        a = axes.place.get(own)
        has_lead = node.ndim > own.ndim + steps
        here = node
        if a is not None:
            first = lead if has_lead else 0
            here = transpose(node, _moved(node.ndim, first + steps + a, first))
        elif not always and not has_lead:
            return node
        had = [*range(lead)] if has_lead else []
        had += [lead] if a is not None else []
        rest = here.shape[len(had) :]
        places = [*had, *range(lead + 1, lead + 1 + len(rest))]
        return broadcast_axes(here, (*instances, *rest), places)

    captured = [given(node, node, 0, False) for node in narrow.captured]
    return Separate(
        narrow.body,
        instances,
        [given(n, own, 0, True) for n, own in zip(known.inits, body.carries, strict=True)],
        [given(n, own, 1, False) for n, own in zip(known.stacks, body.stacks, strict=True)],
        [*(given(n, own, 0, False) for n, own in zip(known.consts, body.consts, strict=True)), *captured],
        (*known.carries, tuple(axes.place.get(n) for n in body.carries)),
        (*known.outputs, tuple(axes.place.get(n) for n in body.outputs)),
    )


def _moved(ndim: int, place: int, to: int) -> list[int]:
    order = [a for a in range(ndim) if a != place]
    order.insert(to, place)
    return order


# --- where the axis is --------------------------------------------------------------------------------------------


@dataclass
class _Axes:
    """Where the axis is in each node of a body that has it."""

    body: Body
    users: dict[Node, list[Node]]
    seed: Node
    axis: int
    place: dict[Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        body = self.body
        self.size = self.seed.shape[self.axis]
        ties = list(zip(body.carries, body.carried, strict=True))
        self.waiting: list[Node] = []
        self.note(self.seed, self.axis)
        while True:
            while self.waiting:
                node = self.waiting.pop()
                for user in (node, *self.users.get(node, ())):
                    self._follow(user)
            before = len(self.place)
            for one, other in ties:
                for a, b in ((one, other), (other, one)):
                    if a in self.place:
                        self.note(b, self.place[a])
            if len(self.place) == before and not self.waiting:
                break
        if body.go is not None and body.go in self.place:
            raise _MixedError

    def worth_while(self) -> bool:
        """Whether the instances have little in common that comes anew in each step.

        Carries besides the axis would be carried by each instance again, and of a slice that all share each would have
        a cotangent of its own in every step.
        """
        carries, stacks = ([n for n in nodes if n.dtype.kind == "f"] for nodes in (self.body.carries, self.body.stacks))
        apart = sum(n.size // self.size for n in carries if n in self.place)
        common = sum(n.size for n in (*carries, *stacks) if n not in self.place)
        return common <= apart + FEW_BESIDES

    def note(self, node: Node, axis: int) -> None:
        """``node`` has the axis here."""
        if node not in self.place:
            if node.shape[axis] != self.size:
                raise _MixedError
            self.place[node] = axis
            self.waiting.append(node)
        elif self.place[node] != axis:
            raise _MixedError

    def _follow(self, node: Node) -> None:
        """What an operation says about its operands and its result."""
        if node.op.family == "leaf":
            return
        pairs = list(_pairs(node))
        out = self.place.get(node)
        given = [self.place.get(i) for i in node.inputs]
        if out is None:
            told = {p for k, a in enumerate(given) if a is not None for p in (_to(pairs, k, a),)}
            if not told:
                return
            if None in told or len(told) > 1:
                raise _MixedError
            (out,) = told
            assert out is not None
            self.note(node, out)
        for k, source in enumerate(node.inputs):
            have = [a for j, a, p in pairs if j == k and p == out]
            if len(have) > 1:
                raise _MixedError
            if have:
                self.note(source, have[0])
            elif self.place.get(source) is not None or not _may_lack(node, k, out):
                raise _MixedError


def _to(pairs: Sequence[tuple[int, int, int]], k: int, axis: int) -> int | None:
    """The axis of the result at which the axis of an operand comes out; None if it does not as it is."""
    found = [p for j, a, p in pairs if j == k and a == axis]
    return found[0] if len(found) == 1 else None


def _may_lack(node: Node, k: int, out: int) -> bool:
    """Whether an operand without the axis is the same for all places along it."""
    if node.op in (read_at, write_at) and k > 0:
        return True
    if node.op is index or node.op is read_at:
        return not any(out in axes_of(e) for e in node.params.indices)
    return node.op is contract or node.op is loop


def _pairs(node: Node) -> Iterator[tuple[int, int, int]]:
    """``(operand, axis of it, axis of the result)`` where the one is the other, place by place."""
    params = node.params
    if node.op is index or node.op is read_at:
        source = node.inputs[0]
        yield from ((0, a, p) for a, p in _plain(params.indices, source.shape, node.shape))
    elif node.op is assemble or node.op is write_at:
        parts = node.inputs[:1] if node.op is write_at else node.inputs
        rows = (params.indices,) if node.op is write_at else params.rows
        for k, (part, row) in enumerate(zip(parts, rows, strict=True)):
            yield from ((k, a, p) for p, a in _plain(row, node.shape, part.shape))
    elif node.op is contract:
        for p, label in enumerate(params.out):
            for k, labels in enumerate(params.labels):
                yield from ((k, a, p) for a, other in enumerate(labels) if other == label)
    elif node.op is loop:
        for k in (0, 1):
            yield from ((k, a, a) for a in range(len(params.instances)))
    elif node.op.family == "elementwise" or node.op.name == "cast":
        for k in range(len(node.inputs)):
            yield from ((k, a, a) for a in range(node.ndim))
    elif isinstance(params, AxesParams):
        kept = [a for a in range(node.inputs[0].ndim) if a not in params.axes]
        yield from ((0, a, p) for p, a in enumerate(kept))
    elif isinstance(params, AxisParams):
        kept = [a for a in range(node.inputs[0].ndim) if a != params.axis]
        dropped = node.ndim == len(kept)
        alike = [k for k, i in enumerate(node.inputs) if i.shape == node.inputs[0].shape]
        yield from ((k, a, p if dropped else a) for k in alike for p, a in enumerate(kept))
    elif _leads(node):
        yield from ((k, 0, 0) for k in range(len(node.inputs)))


def _leads(node: Node) -> bool:
    """Whether the first axes of all operands and of the result are a batch, whatever their number."""
    params = node.params
    same = params is None or (hasattr(params, "batched") and params.batched() == params)
    return same and node.op.family != "control" and all(i.ndim >= 3 for i in (node, *node.inputs))


def _plain(indices: Sequence[Index], source: Shape, domain: Shape) -> Iterator[tuple[int, int]]:
    """Axes of the source that are axes of the domain, as a whole and with nothing else along them."""
    for a, e in enumerate(indices):
        p = plain_axis(e)
        if p is not None and source[a] == domain[p] and sum(p in axes_of(other) for other in indices) == 1:
            yield a, p


# --- one instance -------------------------------------------------------------------------------------------------


class _Narrow:
    """The body of one instance. ``captured``: nodes without inputs that differ between instances: constants more."""

    def __init__(self, body: Body, axes: _Axes) -> None:
        self.place = axes.place
        self.new: dict[Node, Node] = {n: new_input(self._shape(n), n.dtype) for n in body.inputs}
        self.captured: list[Node] = []
        ends = [*body.results, *(() if body.go is None else (body.go,))]
        for node in topological(ends):
            if node not in self.new:
                self.new[node] = self._made(node)
        count = len(body.carried)
        results = [self.new[n] for n in body.results]
        self.body = make_body(
            self.new[body.step], [self.new[n] for n in body.carries], [self.new[n] for n in body.stacks],
            [self.new[n] for n in (*body.consts, *self.captured)], results[:count], results[count:],
            None if body.go is None else self.new[body.go], body.window, body.counter,
        )  # fmt: skip

    def _shape(self, node: Node) -> Shape:
        a = self.place.get(node)
        return node.shape if a is None else _but(node.shape, a)

    def _made(self, node: Node) -> Node:
        out = self.place.get(node)
        inputs = [self.new[i] for i in node.inputs]
        if out is None:
            return node if tuple(inputs) == node.inputs else node.op(*inputs, params=node.params)
        if node.op.family == "leaf":
            assert node.op is not LITERAL
            self.captured.append(node)
            return new_input(self._shape(node), node.dtype)
        shape, params = self._shape(node), node.params
        places = [self.place.get(i) for i in node.inputs]
        if node.op is index:
            return index_node(inputs[0], shape, _dropped(_but(params.indices, places[0]), out))
        if node.op is assemble:
            rows = [_dropped(_but(row, out), a) for row, a in zip(params.rows, places, strict=True)]
            return assembled(list(zip(inputs, rows, strict=True)), shape, node.dtype, disjoint=params.disjoint)
        if node.op is contract:
            labels = [_but(have, a) for have, a in zip(params.labels, places, strict=True)]
            return contract_labels(list(zip(inputs, labels, strict=True)), params.sizes, _but(params.out, out))
        if node.op is read_at or node.op is write_at:
            outer, inner = (places[0], out) if node.op is read_at else (out, places[0])
            assert outer is not None and inner is not None
            less = params._replace(
                shape=_but(params.shape, inner),
                source=_but(params.source, outer),
                indices=_dropped(_but(params.indices, outer), inner),
                axes=tuple(a - (a > outer) for a in params.axes),
            )
            return node.op(*inputs, params=less)
        if node.op is loop:
            return self._loop(node, inputs, out)
        if isinstance(params, AxesParams):
            params = AxesParams(tuple(a - (a > (places[0] or 0)) for a in params.axes))
        elif isinstance(params, AxisParams):
            params = AxisParams(params.axis - (params.axis > (places[0] or 0)))
        found = node.op(*inputs, params=params)
        assert found.shape == shape, (node, found)
        return found

    def _loop(self, node: Node, inputs: list[Node], out: int) -> Node:
        """A loop with one axis of instances less; without any, nothing is shared."""
        params = node.params
        given: dict[tuple[str, int], Node] = {}
        instances = _but(params.instances, out)
        for k, (group, source) in enumerate(zip(source_groups(params), inputs, strict=True)):
            lead = len(instances) if k < 2 else 0
            given.update({(s.kind, s.place): unpack(source, s, lead) for s in group.slots})
        less = params._replace(instances=instances, shared=params.shared if instances else ((), ()))
        return loop(*packed_sources(less, given), params=less)


def _but(items: tuple, place: int | None) -> tuple:  # type: ignore[type-arg]
    return items if place is None else (*items[:place], *items[place + 1 :])


def _dropped(indices: Sequence[Index], gone: int | None) -> tuple[Index, ...]:
    """Expressions over a domain that has lost an axis."""
    if gone is None:
        return tuple(indices)
    names = {a: a - (a > gone) for e in indices for a in axes_of(e)}
    return tuple(rename(e, names) for e in indices)


__all__ = ["Separate", "separate", "separate_loop_nodes"]
