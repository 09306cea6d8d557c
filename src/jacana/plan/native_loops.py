"""Planning the body of a loop: like any program, but small pieces run many times and nothing may call Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..graph.index import Affine, Index
from ..graph.node import Node, Shape
from ..graph.ops.contraction import contract
from ..graph.ops.control import RunParams, loop_part, loop_run
from ..graph.ops.linalg import (
    cholesky_factor,
    cholesky_tangent,
    cofactor,
    determinant,
    inverse,
    inverse_or_nan,
    slogdet,
    solve,
)
from ..graph.ops.movement import assemble, index, injective
from ..graph.ops.position import read_at, write_at
from .jobs import Call, Group, Job, NativePlan
from .loops import lowered
from .native_plan import LANE_MIN, STRAIGHT, Planner, inlinable, plan_native
from .reductions import Reduction

INLINE_CONTRACTION = 32  # multiplications up to which a sum of products is written out where it is read
LARGEST_MATRIX = 48  # rows up to which elimination is written here: beyond, LAPACK's blocks are worth a call
# Functions of small matrices that machine code has. The second input of Cholesky's stands for a displacement only.
MATRICES = (solve, inverse, inverse_or_nan, determinant, slogdet, cofactor, cholesky_factor, cholesky_tangent)
INTEGER_ARITHMETIC = frozenset({"add", "subtract", "multiply", "negative"})


class LoopPlanner(Planner):
    """Vectors of a few lanes are worth a loop here, and products of small matrices have loops of their own."""

    def inlinable(self, node: Node) -> bool:
        if node.op is contract and node.dtype.kind == "f" and math.prod(node.params.sizes) > INLINE_CONTRACTION:
            return False
        if node.op.name in INTEGER_ARITHMETIC and all(i.dtype == np.int64 for i in node.inputs):
            return True  # wraps around as NumPy's does
        return inlinable(node)

    def reduction(self, node: Node) -> Reduction | None:
        """Sums are written by the loop itself or left to NumPy: a step is short."""
        return None

    def _choose_tiles(self) -> None:
        self.tile = {}  # a step is short: no loop in it is cut

    def _job(
        self,
        buffer: Node,
        domain: Shape,
        rows: tuple[Index, ...],
        value: Node,
        accumulate: bool = False,
        scalar: bool = False,
    ) -> Job:
        adds = value.op is assemble and not value.params.disjoint
        total = math.prod(domain)
        factors = ((value, tuple(range(value.ndim))),)
        if not scalar and not accumulate and not adds and total <= STRAIGHT and domain and domain[-1] >= LANE_MIN:
            if total // domain[-1] > 4:
                return Job(buffer, domain, rows, factors, tuple(range(len(domain))))
            return Job(buffer, domain, rows, factors, (len(domain) - 1,))
        return super()._job(buffer, domain, rows, value, accumulate, scalar)


class Access(NamedTuple):
    """Where an operand of a product lies: ``buffer[offset + sum(stride * label)]``."""

    buffer: Node
    offset: int
    strides: tuple[int, ...]  # by label


@dataclass(frozen=True)
class LoopPlan:
    """A loop all of which can be machine code.

    Attributes:
        params: the loop.
        results: what its body computes, with the loops inside taken apart; `go` likewise.
        plan: the steps of the body.
        check: the steps that compute `go`.
    """

    params: RunParams
    results: tuple[Node, ...]
    go: Node | None
    plan: NativePlan
    check: NativePlan | None

    @property
    def work(self) -> int:
        """How many values a step computes, about."""
        return _work(self.plan)


SOME_STEPS = 8  # how many a loop has whose number of steps only a run can tell, about


def _work(plan: NativePlan) -> int:
    total = 0
    for step in plan.steps:
        if isinstance(step, Group):
            total += sum(kernel.work() for kernel in step.kernels)
        elif step.node.op is contract:
            total += math.prod(step.node.params.sizes)
        elif step.node.op in MATRICES:
            total += step.node.inputs[0].size * step.node.inputs[0].shape[-1]
        elif step.node.op is loop_run:
            inner = plan_loop(step.node.params)
            assert inner is not None
            total += inner.work * (SOME_STEPS if inner.params.body.dynamic else inner.params.length)
    return total


@lru_cache(maxsize=64)
def plan_loop(params: RunParams) -> LoopPlan | None:
    """The plan of a loop; None if it has no steps, or one of them needs NumPy."""
    body = params.body
    if params.length == 0:
        return None
    results = tuple(lowered(body.results))
    go = None if body.go is None else lowered([body.go])[0]
    plan = plan_body(results)
    check = None if go is None else plan_body([go])
    if plan is None or (go is not None and check is None):
        return None
    return LoopPlan(params, results, go, plan, check)


def plan_body(outputs: Sequence[Node]) -> NativePlan | None:
    """The steps of a body, all of which can be machine code; None if one of them needs NumPy."""
    plan = plan_native(outputs, LoopPlanner)
    calls = {step.node for step in plan.steps if isinstance(step, Call)}
    for node in calls:
        if node.op is contract and node.dtype.kind == "f":
            if any(access(plan, calls, node, k) is None for k in range(len(node.inputs))):
                return None
        elif node.op in (read_at, write_at):
            if node.dtype.kind != "f" or not all(isinstance(e, Affine) for e in node.params.indices):
                return None
            if through_views(calls, node.inputs[0]) is None:
                return None
            if node.op is write_at and not injective(node.params.indices, node.params.shape):
                return None
        elif node.op in MATRICES:
            if not _small_matrices(plan, calls, node):
                return None
        elif node.op is loop_run:
            if plan_loop(node.params) is None or any(argument(plan, calls, i) is None for i in node.inputs):
                return None
        elif node.op is loop_part:
            continue
        elif node.op is not index or not all(isinstance(e, Affine) for e in node.params.indices):
            return None
    return plan


def _small_matrices(plan: NativePlan, calls: set[Node], node: Node) -> bool:
    """Whether a function of matrices can be machine code here."""
    a = node.inputs[0]
    if node.op is cholesky_tangent:  # zeros, which nobody reads
        return True
    if a.dtype.kind != "f" or a.size == 0 or node.size == 0:
        return False
    if a.shape[-1] > LARGEST_MATRIX:
        return False
    read = node.inputs[: 2 if node.op is solve else 1]
    return all(argument(plan, calls, i) is not None for i in read)


def called(plan: NativePlan) -> set[Node]:
    """The nodes that no kernel computes."""
    return {step.node for step in plan.steps if isinstance(step, Call)}


def access(plan: NativePlan, calls: set[Node], node: Node, k: int) -> Access | None:
    """How the k-th operand of a product is read, through any views."""
    labels = node.params.labels[k]
    return _through(calls, node.inputs[k], [(0, {x: 1}) for x in labels], len(node.params.sizes))


def through_views(calls: set[Node], source: Node) -> Access | None:
    """How an array is read by its own axes, through any views."""
    return _through(calls, source, [(0, {a: 1}) for a in range(source.ndim)], source.ndim)


def argument(plan: NativePlan, calls: set[Node], node: Node) -> tuple[Access, bool] | None:
    """How an argument of a loop inside is read, and whether it lies in one piece; None if neither serves."""
    found = through_views(calls, node)
    if found is None or not (found.buffer in plan.buffers or found.buffer.op.family == "leaf"):
        return None
    strides = [math.prod(node.shape[a + 1 :]) for a in range(node.ndim)]
    dense = all(n == 1 or s == t for n, s, t in zip(node.shape, found.strides, strides, strict=True))
    dense = dense or node.size == 0
    return (found, dense) if dense or node.dtype.kind == "f" else None


def _through(calls: set[Node], source: Node, places: list[tuple[int, dict[int, int]]], count: int) -> Access | None:
    """``places``: the coordinate along each axis of the source, affine in ``count`` labels."""
    while source in calls and source.op is index:
        moved = []
        for e in source.params.indices:
            if not isinstance(e, Affine):
                return None
            offset, strides = e.offset, dict[int, int]()
            for a, s in e.strides:
                offset += s * places[a][0]
                for x, c in places[a][1].items():
                    strides[x] = strides.get(x, 0) + s * c
            moved.append((offset, strides))
        places, source = moved, source.inputs[0]
    offset, total = 0, [0] * count
    for a, (here, strides) in enumerate(places):
        step = math.prod(source.shape[a + 1 :])
        offset += step * here
        for x, c in strides.items():
            total[x] += step * c
    return Access(source, offset, tuple(total))


__all__ = [
    "MATRICES",
    "Access",
    "LoopPlan",
    "LoopPlanner",
    "access",
    "argument",
    "called",
    "plan_body",
    "plan_loop",
    "through_views",
]
