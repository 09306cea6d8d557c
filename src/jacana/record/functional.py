"""Functions that take functions, functions that write into arrays, and the index tricks ``np.r_`` and ``np.c_``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.index import unraveled
from .composed import as_numpy
from .creation import astype
from .indexing import plain_key
from .iterators import arange
from .lift import any_tracked, axis_in, call_on_constants, plain_operand
from .location import called_by, recording_error, unsupported
from .table import implements
from .variable import Variable, raw, raw_deep, tracked, wrap_constant, wrap_node


def moved_by_codes(function: Callable[..., Any], value: Any, *arrays: Any) -> Any:
    """What a function does that only moves elements: told by running it on the numbers of the elements."""
    sizes = [int(np.size(raw_deep(a))) for a in arrays]
    starts = np.cumsum([0, *sizes])
    codes = [
        np.arange(start, start + n).reshape(np.shape(raw_deep(a)))
        for a, n, start in zip(arrays, sizes, starts, strict=False)
    ]
    source = np.concatenate([np.ravel(a) for a in arrays])
    return as_numpy(value, source[np.asarray(function(*codes))])


# --- functions of functions -------------------------------------------------------------------------------------


@implements(np.apply_along_axis)
def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """One call for each line, put together; what a call returns takes the place of the axis."""
    rank = np.ndim(raw(arr))
    axis = axis_in(axis, rank)
    lines = np.moveaxis(arr, axis, -1)
    shape = np.shape(raw(lines))[:-1]
    if 0 in shape:
        raise ValueError("Cannot apply_along_axis when any iteration dimensions are 0")
    results = [plain_operand(func1d(lines[place], *args, **kwargs)) for place in np.ndindex(*shape)]
    found = np.shape(raw_deep(results[0]))
    stacked = np.reshape(np.stack(results), (*shape, *found))
    order = [*range(axis), *range(len(shape), len(shape) + len(found)), *range(axis, len(shape))]
    return np.transpose(stacked, order)


@implements(np.apply_over_axes)
def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Any:
    """The function over one axis after another, axes kept."""
    rank = np.ndim(raw(a))
    for axis in np.ravel(np.asarray(axes)):
        result = func(a, axis_in(axis, rank))
        a = result if np.ndim(raw_deep(result)) == rank else np.expand_dims(result, axis_in(axis, rank))
    return a


@implements(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Any:
    """Each function on the elements where its condition holds, which is guarded."""
    given = condlist if isinstance(condlist, (list, tuple)) else [condlist]
    if np.ndim(raw_deep(given[0])) == 0 and np.ndim(raw(x)) > 0:
        given = [given]
    masks = [np.broadcast_to(np.asarray(plain_key(np.not_equal(plain_operand(c), 0))), np.shape(raw(x))) for c in given]
    if len(funclist) == len(masks) + 1:
        masks.append(~np.logical_or.reduce(masks))
    elif len(funclist) != len(masks):
        raise ValueError(
            f"with {len(masks)} condition(s), either {len(masks)} or {len(masks) + 1} functions are expected"
        )
    result: Any = wrap_constant(np.zeros_like(raw(x)))
    for mask, function in zip(masks, funclist, strict=True):
        if not mask.any():
            continue
        part = function(x[mask], *args, **kw) if callable(function) else function
        if np.ndim(raw(x)):
            result[mask] = part
        else:
            result[...] = np.reshape(part, ())
    return result


def vectorized(vectorize: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A call of ``np.vectorize(f)`` on Variables: one call of f for each element, or each core array."""
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    varied = {k: plain_operand(a) for k, a in given.items() if k not in vectorize.excluded}
    shapes = {k: np.shape(raw_deep(a)) for k, a in varied.items()}
    cores: dict[Any, tuple[str, ...]] = dict.fromkeys(varied, ())
    if vectorize.signature is not None:
        if len(args) < len(given):
            raise unsupported("numpy.vectorize with a signature and keywords", "Give the arguments by position.")
        before = vectorize.signature.partition("->")[0]
        names = [
            tuple(n for n in core.replace(" ", "").split(",") if n) for core in re.findall(r"\(([^()]*)\)", before)
        ]
        cores = dict(zip(varied, names, strict=True))
    sizes: dict[str, int] = {}
    leads = []
    for k, core in cores.items():
        shape = shapes[k]
        split = len(shape) - len(core)
        if split < 0 or any(sizes.setdefault(n, size) != size for n, size in zip(core, shape[split:], strict=True)):
            raise ValueError(f"argument of shape {shape} does not match the signature {vectorize.signature!r}")
        leads.append(shape[:split])
    lead = np.broadcast_shapes(*leads)
    spread = {k: np.broadcast_to(a, (*lead, *shapes[k][len(shapes[k]) - len(cores[k]) :])) for k, a in varied.items()}
    results: list[Any] = []
    for place in np.ndindex(*lead):
        chosen = {k: spread[k][place] if k in spread else a for k, a in given.items()}
        named = {k: a for k, a in chosen.items() if isinstance(k, str)}
        results.append(vectorize.pyfunc(*(chosen[k] for k in range(len(args))), **named))
    if not results:
        raise ValueError("cannot call `vectorize` on size 0 inputs unless `otypes` is set")

    def together(parts: Sequence[Any]) -> Any:
        stacked = np.stack([np.asarray(r) if tracked(r) is None else r for r in map(plain_operand, parts)])
        return np.reshape(stacked, (*lead, *np.shape(raw_deep(stacked))[1:]))

    if isinstance(results[0], tuple):
        return tuple(together(column) for column in zip(*results, strict=True))
    return together(results)


