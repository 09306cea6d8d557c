"""From a program to steps: fused kernels, and NumPy calls for what loops are not good at.

A node gets a buffer only if it must (results, inputs of NumPy calls, large sums) or if it pays (expensive and read in
several places or replicated). Everything else is computed where it is read, and a kernel computes each value once.
Kernels on the same level with the same loops become one, so that f and all entries of its Jacobian come out of one
pass over memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ..graph.index import Index, Lookup, axes_of, flatten, identity, plain_axis
from ..graph.node import Node, Shape, topological
from ..graph.ops.contraction import contract
from ..graph.ops.elementwise import cast
from ..graph.ops.movement import assemble, index, injective
from ..graph.ops.reduction import reduce_max, reduce_min
from .points import ZERO, At, Point, counter, flat, locate, resolve, unrolled

STRAIGHT = 64  # points up to which a job is unrolled without any loop
UNROLL = 48  # points of the other axes that are unrolled inside the lane loop
SUM_UNROLL = 16  # terms of a sum that are unrolled
SMALL_CONTRACTION = 600  # multiplications up to which a contraction is unrolled rather than given to BLAS
LANE_MIN = 16  # an axis shorter than this is not worth the lanes if there is a longer one
KINDS = (np.dtype("f8"), np.dtype("f4"), np.dtype("i8"), np.dtype("i4"), np.dtype(bool))
LOGIC = ("logical_and", "logical_or", "logical_not")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "select")


class NeedsBufferError(Exception):
    """Planning found that a node cannot be computed where it is read."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.node = node


@dataclass(frozen=True)
class Job:
    """``buffer[rows(d)] = value[d]`` for every point d of ``domain``, or ``+=`` where parts overlap.

    ``scalar``: two points may fall on the same element, so lanes would lose one of them.
    """

    buffer: Node
    domain: Shape
    rows: tuple[Index, ...]
    value: Node
    loops: tuple[int, ...]  # the axes that are loops, the lane axis last; all others are unrolled
    accumulate: bool = False
    scalar: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.domain[a] for a in self.loops)

    def points(self) -> list[Point]:
        """Every unrolled point, with loop counters along the loops."""
        place = {a: k for k, a in enumerate(self.loops)}
        rest = [a for a in range(len(self.domain)) if a not in place]
        result = []
        for fixed in unrolled([self.domain[a] for a in rest]):
            at = dict(zip(rest, fixed, strict=True))
            result.append(tuple(counter(place[a]) if a in place else At(at[a]) for a in range(len(self.domain))))
        return result

    def target(self, point: Point) -> At:
        """Where a point is stored."""
        return flat(tuple(resolve(e, point) for e in self.rows), self.buffer.shape)


@dataclass
class Kernel:
    """Jobs that share their loops. A job that accumulates has a kernel of its own."""

    sizes: tuple[int, ...]
    jobs: list[Job] = field(default_factory=list)

    @property
    def accumulate(self) -> bool:
        return self.jobs[0].accumulate

    @property
    def scalar(self) -> bool:
        return self.jobs[0].scalar


@dataclass(frozen=True)
class Call:
    """A node computed by NumPy from buffers."""

    node: Node


@dataclass
class NativePlan:
    """Steps in order, and which nodes have buffers (``zeroed``: not every element is written)."""

    steps: list[Kernel | Call]
    buffers: set[Node]
    zeroed: set[Node]


def plan_native(outputs: Sequence[Node], planner: type[Planner] | None = None) -> NativePlan:
    """The steps that compute ``outputs``."""
    forced: set[Node] = set()
    while True:
        try:
            return (planner or Planner)(outputs, forced).plan()
        except NeedsBufferError as need:
            forced.add(need.node)


