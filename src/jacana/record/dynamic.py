"""``x[i]`` and ``x[i] = v`` in the body of a loop, with an ``i`` that differs from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..graph.build import apply, cast_to, full
from ..graph.index import Affine, Index
from ..graph.node import Node
from ..graph.ops.control import INT
from ..graph.ops.position import AtParams, read_at, write_at
from . import buffer
from .lift import operand
from .recording import current_recording
from .variable import Variable, raw, wrap_node


class Position(NamedTuple):
    """A key taken apart: with plain numbers as they are now, with zeros, and where integers are entered."""

    now: Any
    base: Any
    axes: tuple[int, ...]
    starts: tuple[Node, ...]


def dynamic(key: Any, rank: int) -> Position | None:
    """The parts of a key of integers, slices, None and Ellipsis in which an integer varies with the step."""
    recording = current_recording()
    if recording is None or not recording.bodies:
        return None
    items = key if isinstance(key, tuple) else (key,)
    if not any(type(k) is Variable for k in items):
        return None
    now: list[Any] = []
    base: list[Any] = []
    axes: list[int] = []
    starts: list[Node] = []
    axis = 0
    taken = sum(1 for k in items if k is not None and k is not Ellipsis)
    for k in items:
        node = k._tracked() if type(k) is Variable else None
        if node is not None and node.dtype.kind in "iu" and node.shape == () and recording.varies(node):
            now.append(int(raw(k)))
            base.append(0)
            axes.append(axis)
            starts.append(cast_to(node, INT))
        elif (node is None and isinstance(k, (int, np.integer, slice))) or k is None or k is Ellipsis:
            now.append(k)
            base.append(k)
        else:
            return None
        axis += rank - taken if k is Ellipsis else k is not None
    if not starts:
        return None
    return Position(tuple(now), tuple(base), tuple(axes), tuple(starts))


def _params(position: Position, x: Variable, shape: tuple[int, ...]) -> AtParams:
    from .indexing import select

    indices: list[Index] = list(select(position.base, x._value.shape, shape).indices)
    for a in position.axes:
        indices[a] = Affine(0)
    return AtParams(shape, x._value.shape, tuple(indices), position.axes)


def read(x: Variable, position: Position) -> Any:
    """``x[key]``, a copy."""
    value = x._value[position.now]
    node = operand(x, x._value.shape, x._value.dtype)
    params = _params(position, x, np.shape(value))
    return wrap_node(read_at(node, *position.starts, params=params), np.array(value)[()])


def write(x: Variable, position: Position, value: Any) -> None:
    """``x[key] = value``: what is there is selected away where the value is written."""
    shape, dtype = x._value.shape, x._value.dtype
    params = _params(position, x, np.shape(x._value[position.now]))
    part = operand(value, params.shape, dtype)
    placed = write_at(part, *position.starts, params=params)
    ones = write_at(full(1, params.shape, INT), *position.starts, params=params)
    here = apply("not_equal", ones, full(0, shape, INT))
    chosen = apply("select", here, placed, operand(x, shape, dtype))
    x._value[position.now] = raw(value)
    buffer.replace(x, chosen)


__all__ = ["Position", "dynamic", "read", "write"]
