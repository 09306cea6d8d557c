"""Kernels that follow one another over the same axis are run tile by tile, so that data stays in the cache."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.index import plain_axis
from ..graph.node import Node
from .jobs import Call, Group, Kernel
from .points import Point, counter


def grouped(steps: Sequence[Kernel | Call], reads: dict[int, list[tuple[Node, Point]]]) -> list[Group | Call]:
    """The steps, each kernel in the last group that it can join, all others as early as what they need allows."""
    result: list[Group | Call] = []
    for step in steps:
        loads = reads.get(id(step), [])
        needed = set(step.node.inputs) if isinstance(step, Call) else {node for node, _ in loads}
        place = len(result)
        while place:
            earlier = result[place - 1]
            if isinstance(step, Kernel) and isinstance(earlier, Group) and _fits(earlier, step, loads):
                earlier.kernels.append(step)
                break
            if _stored(earlier) & needed or (isinstance(step, Kernel) and _same_buffer(earlier, step)):
                result.insert(place, Group([step]) if isinstance(step, Kernel) else step)
                break
            place -= 1
        else:
            result.insert(0, Group([step]) if isinstance(step, Kernel) else step)
    return result


def _stored(step: Group | Call) -> set[Node]:
    if isinstance(step, Call):
        return {step.node}
    return {job.buffer for kernel in step.kernels for job in kernel.jobs}


def _same_buffer(step: Group | Call, kernel: Kernel) -> bool:
    """Whether both add to the same buffer: then they stay apart and in order."""
    return kernel.accumulate and bool(_stored(step) & {job.buffer for job in kernel.jobs})


def _fits(group: Group, kernel: Kernel, loads: Sequence[tuple[Node, Point]]) -> bool:
    """Whether the kernel reads nothing of the group's results but what the same tile has stored."""
    first = group.kernels[0]
    if kernel.split is None or first.split is None or kernel.accumulate or first.accumulate:
        return False
    if (kernel.tile, kernel.sizes[kernel.split]) != (first.tile, first.sizes[first.split]):
        return False
    stored = _stored(group)
    mine = counter(kernel.split)
    for node, point in loads:
        if node in stored:
            axis = _tiled_axis(group, node)
            if axis is None or point[axis] != mine:
                return False
    return True


def _tiled_axis(group: Group, node: Node) -> int | None:
    """The axis of a buffer along which each tile of the group stores its own part, if there is one."""
    axes = set()
    for kernel in group.kernels:
        for job in kernel.jobs:
            if job.buffer is not node:
                continue
            assert kernel.split is not None
            along = job.loops[kernel.split]
            if job.tiled or along in job.summed:
                return None
            axes.add(next((k for k, e in enumerate(job.rows) if plain_axis(e) == along), None))
    return axes.pop() if len(axes) == 1 else None