def _part(original: Callable[..., Any], trick: Any, part: Any) -> Any:
    """One of the parts of ``np.r_[...]`` as an array; ``a:b:5j`` are five numbers from a to b."""
    if not isinstance(part, slice):
        return plain_operand(part)
    start, stop, step = 0 if part.start is None else part.start, part.stop, 1 if part.step is None else part.step
    if not any_tracked((start, stop, step)):
        return original(trick, part).ravel()
    if isinstance(step, complex):
        return np.linspace(start, stop, int(abs(step)))
    return arange(np.arange, start, stop, step)


def joined_by_trick(original: Callable[..., Any], trick: Any, key: Any) -> Any:
    """``np.r_[...]`` and ``np.c_[...]`` with Variables among the parts."""
    parts = list(key) if isinstance(key, tuple) else [key]
    head = [p for p in parts if isinstance(p, str)]
    arrays = [_part(original, trick, p) for p in parts if not isinstance(p, str)]
    value = original(trick, (*head, *(raw_deep(a) for a in arrays)))
    return moved_by_codes(lambda *codes: original(trick, (*head, *codes)), value, *arrays)


@implements(np.ix_)
def ix_(*args: Any) -> tuple[Any, ...]:
    """Each vector along an axis of its own; truth values as the places where they hold."""
    found = []
    for k, value in enumerate(args):
        value = plain_operand(value)
        if np.ndim(raw_deep(value)) != 1:
            raise ValueError("Cross index must be 1 dimensional")
        if raw_deep(value).dtype == np.bool_:
            (value,) = np.nonzero(value)
        found.append(np.reshape(value, tuple(-1 if j == k else 1 for j in range(len(args)))))
    return tuple(found)


@implements(np.unravel_index)
def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Any, ...]:
    """The coordinates of positions: integers, guarded where they are used."""
    np.unravel_index(raw(indices), shape, order)  # type: ignore[call-overload]  # its errors
    sizes = [int(n) for n in np.ravel(np.asarray(raw_deep(shape)))]
    found, step = [], 1
    for size in reversed(sizes) if order == "C" else sizes:
        found.append(np.remainder(np.floor_divide(indices, step), size))
        step *= size
    return tuple(reversed(found) if order == "C" else found)


# --- functions that write ---------------------------------------------------------------------------------------


def _target(a: Any, name: str) -> Variable:
    if not isinstance(a, Variable):
        raise recording_error(
            f"numpy.{name} cannot write a Variable into a plain ndarray. "
            "Make the array inside the recorded function with np.zeros(...)."
        )
    return a


