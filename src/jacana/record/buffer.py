"""Arrays that are written to: views that stay views, and element assignments that become one ``assemble`` node.

NumPy's own memory tells who sees a write: the number of a view *is* a NumPy view of the number of its root, so numbers
follow by themselves. Nodes follow by versions: a write goes to the root and raises its version; a view whose version
is older reads the root again.

Writes are collected. ``owner`` says for each element of the root which write it belongs to (-1: none since the last
node); a loop that fills an array of n elements leaves n small writes and no node until somebody reads, and then it is
one ``assemble`` of n parts in which every part keeps exactly the elements that are still its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.build import assembled, constant_array, full, index_node
from ..graph.index import Affine, Index, axes_of, bounds, evaluate, from_table, substitute, unraveled
from ..graph.node import Array, Node, Shape
from ..graph.ops import movement
from .location import recording_error, unsupported
from .table import UFUNCS, is_complex

if TYPE_CHECKING:
    from .variable import Variable

Indices = tuple[Index, ...]
Box = tuple[tuple[int, int], ...]  # for each axis the first and the last place
_MAX_BOXES = 8
_SMALL_READ = 2  # how many times larger an array is than what is read of it without a node for all of it
_FEW_READS = 64  # since the last write, and an eighth of the elements
_LARGE_PART = 16  # a part so many times larger than a box is not looked through for each box


class Alias:
    """What makes a Variable a view: the root, where each element of the view is in it, and the version last read."""

    __slots__ = ("root", "seen", "where")

    def __init__(self, root: Variable, where: Indices | None, seen: int) -> None:
        self.root = root
        self.where = where
        self.seen = seen

    def positions(self, value: Array) -> Indices:
        """For each axis of the root, the index of each element of the view."""
        if self.where is None:
            self.where = positions_by_address(value, self.root._value)
        return self.where

    def refresh(self, view: Variable) -> None:
        """Bring the node of the view up to date with the root."""
        root = self.root
        if self.seen == root._version:
            return
        self.seen = root._version
        where, shape = self.positions(view._value), view._value.shape
        if root._writes is not None:
            box = root._writes.box(where, shape)
            if box is not None:
                view._node = root._writes.read(root, box, where, shape)
                return
            root._writes.flush(root)
        view._node = None if root._node is None else index_node(root._node, shape, where)


class Writes:
    """The element assignments to one Variable since its node was made."""

    __slots__ = ("_read", "_reads", "owner", "parts")

    def __init__(self, shape: Shape) -> None:
        self.owner: Array = np.full(shape, -1, dtype=np.int64)
        self.parts: list[tuple[Node, Indices]] = []
        self._read: dict[Box, Node | None] = {}  # boxes that were read since the last write
        self._reads = 0  # how often, since then

    def add(self, part: Node, rows: Indices) -> None:
        """``root[rows] = part``; where ``rows`` hits an element twice, the last one stays, as in NumPy."""
        number = len(self.parts)
        self._read.clear()
        self._reads = 0
        if not part.shape:
            self.owner[tuple([e.offset for e in rows])] = number  # type: ignore[union-attr]
        else:
            target = movement.view(self.owner, rows, part.shape) if _distinct(rows, part.shape) else None
            if target is not None:
                target[...] = number
            else:
                flat = _flat(rows, self.owner.shape, part.shape)
                last = _last_occurrences(flat)
                if last is not None:
                    chosen = [from_table(t, (0,)) for t in unraveled(last, part.shape)]
                    part = index_node(part, last.shape, chosen)
                    rows = tuple(substitute(e, chosen, last.shape) for e in rows)
                    flat = flat[last]
                self.owner.reshape(-1)[flat] = number
        self.parts.append((part, rows))

    def flush(self, root: Variable) -> None:
        """Make the node of ``root``: what each part still owns, and what is left of the array before the writes."""
        root._writes = None
        counts = np.bincount(self.owner.reshape(-1) + 1, minlength=len(self.parts) + 1).tolist()
        kept = _remains(root, self.owner == -1) if counts[0] else []
        everywhere = tuple((0, n - 1) for n in self.owner.shape)
        for number, count in enumerate(counts[1:]):
            if count:
                part, rows = self.parts[number]
                kept.extend([(part, rows)] if count == part.size else self._own(number, everywhere))
        root._node = assembled(kept, self.owner.shape, root._value.dtype, disjoint=True)

    def _own(self, number: int, box: Box) -> list[tuple[Node, Indices]]:
        """The elements that a part still owns in a box, as boxes of the part."""
        part, rows = self.parts[number]
        where = np.broadcast_arrays(*(evaluate(e, part.shape) for e in rows))
        mine = self.owner[tuple(where)] == number
        for places, (low, high) in zip(where, box, strict=True):
            mine = mine & (places >= low) & (places <= high)
        if mine.all():
            return [(part, rows)]
        return [
            (index_node(part, shape, chosen), tuple(substitute(e, chosen, shape) for e in rows))
            for shape, chosen in boxes(np.broadcast_to(mine, part.shape))
        ]

    def box(self, where: Indices, shape: Shape) -> Box | None:
        """The part of the array that is to be one node for a read at ``where``; None if that is all of it.

        A loop that fills a row of an array at each step reads the row before it: with a node for that row alone, steps
        take what the step before them made, and no node of the whole array is needed until the end. A read with fixed
        places along some axes is of all elements with these places, so that reads beside each other share a node. Who
        reads much of an array that is not written to any more is better off with one node for all of it.
        """
        if not all(isinstance(e, Affine) for e in where) or math.prod(shape) == 0:
            return None
        self._reads += 1
        if self._reads > _FEW_READS + self.owner.size // 8:
            return None
        box = tuple(bounds(e, shape) for e in where)
        if any(low == high for low, high in box):
            box = tuple(
                (low, high) if low == high else (0, n - 1) for (low, high), n in zip(box, self.owner.shape, strict=True)
            )
        if box in self._read:
            return box
        size = math.prod(high - low + 1 for low, high in box)
        if _SMALL_READ * size > self.owner.size:
            return None
        parts = np.unique(self.owner[_inside(box)]).tolist()
        return box if all(k < 0 or self.parts[k][0].size <= _LARGE_PART * size for k in parts) else None

    def read(self, root: Variable, box: Box, where: Indices, shape: Shape) -> Node | None:
        """The node of the elements at ``where``, by way of one node for ``box``; None if they are constant."""
        if box not in self._read:
            self._read[box] = self._box_node(root, box)
        node = self._read[box]
        return None if node is None else index_node(node, shape, _moved(where, box))

    def _box_node(self, root: Variable, box: Box) -> Node | None:
        inside = _inside(box)
        owner = self.owner[inside]
        kept: list[tuple[Node, Indices]] = []
        numbers = np.unique(owner).tolist()
        if numbers == [-1] and root._node is None:
            return None
        if numbers[0] < 0:
            mask = np.zeros(self.owner.shape, dtype=bool)
            mask[inside] = owner == -1
            kept.extend(_remains(root, mask))
        for number in numbers[numbers[0] < 0 :]:
            kept.extend(self._own(number, box))
        shape = tuple(high - low + 1 for low, high in box)
        return assembled([(p, _moved(rows, box)) for p, rows in kept], shape, root._value.dtype, disjoint=True)

    def at(self, where: tuple[int, ...]) -> tuple[int, Node | None]:
        """Which write an element belongs to (-1: none), and its node if it was written alone."""
        number = int(self.owner[where])
        if number < 0:
            return number, None
        part = self.parts[number][0]
        return number, part if not part.shape else None


def _remains(root: Variable, mask: Array) -> list[tuple[Node, Indices]]:
    """The parts of ``root`` that no write has covered. Structural zeros remain so by not being written at all."""
    base = root._node
    if base is not None:
        if base.op is movement.assemble and not base.inputs:
            return []
        return [(index_node(base, shape, chosen), chosen) for shape, chosen in boxes(mask)]
    left = root._value[mask]
    if not left.any() and not np.signbit(left).any():
        return []
    parts = []
    for shape, chosen in boxes(mask):
        values = root._value[tuple(np.broadcast_to(evaluate(e, shape), shape) for e in chosen)]
        same = values.size > 1 and values.tobytes() == values.dtype.type(values.flat[0]).tobytes() * values.size
        node = full(values.flat[0], shape, values.dtype) if same else constant_array(values)
        parts.append((node, chosen))
    return parts


def _inside(box: Box) -> tuple[slice, ...]:
    return tuple(slice(low, high + 1) for low, high in box)


def _moved(indices: Indices, box: Box) -> Indices:
    """Places in an array as places in a box of it."""
    return tuple(
        Affine(e.offset - low, e.strides) if isinstance(e, Affine) else from_table(e.table.values - low, e.axes)
        for e, (low, _) in zip(indices, box, strict=True)
    )


def _flat(rows: Sequence[Index], shape: Shape, sizes: Shape) -> Array:
    positions = np.broadcast_arrays(*(evaluate(e, sizes) for e in rows), np.empty(sizes, dtype=bool))[:-1]
    return np.ravel_multi_index(positions, shape).reshape(-1)


def repeats(rows: Sequence[Index], shape: Shape, sizes: Shape) -> bool:
    """Whether two of the points say the same place of an array of that shape."""
    return not _distinct(rows, sizes) and _last_occurrences(_flat(rows, shape, sizes)) is not None


def _distinct(rows: Sequence[Index], sizes: Shape) -> bool:
    """Whether it is plain that no two points have the same rows (else the positions themselves are compared)."""
    alone = [axes_of(e)[0] for e in rows if isinstance(e, Affine) and len(e.strides) == 1]
    return all(n <= 1 or a in alone for a, n in enumerate(sizes))


def _last_occurrences(flat: Array) -> Array | None:
    """Where each value occurs last, or None if no value occurs twice."""
    unique, first = np.unique(flat[::-1], return_index=True)
    return None if unique.size == flat.size else np.sort(flat.size - 1 - first)


def boxes(mask: Array) -> list[tuple[Shape, Indices]]:
    """The true elements of ``mask`` as a few rectangles, which keep their indices affine, or as one list of points."""
    points = np.nonzero(mask)
    if mask.ndim == 1 and points[0].size > 1:
        alone = from_table(points[0], (0,))
        if isinstance(alone, Affine):
            return [((points[0].size,), (alone,))]
    left = mask.copy()
    found: list[tuple[Shape, Indices]] = []
    while left.any():
        if len(found) == _MAX_BOXES:
            size = points[0].size
            return [((size,), tuple(from_table(p, (0,)) for p in points))]
        corner = np.unravel_index(int(np.argmax(left)), left.shape)
        region = [slice(int(c), int(c) + 1) for c in corner]
        for k in reversed(range(mask.ndim)):
            line = left[(*region[:k], slice(int(corner[k]), None), *region[k + 1 :])]
            complete = line.all(axis=tuple(j for j in range(mask.ndim) if j != k))
            length = complete.size if complete.all() else int(np.argmin(complete))
            region[k] = slice(int(corner[k]), int(corner[k]) + length)
        left[tuple(region)] = False
        sizes = [r.stop - r.start for r in region]
        place = iter(range(len(sizes)))
        indices = tuple(
            Affine(int(c), ((next(place), 1),)) if n > 1 else Affine(int(c)) for c, n in zip(corner, sizes, strict=True)
        )
        found.append((tuple(n for n in sizes if n > 1), indices))
    return found


def positions_by_address(view: Array, root: Array) -> Indices:
    """For each axis of ``root``, the index of each element of ``view``, found from where it lies in memory."""
    address = np.full((1,) * view.ndim, _start(view) - _start(root), dtype=np.int64)
    for k, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        ramp = stride * np.arange(n, dtype=np.int64)
        address = address + ramp.reshape([-1 if j == k else 1 for j in range(view.ndim)])
    result: list[Index] = [Affine(0)] * root.ndim
    long_axes = [k for k in range(root.ndim) if root.shape[k] > 1]
    for k in long_axes:
        if root.strides[k] < 0:
            address = address - root.strides[k] * (root.shape[k] - 1)
    for k in sorted(long_axes, key=lambda k: -abs(root.strides[k])):
        step, address = np.divmod(address, abs(root.strides[k]))
        result[k] = from_table(step if root.strides[k] > 0 else root.shape[k] - 1 - step, tuple(range(view.ndim)))
    assert not address.any()
    return tuple(result)


def _start(array: Array) -> int:
    start: int = array.__array_interface__["data"][0]
    return start


# --- making views and writing ---------------------------------------------------------------------------------------


def make_view(source: Variable, value: Any, node: Node | None, where: Indices | None) -> Any:
    """The result of an operation that only moves: a view if ``value`` lies in the memory of ``source``, else a copy.

    ``node`` is the node of the result (None for a constant); ``where`` the index of each element in ``source``, found
    from the addresses if it is ever needed and was not given.
    """
    from .variable import wrap_constant, wrap_node

    if not isinstance(value, np.ndarray) or not np.may_share_memory(value, source._value):
        return wrap_constant(value) if node is None else wrap_node(node, value)
    root, seen = source, source._version
    if source._alias is not None:
        root, seen = source._alias.root, source._alias.seen
        inner = source._alias.where
        if where is not None and inner is not None:
            where = tuple(substitute(e, where, value.shape) for e in inner)
        else:
            where = None
    result = wrap_node(node, value)  # type: ignore[arg-type]
    result._alias = Alias(root, where, seen)
    return result


def _root(target: Variable, action: str) -> Variable:
    root = target._alias.root if target._alias is not None else target
    if root._leaf:
        raise recording_error(
            f"A leaf Variable cannot be {action}: its derivative would be that of something else. "
            "Write into a copy (y = x.copy(); y[...] = ...), or change its number with x.data[...] = ..."
        )
    return root


def write(target: Variable, key: Any, rows: Indices, part: Node | None, value: Any) -> None:
    """``target[key] = value``: the number at once, the node (None: all is constant) when somebody reads."""
    root = _root(target, "written to")
    if part is None and root._node is None and root._writes is None:
        target._value[key] = value
        root._version += 1
        return
    if root._writes is None:
        root._writes = Writes(root._value.shape)
    target._value[key] = value
    assert part is not None
    if target is not root:
        assert target._alias is not None
        inner = target._alias.positions(target._value)
        rows = tuple(substitute(e, rows, part.shape) for e in inner)
    root._writes.add(part, rows)
    root._version += 1


def update(target: Variable, ufunc: np.ufunc, other: Any) -> Any:
    """``target op= other``: every alias of ``target`` sees it. NumPy scalars cannot change: they give a new one."""
    from .lift import acceptable, operand, plain_operand
    from .variable import raw, tracked

    if not isinstance(target._value, np.ndarray):
        return UFUNCS[ufunc](target, other)
    if is_complex(other):
        raise recording_error(
            f"An array of real numbers cannot take complex ones in place (numpy.{ufunc.__name__}); write y = a op b."
        )
    if not acceptable(other):
        return NotImplemented
    other = plain_operand(other)
    if target._leaf and target._value.ndim == 0:
        return UFUNCS[ufunc](target, other)  # as for a number of Python
    _root(target, "changed in place")
    computed = UFUNCS[ufunc](target, other)
    if np.shape(raw(computed)) != target._value.shape:
        ufunc(target._value, raw(other), out=target._value)  # NumPy's own error
        raise unsupported(f"numpy.{ufunc.__name__} in place with another shape")
    np.copyto(target._value, raw(computed), casting="same_kind")
    replace(target, operand(computed, target._value.shape, target._value.dtype) if tracked(computed) else None)
    return target


def replace(target: Variable, node: Node | None) -> None:
    """All of ``target``, whose number is there already, is computed by ``node`` from now on."""
    root = _root(target, "changed in place")
    if target is root:
        root._writes = None
        root._node = node
        root._version += 1
        return
    assert target._alias is not None
    where = target._alias.positions(target._value)
    if node is None:
        if root._node is None and root._writes is None:
            root._version += 1
            return
        node = constant_array(np.array(target._value))
    if root._writes is None:
        root._writes = Writes(root._value.shape)
    root._writes.add(node, where)
    root._version += 1