def inlinable(node: Node) -> bool:
    """Whether a kernel can compute the node where it is read."""
    if node.dtype not in KINDS or any(i.dtype not in KINDS for i in node.inputs):
        return False
    if node.op is index:
        return True
    if node.op.family == "elementwise":
        if node.op.emit is None:
            return False
        # Arithmetic on integers and booleans follows NumPy's own code: overflow, division by zero, True + True.
        floats = all(i.dtype.kind == "f" for i in node.inputs)
        logic = node.op.name in LOGIC and all(i.dtype.kind in "fb" for i in node.inputs)
        return floats or logic or node.op is cast or node.op.name in COMPARISONS
    if node.op.family == "reduction":
        kind = "b" if node.op.name in ("any", "all") else "f"
        return node.op.emit is not None and node.inputs[0].dtype.kind == kind and 0 < _reduced_count(node) <= SUM_UNROLL
    if node.op is contract:
        if node.dtype.kind != "f":
            return False
        total = math.prod(node.params.sizes)
        summed = total // max(node.size, 1)
        return bool(0 < summed <= SUM_UNROLL or total <= SMALL_CONTRACTION)
    # Booleans add up by "or", which only NumPy's way of adding does.
    return node.op is assemble and bool(node.params.disjoint or node.dtype.kind == "f")


def _reduced_count(node: Node) -> int:
    return node.inputs[0].size // max(node.size, 1)


def requests(node: Node, point: Point) -> list[tuple[Node, Point]]:
    """What computing ``node`` at ``point`` reads."""
    if node.op is index:
        source = node.inputs[0]
        return [(source, tuple(resolve(e, point) for e in node.params.indices))]
    if node.op.family == "elementwise":
        return [(i, point) for i in node.inputs]
    if node.op.family == "reduction":
        return [(node.inputs[0], p) for p in _reduced_points(node, point)]
    if node.op is contract:
        result = []
        params = node.params
        named = dict(zip(params.out, point, strict=True))
        summed = [x for x in range(len(params.sizes)) if x not in named]
        for values in unrolled([params.sizes[x] for x in summed]):
            named.update({x: At(v) for x, v in zip(summed, values, strict=True)})
            for source, labels in zip(node.inputs, params.labels, strict=True):
                result.append((source, tuple(named[x] for x in labels)))
        return result
    if node.op is assemble:
        if node.size <= STRAIGHT and not any(a.terms for a in point):
            return writes(node)[tuple(a.offset for a in point)]
        found = locate(node, point) if node.params.disjoint else None
        if found is None:
            raise NeedsBufferError(node)
        return [] if found is ZERO else [found]  # type: ignore[list-item]
    raise AssertionError(node)


@lru_cache(maxsize=1024)
def writes(node: Node) -> dict[tuple[int, ...], list[tuple[Node, Point]]]:
    """For each element of a small assembled array, everything that is written there."""
    result: dict[tuple[int, ...], list[tuple[Node, Point]]] = {e: [] for e in unrolled(node.shape)}
    for part, rows in zip(node.inputs, node.params.rows, strict=True):
        if part.size == 0:
            continue
        for here in unrolled(part.shape):
            point = tuple(At(n) for n in here)
            result[tuple(resolve(e, point).offset for e in rows)].append((part, point))
    return result


def _reduced_points(node: Node, point: Point) -> list[Point]:
    axes = node.params.axes
    source = node.inputs[0]
    result = []
    for values in unrolled([source.shape[a] for a in axes]):
        rest, fixed = iter(point), iter(values)
        result.append(tuple(At(next(fixed)) if a in axes else next(rest) for a in range(source.ndim)))
    return result