def _repeated(values: Any, count: int) -> Any:
    values = np.ravel(plain_operand(values))
    return values[np.arange(count) % max(np.size(raw_deep(values)), 1)]


@implements(np.put)
def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    """``a.flat[ind] = v``, with the values repeated as needed."""
    target = _target(a, "put")
    size, shape = int(np.size(raw(target))), np.shape(raw(target))
    places = np.ravel(np.asarray(plain_key(ind)))
    if mode == "raise":
        if places.size and (places.min() < -size or places.max() >= size):
            worst = int(places[(places < -size) | (places >= size)][0])
            raise IndexError(f"index {worst} is out of bounds for axis 0 with size {size}")
        places = places % max(size, 1)
    else:
        places = np.clip(places, 0, size - 1) if mode == "clip" else places % size
    if places.size:
        target[unraveled(places, shape)] = _repeated(v, places.size)


@implements(np.place)
def place(arr: Any, mask: Any, vals: Any) -> None:
    """The first values go where the mask holds, which is guarded."""
    target = _target(arr, "place")
    where = np.nonzero(np.asarray(plain_key(mask)))
    if len(where[0]):
        target[where] = _repeated(vals, len(where[0]))


@implements(np.putmask)
def putmask(a: Any, /, mask: Any, values: Any) -> None:
    """Each masked element takes the value at its own position, values repeated as needed."""
    target = _target(a, "putmask")
    where = np.asarray(plain_key(mask))
    spread = np.reshape(_repeated(values, int(np.size(raw(target)))), np.shape(raw(target)))
    target[...] = np.where(where, spread, target)


@implements(np.put_along_axis)
def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    """The inverse of ``take_along_axis``."""
    target = _target(arr, "put_along_axis")
    places = np.asarray(plain_key(indices))
    if axis is None:
        target[unraveled(places, np.shape(raw(target)))] = values
        return
    key: list[Any] = list(np.ix_(*(np.arange(n) for n in places.shape)))
    key[axis % places.ndim] = places
    target[tuple(key)] = values


# --- order ------------------------------------------------------------------------------------------------------


@implements(np.partition)
def partition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Any:
    """A gather in the order that NumPy finds."""
    if tracked(a) is None:
        return wrap_constant(np.partition(raw(a), kth, axis))
    if axis is None:
        a, axis = np.ravel(a), -1
    result: Any = np.take_along_axis(a, argpartition(a, kth, axis), axis)
    return wrap_node(result.node, np.partition(raw(a), kth, axis))  # whose memory is in the order of what was sorted


@implements(np.argpartition)
def argpartition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Any:
    """Integers, which depend on the order of all values and on which are equal: both are guarded."""
    if tracked(a) is not None:
        values, along = (np.ravel(a), -1) if axis is None else (a, axis)
        order = plain_key(np.argsort(values, axis=along, kind="stable"))
        ordered = np.moveaxis(np.take_along_axis(values, order, along), along, -1)
        plain_key(np.equal(ordered[..., 1:], ordered[..., :-1]))
    return np.argpartition(raw(a), kth, axis)


@implements(np.unique)
def unique(
    ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False, axis: Any = None,
    **options: Any,
) -> Any:  # fmt: skip
    """The sorted different values: a gather; the order and which values are equal are guarded."""
    flags = {"return_index": return_index, "return_inverse": return_inverse, "return_counts": return_counts}
    if tracked(ar) is None:
        return call_on_constants(np.unique, (ar,), {**flags, "axis": axis, **options})
    if axis is not None:
        raise unsupported("numpy.unique(..., axis=...)")
    found: Any = np.unique(raw(ar), **flags, **options)  # type: ignore[call-overload]
    flat = np.ravel(ar)
    ordered = flat[np.argsort(flat, kind="stable")]
    plain_key(np.equal(ordered[1:], ordered[:-1]))
    first = np.unique(raw(flat), return_index=True, **options)[1]
    values = flat[first]
    return (values, *found[1:]) if isinstance(found, tuple) else values


