"""The methods of ufuncs: plain calls with their options, ``reduce``, ``accumulate``, ``outer``, ``at``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .complex import part_of
from .composed import as_numpy
from .creation import astype
from .functional import running_extremum
from .indexing import plain_key, scatter_add
from .lift import any_tracked, call_on_constants
from .location import recording_error, unsupported
from .table import FUNCTIONS, UFUNCS, ComplexBase, Handler, call_complex, call_function, is_complex
from .variable import UFUNC_METHODS, Variable, raw, raw_deep, wrap_constant

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
        result = call_complex(ufunc, inputs, options)
        return result if out is None else _write(ufunc, result, out)
    handler = UFUNCS.get(ufunc) or _of_scipy(ufunc)
    if handler is None:
        if any_tracked(inputs):
            raise unsupported(f"the ufunc {ufunc.__name__}")
        return wrap_constant(ufunc(*(raw(x) for x in inputs), dtype=dtype, **options))
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
        raise unsupported(f"numpy.{ufunc.__name__}(..., where=...) without out", "Use np.where on the result.")
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
    """``np.add.reduce`` and the others that have a function of their own."""
    function = _REDUCTIONS.get(ufunc)
    if function is None or options:
        if any_tracked((array,)):
            raise unsupported(f"numpy.{ufunc.__name__}.reduce" + (f" with {', '.join(options)}" if options else ""))
        return call_on_constants(ufunc.reduce, (array, axis), {"keepdims": keepdims, **options})
    more = {"dtype": dtype} if dtype is not None and function in (np.sum, np.prod) else {}
    result = call_function(function, (array,), {"axis": axis, "keepdims": keepdims, **more})
    return result if out is None else _write(ufunc, result, out)


def accumulate(ufunc: np.ufunc, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
    """``np.add.accumulate`` is ``np.cumsum``, and so on."""
    if ufunc in (np.add, np.multiply):
        running = np.cumsum if ufunc is np.add else np.cumprod
        result = call_function(running, (array,), {"axis": axis, "dtype": dtype})
    elif ufunc in (np.maximum, np.minimum, np.fmax, np.fmin) and any_tracked((array,)):
        result = running_extremum(ufunc, array, axis)
    else:
        return call_on_constants(ufunc.accumulate, (array, axis), {})
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
        raise unsupported(f"numpy.{ufunc.__name__}.at")


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