class Planner:
    """Decides which nodes get buffers, and who fills them."""

    def __init__(self, outputs: Sequence[Node], forced: set[Node]) -> None:
        self.outputs = [node for node in outputs if node.op.family != "leaf"]
        self.forced = forced
        self.order = topological(outputs)
        self.users: dict[Node, list[Node]] = {node: [] for node in self.order}
        for node in self.order:
            for i in node.inputs:
                self.users[i].append(node)

    def plan(self) -> NativePlan:
        self._choose_buffers()
        level: dict[Node, int] = {}
        needs: dict[Node, frozenset[Node]] = {}
        for node in self.order:
            inner = frozenset().union(*(needs[i] for i in node.inputs)) if node.inputs else frozenset()
            if node in self.buffers:
                level[node] = 1 + max((level[d] for d in inner), default=0)
                needs[node] = frozenset((node,))
            elif node.op.family == "leaf" and node.op.name != "literal":
                level[node] = 0
                needs[node] = frozenset((node,))
            else:
                needs[node] = inner
        kernels: dict[tuple[int, tuple[int, ...], int], Kernel] = {}
        steps: list[tuple[int, int, Kernel | Call]] = []
        zeroed = set()
        for node in self.order:
            if node not in self.buffers:
                continue
            if node in self.calls:
                steps.append((level[node], len(steps), Call(node)))
                continue
            if node.op is assemble and not node.params.full and (node.params.disjoint or node.size > STRAIGHT):
                zeroed.add(node)
            for job in self._jobs(node):
                if 0 in job.domain:
                    continue
                # Each addition to what is there is a kernel of its own, and the same part may be added twice.
                key = (level[node], job.sizes, len(steps) if job.accumulate else -1)
                if key not in kernels:
                    kernels[key] = Kernel(job.sizes)
                    steps.append((level[node], len(steps), kernels[key]))
                kernels[key].jobs.append(job)
        for kernel in kernels.values():
            self._check(kernel)
        return NativePlan([step for _, _, step in sorted(steps, key=lambda s: s[:2])], self.buffers, zeroed)

    def _choose_buffers(self) -> None:
        results = set(self.outputs)
        wanted = results | self.forced
        self.calls: set[Node] = set()
        self.buffers: set[Node] = set()
        reachable = set(self.order)
        # Inputs of NumPy calls need buffers, so users are looked at before what they use.
        for node in reversed(self.order):
            if node.op.family == "leaf":
                continue
            if not self.inlinable(node):
                self.calls.add(node)
                wanted.add(node)
            if node.op in (reduce_max, reduce_min) and self._compared(node.inputs[0]):
                wanted.add(node.inputs[0])
            if node in self.calls:
                wanted.update(i for i in node.inputs if i in reachable)
            elif node.op is index and node in wanted and node not in results and self._only_called(node):
                # Only NumPy reads it: a view of its source will do.
                self.calls.add(node)
                wanted.update(node.inputs)
        cost: dict[Node, float] = {}
        for node in self.order:
            if node.op.family == "leaf":
                cost[node] = 0.0
                continue
            terms = 1.0
            if node.op is contract:
                terms = math.prod(node.params.sizes) / max(node.size, 1)
            own = terms * node.op.cost + sum(terms * cost[i] for i in node.inputs)
            if node not in wanted and self._pays(node, own):
                wanted.add(node)
            cost[node] = 0.0 if node in wanted else own
        self.buffers = {node for node in wanted if node.op.family != "leaf"}

    def inlinable(self, node: Node) -> bool:
        """Whether a kernel computes the node; a planner for other surroundings may decide otherwise."""
        return inlinable(node)

    def _compared(self, node: Node) -> bool:
        """Whether the node may be compared with its own extremum.

        Then it has to be computed once: a function of a vector and the same function of a scalar differ in the last
        place, and no element would equal the greatest.
        """
        return any(user.op.name in COMPARISONS for user in self.users[node])

    def _only_called(self, node: Node) -> bool:
        return all(user in self.calls for user in self.users[node])

    def _pays(self, node: Node, cost: float) -> bool:
        """Whether storing the node is cheaper than computing it again wherever it is read.

        A kernel computes a value once for each point it is read at. Reads at several places of a short axis are such
        points; what repeats work is a loop that the node does not have, or reads that are shifted along a loop.
        """
        if cost < 4 or node.op is index:
            return False
        moved = set()
        for user in self.users[node]:
            if _replicates(node, user):
                return True
            if user.op is index and not _aligned(node, user):
                moved.add(user.params.indices)
        straight = any(u.op is not index or _aligned(node, u) for u in self.users[node])
        return cost >= 20 and len(moved) + straight > 1

    def _jobs(self, node: Node) -> list[Job]:
        if node.op is not assemble or (not node.params.disjoint and node.size <= STRAIGHT):
            return [self._job(node, node.shape, identity(node.ndim), node)]
        parts = zip(node.inputs, node.params.rows, strict=True)
        if node.params.disjoint:
            return [self._job(node, part.shape, rows, part) for part, rows in parts]
        jobs = []
        for part, rows in parts:
            scalar = not injective(rows, part.shape)
            if scalar and part.op.family == "elementwise" and part not in self.buffers:
                raise NeedsBufferError(part)  # its arithmetic belongs in lanes, before the scalar loop that adds it up
            jobs.append(self._job(node, part.shape, rows, part, accumulate=True, scalar=scalar))
        return jobs

    def _job(
        self,
        buffer: Node,
        domain: Shape,
        rows: tuple[Index, ...],
        value: Node,
        accumulate: bool = False,
        scalar: bool = False,
    ) -> Job:
        total = math.prod(domain)
        if (total <= STRAIGHT or not domain) and not scalar:
            return Job(buffer, domain, rows, value, (), accumulate)
        if scalar:
            return Job(buffer, domain, rows, value, tuple(a for a in range(len(domain))), True, True)
        target = flatten(rows, buffer.shape, domain) if rows else None
        unit = [a for a, s in getattr(target, "strides", ()) if s == 1 and domain[a] >= LANE_MIN]
        lane = unit[0] if unit else max(range(len(domain)), key=lambda a: (domain[a], a))
        rest = sorted((a for a in range(len(domain)) if a != lane), key=lambda a: (-domain[a], a))
        loops = []
        while rest and math.prod(domain[a] for a in rest) > UNROLL:
            loops.append(rest.pop(0))
        return Job(buffer, domain, rows, value, (*sorted(loops), lane), accumulate)

    def _check(self, kernel: Kernel) -> None:
        """Run through everything the kernel will read, so that what cannot be read in place gets a buffer."""
        seen: set[tuple[Node, Point]] = set()
        stack: list[tuple[Node, Point, Node]] = []
        for job in kernel.jobs:
            stack.extend((job.value, p, job.buffer) for p in job.points())
        while stack:
            node, point, own = stack.pop()
            if (node, point) in seen:
                continue
            seen.add((node, point))
            if node.op.family == "leaf" or (node in self.buffers and node is not own):
                continue
            stack.extend((n, p, own) for n, p in requests(node, point))


def _replicates(node: Node, user: Node) -> bool:
    """Whether ``user`` reads each element of ``node`` again in a loop that ``node`` does not have."""
    if user.op is index:
        used = {a for e in user.params.indices for a in axes_of(e)}
        own = max(node.size, 1)
        tables = any(isinstance(e, Lookup) for e in user.params.indices) and user.size > 2 * own
        return tables or any(n > LANE_MIN and a not in used for a, n in enumerate(user.shape))
    if user.op is contract and math.prod(user.params.sizes) > SMALL_CONTRACTION:
        mine = {x for i, ls in zip(user.inputs, user.params.labels, strict=True) if i is node for x in ls}
        return any(n > LANE_MIN and x not in mine for x, n in enumerate(user.params.sizes))
    return False


def _aligned(node: Node, user: Node) -> bool:
    """Whether an index reads the long axes of ``node`` as they are, whatever it does with the short ones."""
    return all(
        node.shape[k] <= LANE_MIN or (plain_axis(e) is not None and user.shape[plain_axis(e) or 0] == node.shape[k])
        for k, e in enumerate(user.params.indices)
    )