@implements(np.union1d)
def union1d(ar1: Any, ar2: Any) -> Any:
    """The different values of both."""
    return np.unique(np.concatenate((np.ravel(plain_operand(ar1)), np.ravel(plain_operand(ar2)))))


@implements(np.trim_zeros)
def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Any:
    """A slice; which elements are zero is guarded."""
    if axis is not None or np.ndim(raw_deep(filt)) != 1:
        raise unsupported("numpy.trim_zeros of more than one axis")
    filt = plain_operand(filt)
    if tracked(filt) is not None and called_by("poly1d"):
        return filt  # a leading coefficient that is zero now, and by which there is a derivative
    (places,) = np.nonzero(filt)
    count = np.shape(raw_deep(filt))[0]
    start = int(places[0]) if len(places) else count
    stop = int(places[-1]) + 1 if len(places) else (0 if "f" not in trim else count)
    return filt[(start if "f" in trim.lower() else 0) : (stop if "b" in trim.lower() else count)]


@implements(np.resize)
def resize(a: Any, new_shape: Any) -> Any:
    """The elements again and again until the shape is full."""
    value = np.resize(raw_deep(a), new_shape)
    return moved_by_codes(lambda codes: np.resize(codes, new_shape), value, plain_operand(a))


@implements(np.sort_complex)
def sort_complex(a: Any) -> Any:
    """Sorted, as complex numbers."""
    return astype(np.sort(a), np.result_type(raw(a).dtype, np.complex64))


@implements(np.packbits)
def packbits(a: Any, /, axis: Any = None, bitorder: str = "big") -> Any:
    """Eight truth values in one integer."""
    value = np.packbits(raw(a), axis, bitorder)  # type: ignore[call-overload]
    bits = np.not_equal(a, 0).astype(np.int64)
    bits, k = (np.ravel(bits), 0) if axis is None else (bits, axis)
    moved = np.moveaxis(bits, k, -1)
    missing = -np.shape(raw(moved))[-1] % 8
    moved = np.pad(moved, [*[(0, 0)] * (np.ndim(raw(moved)) - 1), (0, missing)])
    eights = np.reshape(moved, (*np.shape(raw(moved))[:-1], -1, 8))
    weights = 2 ** np.arange(8)
    packed = np.sum(eights * (weights if bitorder == "little" else weights[::-1]), axis=-1)
    return as_numpy(value, np.moveaxis(packed, -1, k))


@implements(np.unpackbits)
def unpackbits(a: Any, /, axis: Any = None, count: Any = None, bitorder: str = "big") -> Any:
    """The bits of integers."""
    value = np.unpackbits(raw(a), axis, count, bitorder)  # type: ignore[call-overload]
    numbers, k = (np.ravel(a), 0) if axis is None else (a, axis)
    moved = np.moveaxis(numbers, k, -1).astype(np.int64)
    places = np.arange(8)
    bits = np.right_shift(moved[..., None], places if bitorder == "little" else places[::-1])
    spread = np.reshape(np.bitwise_and(bits, 1), (*np.shape(raw(moved))[:-1], -1))
    length = np.shape(value)[k]
    short = length - np.shape(raw(spread))[-1]
    if short > 0:
        spread = np.pad(spread, [*[(0, 0)] * (np.ndim(raw(spread)) - 1), (0, short)])
    return as_numpy(value, np.moveaxis(spread[..., :length], -1, k))


# --- running results --------------------------------------------------------------------------------------------


def running_fold(ufunc: np.ufunc, a: Any, axis: int = 0) -> Any:
    """``np.maximum.accumulate`` and others: one application after another."""
    value = ufunc.accumulate(raw(a), axis=axis)
    moved = np.moveaxis(a, axis, 0)
    rows = [moved[0]]
    for k in range(1, np.shape(raw(moved))[0]):
        rows.append(ufunc(rows[-1], moved[k]))
    return as_numpy(value, np.moveaxis(np.stack(rows), 0, axis))


__all__ = ["joined_by_trick", "moved_by_codes", "running_fold", "vectorized"]
