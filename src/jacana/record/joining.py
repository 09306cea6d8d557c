"""Joining, splitting, padding, repeating: affine pieces wherever NumPy's result is made of affine pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import build
from ..graph.index import Affine, Index, axis, from_table
from ..graph.node import Node
from .creation import astype
from .indexing import offset, plain_key
from .lift import any_tracked, axis_in, call_on_constants, plain_operand
from .location import unsupported
from .movement import along_axis, join, movement, shifted
from .padding import constant_frame, frame
from .reduction import axes_of
from .table import implements
from .variable import Variable, raw, raw_deep, tracked, wrap_constant, wrap_node

_MISSING: Any = np._NoValue


def _parts(arrays: Any) -> list[Any]:
    return [plain_operand(a) for a in arrays]


def _concatenated(parts: Sequence[Any], along: int, value: Any) -> Any:
    rank = value.ndim
    rows: list[tuple[Any, Sequence[Index]]] = []
    start = 0
    for part in parts:
        rows.append((part, shifted(rank, along, start)))
        start += np.shape(raw(part))[along]
    return join(rows, value)


@implements(np.concatenate)
def concatenate(arrays: Any, axis: Any = 0, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Each part at its offset."""
    parts = _parts(arrays)
    value = np.concatenate([raw(p) for p in parts], axis=axis, dtype=dtype, casting=casting)  # type: ignore[call-overload]
    if axis is None:
        parts, axis = [np.ravel(p) for p in parts], 0
    result = _concatenated(parts, int(axis) % value.ndim, value)
    if out is not None:
        out[...] = result
        return out
    return result


