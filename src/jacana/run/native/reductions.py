"""Sums and other reductions inside a kernel.

The order of the additions is fixed by the program alone. An axis in lanes is dealt out to ``PARTIALS`` partial sums
in turn, whatever the width of the vectors: two vectors of four lanes do what one of eight does. Each partial sum adds
``RUN`` numbers one after another; the sums of runs are added pairwise, as a binary counter carries (pairwise summation;
Higham, Accuracy and Stability of Numerical Algorithms, section 4.1); last, the partial sums are halved until one is
left. That is what NumPy does with runs of 16 and 8 partial sums, and it is as accurate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import reduce
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from ...graph.node import Node
from ...plan.jobs import Job, Kernel
from ...plan.points import Point
from .emitter import I64, VALUE_TYPES

if TYPE_CHECKING:
    from .codegen import KernelEmitter

PARTIALS_CHEAP = 32  # partial sums where the arithmetic is cheap: four vectors, so that additions need not wait
PARTIALS = 8
CHEAP = 6.0  # operations for each element up to which a body is cheap
RUN = 16  # numbers that a partial sum adds one after another
LEVELS = 40  # of the binary counter: enough for 2**40 runs
SHORT_ROW = 16  # vectors up to which a kept axis is unrolled as a whole, its sums in registers

IDENTITY = {"add": -0.0, "mul": 1.0, "maximum": -math.inf, "minimum": math.inf, "both": 1, "either": 0}

Value = Any


def _cost(kernel: Kernel) -> float:
    """Operations for each element: what the kernel would compute between its loads and its sums, at most."""
    seen: set[Node] = set()
    stack = [node for job in kernel.jobs for node, _ in job.factors]
    total = 0.0
    while stack:
        node = stack.pop()
        if node in seen or node.op.family == "leaf":
            continue
        seen.add(node)
        total += node.op.cost
        if total > CHEAP:
            break
        stack.extend(node.inputs)
    return total * max(len(job.points()) for job in kernel.jobs)


def vectors_a_step(kernel: Kernel, lanes: int) -> int:
    """How many vectors each step of the lane loop handles: more than one in sums of cheap values."""
    if not any(kernel.reduced):
        return 1
    size = kernel.sizes[kernel.lane]
    cheap = _cost(kernel) <= CHEAP
    if kernel.reduced[kernel.lane]:
        return max(1, (PARTIALS_CHEAP if cheap and size >= 2 * PARTIALS_CHEAP else PARTIALS) // lanes)
    vectors = -(-size // lanes)
    if not cheap or kernel.split == kernel.lane:
        return 1
    return vectors if vectors <= SHORT_ROW else SHORT_ROW // 4


class Reductions:
    """The jobs of a kernel that sum, over the loops ``depths``, inside the loops over what they keep."""

    def __init__(self, emitter: KernelEmitter, jobs: Sequence[Job], depths: Sequence[int]) -> None:
        self.e, self.jobs, self.depths = emitter, jobs, depths
        self.horizontal = emitter.vector and emitter.lane_loop in depths
        self.kernel = emitter.kernel
        # Every place that is stored has its own sum; the points that go into it are added to it together.
        self.places: list[tuple[Job, Any, list[Point]]] = []
        for job in jobs:
            found: dict[Any, list[Point]] = {}
            for point in job.points():
                found.setdefault(job.target(point), []).append(point)
            self.places.extend((job, at, points) for at, points in found.items())

    def emit(self, store: Callable[[], None]) -> None:
        """The loops, with ``store`` called where the other jobs store; then the sums are stored."""
        e = self.e
        self.long = self._is_long()
        self.sums = [[self._slot(job) for _ in range(e.width)] for job, _, _ in self.places]
        self._reset()
        if self.long:
            self.stack = [
                [e.reserve(self._kind(job), LEVELS) for _ in range(e.width)] if job.combine == "add" else []
                for job, _, _ in self.places
            ]
            self.runs = e.reserve(I64, 1)
            e.builder.store(ir.Constant(I64, 0), self.runs)
        kept = list(e.counters)
        with ExitStack() as loops:
            for depth in self.depths[:-1]:
                loops.enter_context(e._loop(depth))
            if self.depths:
                self._innermost(self.depths[-1], store)
            else:
                self._body(None, None, None, store)
        e.counters = kept
        e._forget()
        totals = [self._total(k) for k in range(len(self.places))]
        self._store(totals)

    # --- the loop

    def _is_long(self) -> bool:
        """Whether there is more than one run to add up."""
        if all(job.combine != "add" for job in self.jobs):
            return False
        if not self.depths:
            return False
        inner = self.kernel.sizes[self.depths[-1]]
        step = self.e.lanes * self.e.width if self.horizontal else 1
        return len(self.depths) > 1 or -(-inner // step) > RUN + RUN // 2

    def _innermost(self, depth: int, store: Callable[[], None]) -> None:
        e = self.e
        begin, end = e._bounds(depth)
        step = e.lanes * e.width if self.horizontal else 1
        if not self.long:
            with e.counting(begin, end, step, "step") as position:
                self._body(depth, position, end, store)
            return
        with e.counting(begin, end, step * RUN, "run") as first:
            last = e.builder.add(first, ir.Constant(I64, step * RUN))
            last = e.builder.select(e.builder.icmp_signed("<", last, end), last, end)
            with e.counting(first, last, step, "step") as position:
                self._body(depth, position, end, store)
            self._carry()

    def _body(self, depth: int | None, position: Value, end: Value, store: Callable[[], None]) -> None:
        e = self.e
        lane_base = e.counters[e.lane_loop] if e.vector else None
        size = self.kernel.sizes[e.lane_loop] if e.vector else 0
        if depth is not None:
            e.counters[depth] = position
        for v in range(e.width):
            e._forget()
            partial = None
            if self.horizontal:
                partial = self._place_lanes(position, end, size, v)
            elif e.vector:
                shift = min(v * e.lanes, size - e.lanes) if size <= e.lanes * e.width else v * e.lanes
                e.counters[e.lane_loop] = e.builder.add(lane_base, ir.Constant(I64, shift))
            store()
            for (job, _, points), slots in zip(self.places, self.sums, strict=True):
                value = self._tree(job, [self._factor(job, p) for p in points])
                if e.vector:
                    value = e.splat(value)
                if partial is not None:
                    value = self._only_new(job, value, *partial)
                old = e.builder.load(slots[v], typ=self._kind(job))
                e.builder.store(self._combine(job, old, value), slots[v])
        if e.vector and not self.horizontal:
            e.counters[e.lane_loop] = lane_base
        e._forget()

    def _place_lanes(self, position: Value, end: Value, size: int, v: int) -> tuple[Value, int] | None:
        """Set the counter for vector ``v`` of a step; say which step is not full and how many lanes are new in it."""
        e = self.e
        step = e.lanes * e.width
        here = e.builder.add(position, ir.Constant(I64, v * e.lanes))
        tail = size % step
        fresh = min(max(tail - v * e.lanes, 0), e.lanes)
        if not tail or fresh == e.lanes:
            e.counters[e.lane_loop] = here
            return None
        limit = e.builder.sub(end, ir.Constant(I64, e.lanes))
        e.counters[e.lane_loop] = e.builder.select(e.builder.icmp_signed("<", here, limit), here, limit)
        whole = e.builder.icmp_signed("<=", e.builder.add(position, ir.Constant(I64, step)), end)
        return whole, fresh

    def _only_new(self, job: Job, value: Value, whole: Value, fresh: int) -> Value:
        """In the last step: the elements that no step has seen, in their own lanes, and nothing in the others."""
        e = self.e
        nothing = self._nothing(job)
        if not fresh:
            return e.builder.select(whole, value, nothing)
        mask = [k + e.lanes - fresh if k < fresh else e.lanes for k in range(e.lanes)]
        return e.builder.select(whole, value, e.shuffle(value, nothing, mask))

    def _factor(self, job: Job, point: Point) -> Value:
        e = self.e
        values = [e._value(node, at, job.buffer) for node, at in job.reads(point)]
        return reduce(e.mul, values)

    # --- combining

    def _combine(self, job: Job, a: Value, b: Value) -> Value:
        return getattr(self.e, job.combine)(a, b)

    def _tree(self, job: Job, values: list[Value]) -> Value:
        while len(values) > 1:
            pairs = [self._combine(job, *values[k : k + 2]) for k in range(0, len(values) - 1, 2)]
            values = pairs + values[len(values) - len(values) % 2 :]
        return values[0]

    def _kind(self, job: Job) -> Any:
        kind = VALUE_TYPES[job.buffer.dtype]
        return ir.VectorType(kind, self.e.lanes) if self.e.vector else kind

    def _nothing(self, job: Job) -> Value:
        kind = self._kind(job)
        value = IDENTITY[job.combine]
        return ir.Constant(kind, [value] * self.e.lanes if self.e.vector else value)

    def _slot(self, job: Job) -> Value:
        return self.e.reserve(self._kind(job), 1)

    def _reset(self, only: str = "") -> None:
        for (job, _, _), slots in zip(self.places, self.sums, strict=True):
            if not only or job.combine == only:
                for slot in slots:
                    self.e.builder.store(self._nothing(job), slot)

    def _carry(self) -> None:
        """Add the sums of a run to those before, pairwise: full levels carry into the first that is not."""
        e, b = self.e, self.e.builder
        count = b.load(self.runs, typ=I64)
        chosen = [k for k, (job, _, _) in enumerate(self.places) if job.combine == "add"]
        before = b.block
        head, carry, done = (b.append_basic_block(name) for name in ("level", "carry", "done"))
        b.branch(head)
        b.position_at_end(head)
        level = b.phi(I64, "level")
        level.add_incoming(ir.Constant(I64, 0), before)
        bit = b.and_(b.lshr(count, level), ir.Constant(I64, 1))
        b.cbranch(b.icmp_unsigned("==", bit, ir.Constant(I64, 1)), carry, done)
        b.position_at_end(carry)
        for k in chosen:
            for slot, levels in zip(self.sums[k], self.stack[k], strict=True):
                kind = self._kind(self.places[k][0])
                older = b.load(b.gep(levels, [level], source_etype=kind), typ=kind)
                b.store(e.add(older, b.load(slot, typ=kind)), slot)
        following = b.add(level, ir.Constant(I64, 1))
        level.add_incoming(following, carry)
        b.branch(head)
        b.position_at_end(done)
        for k in chosen:
            for slot, levels in zip(self.sums[k], self.stack[k], strict=True):
                kind = self._kind(self.places[k][0])
                b.store(b.load(slot, typ=kind), b.gep(levels, [level], source_etype=kind))
        b.store(b.add(count, ir.Constant(I64, 1)), self.runs)
        self._reset("add")

    def _gather_levels(self, k: int) -> None:
        """Add up what the levels of the counter hold, the small ones first."""
        e, b = self.e, self.e.builder
        kind = self._kind(self.places[k][0])
        count = b.load(self.runs, typ=I64)
        with e.counting(ir.Constant(I64, 0), ir.Constant(I64, LEVELS), 1, "gather") as level:
            bit = b.and_(b.lshr(count, level), ir.Constant(I64, 1))
            with b.if_then(b.icmp_unsigned("==", bit, ir.Constant(I64, 1))):
                for slot, levels in zip(self.sums[k], self.stack[k], strict=True):
                    older = b.load(b.gep(levels, [level], source_etype=kind), typ=kind)
                    b.store(e.add(older, b.load(slot, typ=kind)), slot)

    def _total(self, k: int) -> list[Value]:
        """The value of a place: one for each vector of the step, or one number where lanes were summed."""
        e = self.e
        job = self.places[k][0]
        if self.long and job.combine == "add":
            self._gather_levels(k)
        values = [e.builder.load(slot, typ=self._kind(job)) for slot in self.sums[k]]
        if not self.horizontal:
            return [self._finished(job, v) for v in values]
        while len(values) > 1:
            half = len(values) // 2
            values = [self._combine(job, a, b) for a, b in zip(values[:half], values[half:], strict=True)]
        (total,) = values
        width = e.lanes
        while width > 1:
            width //= 2
            upper = e.shuffle(total, total, [(j + width) % e.lanes for j in range(e.lanes)])
            total = self._combine(job, total, upper)
        return [self._finished(job, e.lane(total, 0))]

    def _finished(self, job: Job, value: Value) -> Value:
        return self.e.sqrt(value) if job.finish == "sqrt" else value

    # --- storing

    def _store(self, totals: list[list[Value]]) -> None:
        e = self.e
        size = self.kernel.sizes[e.lane_loop] if e.vector else 0
        base = e.counters[e.lane_loop] if e.vector else None
        for v in range(len(totals[0]) if totals else 0):
            e._forget()
            if e.vector and not self.horizontal:
                shift = min(v * e.lanes, size - e.lanes) if size <= e.lanes * e.width else v * e.lanes
                e.counters[e.lane_loop] = e.builder.add(base, ir.Constant(I64, shift))
            stores: dict[tuple[Node, tuple[Any, ...]], dict[int, Value]] = {}
            for (job, at, _), values in zip(self.places, totals, strict=True):
                stores.setdefault((job.buffer, at.terms), {})[at.offset] = values[v]
            vector, e.vector = e.vector, e.vector and not self.horizontal
            for (buffer, terms), places in stores.items():
                e._store_group(buffer, terms, places)
            e.vector = vector
        if e.vector:
            e.counters[e.lane_loop] = base
        e._forget()
