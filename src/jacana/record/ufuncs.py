"""The methods of ufuncs: plain calls with their options, ``reduce``, ``accumulate``, ``outer``, ``at``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .complex import part_of
from .creation import astype
from .indexing import scatter_add
from .lift import any_tracked, call_on_constants
from .location import recording_error, unsupported
from .table import UFUNCS, ComplexBase, call_complex, call_function, is_complex
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
        raise unsupported(f"numpy.{ufunc.__name__}(..., where=...)", "Use np.where on the result.")
    if dtype is not None and np.dtype(dtype).kind == "c":
        inputs = tuple(astype(x, dtype) if type(x) is Variable else x for x in inputs)
    if any(map(is_complex, inputs)):
        result = call_complex(ufunc, inputs, options)
        return result if out is None else _write(ufunc, result, out)
    handler = UFUNCS.get(ufunc)
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
    """``np.add.accumulate`` is ``np.cumsum``."""
    if ufunc is not np.add:
        return call_on_constants(ufunc.accumulate, (array, axis), {})
    result = call_function(np.cumsum, (array,), {"axis": axis, "dtype": dtype})
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


def reduceat(ufunc: np.ufunc, *args: Any, **options: Any) -> Any:
    """No rule."""
    return call_on_constants(ufunc.reduceat, args, options)


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