@implements(np.stack)
def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Each part at its index of the new axis."""
    parts = _parts(arrays)
    value = np.stack([raw(p) for p in parts], axis=axis, dtype=dtype, casting=casting)  # type: ignore[call-overload]
    along = int(axis) % value.ndim
    rows = []
    for k, part in enumerate(parts):
        plain = [_axis(a) for a in range(value.ndim - 1)]
        rows.append((part, [*plain[:along], offset(k), *plain[along:]]))
    result = join(rows, value)
    if out is not None:
        out[...] = result
        return out
    return result


_axis = axis  # the name is a parameter of most functions here


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Rows on rows."""
    return concatenate([np.atleast_2d(p) for p in _parts(tup)], 0, None, dtype, casting)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Columns beside columns."""
    parts = [np.atleast_1d(p) for p in _parts(tup)]
    return concatenate(parts, 0 if parts and parts[0].ndim == 1 else 1, None, dtype, casting)


@implements(np.dstack)
def dstack(tup: Any) -> Any:
    """Along the third axis."""
    return concatenate([np.atleast_3d(p) for p in _parts(tup)], 2)


@implements(np.column_stack)
def column_stack(tup: Any) -> Any:
    """Vectors as columns."""
    parts = [p if np.ndim(raw(p)) >= 2 else np.reshape(p, (-1, 1)) for p in _parts(tup)]
    return concatenate(parts, 1)


@implements(np.append)
def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """One after the other."""
    arr, values = (a if isinstance(a, Variable) else np.asarray(a) for a in map(plain_operand, (arr, values)))
    return concatenate([arr, values], axis)


@implements(np.block)
def block(arrays: Any) -> Any:
    """A matrix of blocks."""

    def depth_of(nest: Any) -> int:
        return 1 + max(map(depth_of, nest)) if isinstance(nest, list) else 0

    value = np.block(raw_deep(arrays))
    depth = depth_of(arrays)
    rank = max(depth, value.ndim)

    def joined(nest: Any, level: int) -> Any:
        if isinstance(nest, list):
            return concatenate([joined(n, level + 1) for n in nest], rank - depth + level)
        shape = np.shape(raw(nest))
        return np.reshape(nest, (1,) * (rank - len(shape)) + shape)

    result = joined(arrays, 0)
    node = tracked(result)
    return wrap_constant(value) if node is None else wrap_node(node, value)


def _splitter(function: Callable[..., Any], along: int | None) -> Callable[..., Any]:
    def handler(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
        sections = plain_key(indices_or_sections)
        values = function(raw(ary), sections) if along is not None else function(raw(ary), sections, axis)
        k = (axis if along is None else along if np.ndim(raw(ary)) > 1 else 0) % np.ndim(raw(ary))
        pieces: list[Any] = []
        start = 0
        for value in values:
            # Sections may overlap or run backwards; the offset of each follows from its list.
            if not isinstance(sections, (int, np.integer)):
                bounds = [0, *(int(s) for s in sections)]
                start = range(np.shape(raw(ary))[k] + 1)[slice(bounds[len(pieces)], None)].start
            stop = start + value.shape[k]
            pieces.append(ary[(slice(None),) * k + (slice(start, stop),)])
            start = stop
        return pieces

    return handler


implements(np.split)(_splitter(np.split, None))
implements(np.array_split)(_splitter(np.array_split, None))
implements(np.vsplit)(_splitter(np.vsplit, 0))
implements(np.hsplit)(_splitter(np.hsplit, 1))
implements(np.dsplit)(_splitter(np.dsplit, 2))


@implements(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    """A view that runs backwards."""
    rank = np.ndim(raw(m))
    axes = axes_of(axis, rank)
    return m[tuple(slice(None, None, -1) if k in axes else slice(None) for k in range(rank))]


implements(np.fliplr)(lambda m: m[:, ::-1])
implements(np.flipud)(lambda m: m[::-1, ...])


@implements(np.rot90)
def rot90(m: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    """A quarter turn, ``k`` times."""
    match k % 4:
        case 0:
            return m[...]
        case 1:
            return np.swapaxes(flip(m, axes[1]), *axes)
        case 2:
            return flip(flip(m, axes[0]), axes[1])
        case _:
            return flip(np.swapaxes(m, *axes), axes[1])


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """Two slices in turn."""
    value = np.roll(raw(a), shift, axis)
    node = tracked(a)
    if node is None:
        return wrap_constant(value)
    if axis is None:
        flat = build.movement_reshape(node, (node.size,))
        return wrap_node(build.movement_reshape(_rolled(flat, int(np.sum(shift)), 0), value.shape), value)
    for by, k in np.broadcast(shift, axis):
        node = _rolled(node, int(by), axis_in(k, value.ndim))
    return wrap_node(node, value)


def _rolled(node: Node, by: int, along: int) -> Node:
    n = node.shape[along]
    return along_axis(node, along, np.roll(np.arange(n), by)) if n else node


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:
    """Copies side by side."""
    value = np.tile(raw(A), reps)
    node = tracked(A)
    if node is None:
        return wrap_constant(value)
    counts = tuple(int(r) for r in np.atleast_1d(reps))
    rank = max(len(counts), node.ndim)
    counts = (1,) * (rank - len(counts)) + counts
    shape = (1,) * (rank - node.ndim) + node.shape
    pairs = tuple(n for pair in zip(counts, shape, strict=True) for n in pair)
    first = rank - node.ndim
    spread = build.broadcast_axes(node, pairs, [2 * (first + k) + 1 for k in range(node.ndim)])
    return wrap_node(build.movement_reshape(spread, value.shape), value)


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element several times."""
    repeats = plain_key(repeats)
    value = np.repeat(raw(a), repeats, axis)
    node = tracked(a)
    if node is None:
        return wrap_constant(value)
    if axis is None:
        node, axis = build.movement_reshape(node, (node.size,)), 0
    k = int(axis) % node.ndim
    if np.ndim(repeats) == 0 or np.size(repeats) == 1:
        count = int(np.asarray(repeats).reshape(()))
        shape = (*node.shape[: k + 1], count, *node.shape[k + 1 :])
        spread = build.broadcast_axes(node, shape, [j if j <= k else j + 1 for j in range(node.ndim)])
        return wrap_node(build.movement_reshape(spread, value.shape), value)
    table = np.repeat(np.arange(node.shape[k]), repeats)
    return wrap_node(along_axis(node, k, table), value)


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **options: Any) -> Any:
    """A frame around an array."""
    if tracked(array) is None and not any_tracked(tuple(options.values())):
        return call_on_constants(np.pad, (array, pad_width, mode), options)
    value = np.pad(raw(array), pad_width, mode, **raw_deep(options))
    rank = np.ndim(raw(array))
    if isinstance(pad_width, dict):
        widths = [(0, 0)] * rank
        for k, w in pad_width.items():
            widths[k] = (w, w) if isinstance(w, int) else w
    else:
        widths = np.broadcast_to(pad_width, (rank, 2)).tolist()
    if mode == "constant":
        fills = options.get("constant_values", 0)
        if any_tracked((fills,)):
            framed = constant_frame(array, widths, fills)
            return wrap_node(build.cast_to(framed.node, value.dtype), value)
        base = np.pad(np.zeros(np.shape(raw(array)), value.dtype), pad_width, mode, **options)
        result = wrap_constant(base)
        result[tuple(slice(b, b + n) for (b, _), n in zip(widths, np.shape(raw(array)), strict=True))] = array
        return result
    if mode == "empty":
        return pad(array, pad_width, constant_values=np.nan)
    node = tracked(array)
    if mode not in ("edge", "reflect", "symmetric", "wrap") or options.get("reflect_type", "even") != "even":
        framed = frame(array, widths, mode, options)
        return wrap_node(build.cast_to(framed.node, value.dtype), value)
    assert node is not None
    for k, width in enumerate(widths):
        node = along_axis(node, k, np.pad(np.arange(node.shape[k]), tuple(width), mode))
    return wrap_node(node, value)


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = _MISSING, append: Any = _MISSING) -> Any:
    """Differences of neighbours."""
    rank = np.ndim(raw(a))
    k = axis_in(axis, rank)
    ends = []
    for end in (prepend, append):
        if end is not _MISSING:
            end = plain_operand(end)
            if np.ndim(raw(end)) == 0:
                end = np.broadcast_to(end, tuple(1 if j == k else m for j, m in enumerate(np.shape(raw(a)))))
            ends.append(end)
        else:
            ends.append(None)
    if any(end is not None for end in ends):
        a = concatenate([p for p in (ends[0], a, ends[1]) if p is not None], k)
    lead = (slice(None),) * k
    for _ in range(n):
        later, earlier = a[(*lead, slice(1, None))], a[(*lead, slice(None, -1))]
        a = np.not_equal(later, earlier) if a.dtype == np.bool_ else later - earlier
    return a


