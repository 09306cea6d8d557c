"""The methods of ufuncs: plain calls with their options, ``reduce``, ``accumulate``, ``outer``, ``at``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.index import unraveled
from .complex import part_of
from .composed import as_numpy
from .creation import astype
from .functional import running_fold
from .indexing import plain_key, scatter_add
from .lift import any_tracked, call_on_constants, plain_operand
from .location import recording_error, unsupported
from .reduction import axes_of
from .table import COMPLEX_UFUNCS, FUNCTIONS, UFUNCS, ComplexBase, Handler, call_complex, call_function, is_complex
from .variable import UFUNC_METHODS, Variable, raw, raw_deep, tracked, wrap_constant

_MISSING: Any = np._NoValue
_REDUCTIONS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: np.sum,
    np.multiply: np.prod,
    np.maximum: np.max,
    np.minimum: np.min,
    np.logical_and: np.all,
    np.logical_or: np.any,
}


def call(ufunc: np.ufunc, *inputs: Any, out: Any = None, where: Any = True, dtype: Any = None, **options: Any) -> Any:
    """``ufunc(*inputs)``."""
    if where is not True:
        return _where(ufunc, inputs, out, where, {"dtype": dtype, **options})
    if dtype is not None and np.dtype(dtype).kind == "c":
        inputs = tuple(astype(x, dtype) if type(x) is Variable else x for x in inputs)
    if any(map(is_complex, inputs)):
        if ufunc not in COMPLEX_UFUNCS:
            _of_scipy(ufunc)
        result = call_complex(ufunc, inputs, options)
        return result if out is None else _write(ufunc, result, out)
    handler = UFUNCS.get(ufunc) or _of_scipy(ufunc)
    if handler is None:
        if not any_tracked(inputs):
            return wrap_constant(ufunc(*(raw(x) for x in inputs), dtype=dtype, **options))
        if set(ufunc.types) == {"O" * ufunc.nin + "->" + "O" * ufunc.nout}:
            return _of_python(ufunc, inputs)
        raise unsupported(f"the ufunc {ufunc.__name__}")
    if "axes" in options and any_tracked(inputs):
        result = _moved(ufunc, inputs, options.pop("axes"), {"dtype": dtype, **options})
        return result if out is None else _write(ufunc, result, out)
    # The casting rule has been applied by then; memory order and subclasses make no difference to a node.
    further = {k: v for k, v in options.items() if k not in ("casting", "order", "subok")}
    if further and ufunc is not np.vecdot:
        raise unsupported(f"numpy.{ufunc.__name__}(..., {', '.join(f'{k}=...' for k in further)})")
    if dtype is not None:
        inputs = tuple(astype(x, dtype) if type(x) is Variable else x for x in inputs)
    result = handler(*inputs, **further)
    if out is None:
        return result
    return _write(ufunc, result, out)


def _of_python(ufunc: np.ufunc, inputs: Sequence[Any]) -> Any:
    """``np.frompyfunc(f, ...)``: one call of f for each element, on Variables."""
    operands = [plain_operand(x) for x in inputs]
    shape = np.broadcast_shapes(*(np.shape(raw_deep(x)) for x in operands))
    objects = []
    for x in operands:
        spread = np.broadcast_to(x, shape)
        elements = np.empty(shape, dtype=object)
        for place in np.ndindex(*shape):
            elements[place] = spread[place]
        objects.append(elements)
    results = ufunc(*objects)
    stacked = []
    for result in results if isinstance(results, tuple) else (results,):
        parts = [plain_operand(v) for v in np.ravel(result)] if type(result) is np.ndarray else [result]
        stacked.append(np.reshape(np.stack([p if tracked(p) is not None else np.asarray(p) for p in parts]), shape))
    return tuple(stacked) if isinstance(results, tuple) else stacked[0]


def _moved(ufunc: np.ufunc, inputs: Sequence[Any], axes: Sequence[Any], options: dict[str, Any]) -> Any:
    """``axes=[...]``: where the core axes of operands and result are."""
    places = [(a,) if isinstance(a, (int, np.integer)) else tuple(a) for a in axes]
    moved = [
        np.moveaxis(plain_operand(x), at, range(-len(at), 0)) for x, at in zip(inputs, places, strict=False)
    ]  # fmt: skip
    result = call(ufunc, *moved, **options)
    if len(places) == len(inputs):
        return result
    return np.moveaxis(result, range(-len(places[-1]), 0), places[-1]) if places[-1] else result


def _of_scipy(ufunc: np.ufunc) -> Handler | None:
    """The rule of a ufunc of ``scipy.special``; its module is large, so the rules are read when they are needed."""
    if "scipy.special" not in sys.modules:
        return None
    importlib.import_module(".special", __package__)
    return UFUNCS.get(ufunc)


def _where(ufunc: np.ufunc, inputs: Sequence[Any], out: Any, where: Any, options: dict[str, Any]) -> Any:
    """Only some elements are computed and written; without ``out`` the others would be whatever memory holds."""
    (target,) = out if isinstance(out, tuple) else (out,)
    if target is None:
        raise unsupported(
            f"numpy.{ufunc.__name__}(..., where=...) without out",
            "The elements left out would hold whatever memory does: give out=, or use np.where on the result.",
        )
    return _write(ufunc, FUNCTIONS[np.where](where, call(ufunc, *inputs, **options), target), target)


def _write(ufunc: np.ufunc, result: Any, out: Any) -> Any:
    results = result if isinstance(result, tuple) else (result,)
    written = []
    for target, part in zip(out if isinstance(out, tuple) else (out,), results, strict=True):
        if target is None:
            written.append(part)
            continue
        if not isinstance(target, (Variable, ComplexBase)):
            raise recording_error(
                f"numpy.{ufunc.__name__} cannot write a Variable into a plain ndarray (out=, or an in-place operator "
                "on an ndarray). Make the array inside the recorded function with np.zeros(...), or use y = a + b "
                "instead of a += b."
            )
        target[...] = part  # type: ignore[index]
        written.append(target)
    return written[0] if len(written) == 1 else tuple(written)


def reduce(
    ufunc: np.ufunc, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False,
    **options: Any,
) -> Any:  # fmt: skip
    """``np.add.reduce`` and the others that have a function of their own; the rest one element after another."""
    function = _REDUCTIONS.get(ufunc)
    array = plain_operand(array)
    if options.get("initial", _MISSING) is _MISSING:
        options.pop("initial", None)
    if options.get("where", True) is True:
        options.pop("where", None)
    if not any_tracked((array, *options.values())) and not any(map(is_complex, (array, *options.values()))):
        options = {"dtype": dtype, "keepdims": keepdims, **options}
        result = call_on_constants(ufunc.reduce, (array, axis), options)
    elif function is None or (options and (is_complex(array) or function in (np.all, np.any))):
        result = _fold(ufunc, array, axis, dtype, keepdims, **options)
    else:
        more = {"dtype": dtype} if dtype is not None and function in (np.sum, np.prod) else {}
        result = call_function(function, (array,), {"axis": axis, "keepdims": keepdims, **more, **options})
    return result if out is None else _write(ufunc, result, out)


def _fold(
    ufunc: np.ufunc, array: Any, axis: Any, dtype: Any, keepdims: bool, initial: Any = None, where: Any = True
) -> Any:  # fmt: skip
    """One element after another; where the mask does not hold, the result so far stays."""
    if ufunc.nin != 2 or ufunc.nout != 1:
        raise ValueError("reduce only supported for binary functions")
    shape = np.shape(raw(array))
    axes = axes_of(axis, len(shape))
    given = {} if initial is None else {"initial": raw_deep(initial)}
    reduce: Any = ufunc.reduce
    value = reduce(raw_deep(array), axis, dtype, None, keepdims, where=raw_deep(where), **given)
    kept = [n for k, n in enumerate(shape) if k not in axes]
    lines = np.reshape(np.moveaxis(array, axes, range(len(axes))), (-1, *kept))
    mask = None
    if where is not True:
        mask = np.moveaxis(np.broadcast_to(plain_operand(where), shape), axes, range(len(axes)))
        mask = np.reshape(mask, np.shape(raw(lines)))
    if dtype is not None:
        lines = astype(lines, dtype)
    start = initial if initial is not None else ufunc.identity if mask is not None else None
    first = 0
    if start is None:
        start, first = lines[0], 1
    result: Any = start
    for k in range(first, np.shape(raw_deep(lines))[0]):
        step = call(ufunc, result, lines[k])
        result = step if mask is None else np.where(mask[k], step, result)
    # NumPy itself gets a few of these wrong where it has vector loops (power, arctan2): only the shape is taken.
    return np.reshape(plain_operand(result), np.shape(value)).astype(np.asarray(value).dtype)


def accumulate(ufunc: np.ufunc, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
    """``np.add.accumulate`` is ``np.cumsum``, and so on."""
    array = plain_operand(array)
    if ufunc in (np.add, np.multiply):
        running = np.cumsum if ufunc is np.add else np.cumprod
        result = call_function(running, (array,), {"axis": axis, "dtype": dtype})
    elif any_tracked((array,)) and ufunc.nin == 2 and not is_complex(array):
        result = running_fold(ufunc, array if dtype is None else astype(array, dtype), axis)
    else:
        result = call_on_constants(ufunc.accumulate, (array, axis, dtype), {})
    return result if out is None else _write(ufunc, result, out)


def outer(ufunc: np.ufunc, a: Any, b: Any, **options: Any) -> Any:
    """All pairs of elements."""
    rank = np.ndim(raw_deep(b))
    a = np.reshape(a, np.shape(raw_deep(a)) + (1,) * rank)
    return call(ufunc, a, b, **options)


def at(ufunc: np.ufunc, target: Any, key: Any, *values: Any) -> None:
    """``np.add.at`` and ``np.subtract.at``: scatter with addition."""
    if isinstance(target, ComplexBase) and ufunc in (np.add, np.subtract):
        for k, part in enumerate((target.real, target.imag)):  # type: ignore[attr-defined]
            at(ufunc, part, key, part_of(values[0], k))
        return
    if not isinstance(target, Variable):
        raise recording_error(
            f"numpy.{ufunc.__name__}.at cannot write a Variable into a plain ndarray. "
            "Make the array inside the recorded function with np.zeros(...)."
        )
    if ufunc is np.add:
        scatter_add(target, key, values[0])
    elif ufunc is np.subtract:
        scatter_add(target, key, np.negative(values[0]))
    else:
        _one_by_one(ufunc, target, key, values)


def _one_by_one(ufunc: np.ufunc, target: Variable, key: Any, values: Sequence[Any]) -> None:
    """Any other ufunc: all first occurrences of a place, then all second ones, and so on."""
    shape = np.shape(raw(target))
    chosen = np.arange(int(np.prod(shape))).reshape(shape)[plain_key(key)]
    places = np.ravel(chosen)
    operands = [np.ravel(np.broadcast_to(plain_operand(v), np.shape(chosen))) for v in values]
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    occurrence = np.empty(len(places), dtype=int)
    occurrence[order] = np.arange(len(places)) - np.repeat(starts, np.diff([*starts, len(places)]))
    for turn in range(int(occurrence.max(initial=-1)) + 1):
        (now,) = np.nonzero(occurrence == turn)
        where = unraveled(places[now], shape)
        target[where] = call(ufunc, target[where], *(v[now] for v in operands))


def reduceat(ufunc: np.ufunc, array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
    """A reduction for each slice between two indices; a single element where they do not increase."""
    if not any_tracked((array,)):
        return call_on_constants(ufunc.reduceat, (array, indices, axis), {"dtype": dtype})
    starts = np.asarray(plain_key(indices)).tolist()
    moved = np.moveaxis(array, axis, 0)
    count = np.shape(raw(moved))[0]
    for k in starts:
        if not 0 <= k < count:
            raise IndexError(f"index {k} out-of-bounds in {ufunc.__name__}.reduceat [0, {count})")
    ends = [*starts[1:], count]
    pieces = [
        reduce(ufunc, moved[i:j], axis=0, dtype=dtype) if i < j else moved[i] for i, j in zip(starts, ends, strict=True)
    ]
    value = ufunc.reduceat(raw(array), starts, axis=axis, dtype=dtype)
    result = as_numpy(value, np.moveaxis(np.stack(pieces), 0, axis))
    return result if out is None else _write(ufunc, result, out)


UFUNC_METHODS.update(
    {
        "__call__": call,
        "reduce": reduce,
        "accumulate": accumulate,
        "outer": outer,
        "at": at,
        "reduceat": reduceat,
    }
)
