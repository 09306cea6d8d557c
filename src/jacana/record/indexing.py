"""``x[key]`` and ``x[key] = value``: NumPy's keys as index expressions.

The number is always read by NumPy itself, so errors and shapes are NumPy's. What is worked out here is, for every
axis of the array, which index each element of the result has: affine for integers and slices, and for integer arrays
whatever ``from_table`` finds in them. Positions of full size are never made for slices.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from ..graph.build import assembled, broadcast_to, cast_to, index_node
from ..graph.index import Affine, Index, axis, from_table, identity, unraveled
from ..graph.node import REGISTRY, Node, Shape
from ..graph.ops.movement import IndexParams, assemble, index
from . import buffer, dynamic
from .lift import any_tracked, operand
from .location import recording_error, user_line
from .recording import current_recording, guard
from .table import implements, is_complex
from .variable import Variable, contains_variable, raw, raw_deep, tracked, wrap_constant, wrap_node

_OFFSETS = tuple(Affine(k) for k in range(512))


def offset(k: int) -> Affine:
    """The expression that is always ``k``."""
    return _OFFSETS[k] if k < 512 else Affine(k)


class Selection(NamedTuple):
    """What a key selects: the shape of the result and for each axis of the array the index of each element."""

    shape: Shape
    indices: tuple[Index, ...]


def plain_key(key: Any) -> Any:
    """The key with plain numbers only. A Variable in it is structure: what it says is guarded."""
    if type(key) is Variable:
        node = key._tracked()
        if node is not None:
            if node.dtype.kind == "f":
                raise IndexError("An index must be an integer or a boolean; write y.astype(int)." + user_line())
            guard(node, key._value)
        return key._value
    if isinstance(key, tuple):
        return tuple(plain_key(k) for k in key)
    if isinstance(key, slice):
        if not contains_variable([key.start, key.stop, key.step]):
            return key
        return slice(*(k if k is None else operator.index(k) for k in (key.start, key.stop, key.step)))
    if isinstance(key, list):
        return np.asarray([plain_key(k) for k in key]) if contains_variable(key) else key
    return key


def select(key: Any, shape: Shape, result_shape: Shape) -> Selection:
    """The index expressions of a key that NumPy has accepted for ``shape``, and whose result has ``result_shape``."""
    items = list(key) if isinstance(key, tuple) else [key]
    parts: list[Any] = []
    ellipsis: int | None = None
    for item in items:
        if item is None or item is Ellipsis or (isinstance(item, (slice, int, np.integer)) and not _is_bool(item)):
            if item is Ellipsis:
                ellipsis = len(parts)
            parts.append(item)
            continue
        array = np.asarray(item)
        _note_structure(item)
        if array.dtype == np.bool_:
            if array.ndim == 0:
                return _by_positions(key, shape)
            parts.extend(np.nonzero(array))
        else:
            parts.append(array.astype(np.int64))
    consumed = sum(1 for p in parts if p is not None and p is not Ellipsis)
    if ellipsis is None:
        parts.append(Ellipsis)
        ellipsis = len(parts) - 1
    parts[ellipsis : ellipsis + 1] = [slice(None)] * (len(shape) - consumed)
    if not any(isinstance(p, np.ndarray) for p in parts):
        return Selection(result_shape, _basic(parts, shape))
    return Selection(result_shape, _advanced(parts, shape, result_shape))


def _is_bool(item: Any) -> bool:
    return isinstance(item, (bool, np.bool_))


def _note_structure(item: Any) -> None:
    """An index array that outlives the recording is watched: it is part of the structure."""
    recording = current_recording()
    if recording is not None and isinstance(item, np.ndarray):
        recording.captures.table(item)


def _slice_index(part: slice, n: int, a: int) -> Index:
    start, _, step = part.indices(n)
    if start == 0 and step == 1:
        return axis(a)
    return Affine(start, ((a, step),))


def _basic(parts: list[Any], shape: Shape) -> tuple[Index, ...]:
    indices: list[Index] = []
    a = 0
    for part in parts:
        if part is None:
            a += 1
            continue
        n = shape[len(indices)]
        if isinstance(part, slice):
            indices.append(_slice_index(part, n, a))
            a += 1
        else:
            k = int(part)
            indices.append(offset(k + n if k < 0 else k))
    return tuple(indices)


def _advanced(parts: list[Any], shape: Shape, result_shape: Shape) -> tuple[Index, ...]:
    # Beside an array, integers are arrays of no axes. The axes of the arrays go where the first of them stood if all
    # stand together, else to the front (NumPy, "Combining advanced and basic indexing").
    special = [k for k, p in enumerate(parts) if p is not None and not isinstance(p, slice)]
    rank = len(np.broadcast_shapes(*(np.shape(parts[k]) for k in special)))
    together = special == list(range(special[0], special[-1] + 1))
    first = sum(1 for p in parts[: special[0]] if not isinstance(p, np.ndarray)) if together else 0
    indices: list[Index] = []
    a = 0 if together else rank
    for k, part in enumerate(parts):
        if together and k == special[0]:
            a += rank
        if part is None:
            a += 1
            continue
        n = shape[len(indices)]
        if isinstance(part, slice):
            indices.append(_slice_index(part, n, a))
            a += 1
        else:
            table = np.asarray(part, dtype=np.int64)
            table = np.where(table < 0, table + n, table)
            axes = tuple(range(first + rank - table.ndim, first + rank))
            indices.append(from_table(table, axes))
    return tuple(indices)


def _by_positions(key: Any, shape: Shape) -> Selection:
    """Keys of no everyday use (``x[True]``): index the positions themselves."""
    size = int(np.prod(shape, dtype=np.int64))
    chosen = np.asarray(np.arange(size).reshape(shape)[key])
    axes = tuple(range(chosen.ndim))
    return Selection(chosen.shape, tuple(from_table(t, axes) for t in unraveled(chosen, shape)))


@implements(operator.getitem)
def getitem(x: Variable, key: Any) -> Any:
    """``x[key]``: a view for integers and slices, a copy for arrays, a number for a full set of integers."""
    if type(key) is int and x._value.ndim == 1:
        value = x._value[key]
        return _scalar(x, value, (offset(key if key >= 0 else key + x._value.shape[0]),))
    position = dynamic.dynamic(key, x._value.ndim)
    if position is not None:
        return dynamic.read(x, position)
    key = plain_key(key)
    value = x._value[key]
    if not isinstance(value, np.ndarray):
        if type(key) is tuple and len(key) == x._value.ndim and all(type(k) is int for k in key):
            where = [offset(k if k >= 0 else k + n) for k, n in zip(key, x._value.shape, strict=True)]
            return _scalar(x, value, tuple(where))
        return _scalar(x, value, select(key, x._value.shape, ()).indices)
    root = x if x._alias is None else x._alias.root
    if np.may_share_memory(value, root._value) and value.size:
        indices = select(key, x._value.shape, value.shape).indices
        if root._writes is not None:
            view = buffer.make_view(x, value, None, indices)
            view._alias.seen = -1
            return view
        node = x._tracked()
        return buffer.make_view(x, value, None if node is None else index_node(node, value.shape, indices), indices)
    node = x._tracked()
    if node is None:
        return wrap_constant(value)
    return wrap_node(index_node(node, value.shape, select(key, x._value.shape, value.shape).indices), value)


def _scalar(x: Variable, value: Any, where: tuple[Any, ...]) -> Any:
    """One element: ``where`` are constant index expressions."""
    node: Node | None
    if x._writes is not None:
        # An element that was written alone, or not at all, is read without making the writes a node.
        number, part = x._writes.at(tuple([e.offset for e in where]))
        box = x._writes.box(where, ()) if part is None and number >= 0 else None
        if box is not None:
            part = x._writes.read(x, box, where, ())
        if part is not None:
            return wrap_node(part, value)
        node = x._node if number < 0 else x._tracked()
    else:
        node = x._node if x._alias is None else x._tracked()
    if node is None:
        return value
    if node.op is index or node.op is assemble:
        return wrap_node(index_node(node, (), where), value)
    return wrap_node(index(node, params=IndexParams((), where)), value)


@implements(operator.setitem)
def setitem(x: Variable, key: Any, value: Any) -> None:
    """``x[key] = value``, seen by everything that shares the memory of ``x``."""
    if is_complex(value):
        raise recording_error(
            "A complex number cannot be written into an array of real numbers. "
            "Make the array with a complex dtype (np.zeros(n, dtype=complex)), or write its real part."
        )
    if type(value) is Variable and not value._value.shape and _set_element(x, key, value):
        return
    if not isinstance(x._value, np.ndarray):
        raise TypeError("a NumPy scalar does not support item assignment")
    value = _value_operand(value)
    position = dynamic.dynamic(key, x._value.ndim)
    if position is not None:
        dynamic.write(x, position, value)
        return
    if type(key) is Variable and np.ndim(raw(value)) == 0 and _is_recorded_mask(key, x):
        _masked_write(x, key, value)
        return
    key = plain_key(key)
    target = np.asarray(x._value[key]) if _is_advanced(key) else x._value[key]
    shape = np.shape(target)
    if type(value) is Variable and value._alias is not None and _same_place(value, x, target):
        return  # the second half of ``x[key] += v``, which has been written already
    node = tracked(value)
    number = raw(value)
    if np.shape(number) != shape and not _fits(np.shape(number), shape):
        x._value[key] = number  # NumPy's own error
    selection = select(key, x._value.shape, shape)
    if node is not None:
        total = _accumulated(x, selection, node) if _is_advanced(key) else None
        if total is not None:
            x._value[key] = number
            buffer.replace(x, total)
            return
        part = cast_to(_fit(node, shape), x._value.dtype)
        buffer.write(x, key, selection.indices, part, number)
    else:
        number = np.asarray(number)
        if number.dtype.kind not in "fiub":
            x._value[key] = number
            return
        root = x if x._alias is None else x._alias.root
        if root._node is None and root._writes is None:
            buffer.write(x, key, selection.indices, None, number)
        else:
            if number.ndim > len(shape):
                value = number.reshape(number.shape[number.ndim - len(shape) :])
            buffer.write(x, key, selection.indices, operand(value, shape, x._value.dtype), number)


SUMMANDS = 1024  # parts that are added up in one node


def _accumulated(x: Variable, at: Selection, node: Node) -> Node | None:
    """``x`` after ``x[key] += part``, of which ``node`` is the sum; None if that is not what is written.

    What is added is scattered, as by ``np.add.at``, and the rest of ``x`` stays where it is: a loop that adds up
    elements would cut the array into more and more pieces otherwise.
    """
    base, rows = x._node, at.indices
    if x._alias is not None or x._writes is not None or base is None:
        return None
    if node.dtype != base.dtype or node.shape != at.shape:
        return None
    if node.op.name not in ("add", "subtract") or node.inputs[0] is not index_node(base, node.shape, rows):
        return None
    if buffer.repeats(rows, base.shape, node.shape):
        return None
    part = node.inputs[1] if node.op.name == "add" else REGISTRY["negative"](node.inputs[1])
    parts: list[tuple[Node, tuple[Index, ...]]] = [(base, identity(base.ndim))]
    sums = base.op is assemble and (len(base.inputs) == 1 or not base.params.disjoint)
    if sums and len(base.inputs) < SUMMANDS:
        parts = list(zip(base.inputs, base.params.rows, strict=True))
    return assembled([*parts, (part, rows)], base.shape, base.dtype, disjoint=False)


def _fit(node: Node, shape: Shape) -> Node:
    """Broadcast to ``shape``; NumPy lets an assigned value have further leading axes of length one."""
    if node.ndim > len(shape):
        lead = node.ndim - len(shape)
        node = index_node(node, node.shape[lead:], [Affine(0)] * lead + [axis(k) for k in range(len(shape))])
    return broadcast_to(node, shape)


def _set_element(x: Variable, key: Any, value: Variable) -> bool:
    """The short way for what loops do: one number into one element. False if it is not that."""
    where = (key,) if type(key) is int else key
    shape = x._value.shape
    if type(where) is not tuple or len(where) != len(shape) or not shape:
        return False
    for k in where:
        if type(k) is not int:
            return False
    node = value._tracked()
    if node is None:
        return False
    if node.dtype != x._value.dtype:
        node = cast_to(node, x._value.dtype)
    rows = tuple([offset(k if k >= 0 else k + n) for k, n in zip(where, shape, strict=True)])
    buffer.write(x, key, rows, node, value._value)
    return True


def _is_recorded_mask(key: Variable, x: Variable) -> bool:
    return key.dtype == np.bool_ and key._value.ndim <= x._value.ndim and tracked(key) is not None


def _fits(given: Shape, shape: Shape) -> bool:
    lead = len(given) - len(shape)
    if lead > 0:
        if any(n != 1 for n in given[:lead]):
            return False
        given = given[lead:]
    return all(n in (1, m) for n, m in zip(reversed(given), reversed(shape), strict=False))


def _is_advanced(key: Any) -> bool:
    items = key if isinstance(key, tuple) else (key,)
    return any(isinstance(k, (np.ndarray, list, bool, np.bool_)) for k in items)


def _same_place(value: Variable, x: Variable, target: Any) -> bool:
    number = value._value
    assert value._alias is not None
    root = x if x._alias is None else x._alias.root
    return (
        value._alias.root is root
        and isinstance(target, np.ndarray)
        and target.shape == number.shape
        and target.strides == number.strides
        and target.__array_interface__["data"] == number.__array_interface__["data"]
    )


def _value_operand(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and contains_variable(value):
        from .creation import array

        return array(value)
    return value


def _masked_write(x: Variable, mask: Variable, value: Any) -> None:
    """``x[mask] = number`` with a mask that depends on the arguments: a selection, so the mask is not a guard."""
    node = mask.node
    shape = x._value.shape
    if node.shape != shape[: node.ndim]:
        x._value[mask._value] = 0  # NumPy's own IndexError
    spread = index_node(node, shape, [axis(k) for k in range(node.ndim)])
    dtype = x._value.dtype
    chosen = REGISTRY["select"](spread, operand(value, shape, dtype), operand(x, shape, dtype))
    x._value[mask._value] = raw(value)
    buffer.replace(x, chosen)


@implements(np.bincount)
def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    """Weights summed by group: a scatter with addition. The groups are structure."""
    groups = np.asarray(plain_key(x))
    if weights is None:
        return np.bincount(groups, None, minlength)
    weights = _value_operand(weights)
    value = np.bincount(groups, raw(weights), minlength)
    if tracked(weights) is None:
        return wrap_constant(value)
    _note_structure(groups)
    rows = (from_table(groups.astype(np.int64), (0,)),)
    part = operand(weights, groups.shape, value.dtype)
    return wrap_node(assembled([(part, rows)], value.shape, value.dtype, disjoint=False), value)


def scatter_add(x: Variable, key: Any, value: Any) -> None:
    """``np.add.at(x, key, value)``: every occurrence of an index adds."""
    key = plain_key(key)
    shape = np.shape(x._value[key])
    dtype = x._value.dtype
    value = _value_operand(value)
    if not any_tracked((x, value)):
        np.add.at(x._value, key, raw(value))
        buffer.replace(x, None)
        return
    before = tracked(x)
    rows = select(key, x._value.shape, shape).indices
    part = operand(value, shape, dtype)
    added = assembled([(part, rows)], x._value.shape, dtype, disjoint=False)
    if before is None and not x._value.any() and not np.signbit(x._value).any():
        node = added  # adding to structural zeros
    elif before is not None and before.op.name == "assemble" and not before.inputs:
        node = added
    else:
        node = REGISTRY["add"](operand(x, x._value.shape, dtype), added)
    np.add.at(x._value, key, raw_deep(value))
    buffer.replace(x, node)