@implements(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """Differences of the flattened array."""
    inner = diff(np.ravel(ary))
    dtype = raw(ary).dtype
    ends = [e if e is None else np.ravel(_of_dtype(plain_operand(e), dtype)) for e in (to_begin, to_end)]
    parts = [p for p in (ends[0], inner, ends[1]) if p is not None]
    return inner if len(parts) == 1 else concatenate(parts)


def _of_dtype(value: Any, dtype: Any) -> Any:
    return astype(value, dtype) if isinstance(value, Variable) else np.asarray(value, dtype)


@implements(np.take)
def take(a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str = "raise") -> Any:
    """Integer indexing along one axis."""
    indices = plain_key(indices)
    if mode != "raise":
        n = np.size(raw(a)) if axis is None else np.shape(raw(a))[axis]
        indices = np.mod(indices, n) if mode == "wrap" else np.clip(indices, 0, n - 1)
    if axis is None:
        a, axis = np.ravel(a), 0
    k = axis_in(axis, np.ndim(raw(a)))
    key = indices if np.ndim(indices) == 0 else np.asarray(indices, dtype=np.int64 if np.size(indices) == 0 else None)
    if tracked(a) is None:
        result = wrap_constant(np.take(raw(a), key, k))
    else:
        result = a[(slice(None),) * k + (key,)]
        if np.ndim(key) == 0:
            result = np.copy(result)
    if out is not None:
        out[...] = result
        return out
    return result


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    """One index along the axis for each other position."""
    if axis is None:
        arr, axis = np.ravel(arr), 0
    indices = np.asarray(plain_key(indices))
    rank = np.ndim(raw(arr))
    k = axis_in(axis, rank)
    key: list[Any] = []
    for j in range(rank):
        shape = [1] * rank
        shape[j] = -1
        key.append(indices if j == k else np.arange(np.shape(raw(arr))[j]).reshape(shape))
    return arr[tuple(key)]


@implements(np.compress)
def compress(condition: Any, a: Any, axis: int | None = None, out: Any = None) -> Any:
    """The slices where a condition of one axis holds."""
    return take(a, np.flatnonzero(np.asarray(plain_key(condition))), axis, out)


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """All but some slices."""
    if axis is None:
        arr, axis = np.ravel(arr), 0
    k = axis_in(axis, np.ndim(raw(arr)))
    kept = np.delete(np.arange(np.shape(raw(arr))[k]), plain_key(obj))
    node = tracked(arr)
    value = np.delete(raw(arr), plain_key(obj), axis)
    return wrap_constant(value) if node is None else wrap_node(along_axis(node, k, kept), value)


@implements(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """Elements of both at the places that NumPy says, told by numbering them."""
    where = plain_key(obj)
    value = np.insert(raw_deep(arr), where, raw_deep(values), axis)
    arr, values = plain_operand(arr), plain_operand(values)
    count = int(np.size(raw(arr)))
    codes = np.arange(count).reshape(np.shape(raw(arr)))
    new = np.arange(count, count + int(np.size(raw(values)))).reshape(np.shape(raw(values)))
    source = concatenate([_of_dtype(np.ravel(v), value.dtype) for v in (arr, values)])
    result = source[np.asarray(np.insert(codes, where, new, axis))]
    node = tracked(result)
    return wrap_constant(value) if node is None else wrap_node(node, value)


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements whose two indices differ by ``offset``, along a new last axis."""
    value = np.diagonal(raw(a), offset, axis1, axis2)
    rank = np.ndim(raw(a))
    first, second = axis_in(axis1, rank), axis_in(axis2, rank)
    rest = iter(range(rank - 2))
    indices: list[Index] = []
    for k in range(rank):
        if k in (first, second):
            start = max(-offset, 0) if k == first else max(offset, 0)
            indices.append(Affine(start, ((rank - 2, 1),)))
        else:
            indices.append(_axis(next(rest)))
    return movement(a, value, lambda node: build.index_node(node, value.shape, indices))


@implements(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(x: Any, window_shape: Any, axis: Any = None, **options: Any) -> Any:
    """Windows as further axes: position plus place in the window."""
    value = np.lib.stride_tricks.sliding_window_view(raw(x), window_shape, axis, **options)
    rank = np.ndim(raw(x))
    windows = tuple(window_shape) if isinstance(window_shape, (tuple, list)) else (window_shape,)
    axes = range(rank) if axis is None else [axis_in(k, rank) for k in (axis if isinstance(axis, tuple) else (axis,))]
    strides: list[dict[int, int]] = [{k: 1} for k in range(rank)]
    for place, k in enumerate(axes[: len(windows)]):
        strides[k][rank + place] = 1
    indices = [Affine(0, tuple(sorted(s.items()))) for s in strides]
    return movement(x, value, lambda node: build.index_node(node, value.shape, indices))


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """The diagonal of a matrix, or the diagonal matrix of a vector."""
    if np.ndim(raw(v)) != 1:
        return np.copy(diagonal(v, k)) if tracked(v) is not None else wrap_constant(np.diag(raw(v), k))
    value = np.diag(raw(v), k)
    node = tracked(v)
    if node is None:
        return wrap_constant(value)
    rows = (Affine(max(-k, 0), ((0, 1),)), Affine(max(k, 0), ((0, 1),)))
    return wrap_node(build.assembled([(node, rows)], value.shape, value.dtype, disjoint=True), value)


@implements(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """The diagonal of a matrix, in place."""
    if not isinstance(a, Variable) or a.ndim != 2 or wrap:
        raise unsupported("numpy.fill_diagonal of anything but a recorded matrix")
    n = min(a.shape)
    values = np.ravel(plain_operand(val))
    count = np.size(raw(values))
    a[np.arange(n), np.arange(n)] = values[np.arange(n) % count] if count != 1 else values[0]


implements(np.diagflat)(lambda v, k=0: diag(np.ravel(v), k))


def _triangle(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(m: Any, k: int = 0) -> Any:
        value = function(raw(m), k)
        node = tracked(m)
        if node is None:
            return wrap_constant(value)
        if node.ndim == 1:
            node = build.broadcast_to(node, value.shape)
        # What is cut off is structurally zero: only the rest is written.
        rows, columns = np.nonzero(function(np.ones(node.shape[-2:], dtype=bool), k))
        lead = node.ndim - 2
        expressions = (
            *(_axis(j) for j in range(lead)), from_table(rows, (lead,)), from_table(columns, (lead,))
        )  # fmt: skip
        part = build.index_node(node, (*node.shape[:-2], len(rows)), expressions)
        return wrap_node(build.assembled([(part, expressions)], value.shape, value.dtype, disjoint=True), value)

    return handler


implements(np.triu)(_triangle(np.triu))
implements(np.tril)(_triangle(np.tril))
