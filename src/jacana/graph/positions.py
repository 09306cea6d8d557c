"""Reading and writing at positions that differ from sample to sample of a batch.

A position that all samples share moves a window; where each has its own, the element is selected by comparing it with
every place along the axis. Selected away is not multiplied by zero, so no infinity or NaN at another place gets in.
A position outside the array gives NaN (of integers, the least one) where a single sample would raise an IndexError,
since a batch computes steps also for samples that take no part in them any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .build import apply, assembled, broadcast_axes, constant_array, full, index_node, sum_axes
from .index import Index, axis
from .node import Node, Operation
from .ops.position import AtParams, read_at


def at_each(op: Operation, params: AtParams, array: Node, starts: Sequence[Node], own: Sequence[bool]) -> Node:
    """``read_at`` or ``write_at`` of a batch.

    Args:
        params: of the batch, its axis in front.
        array: what is read, or the part that is written, with the axis of the batch.
        starts: one for each of ``params.axes``; with the axis of the batch where ``own`` says so.
    """
    places = [(a, start) for a, start, each in zip(params.axes, starts, own, strict=True) if each]
    common = [(a, start) for a, start, each in zip(params.axes, starts, own, strict=True) if not each]
    if not places:
        return op(array, *starts, params=params)
    narrow = tuple(1 if a in {p for p, _ in places} else n for a, n in enumerate(params.source))
    rest = params._replace(source=narrow, axes=tuple(a for a, _ in common))
    others = [start for _, start in common]
    here, valid = _masks(params, places)
    lost = full(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min, (), array.dtype)
    if op is read_at:
        chosen = apply("select", here, array, full(0, params.source, array.dtype))
        found = index_node(sum_axes(chosen, [a for a, _ in places]), narrow, _without(params, [a for a, _ in places]))
        result = read_at(found, *others, params=rest) if others else index_node(found, params.shape, params.indices)
    else:
        found = op(array, *others, params=rest) if others else _placed(array, rest)
        wide = broadcast_axes(found, params.source, range(found.ndim))
        result = apply("select", here, wide, full(0, params.source, array.dtype))
    ok = broadcast_axes(valid, result.shape, (0,))
    return apply("select", ok, result, broadcast_axes(lost, result.shape, ()))


def _masks(params: AtParams, places: Sequence[tuple[int, Node]]) -> tuple[Node, Node]:
    """Where in the source each sample reads or writes, and which samples do so inside it."""
    every: list[Node] = []
    valid: list[Node] = []
    for a, start in places:
        n = params.source[a]
        shape = (*start.shape, n)
        at = broadcast_axes(start, shape, (0,))
        forward, backward = (broadcast_axes(constant_array(np.arange(n) - k), shape, (1,)) for k in (0, n))
        match = apply("logical_or", apply("equal", at, forward), apply("equal", at, backward))
        every.append(broadcast_axes(match, params.source, (0, a)))
        valid.append(apply("logical_and", start >= -n, start < n))
    while len(every) > 1:
        every = [apply("logical_and", every[0], every[1]), *every[2:]]
        valid = [apply("logical_and", valid[0], valid[1]), *valid[2:]]
    return every[0], valid[0]


def _without(params: AtParams, gone: Sequence[int]) -> list[Index]:
    """How the source with axes of length one is read from the sum over these."""
    return [axis(a) for a in range(len(params.source)) if a not in gone]


def _placed(part: Node, params: AtParams) -> Node:
    """The part written at position zero of axes of length one."""
    return assembled([(part, params.indices)], params.source, part.dtype, disjoint=False)


__all__ = ["at_each"]
