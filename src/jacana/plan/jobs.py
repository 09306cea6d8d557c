"""What a plan is made of: jobs that store or reduce, kernels that share their loops, groups that share their tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..graph.index import Index
from ..graph.node import Node, Shape
from .points import At, Point, counter, flat, resolve, unrolled


@dataclass(frozen=True)
class Job:
    """``buffer[rows(d)] = value[d]`` for every point d of ``domain``, or ``+=`` where parts overlap.

    A job with ``summed`` axes is a reduction: what it stores is the combination, over those axes, of the product of
    ``factors`` (each a node and the axes of the domain that its array axes stand for).

    ``scalar``: two points may fall on the same element, so lanes would lose one of them.
    ``tiled``: the buffer has one more axis, the first, with a place for each tile of the loop that is split.
    """

    buffer: Node
    domain: Shape
    rows: tuple[Index, ...]
    factors: tuple[tuple[Node, tuple[int, ...]], ...]
    loops: tuple[int, ...]  # the axes that are loops, in order; all others are unrolled
    lane: int = -1  # which of the loops has the lanes
    accumulate: bool = False
    scalar: bool = False
    summed: tuple[int, ...] = ()
    combine: str = ""
    finish: str = ""
    tiled: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.domain[a] for a in self.loops)

    @property
    def reduced(self) -> tuple[bool, ...]:
        """For each loop, whether it is summed over."""
        return tuple(a in self.summed for a in self.loops)

    def points(self) -> list[Point]:
        """Every unrolled point, with loop counters along the loops."""
        place = {a: k for k, a in enumerate(self.loops)}
        rest = [a for a in range(len(self.domain)) if a not in place]
        result = []
        for fixed in unrolled([self.domain[a] for a in rest]):
            at = dict(zip(rest, fixed, strict=True))
            result.append(tuple(counter(place[a]) if a in place else At(at[a]) for a in range(len(self.domain))))
        return result

    def reads(self, point: Point) -> list[tuple[Node, Point]]:
        """The factors of the value at a point."""
        return [(node, tuple(point[a] for a in axes)) for node, axes in self.factors]

    def target(self, point: Point) -> At:
        """Where a point is stored."""
        here = tuple(resolve(e, point) for e in self.rows)
        return flat((counter(len(self.loops)), *here) if self.tiled else here, self.buffer.shape)


@dataclass
class Kernel:
    """Jobs that share their loops. A job that accumulates has a kernel of its own, or follows others that add numbers.

    ``split`` is the loop that is cut into tiles of ``tile`` (the last one takes what is left over as well).
    ``computed`` are nodes that have a buffer for later kernels and are computed in place in this one.
    """

    sizes: tuple[int, ...]
    jobs: list[Job] = field(default_factory=list)
    split: int | None = None
    tile: int = 0
    computed: frozenset[Node] = frozenset()

    @property
    def accumulate(self) -> bool:
        return self.jobs[0].accumulate

    @property
    def scalar(self) -> bool:
        return self.jobs[0].scalar

    @property
    def reduced(self) -> tuple[bool, ...]:
        """For each loop, whether some job sums over it (the jobs that do not then store along it)."""
        return next((job.reduced for job in self.jobs if job.summed), (False,) * len(self.sizes))

    @property
    def lane(self) -> int:
        return self.jobs[0].lane % max(len(self.sizes), 1)

    @property
    def tiles(self) -> int:
        return 1 if self.split is None else max(1, self.sizes[self.split] // self.tile)

    def work(self) -> int:
        """How many values the kernel computes, about."""
        return math.prod(self.sizes) * sum(len(job.points()) for job in self.jobs)


@dataclass
class Group:
    """Kernels that are run one tile after another: what a kernel stores in its tile, the next finds in the cache."""

    kernels: list[Kernel]

    @property
    def tiles(self) -> int:
        return self.kernels[0].tiles


@dataclass(frozen=True)
class Call:
    """A node computed by NumPy from buffers."""

    node: Node


@dataclass
class NativePlan:
    """Steps in order, and which nodes have buffers (``zeroed``: not every element is written).

    ``partial`` are buffers that belong to no node of the program: one place for each tile of a long reduction.
    """

    steps: Sequence[Group | Call]
    buffers: set[Node]
    zeroed: set[Node]
    partial: set[Node]
