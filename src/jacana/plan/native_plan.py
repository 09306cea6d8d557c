"""From a program to steps: fused kernels, and NumPy calls for what loops are not good at.

A node gets a buffer only if it must (results, inputs of NumPy calls, large sums) or if it pays (expensive and read in
several places or replicated). Everything else is computed where it is read, and a kernel computes each value once.
Kernels on the same level with the same loops become one, so that f and all entries of its Jacobian come out of one
pass over memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..graph.index import Index, Lookup, axes_of, flatten, identity, plain_axis
from ..graph.node import Node, Shape, new_input, topological
from ..graph.ops.contraction import contract
from ..graph.ops.elementwise import cast
from ..graph.ops.movement import assemble, index, injective
from ..graph.ops.reduction import reduce_max, reduce_min
from .grouping import grouped
from .jobs import Call, Job, Kernel, NativePlan
from .points import ZERO, At, Point, known, locate, resolve, unrolled
from .reductions import SPLIT_TILES, UNROLL_REDUCED, Reduction, choose_lane, reduction_of, tile_length

STRAIGHT = 64  # points up to which a job is unrolled without any loop
UNROLL = 48  # points of the other axes that are unrolled inside the lane loop
SUM_UNROLL = 16  # terms of a sum that are unrolled
SMALL_CONTRACTION = 600  # multiplications up to which a contraction is unrolled rather than given to BLAS
ALL_CONTRACTIONS = 2400  # multiplications of all such together, from which those that can be are loops
LANE_MIN = 16  # an axis shorter than this is not worth the lanes if there is a longer one
MAX_STRIDE = 16  # elements from one place to the next up to which lanes are stored by whole blocks
LANE_LOOP = 32  # an axis from which even a small job is a loop in lanes
LANE_LOOP_LARGE = 8  # the same in a large program, whose code for every single point takes seconds to compile
LARGE = 400  # nodes from which a program is large
KINDS = (np.dtype("f8"), np.dtype("f4"), np.dtype("i8"), np.dtype("i4"), np.dtype(bool))
KEEP_COST = 4  # operations from which a value that kernels on several levels need is stored by the first
LOGIC = ("logical_and", "logical_or", "logical_not")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "select")


class NeedsBufferError(Exception):
    """Planning found that nodes cannot be computed where they are read; or, ``later``, that one should be kept."""

    def __init__(self, *nodes: Node, later: bool = False) -> None:
        super().__init__(*nodes)
        self.nodes, self.later = nodes, later


def plan_native(outputs: Sequence[Node], planner: type[Planner] | None = None) -> NativePlan:
    """The steps that compute ``outputs``."""
    forced: set[Node] = set()
    kept: set[Node] = set()
    while True:
        try:
            return (planner or Planner)(outputs, forced, kept).plan()
        except NeedsBufferError as need:
            (kept if need.later else forced).update(need.nodes)


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


def _unrolled_sum(node: Node) -> bool:
    """Whether a contraction is unrolled that could be a loop."""
    if node.op is not contract or not inlinable(node):
        return False
    return bool(math.prod(node.params.sizes) > SUM_UNROLL * max(node.size, 1))


def _reduced_count(node: Node) -> int:
    return node.inputs[0].size // max(node.size, 1)


def requests(node: Node, point: Point) -> list[tuple[Node, Point]]:
    """What computing ``node`` at ``point`` reads."""
    if node.op is index:
        source = node.inputs[0]
        return [(source, tuple(resolve(e, point) for e in node.params.indices))]
    if node.op.family == "elementwise":
        return [] if known(node) is not None else [(i, point) for i in node.inputs]
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

    def __init__(self, outputs: Sequence[Node], forced: set[Node], kept: set[Node]) -> None:
        self.outputs = [node for node in outputs if node.op.family != "leaf"]
        # What is kept is stored for later kernels, and computed in place by those that run as early as it can be.
        self.forced, self.kept = forced | kept, kept - forced
        self.order = topological(outputs)
        self.lane_loop = LANE_LOOP_LARGE if len(self.order) >= LARGE else LANE_LOOP
        self.many_sums = sum(math.prod(n.params.sizes) for n in self.order if _unrolled_sum(n)) > ALL_CONTRACTIONS
        self.users: dict[Node, list[Node]] = {node: [] for node in self.order}
        for node in self.order:
            for i in node.inputs:
                self.users[i].append(node)

    def plan(self) -> NativePlan:
        self._choose_buffers()
        self._choose_tiles()
        level = self._levels()
        jobs: list[tuple[int, Job, int | None]] = []
        calls: list[tuple[int, Call]] = []
        zeroed = set()
        for node in self.order:
            if node not in self.buffers:
                continue
            if node in self.calls:
                calls.append((level[node], Call(node)))
            elif node in self.reductions:
                jobs.extend(self._reduction_jobs(node, level[node]))
            else:
                if node.op is assemble and not node.params.full and (node.params.disjoint or node.size > STRAIGHT):
                    zeroed.add(node)
                jobs.extend((level[node], job, self._split_of(job)) for job in self._jobs(node) if 0 not in job.domain)
        kernels = self._kernels(jobs)
        for step_level, kernel in kernels:
            kernel.computed = frozenset(node for node in self.kept if level.get(node) == step_level)
        steps: list[tuple[int, Kernel | Call]] = [*kernels, *calls]
        reads = {id(step): self._reads(step) for _, step in steps if isinstance(step, Kernel)}
        partial = {job.buffer for _, job, _ in jobs if job.tiled}
        steps.sort(key=lambda step: step[0])
        return NativePlan(grouped([step for _, step in steps], reads), self.buffers, zeroed, partial)

    def _levels(self) -> dict[Node, int]:
        """After how many other steps a buffer can be filled. A sum that is cut into tiles takes two."""
        level: dict[Node, int] = {}
        ready: dict[Node, int] = {}  # the level after which a node can be had, by a load or by computing it in place
        for node in self.order:
            inner = max((ready[i] for i in node.inputs), default=0)
            ready[node] = inner
            if node in self.buffers:
                level[node] = 1 + inner
                if node in self.reductions and self._cut(self.reductions[node]) is not None:
                    level[node] += 1
                if node not in self.kept or node in self.calls or node in self.reductions:
                    ready[node] = level[node]
        self._keep_what_is_needed_later(level, ready)
        return level

    def _keep_what_is_needed_later(self, level: dict[Node, int], ready: dict[Node, int]) -> None:
        """An expensive value that kernels on several levels would compute, each for itself, gets a buffer."""
        roots: dict[Node, frozenset[int]] = {}
        kept = []
        for node in reversed(self.order):
            found: set[int] = set()
            for user in self.users[node]:
                if user in self.buffers:
                    cut = user in self.reductions and self._cut(self.reductions[user]) is not None
                    found.add(level[user] - cut)
                else:
                    found |= roots[user]
            many = len(found) > 1 and node.size > STRAIGHT and node.op.family == "elementwise"
            if many and node.op.cost >= KEEP_COST and node not in self.buffers:
                kept.append(node)
                found = {1 + ready[node]}  # from here on only what stores it computes it
            roots[node] = frozenset(found)
        if kept:
            raise NeedsBufferError(*kept, later=True)

    def _kernels(self, jobs: Sequence[tuple[int, Job, int | None]]) -> list[tuple[int, Kernel]]:
        """Jobs of one level with the same loops as one kernel; reductions first, whose loops other jobs may join."""
        kernels: dict[tuple[object, ...], Kernel] = {}
        result: list[tuple[int, Kernel]] = []
        last: tuple[object, ...] = ()
        for level, job, split in sorted(jobs, key=lambda j: not j[1].summed):
            lane = job.lane % max(len(job.sizes), 1)
            key: tuple[object, ...] = (level, job.sizes, lane, split, job.reduced if job.summed else None)
            if not job.summed and not job.accumulate and job.loops:
                along = (level, job.sizes, lane)
                key = next(
                    (k for k in kernels if k[:3] == along and k[-1] is not None and lane == len(job.sizes) - 1), key
                )
            if job.accumulate:
                # Each addition to what is there is a kernel of its own, and the same part may be added twice; single
                # numbers are added one after the other by one kernel, which computes what they share once.
                single = not job.loops and bool(result) and _adds_single(result[-1][1], job.buffer)
                key = last if single else (level, len(result))
            if key not in kernels:
                tile = self.tile[job.sizes[split]] if split is not None else 0
                kernels[key] = Kernel(job.sizes, [], split, tile)
                result.append((level, kernels[key]))
                last = key
            kernels[key].jobs.append(job)
        return result

    def _choose_tiles(self) -> None:
        """One length of tiles for each size of an axis, so that kernels over the same axis have the same tiles."""
        inner: dict[int, float] = {}
        for node in self.buffers - self.calls:
            found = self.reductions.get(node)
            domains = [found.domain if found else node.shape]
            if node.op is assemble:
                domains = [part.shape for part in node.inputs]
            for domain in domains:
                for n in domain:
                    if n:
                        inner[n] = max(inner.get(n, 1.0), math.prod(domain) / n)
        self.tile = {n: tile_length(count) for n, count in inner.items()}

    def _tiles(self, n: int) -> int:
        return n // self.tile[n] if n in self.tile else 1

    def _split_of(self, job: Job) -> int | None:
        """The loop that is cut into tiles: the first."""
        if not job.loops or job.accumulate or job.scalar:
            return None
        return 0 if self._tiles(job.sizes[0]) >= 2 else None

    def _cut(self, found: Reduction) -> int | None:
        """The summed axis that is cut into tiles with a partial result each, if the sum is long."""
        kept = math.prod(found.domain[a] for a in found.kept)
        axis = max(found.summed, key=lambda a: found.domain[a])
        tiles = self._tiles(found.domain[axis])
        long = found.domain[axis] >= max((found.domain[a] for a in found.kept), default=0)
        return axis if tiles >= SPLIT_TILES and long and tiles * kept * 16 <= math.prod(found.domain) else None

    def _reduction_jobs(self, node: Node, level: int) -> list[tuple[int, Job, int | None]]:
        found = self.reductions[node]
        cut = self._cut(found)
        if cut is None:
            job = self._reduction_job(node, found)
            kept = [k for k, a in enumerate(job.loops) if a not in job.summed]
            split = kept[0] if kept and self._tiles(job.sizes[kept[0]]) >= 2 else None
            return [(level, job, split)]
        shape = tuple(found.domain[a] for a in found.kept)
        partial = new_input((self._tiles(found.domain[cut]), *shape), node.dtype)
        first = self._reduction_job(partial, Reduction(*found[:5]), first=cut, tiled=True)
        axes = tuple(range(len(shape) + 1))
        rest = Reduction(partial.shape, axes[1:], (0,), ((partial, axes),), found.combine, found.finish)
        second = self._reduction_job(node, rest)
        return [(level - 1, first, first.loops.index(cut)), (level, second, None)]

    def _reduction_job(self, buffer: Node, found: Reduction, first: int | None = None, tiled: bool = False) -> Job:
        """Loops over what is kept outside, over what is summed inside, the lanes last in theirs."""
        sizes = found.domain
        lane = choose_lane(found, LANE_MIN)
        rest = sorted((a for a in range(len(sizes)) if a not in (lane, first)), key=lambda a: (-sizes[a], a))
        loops = [] if first in (None, lane) else [first]
        while rest and math.prod(sizes[a] for a in rest) > UNROLL_REDUCED:
            loops.append(rest.pop(0))

        def place(a: int) -> tuple[bool, bool, bool, int]:
            return a in found.summed, a == lane, a != first, a

        order = tuple(sorted([*loops, lane], key=place))
        if math.prod(sizes) <= STRAIGHT and math.prod(sizes[a] for a in found.summed) <= UNROLL:
            order = ()
        return Job(
            buffer,
            sizes,
            found.rows,
            found.factors,
            order,
            order.index(lane) if order else -1,
            summed=found.summed,
            combine=found.combine,
            finish=found.finish,
            tiled=tiled,
        )

    def _choose_buffers(self) -> None:
        results = set(self.outputs)
        wanted = results | self.forced
        once = self.forced - self.kept  # what must be read where it was stored
        self.calls: set[Node] = set()
        self.reductions: dict[Node, Reduction] = {}
        self.buffers: set[Node] = set()
        reachable = set(self.order)
        # Inputs of NumPy calls need buffers, so users are looked at before what they use.
        for node in reversed(self.order):
            if node.op.family == "leaf":
                continue
            if not self.inlinable(node):
                found = self.reduction(node)
                if found is not None and found.domain[choose_lane(found, LANE_MIN)] >= LANE_MIN:
                    self.reductions[node] = found
                else:
                    self.calls.add(node)
                wanted.add(node)
            if node.op in (reduce_max, reduce_min) and self._compared(node.inputs[0]):
                wanted.add(node.inputs[0])
                once.add(node.inputs[0])
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
            pays = self._pays(node, own)
            if pays:
                wanted.add(node)
            elif node in results and node not in once and node.op.family == "elementwise" and node not in self.calls:
                self.kept.add(node)  # a result that others may compute in place, as if it were none
            cost[node] = 0.0 if node in wanted and node not in self.kept else own
        self.buffers = {node for node in wanted if node.op.family != "leaf"}

    def inlinable(self, node: Node) -> bool:
        """Whether a kernel computes the node; a planner for other surroundings may decide otherwise."""
        if self.many_sums and _unrolled_sum(node):
            # Everything summed is computed at every point: a few vectors of hundreds, added up in turn, are megabytes.
            found = self.reduction(node)
            return found is None or found.domain[choose_lane(found, LANE_MIN)] < LANE_MIN
        return inlinable(node)

    def reduction(self, node: Node) -> Reduction | None:
        """The node as a fused loop that sums, if it can be one."""
        return reduction_of(node, KINDS)

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
        if cost < 4 or node.op is index or known(node) is not None:
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
        scalars = [not injective(rows, part.shape) for part, rows in zip(node.inputs, node.params.rows, strict=True)]
        # Their arithmetic belongs in lanes, before the scalar loop that adds them up; all are named at once, as each
        # name starts the plan anew.
        arithmetic = [
            part
            for part, scalar in zip(node.inputs, scalars, strict=True)
            if scalar and part.op.family == "elementwise" and part not in self.buffers
        ]
        if arithmetic:
            raise NeedsBufferError(*arithmetic)
        return [
            self._job(node, part.shape, rows, part, accumulate=True, scalar=scalar)
            for (part, rows), scalar in zip(parts, scalars, strict=True)
        ]

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
        factors = ((value, tuple(range(value.ndim))),)
        added = value.op is assemble and not value.params.disjoint  # found at constant places only
        straight = total <= STRAIGHT and (added or max(domain, default=0) < self.lane_loop)
        if straight and not scalar:
            return Job(buffer, domain, rows, factors, (), accumulate=accumulate)
        if scalar:
            every = tuple(range(len(domain)))
            return Job(buffer, domain, rows, factors, every, accumulate=True, scalar=True)
        target = flatten(rows, buffer.shape, domain) if rows else None
        lane = _lane(dict(getattr(target, "strides", ())), domain)
        rest = sorted((a for a in range(len(domain)) if a != lane), key=lambda a: (-domain[a], a))
        loops = []
        while rest and (domain[rest[0]] > LANE_MIN or math.prod(domain[a] for a in rest) > UNROLL):
            loops.append(rest.pop(0))
        return Job(buffer, domain, rows, factors, (*sorted(loops), lane), accumulate=accumulate)

    def _reads(self, kernel: Kernel) -> list[tuple[Node, Point]]:
        """Every load of the kernel. Finding them shows what cannot be read in place and needs a buffer."""
        loads, needed = self._loads(kernel.jobs, kernel.computed)
        if needed:
            # What fills the new buffers may need others; all are named at once, as each name starts the plan anew.
            found = set(needed)
            while needed:
                try:
                    more = self._loads(self._jobs(needed.pop()), frozenset())[1]
                except NeedsBufferError as need:
                    more = list(need.nodes)
                needed += [node for node in more if node not in found]
                found.update(more)
            raise NeedsBufferError(*found)
        return loads

    def _loads(self, jobs: Sequence[Job], computed: frozenset[Node]) -> tuple[list[tuple[Node, Point]], list[Node]]:
        """What the jobs read from buffers, and the nodes that they can neither compute nor read."""
        seen: set[tuple[Node, Point]] = set()
        loads: list[tuple[Node, Point]] = []
        needed: list[Node] = []
        stack: list[tuple[Node, Point, Node]] = []
        for job in jobs:
            stack.extend((n, at, job.buffer) for p in job.points() for n, at in job.reads(p))
        while stack:
            node, point, own = stack.pop()
            if (node, point) in seen:
                continue
            seen.add((node, point))
            if node.op.family == "leaf" or (node in self.buffers and node is not own and node not in computed):
                loads.append((node, point))
                continue
            try:
                stack.extend((n, p, own) for n, p in requests(node, point))
            except NeedsBufferError as need:
                needed += need.nodes
        return loads, list(dict.fromkeys(needed))


def _adds_single(kernel: Kernel, buffer: Node) -> bool:
    """Whether a kernel adds single numbers to the buffer."""
    return kernel.accumulate and not kernel.sizes and kernel.jobs[0].buffer is buffer


def _lane(strides: dict[int, int], domain: Shape) -> int:
    """The axis that gets the lanes: neighbours in memory, or places whose blocks are stored whole, or the longest.

    Lanes along an axis whose places are far apart are stored one by one.
    """
    axes = sorted(range(len(domain)), key=lambda a: (-domain[a], -a))
    for reach in (1, MAX_STRIDE):
        found = next((a for a in axes if 0 < strides.get(a, 0) <= reach and domain[a] >= LANE_MIN), None)
        if found is not None:
            return found
    return axes[0]


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
